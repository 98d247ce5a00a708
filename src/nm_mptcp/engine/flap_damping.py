# SPDX-License-Identifier: GPL-2.0-or-later
"""Links that come and go: a loss counts at once, the return is held back longer each time.

Never is it sooner than :data:`SETTLED` after the loss: the peer has to learn of the end of the old subflow first. Where
the new one comes before that, its join is refused, or the late RM_ADDR takes it away again, and the kernel does not try
the endpoint twice (seen on 6.18: 8 of 73 lost under load at once, none of 40 half a second later).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

#: Seconds that a link is held back after its second loss in a row; doubled each time, up to the second.
_HOLD = (0.5, 30.0)

#: Seconds from a loss to the earliest return.
SETTLED = 0.4

#: Seconds of being there after which a link's past is forgiven.
FORGIVEN = 10.0


@dataclass(slots=True, eq=False)
class _Past:
    """What is remembered of a link; times on the caller's clock, in seconds."""

    lost_at: float
    down: bool = True
    losses: int = 1
    up_since: float = 0.0
    until: float = 0.0  #: held back until then

    @property
    def hold(self) -> float:
        return self.until - self.up_since


class FlapDamping:
    """Remembers losses. It has no clock: the caller says what time it is."""

    def __init__(self) -> None:
        self._past: dict[int, _Past] = {}
        self._seen_up: set[int] = set()

    def look(self, up: Set[int], down: Set[int], now: float) -> frozenset[int]:
        """Take in which links (ifindexes) are up and down now, and give those that came back; one that was never up cannot be
        lost.
        """
        back: set[int] = set()
        for ifindex in (down & self._seen_up) - self._past.keys():
            self._past[ifindex] = _Past(now)
        self._seen_up = (self._seen_up | up) & (up | down)
        for ifindex, past in list(self._past.items()):
            if ifindex in down and not past.down:
                past.losses = 1 if now - past.up_since >= FORGIVEN else past.losses + 1
                past.down, past.lost_at = True, now
            elif ifindex not in down and past.down:
                hold = 0.0 if past.losses < 2 else min(_HOLD[0] * 2 ** (past.losses - 2), _HOLD[1])
                past.until = max(now + hold, past.lost_at + SETTLED)
                past.up_since, past.down = now, False
                back |= up & {ifindex}
            elif not past.down and now - past.up_since >= max(FORGIVEN, past.hold):
                del self._past[ifindex]
        return frozenset(back)

    def damped(self, now: float) -> dict[int, float]:
        """The links that are up and still held back, each with the length of its hold (s)."""
        return {
            ifindex: round(past.hold, 1) for ifindex, past in self._past.items() if not past.down and now < past.until
        }

    def next_due(self, now: float) -> float | None:
        """When the next hold ends; None when there is none."""
        ends = [past.until for past in self._past.values() if not past.down]
        return min((end for end in ends if end > now), default=None)

    def forget(self) -> None:
        """Forgive everything: the machine slept, and what was before says nothing - also of what is still down."""
        self._past.clear()
        self._seen_up.clear()
