# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program wrote to a terminal as an SVG picture, which looks the same everywhere.

Each word stands at its own place with its own width, and bars and rules are drawn, so nothing depends on a font, and no font
is fetched from anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from xml.sax.saxutils import escape, quoteattr

#: Size of a cell and of what is around the screen, in the picture's own units.
_WIDTH, _HEIGHT, _SIZE = 9.0, 19.0, 15.0
_EDGE, _BAR = 18.0, 40.0

_BACKGROUND, _FRAME, _RULE, _TEXT, _FAINT = "#0f172a", "#1e293b", "#334155", "#e2e8f0", "#7c8ba1"
#: Of the colours that ``ESC [ 30 m`` and so on (ECMA-48), and 90 and so on, choose.
_DARK = ("#475569", "#f87171", "#4ade80", "#fbbf24", "#60a5fa", "#c084fc", "#22d3ee", "#e2e8f0")
_BRIGHT = ("#64748b", "#fca5a5", "#86efac", "#fde047", "#93c5fd", "#d8b4fe", "#67e8f9", "#ffffff")
_COLOURS = dict(enumerate(_DARK, 30)) | dict(enumerate(_BRIGHT, 90))
_FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


@dataclass(frozen=True)
class Look:
    """How a character looks."""

    colour: str = _TEXT
    bold: bool = False


def picture(screen: str, *, title: str, columns: int) -> str:
    """The lines of a screen, with their escape sequences (colours, bold and dim count; others are overlooked)."""
    lines = screen.rstrip().splitlines()
    width = columns * _WIDTH + 2 * _EDGE
    height = _BAR + len(lines) * _HEIGHT + _EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img"'
        f" aria-label={quoteattr(title)} font-family={quoteattr(_FONTS)} font-size={quoteattr(f'{_SIZE:g}')}>",
        f"<title>{escape(title)}</title>",
        f'<rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="10" fill="{_BACKGROUND}"'
        f' stroke="{_FRAME}"/>',
        *(f'<circle cx="{22 + 20 * n}" cy="19" r="5.5" fill="{_FRAME}"/>' for n in range(3)),
        f'<text x="{width / 2:g}" y="24" fill="{_FAINT}" text-anchor="middle">{escape(title)}</text>',
    ]
    for number, line in enumerate(lines):
        parts += _line(list(_characters(line)), _BAR + number * _HEIGHT)
    return "\n".join([*parts, "</svg>", ""])


def _characters(line: str) -> Iterator[tuple[str, Look]]:
    look, start = Look(), 0
    for found in _ESCAPE.finditer(line):
        yield from ((char, look) for char in line[start : found.start()])
        start = found.end()
        if found[2] == "m":
            for code in map(int, filter(str.isdigit, (found[1] or "0").split(";"))):
                look = _changed(look, code)
    yield from ((char, look) for char in line[start:] if char.isprintable())


def _changed(look: Look, code: int) -> Look:
    if code == 0:
        return Look()
    if code == 1:
        return replace(look, bold=True)
    if code == 2:
        return replace(look, colour=_FAINT)
    return replace(look, colour=_COLOURS.get(code, look.colour))


def _line(characters: list[tuple[str, Look]], top: float) -> Iterator[str]:
    """The elements of a line: a word, a run of bars, a rule."""
    place = 0
    while place < len(characters):
        char, look = characters[place]
        end = place
        if char == " ":
            place += 1
            continue
        kind = _kind(char)
        while end < len(characters) and characters[end][1] == look and _kind(characters[end][0]) == kind:
            end += 1
        run = "".join(each for each, _ in characters[place:end])
        x = _EDGE + place * _WIDTH
        if kind == "bar":
            yield _bars(run, x, top, look)
        elif kind == "rule":
            middle = top + _HEIGHT / 2
            yield f'<rect x="{x:g}" y="{middle:g}" width="{len(run) * _WIDTH:g}" height="1" fill="{_RULE}"/>'
        else:
            weight = ' font-weight="bold"' if look.bold else ""
            yield (
                f'<text x="{x:g}" y="{top + _HEIGHT * 0.74:g}" fill="{look.colour}"{weight}'
                f' textLength="{len(run) * _WIDTH:g}" lengthAdjust="spacingAndGlyphs">{escape(run)}</text>'
            )
        place = end


def _kind(char: str) -> str:
    if char == " ":
        return "space"
    if char in _BLOCKS:
        return "bar"
    return "rule" if char == "─" else "word"


def _bars(run: str, x: float, top: float, look: Look) -> str:
    """Bars that stand side by side, as one outline."""
    bottom, most = top + _HEIGHT - 2, _HEIGHT - 3
    outline = [f"M{x:g} {bottom:g}"]
    for number, char in enumerate(run):
        height = bottom - most * _BLOCKS.index(char) / (len(_BLOCKS) - 1)
        outline.append(f"V{height:.1f}H{x + (number + 1) * _WIDTH:g}")
    return f'<path d="{"".join(outline)}V{bottom:g}Z" fill="{look.colour}"/>'
