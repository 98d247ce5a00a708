# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-silent``: a link that is up and carries no packets, under NetworkManager alone, with mptcpd, with nm-mptcp.

Run as root: ``python -m tests.bench.silent [--repetitions N] [--only SCENARIO ...] [--tools TOOL ...]``. Each run has a machine
of its own, in namespaces; the tools take turns within each repetition.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ..networkmanager.bed import PROTOCOL, SERVER6
from ..networkmanager.wireguard import WireGuard
from ..support.waits import wait_for
from .failover import measure
from .links import ECHO, NEAR, PLAIN, World
from .report import Results, figures
from .scenarios import Outcome, Scenario
from .selection import select, workplace
from .silent_cost import cost
from .streams import Attempt, Echo, EchoServer
from .tools import versions
from .watch import Subflows, until

#: Further near servers.
OTHERS = ("192.0.2.11", "192.0.2.12", "192.0.2.13")

#: Seconds after the silence began at which new connections begin, and how long each may take.
_BEGIN, _LIMIT = (0.5, 1.0, 3.0), 4.0

#: Seconds that a silence lasts.
_LASTS = 6.0

#: How many further messages each have no longer a gap than NetworkManager alone.
_FURTHER = 20


def _ready(world: World, *, ipv6: bool = False, backup: bool = False) -> None:
    """Links up, echo servers at several addresses."""
    world.connect(ipv6=ipv6, backup=backup)
    far = world.bed.far
    for address in OTHERS:
        far.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    EchoServer(far, ECHO)
    EchoServer(far, PLAIN, protocol=socket.IPPROTO_TCP)
    world.settle()


def _detoured(world: World) -> bool:
    shown = world.bed.machine.ip("route", "show", "table", "main", "proto", PROTOCOL)
    return any(route["dst"] == "default" for route in shown)


def _through_a_tunnel(world: World) -> None:
    """All IPv4 goes through WireGuard, and with nm-mptcp nothing beside it."""
    WireGuard(world.bed, "198.18.0.0/15", program=True).carry_everything()
    if world.tool.product:
        for link in world.links:
            world.bed.wait_no_endpoint(link.address)
    world.settle()


def beside_a_stream(
    world: World, *, server: str = NEAR, backup: bool = False, tunnel: bool = False, **silence: Any
) -> Outcome:
    """Packets vanish beside a stream; new connections are tried; packets get through again."""
    _ready(world, ipv6=":" in server, backup=backup)
    if tunnel:
        _through_a_tunnel(world)
    echo = Echo(world.bed.machine, server, ECHO)
    wanted = {link.address6() if ":" in server else link.address for link in world.links if not tunnel}
    subflows = Subflows(world.bed.machine)
    wait_for("both subflows", lambda: {address for address, _ in subflows.to(server, ECHO)} >= wanted, every=0.005)
    flowing = time.monotonic()
    wait_for("the stream flows", lambda: echo.arrivals.since(flowing + 0.4), every=0.01)
    begin = time.monotonic()
    world.wifi.network.silence(
        *silence.get("ways", ()), family=silence.get("family", ""), gateway=silence.get("gateway", False)
    )
    attempts: dict[str, Attempt] = {}
    for after in _BEGIN:
        until(lambda after=after: time.monotonic() > begin + after, seconds=_LASTS)  # type: ignore[misc]
        for name, port, protocol in (("MPTCP", ECHO, socket.IPPROTO_MPTCP), ("TCP", PLAIN, socket.IPPROTO_TCP)):
            attempts[f"new connection {after:g} s later, {name}"] = Attempt(
                world.bed.machine, server, port, protocol=protocol, limit=_LIMIT
            )
    until(lambda: time.monotonic() > begin + _LASTS, seconds=_LASTS + 1)
    outcome = Outcome(
        {
            name: None if attempt.wait().took is None else (attempt.took or 0) * 1000
            for name, attempt in attempts.items()
        }
    )
    flows = echo.arrivals.since(time.monotonic() - 0.5)
    outcome.figures["longest gap of the stream"] = echo.arrivals.gap(begin, begin + _LASTS) * 1000 if flows else None
    settled = begin + 2.0
    outcome.figures["longest gap from 2 s on"] = echo.arrivals.gap(settled, begin + _LASTS) * 1000 if flows else None
    speaks = time.monotonic()
    world.wifi.network.speak()
    if world.tool.product:
        returned = until(lambda: not _detoured(world), seconds=15)
        outcome.figures["used again after packets get through"] = (
            None if returned is None else (returned - speaks) * 1000
        )
    outcome.lost = {"the stream": not echo.alive}
    return outcome


