# SPDX-License-Identifier: GPL-2.0-or-later
"""What is signalled on the bus, and how often: bursts are bounded, the last state is always signalled."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from nm_mptcp.engine.reconciler import View
from nm_mptcp.model.reasons import Reason, Why
from nm_mptcp.model.record import Contents, since
from nm_mptcp.model.state import Mode, State
from nm_mptcp.policy.decide import decide
from nm_mptcp.service.interface import NOTHING_YET, PROPERTIES, Service
from nm_mptcp.service.path_objects import PATH_PROPERTIES, Objects, PathObject, object_path, path_values

from .situations import SUBFLOW, Situation

A, A6 = "10.0.1.2", "2001:db8::2"

TYPES = {"s": str, "u": int, "t": int, "b": bool, "as": list}


class Followed:
    """A bus that notes what would be sent (the real one's tests are in tests/networkmanager)."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.said: list[tuple[str, str, Any]] = []

    def manage_objects(self, path: str) -> None:
        self.root = path

    def export(self, path: str, interface: Any) -> None:
        self.said.append(("added", path, dict(interface.values)))
        interface.emit_properties_changed = lambda changed: self.said.append(("changed", path, dict(changed)))

    def answer(self, path: str, interface: str, methods: Any, work: Any) -> None:
        self.answered = (path, interface, set(methods), work)

    def unexport(self, path: str, _interface: Any) -> None:
        self.said.append(("removed", path, None))


def view(state: State = State.ACTIVE, gateway: str = "10.0.1.1") -> View:
    situation = Situation()
    situation.link("wlan0", f"{A}/24", f"{A6}/64")
    situation.endpoint(A, 2, SUBFLOW, ours=True)
    situation.endpoint(A6, 2, SUBFLOW, ours=True)
    snapshot = situation.snapshot()
    desired = decide(snapshot)
    path = replace(desired.paths[0], state=state, gateway=gateway)
    return View(snapshot, replace(desired, paths=(path, *desired.paths[1:])), Mode.AUTO)


def service() -> Service:
    async def nothing(*_: Any) -> Any:
        return {}

    return Service(
        sync=nothing,
        status=nothing,
        clear=nothing,
        clear_all=nothing,
        resume=lambda: None,
        reload=nothing,
        set_mode=nothing,
        explain=nothing,
        authorize=nothing,
    )


class Shown:
    """Objects on a followed bus, and the view that they show."""

    def __init__(self) -> None:
        self.view = view()
        self.bus = Followed()
        paths = self.view.desired.paths
        contents = Contents(since=since({}, paths, 1_800_000_000.0))
        self.objects = Objects(self.bus, service(), lambda: self.view, lambda: contents, dict, lambda: False)  # type: ignore[arg-type]

    def changes(self, name: str) -> list[Any]:
        return [values[name] for verb, _, values in self.bus.said if verb == "changed" and name in values]


async def quiet(shown: Shown) -> None:
    """Return when nothing is left to publish."""
    async with asyncio.timeout(10):
        while shown.objects._timer is not None:
            await asyncio.sleep(0.01)


def test_a_storm_is_signalled_in_few_bursts_and_its_end_always() -> None:
    async def story() -> None:
        shown = Shown()
        shown.bus.said.clear()
        for number in range(1000):
            shown.view = view(gateway=f"10.0.1.{number % 250}") if number % 100 == 0 else shown.view
            shown.objects.changed()
        shown.view = view(gateway="10.0.1.254")
        shown.objects.changed()
        await quiet(shown)
        # All this came within the pause after the first showing: one burst, with the last state.
        assert shown.changes("Gateway") == ["10.0.1.254"]

    asyncio.run(story())


def test_unchanged_properties_are_not_signalled() -> None:
    async def story() -> None:
        shown = Shown()
        shown.bus.said.clear()
        shown.objects.changed()
        await quiet(shown)
        assert shown.bus.said == []
        shown.view = view(state=State.SUSPENDED)
        shown.objects.changed()
        await quiet(shown)
        (said,) = [each for each in shown.bus.said if "path" in each[1]]
        assert said[2] == {"State": "suspended", "Since": 0}
        assert shown.changes("State") == ["suspended", "held-back"]

    asyncio.run(story())


def test_paths_are_added_and_removed() -> None:
    async def story() -> None:
        shown = Shown()
        first = shown.view
        added = [path for verb, path, _ in shown.bus.said if verb == "added"]
        assert added[0] == "/org/nm_mptcp1"
        assert added[1:] == ["/org/nm_mptcp1/path/2_0a000102", f"/org/nm_mptcp1/path/2_20010db8{'0' * 23}2"]
        shown.bus.said.clear()
        shown.view = replace(first, desired=replace(first.desired, paths=first.desired.paths[1:]))
        shown.objects.changed()
        await quiet(shown)
        assert ("removed", added[1], None) in shown.bus.said
        shown.view = first
        shown.objects.changed()
        await quiet(shown)
        assert [path for verb, path, _ in shown.bus.said if verb == "added"] == [added[1]]

    asyncio.run(story())


def test_a_short_wait_is_published_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nm_mptcp.service.path_objects.PATIENCE", 0.05)
    monkeypatch.setattr("nm_mptcp.report.health.PATIENCE", 0.05)

    async def story() -> None:
        shown = Shown()
        paths = shown.view.desired.paths
        waiting = replace(paths[0], state=State.WAITING, reason=Reason(Why.TENTATIVE))
        shown.view = replace(shown.view, desired=replace(shown.view.desired, paths=(waiting, *paths[1:])))
        contents = Contents(since=since({}, shown.view.desired.paths, time.time()))
        shown.objects._contents = lambda: contents
        shown.bus.said.clear()
        shown.objects.changed()
        await quiet(shown)
        told = [values["State"] for _, path, values in shown.bus.said if path == "/org/nm_mptcp1" and "State" in values]
        assert told == ["held-back"]

    asyncio.run(story())


def test_nothing_is_published_after_the_connection_is_closed() -> None:
    async def story() -> None:
        shown = Shown()
        shown.bus.said.clear()
        shown.view = view(gateway="10.0.1.9")
        shown.objects.changed()
        shown.objects.close()
        assert shown.objects._timer is None
        assert shown.bus.said == []

    asyncio.run(story())


def test_values_fit_their_signatures() -> None:
    made = view()
    for path in made.desired.paths:
        values = path_values(path, {})
        assert set(values) == set(PATH_PROPERTIES)
        assert all(isinstance(value, TYPES[PATH_PROPERTIES[name][0]]) for name, value in values.items())
        assert PathObject(values).values == values
        assert object_path(path).startswith("/org/nm_mptcp1/path/2_")
    assert set(NOTHING_YET) == set(PROPERTIES)
