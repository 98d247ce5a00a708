# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-storms``: how long a lost link's endpoint stands while something else keeps the service busy.

Run as root: ``python -m tests.bench.storms [--losses N] [--only STORM ...]``. Each storm has a machine of its own, with a real
NetworkManager; links are lost before it begins, and amid it. It writes docs/bench-storms.md.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..networkmanager.advertiser import Advertisement, Prefix
from ..networkmanager.bed import REPOSITORY, missing
from ..networkmanager.caller import NOBODY
from ..networkmanager.logind import Logind
from ..networkmanager.product import install
from ..networkmanager.tunnel import Tunnel
from ..support.waits import wait_for
from .links import World
from .selection import workplace
from .tools import TOOLS
from .usage import Usage
from .watch import EndpointWatch, Events

#: Steps of a storm in a second.
STEPS = 20

#: The share of them that has to be taken in time.
_ENOUGH = 0.8

#: What the median loss amid a storm may take, of that without one, and any loss (ms).
_TWICE, _LONGEST = 2.0, 200.0

#: Growth of the service's memory beyond which it would be exhausted some day (MiB).
_GROWTH = 32.0


@dataclass
class Storm:
    """``begin`` prepares; what it returns is called :data:`STEPS` times a second with the number of the step."""

    title: str
    begin: Callable[[World], Callable[[int], None]]


def _batch(world: World) -> Callable[[str], None]:
    """Type into an ``ip -batch`` on the machine."""
    machine = world.bed.machine
    program = subprocess.Popen([*machine.entering, "ip", "-force", "-batch", "-"], stdin=subprocess.PIPE, text=True)
    world.bed.at_end(program.kill)
    assert program.stdin
    sink = program.stdin

    def write(lines: str) -> None:
        sink.write(lines)
        sink.flush()

    return write


def routes(world: World) -> Callable[[int], None]:
    """Another program adds and deletes routes of the link that stays, as a routing daemon does."""
    write = _batch(world)
    count = 1000 // STEPS // 2

    def step(number: int) -> None:
        for change in ("add", "del"):
            write("".join(f"route {change} 198.18.{number % 250}.{host}/32 dev wwan0\n" for host in range(count)))

    return step


