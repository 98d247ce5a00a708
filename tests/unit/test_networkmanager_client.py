# SPDX-License-Identifier: GPL-2.0-or-later
"""The client in states that a real NetworkManager cannot be brought into: malformed replies, and every order of replies.

The bus here is a stand-in that answers when the test says so. All else is tried on a real NetworkManager.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from nm_mptcp.dbus.connection import BusError, Signal
from nm_mptcp.model.flags import ProfileFlag
from nm_mptcp.model.state import DefaultFlags, DeviceState
from nm_mptcp.networkmanager import liveness, modems, names
from nm_mptcp.networkmanager.client import Client
from nm_mptcp.networkmanager.defaults import ConnectionDefaults, ConnectionSection, DefaultsReader
from nm_mptcp.nmsyntax.device_match import DeviceMatch

DEVICE = names.DEVICES + "2"
ACTIVE = names.ACTIVE_CONNECTIONS + "1"

PROFILE = {"connection": {"id": "Wi-Fi", "uuid": "u", "type": "802-11-wireless", "mptcp-flags": 0x22}, "ipv4": {}}


def device(**more: Any) -> dict[str, Any]:
    properties = {"Interface": "wlan0", "DeviceType": 2, "State": 100, "Managed": True, "ActiveConnection": ACTIVE}
    properties |= more
    return {names.DEVICE: {key: value for key, value in properties.items() if value is not None}}


def objects(**more: Any) -> dict[str, Any]:
    return {
        names.PATH: {names.MANAGER: {"Version": "1.42.4", "Startup": False}},
        ACTIVE: {names.ACTIVE_CONNECTION: {"StateFlags": 0}},
        DEVICE: device(**more),
    }


class NoFiles(DefaultsReader):
    async def read(self, **_: Any) -> ConnectionDefaults:
        return self.defaults


#: What our drop-in says, and what somebody else's file says before it.
DROP_IN = ConnectionDefaults((ConnectionSection(DefaultFlags.OUR_SECTION, values={"connection.mptcp-flags": "1"}),))
ANOTHER = ConnectionDefaults(
    (ConnectionSection("connection-x", values={"connection.mptcp-flags": "0x62"}), *DROP_IN.sections)
)


class TheseFiles(DefaultsReader):
    """Files whose reading takes as long as the test says; each reading finds what they hold when it ends."""

    def __init__(self, holds: ConnectionDefaults = DROP_IN) -> None:
        super().__init__()
        self.holds = holds
        self.readings = 0
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def read(self, **_: Any) -> ConnectionDefaults:
        self.readings += 1
        await self.may_end.wait()
        self.defaults = self.holds
        return self.defaults


class StandIn:
    """A bus: answers to NetworkManager's methods are values, errors, or futures that the test completes."""

    def __init__(self, owner: str = ":1.1") -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.answers: dict[str, Any] = {"GetManagedObjects": objects(), "GetAppliedConnection": PROFILE}
        self.calls: list[str] = []
        self.name_owner = owner
        self.modemmanager = ""
        self.handlers: list[Callable[[Signal], None]] = []
        self.matches: list[str] = []

    def on_signal(self, handler: Callable[[Signal], None]) -> None:
        self.handlers.append(handler)

    def handler(self, signal: Signal) -> None:
        for handler in self.handlers:
            handler(signal)

    async def add_match(self, rule: str) -> None:
        assert "type='signal'" in rule
        self.matches.append(rule)

    async def remove_match(self, rule: str) -> None:
        self.matches.remove(rule)

    async def owner(self, name: str) -> str:
        return {names.SERVICE: self.name_owner, modems.SERVICE: self.modemmanager}[name]

    async def call(self, _to: str, _path: str, _interface: str, member: str, *_: Any, **__: Any) -> list[Any]:
        self.calls.append(member)
        answer = self.answers.get(member, [7])
        if isinstance(answer, asyncio.Future):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return list(answer) if isinstance(answer, list) else [answer, 1]

    def says(self, path: str, interface: str, sender: str = ":1.1", **changed: Any) -> None:
        body = [interface, changed, []]
        self.handler(Signal(sender, path, names.PROPERTIES, "PropertiesChanged", body))

    def removes(self, path: str, *interfaces: str) -> None:
        body = [path, list(interfaces)]
        self.handler(Signal(":1.1", names.OBJECT_MANAGER_PATH, names.OBJECT_MANAGER, "InterfacesRemoved", body))

    def adds(self, path: str, interfaces: dict[str, Any]) -> None:
        body = [path, interfaces]
        self.handler(Signal(":1.1", names.OBJECT_MANAGER_PATH, names.OBJECT_MANAGER, "InterfacesAdded", body))

    def owned_by(self, owner: str) -> None:
        body = [names.SERVICE, self.name_owner, owner]
        self.name_owner = owner
        self.handler(Signal(names.BUS, "/org/freedesktop/DBus", names.BUS, "NameOwnerChanged", body))


