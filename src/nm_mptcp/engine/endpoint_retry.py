# SPDX-License-Identifier: GPL-2.0-or-later
"""Endpoints that the kernel refused: with which words, and when to try again where nothing else gives a reason to.

A port that a socket still holds is free after a minute (TIME_WAIT), an address that cannot be bound yet can be soon; no
event tells of either.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

#: Seconds before the first try; doubled with each, up to the second.
_DELAY = (1.0, 300.0)

_Place = tuple[str, int]


@dataclass(slots=True, eq=False)
class _Refusal:
    """What was said, how often, and when to try next (the caller's clock, s)."""

    words: str
    tries: int = 0
    due: float = 0.0


class EndpointRetry:
    """Remembers refusals, by address and ifindex. It has no clock: the caller says what time it is."""

    def __init__(self) -> None:
        self._at: dict[_Place, _Refusal] = {}

    def refused(self, place: _Place, words: str, now: float) -> None:
        """The kernel refused an endpoint; ``words`` are empty where only its table was full."""
        refusal = self._at.setdefault(place, _Refusal(words))
        refusal.words = words
        if now >= refusal.due:
            refusal.due = now + min(_DELAY[0] * 2**refusal.tries, _DELAY[1])
            refusal.tries += 1

    def accepted(self, place: _Place) -> None:
        """The kernel took it."""
        self._at.pop(place, None)

    def keep(self, places: Set[_Place]) -> None:
        """Forget all but these: nobody wants the others now."""
        for place in self._at.keys() - places:
            del self._at[place]

    def words(self) -> dict[_Place, str]:
        """What the kernel said of each."""
        return {place: refusal.words for place, refusal in self._at.items()}

    def next_due(self, now: float) -> float | None:
        """When the next try is; None when there is none."""
        return min((refusal.due for refusal in self._at.values() if refusal.due > now), default=None)
