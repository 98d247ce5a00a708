# SPDX-License-Identifier: GPL-2.0-or-later
"""What was measured, as Markdown and as a picture (SVG, written by hand: no library is needed to see it)."""

from __future__ import annotations

import html
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .delay import Done
from .scenarios import Outcome, Scenario, full_speed
from .tools import Tool


@dataclass
class Results:
    """The outcomes by scenario and tool, runs that could not be made, and what the relays did."""

    outcomes: dict[tuple[str, str], list[Outcome]] = field(default_factory=lambda: defaultdict(list))
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    relayed: list[Done] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, scenario: Scenario, tool: Tool, outcome: Outcome) -> None:
        """One more run."""
        self.outcomes[scenario.name, tool.name].append(outcome)

    def failed(self, scenario: Scenario, tool: Tool, why: str) -> None:
        """One run could not be made."""
        self.failures.append((scenario.name, tool.name, why))


# --- the table


def table(results: Results, scenarios: Sequence[Scenario], tools: Sequence[Tool]) -> str:
    """The Markdown page."""
    lines = ["<!-- made by `make bench-failover`; do not edit -->", "", *figures(results, scenarios, tools)]
    lines += ["", *_notes()]
    if results.failures:
        lines += ["", f"Runs that could not be made: {len(results.failures)}."]
    return "\n".join(lines) + "\n"


def figures(results: Results, scenarios: Sequence[Scenario], tools: Sequence[Tool]) -> list[str]:
    """Conditions and table alone."""
    lines = [
        _conditions(results),
        "",
        "Milliseconds: median, maximum [runs]. *never*: not within the time that the run waited.",
        "",
        "| what happens | what is measured | " + " | ".join(tool.title for tool in tools) + " |",
        "|---|---|" + "---:|" * len(tools),
    ]
    for scenario in scenarios:
        title = scenario.title
        for figure in _figures(results, scenario, tools):
            cells = [_cell(results.outcomes[scenario.name, tool.name], figure) for tool in tools]
            lines.append(f"| {title} | {figure} | {' | '.join(cells)} |")
            title = ""
        lost = [_lost(results.outcomes[scenario.name, tool.name]) for tool in tools]
        if any(lost):
            lines.append(f"| {title} | connections lost | {' | '.join(each or '-' for each in lost)} |")
    return lines


def _conditions(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items() if version)
    said = f"Linux {os.uname().release}, {versions}; {os.cpu_count()} cores."
    trips = [it for outcome in _all(results) if (it := outcome.figures.get("round-trip"))]
    runs = sorted({len(outcomes) for outcomes in results.outcomes.values() if outcomes})
    said += f" {runs[0]} to {runs[-1]} runs of each" if len(runs) > 1 else f" {runs[0] if runs else 0} runs of each"
    said += " (the number is in brackets), each on a fresh machine of its own, the tools taking turns."
    if trips:
        said += f" Round-trip to the server far away before the loss: {statistics.median(trips):.0f} ms"
        late = results.relayed
        if late:
            said += (
                f" (the relay that makes it was {statistics.mean(each.late_mean for each in late):.1f} ms late on"
                f" average, {max(each.late_max for each in late):.0f} ms at most, over"
                f" {sum(each.packets for each in late)} packets)"
            )
        said += "; to the near one below 1 ms."
    return said


def _notes() -> Iterable[str]:
    yield "- All have `ip mptcp limits set subflows 4 add_addr_accepted 4`, as somebody who knows MPTCP would set."
    yield (
        "- With mptcpd NetworkManager's own endpoints are off (`connection.mptcp-flags=disabled`): where both make them,"
        " mptcpd finds each address taken. It runs with `--addr-flags=subflow`; its backup endpoint was made by hand."
    )
    yield "- Longest gap: of an echo every 10 ms, so 10 ms is none at all."
    yield (
        "- Delete sent and acknowledged: the service's system call, traced by the kernel; from the moment in which the kernel"
        " woke the service for the event."
        " Subflow closed: the kernel's own event, which comes after the delete was sent and before its RCU grace period;"
        " endpoint gone: by asking the kernel each millisecond, which may have to wait for the next delete. The grace"
        " period is the kernel's own time, whoever deletes: the comparison is the delete of an endpoint that nobody uses."
    )
    yield "- New connection: *never* means that it failed, or took more than 5 s."
    yield "- Endpoint gone, a dash: it still stood when the streams flowed again and the run ended."
    yield "- Subflow back: counted from the last of carrier, address and route. *kept*: it was not closed in the first place."


def _all(results: Results) -> Iterable[Outcome]:
    return (outcome for outcomes in results.outcomes.values() for outcome in outcomes)


def _figures(results: Results, scenario: Scenario, tools: Sequence[Tool]) -> list[str]:
    names: dict[str, None] = {}
    for tool in tools:
        for outcome in results.outcomes[scenario.name, tool.name]:
            names |= dict.fromkeys(outcome.figures)
    names.pop("round-trip", None)
    return list(names)


