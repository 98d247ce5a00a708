# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel takes only so many endpoints: which ones."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import AddressFlag, Endpoint, Family, State
from .facts import Decision, Facts
from .suspension import KEPT_FOR_CONNECTIONS

#: Seconds by which one address has to stay preferred longer than another that has its endpoint, to come before it: lifetimes
#: are told in seconds, and a router does not renew all in the same moment.
_LONGER = 60.0


def one_interface_each(facts: Facts, decisions: list[Decision]) -> list[Decision]:
    """An address that stands on two interfaces is a path on one of them: where it is active, and has its endpoint already.

    The kernel takes one endpoint an address, and a rule cannot tell the two apart.
    """
    best: dict[str, Decision] = {}
    for decision in decisions:
        other = best.get(decision.address)
        if other is None or _claim(facts, decision) > _claim(facts, other):
            best[decision.address] = decision
    return [
        decision
        if best[decision.address] is decision or decision.state is State.EXCLUDED
        else replace(
            decision,
            state=State.EXCLUDED,
            reason=Reason(Why.TWICE, facts.link(best[decision.address].ifindex).name),
            wants_endpoint=False,
        )
        for decision in decisions
    ]


def _claim(facts: Facts, decision: Decision) -> tuple[bool, bool, bool]:
    endpoint = facts.endpoint_at.get(decision.address)
    return (
        decision.state is State.ACTIVE,
        decision.state is not State.EXCLUDED,
        endpoint is not None and endpoint.ifindex == decision.ifindex,
    )


@dataclass(frozen=True, slots=True)
class Slots:
    """The decisions after it was seen what finds a place, and what has to be known or to go for that."""

    decisions: list[Decision]
    stale: frozenset[Endpoint] = frozenset()
    asks: bool = False


def fill_slots(facts: Facts, decisions: list[Decision], lost: Set[str] = frozenset()) -> Slots:
    """The kernel takes only so many endpoints: explicit flags first, then what ``slot-priority`` says, then one
    address an interface and family.

    Of the addresses of one interface and family the one that stays preferred longest comes first: a provider that gives
    out new prefixes lets the old ones run out. Among equals the better route metric wins, then the one that has its
    endpoint already, so that nothing flaps. An
    endpoint that stands is displaced only where a better path would find no place, and never while a live connection has
    its only subflow there; ``lost`` are the addresses that go for other reasons.
    """
    wishes = [decision for decision in decisions if decision.wants_endpoint]
    others = [endpoint for endpoint in facts.kernel.endpoints if endpoint not in facts.own]
    giving_way = {endpoint.address: endpoint for endpoint in others if _gives_way(endpoint, wishes)}
    most = facts.kernel.endpoints_max
    slots = max(0, most - len(others) + len(giving_way))
    stale: list[Endpoint] = []
    if len(wishes) > slots:
        stale = [endpoint for endpoint in others if _is_stale(facts, endpoint)][: len(wishes) - slots]
        slots += len(stale)
    own = {wish.address for wish in wishes if facts.own_endpoint(wish.on)}
    chosen = _chosen(facts, wishes, slots, own | giving_way.keys(), lost)
    out = chosen.displaced | chosen.without
    asks = chosen.asks
    stale += [giving_way[address] for address in giving_way.keys() & out]
    if len(others) - len(stale) + len(own - out) >= most:
        # An implicit one gives way by an exchange for which the kernel wants a free place: here it has to go before.
        for address in giving_way.keys() - out:
            if facts.has_dependents(address, lost | chosen.displaced | giving_way.keys()):
                asks |= facts.snapshot.connections is None
                out |= {address}
            else:
                stale.append(giving_way[address])
    reason = Reason(Why.NO_SLOT, _words(most, len(others) - len(giving_way)))
    told = [
        _told(facts, decision, decision.address in out, decision.address in chosen.kept, reason)
        for decision in decisions
    ]
    return Slots(told, frozenset(stale), asks)


@dataclass(frozen=True, slots=True)
class _Choice:
    """By address: who finds no place, and who has one only for the connections on it."""

    displaced: frozenset[str]  #: has an endpoint, ours or the kernel's own, which is to go
    without: frozenset[str]  #: has none, and gets none
    kept: frozenset[str]
    asks: bool


def _chosen(facts: Facts, wishes: list[Decision], slots: int, standing: Set[str], lost: Set[str]) -> _Choice:
    """The best ones; but what stands, and has a connection that stands nowhere else, keeps its place before a better one."""
    ranked = _ranked(facts, wishes) if len(wishes) > slots else wishes
    pinned: set[str] = set()
    while True:
        last = sorted(ranked, key=lambda wish: wish.address not in pinned)[slots:]
        displaced = frozenset(wish.address for wish in last if wish.address in standing)
        held = {address for address in displaced if facts.has_dependents(address, lost | displaced)} - pinned
        if not held:
            break
        pinned |= held
    return _Choice(
        displaced,
        frozenset(wish.address for wish in last) - displaced,
        frozenset(wish.address for wish in ranked[slots:] if wish.address in pinned),
        bool(pinned) and facts.snapshot.connections is None,
    )


def _ranked(facts: Facts, wishes: list[Decision]) -> list[Decision]:
    """The best first. What the kernel refuses comes last, so that it takes no place from what works."""
    seen: dict[tuple[int, Family], int] = {}
    ranks = {}

    def longest_first(wish: Decision) -> tuple[bool, float, bool, str]:
        deprecated, stands = bool(wish.on.flags & AddressFlag.DEPRECATED), facts.own_endpoint(wish.on) is not None
        return (deprecated, -wish.on.preferred_until - (_LONGER if stands else 0), not stands, wish.address)

    for wish in sorted(wishes, key=longest_first):
        place = (wish.ifindex, wish.family)
        nth = seen[place] = seen.get(place, -1) + 1
        ranks[wish.address] = (
            facts.is_refused(wish),
            not wish.explicit,
            -wish.options.slot_priority.value,
            nth,
            facts.metric(wish),
            facts.own_endpoint(wish.on) is None,
            wish.ifindex,
            wish.address,
        )
    return sorted(wishes, key=lambda wish: ranks[wish.address])


def _told(facts: Facts, decision: Decision, out: bool, kept: bool, reason: Reason) -> Decision:
    if not decision.wants_endpoint:
        return decision
    if not out and kept and decision.reason.why not in KEPT_FOR_CONNECTIONS:
        return replace(decision, reason=Reason(Why.KEPT_FOR_CONNECTIONS, str(reason)))
    if not out:
        return decision
    if facts.is_refused(decision):
        return replace(decision, wants_endpoint=False)
    return replace(decision, state=State.EXCLUDED, reason=reason, wants_endpoint=False)


def _words(most: int, others: int) -> str:
    if not others:
        return f"{most} endpoints, and better paths have them"
    if others < most:
        return f"{most} endpoints; {others} of them others made, and better paths have the rest"
    return f"{most} endpoints, and others made them all"


def _gives_way(endpoint: Endpoint, wishes: list[Decision]) -> bool:
    """Whether an endpoint is the kernel's own, where one of these is wished (one with a port stands beside it)."""
    return bool(endpoint.flags & EndpointFlag.IMPLICIT) and any(
        wish.address == endpoint.address and not wish.port for wish in wishes
    )


def _is_stale(facts: Facts, endpoint: Endpoint) -> bool:
    """Whether an endpoint is the kernel's own, for an address that is gone: the kernel never takes it away."""
    return bool(endpoint.flags & EndpointFlag.IMPLICIT) and not facts.is_present(endpoint.address)
