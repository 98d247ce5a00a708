# SPDX-License-Identifier: GPL-2.0-or-later
"""The client against a real NetworkManager."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nm_mptcp.model.flags import ProfileFlag
from nm_mptcp.model.state import DeviceState

from ..support.waits import wait_for
from .bed import Bed
from .namespaces import Program

pytestmark = pytest.mark.bed(product=False)

LIBRARIES = [each for each in ("fast", "next") if importlib.util.find_spec(f"dbus_{each}")]


class Follower:
    """The follower program in the bed, and what it has said."""

    def __init__(self, bed: Bed, library: str, *prefix: str) -> None:
        program = Path(__file__).with_name("follower.py")
        self.bed = bed
        self.program: Program = bed.machine.spawn(
            *prefix, sys.executable, str(program), log=f"follower-{len(prefix)}", env={"NM_MPTCP_DBUS": library}
        )
        wait_for("the follower has started", lambda: self.said("started"))

    def said(self, what: str) -> list[Any]:
        """All that it said of one kind."""
        lines = [json.loads(line) for line in self.program.lines() if line.startswith("{")]
        return [line[what] for line in lines if what in line]

    @property
    def state(self) -> dict[str, Any]:
        """The newest state."""
        return (self.said("state") or self.said("started"))[-1]

    def device(self, interface: str) -> dict[str, Any]:
        """A device of the newest state, {} when it is not there."""
        return next((each for each in self.state["devices"] if each["interface"] == interface), {})

    def wait(self, interface: str, truth: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until a device is as wanted."""

        def look() -> dict[str, Any]:
            device = self.device(interface)
            return device if device and truth(device) else {}

        return wait_for(f"{interface} as wanted (now {self.device(interface)})", look)

    def activated(self, interface: str) -> dict[str, Any]:
        """Wait until a device is activated and its profile known."""
        return self.wait(interface, lambda device: device["state"] == DeviceState.ACTIVATED and device["profile"])

    def refresh(self) -> None:
        """Have it read the applied connections again."""
        before = len(self.said("refreshed"))
        self.program.send(signal.SIGUSR1)
        wait_for("refreshed", lambda: len(self.said("refreshed")) > before)


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def follower(bed: Bed, library: str) -> Iterator[Follower]:
    made = Follower(bed, library)
    assert made.said("library") == [f"dbus_{library}"]
    yield made
    assert made.program.running
    assert not [line for line in made.said("log") if not line.startswith("INFO")]


def static(bed: Bed, name: str, *settings: str, network: str = "10.1.0") -> None:
    """An uplink and a profile of the same name with a fixed address."""
    bed.uplink(name, static=f"{network}.0/24")
    bed.profile(
        name, name, "ipv4.method manual", f"ipv4.addresses {network}.9/24", f"ipv4.gateway {network}.1", *settings
    )


def test_an_activation_is_followed_to_its_end_and_back(bed: Bed, follower: Follower) -> None:
    bed.uplink("wlan0", dhcp="10.1.0.0/24")
    bed.profile("Wi-Fi", "wlan0", "connection.mptcp-flags 0x62", "ipv4.route-table 99", "ipv6.never-default yes")
    assert follower.wait("wlan0", lambda device: device["state"] == DeviceState.DISCONNECTED)["profile"] is None
    bed.up("Wi-Fi")
    device = follower.activated("wlan0")
    assert (device["ip_interface"], device["type"], device["type_name"]) == ("wlan0", 20, "ethernet")
    assert (device["driver"], device["managed"], device["external"]) == ("veth", True, False)
    assert device["activation"].startswith(":1.")
    assert device["default_flags"] == {"flags": ProfileFlag.DISABLED, "section": "connection-nm-mptcp"}
    profile = device["profile"]
    assert (profile["id"], profile["type"], profile["mptcp_flags"]) == ("Wi-Fi", "802-3-ethernet", 0x62)
    assert (profile["ipv4_route_table"], profile["ipv6_route_table"]) == (99, 0)
    assert (profile["ipv4_never_default"], profile["ipv6_never_default"]) == (False, True)
    assert (profile["ipv4_method"], profile["ipv6_method"]) == ("auto", "disabled")
    bed.down("Wi-Fi")
    device = follower.wait("wlan0", lambda device: device["state"] == DeviceState.DISCONNECTED)
    assert (device["profile"], device["activation"]) == (None, "")


