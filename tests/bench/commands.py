# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-commands``: how long ``status``, ``explain`` and ``check`` take beside a running service, how long the service
takes to be ready and how much memory it has; where another checkout is named, both in turn.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from ..networkmanager.bed import REPOSITORY, Bed
from ..networkmanager.product import install
from ..networkmanager.traffic import EchoServer
from ..networkmanager.uplinks import Links

COMMANDS = (("status",), ("explain", "wlan0"), ("check",))


def main() -> None:
    """Measure in rounds, and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="tests.bench.commands", description=__doc__)
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout, with its .venv")
    parser.add_argument("--rounds", type=int, default=4, help="how often the service is started (default: 4)")
    parser.add_argument("--calls", type=int, default=5, help="of each command in each round (default: 5)")
    arguments = parser.parse_args()
    trees = {"before": arguments.before.resolve()} if arguments.before else {}
    trees["now"] = REPOSITORY
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place, "bed")
        directory.mkdir()
        bed = Bed(directory, installed=install(Path(place, "installed")))
        try:
            links = Links.plug_in(bed)
            bed.without_dispatcher_scripts()
            EchoServer(bed.far)
            service = bed.start_service()
            links.bring_up()
            service.stop()
            for number in range(arguments.rounds):
                for name in sorted(trees, reverse=bool(number % 2)):
                    measure(bed, name, trees[name] / ".venv/bin/nm-mptcp", arguments.calls, figures)
                print(f"\rround {number + 1} of {arguments.rounds}", end="", file=sys.stderr, flush=True)
        finally:
            bed.stop()
    print(file=sys.stderr)
    print(f"medians (maxima) of {arguments.rounds} starts and {arguments.rounds * arguments.calls} calls\n")
    print(f"| what | {' | '.join(trees)} |\n| --- |{' ---: |' * len(trees)}")
    for what in dict.fromkeys(what for _, what in figures):
        print(f"| {what} | {' | '.join(_shown(figures[name, what]) for name in trees)} |")


def measure(bed: Bed, name: str, command: Path, calls: int, figures: dict[tuple[str, str], list[float]]) -> None:
    """Start the service of one tree, and call each command beside it."""
    os.environ["NM_MPTCP_COMMAND"] = str(command)
    begin = time.monotonic()
    service = bed.start_service()
    figures[name, "service ready, ms"].append((time.monotonic() - begin) * 1000)
    bed.sync()
    status = Path(f"/proc/{service.pid}/status").read_text()
    figures[name, "service, resident MB"].append(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024)  # type: ignore[index]
    for _ in range(calls):
        for words in COMMANDS:
            begin = time.monotonic()
            bed.machine.attempt(str(command), *words)
            figures[name, f"{' '.join(words)}, ms"].append((time.monotonic() - begin) * 1000)
    service.stop()


def _shown(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({max(values):,.0f})" if values else "-"


if __name__ == "__main__":
    main()
