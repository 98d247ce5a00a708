# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-scale``: what a machine with many links, or many routes, costs the service, and how fast that grows.

In network namespaces, on this machine's kernel; needs root. The engine is beside a NetworkManager that only says that these
links are up. It writes docs/bench-scale.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from nm_mptcp.engine.loop import Engine
from nm_mptcp.model.state import MAIN_TABLE

from ..networkmanager.bed import REPOSITORY
from ..networkmanager.tunnel import tun
from ..support.network import Network, batch, ip
from ..support.running import many_routes, running, until, uplinks
from .routes import deletes, lose, settled
from .usage import Usage

#: Seconds that anything may take.
_LONGEST = 300.0


@dataclass
class Row:
    """The figures for one size."""

    size: int
    start: float  #: s, from the start to a state that nothing is to be done in
    look: float  #: ms, the whole convergence that then changes nothing
    change: float  #: ms, from a new default route to its copy in the link's table
    loss: float  #: ms, from the end of the carrier to the delete of the endpoint
    memory: float  #: MiB, resident


@dataclass
class Amid:
    """The figures for so many networks in a tunnel, amid changes of its routes."""

    size: int
    look: float  #: ms, a convergence, median
    longest: float  #: ms, the longest
    loss: float  #: as in :class:`Row`


TITLES = {
    "start": "start to converged (s)",
    "look": "a convergence that changes nothing (ms)",
    "change": "a route is copied (ms)",
    "loss": "a loss (ms)",
    "memory": "resident (MiB)",
}
_Figures = TypeVar("_Figures", Row, Amid)
AMID = {"look": "a convergence (ms)", "longest": "the longest (ms)", "loss": "a loss (ms)"}

#: Changes of a tunnel's routes a second, in so many steps, and for how long they are made (s).
_CHANGES, _STEPS, _LASTING = 500, 20, 5.0


def main() -> None:
    """Measure, print a Markdown page and write it."""
    parser = argparse.ArgumentParser(prog="tests.bench.scale", description=__doc__)
    parser.add_argument("--links", type=int, nargs="*", default=[2, 10, 50, 100, 500], metavar="N")
    parser.add_argument("--routes", type=int, nargs="*", default=[100, 1_000, 10_000, 100_000], metavar="N")
    parser.add_argument("--tunnel", type=int, nargs="*", default=[100, 1_000, 10_000], metavar="N")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs", help="where the page goes")
    parser.add_argument("--repetitions", type=int, default=7, metavar="N", help="of each change")
    arguments = parser.parse_args()
    lines = ["<!-- made by `make bench-scale`; do not edit -->", "", _conditions(arguments.repetitions), ""]
    for what, sizes in (("links", arguments.links), ("routes", arguments.routes)):
        rows = []
        for size in sizes:
            links, routes = (size, 0) if what == "links" else (2, size)
            rows.append(_apart(lambda: _measured(links, routes, size, arguments.repetitions), Row))  # noqa: B023
            print(f"{size} {what}: done", flush=True)
        lines += _table(what, rows, TITLES)
    amid = [_apart(lambda: _measured_amid(size, arguments.repetitions), Amid) for size in arguments.tunnel]  # noqa: B023
    lines += [f"A tunnel carries so many networks, and {_CHANGES} of its routes change in a second:", ""]
    lines += _table("networks", amid, AMID)
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    (arguments.output / "bench-scale.md").write_text(text, encoding="utf-8")


def _conditions(repetitions: int) -> str:
    return (
        f"Linux {os.uname().release}, Python {platform.python_version()}; {os.cpu_count()} cores. The engine is beside a"
        " NetworkManager that only says which links are up; of these the kernel takes 8 endpoints. *Routes*: so many by the"
        f" first of two links, in the main table. Medians of {repetitions}; the exponent is the slope of a line through the"
        " logarithms (1: linear)."
    )


