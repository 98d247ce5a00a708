# SPDX-License-Identifier: GPL-2.0-or-later
"""Bits per second from byte counters that are read regularly: of each link, and MPTCP's part of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..kernel.link_stats import LinkCounters
from ..kernel.sock_diag import Subflow
from .snapshot import Snapshot

#: Rates that are kept of each link: more than a screen has columns.
MEMORY = 400


@dataclass(frozen=True, slots=True)
class Rates:
    """Bits per second of a link.

    ``mptcp_in`` and ``mptcp_out`` count TCP's payload, so a little less than the link carries for it; None where subflows
    are not visible.
    """

    into: float = 0.0
    out: float = 0.0
    mptcp_in: float | None = None
    mptcp_out: float | None = None


@dataclass(frozen=True, slots=True)
class SubflowRates:
    """Bits per second of one subflow's payload."""

    into: float = 0.0
    out: float = 0.0


class Traffic:
    """Rates and their history, from snapshots whose counters were just read."""

    def __init__(self) -> None:
        self._time: float | None = None
        self._counters: Mapping[int, LinkCounters] = {}
        self._subflows: Mapping[int, Subflow] = {}
        self._history: dict[str, deque[Rates]] = {}
        self.subflows: dict[int, SubflowRates] = {}  #: by cookie

    def add(self, snapshot: Snapshot, time: float) -> None:
        """Take the counters of ``snapshot``, read at ``time`` (seconds of a monotonic clock)."""
        seconds = time - self._time if self._time is not None else 0.0
        current = {subflow.cookie: subflow for subflow in snapshot.subflows or ()}
        if seconds > 0:
            self._measure(snapshot, current.values(), seconds)
        self._time, self._counters, self._subflows = time, snapshot.counters, current

    def history(self, interface: str) -> tuple[Rates, ...]:
        """The rates of an interface, the newest last."""
        return tuple(self._history.get(interface, ()))

    def _measure(self, snapshot: Snapshot, subflows: Iterable[Subflow], seconds: float) -> None:
        mptcp: dict[str, list[float]] = {}
        self.subflows = {}
        for subflow in subflows:
            old = self._subflows.get(subflow.cookie)
            # A subflow that is new since the last snapshot has sent and received all since then.
            into = _rate(subflow.received, old.received if old else 0, seconds)
            out = _rate(subflow.sent, old.sent if old else 0, seconds)
            self.subflows[subflow.cookie] = SubflowRates(into, out)
            sums = mptcp.setdefault(snapshot.interface_of(subflow.local, subflow.ifindex), [0.0, 0.0])
            sums[0] += into
            sums[1] += out
        names = set()
        for index, now in snapshot.counters.items():
            link = snapshot.links.get(index)
            was = self._counters.get(index)
            if link is None or was is None:
                continue
            names.add(link.name)
            into, out = mptcp.get(link.name, (0.0, 0.0))
            visible = snapshot.subflows is not None
            self._history.setdefault(link.name, deque(maxlen=MEMORY)).append(
                Rates(
                    _rate(now.received, was.received, seconds),
                    _rate(now.sent, was.sent, seconds),
                    into if visible else None,
                    out if visible else None,
                )
            )
        for gone in self._history.keys() - names:
            del self._history[gone]


def _rate(now: int, before: int, seconds: float) -> float:
    """Bits per second; a counter that decreased was reset."""
    return max(0, now - before) * 8 / seconds
