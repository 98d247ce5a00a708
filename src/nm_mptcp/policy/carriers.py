# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: the links below a full tunnel, of which it can leave one that is silent.

Its own packets are routed by main. So routes around a link lead them by another one, as they lead new connections where there
is no tunnel; nothing else is led anywhere, since the tunnel carries it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from ..config.settings import Config, Failover
from ..model.state import MAIN_TABLE, Carriers, Family, Marks, Mode, Place, Route, State, Way
from .facts import Decision, Facts
from .failover_routes import leads_a_tunnel
from .identity_cache import cached_by_identity
from .silence import is_uplink
from .vpn_guard import Guard

#: Kinds of tunnels (``IFLA_INFO_KIND``) whose peers accept packets from another address, or whose programs connect again:
#: WireGuard, and OpenVPN (since 2.4) know theirs by a key or number. The others keep the address that they were made with.
_MOVABLE = frozenset({"wireguard", "amneziawg", "tun", "ovpn", "ovpn-dco"})


def below_tunnels(facts: Facts, decisions: list[Decision], guard: Guard, config: Config) -> frozenset[Place]:
    """The links below full tunnels that would carry without them, by family, that have a default route in main; none where
    nothing may be led around. Not those of a family that IPsec encrypts: by another link, with another source address, its
    packets may match no policy.
    """
    if config.failover is Failover.OFF or config.mode is Mode.OFF:
        return frozenset()
    return frozenset(
        Place(each.family, each.ifindex)
        for each in decisions
        if each.state is State.ACTIVE
        and (each.family, each.ifindex) in guard.below
        and not _is_encrypted(facts, each.family)
        and is_uplink(facts, each.ifindex)
        and facts.default(each.ifindex, each.family, MAIN_TABLE) is not None
    )


def carriers(
    facts: Facts, decisions: list[Decision], guard: Guard, below: frozenset[Place]
) -> Mapping[Place, Carriers]:
    """The links below each full tunnel that can leave one of them. ``decisions``: as they are without the guard; ``below``: see
    :func:`below_tunnels`.
    """
    if not below:
        return {}
    metrics = {ifindex: _metric(facts, below, ifindex) for ifindex in {place.ifindex for place in below}}
    by_metric = sorted(metrics, key=lambda index: (metrics[index], index))
    order = sorted(by_metric, key=lambda index: not _leads_to_host(facts, below, index))
    chosen = {each.ifindex for each in decisions if each.options.silent_links.value}
    ways = _ways(order, below, chosen, certain=order == by_metric)
    found = {}
    for family, tunnel in guard.tunnels.items():
        address = _address(facts, family, tunnel.interfaces)
        if address and len(ways) > 1:
            found[Place(family, min(tunnel.interfaces))] = Carriers(address, ways)
    return found


def _ways(order: list[int], below: frozenset[Place], chosen: Set[int], *, certain: bool) -> tuple[Way, ...]:
    """No detour, around the first link, around the first two, and so on; at last by the first, around all others, unless it is
    ``certain`` that the tunnel's packets leave by the first one without a detour. Only those ``chosen`` are led around.
    """
    ways = [(order[:count], by) for count, by in enumerate(order)]
    if not certain:
        ways.append((order[1:], order[0]))
    found = [Way(_movable(around, below), by) for around, by in ways if chosen >= set(around)]
    return tuple(way for number, way in enumerate(found) if way.around or not number)


def _movable(around: list[int], below: frozenset[Place]) -> frozenset[Place]:
    """These links, in the families that others have as well."""
    families = {place.family for place in below if place.ifindex not in around}
    return frozenset(place for place in below if place.ifindex in around and place.family in families)


def _metric(facts: Facts, below: frozenset[Place], ifindex: int) -> int:
    """The metric of a link's default route, which NetworkManager raises where its connectivity check fails."""
    defaults = [facts.default(ifindex, place.family, MAIN_TABLE) for place in below if place.ifindex == ifindex]
    return min(route.metric for route in defaults if route is not None)


def _leads_to_host(facts: Facts, below: frozenset[Place], ifindex: int) -> bool:
    """Whether a link has a route to a host, as to the tunnel's server, which has no such metric."""
    routes = facts.kernel.routes.get((MAIN_TABLE, ifindex), ())
    return any(Place(family, ifindex) in below for family in _to_hosts(routes, ifindex, facts.marks))


@cached_by_identity(objects=1)
def _to_hosts(routes: tuple[Route, ...], ifindex: int, marks: Marks) -> frozenset[Family]:
    """The families of these routes of main by that link that lead to a host, ours excepted."""
    return frozenset(
        route.family
        for route in routes
        if not route.is_default and route.protocol not in marks.protocols and leads_a_tunnel(route, ifindex)
    )


def _is_encrypted(facts: Facts, family: Family) -> bool:
    return any(egress.encrypted for egress in facts.kernel.egress.get(family, ()))


def _address(facts: Facts, family: Family, interfaces: frozenset[int]) -> str | None:
    """An address of a tunnel of one interface that can move, or None."""
    if len(interfaces) != 1 or _is_encrypted(facts, family) or facts.link(min(interfaces)).kind not in _MOVABLE:
        return None
    addresses = facts.kernel.addresses.get(min(interfaces), ())
    return next(
        (each.address for each in addresses if each.family is family and not each.address.startswith("fe80:")), None
    )
