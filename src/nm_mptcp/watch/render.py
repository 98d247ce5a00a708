# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: a scene as lines of a terminal, each no wider than it. Nothing is told by colour alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..report.styles import Line, Span, Style, text_of
from ..text import cells, counted, fit, wrapped
from .events import Happening, clock
from .scene import ConnectionRow, LinkRow, Scene
from .traffic import Rates

#: From nothing to the most; the first is for nothing at all.
_BARS = " ▁▂▃▄▅▆▇█"
_ASCII_BARS = " .:-=+*#@"

_STATE_STYLES = {
    "active": Style.GOOD,
    "backup": Style.GOOD,
    "suspended": Style.WARNING,
    "waiting": Style.WARNING,
    "no carrier": Style.BAD,
    "down": Style.BAD,
}

#: How wide what happened is told, before the words for it: "peer address announced" is cut, the others are not.
_LABEL = 17

#: Bits per second that make a full bar at least: what an idle link carries is not drawn as if it were much.
_QUIET = 100_000.0

#: A narrower screen has in two lines what others have in one.
_WIDE = 72

#: Lines of events that are always kept free, and the most that subflows take of a small screen.
_EVENTS = 4


@dataclass(frozen=True, slots=True)
class Canvas:
    """What there is to draw on."""

    width: int = 80
    height: int = 24
    unicode: bool = True  #: whether more than ASCII can be shown

    @property
    def bars(self) -> str:
        """The characters of a sparkline."""
        return _BARS if self.unicode else _ASCII_BARS

    @property
    def more(self) -> str:
        """What stands where something was cut off."""
        return "…" if self.unicode else "~"


def draw(scene: Scene, canvas: Canvas) -> list[Line]:
    """The scene, at most ``height`` lines of at most ``width`` cells."""
    top = _header(scene, canvas)
    room = max(0, canvas.height - len(top) - _EVENTS - 2)
    wanted = 0 if scene.connections is None else 2 + scene.totals[0] + _lines_each(canvas) * scene.totals[1]
    links = _links(scene, canvas, detailed=True, most=max(room - min(wanted, 5), min(room, 5)))
    connections = _connections(scene, canvas, most=room - len(links) - 2)
    body = [*top, *links, *connections]
    left = canvas.height - len(body) - 2
    if left > 0:
        body += [(), _title("EVENTS", canvas), *_events(scene.happenings, left, canvas)]
    return [_cut(line, canvas) for line in body[: canvas.height]]


def _header(scene: Scene, canvas: Canvas) -> list[Line]:
    words = [f"service {scene.service}", f"NetworkManager {scene.networkmanager}"]
    now = clock(scene.time)[:8]
    left: Line = (Span("nm-mptcp watch", Style.BOLD), Span("   " + "   ".join(words)))
    if cells(text_of(left)) > canvas.width:
        left = (Span("   ".join(words), Style.BOLD),)
    space = canvas.width - cells(text_of(left)) - len(now)
    lines: list[Line] = [(*left, Span(" " * space), Span(now, Style.DIM)) if space > 1 else left]
    if scene.missing:
        lines += [(Span(words, Style.WARNING),) for words in _wrapped(scene.missing, "", canvas)]
    return lines


