# SPDX-License-Identifier: GPL-2.0-or-later
"""Damping of links that flap: a loss takes effect at once, the return with a delay that grows with each loss.

The return is never sooner than :data:`EARLIEST_RETURN` after the loss, so that the peer learns of the old subflow's end first.
Otherwise it refuses the join, or a late RM_ADDR closes the new subflow, and the kernel does not try the endpoint again (seen
on 6.18: of subflows added at once under load 8 of 73 were lost, half a second later none of 40).
"""

from __future__ import annotations

from collections.abc import Hashable, Set
from dataclasses import dataclass
from typing import Generic, TypeVar

_Link = TypeVar("_Link", bound=Hashable)

#: Seconds that a return is delayed after the second loss in a row, doubled with each, and their maximum.
_DELAY = (0.5, 30.0)

#: Seconds from a loss to the earliest return.
EARLIEST_RETURN = 0.4

#: Seconds of carrier after which a link's losses are forgotten.
RESET_AFTER = 10.0


@dataclass(slots=True, eq=False)
class _Past:
    """The history of a link; times are in seconds of the caller's clock."""

    lost_at: float
    down: bool = True
    losses: int = 1
    up_since: float = 0.0
    until: float = 0.0  #: the end of the delay

    @property
    def delay(self) -> float:
        return self.until - self.up_since


class FlapDamping(Generic[_Link]):
    """Tracks the losses of each link. Times are in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._past: dict[_Link, _Past] = {}
        self._seen_up: set[_Link] = set()

    def update(self, up: Set[_Link], down: Set[_Link], now: float) -> frozenset[_Link]:
        """Update which links are up and down; returns those that came back. A loss needs a link that was up."""
        back: set[_Link] = set()
        for link in (down & self._seen_up) - self._past.keys():
            self._past[link] = _Past(now)
        self._seen_up = (self._seen_up | up) & (up | down)
        for link, past in list(self._past.items()):
            if link in down and not past.down:
                past.losses = 1 if now - past.up_since >= RESET_AFTER else past.losses + 1
                past.down, past.lost_at = True, now
            elif link not in down and past.down:
                delay = 0.0 if past.losses < 2 else min(_DELAY[0] * 2 ** min(past.losses - 2, 10), _DELAY[1])
                past.until = max(now + delay, past.lost_at + EARLIEST_RETURN)
                past.up_since, past.down = now, False
                back |= up & {link}
            elif not past.down and now - past.up_since >= max(RESET_AFTER, past.delay):
                del self._past[link]
        return frozenset(back)

    def damped(self, now: float) -> dict[_Link, float]:
        """The links that are up and still delayed, each with its whole delay (s)."""
        return {link: round(past.delay, 1) for link, past in self._past.items() if not past.down and now < past.until}

    def next_due(self, now: float) -> float | None:
        """When the next delay ends; None: there is none."""
        ends = [past.until for past in self._past.values() if not past.down]
        return min((end for end in ends if end > now), default=None)

    def forget(self) -> None:
        """Forget all losses after a sleep, also of links that are still down: they say nothing about the present."""
        self._past.clear()
        self._seen_up.clear()
