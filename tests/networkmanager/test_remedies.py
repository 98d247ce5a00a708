# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``explain``, ``check`` and ``status`` say to type, typed beside a real NetworkManager: what was wrong goes.

Which test follows which remedy is listed in ``tests/support/followed.py``.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from ..support.waits import wait_for
from .bed import SERVER, Bed, command
from .caller import NOBODY
from .connectivity import CHECKING, CheckServer, wait_connectivity
from .test_check import Doctor
from .traffic import PORT, Connection, EchoServer
from .uplinks import TCP, Links

EXPLICIT = "connection.mptcp-flags enabled,subflow,also-without-default-route"


def explained(bed: Bed, address: str) -> dict[str, Any]:
    """What ``explain`` says of an address."""
    (path,) = json.loads(bed.nm_mptcp("explain", "--json", address))["paths"]
    found: dict[str, Any] = path
    return found


def rule(bed: Bed, address: str) -> str:
    return str(bed.status().path(address)["rule"])


def follow(bed: Bed, address: str, to: str) -> None:
    """Type what is offered for that."""
    offered = {each["to"]: each["type"] for each in explained(bed, address)["commands"]}
    assert to in offered, offered
    bed.sh(offered[to].replace("nm-mptcp ", f"{shlex.join(command())} "))
    bed.sync()


def gone(bed: Bed, address: str, reason: str) -> None:
    """Wait until an address is not what it is for that reason any more, but a path."""
    wait_for(f"{address} is not {reason}", lambda: rule(bed, address) != reason, seconds=20)
    wait_for(f"{address} is a path", lambda: bed.status().path(address)["state"] == "active")


def served(bed: Bed, *profiles: str) -> None:
    bed.without_dispatcher_scripts()
    EchoServer(bed.far)
    bed.far.sysctl(**{"net.ipv4.conf.all.arp_ignore": "1"})
    bed.start_service()
    bed.up(*profiles)
    bed.sync()


def joins(bed: Bed, links: Links) -> bool:
    """Whether a connection that begins by the Wi-Fi gets a subflow by LTE that carries."""
    connection = Connection(bed.machine, SERVER)
    try:
        connection.wait_subflow(links.lte.address, seconds=2)
    except AssertionError:
        return False
    finally:
        connection.close()
    return True


def test_a_profile_that_says_never_default(bed: Bed, links: Links) -> None:
    """A phone that carries for MPTCP, and nothing else takes it."""
    bed.modify("LTE", "ipv4.never-default yes")
    served(bed, "Wi-Fi", "LTE")
    assert rule(bed, links.lte.address) == "never-default"
    to = "add a default route in a table of its own, used only by sockets bound to its address"
    follow(bed, links.lte.address, to)
    gone(bed, links.lte.address, "never-default")
    bed.wait_endpoint(links.lte.address)
    assert joins(bed, links)
    # Alone it takes nobody: as the profile had it.
    capture = links.lte.capture()
    assert not [route for route in bed.routes("main") if route["dst"] == "default" and route["dev"] == "wwan0"]
    Connection(bed.machine, SERVER, source=links.wifi.address).echo()
    assert {packet.source for packet in capture.packets() if packet.protocol == TCP} <= {links.lte.address}

    bed.modify("LTE", "ipv4.never-default yes", "ipv4.route-table 0")
    bed.up("LTE")
    wait_for("it is none again", lambda: rule(bed, links.lte.address) == "never-default")
    follow(bed, links.lte.address, "add a default route in the main table")
    gone(bed, links.lte.address, "never-default")
    assert [route for route in bed.routes("main") if route["dst"] == "default" and route["dev"] == "wwan0"]
    assert joins(bed, links)


