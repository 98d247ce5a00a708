# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian system with systemd and NetworkManager that our package is installed on, wherever it runs."""

from __future__ import annotations

import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

#: What a shell there has of this one's environment: nothing.
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}

#: What a person would ask first where something went wrong.
STORY = """
for command in "nmcli device" "ip address" "ip rule" "ip mptcp endpoint" "nm-mptcp status"; do
    echo "$ $command"
    $command || true
done
journalctl -b -o short-precise --no-pager -n 120
"""


class System(ABC):
    """What the stories ask of it. ``seconds`` are those of a real machine."""

    #: Debian's code name.
    distribution: str

    @abstractmethod
    def run_quietly(self, script: str, *, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell script; what it printed on both channels, and its exit status."""

    @abstractmethod
    def put(self, file: Path, place: str) -> None:
        """Copy a file there."""

    def patience(self, seconds: float) -> float:
        """How long that may take here which takes so long on a real machine."""
        return seconds

    def story(self) -> dict[str, str]:
        """What it and its log say, for a failed test's report."""
        return {"state of the system": self.run(STORY, check=False)}

    def run(self, script: str, *, seconds: float = 60, check: bool = True) -> str:
        """What a shell script prints, on both channels; AssertionError when it fails."""
        done = self.run_quietly(script, seconds=seconds)
        assert not check or done.returncode == 0, f"{script}\nexit status {done.returncode}\n{done.stdout}"
        return done.stdout

    def wait(self, script: str, *, seconds: float = 15) -> None:
        """Until a shell script succeeds; AssertionError with what it printed when it does not."""
        deadline = time.monotonic() + self.patience(seconds)
        while (done := self.run_quietly(script)).returncode:
            assert time.monotonic() < deadline, f"not within {self.patience(seconds):g} s: {script}\n{done.stdout}"
            time.sleep(0.05)