def _links(scene: Scene, canvas: Canvas, *, detailed: bool, most: int) -> list[Line]:
    """The links, in several lines each, or in one where there is no room for more than ``most`` lines in all."""
    if detailed and len(scene.links) * 3 > most:
        return _links(scene, canvas, detailed=False, most=most)
    # One scale for all that is seen, so that bars can be compared.
    seen = [rates for row in scene.links for rates in row.rates[-canvas.width :]]
    peak = max(_QUIET, *(max(rates.into, rates.out) for rates in seen), 0.0)
    lines: list[Line] = [(), _title("LINKS", canvas, f"a full bar is {speed(peak).strip()}")]
    if not scene.links:
        lines.append((Span("  No link has an address."),))
    widths = (
        max((min(cells(row.interface), 15) for row in scene.links), default=0),
        max((cells(_who(row)) for row in scene.links), default=0),
        max((cells(row.state) for row in scene.links), default=0),
    )
    room = canvas.width - widths[0] - widths[2] - 4
    widths = (widths[0], min(widths[1], room if canvas.width < _WIDE else max(14, canvas.width // 4)), widths[2])
    words = f"Left out: {counted(scene.left_out, 'interface')} without a path (--all shows all)."
    ends = [(Span(line, Style.DIM),) for line in _wrapped(words, "  ", canvas)] if scene.left_out else []
    fits = max(1, most - 2 - len(ends))
    shown = scene.links if detailed or len(scene.links) <= fits else scene.links[: fits - 1]
    for row in shown:
        lines += _detailed(row, peak, widths, canvas) if detailed else [_brief(row, peak, widths, canvas)]
    if detailed and len(lines) + len(ends) > most:
        return _links(scene, canvas, detailed=False, most=most)
    if len(shown) < len(scene.links):
        lines.append((Span(f"  {canvas.more} {counted(len(scene.links) - len(shown), 'more link')}", Style.DIM),))
    return [*lines, *ends]


def _who(row: LinkRow) -> str:
    return ", ".join(part for part in (row.profile, row.kind) if part) or "-"


def _head(row: LinkRow, widths: Sequence[int], canvas: Canvas) -> Line:
    return (
        Span(fit(row.interface, widths[0], canvas.more) + "  ", Style.BOLD),
        Span(fit(_who(row), widths[1], canvas.more) + "  "),
        Span(fit(row.state, widths[2], canvas.more), _STATE_STYLES.get(row.state, Style.PLAIN)),
    )


def _detailed(row: LinkRow, peak: float, widths: Sequence[int], canvas: Canvas) -> list[Line]:
    more = [counted(row.subflows, "subflow")] if row.subflows is not None else []
    places = ", ".join((*row.addresses, *more))
    head = _head(row, widths, canvas)
    lines: list[Line] = []
    if canvas.width < _WIDE:
        lines += [head, *((Span(words, Style.DIM),) for words in _wrapped(places, "  ", canvas))]
    else:
        lines.append((*head, Span("  " + places, Style.DIM)))
    lines += [(Span(words, Style.DIM),) for words in _wrapped(row.reason, "  ", canvas)]
    for label, history in (
        ("in ", [(each.into, each.mptcp_in) for each in row.rates]),
        ("out", [(each.out, each.mptcp_out) for each in row.rates]),
    ):
        rate, carried = history[-1] if history else (0.0, None)
        words = f"  {label} {speed(rate)}"
        if carried is not None:
            words += f"  MPTCP {speed(min(carried, rate))}"
        lines.append((Span(words + "  "), *_graph(history, peak, canvas.width - len(words) - 3, canvas)))
    return lines


def _graph(history: Sequence[tuple[float, float | None]], peak: float, width: int, canvas: Canvas) -> Line:
    """A sparkline, in colour where most of it is MPTCP's; the numbers beside it say how much."""
    shown = history[-width:] if width > 0 else []
    bars = spark([rate for rate, _ in shown], peak, width, canvas)
    styles = [Style.PLAIN] * (len(bars) - len(shown))
    styles += [
        Style.GRAPH if carried is not None and rate >= 1 and carried * 2 >= rate else Style.PLAIN
        for rate, carried in shown
    ]
    groups = itertools.groupby(zip(bars, styles, strict=True), key=lambda pair: pair[1])
    return tuple(Span("".join(bar for bar, _ in group), style) for style, group in groups)


def _brief(row: LinkRow, peak: float, widths: Sequence[int], canvas: Canvas) -> Line:
    now: Rates = row.now
    head = _head(row, widths, canvas)
    words = f"  in {speed(now.into)}  out {speed(now.out)}  "
    room = canvas.width - cells(text_of(head)) - len(words) - 1
    if room < -3:
        return head  # half a number tells nothing
    carried = [
        (max(each.into, each.out), each.mptcp_in if each.into >= each.out else each.mptcp_out) for each in row.rates
    ]
    return (*head, Span(words), *(_graph(carried, peak, room, canvas) if room >= 8 else ()))


def _connections(scene: Scene, canvas: Canvas, *, most: int) -> list[Line]:
    connections, subflows = scene.totals
    total = connections + _lines_each(canvas) * subflows
    if scene.connections is None or most < min(total, 2):
        return []
    lines: list[Line] = []
    for connection in scene.connections:
        if len(lines) >= most:
            break
        lines.append((Span(f"  to {connection.peer}", Style.BOLD),))
        for number in range(len(connection.subflows)):
            lines += _subflow(connection, number, canvas)
    if total > most:
        left = total - most + 1
        lines = [*lines[: most - 1], (Span(f"  {canvas.more} {counted(left, 'more line')}", Style.DIM),)]
    count = f"{subflows} in {counted(connections, 'connection')}" if subflows else "none"
    return [(), _title("SUBFLOWS", canvas, count), *lines]


def _lines_each(canvas: Canvas) -> int:
    """How many lines a subflow takes."""
    return 1 if canvas.width >= _WIDE else 2


def _subflow(connection: ConnectionRow, number: int, canvas: Canvas) -> list[Line]:
    row = connection.subflows[number]
    interfaces = max(cells(each.interface) for each in connection.subflows)
    sockets = max(len(each.local) for each in connection.subflows)
    states = max(len(each.state) for each in connection.subflows)
    head = (
        Span(f"  {fit(row.interface, interfaces)}  {row.local:<{sockets}}  "),
        Span(f"{row.state:<{states}}", Style.GOOD if row.state == "carries" else Style.PLAIN),
    )
    rates, rtt = f"  in {speed(row.rates.into)}  out {speed(row.rates.out)}", f"  rtt {row.rtt * 1000:.1f} ms"
    if _lines_each(canvas) == 1:
        return [(*head, Span(rates + rtt))]
    below = "  " + rates + rtt
    return [head, (Span(below if len(below) <= canvas.width else "  " + rates),)]


def _events(happenings: Sequence[Happening], most: int, canvas: Canvas) -> list[Line]:
    if not happenings:
        return [(Span("  Nothing has happened yet.", Style.DIM),)]
    lines: list[Line] = []
    for each in reversed(happenings):
        told = event(each, canvas)
        if lines and len(lines) + len(told) > most:
            break
        lines = [*told, *lines]
    return lines[:most]


def event(happening: Happening, canvas: Canvas) -> list[Line]:
    """The lines of something that happened: one, and more where the terminal is too narrow."""
    style = Style.BAD if happening.name.bad else Style.GOOD if happening.name.good else Style.PLAIN
    time, label = f"  {clock(happening.time)}  ", fit(happening.name.label, _LABEL, canvas.more) + "  "
    indent = time + label
    first, *more = wrapped(happening.words, indent, " " * len(indent), canvas.width, broken=True) or [indent]
    head = (Span(time, Style.DIM), Span(label, style), Span(first[len(indent) :]))
    return [head, *((Span(words),) for words in more)]


def _wrapped(words: str, indent: str, canvas: Canvas) -> list[str]:
    return wrapped(words, indent, indent, canvas.width, broken=True)


def _title(words: str, canvas: Canvas, more: str = "") -> Line:
    rule = "─" if canvas.unicode else "-"
    told = f"{rule * 2} {more} " if more else ""
    line = rule * max(0, canvas.width - len(words) - 1 - len(told))
    return (Span(words + " ", Style.BOLD), Span(told + line, Style.DIM))


def speed(rate: float) -> str:
    """Bits per second, always 11 characters wide."""
    for unit in ("bit/s ", "kbit/s", "Mbit/s", "Gbit/s"):
        if rate < 999.5 or unit == "Gbit/s":
            number = f"{rate:.0f}" if rate >= 99.5 or unit == "bit/s " else f"{rate:.1f}"
            return f"{number:>4} {unit}"
        rate /= 1000
    raise AssertionError("unreachable")


def spark(values: Sequence[float], peak: float, width: int, canvas: Canvas) -> str:
    """The newest ``width`` values as bars, the newest at the right; what is not nothing has a bar."""
    if width <= 0:
        return ""
    steps = len(canvas.bars) - 1
    shown = values[-width:]
    bars = "".join(
        canvas.bars[0 if value < 1 or peak <= 0 else max(1, round(min(value / peak, 1.0) * steps))] for value in shown
    )
    return bars.rjust(width)


def _cut(line: Line, canvas: Canvas) -> Line:
    """The line, no wider than the canvas, and in its characters."""
    left, kept = canvas.width, []
    for span in line if canvas.unicode else _ascii(line):
        size = cells(span.text)
        if size <= left:
            kept.append(span)
            left -= size
            continue
        if left > 0:
            kept.append(Span(fit(span.text, left, canvas.more), span.style))
        break
    return tuple(kept)


def _ascii(line: Iterable[Span]) -> Line:
    return tuple(Span(span.text.encode("ascii", "replace").decode(), span.style) for span in line)
