# SPDX-License-Identifier: GPL-2.0-or-later
"""When a process was woken, when it asked the kernel for something, and when that was done, as the kernel's own tracing has it.

A request by netlink is carried out within the ``sendto`` that sends it, so this tells when a delete was sent and when it was
acknowledged - better than anybody who asks the kernel what is left, since he waits for the same lock as the next delete. And
that it was woken tells when there was an event - better than anybody who listens beside it, and gets the processor later.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass

#: An instance of its own, which nobody else's tracing knows of; it goes when its maker does, whatever ends him.
_SCRIPT = """\
mount -t tracefs none "$1" && cd "$1" && mkdir "instances/$2" || exit 1
trap 'cd "$1" && rmdir "instances/$2"' EXIT
cd "instances/$2"
echo mono >trace_clock && echo "$3" >set_event_pid &&
echo 1 >events/syscalls/sys_enter_sendto/enable && echo 1 >events/syscalls/sys_exit_sendto/enable &&
echo "pid == ${3%% *}" >events/sched/sched_waking/filter && echo 1 >events/sched/sched_waking/enable || exit 1
echo ready
read -r _
echo 0 >tracing_on
cat trace
"""

_LINE = re.compile(r"-(\d+)\s+\[\d+\]\s+\S+\s+(\d+\.\d+): sys_sendto(?:\(.* len: (\w+)| -> )")
_WAKING = re.compile(r"\s(\d+\.\d+): sched_waking: ")


@dataclass(frozen=True, slots=True)
class Call:
    """One call: when it began and when it was done, in seconds of the monotonic clock, and the bytes that were sent."""

    begin: float
    end: float
    size: int


class Calls:
    """The ``sendto`` calls of all threads that a process has now; none where the kernel does not trace."""

    def __init__(self, pid: int) -> None:
        self.woken: list[float] = []  #: after the end: when its main thread was woken
        others = set(os.listdir(f"/proc/{pid}/task")) - {str(pid)}
        threads = " ".join((str(pid), *sorted(others)))
        self._place = tempfile.TemporaryDirectory(prefix="nm-mptcp-tracing-")
        name = f"nm-mptcp-bench-{os.getpid()}"
        self._script = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _SCRIPT, "calls", self._place.name, name, threads],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._script.stdout
        self._script.stdout.readline()  # it traces by now, or has ended

    def end(self) -> list[Call]:
        """Trace no more; all calls so far, in the order in which they began."""
        text, _ = self._script.communicate("\n", timeout=10)
        self._place.cleanup()
        self.woken = [float(when) for when in _WAKING.findall(text)]
        began: dict[str, tuple[float, int]] = {}
        calls = []
        for thread, when, size in _LINE.findall(text):
            if size:
                began[thread] = float(when), int(size, 16)
            elif thread in began:
                begin, sent = began.pop(thread)
                calls.append(Call(begin, float(when), sent))
        return sorted(calls, key=lambda call: call.begin)
