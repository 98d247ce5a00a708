# SPDX-License-Identifier: GPL-2.0-or-later
"""Network namespaces and the programs in them.

pytest itself stays where it is: a program is started with ``nsenter``, a socket is made by a thread that steps into the
namespace for that moment only (a socket belongs for ever to the namespace that it was made in).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..support.waits import wait_for

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """In a new process: be killed when the one that started it is gone, however it went."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def network_of(pid: int) -> Iterator[None]:
    """This thread is in the network namespace of process ``pid``; sockets made here stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie: whose orphans nobody reaps (a container's first process) has these for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started and that still live, as this namespace numbers them."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path("/proc", entry, "stat").read_text()
                if int(stat.rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry))
    return found


class Program:
    """A program that runs in the bed: ``pid`` is its own, as pytest's namespace numbers it, not that of nsenter."""

    def __init__(self, command: Sequence[str], *, entering: Sequence[str], log: Path) -> None:
        self.command = list(command)
        self.log = log
        with log.open("ab") as sink:
            self._popen = subprocess.Popen(
                [*entering, *command], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, preexec_fn=die_with_parent
            )
        self.pid = wait_for(f"{self.command[0]} runs", self._started)[0]

    def _started(self) -> list[int]:
        found = children(self._popen.pid)
        if not found and self._popen.poll() is not None:
            raise AssertionError(f"{' '.join(self.command)} ended at once ({self._popen.returncode}):\n{self.output()}")
        return found

    @property
    def inner_pid(self) -> int:
        """Its number in its own PID namespace."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
        raise AssertionError("no NSpid in /proc/PID/status")

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    def output(self) -> str:
        """All that it has written."""
        return self.log.read_text(errors="replace")

    def lines(self) -> list[str]:
        """The whole lines that it has written: a long one reaches the file in several pieces."""
        return self.output().split("\n")[:-1]

    def send(self, number: int) -> None:
        """Send a signal to the program itself."""
        os.kill(self.pid, number)

    def go_on(self) -> None:
        """Let it go on after SIGSTOP; nsenter stops with it."""
        for pid in (self._popen.pid, self.pid):
            os.kill(pid, signal.SIGCONT)

    def wait(self, seconds: float = 10.0) -> int:
        """Wait for its end; its exit status, negative for a signal."""
        return self._popen.wait(seconds)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 10.0) -> int:
        """Signal it and wait for its end."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.send(number)
        return self.wait(seconds)
