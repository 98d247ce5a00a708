# SPDX-License-Identifier: GPL-2.0-or-later
"""A fault is logged once, however often it is met, and again when it returns after it was cleared."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

from .text import printable

if TYPE_CHECKING:
    from logging import Logger

#: Characters of a message: it quotes other programs.
_LONGEST = 400

#: How many subjects may be faulty at a time; beyond that the oldest are forgotten, and logged again.
_MAX_SUBJECTS = 1000

#: How many different messages are logged for one subject until it is cleared.
_MAX_MESSAGES = 20


class FaultLog:
    """The faults that were logged and not cleared since, by kind and subject. ``prefix`` precedes each message."""

    def __init__(self, log: Logger, prefix: str = "") -> None:
        self._log = log
        self._prefix = prefix
        self._logged: dict[tuple[str, object], set[str]] = {}

    def report(
        self, kind: str, message: str, about: object = None, *, extra: Mapping[str, object] | None = None
    ) -> None:
        """Log a warning, unless the same message was logged for this kind and subject since it was cleared."""
        message = printable(message, _LONGEST)
        logged = self._logged.setdefault((kind, about), set())
        if message in logged or len(logged) == _MAX_MESSAGES:
            return
        logged.add(message)
        if len(self._logged) > _MAX_SUBJECTS:
            del self._logged[next(iter(self._logged))]
        self._log.warning("%s%s", self._prefix, message, extra=extra)

    def clear(self, kind: str, about: object = None) -> None:
        """The fault is gone: its next report is logged again."""
        self._logged.pop((kind, about), None)

    def clear_except(self, kind: str, faulty: Set[object]) -> None:
        """All faults of this kind are gone, except those of the subjects in ``faulty``."""
        for key in [key for key in self._logged if key[0] == kind and key[1] not in faulty]:
            del self._logged[key]
