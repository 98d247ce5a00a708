# SPDX-License-Identifier: GPL-2.0-or-later
"""Words for people: what others wrote, made harmless, and lists."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable
from typing import TextIO

#: A terminal that is narrower is treated as one of that width.
_NARROWEST = 60


def printable(text: str, longest: int = 64) -> str:
    """Somebody's text without what could disturb a terminal (control characters, direction marks), cut where it is long."""
    return "".join(char if char.isprintable() else "?" for char in text[:longest])


def whole(text: str) -> str:
    """Somebody's text as Unicode that every reader takes: what was no UTF-8 (an interface's name may be any bytes) is "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def width_of(stream: TextIO) -> int | None:
    """How wide a terminal is; None for what is none, where nothing has to be wrapped."""
    if not stream.isatty():
        return None
    try:
        return max(os.get_terminal_size(stream.fileno()).columns, _NARROWEST)
    except (OSError, ValueError):
        return None


def wrapped(words: str, first: str, others: str, width: int | None) -> list[str]:
    """Lines of at most ``width`` columns, each after its indent; no word is broken, and without a width it is one line."""
    if not words:
        return []
    if width is None:
        return [first + words]
    return textwrap.wrap(
        words, width, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )


def listed(words: Iterable[str], last: str = "and") -> str:
    """Words as a person lists them."""
    known = [str(word) for word in words]
    return f" {last} ".join([", ".join(known[:-1]), known[-1]]) if len(known) > 1 else known[0]


def counted(number: int, one: str, more: str = "") -> str:
    """A number with its noun: ``1 subflow``, ``2 subflows``."""
    return f"{number} {one if number == 1 else more or one + 's'}"
