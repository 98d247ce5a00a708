# SPDX-License-Identifier: GPL-2.0-or-later
"""What has a link's address as its source leaves by that link, and never by another."""

from __future__ import annotations

import socket

import pytest

from ..support.waits import wait_for
from .bed import PROTOCOL, SERVER, SERVER6, Bed
from .connectivity import CHECKING, CheckServer, wait_connectivity
from .traffic import EchoServer, reaches, send_datagram
from .uplinks import Links, Network, Uplink


@pytest.fixture
def up(bed: Bed, links: Links) -> Links:
    """Service and an echo server running, both links up."""
    EchoServer(bed.far)
    bed.start_service()
    links.bring_up()
    return links


def single(bed: Bed, network: Network, *settings: str, name: str = "wwan0") -> Uplink:
    """A second link beside a Wi-Fi that has the best default route; service and echo server running."""
    EchoServer(bed.far)
    bed.start_service()
    wifi = bed.uplink("wlan0", dhcp="10.1.0.0/24")
    bed.profile("Wi-Fi", "wlan0", "ipv4.route-metric 50", "ipv6.route-metric 50")
    bed.up("Wi-Fi")
    bed.wait_endpoint(wifi.address)
    uplink = bed.uplink(name, network)
    bed.profile("LTE", name, *settings)
    bed.up("LTE")
    return uplink


def leaves_by(bed: Bed, link: Uplink, source: str, server: str = SERVER) -> bool:
    """Whether a connection from ``source`` works, and every packet with that source goes by ``link`` alone."""
    captures = {name: uplink.capture() for name, uplink in bed.uplinks.items()}
    works = reaches(bed.machine, server, source=source)
    counts = {name: capture.sources()[source] for name, capture in captures.items()}
    assert not any(count for name, count in counts.items() if name != link.name), counts
    return works and counts[link.name] > 0


def test_a_socket_bound_to_the_second_links_address_leaves_by_it(bed: Bed, up: Links) -> None:
    assert leaves_by(bed, up.lte, up.lte.address)
    assert leaves_by(bed, up.wifi, up.wifi.address)


def test_an_unbound_socket_goes_where_it_always_went(bed: Bed, up: Links) -> None:
    by_lte = up.lte.capture()
    assert reaches(bed.machine, SERVER)
    assert not by_lte.sources()


def test_the_same_by_ipv6(bed: Bed) -> None:
    EchoServer(bed.far)
    bed.start_service()
    links = [bed.uplink("wlan0", ra="2001:db8:1::/64"), bed.uplink("wwan0", ra="2001:db8:2::/64")]
    for link in links:
        bed.profile(link.name, link.name, "ipv6.method auto", "ipv4.method disabled", "ipv6.may-fail no")
        bed.up(link.name)
    for link in links:
        address = link.address6()
        bed.wait_endpoint(address)
        bed.sync()
        assert bed.default_of(address)["gateway"] == link.network.gateway6
        assert leaves_by(bed, link, address, SERVER6)


def test_replies_arrive_through_strict_reverse_path_filters(bed: Bed, up: Links) -> None:
    strict = {f"net.ipv4.conf.{name}.rp_filter": "1" for name in ("all", "wlan0", "wwan0")}
    bed.machine.sysctl(**strict)
    assert leaves_by(bed, up.lte, up.lte.address)
    assert leaves_by(bed, up.wifi, up.wifi.address)
    bed.sync()
    assert {name: bed.machine.read_sysctl(name) for name in strict} == strict


def test_filters_that_were_strict_before_stay_strict(bed: Bed, links: Links) -> None:
    strict = {f"net.ipv4.conf.{name}.rp_filter": "1" for name in ("all", "wlan0", "wwan0")}
    bed.machine.sysctl(**strict)
    EchoServer(bed.far)
    bed.start_service()
    bed.up("Wi-Fi", "LTE")
    bed.wait_endpoint(links.lte.address)
    bed.sync()
    assert leaves_by(bed, links.lte, links.lte.address)
    assert {name: bed.machine.read_sysctl(name) for name in strict} == strict


