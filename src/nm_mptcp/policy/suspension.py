# SPDX-License-Identifier: GPL-2.0-or-later
"""Suspension: which endpoints are deleted when a link is lost or unusable, and which stay for live connections."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from ..config.settings import Config, ConnectivityPolicy, Failover
from ..model.device_types import PPP
from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Connectivity, Endpoint, Family, Owner, State
from .facts import SUPERSEDED, Decision, Facts
from .metered import COSTS

#: Reasons by somebody's deliberate choice: the endpoint is deleted, whatever depends on it. All others are circumstances, or a
#: lack of knowledge: a connection's last subflow outlives them.
_DELIBERATE = frozenset(
    {
        Why.DISABLED_BY_PROFILE,
        Why.DISABLED_BY_CONFIGURATION,
        Why.DISABLED_BY_NETWORKMANAGER,
        Why.SOMEBODY_ELSE_OWNS,
        Why.VPN_GUARD,
        Why.KEPT_BESIDE_TUNNEL,
    }
)

#: Transient circumstances, and a lack of knowledge: the endpoint stays if no other path of the family does. With any other
#: reason it stays only for live connections.
TRANSIENT = frozenset(
    {
        Why.NO_DEFAULT_ROUTE,
        Why.DEACTIVATING,
        Why.ACTIVATING,
        Why.ADDRESS_AWAY,
        Why.TENTATIVE,
        Why.NO_CARRIER,
        Why.LINK_DOWN,
        Why.HELD_BACK,
        Why.DEPRECATED,
        Why.NO_LONGER_CHOSEN,
        Why.NOT_MANAGED,
        Why.EXTERNAL,
        Why.UNREADABLE,
        *COSTS,
    }
)

#: Reasons with which no packet passes the link: subflows whose connection has another one are better closed.
_LINK_LOST = frozenset({Why.DEACTIVATING, Why.NO_CARRIER, Why.LINK_DOWN})

#: Reasons with which such subflows are closed: also on links that work, but cost money.
_CLOSING = _LINK_LOST | COSTS

#: Reasons with which a subflow on the address is no alternative to another one, whether the address has an endpoint or not.
_NO_ALTERNATIVE = _CLOSING | {Why.NO_DEFAULT_ROUTE, Why.ACTIVATING, Why.HELD_BACK, Why.TENTATIVE, Why.ADDRESS_AWAY}

#: Reasons of endpoints that stay until the last connection that depends on them ends.
KEPT_FOR_CONNECTIONS = frozenset({Why.KEPT_FOR_CONNECTIONS, Why.KEPT_UNTIL_REPLACED})

#: The results of NetworkManager's connectivity check for a network without Internet access. Not NONE: NetworkManager reports
#: it for a device that is not fully activated or has no default route, which the routes show more reliably.
_NO_INTERNET = (Connectivity.PORTAL, Connectivity.LIMITED)


def suspend_lost_links(facts: Facts, decisions: list[Decision], config: Config) -> list[Decision]:
    """Suspend the paths on links that are down or without carrier, and new endpoints on links that flap."""
    if config.failover is Failover.OFF:
        return decisions
    return [
        replace(decision, state=State.SUSPENDED, reason=reason, wants_endpoint=False)
        if decision.owner is not Owner.OTHER and (reason := _link_reason(facts, decision))
        else decision
        for decision in decisions
    ]


def _link_reason(facts: Facts, decision: Decision) -> Reason | None:
    link = facts.link(decision.ifindex)
    if not (link.up and link.carrier):
        if not _would_be_a_path(facts, decision):
            return None
        return Reason(Why.NO_CARRIER if link.up else Why.LINK_DOWN)
    delay = facts.snapshot.damped.get(decision.ifindex)
    if delay and decision.state is State.ACTIVE and facts.removable_endpoint(decision) is None:
        return Reason(Why.HELD_BACK, f"{delay:g} s")
    return None


def _would_be_a_path(facts: Facts, decision: Decision) -> bool:
    """Whether only the state of its link, or a consequence of it, keeps an address from being a path.

    A link that is set down loses its IPv4 routes and its IPv6 addresses as well, and duplicate address detection does not
    begin without carrier.
    """
    why = decision.reason.why
    if decision.state is State.ACTIVE or why is Why.TENTATIVE:
        return True
    if why in TRANSIENT and facts.removable_endpoint(decision) is not None:
        return why not in COSTS
    # NetworkManager may have deleted its endpoint already: then the rules show that the address was a path (not if routing=no).
    return why is Why.NO_DEFAULT_ROUTE and decision.address in facts.addresses_with_rules


def apply_connectivity(facts: Facts, decisions: list[Decision]) -> list[Decision]:
    """Without Internet access a new endpoint waits and an existing one becomes backup, if another path has full connectivity.

    Only then, so that an outage of the check's server costs no path. Endpoints with explicit flags are not affected.
    """
    full = {
        (decision.family, decision.ifindex)
        for decision in decisions
        if decision.state is State.ACTIVE
        and decision.device
        and decision.device.connectivity(decision.family) is Connectivity.FULL
    }
    result = []
    for decision in decisions:
        found = decision.device.connectivity(decision.family) if decision.device else Connectivity.UNKNOWN
        others = any(family is decision.family and ifindex != decision.ifindex for family, ifindex in full)
        applies = decision.owner is Owner.OURS and decision.options.connectivity.value is ConnectivityPolicy.CHECK
        if (
            decision.state is State.ACTIVE
            and applies
            and found in _NO_INTERNET
            and others
            and not _is_misjudged(facts, decision)
        ):
            reason = Reason(Why.NO_CONNECTIVITY, found.name.lower())
            if facts.own_endpoint(decision.on):
                decision = replace(
                    decision, state=State.SUSPENDED, reason=reason, flags=decision.flags | EndpointFlag.BACKUP
                )
            else:
                decision = replace(decision, state=State.WAITING, reason=reason, wants_endpoint=False)
        result.append(decision)
    return result


def _is_misjudged(facts: Facts, decision: Decision) -> bool:
    """Whether the check says LIMITED of a link that has full connectivity: before 1.58.1 NetworkManager does for PPP, whose
    default route has link scope (its commit c895424212).
    """
    limited = decision.device is not None and decision.device.connectivity(decision.family) is Connectivity.LIMITED
    return limited and facts.link(decision.ifindex).kind == PPP and not facts.networkmanager.is_at_least(1, 58, 1)


@dataclass(frozen=True, slots=True)
class Suspension:
    """The decisions with suspension applied, and what they require; the fields are those of :class:`Desired`."""

    decisions: list[Decision]
    withdrawn: frozenset[Endpoint] = frozenset()
    close_initial_subflows: frozenset[str] = frozenset()
    close_redundant: frozenset[str] = frozenset()
    lost_addresses: frozenset[str] = frozenset()
    needs_connections: bool = False


def suspend(facts: Facts, decisions: list[Decision], config: Config) -> Suspension:
    """Delete the endpoints that circumstances require to go: never the last path, never a connection's last subflow.

    Deleting an endpoint closes its subflows. A connection that has no other, and whose server refuses joins, would be dead
    for good although it could outlive the circumstance; so its endpoint stays, and only redundant subflows are closed.
    """
    staying = {v.family for v in decisions if v.state is State.ACTIVE and facts.link(v.ifindex).carrier}
    going = [v for v in decisions if _is_affected(v) and (v.family in staying or _is_permanent(v))]
    closing = {decision.ifindex for decision in going if decision.reason.why in _CLOSING}
    # On such a link subflows are closed on all addresses, also on those that are no paths.
    closed = {v.address for v in decisions if v.ifindex in closing and v.family in staying}
    no_alternative = [v for v in going if v.reason.why in _NO_ALTERNATIVE or facts.removable_endpoint(v) is not None]
    lost = frozenset(closed | {decision.address for decision in no_alternative})
    result = [_suspended(facts, decision, config, staying, lost) for decision in decisions]
    kept = [decision for decision, (_, fate) in zip(decisions, result, strict=True) if fate is _Fate.KEPT]
    if config.failover is not Failover.FAST:
        costly = {decision.ifindex for decision in going if decision.reason.why in COSTS}
        closed = {v.address for v in decisions if v.ifindex in costly and v.family in staying}
    # Deleting an endpoint with a port closes only the subflows to this port.
    without = closed - {endpoint.address for endpoint in facts.kernel.endpoints if not endpoint.port}
    with_dependents = {address for address in without if facts.dependents(address, lost)}
    redundant = {decision.address for decision in kept if decision.reason.why in _CLOSING} | with_dependents
    known = facts.snapshot.connections
    with_sibling = _with_sibling(known or {}, lost)
    return Suspension(
        [decision for decision, _ in result],
        withdrawn=frozenset(_bare_endpoint(facts, v) for v, fate in result if fate is _Fate.WITHDRAWN),
        close_initial_subflows=frozenset((without - with_dependents) & with_sibling),
        close_redundant=frozenset(redundant & with_sibling),
        lost_addresses=lost,
        needs_connections=known is None and bool(kept or closed),
    )


class _Fate(enum.Enum):
    """What happens to the endpoint on an address."""

    DECIDED = enum.auto()  #: what the decision says
    KEPT = enum.auto()  #: it stays for live connections, or because they are not known
    WITHDRAWN = enum.auto()  #: it is NetworkManager's, and is deleted for now


def _suspended(
    facts: Facts, decision: Decision, config: Config, staying: Set[Family], lost: Set[str]
) -> tuple[Decision, _Fate]:
    """One decision with suspension applied; ``staying`` are the families with a path that stays, ``lost`` as in Desired."""
    endpoint = facts.removable_endpoint(decision)
    if not _is_affected(decision):
        return decision, _Fate.DECIDED
    if decision.family not in staying and not _is_permanent(decision):
        return _kept_last(facts, decision, endpoint), _Fate.DECIDED
    if endpoint is None:
        return decision, _Fate.DECIDED
    own = facts.own_endpoint(decision.on)
    if config.failover is Failover.SAFE and decision.reason.why in _LINK_LOST and own:
        flags = endpoint.flags | EndpointFlag.BACKUP
        return replace(decision, flags=flags, port=endpoint.port, wants_endpoint=True), _Fate.DECIDED
    if facts.has_dependents(decision.address, lost) or not facts.has_successor(decision):
        return _kept(facts, decision, endpoint), _Fate.KEPT
    return decision, _Fate.DECIDED if own else _Fate.WITHDRAWN


def _bare_endpoint(facts: Facts, decision: Decision) -> Endpoint:
    """The endpoint on an address without its id, as it will be added again."""
    endpoint = facts.endpoint_at[decision.address]
    return Endpoint(endpoint.address, endpoint.ifindex, endpoint.flags)


def _is_affected(decision: Decision) -> bool:
    """Whether a circumstance, not somebody's choice, requires an endpoint on this address to go."""
    return decision.state is not State.ACTIVE and not decision.wants_endpoint and decision.reason.why not in _DELIBERATE


