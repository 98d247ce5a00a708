# SPDX-License-Identifier: GPL-2.0-or-later
"""Links that come and go: the first loss counts at once, the return is held back longer each time."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

#: Seconds that a link is held back after its second loss in a row; doubled each time, up to the second.
_HOLD = (0.5, 30.0)

#: Seconds of being there after which a link's past is forgiven.
FORGIVEN = 10.0


@dataclass(slots=True)
class _Past:
    """What is remembered of a link; times on the caller's clock, in seconds."""

    down: bool = True
    losses: int = 1
    up_since: float = 0.0
    hold: float = 0.0


class Flaps:
    """Remembers losses. It has no clock: the caller says what time it is."""

    def __init__(self) -> None:
        self._past: dict[int, _Past] = {}

    def look(self, down: Set[int], now: float) -> None:
        """Take in which links (ifindexes) are down now."""
        for ifindex in down - self._past.keys():
            self._past[ifindex] = _Past()
        for ifindex, past in list(self._past.items()):
            if ifindex in down and not past.down:
                past.losses = 1 if now - past.up_since >= FORGIVEN else past.losses + 1
                past.down = True
            elif ifindex not in down and past.down:
                past.hold = 0.0 if past.losses < 2 else min(_HOLD[0] * 2 ** (past.losses - 2), _HOLD[1])
                past.up_since, past.down = now, False
            elif not past.down and now - past.up_since >= max(FORGIVEN, past.hold):
                del self._past[ifindex]

    def held(self, now: float) -> dict[int, float]:
        """The links that are up and still held back, each with the length of its hold (s)."""
        return {
            ifindex: past.hold
            for ifindex, past in self._past.items()
            if not past.down and now < past.up_since + past.hold
        }

    def next_end(self, now: float) -> float | None:
        """When the next hold ends; None when there is none."""
        ends = [past.up_since + past.hold for past in self._past.values() if not past.down]
        return min((end for end in ends if end > now), default=None)

    def forget(self) -> None:
        """Forgive everything: the machine slept, and what was before says nothing."""
        self._past.clear()
