# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever others have set up for routing decides as it would without us.

Each set-up is made on two machines: one with nm-mptcp, one with NetworkManager alone. The kernel of each is asked for the
way of many packets, and the answers have to be the same - but that what has a path's address as its source, and would go by
some default route of the main table, leaves by its own link. It must not depend on who came first: the set-up is made while
nm-mptcp runs, and nm-mptcp is started while the set-up is there.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .bed import SERVER, SERVER6, Bed
from .conftest import skip_without_tools
from .product import install

WIFI, LTE = "10.1.0.77", "10.2.0.77"
WIFI6, LTE6 = "2001:db8:1::77", "2001:db8:2::77"
LINKS = {WIFI: "wlan0", LTE: "wwan0", WIFI6: "wlan0", LTE6: "wwan0"}

#: On both machines: an interface of the administrator's with a network behind it, and a tunnel of his.
HANDS = """
    ip link add hand0 type veth peer name hand1
    ip link set hand0 up
    ip link set hand1 up
    ip address add 10.99.0.1/24 dev hand0
    ip address add 2001:db8:99::1/64 dev hand0 nodad
    ip tuntap add tun0 mode tun
    ip link set tun0 up
    ip address add 10.8.0.2/24 dev tun0
    ip address add 2001:db8:8::2/64 dev tun0 nodad
    ip nexthop add id 77 via 10.99.0.9 dev hand0
"""

#: Packets whose way is asked for, in ip(8)'s words: to each of these ...
DESTINATIONS = {
    "-4": (SERVER, "10.50.0.9", "203.0.113.7", "10.1.0.9", "10.2.0.9", "10.99.0.9", "172.17.0.2"),
    "-6": (SERVER6, "2001:db8:50::9", "2001:db8:1::9", "2001:db8:2::9", "2001:db8:99::9"),
}
#: ... with each of these.
SELECTORS = {
    "-4": (
        "",
        f"from {WIFI}",
        f"from {LTE}",
        "oif wlan0",
        "oif wwan0",
        f"from {LTE} oif wwan0",
        "mark 7",
        f"from {LTE} mark 7",
        "uid 1000",
        f"from {LTE} uid 1000",
        "ipproto tcp dport 443",
        f"from {WIFI} ipproto tcp dport 443",
        f"from {LTE} ipproto tcp sport 22",
        "from 10.99.0.7 iif hand0",
        "from 198.51.100.7",
        f"from {LTE} dsfield 0x10",
    ),
    "-6": (
        "",
        f"from {WIFI6}",
        f"from {LTE6}",
        "oif wwan0",
        f"from {LTE6} mark 7",
        f"from {LTE6} uid 1000",
        f"from {WIFI6} ipproto tcp dport 443",
        "from 2001:db8:99::7 iif hand0",
    ),
}

QUESTIONS = [
    f"{family} route get {{match}} {destination} {selector}"
    for family in ("-4", "-6")
    for destination, selector in itertools.product(DESTINATIONS[family], SELECTORS[family])
]

VPN = "ip route add default dev tun0 table 100; ip -6 route add default dev tun0 table 100"
HAND = "ip route add default via 10.99.0.9 dev hand0 table 100; ip -6 route add default via 2001:db8:99::9 dev hand0 table 100"