def test_what_was_active_before_is_read_at_the_start(bed: Bed, library: str) -> None:
    static(bed, "wlan0", "connection.mptcp-flags 0x42")
    bed.up("wlan0")
    follower = Follower(bed, library)
    (started,) = follower.said("started")
    (device,) = [each for each in started["devices"] if each["interface"] == "wlan0"]
    assert (started["running"], started["startup"], device["profile"]["mptcp_flags"]) == (True, False, 0x42)
    assert len(follower.said("state")) == 1, "the first look is one change"


def test_a_second_activation_has_another_name_and_the_profile_as_it_is_then(bed: Bed, follower: Follower) -> None:
    static(bed, "wlan0")
    bed.up("wlan0")
    first = follower.activated("wlan0")
    bed.modify("wlan0", "connection.mptcp-flags 0x22")
    assert follower.device("wlan0")["profile"]["mptcp_flags"] == 0, "the stored profile is not the applied one"
    bed.up("wlan0")
    second = follower.wait(
        "wlan0", lambda device: device["state"] == 100 and device["activation"] != first["activation"]
    )
    second = follower.activated("wlan0")
    assert second["profile"]["mptcp_flags"] == 0x22


def test_a_reapply_that_changes_the_leases_end_is_seen(bed: Bed, follower: Follower) -> None:
    bed.uplink("wlan0", dhcp="10.1.0.0/24")
    bed.profile("Wi-Fi", "wlan0")
    bed.up("Wi-Fi")
    follower.activated("wlan0")
    leased = int(time.time())
    wait_for("the next second: the lease's end has no fractions", lambda: int(time.time()) > leased + 1)
    bed.modify("Wi-Fi", "connection.mptcp-flags 0x62")
    bed.reapply("wlan0")
    follower.wait("wlan0", lambda device: device["profile"]["mptcp_flags"] == 0x62)


def test_any_reapply_is_seen_by_refresh_profiles(bed: Bed, follower: Follower) -> None:
    static(bed, "wlan0")
    bed.up("wlan0")
    activation = follower.activated("wlan0")["activation"]
    bed.nmcli("device", "modify", "wlan0", "connection.mptcp-flags", "0x62")
    follower.refresh()
    device = follower.device("wlan0")
    assert (device["profile"]["mptcp_flags"], device["activation"]) == (0x62, activation)


def test_the_configured_default_counts_from_the_activation_on(bed: Bed, follower: Follower) -> None:
    static(bed, "wlan0")
    static(bed, "wwan0", network="10.2.0")
    bed.up("wlan0")
    follower.activated("wlan0")
    bed.configure(
        "60-test.conf", "[connection-x]\nmatch-device=driver:veth\nconnection.mptcp-flags=0x62\nipv4.route-table=7\n"
    )
    bed.reapply("wlan0")
    bed.up("wwan0")
    device = follower.activated("wwan0")
    assert device["default_flags"] == {"flags": 0x62, "section": "connection-x"}
    assert (device["profile"]["mptcp_flags"], device["profile"]["ipv4_route_table"]) == (0, 7)
    assert follower.device("wlan0")["default_flags"]["section"] == "connection-nm-mptcp"


def test_a_device_configured_by_another_program_is_external(bed: Bed, follower: Follower) -> None:
    bed.uplink("eth7", static="10.7.0.0/24")
    bed.machine.run("ip", "address", "add", "10.7.0.9/24", "dev", "eth7")
    device = follower.activated("eth7")
    assert device["external"]


def test_an_unmanaged_device_is_shown_as_unmanaged(bed: Bed, follower: Follower) -> None:
    bed.uplink("eth7", static="10.7.0.0/24")
    bed.nmcli("device", "set", "eth7", "managed", "no")
    follower.wait("eth7", lambda device: not device["managed"] and device["state"] == DeviceState.UNMANAGED)


def test_an_interface_that_goes_is_gone(bed: Bed, follower: Follower) -> None:
    uplink = bed.uplink("eth7", static="10.7.0.0/24")
    follower.wait("eth7", lambda device: device["state"] == DeviceState.DISCONNECTED)
    uplink.remove()
    wait_for("eth7 gone", lambda: not follower.device("eth7"))


