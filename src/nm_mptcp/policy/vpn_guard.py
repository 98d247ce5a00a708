# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing goes around a full tunnel: while one carries all of a family, the paths below it are suspended.

This is the one reason that may cut a connection's last subflow, and it holds for explicit flags as well: privacy goes first.
A tunnel is what the kernel sends everything into, whoever made it; what NetworkManager itself runs as an uplink is none. A
tunnel whose profile has flags of its own is a path like any other, and what lies below it is guarded all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..config.settings import Config
from ..model.device_types import PPP, TUNNEL_LINKS, is_uplink, kind_of
from ..model.reasons import Reason, Why
from ..model.state import Address, Egress, Endpoint, Family, Owner, State, Tunnel
from .facts import Decision, Facts

#: Kinds of device that NetworkManager runs and that wrap up what goes into them.
_TUNNEL_DEVICES = frozenset({"tun", "ip-tunnel", "tunnel", "wireguard", "vpn"})


@dataclass(frozen=True, slots=True)
class Guard:
    """The decisions after full tunnels were minded, and what has to end."""

    decisions: list[Decision]
    tunnels: Mapping[Family, Tunnel]
    below: frozenset[tuple[Family, int]] = frozenset()  #: families and interfaces below a full tunnel
    withdrawn: frozenset[Endpoint] = frozenset()
    close_all: frozenset[str] = frozenset()
    kept: bool = False  #: an endpoint had to stay
    forbids: bool = False  #: no connection may make another subflow now
    asks: bool = False

    def outside(self, decisions: list[Decision]) -> list[Decision]:
        """Those of these that are not below a full tunnel."""
        return [decision for decision in decisions if (decision.family, decision.ifindex) not in self.below]


def guard_tunnels(facts: Facts, decisions: list[Decision], config: Config) -> Guard:
    """Every path below a full tunnel is suspended: endpoints, rules and subflows go.

    An endpoint stays while a live connection has a subflow on its address that is allowed to bypass the tunnel: the tunnel's
    own, it may be, or one into the local network. Deleting the endpoint would close it as well; so that no other connection
    makes a subflow there, the limit of subflows is 0 meanwhile. So it is while several endpoints go: each takes an RCU
    grace period, and a connection that begins meanwhile would use those that are still there.
    """
    tunnels = full_tunnels(facts) if config.vpn_guard else {}
    if not tunnels:
        return Guard(decisions, {})
    below = [
        decision
        for decision in decisions
        if decision.family in tunnels
        and not facts.link(decision.ifindex).loopback
        and not _is_tunnel(facts, decision.ifindex)
    ]
    close_all = {decision.address for decision in below if decision.address in facts.addresses_with_rules}
    bypass = facts.snapshot.bypass
    guarded: dict[Address, Decision] = {}
    kept: set[str] = set()
    going: set[Endpoint] = set()
    for decision in below:
        endpoint = facts.removable_endpoint(decision)
        if decision.owner is Owner.OTHER or (endpoint is None and decision.state is State.EXCLUDED):
            continue
        detail = f"{decision.family.label} traffic leaves by {tunnels[decision.family].name}"
        if endpoint is not None and (bypass is None or decision.address in bypass.allowed):
            kept.add(decision.address)
            guarded[decision.on] = _kept(facts, decision, endpoint, detail)
            continue
        reason = Reason(Why.VPN_GUARD, detail)
        guarded[decision.on] = replace(decision, state=State.SUSPENDED, reason=reason, wants_endpoint=False)
        if endpoint is not None:
            going.add(endpoint)
    leaking = kept & bypass.leaking if bypass else set[str]()
    return Guard(
        [guarded.get(decision.on, decision) for decision in decisions],
        tunnels,
        below=frozenset((decision.family, decision.ifindex) for decision in below),
        withdrawn=frozenset(Endpoint(each.address, each.ifindex, each.flags) for each in going - facts.own),
        close_all=frozenset(close_all | leaking | {endpoint.address for endpoint in going}),
        kept=bool(kept),
        forbids=bool(kept) or len(going) > 1,
        asks=bypass is None and bool(kept),
    )


def _kept(facts: Facts, decision: Decision, endpoint: Endpoint, detail: str) -> Decision:
    """A decision below a tunnel whose endpoint stays for connections that bypass it."""
    return replace(
        decision,
        state=State.SUSPENDED,
        reason=Reason(Why.KEPT_BESIDE_TUNNEL, detail),
        flags=endpoint.flags,
        port=endpoint.port,
        wants_endpoint=facts.own_endpoint(decision.on) is not None,
    )


def full_tunnels(facts: Facts) -> dict[Family, Tunnel]:
    """The families of which all traffic leaves by a tunnel, each with that tunnel."""
    found: dict[Family, Tunnel] = {}
    for family, ways in facts.kernel.egress.items():
        if ways and all(way.encrypted or _is_tunnel(facts, way.ifindex) for way in ways):
            names = dict.fromkeys(_name(facts, way) for way in ways)
            interfaces = frozenset(way.ifindex for way in ways if not way.encrypted)
            found[family] = Tunnel(" and ".join(names), interfaces)
    return found


def _name(facts: Facts, way: Egress) -> str:
    return "an IPsec policy" if way.encrypted else f"the tunnel {facts.link(way.ifindex).name}"


def _is_tunnel(facts: Facts, ifindex: int) -> bool:
    """Whether a link wraps up what goes into it and sends it by another one.

    PPP that NetworkManager does not run as an uplink (PPPoE, a modem) is a tunnel (L2TP, PPTP) while one of its VPN plugins
    is at work; else it is somebody's own uplink.
    """
    link = facts.kernel.links.get(ifindex)
    if link is None:
        return False
    device = facts.device(ifindex)
    if device is not None and is_uplink(device):
        return False
    if link.kind in TUNNEL_LINKS or (device is not None and kind_of(device).name in _TUNNEL_DEVICES):
        return True
    return link.kind == PPP and facts.networkmanager.vpn
