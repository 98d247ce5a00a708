# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp exec --check -- CMD``: what a program lost by MPTCP, told when it has ended."""

from __future__ import annotations

import os
import signal
from types import FrameType

from ..launch.plan import Method
from ..launch.refusals import refused_by_mptcp, sentences
from ..launch.strace import Tracer
from ..text import printable
from . import fail


def report(child: int, tracer: Tracer, method: Method) -> int:
    """Wait for the program, and print on standard error what was refused; returns its exit status, as a shell has it."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    # A terminal sends these two to the program as well.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda _number, _frame: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    calls = tracer.end()
    if calls is not None:
        for text in sentences(calls, method, refused_by_mptcp):
            fail(printable(f"check: {text}", longest=None))
    return status if status >= 0 else 128 - status
