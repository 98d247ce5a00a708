# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian package on a machine with real Wi-Fi and a metered second link, from `apt install` to `apt purge`.

Each machine is booted once and goes through the stories in their order. Nothing is judged by the clock: the machine is
emulated. What was measured is printed, and kept by a run that passed (:mod:`.figures`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

from ..conftest import saw
from ..packages import test_install
from ..packages.built import deb
from ..packages.system import System
from ..packages.talk import PORT, SERVER, Talk, serve
from ..packages.test_install import NETWORKMANAGER, paths, status
from . import air
from .booted import Booted
from .conftest import DISTRIBUTIONS, measured
from .figures import Figures
from .image import image, reason_to_skip
from .machine import Machine
from .test_switch import WITHOUT

#: Where this tree is in the machine: what is in root's home is not asked after when the package is purged.
TREE = "/root/nm-mptcp"

LAMINAR = {"laminar"}

#: The port of connections that begin when a link is lost.
LATER = 5001

#: Milliseconds between two words of a stream.
EVERY = 20

#: Seconds of a real machine's within which all has to happen that a link's loss or return brings.
PATIENCE = 12


#: Prints how long a new connection takes (ms).
CONNECT = f"""
import socket, time
begin = time.monotonic()
socket.create_connection(("{SERVER}", {LATER}), 20).close()
print(round((time.monotonic() - begin) * 1000))
"""


@dataclass(frozen=True)
class Site:
    """A machine, and the Wi-Fi around it."""

    system: Booted
    air: air.Air
    figures: Figures
    before: dict[str, list[str]]  #: what the kernel had before the package was there

    def addresses(self) -> dict[str, str]:
        """That of each profile."""
        return {name: path["address"] for name, path in paths(self.system).items()}

    def flags(self) -> dict[str, set[str]]:
        """Those of each profile's path, but for the one that from Linux 6.18 on all have."""
        return {name: set(path["flags"]) - LAMINAR for name, path in paths(self.system).items()}

    def moments(self, which: str, command: str) -> dict[str, float]:
        """What came of a command that takes the Wi-Fi away (``lost``) or brings it back, in ms (:mod:`.moments`)."""
        address, port = self.addresses().get("air") or self.last_address, PORT if which == "back" else LATER
        words = f"{which} wlan0 {address} {SERVER} {port} {self.system.patience(PATIENCE):g} {quote(command)}"
        told: dict[str, float] = json.loads(
            self.system.run(f"cd {TREE}; python3 -m tests.machine.moments {words}", seconds=4 * PATIENCE)
        )
        missing = [what for what, when in told.items() if when is None]
        assert not missing, f"{command}: no {', '.join(missing)}\n{self.system.run('nm-mptcp status', check=False)}"
        return told

    def story(self) -> dict[str, str]:
        """For a failed test's report."""
        return self.system.story()

    @property
    def last_address(self) -> str:
        """The Wi-Fi's, which may just have none, from its lease."""
        return next(line.split()[2] for line in self.system.run("cat /run/leases").splitlines() if " 10.1.0." in line)


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A machine without the package, the two profiles up as NetworkManager alone has them."""
    if reason := reason_to_skip():
        # Where all has to run, a machine that cannot is a failure.
        (pytest.fail if os.environ.get("NM_MPTCP_TESTS") == "all" else pytest.skip)(reason)
    with Machine(image(request.param), systemd=True) as machine:
        machine.put_tree(TREE)
        system = Booted(machine)
        seen = json.loads(system.run(f"python3 {TREE}/tests/versions.py seen"))
        saw(request.config, seen)
        figures = Figures(seen)
        measured(request.config, figures)
        system.put(deb(), "/root/nm-mptcp.deb")
        system.run("cat >/etc/NetworkManager/conf.d/test.conf <<'E'\n" + NETWORKMANAGER + "E\nnmcli general reload")
        around = air.Air(system)
        system.run(f"{test_install.FILES} >/tmp/files.before")
        system.run("nmcli connection up air; nmcli connection up wire", seconds=90)
        for port in (PORT, LATER):
            serve(system, port=port)
        yield Site(system, around, figures, test_install.kernel(system))


@pytest.fixture
def system(site: Site) -> System:
    return site.system


def check(system: System) -> list[dict[str, Any]]:
    """What `nm-mptcp check` finds."""
    findings: list[dict[str, Any]] = json.loads(system.run("nm-mptcp check --json || true"))["findings"]
    return findings


def both_carry_or_wait(site: Site) -> None:
    """Both are paths, the Wi-Fi before the metered one."""
    question = 'nm-mptcp status --json | python3 -c \'import json, sys; exit(json.load(sys.stdin)["state"] != "good")\''
    site.system.wait(question, seconds=PATIENCE)
    assert site.flags() == {"air": {"subflow"}, "wire": {"subflow", "backup"}}


def test_one_command_installs_it(system: System) -> None:
    test_install.test_installing_starts_the_service_and_leaves_networkmanager_running(system)


def test_the_next_activation_makes_both_links_paths(site: Site) -> None:
    """Endpoints, flags, rules, tables and limits are right, as the kernel and as `nm-mptcp check` have it."""
    system = site.system
    test_install.test_the_drop_in_is_loaded_and_counts_from_the_next_activation_on(system)
    both_carry_or_wait(site)
    wifi, wire = (site.addresses()[name] for name in ("air", "wire"))

    endpoints = system.run("ip mptcp endpoint show").splitlines()
    told = {words[0]: set(words[3:]) - LAMINAR for words in map(str.split, endpoints)}
    assert told == {wifi: {"subflow", "dev", "wlan0"}, wire: {"subflow", "backup", "dev", "wire"}}
    for address, link, gateway in ((wifi, "wlan0", "10.1.0.1"), (wire, "wire", "10.2.0.1")):
        route = system.run(f"ip route get {SERVER} from {address}")
        assert f"via {gateway} dev {link}" in route, route
    limits = status(system)["limits"]
    assert limits["subflows"] >= 2
    assert limits["add_addr_accepted"] >= 2

    bad = [finding for finding in check(system) if finding["result"] not in ("good", "not-applicable")]
    assert bad == []


def test_a_stream_survives_roaming_between_two_access_points(site: Site) -> None:
    system = site.system
    used = site.air.used()
    other = next(bssid for bssid in map(site.air.bssid, air.CHANNELS) if bssid != used)
    wifi, wire = (site.addresses()[name] for name in ("air", "wire"))
    with Talk(system, every=EVERY) as talk:
        talk.wait_subflows(wifi, wire)
        system.wait(
            f"{air.SUPPLICANT} scan >/dev/null; {air.SUPPLICANT} scan_results | grep -i {other}", seconds=PATIENCE
        )
        talk.told()
        system.run(f"{air.SUPPLICANT} roam {other} | grep OK")
        system.wait(
            f"{air.SUPPLICANT} status | tr '\\n' ' ' | grep -i 'bssid={other} .*wpa_state=COMPLETED'", seconds=PATIENCE
        )
        told = talk.goes_on()
        talk.wait_subflows(wifi, wire, seconds=PATIENCE)
        assert talk.goes_on().back
    site.figures.tell("roaming to the other access point: longest gap", f"{told.longest_gap_ms:.0f} ms")
    both_carry_or_wait(site)


LOSSES = {
    "switched off": (air.switched_off(*air.CHANNELS), air.switched_on(*air.CHANNELS)),
    "without power": (air.unplugged(*air.CHANNELS), air.plugged(*air.CHANNELS)),
}


def lost_and_back(site: Site, what: str, loss: str, return_: str) -> None:
    """A stream, a new connection and a container live on when the Wi-Fi is lost, and the stream uses it when it is back."""
    system = site.system
    wifi, wire = (site.addresses()[name] for name in ("air", "wire"))
    with Talk(system, every=EVERY) as talk:
        talk.wait_subflows(wifi, wire)
        talk.told()
        moments = site.moments("lost", loss)
        told = talk.goes_on()
        assert {address for address, _ in talk.subflows()} == {wire}
        assert site.air.box_reaches(SERVER, LATER)
        after = {name: moments[name] - moments["carrier"] for name in ("endpoint", "connected")}
        for figure, value in (
            ("no carrier after", moments["carrier"]),
            ("then the dead endpoint is gone after", after["endpoint"]),
            ("then a new connection has its answer after", after["connected"]),
            ("longest gap", told.longest_gap_ms),
        ):
            site.figures.tell(f"{what}: {figure}", f"{value:.0f} ms")
        moments = site.moments("back", return_)
        told = talk.goes_on()
        talk.wait_subflows(wifi, wire)
        site.figures.tell(f"{what}, and back: carrier after", f"{moments['carrier']:.0f} ms")
        site.figures.tell(
            f"{what}, and back: then the subflow is back after", f"{moments['subflow'] - moments['carrier']:.0f} ms"
        )
        site.figures.tell(f"{what}, and back: longest gap", f"{told.longest_gap_ms:.0f} ms")
    both_carry_or_wait(site)
    assert site.air.box_reaches(SERVER, LATER)


def test_a_stream_and_a_container_survive_access_points_that_are_switched_off(site: Site) -> None:
    assert site.air.box_reaches(SERVER, LATER)
    lost_and_back(site, "access points switched off", *LOSSES["switched off"])


def test_a_line_that_is_dead_beyond_the_access_points_is_noticed(site: Site) -> None:
    """The carrier stays; the service, in the sandbox of its unit, learns of it from the kernel's tracing."""
    system = site.system
    wifi, wire = (site.addresses()[name] for name in ("air", "wire"))
    with Talk(system, every=EVERY) as talk:
        talk.wait_subflows(wifi, wire)
        talk.told()
        system.run(air.LINE_DEAD)
        system.wait("nm-mptcp status | grep -q silent:", seconds=PATIENCE)
        connected = system.run(f"python3 -c {quote(CONNECT)}").strip()
        told = talk.goes_on()
        assert {address for address, _ in talk.subflows()} == {wifi, wire}, "nothing is closed"
        system.run(air.LINE_ALIVE)
        system.wait("! nm-mptcp status | grep -q silent:", seconds=PATIENCE)
        assert talk.goes_on().back
    site.figures.tell("the line beyond the access points dead: longest gap", f"{told.longest_gap_ms:.0f} ms")
    site.figures.tell("the line beyond the access points dead: a new connection takes", f"{connected} ms")
    assert "cannot be traced" not in system.run("journalctl -u nm-mptcp -o cat")
    both_carry_or_wait(site)


def test_names_are_resolved_while_a_line_is_dead(site: Site) -> None:
    """By systemd-resolved, which asks by each link that NetworkManager gave a server and a default route."""
    system = site.system
    wifi, wire = (site.addresses()[name] for name in ("air", "wire"))
    system.run(air.RESOLVED)
    try:
        with Talk(system, every=EVERY) as talk:
            talk.wait_subflows(wifi, wire)
            resolved(system, "before")
            system.run(air.LINE_DEAD)
            at_once = resolved(system, "at-once")
            system.wait("nm-mptcp status | grep -q silent:", seconds=PATIENCE)
            noticed = resolved(system, "noticed")
            system.run(air.LINE_ALIVE)
            system.wait("! nm-mptcp status | grep -q silent:", seconds=PATIENCE)
            resolved(system, "after")
            assert talk.goes_on().back
    finally:
        system.run(air.NOT_RESOLVED)
    for when, took in (("a name is resolved at once", at_once), ("a name is resolved when it is noticed", noticed)):
        site.figures.tell(f"the line beyond the access points dead: {when}, in", took)
    both_carry_or_wait(site)


def resolved(system: System, word: str) -> str:
    """How long systemd-resolved takes for a name that it was not asked for before; AssertionError when there is no answer."""
    told = system.run(f"resolvectl query {word}.example.net")
    assert f": {SERVER}" in told, told
    (took,) = re.findall(r" in (\S+)\.$", told, re.MULTILINE)
    return str(took)


@pytest.mark.long
def test_they_survive_it_over_links_with_a_delay(site: Site) -> None:
    """25 ms each way on both links."""
    delay = "netem delay 25ms"
    ends = [f"tc qdisc {{}} dev {link} root" for link in ("wlan0", "wire")]
    ends += [f"tc -n far qdisc {{}} dev {link} root" for link in ("lan", "wire")]
    for end in ends:
        site.system.run(f"{end.format('replace')} {delay}")
    try:
        lost_and_back(site, "access points switched off, 25 ms each way", *LOSSES["switched off"])
    finally:
        for end in ends:
            site.system.run(end.format("del"), check=False)


@pytest.mark.long
def test_a_weak_access_point_is_backup_before_it_is_lost(site: Site) -> None:
    """The metered link relieves it until it is strong again."""
    system = site.system
    strong = site.air.strength()
    system.run("; ".join(air.heard(number, air.WEAK) for number in air.CHANNELS))
    wanted = "nm-mptcp status --json | grep -q weak-signal"
    try:
        system.wait(wanted, seconds=PATIENCE)
        shown = paths(system)
        weak = site.air.strength()
        assert "backup" in shown["air"]["flags"]
        assert "backup" not in shown["wire"]["flags"]
    finally:
        system.run("; ".join(air.heard(number, air.USUAL) for number in air.CHANNELS))
    site.figures.tell("signal as NetworkManager tells it, usual and weak", f"{strong} %, {weak} %")
    system.wait(f"! {wanted}", seconds=PATIENCE)
    both_carry_or_wait(site)


@pytest.mark.long
def test_wifi_and_an_ethernet_that_is_not_metered_both_carry(site: Site) -> None:
    """A stream as fast as it goes, on links of 4 Mbit/s."""
    system = site.system
    rate = "netem rate 4mbit limit 100"
    system.run("nmcli connection modify wire connection.metered no; nmcli device reapply wire")
    system.run(f"tc qdisc replace dev wlan0 root {rate}; tc qdisc replace dev wire root {rate}")
    try:
        system.wait("test $(ip mptcp endpoint show | grep -c backup) = 0", seconds=PATIENCE)
        assert site.flags() == {"air": {"subflow"}, "wire": {"subflow"}}
        sent = {link: _sent(system, link) for link in ("wlan0", "wire")}
        system.run(f"python3 /root/echo.py load {SERVER} {LATER} 20")
        carried = {link: _sent(system, link) - before for link, before in sent.items()}
    finally:
        system.run("tc qdisc del dev wlan0 root; tc qdisc del dev wire root", check=False)
        system.run("nmcli connection modify wire connection.metered yes; nmcli device reapply wire")
    site.figures.tell(
        "Wi-Fi and Ethernet, 4 Mbit/s each, 20 s: sent by Wi-Fi, by Ethernet",
        f"{carried['wlan0'] / 1e6:.1f} MB, {carried['wire'] / 1e6:.1f} MB",
    )
    assert min(carried.values()) > sum(carried.values()) / 5
    both_carry_or_wait(site)


def _sent(system: System, link: str) -> int:
    return int(system.run(f"cat /sys/class/net/{link}/statistics/tx_bytes"))


TUNNELS = {
    "NetworkManager": ("nmcli connection up vpn0", "nmcli connection down vpn0"),
    "wg-quick": ("wg-quick up /run/vpn0.conf", "wg-quick down /run/vpn0.conf"),
}


@pytest.mark.long
@pytest.mark.parametrize("by", TUNNELS)
def test_nothing_goes_around_a_full_tunnel(site: Site, by: str) -> None:
    """WireGuard, to which both links are only the way: below it no address is a path, and after it both are again."""
    system = site.system
    up, down = TUNNELS[by]
    system.run(air.TUNNEL)
    try:
        system.run(up)
        system.wait('test -z "$(ip mptcp endpoint show)"', seconds=PATIENCE)
        assert {path["rule"] for path in paths(system).values()} == {"vpn-guard"}
        system.run("ip netns exec far nft reset counters")
        with Talk(system, server="192.0.2.2", every=EVERY) as talk:
            assert talk.goes_on().back
            told = talk.goes_on()
            assert {address for address, _ in talk.subflows()} == {"10.9.0.2"}
        counted = json.loads(system.run("ip netns exec far nft -j list counters"))["nftables"]
        packets = {each["counter"]["name"]: each["counter"]["packets"] for each in counted if "counter" in each}
        site.figures.tell(
            f"WireGuard by {by}: packets in the tunnel, and around it", f"{packets['inside']}, {packets['around']}"
        )
        assert told.back
        assert packets["inside"] > 20
        assert packets["around"] == 0
    finally:
        system.run(down, check=False)
        system.run(air.NO_TUNNEL, check=False)
    both_carry_or_wait(site)


@pytest.mark.long
def test_an_upgrade_cuts_no_subflow(site: Site, tmp_path: Path) -> None:
    told = test_install.upgraded(site.system, tmp_path, every=EVERY)
    site.figures.tell("upgrade of the package, and of another one as large: longest gap", str(told))


@pytest.mark.long
def test_they_survive_access_points_without_power(site: Site) -> None:
    """Nobody says goodbye: the machine has to miss them."""
    lost_and_back(site, "access points without power", *LOSSES["without power"])


def test_removing_puts_back_what_was_there(site: Site) -> None:
    """Also what `nm-mptcp exec` left in the kernel, where that has a place for it."""
    if site.system.distribution not in WITHOUT:
        site.system.run("nm-mptcp exec --method=ebpf -- true; ls /sys/fs/bpf/nm-mptcp")
    test_install.test_removing_puts_back_what_was_there(site.system)
    site.system.run("test ! -e /sys/fs/bpf/nm-mptcp")
    after = test_install.kernel(site.system)
    for what in ("rules", "limits", "linkdown"):
        assert after[what] == site.before[what]


def test_purging_leaves_no_file(system: System) -> None:
    test_install.test_purging_leaves_no_file(system)
