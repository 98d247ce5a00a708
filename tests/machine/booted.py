# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine with systemd, as the stories of the package see a system (a container is another)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ..packages.system import ENVIRONMENT, System
from .machine import Machine

#: How many times longer than on a real machine something may take: it is emulated, by a machine that has other things to do.
SLOWNESS = 10


class Booted(System):
    """A booted machine that is asked as a container is."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.distribution = machine.image.distribution

    def patience(self, seconds: float) -> float:
        return seconds * SLOWNESS

    def run_quietly(self, script: str, *, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        inside = ("env", "-i", *(f"{name}={value}" for name, value in ENVIRONMENT.items()))
        done = self.machine.run(*inside, "sh", "-ec", script, seconds=self.patience(seconds))
        if done.status is None:
            raise subprocess.TimeoutExpired(script, self.patience(seconds), done.output)
        return subprocess.CompletedProcess(script, done.status, done.output)

    def put(self, file: Path, place: str) -> None:
        self.machine.run("sh", "-ec", f"cat >{place}", given=file.read_bytes()).checked()
