# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection that began in a tunnel stays in it, whatever the tunnel carries; what is no tunnel is not taken for one."""

from __future__ import annotations

import socket

import pytest

from nm_mptcp.kernel.join_filter import IPSEC_NAME

from ..support.waits import wait_for
from .bed import PROTOCOL, SERVER, Bed
from .test_failover import wait_state
from .traffic import Connection, EchoServer, over_both, reaches
from .uplinks import Links
from .vpn import CLIENT, GATEWAY, MARK, VPN, beside_the_tunnel

#: The port of connections that begin when the tunnel is up.
LATER = 5001

#: A server behind the split tunnel; it is reached beside it as well, as a leak would need.
BEHIND = "198.51.100.1"


@pytest.fixture
def up(bed: Bed, links: Links) -> Links:
    """Both links are up and are paths; echo servers listen."""
    bed.far.run("ip", "address", "add", f"{BEHIND}/32", "dev", "lo")
    EchoServer(bed.far)
    EchoServer(bed.far, LATER)
    bed.wait_for_dispatcher()
    bed.start_service()
    links.bring_up()
    return links


def split(bed: Bed, *routes: str) -> VPN:
    """A tunnel that carries these prefixes alone."""
    vpn = VPN(bed)
    vpn.up()
    for route in routes or ("198.51.100.0/24",):
        bed.sh(f"ip route add {route} dev {vpn.name}")
    wait_guarded(bed)
    return vpn


def table(bed: Bed) -> str:
    return bed.machine.attempt("nft", "list", "table", "inet", "nm-mptcp").stdout


def wait_guarded(bed: Bed, name: str = "tun0") -> None:
    wait_for("the packet filter is there", lambda: f'"{name}"' in table(bed))


def held_back(bed: Bed, what: str = "hold") -> int:
    """How many joins were dropped, or announcements."""
    chains = table(bed).split("chain ")[1:]
    words = " ".join(chain for chain in chains if chain.startswith(what)).split()
    return sum(int(words[number + 2]) for number, word in enumerate(words) if word == "counter")


def talk(connection: Connection) -> None:
    """Enough for additional subflows to be opened."""
    for _ in range(20):
        connection.echo(bytes(2000))


def test_a_connection_into_a_split_tunnel_gets_no_subflow_beside_it(bed: Bed, up: Links) -> None:
    split(bed)
    captures = [link.capture() for link in (up.wifi, up.lte)]
    connection = Connection(bed.machine, BEHIND, port=LATER)
    talk(connection)
    wait_for("its joins are held back", lambda: held_back(bed) >= 2)
    assert {local for local, _ in connection.subflows()} == {CLIENT}
    connection.close()
    wait_for("it is closed", lambda: not connection.subflows())
    assert not beside_the_tunnel(*captures, port=LATER), "nor the resets of its joins"


def test_other_connections_have_all_paths_meanwhile(bed: Bed, up: Links) -> None:
    split(bed)
    connection = over_both(bed, up)
    connection.echo()


@pytest.mark.parametrize("bind", ["device", "address", "mark"])
def test_a_connection_that_a_program_sends_into_the_tunnel_stays_there(bed: Bed, up: Links, bind: str) -> None:
    vpn = VPN(bed)
    vpn.up()
    bed.sh(f"ip route add default dev tun0 table 77; ip rule add fwmark 7 table 77; ip rule add from {CLIENT} table 77")
    wait_guarded(bed)
    captures = [link.capture() for link in (up.wifi, up.lte)]
    with bed.machine.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as client:
        client.settimeout(5)
        if bind == "device":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"tun0")
            bed.sh("ip route add default dev tun0 metric 9999")
        elif bind == "address":
            client.bind((CLIENT, 0))
        else:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
        client.connect((SERVER, LATER))
        for _ in range(20):
            client.sendall(bytes(1000))
            client.recv(1 << 16)
        wait_for("its joins are held back", lambda: held_back(bed) >= 2)
        assert not beside_the_tunnel(*captures, port=LATER)


@pytest.fixture
def announced(bed: Bed, links: Links) -> Links:
    """A server's: LTE's address is announced, and clients accept that."""
    bed.modify("LTE", "connection.mptcp-flags enabled,signal")
    EchoServer(bed.machine, LATER)
    bed.far.run("ip", "mptcp", "limits", "set", "subflows", "8", "add_addr_accepted", "8")
    bed.wait_for_dispatcher()
    bed.start_service()
    links.bring_up()
    return links