#: What others set up, by what it is for.
SET_UPS = {
    # rules without a priority: whoever makes them says nothing of their order
    "a destination by a table": f"{HAND}; ip rule add to 10.50.0.0/16 lookup 100",
    "a destination by a table, IPv6": f"{HAND}; ip -6 rule add to 2001:db8:50::/48 lookup 100",
    "a user by the VPN": f"{VPN}; ip rule add uidrange 1000-1000 lookup 100; ip -6 rule add uidrange 1000-1000 lookup 100",
    "a port by the VPN": (
        f"{VPN}; ip rule add ipproto tcp dport 443 lookup 100; ip -6 rule add ipproto tcp dport 443 lookup 100"
    ),
    "a port's answers by a table": f"{HAND}; ip rule add ipproto tcp sport 22 lookup 100",
    "marked packets by the VPN": f"{VPN}; ip rule add fwmark 7 lookup 100; ip -6 rule add fwmark 7 lookup 100",
    "TPROXY of own traffic": "ip route add local default dev lo table 100; ip rule add fwmark 7 lookup 100",
    "a source by a table": f"{HAND}; ip rule add from {LTE} lookup 100",
    "a source by a table, IPv6": f"{HAND}; ip -6 rule add from {LTE6} lookup 100",
    "a source prefix by a table": f"{HAND}; ip rule add from 10.2.0.0/24 lookup 100",
    "all of a path's traffic but the private": (
        f"{HAND}; ip rule add from {LTE} lookup 100; ip rule add from {LTE} to 10.0.0.0/8 lookup main"
    ),
    "type of service by a table": f"{HAND}; ip rule add tos 0x10 lookup 100",
    "what comes in by an interface": f"{HAND}; ip rule add iif hand0 lookup 100; ip -6 rule add iif hand0 lookup 100",
    "what leaves by an interface": f"{HAND}; ip rule add oif wwan0 lookup 100",
    "all but marked packets by the VPN": (
        f"{VPN}; ip rule add not fwmark 7 lookup 100; ip rule add lookup main suppress_prefixlength 0"
    ),
    # rules with a priority, on both sides of ours and in their midst
    "policy routing as NetworkManager's own procedure has it": f"{HAND}; ip rule add priority 5 from {LTE} lookup 100",
    "a rule that asks for the last priority": f"{HAND}; ip rule add priority 32765 to 10.50.0.0/16 lookup 100",
    "two rules that ask for the last priority": (
        f"{HAND}; "
        f"ip rule add priority 32765 from {LTE} lookup 100; "
        f"ip -6 rule add priority 32765 from {LTE6} lookup 100"
    ),
    "a rule where ours once were": f"{HAND}; ip rule add priority 32001 from {LTE} lookup 100",
    "main before everything": "ip rule add priority 10 lookup main suppress_prefixlength 0",
    "main with its default before everything": "ip rule add priority 11 lookup main",
    "a rule behind main": f"{HAND}; ip rule add priority 32800 from {LTE} lookup 100",
    "goto over others": (
        f"{HAND}; "
        f"ip rule add priority 200 from {LTE} goto 300; "
        "ip rule add priority 250 lookup 100; "
        "ip rule add priority 300 to 10.50.0.0/16 lookup 100"
    ),
    # what rejects
    "a kill switch": "ip rule add priority 900 not fwmark 7 to 203.0.113.0/24 blackhole",
    "a kill switch without a priority": f"ip rule add from {LTE} to 203.0.113.0/24 prohibit",
    "a kill switch for a user": "ip rule add uidrange 1000-1000 unreachable; ip -6 rule add uidrange 1000-1000 unreachable",
    "a table that ends in blackhole": "ip route add blackhole default table 100; ip rule add fwmark 7 lookup 100",
    "a blackholed network in main": "ip route add blackhole 10.50.0.0/16; ip -6 route add unreachable 2001:db8:50::/48",
    "a throw route": f"ip route add throw default table 100; ip rule add from {LTE} lookup 100",
    # routes in main
    "a container's network": "ip route add 172.17.0.0/16 dev hand0",
    "a split tunnel": (
        "ip route add 10.50.0.0/16 dev tun0; "
        "ip route add 203.0.113.0/24 dev tun0; "
        "ip -6 route add 2001:db8:50::/48 dev tun0"
    ),
    "a split tunnel with a source hint": "ip route add 10.50.0.0/16 dev tun0 src 10.8.0.2",
    "OpenVPN's two halves": "ip route add 0.0.0.0/1 dev tun0; ip route add 128.0.0.0/1 dev tun0",
    "a full tunnel by a better default": (
        "ip route add default dev tun0 metric 1; ip -6 route add default dev tun0 metric 1"
    ),
    "ECMP": "ip route add 10.50.0.0/16 nexthop via 10.99.0.9 dev hand0 nexthop via 10.99.0.8 dev hand0",
    "a routing daemon's networks": (
        "ip route add 10.50.0.0/16 via 10.99.0.9 dev hand0 proto bird metric 32; "
        "ip -6 route add 2001:db8:50::/48 via 2001:db8:99::9 dev hand0 proto bird metric 32"
    ),
    "a host route by the second link": "ip route add 203.0.113.7 via 10.2.0.1 dev wwan0",
    "a nexthop object": "ip route add 10.50.0.0/16 nhid 77",
    # addresses
    "a service address on lo": f"ip address add 198.51.100.7/32 dev lo; {HAND}; ip rule add from 198.51.100.7 lookup 100",
    "keepalived's address on a link": "ip address add 198.51.100.7/32 dev wlan0",
    "a second address by hand with its own gateway": (
        "ip address add 10.1.7.7/24 dev wlan0; "
        "ip route add default via 10.1.7.1 dev wlan0 table 100; "
        "ip rule add from 10.1.7.7 lookup 100"
    ),
    "the same address once more": f"ip address add {LTE}/32 dev hand0",
    "two providers on a bond": (
        "ip address add 10.1.7.7/24 dev wlan0; "
        "ip address add 10.1.8.7/24 dev wlan0; "
        "ip route add 10.50.0.0/16 via 10.1.7.1 dev wlan0; "
        "ip route add 203.0.113.0/24 via 10.1.8.1 dev wlan0"
    ),
    # WireGuard, Tailscale, nm-cloud-setup
    "wg-quick": (
        f"{VPN}; "
        "ip rule add not fwmark 51820 lookup 100; "
        "ip rule add lookup main suppress_prefixlength 0; "
        "ip -6 rule add not fwmark 51820 lookup 100; "
        "ip -6 rule add lookup main suppress_prefixlength 0"
    ),
    "Tailscale": (
        "ip route add 10.50.0.0/16 dev tun0 table 52; "
        "ip rule add priority 5210 fwmark 0x80000/0xff0000 lookup main; "
        "ip rule add priority 5230 fwmark 0x80000/0xff0000 lookup default; "
        "ip rule add priority 5250 fwmark 0x80000/0xff0000 unreachable; "
        "ip rule add priority 5270 lookup 52"
    ),
    "nm-cloud-setup": (
        f"{HAND}; "
        "ip rule add priority 30350 lookup main suppress_prefixlength 0; "
        f"ip rule add priority 30400 from {LTE} lookup 100"
    ),
}


