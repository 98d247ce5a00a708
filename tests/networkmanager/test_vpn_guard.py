# SPDX-License-Identifier: GPL-2.0-or-later
"""While a full tunnel carries a family, nothing goes around it; a split tunnel, and the tunnel's own packets, do not care."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..support.waits import wait_for
from .bed import DEFAULT_FLAGS, PROTOCOL, SERVER, SERVER6, Bed
from .connectivity import CHECKING, CheckServer, connectivity
from .observe import Writes
from .test_configuration import SETTINGS, reload
from .test_failover import start_service, wait_state
from .traffic import Connection, EchoServer, over_both, reaches
from .uplinks import Links
from .vpn import CLIENT, CLIENT6, GATEWAY, MARK, VPN, beside_the_tunnel

#: The port of connections that begin when the guard is in force.
LATER = 5001


@pytest.fixture
def up(bed: Bed, links: Links) -> Links:
    """Both links are up and are paths; echo servers listen."""
    EchoServer(bed.far)
    EchoServer(bed.far, LATER)
    start_service(bed)
    links.bring_up()
    return links


def openvpn(bed: Bed, links: Links) -> tuple[VPN, Callable[[], None]]:
    """Halves of the default, made by hand as OpenVPN's client makes them."""
    vpn = VPN(bed)
    vpn.exempt_server(links.wifi.gateway, links.wifi.name)
    vpn.up()
    vpn.default_in_halves()
    return vpn, vpn.stop


def tun_profile(bed: Bed, *settings: str) -> None:
    """A ``tun`` profile "VPN" of NetworkManager's with the best default route, and its device."""
    all_settings = [
        "con-name VPN",
        "ifname vpn0",
        "mode tun",
        "autoconnect no",
        "ipv6.method disabled",
        "ipv4.method manual",
        f"ipv4.addresses {CLIENT}/24",
        f"ipv4.gateway {GATEWAY}",
        "ipv4.route-metric 50",
        *settings,
    ]
    bed.nmcli("connection", "add", "type", "tun", *[word for pair in all_settings for word in pair.split()])
    bed.machine.run("ip", "tuntap", "add", "vpn0", "mode", "tun")


def with_metric(bed: Bed, links: Links) -> tuple[VPN, Callable[[], None]]:
    """A ``tun`` profile of NetworkManager's with the best default route."""
    tun_profile(bed)
    vpn = VPN(bed, name="vpn0")
    vpn.exempt_server(links.wifi.gateway, links.wifi.name)
    bed.up("VPN")
    return vpn, lambda: bed.down("VPN")


def wireguard(bed: Bed, _: Links) -> tuple[VPN, Callable[[], None]]:
    """wg-quick's rules by hand: a table of its own for all that is not marked."""
    vpn = VPN(bed, mark=MARK)
    vpn.up()
    vpn.default_by_rules()
    return vpn, vpn.no_default_by_rules


def is_there(bed: Bed, vpn: VPN) -> bool:
    """Whether the tunnel's device exists."""
    return f" {vpn.name}:" in bed.sh("ip -o link")


@pytest.mark.parametrize("begin", [openvpn, with_metric, wireguard])
def test_nothing_goes_around_a_full_tunnel_and_all_returns_after_it(
    bed: Bed, up: Links, begin: Callable[[Bed, Links], tuple[VPN, Callable[[], None]]]
) -> None:
    before = {endpoint.address: endpoint for endpoint in bed.endpoints()}
    limits = bed.path_manager.limits()
    connection = over_both(bed, up)
    vpn, end = begin(bed, up)
    for link in (up.wifi, up.lte):
        shown = wait_state(bed, link.address, "suspended", "vpn-guard")
        assert vpn.name in str(shown["reason"])
        bed.wait_no_endpoint(link.address)
    bed.sync()
    assert bed.rules(protocol=PROTOCOL) == []
    assert not connection.subflows()
    assert bed.path_manager.limits()["subflows"] > 0
    guard = bed.status()["guard"]
    assert guard["tunnels"] == {"ipv4": f"the tunnel {vpn.name}"}
    assert (guard["cut_subflows"], guard["cut_connections"]) == (2, 1)
    assert bed.service
    assert "VPN guard: 2 subflows closed, 1 connections had no other" in bed.service.log()

    captures = [link.capture() for link in (up.wifi, up.lte)]
    for _ in range(5):
        later = Connection(bed.machine, SERVER, port=LATER)
        assert {local for local, _ in later.subflows()} == {CLIENT}
        later.close()
    bound = reaches(bed.machine, SERVER, source=up.lte.address, port=LATER, seconds=0.5)
    assert not beside_the_tunnel(*captures, port=LATER), bound
    assert any(capture.packets() for capture in captures), "the tunnel's own packets"

    end()
    for link in (up.wifi, up.lte):
        after = bed.wait_endpoint(link.address)
        assert (after.device, after.flags) == (before[link.address].device, before[link.address].flags)
        wait_state(bed, link.address, "active", "flags-of-kind")
    bed.sync()
    assert bed.table_of(up.lte.address)
    if is_there(bed, vpn):  # it still keeps what begins in it
        assert bed.path_manager.limits() == {**limits, "add_addr_accepted": 0}
        vpn.stop()
    if is_there(bed, vpn):
        bed.sh(f"ip link delete {vpn.name}")
    wait_for("the limits of before", lambda: bed.path_manager.limits() == limits)


