# SPDX-License-Identifier: GPL-2.0-or-later
"""The signal strength of the access points in use, and of no others, over a real bus."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nm_mptcp.dbus.connection import Bus, Signal, Variant
from nm_mptcp.engine import signal_hysteresis
from nm_mptcp.engine.loop import Engine
from nm_mptcp.engine.record_file import Record
from nm_mptcp.model.state import Action, Device, Endpoint, Kernel, Operation
from nm_mptcp.networkmanager import names
from nm_mptcp.networkmanager.client import Client
from nm_mptcp.networkmanager.defaults import ConnectionDefaults, DefaultsReader

from .private_bus import private_bus
from .situations import BACKUP, SUBFLOW, WIFI, Situation
from .wireless import DEVICE, Wireless, access_point

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the bus of these tests lets only root own names"),
    pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="dbus-daemon is not installed"),
]


class NoFiles(DefaultsReader):
    async def read(self, **_: Any) -> ConnectionDefaults:
        return self.defaults


class Follower:
    """The client on a bus, with all that it was told."""

    def __init__(self, bus: Bus) -> None:
        self.changes = 0
        self.strengths: list[int | None] = []
        self.signals: list[Signal] = []
        self.client = Client(bus, self._changed, on_strength=self._strength, defaults=NoFiles())
        bus.on_signal(self.signals.append)

    @property
    def device(self) -> Device:
        return self.client.state.devices[0]

    def _changed(self) -> None:
        self.changes += 1

    def _strength(self) -> None:
        self.strengths.append(self.device.strength)

    async def until(self, question: Callable[[], object]) -> None:
        while not question():
            await asyncio.sleep(0.001)

    async def settled(self, wireless: Wireless) -> None:
        """Come back when all that was told so far has arrived: messages of one sender keep their order."""
        before = self.changes
        managed = not self.device.managed
        wireless.tells(DEVICE, names.DEVICE, Managed=Variant("b", managed))
        await self.until(lambda: self.changes > before)
        assert await self.client.settled()


def run(story: Callable[[Wireless, Follower], Coroutine[Any, Any, None]], *first: int) -> None:
    async def main(address: str) -> None:
        wireless = Wireless(address)
        for number, value in enumerate(first or (80,), 1):
            wireless.strengths[access_point(number)] = Variant("y", value)
        await wireless.start()
        bus = Bus()
        await bus.connect(address)
        follower = Follower(bus)
        async with asyncio.timeout(10):
            await follower.client.start()
            assert await follower.client.settled()
            await story(wireless, follower)
        follower.client.close()
        bus.close()
        await wireless.stop()

    with private_bus() as private:
        asyncio.run(main(f"unix:path={private.socket}"))


def test_the_strength_is_known_from_the_start() -> None:
    async def story(_: Wireless, follower: Follower) -> None:
        assert follower.device.strength == 80

    run(story)


def test_a_change_of_only_the_strength_has_its_own_callback() -> None:
    async def story(wireless: Wireless, follower: Follower) -> None:
        before = follower.changes
        for value in (70, 70, 69):
            wireless.strength(1, value)
        await follower.until(lambda: follower.device.strength == 69)
        assert (follower.strengths[-2:], follower.changes) == ([70, 69], before)

    run(story)


def test_access_points_that_are_only_in_range_are_not_subscribed() -> None:
    async def story(wireless: Wireless, follower: Follower) -> None:
        follower.signals.clear()
        for number in range(2, 50):
            wireless.strength(number, number)
        await follower.settled(wireless)
        assert [signal.path for signal in follower.signals] == [DEVICE]
        assert wireless.asked == [access_point(1)]

    run(story)


def test_another_access_point_is_followed_and_the_old_one_left() -> None:
    async def story(wireless: Wireless, follower: Follower) -> None:
        wireless.strength(2, 55, told=False)
        wireless.roam(2)
        await follower.until(lambda: follower.device.strength == 55)
        await follower.settled(wireless)
        follower.signals.clear()
        wireless.strength(1, 10)
        wireless.strength(2, 56)
        await follower.until(lambda: follower.device.strength == 56)
        assert {signal.path for signal in follower.signals} == {access_point(2)}

    run(story)


def test_without_an_access_point_there_is_no_strength() -> None:
    async def story(wireless: Wireless, follower: Follower) -> None:
        wireless.roam(0)
        await follower.until(lambda: follower.device.strength is None)
        wireless.roam(1)
        await follower.until(lambda: follower.device.strength == 80)

    run(story)


def test_an_access_point_that_is_gone_already_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    async def story(wireless: Wireless, follower: Follower) -> None:
        wireless.roam(9)
        await follower.until(lambda: access_point(9) in wireless.asked)
        assert await follower.client.settled()
        assert follower.device.strength is None

    run(story)
    assert not [line for line in caplog.messages if "AccessPoint" in line]


@pytest.mark.parametrize("nonsense", [Variant("s", "strong"), Variant("u", 101), Variant("i", -1), Variant("b", True)])
def test_a_malformed_strength_is_logged_once_and_ignored(nonsense: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def story(wireless: Wireless, follower: Follower) -> None:
        wireless.strength(1, nonsense)
        await follower.until(lambda: follower.device.strength is None)
        wireless.strength(1, nonsense)
        wireless.strength(1, 60)
        await follower.until(lambda: follower.device.strength == 60)
        wireless.tells(access_point(1), names.ACCESS_POINT, Flags=Variant("u", 1))
        await follower.settled(wireless)
        assert follower.device.strength == 60

    run(story)
    assert len([line for line in caplog.messages if "not a percentage" in line]) == 1


def test_a_new_networkmanager_is_asked_anew() -> None:
    async def story(wireless: Wireless, follower: Follower) -> None:
        await wireless.stop()
        await follower.until(lambda: not follower.client.state.running)
        assert follower.device.strength == 80
        again = Wireless(wireless._address)
        again.strengths[access_point(1)] = Variant("y", 33)
        await again.start()
        await follower.until(lambda: follower.client.state.running and follower.device.strength == 33)
        again.strength(1, 44)
        await follower.until(lambda: follower.device.strength == 44)
        await again.stop()

    run(story)


# --- and what the engine makes of it


class Still:
    """A kernel that never changes but by what it is told to do."""

    traffic = None  # nothing is retransmitted

    def __init__(self, situation: Situation) -> None:
        self.kernel = situation.snapshot().kernel
        self.looks = 0
        self.done: list[Operation] = []

    async def look(self, **_: bool) -> Kernel:
        self.looks += 1
        return self.kernel

    async def connections(self) -> Mapping[frozenset[str], int]:
        return {}

    async def route_answers(self, *_: object) -> Mapping[str, object]:
        return {}

    async def execute(self, operations: tuple[Operation, ...], **_: bool) -> list[Any]:
        self.done += operations
        changed = {op.value.id: op.value for op in operations if isinstance(op.value, Endpoint)}
        endpoints = tuple(changed.get(each.id, each) for each in self.kernel.endpoints)
        self.kernel = replace(self.kernel, endpoints=endpoints)
        return []

    async def execute_until(
        self, operations: tuple[Operation, ...], **_: object
    ) -> tuple[list[Any], tuple[Operation, ...]]:
        return await self.execute(operations), ()

    def flags(self) -> list[tuple[str, bool]]:
        """Each change of an endpoint: its address, and whether it became backup."""
        return [
            (op.value.address, op.value.flags == BACKUP)
            for op in self.done
            if op.action is Action.SET_FLAGS and isinstance(op.value, Endpoint)
        ]


def test_a_weak_signal_makes_the_path_backup_by_set_flags_and_a_strong_one_regular_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal_hysteresis, "HOLD", 0.1)
    situation = Situation()
    wlan0 = situation.link("wlan0", "10.0.1.2/24", type=WIFI, strength=80)
    eth0 = situation.link("eth0", "10.0.2.2/24")
    situation.endpoint("10.0.1.2", wlan0, SUBFLOW, ours=True)
    situation.endpoint("10.0.2.2", eth0, SUBFLOW, ours=True)

    async def main() -> None:
        kernel = Still(situation)
        record = Record(tmp_path)
        engine = Engine(kernel, lambda: situation.snapshot().networkmanager, record)  # type: ignore[arg-type]
        engine._executor.ours = situation.ours
        running = asyncio.create_task(engine.run())

        async def until(question: Callable[[], object]) -> None:
            while not question():
                await asyncio.sleep(0.001)

        async with asyncio.timeout(20):
            await until(lambda: kernel.looks >= 3)  # the first one, and those at 50 ms and 1 s
            for percent in (79, 60, 45, 41):
                situation.device("wlan0", strength=percent)
                engine.on_signal_strength()
                assert not engine._dirty.is_set(), "a strength that means nothing is worth no look"
            situation.device("wlan0", strength=20)
            engine.on_signal_strength()
            await until(kernel.flags)
            assert kernel.flags() == [("10.0.1.2", True)]
            situation.device("wlan0", strength=90)
            engine.on_signal_strength()
            await until(lambda: len(kernel.flags()) == 2)
            assert kernel.flags() == [("10.0.1.2", True), ("10.0.1.2", False)]
            assert {op.action for op in kernel.done if isinstance(op.value, Endpoint)} == {Action.SET_FLAGS}
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
