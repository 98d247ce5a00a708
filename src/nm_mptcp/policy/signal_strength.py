# SPDX-License-Identifier: GPL-2.0-or-later
"""A Wi-Fi whose signal has become weak: before it is lost another path carries."""

from __future__ import annotations

from dataclasses import replace

from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Family, State
from .facts import Facts, Verdict
from .metered import metered_by


def mind_strength(facts: Facts, verdicts: list[Verdict]) -> list[Verdict]:
    """A path on a weak Wi-Fi becomes backup while there is another that is regular, or may become so instead.

    The kernel uses backup subflows only where there is no regular one: where all others are backup, the one that costs
    least becomes regular. Flags that somebody chose are not changed, and what is roaming does not carry before it has to.
    """
    if not facts.snapshot.weak or facts.away:
        return verdicts
    fading: set[str] = set()
    reliefs: dict[tuple[int, Family], str] = {}
    for family in Family:
        mine = [verdict for verdict in verdicts if verdict.family is family and verdict.state is State.ACTIVE]
        weak = [verdict for verdict in mine if verdict.address in facts.snapshot.weak and verdict.automatic]
        good = [verdict for verdict in mine if _good(facts, verdict)]
        if all(verdict.flags & EndpointFlag.BACKUP for verdict in good):
            good = [
                verdict for verdict in good if verdict.automatic and not (verdict.device and verdict.device.roaming)
            ]
            if weak and good:
                relief = min(good, key=lambda verdict: _cost(facts, verdict))
                names = {facts.link(verdict.ifindex).name for verdict in weak}
                reliefs[relief.ifindex, family] = " and ".join(sorted(names))
        if good:
            fading |= {verdict.address for verdict in weak}
    return [_changed(verdict, fading, reliefs) for verdict in verdicts]


def _good(facts: Facts, verdict: Verdict) -> bool:
    link = facts.link(verdict.ifindex)
    able = verdict.flags & EndpointFlag.SUBFLOW and link.up and link.carrier
    return bool(able) and verdict.address not in facts.snapshot.weak


def _cost(facts: Facts, verdict: Verdict) -> tuple[bool, int, int]:
    metered = verdict.device is not None and bool(metered_by(verdict.device, verdict.options))
    return metered, facts.metric(verdict), verdict.ifindex


def _changed(verdict: Verdict, fading: set[str], reliefs: dict[tuple[int, Family], str]) -> Verdict:
    if verdict.state is not State.ACTIVE or not verdict.automatic:
        return verdict
    backup = bool(verdict.flags & EndpointFlag.BACKUP)
    if verdict.address in fading and not backup:
        reason = Reason(Why.WEAK_SIGNAL, f"{verdict.options.weak_signal.value.leave} %")
        return replace(verdict, flags=verdict.flags | EndpointFlag.BACKUP, reason=reason)
    relieved = reliefs.get((verdict.ifindex, verdict.family))
    if relieved and backup:
        return replace(verdict, flags=verdict.flags & ~EndpointFlag.BACKUP, reason=Reason(Why.RELIEVES, relieved))
    return verdict