@pytest.mark.parametrize("rp_filter", ["0", "1"])
def test_two_links_in_one_subnet(bed: Bed, rp_filter: str) -> None:
    bed.machine.sysctl(**{"net.ipv4.conf.all.rp_filter": rp_filter})
    # Both answer ARP for either address otherwise, and the far side's choice would be luck.
    bed.machine.sysctl(**{"net.ipv4.conf.all.arp_ignore": "1", "net.ipv4.conf.all.arp_announce": "2"})
    EchoServer(bed.far)
    bed.start_service()
    network = bed.network("lan", "10.1.0.0/24")
    network.serve_dhcp()
    links = [bed.uplink(name, network) for name in ("eth0", "wlan0")]
    for link in links:
        bed.profile(link.name, link.name)
        bed.up(link.name)
    for link in links:
        bed.wait_endpoint(link.address)
    bed.sync()
    assert bed.table_of(links[0].address) != bed.table_of(links[1].address)
    for link in links:
        assert leaves_by(bed, link, link.address)
        assert leaves_by(bed, link, link.address, network.gateway)


def test_an_onlink_gateway_outside_the_prefix(bed: Bed) -> None:
    network = bed.network("wwan0", "10.2.0.0/24")
    network.add_address("172.16.9.1/32")
    uplink = single(
        bed, network, "ipv4.method manual", "ipv4.addresses 10.2.0.50/24", "ipv4.gateway 172.16.9.1"
    )  # fmt: skip
    bed.wait_endpoint("10.2.0.50")
    bed.sync()
    assert bed.default_of("10.2.0.50")["gateway"] == "172.16.9.1"
    assert leaves_by(bed, uplink, "10.2.0.50")


def test_a_host_address_with_a_gateway_from_dhcp(bed: Bed) -> None:
    network = bed.network("wwan0", "10.2.0.0/24")
    network.serve_dhcp(netmask="255.255.255.255")
    uplink = single(bed, network)
    bed.wait_endpoint("10.2.0.50")
    bed.sync()
    assert leaves_by(bed, uplink, "10.2.0.50")


def test_a_host_address_without_any_gateway(bed: Bed) -> None:
    network = bed.network("wwan0", "10.2.0.0/24")
    uplink = single(
        bed, network, "ipv4.method manual", "ipv4.addresses 10.2.0.50/32", "ipv4.routes 0.0.0.0/0"
    )  # fmt: skip
    bed.wait_endpoint("10.2.0.50")
    bed.sync()
    route = bed.default_of("10.2.0.50")
    assert "gateway" not in route
    assert route["dev"] == "wwan0"
    assert bed.status().path("10.2.0.50")["gateway"] in ("", None)
    assert leaves_by(bed, uplink, "10.2.0.50")


def test_a_profile_with_its_own_table_is_pointed_to_and_nothing_is_copied(bed: Bed) -> None:
    network = bed.network("wwan0", "10.2.0.0/24")
    network.serve_dhcp()
    uplink = single(bed, network, "ipv4.route-table 200")
    bed.wait_endpoint("10.2.0.50")
    bed.sync()
    assert bed.table_of("10.2.0.50") == 200
    assert bed.status().path("10.2.0.50")["table"] == 200
    of_ours = [route for route in bed.routes("all") if route.get("protocol") == PROTOCOL]
    assert not [route for route in of_ours if route.get("dev") == "wwan0"]
    assert leaves_by(bed, uplink, "10.2.0.50")


def test_static_routes_are_copied(bed: Bed) -> None:
    network = bed.network("wwan0", "10.2.0.0/24")
    network.add_address("10.2.0.3/24")
    network.serve_dhcp()
    uplink = single(bed, network, "ipv4.routes 198.51.100.0/24 10.2.0.3, 203.0.113.0/24 10.2.0.1 77")
    bed.wait_endpoint("10.2.0.50")
    bed.sync()
    found = {r["dst"]: (r.get("gateway"), r.get("metric")) for r in bed.routes(bed.table_of("10.2.0.50"))}
    assert found["198.51.100.0/24"][0] == "10.2.0.3"
    assert found["203.0.113.0/24"] == ("10.2.0.1", 77)
    by_lte = uplink.capture()
    send_datagram(bed.machine, "198.51.100.9", source="10.2.0.50")
    wait_for("it left by wwan0", lambda: by_lte.sources()["10.2.0.50"] == 1)


def test_the_routes_of_a_lease_are_copied(bed: Bed) -> None:
    network = bed.network("wwan0", "10.2.0.0/24")
    network.serve_dhcp(classless_static_route="0.0.0.0/0,10.2.0.1,198.51.100.0/24,10.2.0.3")
    single(bed, network)
    bed.wait_endpoint("10.2.0.50")
    bed.sync()
    found = {
        r["dst"]: r.get("gateway")
        for r in bed.routes(bed.table_of("10.2.0.50"))
        if r.get("type", "unicast") in ("unicast", "1")
    }
    assert found == {"default": "10.2.0.1", "10.2.0.0/24": None, "198.51.100.0/24": "10.2.0.3"}