def run(story: Callable[[StandIn, Client, list[Any]], Coroutine[Any, Any, None]], **more: Any) -> None:
    async def main() -> None:
        bus = StandIn()
        bus.answers["GetManagedObjects"] = [objects(**more)]
        states: list[Any] = []
        client = Client(bus, lambda: states.append(client.state), defaults=NoFiles())  # type: ignore[arg-type]
        async with asyncio.timeout(5):
            await story(bus, client, states)

    asyncio.run(main())


def pending() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([], "list index out of range"),
        ("text", "it is not a connection"),
        ({"connection": 1}, "it is not a connection"),
        ({}, "'id' is missing"),
        ({"connection": PROFILE["connection"] | {"mptcp-flags": "x"}}, "'mptcp-flags' is 'x', not of type int"),
        ({"connection": PROFILE["connection"] | {"mptcp-flags": True}}, "'mptcp-flags' is True, not of type int"),
        ({"connection": PROFILE["connection"], "ipv4": {"route-table": "x"}}, "'route-table' is 'x', not of type int"),
    ],
)
def test_a_broken_profile_is_no_profile_with_a_reason_and_one_line(
    answer: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        bus.answers["GetAppliedConnection"] = answer
        await client.start()
        (device,) = client.state.devices
        assert (device.profile, why in device.unreadable) == (None, True)
        await client.refresh_profiles()
        await client.refresh_profiles()

    run(story)
    assert len([line for line in caplog.messages if why in line]) == 1


@pytest.mark.parametrize("broken", [{"State": "x"}, {"State": None}, {"DeviceType": None}])
def test_a_broken_device_has_no_profile_but_a_reason(broken: dict[str, Any]) -> None:
    async def story(_: StandIn, client: Client, __: list[Any]) -> None:
        await client.start()
        (device,) = client.state.devices
        assert (device.interface, device.profile) == ("wlan0", None)
        assert "malformed" in device.unreadable

    run(story, **broken)


def test_a_device_without_a_name_is_left_out() -> None:
    async def story(_: StandIn, client: Client, __: list[Any]) -> None:
        await client.start()
        assert (client.state.running, client.state.devices) == (True, ())

    run(story, Interface=7)


def test_odd_properties_take_their_defaults() -> None:
    async def story(_: StandIn, client: Client, __: list[Any]) -> None:
        await client.start()
        (device,) = client.state.devices
        assert (device.metered, device.ipv4_connectivity, device.state, device.ip_interface) == (0, 0, 0, "wlan0")
        assert device.profile

    run(story, Metered="x", Ip4Connectivity=99, State=77, IpInterface="")


@pytest.mark.parametrize(
    ("kind", "interface", "properties", "name"),
    [
        (8, names.MODEM, {"CurrentCapabilities": 4}, "gsm"),
        (8, names.MODEM, {"CurrentCapabilities": 2}, "cdma"),
        (8, names.MODEM, {"CurrentCapabilities": 6}, "gsm"),
        (8, names.MODEM, {}, "modem"),
        (14, names.GENERIC, {"TypeDescription": "wwan"}, "wwan"),
        (14, names.GENERIC, {}, "generic"),
        (20, names.DEVICE + ".Veth", {}, "ethernet"),
        (999, names.DEVICE + ".New", {}, ""),
    ],
)
def test_type_names_from_other_interfaces(kind: int, interface: str, properties: dict[str, Any], name: str) -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        tree = objects(DeviceType=kind)
        tree[DEVICE][interface] = properties
        bus.answers["GetManagedObjects"] = [tree]
        await client.start()
        assert client.state.devices[0].type_name == name

    run(story)


def test_the_hardware_address_is_the_permanent_one_only() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        tree = objects(HwAddress="02:00:00:00:00:01")
        tree[DEVICE][names.DEVICE + ".Wired"] = {"PermHwAddress": "00:1E:65:30:D1:C4", "HwAddress": "02:00:00:00:00:01"}
        bus.answers["GetManagedObjects"] = [tree]
        await client.start()
        assert client.state.devices[0].hardware_address == "00:1E:65:30:D1:C4"

    run(story)


@pytest.mark.parametrize("body", [[], [1, 2, 3], [names.DEVICE, 7, []], ["x", {}, [], 1]])
def test_a_broken_signal_is_passed_over(body: list[Any]) -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        await client.start()
        before = client.state
        bus.handler(Signal(":1.1", DEVICE, names.PROPERTIES, "PropertiesChanged", body))
        bus.handler(Signal(":1.1", DEVICE, names.OBJECT_MANAGER, "InterfacesAdded", body))
        bus.handler(Signal(":1.1", DEVICE, names.OBJECT_MANAGER, "InterfacesRemoved", body))
        assert await client.settled()
        assert client.state == before
        bus.says(DEVICE, names.DEVICE, State=110)
        assert client.state.devices[0].state is DeviceState.DEACTIVATING

    run(story)


def test_signals_of_other_senders_are_ignored() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        await client.start()
        bus.says(DEVICE, names.DEVICE, sender=":1.9", State=110)
        bus.handler(Signal(":1.9", "/x", names.BUS, "NameOwnerChanged", [names.SERVICE, ":1.1", ":1.9"]))
        assert (client.state.running, client.state.devices[0].state) == (True, DeviceState.ACTIVATED)

    run(story)


def test_a_change_that_changes_nothing_is_not_announced() -> None:
    async def story(bus: StandIn, client: Client, states: list[Any]) -> None:
        await client.start()
        bus.says(DEVICE, names.DEVICE, State=100)
        bus.says(DEVICE, names.DEVICE, StateReason=[100, 0])
        bus.says(names.PATH, names.MANAGER, State=70)
        assert len(states) == 1

    run(story)


def test_signals_from_before_the_answer_are_not_lost() -> None:
    async def story(bus: StandIn, client: Client, states: list[Any]) -> None:
        answer = bus.answers["GetManagedObjects"] = pending()
        starting = asyncio.ensure_future(client.start())
        while "GetManagedObjects" not in bus.calls:
            await asyncio.sleep(0)
        bus.says(DEVICE, names.DEVICE, State=110)
        answer.set_result([objects()])
        bus.says(DEVICE, names.DEVICE, State=120)  # in the same batch as the answer
        await starting
        assert client.state.devices[0].state is DeviceState.FAILED
        assert len(states) == 1

    run(story)


def test_a_new_activation_while_the_old_profile_is_read() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        await client.start()
        old, new = pending(), pending()
        bus.answers["GetAppliedConnection"] = old
        bus.says(DEVICE, names.DEVICE, ActiveConnection=ACTIVE + "0")
        bus.adds(ACTIVE + "1", {names.ACTIVE_CONNECTION: {"StateFlags": 0}})
        calls = len(bus.calls)
        while len(bus.calls) == calls:
            await asyncio.sleep(0)
        bus.answers["GetAppliedConnection"] = new
        bus.says(DEVICE, names.DEVICE, ActiveConnection=ACTIVE + "1")
        old.set_result([PROFILE, 1])
        await asyncio.sleep(0.01)
        assert client.state.devices[0].profile is None, "the old answer must not stand for the new activation"
        new.set_result([PROFILE | {"connection": PROFILE["connection"] | {"id": "LTE"}}, 1])
        assert await client.settled()
        profile = client.state.devices[0].profile
        assert profile
        assert profile.id == "LTE"

    run(story)


def test_a_profile_that_is_not_there_yet_is_asked_for_at_the_next_state() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        bus.answers["GetAppliedConnection"] = BusError(names.NOT_ACTIVE, "not active")
        await client.start()
        assert (client.state.devices[0].profile, client.state.devices[0].unreadable) == (None, "")
        bus.answers["GetAppliedConnection"] = PROFILE
        bus.says(DEVICE, names.DEVICE, State=50)
        assert await client.settled()
        assert client.state.devices[0].profile

    run(story, State=40)


def test_external_is_known_before_the_profile_is_shown() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        tree = objects()
        del tree[ACTIVE]
        bus.answers["GetManagedObjects"] = [tree]
        await client.start()
        assert client.state.devices[0].profile is None
        bus.adds(ACTIVE, {names.ACTIVE_CONNECTION: {"StateFlags": 0x80}})
        device = client.state.devices[0]
        assert (device.external, device.profile is not None) == (True, True)

    run(story)


def test_settled_waits_for_what_signals_started_and_not_for_ever() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        await client.start()
        answer = bus.answers["GetAppliedConnection"] = pending()
        bus.says(DEVICE, names.DEVICE, ActiveConnection=ACTIVE + "0")
        assert not await client.settled(0.01)
        answer.set_result([PROFILE, 1])
        assert await client.settled(1)

    run(story)


def test_busy_networkmanager_does_not_cost_a_known_profile() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        await client.start()
        bus.answers["GetAppliedConnection"] = BusError(BusError.NO_REPLY, "no answer")
        await client.refresh_profiles()
        assert client.state.devices[0].profile
        bus.answers["GetAppliedConnection"] = BusError("x.AccessDenied", "not yours")
        await client.refresh_profiles()
        assert (client.state.devices[0].profile, client.state.devices[0].unreadable) == (None, "not yours")

    run(story)


def test_another_networkmanager_takes_over_at_once() -> None:
    async def story(bus: StandIn, client: Client, states: list[Any]) -> None:
        await client.start()
        hanging = bus.answers["GetManagedObjects"] = pending()
        bus.owned_by(":1.2")
        assert (client.state.running, len(client.state.devices)) == (False, 1)
        await asyncio.sleep(0)
        bus.answers["GetManagedObjects"] = [objects()]
        bus.owned_by(":1.3")
        assert await client.settled()
        assert client.state.devices[0].activation == ":1.3" + ACTIVE
        assert hanging.cancelled()
        assert [state.running for state in states] == [True, False, True]

    run(story)


def test_a_networkmanager_that_stops_takes_no_device_along() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        await client.start()
        before = client.state.devices
        bus.removes(DEVICE, names.DEVICE, names.DEVICE + ".Wireless")
        bus.removes(ACTIVE, names.ACTIVE_CONNECTION)
        bus.says(names.PATH, names.MANAGER, Devices=[])
        assert (client.state.running, client.state.devices) == (True, before)
        bus.owned_by("")
        assert (client.state.running, client.state.devices) == (False, before)
        bus.answers["GetManagedObjects"] = [objects(Interface="eth1")]
        bus.owned_by(":1.2")
        assert await client.settled()
        assert [device.interface for device in client.state.devices] == ["eth1"]

    run(story)


def test_a_device_that_really_goes_was_deactivated_before() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        await client.start()
        bus.says(DEVICE, names.DEVICE, ActiveConnection="/")
        bus.says(DEVICE, names.DEVICE, State=10)
        bus.removes(DEVICE, names.DEVICE)
        assert client.state.devices == ()

    run(story)


def test_a_new_device_takes_the_place_of_one_that_left() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        await client.start()
        bus.removes(DEVICE, names.DEVICE)
        bus.adds(names.DEVICES + "3", device(State=30, ActiveConnection="/"))
        assert [device.state for device in client.state.devices] == [DeviceState.DISCONNECTED]

    run(story)


def test_an_owner_signal_overrules_an_older_reply() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        async def owner(_: str) -> str:
            bus.owned_by(":1.2")  # in the same batch as the answer, which is older
            return ":1.1"

        bus.owner = owner  # type: ignore[method-assign]
        await client.start()
        assert client.state.devices[0].activation == ":1.2" + ACTIVE

    run(story)


def test_networkmanager_restarts_while_we_start() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        bus.answers["GetManagedObjects"] = pending()
        starting = asyncio.ensure_future(client.start())
        while "GetManagedObjects" not in bus.calls:
            await asyncio.sleep(0)
        bus.answers["GetManagedObjects"] = [objects()]
        bus.owned_by("")
        bus.owned_by(":1.2")
        await starting
        assert client.state.devices[0].activation == ":1.2" + ACTIVE

    run(story)


def test_a_lost_connection_keeps_what_is_known_and_a_new_one_goes_on() -> None:
    async def story(bus: StandIn, client: Client, states: list[Any]) -> None:
        await client.start()
        before = client.state
        bus.lost.set_result("the daemon died")
        await asyncio.sleep(0)
        assert (client.state.running, client.state.devices) == (False, before.devices)
        second = StandIn()
        second.answers["GetManagedObjects"] = [objects()]
        await client.attach(second)  # type: ignore[arg-type]
        assert client.state == before
        assert [state.running for state in states] == [True, False, True]

    run(story)


def test_a_tree_that_is_not_there_yet_is_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        bus.answers["GetManagedObjects"] = BusError("org.freedesktop.DBus.Error.UnknownMethod", "no such object")
        starting = asyncio.ensure_future(client.start())
        while bus.calls.count("GetManagedObjects") < 2:
            await asyncio.sleep(0.01)
        bus.answers["GetManagedObjects"] = [objects()]
        await starting
        assert client.state.running

    run(story)
    assert len([line for line in caplog.messages if "no such object" in line]) == 1


def test_on_the_bus_without_objects_is_not_running_yet() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        bus.answers["GetManagedObjects"] = [{}]
        await client.start()
        assert not client.state.running
        bus.adds(names.PATH, {names.MANAGER: {"Version": "1.56.0", "Startup": True}})
        assert (client.state.running, client.state.startup, client.state.version) == (True, True, "1.56.0")

    run(story)


def test_a_listener_that_fails_does_not_stop_us() -> None:
    async def story(bus: StandIn, _: Client, __: list[Any]) -> None:
        def fail() -> None:
            raise RuntimeError("listener")

        client = Client(bus, fail, defaults=NoFiles())  # type: ignore[arg-type]
        await client.start()
        bus.says(DEVICE, names.DEVICE, State=110)
        assert client.state.devices[0].state is DeviceState.DEACTIVATING

    run(story)


def test_an_active_vpn_and_its_end_are_seen() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        await client.start()
        assert not client.state.vpn
        bus.adds(ACTIVE + "1", {names.ACTIVE_CONNECTION: {"StateFlags": 0, "Vpn": True}})
        assert client.state.vpn
        bus.removes(ACTIVE + "1", names.ACTIVE_CONNECTION)
        assert not client.state.vpn

    run(story)


def test_a_closed_client_ignores_all_signals() -> None:
    async def story(bus: StandIn, client: Client, states: list[Any]) -> None:
        await client.start()
        client.close()
        before = (client.state, len(bus.calls), len(states))
        bus.says(DEVICE, names.DEVICE, State=110)
        bus.owned_by("")
        bus.owned_by(":1.2")
        assert await client.settled()
        assert (client.state, len(bus.calls), len(states)) == before

    run(story)


# --- default flags: they belong to an activation, from the moment when it began ---


def run_with_files(story: Callable[[StandIn, Client, TheseFiles], Coroutine[Any, Any, None]]) -> None:
    """A story with our drop-in installed, and NetworkManager's device active when we start."""

    async def main() -> None:
        bus, files = StandIn(), TheseFiles()
        bus.answers["GetManagedObjects"] = [objects()]
        client = Client(bus, lambda: None, defaults=files)  # type: ignore[arg-type]
        async with asyncio.timeout(5):
            await client.start()
            assert default(client) == LEFT_TO_US
            await story(bus, client, files)

    asyncio.run(main())


LEFT_TO_US = DefaultFlags(ProfileFlag.DISABLED, DefaultFlags.OUR_SECTION)


def default(client: Client) -> DefaultFlags | None:
    """What is decided by: None while nothing is, since the device has no profile yet."""
    (device,) = client.state.devices
    return device.default_flags if device.profile else None


def begins_anew(bus: StandIn, number: int = 7) -> None:
    """Another activation of the same device."""
    bus.adds(f"{ACTIVE}{number}", {names.ACTIVE_CONNECTION: {"StateFlags": 0}})
    bus.says(DEVICE, names.DEVICE, ActiveConnection=f"{ACTIVE}{number}", State=40)


async def until(what: Callable[[], bool]) -> None:
    while not what():
        await asyncio.sleep(0)


@pytest.mark.parametrize("turns", range(6))
def test_a_new_activation_overtakes_a_reading_at_any_point(turns: int) -> None:
    """A frozen service wakes up with its look due and the signals in its socket; whichever comes first."""

    async def story(bus: StandIn, client: Client, _: TheseFiles) -> None:
        look = asyncio.ensure_future(client.refresh_profiles())
        for _ in range(turns):
            await asyncio.sleep(0)
        begins_anew(bus)
        await look
        assert await client.settled()
        assert default(client) == LEFT_TO_US

    run_with_files(story)


@pytest.mark.parametrize("turns", range(6))
def test_two_new_activations_overtake_each_other(turns: int) -> None:
    async def story(bus: StandIn, client: Client, files: TheseFiles) -> None:
        files.may_end.clear()
        begins_anew(bus, 7)
        await until(lambda: files.readings == 2)
        files.may_end.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        begins_anew(bus, 8)
        assert await client.settled()
        assert default(client) == LEFT_TO_US

    run_with_files(story)


def test_nothing_is_decided_by_default_flags_that_are_not_known_yet() -> None:
    async def story(bus: StandIn, client: Client, files: TheseFiles) -> None:
        files.may_end.clear()
        begins_anew(bus)
        await until(lambda: files.readings == 2)
        assert default(client) is None
        bus.says(DEVICE, names.DEVICE, State=100)
        assert default(client) is None
        files.may_end.set()
        assert await client.settled()
        assert default(client) == LEFT_TO_US

    run_with_files(story)


def test_default_flags_that_were_not_read_before_the_bus_was_lost_are_read_after_it() -> None:
    async def story(bus: StandIn, client: Client, files: TheseFiles) -> None:
        files.may_end.clear()
        begins_anew(bus)
        await until(lambda: files.readings == 2)
        bus.lost.set_result("the daemon died")
        await asyncio.sleep(0)
        files.may_end.set()
        second = StandIn()
        tree = objects(ActiveConnection=f"{ACTIVE}7") | {f"{ACTIVE}7": {names.ACTIVE_CONNECTION: {"StateFlags": 0}}}
        second.answers["GetManagedObjects"] = [tree]
        await client.attach(second)  # type: ignore[arg-type]
        assert default(client) == LEFT_TO_US

    run_with_files(story)


def test_default_flags_count_from_when_the_activation_began() -> None:
    async def story(bus: StandIn, client: Client, files: TheseFiles) -> None:
        files.holds = ANOTHER
        assert await client.refresh_profiles()
        assert default(client) == LEFT_TO_US
        bus.lost.set_result("the daemon died")
        await asyncio.sleep(0)
        second = StandIn()
        second.answers["GetManagedObjects"] = [objects()]
        await client.attach(second)  # type: ignore[arg-type]
        assert default(client) == LEFT_TO_US
        second.says(DEVICE, names.DEVICE, ActiveConnection="/")
        second.says(DEVICE, names.DEVICE, ActiveConnection=ACTIVE)
        assert await client.settled()
        assert default(client) == DefaultFlags(ProfileFlag(0x62), "connection-x")

    run_with_files(story)


def test_default_flags_follow_later_properties_of_the_device() -> None:
    async def story(bus: StandIn, client: Client, files: TheseFiles) -> None:
        files.holds = ConnectionDefaults(
            (
                ConnectionSection(
                    "connection-x", DeviceMatch.lenient("driver:new"), values={"connection.mptcp-flags": "0x62"}
                ),
            )
        )
        begins_anew(bus)
        assert await client.settled()
        assert default(client) == DefaultFlags()
        bus.says(DEVICE, names.DEVICE, Driver="new")
        assert default(client) == DefaultFlags(ProfileFlag(0x62), "connection-x")

    run_with_files(story)


# --- a NetworkManager that is there and does not answer ---


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as silent at once."""
    monkeypatch.setattr(liveness, "SILENT_AFTER", 0.01)


@pytest.mark.usefixtures("soon")
def test_a_silent_networkmanager_is_not_awaited_and_read_when_it_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")

    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        answer = bus.answers["GetManagedObjects"] = pending()
        alive = bus.answers["Get"] = pending()
        await client.start()
        assert (client.state.running, client.state.silent, client.state.unavailable) == (False, True, "not answering")
        assert not await client.refresh_profiles(60)
        assert not await client.settled(60)
        answer.set_result([objects()])
        alive.set_result(["1.42.4"])
        await until(lambda: client.state.running)
        assert (client.state.silent, client.state.unavailable) == (False, "")
        assert default(client) is not None

    run(story)
    assert [line for line in caplog.messages if "answer" in line] == [
        "NetworkManager does not answer: keeping current paths until it does",
        "NetworkManager answers again",
    ]


@pytest.mark.usefixtures("soon")
def test_a_silent_networkmanager_is_detected_by_one_probe_until_its_next_signal() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        await client.start()
        before = client.state
        bus.answers["Get"] = pending()
        client._liveness.last_heard = -60.0
        await asyncio.gather(*(client.probe() for _ in range(100)))
        assert client.state == replace(before, silent=True)
        assert bus.calls.count("Get") == 1
        bus.says(DEVICE, names.DEVICE, State=110)
        assert (client.state.silent, client.state.devices[0].state) == (False, DeviceState.DEACTIVATING)

    run(story)


def test_a_networkmanager_heard_just_now_is_not_probed() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        await client.start()
        for _ in range(3):
            await client.probe()
        assert bus.calls.count("Get") == 0

    run(story)


@pytest.mark.usefixtures("soon")
def test_a_late_profile_is_awaited_and_does_not_count_as_unreadable() -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        bus.answers["GetAppliedConnection"] = BusError(BusError.NO_REPLY, "no answer")
        bus.answers["Get"] = pending()
        starting = asyncio.ensure_future(client.start())
        await until(lambda: bus.calls.count("GetAppliedConnection") > 1)
        assert not starting.done()
        late = bus.answers["GetAppliedConnection"] = pending()
        await starting
        (device,) = client.state.devices
        assert (client.state.running, client.state.silent, device.profile, device.unreadable) == (True, True, None, "")
        late.set_result([PROFILE, 1])
        await until(lambda: default(client) is not None)
        assert not client.state.silent

    run(story)


def test_an_error_text_of_networkmanager_is_one_short_printable_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(bus: StandIn, client: Client, _: list[Any]) -> None:
        for said in (BusError("x.Failed", "\x1b[2J" + "x" * 100_000), {"connection": {"id": "\x1b[2J" * 20_000}}):
            bus.answers["GetAppliedConnection"] = said
            await client.start()
            (device,) = client.state.devices
            assert device.unreadable.isprintable()
            assert len(device.unreadable) <= 300

    run(story)
    assert all(line.isprintable() and len(line) < 1000 for line in caplog.messages)
