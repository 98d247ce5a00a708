# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: which links are tunnels, whatever they carry: a connection that began in one gets no subflow beside it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Set

from ..config.settings import Config
from ..model.device_types import OVERLAYS, PPP, TUNNEL_LINKS, is_uplink, kind_of
from ..model.flags import EndpointFlag
from ..model.state import IPSEC, Endpoint, Kernel, Link, Path
from .facts import Facts

#: Kinds of NetworkManager's devices that encapsulate their packets.
_TUNNEL_DEVICES = frozenset({"tun", "ip-tunnel", "tunnel", "wireguard", "vpn"})

#: Kinds of links whose ports are part of them.
_SWITCHES = frozenset({"bridge", "bond", "team", "openvswitch"})

#: The addresses of CLAT (RFC 6877, RFC 7335): IPv4 within IPv6 on the same link, so no tunnel that hides anything.
_CLAT = ipaddress.IPv4Network("192.0.0.0/29")


def is_tunnel(facts: Facts, ifindex: int) -> bool:
    """Whether a link encapsulates its packets and sends them by another one; CLAT counts as the link below it.

    PPP that NetworkManager does not run as an uplink (PPPoE, a modem) is a tunnel (L2TP, PPTP) while a VPN plugin's connection
    is active; otherwise it is an uplink of another program.
    """
    link = facts.kernel.links.get(ifindex)
    if link is None:
        return False
    device = facts.device(ifindex)
    if device is not None and is_uplink(device):
        return False
    if link.kind in TUNNEL_LINKS or (device is not None and kind_of(device).name in _TUNNEL_DEVICES):
        return not has_clat_address(facts, ifindex)
    return link.kind == PPP and facts.networkmanager.vpn


def has_clat_address(facts: Facts, ifindex: int) -> bool:
    """Whether a link has an address of CLAT."""
    return any(
        ":" not in each.address and ipaddress.IPv4Address(each.address) in _CLAT
        for each in facts.kernel.addresses.get(ifindex, ())
    )


def _is_port(facts: Facts, link: Link) -> bool:
    """Whether a link is a port of a bridge, bond or team, as the tap of a virtual machine is."""
    master = facts.kernel.links.get(link.master)
    return master is not None and master.kind in _SWITCHES


def guarded_tunnels(facts: Facts, config: Config) -> frozenset[int]:
    """The tunnels (ifindexes, :data:`IPSEC`) whose connections get no subflow beside them; overlays of containers are none."""
    if not config.vpn_guard:
        return frozenset()
    policies = frozenset({IPSEC} if facts.kernel.ipsec else ())
    return policies | frozenset(
        ifindex
        for ifindex, link in facts.kernel.links.items()
        if link.up and link.kind not in OVERLAYS and not _is_port(facts, link) and is_tunnel(facts, ifindex)
    )


def announces_tunnels_alone(paths: Iterable[Path], endpoints: Iterable[Endpoint], inside: Set[str]) -> bool:
    """Whether addresses are announced, and all of them are tunnels' (``inside``): then they may be, in tunnels as well.

    Paths count whatever their state, so that a link that returns is announced to no connection in a tunnel.
    """
    announced = {path.address for path in paths if EndpointFlag.SIGNAL in path.flags}
    announced |= {endpoint.address for endpoint in endpoints if EndpointFlag.SIGNAL in endpoint.flags}
    return bool(announced) and announced <= inside


def addresses_of(tunnels: Set[int], kernel: Kernel, known: Set[str] = frozenset()) -> frozenset[str]:
    """The local addresses of these tunnels (ifindexes), and of those before, whose addresses are ``known``; without those that
    another link has as well, by which a connection may have begun outside.
    """
    inside = {each.address for index in tunnels for each in kernel.addresses.get(index, ())}
    # A tunnel that is being deleted is down before its addresses are gone.
    others = [link.index for link in kernel.links.values() if link.up and link.index not in tunnels]
    outside = {each.address for index in others for each in kernel.addresses.get(index, ())}
    return frozenset((known | inside) - outside)
