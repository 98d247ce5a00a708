# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: the links below a full tunnel, of which it can leave one that is silent.

Its own packets are routed by main. So routes around a link lead them by another one, as they lead new connections where there
is no tunnel; nothing else is led anywhere, since the tunnel carries it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..config.settings import Config, Failover
from ..model.state import MAIN_TABLE, Carriers, Family, Mode, Place, State
from .facts import Decision, Facts
from .silence import is_uplink
from .vpn_guard import Guard

#: Kinds of tunnels (``IFLA_INFO_KIND``) whose peers accept packets from another address, or whose programs connect again:
#: WireGuard, and OpenVPN (since 2.4) know theirs by a key or number. The others keep the address that they were made with.
_MOVABLE = frozenset({"wireguard", "amneziawg", "tun", "ovpn", "ovpn-dco"})


def below_tunnels(facts: Facts, decisions: list[Decision], guard: Guard, config: Config) -> frozenset[Place]:
    """The links below full tunnels that would carry without them, by family, that have a default route in main; none where
    nothing may be led around.
    """
    if config.failover is Failover.OFF or config.mode is Mode.OFF:
        return frozenset()
    return frozenset(
        Place(each.family, each.ifindex)
        for each in decisions
        if each.state is State.ACTIVE
        and (each.family, each.ifindex) in guard.below
        and is_uplink(facts, each.ifindex)
        and facts.default(each.ifindex, each.family, MAIN_TABLE) is not None
    )


def carriers(facts: Facts, decisions: list[Decision], guard: Guard, config: Config) -> Mapping[Place, Carriers]:
    """The links below each full tunnel that can leave one of them. ``decisions``: as they are without the guard.

    A link that must not be led around is the last one: what is behind it is never tried.
    """
    below = below_tunnels(facts, decisions, guard, config)
    chosen = {each.ifindex for each in decisions if each.options.silent_links.value}
    links: list[frozenset[Place]] = []
    for ifindex in sorted({place.ifindex for place in below}, key=lambda index: _preference(facts, below, index)):
        links.append(frozenset(place for place in below if place.ifindex == ifindex))
        if ifindex not in chosen:
            break
    found = {}
    for family, tunnel in guard.tunnels.items():
        address = _address(facts, family, tunnel.interfaces)
        if address and len(links) > 1:
            found[Place(family, min(tunnel.interfaces))] = Carriers(address, tuple(links))
    return found


def _preference(facts: Facts, below: frozenset[Place], ifindex: int) -> tuple[int, int]:
    defaults = [facts.default(ifindex, place.family, MAIN_TABLE) for place in below if place.ifindex == ifindex]
    return (min(route.metric for route in defaults if route is not None), ifindex)


def _address(facts: Facts, family: Family, interfaces: frozenset[int]) -> str | None:
    """An address of a tunnel of one interface that can move, or None."""
    if len(interfaces) != 1 or facts.link(min(interfaces)).kind not in _MOVABLE:
        return None
    addresses = facts.kernel.addresses.get(min(interfaces), ())
    return next(
        (each.address for each in addresses if each.family is family and not each.address.startswith("fe80:")), None
    )
