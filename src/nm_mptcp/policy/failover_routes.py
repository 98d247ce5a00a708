# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: routes around a link without carrier, until the carrier returns or NetworkManager deactivates the device.

A link that is silent beyond its gateway gets them as well, but only for what is routed by a gateway, or by its default route:
its own subnet may be in order, and is reached by no other link. If it carries a full tunnel's packets, only for those: by its
default route, or the one to the tunnel's server. A network that is reached beside the tunnel is this link's alone.

After a loss of carrier the link's routes remain for some seconds, and new connections would use them. The sysctl
``ignore_routes_with_linkdown`` prevents that at once; but with it packets of the link's own connections fail as well, and TCP
then waits longer and longer before it retransmits (``tcp_retransmit_timer``), where without the sysctl it retries every half
second. So the sysctl is set only until each route by the lost link has a failover route with a lower metric in front of it.

The failover route copies the next best route of another link: to the same destination, or else the narrowest one that covers
it, as the kernel would use it once the lost route is gone. The lost link's own subnet is then reached by another link's
gateway instead of by neighbours that do not answer. Packets with another link's source address leave by that link: its table
gets a failover route from that link's routes as well.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, replace

from ..model.state import MAIN_TABLE, MARKS, Family, Kernel, Marks, Route, RouteType
from .identity_cache import cached_by_identity
from .silence_evidence import is_private

#: Destination and type of service: of the routes with the same key the kernel uses the one with the lowest metric.
_Key = tuple[str, int]

_LINK_LOCAL = ("fe80:", "169.254.")

#: The most destinations of a link that get failover routes. With more (a full routing table) the sysctl stays set instead: to
#: write so many routes would take longer than most losses last.
MAX_DESTINATIONS = 256

#: A prefix as a number and its length.
_Prefix = tuple[int, int]


@dataclass(frozen=True, slots=True)
class FailoverRoutes:
    """The failover routes, and the links all of whose routes have one."""

    routes: Mapping[tuple[int, int], frozenset[Route]]  #: by (table, ifindex), as in :class:`Kernel`
    covered: frozenset[tuple[Family, int]]  #: family and ifindex


def failover_routes(
    kernel: Kernel,
    lost: Set[tuple[Family, int]],
    marks: Marks = MARKS,
    tables: Mapping[int, Collection[int]] | None = None,
    *,
    silent: Set[tuple[Family, int]] = frozenset(),
    paths: Set[tuple[Family, int]] = frozenset(),
    below: Set[tuple[Family, int]] = frozenset(),
) -> FailoverRoutes:
    """The failover routes for the ``lost`` and ``silent`` links, by family and ifindex.

    Those for a silent link use only ``paths``: NetworkManager alone would not leave it, so no link is used, and perhaps paid
    for, that is no path. Those ``below`` carry a full tunnel's packets. Nothing is preferred to a route with metric 0: a link
    with one is not covered. ``tables`` are our tables by ifindex.
    """
    around = lost | silent
    if not around:  # else each change of thousands of routes would cost a look at all of them
        return FailoverRoutes({}, frozenset())
    best = {ifindex: _best(routes, marks) for (table, ifindex), routes in kernel.routes.items() if table == MAIN_TABLE}
    alive = [ifindex for ifindex in best if _has_carrier(kernel, ifindex)]
    first, owners, uncovered = _destinations(best, lost, silent, below)
    routes: dict[tuple[int, int], set[Route]] = {}
    for key, metric in first.items():
        family = Family.of(key[0])
        usable = [other for other in alive if (family, other) not in around]
        only = paths if not owners[key] & lost else None
        if only is not None:
            usable = [other for other in usable if (family, other) in only]
        found = {other: route for other in usable if (route := _covering(best[other], key)) is not None}
        if not found:
            continue
        ifindex = min(found, key=lambda other: _preference(found[other], other))
        tied = only if owners[key] & below else None
        better = any(_is_better(best, other, key, metric, tied) for other in best if (family, other) not in around)
        if not better and (found[ifindex].destination != key[0] or found[ifindex].metric >= metric):
            if metric == 0:
                uncovered |= owners[key]
                continue
            routes.setdefault((MAIN_TABLE, ifindex), set()).add(
                _failover_route(found[ifindex], ifindex, key, MAIN_TABLE, metric - 1, marks)
            )
        for other, route in found.items():
            if route.destination != key[0]:
                for table in (tables or {}).get(other, ()):
                    routes.setdefault((table, other), set()).add(
                        _failover_route(route, other, key, table, metric, marks)
                    )
    return FailoverRoutes({place: frozenset(group) for place, group in routes.items()}, frozenset(lost) - uncovered)


