# SPDX-License-Identifier: GPL-2.0-or-later
"""Which links are poor: their packets are much delayed, or lost, for some seconds, while those by another link are not."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..kernel.tcp_sockets import SocketKey, TCPSocket
from ..model.state import Place

#: Seconds of round-trip from which a link may be poor, or so many of its own shortest if that is longer; from the second
#: pair on it may still be well. (Apple's ``interactive`` prefers Wi-Fi below 0.25 s.)
_SLOW, _SLOW_TIMES = 0.25, 3.0
_QUICK, _QUICK_TIMES = 0.2, 2.0

#: The share of packets that are sent again, of at least so many packets, from which a link may be poor; and up to which well.
_LOSSY, _CLEAN, _ENOUGH = 0.05, 0.02, 20

#: Another link is better if its round-trip is at most this part.
_BETTER = 0.5

#: Seconds that a link has to be poor, and well again.
_POOR_AFTER, _WELL_AFTER = 3.0, 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the subflows of a link show."""

    trip: float  #: round-trip in seconds: the median of the subflows in use, or of all if none is
    shortest: float  #: the shortest round-trip of any, in seconds
    sent: int = 0  #: segments since the sample before
    resent: int = 0  #: of these, sent again

    @property
    def share(self) -> float:
        """The part that was sent again, 0 of too few."""
        return self.resent / self.sent if self.sent >= _ENOUGH else 0.0


def sample(
    sockets: Iterable[TCPSocket], place_of: Mapping[str, Place], before: Mapping[SocketKey, TCPSocket]
) -> dict[Place, Sample]:
    """A sample of each link, by its subflows and what they were ``before``."""
    groups: dict[Place, list[TCPSocket]] = {}
    for each in sockets:
        if each.token and each.trip and not each.connecting and each.local in place_of:
            groups.setdefault(place_of[each.local], []).append(each)
    return {place: _of(group, before) for place, group in groups.items()}


def _of(group: list[TCPSocket], before: Mapping[SocketKey, TCPSocket]) -> Sample:
    known = [(each, before[each.key]) for each in group if each.key in before]
    used = [each for each, was in known if each.acked > was.acked or each.unacked]
    return Sample(
        statistics.median(each.trip for each in used or group),
        min(each.shortest or each.trip for each in group),
        sum(each.sent - was.sent for each, was in known),
        sum(each.resent - was.resent for each, was in known),
    )


class LinkQuality:
    """Keeps since when each link is poor or well. Times are in seconds of the caller's clock."""

    def __init__(self) -> None:
        self.poor: frozenset[Place] = frozenset()
        self._since: dict[Place, float] = {}  #: since when the samples contradict :attr:`poor`

    def update(self, samples: Mapping[Place, Sample], now: float) -> bool:
        """Update by samples; returns whether :attr:`poor` changed. A link without a sample is as it was."""
        changed: set[Place] = set()
        for place, found in samples.items():
            is_poor = place in self.poor
            others = [other for at, other in samples.items() if at.family is place.family and at != place]
            if _is_well(found) if is_poor else _is_poor(found, others):
                began = self._since.setdefault(place, now)
                if now - began >= (_WELL_AFTER if is_poor else _POOR_AFTER):
                    changed.add(place)
            else:
                self._since.pop(place, None)
        self.poor ^= changed
        for place in changed:
            del self._since[place]
        return bool(changed)

    def forget(self) -> None:
        """Nothing is known any more."""
        self.poor = frozenset()
        self._since.clear()


def _is_poor(found: Sample, others: Iterable[Sample]) -> bool:
    better = [other for other in others if other.share <= _CLEAN]
    slow = found.trip > max(_SLOW, _SLOW_TIMES * found.shortest)
    return (slow and any(other.trip <= _BETTER * found.trip for other in better)) or (
        found.share > _LOSSY and bool(better)
    )


def _is_well(found: Sample) -> bool:
    return found.trip < max(_QUICK, _QUICK_TIMES * found.shortest) and found.share <= _CLEAN
