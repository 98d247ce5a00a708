# SPDX-License-Identifier: GPL-2.0-or-later
"""A model of the kernel: it executes a plan's operations, and refuses what the real one refuses (:class:`Refused`)."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace

from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.record import seen, with_endpoints, with_limits, with_linkdown, with_reverse_path
from nm_mptcp.model.state import (
    MARKS,
    Action,
    Endpoint,
    Family,
    Kernel,
    Limits,
    LinkdownSetting,
    Operation,
    Ours,
    ReversePathSetting,
    Route,
    Rule,
    Snapshot,
)

from .situations import grouped


class Refused(AssertionError):
    """The kernel refuses an operation; ``errno`` is its number."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


def _require(holds: bool, number: int) -> None:
    if not holds:
        raise Refused(number)


def apply(operations: Iterable[Operation], kernel: Kernel, ours: Ours) -> tuple[Kernel, Ours]:
    """The kernel after these operations, and what is ours in it."""
    routes = list(dict.fromkeys(route for group in kernel.routes.values() for route in group))
    rules = list(kernel.rules)
    endpoints = list(kernel.endpoints)
    limits = kernel.limits
    ignored = dict(kernel.linkdown_ignored)
    strict = set(kernel.strict)
    written: list[Endpoint] = []
    for operation in operations:
        value = operation.value
        if isinstance(value, LinkdownSetting):
            ignored[value.family, value.ifindex] = value.ignored
            ours = with_linkdown(ours, [value])
        elif isinstance(value, ReversePathSetting):
            (strict.discard if value.loose else strict.add)(value.ifindex)
            ours = with_reverse_path(ours, [value])
        elif isinstance(value, Limits):
            _require(max(value.subflows, value.add_addr_accepted) <= kernel.endpoints_max, errno.EINVAL)
            ours = with_limits(ours, limits, value)
            limits = value
        elif isinstance(value, Rule):
            _change_rule(rules, operation.action, value)
        elif isinstance(value, Route):
            _change_route(routes, operation.action, value)
        elif isinstance(value, Endpoint) and not ends_subflows(operation):
            if operation.action is not Action.DELETE:
                written.append(value)
            endpoints = _change_endpoint(endpoints, operation.action, value, kernel.endpoints_max)
    result = replace(
        kernel,
        routes=grouped(routes),
        rules=tuple(rules),
        endpoints=tuple(endpoints),
        limits=limits,
        linkdown_ignored=ignored,
        strict=frozenset(strict),
    )
    return result, seen(with_endpoints(ours, written), result.endpoints)


def _change_rule(rules: list[Rule], action: Action, rule: Rule) -> None:
    if action is Action.ADD:
        _require(rule not in rules, errno.EEXIST)
    if action is not Action.DELETE:
        rules.append(rule)
        rules.sort(key=lambda each: (each.family, each.priority))
    if action is not Action.ADD:
        found = [each for each in rules if _matches(rule, each)]
        _require(bool(found), errno.ENOENT)
        rules.remove(found[0])


def _matches(asked: Rule, rule: Rule) -> bool:
    """Whether a request to delete a rule matches it in the kernel; attributes that the request lacks match any value."""
    suppress = rule.suppress_prefixlength if asked.suppress_prefixlength is None else asked.suppress_prefixlength
    return replace(asked, suppress_prefixlength=suppress) == rule


def _change_route(routes: list[Route], action: Action, route: Route) -> None:
    twin = next((each for each in routes if _same_place(each, route)), None)
    if action is Action.ADD:
        _require(twin is None, errno.EEXIST)
        routes.append(route)
    elif action is Action.REPLACE:
        if twin is None:
            raise Refused(errno.ENOENT)
        routes[routes.index(twin)] = route
    else:
        _require(route in routes, errno.ESRCH)
        routes.remove(route)


def _same_place(one: Route, other: Route) -> bool:
    same = (one.table, one.destination, one.tos, one.metric) == (
        other.table,
        other.destination,
        other.tos,
        other.metric,
    )
    hops = [[(hop.ifindex, hop.gateway) for hop in route.hops] for route in (one, other)]
    return same and (one.family is Family.IPV4 or hops[0] == hops[1])


def _change_endpoint(endpoints: list[Endpoint], action: Action, endpoint: Endpoint, most: int) -> list[Endpoint]:
    if action is Action.DELETE:
        return [each for each in endpoints if each is not _found(endpoints, endpoint)]
    if action is Action.SET_FLAGS:
        return [endpoint if each is _found(endpoints, endpoint) else each for each in endpoints]
    _require(len(endpoints) < most, errno.ERANGE)
    kept = [
        each
        for each in endpoints
        if each.address != endpoint.address or not each.flags & EndpointFlag.IMPLICIT or endpoint.port
    ]
    _require((endpoint.address, endpoint.port) not in {(each.address, each.port) for each in kept}, errno.EEXIST)
    only_signal = endpoint.flags & (EndpointFlag.SIGNAL | EndpointFlag.SUBFLOW) == EndpointFlag.SIGNAL
    _require(only_signal or not endpoint.port, errno.EINVAL)
    return [*kept, replace(endpoint, id=1 + max((each.id for each in kept), default=0))]


def _found(endpoints: list[Endpoint], endpoint: Endpoint) -> Endpoint:
    """The endpoint with that id."""
    found = [each for each in endpoints if each.id == endpoint.id]
    _require(len(found) == 1, errno.ENOENT)
    return found[0]


def ends_subflows(operation: Operation) -> bool:
    """Whether it only closes subflows, of which :func:`apply` knows none, and may be planned again until they are closed."""
    value = operation.value
    return operation.action is Action.CLOSE_REDUNDANT or (
        isinstance(value, Endpoint) and not value.id and operation.action is Action.DELETE
    )


def foreign(snapshot: Snapshot, taken: Iterable[Endpoint]) -> tuple[object, ...]:
    """All that is not ours, without the withdrawn endpoints of NetworkManager (``taken``)."""
    kernel = snapshot.kernel
    places = {endpoint.place for endpoint in taken}
    return (
        {route for group in kernel.routes.values() for route in group if not MARKS.on_route(route)},
        [rule for rule in kernel.rules if not MARKS.on_rule(rule)],
        [
            each
            for each in kernel.endpoints
            if not snapshot.ours.owns(each)
            and not each.flags & EndpointFlag.IMPLICIT
            and (each.place not in places or each.port)
        ],
    )