@pytest.mark.bed(product=False, dropin=False)
def test_networkmanager_alone_lets_connections_go_around_the_tunnel(bed: Bed, links: Links) -> None:
    """What all this is for; and that the packets are seen where they are counted."""
    EchoServer(bed.far, LATER)
    bed.sh("ip mptcp limits set subflows 4 add_addr_accepted 4")
    bed.up("Wi-Fi", "LTE")
    for link in (links.wifi, links.lte):
        bed.wait_endpoint(link.address)
    openvpn(bed, links)
    captures = [link.capture() for link in (links.wifi, links.lte)]
    later = Connection(bed.machine, SERVER, port=LATER)
    for link in (links.wifi, links.lte):
        later.wait_subflow(link.address)
    assert {packet.source for packet in beside_the_tunnel(*captures, port=LATER)} == {
        links.wifi.address,
        links.lte.address,
    }


def test_in_a_steady_state_the_guard_writes_and_asks_nothing(bed: Bed, up: Links) -> None:
    openvpn(bed, up)
    bed.wait_no_endpoint(up.lte.address)
    bed.sync()
    assert bed.service
    with Writes(bed, bed.service.program) as writes:
        for _ in range(3):
            bed.sync()
    assert writes.all == []


@pytest.mark.parametrize("routes", [("203.0.113.0/24",), ("0.0.0.0/1",), ("128.0.0.0/1", "10.0.0.0/8")])
def test_a_split_tunnel_suspends_nothing(bed: Bed, up: Links, routes: tuple[str, ...]) -> None:
    before = bed.endpoints()
    connection = over_both(bed, up)
    subflows = connection.subflows()
    vpn = VPN(bed)
    vpn.exempt_server(up.wifi.gateway, up.wifi.name)
    vpn.up()
    for route in routes:
        bed.sh(f"ip route add {route} dev tun0")
    bed.sync()
    assert bed.endpoints() == before
    assert bed.status()["guard"]["tunnels"] == {}
    assert connection.subflows() == subflows


def test_explicit_flags_are_no_exception_and_come_back_as_they_were(bed: Bed, links: Links) -> None:
    EchoServer(bed.far)
    bed.modify("LTE", "connection.mptcp-flags 0x62")
    start_service(bed)
    bed.up("Wi-Fi", "LTE")
    before = bed.wait_endpoint(links.lte.address)
    assert "backup" in before.flags
    vpn, end = openvpn(bed, links)
    wait_state(bed, links.lte.address, "suspended", "vpn-guard")
    bed.wait_no_endpoint(links.lte.address)
    end()
    after = bed.wait_endpoint(links.lte.address)
    assert (after.device, after.flags) == (before.device, before.flags)
    assert vpn.name == "tun0"


