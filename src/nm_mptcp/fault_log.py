# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong is said once, however often it is met, and again when it comes back after it was right."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

from .text import printable

if TYPE_CHECKING:
    from logging import Logger

#: Characters of what is said: others' words are in it.
_LONGEST = 400

#: How many things may be wrong at a time; of more the oldest are forgotten, and said again.
_MOST = 1000


#: In how many ways one thing may be wrong until it is right.
_WAYS = 20


class FaultLog:
    """What was said of each thing that is wrong, until it is right. ``prefix`` stands before all that is said."""

    def __init__(self, log: Logger, prefix: str = "") -> None:
        self._log = log
        self._prefix = prefix
        self._said: dict[tuple[str, object], set[str]] = {}

    def say(self, kind: str, words: str, about: object = None, *, extra: Mapping[str, object] | None = None) -> None:
        """A warning in the log, unless these words were said about this thing of this kind since it was right."""
        words = printable(words, _LONGEST)
        said = self._said.setdefault((kind, about), set())
        if words in said or len(said) == _WAYS:
            return
        said.add(words)
        if len(self._said) > _MOST:
            del self._said[next(iter(self._said))]
        self._log.warning("%s%s", self._prefix, words, extra=extra)

    def right(self, kind: str, about: object = None) -> None:
        """This is as it should be."""
        self._said.pop((kind, about), None)

    def only(self, kind: str, wrong: Set[object]) -> None:
        """Of this kind nothing but these is wrong."""
        for key in [key for key in self._said if key[0] == kind and key[1] not in wrong]:
            del self._said[key]
