# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: what has to be written so that the kernel has what is desired - in order, and nothing when all is in place.

The order: on the way down the endpoint goes first, on the way up it comes last. The kernel tries an endpoint once for
each connection and never again, so its address, routes and rules have to be there before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from itertools import takewhile

from ..model.flags import CHANGEABLE, EndpointFlag
from ..model.state import (
    MAIN_TABLE,
    MARKS,
    Action,
    Desired,
    Endpoint,
    Family,
    Kernel,
    LeakingSubflows,
    Limits,
    LinkdownSetting,
    Marks,
    Operation,
    Ours,
    RedundantSubflows,
    Route,
    RouteType,
    Rule,
    RuleAction,
)
from .failover_routes import has_detours
from .identity_cache import remembered
from .source_routing import defaults, rank

_WITHOUT_TRACE = frozenset({Action.DELETE, Action.CLOSE_ALL, Action.CLOSE_REDUNDANT})


def plan(desired: Desired, kernel: Kernel, ours: Ours) -> tuple[Operation, ...]:
    """The operations that lead from what the kernel has to what is desired, touching only what is ours."""
    _, _, new = _endpoints(desired, kernel, ours)
    new_routes, old_routes = _routes(desired.routes, kernel, desired.marks)
    new_rules, old_rules = _rules(desired.rules, kernel, desired.marks)
    settings = list(_linkdown(desired.linkdown, kernel, ours))
    return (
        *urgent(desired, kernel, ours),
        *(() if _forbids(desired, kernel) else _limits(desired.limits, kernel)),
        *new_routes,
        # Their routes were ignored until other ways led around them.
        *(Operation(Action.SET, setting) for setting in settings if not setting.ignored),
        *new_rules,
        *(Operation(Action.ADD, endpoint) for endpoint in new),
        *(Operation(Action.DELETE, rule) for rule in old_rules if rule.source not in desired.close_all),
        *old_routes,
    )


def urgent(desired: Desired, kernel: Kernel, ours: Ours) -> tuple[Operation, ...]:
    """What :func:`plan` begins with, all that a loss is in a hurry for; however many routes changed it costs nothing."""
    gone, changed, _ = _endpoints(desired, kernel, ours)
    _, old_rules = _rules(desired.rules, kernel, desired.marks)
    return (
        # What goes around a full tunnel ends first of all; then nothing that is bound to an address leads around it.
        *(_limits(desired.limits, kernel) if _forbids(desired, kernel) else ()),
        *_cut(desired),
        *(Operation(Action.DELETE, rule) for rule in old_rules if rule.source in desired.close_all),
        *_severed(desired),
        *(Operation(Action.DELETE, endpoint) for endpoint in gone),
        *(Operation(Action.DELETE, Endpoint(address)) for address in sorted(desired.close_initial_subflows)),
        *(Operation(Action.SET_FLAGS, endpoint) for endpoint in changed),
        *(Operation(Action.SET, setting) for setting in _linkdown(desired.linkdown, kernel, ours) if setting.ignored),
    )


def count_unrecorded(operations: Iterable[Operation], withdrawn: Set[Endpoint]) -> int:
    """How many operations from the first on leave nothing behind that the record has to tell of, should we end after them.

    What is deleted and was ours is nobody's; only what is ``withdrawn`` of NetworkManager's is to be put back one day.
    """
    keys = {endpoint.key for endpoint in withdrawn}

    def harmless(operation: Operation) -> bool:
        value = operation.value
        return operation.action in _WITHOUT_TRACE and not (isinstance(value, Endpoint) and value.key in keys)

    return sum(1 for _ in takewhile(harmless, operations))


def needed(
    kernel: Kernel, ours: Ours, connections: Mapping[frozenset[str], int] | None, marks: Marks = MARKS
) -> frozenset[str]:
    """The addresses with an endpoint or rules of ours on which live connections stand that stand on no others.

    ``connections``: how many stand on exactly these addresses; None where nobody knows, and all may be needed.
    """
    mine = {endpoint.address for endpoint in kernel.endpoints if ours.owns(endpoint)}
    mine |= {rule.source for rule in kernel.rules if rule.source and marks.on_rule(rule)}
    if connections is None:
        return frozenset(mine)
    return frozenset[str]().union(*(places for places in connections if places <= mine))


