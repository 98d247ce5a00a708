# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``explain HOST`` says of each subflow's way, beside where its packets really go, interface by interface.

Out of scope are rules by user (``uidrange``), mark or port: nobody who asks about a host says which connection he means.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from ..support.waits import wait_for
from .bed import PROTOCOL, SERVER, SERVER6, Bed
from .traffic import PORT, Connection, EchoServer
from .uplinks import TCP, Capture, Links
from .vpn import CLIENT, CLIENT6, GATEWAY, GATEWAY6, VPN, VPN_SERVER

Pair = tuple[str, str]

EXPLICIT = "connection.mptcp-flags enabled,subflow,also-without-default-route"


def plugged(bed: Bed, *settings: str) -> Links:
    """Two links with DHCP that are up, only the service acts; the settings are LTE's."""
    links = Links.plug_in(bed)
    if settings:
        bed.modify("LTE", *settings)
    settled(bed, "Wi-Fi", "LTE")
    bed.wait_endpoint(links.wifi.address)
    bed.wait_endpoint(links.lte.address)
    bed.sync()
    return links


def settled(bed: Bed, *profiles: str) -> None:
    bed.without_dispatcher_scripts()
    bed.start_service()
    bed.up(*profiles)
    bed.sync()


def alone(bed: Bed) -> None:
    """No service, and what it made stays: what is changed by hand is not put right."""
    assert bed.service
    bed.service.stop()


def advertised(bed: Bed, *settings: str) -> tuple[str, str]:
    """Two links with DHCP and router advertisements; their IPv6 addresses, the better default's first."""
    uplinks = [
        bed.uplink(name, dhcp=f"10.{number}.0.0/24", ra=f"2001:db8:{number}::/64")
        for number, name in enumerate(("wlan0", "wwan0"), 1)
    ]
    for uplink, name, metric in zip(uplinks, ("Wi-Fi", "LTE"), (600, 700), strict=True):
        metrics = (f"{family}.route-metric {metric}" for family in ("ipv4", "ipv6"))
        bed.profile(name, uplink.name, "ipv6.method auto", *metrics, *settings)
    settled(bed, "Wi-Fi", "LTE")
    first, second = (uplink.address6() for uplink in uplinks)
    for address in (first, second):
        bed.wait_endpoint(address)
    bed.sync()
    return first, second


def without_rules(bed: Bed) -> None:
    alone(bed)
    for family in ("-4", "-6"):
        for rule in bed.machine.ip(family, "rule", "show"):
            if rule.get("protocol") == PROTOCOL:
                bed.sh(f"ip {family} rule del priority {rule['priority']} from {rule['src']} protocol {PROTOCOL}")


def gateway6(bed: Bed, interface: str) -> str:
    """The router of an interface's IPv6 default route."""
    (route,) = [each for each in bed.machine.ip("-6", "route", "show", "default") if each["dev"] == interface]
    return str(route["gateway"])


def tunnelled(bed: Bed, *routes: str, configuration: str = "") -> None:
    """A VPN whose own packets go by the Wi-Fi, and what is led into it."""
    if configuration:
        bed.write("/run/nm-mptcp/conf.d/50-test.conf", configuration)
    links = plugged(bed)
    bed.sh(f"ip route add {VPN_SERVER} via {links.wifi.gateway} dev wlan0")
    VPN(bed)
    bed.sh(f"ip address add {CLIENT}/24 dev tun0; ip link set tun0 up")
    for route in routes:
        destination, _, metric = route.partition(" ")
        bed.sh(f"ip route add {destination} via {GATEWAY} dev tun0 {metric}")
    bed.sync()


# --- situations


def two_links(bed: Bed) -> str:
    plugged(bed)
    return SERVER


def one_subnet(bed: Bed) -> str:
    network = bed.network("lan", "10.1.0.0/24")
    network.serve_dhcp()
    first, second = bed.uplink("wlan0", network), bed.uplink("eth0", network)
    bed.profile("Wi-Fi", "wlan0", "ipv4.route-metric 600")
    bed.profile("Cable", "eth0", "ipv4.route-metric 700")
    settled(bed, "Wi-Fi", "Cable")
    for link in (first, second):
        bed.wait_endpoint(link.address)
    bed.sync()
    return SERVER


def never_default(bed: Bed) -> str:
    """Nothing leads there by LTE: bound to it, IPv4 asks for the server's hardware address."""
    plugged(bed, "ipv4.never-default yes", EXPLICIT)
    return SERVER


def never_default_but_a_route(bed: Bed) -> str:
    plugged(bed, "ipv4.never-default yes", "ipv4.routes 192.0.2.0/24 10.2.0.1", EXPLICIT)
    return SERVER


def own_table(bed: Bed) -> str:
    plugged(bed, "ipv4.route-table 500")
    return SERVER


def split_tunnel(bed: Bed) -> str:
    tunnelled(bed, SERVER)
    return SERVER


def full_tunnel(bed: Bed) -> str:
    tunnelled(bed, "default metric 50")
    return SERVER