def _apart(measure: Callable[[], _Figures], kind: type[_Figures]) -> _Figures:
    """In a process of its own, whose memory tells of this size alone."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, json.dumps(asdict(measure())).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="ascii") as said:
        text = said.read()
    os.waitpid(child, 0)
    if not text:
        raise SystemExit("a measurement failed")
    return kind(**json.loads(text))


def _measured(links: int, routes: int, size: int, repetitions: int) -> Row:
    near, far = Network(), Network()
    with near.entered(), tempfile.TemporaryDirectory() as place:
        uplinks(far, links)
        many_routes(routes)
        return asyncio.run(_figures(Path(place), far, links, size, repetitions))


async def _figures(place: Path, far: Network, links: int, size: int, repetitions: int) -> Row:
    deleted = deletes()
    begin = time.monotonic()
    async with running(place, *(f"e{number}" for number in range(1, links + 1))) as engine:
        await until("something is decided", lambda: engine.view is not None, seconds=_LONGEST)
        await settled(engine)
        start = time.monotonic() - begin
        looks, changes, losses = [], [], []
        for number in range(repetitions):
            begin = time.monotonic()
            await engine.converge(thorough=True)
            looks.append(1000 * (time.monotonic() - begin))
            metric = 5000 + number
            ip(f"route add default via 10.1.0.2 dev e1 metric {metric}")
            begin = time.monotonic()
            await until("it is copied", lambda: _has_copy(engine, metric), seconds=_LONGEST)  # noqa: B023
            changes.append(1000 * (time.monotonic() - begin))
            losses.append(await lose(far, engine, deleted))
            await settled(engine)
        figures = (statistics.median(each) for each in (looks, changes, losses))
        return Row(size, start, *figures, Usage.of(os.getpid()).memory)


def _measured_amid(networks: int, repetitions: int) -> Amid:
    near, far = Network(), Network()
    with near.entered(), tempfile.TemporaryDirectory() as place:
        uplinks(far)
        tun("tun0")  # it goes with this process
        ip("address add 10.8.0.2/24 dev tun0")
        ip("link set tun0 up")
        batch("\n".join(f"route add 20.{n // 250}.{n % 250}.0/24 dev tun0" for n in range(networks)))
        return asyncio.run(_figures_amid(Path(place), far, networks, repetitions))


async def _figures_amid(place: Path, far: Network, networks: int, repetitions: int) -> Amid:
    deleted = deletes()
    looks, losses = [], []
    async with running(place, "e1", "e2") as engine:
        await until("something is decided", lambda: engine.view is not None, seconds=_LONGEST)
        await settled(engine)
        async with _changing_routes():
            end = time.monotonic() + _LASTING
            while time.monotonic() < end:
                begin = time.monotonic()
                await engine.converge()
                looks.append(1000 * (time.monotonic() - begin))
                await asyncio.sleep(1 / _STEPS)
            for _ in range(repetitions):
                losses.append(await lose(far, engine, deleted))
    return Amid(networks, statistics.median(looks), max(looks), statistics.median(losses))


@contextlib.asynccontextmanager
async def _changing_routes() -> AsyncIterator[None]:
    """Another program adds and deletes routes of the tunnel."""
    numbers = range(_CHANGES // _STEPS // 2)
    lines = "".join(f"route {change} 21.0.{n}.0/24 dev tun0\n" for change in ("add", "del") for n in numbers)
    program = await asyncio.create_subprocess_exec("ip", "-batch", "-", stdin=asyncio.subprocess.PIPE)
    assert program.stdin
    sink = program.stdin

    async def change() -> None:
        while True:
            sink.write(lines.encode())
            await asyncio.gather(sink.drain(), asyncio.sleep(1 / _STEPS))

    changing = asyncio.create_task(change())
    try:
        yield
    finally:
        changing.cancel()
        program.kill()
        await program.wait()


def _has_copy(engine: Engine, metric: int) -> bool:
    assert engine.view
    routes = engine.view.snapshot.kernel.routes
    return any(
        route.metric == metric and route.table != MAIN_TABLE
        for group in routes.values()
        for route in group
        if route.is_default
    )


def _table(what: str, rows: Sequence[Row] | Sequence[Amid], titles: Mapping[str, str]) -> list[str]:
    lines = [f"| {what} | " + " | ".join(titles.values()) + " |", "| ---: |" + " ---: |" * len(titles)]
    for row in rows:
        lines.append(f"| {row.size:,} | " + " | ".join(f"{getattr(row, name):.2f}" for name in titles) + " |")
    if len(rows) > 1:
        lines.append("| exponent | " + " | ".join(f"{_exponent(rows, name):.2f}" for name in titles) + " |")
    return [*lines, ""]


def _exponent(rows: Sequence[Row] | Sequence[Amid], name: str) -> float:
    sizes = [math.log(row.size) for row in rows]
    return statistics.linear_regression(sizes, [math.log(getattr(row, name)) for row in rows]).slope


if __name__ == "__main__":
    main()
