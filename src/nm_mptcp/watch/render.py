# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene as lines of text with styles of rich, each no wider than the terminal. Nothing is said by colour alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from ..text import cells, counted, fit, wrapped
from .events import Event, clock
from .scene import ConnectionRow, LinkRow, Scene
from .traffic import Rates

#: From nothing to the maximum; the first is for nothing at all.
_BARS = " ▁▂▃▄▅▆▇█"
_ASCII_BARS = " .:-=+*#@"

_STATE_STYLES = {
    "active": "green",
    "backup": "green",
    "suspended": "yellow",
    "waiting": "yellow",
    "no carrier": "red",
    "down": "red",
}

#: Cells of an event's label: "peer address announced" is cut, the others are not.
_LABEL = 17

#: Bits per second of a full bar at least, so that an idle link's few bytes are not drawn as if they were many.
_QUIET = 100_000.0

#: A narrower terminal has two lines for what is one line on others.
_WIDE = 72

#: Lines that are kept for events, so at most this much less for subflows on a small terminal.
_EVENTS = 4


@dataclass(frozen=True, slots=True)
class Canvas:
    """The terminal's size, in cells and lines, and its characters."""

    width: int = 80
    height: int = 24
    unicode: bool = True  #: whether it shows more than ASCII

    @property
    def bars(self) -> str:
        """The characters of a sparkline."""
        return _BARS if self.unicode else _ASCII_BARS

    @property
    def more(self) -> str:
        """The mark of what was cut off."""
        return "…" if self.unicode else "~"


def draw(scene: Scene, canvas: Canvas) -> list[Text]:
    """The scene, at most ``height`` lines of at most ``width`` cells."""
    top = _header(scene, canvas)
    room = max(0, canvas.height - len(top) - _EVENTS - 2)
    wanted = 0 if scene.connections is None else 2 + scene.totals[0] + _lines_each(canvas) * scene.totals[1]
    links = _links(scene, canvas, detailed=True, most=max(room - min(wanted, 5), min(room, 5)))
    connections = _connections(scene, canvas, most=room - len(links) - 2)
    body = [*top, *links, *connections]
    left = canvas.height - len(body) - 2
    if left > 0:
        body += [Text(), _title("EVENTS", canvas), *_events(scene.events, left, canvas)]
    return [_fitted(line, canvas) for line in body[: canvas.height]]


def _header(scene: Scene, canvas: Canvas) -> list[Text]:
    words = f"service {scene.service}   NetworkManager {scene.networkmanager}"
    now = clock(scene.time)[:8]
    line = Text.assemble(("nm-mptcp watch", "bold"), f"   {words}")
    if line.cell_len > canvas.width:
        line = Text(words, "bold")
    space = canvas.width - line.cell_len - len(now)
    if space > 1:
        line = Text.assemble(line, " " * space, (now, "dim"))
    return [line, *_wrapped(scene.missing, "", canvas, "yellow")]


def _links(scene: Scene, canvas: Canvas, *, detailed: bool, most: int) -> list[Text]:
    """The links, in several lines each, or in one where there is no room for more than ``most`` lines in all."""
    if detailed and len(scene.links) * 3 > most:
        return _links(scene, canvas, detailed=False, most=most)
    # One scale for all of them, so that bars can be compared.
    visible = [rates for row in scene.links for rates in row.rates[-canvas.width :]]
    peak = max(_QUIET, *(max(rates.into, rates.out) for rates in visible), 0.0)
    lines = [Text(), _title("LINKS", canvas, f"a full bar is {speed(peak).strip()}")]
    if not scene.links:
        lines.append(Text("  No link has an address."))
    widths = _widths(scene.links, canvas)
    words = f"Left out: {counted(scene.left_out, 'interface')} without a path (--all shows all)."
    ends = _wrapped(words, "  ", canvas) if scene.left_out else []
    fits = max(1, most - 2 - len(ends))
    shown = scene.links if detailed or len(scene.links) <= fits else scene.links[: fits - 1]
    for row in shown:
        lines += _detailed(row, peak, widths, canvas) if detailed else [_brief(row, peak, widths, canvas)]
    if detailed and len(lines) + len(ends) > most:
        return _links(scene, canvas, detailed=False, most=most)
    if len(shown) < len(scene.links):
        lines.append(Text(f"  {canvas.more} {counted(len(scene.links) - len(shown), 'more link')}", "dim"))
    return [*lines, *ends]


