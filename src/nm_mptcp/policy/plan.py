# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: the ordered operations that lead from the kernel's state to the desired one; none if they are equal.

An endpoint is deleted before, and added after, its routes and rules: the kernel tries an endpoint once for each connection and
never again, so its routes and rules must be in place before.
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
    ReversePathSetting,
    Route,
    RouteType,
    Rule,
    RuleAction,
)
from .failover_routes import has_failover_routes
from .identity_cache import cached_by_identity
from .source_routing import defaults, rank

#: Actions that leave nothing in the kernel.
_WITHOUT_TRACE = frozenset({Action.DELETE, Action.CLOSE_ALL, Action.CLOSE_REDUNDANT})


def plan(desired: Desired, kernel: Kernel, ours: Ours) -> tuple[Operation, ...]:
    """The operations that lead from the kernel's state to the desired one, changing only what is ours."""
    _, _, new = _endpoints(desired, kernel, ours)
    new_routes, old_routes = _routes(desired.routes, kernel, desired.marks)
    new_rules, old_rules = _rules(desired.rules, kernel, desired.marks)
    settings = list(_linkdown(desired.linkdown, kernel, ours))
    loosened, restored = _reverse_path(desired.loosened, kernel, ours)
    return (
        *urgent(desired, kernel, ours),
        *loosened,
        *(() if _forbids(desired, kernel) else _limits(desired.limits, kernel)),
        *new_routes,
        # Their routes were ignored until the failover routes were in place.
        *(Operation(Action.SET, setting) for setting in settings if not setting.ignored),
        *new_rules,
        *restored,
        *(Operation(Action.ADD, endpoint) for endpoint in new),
        *(Operation(Action.DELETE, rule) for rule in old_rules if rule.source not in desired.close_all),
        *old_routes,
    )


def urgent(desired: Desired, kernel: Kernel, ours: Ours) -> tuple[Operation, ...]:
    """The first operations of :func:`plan`: those that a lost link requires at once. They need no comparison of routes."""
    gone, changed, _ = _endpoints(desired, kernel, ours)
    _, old_rules = _rules(desired.rules, kernel, desired.marks)
    return (
        # First the subflows that bypass a full tunnel, then the rules by which bound sockets would bypass it.
        *(_limits(desired.limits, kernel) if _forbids(desired, kernel) else ()),
        *_close_all(desired),
        *(Operation(Action.DELETE, rule) for rule in old_rules if rule.source in desired.close_all),
        *_close_redundant(desired),
        *(Operation(Action.DELETE, endpoint) for endpoint in gone),
        *(Operation(Action.DELETE, Endpoint(address)) for address in sorted(desired.close_initial_subflows)),
        *(Operation(Action.SET_FLAGS, endpoint) for endpoint in changed),
        *(Operation(Action.SET, setting) for setting in _linkdown(desired.linkdown, kernel, ours) if setting.ignored),
    )


def count_unrecorded(operations: Iterable[Operation], withdrawn: Set[Endpoint]) -> int:
    """How many of the first operations may be executed before the record is written, even if the process ends after them.

    A delete of what was ours leaves nothing to restore; one of a ``withdrawn`` endpoint of NetworkManager's does.
    """
    keys = {endpoint.key for endpoint in withdrawn}

    def leaves_nothing(operation: Operation) -> bool:
        value = operation.value
        return operation.action in _WITHOUT_TRACE and not (isinstance(value, Endpoint) and value.key in keys)

    return sum(1 for _ in takewhile(leaves_nothing, operations))


def needed(
    kernel: Kernel, ours: Ours, connections: Mapping[frozenset[str], int] | None, marks: Marks = MARKS
) -> frozenset[str]:
    """The addresses, with an endpoint or rules of ours, of live connections that have subflows on no other addresses.

    ``connections`` is :attr:`Snapshot.connections`; None: all may be needed.
    """
    mine = {endpoint.address for endpoint in kernel.endpoints if ours.owns(endpoint)}
    mine |= {rule.source for rule in kernel.rules if rule.source and marks.on_rule(rule)}
    if connections is None:
        return frozenset(mine)
    return frozenset[str]().union(*(places for places in connections if places <= mine))


