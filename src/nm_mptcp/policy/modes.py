# SPDX-License-Identifier: GPL-2.0-or-later
"""The backup flag by mode: by kind of device, on all links but the best, or on none. It depends on all paths together."""

from __future__ import annotations

from dataclasses import replace

from ..config.settings import Config, MeteredPolicy, RoamingPolicy
from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Mode, Owner, State
from .facts import Decision, Facts
from .metered import COSTS, metered_by
from .vpn_guard import GUARDED

_WORST = (1 << 32) - 1


def apply_mode(facts: Facts, decisions: list[Decision], config: Config) -> list[Decision]:
    """The decisions with the flags of the mode; only for paths whose flags neither profile nor configuration sets.

    Modes differ in the backup flag alone, which is changed in place (MP_PRIO): a change of mode closes no subflow. Mode
    ``off`` excludes these paths.
    """
    if config.mode in (Mode.AUTO, Mode.INTERACTIVE):
        return decisions
    if config.mode is Mode.OFF:
        return [
            replace(decision, state=State.EXCLUDED, reason=Reason(Why.MODE_OFF), wants_endpoint=False)
            if not _leaves_for_tunnel(facts, decision)
            and ((decision.automatic and decision.state is not State.EXCLUDED) or decision.reason.why in COSTS)
            else decision
            for decision in decisions
        ]
    best = _best_link(facts, decisions) if config.mode is Mode.HANDOVER else None
    return [_in_mode(facts, decision, config.mode, best) if _is_free(decision) else decision for decision in decisions]


def _leaves_for_tunnel(facts: Facts, decision: Decision) -> bool:
    """Whether an address has an endpoint below a full tunnel: that goes, or stays, for the tunnel's sake, not for the mode's,
    by which it would stay for live connections.
    """
    return decision.reason.why in GUARDED and facts.removable_endpoint(decision) is not None


def _is_free(decision: Decision) -> bool:
    """Whether the mode may set this path's flags: not if the configuration says what a metered or roaming path is to be."""
    if not decision.automatic or not decision.flags:
        return False
    if decision.device is None:
        return True
    metered, roaming = decision.options.metered, decision.options.roaming
    chosen = metered.origin is not None and metered.value is not MeteredPolicy.IGNORE
    if chosen and metered_by(decision.device, decision.options):
        return False
    return not (decision.device.roaming and roaming.value is RoamingPolicy.BACKUP)


def _in_mode(facts: Facts, decision: Decision, mode: Mode, best: int | None) -> Decision:
    flags, words = decision.flags & ~EndpointFlag.BACKUP, "regular: all paths are regular"
    if mode is not Mode.AGGREGATE:
        words = "regular: its route metric is the lowest"
        if best is not None and decision.ifindex != best:
            flags |= EndpointFlag.BACKUP
            words = f"backup: {facts.link(best).name} has the lowest route metric"
    if decision.state is not State.ACTIVE:
        return replace(decision, flags=flags)
    return replace(decision, flags=flags, reason=Reason(Why.MODE, f"{mode}, {words}"))


def _best_link(facts: Facts, decisions: list[Decision]) -> int | None:
    """The interface of the active path whose default route has the lowest metric: new connections leave by it.

    A path that the profile or the configuration makes backup is no candidate, whatever its metric. None without candidates.
    """
    candidates = [
        (route.metric if route else _WORST, decision.family, decision.ifindex)
        for decision in decisions
        if decision.state is State.ACTIVE
        and decision.owner is not Owner.OTHER
        and facts.link(decision.ifindex).carrier
        and (_is_free(decision) or not decision.flags & EndpointFlag.BACKUP)
        for route in [facts.default(decision.ifindex, decision.family, decision.route_table)]
    ]
    return min(candidates)[2] if candidates else None