def _cell(outcomes: Sequence[Outcome], figure: str) -> str:
    if not outcomes:
        return "-"
    values = [outcome.figures[figure] for outcome in outcomes if figure in outcome.figures]
    if not values:
        return "*kept*" if figure == "subflow back" else "-"
    known = [value for value in values if value is not None]
    if not known:
        return f"*never* [{len(values)}]"
    text = f"{statistics.median(known):.0f}, {max(known):.0f} [{len(known)}]"
    missing = len(values) - len(known)
    return f"{text}, *never* in {missing} of {len(values)}" if missing else text


def _lost(outcomes: Sequence[Outcome]) -> str:
    flags = [lost for outcome in outcomes for lost in outcome.lost.values()]
    return f"{sum(flags)} of {len(flags)}" if flags else ""


# --- the picture

_BEGIN, _END, _BIN = -0.5, 2.5, 0.05
_WIDTH, _LEFT, _TOP, _EACH, _SPACE = 860, 60, 86, 92, 38
_COLOURS = {"networkmanager": "#8a8f98", "mptcpd": "#c98a2b", "nm-mptcp": "#1f7a4d"}


def picture(results: Results, tools: Sequence[Tool]) -> str:
    """Bytes delivered around the loss, a panel a tool: the run with the median gap. Empty when nothing was drawn."""
    panels = []
    for tool in tools:
        drawn = [outcome for outcome in results.outcomes["bulk", tool.name] if outcome.timeline]
        if drawn:
            drawn.sort(key=_full_speed)
            panels.append((tool, drawn[(len(drawn) - 1) // 2].timeline))
    if not panels:
        return ""
    top_rate = 50.0
    width = _WIDTH - _LEFT - 40
    bottom = _TOP + len(panels) * (_EACH + _SPACE) - _SPACE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 60}" font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{bottom + 60}" fill="#ffffff"/>',
        _text(_LEFT, 24, "The cable is pulled in the middle of a download", size=17, weight="bold"),
        _text(
            _LEFT,
            44,
            "One MPTCP connection over two links of 20 Mbit/s each, 40 and 60 ms round-trip; the run with the median outcome",
            size=12,
            fill="#555555",
        ),
    ]

    def across(when: float) -> float:
        return _LEFT + (when - _BEGIN) / (_END - _BEGIN) * width

    for place, (tool, timeline) in enumerate(panels):
        floor = _TOP + place * (_EACH + _SPACE) + _EACH
        colour = _COLOURS.get(tool.name, "#336699")
        for rate in (0, 20, 40):
            height = floor - rate / top_rate * _EACH
            parts.append(f'<path d="M{_LEFT} {height:.1f}H{_LEFT + width}" stroke="#e3e3e3"/>')
            parts.append(_text(_LEFT - 8, height + 4, str(rate), size=11, fill="#777777", anchor="end"))
        steps = [f"M{across(_BEGIN):.1f} {floor}"]
        for number in range(round((_END - _BEGIN) / _BIN)):
            begin = _BEGIN + number * _BIN
            size = sum(size for when, size in timeline if begin <= when < begin + _BIN)
            height = floor - min(size * 8 / _BIN / 1e6, top_rate) / top_rate * _EACH
            steps.append(f"V{height:.1f}H{across(begin + _BIN):.1f}")
        parts.append(f'<path d="{"".join(steps)}V{floor}Z" fill="{colour}"/>')
        line = f"M{across(0):.1f} {floor - _EACH}V{floor + 6}"
        parts.append(f'<path d="{line}" stroke="#c0392b" stroke-width="1.5" stroke-dasharray="5 4"/>')
        recovered = _full_speed_at(timeline)
        words = (
            f"at full speed again after {recovered * 1000:.0f} ms" if recovered < _END else "not at full speed in time"
        )
        parts.append(_text(_LEFT + 6, floor - _EACH - 5, tool.title, size=13, weight="bold", fill=colour))
        parts.append(_text(_LEFT + width, floor - _EACH - 5, words, size=13, fill=colour, anchor="end"))
    for tick in range(7):
        when = _BEGIN + tick * 0.5
        words = "loss" if when == 0 else f"{when:+.1f} s"
        parts.append(_text(across(when), bottom + 18, words, size=12, fill="#555555", anchor="middle"))
    parts.append(_text(_LEFT, bottom + 42, "Mbit/s delivered to the application, each 50 ms", size=12, fill="#555555"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(
    x: float, y: float, words: str, *, size: int, fill: str = "#222222", weight: str = "normal", anchor: str = "start"
) -> str:
    style = f'font-size="{size}" fill="{fill}" font-weight="{weight}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{html.escape(words)}</text>'


def _full_speed_at(timeline: Sequence[tuple[float, int]]) -> float:
    return full_speed(timeline) or _END


def _full_speed(outcome: Outcome) -> float:
    return _full_speed_at(outcome.timeline)
