# SPDX-License-Identifier: GPL-2.0-or-later
"""Links that are up and carry no packets: new connections are led around them, and their paths become backup.

That begins when silence is suspected; once it is certain the paths are suspended, and everybody is told.

Nothing is closed and no endpoint deleted, so a wrong verdict costs a detour at most. While no other link of the family works,
nothing changes at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from ..config.settings import Config, Failover
from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Place, Silence, State
from .facts import Decision, Facts
from .relief import Relief, relief
from .tunnels import is_tunnel
from .vpn_guard import GUARDED


def watched(facts: Facts, decisions: list[Decision], config: Config) -> Mapping[Place, str]:
    """The links whose silence would change anything, each with the local address of its path.

    These are the links of a family with more than one path, without tunnels.
    """
    if config.failover is Failover.OFF:
        return {}
    found: dict[Place, str] = {}
    for decision in decisions:
        if _carries(facts, decision) or _is_known_silent(facts, decision):
            found.setdefault(Place(decision.family, decision.ifindex), decision.address)
    alone = {
        place for place in found if not any(o.family is place.family and o.ifindex != place.ifindex for o in found)
    }
    chosen = {Place(d.family, d.ifindex) for d in decisions if d.options.silent_links.value}
    return {place: address for place, address in found.items() if place in chosen and place not in alone}


@dataclass(frozen=True, slots=True)
class SilentLinks:
    """The silent links of families with a path that is not silent, and the links of these paths."""

    around: frozenset[Place] = frozenset()  #: also those whose silence is only suspected
    by: frozenset[Place] = frozenset()
    below: frozenset[Place] = frozenset()  #: those of all these that carry a full tunnel's packets


def silent_links(
    facts: Facts, decisions: list[Decision], config: Config, below: Set[Place] = frozenset()
) -> SilentLinks:
    """The links to lead around. While no other link of a family works, none of its links counts as silent. ``below``: those
    that carry a tunnel's packets.
    """
    silent = facts.snapshot.silences
    if config.failover is Failover.OFF or not silent:
        return SilentLinks()
    others = {Place(d.family, d.ifindex) for d in decisions if _carries(facts, d)} | below
    others -= {place for place, silence in silent.items() if not silence.tried}
    families = {place.family for place in others}
    off = {(d.family, d.ifindex) for d in decisions if not d.options.silent_links.value}
    around = frozenset(
        place
        for place, silence in silent.items()
        if place.family in families and place not in off and not silence.tried
    )
    return SilentLinks(around, frozenset(others), frozenset(below))


def apply_silence(facts: Facts, decisions: list[Decision], silent: SilentLinks) -> list[Decision]:
    """The paths on these links become backup, unless their flags were chosen; those whose silence is certain are suspended."""
    if not facts.snapshot.silences:
        return decisions
    burdened = {each.address for each in decisions if (each.family, each.ifindex) in silent.around}
    found = relief(facts, decisions, burdened, beside_any=True)
    return [_changed(facts, decision, silent, found) for decision in decisions]


def _changed(facts: Facts, decision: Decision, silent: SilentLinks, found: Relief) -> Decision:
    place = Place(decision.family, decision.ifindex)
    silence = facts.snapshot.silences.get(place)
    if silence is not None and (place in silent.around or silence.tried):
        if _carries(facts, decision):
            return _silent(decision, silence, found)
        if silence.confirmed and decision.reason.why in GUARDED:
            detail = f"{decision.reason.detail}, which is led around this link: {silence.evidence}"
            return replace(decision, reason=Reason(decision.reason.why, detail))
    return found.apply(decision, Why.RELIEVES_SILENT) if decision.state is State.ACTIVE else decision


def _silent(decision: Decision, silence: Silence, found: Relief) -> Decision:
    backup = decision.automatic and decision.address in found.to_backup
    flags = decision.flags | EndpointFlag.BACKUP if backup else decision.flags
    if silence.confirmed:
        return replace(decision, state=State.SUSPENDED, reason=Reason(Why.SILENT, silence.evidence), flags=flags)
    if flags == decision.flags:
        return decision
    return replace(decision, reason=Reason(Why.SEEMS_SILENT, silence.evidence), flags=flags)


def _carries(facts: Facts, decision: Decision) -> bool:
    return decision.state is State.ACTIVE and is_uplink(facts, decision.ifindex)


def _is_known_silent(facts: Facts, decision: Decision) -> bool:
    """Whether a path is suspended for its silence; or as NetworkManager's check, which a suspicion causes, found the same."""
    silent = (decision.family, decision.ifindex) in facts.snapshot.silences
    why = decision.reason.why
    return (why is Why.SILENT or (silent and why is Why.NO_CONNECTIVITY)) and is_uplink(facts, decision.ifindex)


def is_uplink(facts: Facts, ifindex: int) -> bool:
    """Whether a link has carrier and is no tunnel: a tunnel's silence is that of the link below it, and what it carries must
    not be led around it.
    """
    link = facts.link(ifindex)
    return link.up and link.carrier and not link.loopback and not is_tunnel(facts, ifindex)