@pytest.mark.parametrize("marked", [False, True], ids=["by a route", "by a mark"])
def test_a_connection_that_comes_in_by_a_tunnel_is_announced_no_address_beside_it(
    bed: Bed, announced: Links, marked: bool
) -> None:
    outside = Connection(bed.far, announced.wifi.address, port=LATER)
    wait_for("it joins by LTE", lambda: len(outside.subflows()) == 2)
    outside.close()
    wait_for("it is closed", lambda: not outside.subflows())
    VPN(bed).up(*([f"{CLIENT}/32"] if marked else ()))
    if marked:
        # A packet filter leads the answers into the tunnel, when the hook for local output is nearly over.
        bed.sh(f"""
            ip route add default dev tun0 table 77
            ip rule add fwmark 7 table 77 priority 77
            nft add table ip lead
            nft 'add chain ip lead out {{ type route hook output priority 350; }}'
            nft add rule ip lead out ip saddr {CLIENT} meta mark set 7
        """)
    wait_guarded(bed)
    captures = [link.capture() for link in (announced.wifi, announced.lte)]
    connection = Connection(bed.far, CLIENT, port=LATER)
    talk(connection)
    wait_for("the announcement is held back", lambda: held_back(bed, "announcement"))
    # Nor does the path manager of this side open a subflow to the peer, by an endpoint that comes later.
    bed.sh(f"ip mptcp endpoint delete id {bed.wait_endpoint(announced.wifi.address).id}")
    bed.nm_mptcp("apply")
    bed.wait_endpoint(announced.wifi.address)
    bed.sync()
    talk(connection)
    ((local, port),) = connection.subflows()
    assert local == GATEWAY
    assert not [packet for packet in beside_the_tunnel(*captures) if packet.destination == GATEWAY]
    assert not beside_the_tunnel(*captures, port=port)


def test_a_server_that_announces_a_tunnels_address_alone_goes_on_doing_so(bed: Bed, announced: Links) -> None:
    bed.modify("LTE", "connection.mptcp-flags enabled,subflow")
    bed.up("LTE")
    VPN(bed).up(f"{CLIENT}/24", "10.8.0.3/24")
    wait_guarded(bed)
    assert "jump announcement" in table(bed)
    bed.sh("ip mptcp endpoint add 10.8.0.3 dev tun0 signal")
    bed.nm_mptcp("apply")  # the kernel tells of no endpoint
    wait_for("that may be announced", lambda: "jump announcement" not in table(bed))
    connection = Connection(bed.far, CLIENT, port=LATER)
    wait_for("it joins the other address", lambda: len(connection.subflows()) == 2)
    bed.modify("LTE", "connection.mptcp-flags enabled,signal")
    bed.up("LTE")
    wait_for("now it would leak", lambda: "jump announcement" in table(bed))
    bed.wait_endpoint(announced.lte.address)
    wait_for("all is in the tunnel", lambda: {local for local, _ in connection.subflows()} == {GATEWAY}, seconds=15)
    connection.echo()


def test_what_was_beside_the_tunnel_before_the_filter_was_there_is_closed(bed: Bed, links: Links) -> None:
    bed.far.run("ip", "address", "add", f"{BEHIND}/32", "dev", "lo")
    EchoServer(bed.far, LATER)
    bed.wait_for_dispatcher()
    bed.start_service()
    links.bring_up()
    assert bed.service
    bed.service.stop()
    vpn = VPN(bed)
    vpn.up()
    bed.sh("ip route add 198.51.100.0/24 dev tun0")
    connection = Connection(bed.machine, BEHIND, port=LATER)
    connection.wait_subflow(links.lte.address)
    bed.start_service()
    wait_guarded(bed)
    wait_for("it is in the tunnel alone", lambda: {local for local, _ in connection.subflows()} == {CLIENT})
    connection.echo()


def test_the_filter_survives_the_reload_of_a_firewall(bed: Bed, up: Links) -> None:
    split(bed)
    connection = Connection(bed.machine, BEHIND, port=LATER)
    bed.machine.run("nft", "flush", "ruleset")
    wait_guarded(bed)
    talk(connection)
    assert BEHIND in table(bed), "the peers of live connections are known again"
    assert {local for local, _ in connection.subflows()} == {CLIENT}
    assert up.lte.address


def test_a_server_behind_the_tunnel_may_have_all_paths_once_it_is_no_longer_there(bed: Bed, up: Links) -> None:
    split(bed, f"{SERVER}/32")
    behind = Connection(bed.machine, SERVER, port=LATER)
    talk(behind)
    behind.close()
    bed.sh(f"ip route del {SERVER}/32 dev tun0")
    remembered = ("nft", "list", "set", "inet", "nm-mptcp", "peers4")
    wait_for("it is forgotten", lambda: SERVER not in bed.machine.run(*remembered))
    over_both(bed, up)


def test_without_a_tunnel_there_is_no_filter(bed: Bed, up: Links) -> None:
    assert table(bed) == ""
    vpn = split(bed)
    connection = Connection(bed.machine, BEHIND, port=LATER)
    talk(connection)
    vpn.stop()
    wait_for("the tunnel is gone", lambda: not bed.machine.attempt("ip", "link", "show", "tun0").stdout)
    bed.sync()
    assert BEHIND in table(bed), "a connection that began there lives"
    connection.close()
    wait_for("the filter is gone", lambda: table(bed) == "", seconds=100)  # close_timeout
    assert up.wifi.address