def restore(
    kernel: Kernel, ours: Ours, marks: Marks = MARKS, kept: frozenset[str] = frozenset()
) -> tuple[Operation, ...]:
    """The operations that restore the state before us; a limit only if it still has the value that we wrote.

    For ``kept`` addresses the endpoint, the rules and the tables stay, except the rule that rejects packets: no service would
    delete it when the address returns later.
    """
    have = {"subflows": kernel.limits.subflows, "add_addr_accepted": kernel.limits.add_addr_accepted}
    before = {
        name: ours.limits[name].original if name in ours.limits and ours.limits[name].applied == value else value
        for name, value in have.items()
    }
    back = {endpoint for endpoint in ours.withdrawn if kernel.has_address_of(endpoint)}
    back |= {replace(each, id=0) for each in kernel.endpoints if each.address in kept and ours.owns(each)}
    rules = tuple(rule for rule in kernel.rules if rule.source in kept and marks.on_rule(rule) and not _rejects(rule))
    tables = {rule.table for rule in rules if marks.on_table(rule.table)}
    routes = {
        place: frozenset(route for route in group if route.type is RouteType.UNICAST and marks.on_route(route))
        for place, group in kernel.routes.items()
        if place[0] in tables
    }
    wanted = Desired(endpoints=frozenset(back), routes=routes, rules=rules, limits=Limits(**before), marks=marks)
    return plan(wanted, kernel, ours)


def _close_all(desired: Desired) -> Iterable[Operation]:
    if desired.close_all:
        yield Operation(Action.CLOSE_ALL, LeakingSubflows(desired.close_all, desired.tunnels))


def _close_redundant(desired: Desired) -> Iterable[Operation]:
    if desired.close_redundant:
        yield Operation(Action.CLOSE_REDUNDANT, RedundantSubflows(desired.close_redundant, desired.lost_addresses))


def _linkdown(wanted: frozenset[tuple[Family, int]], kernel: Kernel, ours: Ours) -> Iterable[LinkdownSetting]:
    """The settings to write: set where wanted, reset where we set it. Unchanged where another program reset it meanwhile."""
    for place in sorted(wanted | ours.linkdown):
        link = kernel.links.get(place[1])
        have = kernel.linkdown_ignored.get(place)
        if link is None or have is None:
            continue
        if place in wanted and not have and place not in ours.linkdown:
            yield LinkdownSetting(*place, link.name, True)
        elif place not in wanted and have:
            yield LinkdownSetting(*place, link.name, False)


def _reverse_path(wanted: frozenset[int], kernel: Kernel, ours: Ours) -> tuple[list[Operation], list[Operation]]:
    """The operations that make ``rp_filter`` loose where it is strict, and those that restore it where we did so. Unchanged
    where another program set it meanwhile.
    """

    def operations(ifindexes: Iterable[int], *, loose: bool) -> list[Operation]:
        there = (kernel.links[ifindex] for ifindex in sorted(ifindexes) if ifindex in kernel.links)
        return [Operation(Action.SET, ReversePathSetting(link.index, link.name, loose)) for link in there]

    return (
        operations((wanted & kernel.strict) - ours.loosened, loose=True),
        operations(ours.loosened - wanted, loose=False),
    )


def _forbids(desired: Desired, kernel: Kernel) -> bool:
    return desired.limits is not None and desired.limits.subflows < kernel.limits.subflows


def _limits(wanted: Limits | None, kernel: Kernel) -> Iterable[Operation]:
    if wanted is not None and wanted != kernel.limits:
        yield Operation(Action.SET, wanted)