def restore(
    kernel: Kernel, ours: Ours, marks: Marks = MARKS, kept: frozenset[str] = frozenset()
) -> tuple[Operation, ...]:
    """The operations that put back what was there before us; a limit only where it still holds what we wrote.

    For ``kept`` addresses the endpoint stays, and the rules and tables that lead packets; not what rejects them: we are not
    there any more to take that away when the address comes back another day.
    """
    have = {"subflows": kernel.limits.subflows, "add_addr_accepted": kernel.limits.add_addr_accepted}
    before = {
        name: ours.limits[name].original if name in ours.limits and ours.limits[name].applied == value else value
        for name, value in have.items()
    }
    back = {endpoint for endpoint in ours.withdrawn if kernel.has_address_of(endpoint)}
    back |= {replace(each, id=0) for each in kernel.endpoints if each.address in kept and ours.owns(each)}
    rules = tuple(rule for rule in kernel.rules if rule.source in kept and marks.on_rule(rule) and not _ends(rule))
    tables = {rule.table for rule in rules if marks.on_table(rule.table)}
    routes = {
        place: frozenset(route for route in group if route.type is RouteType.UNICAST and marks.on_route(route))
        for place, group in kernel.routes.items()
        if place[0] in tables
    }
    wanted = Desired(endpoints=frozenset(back), routes=routes, rules=rules, limits=Limits(**before), marks=marks)
    return plan(wanted, kernel, ours)


def _cut(desired: Desired) -> Iterable[Operation]:
    if desired.close_all:
        yield Operation(Action.CLOSE_ALL, LeakingSubflows(desired.close_all, desired.tunnels))


def _severed(desired: Desired) -> Iterable[Operation]:
    if desired.close_redundant:
        yield Operation(Action.CLOSE_REDUNDANT, RedundantSubflows(desired.close_redundant, desired.lost_addresses))


def _linkdown(wanted: frozenset[tuple[Family, int]], kernel: Kernel, ours: Ours) -> Iterable[LinkdownSetting]:
    """Settings to write: where it is wanted and not ours to leave alone, and back where we wrote it and it still holds."""
    for place in sorted(wanted | ours.linkdown):
        link = kernel.links.get(place[1])
        have = kernel.linkdown_ignored.get(place)
        if link is None or have is None:
            continue
        if place in wanted and not have and place not in ours.linkdown:
            yield LinkdownSetting(*place, link.name, True)
        elif place not in wanted and have:
            yield LinkdownSetting(*place, link.name, False)


def _forbids(desired: Desired, kernel: Kernel) -> bool:
    return desired.limits is not None and desired.limits.subflows < kernel.limits.subflows


def _limits(wanted: Limits | None, kernel: Kernel) -> Iterable[Operation]:
    if wanted is not None and wanted != kernel.limits:
        yield Operation(Action.SET, wanted)


