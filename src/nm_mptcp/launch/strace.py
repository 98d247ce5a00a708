# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program asks of its sockets, as strace(1) sees it.

strace writes a file for each process and thread (``-ff``), so that no line is split by another's; numbers are in it beside
their names (``-X verbose``). It is not the program's parent (``-DD``): process id, signals and exit status are the program's.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: The calls of interest; those with "?" need not be known to this strace, or to the architecture.
_CALLS = (
    "trace=execve,socket,socketpair,connect,listen,?accept,accept4,setsockopt,getsockopt,"
    "?io_uring_setup,?landlock_restrict_self"
)

#: Seconds that strace has to end when it is killed.
_PATIENCE = 5

_COMMENT = re.compile(r" /\*.*?\*/")
_INODE = re.compile(r"<socket:\[(\d+)\]>")
_SOCKET = re.compile(r"socket\((?P<family>\w+), (?P<type>[\w|]+), (?P<protocol>.+?)\) += (?P<result>-?\d+)(?P<rest>.*)")
# strace of a user sees no inode of a process that is not dumpable.
_OPTION = re.compile(
    r"(?P<call>[gs]etsockopt)\(\d+(?:<socket:\[(?P<inode>\d+)\]>)?"
    r", (?P<level>\w+)(?: /\* (?P<level_name>[^*]+) \*/)?, (?P<number>\w+)(?: /\* (?P<name>[^*]+) \*/)?"
    r".*\) += -1 (?P<error>E\w+)"
)
_MASK = 15  #: of a socket's type, beside SOCK_CLOEXEC and SOCK_NONBLOCK (linux/net.h: SOCK_TYPE_MASK)


@dataclass(frozen=True, slots=True)
class FailedOption:
    """A setsockopt(2) or getsockopt(2) that failed."""

    call: str
    level: int
    number: int
    name: str  #: as strace has it: "SOL_TCP, TCP_ULP"; what it has no name for as a number
    error: str  #: as "ENOPROTOOPT"


@dataclass(slots=True)
class Calls:
    """How often what was asked of TCP's sockets: of those of the Internet protocols that are streams."""

    used: Counter[int] = field(default_factory=Counter)  #: connected or listening, by the protocol asked for
    not_made: Counter[tuple[int, str]] = field(default_factory=Counter)  #: by the protocol and the error
    failed: Counter[FailedOption] = field(default_factory=Counter)  #: also on sockets of unknown origin
    executed: bool = False  #: a program was
    io_uring: bool = False  #: a ring was made
    landlock: bool = False  #: a process restricted itself


class _Reader:
    """Lines of strace's, and what is only known when all are read: which sockets are TCP's."""

    def __init__(self) -> None:
        self.calls = Calls()
        self.made: list[tuple[str | None, int]] = []  #: inode, if it is known, and protocol
        self.used: set[str] = set()
        self.others: set[str] = set()
        self.accepted: list[tuple[str, str]] = []  #: by which socket, and which
        self.failed: list[tuple[str | None, FailedOption]] = []

    def read(self, line: str) -> None:
        """One more. Raises ValueError when a number is none."""
        name, _, rest = line.partition("(")
        worked = not re.search(r"\) += -1 E\w+", rest)
        inodes = _INODE.findall(rest)
        if name == "socket":
            self._socket(line)
        elif name == "socketpair":
            self.others.update(inodes)
        elif name in ("connect", "listen"):
            self.used.update(inodes)
        elif name in ("accept", "accept4") and len(inodes) > 1:
            self.accepted.append((inodes[0], inodes[-1]))
        elif name in ("getsockopt", "setsockopt"):
            self._option(line)
        elif worked and rest:
            self.calls.executed |= name == "execve"
            self.calls.io_uring |= name == "io_uring_setup"
            self.calls.landlock |= name == "landlock_restrict_self"

    def _socket(self, line: str) -> None:
        made = _SOCKET.match(_COMMENT.sub("", line))
        if made is None:
            return
        inode = next(iter(_INODE.findall(made["rest"])), None)
        if not _is_tcp(made):
            self.others.update([inode] if inode else [])
        elif made["result"] == "-1":
            self.calls.not_made[int(made["protocol"], 0), made["rest"].strip().partition(" ")[0]] += 1
        else:
            self.made.append((inode, int(made["protocol"], 0)))

    def _option(self, line: str) -> None:
        if (option := _OPTION.match(line)) is None:
            return
        level, number = int(option["level"], 0), int(option["number"], 0)
        names = (option["level_name"] or str(level), option["name"] or str(number))
        name = ", ".join(str(number) if "???" in each else each for each in names)
        self.failed.append((option["inode"], FailedOption(option["call"], level, number, name, option["error"])))

    def done(self) -> Calls:
        """All together."""
        for listener, accepted in self.accepted:
            if listener in self.others:
                self.others.add(accepted)
        self.calls.used.update(protocol for inode, protocol in self.made if inode is None or inode in self.used)
        self.calls.failed.update(option for inode, option in self.failed if inode not in self.others)
        return self.calls


