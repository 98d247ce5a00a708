# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop with fake kernels that record their operations; other tests run it with a real one."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from nm_mptcp.engine import loop, reconciler
from nm_mptcp.engine.record_file import Record, StateError
from nm_mptcp.kernel.access import KernelAccess
from nm_mptcp.kernel.errors import KernelError
from nm_mptcp.kernel.fib import Changes
from nm_mptcp.model.record import Contents
from nm_mptcp.model.state import MAIN_TABLE, Action, Endpoint, Hop, Kernel, Limits, NetworkManager, Operation, Route
from nm_mptcp.policy.decide import decide
from nm_mptcp.report.documents import StatusDocument
from nm_mptcp.report.status import document
from nm_mptcp.service.queries import Queries

from .situations import Situation

Failures = list[tuple[Operation, KernelError]]
Left = tuple[Operation, ...]


class Quiet:
    """An empty kernel."""

    traffic = None  # nothing is retransmitted

    def __init__(self) -> None:
        self.looks = 0

    async def look(self, *, thorough: bool = False, at_once: bool = False) -> Kernel:  # noqa: ARG002
        self.looks += 1
        return Kernel()

    async def connections(self, *, at_once: bool = False) -> Mapping[frozenset[str], int]:  # noqa: ARG002
        return {}

    async def route_answers(self, *_: object) -> Mapping[str, object]:
        return {}


