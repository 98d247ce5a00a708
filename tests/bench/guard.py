# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-guard``: what goes around a full-tunnel VPN with NetworkManager alone, with mptcpd, and with nm-mptcp.

Run as root: ``python -m tests.bench.guard [--repetitions N] [--only SCENARIO ...] [--tools TOOL ...]``. Each run has a
machine of its own, in namespaces; the tools take turns within each repetition.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..networkmanager.bed import SERVER6
from ..networkmanager.kernel_view import PathManager
from ..networkmanager.product import install
from ..networkmanager.vpn import CLIENT, GATEWAY, MARK, VPN
from ..support.waits import wait_for
from .leaks import LeakCapture, Moves, Newcomers, Sink, Upload, sent
from .links import NEAR, World
from .selection import select, workplace
from .streams import Echo, EchoServer
from .tools import Tool, versions
from .watch import Subflows

#: The server's ports for the connection from before, and for those that begin when the routes have moved.
BEFORE, LATER = 5000, 5001

#: Seconds after the routes moved from which on nothing may go around the tunnel, and that are looked at.
GRACE, WATCHED = 0.05, 3.0

#: A default route that nothing takes but sockets that are bound to its device.
UNUSED = "default metric 9999"

#: What one run found, in milliseconds, packets and bytes; None: it never came to an end while it was looked at.
Figures = dict[str, float | None]


def _metric(world: World) -> VPN:
    bed = world.bed
    settings = {
        "con-name": "VPN",
        "ifname": "vpn0",
        "mode": "tun",
        "autoconnect": "no",
        "ipv4.method": "manual",
        "ipv4.addresses": f"{CLIENT}/24",
        "ipv4.gateway": GATEWAY,
        "ipv4.route-metric": "50",
        "ipv6.method": "disabled",
    }
    bed.nmcli("connection", "add", "type", "tun", *[word for pair in settings.items() for word in pair])
    bed.machine.run("ip", "tuntap", "add", "vpn0", "mode", "tun")
    vpn = VPN(bed, name="vpn0")
    vpn.exempt_server(world.wifi.gateway, world.wifi.name)
    bed.up("VPN")
    return vpn


def _halves(world: World) -> VPN:
    vpn = VPN(world.bed)
    vpn.exempt_server(world.wifi.gateway, world.wifi.name)
    vpn.up()
    vpn.default_in_halves()
    return vpn


def _rules(world: World) -> VPN:
    vpn = VPN(world.bed, mark=MARK)
    vpn.up()
    vpn.default_by_rules()
    return vpn


class Closing:
    """When a connection has left these addresses (wall clock), asked each millisecond from now on."""

    def __init__(self, world: World, subflows: Subflows, addresses: set[str]) -> None:
        self.when: float | None = None
        self._ended = False
        self._subflows, self._addresses = subflows, addresses
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        world.bed.at_end(self.end)

    def end(self) -> float | None:
        """Look no more, and tell."""
        self._ended = True
        self._thread.join(5)
        return self.when

    def _watch(self) -> None:
        while not self._ended:
            if not any(local in self._addresses for local, _ in self._subflows.to(NEAR, BEFORE)):
                self.when = time.time()
                return
            time.sleep(0.001)


def traffic(world: World, begin: Callable[[World], VPN], changes: int) -> Figures:
    """A connection from before, and new ones after the routes have moved, which takes so many routes and rules (WireGuard's
    second rule only keeps the local network out)."""
    bed = world.bed
    world.connect()
    assert world.lte
    for port in (BEFORE, LATER):
        Sink(bed.far, port)
    world.settle()
    subflows = Subflows(bed.machine)
    Upload(bed.machine, NEAR, BEFORE)
    world.wait_subflows(subflows, NEAR, BEFORE)
    captures = [LeakCapture(bed.far, link.far_name) for link in (world.wifi, world.lte)]
    moves = Moves(bed.machine)
    flowing = time.time()
    wait_for("the upload flows", lambda: time.time() > flowing + 0.4 and any(each.take() for each in captures))
    closing = Closing(world, subflows, {world.wifi.address, world.lte.address})
    before = len(moves.seen)
    begin(world)
    wait_for("the routes have moved", lambda: len(moves.seen) >= before + changes, every=0.001)
    moved = moves.seen[before + changes - 1]
    newcomers = Newcomers(bed.machine, NEAR, LATER, begin=moved + GRACE, seconds=WATCHED - 0.5)
    newcomers.wait()
    end = moved + WATCHED
    wait_for("the time is over", lambda: time.time() > end, every=0.01)
    closed = closing.end()
    leaks = [leak for capture in captures for leak in capture.take()]
    last = max((leak.time for leak in leaks if leak.port == BEFORE), default=moved)
    return {
        "its subflows closed (ms)": None if closed is None else (closed - moved) * 1000,
        "its last packet around the tunnel (ms)": None if last > end - 0.3 else max(0.0, last - moved) * 1000,
        "its bytes around the tunnel, first 50 ms": sent(leaks, moved, moved + GRACE, BEFORE)[1],
        "its bytes around the tunnel, 50 ms to 3 s": sent(leaks, moved + GRACE, end, BEFORE)[1],
        "connections begun after 50 ms": newcomers.worked,
        "their packets around the tunnel": sent(leaks, moved, end, LATER)[0],
        "their bytes around the tunnel": sent(leaks, moved, end, LATER)[1],
    }