def test_policies_of_ipsec_for_some_hosts_are_a_tunnel_as_well(bed: Bed, up: Links) -> None:
    bed.sh(f"""
        ip address add 10.9.0.7/32 dev wlan0
        ip route add {BEHIND}/32 via {up.wifi.gateway} dev wlan0 src 10.9.0.7
    """)
    policy = f"src 10.9.0.7/32 dst {BEHIND}/32 dir out"
    template = f"tmpl src {up.wifi.address} dst 192.0.2.77 proto esp mode tunnel"
    done = bed.machine.attempt("sh", "-c", f"ip xfrm policy add {policy} {template}")
    if done.returncode:
        pytest.skip(f"this kernel has no IPsec: {done.stderr.strip()}")
    wait_guarded(bed, IPSEC_NAME)
    assert bed.status()["guard"]["stays_inside"] == ["IPsec"]
    told = bed.nm_mptcp("explain", BEHIND)
    assert "begins in an IPsec policy, and gets no subflow beside it" in told
    assert told.count("it would bypass an IPsec policy: dropped (vpn-guard)") == 2
    assert "IPsec" not in bed.nm_mptcp("explain", SERVER)
    bed.sh(f"ip xfrm policy delete {policy}")
    wait_for("it is gone", lambda: not table(bed), seconds=15)


def test_clear_removes_it(bed: Bed, up: Links) -> None:
    split(bed)
    bed.nm_mptcp("clear", "--force")
    assert table(bed) == ""
    bed.nm_mptcp("apply")
    wait_guarded(bed)
    assert up.wifi.address


def test_vpn_guard_no_leaves_it_away(bed: Bed, links: Links) -> None:
    bed.write("/etc/nm-mptcp/nm-mptcp.conf", "[main]\nvpn-guard=no\n")
    bed.start_service()
    links.bring_up()
    VPN(bed).up()
    bed.sync()
    assert table(bed) == ""


# --- what is no tunnel


def test_clat_is_no_vpn(bed: Bed, up: Links) -> None:
    """On an IPv6-mostly network clatd's device has the IPv4 default route."""
    connection = over_both(bed, up)
    before = connection.subflows()
    clat = VPN(bed)
    clat.up("192.0.0.1/29")
    clat.default_in_halves()
    bed.sync()
    assert bed.status()["guard"] is None or not bed.status()["guard"]["tunnels"]
    assert bed.status().path(up.wifi.address)["state"] == "active"
    assert table(bed) == ""
    assert connection.subflows() == before
    connection.echo()


# --- what a program sends past a full tunnel by its own choice


@pytest.mark.parametrize("bind", ["device", "mark"])
def test_a_connection_past_a_full_tunnel_by_choice_is_not_closed(bed: Bed, up: Links, bind: str) -> None:
    with bed.machine.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as client:
        client.settimeout(5)
        if bind == "device":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wlan0")
        else:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        client.connect((SERVER, LATER))
        client.sendall(b"before")
        assert client.recv(100) == b"before"
        vpn = VPN(bed, mark=MARK)
        vpn.up()
        vpn.default_by_rules()
        wait_for("the guard acts", lambda: (bed.status()["guard"] or {}).get("tunnels"))
        bed.sync()
        client.sendall(b"after")
        assert client.recv(100) == b"after"
        assert up.wifi.address


# --- a kill switch


def test_the_tunnel_or_nowhere_is_still_a_tunnel_when_the_device_is_gone(bed: Bed, up: Links) -> None:
    vpn = VPN(bed, mark=MARK)
    vpn.up()
    vpn.default_by_rules()
    bed.sh(f"ip route add blackhole default table {MARK} metric 9999")
    wait_state(bed, up.wifi.address, "suspended", "vpn-guard")
    bed.wait_no_endpoint(up.wifi.address)
    captures = [link.capture() for link in (up.wifi, up.lte)]
    vpn.stop()
    wait_for("the tunnel is gone", lambda: not bed.machine.attempt("ip", "link", "show", "tun0").stdout)
    bed.sync()
    shown = wait_state(bed, up.wifi.address, "suspended", "vpn-guard")
    assert "kill switch" in str(shown["reason"])
    assert bed.rules(protocol=PROTOCOL) == []
    assert not reaches(bed.machine, SERVER, source=up.lte.address, port=LATER, seconds=0.5)
    assert not beside_the_tunnel(*captures, port=LATER)
    bed.sh(f"ip rule del table {MARK}; ip rule del table main suppress_prefixlength 0")
    wait_state(bed, up.wifi.address, "active", "flags-of-kind")


def test_a_route_that_rejects_without_a_rule_to_it_is_no_kill_switch(bed: Bed, up: Links) -> None:
    bed.sh("ip route add blackhole default table 99; ip -6 route add unreachable default metric 4096")
    VPN(bed).up()
    bed.sync()
    assert bed.status().path(up.wifi.address)["state"] == "active"