def test_a_metered_profile_is_seen(bed: Bed, follower: Follower) -> None:
    static(bed, "wwan0", "connection.metered yes")
    bed.up("wwan0")
    follower.wait("wwan0", lambda device: device["metered"] == 1)


def test_type_names_are_those_of_nmcli(bed: Bed, follower: Follower) -> None:
    bed.uplink("veth7")
    made = []
    for name, kind in (
        ("br7", "bridge"),
        ("tap7", "tun"),
        ("mac7", "macvlan link veth7"),
        ("vx7", "vxlan id 7 dstport 4789"),
        ("dum7", "dummy"),
        ("vl7", "vlan id 7 link veth7"),
        ("sit7", "ipip remote 192.0.2.9 local 192.0.2.8"),
        ("wg7", "wireguard"),
    ):
        link, _, rest = kind.partition(" link ")
        command = ["ip", "link", "add", name, *(["link", rest] if rest else []), "type", *link.split()]
        if kind == "tun":
            command = ["ip", "tuntap", "add", name, "mode", "tap"]
        if bed.machine.attempt(*command).returncode == 0:  # what this kernel has
            made.append(name)
    assert {"br7", "tap7"} <= set(made)
    for name in [*made, "veth7", "lo"]:
        follower.wait(name, lambda device: device["type"])
        shown = bed.nmcli("-g", "GENERAL.TYPE", "device", "show", name).strip()
        assert (name, follower.device(name)["type_name"]) == (name, shown)


def test_a_private_profile_is_read_as_root_only(bed: Bed, follower: Follower, library: str) -> None:
    static(bed, "wlan0", "connection.permissions user:daemon", "connection.mptcp-flags 0x1")
    bed.up("wlan0")
    assert follower.activated("wlan0")["profile"]["mptcp_flags"] == 1
    other = Follower(bed, library, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
    device = other.wait("wlan0", lambda device: device["unreadable"])
    assert device["profile"] is None
    assert "\n" not in device["unreadable"]


def test_networkmanager_stops_and_comes_back(bed: Bed, follower: Follower) -> None:
    static(bed, "wlan0", "connection.mptcp-flags 0x22")
    bed.up("wlan0")
    before = follower.activated("wlan0")
    bed.stop_networkmanager()
    wait_for("it is known to be away", lambda: not follower.state["running"])
    assert follower.device("wlan0")["profile"] == before["profile"], "what it last said is kept"
    bed.start_networkmanager()
    wait_for("it is known to be back", lambda: follower.state["running"] and not follower.state["startup"])
    after = follower.activated("wlan0")
    assert after["profile"]["mptcp_flags"] == 0x22
    assert after["activation"] != before["activation"]
    assert [line.partition("(")[0].split(" is ")[1].strip() for line in follower.said("log")] == [
        "running",
        "gone",
        "running",
    ]


def test_killed_networkmanager_is_away_as_well(bed: Bed, follower: Follower) -> None:
    bed.networkmanager.stop(signal.SIGKILL)
    wait_for("it is known to be away", lambda: not follower.state["running"])


def test_networkmanager_may_come_after_us(bed: Bed, library: str) -> None:
    bed.stop_networkmanager()
    follower = Follower(bed, library)
    assert follower.said("started") == [
        {
            "running": False,
            "startup": False,
            "version": "",
            "devices": [],
            "default_flags": {"flags": None, "section": ""},
            "vpn": False,
            "unread": "",
            "silent": False,
        },
    ]
    bed.start_networkmanager()
    wait_for("it is known to be there", lambda: follower.state["running"] and not follower.state["startup"])
    assert follower.device("lo")["type_name"] == "loopback"


def test_the_bus_stops_and_comes_back(bed: Bed, follower: Follower) -> None:
    static(bed, "wlan0")
    bed.up("wlan0")
    follower.activated("wlan0")
    bed.stop_bus()
    wait_for("the bus is known to be lost", lambda: not follower.state["running"])
    assert follower.device("wlan0")["profile"]
    bed.networkmanager.stop(signal.SIGKILL)
    bed.start_bus()
    bed.start_networkmanager()
    wait_for("all is back", lambda: follower.state["running"] and not follower.state["startup"])
    follower.activated("wlan0")