def _endpoints(desired: Desired, kernel: Kernel, ours: Ours) -> tuple[list[Endpoint], list[Endpoint], list[Endpoint]]:
    """Endpoints to delete, to change in place, and to add.

    An address that somebody else's endpoint stands on is left to it (the kernel would refuse a second one; with a port it
    stands beside ours); an implicit endpoint is the kernel's own and gives way, though not where the table is full: then
    it goes before. What is NetworkManager's goes only while it is suspended, or is renewed.
    """
    wishes = {wish.address: wish for wish in desired.endpoints}
    taken = {endpoint.key for endpoint in desired.withdrawn}
    gone: list[Endpoint] = []
    changed: list[Endpoint] = []
    settled: set[str] = set()
    yielding: set[str] = set()
    for endpoint in kernel.endpoints:
        wish = wishes.get(endpoint.address)
        mine = ours.owns(endpoint)
        if endpoint.port and not mine:
            if wish and wish.port == endpoint.port:
                settled.add(endpoint.address)
        elif endpoint.key in taken or endpoint in desired.stale:
            gone.append(endpoint)
        elif endpoint.address in desired.renewed and (not mine or (wish and wish.key == endpoint.key)):
            gone.append(endpoint)
            wishes[endpoint.address] = wish or replace(endpoint, id=0)
        elif not mine:
            (yielding if endpoint.flags & EndpointFlag.IMPLICIT else settled).add(endpoint.address)
        elif wish is None or wish.key != endpoint.key or (wish.flags ^ endpoint.flags) & ~CHANGEABLE:
            gone.append(endpoint)
        else:
            settled.add(endpoint.address)
            if wish.flags != endpoint.flags:
                changed.append(replace(endpoint, flags=wish.flags))
    # Each takes an RCU grace period: the family that new connections would leave by goes first. It is looked up also while
    # nothing is to go: then it is known already when something is.
    used = {
        family
        for (table, _), routes in kernel.routes.items()
        if table == MAIN_TABLE
        for family in defaults(routes, desired.marks)
    }
    gone.sort(key=lambda endpoint: (endpoint.family not in used, endpoint.id))
    # What takes an implicit one's place comes first: the kernel wants a free one for the exchange.
    order = sorted(wishes.keys() - settled, key=lambda address: (address not in yielding, address))
    new = [wishes[address] for address in order]
    return gone, changed, new


#: Family, source and priority: the rules of one address are asked in the order in which they were added.
_Block = tuple[Family, str | None, int]


def _rules(wanted: tuple[Rule, ...], kernel: Kernel, marks: Marks) -> tuple[list[Operation], list[Rule]]:
    """Operations that bring the rules of each address, and the rules that are left over, in the order in which they go.

    The kernel appends a rule to those of its priority. So where one is missing in the midst, or somebody else's stands
    behind ours at the same priority, what is there moves behind it one by one; the end goes first and comes last, so that
    meanwhile nothing is rejected that would be routed.
    """
    have = _standing(kernel.rules, marks)
    blocks: dict[_Block, list[Rule]] = {}
    for rule in wanted:
        blocks.setdefault((rule.family, rule.source, rule.priority), []).append(rule)
    bring: list[Operation] = []
    for block, rules in blocks.items():
        there, last = have.get(block, _NO_RULES)
        if last and rules[: len(there)] == list(there):
            bring += [Operation(Action.ADD, rule) for rule in rules[len(there) :]]
        else:
            bring += _moved(there, rules)
    take = [rule for block, (rules, _) in have.items() if block not in blocks for rule in rules]
    return bring, sorted(take, key=_on_the_way_down)


_NO_RULES: tuple[tuple[Rule, ...], bool] = ((), True)


@remembered(objects=1)
def _standing(rules: tuple[Rule, ...], marks: Marks) -> Mapping[_Block, tuple[tuple[Rule, ...], bool]]:
    """Our rules by address, in their order, and whether nobody else's of the same priority stands behind them."""
    found: dict[_Block, tuple[tuple[Rule, ...], bool]] = {}
    for rule in rules:
        if marks.on_rule(rule):
            block = (rule.family, rule.source, rule.priority)
            found[block] = (*found.get(block, _NO_RULES)[0], rule), True
    behind: set[tuple[Family, int]] = set()
    for rule in reversed(rules):
        if not marks.on_rule(rule):
            behind.add((rule.family, rule.priority))
        elif (rule.family, rule.priority) in behind:
            block = (rule.family, rule.source, rule.priority)
            found[block] = found[block][0], False
    return found


def in_order(rules: tuple[Rule, ...], wanted: Iterable[Rule], source: str, marks: Marks) -> bool:
    """Whether an address's rules stand in this order, behind all others of their priority."""
    mine = [rule for rule in wanted if rule.source == source]
    blocks = {block: those for block, those in _standing(rules, marks).items() if block[1] == source}
    return [rule for those, _ in blocks.values() for rule in those] == mine and all(last for _, last in blocks.values())


