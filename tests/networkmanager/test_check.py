# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp check`` beside a real NetworkManager and the service: what is held back, whose endpoint it is, what is missing.

One bed, one bad state after another: each is found, and cleared by the commands that the finding names.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import statistics
import time
from typing import Any

from nm_mptcp.checks import manager, paths, routes

from ..support.badstates import bad_state_of
from ..support.command import as_user
from ..support.waits import wait_for
from .bed import Bed, command
from .observe import STRACE, writes_in
from .uplinks import Links
from .vpn import VPN

SETTINGS = "/run/nm-mptcp/conf.d/50-test.conf"


class Doctor:
    """Asks ``nm-mptcp check --json`` on a bed, and types what it says."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.status = 0

    def findings(self, check: str = "", *arguments: str) -> list[dict[str, Any]]:
        done = self.bed.machine.attempt(*command(), "check", "--json", *arguments)
        self.status = done.returncode
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)["findings"]
        return [each for each in found if check in ("", each["check"])]

    def found(self, check: str, subject: str = "") -> dict[str, Any]:
        (finding,) = [each for each in self.findings(check) if subject in each["subject"]]
        return finding

    def wait(self, check: str, result: str, subject: str = "") -> dict[str, Any]:
        return wait_for(
            f"{check} is {result}",
            lambda: next(
                (each for each in self.findings(check) if subject in each["subject"] and each["result"] == result), None
            ),
        )

    def follow(self, finding: dict[str, Any]) -> None:
        assert finding["remedy"]["commands"], finding
        for line in finding["remedy"]["commands"]:
            self.bed.sh(line)


def cost(bed: Bed, figures: dict[str, str]) -> None:
    """Note what a check costs: the time until it is told, and how long a processor was busy for it."""
    took, busy = [], []
    for _ in range(7):
        used, began = _used(), time.perf_counter()
        # Compiled, as an installed package is.
        bed.machine.attempt(*command(), "check", env={"PYTHONDONTWRITEBYTECODE": ""})
        took.append((time.perf_counter() - began) * 1000)
        busy.append((_used() - used) * 1000)
    figures["nm-mptcp check beside the service"] = (
        f"median {statistics.median(took):.0f} ms, best {min(took):.0f} ms; processor {statistics.median(busy):.0f} ms"
    )


def _used() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


@bad_state_of(paths.paths, paths.limits, routes.route_lookups, manager.configuration)
def test_beside_the_service(bed: Bed, up: Links, figures: dict[str, str]) -> None:
    doctor = Doctor(bed)
    wrong = [each for each in doctor.findings() if each["result"] not in ("good", "not-applicable")]
    # Nothing keeps this bed from having all, but what the machine that it runs on lacks.
    assert [each["check"] for each in wrong if each["check"] not in ("kernel-options", "tools")] == []
    assert doctor.status == bool(wrong)
    assert doctor.found("drop-in")["evidence"].startswith("profiles without mptcp-flags are left to nm-mptcp")
    assert doctor.found("rules", up.lte.address)["result"] == "good"

    # It writes nothing, and is quick.
    trace = bed.directory / "check.strace"
    bed.machine.attempt(*STRACE, "-o", str(trace), *command(), "check")
    assert writes_in(trace.read_text()) == []
    assert "pyroute2" not in trace.read_text()
    cost(bed, figures)

    # IPv6 is judged alike, and everybody may look.
    home = bed.uplink("eth0", ra="2001:db8:5::/64")
    bed.profile("Home", "eth0", "ipv4.method disabled", "ipv6.method auto")
    bed.up("Home")
    address6 = home.address6()
    bed.wait_endpoint(address6)
    bed.sync()
    assert {doctor.found(check, address6)["result"] for check in ("endpoint", "route", "rules")} == {"good"}
    done = bed.machine.attempt(*as_user(65534, "check"), "check", "--json")
    seen = {
        each["check"]: each["result"] for each in json.loads(done.stdout)["findings"] if each["subject"] != "mptcpize"
    }
    assert seen | {"firewall": "unknown"} == seen
    assert {seen[check] for check in ("service", "networkmanager", "paths", "endpoint", "route", "rules")} == {"good"}
    bed.down("Home")

    # A link without carrier is held back, which is no fault.
    up.lte.carrier(False)
    held = doctor.wait("paths", "warning", up.lte.address)
    assert (held["evidence"], doctor.status) == ("suspended: no carrier", 1)
    assert "connect the cable" in held["remedy"]["words"]
    up.lte.carrier(True)
    wait_for("the link is back", lambda: all(not each["subject"] for each in doctor.findings("paths")))

    # A rule in front of ours.
    bed.sh(f"ip rule add priority 100 from {up.lte.address} lookup 254")
    astray = doctor.found("route", up.lte.address)
    assert (astray["result"], doctor.status) == ("warning", 1)
    doctor.follow(astray)
    assert doctor.found("route", up.lte.address)["result"] == "good"

    # Somebody lowered the limits: the service takes that for his wish, check tells of it.
    bed.sh("ip mptcp limits set subflows 0 add_addr_accepted 0")
    low = doctor.found("limits")
    assert (low["result"], doctor.status) == ("bad", 2)
    doctor.follow(low)
    assert doctor.found("limits")["result"] == "good"

    # A configuration that is no good in part.
    bed.write(SETTINGS, "[main]\nmode=best\n")
    wrong_one = doctor.found("configuration")
    assert "[main] mode=best: must be auto" in wrong_one["evidence"]
    told = bed.machine.attempt(*wrong_one["remedy"]["commands"][0].split())
    assert told.returncode == 1
    assert "[main] mode=best: must be auto" in told.stdout + told.stderr
    bed.path(SETTINGS).unlink()
    assert doctor.found("configuration")["result"] == "good"

    # No line of what a person reads is lost in a pipe, and no colour is in it.
    shown = bed.machine.attempt(*command(), "check").stdout
    assert "\033" not in shown
    assert re.search(r"^good +route +wlan0 ", shown, re.MULTILINE)


@bad_state_of(manager.service, manager.dropin, manager.networkmanager, routes.rules, paths.endpoints)
def test_without_the_service(bed: Bed, links: Links) -> None:
    doctor = Doctor(bed)
    bed.up("Wi-Fi", "LTE")
    bed.scripts_are_done()
    assert doctor.found("service")["result"] == "warning"
    assert doctor.found("rules", links.lte.address)["result"] == "good"

    # Rules, routes and endpoint of a path are gone; nobody is there to make them again, but check --fix.
    bed.without_dispatcher_scripts()
    table = bed.table_of(links.lte.address)
    bed.sh(f"ip rule del from {links.lte.address} unreachable priority 32765; ip route flush table {table}")
    lacking = doctor.found("rules", links.lte.address)
    assert (lacking["result"], doctor.status) == ("bad", 2)
    assert f"no rule '32765: from {links.lte.address} unreachable'" in lacking["evidence"]
    assert f"no route to default in table {table}" in lacking["evidence"]
    endpoint = bed.endpoint(links.wifi.address)
    assert endpoint
    bed.sh(f"ip mptcp endpoint delete id {endpoint.id}")
    assert doctor.found("endpoint", links.wifi.address)["evidence"] == "the path has no endpoint"
    fixed = bed.machine.attempt(*command(), "check", "--fix", "--yes")
    assert "nm-mptcp apply" in fixed.stderr
    assert {each["result"] for each in doctor.findings("rules")} == {"good"}
    assert {each["result"] for each in doctor.findings("endpoint")} == {"good"}
    assert doctor.status == 1

    # Somebody hides our drop-in: NetworkManager makes the endpoints.
    bed.dropin(False)
    bed.reload_networkmanager()
    hidden = doctor.found("drop-in")
    assert hidden["result"] == "warning"
    assert "hides nm-mptcp's drop-in" in hidden["evidence"]
    bed.up("LTE")
    bed.wait_endpoint(links.lte.address)
    doctor.follow(hidden)
    # It counts from the next activation on.
    old = doctor.found("drop-in", links.lte.address)
    assert "this activation began before NetworkManager read it" in old["evidence"]
    doctor.follow(old)
    assert {each["result"] for each in doctor.findings("drop-in")} == {"good"}

    # NetworkManager is away.
    bed.stop_networkmanager()
    away = doctor.found("networkmanager")
    assert (away["result"], doctor.status) == ("bad", 2)
    assert away["remedy"]["commands"] == ["systemctl start NetworkManager"]
    bed.start_networkmanager()
    assert doctor.found("networkmanager")["result"] == "good"
    bed.up("Wi-Fi", "LTE")

    # As it says: the service runs, and it is gone.
    lacking = doctor.found("service")
    assert lacking["remedy"]["words"] == "run 'nm-mptcp daemon' as a service"
    service = bed.start_service()
    assert doctor.wait("service", "good")

    # It is there, and does not answer: no word of that it does not run.
    service.program.send(signal.SIGSTOP)
    mute = doctor.found("service")
    assert (mute["result"], doctor.status) == ("bad", 2)
    assert mute["evidence"].startswith("the service does not answer: ")
    assert mute["remedy"]["words"] == "restart it"
    assert doctor.found("networkmanager")["result"] == "unknown"
    service.program.go_on()
    service.kill()
    bed.start_service()
    assert doctor.wait("service", "good")


@bad_state_of(paths.paths, paths.families, paths.endpoints, manager.dropin, routes.rules)
def test_profiles_and_settings_that_are_not_as_they_should_be(bed: Bed, up: Links) -> None:
    doctor = Doctor(bed)

    # Global addresses in both families, and a way out in one.
    bed.modify("LTE", "ipv6.method manual", "ipv6.addresses 2001:db8:77::5/64")
    bed.up("LTE")
    lone = doctor.wait("families", "warning", "2001:db8:77::5")
    assert lone["evidence"].startswith("only IPv4 is a path here: ")
    assert lone["remedy"]["words"] == "give the profile a gateway, or mptcp-flags also-without-default-route"
    bed.modify("LTE", "ipv6.gateway 2001:db8:77::1")
    bed.up("LTE")
    wait_for("it is cleared", lambda: not doctor.findings("families"))
    bed.modify("LTE", "ipv6.gateway ", "connection.mptcp-flags also-without-default-route,subflow,enabled")
    bed.up("LTE")
    wait_for("it is cleared by the flags, too", lambda: not doctor.findings("families"))

    # Flags that do nothing, in a profile.
    bed.modify("LTE", "ipv6.method disabled", "ipv6.addresses ", "connection.mptcp-flags enabled,backup")
    bed.up("LTE")
    idle = doctor.wait("endpoint", "warning", up.lte.address)
    assert "neither 'subflow' nor 'signal', so it has no effect" in idle["evidence"]
    doctor.follow(idle)
    assert doctor.wait("endpoint", "good", up.lte.address)["evidence"].endswith("subflow backup")

    # A rule and a route among ours that are not.
    table = bed.table_of(up.wifi.address)
    assert bed.service
    bed.service.stop()
    bed.sh(
        f"ip rule add priority 32003 from {up.wifi.address} lookup 7 proto 77"
        f"; ip route add 203.0.113.0/24 via {up.wifi.gateway} dev wlan0 table {table} proto 77"
    )
    strange = doctor.found("rules", up.wifi.address)
    assert f"a wrong rule '32003: from {up.wifi.address} lookup 7'" in strange["evidence"]
    assert f"a wrong route to 203.0.113.0/24 in table {table}" in strange["evidence"]
    doctor.follow(strange)
    assert doctor.found("rules", up.wifi.address)["result"] == "good"

    # Another section of NetworkManager's configuration decides.
    bed.configure("99-other.conf", "[connection-other]\nconnection.mptcp-flags=0x22\n")
    other = doctor.found("drop-in")
    assert other["result"] == "warning"
    assert other["evidence"].startswith("[connection-other] decides the default")
    doctor.follow(other)  # it shows which file
    bed.path("/etc/NetworkManager/conf.d/99-other.conf").unlink()
    bed.reload_networkmanager()
    assert doctor.found("drop-in")["result"] == "good"

    # Our own is not installed.
    bed.sh("mount -t tmpfs none /usr/lib/NetworkManager/conf.d")
    bed.reload_networkmanager()
    gone = doctor.found("drop-in")
    assert gone["evidence"].startswith("/usr/lib/NetworkManager/conf.d/10-nm-mptcp.conf is missing")
    assert gone["remedy"]["words"] == "reinstall nm-mptcp"
    bed.sh("umount /usr/lib/NetworkManager/conf.d")
    bed.reload_networkmanager()
    assert doctor.found("drop-in")["result"] == "good"

    # No link is up.
    bed.down("LTE")
    bed.down("Wi-Fi")
    none = doctor.found("paths")
    assert (none["result"], none["evidence"], doctor.status) == ("warning", "no address is a path", 1)
    # Nothing is wrong with it, as status says.
    assert doctor.found("status")["result"] == "good"
    bed.up("Wi-Fi")
    assert doctor.found("paths")["result"] == "good"


@bad_state_of(routes.tunnels)
def test_a_tunnel_that_connections_may_leave(bed: Bed, links: Links) -> None:
    doctor = Doctor(bed)
    bed.start_service()
    links.bring_up()
    assert doctor.found("tunnels")["result"] == "not-applicable"
    VPN(bed).up()
    doctor.wait("tunnels", "good", "tun0")
    assert bed.service
    bed.service.kill()
    bed.sh("nft delete table inet nm-mptcp")
    assert doctor.found("tunnels", "tun0")["result"] == "bad"
    bed.start_service()
    doctor.wait("tunnels", "good", "tun0")
