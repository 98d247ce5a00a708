# SPDX-License-Identifier: GPL-2.0-or-later
"""A Wi-Fi whose signal has become weak: before it is lost another path carries."""

from __future__ import annotations

from dataclasses import replace

from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Family, State
from .facts import Decision, Facts
from .metered import metered_by


def apply_signal_strength(facts: Facts, decisions: list[Decision]) -> list[Decision]:
    """A path on a weak Wi-Fi becomes backup while there is another that is regular, or may become so instead.

    The kernel uses backup subflows only where there is no regular one: where all others are backup, the one that costs
    least becomes regular. Flags that somebody chose are not changed, and what is roaming does not carry before it has to.
    """
    if not facts.snapshot.weak or facts.unavailable:
        return decisions
    fading: set[str] = set()
    reliefs: dict[tuple[int, Family], str] = {}
    for family in Family:
        mine = [decision for decision in decisions if decision.family is family and decision.state is State.ACTIVE]
        weak = [decision for decision in mine if decision.address in facts.snapshot.weak and decision.automatic]
        good = [decision for decision in mine if _good(facts, decision)]
        if all(decision.flags & EndpointFlag.BACKUP for decision in good):
            good = [
                decision
                for decision in good
                if decision.automatic and not (decision.device and decision.device.roaming)
            ]
            if weak and good:
                relief = min(good, key=lambda decision: _cost(facts, decision))
                names = {facts.link(decision.ifindex).name for decision in weak}
                reliefs[relief.ifindex, family] = " and ".join(sorted(names))
        if good:
            fading |= {decision.address for decision in weak}
    return [_changed(decision, fading, reliefs) for decision in decisions]


def _good(facts: Facts, decision: Decision) -> bool:
    link = facts.link(decision.ifindex)
    able = decision.flags & EndpointFlag.SUBFLOW and link.up and link.carrier
    return bool(able) and decision.address not in facts.snapshot.weak


def _cost(facts: Facts, decision: Decision) -> tuple[bool, int, int]:
    metered = decision.device is not None and bool(metered_by(decision.device, decision.options))
    return metered, facts.metric(decision), decision.ifindex


def _changed(decision: Decision, fading: set[str], reliefs: dict[tuple[int, Family], str]) -> Decision:
    if decision.state is not State.ACTIVE or not decision.automatic:
        return decision
    backup = bool(decision.flags & EndpointFlag.BACKUP)
    if decision.address in fading and not backup:
        reason = Reason(Why.WEAK_SIGNAL, f"{decision.options.weak_signal.value.leave} %")
        return replace(decision, flags=decision.flags | EndpointFlag.BACKUP, reason=reason)
    relieved = reliefs.get((decision.ifindex, decision.family))
    if relieved and backup:
        return replace(decision, flags=decision.flags & ~EndpointFlag.BACKUP, reason=Reason(Why.RELIEVES, relieved))
    return decision