def _widths(rows: Sequence[LinkRow], canvas: Canvas) -> tuple[int, int, int]:
    """Of the columns interface, profile with kind, and state."""
    interface = max((min(cells(row.interface), 15) for row in rows), default=0)
    profile = max((cells(_profile(row)) for row in rows), default=0)
    state = max((cells(row.state) for row in rows), default=0)
    room = canvas.width - interface - state - 4 if canvas.width < _WIDE else max(14, canvas.width // 4)
    return interface, min(profile, room), state


def _profile(row: LinkRow) -> str:
    return ", ".join(part for part in (row.profile, row.kind) if part) or "-"


def _head(row: LinkRow, widths: tuple[int, int, int], canvas: Canvas) -> Text:
    return Text.assemble(
        (fit(row.interface, widths[0], canvas.more), "bold"),
        f"  {fit(_profile(row), widths[1], canvas.more)}  ",
        (fit(row.state, widths[2], canvas.more), _STATE_STYLES.get(row.state, "")),
    )


def _detailed(row: LinkRow, peak: float, widths: tuple[int, int, int], canvas: Canvas) -> list[Text]:
    more = [counted(row.subflows, "subflow")] if row.subflows is not None else []
    addresses = ", ".join((*row.addresses, *more))
    head = _head(row, widths, canvas)
    if canvas.width < _WIDE:
        lines = [head, *_wrapped(addresses, "  ", canvas)]
    else:
        lines = [Text.assemble(head, (f"  {addresses}", "dim"))]
    lines += _wrapped(row.reason, "  ", canvas)
    for label, history in (
        ("in ", [(each.into, each.mptcp_in) for each in row.rates]),
        ("out", [(each.out, each.mptcp_out) for each in row.rates]),
    ):
        rate, mptcp = history[-1] if history else (0.0, None)
        words = f"  {label} {speed(rate)}"
        if mptcp is not None:
            words += f"  MPTCP {speed(min(mptcp, rate))}"
        lines.append(Text.assemble(f"{words}  ", _graph(history, peak, canvas.width - len(words) - 3, canvas)))
    return lines


def _graph(history: Sequence[tuple[float, float | None]], peak: float, width: int, canvas: Canvas) -> Text:
    """A sparkline, in colour where most of it is MPTCP's; the numbers beside it say how much."""
    shown = history[-width:] if width > 0 else []
    bars = spark([rate for rate, _ in shown], peak, width, canvas)
    styles = [""] * (len(bars) - len(shown))
    styles += ["cyan" if mptcp is not None and rate >= 1 and mptcp * 2 >= rate else "" for rate, mptcp in shown]
    groups = itertools.groupby(zip(bars, styles, strict=True), key=lambda pair: pair[1])
    return Text.assemble(*(("".join(bar for bar, _ in group), style) for style, group in groups))


def _brief(row: LinkRow, peak: float, widths: tuple[int, int, int], canvas: Canvas) -> Text:
    now: Rates = row.now
    head = _head(row, widths, canvas)
    words = f"  in {speed(now.into)}  out {speed(now.out)}  "
    room = canvas.width - head.cell_len - len(words) - 1
    if room < -3:
        return head  # half a number would mislead
    history = [
        (max(each.into, each.out), each.mptcp_in if each.into >= each.out else each.mptcp_out) for each in row.rates
    ]
    return Text.assemble(head, words, _graph(history, peak, room, canvas) if room >= 8 else "")


def _connections(scene: Scene, canvas: Canvas, *, most: int) -> list[Text]:
    connections, subflows = scene.totals
    total = connections + _lines_each(canvas) * subflows
    if scene.connections is None or most < min(total, 2):
        return []
    lines: list[Text] = []
    for connection in scene.connections:
        if len(lines) >= most:
            break
        lines.append(Text(f"  to {connection.peer}", "bold"))
        for number in range(len(connection.subflows)):
            lines += _subflow(connection, number, canvas)
    if total > most:
        left = total - most + 1
        lines = [*lines[: most - 1], Text(f"  {canvas.more} {counted(left, 'more line')}", "dim")]
    count = f"{subflows} in {counted(connections, 'connection')}" if subflows else "none"
    return [Text(), _title("SUBFLOWS", canvas, count), *lines]


def _lines_each(canvas: Canvas) -> int:
    """How many lines a subflow takes."""
    return 1 if canvas.width >= _WIDE else 2


def _subflow(connection: ConnectionRow, number: int, canvas: Canvas) -> list[Text]:
    row = connection.subflows[number]
    interfaces = max(cells(each.interface) for each in connection.subflows)
    sockets = max(len(each.local) for each in connection.subflows)
    states = max(len(each.state) for each in connection.subflows)
    head = Text.assemble(
        f"  {fit(row.interface, interfaces)}  {row.local:<{sockets}}  ",
        (f"{row.state:<{states}}", "green" if row.state == "active" else ""),
    )
    rates, rtt = f"  in {speed(row.rates.into)}  out {speed(row.rates.out)}", f"  rtt {row.rtt * 1000:.1f} ms"
    if _lines_each(canvas) == 1:
        return [head.append(rates + rtt)]
    below = f"  {rates}{rtt}"
    return [head, Text(below if len(below) <= canvas.width else f"  {rates}")]


def _events(events: Sequence[Event], most: int, canvas: Canvas) -> list[Text]:
    if not events:
        return [Text("  No events yet.", "dim")]
    lines: list[Text] = []
    for event in reversed(events):
        found = _event(event, canvas)
        if lines and len(lines) + len(found) > most:
            break
        lines = [*found, *lines]
    return lines[:most]


def _event(event: Event, canvas: Canvas) -> list[Text]:
    style = "red" if event.type.bad else "green" if event.type.good else ""
    time, label = f"  {clock(event.time)}  ", fit(event.type.label, _LABEL, canvas.more) + "  "
    indent = time + label
    first, *more = wrapped(event.text, indent, " " * len(indent), canvas.width, broken=True) or [indent]
    return [Text.assemble((time, "dim"), (label, style), first[len(indent) :]), *map(Text, more)]


def _wrapped(words: str, indent: str, canvas: Canvas, style: str = "dim") -> list[Text]:
    return [Text(line, style) for line in wrapped(words, indent, indent, canvas.width, broken=True)]


def _title(words: str, canvas: Canvas, more: str = "") -> Text:
    rule = "─" if canvas.unicode else "-"
    line = Text.assemble((words, "bold"), (f" {rule * 2} {more} " if more else " ", "dim"))
    return line.append(rule * max(0, canvas.width - line.cell_len), "dim")


def _fitted(line: Text, canvas: Canvas) -> Text:
    """The line, no wider than the canvas, and in its characters."""
    line.no_wrap = True
    line.truncate(canvas.width, overflow="ellipsis")
    if not canvas.unicode:
        line.plain = line.plain.replace("…", canvas.more).encode("ascii", "replace").decode()
    return line


def speed(rate: float) -> str:
    """Bits per second, always in 11 cells."""
    for unit in ("bit/s ", "kbit/s", "Mbit/s", "Gbit/s"):
        if rate < 999.5 or unit == "Gbit/s":
            number = f"{rate:.0f}" if rate >= 99.5 or unit == "bit/s " else f"{rate:.1f}"
            return f"{number:>4} {unit}"
        rate /= 1000
    raise AssertionError("unreachable")


def spark(values: Sequence[float], peak: float, width: int, canvas: Canvas) -> str:
    """The last ``width`` values as bars, the newest at the right; each but 0 has a bar."""
    if width <= 0:
        return ""
    steps = len(canvas.bars) - 1
    shown = values[-width:]
    bars = "".join(
        canvas.bars[0 if value < 1 or peak <= 0 else max(1, round(min(value / peak, 1.0) * steps))] for value in shown
    )
    return bars.rjust(width)
