# SPDX-License-Identifier: GPL-2.0-or-later
"""Which links are silent, with damping: one that answers again counts as silent for a while if it was silent several times.

A suspicion counts as well, so that a link with heavy loss does not change the routes again and again. Not damped is what a
tunnel's links are led around for: whoever tries them takes longer each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from ..model.state import Place, Silence
from .flap_damping import FlapDamping


class LinkSilence:
    """The verdicts by link and family. Times are in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._watched: frozenset[Place] = frozenset()
        self._silent: dict[Place, Silence] = {}
        self._last: dict[Place, Silence] = {}
        self._below: frozenset[Place] = frozenset()
        self._led: dict[Place, Silence] = {}
        self._damping = FlapDamping[Place]()

    def watch(self, places: Set[Place], now: float, below: Set[Place] = frozenset()) -> None:
        """Only these can be silent from now on, and those ``below`` a tunnel can be led around."""
        self._watched, self._below = frozenset(places), frozenset(below)
        self._led = {place: silence for place, silence in self._led.items() if place in below}
        self._silent = {place: silence for place, silence in self._silent.items() if place in places}
        self._last = {place: silence for place, silence in self._last.items() if place in places}
        self._update(now)

    def set(self, place: Place, silence: Silence | None, now: float) -> bool:
        """The verdict on a link; None: it is answered. Returns whether that is new; no other than a watched link is silent."""
        if self._silent.get(place) == silence or (silence is not None and place not in self._watched):
            return False
        if silence is None:
            del self._silent[place]
        else:
            self._silent[place] = self._last[place] = silence
        self._update(now)
        return True

    def lead(self, around: Mapping[Place, Silence]) -> bool:
        """Lead tunnels around these links, and no others. Returns whether that is new."""
        around = {place: silence for place, silence in around.items() if place in self._below}
        new = around != self._led
        self._led = around
        return new

    def silences(self, now: float) -> Mapping[Place, Silence]:
        """The links that count as silent."""
        damped = self._damping.damped(now)
        return self._led | {
            place: self._silent.get(place, silence)
            for place, silence in self._last.items()
            if place in self._silent or place in damped
        }

    def next_due(self, now: float) -> float | None:
        """When the next damped return is due; None: there is none."""
        return self._damping.next_due(now)

    def forget(self) -> None:
        """Forget all verdicts: after a sleep they say nothing about the present."""
        self._silent.clear()
        self._last.clear()
        self._led.clear()
        self._damping.forget()

    def _update(self, now: float) -> None:
        self._damping.update(self._watched - self._silent.keys(), self._silent.keys(), now)
