# SPDX-License-Identifier: GPL-2.0-or-later
"""Paths on a Wi-Fi with a weak signal become backup, so that another path is in use before the link is lost."""

from __future__ import annotations

from dataclasses import replace

from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import State
from .facts import Decision, Facts
from .relief import Relief, relief


def apply_signal_strength(facts: Facts, decisions: list[Decision]) -> list[Decision]:
    """A path on a weak Wi-Fi becomes backup while another is regular, or can become regular in its place."""
    if not facts.snapshot.weak or facts.unavailable:
        return decisions
    weak = {each.address for each in decisions if each.address in facts.snapshot.weak and each.automatic}
    found = relief(facts, [each for each in decisions if each.address in weak or _is_strong(facts, each)], weak)
    return [_changed(decision, found) for decision in decisions]


def _is_strong(facts: Facts, decision: Decision) -> bool:
    return decision.address not in facts.snapshot.weak


def _changed(decision: Decision, found: Relief) -> Decision:
    if decision.state is not State.ACTIVE or not decision.automatic:
        return decision
    if decision.address in found.to_backup and not decision.flags & EndpointFlag.BACKUP:
        reason = Reason(Why.WEAK_SIGNAL, f"{decision.options.weak_signal.value.leave} %")
        return replace(decision, flags=decision.flags | EndpointFlag.BACKUP, reason=reason)
    return found.apply(decision, Why.RELIEVES)