def test_a_route_that_comes_later_is_copied_and_goes_again(bed: Bed, up: Links) -> None:
    table = bed.table_of(up.lte.address)

    def copied() -> bool:
        return any(route["dst"] == "198.51.100.0/24" for route in bed.routes(table))

    bed.sh("ip route add 198.51.100.0/24 via 10.2.0.1 dev wwan0 mtu 1300")
    wait_for("the route is copied", copied)
    (route,) = [each for each in bed.routes(table) if each["dst"] == "198.51.100.0/24"]
    assert route["metrics"] == [{"mtu": 1300}]
    bed.sh("ip route del 198.51.100.0/24")
    wait_for("the copy is gone", lambda: not copied())


def test_two_advertising_routers_are_two_hops(bed: Bed) -> None:
    network = bed.network("wwan0", prefix6="2001:db8:2::/64")
    routers = [network.add_router(), network.add_router()]
    EchoServer(bed.far)
    bed.start_service()
    uplink = bed.uplink("wwan0", network)
    bed.profile("LTE", "wwan0", "ipv6.method auto", "ipv4.method disabled", "ipv6.may-fail no")
    bed.up("LTE")
    address = uplink.address6()
    bed.wait_endpoint(address)

    def gateways() -> set[str]:
        routes = bed.routes(bed.table_of(address), "-6")
        hops = [hop for route in routes if route["dst"] == "default" for hop in route.get("nexthops", [route])]
        return {hop["gateway"] for hop in hops if "gateway" in hop}

    def expect(*those: int) -> None:
        wait_for(f"gateways {those}", lambda: gateways() == {routers[each].link_local for each in those})
        bed.sync()
        assert gateways() == {routers[each].link_local for each in those}

    for router in routers:
        router.advertise()
    expect(0, 1)
    routers[0].advertise(lifetime=0)
    expect(1)
    routers[0].advertise(lifetime=1800)
    expect(0, 1)
    routers[1].advertise(lifetime=0)
    expect(0)
    assert leaves_by(bed, uplink, address, SERVER6)


# --- the gateway changes


def test_a_renewed_lease_with_another_gateway_is_followed(bed: Bed) -> None:
    network = bed.network("wwan0", "10.2.0.0/24")
    network.add_address("10.2.0.2/24")
    network.serve_short_leases()
    uplink = single(bed, network)
    before = bed.wait_endpoint("10.2.0.50")
    wait_for("the first gateway", lambda: bed.default_of("10.2.0.50")["gateway"] == "10.2.0.1")
    network.leased_router = "10.2.0.2"
    wait_for("the second gateway", lambda: bed.default_of("10.2.0.50")["gateway"] == "10.2.0.2")
    assert bed.endpoint("10.2.0.50") == before
    assert leaves_by(bed, uplink, "10.2.0.50")
    assert bed.status().path("10.2.0.50")["gateway"] == "10.2.0.2"


def test_a_reapplied_profile_with_another_gateway_is_followed(bed: Bed) -> None:
    network = bed.network("wwan0", "10.2.0.0/24")
    network.add_address("10.2.0.2/24")
    uplink = single(bed, network, "ipv4.method manual", "ipv4.addresses 10.2.0.50/24", "ipv4.gateway 10.2.0.1")
    before = bed.wait_endpoint("10.2.0.50")
    bed.modify("LTE", "ipv4.gateway 10.2.0.2")
    bed.reapply("wwan0")
    wait_for("the second gateway", lambda: bed.default_of("10.2.0.50")["gateway"] == "10.2.0.2")
    bed.sync()
    gateways = [r.get("gateway") for r in bed.routes(bed.table_of("10.2.0.50")) if r["dst"] == "default"]
    assert [each for each in gateways if each] == ["10.2.0.2"]
    assert bed.endpoint("10.2.0.50") == before
    assert leaves_by(bed, uplink, "10.2.0.50")


def test_another_advertising_router_is_followed(bed: Bed) -> None:
    network = bed.network("wwan0", prefix6="2001:db8:2::/64")
    old, new = network.add_router(), network.add_router()
    new.says = old.says.__class__(lifetime=0)
    bed.start_service()
    uplink = bed.uplink("wwan0", network)
    bed.profile("LTE", "wwan0", "ipv6.method auto", "ipv4.method disabled", "ipv6.may-fail no")
    bed.up("LTE")
    address = uplink.address6()
    before = bed.wait_endpoint(address)
    assert bed.default_of(address)["gateway"] == old.link_local
    new.advertise(lifetime=1800)
    old.advertise(lifetime=0)
    wait_for("the new router", lambda: bed.default_of(address).get("gateway") == new.link_local)
    bed.sync()
    assert bed.endpoint(address) == before


