# SPDX-License-Identifier: GPL-2.0-or-later
"""Which connections nm-mptcp left worse off than NetworkManager alone, as Markdown."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .crowd import INTERVAL, PLAIN_TCP, Name
from .hardships import Hardship

#: How much longer than with NetworkManager alone a connection may wait (s).
BOUND = 0.3


@dataclass(frozen=True, order=True)
class Run:
    """One machine: its links, whether nm-mptcp was there, and its number among its like."""

    links: str
    product: bool
    number: int


@dataclass(frozen=True)
class Stream:
    """What became of a connection: why it is lost ("" when it is not), and its longest wait (s) by flap."""

    name: Name
    lost: str
    waits: list[float]


@dataclass(frozen=True)
class Lived:
    """What all connections of a machine lived through."""

    run: Run
    hardship: str
    streams: list[Stream]
    time_of_it: int = 0


#: Of all waits compared, so many may be beyond the bound more often than with NetworkManager alone. All connections of a
#: machine wait for the same answer, so one flap in which it came late is as many waits as there are connections.
_TOLERATED = 0.05


@dataclass
class Compared:
    """Three machines that lived through the same: NetworkManager alone, again, with nm-mptcp."""

    lost: list[int] = field(default_factory=lambda: [0, 0, 0])
    left: int = 0  #: lost with nm-mptcp although NetworkManager alone kept as many both times
    waits: list[tuple[float, ...]] = field(default_factory=list)  #: (s) of the three, alike in kind, flap and rank
    streams: int = 0

    def add(self, machines: Sequence[Lived]) -> None:
        """Count in what their connections lived through, those of the same kind and origin together."""
        for kind in sorted({stream.name.alike for stream in machines[0].streams}):
            groups = [[stream for stream in lived.streams if stream.name.alike == kind] for lived in machines]
            lost = [sum(bool(stream.lost) for stream in group) for group in groups]
            self.lost = [a + b for a, b in zip(self.lost, lost, strict=True)]
            self.left += max(0, lost[2] - max(lost[:2]))
            self.waits += _ranked([[stream.waits for stream in group if not stream.lost] for group in groups])
            self.streams += len(groups[2])

    def beyond(self) -> list[int]:
        """How often each machine's waited more than the bound longer than both others'."""
        return [sum(extra > BOUND for extra in self._extra(machine)) for machine in range(3)]

    def worst(self) -> list[float]:
        """How much longer each machine's waited than both others' at most (s)."""
        return [max(self._extra(machine), default=0.0) for machine in range(3)]

    def _extra(self, machine: int) -> Iterator[float]:
        return (waits[machine] - max(waits[:machine] + waits[machine + 1 :]) for waits in self.waits)

    @property
    def behind(self) -> bool:
        """Whether nm-mptcp left somebody behind, more than chance does."""
        alone, again, product = self.beyond()
        return self.left > 0 or product > max(alone, again) + _TOLERATED * len(self.waits)


def _ranked(machines: Sequence[Sequence[Sequence[float]]]) -> Iterator[tuple[float, ...]]:
    """For each flap the longest waits of the three, the next ones, and so on, of as many as live on all three."""
    count = min(map(len, machines))
    for marks in zip(*(zip(*waits, strict=True) for waits in machines), strict=count > 0):
        yield from zip(*(sorted(mark, reverse=True)[:count] for mark in marks), strict=True)


def page(
    lived: Sequence[Lived], hardships: Sequence[Hardship], *, versions: dict[str, str], seed: int, failures: int
) -> tuple[str, bool]:
    """The Markdown page, and whether anybody was left behind."""
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    bound = f"{BOUND * 1000:.0f} ms"
    lines = [
        "<!-- made by `make bench-behind`; do not edit -->",
        "",
        f"Linux {os.uname().release}, {told}; {os.cpu_count()} cores; seed {seed}.",
        "",
        f"Three figures: NetworkManager alone, again, with nm-mptcp. *Beyond {bound}*: how often this machine's connections"
        f" waited more than {bound} longer than both others' of the same kind at the same flap, and by how many ms at most.",
        "",
        f"| what happens | links | connections lost | lost only with nm-mptcp | beyond {bound} | at most |",
        "|---|---|---:|---:|---:|---:|",
    ]
    behind = False
    for hardship, links in itertools.product(hardships, ("lone link", "two links")):
        found = Compared()
        for machines in _together(lived, hardship, links):
            found.add(machines)
        if found.streams:
            behind |= found.behind
            worst = " / ".join(f"{each * 1000:.0f}" for each in found.worst())
            lines.append(
                f"| {hardship.title} | {links} | {_three(found.lost)} of {found.streams} | {found.left} |"
                f" {_three(found.beyond())} of {len(found.waits)} | {worst} |"
            )
    lines += ["", "**Somebody was left behind.**" if behind else "**Nobody was left behind.**", "", *_NOTES]
    if failures:
        lines += ["", f"Runs that could not be made: {failures}."]
    return "\n".join(lines) + "\n", behind


def _together(lived: Sequence[Lived], hardship: Hardship, links: str) -> Iterator[list[Lived]]:
    runs = [Run(links, False, 1), Run(links, False, 2), Run(links, True, 1)]
    for time_of_it in range(hardship.times):
        found = {each.run: each for each in lived if (each.hardship, each.time_of_it) == (hardship.name, time_of_it)}
        if all(run in found for run in runs):
            yield [found[run] for run in runs]


def _three(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


_NOTES = (
    f"- Each connection is an echo every {INTERVAL * 1000:.0f} ms (so waits are known to about that), several of each kind at"
    " once. The machines run at the same time, with the same schedule. Lost: an error, or no answer long after the end.",
    "- A wait is the longest time without an answer that began after a flap's loss, however long it went on. At each flap the"
    " longest of each kind is compared with the longest, the next with the next.",
    "- NetworkManager alone runs twice, because much is chance: when a retransmission or the question for the gateway's"
    " hardware address (each second) happens to be due. Somebody was left behind where more are lost than in either run of"
    f" it, or where waits are beyond the bound more often than in either run by more than {_TOLERATED * 100:g} % of all.",
    f"- `connection down` and sleep: *{PLAIN_TCP}* has nothing under way when the link goes, and speaks again when it is about"
    " to return. Otherwise TCP's own timers, which double, would say when it answers again.",
    "- Sleep: logind's signal, NetworkManager takes the links down as it does with hardware, programs say nothing for the"
    " time. The kernel's timers go on here, which they do not in a machine that really sleeps.",
)