@dataclasses.dataclass(frozen=True)
class Way:
    """What the kernel says of a packet: interface and gateway, or what it answers instead."""

    device: str
    gateway: str
    refused: str

    @classmethod
    def read(cls, answer: str) -> Way:
        """From ip(8)'s answer."""
        device, gateway = re.search(r" dev (\S+)", answer), re.search(r" via (?:inet6 )?(\S+)", answer)
        kind = re.match(r"(local|blackhole|unreachable|prohibit|RTNETLINK answers: [^.]*?)(?: |$)", answer)
        refused = kind[1] if kind else ""
        if answer.startswith(("RTNETLINK", "Error")):
            return cls("", "", answer.split(":", 1)[1].strip())
        return cls(device[1] if device else "", gateway[1] if gateway else "", refused)


class Machine:
    """A machine with two links, on which somebody sets up routing."""

    def __init__(self, directory: Path, installed: Path, *, product: bool) -> None:
        directory.mkdir()
        self.bed = Bed(directory, installed=installed, product=product, dropin=product)
        self.product = product
        for name, number, metric in (("wlan0", 1, 50), ("wwan0", 2, 700)):
            network = self.bed.network(name, f"10.{number}.0.0/24", f"2001:db8:{number}::/64")
            self.bed.uplink(name, network)
            self.bed.profile(
                name,
                name,
                "ipv4.method manual",
                f"ipv4.addresses 10.{number}.0.77/24",
                f"ipv4.gateway 10.{number}.0.1",
                f"ipv4.route-metric {metric}",
                "ipv6.method manual",
                f"ipv6.addresses 2001:db8:{number}::77/64",
                f"ipv6.gateway 2001:db8:{number}::1",
                f"ipv6.route-metric {metric}",
            )
        self.bed.sh(HANDS)
        if product:
            self.bed.without_dispatcher_scripts()
            self.bed.start_service()
        self.bed.up("wlan0", "wwan0")
        if product:
            for address in LINKS:
                self.bed.wait_endpoint(address)
        self.settle()

    def settle(self) -> None:
        """Come back when nm-mptcp has acted on all that was done."""
        if self.product:
            self.bed.sync()

    def begin_again(self, script: str) -> None:
        """Take all of nm-mptcp away and the set-up too, make the set-up, and start nm-mptcp as if it came now."""
        assert self.bed.service
        self.bed.service.stop()
        self.bed.nm_mptcp("clear")
        assert self.bed.rules(protocol="77") == []
        self.bed.sh(f"{undo(script)}; {script}")
        self.bed.start_service()
        for address in LINKS:
            if self.routes_it(address):
                self.bed.wait_endpoint(address)
        self.settle()

    def routes_it(self, address: str) -> bool:
        """Whether nm-mptcp has rules for an address."""
        return bool(self.bed.rules(address, protocol="77"))

    def answers(self, *, match: bool = False) -> dict[str, str]:
        """The kernel's answer to each question; ``match``: the route that it found."""
        questions = [question.format(match="fibmatch" if match else "") for question in QUESTIONS]
        script = "\n".join(f"ip {question} 2>&1 | tr '\\n' ' '; echo" for question in questions)
        return dict(zip(QUESTIONS, self.bed.machine.run("sh", "-c", script, seconds=60).splitlines(), strict=True))


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Machine]]:
    """One with nm-mptcp, one with NetworkManager alone."""
    skip_without_tools()
    directory = tmp_path_factory.mktemp("foreign")
    installed = install(directory / "installed")
    made: list[Machine] = []
    try:
        for product in (True, False):
            made.append(Machine(directory / ("with" if product else "alone"), installed, product=product))
        yield made[0], made[1]
    finally:
        for machine in made:
            machine.bed.stop()
        shutil.rmtree(directory, ignore_errors=True)