@pytest.mark.parametrize("turns", range(6))
def test_it_can_be_cancelled_at_any_time_of_a_loss(turns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio.wait_for of Python 3.11 loses a cancellation at the same time as an event, and the loop never ends."""
    monkeypatch.setattr(loop, "_COALESCE", 5.0)

    async def story() -> bool:
        kernel = Quiet()
        subject = loop.Engine(cast(KernelAccess, kernel), NetworkManager, Record(tmp_path))
        running = asyncio.create_task(subject.run())
        async with asyncio.timeout(10):
            while not kernel.looks:
                await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)  # it waits for more of the burst now
        subject.on_kernel_change(Changes(lost_links=frozenset({2})))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=2)
        running.cancel()
        return bool(done)

    assert asyncio.run(story())


class Obedient:
    """A kernel that ignores its operations, and keeps the record's contents at the time of each."""

    traffic = None  # nothing is retransmitted

    def __init__(self, kernel: Kernel, record: Path) -> None:
        self.kernel = kernel
        self.done: list[tuple[Operation, str]] = []
        self.done_at_once: list[Operation] = []
        self.closed_subflows = self.closed_connections = 0
        self.on_done: Callable[[Operation], None] = lambda _: None
        self._record = record

    async def look(self, *, thorough: bool = False, at_once: bool = False) -> Kernel:  # noqa: ARG002
        return self.kernel

    async def connections(self, *, at_once: bool = False) -> Mapping[frozenset[str], int]:  # noqa: ARG002
        return {}

    async def refresh(self, before: Kernel) -> Kernel:  # noqa: ARG002
        return self.kernel

    async def route_answers(self, *_: object) -> Mapping[str, object]:
        return {}

    async def live_connections(self) -> tuple[tuple[str, ...], ...]:
        return ()

    async def execute(
        self,
        operations: tuple[Operation, ...],
        *,
        at_once: bool = False,
    ) -> list[tuple[Operation, KernelError]]:
        self.done_at_once += operations if at_once else ()
        return (await self.execute_until(operations, interrupted=lambda: False))[0]

    async def execute_until(
        self, operations: tuple[Operation, ...], *, interrupted: Callable[[], bool]
    ) -> tuple[list[tuple[Operation, KernelError]], tuple[Operation, ...]]:
        text = self._record.read_text() if self._record.exists() else ""
        for number, operation in enumerate(operations):
            self.done.append((operation, text))
            self.on_done(operation)
            if interrupted():
                return [], operations[number + 1 :]
        return [], ()


def lost(tmp_path: Path) -> tuple[Obedient, loop.Engine]:
    """Two links with endpoints of ours, of which one has lost its carrier."""
    situation = Situation()
    for number in (1, 2):
        ifindex = situation.link(f"e{number}", f"10.0.{number}.2/24")
        situation.endpoint(f"10.0.{number}.2", ifindex, ours=True)
    situation.links[2] = replace(situation.links[2], carrier=False)
    snapshot = situation.snapshot()
    record = Record(tmp_path)
    record.save(Contents(snapshot.ours))
    kernel = Obedient(snapshot.kernel, record.file)
    return kernel, loop.Engine(cast(KernelAccess, kernel), lambda: snapshot.networkmanager, record)


def test_a_lost_links_endpoint_is_deleted_before_the_record_is_written_and_all_else_after_it(tmp_path: Path) -> None:
    """Writing it takes some milliseconds, and it need not name a deleted endpoint."""
    kernel, subject = lost(tmp_path)
    before = subject._record.file.read_text()
    subject._compared = kernel.kernel.routes
    asyncio.run(subject.converge(loss=True))
    (first, then), (second, later), *_ = kernel.done
    assert (first.action, then) == (Action.DELETE, before)
    assert kernel.done_at_once == [first]
    assert second.action is not Action.DELETE
    assert later == subject._record.file.read_text() != before


def lost_among_many_routes(tmp_path: Path) -> tuple[Obedient, loop.Engine]:
    """The loss leads the lost link's own network by the other one, so that what is desired there is another set of routes."""
    kernel, subject = lost(tmp_path)
    routes = dict(kernel.kernel.routes)
    routes[MAIN_TABLE, 3] += tuple(
        Route(f"20.{number // 256}.{number % 256}.0/24", MAIN_TABLE, (Hop(3, "10.0.2.1"),)) for number in range(2000)
    )
    kernel.kernel = replace(kernel.kernel, routes=routes)
    subject._compared = kernel.kernel.routes
    return kernel, subject


def test_a_lost_links_endpoint_is_deleted_before_thousands_of_routes_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, subject = lost_among_many_routes(tmp_path)
    compared: list[int] = []  # how much was done before each comparison
    plan = reconciler.plan

    def noted(*arguments: Any) -> tuple[Operation, ...]:
        compared.append(len(kernel.done))
        return plan(*arguments)

    monkeypatch.setattr(reconciler, "plan", noted)
    asyncio.run(subject.converge(loss=True))
    assert isinstance(kernel.done[0][0].value, Endpoint)
    assert compared[0] > 0


def test_new_connections_are_led_around_a_lost_link_also_when_its_endpoint_cannot_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program was first, say; its routes do not wait for the next look."""
    kernel, subject = lost_among_many_routes(tmp_path)

    async def refused(operations: tuple[Operation, ...], *, at_once: bool = False) -> Failures:  # noqa: ARG001
        kernel.done += [(operation, "") for operation in operations]
        return [(operation, KernelError(errno.ENOENT, str(operation))) for operation in operations]

    async def nothing(operations: tuple[Operation, ...], *, interrupted: object) -> tuple[Failures, Left]:  # noqa: ARG001
        return await refused(operations), ()

    monkeypatch.setattr(kernel, "execute", refused)
    monkeypatch.setattr(kernel, "execute_until", nothing)
    asyncio.run(subject.converge(loss=True))
    assert any(isinstance(operation.value, Route) for operation, _ in kernel.done)


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_briefly_removed_address_keeps_its_endpoint(tmp_path: Path, comes_back: bool) -> None:
    """NetworkManager removes it and adds it again when the order of addresses changes."""
    kernel, subject = lost(tmp_path)
    there = replace(kernel.kernel, links={**kernel.kernel.links, 2: replace(kernel.kernel.links[2], carrier=True)})
    away = replace(there, addresses={index: group for index, group in there.addresses.items() if index != 2})

    async def story() -> None:
        kernel.kernel = there
        running = asyncio.create_task(subject.run())
        try:
            async with asyncio.timeout(10):
                while subject.view is None:
                    await asyncio.sleep(0.001)
            async with subject._turn:  # it has done what it began
                kernel.done.clear()
                kernel.kernel = away
            subject.on_kernel_change(Changes(lost_addresses=frozenset(there.addresses[2])))
            await asyncio.sleep(0.005)  # as long as NetworkManager was seen to take
            if comes_back:
                kernel.kernel = there
            before = subject.view
            async with asyncio.timeout(10):
                while subject.view is before:
                    await asyncio.sleep(0.001)
        finally:
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(story())
    gone = [operation for operation, _ in kernel.done if operation.action is Action.DELETE]
    assert any(isinstance(operation.value, Endpoint) for operation in gone) is not comes_back


def test_an_unwritable_record_does_not_prevent_the_delete_of_a_lost_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operations that would have to be undone are not started."""

    def full(*_: object) -> None:
        raise StateError("state.json: cannot be written: No space left on device")

    kernel, subject = lost(tmp_path)
    monkeypatch.setattr(Record, "save", full)
    with pytest.raises(StateError):
        asyncio.run(subject.converge(loss=True))
    assert [operation.action for operation, _ in kernel.done] == [Action.DELETE]


def test_after_a_failed_write_the_record_names_only_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an endpoint that another program adds there would count as ours."""
    _, subject = missing(tmp_path)
    before = subject._executor.ours.endpoints
    with monkeypatch.context() as full:
        full.setattr(Record, "save", no_space)
        with pytest.raises(StateError):
            asyncio.run(subject.converge())
    assert subject._executor.ours.endpoints == before
    asyncio.run(subject.converge())
    assert len(subject._executor.ours.endpoints) == len(before) + 1


def no_space(*_: object) -> None:
    raise StateError("state.json: cannot be written: No space left on device")


def missing(tmp_path: Path) -> tuple[Obedient, loop.Engine]:
    """Two links, of which one has no endpoint yet."""
    situation = Situation()
    for number in (1, 2):
        situation.link(f"e{number}", f"10.0.{number}.2/24")
    situation.endpoint("10.0.1.2", 2, ours=True)
    snapshot = situation.snapshot()
    record = Record(tmp_path)
    record.save(Contents(snapshot.ours))
    kernel = Obedient(snapshot.kernel, record.file)
    return kernel, loop.Engine(cast(KernelAccess, kernel), lambda: snapshot.networkmanager, record)


class Failing(Quiet):
    """A kernel whose state cannot be read, or which refuses operations, until it recovers."""

    def __init__(self, kernel: Kernel, *, refuses: bool) -> None:
        super().__init__()
        self.kernel = kernel
        self.refuses = refuses
        self.well = False
        self.done: list[Operation] = []
        self.closed_subflows = self.closed_connections = 0

    async def look(self, *, thorough: bool = False, at_once: bool = False) -> Kernel:  # noqa: ARG002
        self.looks += 1
        if not self.well and not self.refuses:
            raise KernelError(11, "list addresses")
        return self.kernel

    async def execute(
        self,
        operations: tuple[Operation, ...],
        *,
        at_once: bool = False,  # noqa: ARG002
    ) -> list[tuple[Operation, KernelError]]:
        return (await self.execute_until(operations, interrupted=lambda: False))[0]

    async def execute_until(
        self,
        operations: tuple[Operation, ...],
        *,
        interrupted: Callable[[], bool],  # noqa: ARG002
    ) -> tuple[list[tuple[Operation, KernelError]], tuple[Operation, ...]]:
        if not self.well:
            return [(operation, KernelError(11, "do it")) for operation in operations], ()
        self.done += operations
        return [], ()


@pytest.mark.parametrize("refuses", [False, True])
def test_failures_are_retried_without_end_and_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refuses: bool
) -> None:
    """No event follows: a kernel that is short of memory for some seconds, a full /run."""
    caplog.set_level("INFO")
    monkeypatch.setattr(loop, "RETRY", (0.001, 0.004))
    monkeypatch.setattr(loop, "RECHECKS", ())
    monkeypatch.setattr(loop, "_COALESCE", 0.0)
    obedient, its_engine = missing(tmp_path)
    failing = Failing(obedient.kernel, refuses=refuses)
    subject = loop.Engine(cast(KernelAccess, failing), its_engine.networkmanager, Record(tmp_path))

    async def story() -> None:
        running = asyncio.create_task(subject.run())
        async with asyncio.timeout(10):
            await subject.first_convergence.wait()
            while failing.looks < 50:
                await asyncio.sleep(0.001)
            failing.well = True
            while not failing.done:
                await asyncio.sleep(0.001)
            async with subject._turn:
                said = len(caplog.messages)
            failing.well = False
            subject.wake()
            while len(caplog.messages) == said:
                await asyncio.sleep(0.001)
        running.cancel()

    asyncio.run(story())
    if not refuses:
        said = [line for line in caplog.messages if "reconcile" in line]
        assert [line.partition(":")[0] for line in said] == [
            "reconcile failed, retrying within 0.004 s",
            "reconcile works again",
            "reconcile failed, retrying within 0.004 s",
        ]


class Asked(Obedient):
    """One whose refreshes take as long as the test says."""

    def __init__(self, kernel: Kernel, record: Path) -> None:
        super().__init__(kernel, record)
        self.refreshes = 0
        self.may = asyncio.Event()

    async def refresh(self, before: Kernel) -> Kernel:
        self.refreshes += 1
        await self.may.wait()
        return before

    async def live_connections(self) -> tuple[tuple[str, ...], ...]:
        return ()


def test_what_could_not_be_read_of_a_tunnel_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RETRY", (0.001, 0.004))
    monkeypatch.setattr(loop, "RECHECKS", ())
    monkeypatch.setattr(loop, "_COALESCE", 0.0)
    obedient, its_engine = missing(tmp_path)
    kernel = Failing(replace(obedient.kernel, wireguard=None), refuses=False)
    kernel.well = True
    subject = loop.Engine(cast(KernelAccess, kernel), its_engine.networkmanager, Record(tmp_path))

    async def story() -> None:
        running = asyncio.create_task(subject.run())
        async with asyncio.timeout(10):
            while kernel.looks < 20:
                await asyncio.sleep(0.001)
        kernel.kernel = obedient.kernel
        while subject._retry is not None:
            await asyncio.sleep(0.001)
        running.cancel()

    asyncio.run(story())


def test_a_lost_link_does_not_wait_for_status_queries(tmp_path: Path) -> None:
    obedient, its_engine = lost(tmp_path)

    async def story() -> None:
        kernel = Asked(obedient.kernel, tmp_path / "state.json")
        subject = loop.Engine(cast(KernelAccess, kernel), its_engine.networkmanager, its_engine._record)
        there = replace(kernel.kernel.links[2], carrier=True)
        kernel.kernel = replace(kernel.kernel, links={**kernel.kernel.links, 2: there})
        await subject.converge()
        kernel.done.clear()
        queries = Queries(subject, cast(KernelAccess, kernel), its_engine._record)
        asked = [asyncio.ensure_future(queries.status(service=True)) for _ in range(1000)]
        async with asyncio.timeout(10):
            while not kernel.refreshes:
                await asyncio.sleep(0)
        kernel.kernel = obedient.kernel
        assert await subject.converge(loss=True)
        assert kernel.done[0][0].action is Action.DELETE
        assert kernel.refreshes == 1
        assert not any(each.done() for each in asked)
        kernel.may.set()
        assert all(document["paths"] for document in await asyncio.gather(*asked))
        assert kernel.refreshes == 1

    asyncio.run(story())


def test_a_loss_during_the_execution_of_a_plan_is_handled_before_the_rest(tmp_path: Path) -> None:
    kernel, subject = lost(tmp_path)
    dead = kernel.kernel.links[2]
    kernel.kernel = replace(kernel.kernel, links={**kernel.kernel.links, 2: replace(dead, carrier=True)})
    begun: list[int] = []

    def lose(operation: Operation) -> None:
        if operation.action is Action.ADD and not begun:
            begun.append(len(kernel.done))
            kernel.kernel = replace(kernel.kernel, links={**kernel.kernel.links, 2: dead})
            subject.on_kernel_change(Changes(lost_links=frozenset({2})))

    kernel.on_done = lose
    asyncio.run(subject.converge())
    (place,) = begun
    done = [operation for operation, _ in kernel.done]
    following = done[place]
    assert following.action is Action.DELETE
    assert isinstance(following.value, Endpoint)
    assert following.value.ifindex == 2
    assert kernel.done_at_once == [following]
    assert sum(operation.action is Action.ADD for operation in done[place:]) > 1  # the rest follows


@pytest.mark.parametrize(
    "by_hand",
    [{"mptcp_enabled": False}, {"path_manager": "userspace"}, {"limits": Limits(0, 0)}, {"endpoints": ()}],
    ids=["net.mptcp.enabled=0", "net.mptcp.path_manager=userspace", "limits", "an endpoint deleted"],
)
def test_status_shows_changes_by_hand_without_an_event(tmp_path: Path, by_hand: dict[str, object]) -> None:
    """The kernel sends no event for these; a query reads the current state, and the service acts on it."""
    kernel, subject = lost(tmp_path)
    link = replace(kernel.kernel.links[2], carrier=True)
    kernel.kernel = replace(kernel.kernel, links={**kernel.kernel.links, 2: link}, limits=Limits(8, 8))

    async def story() -> tuple[StatusDocument | None, StatusDocument | None]:
        queries = Queries(subject, cast(KernelAccess, kernel), subject._record)
        await subject.converge()
        kernel.done.clear()
        before = await queries.status(service=True)
        assert not kernel.done, "nothing was changed"
        kernel.kernel = replace(kernel.kernel, **by_hand)
        return before, await queries.status(service=True)

    before, after = asyncio.run(story())
    assert after != before
    assert kernel.done
    view = subject.view
    assert view is not None
    assert view.snapshot.kernel == kernel.kernel
    now = document(
        *(view.snapshot, decide(view.snapshot, subject.config), subject._record.contents),
        mode=view.mode,
        service=True,
        connections=(),
        paused=False,
    )
    assert after["paths"] == now["paths"]