def clat(bed: Bed) -> str:
    """Its default route is better than the links', and it is no tunnel that a connection has to stay in."""
    links = plugged(bed)
    bed.sh(f"ip route add {VPN_SERVER} via {links.wifi.gateway} dev wlan0")
    VPN(bed).up("192.0.0.1/29")
    bed.far.sh("ip route add 192.0.0.0/29 dev far-tun0")
    bed.sh("ip route add default dev tun0 metric 50")
    bed.sync()
    return SERVER


def unguarded_tunnel(bed: Bed) -> str:
    tunnelled(bed, "0.0.0.0/1", "128.0.0.0/1", configuration="[main]\nvpn-guard=no\n")
    return SERVER


def lost_carrier(bed: Bed) -> str:
    links = plugged(bed)
    links.wifi.carrier(False)
    bed.wait_no_endpoint(links.wifi.address)
    bed.sync()
    return SERVER


def lost_carrier_of_another(bed: Bed) -> str:
    links = plugged(bed)
    alone(bed)
    links.lte.carrier(False)
    wait_for("it is lost", lambda: not bed.status()["links"][1]["carrier"])
    return SERVER


def equal_costs(bed: Bed) -> str:
    links = plugged(bed)
    hops = " ".join(f"nexthop via {link.gateway} dev {link.name}" for link in (links.wifi, links.lte))
    bed.sh(f"ip route add default metric 10 {hops}")
    bed.sync()
    return SERVER


def no_rules(bed: Bed) -> str:
    plugged(bed)
    without_rules(bed)
    return SERVER


def no_rules_and_no_device(bed: Bed) -> str:
    links = plugged(bed)
    without_rules(bed)
    bed.sh(f"ip mptcp endpoint flush; ip mptcp endpoint add {links.lte.address} subflow")
    return SERVER


def by_rule(bed: Bed, selector: str) -> str:
    """What somebody's rule selects goes by the modem."""
    links = plugged(bed)
    bed.sh(
        f"ip route add default via {links.lte.gateway} dev wwan0 table 100;"
        f" ip rule add priority 1000 {selector} lookup 100"
    )
    bed.sync()
    return SERVER


def rule_for_the_destination(bed: Bed) -> str:
    return by_rule(bed, "to 192.0.2.0/24")


def rule_for_the_source(bed: Bed) -> str:
    """The connection's source is that of the best route, and then its rules count (``ip_route_connect``)."""
    return by_rule(bed, "from 10.1.0.0/24")


def rule_for_tcp(bed: Bed) -> str:
    return by_rule(bed, "ipproto tcp")


def rule_for_datagrams(bed: Bed) -> str:
    return by_rule(bed, "ipproto udp")


def rule_that_ends_one(bed: Bed) -> str:
    links = plugged(bed)
    bed.sh(f"ip rule add priority 1000 from {links.lte.address} prohibit")
    bed.sync()
    return SERVER


def kill_switch(bed: Bed) -> str:
    plugged(bed)
    bed.sh("ip rule add priority 1000 unreachable")
    bed.sync()
    return SERVER


def no_neighbours_to_ask(bed: Bed) -> str:
    """A link without ARP sends it all the same: there is nobody to ask for."""
    plugged(bed)
    VPN(bed)
    bed.sh(f"ip address add {CLIENT}/24 dev tun0; ip link set tun0 up; ip mptcp endpoint add {CLIENT} dev tun0 subflow")
    bed.sync()
    return SERVER


def ipv6(bed: Bed) -> str:
    advertised(bed)
    return SERVER6


def ipv6_without_rules(bed: Bed) -> str:
    advertised(bed)
    without_rules(bed)
    return SERVER6


def ipv6_without_rules_and_device(bed: Bed) -> str:
    _, second = advertised(bed)
    without_rules(bed)
    bed.sh(f"ip mptcp endpoint flush; ip mptcp endpoint add {second} subflow")
    return SERVER6


def ipv6_own_tables(bed: Bed) -> str:
    """Main leads nowhere; the connection gets a source all the same, whose rules know a way."""
    advertised(bed, "ipv6.route-table 500")
    return SERVER6


def own_tables(bed: Bed) -> str:
    """Main leads nowhere, and so IPv4 gives no source."""
    links = Links.plug_in(bed)
    for profile in ("Wi-Fi", "LTE"):
        bed.modify(profile, "ipv4.route-table 500")
    settled(bed, "Wi-Fi", "LTE")
    for link in (links.wifi, links.lte):
        bed.wait_endpoint(link.address)
    bed.sync()
    return SERVER


def ipv6_own_table(bed: Bed) -> str:
    """Main has a way to the server by the other link, which a socket that is bound to this one passes over."""
    advertised(bed)
    alone(bed)
    bed.sh(f"ip -6 route add 2001:db8:ffff::/48 via {gateway6(bed, 'wlan0')} dev wlan0")
    return SERVER6


def ipv6_that_is_ended(bed: Bed) -> str:
    _, second = advertised(bed)
    bed.sh(f"ip -6 rule add priority 1000 from {second} unreachable")
    bed.sync()
    return SERVER6


