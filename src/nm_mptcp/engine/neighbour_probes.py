# SPDX-License-Identifier: GPL-2.0-or-later
"""When the neighbours on a link whose carrier returned are probed again (see :mod:`nm_mptcp.kernel.neighbours`).

They are probed several times: the other end may need some time as well until it forwards and replies (a switch's port, an
access point), and after a lost probe the kernel would send its next one only a second later.
"""

from __future__ import annotations

from collections.abc import Set

#: Seconds from the carrier's return to each probe; after the last one the kernel itself probes each second.
PROBE_AFTER = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)


class NeighbourProbes:
    """Schedules probes by ifindex. Times are in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._back: dict[
            int, tuple[float, int]
        ] = {}  #: when a link's carrier returned, and the number of its next probe

    def update(self, back: Set[int], up: Set[int], now: float) -> frozenset[int]:
        """Update which links (ifindexes) are up, and which of them came ``back`` now; returns those that are due."""
        self._back = {index: past for index, past in self._back.items() if index in up}
        self._back |= dict.fromkeys(back, (now, 0))
        due = set()
        for index, (since, number) in list(self._back.items()):
            if now < since + PROBE_AFTER[number]:
                continue
            due.add(index)
            following = next((number for number, after in enumerate(PROBE_AFTER) if since + after > now), None)
            if following is None:
                del self._back[index]
            else:
                self._back[index] = (since, following)
        return frozenset(due)

    def next_due(self, _now: float) -> float | None:
        """When the next probe is due; None: there is none."""
        return min((since + PROBE_AFTER[number] for since, number in self._back.values()), default=None)