def plain_alone(world: World) -> Outcome:
    """Nothing but programs that connect to three servers by plain TCP, and try again after each 2 s."""
    _ready(world)
    world.wifi.network.silence()
    begin = time.monotonic()
    through: list[float] = []
    ended = threading.Event()

    def program(server: str) -> None:
        while not ended.is_set():
            if (
                Attempt(world.bed.machine, server, PLAIN, protocol=socket.IPPROTO_TCP, limit=2.0).wait().took
                is not None
            ):
                through.append(time.monotonic())
                return

    programs = [threading.Thread(target=program, args=(server,), daemon=True) for server in OTHERS]
    for each in programs:
        each.start()
    outcome = Outcome()
    if world.tool.product:
        around = until(lambda: _detoured(world), seconds=_LASTS)
        outcome.figures["new connections are led around"] = None if around is None else (around - begin) * 1000
    until(lambda: len(through) == len(OTHERS), seconds=_LASTS)
    ended.set()
    outcome.figures["somebody is through"] = (through[0] - begin) * 1000 if through else None
    outcome.figures["all three are through"] = (through[-1] - begin) * 1000 if len(through) == len(OTHERS) else None
    return outcome


def _scenario(name: str, title: str, **silence: Any) -> Scenario:
    run: Callable[[World], Outcome] = partial(beside_a_stream, **silence)
    return Scenario(name, title, run)


#: Measured once, of nm-mptcp alone.
COST = Scenario("cost", "What it costs while packets are lost", lambda _: Outcome(), elsewhere=False)

SCENARIOS = (
    _scenario("beyond", "Beside a stream, beyond the gateway"),
    _scenario("gateway", "The gateway too, no ARP", gateway=True),
    _scenario("sent", "What is sent vanishes, what is received does not", ways=("out",)),
    _scenario("received", "What is received vanishes, what is sent does not", ways=("in",)),
    _scenario("ipv6", "IPv6 alone", server=SERVER6, family="ip6"),
    _scenario("backup", "The other path is backup", backup=True),
    _scenario("tunnel", "Below a full tunnel (wireguard-go)", tunnel=True),
    Scenario("plain", "Plain TCP alone, three servers", plain_alone),
    COST,
)

NOTES = """\
- The carriers stay all the time; packets vanish in the far network, by nftables. Round-trip below 1 ms.
- New connection: connected, a message sent and echoed; *never*: not within 4 s. A silence lasts 6 s.
- Longest gap: of an echo every 10 ms, so 10 ms is none at all.
- Used again: until no route leads around the link.
- Below a full tunnel the stream begins in it; NetworkManager alone and mptcpd let it go on beside it, in the clear
  ([bench-guard.md](bench-guard.md)).
- NetworkManager's own connectivity check is off, as on Debian; where it is on, it comes each 300 s.
"""


def main() -> int:
    """Measure, print the table, write it."""
    chosen = select("silent", __doc__, SCENARIOS)
    results = Results(versions=versions(chosen.tools))
    costs = ""
    with workplace() as directory:
        measure(
            results,
            [each for each in chosen.scenarios if each is not COST],
            chosen.tools,
            chosen.repetitions,
            directory,
        )
        if COST in chosen.scenarios:
            costs = f"- {COST.title}: {cost(directory)}\n"
    shown = figures(results, chosen.scenarios, chosen.tools)
    lines = ["<!-- made by `make bench-silent`; do not edit -->", "", *shown, "", NOTES + costs]
    if results.failures:
        lines.append(f"Runs that could not be made: {len(results.failures)}.\n")
    text = "\n".join(lines)
    print(f"\n{text}")
    chosen.write("bench-silent.md", text)
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
