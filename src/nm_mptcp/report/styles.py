# SPDX-License-Identifier: GPL-2.0-or-later
"""Styled lines, and what terminals can show of them. No information is in a style alone."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TextIO


class Style(enum.Enum):
    """The style of a span; the value is the parameter of ``ESC [ ... m`` (SGR, ECMA-48)."""

    PLAIN = ""
    BOLD = "1"
    DIM = "2"
    GOOD = "32"
    WARNING = "33"
    BAD = "31"


_COLOURS = (Style.GOOD, Style.WARNING, Style.BAD)


class Span(NamedTuple):
    """A piece of a line, and its style."""

    text: str
    style: Style = Style.PLAIN


Line = tuple[Span, ...]


def text_of(line: Line) -> str:
    """A line without styles."""
    return "".join(span.text for span in line).rstrip()


def takes_escapes(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the stream is a terminal that interprets escape sequences."""
    return stream.isatty() and environment.get("TERM", "dumb") not in ("dumb", "unknown", "")


def wants_colour(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether ``NO_COLOR`` is unset (https://no-color.org)."""
    return not environment.get("NO_COLOR")


def render(line: Line, *, colour: bool = True) -> str:
    """A line with escape sequences for its styles."""
    parts = []
    for span in line:
        plain = span.style is Style.PLAIN or (not colour and span.style in _COLOURS)
        parts.append(span.text if plain or not span.text else f"\x1b[{span.style.value}m{span.text}\x1b[0m")
    return "".join(parts)


def rendered(lines: Iterable[Line], stream: TextIO) -> str:
    """Lines as ``stream`` can show them, each with a newline."""
    if not takes_escapes(stream):
        return "".join(f"{text_of(line)}\n" for line in lines)
    colour = wants_colour()
    return "".join(f"{render(line, colour=colour)}\n" for line in lines)
