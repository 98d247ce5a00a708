# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process writes: every netlink request that changes something, and every sysctl, in order.

strace sees each send on a netlink socket before the kernel does, whatever library made it, also what the kernel then refuses
or finds unchanged. A notification monitor would miss both of these, and every change of endpoints and limits: the kernel
tells nobody of them.
"""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from ..support.waits import wait_for
from .namespaces import Program

if TYPE_CHECKING:
    from .bed import Bed

PATH_MANAGER_COMMANDS = {
    1: "add endpoint",
    2: "delete endpoint",
    4: "flush endpoints",
    5: "set limits",
    7: "set flags",
    8: "announce",
    9: "remove",
    10: "create subflow",
    11: "destroy subflow",
}
PATH_MANAGER_READS = {3, 6}

STRACE = ["strace", "-f", "-yy", "-s", "256", "-e", "trace=sendto,sendmsg,sendmmsg,write,writev,openat,open,creat"]


def writes_in(trace: str) -> list[str]:
    """The writes in a trace: ``RTM_NEWRULE``, ``add endpoint``, ``sysctl /proc/sys/...``."""
    found: list[str] = []
    for line in trace.splitlines():
        if re.search(r"\bopen(at)?\(|\bcreat\(", line):
            name = re.search(r'"(/proc/sys/[^"]*)"', line)
            if name and re.search(r"O_WRONLY|O_RDWR|creat\(", line):
                found.append(f"sysctl {name[1]}")
        elif "NETLINK:[ROUTE" in line:
            # A send may hold several messages.
            found += [kind for kind in re.findall(r"nlmsg_type=(RTM_\w+)", line) if not kind.startswith("RTM_GET")]
        elif "NETLINK:[GENERIC" in line:
            # Newer ones know the head of what follows: {cmd=0x1, version=1}.
            for kind, command in re.findall(r'nlmsg_type=([\w?]+)[^"]*?(?:"\\x|\bcmd=0x)([0-9a-f]{1,2})', line):
                number = int(command, 16)
                if kind != "nlctrl" and number not in PATH_MANAGER_READS:
                    found.append(PATH_MANAGER_COMMANDS.get(number, f"mptcp_pm command {number}"))
        elif "NETLINK:[SOCK_DIAG" in line and "SOCK_DESTROY" in line:
            found.append("destroy socket")
    return found


class Writes:
    """The writes of a running program from now on. A context manager; the list is complete when it is left."""

    def __init__(self, bed: Bed, program: Program) -> None:
        self._bed = bed
        self._program = program
        self._trace = bed.directory / f"strace-{program.pid}-{len(list(bed.directory.glob('strace-*')))}"
        self.all: list[str] = []

    def __enter__(self) -> Writes:
        pid = str(self._program.inner_pid)
        self._strace = self._bed.machine.spawn(*STRACE, "-o", str(self._trace), "-p", pid, log=self._trace.name)
        threads = len(list(Path(f"/proc/{self._program.pid}/task").iterdir()))
        wait_for("strace is attached", lambda: self._strace.output().count("attached") >= min(threads, 1), every=0.005)
        return self

    def so_far(self) -> list[str]:
        """Those that the trace shows already."""
        return writes_in(self._trace.read_text(errors="replace"))

    def __exit__(self, *_: object) -> None:
        self._strace.stop(signal.SIGINT)
        self.all = self.so_far()


def writes_of(bed: Bed, *command: str) -> list[str]:
    """All writes of a command, run to its end; it has to succeed."""
    trace = bed.directory / f"strace-command-{len(list(bed.directory.glob('strace-*')))}"
    done = bed.machine.attempt(*STRACE, "-o", str(trace), *command, seconds=60)
    assert done.returncode == 0, f"{shlex.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return writes_in(trace.read_text(errors="replace"))
