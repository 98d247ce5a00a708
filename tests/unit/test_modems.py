# SPDX-License-Identifier: GPL-2.0-or-later
"""Which modems roam, with a ModemManager that has them, is missing, or sends malformed values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from nm_mptcp.dbus.connection import BusError, Signal
from nm_mptcp.networkmanager import modems, names
from nm_mptcp.networkmanager.modems import MODEM_3GPP, MODEM_CDMA, PATH, SERVICE, Modems

MODEM = PATH + "/Modem/0"
OTHER = PATH + "/Modem/1"


def modem(state: Any = 1, interface: str = MODEM_3GPP, name: str = "RegistrationState") -> dict[str, Any]:
    return {SERVICE + ".Modem": {"State": 8}, interface: {name: state}}


class StandIn:
    """A bus with a ModemManager (or none) whose list of modems is a value, an error, or a future that the test completes."""

    def __init__(self) -> None:
        self.present = True
        self.modems: Any = {MODEM: modem()}
        self.calls = 0
        self.handler: Callable[[Signal], None] = lambda _: None

    def on_signal(self, handler: Callable[[Signal], None]) -> None:
        self.handler = handler

    async def add_match(self, rule: str) -> None:
        assert "type='signal'" in rule

    async def owner(self, name: str) -> str:
        assert name == SERVICE
        return ":1.7" if self.present else ""

    async def call(self, to: str, path: str, _interface: str, member: str, *_: Any, **__: Any) -> list[Any]:
        assert (to, path, member) == (":1.7", PATH, "GetManagedObjects")
        self.calls += 1
        answer = await self.modems if isinstance(self.modems, asyncio.Future) else self.modems
        if isinstance(answer, Exception):
            raise answer
        return list(answer) if isinstance(answer, list) else [answer]

    def tells(self, interface: str, member: str, path: str, *body: Any, sender: str = ":1.7") -> None:
        self.handler(Signal(sender, path, interface, member, list(body)))

    def registers(self, state: Any, path: str = MODEM, **more: Any) -> None:
        self.tells(names.PROPERTIES, "PropertiesChanged", path, MODEM_3GPP, {"RegistrationState": state}, [], **more)

    def owned_by(self, owner: str) -> None:
        self.handler(Signal(names.BUS, "/", names.BUS, "NameOwnerChanged", [SERVICE, "", owner]))


def run(story: Callable[[StandIn, Modems, list[frozenset[str]]], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        bus = StandIn()
        seen: list[frozenset[str]] = []
        followed = Modems(lambda: seen.append(followed.roaming))
        async with asyncio.timeout(5):
            await story(bus, followed, seen)
        followed.close()

    asyncio.run(main())


@pytest.mark.parametrize("state", range(12))
def test_each_registration_state(state: int) -> None:
    async def story(bus: StandIn, followed: Modems, _: list[frozenset[str]]) -> None:
        bus.modems = {MODEM: modem(state)}
        await followed.start(bus)  # type: ignore[arg-type]
        assert followed.roaming == ({MODEM} if state in (5, 7, 10) else frozenset())

    run(story)


@pytest.mark.parametrize("name", ["Cdma1xRegistrationState", "EvdoRegistrationState"])
def test_a_cdma_modem_that_roams(name: str) -> None:
    async def story(bus: StandIn, followed: Modems, _: list[frozenset[str]]) -> None:
        bus.modems = {MODEM: modem(3, MODEM_CDMA, name), OTHER: modem(2, MODEM_CDMA, name)}
        await followed.start(bus)  # type: ignore[arg-type]
        assert followed.roaming == {MODEM}

    run(story)


def test_roaming_begins_and_ends() -> None:
    async def story(bus: StandIn, followed: Modems, seen: list[frozenset[str]]) -> None:
        await followed.start(bus)  # type: ignore[arg-type]
        bus.registers(2)
        bus.registers(5)
        bus.registers(5)
        bus.registers(1)
        assert seen == [{MODEM}, frozenset()]

    run(story)


def test_without_modemmanager_nothing_roams_until_it_comes() -> None:
    async def story(bus: StandIn, followed: Modems, seen: list[frozenset[str]]) -> None:
        bus.present = False
        await followed.start(bus)  # type: ignore[arg-type]
        assert (followed.roaming, bus.calls) == (frozenset(), 0)
        bus.modems = {MODEM: modem(5)}
        bus.owned_by(":1.7")
        while not seen:
            await asyncio.sleep(0)
        assert followed.roaming == {MODEM}
        bus.owned_by("")
        assert followed.roaming == {MODEM}, "a crash of ModemManager brings nobody home"

    run(story)


def test_modems_come_and_go() -> None:
    async def story(bus: StandIn, followed: Modems, _: list[frozenset[str]]) -> None:
        await followed.start(bus)  # type: ignore[arg-type]
        bus.tells(names.OBJECT_MANAGER, "InterfacesAdded", PATH, OTHER, modem(5))
        assert followed.roaming == {OTHER}
        bus.tells(names.OBJECT_MANAGER, "InterfacesRemoved", PATH, OTHER, [SERVICE + ".Modem.Voice"])
        assert followed.roaming == {OTHER}
        bus.tells(names.OBJECT_MANAGER, "InterfacesRemoved", PATH, OTHER, [SERVICE + ".Modem", MODEM_3GPP])
        assert not followed.roaming

    run(story)


def test_signals_of_other_senders_are_ignored() -> None:
    async def story(bus: StandIn, followed: Modems, _: list[frozenset[str]]) -> None:
        await followed.start(bus)  # type: ignore[arg-type]
        bus.registers(5, sender=":1.9")
        assert not followed.roaming

    run(story)


def test_a_signal_before_the_reply_overrules_it() -> None:
    async def story(bus: StandIn, followed: Modems, seen: list[frozenset[str]]) -> None:
        bus.modems = asyncio.get_running_loop().create_future()
        starting = asyncio.ensure_future(followed.start(bus))  # type: ignore[arg-type]
        while not bus.calls:
            await asyncio.sleep(0)
        bus.registers(5)
        bus.modems.set_result({MODEM: modem(1)})
        await starting
        assert (followed.roaming, seen) == ({MODEM}, [{MODEM}])

    run(story)


def test_a_modemmanager_that_hangs_is_awaited_for_a_while_only() -> None:
    async def story(bus: StandIn, followed: Modems, _: list[frozenset[str]]) -> None:
        bus.modems = asyncio.get_running_loop().create_future()
        await followed.start(bus, 0.01)  # type: ignore[arg-type]
        bus.modems.set_result({MODEM: modem(5)})
        while not followed.roaming:
            await asyncio.sleep(0)

    run(story)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (BusError(BusError.NO_REPLY, "no answer"), "modems could not be read (no answer): retrying"),
        (["x"], "modems could not be read (the reply is not a list of objects): retrying"),
        ([{}, {}], "modems could not be read (the reply is not a list of objects)"),
    ],
)
def test_reading_the_modems_is_retried(
    answer: Any, line: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modems, "_RETRY", (0.001, 0.001))

    async def story(bus: StandIn, followed: Modems, seen: list[frozenset[str]]) -> None:
        bus.modems = answer
        starting = asyncio.ensure_future(followed.start(bus))  # type: ignore[arg-type]
        while bus.calls < 3:
            await asyncio.sleep(0.001)
        bus.modems = {MODEM: modem(5)}
        await starting
        assert seen == [{MODEM}]

    run(story)
    assert len([message for message in caplog.messages if line in message]) == len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("objects", "line"),
    [
        ({MODEM: 7}, "object /org/freedesktop/ModemManager1/Modem/0 is malformed"),
        ({MODEM: {MODEM_3GPP: 7}}, "object /org/freedesktop/ModemManager1/Modem/0 is malformed"),
        (
            {MODEM: modem("roaming")},
            "RegistrationState of /org/freedesktop/ModemManager1/Modem/0 is 'roaming', not a number",
        ),
        ({MODEM: modem(True)}, "is True, not a number"),
        ({MODEM: modem([5])}, "is [5], not a number"),
    ],
)
def test_a_malformed_modem_is_logged_once_and_others_count(
    objects: Any, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(bus: StandIn, followed: Modems, _: list[frozenset[str]]) -> None:
        bus.modems = objects | {OTHER: modem(5)}
        await followed.start(bus)  # type: ignore[arg-type]
        await followed.start(bus)  # type: ignore[arg-type]
        assert followed.roaming == {OTHER}

    run(story)
    assert len([message for message in caplog.messages if line in message]) == len(caplog.messages) == 1


@pytest.mark.parametrize(
    "body", [[], [1], [MODEM_3GPP, 7, []], [MODEM_3GPP, {"RegistrationState": None}, []], ["x", {}]]
)
def test_a_broken_signal_is_passed_over(body: list[Any]) -> None:
    async def story(bus: StandIn, followed: Modems, _: list[frozenset[str]]) -> None:
        bus.modems = {OTHER: modem(5)}
        await followed.start(bus)  # type: ignore[arg-type]
        bus.tells(names.PROPERTIES, "PropertiesChanged", MODEM, *body)
        for member in ("InterfacesAdded", "InterfacesRemoved", "Whatever"):
            bus.tells(names.OBJECT_MANAGER, member, PATH, *body)
        assert followed.roaming == {OTHER}

    run(story)


def test_signal_quality_is_not_subscribed() -> None:
    rules = [rule for rule in modems.MATCH_RULES if "PropertiesChanged" in rule]
    assert {rule.partition("arg0=")[2] for rule in rules} == {f"'{MODEM_3GPP}'", f"'{MODEM_CDMA}'"}


def test_a_new_connection_goes_on_where_the_old_one_ended() -> None:
    async def story(first: StandIn, followed: Modems, seen: list[frozenset[str]]) -> None:
        await followed.start(first)  # type: ignore[arg-type]
        first.registers(5)
        second = StandIn()
        second.modems = {MODEM: modem(5)}
        await followed.start(second)  # type: ignore[arg-type]
        first.registers(1)
        assert (followed.roaming, seen) == ({MODEM}, [{MODEM}])
        second.registers(1)
        assert not followed.roaming

    run(story)