# --- nothing leaks


@pytest.mark.parametrize("how", ["deleted", "not in the lease any more"])
def test_without_its_own_default_route_nothing_leaves_by_another_link(bed: Bed, how: str) -> None:
    network = bed.network("wwan0", "10.2.0.0/24")
    network.serve_short_leases()
    uplink = single(bed, network)
    bed.wait_endpoint(uplink.address)
    bed.sync()
    by_wifi = bed.uplinks["wlan0"].capture()
    if how == "deleted":
        bed.sh("ip route del default dev wwan0")
    else:
        network.leased_router = None
    wait_for("no default by wwan0", lambda: len(bed.machine.ip("route", "show", "default")) == 1)
    for _ in range(20):
        send_datagram(bed.machine, SERVER, source=uplink.address)
    bed.sync()
    for _ in range(20):
        send_datagram(bed.machine, SERVER, source=uplink.address)
    assert not reaches(bed.machine, SERVER, source=uplink.address, seconds=0.5)
    assert by_wifi.sources()[uplink.address] == 0


def test_without_its_own_default_route_the_subnet_still_works(bed: Bed, up: Links) -> None:
    bed.sh("ip route del default dev wwan0")
    bed.sync()
    assert leaves_by(bed, up.lte, up.lte.address, up.lte.gateway)


def test_a_default_route_that_comes_back_makes_the_path_whole_again(bed: Bed, up: Links) -> None:
    bed.sh("ip route del default dev wwan0")
    bed.wait_no_endpoint(up.lte.address)
    bed.sh("ip route add default via 10.2.0.1 dev wwan0 metric 700")
    bed.wait_endpoint(up.lte.address)
    bed.sync()
    assert leaves_by(bed, up.lte, up.lte.address)
    assert [r.get("gateway") for r in bed.routes(bed.table_of(up.lte.address)) if r["dst"] == "default"] == ["10.2.0.1"]


def test_a_link_that_goes_down_under_a_bound_socket_leaks_nothing(bed: Bed, up: Links) -> None:
    by_wifi = up.wifi.capture()
    up.lte.carrier(False)
    for _ in range(20):
        send_datagram(bed.machine, SERVER, source=up.lte.address)
    bed.sync()
    for _ in range(20):
        send_datagram(bed.machine, SERVER, source=up.lte.address)
    assert by_wifi.sources()[up.lte.address] == 0


# --- where a rule of ours would be in the way ---------------------------------------------------------------------------


def test_two_providers_on_one_port_each_route_their_own_address(bed: Bed) -> None:
    EchoServer(bed.far)
    bed.start_service()
    network = bed.network("port", "10.1.0.0/24")
    network.add_address("10.9.0.1/24")
    bed.far.run("ip", "link", "set", network.interface, "promisc", "on")
    uplink = bed.uplink("eth0", network)
    bed.profile(
        "two",
        "eth0",
        "ipv4.method manual",
        "ipv4.addresses 10.1.0.7/24,10.9.0.7/24",
        "ipv4.gateway 10.1.0.1",
        "ipv4.routes 0.0.0.0/0 10.9.0.1 200",
    )
    bed.up("two")
    for address in ("10.1.0.7", "10.9.0.7"):
        bed.wait_endpoint(address)
        bed.sync()
        assert bed.default_of(address)["gateway"] == address.replace(".7", ".1")
        assert leaves_by(bed, uplink, address)


def test_two_sticks_with_the_same_address_both_carry_what_is_bound_to_them(bed: Bed) -> None:
    EchoServer(bed.far)
    bed.start_service()
    for number, name in enumerate(("wwan0", "wwan1")):
        uplink = bed.uplink(name, bed.network(name, "192.168.8.0/24"))
        bed.profile(
            name,
            name,
            "ipv4.method manual",
            "ipv4.addresses 192.168.8.100/24",
            "ipv4.gateway 192.168.8.1",
            f"ipv4.route-metric {100 + number}",
        )
        bed.up(name)
        uplink.capture()
    bed.sync()
    for name, uplink in bed.uplinks.items():
        sent = uplink.capture()
        with bed.machine.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
            client.bind(("192.168.8.100", 0))
            client.sendto(b"hello", ("203.0.113.7", 7))
        wait_for(f"it left by {name}", lambda sent=sent: sent.sources()["192.168.8.100"] > 0)


