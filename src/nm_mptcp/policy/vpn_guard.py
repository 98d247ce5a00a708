# SPDX-License-Identifier: GPL-2.0-or-later
"""The VPN guard: while a full tunnel carries all traffic of a family, the paths below it are suspended.

This is the only automatic reason that may close a connection's last subflow, and it overrides explicit flags: privacy comes
first. A full tunnel is recognized by where the kernel routes traffic, whichever program configured it; a device that
NetworkManager runs as an uplink is none. A tunnel whose profile sets mptcp-flags is a path like any other, and the paths
below it are guarded nevertheless.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..config.settings import Config
from ..kernel.kill_switch import kill_switches
from ..model.reasons import Reason, Why
from ..model.state import Address, Egress, Endpoint, Family, Owner, State, Tunnel
from .facts import Decision, Facts
from .tunnels import is_tunnel

#: The reasons of paths below a full tunnel.
GUARDED = frozenset({Why.VPN_GUARD, Why.KEPT_BESIDE_TUNNEL})


@dataclass(frozen=True, slots=True)
class Guard:
    """The decisions with the VPN guard applied, and what they require."""

    decisions: list[Decision]
    tunnels: Mapping[Family, Tunnel]
    below: frozenset[tuple[Family, int]] = frozenset()  #: families and interfaces below a full tunnel
    withdrawn: frozenset[Endpoint] = frozenset()  #: see :attr:`Desired.withdrawn`
    close_all: frozenset[str] = frozenset()  #: see :attr:`Desired.close_all`
    kept: bool = False  #: an endpoint stays for connections that may bypass the tunnel
    forbids: bool = False  #: the limit of subflows must be 0
    needs_bypass: bool = False  #: the subflows that bypass the tunnel are not known

    def outside(self, decisions: list[Decision]) -> list[Decision]:
        """The decisions for addresses that are not below a full tunnel."""
        return [decision for decision in decisions if (decision.family, decision.ifindex) not in self.below]


def guard_tunnels(facts: Facts, decisions: list[Decision], config: Config) -> Guard:
    """Suspend every path below a full tunnel: its endpoint, rules and subflows are deleted.

    An endpoint stays while a live connection has a subflow on its address that may bypass the tunnel: the tunnel's own
    connection, or one into the local network. Deleting the endpoint would close that subflow as well. The limit of subflows is
    0 meanwhile, so that no other connection creates a subflow there. It is also 0 while several endpoints are deleted: each
    delete takes an RCU grace period, in which a new connection would use the remaining ones.
    """
    tunnels = full_tunnels(facts) if config.vpn_guard else {}
    if not tunnels:
        return Guard(decisions, {})
    below = [
        decision
        for decision in decisions
        if decision.family in tunnels
        and not facts.link(decision.ifindex).loopback
        and not is_tunnel(facts, decision.ifindex)
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
        needs_bypass=bypass is None and bool(kept),
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
    """The full tunnels: of each family whose probes all leave by a tunnel."""
    found: dict[Family, Tunnel] = {}
    # Where there was no tunnel, a table that rejects is somebody's fault, or wish: it closes nothing.
    killed = {family for family, _ in kill_switches(facts.kernel.routes, facts.kernel.rules)} & facts.snapshot.guarded
    for family, egresses in facts.kernel.egress.items():
        if egresses and all(
            egress.encrypted or (egress.rejected and family in killed) or is_tunnel(facts, egress.ifindex)
            for egress in egresses
        ):
            names = dict.fromkeys(_name(facts, egress) for egress in egresses)
            interfaces = frozenset(egress.ifindex for egress in egresses if egress.ifindex and not egress.encrypted)
            found[family] = Tunnel(" and ".join(names), interfaces)
    return found


def _name(facts: Facts, egress: Egress) -> str:
    if egress.rejected:
        return "no link: a kill switch rejects it"
    return "an IPsec policy" if egress.encrypted else f"the tunnel {facts.link(egress.ifindex).name}"