def parse(lines: Iterable[str]) -> Calls:
    """The calls in strace's lines, of all files together. What is not understood is left out."""
    reader = _Reader()
    for line in lines:
        with contextlib.suppress(ValueError):
            reader.read(line)
    return reader.done()


def _is_tcp(made: re.Match[str]) -> bool:
    if int(made["family"], 0) not in (socket.AF_INET, socket.AF_INET6):
        return False
    kind = 0
    for word in made["type"].split("|"):
        kind |= int(word, 0)
    protocols = (0, socket.IPPROTO_TCP, socket.IPPROTO_MPTCP)
    return kind & _MASK == socket.SOCK_STREAM and int(made["protocol"], 0) in protocols


class Tracer:
    """One run of strace: of what a process does that executes :meth:`command`. Its folder is gone after :meth:`close`."""

    def __init__(self, program: str) -> None:
        """``program``: where strace is. Raises OSError when there is no place for its files."""
        self._program = program
        self._folder = tempfile.mkdtemp(prefix="nm-mptcp-check-")

    def command(self, words: Iterable[str], variables: Mapping[str, str], user: str | None) -> list[str]:
        """Run these words with these variables, as this user, if any: what is written is the caller's all the same."""
        how = ["-DD", "-ff", "-qq", "-y", "-X", "verbose", "-e", "signal=none", "-e", _CALLS]
        for name, value in variables.items():  # not for strace itself
            how += ["-E", f"{name}={value}"]
        if user is not None:
            how += ["-u", user]
        return [self._program, *how, "-o", f"{self._folder}/calls", "--", *words]

    def calls(self) -> Calls | None:
        """Those so far, None when nothing was traced. What the program left behind is traced no longer. Raises OSError."""
        files = sorted(Path(self._folder).glob("calls.*"))
        for file in files:
            if (tracer := self._tracer(file.suffix[1:])) is not None:
                self._end(tracer)
                break
        if not files:
            return None
        with contextlib.ExitStack() as opened:
            return parse(line for file in files for line in opened.enter_context(file.open(errors="replace")))

    def close(self) -> None:
        """Remove its files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _tracer(self, pid: str) -> int | None:
        """The process id of our strace, if it traces this one."""
        try:
            status = Path("/proc", pid, "status").read_bytes()
            tracer = int(re.findall(rb"^TracerPid:\s+(\d+)", status, re.MULTILINE)[0])
            ours = os.fsencode(self._folder) in Path("/proc", str(tracer), "cmdline").read_bytes()
        except (OSError, IndexError):
            return None
        return tracer if ours else None

    @staticmethod
    def _end(tracer: int) -> None:
        """Killed, so that the kernel lets go of all at once: by itself strace would wait for each to stop, and one that waits
        for its child, which is stopped (vfork(2)), never does.
        """
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(tracer)
            try:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                select.select([process], [], [], _PATIENCE)
            finally:
                os.close(process)