def test_explicit_flags_for_a_profile_that_says_never_default(bed: Bed, links: Links) -> None:
    """What carries nothing, carries after what is offered: by ``check``, and by ``explain``."""
    bed.modify("LTE", "ipv4.never-default yes", EXPLICIT)
    served(bed, "Wi-Fi", "LTE")
    bed.wait_endpoint(links.lte.address)
    assert not joins(bed, links)
    doctor = Doctor(bed)
    finding = doctor.found("route", links.lte.address)
    assert finding["result"] == "warning"
    doctor.follow(finding)
    wait_for("it is good", lambda: doctor.found("route", links.lte.address)["result"] == "good", seconds=20)
    bed.wait_endpoint(links.lte.address)
    assert (bed.status()["state"], joins(bed, links)) == ("good", True)

    bed.modify("LTE", "ipv4.never-default yes", "ipv4.route-table 0")
    bed.up("LTE")
    wait_for(
        "it is told",
        lambda: explained(bed, links.lte.address)["commands"][0]["to"].startswith("add a default route in a table"),
    )
    to = explained(bed, links.lte.address)["commands"][0]["to"]
    follow(bed, links.lte.address, to)
    wait_for("it is good", lambda: bed.status()["state"] == "good", seconds=20)
    bed.wait_endpoint(links.lte.address)
    assert joins(bed, links)


def test_a_link_that_gets_no_default_route(bed: Bed, links: Links) -> None:
    links.lte.network.set_dhcp_options(router="")
    served(bed, "Wi-Fi", "LTE")
    wait_for("it waits", lambda: rule(bed, links.lte.address) == "no-default-route")
    offered = {each["to"]: each["type"] for each in explained(bed, links.lte.address)["commands"]}
    bed.sh(offered["add a default route"].replace("192.0.2.1", links.lte.gateway))
    gone(bed, links.lte.address, "no-default-route")
    bed.wait_endpoint(links.lte.address)
    assert joins(bed, links)
    bed.modify("LTE", "ipv4.routes ")
    bed.up("LTE")
    wait_for("it waits again", lambda: rule(bed, links.lte.address) == "no-default-route")
    follow(bed, links.lte.address, "make it a path to servers in its own network, without a default route")
    gone(bed, links.lte.address, "no-default-route")
    # As it says: to a server that is in its network.
    Connection(bed.machine, links.lte.gateway, source=links.lte.address).echo()


@pytest.mark.parametrize("flags", ["0x0", "0x22"], ids=["ours", "networkmanagers"])
def test_an_endpoint_that_another_program_left_on_an_interface_that_is_gone(bed: Bed, links: Links, flags: str) -> None:
    address = links.lte.address
    bed.sh(f"ip link add gone0 type veth; ip mptcp endpoint add {address} dev gone0 subflow; ip link del gone0")
    bed.modify("LTE", f"connection.mptcp-flags {flags}")
    served(bed, "Wi-Fi", "LTE")
    wait_for("it is told", lambda: bed.status().path(address)["trouble_rule"] == "endpoint-elsewhere")
    assert (bed.status()["state"], joins(bed, links)) == ("held-back", False)
    doctor = Doctor(bed)
    assert [each["remedy"]["words"] for each in doctor.findings("route") if address in each["subject"]] == [
        "see 'endpoint'"
    ]
    finding = doctor.found("endpoint", address)
    assert finding["result"] == "bad"
    doctor.follow(finding)
    wait_for("it is gone", lambda: not bed.status().path(address).get("trouble"))
    wait_for("all is good", lambda: bed.status()["state"] == "good")
    assert joins(bed, links)


def test_flags_of_profiles(bed: Bed, up: Links) -> None:
    address = up.lte.address
    follow(bed, address, "use it only as backup")
    wait_for("it is backup", lambda: "backup" in bed.wait_endpoint(address).flags)
    follow(bed, address, "make it a regular path")
    wait_for("it carries", lambda: "backup" not in bed.wait_endpoint(address).flags)
    follow(bed, address, "disable it as a path")
    bed.wait_no_endpoint(address)
    assert rule(bed, address) == "disabled-by-profile"
    follow(bed, address, "make it a path")
    gone(bed, address, "disabled-by-profile")
    follow(bed, address, "disable it as a path")
    bed.wait_no_endpoint(address)
    follow(bed, address, "let nm-mptcp choose its flags")
    wait_for("it is one by its kind", lambda: rule(bed, address) == "flags-of-kind")
    bed.wait_endpoint(address)


def test_a_metered_link(bed: Bed, links: Links) -> None:
    bed.modify("LTE", "connection.metered yes")
    served(bed, "Wi-Fi", "LTE")
    wait_for("it is backup", lambda: rule(bed, links.lte.address) == "metered-backup")
    follow(bed, links.lte.address, "mark it as not metered")
    gone(bed, links.lte.address, "metered-backup")
    assert "backup" not in bed.wait_endpoint(links.lte.address).flags


