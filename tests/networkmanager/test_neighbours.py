# SPDX-License-Identifier: GPL-2.0-or-later
"""Containers, hotspot clients and tunnels on the same machine work as they would without nm-mptcp."""

from __future__ import annotations

import pytest

from ..support.waits import wait_for
from .bed import PROTOCOL, SERVER, Bed, Namespace
from .traffic import EchoServer, reaches, send_datagram
from .tunnel import Tunnel
from .uplinks import Links


@pytest.fixture
def up(bed: Bed, links: Links) -> Links:
    """Service running, both links up, echo servers on the machine and beyond."""
    EchoServer(bed.far)
    EchoServer(bed.machine)
    bed.start_service()
    links.bring_up()
    return links


def container(bed: Bed) -> Namespace:
    """A container behind a bridge, masqueraded, the way container engines do it."""
    made = bed.namespace("container")
    bed.sh(f"""
        ip link add ctr0 type bridge
        ip address add 172.17.0.1/16 dev ctr0
        ip link set ctr0 up
        ip link add vctr0 type veth peer name eth0 netns {bed.inner(made.pid)}
        ip link set vctr0 master ctr0 up
        echo 1 >/proc/sys/net/ipv4/ip_forward
        nft add table ip ctr
        nft 'add chain ip ctr post {{ type nat hook postrouting priority srcnat; }}'
        nft add rule ip ctr post ip saddr 172.17.0.0/16 oifname != ctr0 masquerade
    """)  # fmt: skip
    made.run("ip", "address", "add", "172.17.0.2/16", "dev", "eth0")
    made.run("ip", "link", "set", "eth0", "up")
    made.run("ip", "route", "add", "default", "via", "172.17.0.1")
    return made


def test_a_container_reaches_the_hosts_uplink_addresses_and_the_world(bed: Bed, up: Links) -> None:
    guest = container(bed)
    bed.sync()
    for link in (up.wifi, up.lte):
        assert reaches(guest, link.address), link.name
    assert reaches(guest, SERVER)
    assert reaches(guest, "172.17.0.1")


def test_the_host_reaches_a_container_from_an_uplinks_address(bed: Bed, up: Links) -> None:
    guest = container(bed)
    EchoServer(guest)
    bed.sync()
    for link in (up.wifi, up.lte):
        assert reaches(bed.machine, "172.17.0.2", source=link.address), link.name


def test_a_container_reaches_all_that_with_strict_reverse_path_filters(bed: Bed, up: Links) -> None:
    bed.machine.sysctl(**{f"net.ipv4.conf.{name}.rp_filter": "1" for name in ("all", "wlan0", "wwan0")})
    guest = container(bed)
    bed.sync()
    for link in (up.wifi, up.lte):
        assert reaches(guest, link.address), link.name
    assert reaches(guest, SERVER)


def test_a_bridge_is_no_path(bed: Bed, up: Links) -> None:
    container(bed)
    bed.sync()
    assert bed.endpoint("172.17.0.1") is None
    assert bed.rules("172.17.0.1") == []
    assert {each.address for each in bed.endpoints()} == {up.wifi.address, up.lte.address}


def test_a_hotspots_client_reaches_the_host_and_the_world(bed: Bed, up: Links) -> None:
    client = bed.namespace("client")
    bed.sh(f"ip link add ap0 type veth peer name eth0 netns {bed.inner(client.pid)}")
    client.sh("ip link set eth0 up")
    wait_for("NetworkManager sees ap0", lambda: "ap0:disconnected" in bed.nmcli("-g", "DEVICE,STATE", "device"))
    bed.profile("Hotspot", "ap0", "ipv4.method shared", "ipv4.addresses 10.42.0.1/24")
    bed.up("Hotspot")
    client.sh("ip address add 10.42.0.77/24 dev eth0")
    client.sh("ip route add default via 10.42.0.1")
    bed.sync()
    for link in (up.wifi, up.lte):
        assert reaches(client, link.address), link.name
    assert reaches(client, "10.42.0.1")
    assert reaches(client, SERVER)
    assert bed.endpoint("10.42.0.1") is None
    assert bed.rules("10.42.0.1") == []
    path = bed.status().path("10.42.0.1")
    assert path["state"] == "excluded"
    assert path["reason"]


def test_a_split_tunnels_destinations_go_into_the_tunnel(bed: Bed, up: Links) -> None:
    tunnel = Tunnel(bed, "10.8.0.2/24", "203.0.113.0/24")
    bed.sync()
    captures = [link.capture() for link in (up.wifi, up.lte)]
    for link in (up.wifi, up.lte):
        send_datagram(bed.machine, "203.0.113.5", source=link.address)
        send_datagram(bed.machine, "10.8.0.9", source=link.address)
    assert tunnel.sources() == {up.wifi.address: 2, up.lte.address: 2}
    assert not any(capture.sources() for capture in captures)


def test_openvpns_two_halves_are_not_bypassed_by_a_bound_socket(bed: Bed, up: Links) -> None:
    server = "192.0.2.77"  # the tunnel's own far end goes by the Wi-Fi, as OpenVPN sets it
    bed.sh(f"ip route add {server}/32 via {up.wifi.gateway} dev wlan0")
    tunnel = Tunnel(bed, "10.8.0.2/24", "0.0.0.0/1", "128.0.0.0/1")
    bed.sync()
    by_wifi, by_lte = up.wifi.capture(), up.lte.capture()
    for destination in (SERVER, "8.8.8.8"):
        for link in (up.wifi, up.lte):
            send_datagram(bed.machine, destination, source=link.address)
    assert tunnel.sources() == {up.wifi.address: 2, up.lte.address: 2}
    assert not by_wifi.sources()
    assert not by_lte.sources()
    send_datagram(bed.machine, server, source=up.wifi.address)
    wait_for("the tunnel itself goes by wlan0", lambda: by_wifi.sources() == {up.wifi.address: 1})


@pytest.mark.usefixtures("up")
def test_a_tunnel_is_no_path(bed: Bed) -> None:
    Tunnel(bed, "10.8.0.2/24", "0.0.0.0/1", "128.0.0.0/1")
    bed.sync()
    assert bed.endpoint("10.8.0.2") is None
    assert not [rule for rule in bed.rules(protocol=PROTOCOL) if rule["src"] == "10.8.0.2"]
