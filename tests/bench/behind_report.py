# SPDX-License-Identifier: GPL-2.0-or-later
"""Who was left behind, as Markdown. Waits are compared rank by rank among connections of the same kind and the same flap."""

from __future__ import annotations

import itertools
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .crowd import INTERVAL, PLAIN_SILENT, PLAIN_TALKING, Name
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


@dataclass(frozen=True)
class Case:
    """The three machines that lived through the same: NetworkManager alone, again, with nm-mptcp."""

    hardship: Hardship
    links: str
    machines: tuple[Lived, Lived, Lived]

    def groups(self) -> Iterable[Group]:
        """Connections of the same kind that began on the same link, together."""
        names = dict.fromkeys((stream.name.kind, stream.name.origin) for stream in self.machines[0].streams)
        for kind, origin in names:
            alone, again, product = (
                [stream for stream in lived.streams if (stream.name.kind, stream.name.origin) == (kind, origin)]
                for lived in self.machines
            )
            yield Group(self, kind, origin, (alone, again, product))


@dataclass(frozen=True)
class Rank:
    """The connections of the three machines that waited longest, second longest... of their kind at the same flap."""

    waits: tuple[float, ...]  #: seconds
    timers: float = 0.0  #: what is no longer than that (s) may be due to TCP's own timers alone

    def extra(self, machine: int) -> float:
        """How much longer this machine's waited than those of both others (s)."""
        return self.waits[machine] - max(self.waits[:machine] + self.waits[machine + 1 :])

    def beyond(self, machine: int) -> bool:
        """Whether that is beyond the bound, and not due to TCP's own timers."""
        return self.extra(machine) > BOUND and self.waits[machine] > self.timers


@dataclass(frozen=True)
class Group:
    """Connections of the same kind, on the three machines."""

    case: Case
    kind: str
    origin: str
    streams: tuple[list[Stream], list[Stream], list[Stream]]

    def lost(self) -> list[int]:
        """How many, on each machine."""
        return [sum(bool(stream.lost) for stream in streams) for streams in self.streams]

    def ranks(self) -> list[Rank]:
        """For each flap the longest waits of the three, the next ones, and so on, of as many as live on all three."""
        alive = [[stream.waits for stream in streams if not stream.lost] for streams in self.streams]
        count = min(map(len, alive))
        if not count:
            return []
        hardship = self.case.hardship
        result: list[Rank] = []
        for marks in zip(*(zip(*waits, strict=True) for waits in alive), strict=True):
            alike = zip(*(sorted(mark, reverse=True)[:count] for mark in marks), strict=True)
            for waits in alike:
                cut = self.kind == PLAIN_TALKING and min(waits[:2]) >= hardship.away
                result.append(Rank(waits, hardship.timers if cut else 0.0))
        return result


@dataclass
class Compared:
    """What came of it, over several groups."""

    lost: list[int] = field(default_factory=lambda: [0, 0, 0])
    left: int = 0  #: lost with nm-mptcp although NetworkManager alone kept as many both times
    ranks: list[Rank] = field(default_factory=list)
    streams: int = 0

    def add(self, group: Group) -> None:
        """Count it in."""
        lost = group.lost()
        self.lost = [a + b for a, b in zip(self.lost, lost, strict=True)]
        self.left += max(0, lost[2] - max(lost[:2]))
        self.ranks += group.ranks()
        self.streams += len(group.streams[2])

    def beyond(self) -> list[int]:
        """How often each machine's waited more than the bound longer than both others', not by TCP's own timers."""
        return [sum(rank.beyond(machine) for rank in self.ranks) for machine in range(3)]

    def worst(self) -> list[float]:
        """How much longer each machine's waited than both others' at most (s)."""
        return [max((rank.extra(machine) for rank in self.ranks), default=0.0) for machine in range(3)]

    def pairwise(self, machine: int) -> float:
        """How much longer this machine's waited at most than those of the first (s)."""
        return max((rank.waits[machine] - rank.waits[0] for rank in self.ranks), default=0.0)

    @property
    def behind(self) -> bool:
        """Whether nm-mptcp left somebody behind, more than chance does."""
        alone, again, product = self.beyond()
        return self.left > 0 or product > max(alone, again) + _TOLERATED * len(self.ranks)


