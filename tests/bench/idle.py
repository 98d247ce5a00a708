# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-idle``: how often nm-mptcp is woken while nothing happens, and what it keeps after a day's worth of events.

Run as root: ``python -m tests.bench.idle [--seconds N]``. A machine with two links, a real NetworkManager and an MPTCP
connection that says nothing; before that, 20,000 changes of routes and some losses. The machine that runs it has to be idle as
well: retransmissions in other network namespaces wake the service too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from ..networkmanager.bed import SERVER, missing
from ..networkmanager.logind import Logind
from ..networkmanager.product import install
from ..networkmanager.traffic import Connection
from ..networkmanager.traffic import EchoServer as Echo
from ..support.waits import wait_for
from .links import World
from .storms import STEPS, raging, routes
from .tools import TOOLS
from .usage import Usage

#: Changes of routes, 1,000 a second, and losses of a link: more than a day has on a laptop.
_CHANGES, _LOSSES = 20_000, 30

#: Wake-ups by the watchdog: half of its interval in a bed, in which the service has to tell that it lives (s).
_WATCHDOG = 2.5


def main() -> int:
    """Measure and print it; 1 if anything but the watchdog woke it."""
    parser = argparse.ArgumentParser(prog="tests.bench.idle", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, metavar="N")
    seconds = parser.parse_args().seconds
    if lacking := missing():
        print(f"The bench needs {', '.join(lacking)}: try 'sudo make bench-idle'.", file=sys.stderr)
        return 1
    (tool,) = [each for each in TOOLS if each.product]
    with (
        tempfile.TemporaryDirectory(prefix="nm-mptcp-bench-") as place,
        tool.machine(Path(place, "machine"), install(Path(place, "root"))) as bed,
    ):
        world, logind = World(bed, tool), Logind(bed)
        world.connect()
        world.settle()
        assert bed.service
        pid = bed.service.pid
        first = Usage.of(pid)
        _day(world, logind)
        Echo(bed.far)
        Connection(bed.machine, SERVER).echo()
        world.settle()
        _rest(seconds=10)  # what is due soon after events is over
        before = Usage.of(pid)
        _rest(seconds=seconds)
        after = Usage.of(pid)
    woken, watchdog = after.woken - before.woken, seconds / _WATCHDOG
    print(
        f"{seconds} s idle: woken {woken} times ({watchdog:.0f} by the watchdog), {after.share(before):.4%} of a processor.\n"
        f"Resident: {first.memory:.1f} MiB at first, {after.memory:.1f} after {_CHANGES:,} changes of routes and {_LOSSES}"
        " losses."
    )
    return int(woken > watchdog + 1)


def _day(world: World, logind: Logind) -> None:
    with raging(routes(world)) as steps:
        for _ in range(_LOSSES):
            world.wifi.carrier(False)
            wait_for("it is lost", lambda: not world.bed.endpoint(world.wifi.address), seconds=20)
            world.wifi.carrier(True)
            logind.resume()  # nothing is held against the link
            world.bed.wait_endpoint(world.wifi.address, seconds=60)
        wait_for("all changes are made", lambda: steps[0] * 1000 >= _CHANGES * STEPS, seconds=120, every=0.1)


def _rest(seconds: float) -> None:
    """Nothing happens for so long: that is what is measured."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(left)


if __name__ == "__main__":
    sys.exit(main())
