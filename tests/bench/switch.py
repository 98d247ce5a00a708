# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-switch``: what the switch of ``nm-mptcp exec --method=ebpf`` costs the programs of a machine.

Run as root: ``python -m tests.bench.switch [DISTRIBUTION...]``. The machines are emulated, so the times are no measure of
speed; the ratios are those of the instructions that a socket() with its close() takes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from nm_mptcp.launch import control_groups, registration, switch

from ..machine.image import image, reason_to_skip
from ..machine.machine import Machine
from ..support.asker import asker

#: Sockets of a run, and runs of each kind, which take turns.
_SOCKETS, _RUNS = 20_000, 9

_UDP, _TCP, _MPTCP = "UDP", "TCP", "MPTCP"
_KINDS = {_UDP: (socket.SOCK_DGRAM, 0), _TCP: (socket.SOCK_STREAM, 0), _MPTCP: (socket.SOCK_STREAM, 262)}

#: Without the switch; with it, in another group; in the registered one.
_NONE, _OUTSIDE, _INSIDE = "none", "outside", "inside"

#: What is compared with what.
_ROWS = (
    ("another socket (UDP), the switch loaded / not", (_UDP, _OUTSIDE), (_UDP, _NONE)),
    ("TCP outside of the group, the switch loaded / not", (_TCP, _OUTSIDE), (_TCP, _NONE)),
    ("TCP asked for inside, which is MPTCP / MPTCP asked for, not loaded", (_TCP, _INSIDE), (_MPTCP, _NONE)),
    ("MPTCP / TCP, both asked for, not loaded", (_MPTCP, _NONE), (_TCP, _NONE)),
)


def main() -> int:
    """Measure in machines, and print a Markdown table; ``--here`` is what runs in each."""
    parser = argparse.ArgumentParser(prog="tests.bench.switch", description=__doc__)
    parser.add_argument("distributions", metavar="DISTRIBUTION", nargs="*", default=["trixie", "sid"])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(_measured()))
        return 0
    if reason := reason_to_skip():
        print(f"The bench {reason}.", file=sys.stderr)
        return 1
    told: dict[str, dict[str, float]] = {}
    for distribution in arguments.distributions:
        with Machine(image(distribution)) as machine:
            machine.put_tree()
            machine.shell("mount -t bpf -o mode=0700 bpf /sys/fs/bpf").checked()
            command = "cd /nm-mptcp; PYTHONPATH=src exec python3 -m tests.bench.switch --here"
            told[machine.kernel] = json.loads(machine.shell(command, seconds=1200).checked())
    print(f"| ratio of a processor's time, medians of {_RUNS} | {' | '.join(f'Linux {kernel}' for kernel in told)} |")
    print("| --- |" + " ---: |" * len(told))
    for what, (first, where), (second, there) in _ROWS:
        ratios = (each[f"{first} {where}"] / each[f"{second} {there}"] for each in told.values())
        print(f"| {what} | {' | '.join(f'{ratio:.3f}' for ratio in ratios)} |")
    return 0


def _measured() -> dict[str, float]:
    """A processor's seconds for a run of each kind and place."""
    root = control_groups.root()
    assert root is not None
    group = root / "nm-mptcp-bench"
    group.mkdir()
    seconds: dict[str, list[float]] = defaultdict(list)
    try:
        with tempfile.TemporaryDirectory() as place:
            programs = {
                name: asker(Path(place, name), kind=kind, protocol=protocol, before=_SOCKETS)
                for name, (kind, protocol) in _KINDS.items()
            }
            for _ in range(_RUNS):
                for where in (_NONE, _OUTSIDE, _INSIDE):
                    if where is _OUTSIDE:
                        registration.load()
                        registration.register(group)
                    for name, program in programs.items():
                        used, mptcp = _run(program, group if where is _INSIDE else None)
                        assert mptcp == (name is _MPTCP or (name, where) == (_TCP, _INSIDE)), (name, where)
                        seconds[f"{name} {where}"].append(used)
                shutil.rmtree(switch.DIRECTORY)
    finally:
        shutil.rmtree(switch.DIRECTORY, ignore_errors=True)
        group.rmdir()
    return {what: statistics.median(each) for what, each in seconds.items()}


def _run(program: Path, group: Path | None) -> tuple[float, bool]:
    """A processor's seconds (the program's own and the kernel's for it), and whether its sockets were MPTCP."""
    if not (child := os.fork()):
        try:
            if group is not None:
                (group / "cgroup.procs").write_text("0")
            os.execv(program, [str(program)])
        finally:
            os._exit(127)
    _, status, usage = os.wait4(child, 0)
    return usage.ru_utime + usage.ru_stime, bool(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    sys.exit(main())
