# SPDX-License-Identifier: GPL-2.0-or-later
"""Which test brings about the bad state of which check, for real: ``tests/unit/test_bad_states.py`` holds the list whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Test = TypeVar("_Test", bound=Callable[..., Any])

#: Check -> the tests that bring about its bad state, see it found, and see it cleared by what the finding says.
TESTS: dict[Callable[..., Any], list[str]] = {}


def bad_state_of(*checks: Callable[..., Any]) -> Callable[[_Test], _Test]:
    """Mark such a test."""

    def mark(test: _Test) -> _Test:
        for check in checks:
            TESTS.setdefault(check, []).append(f"{test.__module__}.{test.__name__}")
        return test

    return mark
