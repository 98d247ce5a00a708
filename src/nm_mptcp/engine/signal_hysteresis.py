# SPDX-License-Identifier: GPL-2.0-or-later
"""Wi-Fi signals that fade: a signal is weak when it stayed below one strength, and strong when it stayed above another.

NetworkManager tells the strength as a percentage, but not always of the same: every 6 s as the driver has it (``100 - 70 *
(-20 - dBm) / 70``, never below 30: nm-wifi-utils-nl80211.c), after a scan as the supplicant has it (``100 - 100 * (-40 -
dBm) / 60``: nm_wifi_utils_level_to_quality). Both are 50 at -70 dBm; 40 is -80 dBm of the one and -76 dBm of the other,
where rates have fallen and a walk of some metres ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..config.settings import WeakSignal

#: Seconds that a signal has to stay beyond its bound. NetworkManager looks every 6 s, and what it then sees is the strength of
#: one frame: a bound counts when the next look confirms it.
HOLD = 7.0

#: An interface, and the bounds that count for some of its addresses.
Key = tuple[str, WeakSignal]


@dataclass(slots=True, eq=False)
class _Past:
    """What is remembered of a signal; times on the caller's clock, in seconds."""

    weak: bool
    since: float | None = None  #: since when it is beyond the bound that would change that

    def beyond(self, bounds: WeakSignal, strength: int) -> bool:
        return strength >= bounds.enter if self.weak else strength < bounds.leave


class SignalHysteresis:
    """Remembers which signals are weak. It has no clock: the caller says what time it is."""

    def __init__(self) -> None:
        self._past: dict[Key, _Past] = {}

    def look(self, strengths: Mapping[Key, int | None], now: float) -> None:
        """Take in the strengths (percent) now; while one is not known (None) its past stands. Others are forgotten.

        One that is met for the first time has no past to smooth: it is what it is.
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
        """Those that are weak."""
        return frozenset(key for key, past in self._past.items() if past.weak)

    def knows(self, interface: str) -> bool:
        """Whether anything is remembered of that interface's signal."""
        return any(name == interface for name, _ in self._past)

    def moved(self, signals: Iterable[tuple[str, int | None]]) -> bool:
        """Whether a look at these interfaces' strengths would find anything that the last one did not."""
        for interface, strength in signals:
            known = [(bounds, past) for (name, bounds), past in self._past.items() if name == interface]
            if strength is None:
                if any(past.since is not None for _, past in known):
                    return True
            elif not known or any(past.beyond(bounds, strength) != (past.since is not None) for bounds, past in known):
                return True
        return False

    def next_due(self, now: float) -> float | None:
        """When the next signal will have stayed beyond its bound for long enough; None when there is none."""
        ends = [past.since + HOLD for past in self._past.values() if past.since is not None]
        return min((end for end in ends if end > now), default=None)

    def forget(self) -> None:
        """Forget everything: the machine slept, and may be somewhere else."""
        self._past.clear()
