# SPDX-License-Identifier: GPL-2.0-or-later
"""A link on which a routing daemon has put thousands of routes: nothing that is urgent waits for their copies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.waits import wait_for
from .bed import PROTOCOL, Bed
from .observe import Writes
from .uplinks import Links

MANY = 5000


@pytest.fixture
def routes(bed: Bed) -> Iterator[str]:
    """A file for ``ip -batch`` that adds them, by the Wi-Fi."""
    batch = bed.directory / "routes"
    lines = (f"route add 20.{n // 256}.{n % 256}.0/24 via 10.1.0.1 dev wlan0 proto bird" for n in range(MANY))
    batch.write_text("\n".join(lines) + "\n")
    yield str(batch)
    batch.unlink()


def copies(bed: Bed) -> int:
    """How many of them are in our tables."""
    return sum(line.startswith("20.") for line in bed.sh(f"ip route show table all proto {PROTOCOL}").splitlines())


def test_a_link_lost_meanwhile_goes_first(bed: Bed, links: Links, routes: str) -> None:
    bed.start_service()
    links.bring_up()
    assert bed.service
    with Writes(bed, bed.service.program) as coming:
        bed.machine.run("ip", "-batch", routes)
        wait_for("it is writing", lambda: copies(bed) > MANY / 5, seconds=60)
        links.lte.carrier(False)
        bed.wait_no_endpoint(links.lte.address, seconds=60)
        wait_for("all are copied", lambda: copies(bed) == MANY, seconds=60)
    assert later(coming, "RTM_NEWROUTE") > MANY / 10
    links.lte.carrier(True)
    # Where all is slow, NetworkManager has given up the link by now.
    bed.up("LTE")
    bed.wait_endpoint(links.lte.address, seconds=60)
    bed.sync()
    with Writes(bed, bed.service.program) as going:
        bed.sh("ip route flush proto bird")
        wait_for("it is deleting", lambda: copies(bed) < MANY, seconds=60)
        links.lte.carrier(False)
        bed.wait_no_endpoint(links.lte.address)
        wait_for("all are gone", lambda: copies(bed) == 0, seconds=60)
    assert later(going, "RTM_DELROUTE") > MANY / 10


def later(writes: Writes, kind: str) -> int:
    """How many writes of this kind came after the endpoint was deleted."""
    return writes.all[writes.all.index("delete endpoint") :].count(kind)


def test_clear_with_thousands_of_routes(bed: Bed, links: Links, routes: str) -> None:
    bed.start_service()
    bed.up("Wi-Fi")
    bed.wait_endpoint(links.wifi.address)
    bed.machine.run("ip", "-batch", routes)
    wait_for("all are copied", lambda: copies(bed) == MANY, seconds=60)
    bed.sync()
    bed.nm_mptcp("clear")
    assert copies(bed) == 0