def _is_permanent(decision: Decision) -> bool:
    """Whether the endpoint goes even if no other path stays, and is kept only for live connections."""
    return decision.reason.why not in TRANSIENT


def _with_sibling(connections: Mapping[frozenset[str], int], lost: Set[str]) -> set[str]:
    """The lost addresses with a subflow whose connection also has one on an address that is not lost."""
    found: set[str] = set()
    for places in connections:
        if not places <= lost:
            found |= places & lost
    return found


def _kept_last(facts: Facts, decision: Decision, endpoint: Endpoint | None) -> Decision:
    """Without another path of its family an existing endpoint stays, and one on a flapping link is added without delay."""
    own = facts.own_endpoint(decision.on)
    if decision.reason.why is Why.HELD_BACK:
        wants = decision.owner is Owner.OURS or decision.address in facts.withdrawn
        return replace(decision, state=State.ACTIVE, wants_endpoint=wants)
    if endpoint is None:
        return decision
    reason = Reason(Why.KEPT_LAST, str(decision.reason))
    return replace(
        decision,
        state=_kept_state(decision, State.ACTIVE),
        reason=reason,
        flags=_kept_flags(decision, endpoint),
        port=endpoint.port,
        wants_endpoint=own is not None,
    )


def _kept(facts: Facts, decision: Decision, endpoint: Endpoint) -> Decision:
    """With live connections that depend on it, or without a successor, an endpoint stays, unchanged or as backup."""
    superseded = decision.reason.why in SUPERSEDED
    return replace(
        decision,
        state=_kept_state(decision, State.ACTIVE if superseded else State.SUSPENDED),
        reason=Reason(Why.KEPT_UNTIL_REPLACED if superseded else Why.KEPT_FOR_CONNECTIONS, str(decision.reason)),
        flags=_kept_flags(decision, endpoint),
        port=endpoint.port,
        wants_endpoint=facts.own_endpoint(decision.on) is not None,
    )


