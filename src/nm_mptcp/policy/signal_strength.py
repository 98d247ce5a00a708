# SPDX-License-Identifier: GPL-2.0-or-later
"""Paths on a Wi-Fi with a weak signal become backup, so that another path is in use before the link is lost."""

from __future__ import annotations

from dataclasses import replace

from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Family, State
from .facts import Decision, Facts
from .metered import metered_by


def apply_signal_strength(facts: Facts, decisions: list[Decision]) -> list[Decision]:
    """A path on a weak Wi-Fi becomes backup while another is regular, or can become regular in its place.

    The kernel uses backup subflows only if there is no regular one: if all others are backup, the one with the least cost
    becomes regular. Chosen flags are not changed, and a roaming link does not become regular.
    """
    if not facts.snapshot.weak or facts.unavailable:
        return decisions
    to_backup: set[str] = set()
    to_regular: dict[tuple[int, Family], str] = {}
    for family in Family:
        active = [decision for decision in decisions if decision.family is family and decision.state is State.ACTIVE]
        weak = [decision for decision in active if decision.address in facts.snapshot.weak and decision.automatic]
        usable = [decision for decision in active if _is_usable(facts, decision)]
        if all(decision.flags & EndpointFlag.BACKUP for decision in usable):
            usable = [
                decision
                for decision in usable
                if decision.automatic and not (decision.device and decision.device.roaming)
            ]
            if weak and usable:
                relief = min(usable, key=lambda decision: _cost(facts, decision))
                names = {facts.link(decision.ifindex).name for decision in weak}
                to_regular[relief.ifindex, family] = " and ".join(sorted(names))
        if usable:
            to_backup |= {decision.address for decision in weak}
    return [_changed(decision, to_backup, to_regular) for decision in decisions]


def _is_usable(facts: Facts, decision: Decision) -> bool:
    link = facts.link(decision.ifindex)
    able = decision.flags & EndpointFlag.SUBFLOW and link.up and link.carrier
    return bool(able) and decision.address not in facts.snapshot.weak


def _cost(facts: Facts, decision: Decision) -> tuple[bool, int, int]:
    metered = decision.device is not None and bool(metered_by(decision.device, decision.options))
    return metered, facts.metric(decision), decision.ifindex


def _changed(decision: Decision, to_backup: set[str], to_regular: dict[tuple[int, Family], str]) -> Decision:
    if decision.state is not State.ACTIVE or not decision.automatic:
        return decision
    backup = bool(decision.flags & EndpointFlag.BACKUP)
    if decision.address in to_backup and not backup:
        reason = Reason(Why.WEAK_SIGNAL, f"{decision.options.weak_signal.value.leave} %")
        return replace(decision, flags=decision.flags | EndpointFlag.BACKUP, reason=reason)
    relieved = to_regular.get((decision.ifindex, decision.family))
    if relieved and backup:
        return replace(decision, flags=decision.flags & ~EndpointFlag.BACKUP, reason=Reason(Why.RELIEVES, relieved))
    return decision
