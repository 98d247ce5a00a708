# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-modes``: a download over two links of 20 Mbit/s in the modes ``handover``, ``aggregate``, and back.

The figures are ratios of one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from ..networkmanager.product import install
from ..support.waits import wait_for
from .links import DOWNLOAD, NEAR, World
from .streams import Download, DownloadServer
from .tools import TOOLS
from .watch import Subflows, until

#: Seconds that a speed is measured over, and that the download has to settle before.
_OVER, _SETTLING = 3.0, 1.5


def speed(download: Download) -> float:
    """Bytes a second, once it has settled."""
    begin = time.monotonic() + _SETTLING
    until(lambda: time.monotonic() > begin + _OVER, seconds=_SETTLING + _OVER + 1)
    arrivals = list(zip(download.arrivals.times, download.arrivals.sizes, strict=False))
    return sum(size for when, size in arrivals if begin <= when < begin + _OVER) / _OVER


def once(directory: Path, installed: Path) -> tuple[float, float, float, int]:
    """Speed of ``aggregate`` and of ``handover`` again, as parts of the first; the longest gap (ms); subflows cut."""
    (tool,) = [each for each in TOOLS if each.name == "nm-mptcp"]
    with tool.machine(directory, installed) as bed:
        world = World(bed, tool)
        world.connect()
        world.shape()
        DownloadServer(bed.far, DOWNLOAD)
        bed.nm_mptcp("mode", "handover")
        subflows = Subflows(bed.machine)
        download = Download(bed.machine, NEAR, DOWNLOAD)
        world.wait_subflows(subflows, NEAR, DOWNLOAD)
        before = subflows.to(NEAR, DOWNLOAD)
        wait_for("the download flows", lambda: len(download.arrivals.times) > 20)
        one = speed(download)
        changed = time.monotonic()
        bed.nm_mptcp("mode", "aggregate")
        both = speed(download)
        bed.nm_mptcp("mode", "handover")
        again = speed(download)
        gap = download.arrivals.gap(changed, time.monotonic()) * 1000
        return both / one, again / one, gap, len(before - subflows.to(NEAR, DOWNLOAD))


def main() -> None:
    """Print each round, and the medians."""
    parser = argparse.ArgumentParser(prog="tests.bench.modes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    rounds = parser.parse_args().rounds
    found = []
    with tempfile.TemporaryDirectory(prefix="nm-mptcp-bench-") as name:
        installed = install(Path(name, "root"))
        for number in range(rounds):
            found.append(once(Path(name, str(number)), installed))
            print(
                "aggregate {:.2f} times, handover again {:.2f} times, longest gap {:.0f} ms, cut {}".format(*found[-1])
            )
    both, again, gaps, cut = zip(*found, strict=True)
    print(
        f"median: aggregate {statistics.median(both):.2f} times, handover again {statistics.median(again):.2f} times;"
        f" longest gap {statistics.median(gaps):.0f} ms, at most {max(gaps):.0f}; subflows cut: {sum(cut)}"
    )


if __name__ == "__main__":
    main()
