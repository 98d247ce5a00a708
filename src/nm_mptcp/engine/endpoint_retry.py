# SPDX-License-Identifier: GPL-2.0-or-later
"""Endpoints that the kernel refused: why, and when to try them again without an event.

A port in use by a socket is free after a minute (TIME_WAIT), and an address that cannot be bound yet soon can be; the kernel
notifies of neither.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

#: Seconds before the first retry, doubled with each, and their maximum.
_DELAY = (1.0, 300.0)

_Place = tuple[str, int]


@dataclass(slots=True, eq=False)
class _Refusal:
    """The refusal of an endpoint."""

    reason: str
    tries: int = 0
    due: float = 0.0  #: when to try again (the caller's clock, s)


class EndpointRetry:
    """Schedules retries by address and ifindex. Times are in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._at: dict[_Place, _Refusal] = {}

    def refused(self, place: _Place, reason: str, now: float) -> None:
        """The kernel refused an endpoint; ``reason`` is empty if its table was full."""
        refusal = self._at.setdefault(place, _Refusal(reason))
        refusal.reason = reason
        if now >= refusal.due:
            refusal.due = now + min(_DELAY[0] * 2**refusal.tries, _DELAY[1])
            refusal.tries += 1

    def accepted(self, place: _Place) -> None:
        """The kernel accepted the endpoint."""
        self._at.pop(place, None)

    def keep(self, places: Set[_Place]) -> None:
        """Forget all but these: the others are not wanted any more."""
        for place in self._at.keys() - places:
            del self._at[place]

    def reasons(self) -> dict[_Place, str]:
        """Why the kernel refused each endpoint."""
        return {place: refusal.reason for place, refusal in self._at.items()}

    def next_due(self, now: float) -> float | None:
        """When the next retry is due; None: there is none."""
        return min((refusal.due for refusal in self._at.values() if refusal.due > now), default=None)