@pytest.mark.bed(configuration=CHECKING)
def test_behind_strict_filters_what_waits_for_the_connectivity_check_hears_its_answer(bed: Bed, links: Links) -> None:
    """Were its rules withheld while it waits, the answer would be dropped, and it would wait for ever."""
    bed.without_dispatcher_scripts()
    server = CheckServer(bed)
    server.portals.add("10.2.0.")
    bed.up("Wi-Fi", "LTE")
    wait_connectivity(bed, "wlan0", "full")
    wait_connectivity(bed, "wwan0", "portal")
    bed.machine.sysctl(**{f"net.ipv4.conf.{name}.rp_filter": "1" for name in ("all", "wlan0", "wwan0")})
    bed.start_service()
    assert bed.status().path(links.lte.address)["rule"] == "no-connectivity"
    server.portals.clear()
    wait_connectivity(bed, "wwan0", "full")
    bed.wait_endpoint(links.lte.address)


def test_a_service_address_on_lo_leaves_by_whatever_link_there_is(bed: Bed, up: Links) -> None:
    bed.nmcli(
        *("connection", "add", "type", "loopback", "connection.id", "service", "connection.interface-name", "lo"),
        *("ipv4.method", "manual", "ipv4.addresses", "127.0.0.1/8,198.51.100.7/32", "connection.autoconnect", "no"),
        *("connection.mptcp-flags", "signal,also-without-default-route"),
    )
    bed.up("service")
    wait_for("it is there", lambda: "198.51.100.7" in bed.machine.run("ip", "address", "show", "lo"))
    bed.sync()
    assert bed.rules("198.51.100.7") == []
    sent = up.wifi.capture()
    send_datagram(bed.machine, SERVER, source="198.51.100.7")
    wait_for("it left", lambda: sent.sources()["198.51.100.7"] > 0)


def test_a_gateway_that_was_silent_for_a_while_is_asked_again_at_once(bed: Bed) -> None:
    """An unreachable default beside the real one would be preferred by IPv6 from then on, for a minute."""
    EchoServer(bed.far)
    bed.start_service()
    bed.uplink("wlan0", ra="2001:db8:1::/64")
    bed.profile("Wi-Fi", "wlan0", "ipv6.method auto", "ipv4.method disabled")
    bed.up("Wi-Fi")
    address = bed.uplinks["wlan0"].address6()
    bed.wait_endpoint(address)
    bed.sync()
    assert reaches(bed.machine, SERVER6, source=address)
    bed.far.sh("nft add table ip6 quiet")
    bed.far.sh("nft add chain ip6 quiet before '{ type filter hook prerouting priority 0; policy drop; }'")

    def failed() -> bool:
        # Looked at first: a packet has the kernel ask anew.
        states = [neighbour["state"] for neighbour in bed.machine.ip("-6", "neigh", "show", "dev", "wlan0")]
        send_datagram(bed.machine, SERVER6, source=address)
        return any("FAILED" in state for state in states)

    wait_for("the gateway's entry has failed", failed, seconds=30, every=0.2)
    bed.far.sh("nft delete table ip6 quiet")
    wait_for("it is reached", lambda: reaches(bed.machine, SERVER6, source=address, seconds=1), seconds=15)


# --- what only a lost link led to ---------------------------------------------------------------------------------------


@pytest.mark.may_be_late(reason="each question takes up to 1 s, and the way around has 3 s")
@pytest.mark.parametrize("destination", ["own subnet", "static route"])
def test_what_only_a_lost_link_led_to_is_reached_by_another(bed: Bed, up: Links, destination: str) -> None:
    """There the far side knows a way to both; a socket of the other link's goes there as well, and by its own link."""
    server = "10.1.0.1"
    if destination == "static route":
        server = "198.51.100.9"
        bed.far.run("ip", "address", "add", f"{server}/32", "dev", "lo")
        bed.modify("Wi-Fi", f"ipv4.routes {server}/32 {up.wifi.gateway}")
        bed.reapply("wlan0")
    assert reaches(bed.machine, server)
    up.wifi.carrier(False)
    wait_for("it is reached", lambda: reaches(bed.machine, server, seconds=1), seconds=3)
    bed.sync()
    sent = up.lte.capture()
    assert reaches(bed.machine, server, source=up.lte.address)
    assert sent.sources()[up.lte.address] > 0
    up.wifi.carrier(True)
    wait_for("the ways around are gone", lambda: not detours_of(bed), seconds=10)


def detours_of(bed: Bed) -> list[dict[str, object]]:
    """Routes of ours in the main table."""
    return [route for route in bed.routes("main") if route["protocol"] == PROTOCOL]
