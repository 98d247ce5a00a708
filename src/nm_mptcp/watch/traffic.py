# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: counters of bytes, read again and again, as bits per second: of each link, and of it what MPTCP carries."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..kernel.link_stats import LinkCounters
from ..kernel.sock_diag import Subflow
from .snapshot import Look

#: How many rates are remembered: more than a screen is wide.
MEMORY = 400


@dataclass(frozen=True, slots=True)
class Rates:
    """Bits per second. ``mptcp_in`` and ``mptcp_out`` are payload of TCP, so a little less than the link carries for it;
    None where subflows may not be seen.
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
    """Rates and their history, fed with looks whose counters were just read."""

    def __init__(self) -> None:
        self._time: float | None = None
        self._counters: Mapping[int, LinkCounters] = {}
        self._subflows: Mapping[int, Subflow] = {}
        self._history: dict[str, deque[Rates]] = {}
        self.subflows: dict[int, SubflowRates] = {}  #: by cookie

    def add(self, look: Look, time: float) -> None:
        """Take the counters of ``look``, read at ``time`` (seconds of any clock that only goes forward)."""
        seconds = time - self._time if self._time is not None else 0.0
        current = {subflow.cookie: subflow for subflow in look.subflows or ()}
        if seconds > 0:
            self._measure(look, current.values(), seconds)
        self._time, self._counters, self._subflows = time, look.counters, current

    def history(self, interface: str) -> tuple[Rates, ...]:
        """The rates of an interface, the newest last."""
        return tuple(self._history.get(interface, ()))

    def _measure(self, look: Look, subflows: Iterable[Subflow], seconds: float) -> None:
        carried: dict[str, list[float]] = {}
        self.subflows = {}
        for subflow in subflows:
            old = self._subflows.get(subflow.cookie)
            # One that is new since the last look has carried all that it has since then.
            into = _rate(subflow.received, old.received if old else 0, seconds)
            out = _rate(subflow.sent, old.sent if old else 0, seconds)
            self.subflows[subflow.cookie] = SubflowRates(into, out)
            sums = carried.setdefault(look.interface_of(subflow.local, subflow.ifindex), [0.0, 0.0])
            sums[0] += into
            sums[1] += out
        names = set()
        for index, now in look.counters.items():
            link = look.links.get(index)
            was = self._counters.get(index)
            if link is None or was is None:
                continue
            names.add(link.name)
            into, out = carried.get(link.name, (0.0, 0.0))
            seen = look.subflows is not None
            self._history.setdefault(link.name, deque(maxlen=MEMORY)).append(
                Rates(
                    _rate(now.received, was.received, seconds),
                    _rate(now.sent, was.sent, seconds),
                    into if seen else None,
                    out if seen else None,
                )
            )
        for gone in self._history.keys() - names:
            del self._history[gone]


def _rate(now: int, before: int, seconds: float) -> float:
    """Bits per second; a counter that went back began anew."""
    return max(0, now - before) * 8 / seconds
