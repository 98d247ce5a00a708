# SPDX-License-Identifier: GPL-2.0-or-later
"""A path that is one and reaches nothing: ``status``, ``check``, ``explain`` and D-Bus say so, and say the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nm_mptcp.checks import paths, routes

from ..support.badstates import bad_state_of
from ..support.waits import wait_for
from .bed import SERVER, Bed, command
from .caller import replies
from .traffic import Connection, EchoServer, reaches
from .uplinks import Links, Uplink

EXPLICIT = "connection.mptcp-flags enabled,subflow,also-without-default-route"


class Told:
    """What all of them say at one moment."""

    def __init__(self, bed: Bed) -> None:
        self.status = bed.status()
        self.state: str = self.status["state"]
        self.problems: list[str] = self.status["problems"]
        self.exit = bed.machine.attempt(*command(), "status").returncode
        done = bed.machine.attempt(*command(), "check", "--json")
        self.findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]

    def bad(self) -> set[tuple[str, str]]:
        """Checks and subjects of what does not work."""
        return {(each["check"], each["subject"]) for each in self.findings if each["result"] == "bad"}

    def warned(self) -> set[tuple[str, str]]:
        """Those that could be better, but for what the machine of the tests lacks."""
        found = {(each["check"], each["subject"]) for each in self.findings if each["result"] == "warning"}
        return {each for each in found if each[0] not in ("tools", "kernel-options")}


def on_the_bus(bed: Bed) -> str:
    asked = ["/org/nm_mptcp1", "org.freedesktop.DBus.Properties", "Get", "ss", "org.nm_mptcp1", "State"]
    (reply,) = replies(bed, asked)
    return str(reply[0])


def trouble_of(bed: Bed, address: str) -> str:
    """What ``explain`` says of it."""
    (path,) = json.loads(bed.nm_mptcp("explain", "--json", address))["paths"]
    return next((fact["says"] for fact in path["facts"] if fact["about"] == "trouble"), "")


KILL_SWITCHES = {
    "a rule": ("ip rule add priority 1000 unreachable", "ip rule del priority 1000", "an 'unreachable' rule"),
    "a prohibiting rule": (
        "ip rule add priority 1000 prohibit",
        "ip rule del priority 1000",
        "a 'prohibit' route or rule",
    ),
    "a route": (
        "ip route add unreachable default metric 1",
        "ip route del unreachable default metric 1",
        "an 'unreachable' route or rule",
    ),
    "halves": (
        "ip route add blackhole 0.0.0.0/1; ip route add blackhole 128.0.0.0/1",
        "ip route del blackhole 0.0.0.0/1; ip route del blackhole 128.0.0.0/1",
        "a 'blackhole' route, or the address is not there",
    ),
    "a rule by an empty table": (
        "ip rule add priority 1000 lookup 999; ip route add prohibit default table 999",
        "ip rule del priority 1000",
        "a 'prohibit' route or rule",
    ),
}


@bad_state_of(paths.verdict, routes.route_lookups)
@pytest.mark.parametrize(("on", "off", "words"), KILL_SWITCHES.values(), ids=KILL_SWITCHES)
def test_a_kill_switch_that_lets_nothing_out(bed: Bed, up: Links, on: str, off: str, words: str) -> None:
    assert Told(bed).state == "good"
    bed.sh(on)
    bed.sync()
    assert not reaches(bed.machine, SERVER)
    told = Told(bed)
    assert (told.state, told.exit) == ("not-working", 2)
    causes = {
        f"{link.name} {link.address}: no packet from it leaves this machine: packets find {words}"
        for link in (up.wifi, up.lte)
    }
    assert causes <= set(told.problems)
    assert {("route", f"{link.name} {link.address}") for link in (up.wifi, up.lte)} <= told.bad()
    assert (
        trouble_of(bed, up.wifi.address) == f"no packet from it leaves this machine: packets find {words} [rule no-way]"
    )
    wait_for("the bus tells it too", lambda: on_the_bus(bed) == "not-working")
    bed.sh(off)
    bed.sync()
    told = Told(bed)
    assert (told.state, told.exit, told.bad()) == ("good", 0, set())
    wait_for("the bus tells it too", lambda: on_the_bus(bed) == "good")


def test_one_of_two_that_lets_nothing_out_is_held_back(bed: Bed, up: Links) -> None:
    bed.sh(f"ip rule add priority 1000 from {up.lte.address} unreachable")
    bed.sync()
    told = Told(bed)
    assert (told.state, told.exit) == ("held-back", 1)
    assert told.bad() == {("route", f"wwan0 {up.lte.address}")}


def test_ipv6_is_looked_at_alike(bed: Bed) -> None:
    home = bed.uplink("eth0", ra="2001:db8:5::/64")
    bed.profile("Home", "eth0", "ipv4.method disabled", "ipv6.method auto")
    bed.without_dispatcher_scripts()
    bed.start_service()
    bed.up("Home")
    address = home.address6()
    bed.wait_endpoint(address)
    bed.sync()
    assert Told(bed).state == "good"
    bed.sh("ip -6 rule add priority 1000 unreachable")
    bed.sync()
    told = Told(bed)
    assert (told.state, told.exit) == ("not-working", 2)
    assert ("route", f"eth0 {address}") in told.bad()


def test_a_path_that_reaches_no_more_than_its_own_network(bed: Bed, links: Links) -> None:
    """Explicit flags make it one, and nothing that goes out into the world can go there."""
    bed.without_dispatcher_scripts()
    EchoServer(bed.far)
    bed.far.sysctl(**{"net.ipv4.conf.all.arp_ignore": "1"})
    bed.modify("LTE", "ipv4.never-default yes", EXPLICIT)
    bed.start_service()
    bed.up("Wi-Fi", "LTE")
    bed.wait_endpoint(links.lte.address)
    bed.sync()
    told = Told(bed)
    words = "only its own network (10.2.0.0/24) is reachable: the profile sets never-default"
    assert (told.state, told.exit) == ("held-back", 1)
    assert f"wwan0 {links.lte.address}: {words}" in told.problems
    assert ("route", f"wwan0 {links.lte.address}") in told.warned()
    assert not told.bad()
    assert trouble_of(bed, links.lte.address).startswith(words)

    # What stands on it works: somebody in that network is its peer.
    connection = Connection(bed.machine, links.lte.gateway, source=links.lte.address)
    connection.echo()
    told = Told(bed)
    assert (told.state, told.exit, told.bad()) == ("good", 0, set())


def isolated(bed: Bed) -> list[Uplink]:
    """Two networks without a gateway, and a server in both that tells of its second address."""
    uplinks = []
    for number in (1, 2):
        uplink = bed.uplink(f"eth{number}", static=f"10.{number}.0.0/24")
        settings = ("ipv4.method manual", f"ipv4.addresses 10.{number}.0.5/24", EXPLICIT)
        bed.profile(f"Cell {number}", f"eth{number}", *settings)
        uplinks.append(uplink)
    bed.far.run("ip", "mptcp", "endpoint", "add", "10.2.0.1", "signal")
    bed.without_dispatcher_scripts()
    bed.start_service()
    EchoServer(bed.far)
    bed.up("Cell 1", "Cell 2")
    for number in (1, 2):
        bed.wait_endpoint(f"10.{number}.0.5")
    bed.sync()
    return uplinks


def test_isolated_networks_whose_server_signals_are_good(bed: Bed) -> None:
    isolated(bed)
    for _ in range(2):
        told = Told(bed)
        assert (told.state, told.exit, told.bad(), told.warned()) == ("good", 0, set(), set()), told.findings
        connection = Connection(bed.machine, "10.1.0.1")
        connection.wait_subflow("10.2.0.5")


def test_a_bridge_whose_only_way_out_has_no_carrier(bed: Bed) -> None:
    """The port of a container keeps the bridge's own carrier up."""
    network = bed.network("lan", "10.1.0.0/24")
    network.serve_dhcp()
    cable = bed.uplink("eth0", network)
    bed.without_dispatcher_scripts()
    bed.start_service()
    bridge = ("type", "bridge", "ifname", "br0", "con-name", "Bridge", "bridge.stp", "no", "ipv6.method", "disabled")
    bed.nmcli(
        "connection",
        "add",
        *bridge,
        "ipv4.method",
        "manual",
        "ipv4.addresses",
        "10.1.0.5/24",
        "ipv4.gateway",
        "10.1.0.1",
    )
    port = ("type", "ethernet", "ifname", "eth0", "con-name", "Port", "master", "br0", "slave-type", "bridge")
    bed.nmcli("connection", "add", *port, "connection.autoconnect", "yes")
    bed.sh("ip link add vctr0 type veth peer name ctr0; ip link set ctr0 up; ip link set vctr0 up")
    wait_for("the bridge is up", lambda: "br0:connected" in bed.nmcli("-t", "-f", "DEVICE,STATE", "device"), seconds=20)
    bed.sh("ip link set vctr0 master br0")
    bed.wait_endpoint("10.1.0.5")
    bed.sync()
    wait_for("all is good", lambda: Told(bed).state == "good")

    cable.carrier(False)
    wait_for("it is told", lambda: Told(bed).state == "not-working", seconds=20)
    told = Told(bed)
    assert told.exit == 2
    assert "its bridge has no uplink: no carrier on eth0" in " ".join(told.problems) or "none leads out" in " ".join(
        told.problems
    )
    assert ("route", "br0 10.1.0.5") in told.bad()
    cable.carrier(True)
    wait_for("it is over", lambda: Told(bed).state == "good", seconds=20)

    # Its port is another's, or nobody's, and the container's is left.
    bed.nmcli("connection", "delete", "Port")
    words = "its bridge has no uplink: none of its ports leads out of this machine (vctr0)"
    wait_for("it is told", lambda: words in " ".join(Told(bed).problems), seconds=20)