def ipv6_that_is_ended_at_last(bed: Bed) -> str:
    """Its own link's default is gone; main has one by the other, and one for other sources by this."""
    _, second = advertised(bed)
    alone(bed)
    bed.sh(f"ip -6 route flush table {bed.table_of(second)}; ip -6 rule add priority 32003 from {second} unreachable")
    return SERVER6


def ipv6_rule_for_the_destination(bed: Bed) -> str:
    advertised(bed)
    bed.sh(
        f"ip -6 route add default via {gateway6(bed, 'wwan0')} dev wwan0 table 100;"
        " ip -6 rule add priority 1000 to 2001:db8:ffff::/48 lookup 100"
    )
    bed.sync()
    return SERVER6


def ipv6_tunnel_to_the_server(bed: Bed) -> str:
    """A tunnel's route to the server comes before a link's default; who is bound to the link passes it over."""
    advertised(bed)
    VPN(bed)
    bed.sh(
        f"ip -6 address add {CLIENT6}/64 dev tun0 nodad; ip link set tun0 up;"
        f" ip -6 route add {SERVER6} via {GATEWAY6} dev tun0"
    )
    bed.sync()
    return SERVER6


SITUATIONS: tuple[Callable[[Bed], str], ...] = (
    two_links, one_subnet, never_default, never_default_but_a_route, own_table, split_tunnel, full_tunnel,
    clat, unguarded_tunnel, lost_carrier, lost_carrier_of_another, equal_costs, no_rules, no_rules_and_no_device,
    rule_for_the_destination, rule_for_the_source, rule_for_tcp, rule_for_datagrams, rule_that_ends_one, kill_switch,
    no_neighbours_to_ask, ipv6, ipv6_without_rules, ipv6_without_rules_and_device, ipv6_own_table, ipv6_own_tables,
    own_tables, ipv6_that_is_ended,
    ipv6_that_is_ended_at_last, ipv6_rule_for_the_destination, ipv6_tunnel_to_the_server,
)  # fmt: skip


class Truth:
    """From where, and by which interfaces, packets go to a server."""

    def __init__(self, bed: Bed, server: str) -> None:
        self._server = server
        self._captures: dict[str, Capture] = {}
        for name in (link["ifname"] for link in bed.machine.ip("link") if link["ifname"] != "lo"):
            self._captures[name] = Capture(bed.machine.pid, name, both=True)
            bed.at_end(self._captures[name].close)

    def now(self) -> set[Pair]:
        return {
            (packet.source, name)
            for name, capture in self._captures.items()
            for packet in capture.packets()
            if packet.destination == self._server and packet.protocol == TCP and packet.destination_port == PORT
        }


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.__name__)
def test_what_is_told_is_where_packets_go(bed: Bed, situation: Callable[[Bed], str]) -> None:
    EchoServer(bed.far)
    # Gateways do not answer for the Internet's hardware addresses; one that has the server's address itself would.
    bed.far.sysctl(**{"net.ipv4.conf.all.arp_ignore": "1"})
    server = situation(bed)
    told: dict[str, Any] = json.loads(bed.nm_mptcp("explain", "--json", server))
    said = bed.nm_mptcp("explain", server)
    assert "table 0" not in said
    truth = Truth(bed, server)
    if "error" in told["first"]:
        with pytest.raises(OSError, match=r"unreachable|No route|denied|Invalid"):
            Connection(bed.machine, server)
        assert truth.now() == set()
        return
    connection = Connection(bed.machine, server)
    followers = [each for each in told["subflows"] if each["follows"]]
    expected = {(each["address"], each["interface"]) for each in [*followers, _first(told)]}
    wait_for(f"packets go {expected}", lambda: truth.now() >= expected)
    connection.echo()
    assert truth.now() == expected, said
    assert {each["address"] for each in [*followers, _first(told)]} == set(told["learns"])
    # Somebody who reads it learns why the others do not.
    for each in told["subflows"]:
        assert each["follows"] or each["reason"]


def _first(told: dict[str, Any]) -> dict[str, Any]:
    return {"address": told["first"]["source"], "interface": told["first"]["interface"]}


def test_ipv4s_last_resort_is_told_as_what_it_is(bed: Bed) -> None:
    never_default(bed)
    told = json.loads(bed.nm_mptcp("explain", "--json", SERVER))
    (lte,) = told["subflows"]
    assert not lte["follows"]
    assert (lte["gateway"], lte["table"]) == (None, None)
    assert lte["reason"] == f"no route: the kernel treats {SERVER} as a neighbour on wwan0 (on-link)"
    # As the kernel does it: it asks for the server's hardware address there.
    connection = bed.machine.socket(socket.AF_INET, socket.SOCK_STREAM)
    bed.at_end(connection.close)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wwan0")
    connection.setblocking(False)
    connection.connect_ex((SERVER, PORT))
    wait_for("it asks", lambda: f"{SERVER} dev wwan0" in bed.sh("ip neighbour show"))
