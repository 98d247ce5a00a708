# SPDX-License-Identifier: GPL-2.0-or-later
"""Who changes something in the kernel's network of a system, and what becomes of its MPTCP connections.

The kernel tells everybody of rules, routes and addresses, and of connections and their subflows (:class:`Witness`); of
endpoints, limits and flags it tells nobody: for these the programs that may write them are traced (:func:`traced`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shlex import join, quote
from types import TracebackType
from typing import Self

from ..networkmanager.observe import STRACE, writes_in
from .system import System

_MONITORS = {"tables": "ip monitor rule route address", "connections": "ip mptcp monitor"}

#: A change of our own: when its line is there, so is that of each change before it.
_MARK = "ip rule add priority 99 lookup main; ip rule del priority 99"


class Witness:
    """It listens from its beginning to the end of ``with``."""

    def __init__(self, system: System) -> None:
        self._system = system
        for name, monitor in _MONITORS.items():
            place = _place(name)
            listening = f"echo $$ >{place}.pid; exec {monitor} >{place} 2>&1"
            system.run(f"rm -f {place}*; setsid -f sh -c {quote(listening)} >/dev/null 2>&1 </dev/null")
        system.wait(f"{_MARK}; grep -q 'Deleted 99:' {_place('tables')}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in _MONITORS:
            self._system.run(f"kill $(cat {_place(name)}.pid)", check=False)

    def changes(self) -> list[str]:
        """All changes of rules, routes and addresses so far, as `ip monitor` tells them."""
        marks = self._said("tables").count("Deleted 99:")
        self._system.run(_MARK)
        self._system.wait(f"test $(grep -c 'Deleted 99:' {_place('tables')}) -gt {marks}")
        return [line for line in self._said("tables").splitlines() if "99:" not in line.split("\t")[0]]

    def events(self, port: str) -> list[str]:
        """All events so far of the connection that began from this port, as `ip mptcp monitor` tells them."""
        told = self._said("connections")
        begun = re.search(rf"ESTABLISHED\] (token=\w+) .*\bsport={port} ", told)
        assert begun, f"no connection from port {port} in:\n{told}"
        return [line for line in told.splitlines() if begun[1] in line.split()]

    def _said(self, name: str) -> str:
        return self._system.run(f"cat {_place(name)}")


def _place(name: str) -> str:
    return f"/run/witness-{name}"


@contextmanager
def traced(system: System) -> Iterator[Callable[[], list[str]]]:
    """Asked for each write so far of NetworkManager, and of the service from its next start on."""
    trace, manager = "/run/nm-mptcp/trace", _place("manager")
    # The service's own process is its main process still, and strace a child that traces its parent.
    started = f"[Service]\nExecStart=\nExecStart=/usr/bin/{join(STRACE)} -D -o {trace} /usr/bin/nm-mptcp daemon\n"
    allowed = "SystemCallFilter=@debug\nCapabilityBoundingSet=CAP_SYS_PTRACE\nProtectProc=default\n"
    folder = "/run/systemd/system/nm-mptcp.service.d"
    system.run(f"mkdir {folder}; printf %s {quote(started + allowed)} >{folder}/traced.conf; systemctl daemon-reload")
    pid = system.run("systemctl show --value -p MainPID NetworkManager").strip()
    tracing = f"echo $$ >{manager}.pid; exec {join(STRACE)} -o {manager} -p {pid} >{manager}.said 2>&1"
    system.run(f"setsid -f sh -c {quote(tracing)} >/dev/null 2>&1 </dev/null")
    try:
        system.wait(f"grep -q attached {manager}.said")
        yield lambda: [write for place in (trace, manager) for write in writes_in(system.run(f"cat {place}"))]
    finally:
        system.run(
            f"kill -INT $(cat {manager}.pid); rm -r {folder}; systemctl daemon-reload; systemctl restart nm-mptcp"
        )
        system.run(f"rm -f {trace} {manager}*")
