# SPDX-License-Identifier: GPL-2.0-or-later
"""Mode ``interactive``: while all regular paths of a family are slow or lose packets, its cheapest backup carries as well."""

from __future__ import annotations

from ..model.reasons import Why
from ..model.state import Mode, State
from .facts import Decision, Facts
from .relief import relief


def apply_link_quality(facts: Facts, decisions: list[Decision]) -> list[Decision]:
    """The decisions with a backup path regular where it relieves poor ones, which stay regular: the load is shared."""
    poor = facts.snapshot.poor
    if not poor or facts.unavailable or facts.config.mode is not Mode.INTERACTIVE:
        return decisions
    found = relief(facts, decisions, {each.address for each in decisions if (each.family, each.ifindex) in poor})
    return [
        found.apply(decision, Why.SHARES_LOAD) if decision.state is State.ACTIVE else decision for decision in decisions
    ]
