# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: routes in main that lead around a link without carrier, until it is back or NetworkManager gives it up.

While a link has no carrier its routes stand for some seconds more, and new connections would be sent into nowhere. The
sysctl ``ignore_routes_with_linkdown`` sees to that in the very moment of the loss - but with it what stands on the link
fails at once as well, and TCP then waits ever longer before it tries again (``tcp_retransmit_timer``), where without it
every half second is another try. So the sysctl only bridges the moment: for each route by the lost link the next best of
the same destination is written once more in front of it, and then the sysctl is put back.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from .memory import remembered
from .model import MAIN_TABLE, MARKS, WORST_METRIC, Family, Kernel, Marks, Route, RouteType
from .values import frozen, replace

#: Destination and type of service: of the routes that share them the kernel uses the one with the lowest metric.
_Key = tuple[str, int]

_LINK_LOCAL = ("fe80:", "169.254.")

_NOTHING: Mapping[_Key, Route] = {}


@frozen
class Detours:
    """The routes that lead around, and which links' routes they are wholly in front of."""

    routes: Mapping[tuple[int, int], frozenset[Route]]  #: by table and interface, as :class:`Kernel` has them
    covered: frozenset[tuple[Family, int]]


def detours(kernel: Kernel, lost: Set[tuple[Family, int]], marks: Marks = MARKS) -> Detours:
    """The ways around the lost links; a route with metric 0 cannot be led around, and a link with one is not covered."""
    # Looked up also while nothing is lost: then it is known already when something is.
    best = {ifindex: _best(routes, marks) for (table, ifindex), routes in kernel.routes.items() if table == MAIN_TABLE}
    dead = {ifindex for _, ifindex in lost}
    alive = [ifindex for ifindex in best if ifindex not in dead and _carries(kernel, ifindex)] if lost else []
    first: dict[_Key, int] = {}  # the best metric by a lost link
    second: dict[_Key, tuple[int, Route]] = {}  # the best by any other, and its interface
    owners: dict[_Key, set[tuple[Family, int]]] = {}
    for family, ifindex in sorted(lost):
        mine = best.get(ifindex, _NOTHING)
        for other in alive:
            for key in mine.keys() & best[other].keys():
                route = best[other][key]
                if route.family is not family:
                    continue
                first[key] = min(first.get(key, WORST_METRIC), mine[key].metric)
                owners.setdefault(key, set()).add((family, ifindex))
                if key not in second or route.metric < second[key][1].metric:
                    second[key] = (other, route)
    ways: dict[tuple[int, int], set[Route]] = {}
    uncovered: set[tuple[Family, int]] = set()
    for key, (ifindex, route) in second.items():
        if route.metric < first[key]:
            continue
        if first[key] == 0:
            uncovered |= owners[key]
            continue
        hops = tuple(replace(hop, weight=1) for hop in route.hops if hop.ifindex == ifindex)[:1]
        way = replace(route, protocol=marks.now.protocol, metric=first[key] - 1, hops=hops)
        ways.setdefault((MAIN_TABLE, ifindex), set()).add(way)
    return Detours({place: frozenset(routes) for place, routes in ways.items()}, frozenset(lost) - uncovered)


def _carries(kernel: Kernel, ifindex: int) -> bool:
    link = kernel.links.get(ifindex)
    return link is not None and link.up and link.carrier


@remembered(objects=1)
def has_detours(routes: tuple[Route, ...], marks: Marks) -> bool:
    """Whether any of these routes is one that we wrote into main."""
    return any(route.table == MAIN_TABLE and marks.on_route(route) for route in routes)


@remembered(objects=1)
def _best(routes: tuple[Route, ...], marks: Marks) -> Mapping[_Key, Route]:
    """The best route of somebody else's to each destination; link-local ones lead nowhere without their interface."""
    best: dict[_Key, Route] = {}
    for route in routes:
        key = (route.destination, route.tos)
        if route.type is not RouteType.UNICAST or marks.on_route(route) or route.destination.startswith(_LINK_LOCAL):
            continue
        if key not in best or route.metric < best[key].metric:
            best[key] = route
    return best
