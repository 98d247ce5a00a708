# SPDX-License-Identifier: GPL-2.0-or-later
"""Links that came back, and when their neighbours are asked for anew (see :mod:`nm_mptcp.kernel.neighbours`).

More than once: what is at the other end may need a moment, too, until it forwards and answers (a switch's port, an access
point), and each question that is lost would cost the kernel's whole second.
"""

from __future__ import annotations

from collections.abc import Set

#: Seconds after the return at which it is asked; from then on the kernel does so by itself, each second.
ASKED = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)


class NeighbourProbes:
    """Remembers returns. It has no clock: the caller says what time it is."""

    def __init__(self) -> None:
        self._back: dict[int, tuple[float, int]] = {}  #: when each link came back, and how often was asked since

    def look(self, back: Set[int], up: Set[int], now: float) -> frozenset[int]:
        """Take in which links (ifindexes) came back now and which are up; gives those whose neighbours are due."""
        self._back = {index: past for index, past in self._back.items() if index in up}
        self._back |= dict.fromkeys(back, (now, 0))
        due = set()
        for index, (since, asked) in list(self._back.items()):
            if now < since + ASKED[asked]:
                continue
            due.add(index)
            left = next((number for number, after in enumerate(ASKED) if since + after > now), None)
            if left is None:
                del self._back[index]
            else:
                self._back[index] = (since, left)
        return frozenset(due)

    def next_due(self, _now: float) -> float | None:
        """When the next question is due; None when none is."""
        return min((since + ASKED[asked] for since, asked in self._back.values()), default=None)
