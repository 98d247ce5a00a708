# SPDX-License-Identifier: GPL-2.0-or-later
"""What has a link's address as its source leaves by that link, and never by another."""

from __future__ import annotations

import pytest

from .bed import PROTOCOL, SERVER, SERVER6, Bed
from .namespaces import wait_for
from .traffic import EchoServer, reaches, send_datagram
from .uplinks import Links, Network, Uplink


@pytest.fixture
def up(bed: Bed, links: Links) -> Links:
    """Service and an echo server running, both links up."""
    EchoServer(bed.far)
    bed.start_service()
    bed.up("Wi-Fi", "LTE")
    for link in (links.wifi, links.lte):
        bed.wait_endpoint(link.address)
    bed.sync()
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
