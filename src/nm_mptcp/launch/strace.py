# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program asks of its sockets, as strace(1) sees it.

strace writes a file for each process and thread (``-ff``), so that no line is split by another's; numbers are in it beside
their names (``-X verbose``). It is not the program's parent (``-DD``): process id, signals and exit status are the program's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

#: The calls of interest; those with "?" need not be known to this strace.
_CALLS = "trace=socket,setsockopt,getsockopt,?io_uring_setup,?landlock_restrict_self"

_COMMENT = re.compile(r" /\*.*?\*/")
_SOCKET = re.compile(r"socket\((?P<family>\w+), (?P<type>[\w|]+), (?P<protocol>\w+)\) += (?P<result>-?\d+)(?P<rest>.*)")
_OPTION = re.compile(
    r"(?P<call>[gs]etsockopt)\(\d+<socket:\[(?P<inode>\d+)\]>"
    r", (?P<level>\w+)(?: /\* (?P<level_name>[^*]+) \*/)?, (?P<number>\w+)(?: /\* (?P<name>[^*]+) \*/)?"
    r".*\) += -1 (?P<error>E\w+)"
)
_INODE = re.compile(r"<socket:\[(\d+)\]>")
_MASK = 15  #: of a socket's type, beside SOCK_CLOEXEC and SOCK_NONBLOCK (linux/net.h: SOCK_TYPE_MASK)


@dataclass(frozen=True, slots=True)
class FailedOption:
    """A setsockopt(2) or getsockopt(2) that failed."""

    call: str
    level: int
    number: int
    name: str  #: as strace has it: "SOL_TCP, TCP_ULP"
    error: str  #: as "ENOPROTOOPT"


@dataclass(slots=True)
class Calls:
    """How often what was asked of TCP's sockets: of those of the Internet protocols that are streams."""

    made: Counter[int] = field(default_factory=Counter)  #: by the protocol that was asked for (0, 6, 262)
    not_made: Counter[str] = field(default_factory=Counter)  #: by the error
    failed: Counter[FailedOption] = field(default_factory=Counter)
    io_uring: bool = False  #: a ring was made
    landlock: bool = False  #: a process restricted itself


def parse(lines: Iterable[str]) -> Calls:
    """The calls in strace's lines, of all files together. What is not understood is left out."""
    calls = Calls()
    others: set[str] = set()
    failed: list[tuple[str, FailedOption]] = []
    for line in lines:
        if made := _SOCKET.match(_COMMENT.sub("", line)):
            if not _is_tcp(made):
                others.update(_INODE.findall(made["rest"]))
            elif made["result"] == "-1":
                calls.not_made[made["rest"].split()[0]] += 1
            else:
                calls.made[int(made["protocol"], 0)] += 1
        elif option := _OPTION.match(line):
            level, number = int(option["level"], 0), int(option["number"], 0)
            name = f"{option['level_name'] or level}, {option['name'] or number}"
            failed.append((option["inode"], FailedOption(option["call"], level, number, name, option["error"])))
        elif not line.rstrip().endswith(")") or " = -1 " not in line:
            calls.io_uring |= line.startswith("io_uring_setup(")
            calls.landlock |= line.startswith("landlock_restrict_self(")
    calls.failed.update(option for inode, option in failed if inode not in others)
    return calls


def _is_tcp(made: re.Match[str]) -> bool:
    kind = 0
    for word in made["type"].split("|"):
        kind |= int(word, 0)
    return (
        int(made["family"], 0) in (socket.AF_INET, socket.AF_INET6)
        and kind & _MASK == socket.SOCK_STREAM
        and int(made["protocol"], 0) in (0, socket.IPPROTO_TCP, socket.IPPROTO_MPTCP)
    )


def _lines(file: Path) -> list[str]:
    """What is in it, if it is a file: the folder belongs to the user who runs strace, perhaps not to this one."""
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), errors="replace") as opened:
            return opened.read().splitlines() if stat.S_ISREG(os.fstat(opened.fileno()).st_mode) else []
    except OSError:
        return []


class Tracer:
    """One run of strace, which begins when a process executes :attr:`command`."""

    def __init__(self) -> None:
        """Raises FileNotFoundError when strace is not installed."""
        if (program := shutil.which("strace")) is None:
            raise FileNotFoundError("strace")
        self._folder = tempfile.mkdtemp(prefix="nm-mptcp-check-")
        # -I2: a signal lets it go of what it traces.
        how = ("-DD", "-I2", "-ff", "-qq", "-y", "-X", "verbose", "-e", "signal=none", "-e", _CALLS)
        self.command = (program, *how, "-o", f"{self._folder}/calls", "--")

    def give_to(self, uid: int, gid: int) -> None:
        """Let strace run as this user."""
        os.chown(self._folder, uid, gid)

    def end(self) -> Calls | None:
        """Let go of the processes that are left; the calls so far, None when nothing was traced."""
        files = sorted(Path(self._folder).glob("calls.*"))
        for file in files:
            if (tracer := self._tracer(file.suffix[1:])) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(tracer, signal.SIGTERM)
                break
        calls = parse(line for file in files for line in _lines(file)) if files else None
        # A process that is just let go of may make one more file.
        shutil.rmtree(self._folder, ignore_errors=True)
        return calls

    def _tracer(self, pid: str) -> int | None:
        """The process id of our strace, if it traces this one."""
        try:
            status = Path("/proc", pid, "status").read_text()
            tracer = int(re.findall(r"^TracerPid:\s+(\d+)", status, re.MULTILINE)[0])
            ours = os.fsencode(self._folder) in Path("/proc", str(tracer), "cmdline").read_bytes()
        except (OSError, IndexError):
            return None
        return tracer if ours else None
