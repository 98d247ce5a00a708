# SPDX-License-Identifier: GPL-2.0-or-later
"""A live MPTCP stream from a system to the network beyond its links, while something happens to the system."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from .system import System

PROGRAM = Path(__file__).with_name("echo.py")
SERVER, PORT = "192.0.2.1", 5000

#: Seconds that the rest of a stream may take after what happened to it.
REST = 20


@dataclass(frozen=True)
class Told:
    """What a stream has seen since it was last asked: the words that came back, and the longest time (ms) without any."""

    back: int
    longest_gap_ms: float


def serve(system: System, *, port: int = PORT) -> None:
    """Have an echo server in the namespace ``far``, for as long as the system is there; the one that is there, if any."""
    system.put(PROGRAM, "/root/echo.py")
    said = f"/run/echo-{port}"
    if system.run_quietly(f"grep -q ready {said}").returncode == 0:
        return
    server = f"ip netns exec far python3 /root/echo.py serve 0.0.0.0 {port}"
    system.run(f"touch {said}; setsid -f {server} >{said} 2>&1 </dev/null")
    system.wait(f"grep -q ready {said}")


class Talk:
    """One stream; ended with ``with``."""

    def __init__(self, system: System, *, server: str = SERVER, port: int = PORT, every: int = 5) -> None:
        """A word each ``every`` ms."""
        self._system, self._server, self._port = system, server, port
        self._place = place = "/run/talk"
        # The program holds its end for writing too, so that its input does not end after the first question.
        talk = f"exec python3 /root/echo.py talk {server} {port} {every} <>{place} >{place}.said 2>&1"
        system.run(f"rm -f {place} {place}.*; mkfifo {place}; : >{place}.said")
        system.run(f"setsid -f sh -c 'echo $$ >{place}.pid; {talk}' >/dev/null 2>&1 </dev/null")
        system.wait(f"grep -q ready {place}.said")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._system.run(f"kill $(cat {self._place}.pid)", check=False)

    def told(self) -> Told:
        """What it has seen since it was last asked."""
        said = f"{self._place}.said"
        lines = int(self._system.run(f"wc -l <{said}"))
        self._system.run(f"kill -0 $(cat {self._place}.pid) || {{ cat {said}; false; }}")
        self._system.run(f"echo >{self._place}")
        self._system.wait(f"test $(wc -l <{said}) -gt {lines}")
        return Told(**json.loads(self._system.run(f"tail -n 1 {said}")))

    def goes_on(self) -> Told:
        """The same, when words come back again after what happened; AssertionError when none do."""
        seen = self.told()
        for _ in range(REST):
            more = self.told()
            seen = Told(seen.back + more.back, max(seen.longest_gap_ms, more.longest_gap_ms))
            if more.back:
                return seen
            self._system.run("sleep 1")
        raise AssertionError(f"nothing comes back for more than {seen.longest_gap_ms:.0f} ms")

    def subflows(self) -> set[tuple[str, str]]:
        """Local address and port of each established one: the same pair later is the same subflow."""
        question = f"ss -Htn state established dst {self._server} dport = :{self._port}"
        ends = (line.split()[2].rpartition(":") for line in self._system.run(question).splitlines())
        return {(address.partition("%")[0].removeprefix("[::ffff:").rstrip("]"), port) for address, _, port in ends}

    def wait_subflows(self, *addresses: str, seconds: float = 15) -> None:
        """Until it has subflows from all of these addresses."""
        question = f"ss -Htn state established dst {self._server} dport = :{self._port}"
        for address in addresses:
            self._system.wait(f"{question} | grep -F -e {address}: -e {address}%", seconds=seconds)
