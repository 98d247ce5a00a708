# SPDX-License-Identifier: GPL-2.0-or-later
"""Kinds of device as NetworkManager runs them: what is built on an uplink is a path, what serves others is none."""

from __future__ import annotations

import pytest

from ..support.waits import wait_for
from .bed import DEFAULT_FLAGS, Bed
from .uplinks import Uplink


@pytest.fixture
def eth0(bed: Bed) -> Uplink:
    """A cable that is in; the service runs."""
    made = bed.uplink("eth0", dhcp="10.1.0.0/24")
    bed.start_service()
    return made


def add(bed: Bed, kind: str, device: str, *settings: str) -> None:
    """A profile of the device's name."""
    words = [word for setting in settings for word in setting.split(" ", 1)]
    bed.nmcli("connection", "add", "type", kind, "ifname", device, "con-name", device,
              "connection.autoconnect", "no", "ipv6.method", "disabled", *words)  # fmt: skip


def interfaces(bed: Bed) -> set[str]:
    return {path["interface"] for path in bed.status().paths if path["address"] not in ("127.0.0.1", "::1")}


def test_a_bridge_over_an_uplink_is_a_path_and_its_port_is_none(bed: Bed, eth0: Uplink) -> None:
    hardware_address = eth0.network.port_address(eth0.port)
    add(bed, "bridge", "br0", "bridge.stp no", f"bridge.mac-address {hardware_address}")
    bed.nmcli("connection", "add", "type", "ethernet", "ifname", "eth0", "con-name", "port", "master", "br0",
              "connection.autoconnect", "no")  # fmt: skip
    bed.up("port")
    endpoint = bed.wait_endpoint(eth0.address, seconds=20)
    assert (endpoint.device, endpoint.flags) == ("br0", DEFAULT_FLAGS)
    shown = bed.status().path(eth0.address)
    assert (shown["kind"], shown["state"], shown["rule"]) == ("bridge", "active", "flags-of-kind")
    assert interfaces(bed) == {"br0"}


def test_a_bridge_of_virtual_machines_is_none(bed: Bed, eth0: Uplink) -> None:
    bed.profile("Wired", "eth0")
    add(bed, "bridge", "vms", "bridge.stp no", "ipv4.method manual", "ipv4.addresses 192.168.99.1/24")
    bed.up("vms", "Wired")
    bed.wait_endpoint(eth0.address)
    bed.sync()
    assert [endpoint.device for endpoint in bed.endpoints()] == ["eth0"]
    assert not bed.rules("192.168.99.1")
    shown = bed.status().path("192.168.99.1")
    assert (shown["kind"], shown["state"], shown["rule"]) == ("bridge", "waiting", "no-default-route")


def test_a_macvlan_with_a_lease_of_its_own_is_a_path(bed: Bed, eth0: Uplink) -> None:
    bed.profile("Wired", "eth0")
    bed.up("Wired")
    bed.wait_endpoint(eth0.address)
    add(bed, "macvlan", "mac0", "macvlan.parent eth0", "macvlan.mode bridge")
    bed.up("mac0")
    wait_for("a path on each", lambda: {endpoint.device for endpoint in bed.endpoints()} == {"eth0", "mac0"})
    assert {path["kind"] for path in bed.status().paths if path["interface"] == "mac0"} == {"macvlan"}


def test_a_tun_device_of_networkmanagers_is_none(bed: Bed, eth0: Uplink) -> None:
    bed.profile("Wired", "eth0")
    # The bed leaves devices called tun* alone; this one is NetworkManager's.
    add(bed, "tun", "mine0", "tun.mode 2", "ipv4.method manual", "ipv4.addresses 10.9.0.2/24", "ipv4.gateway 10.9.0.1",
        "ipv4.route-metric 900")  # fmt: skip
    bed.up("Wired", "mine0")
    bed.wait_endpoint(eth0.address)
    bed.sync()
    shown = bed.status().path("10.9.0.2")
    assert (shown["kind"], shown["state"], shown["rule"]) == ("tun", "excluded", "kind-is-no-path")
    assert [endpoint.device for endpoint in bed.endpoints()] == ["eth0"]