def undo(script: str) -> str:
    """The commands that take a set-up away: each backwards, the last first."""
    return "; ".join(
        re.sub(r"^(ip (?:-6 )?(?:rule|route|address)) add ", r"\1 del ", step.strip())
        for step in reversed(script.split(";"))
    )


def differences(ours: Machine, expected: dict[str, str], matches: dict[str, str]) -> list[str]:
    """The packets that go another way than expected; ``matches`` are the routes by which they would go."""
    found = ours.answers()
    wrong = []
    for question in QUESTIONS:
        here, there = Way.read(found[question]), Way.read(expected[question])
        source = re.search(r"from (\S+)", question)
        link = LINKS.get(source[1]) if source else None
        by_default = matches[question].startswith("default ") and " table " not in matches[question]
        if link and by_default and there.device in LINKS.values() and here.device == link:
            continue
        if here != there:
            wrong.append(f"ip {question.format(match='')}: {found[question]!r} instead of {expected[question]!r}")
    return wrong


@pytest.mark.parametrize("name", SET_UPS)
def test_what_others_set_up_decides_as_with_networkmanager_alone(machines: tuple[Machine, Machine], name: str) -> None:
    ours, alone = machines
    script = SET_UPS[name]
    for machine in machines:
        machine.bed.sh(script)
    try:
        expected, matches = alone.answers(), alone.answers(match=True)
        ours.settle()
        assert differences(ours, expected, matches) == [], "set up while nm-mptcp runs"
        ours.begin_again(script)
        assert differences(ours, expected, matches) == [], "nm-mptcp starts after it"
    finally:
        for machine in machines:
            machine.bed.sh(undo(script))
        ours.settle()
    for address in LINKS:
        ours.bed.wait_endpoint(address)


@pytest.mark.parametrize("address", LINKS)
def test_what_is_bound_to_a_paths_address_leaves_by_its_link(machines: tuple[Machine, Machine], address: str) -> None:
    ours, _ = machines
    family, server = ("-6", SERVER6) if ":" in address else ("-4", SERVER)
    answer = ours.bed.machine.run("ip", family, "route", "get", server, "from", address)
    assert Way.read(answer).device == LINKS[address]


def test_there_are_at_least_forty() -> None:
    assert len(SET_UPS) >= 40
