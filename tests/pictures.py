# SPDX-License-Identifier: GPL-2.0-or-later
"""``make pictures``: docs/watch.svg and docs/status.svg, as ``nm-mptcp`` itself draws them on a terminal.

A real NetworkManager with two links, in namespaces of its own (as ``make demo``), and a download through a link loss. The
pictures are made from what the commands wrote to their terminals.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .demo import Download
from .networkmanager.bed import REPOSITORY, Bed, command, missing
from .networkmanager.product import install
from .networkmanager.terminals import Screen
from .networkmanager.uplinks import Uplink
from .support.waits import wait_for
from .svg import picture

DOCS = REPOSITORY / "docs"

COLUMNS, ROWS = 100, 34

#: Pictures a second of ``watch``, and for how many of them each part of the story goes on.
INTERVAL, BEFORE, LOST, AFTER = 0.5, 28, 8, 16


def shape(bed: Bed, link: Uplink, megabits: float, *, change: bool = False) -> None:
    """What goes to the machine by this link goes at that speed."""
    rate = f"{megabits:.1f}mbit"
    how = ["root", "tbf", "rate", rate, "burst", "32k", "latency", "40ms"]
    bed.far.run("tc", "qdisc", "change" if change else "add", "dev", link.far_name, *how)


def pictures(bed: Bed, said: Callable[[str], None]) -> None:
    """The story, and the pictures of it."""
    wifi, cell = bed.uplink("wlan0", dhcp="10.1.0.0/24"), bed.uplink("wwan0", dhcp="10.2.0.0/24")
    bed.profile("Home Wi-Fi", "wlan0", "ipv4.route-metric 600")
    bed.profile("Phone", "wwan0", "ipv4.route-metric 700", "connection.metered yes")
    shape(bed, wifi, 40)
    shape(bed, cell, 18)
    bed.start_service()
    bed.up("Home Wi-Fi", "Phone")
    for link in (wifi, cell):
        bed.wait_endpoint(link.address)
    watch = Screen(bed.machine, *command(), "watch", "--interval", str(INTERVAL), columns=COLUMNS, rows=ROWS)
    watch.wait_for("EVENTS")
    download = Download(bed)
    watch.wait_for("subflow up")
    chance = random.Random(7)

    def go_on(samples: int) -> None:
        """Let the radio be as good as radios are, for that many measurements."""
        for _ in range(samples):
            shape(bed, wifi, chance.uniform(31, 44), change=True)
            shape(bed, cell, chance.uniform(13, 19), change=True)
            time.sleep(INTERVAL)  # a speed is bytes over time: there is no state to wait for

    said("a download by Wi-Fi, the phone in reserve")
    go_on(BEFORE)
    said("the Wi-Fi is lost")
    wifi.carrier(False)
    watch.wait_for("no carrier", "endpoint out")
    go_on(LOST)
    status = Screen(bed.machine, *command(), "status", columns=COLUMNS, rows=ROWS)
    status.wait()
    save("status", status.written.replace("\r\n", "\n"))
    said("and is back")
    wifi.carrier(True)
    watch.wait_for("link back", "endpoint in")
    go_on(AFTER)
    assert not download.ended
    save("watch", watch.frame)
    watch.press("q")
    wait_for("watch has ended", lambda: watch.wait() == 0)


def save(name: str, screen: str) -> None:
    """Write the picture of a command."""
    DOCS.mkdir(exist_ok=True)
    (DOCS / f"{name}.svg").write_text(picture(screen, title=f"nm-mptcp {name}", columns=COLUMNS))


def main() -> int:
    """Make the pictures; 0 when they are there."""
    if lacking := missing():
        print(f"The pictures need {', '.join(lacking)}.", file=sys.stderr)
        return 1
    directory = Path(tempfile.mkdtemp(prefix="nm-mptcp-pictures-"))
    try:
        bed = Bed(directory, installed=install(directory / "root"))
        try:
            pictures(bed, lambda words: print(words, flush=True))
        finally:
            bed.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{DOCS.relative_to(REPOSITORY)}/watch.svg and status.svg are made")
    return 0


if __name__ == "__main__":
    sys.exit(main())