def _endpoints(desired: Desired, kernel: Kernel, ours: Ours) -> tuple[list[Endpoint], list[Endpoint], list[Endpoint]]:
    """The endpoints to delete, to change in place, and to add.

    No endpoint is added on an address with another program's, which the kernel would refuse (except beside one with a port).
    An implicit endpoint is replaced by ours; only if the kernel's table is full it is deleted before (``stale``).
    NetworkManager's endpoints are deleted only while they are withdrawn, or to be renewed.
    """
    wanted = {endpoint.address: endpoint for endpoint in desired.endpoints}
    withdrawn = {endpoint.key for endpoint in desired.withdrawn}
    gone: list[Endpoint] = []
    changed: list[Endpoint] = []
    settled: set[str] = set()
    implicit: set[str] = set()
    for endpoint in kernel.endpoints:
        new = wanted.get(endpoint.address)
        mine = ours.owns(endpoint)
        if endpoint.port and not mine:
            if new and new.port == endpoint.port:
                settled.add(endpoint.address)
        elif endpoint.key in withdrawn or endpoint in desired.stale:
            gone.append(endpoint)
        elif endpoint.address in desired.renewed and (not mine or (new and new.key == endpoint.key)):
            gone.append(endpoint)
            wanted[endpoint.address] = new or replace(endpoint, id=0)
        elif not mine:
            (implicit if endpoint.flags & EndpointFlag.IMPLICIT else settled).add(endpoint.address)
        elif new is None or new.key != endpoint.key or (new.flags ^ endpoint.flags) & ~CHANGEABLE:
            gone.append(endpoint)
        else:
            settled.add(endpoint.address)
            if new.flags != endpoint.flags:
                changed.append(replace(endpoint, flags=new.flags))
    # Each delete takes an RCU grace period, so a family with a default route, which new connections use, comes first. This is
    # computed also while nothing is to be deleted, so that it is cached when something is.
    used = {
        family
        for (table, _), routes in kernel.routes.items()
        if table == MAIN_TABLE
        for family in defaults(routes, desired.marks)
    }
    gone.sort(key=lambda endpoint: (endpoint.family not in used, endpoint.id))
    # Those that replace an implicit one come first: the kernel needs a free slot for the exchange.
    order = sorted(wanted.keys() - settled, key=lambda address: (address not in implicit, address))
    return gone, changed, [wanted[address] for address in order]


#: Family, source and priority: the kernel evaluates the rules of one address in the order of their addition.
_Block = tuple[Family, str | None, int]


def _rules(wanted: tuple[Rule, ...], kernel: Kernel, marks: Marks) -> tuple[list[Operation], list[Rule]]:
    """The operations that complete the rules of each address, and the rules to delete, in their order.

    The kernel appends a rule to those of its priority. So if one of ours is missing before others, or another program's is
    behind ours at the same priority, ours are moved to the end one by one. The rejecting rule is deleted first and added last,
    so that no packet is rejected meanwhile that would be routed.
    """
    have = _own_rules_by_address(kernel.rules, marks)
    blocks: dict[_Block, list[Rule]] = {}
    for rule in wanted:
        blocks.setdefault((rule.family, rule.source, rule.priority), []).append(rule)
    operations: list[Operation] = []
    for block, rules in blocks.items():
        present, last = have.get(block, _NO_RULES)
        if last and rules[: len(present)] == list(present):
            operations += [Operation(Action.ADD, rule) for rule in rules[len(present) :]]
        elif last and [rule for rule in present if rule in rules] == rules:
            operations += [Operation(Action.DELETE, rule) for rule in present if rule not in rules]
        else:
            operations += _moved(present, rules)
    old = [rule for block, (rules, _) in have.items() if block not in blocks for rule in rules]
    return operations, sorted(old, key=_deletion_order)


_NO_RULES: tuple[tuple[Rule, ...], bool] = ((), True)


@cached_by_identity(objects=1)
def _own_rules_by_address(rules: tuple[Rule, ...], marks: Marks) -> Mapping[_Block, tuple[tuple[Rule, ...], bool]]:
    """Our rules by address, in their order, and whether no other program's rule of the same priority is behind them."""
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
    """Whether our rules of an address are the wanted ones, in their order, behind all others of their priority."""
    mine = [rule for rule in wanted if rule.source == source]
    blocks = [block for key, block in _own_rules_by_address(rules, marks).items() if key[1] == source]
    return [rule for block, _ in blocks for rule in block] == mine and all(last for _, last in blocks)


def _moved(present: tuple[Rule, ...], wanted: list[Rule]) -> Iterable[Operation]:
    """The operations that move the rules of an address behind all others of their priority, in this order."""
    old = list(present)
    for rule in filter(_rejects, present):
        old.remove(rule)
        yield Operation(Action.DELETE, rule)
    for rule in wanted:
        if rule in old:
            old.remove(rule)
            yield Operation(Action.REPLACE, rule)
        else:
            yield Operation(Action.ADD, rule)
        # At once: a later delete would match the new rule with suppress_prefixlength.
        for other in [each for each in old if rank(each) == rank(rule) and (each == rule or each not in wanted)]:
            old.remove(other)
            yield Operation(Action.DELETE, other)
    yield from (Operation(Action.DELETE, rule) for rule in old)