def test_what_networkmanager_adds_again_is_taken_out_again(bed: Bed, up: Links) -> None:
    bed.modify("LTE", "connection.mptcp-flags 0x22")
    bed.up("LTE")
    bed.wait_endpoint(up.lte.address)
    third = bed.uplink("eth0", dhcp="10.3.0.0/24")
    bed.profile("Wired", "eth0", "connection.mptcp-flags 0x22")
    openvpn(bed, up)
    bed.wait_no_endpoint(up.lte.address)
    assert bed.service
    with Writes(bed, bed.service.program) as writes:
        bed.up("Wired")  # NetworkManager brings all its endpoints in order now
        wait_state(bed, third.address, "suspended", "vpn-guard")
        bed.wait_no_endpoint(third.address)
        bed.wait_no_endpoint(up.lte.address)
        bed.sync()
    assert "delete endpoint" in writes.all
    assert not bed.endpoints()


def test_a_tunnel_whose_profile_has_flags_is_a_path_and_what_lies_below_it_is_none(bed: Bed, up: Links) -> None:
    tun_profile(bed, "connection.mptcp-flags 0x22")
    vpn = VPN(bed, name="vpn0")
    vpn.exempt_server(up.wifi.gateway, up.wifi.name)
    bed.up("VPN")
    for link in (up.wifi, up.lte):
        bed.wait_no_endpoint(link.address)
    assert bed.wait_endpoint(CLIENT).flags == {"subflow"}
    assert wait_state(bed, CLIENT, "active", "flags-of-profile")["interface"] == "vpn0"
    bed.sync()
    assert [endpoint.address for endpoint in bed.endpoints()] == [CLIENT]


def test_the_guard_can_be_switched_off_and_on(bed: Bed, up: Links) -> None:
    connection = over_both(bed, up)
    bed.write(SETTINGS, "[main]\nvpn-guard=no\n")
    assert reload(bed).returncode == 0
    openvpn(bed, up)
    bed.sync()
    assert {endpoint.address for endpoint in bed.endpoints()} == {up.wifi.address, up.lte.address}
    assert {local for local, _ in connection.subflows()} == {up.wifi.address, up.lte.address}
    bed.path(SETTINGS).unlink()
    assert reload(bed).returncode == 0
    assert not bed.endpoints()
    assert bed.status().path(up.lte.address)["rule"] == "vpn-guard"


def dual_stack(bed: Bed) -> Links:
    """Two links with both families, and paths of both."""
    EchoServer(bed.far)
    EchoServer(bed.far, LATER)
    links = Links(
        bed.uplink("wlan0", dhcp="10.1.0.0/24", ra="2001:db8:1::/64"),
        bed.uplink("wwan0", dhcp="10.2.0.0/24", ra="2001:db8:2::/64"),
    )
    for name, link, privacy in (("Wi-Fi", links.wifi, "2"), ("LTE", links.lte, "0")):
        bed.profile(name, link.name, "ipv6.method auto", f"ipv6.ip6-privacy {privacy}")
    start_service(bed)
    bed.up("Wi-Fi", "LTE")
    for link in (links.wifi, links.lte):
        bed.wait_endpoint(link.address)
        bed.wait_endpoint(link.address6())
    bed.sync()
    return links


def test_only_the_families_of_the_tunnel_are_guarded(bed: Bed) -> None:
    links = dual_stack(bed)
    ipv4 = {links.wifi.address, links.lte.address}
    ipv6 = {links.wifi.address6(), links.lte.address6()}

    def standing() -> set[str]:
        return {endpoint.address for endpoint in bed.endpoints()}

    assert standing() == ipv4 | ipv6
    vpn = VPN(bed, mark=MARK)
    vpn.up(f"{CLIENT}/24", f"{CLIENT6}/64")
    vpn.default_by_rules("-4")
    wait_for("only IPv6 is left", lambda: standing() == ipv6)
    vpn.default_by_rules("-6")
    wait_for("nothing is left", lambda: not standing())
    assert set(bed.status()["guard"]["tunnels"]) == {"ipv4", "ipv6"}
    vpn.no_default_by_rules("-4")
    wait_for("IPv4 is back", lambda: standing() == ipv4)
    assert not [rule for rule in bed.rules(protocol=PROTOCOL) if ":" in rule["src"]]
    captures = [link.capture() for link in (links.wifi, links.lte)]
    later = Connection(bed.machine, SERVER6, port=LATER)
    assert {local for local, _ in later.subflows() if ":" in local} == {CLIENT6}
    assert not [packet for packet in beside_the_tunnel(*captures, port=LATER) if ":" in packet.source]
    vpn.no_default_by_rules("-6")
    wait_for("all is back", lambda: standing() == ipv4 | ipv6)


