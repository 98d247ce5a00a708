# SPDX-License-Identifier: GPL-2.0-or-later
"""What NetworkManager itself does with endpoints: the ground that the design stands on, and the proof of the bed."""

from __future__ import annotations

import pytest

from ..support.waits import wait_for
from .bed import SERVER, SERVER6, Bed
from .observe import writes_of
from .traffic import Connection, EchoServer, reaches, send_datagram

pytestmark = pytest.mark.bed(product=False)


@pytest.mark.bed(product=False, dropin=False)
def test_without_the_dropin_networkmanager_adds_a_subflow_endpoint(bed: Bed) -> None:
    wifi = bed.uplink("wlan0", dhcp="10.1.0.0/24")
    bed.profile("Wi-Fi", "wlan0")
    bed.up("Wi-Fi")
    endpoint = bed.wait_endpoint(wifi.address)
    assert (endpoint.device, endpoint.flags >= {"subflow"}) == ("wlan0", True)
    bed.down("Wi-Fi")
    bed.wait_no_endpoint(wifi.address)


def test_with_the_dropin_a_profile_with_default_flags_gets_none(bed: Bed) -> None:
    bed.uplink("wlan0", dhcp="10.1.0.0/24")
    bed.profile("Wi-Fi", "wlan0")
    bed.up("Wi-Fi")
    assert bed.endpoints() == ()


def test_limits_rules_and_tables_are_nobodys_business(bed: Bed) -> None:
    before = bed.footprint()
    bed.uplink("wlan0", dhcp="10.1.0.0/24")
    bed.profile("Wi-Fi", "wlan0", "connection.mptcp-flags 0x22")
    bed.up("Wi-Fi")
    after = bed.footprint()
    assert (after["rules"], after["limits"]) == (before["rules"], before["limits"])


@pytest.mark.parametrize("dropin", [True, False])
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("0x1", None),
        ("0x2", set()),
        ("0x22", {"subflow"}),
        ("0x62", {"subflow", "backup"}),
        ("0x12", {"signal"}),
        ("0xa2", {"subflow", "fullmesh"}),
        ("0x10", {"signal"}),
        ("0x20", {"subflow"}),
    ],
)
def test_explicit_flags_mean_what_they_say(bed: Bed, flags: str, expected: set[str] | None, dropin: bool) -> None:
    bed.dropin(dropin)
    bed.reload_networkmanager()
    wifi = bed.uplink("wlan0", dhcp="10.1.0.0/24")
    bed.profile("Wi-Fi", "wlan0", f"connection.mptcp-flags {flags}")
    bed.up("Wi-Fi")
    found = bed.endpoint(wifi.address)
    assert (found and set(found.flags)) == expected


def test_an_endpoint_of_ours_survives_where_the_dropin_counts(bed: Bed) -> None:
    wifi = bed.uplink("wlan0", dhcp="10.1.0.0/24")
    bed.uplink("wwan0", dhcp="10.2.0.0/24")
    bed.profile("Wi-Fi", "wlan0")
    bed.profile("LTE", "wwan0", "connection.mptcp-flags 0x22")
    bed.up("Wi-Fi")
    bed.sh(f"ip mptcp endpoint add {wifi.address} dev wlan0 id 77 subflow backup")
    bed.up("LTE")
    bed.reapply("wlan0")
    bed.reapply("wwan0")
    bed.down("LTE")
    endpoint = bed.endpoint(wifi.address)
    assert endpoint
    assert (endpoint.id, set(endpoint.flags)) == (77, {"subflow", "backup"})


@pytest.mark.bed(product=False, dropin=False)
def test_the_dropin_does_not_count_for_a_device_that_was_active_before(bed: Bed) -> None:
    wifi = bed.uplink("wlan0", dhcp="10.1.0.0/24")
    bed.uplink("wwan0", dhcp="10.2.0.0/24")
    bed.profile("Wi-Fi", "wlan0")
    bed.profile("LTE", "wwan0", "connection.mptcp-flags 0x22")
    bed.up("Wi-Fi")
    bed.dropin(True)
    bed.reload_networkmanager()
    bed.sh(f"ip mptcp endpoint del id {bed.wait_endpoint(wifi.address).id}")
    bed.sh(f"ip mptcp endpoint add {wifi.address} dev wlan0 id 77 subflow backup")
    bed.up("LTE")
    endpoint = bed.wait_endpoint(wifi.address)
    assert "backup" not in endpoint.flags


def test_ipv6_by_router_advertisement(bed: Bed) -> None:
    wifi = bed.uplink("wlan0", dhcp="10.1.0.0/24", ra="2001:db8:1::/64")
    bed.profile("Wi-Fi", "wlan0", "ipv6.method auto", "ipv6.ip6-privacy 2", "connection.mptcp-flags 0x22")
    bed.up("Wi-Fi")
    stable = wifi.address6()
    wait_for("a privacy address", lambda: set(wifi.addresses(without=())) - {stable})
    bed.wait_endpoint(stable)
    assert [each.address for each in bed.endpoints() if ":" in each.address] == [stable]
    EchoServer(bed.far)
    assert reaches(bed.machine, SERVER)
    assert reaches(bed.machine, SERVER6, source=stable)


def test_a_withdrawn_router_is_forgotten(bed: Bed) -> None:
    wifi = bed.uplink("wlan0", ra="2001:db8:1::/64")
    bed.profile("Wi-Fi", "wlan0", "ipv6.method auto", "ipv4.method disabled", "ipv6.may-fail no")
    bed.up("Wi-Fi")
    wifi.address6()
    wifi.network.routers[0].advertise(lifetime=0)
    wait_for("no default route", lambda: not bed.machine.ip("-6", "route", "show", "default"))


