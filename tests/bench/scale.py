# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-scale``: what a machine with many links, or many routes, costs the service, and how fast that grows.

In network namespaces, on this machine's kernel; needs root. The engine is beside a NetworkManager that only says that these
links are up. It writes docs/bench-scale.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nm_mptcp.engine.loop import Engine
from nm_mptcp.model.state import MAIN_TABLE

from ..networkmanager.bed import REPOSITORY
from ..support.network import Network, ip
from ..support.running import many_routes, running, until, uplinks
from .routes import deletes, settled
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


TITLES = {
    "start": "start to converged (s)",
    "look": "a convergence that changes nothing (ms)",
    "change": "a route is copied (ms)",
    "loss": "a loss (ms)",
    "memory": "resident (MiB)",
}


def main() -> None:
    """Measure, print a Markdown page and write it."""
    parser = argparse.ArgumentParser(prog="tests.bench.scale", description=__doc__)
    parser.add_argument("--links", type=int, nargs="*", default=[2, 10, 50, 100, 500], metavar="N")
    parser.add_argument("--routes", type=int, nargs="*", default=[100, 1_000, 10_000, 100_000], metavar="N")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs", help="where the page goes")
    parser.add_argument("--repetitions", type=int, default=7, metavar="N", help="of each change")
    arguments = parser.parse_args()
    lines = ["<!-- made by `make bench-scale`; do not edit -->", "", _conditions(arguments.repetitions), ""]
    for what, sizes in (("links", arguments.links), ("routes", arguments.routes)):
        rows = []
        for size in sizes:
            links, routes = (size, 0) if what == "links" else (2, size)
            rows.append(_apart(lambda: _measured(links, routes, size, arguments.repetitions)))  # noqa: B023
            print(f"{size} {what}: done", flush=True)
        lines += _table(what, rows)
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


def _apart(measure: Callable[[], Row]) -> Row:
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
    return Row(**json.loads(text))


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
            deleted.clear()
            far.ip("link set p2 down")
            begin = time.monotonic()
            await until(
                "it is deleted", lambda: any(each.address == "10.2.0.1" for _, each in deleted), seconds=_LONGEST
            )
            losses.append(1000 * (next(when for when, each in deleted if each.address == "10.2.0.1") - begin))
            far.ip("link set p2 up")
            engine.on_resume()  # nothing is held against the link
            await until("it is back", lambda: _has_endpoint(engine, "10.2.0.1"), seconds=_LONGEST)
            await settled(engine)
        figures = (statistics.median(each) for each in (looks, changes, losses))
        return Row(size, start, *figures, Usage.of(os.getpid()).memory)


def _has_copy(engine: Engine, metric: int) -> bool:
    assert engine.view
    routes = engine.view.snapshot.kernel.routes
    return any(
        route.metric == metric and route.table != MAIN_TABLE
        for group in routes.values()
        for route in group
        if route.is_default
    )


def _has_endpoint(engine: Engine, address: str) -> bool:
    return bool(engine.view) and any(each.address == address for each in engine.view.snapshot.kernel.endpoints)


def _table(what: str, rows: Sequence[Row]) -> list[str]:
    lines = [f"| {what} | " + " | ".join(TITLES.values()) + " |", "| ---: |" + " ---: |" * len(TITLES)]
    for row in rows:
        lines.append(f"| {row.size:,} | " + " | ".join(f"{getattr(row, name):.2f}" for name in TITLES) + " |")
    if len(rows) > 1:
        lines.append("| exponent | " + " | ".join(f"{_exponent(rows, name):.2f}" for name in TITLES) + " |")
    return [*lines, ""]


def _exponent(rows: Sequence[Row], name: str) -> float:
    sizes = [math.log(row.size) for row in rows]
    return statistics.linear_regression(sizes, [math.log(getattr(row, name)) for row in rows]).slope


if __name__ == "__main__":
    main()
