# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for people: sanitized text of other programs, lists, and lines that fit a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TextIO

#: Cells. A narrower terminal is treated as one of this width.
NARROWEST = 20

#: Cells that an indent must leave of a line; where it leaves fewer, it gets a line of its own, with the words below it.
_ROOM = 30
_BELOW = "    "


def printable(text: str, longest: int | None = 64) -> str:
    """Another program's text without what could disturb a terminal (control characters, direction marks).

    At most ``longest`` characters of it, all with None.
    """
    return "".join(char if char.isprintable() else "?" for char in text[:longest])


def utf8_safe(text: str) -> str:
    """Another program's text as valid Unicode: bytes that are not UTF-8 (an interface's name may be any bytes) become "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def width_of(stream: TextIO) -> int | None:
    """The width of a terminal in cells; None if the stream is no terminal or has no known width: nothing is wrapped then."""
    if not stream.isatty():
        return None
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return None
    return max(columns, NARROWEST) if columns else None


def has_unicode(stream: TextIO) -> bool:
    """Whether the stream's encoding is UTF-8."""
    return (stream.encoding or "").lower().replace("-", "") in ("utf8", "utf8sig")


def cells(text: str) -> int:
    """How many cells of a terminal a text occupies."""
    return len(text) if text.isascii() else sum(map(_cell, text))


def _cell(char: str) -> int:
    if char.isascii():
        return 1
    import unicodedata  # most texts are ASCII and do not need it

    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def fit(text: str, width: int, more: str = "…") -> str:
    """The text in exactly ``width`` cells: padded with spaces, or cut and marked with ``more``."""
    size = cells(text)
    if size <= width:
        return text + " " * (width - size)
    kept, used = "", 0
    for char in text:
        size = _cell(char)
        if used + size > width - 1:
            break
        kept, used = kept + char, used + size
    return kept + more + " " * (width - 1 - used) if width > 0 else ""


def wrapped(words: str, first: str, others: str, width: int | None, *, broken: bool = False) -> list[str]:
    """Lines of at most ``width`` cells: ``first`` is the indent of the first, ``others`` of the rest. One line if None.

    ``broken``: a word that is longer than a line is broken; otherwise it stays whole, so that it can be copied.
    """
    if not words:
        return []
    if width is None:
        return [first + words]
    lines = []
    if len(others) > 3 * len(_BELOW) and width - len(others) < _ROOM:
        lines = [first.rstrip()] if first.strip() else []
        first, others = _BELOW, _BELOW + "  "
    line, begun = first, False
    for word in words.split(" "):
        if begun and cells(line) + 1 + cells(word) <= width:
            line += " " + word
            continue
        if begun:
            lines.append(line.rstrip())
            line = others
        begun = bool(word)
        for char in word if broken and cells(line) + cells(word) > width else (word,):
            if broken and cells(line) + cells(char) > width:
                lines.append(line)
                line = others
            line += char
    return [*lines, line.rstrip()] if begun else lines


def listed(words: Iterable[str], last: str = "and") -> str:
    """Words as a list in a sentence: ``a, b and c``. Raises :class:`IndexError` if there are none."""
    known = [str(word) for word in words]
    return f" {last} ".join([", ".join(known[:-1]), known[-1]]) if len(known) > 1 else known[0]


def counted(number: int, one: str, more: str = "") -> str:
    """A number with its noun: ``1 subflow``, ``2 subflows``."""
    return f"{number} {one if number == 1 else more or one + 's'}"
