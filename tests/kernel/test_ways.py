# SPDX-License-Identifier: GPL-2.0-or-later
"""Which way a packet goes: what ``ip route get`` says, asked once and told in each of the forms that are needed."""

from __future__ import annotations

import json

import pytest

from nm_mptcp.kernel.departures import Departures
from nm_mptcp.kernel.errors import KernelError
from nm_mptcp.kernel.routing import Routing
from nm_mptcp.kernel.ways import PROBES, Way, Ways
from nm_mptcp.model import Departure, Family
from tests.support.network import Network, veth


@pytest.fixture
def routed(network: Network) -> Network:
    """Two links with a table each for their own addresses; v1 has the default."""
    for number in (1, 2):
        veth(f"v{number}", f"far{number}")
        network.ip(f"addr add 10.{number}.0.1/24 dev v{number}")
        network.ip(f"-6 addr add 2001:db8:{number}::1/64 dev v{number} nodad")
        network.ip(f"route add default via 10.{number}.0.2 dev v{number} table 10{number}")
        network.ip(f"-6 route add default via 2001:db8:{number}::2 dev v{number} table 10{number}")
        network.ip(f"rule add from 10.{number}.0.1 lookup 10{number}")
        network.ip(f"-6 rule add from 2001:db8:{number}::1 lookup 10{number}")
    network.ip("route add default via 10.1.0.2")
    network.ip("-6 route add default via 2001:db8:1::2")
    return network


def test_all_who_ask_are_told_what_ip_route_get_tells(routed: Network) -> None:
    sources = {Family.IPV4: ("10.1.0.1", "10.2.0.1"), Family.IPV6: ("2001:db8:1::1", "2001:db8:2::1")}
    with Routing() as routing, Ways() as ways, Departures() as departures:
        for family, probes in PROBES.items():
            for probe in probes:
                for source in ("", *sources[family]):
                    origin = f" from {source}" if source else ""
                    (told,) = json.loads(routed.ip(f"-N -j route get {probe}{origin}"))
                    way, found = ways.of(probe, source), routing.lookup(probe, source or None)
                    assert (found.ifindex, found.gateway, found.table) == (way.ifindex, way.gateway, way.table)
                    assert way.gateway == told["gateway"]
                    assert routed.ip(f"-o link show dev {told['dev']}").startswith(f"{way.ifindex}:")
                    assert str(way.table) == told.get("table", "254")
                    if not source:
                        assert found.source == told["prefsrc"]
                        assert departures.of(probe) == Departure(way.ifindex)
                        assert way.table == 254
                    else:
                        assert way.table == 100 + int(source.split(".")[1] if "." in source else source.split(":")[2])


@pytest.mark.parametrize(
    ("kind", "words", "error"),
    [
        ("unreachable", "an 'unreachable' route or rule", "No route to host"),
        ("prohibit", "a 'prohibit' route or rule", "Permission denied"),
        ("blackhole", "a 'blackhole' route, or the address is not there", "Invalid argument"),
    ],
)
def test_a_route_that_rejects_is_told_as_what_it_is(routed: Network, kind: str, words: str, error: str) -> None:
    routed.ip(f"route add {kind} 198.51.100.0/24")
    routed.ip(f"-6 route add {kind} 2001:db8:dead::/48")
    with Routing() as routing, Ways() as ways, Departures() as departures:
        for destination in ("198.51.100.1", "2001:db8:dead::1"):
            assert ways.of(destination, "") == Way(refused=words)
            assert departures.of(destination) == Departure()
            with pytest.raises(KernelError, match=error):
                routing.lookup(destination)


def test_without_any_route_there_is_no_way(network: Network) -> None:
    veth("v1", "far1")
    network.ip("addr add 10.1.0.1/24 dev v1")
    with Ways() as ways, Departures() as departures:
        for probes in PROBES.values():
            for probe in probes:
                assert ways.of(probe, "") == Way(refused="no route")
                assert departures.of(probe) == Departure()
        # Bound to a device IPv4 would take everybody for a neighbour.
        assert ways.bound(PROBES[Family.IPV4][0], "10.1.0.1", 2) == Way(refused="no route")


def test_the_way_to_this_machine_itself_is_local(routed: Network) -> None:
    with Routing() as routing:
        for destination in ("10.1.0.1", "2001:db8:1::1"):
            assert routing.lookup(destination).local, routed
