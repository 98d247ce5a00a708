# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines with looks, and terminals that can show them. Nothing is told by looks alone."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TextIO


class Style(enum.Enum):
    """How a piece of a line looks; the value is what ``ESC [ ... m`` wants (ECMA-48)."""

    PLAIN = ""
    BOLD = "1"
    DIM = "2"
    GOOD = "32"
    WARNING = "33"
    BAD = "31"
    GRAPH = "36"


_COLOURS = (Style.GOOD, Style.WARNING, Style.BAD, Style.GRAPH)


class Span(NamedTuple):
    """A piece of a line."""

    text: str
    style: Style = Style.PLAIN


Line = tuple[Span, ...]


def text_of(line: Line) -> str:
    """A line without its looks."""
    return "".join(span.text for span in line).rstrip()


def takes_escapes(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether it is a terminal that can do more than append lines."""
    return stream.isatty() and environment.get("TERM", "dumb") not in ("dumb", "unknown", "")


def wants_colour(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether its user has nothing against colour (https://no-color.org)."""
    return not environment.get("NO_COLOR")


def render(line: Line, *, colour: bool = True) -> str:
    """A line with what makes it bold, dim and coloured."""
    parts = []
    for span in line:
        plain = span.style is Style.PLAIN or (not colour and span.style in _COLOURS)
        parts.append(span.text if plain or not span.text else f"\x1b[{span.style.value}m{span.text}\x1b[0m")
    return "".join(parts)


def rendered(lines: Iterable[Line], stream: TextIO) -> str:
    """Lines as ``stream`` can show them, each with its end."""
    if not takes_escapes(stream):
        return "".join(f"{text_of(line)}\n" for line in lines)
    colour = wants_colour()
    return "".join(f"{render(line, colour=colour)}\n" for line in lines)