def addresses(world: World) -> Callable[[int], None]:
    """Another program adds 200 addresses a second to an interface of its own, and deletes them when there are 1,000."""
    bed = world.bed
    bed.sh("ip link add big type veth peer name big-peer")
    wait_for(
        "NetworkManager knows it", lambda: bed.attempt_nmcli("device", "set", "big", "managed", "no").returncode == 0
    )
    bed.sh("ip link set big-peer up; ip link set big up")
    write = _batch(world)
    count = 200 // STEPS

    def step(number: int) -> None:
        add = number // (1000 // count) % 2 == 0
        first = number % (1000 // count) * count
        places = (f"10.201.{each // 250}.{each % 250 + 1}/32" for each in range(first, first + count))
        write("".join(f"address {'add' if add else 'del'} {place} dev big\n" for place in places))

    return step


def prefixes(world: World) -> Callable[[int], None]:
    """A router on the link that stays advertises 200 new prefixes a second."""
    assert world.lte
    world.bed.modify("LTE", "ipv6.method auto")
    world.bed.up("LTE")
    router = world.lte.network.add_router(Advertisement(prefixes=(Prefix("2001:db8:5::/64"),)))
    router.advertise()
    wait_for("it has an address", world.lte.addresses)
    count = 200 // STEPS

    def step(number: int) -> None:
        first = number * count
        router.advertise(prefixes=tuple(Prefix(f"2001:db8:5:{each:x}::/64") for each in range(first, first + count)))

    return step


def interfaces(world: World) -> Callable[[int], None]:
    """Containers come and go: an interface is created or deleted each time."""
    write = _batch(world)

    def step(number: int) -> None:
        name = f"vct{number // 2}"
        write(f"link {'del' if number % 2 else 'add'} {name} {'' if number % 2 else 'type veth'}\n")

    return step


#: Calls at once on one connection, fewer than the bus's limit of 128; and connections, so that 1,000 calls wait at a time.
_CALLS, _CONNECTIONS = 100, 10

_CALLER = f"""
import asyncio
from nm_mptcp.dbus.connection import connected

async def ask(bus):
    while True:
        await bus.call("org.nm_mptcp1", "/org/nm_mptcp1", "org.nm_mptcp1", "Status")

async def main():
    buses = [await connected() for _ in range({_CONNECTIONS})]
    await asyncio.gather(*(ask(bus) for bus in buses for _ in range({_CALLS})))

asyncio.run(main())
"""


def status(world: World) -> Callable[[int], None]:
    """Another user has 1,000 ``Status`` calls under way all the time."""
    caller = world.bed.machine.spawn(*NOBODY, sys.executable, "-c", _CALLER, log="calls")

    def step(_: int) -> None:
        assert caller.running, caller.output()

    return step


#: Prefixes of a split tunnel, and changes of its routes a second.
_PREFIXES, _ROUTE_CHANGES = 10_000, 500


def tunnel(world: World) -> Callable[[int], None]:
    """A tunnel carries 10,000 networks, and its program changes 500 routes a second."""
    bed = world.bed
    Tunnel(bed, "10.8.0.2/24")
    write = _batch(world)
    write("".join(f"route add 20.{each // 250}.{each % 250}.0/24 dev tun0\n" for each in range(_PREFIXES)))
    count = "ip route show dev tun0 | wc -l"
    wait_for("all routes are there", lambda: int(bed.sh(count)) >= _PREFIXES, seconds=60)
    world.settle()

    def step(_: int) -> None:
        for change in ("add", "del"):
            hosts = range(_ROUTE_CHANGES // STEPS // 2)
            write("".join(f"route {change} 21.0.{each}.0/24 dev tun0\n" for each in hosts))

    return step


STORMS = {
    "routes": Storm("1,000 changes of routes a second, by another program", routes),
    "addresses": Storm("200 addresses a second, up to 1,000, on an interface of another program", addresses),
    "prefixes": Storm("200 prefixes a second in router advertisements on the other link", prefixes),
    "interfaces": Storm(f"{STEPS} interfaces a second that come or go", interfaces),
    "tunnel": Storm(
        f"{_ROUTE_CHANGES} changes of routes a second of a tunnel that carries {_PREFIXES:,} networks", tunnel
    ),
    "status": Storm("1,000 `Status` calls of another user at a time", status),
}


@dataclass
class Result:
    """Milliseconds from the loss of the carrier to that of the endpoint; what the service used of a processor, and grew by."""

    quiet: list[float] = field(default_factory=list)
    amid: list[float] = field(default_factory=list)
    share: float = 0.0
    growth: float = 0.0  #: MiB
    endpoints: int = 0  #: the most that there were

    @property
    def ratio(self) -> float:
        """By how much a loss takes longer."""
        return statistics.median(self.amid) / statistics.median(self.quiet)


@contextlib.contextmanager
def raging(step: Callable[[int], None]) -> Iterator[list[int]]:
    """The storm, in a thread; steps that are late are made up for. The number of the last one is in the list."""
    ended = threading.Event()
    steps = [0]

    def rage() -> None:
        begin = time.monotonic()
        for number in itertools.count():
            if ended.wait(max(0.0, begin + number / STEPS - time.monotonic())):
                return
            step(number)
            steps[0] = number

    thread = threading.Thread(target=rage, daemon=True)
    thread.start()
    try:
        yield steps
    finally:
        ended.set()
        thread.join(10)


def _loss(world: World, logind: Logind, events: Events) -> float:
    address = world.wifi.address
    begin = time.monotonic()
    watch = EndpointWatch(world.bed.machine, [address], idle=lambda: events.first("lost", after=begin) is None)
    world.wifi.carrier(False)
    lost = events.wait("lost", after=begin)
    if not watch.wait(20):
        raise AssertionError("the endpoint stands after 20 s")
    watch.close()
    world.wifi.carrier(True)
    logind.resume()  # nothing is held against the link
    world.bed.wait_endpoint(address, seconds=60)
    return 1000 * (watch.gone[address] - lost)


def measure(storm: Storm, losses: int, directory: Path, installed: Path) -> Result:
    """Losses before the storm, and amid it."""
    (tool,) = [each for each in TOOLS if each.product]
    result = Result()
    with tool.machine(directory, installed) as bed:
        world = World(bed, tool)
        logind = Logind(bed)
        world.connect()
        events = Events(bed.machine, world.wifi.name)
        world.settle()
        for _ in range(losses):
            result.quiet.append(_loss(world, logind, events))
            world.settle()
        assert bed.service
        step = storm.begin(world)
        before = Usage.of(bed.service.pid)
        with raging(step) as steps:
            wait_for("the storm rages", lambda: time.monotonic() > before.when + 2, every=0.1)
            for _ in range(losses):
                result.amid.append(_loss(world, logind, events))
                result.endpoints = max(result.endpoints, len(bed.endpoints()))
            after = Usage.of(bed.service.pid)
            seconds = after.when - before.when
            if steps[0] < _ENOUGH * seconds * STEPS:
                raise AssertionError(f"the storm took {steps[0]} steps in {seconds:.0f} s")
            result.share, result.growth = after.share(before), after.memory - before.memory
        if "Traceback" in bed.service.log():
            raise AssertionError(bed.service.log())
    return result


def _page(results: dict[str, Result], losses: int) -> str:
    lines = [
        "<!-- made by `make bench-storms`; do not edit -->\n",
        f"Linux {os.uname().release}, Python {platform.python_version()}; {os.cpu_count()} cores, which the storm,"
        " NetworkManager and the service share. Milliseconds from the loss of a link's carrier to that of its endpoint, of"
        f" {losses} losses before the storm and amid it, with the same service: median, maximum.\n",
        "| what happens | before | amid | ratio | share of a processor | growth (MiB) | endpoints at most |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, each in results.items():
        before, amid = (f"{statistics.median(group):.1f}, {max(group):.1f}" for group in (each.quiet, each.amid))
        lines.append(
            f"| {STORMS[name].title} | {before} | {amid} | {each.ratio:.1f} | {each.share:.0%} | {each.growth:.1f}"
            f" | {each.endpoints} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print the table, write it; 1 if the median took more than twice as long, a loss too long, or memory grew."""
    parser = argparse.ArgumentParser(prog="tests.bench.storms", description=__doc__)
    parser.add_argument("--losses", type=int, default=9, metavar="N")
    parser.add_argument("--only", action="append", choices=STORMS, metavar="STORM")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs", help="where the table goes")
    chosen = parser.parse_args()
    if lacking := missing():
        print(f"The bench needs {', '.join(lacking)}: try 'sudo make bench-storms'.", file=sys.stderr)
        return 1
    results: dict[str, Result] = {}
    with workplace() as directory:
        installed = install(directory / "root")
        for name, storm in STORMS.items():
            if not chosen.only or name in chosen.only:
                results[name] = measure(storm, chosen.losses, directory / name, installed)
                print(json.dumps({name: vars(results[name])}), flush=True)
    text = _page(results, chosen.losses)
    print(text)
    (chosen.output / "bench-storms.md").write_text(text)
    bad = [
        each for each in results.values() if each.ratio > _TWICE or max(each.amid) > _LONGEST or each.growth > _GROWTH
    ]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
