# SPDX-License-Identifier: GPL-2.0-or-later
"""Links with thousands of routes: requests grow linearly, and urgent ones do not wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nm_mptcp.engine.loop import Engine
from nm_mptcp.kernel import rtnl_parse
from nm_mptcp.kernel.access import KernelAccess
from nm_mptcp.kernel.netlink import Netlink
from nm_mptcp.kernel.path_manager import PathManager
from nm_mptcp.kernel.rtnetlink import Rtnetlink
from nm_mptcp.model.state import PROTOCOL, TABLES, Action, Endpoint, Hop, Operation, Route
from tests.support.network import Network, veth
from tests.support.running import many_routes, no_more_routes, running, until, uplinks

TABLE = TABLES.start

pytestmark = pytest.mark.usefixtures("network")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How many requests of each kind were sent."""
    counts: Counter[int] = Counter()
    send = Netlink._send

    def counted(*arguments: object) -> None:
        counts[arguments[2]] += 1  # type: ignore[index]
        send(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Netlink, "_send", counted)
    return counts


def ours(count: int, hop: Hop, **more: object) -> list[Route]:
    """Our routes in one of our tables, without a metric."""
    return [Route(f"20.0.{n}.0/24", TABLE, (hop,), protocol=PROTOCOL, **more) for n in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("dumped", [True, False], ids=["after a look", "without one"])
@pytest.mark.parametrize("count", [20, 200])
def test_one_request_for_each_route_that_is_deleted(sent: Counter[int], count: int, dumped: bool) -> None:
    """... and at most one dump of the table for all of them, where a lone delete makes one of its own."""
    routes = ours(count, Hop(veth("va", "vb")), scope=253)

    async def story() -> None:
        access = KernelAccess()
        try:
            assert not await access.execute(Operation(Action.ADD, route) for route in routes)
            if dumped:
                await access.look()
            sent.clear()
            assert not await access.execute(Operation(Action.DELETE, route) for route in routes)
        finally:
            await access.close()

    asyncio.run(story())
    assert sent[rtnl_parse.RTM_DELROUTE] == count
    assert sent[rtnl_parse.RTM_GETROUTE] <= (0 if dumped else 2)  # of each family
    assert Rtnetlink().routes(TABLE) == ()


@pytest.mark.parametrize("dumped", [True, False], ids=["after a look", "without one"])
def test_what_is_left_out_is_no_wildcard_in_a_series_of_deletes(dumped: bool) -> None:
    """The delete of a route that does not exist, or no longer, does not match one with more attributes."""
    index = veth("va", "vb")
    absent = ours(1, Hop(index), scope=253)[0]
    others = [replace(absent, metric=50), replace(absent, tos=16, metric=50), replace(absent, protocol=4, metric=60)]
    twice = Route("20.1.0.0/24", TABLE, (Hop(index),), scope=253, protocol=PROTOCOL)
    beside = replace(twice, metric=50)

    async def story() -> list[Operation]:
        access = KernelAccess()
        try:
            assert not await access.execute(Operation(Action.ADD, route) for route in (*others, twice, beside))
            if dumped:
                await access.look()
            gone = [Operation(Action.DELETE, route) for route in (absent, twice, twice)]
            failures = await access.execute(gone)
            assert all(error.absent for _, error in failures)
            return [operation for operation, _ in failures]
        finally:
            await access.close()

    assert [operation.value for operation in asyncio.run(story())] == [absent, twice]
    assert set(Rtnetlink().routes(TABLE)) == {*others, beside}


class Noted:
    """Counts writes of routes: how many there had been when each endpoint was deleted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.routes = 0
        self.deleted: dict[str, int] = {}
        for name in ("add_route", "delete_route"):
            monkeypatch.setattr(Rtnetlink, name, self._counted(getattr(Rtnetlink, name)))
        delete = PathManager.delete

        def noted(manager: PathManager, endpoint: Endpoint) -> None:
            self.deleted[endpoint.address] = self.routes
            delete(manager, endpoint)

        monkeypatch.setattr(PathManager, "delete", noted)

    def _counted(self, function: object) -> object:
        def counted(*arguments: object, **named: object) -> None:
            self.routes += 1
            function(*arguments, **named)  # type: ignore[operator]

        return counted


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Noted]:
    return Noted(monkeypatch)


def endpoints(engine: Engine) -> set[str]:
    return {endpoint.address for endpoint in engine.view.snapshot.kernel.endpoints} if engine.view else set()


def copied(engine: Engine) -> int:
    """The number of routes in our tables at the last look."""
    if engine.view is None:
        return 0
    places = engine.view.snapshot.kernel.routes
    return sum(len(routes) for (table, _), routes in places.items() if table in TABLES)


MANY = 3000


def test_a_lost_link_interrupts_a_long_write(far: Network, tmp_path: Path, noted: Noted) -> None:
    uplinks(far)

    async def story() -> None:
        async with running(tmp_path, "e1", "e2") as engine:
            await until("two paths", lambda: len(endpoints(engine)) == 2)
            for change, there in ((lambda: many_routes(MANY), True), (no_more_routes, False)):
                noted.routes, noted.deleted = 0, {}
                change()
                await until("it is writing", lambda: noted.routes > 20)
                far.ip("link set p2 down")
                begun = noted.routes
                await until("the endpoint is gone", lambda: "10.2.0.1" in noted.deleted)
                assert noted.deleted["10.2.0.1"] < begun + MANY / 2
                await until("it is seen to be gone", lambda: len(endpoints(engine)) == 1)
                await until("all is written", lambda: (copied(engine) > MANY) is there)  # noqa: B023
                far.ip("link set p2 up")
                engine.on_resume()  # forgets flaps
                await until("it is back", lambda: len(endpoints(engine)) == 2)

    asyncio.run(story())
