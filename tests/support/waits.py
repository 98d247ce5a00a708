# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for a state, with a limit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: How many times longer than said, where all is slow: in an emulated machine.
PATIENCE = float(os.environ.get("NM_MPTCP_PATIENCE", "1"))


def wait_for(what: str, question: Callable[[], T], *, seconds: float = 10.0, every: float = 0.01) -> T:
    """Ask until the answer is true, and give it back; AssertionError with ``what`` after ``seconds`` times the patience."""
    end = time.monotonic() + seconds * PATIENCE
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds * PATIENCE:g} s still not: {what} (last answer: {answer!r})")
        time.sleep(every)