def added_again(world: World) -> Figures:
    """With a VPN up, NetworkManager brings another profile up, and with it all its endpoints in order."""
    bed = world.bed
    world.connect()
    assert world.lte
    bed.modify("LTE", "connection.mptcp-flags 0x22")
    bed.up("LTE")
    bed.wait_endpoint(world.lte.address)
    third = bed.uplink("eth0", dhcp="10.3.0.0/24")
    bed.profile("Wired", "eth0", "connection.mptcp-flags 0x22")
    _halves(world)
    world.settle()
    stretches: dict[str, tuple[float, float]] = {}
    longest = 0.0
    begin = time.time()
    activation = threading.Thread(target=bed.up, args=("Wired",))
    activation.start()
    path_manager = PathManager(bed.machine.pid)
    while (now := time.time()) < begin + WATCHED:
        there = {endpoint.address for endpoint in path_manager.endpoints()} & {world.lte.address, third.address}
        stretches = {address: (stretches.get(address, (now, now))[0], time.time()) for address in there}
        longest = max([longest, *(last - first for first, last in stretches.values())])
        time.sleep(0.001)
    path_manager.close()
    activation.join()
    return {"an endpoint stood for at most (ms)": None if stretches else longest * 1000}


def inside(world: World, *, route: str, bound: bool = False, across: bool = False) -> Figures:
    """Connections that begin in a tunnel with this route, each with 32 kB. ``bound``: because their sockets are bound to it;
    ``across``: their sockets are IPv6's, and the server, whose IPv4 address they know, announces an IPv6 address."""
    bed = world.bed
    world.connect(ipv6=across)
    if across:
        bed.far.run("ip", "mptcp", "endpoint", "add", SERVER6, "signal")
    Sink(bed.far, LATER)
    vpn = VPN(bed)
    vpn.up()
    bed.sh(f"ip route add {route} dev tun0")
    world.settle()
    if world.tool.product:
        listed = ("nft", "list", "table", "inet", "nm-mptcp")
        wait_for("the filter is there", lambda: "tun0" in bed.machine.attempt(*listed).stdout)
    captures = [LeakCapture(bed.far, link.far_name) for link in world.links]
    begin, worked = time.time(), 0
    ends: list[socket.socket] = []
    while time.time() < begin + WATCHED - 0.5:
        family = socket.AF_INET6 if across else socket.AF_INET
        client = bed.machine.socket(family, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        ends.append(client)
        if bound:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"tun0")
        client.settimeout(2)
        with contextlib.suppress(OSError):
            client.connect((f"::ffff:{NEAR}" if across else NEAR, LATER))
            client.sendall(bytes(32_000))
            worked += 1
        time.sleep(0.025)
    wait_for("the time is over", lambda: time.time() > begin + WATCHED, every=0.01)
    leaks = [leak for capture in captures for leak in capture.take()]
    for end in ends:
        end.close()
    packets, size = sent(leaks, begin, begin + WATCHED, LATER)
    return {"connections": worked, "their packets around the tunnel": packets, "their bytes around the tunnel": size}


def killed(world: World) -> Figures:
    """A kill switch ends WireGuard's table; the tunnel's device goes while a connection sends."""
    bed = world.bed
    world.connect()
    Sink(bed.far, LATER)
    vpn = _rules(world)
    bed.sh(f"ip route add blackhole default table {MARK} metric 9999")
    world.settle()
    captures = [LeakCapture(bed.far, link.far_name) for link in world.links]
    upload = Upload(bed.machine, NEAR, LATER)
    flowing = time.time()
    wait_for("it flows", lambda: time.time() > flowing + 0.5, every=0.01)
    vpn.stop()
    gone = time.time()
    wait_for("the time is over", lambda: time.time() > gone + WATCHED, every=0.01)
    leaks = [leak for capture in captures for leak in capture.take()]
    del upload
    packets, size = sent(leaks, flowing, gone + WATCHED, LATER)
    return {"packets of a connection from inside": packets, "bytes": size}


