# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel takes only so many endpoints: which ones."""

from __future__ import annotations

from dataclasses import replace

from ..model import (
    Family,
    State,
)
from ..reasons import Reason, Why
from .facts import Facts, Verdict


def once(facts: Facts, verdicts: list[Verdict]) -> list[Verdict]:
    """An address that stands on two interfaces is a path on one of them: where it is active, and has its endpoint already.

    The kernel takes one endpoint an address, and a rule cannot tell the two apart.
    """
    best: dict[str, Verdict] = {}
    for verdict in verdicts:
        other = best.get(verdict.address)
        if other is None or _claim(facts, verdict) > _claim(facts, other):
            best[verdict.address] = verdict
    return [
        verdict
        if best[verdict.address] is verdict or verdict.state is State.EXCLUDED
        else replace(
            verdict,
            state=State.EXCLUDED,
            reason=Reason(Why.TWICE, facts.link(best[verdict.address].ifindex).name),
            wants_endpoint=False,
        )
        for verdict in verdicts
    ]


def _claim(facts: Facts, verdict: Verdict) -> tuple[bool, bool, bool]:
    endpoint = facts.endpoint_at.get(verdict.address)
    return (
        verdict.state is State.ACTIVE,
        verdict.state is not State.EXCLUDED,
        endpoint is not None and endpoint.ifindex == verdict.ifindex,
    )


def fill_slots(facts: Facts, verdicts: list[Verdict]) -> list[Verdict]:
    """The kernel takes only so many endpoints: explicit flags first, then what ``slot-priority`` says, then one
    address an interface and family.

    Among equals the better route metric wins, then the one that has its endpoint already, so that nothing flaps.
    """
    foreign = sum(1 for endpoint in facts.kernel.endpoints if not facts.snapshot.ours.owns(endpoint))
    slots = max(0, facts.kernel.endpoints_max - foreign)
    wishes = [verdict for verdict in verdicts if verdict.wants_endpoint]
    if len(wishes) <= slots:
        return verdicts
    seen: dict[tuple[int, Family], int] = {}
    ranks = {}
    for verdict in sorted(wishes, key=lambda wish: (facts.own_endpoint(wish.on) is None, wish.address)):
        place = (verdict.ifindex, verdict.family)
        nth = seen[place] = seen.get(place, -1) + 1
        ranks[verdict.address] = (
            not verdict.explicit,
            -verdict.options.slot_priority.value,
            nth,
            facts.metric(verdict),
            facts.own_endpoint(verdict.on) is None,
            verdict.ifindex,
            verdict.address,
        )
    left_out = {verdict.address for verdict in sorted(wishes, key=lambda wish: ranks[wish.address])[slots:]}
    reason = Reason(Why.NO_SLOT, str(facts.kernel.endpoints_max))
    return [
        replace(verdict, state=State.EXCLUDED, reason=reason, wants_endpoint=False)
        if verdict.wants_endpoint and verdict.address in left_out
        else verdict
        for verdict in verdicts
    ]
