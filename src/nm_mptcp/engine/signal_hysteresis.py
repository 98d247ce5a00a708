# SPDX-License-Identifier: GPL-2.0-or-later
"""Hysteresis of Wi-Fi signals: one becomes weak after it stayed below one bound, and strong after it stayed above another.

NetworkManager reports the strength as a percentage with two scales: every 6 s by the driver's value (``100 - 70 * (-20 -
dBm) / 70``, never below 30: nm-wifi-utils-nl80211.c), after a scan by the supplicant's (``100 - 100 * (-40 - dBm) / 60``:
nm_wifi_utils_level_to_quality). Both are 50 at -70 dBm; 40 is -80 dBm in the first and -76 dBm in the second, where bit rates
are low and the link is lost some metres further.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..config.settings import WeakSignal

#: Seconds that a signal must stay beyond its bound. NetworkManager reads it every 6 s, and each value is the strength of a
#: single frame, so the next reading has to confirm it.
HOLD = 7.0

#: An interface, and the bounds that apply to some of its addresses.
Key = tuple[str, WeakSignal]


@dataclass(slots=True, eq=False)
class _Past:
    """The state of a signal."""

    weak: bool
    since: float | None = None  #: since when it is beyond the bound that changes ``weak`` (the caller's clock, s)

    def beyond(self, bounds: WeakSignal, strength: int) -> bool:
        return strength >= bounds.enter if self.weak else strength < bounds.leave


class SignalHysteresis:
    """Tracks which signals are weak. Times are in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._past: dict[Key, _Past] = {}

    def update(self, strengths: Mapping[Key, int | None], now: float) -> None:
        """Update the strengths (percent). A signal keeps its state while its strength is unknown (None); others are forgotten.

        A new signal has the state of its first strength.
        """
        self._past = {key: past for key, past in self._past.items() if key in strengths}
        for key, strength in strengths.items():
            _, bounds = key
            past = self._past.get(key)
            if past is None:
                if strength is not None:
                    self._past[key] = _Past(strength < bounds.leave)
            elif strength is None or not past.beyond(bounds, strength):
                past.since = None
            elif past.since is None:
                past.since = now
            elif now - past.since >= HOLD:
                past.weak, past.since = not past.weak, None

    def weak(self) -> frozenset[Key]:
        """The weak signals."""
        return frozenset(key for key, past in self._past.items() if past.weak)

    def knows(self, interface: str) -> bool:
        """Whether that interface's signal has a state."""
        return any(name == interface for name, _ in self._past)

    def moved(self, signals: Iterable[tuple[str, int | None]]) -> bool:
        """Whether :meth:`update` with these interfaces' strengths would change anything."""
        for interface, strength in signals:
            known = [(bounds, past) for (name, bounds), past in self._past.items() if name == interface]
            if strength is None:
                if any(past.since is not None for _, past in known):
                    return True
            elif not known or any(past.beyond(bounds, strength) != (past.since is not None) for bounds, past in known):
                return True
        return False

    def next_due(self, now: float) -> float | None:
        """When the next signal will have been beyond its bound for :data:`HOLD`; None: there is none."""
        ends = [past.since + HOLD for past in self._past.values() if past.since is not None]
        return min((end for end in ends if end > now), default=None)

    def forget(self) -> None:
        """Forget all signals: after a sleep the machine may be in another place."""
        self._past.clear()