def test_a_link_that_is_down(bed: Bed, links: Links) -> None:
    served(bed, "Wi-Fi", "LTE")
    bed.wait_endpoint(links.lte.address)
    # As root would do it by mistake; NetworkManager keeps its address for a moment.
    bed.sh("ip link set wwan0 down")
    bed.sync()
    line = "ip link set wwan0 up"
    told = [path for path in bed.status().paths if path["address"] == links.lte.address and path["rule"] == "link-down"]
    assert not told or ("bring the link up", line) in {
        (each["to"], each["type"]) for each in explained(bed, links.lte.address)["commands"]
    }
    bed.sh(line)

    def back() -> bool:
        return any(path["address"] == links.lte.address and path["state"] == "active" for path in bed.status().paths)

    wait_for("it is back", back, seconds=20)


def test_the_mode(bed: Bed, up: Links) -> None:
    bed.nm_mptcp("mode", "off")
    wait_for("none is one", lambda: rule(bed, up.lte.address) == "mode-off")
    follow(bed, up.lte.address, "choose each path's priority by its kind of device")
    gone(bed, up.lte.address, "mode-off")
    bed.wait_endpoint(up.lte.address)


def test_mptcp_that_is_off(bed: Bed, links: Links) -> None:
    bed.machine.sysctl(**{"net.mptcp.enabled": "0"})
    served(bed, "Wi-Fi")
    assert rule(bed, links.wifi.address) == "sysctl-off"
    status = bed.status()
    assert status["state"] == "not-working"
    assert "'sysctl -w net.mptcp.enabled=1' enables it" in status["problems"][0]
    told = json.loads(bed.nm_mptcp("explain", "--json", SERVER))
    assert {each["type"] for each in told["commands"]} >= {"sysctl -w net.mptcp.enabled=1"}
    follow(bed, links.wifi.address, "enable MPTCP")
    gone(bed, links.wifi.address, "sysctl-off")
    assert bed.status()["state"] == "good"
    told = json.loads(bed.nm_mptcp("explain", "--json", SERVER))
    assert not any("sysctl" in each["type"] for each in told["commands"])


def test_an_address_that_somebody_else_set_up(bed: Bed) -> None:
    """Its profile is none of anybody's: nothing is said to be changed in it, and nothing to be reapplied."""
    network = bed.network("lan", "10.1.0.0/24")
    network.serve_dhcp()
    cable = bed.uplink("eth0", network)
    bed.sh("ip address add 10.1.0.77/24 dev eth0; ip link set eth0 up; ip route add default via 10.1.0.1")
    served(bed)
    wait_for("it is external", lambda: rule(bed, "10.1.0.77") == "external", seconds=20)
    told = json.loads(bed.nm_mptcp("explain", "--json", SERVER))
    assert told["first"]["source"] == "10.1.0.77"
    for each in [*told["commands"], *explained(bed, "10.1.0.77")["commands"]]:
        assert "reapply" not in each["type"]
    follow(bed, "10.1.0.77", "create a profile for it")
    bed.wait_endpoint(cable.address)
    wait_for("it is a path", lambda: bed.status().path(cable.address)["state"] == "active")


def test_an_interface_that_networkmanager_does_not_manage(bed: Bed) -> None:
    network = bed.network("lan", "10.1.0.0/24")
    network.serve_dhcp()
    bed.uplink("eth0", network)
    served(bed)
    bed.nmcli("device", "set", "eth0", "managed", "no")
    bed.sh("ip address add 10.1.0.77/24 dev eth0; ip link set eth0 up")
    wait_for("it is told", lambda: any(path["address"] == "10.1.0.77" for path in bed.status().paths))
    assert rule(bed, "10.1.0.77") == "not-managed"
    follow(bed, "10.1.0.77", "let NetworkManager manage it")

    def managed() -> bool:
        return all(path["rule"] != "not-managed" for path in bed.status().paths if path["interface"] == "eth0")

    wait_for("it is managed", managed, seconds=20)


