# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-boot``: is a boot slower with the package? Containers with systemd, in pairs, with and without.

Each boot has two links, whose profiles NetworkManager activates, and a unit that wants the network to be online. Told are
milliseconds from the first of userspace until a unit was there, and the difference within each pair.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from ..packages.built import deb
from ..packages.container import Container, reason_to_skip
from ..packages.system import System
from ..packages.test_boot import preparation

#: What somebody may wait for. Ready is what the service itself is.
UNITS = (
    "basic.target",
    "NetworkManager.service",
    "nm-mptcp.service",
    "NetworkManager-wait-online.service",
    "network-online.target",
    "multi-user.target",
)


def boot(distribution: str, *, package: bool, chain: bool = False) -> dict[str, float]:
    """What a boot gives (:func:`active_after`)."""
    with Container(distribution, before=preparation(package=package), files=[deb()]) as system:
        if chain:
            print(system.run("systemd-analyze critical-chain network-online.target"))
        return active_after(system)


def active_after(system: System) -> dict[str, float]:
    """Milliseconds from the start of userspace until each unit was active; of what is not there nothing."""
    (start,) = _monotonic(system, "show --property=UserspaceTimestampMonotonic --value")
    return {
        unit: (found[0] - start) / 1000
        for unit in UNITS
        if (found := _monotonic(system, f"show --property=ActiveEnterTimestampMonotonic --value {unit}"))
    }


def _monotonic(system: System, question: str) -> list[int]:
    return [int(word) for word in system.run(f"systemctl {question}").split() if word != "0"]


def main() -> None:
    """Boot in turns, and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="tests.bench.boot", description=__doc__)
    parser.add_argument("--distribution", default="trixie", help="Debian's code name (default: trixie)")
    parser.add_argument("--repetitions", type=int, default=10, help="pairs of boots (default: 10)")
    parser.add_argument("--chain", action="store_true", help="print the critical chain of each boot with the package")
    arguments = parser.parse_args()
    if reason := reason_to_skip():
        sys.exit(f"nm-mptcp: {reason}")
    pairs = []
    for number in range(arguments.repetitions):
        first = bool(number % 2)  # what is warm after the first favours nobody
        pair = {
            package: boot(arguments.distribution, package=package, chain=arguments.chain and package)
            for package in (first, not first)
        }
        pairs.append((pair[False], pair[True]))
        print(f"\rpair {number + 1} of {arguments.repetitions}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"{arguments.distribution}, {len(pairs)} pairs; ms since the start of userspace, medians (maxima)\n")
    print("| active | without | with | longer, pair by pair |\n| --- | ---: | ---: | ---: |")
    for unit in UNITS:
        without, with_ = [one[unit] for one, _ in pairs if unit in one], [two[unit] for _, two in pairs if unit in two]
        longer = [two[unit] - one[unit] for one, two in pairs if unit in one and unit in two]
        print(f"| {unit} | {_told(without)} | {_told(with_)} | {_told(longer)} |")


def _told(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({max(values):,.0f})" if values else "-"


if __name__ == "__main__":
    main()
