# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: which path carries the load of links that should not: they become backup, and a backup regular if no other path is."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace

from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Family, State
from .facts import Decision, Facts
from .metered import metered_by


@dataclass(slots=True, eq=False)
class Relief:
    """What changes, for the paths whose flags policy may change."""

    to_backup: set[str] = field(default_factory=set)  #: addresses of burdened links
    relieved_by: dict[tuple[int, Family], str] = field(default_factory=dict)  #: by path: the links that it relieves

    def apply(self, decision: Decision, why_regular: Why) -> Decision:
        """A path that relieves others as a regular one; ``why_regular`` has the names of their links."""
        names = self.relieved_by.get((decision.ifindex, decision.family))
        if not names or not decision.automatic or not decision.flags & EndpointFlag.BACKUP:
            return decision
        return replace(decision, flags=decision.flags & ~EndpointFlag.BACKUP, reason=Reason(why_regular, names))


def relief(facts: Facts, decisions: list[Decision], burdened: Set[str], *, beside_any: bool = False) -> Relief:
    """How to relieve these addresses, of families in which another path can carry their load.

    The kernel uses backup subflows only if there is no regular one: if all others are backup, the one with the least cost
    becomes regular. Chosen flags are not changed, and a roaming link does not become regular. ``beside_any``: the burdened
    ones become backup also beside a backup that stays one.
    """
    found = Relief()
    for family in Family:
        active = [decision for decision in decisions if decision.family is family and decision.state is State.ACTIVE]
        mine = [decision for decision in active if decision.address in burdened]
        usable = [d for d in active if d.address not in burdened and _is_usable(facts, d)]
        any_usable = bool(usable)
        if all(decision.flags & EndpointFlag.BACKUP for decision in usable):
            usable = [
                decision
                for decision in usable
                if decision.automatic and not (decision.device and decision.device.roaming)
            ]
            if mine and usable:
                best = min(usable, key=lambda decision: _cost(facts, decision))
                names = {facts.link(decision.ifindex).name for decision in mine}
                found.relieved_by[best.ifindex, family] = " and ".join(sorted(names))
        if usable or (any_usable and beside_any):
            found.to_backup |= {decision.address for decision in mine}
    return found


def _is_usable(facts: Facts, decision: Decision) -> bool:
    link = facts.link(decision.ifindex)
    return bool(decision.flags & EndpointFlag.SUBFLOW) and link.up and link.carrier


def _cost(facts: Facts, decision: Decision) -> tuple[bool, int, int]:
    metered = decision.device is not None and bool(metered_by(decision.device, decision.options))
    return metered, facts.metric(decision), decision.ifindex
