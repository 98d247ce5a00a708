# SPDX-License-Identifier: GPL-2.0-or-later
"""Which way a packet goes: what ``ip route get`` says, asked once and told in each of the forms that are needed."""

from __future__ import annotations

import json
import socket

import pytest

from nm_mptcp.kernel.egress import EgressLookup
from nm_mptcp.kernel.fib import FIB
from nm_mptcp.kernel.route_lookup import PROBES, RouteLookup
from nm_mptcp.kernel.rtnetlink import Rtnetlink
from nm_mptcp.model.state import Egress, Family, Kernel, RouteResult
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
    with RouteLookup() as ways, EgressLookup() as egress:
        for family, probes in PROBES.items():
            for probe in probes:
                for source in ("", *sources[family]):
                    origin = f" from {source}" if source else ""
                    (told,) = json.loads(routed.ip(f"-N -j route get {probe}{origin}"))
                    way = ways.get(probe, source)
                    assert way.gateway == told["gateway"]
                    assert routed.ip(f"-o link show dev {told['dev']}").startswith(f"{way.ifindex}:")
                    assert str(way.table) == told.get("table", "254")
                    if not source:
                        assert way.source == told["prefsrc"]
                        assert egress.of(probe) == Egress(way.ifindex)
                        assert way.table == 254
                    else:
                        assert way.table == 100 + int(source.split(".")[1] if "." in source else source.split(":")[2])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("unreachable", "an 'unreachable' route or rule"),
        ("prohibit", "a 'prohibit' route or rule"),
        ("blackhole", "a 'blackhole' route, or the address is not there"),
    ],
)
def test_a_route_that_rejects_is_told_as_what_it_is(routed: Network, kind: str, words: str) -> None:
    routed.ip(f"route add {kind} 198.51.100.0/24")
    routed.ip(f"-6 route add {kind} 2001:db8:dead::/48")
    with RouteLookup() as ways, EgressLookup() as egress:
        for destination in ("198.51.100.1", "2001:db8:dead::1"):
            assert ways.get(destination, "") == RouteResult(error=words)
            assert egress.of(destination) == Egress()


def test_without_any_route_there_is_no_way(network: Network) -> None:
    veth("v1", "far1")
    network.ip("addr add 10.1.0.1/24 dev v1")
    with RouteLookup() as ways, EgressLookup() as egress:
        for probes in PROBES.values():
            for probe in probes:
                assert ways.get(probe, "") == RouteResult(error="no route")
                assert egress.of(probe) == Egress()


def kernel() -> Kernel:
    """What the kernel has."""
    with Rtnetlink() as rtnetlink:
        fib = FIB.of(rtnetlink.links(), rtnetlink.addresses(), rtnetlink.routes(), rtnetlink.rules())
    return Kernel(links=fib.links, addresses=fib.addresses, routes=fib.routes, rules=fib.rules)


def bound(source: str, interface: str, destination: str = "") -> RouteResult:
    """The way of a subflow that the path manager makes."""
    index = socket.if_nametoindex(interface)
    with RouteLookup() as ways:
        return ways.bound(destination or PROBES[Family.of(source)][0], source, index, kernel())


@pytest.mark.parametrize("destination", ["2001:db8:2:9::1", "2001:db8:1:9::1", "fd00::1", "2002:db8::1", "2aaa::1"])
def test_where_no_route_gives_one_ipv6_chooses_a_source_all_the_same(routed: Network, destination: str) -> None:
    """Held against the kernel's own choice, address by address that could be taken."""
    routed.ip("-6 route del default table main")
    for source, table in (("2001:db8:2:9::7", 102), ("fd00:1::7", 101), ("2002:1::7", 102)):
        routed.ip(f"-6 rule add priority 1500 from {source} lookup {table}")
    for change in (
        "addr add 2001:db8:2:9::7/64 dev v2 nodad",
        "addr add fd00:1::7/64 dev v1 nodad",
        "addr add 2002:1::7/64 dev v2 nodad",
        "addr change 2001:db8:1::1/64 dev v1 preferred_lft 0",
        "addr del 2001:db8:2::1/64 dev v2",
    ):
        routed.ip(f"-6 {change}")
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client, RouteLookup() as ways:
            client.connect((destination, 9))
            way = ways.unbound(destination, kernel())
            assert (way.source, way.error) == (client.getsockname()[0], ""), change


def test_bound_to_a_device_ipv4_takes_everybody_for_a_neighbour(network: Network) -> None:
    veth("v1", "far1")
    network.ip("addr add 10.1.0.1/24 dev v1")
    words = "no route: the kernel treats 85.85.85.85 as a neighbour on v1 (on-link)"
    assert bound("10.1.0.1", "v1") == RouteResult(error=words, source="10.1.0.1")
    # Where nobody is asked for a hardware address that is as good as a route.
    network.ip("link set v1 arp off")
    assert bound("10.1.0.1", "v1") == RouteResult(socket.if_nametoindex("v1"), source="10.1.0.1")


def test_an_ipv6_socket_that_is_bound_goes_by_its_device_or_not_at_all(routed: Network) -> None:
    """Held against the kernel's own answer to such a socket."""

    def connects() -> bool:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"v2")
            client.bind(("2001:db8:2::1", 0))
            return client.connect_ex((PROBES[Family.IPV6][0], 9)) == 0

    for command, goes in (
        ("-6 rule add priority 100 from 2001:db8:2::1 lookup main", True),  # which has v1's alone
        ("-6 route del default table 102", False),
        ("-6 route add default via 2001:db8:2::2 dev v2 metric 4000", True),
        ("-6 rule add priority 90 from 2001:db8:2::/64 unreachable", False),
        ("-6 rule add priority 80 lookup main suppress_prefixlength 0", False),
        ("-6 route add 2aaa::/16 via 2001:db8:2::2 dev v2", True),
        ("-6 rule add priority 70 from 2001:db8:1::1 unreachable", True),
    ):
        routed.ip(command)
        way = bound("2001:db8:2::1", "v2")
        assert (not way.error, connects()) == (goes, goes), (command, way)
        assert way.error or way.ifindex == socket.if_nametoindex("v2")


def test_a_connection_goes_by_the_rules_for_the_source_that_it_gets(routed: Network) -> None:
    routed.ip("rule add priority 50 from 10.1.0.1 lookup 102")
    with RouteLookup() as ways:
        way = ways.unbound(PROBES[Family.IPV4][0], kernel())
    assert (way.source, way.ifindex, way.table) == ("10.1.0.1", socket.if_nametoindex("v2"), 102)


def test_asked_is_for_tcp(routed: Network) -> None:
    routed.ip("rule add priority 50 ipproto tcp lookup 102")
    routed.ip("-6 rule add priority 50 ipproto udp lookup 102")
    with RouteLookup() as ways:
        assert [ways.unbound(PROBES[family][0], kernel()).table for family in Family] == [102, 254]


def test_the_way_to_this_machine_itself_is_local(routed: Network) -> None:
    assert routed
    with RouteLookup() as ways:
        for destination in ("10.1.0.1", "2001:db8:1::1"):
            assert ways.unbound(destination, kernel()).local