def test_an_initial_subflow_on_a_temporary_address_is_closed_as_well(bed: Bed) -> None:
    links = dual_stack(bed)
    stable = links.wifi.address6()
    temporary = wait_for(
        "a temporary address", lambda: [it for it in links.wifi.addresses(without=("tentative",)) if it != stable]
    )[0]
    connection = Connection(bed.machine, SERVER6, source=temporary)
    connection.wait_subflow(links.lte.address6())
    vpn = VPN(bed, mark=MARK)
    vpn.up(f"{CLIENT}/24", f"{CLIENT6}/64")
    vpn.default_by_rules("-6")
    wait_for("no subflow is left", lambda: not connection.subflows())
    assert bed.endpoint(links.wifi.address)
    guard = bed.status()["guard"]
    assert (guard["cut_subflows"], guard["cut_connections"]) == (3, 1)


def test_the_tunnels_own_socket_works_on_though_it_is_bound_to_a_guarded_address(bed: Bed, up: Links) -> None:
    vpn = VPN(bed, source=up.lte.address)
    vpn.exempt_server(up.lte.gateway, up.lte.name)
    vpn.up()
    vpn.default_in_halves()
    for link in (up.wifi, up.lte):
        bed.wait_no_endpoint(link.address)
    bed.sync()
    capture = up.lte.capture()
    connection = Connection(bed.machine, SERVER, port=LATER)
    for _ in range(20):
        connection.echo()
    assert {packet.source for packet in capture.packets()} == {up.lte.address}
    assert not beside_the_tunnel(capture, port=LATER)


def test_a_tunnel_over_mptcp_keeps_its_subflows_and_nobody_makes_another(bed: Bed, up: Links) -> None:
    limits = bed.path_manager.limits()
    vpn = VPN(bed, mptcp=True)
    vpn.exempt_server(up.wifi.gateway, up.wifi.name)
    vpn.up()
    vpn.default_in_halves()
    wait_state(bed, up.wifi.address, "suspended", "kept-beside-tunnel")
    assert bed.path_manager.limits()["subflows"] == 0
    captures = [link.capture() for link in (up.wifi, up.lte)]
    connection = Connection(bed.machine, SERVER, port=LATER)
    for _ in range(20):
        connection.echo()
    assert {local for local, _ in connection.subflows()} == {CLIENT}
    bed.sync()
    assert bed.endpoint(up.wifi.address)
    assert not beside_the_tunnel(*captures, port=LATER)
    vpn.stop()
    for link in (up.wifi, up.lte):
        wait_state(bed, link.address, "active", "flags-of-kind")
    assert bed.path_manager.limits() == limits


def test_a_connection_into_the_local_network_is_not_cut(bed: Bed, up: Links) -> None:
    inside = Connection(bed.machine, up.wifi.gateway)
    outside = over_both(bed, up)
    before = {each for each in inside.subflows() if each[0] == up.wifi.address}
    assert before
    openvpn(bed, up)
    wait_state(bed, up.wifi.address, "suspended", "kept-beside-tunnel")
    inside.echo()
    here = bed.machine.run("ss", "-Htn", "state", "established", "dst", SERVER)
    assert not here
    inside.close()
    outside.close()
    bed.wait_no_endpoint(up.wifi.address)


def test_a_policy_of_ipsec_is_a_full_tunnel_without_a_device(bed: Bed, up: Links) -> None:
    """As strongSwan has it: a route in table 220 that chooses the inner address, and a policy on that address."""
    bed.sh(f"""
        ip address add 10.9.0.7/32 dev {up.wifi.name}
        ip rule add priority 220 table 220
        ip route add default via {up.wifi.gateway} dev {up.wifi.name} src 10.9.0.7 table 220
    """)
    bed.sync()
    assert bed.endpoint(up.lte.address)
    policy = "src 10.9.0.7/32 dst 0.0.0.0/0 dir out"
    done = bed.machine.attempt(
        "sh", "-c", f"ip xfrm policy add {policy} tmpl src {up.wifi.address} dst 192.0.2.77 proto esp mode tunnel"
    )
    if done.returncode:
        pytest.skip(f"this kernel has no IPsec: {done.stderr.strip()}")
    for link in (up.wifi, up.lte):
        shown = wait_state(bed, link.address, "suspended", "vpn-guard")
        assert "IPsec" in str(shown["reason"])
        bed.wait_no_endpoint(link.address)
    bed.sh(f"ip xfrm policy delete {policy}")
    for link in (up.wifi, up.lte):
        assert bed.wait_endpoint(link.address).flags == DEFAULT_FLAGS