def clat(world: World) -> Figures:
    """clatd's device takes the IPv4 default route, as on an IPv6-mostly network, beside a stream."""
    bed = world.bed
    world.connect()
    EchoServer(bed.far, BEFORE)
    world.settle()
    echo = Echo(bed.machine, NEAR, BEFORE)
    world.wait_subflows(Subflows(bed.machine), NEAR, BEFORE)
    begin = time.monotonic()
    wait_for("it flows", lambda: echo.arrivals.since(begin + 0.4), every=0.01)
    begin = time.monotonic()
    device = VPN(bed)
    device.up("192.0.0.1/29")
    bed.sh(f"ip route add default dev {device.name} metric 50")
    wait_for("the time is over", lambda: time.monotonic() > begin + WATCHED, every=0.01)
    return {
        "longest gap of the stream (ms)": echo.arrivals.gap(begin, begin + WATCHED) * 1000,
        "lost": float(not echo.alive),
    }


@dataclass(frozen=True)
class Scenario:
    """Something that happens, and what is measured of it."""

    name: str
    title: str
    run: Callable[[World], Figures]


SCENARIOS = (
    Scenario("metric", "NetworkManager's `tun` profile, better metric", partial(traffic, begin=_metric, changes=1)),
    Scenario("halves", "OpenVPN's 0.0.0.0/1 and 128.0.0.0/1", partial(traffic, begin=_halves, changes=2)),
    Scenario("rules", "WireGuard's rules (fwmark, suppress_prefixlength)", partial(traffic, begin=_rules, changes=2)),
    Scenario("split", "A split tunnel: one host", partial(inside, route=f"{NEAR}/32")),
    Scenario("bound", "Sockets bound to the tunnel", partial(inside, route=UNUSED, bound=True)),
    Scenario("across", "IPv4 tunnel, the server announces IPv6", partial(inside, route=f"{NEAR}/32", across=True)),
    Scenario("killed", "A kill switch, the tunnel goes", killed),
    Scenario("clat", "CLAT takes the default route, no VPN", clat),
    Scenario("added", "NetworkManager adds endpoints while the VPN is up", added_again),
)


def run_once(scenario: Scenario, tool: Tool, directory: Path, installed: Path) -> Figures:
    """One scenario with one tool, on a fresh machine."""
    with tool.machine(directory, installed) as bed:
        return scenario.run(World(bed, tool))


def table(
    results: dict[tuple[str, str], list[Figures]], scenarios: Sequence[Scenario], tools: Sequence[Tool], failures: int
) -> str:
    """The Markdown page."""
    told = ", ".join(f"{name} {version}" for name, version in versions(tools).items() if version)
    runs = max((len(each) for each in results.values()), default=0)
    lines = [
        "<!-- made by `make bench-guard`; do not edit -->",
        "",
        f"Linux {os.uname().release}, {told}; {os.cpu_count()} cores. {runs} runs of each, each on a fresh machine of its own,"
        " the tools taking turns.",
        "",
        "Two links are up, and one MPTCP connection uploads 8 Mbit/s over them. Then a VPN comes up that takes all traffic:"
        " time 0 is the kernel's event of the last route or rule. From 50 ms on a new MPTCP connection begins each 25 ms and"
        " sends 32 kB. Counted is what comes out of the links at the far side, the VPN's own packets aside: median, maximum."
        " *never ended*: it still went on after 3 s.",
        "",
        "| VPN | what is measured | " + " | ".join(tool.title for tool in tools) + " |",
        "|---|---|" + "---:|" * len(tools),
    ]
    for scenario in scenarios:
        title = scenario.title
        found = [results[scenario.name, tool.name] for tool in tools]
        for figure in next((runs[0] for runs in found if runs), {}):
            lines.append(f"| {title} | {figure} | {' | '.join(_cell(runs, figure) for runs in found)} |")
            title = ""
    if failures:
        lines += ["", f"Runs that could not be made: {failures}."]
    return "\n".join(lines) + "\n"


def _cell(runs: Sequence[Figures], figure: str) -> str:
    values = [each[figure] for each in runs]
    known = [value for value in values if value is not None]
    if not known:
        return "*never ended*" if values else "-"
    text = f"{statistics.median(known):,.0f}, {max(known):,.0f}"
    return (
        text if len(known) == len(values) else f"{text}, *never ended* in {len(values) - len(known)} of {len(values)}"
    )


def main() -> int:
    """Measure, print the table and write it."""
    chosen = select("guard", __doc__, SCENARIOS, repetitions=5)
    results: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    failures = 0
    with workplace() as directory:
        installed = install(directory / "root")
        for repetition in range(chosen.repetitions):
            for scenario in chosen.scenarios:
                for tool in chosen.tools:
                    place = directory / f"{scenario.name}-{tool.name}-{repetition}"
                    try:
                        figures = run_once(scenario, tool, place, installed)
                    except (AssertionError, OSError) as error:
                        failures += 1
                        print(f"a run failed: {scenario.name} with {tool.name}: {error}", file=sys.stderr)
                        continue
                    results[scenario.name, tool.name].append(figures)
                    print(f"{repetition + 1} {scenario.name} {tool.name}: {list(figures.values())}", flush=True)
    text = table(results, chosen.scenarios, chosen.tools, failures)
    print(f"\n{text}")
    chosen.write("bench-guard.md", text)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