def _moved(there: tuple[Rule, ...], wanted: list[Rule]) -> Iterable[Operation]:
    """What makes the rules of an address stand in this order behind all others of their priority."""
    old = list(there)
    for rule in filter(_ends, there):
        old.remove(rule)
        yield Operation(Action.DELETE, rule)
    for rule in wanted:
        if rule in old:
            old.remove(rule)
            yield Operation(Action.REPLACE, rule)
        else:
            yield Operation(Action.ADD, rule)
        for other in [each for each in old if rank(each) == rank(rule)]:
            old.remove(other)
            yield Operation(Action.DELETE, other)


def _on_the_way_down(rule: Rule) -> tuple[object, ...]:
    """The end goes first. Where priorities are equal the kernel deletes the first that matches, and one that is told without
    ``suppress_prefixlength`` matches its twin with it as well (``rule_find``): that twin goes before.
    """
    return (not _ends(rule), -rule.priority, rank(rule), rule.family, rule.source or "", rule.table)


def _ends(rule: Rule) -> bool:
    """Whether a look-up ends there, come what may."""
    return rule.action is not RuleAction.TO_TABLE


def _routes(
    wanted: Mapping[tuple[int, int], frozenset[Route]], kernel: Kernel, marks: Marks
) -> tuple[list[Operation], list[Operation]]:
    """Operations that bring routes, and those that take them away, for all our tables and their interfaces."""
    bring: list[Operation] = []
    take: list[Operation] = []
    # An interface's own routes come before the end of its table, and go after it.
    standing = {
        place for place, routes in kernel.routes.items() if marks.on_table(place[0]) or has_detours(routes, marks)
    }
    for place in sorted(wanted.keys() | standing, key=_end_last):
        new, old = _difference(wanted.get(place, _NONE), kernel.routes.get(place, ()), marks)
        bring += new
        take = [*old, *take]
    return bring, take


_NONE: frozenset[Route] = frozenset()


def _end_last(place: tuple[int, int]) -> tuple[int, bool, int]:
    table, ifindex = place
    return (table, ifindex == 0, ifindex)


@remembered(objects=2)
def _difference(
    wanted: frozenset[Route], standing: tuple[Route, ...], marks: Marks
) -> tuple[tuple[Operation, ...], tuple[Operation, ...]]:
    """What brings the wanted routes of one table and interface, and what takes away those of ours that are not.

    On-link prefixes come first and go last, since gateways are reached by them. A route that takes another's place in the
    kernel replaces it in one step on IPv4; IPv6 would take the place of a sibling as well, so there the old one is deleted
    just before. Any other new route comes before the old ones go.
    """
    have = {route for route in standing if marks.on_route(route)}
    old = {_place(route): route for route in have - wanted}

    def order(route: Route) -> tuple[object, ...]:
        hops = [(hop.ifindex, hop.gateway or "") for hop in route.hops]
        via = any(gateway for _, gateway in hops)
        return (route.family, via, route.destination, route.metric, route.tos, hops)

    bring: list[Operation] = []
    for route in sorted(wanted - have, key=order):
        replaced = old.pop(_place(route), None)
        if replaced is not None and route.family is Family.IPV4:
            bring.append(Operation(Action.REPLACE, route))
            continue
        if replaced is not None:
            bring.append(Operation(Action.DELETE, replaced))
        bring.append(Operation(Action.ADD, route))
    gone = sorted(old.values(), key=order, reverse=True)
    return tuple(bring), tuple(Operation(Action.DELETE, route) for route in gone)


def _place(route: Route) -> tuple[object, ...]:
    """What a route is known by in the kernel: there is one of each (``fib_table_insert``, ``fib6_add_rt2node``)."""
    place: tuple[object, ...] = (route.table, route.destination, route.tos, route.metric)
    if route.family is Family.IPV4:
        return place
    return (*place, *((hop.ifindex, hop.gateway) for hop in route.hops))
