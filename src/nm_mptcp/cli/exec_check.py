# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp exec --check -- CMD``: what a program lost by MPTCP, told when it has ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from ..launch.plan import Method
from ..launch.refusals import refused_by_mptcp, sentences
from ..launch.strace import Tracer
from ..text import printable
from . import fail

#: As of other programs that start one: it was not started, for a reason that is not the program's.
REFUSED = 125

#: What is passed on to the program.
_PASSED_ON = frozenset(
    (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT)
)

#: Who sent a signal: a process. (A terminal, that is the kernel, sends it to the program as well.)
_SI_USER = 0

#: Of :mod:`.exec`, before it executes anything: it said why.
_NOT_EXECUTED = (REFUSED, 126, 127)


def supervised(strace: str, method: Method, run: Callable[[Tracer], int]) -> int:
    """``run`` in a child process, which executes the tracer's command; report on standard error what MPTCP refused it.

    Returns the exit status, as a shell has it. This process does not enter the control group that the child does.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    try:
        tracer = Tracer(strace)
    except OSError as error:
        return fail(f"not run: --check has no place for files: {error.strerror}", REFUSED)
    # Where it is ignored, the kernel tells nobody that a child has ended.
    ignored = signal.signal(signal.SIGCHLD, signal.SIG_DFL) is signal.SIG_IGN
    try:
        child = os.fork()
    except OSError as error:
        tracer.close()
        return fail(f"not run: {error.strerror}", REFUSED)
    if not child:
        if ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return run(tracer)
    try:
        return _report(tracer, method, _ended(child))
    finally:
        tracer.close()


def _ended(child: int) -> int:
    """Wait for it, and pass signals on meanwhile; its exit status, 128 more than the signal's number if one ended it."""
    while True:
        told = signal.sigwaitinfo({*_PASSED_ON, signal.SIGCHLD})
        if told.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif told.si_code == _SI_USER:
            os.kill(child, told.si_signo)  # it is there until it is waited for


def _report(tracer: Tracer, method: Method, status: int) -> int:
    try:
        calls = tracer.calls()
    except OSError as error:
        fail(printable(f"check: what strace wrote cannot be read: {error.strerror}", longest=None))
        return status
    if calls is None and status in _NOT_EXECUTED:
        return status
    if calls is None or not calls.executed:
        fail("check: strace could not run or trace it, so nothing is known")
        return 126 if status == 1 else status  # strace's own
    for text in sentences(calls, method, refused_by_mptcp):
        fail(printable(f"check: {text}", longest=None))
    return status
