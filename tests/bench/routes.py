# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-routes``: how long it takes to copy a link's 10,000 routes, to delete the copies, and to clear; how long a link
that is lost meanwhile waits for its endpoint to be deleted. In network namespaces, on this machine's kernel; needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nm_mptcp.engine.loop import Engine
from nm_mptcp.kernel.path_manager import PathManager
from nm_mptcp.model.state import TABLES, Endpoint

from ..support.network import Network
from ..support.running import many_routes, no_more_routes, running, until, uplinks

#: Seconds that a change may take.
_LONGEST = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--routes", type=int, default=10_000, help="how many")
    parser.add_argument(
        "--losses", type=int, default=10, help="how many links are lost while they are copied, and deleted"
    )
    arguments = parser.parse_args()
    near, far = Network(), Network()
    with near.entered(), tempfile.TemporaryDirectory() as place:
        uplinks(far)
        asyncio.run(_measure(Path(place), far, arguments.routes, arguments.losses))


async def _measure(place: Path, far: Network, routes: int, losses: int) -> None:
    deleted = deletes()
    async with running(place, "e1", "e2") as engine:
        await until("two paths", lambda: _endpoints(engine) == 2)
        took: dict[str, float] = {}
        for what, change in (("copied", lambda: many_routes(routes)), ("deleted", no_more_routes)):
            change()
            begin = time.monotonic()
            await until(what, lambda: (_copies(engine) >= routes) is (what == "copied"), seconds=_LONGEST)  # noqa: B023
            took[what] = time.monotonic() - begin
            print(f"{routes} routes {what}: {took[what]:.2f} s", flush=True)
            await settled(engine)
        await lose(far, engine, deleted)
        waits = [await lose(far, engine, deleted) for _ in range(losses)]
        print(f"a loss while nothing else is to do: {_told(waits)}", flush=True)
        for what, change in (("copied", lambda: many_routes(routes)), ("deleted", no_more_routes)):
            waits = []
            for number in range(losses):
                change()
                waits.append(await lose(far, engine, deleted, took[what] * number / losses))
                await until(what, lambda: (_copies(engine) >= routes) is (what == "copied"), seconds=_LONGEST)  # noqa: B023
                (no_more_routes if what == "copied" else lambda: many_routes(routes))()
                await until("back", lambda: (_copies(engine) >= routes) is (what != "copied"), seconds=_LONGEST)  # noqa: B023
                await settled(engine)
            print(f"a loss while {routes} are {what}: {_told(waits)}", flush=True)
        await until("copied", lambda: _copies(engine) >= routes, seconds=_LONGEST)
        await settled(engine)
        begin = time.monotonic()
        await engine.clear()
        print(f"clear with {routes} routes: {time.monotonic() - begin:.2f} s", flush=True)


async def lose(far: Network, engine: Engine, deleted: list[tuple[float, Endpoint]], after: float = 0.0) -> float:
    """Pull the second link's cable after so many seconds, and put it in again; how long (ms) its endpoint stood.

    ``deleted`` is that of :func:`deletes`.
    """
    await asyncio.sleep(after)
    deleted.clear()
    far.ip("link set p2 down")
    begin = time.monotonic()
    await until("deleted", lambda: any(each.address == "10.2.0.1" for _, each in deleted), seconds=_LONGEST)
    wait = max(0.0, next(when for when, each in deleted if each.address == "10.2.0.1") - begin)
    await until("it is seen to be gone", lambda: not has_endpoint(engine, "10.2.0.1"), seconds=_LONGEST)
    far.ip("link set p2 up")
    engine.on_resume()  # nothing is held against the link
    await until("it is back", lambda: has_endpoint(engine, "10.2.0.1"), seconds=_LONGEST)
    return wait * 1000


async def settled(engine: Engine) -> None:
    """Until nothing is left to do."""
    for _ in range(10):
        if not await engine.converge(thorough=True):
            return
    raise AssertionError("there is always something to do")


def deletes() -> list[tuple[float, Endpoint]]:
    """When an endpoint's delete was at work, as they come."""
    seen: list[tuple[float, Endpoint]] = []
    delete: Callable[[PathManager, Endpoint], None] = PathManager.delete

    def noted(manager: PathManager, endpoint: Endpoint) -> None:
        seen.append((time.monotonic(), endpoint))
        delete(manager, endpoint)

    PathManager.delete = noted  # type: ignore[method-assign]
    return seen


def _places(engine: Engine) -> Iterator[tuple[int, int]]:
    if engine.view is not None:
        for (table, _), routes in engine.view.snapshot.kernel.routes.items():
            yield table, len(routes)


def _copies(engine: Engine) -> int:
    return sum(count for table, count in _places(engine) if table in TABLES)


def _endpoints(engine: Engine) -> int:
    return len(engine.view.snapshot.kernel.endpoints) if engine.view else 0


def has_endpoint(engine: Engine, address: str) -> bool:
    """Whether the engine has seen an endpoint on that address."""
    return bool(engine.view) and any(each.address == address for each in engine.view.snapshot.kernel.endpoints)


def _told(waits: list[float]) -> str:
    return f"median {statistics.median(waits):.1f} ms, longest {max(waits):.1f} ms ({len(waits)} times)"


if __name__ == "__main__":
    main()
