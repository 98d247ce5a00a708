# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: what has to be written so that the kernel has what is desired - in order, and nothing when all is in place.

The order: on the way down the endpoint goes first, on the way up it comes last. The kernel tries an endpoint once for
each connection and never again, so its address, routes and rules have to be there before it.
"""

from __future__ import annotations

from collections.abc import Iterable

from .flags import EndpointFlag
from .model import (
    TABLES,
    Action,
    Desired,
    Endpoint,
    Family,
    Kernel,
    Limits,
    Operation,
    Ours,
    Route,
    Rule,
)
from .tables import is_our_rule, is_ours

#: What ``set-flags`` can change on a live endpoint (kernel: ``mptcp_pm_nl_set_flags``); anything else is delete and add.
CHANGEABLE = EndpointFlag.BACKUP | EndpointFlag.FULLMESH


def plan(desired: Desired, kernel: Kernel, ours: Ours) -> tuple[Operation, ...]:
    """The operations that lead from what the kernel has to what is desired, touching only what is ours."""
    gone, changed, new = _endpoints(desired.endpoints, kernel, ours)
    new_routes, old_routes = _routes(desired.routes, kernel)
    new_rules, old_rules = _rules(desired.rules, kernel)
    return (
        *(Operation(Action.DELETE, endpoint) for endpoint in gone),
        *(Operation(Action.SET_FLAGS, endpoint) for endpoint in changed),
        *_limits(desired.limits, kernel),
        *new_routes,
        *(Operation(Action.ADD, rule) for rule in new_rules),
        *(Operation(Action.ADD, endpoint) for endpoint in new),
        *(Operation(Action.DELETE, rule) for rule in old_rules),
        *old_routes,
    )


def restore(kernel: Kernel, ours: Ours) -> tuple[Operation, ...]:
    """The operations that put back what was there before us; a limit only where it still holds what we wrote."""
    have = {"subflows": kernel.limits.subflows, "add_addr_accepted": kernel.limits.add_addr_accepted}
    before = {
        name: ours.limits[name].before if name in ours.limits and ours.limits[name].written == value else value
        for name, value in have.items()
    }
    return plan(Desired(limits=Limits(**before)), kernel, ours)


def _limits(wanted: Limits | None, kernel: Kernel) -> Iterable[Operation]:
    if wanted is not None and wanted != kernel.limits:
        yield Operation(Action.SET_LIMITS, wanted)


def _endpoints(
    wanted: Iterable[Endpoint], kernel: Kernel, ours: Ours
) -> tuple[list[Endpoint], list[Endpoint], list[Endpoint]]:
    """Endpoints to delete, to change in place, and to add.

    An address that somebody else's endpoint stands on is left to it (the kernel would refuse a second one); an implicit
    endpoint is the kernel's own and gives way.
    """
    wishes = {wish.address: wish for wish in wanted}
    gone: list[Endpoint] = []
    changed: list[Endpoint] = []
    settled: set[str] = set()
    for endpoint in kernel.endpoints:
        if endpoint.port:
            continue
        wish = wishes.get(endpoint.address)
        if not ours.owns(endpoint):
            if not endpoint.flags & EndpointFlag.IMPLICIT:
                settled.add(endpoint.address)
        elif wish is None or wish.ifindex != endpoint.ifindex or (wish.flags ^ endpoint.flags) & ~CHANGEABLE:
            gone.append(endpoint)
        else:
            settled.add(endpoint.address)
            if wish.flags != endpoint.flags:
                changed.append(Endpoint(endpoint.address, endpoint.ifindex, wish.flags, endpoint.id))
    new = [wishes[address] for address in sorted(wishes) if address not in settled]
    return gone, changed, new


def _rules(wanted: frozenset[Rule], kernel: Kernel) -> tuple[list[Rule], list[Rule]]:
    """Rules to add and to delete; the more specific look-up comes first and goes last."""
    have = {rule for rule in kernel.rules if is_our_rule(rule)}

    def order(rule: Rule) -> tuple[object, ...]:
        return (rule.priority, rule.family, rule.source, rule.table)

    return sorted(wanted - have, key=order), sorted(have - wanted, key=order, reverse=True)


def _routes(wanted: frozenset[Route], kernel: Kernel) -> tuple[list[Operation], list[Operation]]:
    """Operations that bring routes, and those that take them away.

    On-link prefixes come first and go last, since gateways are reached by them. An IPv4 route of the same destination,
    service and metric is replaced in one step; IPv6 has siblings, so there the new one comes before the old one goes.
    """
    have = {
        route for (table, _), routes in kernel.routes.items() if table in TABLES for route in routes if is_ours(route)
    }
    standing = {_place(route) for route in have if route.family is Family.IPV4}

    def order(route: Route) -> tuple[object, ...]:
        via = any(hop.gateway for hop in route.hops)
        return (
            route.table,
            route.family,
            not route.hops,
            via,
            route.destination,
            route.metric,
            route.tos,
            str(route.hops),
        )

    new = sorted(wanted - have, key=order)
    replaced = {_place(route) for route in new if route.family is Family.IPV4}
    old = [
        route
        for route in sorted(have - wanted, key=order, reverse=True)
        if not (route.family is Family.IPV4 and _place(route) in replaced)
    ]
    return (
        [
            Operation(
                Action.REPLACE if route.family is Family.IPV4 and _place(route) in standing else Action.ADD, route
            )
            for route in new
        ],
        [Operation(Action.DELETE, route) for route in old],
    )


def _place(route: Route) -> tuple[object, ...]:
    """What an IPv4 route is known by in the kernel: there is one of each (``fib_table_insert``)."""
    return (route.table, route.destination, route.tos, route.metric)