def test_a_service_that_starts_below_a_full_tunnel_guards_it_at_once(bed: Bed, up: Links) -> None:
    openvpn(bed, up)
    bed.wait_no_endpoint(up.lte.address)
    assert bed.service
    bed.service.kill()
    bed.start_service()
    bed.sync()
    assert not bed.endpoints()
    guard = bed.status()["guard"]
    assert guard["tunnels"] == {"ipv4": "the tunnel tun0"}


def test_without_the_service_the_command_guards_as_well(bed: Bed, links: Links) -> None:
    EchoServer(bed.far)
    bed.up("Wi-Fi", "LTE")
    for link in (links.wifi, links.lte):
        bed.wait_endpoint(link.address)
    bed.scripts_are_done()
    _, end = openvpn(bed, links)
    bed.nm_mptcp("apply")
    assert not bed.endpoints()
    assert bed.status().path(links.lte.address)["rule"] == "vpn-guard"
    end()
    bed.nm_mptcp("apply")
    assert {endpoint.address for endpoint in bed.endpoints()} == {links.wifi.address, links.lte.address}


#: The sysctls of strict reverse-path filtering, as RHEL has them.
STRICT = {f"net.ipv4.conf.{name}.rp_filter": "1" for name in ("all", "default", "wlan0", "wwan0")}


def rp_filter(bed: Bed) -> list[str]:
    return [bed.sh(f"cat /proc/sys/net/ipv4/conf/{name}/rp_filter").strip() for name in ("wlan0", "wwan0")]


def tailscale_rules(bed: Bed) -> VPN:
    """Its exit node's rules: its own packets have a mark, and their answers, which have none, are routed into the tunnel."""
    vpn = VPN(bed, mark=0x80000)
    vpn.up()
    bed.sh("""
        ip route add default dev tun0 table 52
        ip rule add priority 5210 fwmark 0x80000/0xff0000 lookup main
        ip rule add priority 5270 lookup 52
    """)
    return vpn


@pytest.mark.bed(configuration=CHECKING)
def test_strict_reverse_path_filters_do_not_stop_a_tunnel_by_marks(bed: Bed, links: Links) -> None:
    """With NetworkManager alone they are loose all the time, as MPTCP is on."""
    CheckServer(bed)
    EchoServer(bed.far)
    bed.machine.sysctl(**STRICT)
    start_service(bed)
    links.bring_up()
    assert rp_filter(bed) == ["1", "1"]
    vpn = tailscale_rules(bed)
    wait_for("they are loose", lambda: rp_filter(bed) == ["2", "2"])
    wait_for("the tunnel works", lambda: reaches(bed.machine, SERVER, seconds=1))
    assert connectivity(bed)["wlan0"] == "full"
    assert not bed.nm_mptcp("apply", "--dry-run")
    bed.sh("ip rule del priority 5270")
    wait_for("they are strict again", lambda: rp_filter(bed) == ["1", "1"])
    bed.sh("ip rule add priority 5270 lookup 52")
    wait_for("they are loose", lambda: rp_filter(bed) == ["2", "2"])
    assert bed.service
    bed.service.kill()
    vpn.stop()
    bed.start_service()
    wait_for("what a service before left is restored", lambda: rp_filter(bed) == ["1", "1"])


@pytest.mark.usefixtures("up")
def test_clear_makes_them_strict_again_and_what_another_program_set_stays(bed: Bed) -> None:
    bed.machine.sysctl(**STRICT)
    tailscale_rules(bed)
    wait_for("they are loose", lambda: rp_filter(bed) == ["2", "2"])
    bed.machine.sysctl(**{"net.ipv4.conf.wlan0.rp_filter": "0"})
    bed.nm_mptcp("clear", "--force")
    wait_for("the one that is still ours", lambda: rp_filter(bed) == ["0", "1"])