def test_a_connection_that_is_shared(bed: Bed, links: Links) -> None:
    bed.modify("LTE", "ipv4.method shared")
    served(bed, "Wi-Fi", "LTE")
    (address,) = [path["address"] for path in bed.status().paths if path["interface"] == "wwan0"]
    assert rule(bed, address) == "shared"
    follow(bed, address, "stop sharing it, and use it as an uplink")
    bed.wait_endpoint(links.lte.address)
    wait_for("it is a path", lambda: bed.status().path(links.lte.address)["state"] == "active")


def test_a_kind_that_is_no_uplink(bed: Bed, links: Links) -> None:
    served(bed, "Wi-Fi")
    add = ("type", "vxlan", "ifname", "vx0", "con-name", "Overlay", "vxlan.id", "7", "vxlan.remote", "10.1.0.1")
    more = (
        "ipv4.method",
        "manual",
        "ipv4.addresses",
        "10.77.0.2/24",
        "ipv4.gateway",
        "10.77.0.1",
        "ipv6.method",
        "disabled",
    )
    bed.nmcli("connection", "add", *add, *more, "ipv4.route-metric", "900")
    wait_for("it is told", lambda: any(path["address"] == "10.77.0.2" for path in bed.status().paths), seconds=20)
    wait_for("it is none", lambda: rule(bed, "10.77.0.2") == "kind-is-no-path", seconds=20)
    follow(bed, "10.77.0.2", "make it a backup path")
    gone(bed, "10.77.0.2", "kind-is-no-path")
    assert "backup" in bed.wait_endpoint("10.77.0.2").flags
    assert links.wifi.address


def test_an_endpoint_that_networkmanager_owns_still(bed: Bed, links: Links) -> None:
    bed.without_dispatcher_scripts()
    bed.dropin(False)
    bed.reload_networkmanager()
    bed.up("Wi-Fi")
    bed.wait_endpoint(links.wifi.address)
    bed.dropin(True)
    bed.reload_networkmanager()
    bed.start_service()
    assert rule(bed, links.wifi.address) == "networkmanager-owns"
    follow(bed, links.wifi.address, "hand the endpoint over to nm-mptcp (interrupts the connection)")
    wait_for("it is ours", lambda: bed.status().path(links.wifi.address)["owner"] == "nm-mptcp", seconds=20)
    bed.wait_endpoint(links.wifi.address)


def test_an_endpoint_of_networkmanagers_that_is_missing(bed: Bed, links: Links) -> None:
    """``nm-mptcp apply`` would not make it: it is not ours."""
    bed.modify("Wi-Fi", "connection.mptcp-flags subflow")
    served(bed, "Wi-Fi")
    endpoint = bed.wait_endpoint(links.wifi.address)
    bed.sh(f"ip mptcp endpoint delete id {endpoint.id}")
    doctor = Doctor(bed)
    missing = [each for each in doctor.findings("endpoint") if each["result"] == "bad"]
    if missing:
        assert "nm-mptcp apply" not in missing[0]["remedy"]["commands"]
        doctor.follow(missing[0])
    bed.wait_endpoint(links.wifi.address)
    wait_for("it is good", lambda: not [each for each in doctor.findings("endpoint") if each["result"] == "bad"])


def test_where_new_connections_begin_and_what_is_told_to_nobody(bed: Bed, up: Links) -> None:
    told = json.loads(bed.nm_mptcp("explain", "--json", SERVER))
    commands = {each["to"]: each["type"] for each in told["commands"]}
    bed.sh(commands["prefer another link for new connections (the lowest metric wins)"].replace("NUMBER", "900"))
    first = lambda: json.loads(bed.nm_mptcp("explain", "--json", SERVER))["first"]["interface"]  # noqa: E731
    wait_for("they begin on the other", lambda: first() == "wwan0")
    bed.sh(commands["hide a link's address from all servers"].replace("PROFILE", "Wi-Fi"))
    bed.reapply("wlan0")
    bed.wait_no_endpoint(up.wifi.address)
    wait_for(
        "it is told to nobody",
        lambda: json.loads(bed.nm_mptcp("explain", "--json", SERVER))["learns"] == [up.lte.address],
    )
    capture = up.wifi.capture()
    Connection(bed.machine, SERVER).echo()
    assert not [packet for packet in capture.packets() if packet.destination_port == PORT]