def _destinations(
    best: Mapping[int, _Best],
    lost: Set[tuple[Family, int]],
    silent: Set[tuple[Family, int]],
    below: Set[tuple[Family, int]],
) -> tuple[dict[_Key, int], dict[_Key, set[tuple[Family, int]]], set[tuple[Family, int]]]:
    """The destinations to lead around these links, each with the lowest metric and the links that have it; and the links
    with too many.
    """
    first: dict[_Key, int] = {}
    owners: dict[_Key, set[tuple[Family, int]]] = {}
    uncovered: set[tuple[Family, int]] = set()
    for place in sorted(lost | silent):
        family, ifindex = place
        mine = best[ifindex].of(family) if ifindex in best else {}
        if place not in lost:
            leads = leads_a_tunnel if place in below else _leads_beyond
            mine = {key: route for key, route in mine.items() if leads(route, ifindex)}
        if len(mine) > MAX_DESTINATIONS:
            uncovered.add(place)
            continue
        for key, known in mine.items():
            first[key] = min(first.get(key, known.metric), known.metric)
            owners.setdefault(key, set()).add(place)
    return first, owners, uncovered


def _is_better(
    best: Mapping[int, _Best], ifindex: int, key: _Key, metric: int, paths: Set[tuple[Family, int]] | None
) -> bool:
    """Whether the kernel prefers the route of a link, which may be no path, to the lost one anyway: nothing is to be put in
    front of that, and beside it, with the metric that is one less, it would be refused (IPv4), or share the load (IPv6). With
    the same metric the kernel may prefer either: below a tunnel, where only ``paths`` may be used, nothing is put in front of
    another link's, which may be the tunnel's.
    """
    route = best[ifindex].routes.get(key)
    if route is None:
        return False
    same = route.metric == metric and paths is not None and (route.family, ifindex) not in paths
    return same or route.metric < metric


def _leads_beyond(route: Route, ifindex: int) -> bool:
    return route.is_default or any(hop.gateway for hop in route.hops if hop.ifindex == ifindex)


def leads_a_tunnel(route: Route, ifindex: int) -> bool:
    """Whether a tunnel's own packets may leave by this route: the default, or one to a host that is no other elsewhere."""
    address, _, length = route.destination.partition("/")
    host = int(length) == route.family.bits and not is_private(address)
    return route.is_default or (host and _leads_beyond(route, ifindex))


def _preference(route: Route, ifindex: int) -> tuple[int, int, int]:
    """The kernel's order: the longest prefix first, then the lowest metric."""
    return (-_prefix(route.destination)[1], route.metric, ifindex)


def _failover_route(route: Route, ifindex: int, key: _Key, table: int, metric: int, marks: Marks) -> Route:
    """A copy of another link's route, to the lost route's destination."""
    hops = tuple(replace(hop, weight=1) for hop in route.hops if hop.ifindex == ifindex)[:1]
    return replace(
        route, destination=key[0], tos=key[1], table=table, protocol=marks.now.protocol, metric=metric, hops=hops
    )


def _has_carrier(kernel: Kernel, ifindex: int) -> bool:
    link = kernel.links.get(ifindex)
    return link is not None and link.up and link.carrier


@cached_by_identity(objects=1)
def has_failover_routes(routes: tuple[Route, ...], marks: Marks) -> bool:
    """Whether any of these routes of main is one of ours."""
    ours = marks.protocols
    return any(route.protocol in ours for route in routes)


@dataclass(frozen=True, eq=False)
class _Best:
    """The best route by a link to each destination, ours excepted."""

    routes: Mapping[_Key, Route]

    @functools.cached_property
    def prefixes(self) -> Mapping[Family, Mapping[tuple[_Prefix, int], Route]]:
        """The routes by prefix and type of service."""
        found: dict[Family, dict[tuple[_Prefix, int], Route]] = {family: {} for family in Family}
        for (destination, tos), route in self.routes.items():
            found[route.family][_prefix(destination), tos] = route
        return found

    @functools.cached_property
    def lengths(self) -> Mapping[Family, tuple[int, ...]]:
        """The lengths of these prefixes, the longest first."""
        return {
            family: tuple(sorted({length for (_, length), _ in index}, reverse=True))
            for family, index in self.prefixes.items()
        }

    def of(self, family: Family) -> dict[_Key, Route]:
        """The routes of one family."""
        return {key: route for key, route in self.routes.items() if route.family is family}


@cached_by_identity(objects=1)
def _best(routes: tuple[Route, ...], marks: Marks) -> _Best:
    """The best routes among these of main, without link-local ones: another link does not reach their destinations."""
    ours = marks.protocols
    best: dict[_Key, Route] = {}
    for route in routes:
        if route.protocol in ours or route.type is not RouteType.UNICAST or route.destination.startswith(_LINK_LOCAL):
            continue
        key = (route.destination, route.tos)
        known = best.get(key)
        if known is None or route.metric < known.metric:
            best[key] = route
    return _Best(best)


def _covering(best: _Best, key: _Key) -> Route | None:
    """The route with the longest prefix that covers a destination; with its type of service, else, as in the kernel, none."""
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
