# SPDX-License-Identifier: GPL-2.0-or-later
"""The choice of endpoints where the kernel's maximum (``MPTCP_PM_ADDR_MAX``) is less than there are candidates."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import AddressFlag, Endpoint, Family, State
from .facts import Decision, Facts
from .suspension import KEPT_FOR_CONNECTIONS

#: Seconds by which an address must stay preferred longer than one with an endpoint, to be ranked before it: lifetimes have a
#: resolution of one second, and a router does not renew all of them at the same time.
_LONGER = 60.0


def one_interface_each(facts: Facts, decisions: list[Decision]) -> list[Decision]:
    """Exclude an address that is on two interfaces from one of them; it stays where it is active or has its endpoint.

    The kernel accepts one endpoint per address, and a rule cannot distinguish the two interfaces.
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
    """The decisions within the kernel's maximum, and what they require."""

    decisions: list[Decision]
    stale: frozenset[Endpoint] = frozenset()  #: implicit endpoints to delete
    needs_connections: bool = False  #: a choice may depend on the live connections, which are not known


def fill_slots(facts: Facts, decisions: list[Decision], lost: Set[str] = frozenset()) -> Slots:
    """Exclude the paths that exceed the kernel's maximum.

    The order is: explicit flags first, then ``slot-priority``, then one address per interface and family. Of the addresses
    of one interface and family the one that stays preferred longest comes first: a provider that assigns new prefixes lets
    the old ones expire. Among equals the lower route metric wins, then the one that has its endpoint already, so that the
    choice is stable. An endpoint is displaced only if a better path needs its slot, and never while a live connection has its
    only subflow there; ``lost`` are the addresses that lose their endpoint for other reasons. So does one whose interface is
    gone: it moves to the one that has its address now.
    """
    gone = {endpoint.address for endpoint in facts.own if endpoint.ifindex not in facts.kernel.links}
    lost = lost | gone
    candidates = [decision for decision in decisions if decision.wants_endpoint]
    others = [endpoint for endpoint in facts.kernel.endpoints if endpoint not in facts.own]
    replaced = {endpoint.address: endpoint for endpoint in others if _is_replaced(endpoint, candidates)}
    most = facts.kernel.endpoints_max
    slots = max(0, most - len(others) + len(replaced))
    stale: list[Endpoint] = []
    if len(candidates) > slots:
        stale = [endpoint for endpoint in others if _is_stale(facts, endpoint)][: len(candidates) - slots]
        slots += len(stale)
    own = {candidate.address for candidate in candidates if facts.own_endpoint(candidate.on)}
    choice = _choose(facts, candidates, slots, own | replaced.keys(), lost)
    out = choice.displaced | choice.without
    needs_connections = choice.needs_connections
    stale += [replaced[address] for address in replaced.keys() & out]
    if len(others) - len(stale) + len(own - out) >= most:
        # To replace an implicit endpoint the kernel needs a free slot; without one it has to be deleted before.
        for address in replaced.keys() - out:
            if facts.has_dependents(address, lost | choice.displaced | replaced.keys()):
                needs_connections |= facts.snapshot.connections is None
                out |= {address}
            else:
                stale.append(replaced[address])
    reason = Reason(Why.NO_SLOT, _words(most, len(others) - len(replaced)))
    result = [
        _with_choice(facts, decision, decision.address in out, decision.address in choice.kept, reason)
        for decision in decisions
    ]
    return Slots(result, frozenset(stale), needs_connections)


@dataclass(frozen=True, slots=True)
class _Choice:
    """The addresses that get no slot, and those that have one only for their live connections."""

    displaced: frozenset[str]  #: their endpoint, ours or an implicit one, is to be deleted
    without: frozenset[str]  #: they have no endpoint, and get none
    kept: frozenset[str]  #: without their connections they would get no slot
    needs_connections: bool


def _choose(facts: Facts, candidates: list[Decision], slots: int, present: Set[str], lost: Set[str]) -> _Choice:
    """The best candidates, after those ``present`` (with an endpoint) on which a live connection has its only subflow."""
    ranked = _ranked(facts, candidates) if len(candidates) > slots else candidates
    pinned: set[str] = set()
    while True:
        last = sorted(ranked, key=lambda candidate: candidate.address not in pinned)[slots:]
        displaced = frozenset(candidate.address for candidate in last if candidate.address in present)
        needed = {address for address in displaced if facts.has_dependents(address, lost | displaced)} - pinned
        if not needed:
            break
        pinned |= needed
    return _Choice(
        displaced,
        frozenset(candidate.address for candidate in last) - displaced,
        frozenset(candidate.address for candidate in ranked[slots:] if candidate.address in pinned),
        bool(pinned) and facts.snapshot.connections is None,
    )


def _ranked(facts: Facts, candidates: list[Decision]) -> list[Decision]:
    """The best first. Those that the kernel refuses come last, so that they use no slot that another can use."""
    seen: dict[tuple[int, Family], int] = {}
    ranks = {}

    def longest_first(candidate: Decision) -> tuple[bool, float, bool, str]:
        deprecated = bool(candidate.on.flags & AddressFlag.DEPRECATED)
        present = facts.own_endpoint(candidate.on) is not None
        until = candidate.on.preferred_until + (_LONGER if present else 0)
        return (deprecated, -until, not present, candidate.address)

    for candidate in sorted(candidates, key=longest_first):
        place = (candidate.ifindex, candidate.family)
        nth = seen[place] = seen.get(place, -1) + 1
        ranks[candidate.address] = (
            facts.is_refused(candidate),
            not candidate.explicit,
            -candidate.options.slot_priority.value,
            nth,
            facts.metric(candidate),
            facts.own_endpoint(candidate.on) is None,
            candidate.ifindex,
            candidate.address,
        )
    return sorted(candidates, key=lambda candidate: ranks[candidate.address])


def _with_choice(facts: Facts, decision: Decision, out: bool, kept: bool, reason: Reason) -> Decision:
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
        return f"{most} endpoints, all used by better paths"
    if others < most:
        return f"{most} endpoints; {others} used by other programs, the rest by better paths"
    return f"{most} endpoints, all used by other programs"


def _is_replaced(endpoint: Endpoint, candidates: list[Decision]) -> bool:
    """Whether an endpoint is implicit, and a candidate's would replace it (one with a port would not)."""
    return bool(endpoint.flags & EndpointFlag.IMPLICIT) and any(
        candidate.address == endpoint.address and not candidate.port for candidate in candidates
    )


def _is_stale(facts: Facts, endpoint: Endpoint) -> bool:
    """Whether an endpoint is implicit and its address is gone: the kernel never deletes such an endpoint."""
    return bool(endpoint.flags & EndpointFlag.IMPLICIT) and not facts.is_present(endpoint.address)
