# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's byte counters of links and subflows."""

from __future__ import annotations

import asyncio
import json

from nm_mptcp.kernel.fib import FIB, Changes
from nm_mptcp.kernel.link_stats import LinkStats
from nm_mptcp.kernel.rtnetlink import Rtnetlink
from nm_mptcp.kernel.rtnl_events import LINKS_AND_ADDRESSES, RtnetlinkEvents, dump_links
from nm_mptcp.kernel.sock_diag import subflows
from tests.support.mptcp import Echo, two_paths
from tests.support.network import Network, ip
from tests.support.waits import wait_for

DATA = bytes(100_000)


def test_bytes_of_links_and_of_subflows(network: Network, far: Network) -> None:
    first, second = two_paths(network, far)
    with LinkStats() as counters, Echo(far, "10.9.0.1") as echo:
        before = counters.links()
        (old,) = subflows()
        echo.echo(DATA)

        def acknowledged() -> bool:
            (now,) = subflows()
            return now.sent - old.sent >= len(DATA)

        wait_for("all is acknowledged", acknowledged)
        after = counters.links()
        (new,) = subflows()
        # MPTCP may send what it has sent already once more, as new data of the subflow.
        assert len(DATA) <= new.sent - old.sent < 2 * len(DATA)
        assert len(DATA) <= new.received - old.received < 2 * len(DATA)
        assert 0 < new.rtt < 10
        assert after[first].sent - before[first].sent > len(DATA)
        assert after[first].received - before[first].received > len(DATA)
        assert after[second].sent - before[second].sent < len(DATA)


def test_the_counters_are_those_that_ip_shows(network: Network, far: Network) -> None:
    two_paths(network, far)
    with LinkStats() as counters:

        def same() -> bool:
            shown = {link["ifindex"]: link["stats64"] for link in json.loads(ip("-s -j link"))}
            found = counters.links()
            return {index: (each["rx"]["bytes"], each["tx"]["bytes"]) for index, each in shown.items()} == {
                index: (each.received, each.sent) for index, each in found.items()
            }

        # Router solicitations may come between the two.
        wait_for("both show the same", same)


def test_events_of_links_and_addresses_alone_have_no_routes(network: Network, far: Network) -> None:
    first, _ = two_paths(network, far)
    loop = asyncio.new_event_loop()
    changes: list[Changes] = []
    fib = FIB()
    events = RtnetlinkEvents(fib, changes.append, lambda: None, groups=LINKS_AND_ADDRESSES)
    events.start(loop)
    try:
        with Rtnetlink() as rtnetlink:
            events.begin_dump()
            assert events.end_dump(dump_links(rtnetlink))
        changes.clear()
        ip("route add 198.51.100.0/24 via 10.1.0.2")
        events.read()
        assert not changes
        ip("address add 10.1.0.77/24 dev v1")
        ip("link set v1 down")
        events.read()
        assert any(each.address == "10.1.0.77" for each in fib.addresses[first])
        assert not fib.links[first].up
        assert not fib.routes
    finally:
        events.close()
        loop.close()
