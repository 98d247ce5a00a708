# SPDX-License-Identifier: GPL-2.0-or-later
"""What may go when a link is lost, goes down or leads nowhere, and what must stay for live connections."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from ..config.settings import Config, ConnectivityPolicy, Failover
from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Connectivity, Endpoint, Family, Owner, State
from .facts import SUPERSEDED, Decision, Facts
from .metered import COSTS

#: Verdicts that are somebody's will: then an endpoint goes, whatever depends on it. All others come from circumstances, or
#: from what is not known: a connection's last subflow outlives them.
_WILLS = frozenset(
    {
        Why.DISABLED_BY_PROFILE,
        Why.DISABLED_BY_CONFIGURATION,
        Why.DISABLED_BY_NETWORKMANAGER,
        Why.SOMEBODY_ELSE_OWNS,
        Why.VPN_GUARD,
        Why.KEPT_BESIDE_TUNNEL,
    }
)

#: Circumstances that pass, or that nothing is known of: where no other path of the family stays, the endpoint does. In all
#: others connections stay on it, but it is kept for nothing else.
PASSING = frozenset(
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

#: Those in which nothing goes by the link any more: subflows with a live sibling are better closed.
_DEAD = frozenset({Why.DEACTIVATING, Why.NO_CARRIER, Why.LINK_DOWN})

#: The same where something does go by the link, but is to be paid for.
_CLOSING = _DEAD | COSTS

#: Those in which what stands on an address is no help to anybody, whether it has an endpoint or not.
_NO_HELP = _CLOSING | {Why.NO_DEFAULT_ROUTE, Why.ACTIVATING, Why.HELD_BACK, Why.TENTATIVE, Why.ADDRESS_AWAY}

#: Endpoints that stay until their last dependent ends.
KEPT_FOR_CONNECTIONS = frozenset({Why.KEPT_FOR_CONNECTIONS, Why.KEPT_UNTIL_REPLACED})

#: What NetworkManager's check found when there is a network, but not the Internet. "None" it says of a device that is not
#: fully activated or has no default route: that is no finding, and the routes tell it better.
_HELD_UP = (Connectivity.PORTAL, Connectivity.LIMITED)


def suspend_lost_links(facts: Facts, decisions: list[Decision], config: Config) -> list[Decision]:
    """A path on a link that is lost is suspended, and one on a link that flaps is held back before it returns."""
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
    held = facts.snapshot.damped.get(decision.ifindex)
    if held and decision.state is State.ACTIVE and facts.removable_endpoint(decision) is None:
        return Reason(Why.HELD_BACK, f"{held:g} s")
    return None


def _would_be_a_path(facts: Facts, decision: Decision) -> bool:
    """Whether the link is all that keeps an address from being a path, or what else does comes from the link.

    A link that is taken down loses its IPv4 routes and its IPv6 addresses as well, and without carrier duplicate address
    detection does not begin.
    """
    why = decision.reason.why
    if decision.state is State.ACTIVE or why is Why.TENTATIVE:
        return True
    if why in PASSING and facts.removable_endpoint(decision) is not None:
        return why not in COSTS
    # NetworkManager's endpoint may be gone already; where no rules are made (routing=no), the endpoint alone tells.
    return why is Why.NO_DEFAULT_ROUTE and decision.address in facts.addresses_with_rules


def apply_connectivity(facts: Facts, decisions: list[Decision]) -> list[Decision]:
    """Behind a portal a new endpoint waits and an existing one becomes backup - while another path has full connectivity.

    Only then, so that an outage of the check's own server costs nobody a path. Explicit flags are not overruled.
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
        minded = decision.owner is Owner.OURS and decision.options.connectivity.value is ConnectivityPolicy.CHECK
        if decision.state is State.ACTIVE and minded and found in _HELD_UP and others:
            reason = Reason(Why.NO_CONNECTIVITY, found.name.lower())
            if facts.own_endpoint(decision.on):
                decision = replace(
                    decision, state=State.SUSPENDED, reason=reason, flags=decision.flags | EndpointFlag.BACKUP
                )
            else:
                decision = replace(decision, state=State.WAITING, reason=reason, wants_endpoint=False)
        result.append(decision)
    return result


@dataclass(frozen=True, slots=True)
class Suspension:
    """The decisions after it was seen what may go, and what has to be done for live connections."""

    decisions: list[Decision]
    withdrawn: frozenset[Endpoint] = frozenset()
    close_initial_subflows: frozenset[str] = frozenset()
    close_redundant: frozenset[str] = frozenset()
    lost_addresses: frozenset[str] = frozenset()
    asks: bool = False


