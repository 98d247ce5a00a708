# SPDX-License-Identifier: GPL-2.0-or-later
"""Which paths carry, by mode: as their kind is, only the best one, or all. So one path's flags depend on the others."""

from __future__ import annotations

from dataclasses import replace

from ..config.settings import Config, MeteredPolicy, RoamingPolicy
from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Mode, Owner, State
from .facts import Facts, Verdict
from .metered import COSTS, metered_by

_WORST = (1 << 32) - 1


def mind_mode(facts: Facts, verdicts: list[Verdict], config: Config) -> list[Verdict]:
    """The verdicts with the flags that the mode gives them: only to paths for which neither profile nor section chose.

    A change of mode is a change of backup alone: a live path's priority is changed in place (MP_PRIO), and nothing is cut.
    """
    if config.mode is Mode.AUTO:
        return verdicts
    if config.mode is Mode.OFF:
        return [
            replace(verdict, state=State.EXCLUDED, reason=Reason(Why.MODE_OFF), wants_endpoint=False)
            if (verdict.automatic and verdict.state is not State.EXCLUDED) or verdict.reason.why in COSTS
            else verdict
            for verdict in verdicts
        ]
    best = _best_link(facts, verdicts) if config.mode is Mode.HANDOVER else None
    return [_in_mode(facts, verdict, config.mode, best) if _is_free(verdict) else verdict for verdict in verdicts]


def _is_free(verdict: Verdict) -> bool:
    """Whether nobody chose this path's flags. Who wrote down what a metered or roaming path is has chosen, too."""
    if not verdict.automatic or not verdict.flags:
        return False
    if verdict.device is None:
        return True
    metered, roaming = verdict.options.metered, verdict.options.roaming
    chosen = metered.origin is not None and metered.value is not MeteredPolicy.IGNORE
    if chosen and metered_by(verdict.device, verdict.options):
        return False
    return not (verdict.device.roaming and roaming.value is RoamingPolicy.BACKUP)


def _in_mode(facts: Facts, verdict: Verdict, mode: Mode, best: int | None) -> Verdict:
    carries = mode is Mode.AGGREGATE or best is None or verdict.ifindex == best
    backup = EndpointFlag.BACKUP
    flags = verdict.flags & ~backup if carries else verdict.flags | backup
    if verdict.state is not State.ACTIVE:
        return replace(verdict, flags=flags)
    if mode is Mode.AGGREGATE:
        words = "regular: all paths carry"
    elif carries:
        words = "regular: its route is the best"
    else:
        words = f"backup: {facts.link(best).name if best else 'another'} has the best route"
    return replace(verdict, flags=flags, reason=Reason(Why.MODE, f"{mode}, {words}"))


def _best_link(facts: Facts, verdicts: list[Verdict]) -> int | None:
    """The interface by which new connections leave: of the active paths the one whose default has the lowest metric.

    A path that somebody made backup is no candidate, whatever its metric.
    """
    candidates = [
        (route.metric if route else _WORST, verdict.family, verdict.ifindex)
        for verdict in verdicts
        if verdict.state is State.ACTIVE
        and verdict.owner is not Owner.OTHER
        and facts.link(verdict.ifindex).carrier
        and (_is_free(verdict) or not verdict.flags & EndpointFlag.BACKUP)
        for route in [facts.default(verdict.ifindex, verdict.family, verdict.route_table)]
    ]
    return min(candidates)[2] if candidates else None