def test_nothing_of_ours_or_networkmanagers_is_said_to_be_deleted(bed: Bed, up: Links) -> None:
    """An address goes for a moment; a live connection may stand on its endpoint."""
    assert bed.service
    bed.service.stop()
    bed.sh("ip address del $(ip -o -4 address show dev wwan0 | awk '{print $4}') dev wwan0 2>/dev/null || true")
    for finding in Doctor(bed).findings():
        lines = (finding["remedy"] or {"commands": []})["commands"]
        assert not [line for line in lines if "endpoint delete" in line], finding
    assert up.lte.address


def test_an_interface_that_is_not_connected(bed: Bed, up: Links) -> None:
    """Its address stays when NetworkManager let go of it, by somebody's hand."""
    bed.down("LTE")
    bed.sh("ip link set wwan0 up; ip address add 10.2.0.77/24 dev wwan0")

    def told() -> list[dict[str, Any]]:
        return [path for path in bed.status().paths if path["address"] == "10.2.0.77"]

    wait_for("it is told", told)
    commands = {each["to"]: each["type"] for each in explained(bed, "10.2.0.77")["commands"]}
    line = commands.get("connect it", "nmcli device connect wwan0")
    assert "external" in told()[0]["rule"] or "connect it" in commands
    bed.sh(line)
    if bed.nmcli("-g", "GENERAL.CONNECTION", "device", "show", "wwan0").strip() != "LTE":
        # Meanwhile NetworkManager had made a profile of its own of what it found there, and has taken that.
        bed.up("LTE")
    bed.wait_endpoint(up.lte.address)
    wait_for("it is a path", lambda: bed.status().path(up.lte.address)["state"] == "active")


@pytest.mark.bed(configuration=CHECKING)
def test_a_portal_that_is_over(bed: Bed, links: Links) -> None:
    check = CheckServer(bed)
    check.portals = {"10.1."}
    served(bed, "LTE")
    wait_connectivity(bed, "wwan0", "full")
    bed.up("Wi-Fi")
    wait_connectivity(bed, "wlan0", "portal")
    wait_for("it is held back", lambda: rule(bed, links.wifi.address) == "no-connectivity")
    check.portals = set()
    follow(bed, links.wifi.address, "have NetworkManager check again")
    gone(bed, links.wifi.address, "no-connectivity")


def test_a_profile_that_somebody_else_may_read_alone(bed: Bed, links: Links) -> None:
    bed.without_dispatcher_scripts()
    bed.modify("LTE", "connection.permissions user:daemon")
    bed.up("Wi-Fi", "LTE")
    (told,) = json.loads(bed.machine.run(*NOBODY, *command(), "explain", "--json", links.lte.address))["paths"]
    assert told["rule"] == "unreadable"
    line = {each["to"]: each["type"] for each in told["commands"]}["run it as root"]
    said = bed.sh(line.replace("nm-mptcp ", f"{shlex.join(command())} "))
    assert "cannot be read" not in said
    assert "rule flags-of-kind" in said


def test_another_path_manager(bed: Bed, links: Links) -> None:
    new = "path_manager" in bed.machine.run("ls", "/proc/sys/net/mptcp")
    bed.machine.sysctl(**({"net.mptcp.path_manager": "userspace"} if new else {"net.mptcp.pm_type": "1"}))
    served(bed, "Wi-Fi")
    told = bed.status()
    assert told["state"] == "not-working"
    (line,) = [found[0] for found in re.findall(r"'(sysctl -w [^']*)'()", " ".join(told["problems"]))]
    bed.sh(line)
    bed.sync()
    bed.wait_endpoint(links.wifi.address)
    assert bed.status()["state"] == "good"


def test_what_status_says_after_clear(bed: Bed, up: Links) -> None:
    bed.nm_mptcp("clear")
    told = bed.status()
    assert told["state"] == "not-working"
    assert "is in effect until 'nm-mptcp apply'" in " ".join(told["problems"])
    bed.nm_mptcp("apply")
    bed.wait_endpoint(up.lte.address)
    assert bed.status()["state"] == "good"