def page(
    lived: Sequence[Lived], hardships: Sequence[Hardship], *, versions: dict[str, str], seed: int, failures: int
) -> tuple[str, bool]:
    """The Markdown page, and whether anybody was left behind."""
    groups: dict[tuple[str, str], list[Group]] = defaultdict(list)
    for case in _cases(lived, hardships):
        groups[case.hardship.title, case.links] += case.groups()
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
        f"| what happens | links | connections lost | lost only with nm-mptcp | beyond {bound} | at most |"
        " worst extra of nm-mptcp and of the second run, over the first |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    behind = False
    for (title, links), members in groups.items():
        found = _compared(members)
        behind |= found.behind
        lines.append(
            f"| {title} | {links} | {_three(found.lost)} of {found.streams} | {found.left} |"
            f" {_three(found.beyond())} of {len(found.ranks)} | {' / '.join(_ms(each) for each in found.worst())} |"
            f" {_ms(found.pairwise(2))} / {_ms(found.pairwise(1))} |"
        )
    verdict = "somebody was left behind" if behind else "nobody was left behind"
    lines += ["", f"**{verdict[0].upper()}{verdict[1:]}.**", "", *_notes(hardships)]
    lines += [
        "",
        "Each kind of connection: the waits' median and maximum (ms), and how many were lost.",
        "",
        f"| what happens | links | server | begun on | NetworkManager alone | again | nm-mptcp | beyond {bound} |",
        "|---|---|---|---|---:|---:|---:|---:|",
    ]
    for (title, links), members in groups.items():
        for kind, origin in dict.fromkeys((each.kind, each.origin) for each in members):
            alike = [each for each in members if (each.kind, each.origin) == (kind, origin)]
            cells = " | ".join(
                _waits([stream for each in alike for stream in each.streams[place]]) for place in range(3)
            )
            beyond = _three(_compared(alike).beyond())
            lines.append(f"| {title} | {links} | {kind} | {origin} | {cells} | {beyond} |")
    if failures:
        lines += ["", f"Runs that could not be made: {failures}."]
    return "\n".join(lines) + "\n", behind


def _cases(lived: Sequence[Lived], hardships: Sequence[Hardship]) -> Iterable[Case]:
    known = {(each.hardship, each.time_of_it, each.run): each for each in lived}
    for hardship, links in itertools.product(hardships, ("lone link", "two links")):
        for time_of_it in range(hardship.times):
            runs = [Run(links, False, 1), Run(links, False, 2), Run(links, True, 1)]
            found = [known.get((hardship.name, time_of_it, run)) for run in runs]
            alone, again, product = found
            if alone and again and product:
                yield Case(hardship, links, (alone, again, product))


def _compared(groups: Iterable[Group]) -> Compared:
    result = Compared()
    for group in groups:
        result.add(group)
    return result


def _three(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


def _waits(streams: Sequence[Stream]) -> str:
    waits = [wait for stream in streams if not stream.lost for wait in stream.waits]
    lost = sum(bool(stream.lost) for stream in streams)
    said = [f"{_ms(statistics.median(waits))}, {_ms(max(waits))}"] if waits else []
    return "; ".join(said + ([f"{lost} of {len(streams)} lost"] if lost else []))


def _notes(hardships: Sequence[Hardship]) -> Iterable[str]:
    yield (
        f"- Each connection is an echo every {INTERVAL * 1000:.0f} ms (so waits are known to about that), several of each kind"
        " at once. The machines run at the same time, with the same schedule. Lost: an error, or no answer long after the end."
    )
    yield (
        "- A wait is the longest time without an answer that began after a flap's loss, however long it went on. At each flap"
        " the longest of each kind is compared with the longest, the next with the next."
    )
    yield (
        "- NetworkManager alone runs twice, because much is chance: when a retransmission or the question for the gateway's"
        " hardware address (each second) happens to be due. Somebody was left behind where more are lost than in either run"
        f" of it, or where waits are beyond the bound more often than in either run by more than {_TOLERATED * 100:g} % of all."
    )
    if long := [hardship for hardship in hardships if hardship.timers]:
        yield (
            f"- {' and '.join(each.title for each in long)}: who has data under way answers again when TCP's own timers are"
            " due. Each is twice as long as the one before, so the next may be as far off as the loss is past. How far is"
            " chance: whether the last answer was acknowledged just in time (if not, the server tries, too), how soon the"
            " gateway notices that the host has gone (Linux: after 15 to 45 s, at random) and tells the server, which takes a"
            " doubling back (RFC 6069), and on which step of the kernel's timer wheel a timer falls (2 s). So"
            f" *{PLAIN_TALKING}* that NetworkManager alone leaves without a link counts as beyond only above"
            f" {' and '.join(f'{each.timers:.0f} s' for each in long)}, where no timer is left to wait for."
            f" *{PLAIN_SILENT}* has nothing under way when the link goes, and speaks again when it is about to return: it needs"
            " no timer, and shows what the link itself costs. Its wait includes its own silence."
        )
    yield (
        "- Sleep: logind's signal, NetworkManager takes the links down as it does with hardware, programs say nothing for the"
        " time. The kernel's timers go on here, which they do not in a machine that really sleeps."
    )