def _deletion_order(rule: Rule) -> tuple[object, ...]:
    """The sort key for deletes: the rejecting rule first, then by rank.

    The kernel deletes the first rule that matches, and a request without ``suppress_prefixlength`` also matches a rule with it
    (``rule_find``): so that one is deleted before.
    """
    return (not _rejects(rule), -rule.priority, rank(rule), rule.family, rule.source or "", rule.table)


def _rejects(rule: Rule) -> bool:
    """Whether a rule ends every look-up that reaches it."""
    return rule.action is not RuleAction.TO_TABLE


def _routes(
    wanted: Mapping[tuple[int, int], frozenset[Route]], kernel: Kernel, marks: Marks
) -> tuple[list[Operation], list[Operation]]:
    """The operations that add or replace routes, and those that delete them, for all our tables and their interfaces."""
    new: list[Operation] = []
    old: list[Operation] = []
    present = {
        place
        for place, routes in kernel.routes.items()
        if marks.on_table(place[0]) or (place[0] == MAIN_TABLE and has_failover_routes(routes, marks))
    }
    for place in sorted(wanted.keys() | present, key=_addition_order):
        added, deleted = _difference(wanted.get(place, _NONE), kernel.routes.get(place, ()), marks)
        new += added
        old = [*deleted, *old]
    return _with_replacements(new, old)


def _with_replacements(new: list[Operation], old: list[Operation]) -> tuple[list[Operation], list[Operation]]:
    """These operations, an IPv4 route with the key of an old one, on whatever interface, replacing it in one step: as long as
    the old one is there, the kernel refuses the new one.
    """
    gone = {
        _place(route): route for each in old if isinstance(route := each.value, Route) and route.family is Family.IPV4
    }
    moved = {
        route: gone[_place(route)]
        for each in (new if gone else ())
        if each.action is Action.ADD and isinstance(route := each.value, Route) and _place(route) in gone
    }
    replaced = set(moved.values())
    return (
        [Operation(Action.REPLACE, each.value) if each.value in moved else each for each in new],
        [each for each in old if each.value not in replaced],
    )


_NONE: frozenset[Route] = frozenset()


def _addition_order(place: tuple[int, int]) -> tuple[int, bool, int]:
    """The sort key of a table and interface: routes without an interface (unreachable, ...) come last in their table."""
    table, ifindex = place
    return (table, ifindex == 0, ifindex)


@cached_by_identity(objects=2)
def _difference(
    wanted: frozenset[Route], present: tuple[Route, ...], marks: Marks
) -> tuple[tuple[Operation, ...], tuple[Operation, ...]]:
    """The operations that add the wanted routes of one table and interface, and those that delete our other ones.

    On-link prefixes are added first and deleted last, as the gateways are reached by them. An old IPv6 route with the key of a
    wanted one is deleted just before, since to replace it would replace its siblings as well. All other deletes come after the
    additions.
    """
    have = {route for route in present if marks.on_route(route)}
    old = {_place(route): route for route in have - wanted}

    def order(route: Route) -> tuple[object, ...]:
        hops = [(hop.ifindex, hop.gateway or "") for hop in route.hops]
        via = any(gateway for _, gateway in hops)
        return (route.family, via, route.destination, route.metric, route.tos, hops)

    added: list[Operation] = []
    for route in sorted(wanted - have, key=order):
        if route.family is Family.IPV6 and (before := old.pop(_place(route), None)):
            added.append(Operation(Action.DELETE, before))
        added.append(Operation(Action.ADD, route))
    gone = sorted(old.values(), key=order, reverse=True)
    return tuple(added), tuple(Operation(Action.DELETE, route) for route in gone)


def _place(route: Route) -> tuple[object, ...]:
    """The key of a route, of which the kernel has one each (``fib_table_insert``, ``fib6_add_rt2node``)."""
    place: tuple[object, ...] = (route.table, route.destination, route.tos, route.metric)
    if route.family is Family.IPV4:
        return place
    return (*place, *((hop.ifindex, hop.gateway) for hop in route.hops))
