# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: what has to be written so that the kernel has what is desired - in order, and nothing when all is in place.

The order: on the way down the endpoint goes first, on the way up it comes last. The kernel tries an endpoint once for
each connection and never again, so its address, routes and rules have to be there before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from itertools import takewhile

from .detours import has_detours
from .flags import CHANGEABLE, EndpointFlag
from .memory import remembered
from .model import (
    MAIN_TABLE,
    MARKS,
    Action,
    Cut,
    Desired,
    Endpoint,
    Family,
    Kernel,
    Limits,
    LinkdownSetting,
    Marks,
    Operation,
    Ours,
    Route,
    Rule,
    Severance,
)
from .tables import defaults, own_rules
from .values import replace

_WITHOUT_TRACE = frozenset({Action.DELETE, Action.CUT, Action.SEVER})


def plan(desired: Desired, kernel: Kernel, ours: Ours) -> tuple[Operation, ...]:
    """The operations that lead from what the kernel has to what is desired, touching only what is ours."""
    gone, changed, new = _endpoints(desired, kernel, ours)
    new_routes, old_routes = _routes(desired.routes, kernel, desired.marks)
    new_rules, old_rules = _rules(desired.rules, kernel, desired.marks)
    settings = list(_linkdown(desired.linkdown, kernel, ours))
    limits = list(_limits(desired.limits, kernel))
    forbidding = desired.limits is not None and desired.limits.subflows < kernel.limits.subflows
    return (
        # What goes around a full tunnel ends first of all; then nothing that is bound to an address leads around it.
        *(limits if forbidding else ()),
        *_cut(desired),
        *(Operation(Action.DELETE, rule) for rule in old_rules if rule.source in desired.cut),
        *_severed(desired),
        *(Operation(Action.DELETE, endpoint) for endpoint in gone),
        *(Operation(Action.DELETE, Endpoint(address)) for address in sorted(desired.unseated)),
        *(Operation(Action.SET_FLAGS, endpoint) for endpoint in changed),
        *(Operation(Action.SET, setting) for setting in settings if setting.ignored),
        *(() if forbidding else limits),
        *new_routes,
        # Their routes were ignored until other ways led around them.
        *(Operation(Action.SET, setting) for setting in settings if not setting.ignored),
        *(Operation(Action.ADD, rule) for rule in new_rules),
        *(Operation(Action.ADD, endpoint) for endpoint in new),
        *(Operation(Action.DELETE, rule) for rule in old_rules if rule.source not in desired.cut),
        *old_routes,
    )


def unrecorded(operations: Iterable[Operation], taken: Set[Endpoint]) -> int:
    """How many operations from the first on leave nothing behind that the record has to tell of, should we end after them.

    What is deleted and was ours is nobody's; only what is ``taken`` of NetworkManager's is to be put back one day.
    """
    keys = {endpoint.key for endpoint in taken}

    def harmless(operation: Operation) -> bool:
        value = operation.value
        return operation.action in _WITHOUT_TRACE and not (isinstance(value, Endpoint) and value.key in keys)

    return sum(1 for _ in takewhile(harmless, operations))


def restore(kernel: Kernel, ours: Ours, marks: Marks = MARKS) -> tuple[Operation, ...]:
    """The operations that put back what was there before us; a limit only where it still holds what we wrote."""
    have = {"subflows": kernel.limits.subflows, "add_addr_accepted": kernel.limits.add_addr_accepted}
    before = {
        name: ours.limits[name].before if name in ours.limits and ours.limits[name].written == value else value
        for name, value in have.items()
    }
    back = {endpoint for endpoint in ours.taken if kernel.has_address_of(endpoint)}
    return plan(Desired(endpoints=frozenset(back), limits=Limits(**before), marks=marks), kernel, ours)


def _cut(desired: Desired) -> Iterable[Operation]:
    if desired.cut:
        yield Operation(Action.CUT, Cut(desired.cut, desired.tunnels))


def _severed(desired: Desired) -> Iterable[Operation]:
    if desired.severed:
        yield Operation(Action.SEVER, Severance(desired.severed, desired.lost))


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
    taken = {endpoint.key for endpoint in desired.taken}
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


def _rules(wanted: frozenset[Rule], kernel: Kernel, marks: Marks) -> tuple[list[Rule], list[Rule]]:
    """Rules to add and to delete; the more specific look-up comes first and goes last."""
    have = own_rules(kernel.rules, marks)

    def order(rule: Rule) -> tuple[object, ...]:
        return (rule.priority, rule.family, rule.source, rule.table)

    return sorted(wanted - have, key=order), sorted(have - wanted, key=order, reverse=True)


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
        via = any(hop.gateway for hop in route.hops)
        return (route.family, via, route.destination, route.metric, route.tos, str(route.hops))

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
