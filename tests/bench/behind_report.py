# SPDX-License-Identifier: GPL-2.0-or-later
"""Who was left behind, as Markdown. Waits are compared rank by rank among connections of the same kind and the same flap."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .crowd import INTERVAL, Name
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


@dataclass
class Extra:
    """How much longer the one waited than the other, each comparison (s), and the worst of them."""

    all: list[float] = field(default_factory=list)

    @property
    def worst(self) -> float:
        return max(self.all, default=0.0)

    @property
    def beyond(self) -> int:
        """How many are beyond the bound."""
        return sum(each > BOUND for each in self.all)


def extra(ours: Sequence[Stream], theirs: Sequence[Stream]) -> Extra:
    """Compare the waits of two runs' living connections: for each flap the longest with the longest, and so on."""
    kept = {stream.name for stream in ours if not stream.lost} & {stream.name for stream in theirs if not stream.lost}
    result = Extra()
    for group in sorted({(name.kind, name.origin) for name in kept}):

        def by_mark(streams: Sequence[Stream], group: tuple[str, str] = group) -> Iterable[tuple[float, ...]]:
            mine = [each.waits for each in streams if each.name in kept and (each.name.kind, each.name.origin) == group]
            return zip(*mine, strict=True)

        for our, their in zip(by_mark(ours), by_mark(theirs), strict=True):
            result.all += [a - b for a, b in zip(sorted(our), sorted(their), strict=True)]
    return result


@dataclass(frozen=True)
class _Case:
    """The three machines that lived through the same."""

    hardship: Hardship
    links: str
    alone: Lived
    again: Lived
    product: Lived

    def of(self, kind: str, origin: str) -> tuple[list[Stream], list[Stream], list[Stream]]:
        alone, again, product = (
            [stream for stream in lived.streams if (stream.name.kind, stream.name.origin) == (kind, origin)]
            for lived in (self.alone, self.again, self.product)
        )
        return alone, again, product


def page(
    lived: Sequence[Lived], hardships: Sequence[Hardship], *, versions: dict[str, str], seed: int, failures: int
) -> tuple[str, bool]:
    """The Markdown page, and whether anybody was left behind."""
    cases = list(_cases(lived, hardships))
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    lines = [
        "<!-- made by `make bench-behind`; do not edit -->",
        "",
        f"Linux {os.uname().release}, {told}; {os.cpu_count()} cores; seed {seed}.",
        "",
        "| what happens | links | connections lost: NetworkManager alone, again, nm-mptcp | lost with nm-mptcp, kept alone |"
        f" worst extra wait with nm-mptcp | beyond {BOUND * 1000:.0f} ms | NetworkManager alone against itself: worst |"
        " beyond |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    behind = False
    for case in cases:
        ours, chance = extra(case.product.streams, case.alone.streams), extra(case.again.streams, case.alone.streams)
        left = _left(case)
        behind |= bool(left) or ours.worst > BOUND
        lines.append(
            f"| {case.hardship.title} | {case.links} | {_lost(case.alone)}, {_lost(case.again)}, {_lost(case.product)}"
            f" of {len(case.product.streams)} | {len(left)} | {_ms(ours.worst)} | {ours.beyond} of {len(ours.all)} |"
            f" {_ms(chance.worst)} | {chance.beyond} of {len(chance.all)} |"
        )
    lines += ["", f"**Verdict: {'somebody was left behind' if behind else 'nobody was left behind'}.**", "", *_notes()]
    lines += [
        "",
        "| what happens | links | server | begun on | NetworkManager alone | again | nm-mptcp | worst extra | chance |",
        "|---|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for case in cases:
        for kind, origin in dict.fromkeys((each.name.kind, each.name.origin) for each in case.product.streams):
            alone, again, product = case.of(kind, origin)
            cells = " | ".join(_waits(streams) for streams in (alone, again, product))
            worst = " | ".join(_ms(extra(streams, alone).worst) for streams in (product, again))
            lines.append(f"| {case.hardship.title} | {case.links} | {kind} | {origin} | {cells} | {worst} |")
    if failures:
        lines += ["", f"Runs that could not be made: {failures}."]
    return "\n".join(lines) + "\n", behind


def _cases(lived: Sequence[Lived], hardships: Sequence[Hardship]) -> Iterable[_Case]:
    known = {(each.hardship, each.run): each for each in lived}
    for hardship in hardships:
        for links in ("lone link", "two links"):
            runs = [Run(links, False, 1), Run(links, False, 2), Run(links, True, 1)]
            found = [known[hardship.name, run] for run in runs if (hardship.name, run) in known]
            if len(found) == len(runs):
                yield _Case(hardship, links, *found)


def _left(case: _Case) -> list[Name]:
    """Connections that NetworkManager alone kept both times and that are lost with nm-mptcp."""
    lost_alone = {stream.name for run in (case.alone, case.again) for stream in run.streams if stream.lost}
    return [stream.name for stream in case.product.streams if stream.lost and stream.name not in lost_alone]


def _lost(lived: Lived) -> int:
    return sum(bool(stream.lost) for stream in lived.streams)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


def _waits(streams: Sequence[Stream]) -> str:
    waits = [wait for stream in streams if not stream.lost for wait in stream.waits]
    lost = sum(bool(stream.lost) for stream in streams)
    said = [f"{_ms(statistics.median(waits))}, {_ms(max(waits))}"] if waits else []
    return "; ".join(said + ([f"{lost} of {len(streams)} lost"] if lost else []))


def _notes() -> Iterable[str]:
    yield (
        f"- Each connection is an echo every {INTERVAL * 1000:.0f} ms (so waits are known to about that), several of each kind"
        " at once. The machines run at the same time, with the same schedule. Lost: an error, or no answer long after the end."
    )
    yield (
        "- A wait is the longest time without an answer that began after a flap's loss, however long it went on, in ms. For each"
        " flap and kind of connection the longest is compared with the longest, the next with the next. NetworkManager alone"
        " runs twice: how much the second run differs from the first is chance (when a retransmission happens to be due)."
    )
    yield "- In the lower table: median, maximum."
    yield (
        "- Sleep: logind's signal, NetworkManager takes the links down as it does with hardware, programs say nothing for the"
        " time. The kernel's timers go on here, which they do not in a machine that really sleeps."
    )