def suspend(facts: Facts, decisions: list[Decision], config: Config) -> Suspension:
    """Which endpoints may go that circumstances are against: never the last path, never a connection's last subflow.

    Deleting an endpoint closes its subflows. A connection that has no other, and whose server refuses joins, would be
    dead for ever although it could outlive the circumstance; so its endpoint stays, and only redundant subflows are closed.
    """
    staying = {v.family for v in decisions if v.state is State.ACTIVE and facts.link(v.ifindex).carrier}
    going = [v for v in decisions if _is_against(v) and (v.family in staying or _for_good(v))]
    closing = {decision.ifindex for decision in going if decision.reason.why in _CLOSING}
    # On such a link no address is to carry anything, also none that is no path itself.
    seats = {v.address for v in decisions if v.ifindex in closing and v.family in staying}
    helpless = [v for v in going if v.reason.why in _NO_HELP or facts.removable_endpoint(v) is not None]
    lost = frozenset(seats | {decision.address for decision in helpless})
    result = [_suspended(facts, decision, config, staying, lost) for decision in decisions]
    kept = [decision for decision, (_, fate) in zip(decisions, result, strict=True) if fate is _Fate.KEPT]
    if config.failover is not Failover.FAST:
        costly = {decision.ifindex for decision in going if decision.reason.why in COSTS}
        seats = {v.address for v in decisions if v.ifindex in costly and v.family in staying}
    # With an endpoint that has a port go only the subflows that came to this port.
    without = seats - {endpoint.address for endpoint in facts.kernel.endpoints if not endpoint.port}
    depended_on = {address for address in without if facts.dependents(address, lost)}
    redundant = {decision.address for decision in kept if decision.reason.why in _CLOSING} | depended_on
    known = facts.snapshot.connections
    with_sibling = _with_sibling(known or {}, lost)
    return Suspension(
        [decision for decision, _ in result],
        withdrawn=frozenset(_bare_endpoint(facts, v) for v, fate in result if fate is _Fate.WITHDRAWN),
        close_initial_subflows=frozenset((without - depended_on) & with_sibling),
        close_redundant=frozenset(redundant & with_sibling),
        lost_addresses=lost,
        asks=known is None and bool(kept or seats),
    )


class _Fate(enum.Enum):
    """What becomes of the endpoint on an address."""

    DECIDED = enum.auto()  #: as the decision says
    KEPT = enum.auto()  #: it stays for connections, as far as is known
    WITHDRAWN = enum.auto()  #: NetworkManager's is deleted for a while


def _suspended(
    facts: Facts, decision: Decision, config: Config, staying: Set[Family], lost: Set[str]
) -> tuple[Decision, _Fate]:
    """One decision where circumstances are against its endpoint; ``lost`` are the addresses that go."""
    endpoint = facts.removable_endpoint(decision)
    if not _is_against(decision):
        return decision, _Fate.DECIDED
    if decision.family not in staying and not _for_good(decision):
        return _last(facts, decision, endpoint), _Fate.DECIDED
    if endpoint is None:
        return decision, _Fate.DECIDED
    own = facts.own_endpoint(decision.on)
    if config.failover is Failover.SAFE and decision.reason.why in _DEAD and own:
        flags = endpoint.flags | EndpointFlag.BACKUP
        return replace(decision, flags=flags, port=endpoint.port, wants_endpoint=True), _Fate.DECIDED
    if facts.has_dependents(decision.address, lost) or not facts.has_successor(decision):
        return _kept(facts, decision, endpoint), _Fate.KEPT
    return decision, _Fate.DECIDED if own else _Fate.WITHDRAWN


def _bare_endpoint(facts: Facts, decision: Decision) -> Endpoint:
    """The endpoint on an address as it is to be added again: without its id."""
    endpoint = facts.endpoint_at[decision.address]
    return Endpoint(endpoint.address, endpoint.ifindex, endpoint.flags)


def _is_against(decision: Decision) -> bool:
    """Whether a circumstance is against an endpoint on this address."""
    return decision.state is not State.ACTIVE and not decision.wants_endpoint and decision.reason.why not in _WILLS


def _for_good(decision: Decision) -> bool:
    """Whether it goes also where no other path stays: then connections stay on it, but it is kept for nothing else."""
    return decision.reason.why not in PASSING


def _with_sibling(connections: Mapping[frozenset[str], int], lost: Set[str]) -> set[str]:
    """The lost addresses on which a connection stands that also stands elsewhere."""
    found: set[str] = set()
    for places in connections:
        if not places <= lost:
            found |= places & lost
    return found


def _last(facts: Facts, decision: Decision, endpoint: Endpoint | None) -> Decision:
    """No other path of this family is there: what stands stays, and what was only held back comes at once."""
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
    """Live connections depend on it: it stays, as it is or as backup."""
    followed = decision.reason.why in SUPERSEDED
    return replace(
        decision,
        state=_kept_state(decision, State.ACTIVE if followed else State.SUSPENDED),
        reason=Reason(Why.KEPT_UNTIL_REPLACED if followed else Why.KEPT_FOR_CONNECTIONS, str(decision.reason)),
        flags=_kept_flags(decision, endpoint),
        port=endpoint.port,
        wants_endpoint=facts.own_endpoint(decision.on) is not None,
    )


def _kept_state(decision: Decision, state: State) -> State:
    """A profile that cannot be read might say disabled: no path, though what stands there stays."""
    return decision.state if decision.reason.why is Why.UNREADABLE else state


def _kept_flags(decision: Decision, endpoint: Endpoint) -> EndpointFlag:
    return endpoint.flags | EndpointFlag.BACKUP if decision.reason.why in COSTS else endpoint.flags


def renewed(facts: Facts, decisions: list[Decision]) -> frozenset[str]:
    """Endpoints whose subflows died by an error, on which none stands now although live connections could use one."""
    connections = facts.snapshot.connections
    if not connections:
        return frozenset()
    carried = frozenset[str]().union(*connections)
    families = {Family.of(address) for address in carried}
    return frozenset(
        decision.address
        for decision in decisions
        if decision.address in facts.snapshot.subflow_retry_due - carried
        and decision.state is State.ACTIVE
        and decision.family in families
        and facts.removable_endpoint(decision)
    )


def replaceable(facts: Facts, decisions: list[Decision], config: Config) -> frozenset[tuple[Family, int]]:
    """Interfaces whose routes need not be used without carrier: those beside which another path of the family is active.

    New connections then leave by that one at once; on a lone link they are to wait for the link, as ever.
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