def _kept_state(decision: Decision, state: State) -> State:
    """The state of a kept endpoint. An unreadable profile may disable MPTCP: its address is no path, but its endpoint stays."""
    return decision.state if decision.reason.why is Why.UNREADABLE else state


def _kept_flags(decision: Decision, endpoint: Endpoint) -> EndpointFlag:
    return endpoint.flags | EndpointFlag.BACKUP if decision.reason.why in COSTS else endpoint.flags


def renewed(facts: Facts, decisions: list[Decision]) -> frozenset[str]:
    """The addresses whose endpoint is to be re-added: its subflows failed, it has none, and live connections could use one."""
    connections = facts.snapshot.connections
    if not connections:
        return frozenset()
    in_use = frozenset[str]().union(*connections)
    families = {Family.of(address) for address in in_use}
    return frozenset(
        decision.address
        for decision in decisions
        if decision.address in facts.snapshot.subflow_retry_due - in_use
        and decision.state is State.ACTIVE
        and decision.family in families
        and facts.removable_endpoint(decision)
    )


def replaceable(facts: Facts, decisions: list[Decision], config: Config) -> frozenset[tuple[Family, int]]:
    """The interfaces, by family, whose routes may be ignored without carrier: another one of the family has an active path.

    New connections then use that one at once; on the only link they wait for its carrier, as with NetworkManager alone.
    """
    if config.failover is Failover.OFF:
        return frozenset()
    active: dict[Family, set[int]] = {}
    for decision in decisions:
        if decision.state is State.ACTIVE and facts.link(decision.ifindex).carrier:
            active.setdefault(decision.family, set()).add(decision.ifindex)
    return frozenset(
        (decision.family, decision.ifindex)
        for decision in decisions
        if decision.state in (State.ACTIVE, State.SUSPENDED) and active.get(decision.family, set()) - {decision.ifindex}
    )
