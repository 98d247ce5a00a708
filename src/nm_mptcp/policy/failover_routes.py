# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: routes that lead around a link without carrier, until it is back or NetworkManager gives it up.

While a link has no carrier its routes stand for some seconds more, and new connections would be sent into nowhere. The
sysctl ``ignore_routes_with_linkdown`` sees to that in the very moment of the loss - but with it what stands on the link
fails at once as well, and TCP then waits ever longer before it tries again (``tcp_retransmit_timer``), where without it
every half second is another try. So the sysctl only bridges the moment: for each route by the lost link the next best way
to the same destination is written in front of it, and then the sysctl is put back.

The next best way is another link's route to the same destination, or else the narrowest one that covers it, as the kernel
would take once the lost route is gone: the lost link's own subnet is then looked for behind another link's gateway, and not
among neighbours that nobody reaches. What is bound to another link's address goes there by that link: its table gets the
way as well, by its own routes.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, replace

from ..model.state import MAIN_TABLE, MARKS, Family, Kernel, Marks, Route, RouteType
from .identity_cache import remembered

#: Destination and type of service: of the routes that share them the kernel uses the one with the lowest metric.
_Key = tuple[str, int]

_LINK_LOCAL = ("fe80:", "169.254.")

#: How many destinations of a link are led around. Where there are more (a full routing table) its routes stay ignored:
#: to write so many would take longer than most losses last.
MOST = 256

#: A prefix as a number and its length.
_Prefix = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Detours:
    """The routes that lead around, and which links' routes they are wholly in front of."""

    routes: Mapping[tuple[int, int], frozenset[Route]]  #: by table and interface, as :class:`Kernel` has them
    covered: frozenset[tuple[Family, int]]


def detours(
    kernel: Kernel,
    lost: Set[tuple[Family, int]],
    marks: Marks = MARKS,
    tables: Mapping[int, Collection[int]] | None = None,
) -> Detours:
    """The ways around the lost links; a route with metric 0 cannot be led around, and a link with one is not covered.

    ``tables`` are those of ours, by the interface that they lead out by.
    """
    # Looked up also while nothing is lost: then it is known already when something is.
    best = {ifindex: _best(routes, marks) for (table, ifindex), routes in kernel.routes.items() if table == MAIN_TABLE}
    nothing = _best((), marks)
    dead = {ifindex for _, ifindex in lost}
    alive = [ifindex for ifindex in best if ifindex not in dead and _carries(kernel, ifindex)] if lost else []
    first: dict[_Key, int] = {}  # the best metric by a lost link
    owners: dict[_Key, set[tuple[Family, int]]] = {}
    uncovered: set[tuple[Family, int]] = set()
    for family, ifindex in sorted(lost):
        mine = best.get(ifindex, nothing).of(family)
        if len(mine) > MOST:
            uncovered.add((family, ifindex))
            continue
        for key, known in mine.items():
            first[key] = min(first.get(key, known.metric), known.metric)
            owners.setdefault(key, set()).add((family, ifindex))
    ways: dict[tuple[int, int], set[Route]] = {}
    for key, metric in first.items():
        found = {other: route for other in alive if (route := _covering(best[other], key)) is not None}
        if not found:
            continue
        ifindex = min(found, key=lambda other: _preference(found[other], other))
        if found[ifindex].destination != key[0] or found[ifindex].metric >= metric:
            if metric == 0:
                uncovered |= owners[key]
                continue
            ways.setdefault((MAIN_TABLE, ifindex), set()).add(
                _way(found[ifindex], ifindex, key, MAIN_TABLE, metric - 1, marks)
            )
        for other, route in found.items():
            if route.destination != key[0]:
                for table in (tables or {}).get(other, ()):
                    ways.setdefault((table, other), set()).add(_way(route, other, key, table, metric, marks))
    return Detours({place: frozenset(routes) for place, routes in ways.items()}, frozenset(lost) - uncovered)


def _preference(route: Route, ifindex: int) -> tuple[int, int, int]:
    """The kernel's order: the narrowest first, of equals that with the lowest metric."""
    return (-_prefix(route.destination)[1], route.metric, ifindex)


def _way(route: Route, ifindex: int, key: _Key, table: int, metric: int, marks: Marks) -> Route:
    """A route of a living link, to a destination of a lost one."""
    hops = tuple(replace(hop, weight=1) for hop in route.hops if hop.ifindex == ifindex)[:1]
    return replace(
        route, destination=key[0], tos=key[1], table=table, protocol=marks.now.protocol, metric=metric, hops=hops
    )


def _carries(kernel: Kernel, ifindex: int) -> bool:
    link = kernel.links.get(ifindex)
    return link is not None and link.up and link.carrier


@remembered(objects=1)
def has_detours(routes: tuple[Route, ...], marks: Marks) -> bool:
    """Whether any of these routes is one that we wrote into main."""
    return any(route.table == MAIN_TABLE and marks.on_route(route) for route in routes)


@dataclass(frozen=True, slots=True, eq=False)
class _Best:
    """The best route of somebody else's by a link to each destination, and what it takes to find one that covers another."""

    routes: Mapping[_Key, Route]
    prefixes: Mapping[Family, Mapping[tuple[_Prefix, int], Route]]  #: by prefix and type of service
    lengths: Mapping[Family, tuple[int, ...]]  #: of these prefixes, the narrowest first

    def of(self, family: Family) -> dict[_Key, Route]:
        """Those of one family."""
        return {key: route for key, route in self.routes.items() if route.family is family}


@remembered(objects=1)
def _best(routes: tuple[Route, ...], marks: Marks) -> _Best:
    """Link-local routes are left out: they lead nowhere without their interface."""
    best: dict[_Key, Route] = {}
    for route in routes:
        key = (route.destination, route.tos)
        if route.type is not RouteType.UNICAST or marks.on_route(route) or route.destination.startswith(_LINK_LOCAL):
            continue
        if key not in best or route.metric < best[key].metric:
            best[key] = route
    prefixes: dict[Family, dict[tuple[_Prefix, int], Route]] = {family: {} for family in Family}
    for (destination, tos), route in best.items():
        prefixes[route.family][_prefix(destination), tos] = route
    lengths = {
        family: tuple(sorted({length for (_, length), _ in those}, reverse=True)) for family, those in prefixes.items()
    }
    return _Best(best, prefixes, lengths)


def _covering(best: _Best, key: _Key) -> Route | None:
    """The narrowest of these routes that covers a destination, with its type of service or, as the kernel has it, none."""
    destination, tos = key
    family = Family.of(destination)
    network, length = _prefix(destination)
    known = best.prefixes[family]
    for wider in best.lengths[family]:
        if wider <= length:
            shift = family.bits - wider
            prefix = (network >> shift << shift, wider)
            route = known.get((prefix, tos)) or known.get((prefix, 0))
            if route is not None:
                return route
    return None


@functools.lru_cache(maxsize=16_384)
def _prefix(destination: str) -> _Prefix:
    address, _, length = destination.partition("/")
    return int.from_bytes(socket.inet_pton(Family.of(address), address), "big"), int(length)
