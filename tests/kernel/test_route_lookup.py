# SPDX-License-Identifier: GPL-2.0-or-later
"""Route look-ups, compared with ``ip route get`` and with real sockets."""

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


def test_look_ups_answer_as_ip_route_get_does(routed: Network) -> None:
    sources = {Family.IPV4: ("10.1.0.1", "10.2.0.1"), Family.IPV6: ("2001:db8:1::1", "2001:db8:2::1")}
    with RouteLookup() as lookup, EgressLookup() as egress:
        for family, probes in PROBES.items():
            for probe in probes:
                for source in ("", *sources[family]):
                    origin = f" from {source}" if source else ""
                    (answer,) = json.loads(routed.ip(f"-N -j route get {probe}{origin}"))
                    result = lookup.get(probe, source)
                    assert result.gateway == answer["gateway"]
                    assert routed.ip(f"-o link show dev {answer['dev']}").startswith(f"{result.ifindex}:")
                    assert str(result.table) == answer.get("table", "254")
                    if not source:
                        assert result.source == answer["prefsrc"]
                        assert egress.of(probe) == Egress(result.ifindex)
                        assert result.table == 254
                    else:
                        assert result.table == 100 + int(
                            source.split(".")[1] if "." in source else source.split(":")[2]
                        )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("unreachable", "an 'unreachable' route or rule"),
        ("prohibit", "a 'prohibit' route or rule"),
        ("blackhole", "a 'blackhole' route, or the address is not there"),
    ],
)
def test_a_route_that_rejects_is_named(routed: Network, kind: str, words: str) -> None:
    routed.ip(f"route add {kind} 198.51.100.0/24")
    routed.ip(f"-6 route add {kind} 2001:db8:dead::/48")
    with RouteLookup() as lookup, EgressLookup() as egress:
        for destination in ("198.51.100.1", "2001:db8:dead::1"):
            assert lookup.get(destination, "") == RouteResult(error=words)
            assert egress.of(destination) == Egress(rejected=True)


def test_without_any_route_the_error_is_no_route(network: Network) -> None:
    veth("v1", "far1")
    network.ip("addr add 10.1.0.1/24 dev v1")
    with RouteLookup() as lookup, EgressLookup() as egress:
        for probes in PROBES.values():
            for probe in probes:
                assert lookup.get(probe, "") == RouteResult(error="no route")
                assert egress.of(probe) == Egress()


def kernel() -> Kernel:
    """What the kernel has."""
    with Rtnetlink() as rtnetlink:
        fib = FIB.of(rtnetlink.links(), rtnetlink.addresses(), rtnetlink.routes(), rtnetlink.rules())
    return Kernel(links=fib.links, addresses=fib.addresses, routes=fib.routes, rules=fib.rules)


def bound(source: str, interface: str, destination: str = "") -> RouteResult:
    """The route of a subflow that the path manager opens."""
    index = socket.if_nametoindex(interface)
    with RouteLookup() as lookup:
        return lookup.bound(destination or PROBES[Family.of(source)][0], source, index, kernel())


@pytest.mark.parametrize("destination", ["2001:db8:2:9::1", "2001:db8:1:9::1", "fd00::1", "2002:db8::1", "2aaa::1"])
def test_ipv6_chooses_a_source_also_without_a_route(routed: Network, destination: str) -> None:
    """Compared with the kernel's own choice while candidates come and go."""
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
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client, RouteLookup() as lookup:
            client.connect((destination, 9))
            result = lookup.unbound(destination, kernel())
            assert (result.source, result.error) == (client.getsockname()[0], ""), change


def test_ipv4_bound_to_a_device_treats_every_destination_as_a_neighbour(network: Network) -> None:
    veth("v1", "far1")
    network.ip("addr add 10.1.0.1/24 dev v1")
    words = "no route: the kernel treats 85.85.85.85 as a neighbour on v1 (on-link)"
    assert bound("10.1.0.1", "v1") == RouteResult(error=words, source="10.1.0.1")
    # On a link without ARP that is as good as a route.
    network.ip("link set v1 arp off")
    assert bound("10.1.0.1", "v1") == RouteResult(socket.if_nametoindex("v1"), source="10.1.0.1")


def test_a_bound_ipv6_socket_uses_its_device_or_fails(routed: Network) -> None:
    """Compared with the result of such a socket."""

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
        result = bound("2001:db8:2::1", "v2")
        assert (not result.error, connects()) == (goes, goes), (command, result)
        assert result.error or result.ifindex == socket.if_nametoindex("v2")


def test_a_connection_follows_the_rules_for_its_source(routed: Network) -> None:
    routed.ip("rule add priority 50 from 10.1.0.1 lookup 102")
    with RouteLookup() as lookup:
        result = lookup.unbound(PROBES[Family.IPV4][0], kernel())
    assert (result.source, result.ifindex, result.table) == ("10.1.0.1", socket.if_nametoindex("v2"), 102)


def test_look_ups_are_for_tcp(routed: Network) -> None:
    routed.ip("rule add priority 50 ipproto tcp lookup 102")
    routed.ip("-6 rule add priority 50 ipproto udp lookup 102")
    with RouteLookup() as lookup:
        assert [lookup.unbound(PROBES[family][0], kernel()).table for family in Family] == [102, 254]


def test_the_route_to_a_local_address_is_local(routed: Network) -> None:
    assert routed
    with RouteLookup() as lookup:
        for destination in ("10.1.0.1", "2001:db8:1::1"):
            assert lookup.unbound(destination, kernel()).local
