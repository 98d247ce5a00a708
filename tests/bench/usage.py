# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process has used so far, by the kernel's own counts."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Sums of all threads, of which differences are taken, and the memory at that moment."""

    when: float  #: monotonic clock (s)
    processor: float  #: seconds that it ran
    woken: int  #: how often it was woken
    memory: float  #: resident (MiB)

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Read it now."""
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        ran = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
        lines = [line.split() for task in tasks for line in (task / "status").read_text().splitlines()]
        woken = sum(int(line[1]) for line in lines if line[0] == "voluntary_ctxt_switches:")
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return cls(time.monotonic(), ran, woken, pages * os.sysconf("SC_PAGESIZE") / 2**20)

    def share(self, before: Usage) -> float:
        """The share of a processor since ``before``."""
        return (self.processor - before.processor) / (self.when - before.when)