def test_two_routers_are_two_defaults(bed: Bed) -> None:
    network = bed.network("wlan0", prefix6="2001:db8:1::/64")
    routers = [network.add_router(), network.add_router()]
    bed.uplink("wlan0", network)
    bed.profile("Wi-Fi", "wlan0", "ipv6.method auto", "ipv4.method disabled", "ipv6.may-fail no")
    bed.up("Wi-Fi")
    for router in routers:
        router.advertise()

    def gateways() -> set[str]:
        hops = [
            hop for route in bed.machine.ip("-6", "route", "show", "default") for hop in route.get("nexthops", [route])
        ]
        return {hop["gateway"] for hop in hops}

    wait_for("two gateways", lambda: gateways() == {router.link_local for router in routers})


def test_a_dhcp_renewal_changes_the_gateway(bed: Bed) -> None:
    network = bed.network("wlan0", "10.1.0.0/24")
    network.add_address("10.1.0.2/24")
    network.serve_short_leases()
    bed.uplink("wlan0", network)
    bed.profile("Wi-Fi", "wlan0")
    bed.up("Wi-Fi")
    network.leased_router = "10.1.0.2"
    wait_for(
        "the new gateway", lambda: [r["gateway"] for r in bed.machine.ip("route", "show", "default")] == ["10.1.0.2"]
    )


def test_classless_routes_of_the_lease(bed: Bed) -> None:
    network = bed.network("wlan0", "10.1.0.0/24")
    network.serve_dhcp(classless_static_route="0.0.0.0/0,10.1.0.1,198.51.100.0/24,10.1.0.3")
    bed.uplink("wlan0", network)
    bed.profile("Wi-Fi", "wlan0")
    bed.up("Wi-Fi")
    assert {r["dst"]: r.get("gateway") for r in bed.routes("main")} == {
        "default": "10.1.0.1",
        "10.1.0.0/24": None,
        "198.51.100.0/24": "10.1.0.3",
    }


@pytest.mark.may_be_late(reason="1 s is also how late the kernel may be with a carrier (linkwatch_urgent_event)")
def test_carrier_loss_seen_by_the_kernel_at_once(bed: Bed) -> None:
    wifi = bed.uplink("wlan0", dhcp="10.1.0.0/24")
    bed.profile("Wi-Fi", "wlan0")
    bed.up("Wi-Fi")
    wifi.carrier(False)
    wait_for("no carrier", lambda: "LOWER_UP" not in bed.machine.ip("link", "show", "wlan0")[0]["flags"], seconds=1)
    wifi.carrier(True)
    wait_for("carrier", lambda: "LOWER_UP" in bed.machine.ip("link", "show", "wlan0")[0]["flags"], seconds=1)


def test_two_uplinks_on_one_subnet(bed: Bed) -> None:
    network = bed.network("lan", "10.1.0.0/24")
    network.serve_dhcp()
    first, second = bed.uplink("eth0", network), bed.uplink("wlan0", network)
    for uplink in (first, second):
        bed.profile(uplink.name, uplink.name)
        bed.up(uplink.name)
    assert (first.address, second.address) == ("10.1.0.50", "10.1.0.51")
    assert {r["dev"] for r in bed.machine.ip("route", "show", "default")} == {"eth0", "wlan0"}


def test_what_leaves_an_uplink_is_counted(bed: Bed) -> None:
    wifi, lte = bed.uplink("wlan0", dhcp="10.1.0.0/24"), bed.uplink("wwan0", dhcp="10.2.0.0/24")
    for uplink in (wifi, lte):
        bed.profile(uplink.name, uplink.name)
        bed.up(uplink.name)
    by_wifi, by_lte = wifi.capture(), lte.capture()
    for _ in range(2):
        send_datagram(bed.machine, SERVER, source=lte.address)
    assert (by_wifi.sources()[lte.address], by_lte.sources()[lte.address]) == (2, 0)


def test_every_write_of_a_program_is_seen(bed: Bed) -> None:
    wifi = bed.uplink("wlan0", dhcp="10.1.0.0/24")
    bed.profile("Wi-Fi", "wlan0")
    bed.up("Wi-Fi")
    script = f"""
        ip mptcp endpoint add {wifi.address} dev wlan0 subflow
        ip mptcp endpoint change id 1 backup
        ip mptcp endpoint show
        ip mptcp limits set subflows 4
        ip rule add from {wifi.address} lookup 4711
        ip -6 rule show
        ip route add unreachable default table 4711
        ip route flush table 4711
        ip address show
        echo 2 >/proc/sys/net/ipv4/conf/wlan0/rp_filter
        ip mptcp endpoint del id 1
    """
    assert writes_of(bed, "sh", "-e", "-c", script) == [
        "add endpoint",
        "set flags",
        "set limits",
        "RTM_NEWRULE",
        "RTM_NEWROUTE",
        "RTM_DELROUTE",
        "sysctl /proc/sys/net/ipv4/conf/wlan0/rp_filter",
        "delete endpoint",
    ]


def test_networkmanagers_own_endpoint_makes_a_second_subflow(bed: Bed) -> None:
    wifi, lte = bed.uplink("wlan0", dhcp="10.1.0.0/24"), bed.uplink("wwan0", dhcp="10.2.0.0/24")
    EchoServer(bed.far)
    for uplink in (wifi, lte):
        bed.profile(uplink.name, uplink.name, "connection.mptcp-flags 0x22")
        bed.up(uplink.name)
    connection = Connection(bed.machine, SERVER)
    connection.wait_subflow(lte.address)
    assert {address for address, _ in connection.subflows()} == {wifi.address, lte.address}
