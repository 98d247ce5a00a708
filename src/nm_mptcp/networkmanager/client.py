# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager's object tree, followed: one look (``GetManagedObjects``), then signals only.

A device's profile is its *applied* connection (what it runs with, not what is stored), read when an activation begins.
No signal tells of a reapply (tried with 1.42: one that changes nothing but the MPTCP flags sends none), but with DHCP
the lease is renewed, which is taken as the hint that it is; :meth:`Client.refresh_profiles` is for the dispatcher's word.

NetworkManager is never started by us; while it is away the devices last seen are kept. One that is there and does not answer
(stopped, swapped out, in a debugger) is waited for, but nobody has to wait with us: it counts as silent after a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from ..dbus.connection import Bus, BusError, Signal, unpack
from ..fault_log import FaultLog
from ..model.flags import ProfileFlag
from ..model.state import (
    Connectivity,
    Device,
    DeviceState,
    DeviceType,
    Family,
    Metered,
    NetworkManager,
    Profile,
)
from ..text import printable
from . import names
from .access_points import AccessPoints
from .defaults import ConnectionDefaults, DefaultsReader
from .modems import Modems

_log = logging.getLogger(__name__)

_Value = TypeVar("_Value", str, int, bool)

#: A device has an applied connection from here ...
_FIRST = DeviceState.PREPARE
#: ... to here.
_LAST = DeviceState.ACTIVATED

_DEVICE_PROPERTIES = frozenset(
    (
        "ActiveAccessPoint",  # .Wireless
        "ActiveConnection",
        "CurrentCapabilities",  # .Modem
        "DeviceType",
        "Driver",
        "DriverVersion",
        "Interface",
        "Ip4Connectivity",
        "Ip6Connectivity",
        "IpInterface",
        "Managed",
        "Metered",
        "PermHwAddress",  # .Wired, .Wireless
        "State",
        "TypeDescription",  # .Generic
        "Udi",
    )
)
_ACTIVE_PROPERTIES = frozenset(("StateFlags", "Vpn"))
_MANAGER_PROPERTIES = frozenset(("ConnectivityCheckAvailable", "ConnectivityCheckEnabled", "Startup", "Version"))

#: Seconds between two tries to read what NetworkManager refused or does not have yet; doubled up to the second.
_RETRY = (0.1, 10.0)

#: Seconds after which a NetworkManager that has not answered counts as silent.
_SILENT = 2.0

#: Seconds after which its answer to one call is not waited for any more: one that is swapped out answers late.
_PATIENCE = 60.0

#: Seconds for its whole tree at the start, where it answers but does not have it yet.
_START = 10.0

#: Characters of an answer that makes no sense.
_LONGEST = 200

#: Seconds for which a sign of life counts.
_FRESH = 1.0


#: What no ``match-device`` singles out.
_NO_DEVICE = Device("", "", DeviceType.UNKNOWN, DeviceState.UNKNOWN)


class _Malformed(Exception):
    """An answer is not of the form that NetworkManager documents; what it was is cut where it is long."""

    def __init__(self, words: str) -> None:
        super().__init__(printable(words, _LONGEST))


@dataclass(slots=True, eq=False)
class _Tracked:
    """A device object: what it said, and the applied connection that was read for it.

    NetworkManager takes its defaults when an activation begins, so they belong to that, too: the configuration files as
    they were then. Nothing is decided for a device whose defaults are not known; it has no profile yet.
    """

    properties: dict[str, Any] = field(default_factory=dict)
    profile: Profile | None = None
    unreadable: str = ""
    defaults: ConnectionDefaults | None = None  #: None: not read since the activation began
    read_for: str = ""  #: the active connection that the three belong to
    reading: asyncio.Task[None] | None = None
    again: bool = False  #: something happened while it was being read
    left: bool = False  #: its object is gone, though it was active: NetworkManager is stopping

    @property
    def active(self) -> str:
        """Its active connection's object path, "" when there is none."""
        path = _get(self.properties, "ActiveConnection", str, "")
        return "" if path == names.NO_OBJECT else path

    @property
    def access_point(self) -> str:
        """The object path of the access point that it is connected to, "" when there is none."""
        path = _get(self.properties, "ActiveAccessPoint", str, "")
        return "" if path == names.NO_OBJECT or not self.active else path

    @property
    def state(self) -> int:
        return _get(self.properties, "State", int, 0)

    @property
    def type(self) -> DeviceType:
        return DeviceType(_get(self.properties, "DeviceType", int, 0))

    def forget(self) -> None:
        """The activation that the profile belonged to is over."""
        self.profile, self.unreadable, self.defaults, self.read_for = None, "", None, ""


def _version(objects: Mapping[str, Any]) -> str:
    """NetworkManager's version among its objects, "" where it does not say."""
    manager = objects.get(names.PATH, {})
    properties = manager.get(names.MANAGER, {}) if isinstance(manager, dict) else {}
    return _version_of(unpack(properties) if isinstance(properties, dict) else {})


def _version_of(manager: Mapping[str, Any]) -> str:
    """The version among the properties of NetworkManager's own object, "" where it does not say."""
    return _get(manager, "Version", str, "")


class Client:
    """Follows NetworkManager, and ModemManager for what NetworkManager does not tell of its modems.

    ``on_change`` is called, without arguments, after each change of :attr:`state`; ``on_strength`` where nothing but the
    strength of a Wi-Fi signal changed, which happens often.
    """

    def __init__(
        self,
        bus: Bus,
        on_change: Callable[[], None],
        *,
        on_strength: Callable[[], None] = lambda: None,
        defaults: DefaultsReader | None = None,
    ) -> None:
        self._bus = bus
        self._on_change = on_change
        self._on_strength = on_strength
        self._modems = Modems(lambda: self._refresh_those(lambda tracked: tracked.type is DeviceType.MODEM))
        self._access_points = AccessPoints(lambda: self._refresh_those(lambda tracked: bool(tracked.access_point)))
        self._defaults = defaults or DefaultsReader()
        self._owner = ""  #: NetworkManager's unique name, "" when it is not there
        self._owner_told = False  #: whether a signal has said who that is
        self._loaded_from = ""  #: the one that the tree was read from
        self._pid = 0
        self._manager: dict[str, Any] = {}
        self._tracked: dict[str, _Tracked] = {}
        self._active: dict[str, dict[str, Any]] = {}
        self._devices: dict[str, Device] = {}
        self._state = NetworkManager()
        self._loading: asyncio.Task[None] | None = None
        self._held: list[Signal] | None = None  #: signals that wait for the answer of GetManagedObjects
        self._silence = asyncio.Event()  #: it is there, and has not answered for a while
        self._heard = 0.0  #: when it last said something, by the loop's clock
        self._calling: asyncio.Task[None] | None = None  #: waits for a sign of life
        self._complaints = FaultLog(_log, "NetworkManager: ")

    @property
    def state(self) -> NetworkManager:
        """What NetworkManager says now; while it is away ``running`` is False and the devices are those last seen."""
        return self._state

    async def start(self) -> None:
        """Subscribe and look; returns when all is read, or NetworkManager is silent: then it is read when it answers.

        NetworkManager not running is no error. Raises :class:`BusError` when the connection fails.
        """
        bus = self._bus
        bus.on_signal(self._on_signal)
        bus.lost.add_done_callback(lambda _: self._gone("the bus is gone") if bus is self._bus else None)
        self._owner_told = False
        modems = asyncio.ensure_future(self._modems.start(bus))
        try:
            await asyncio.gather(*(bus.add_match(rule) for rule in names.MATCH_RULES))
            owner = await bus.owner(names.SERVICE)
            if owner and not self._owner_told:  # what a signal told since is newer than this answer
                self._owned_by(owner)
            await modems  # who counts as at home until it is known that he is not would cost somebody money
        finally:
            modems.cancel()
            await asyncio.gather(modems, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START):
                while self._loading is not None and not self._loading.done() and not self._silence.is_set():
                    await self._all_of((self._loading,))

    async def attach(self, bus: Bus) -> None:
        """Go on with a new connection after the old one was lost; what is known is kept meanwhile."""
        self._gone("moved to a new connection")
        self._bus = bus
        await self.start()

    async def settled(self, timeout: float = 2.0) -> bool:
        """Wait until what earlier signals started to be read has been read; False when ``timeout`` (s) is over, or
        NetworkManager is silent.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while tasks := self._running_tasks():
                    if self._silence.is_set():
                        return False
                    await self._all_of(tasks)
        return not self._running_tasks()

    async def refresh_profiles(self, timeout: float = 2.0) -> bool:
        """Read the applied connection of every active device again; False when ``timeout`` (s) was not enough."""
        for path, tracked in self._tracked.items():
            if tracked.active and self._owner:
                self._read(path, tracked)
        return await self.settled(timeout)

    async def probe(self) -> None:
        """Find out whether NetworkManager answers, in case nothing was heard of it for a while; takes 2 s at most.

        Whoever asks meanwhile waits for the same answer.
        """
        fresh = self._heard + _FRESH > asyncio.get_running_loop().time()
        if fresh or self._silence.is_set() or not self._owner or self._loading is not None:
            return
        await self._all_of((self._call_out(),))

    def close(self) -> None:
        """Stop following, and call nobody any more; the connection is left open."""
        self._on_change = self._on_strength = lambda: None
        self._modems.close()
        self._access_points.close()
        self._cancel()
        self._owner = ""
        self._state = replace(self._state, running=False)  # that the connection goes then is no news

    # --- who NetworkManager is ---------------------------------------------------------------------------------

    def _owned_by(self, owner: str) -> None:
        """NetworkManager came (``owner``), went ("") or was replaced."""
        if owner == self._owner:
            return
        if self._owner:
            self._gone("it left the bus")
        self._owner = owner
        if owner:
            self._held = []
            self._loading = asyncio.ensure_future(self._load(owner))
            self._loading.add_done_callback(_tell)

    def _gone(self, why: str) -> None:
        self._cancel()
        self._owner = ""
        self._silence.clear()
        if self._state.running:
            _log.info("NetworkManager is gone (%s); what it last said is kept", why)
        self._publish(replace(self._state, running=False, startup=False, silent=False))

    def _cancel(self) -> None:
        for task in (*self._running_tasks(), *([self._calling] if self._calling else [])):
            task.cancel()
        self._loading = self._calling = None
        self._held = None
        for tracked in self._tracked.values():
            tracked.reading = None

    def _running_tasks(self) -> list[asyncio.Task[None]]:
        tasks = [tracked.reading for tracked in self._tracked.values()]
        return [
            task
            for task in (self._loading, *tasks, *self._access_points.pending())
            if task is not None and not task.done()
        ]

    async def _load(self, owner: str) -> None:
        """Read the whole tree and every applied connection; only then is the new state published."""
        with contextlib.suppress(BusError):
            (self._pid,) = await self._bus.call(
                names.BUS, "/org/freedesktop/DBus", names.BUS, "GetConnectionUnixProcessID", "s", owner
            )
        objects = await self._managed_objects()
        await self._defaults.read(pid=self._pid, version=_version(objects))
        before = self._tracked
        self._manager, self._tracked, self._active, self._devices = {}, {}, {}, {}
        for path, interfaces in objects.items():
            try:
                self._add(path, interfaces)
            except (TypeError, ValueError, AttributeError) as error:
                self._complaints.say("object", f"its object {path} is not understood: {error}", path)
            else:
                self._complaints.right("object", path)
        held, self._held = self._held or [], None
        for signal in held:
            self._handle(signal)
        for path, tracked in self._tracked.items():
            known = before.get(path)
            if known and known.read_for and known.read_for == tracked.active and owner == self._loaded_from:
                # This activation began before we lost our connection.
                tracked.defaults, tracked.read_for = known.defaults, known.read_for
            self._wanted(path, tracked)
        reading = [each.reading for each in self._tracked.values() if each.reading is not None]
        while reading and not self._silence.is_set():
            await self._all_of(reading)
            reading = [each.reading for each in self._tracked.values() if each.reading is not None]
        self._loading = None
        self._loaded_from = owner
        self._access_points.on(self._bus, owner)
        self._refresh(*self._tracked)
        if self._manager:
            _log.info("NetworkManager %s is running", self._state.version or "(of unknown version)")

    async def _managed_objects(self) -> dict[str, Any]:
        """``GetManagedObjects``, tried until it succeeds; our task is cancelled when this NetworkManager goes."""
        delay, longest = _RETRY
        complained = False
        while True:
            try:
                (objects,) = await self._ask(names.OBJECT_MANAGER_PATH, names.OBJECT_MANAGER, "GetManagedObjects")
                if isinstance(objects, dict):
                    return objects
                problem = "its list of objects is not understood"
            except BusError as error:
                problem = error.text
            except ValueError:
                problem = "its list of objects is not understood"
            if not complained and not self._silence.is_set():
                complained = True
                _log.warning("NetworkManager's objects could not be read (%s): trying again", problem)
            await asyncio.sleep(delay)
            delay = min(delay * 2, longest)

    # --- whether it answers ------------------------------------------------------------------------------------

    async def _ask(self, path: str, interface: str, member: str, signature: str = "", *body: Any) -> list[Any]:
        """Call a method of NetworkManager's, and note when it takes too long. Raises :class:`BusError`."""
        alarm = asyncio.get_running_loop().call_later(_SILENT, self._falls_silent)
        try:
            answer = await self._bus.call(self._owner, path, interface, member, signature, *body, timeout=_PATIENCE)
        except BusError as error:
            if error.name not in (BusError.NO_REPLY, BusError.DISCONNECTED):
                self._speaks()
            raise
        finally:
            alarm.cancel()
        self._speaks()
        return answer

    def _falls_silent(self) -> None:
        if not self._silence.is_set():
            self._silence.set()
            _log.warning("NetworkManager does not answer: current paths are kept until it does")
            self._call_out()
            self._publish(replace(self._state, silent=True))

    def _speaks(self) -> None:
        self._heard = asyncio.get_running_loop().time()
        if self._silence.is_set():
            self._silence.clear()
            _log.info("NetworkManager answers again")
            self._publish(replace(self._state, silent=False))

    def _call_out(self) -> asyncio.Task[None]:
        """Ask something that is quick to answer, until there is an answer."""

        async def ask() -> None:
            while True:
                try:
                    await self._ask(names.PATH, names.PROPERTIES, "Get", "ss", names.MANAGER, "Version")
                except BusError as error:
                    if error.name == BusError.NO_REPLY:
                        await asyncio.sleep(_RETRY[0])
                        continue
                if self._calling is asyncio.current_task():
                    self._calling = None
                return

        if self._calling is None or self._calling.done():
            self._calling = asyncio.ensure_future(ask())
            self._calling.add_done_callback(_tell)
        return self._calling

    async def _all_of(self, tasks: Iterable[asyncio.Future[None]]) -> None:
        """Wait until all of these are done, or NetworkManager is silent."""
        done, silence = asyncio.ensure_future(asyncio.wait(tuple(tasks))), asyncio.ensure_future(self._silence.wait())
        try:
            await asyncio.wait((done, silence), return_when=asyncio.FIRST_COMPLETED)
        finally:
            done.cancel()
            silence.cancel()

    # --- signals -----------------------------------------------------------------------------------------------

    def _on_signal(self, signal: Signal) -> None:
        if signal.member == "NameOwnerChanged" and signal.sender == names.BUS:
            name, _, owner = signal.body
            if name == names.SERVICE:
                self._owner_told = True
                self._owned_by(owner)
        elif not self._owner or signal.sender != self._owner:
            return
        else:
            if self._loading is None:
                self._speaks()
            if self._held is not None:
                self._held.append(signal)
            else:
                self._handle(signal)

    def _handle(self, signal: Signal) -> None:
        try:
            if signal.interface == names.PROPERTIES and signal.member == "PropertiesChanged":
                if not self._access_points.changed(signal):
                    interface, changed, _ = signal.body
                    self._properties_changed(signal.path, interface, changed)
            elif signal.interface == names.OBJECT_MANAGER and signal.member == "InterfacesAdded":
                path, interfaces = signal.body
                self._add(path, interfaces)
                self._refresh(path)
            elif signal.interface == names.OBJECT_MANAGER and signal.member == "InterfacesRemoved":
                path, removed = signal.body
                self._remove(path, removed)
        except (TypeError, ValueError, AttributeError) as error:
            words = f"its signal {signal.member} of {signal.path} is not understood: {error}"
            self._complaints.say("signal", words, (signal.member, signal.path))
        else:
            self._complaints.right("signal", (signal.member, signal.path))

    def _properties_changed(self, path: str, interface: str, changed: Mapping[str, Any]) -> None:
        if interface == names.MANAGER:
            if _take(self._manager, changed, _MANAGER_PROPERTIES):
                self._refresh(*self._tracked)
        elif interface == names.ACTIVE_CONNECTION:
            if path in self._active and _take(self._active[path], changed, _ACTIVE_PROPERTIES):
                self._refresh(*self._using(path))
        elif interface in (names.DHCP4, names.DHCP6):
            for device, known in self._tracked.items():
                if known.profile is not None:
                    self._read(device, known)
        elif (tracked := self._tracked.get(path)) and _take(tracked.properties, changed, _DEVICE_PROPERTIES):
            self._wanted(path, tracked)
            self._refresh(path)

    def _add(self, path: str, interfaces: Mapping[str, Mapping[str, Any]]) -> None:
        """An object, or a further interface of one."""
        for interface, properties in interfaces.items():
            if interface == names.MANAGER and path == names.PATH:
                _take(self._manager, properties, _MANAGER_PROPERTIES)
            elif interface == names.ACTIVE_CONNECTION:
                _take(self._active.setdefault(path, {}), properties, _ACTIVE_PROPERTIES)
            elif interface == names.DEVICE or interface.startswith(names.DEVICE + "."):
                _take(self._tracked.setdefault(path, _Tracked()).properties, properties, _DEVICE_PROPERTIES)
        if self._held is None:
            if tracked := self._tracked.get(path):
                tracked.left = False
                name = tracked.properties.get("Interface")
                for other in [key for key, each in self._tracked.items() if each.left]:
                    if self._tracked[other].properties.get("Interface") == name:
                        self._drop(other)  # it did not stop after all: this one is in its place
                self._wanted(path, tracked)
            elif path in self._active:
                self._refresh(*self._using(path))

    def _remove(self, path: str, interfaces: list[str]) -> None:
        tracked = self._tracked.get(path)
        if names.DEVICE in interfaces and tracked:
            if tracked.active:
                # Whatever really goes is deactivated first. A NetworkManager that stops takes its objects off the bus as
                # they are, some 20 ms before it leaves itself, and the network goes on without it.
                tracked.left = True
            else:
                self._drop(path)
            self._refresh()
        if names.ACTIVE_CONNECTION in interfaces and not self._using(path):
            self._active.pop(path, None)
            self._refresh()  # a VPN's belongs to no device

    def _drop(self, path: str) -> None:
        """Forget a device."""
        if (tracked := self._tracked.pop(path, None)) and tracked.reading is not None:
            tracked.reading.cancel()
        self._devices.pop(path, None)

    def _using(self, active: str) -> list[str]:
        """The devices whose active connection this is."""
        return [path for path, tracked in self._tracked.items() if tracked.active == active]

    # --- applied connections -----------------------------------------------------------------------------------

    def _wanted(self, path: str, tracked: _Tracked) -> None:
        """Read the applied connection if that is due: a new activation, or a new state and none read yet."""
        active = tracked.active
        if not active:
            tracked.forget()
        elif tracked.read_for != active:
            tracked.forget()
            tracked.read_for = active
            self._read(path, tracked)
        elif tracked.profile is None and tracked.reading is None and _FIRST <= tracked.state <= _LAST:
            self._read(path, tracked)

    def _read(self, path: str, tracked: _Tracked) -> None:
        """Start reading; what is being read is read once more, since the answer may be from before the change."""
        if tracked.reading is not None:
            tracked.again = True
        else:
            tracked.reading = asyncio.ensure_future(self._applied(path, tracked))
            tracked.reading.add_done_callback(_tell)

    async def _applied(self, path: str, tracked: _Tracked) -> None:
        """Read what is not known of the activation that there is, and once more while that changes."""
        try:
            while active := tracked.active:
                tracked.again = False
                state = tracked.state
                asked = asyncio.ensure_future(self._call_applied(path))
                try:
                    if tracked.defaults is None:  # NetworkManager answers when its loop is free: meanwhile
                        defaults = await self._defaults.read(pid=self._pid, version=_version_of(self._manager))
                        if active == tracked.active:
                            tracked.defaults = defaults
                    await asyncio.wait((asked,))
                finally:
                    asked.cancel()
                if (answer := self._answered(path, tracked, asked)) is None:  # it may have one: it waited long enough
                    await asyncio.sleep(_RETRY[0])
                    continue
                profile, unreadable = answer
                if active != tracked.active or tracked.again or (profile is None and tracked.state != state):
                    continue
                tracked.profile, tracked.unreadable = profile, unreadable
                return
        finally:
            if tracked.reading is asyncio.current_task():
                tracked.reading = None
                if self._tracked.get(path) is tracked:
                    self._refresh(path)

    async def _call_applied(self, path: str) -> Any:
        """One ``GetAppliedConnection``. Raises :class:`BusError`."""
        return await self._ask(path, names.DEVICE, "GetAppliedConnection", "u", 0)

    def _answered(self, path: str, tracked: _Tracked, asked: asyncio.Future[Any]) -> tuple[Profile | None, str] | None:
        """The profile, or why it could not be read ("" where there is simply none); None: it has to be asked again."""
        try:
            profile = _profile(unpack(asked.result()[0]))
        except BusError as error:
            if error.name == BusError.NO_REPLY and tracked.profile is None:
                return None
            if error.gone or error.name in (names.NOT_ACTIVE, BusError.NO_REPLY):
                return tracked.profile, tracked.unreadable  # not yet or no longer there, or busy: no news
            return None, error.text
        except (_Malformed, IndexError, TypeError, ValueError) as error:
            words = f"applied connection of {_get(tracked.properties, 'Interface', str, path)}: {error}"
            self._complaints.say("applied connection", words, path)
            return None, f"NetworkManager's answer is not understood: {error}"
        self._complaints.right("applied connection", path)
        return profile, ""

    # --- the state ---------------------------------------------------------------------------------------------

    def _refresh(self, *paths: str) -> None:
        """Build these devices anew, and the state with them; announce it if it differs."""
        if self._loading is not None or self._held is not None:
            return  # all of it follows when the tree is whole
        self._access_points.follow({each.access_point for each in self._tracked.values()} - {""})
        for path in paths:
            if tracked := self._tracked.get(path):
                device = self._device(path, tracked)
                if device.interface:
                    self._devices[path] = device
        if not self._manager:
            return  # on the bus, but its objects are not there yet
        self._publish(
            NetworkManager(
                running=True,
                startup=_get(self._manager, "Startup", bool, False),
                version=_version_of(self._manager),
                default_flags=self._defaults.defaults.flags(_NO_DEVICE),
                unread=self._defaults.unread,
                vpn=any(_get(active, "Vpn", bool, False) for active in self._active.values()),
                silent=self._silence.is_set(),
                devices=tuple(sorted(self._devices.values(), key=lambda device: device.interface)),
            )
        )

    def _refresh_those(self, wanted: Callable[[_Tracked], bool]) -> None:
        """What is told elsewhere of such devices has changed."""
        if self._owner:
            self._refresh(*[path for path, tracked in self._tracked.items() if wanted(tracked)])

    def _publish(self, state: NetworkManager) -> None:
        if state != self._state:
            listener = self._on_change
        elif [device.strength for device in state.devices] != [device.strength for device in self._state.devices]:
            listener = self._on_strength
        else:
            return
        self._state = state
        try:
            listener()
        except Exception:
            _log.exception("a change of NetworkManager's state")

    def _device(self, path: str, tracked: _Tracked) -> Device:
        """The value for a device; what is missing or of the wrong type takes its default and is logged once."""
        properties = tracked.properties
        try:
            interface = _required(properties, "Interface", str)
            kind = DeviceType(_required(properties, "DeviceType", int))
            state = DeviceState(_required(properties, "State", int))
            broken = ""
            self._complaints.right("device", path)
        except _Malformed as error:
            interface = _get(properties, "Interface", str, "")
            kind, state = DeviceType.UNKNOWN, DeviceState.UNKNOWN
            broken = f"NetworkManager's answer is not understood: {error}"
            self._complaints.say("device", f"device {path}: {error}", path)
        active = tracked.active
        known = self._active.get(active)
        flags = _get(known or {}, "StateFlags", int, 0)
        device = Device(
            interface=interface,
            ip_interface=_get(properties, "IpInterface", str, "") or interface,
            type=kind,
            state=state,
            managed=_get(properties, "Managed", bool, False),
            external=bool(flags & names.STATE_FLAG_EXTERNAL),
            metered=Metered(_get(properties, "Metered", int, 0)),
            ipv4_connectivity=self._connectivity(properties, "Ip4Connectivity"),
            ipv6_connectivity=self._connectivity(properties, "Ip6Connectivity"),
            activation=f"{self._owner}{active}" if active else "",
            unreadable=broken or tracked.unreadable,
            driver=_get(properties, "Driver", str, ""),
            hardware_address=_get(properties, "PermHwAddress", str, ""),
            type_name=_type_name(properties, kind),
            driver_version=_get(properties, "DriverVersion", str, ""),
            roaming=_get(properties, "Udi", str, "") in self._modems.roaming,
            strength=self._access_points.strength(tracked.access_point),
        )
        # Without the active connection's own object nobody knows whether it is external: wait for it.
        if tracked.profile is None or tracked.defaults is None or known is None or broken:
            return device
        return replace(
            device,
            profile=_with_route_tables(tracked.profile, tracked.defaults, device),
            default_flags=tracked.defaults.flags(device),
        )

    def _connectivity(self, properties: Mapping[str, Any], name: str) -> Connectivity:
        """What the check found; where nothing is checked NetworkManager only says which device has its default route."""
        for switch in ("ConnectivityCheckAvailable", "ConnectivityCheckEnabled"):
            if not _get(self._manager, switch, bool, True):
                return Connectivity.UNKNOWN
        return Connectivity(_get(properties, name, int, 0))


def _tell(task: asyncio.Task[None]) -> None:
    """An error that nobody foresaw belongs into the log, not into the task that nobody awaits."""
    if not task.cancelled() and (error := task.exception()):
        _log.error("NetworkManager's objects could not be read", exc_info=error)


def _type_name(properties: Mapping[str, Any], kind: DeviceType) -> str:
    """What ``match-device=type:`` calls the device (``get_type_description`` of each device class)."""
    if kind is DeviceType.MODEM:
        capabilities = _get(properties, "CurrentCapabilities", int, 0)
        if capabilities & names.MODEM_GSM:
            return "gsm"
        if capabilities & names.MODEM_CDMA:
            return "cdma"
    if kind is DeviceType.GENERIC and (description := _get(properties, "TypeDescription", str, "")):
        return description
    return names.TYPE_NAMES.get(kind, "")


def _profile(settings: Any) -> Profile:
    """A profile from ``a{sa{sv}}``, unpacked; raises :class:`_Malformed` with what is wrong."""
    if not isinstance(settings, dict) or not all(isinstance(setting, dict) for setting in settings.values()):
        raise _Malformed("it is no connection")
    connection = settings.get("connection", {})
    ipv4, ipv6 = settings.get("ipv4", {}), settings.get("ipv6", {})
    return Profile(
        id=_required(connection, "id", str),
        uuid=_required(connection, "uuid", str),
        type=_required(connection, "type", str),
        mptcp_flags=ProfileFlag(_optional(connection, "mptcp-flags", int, 0)),
        ipv4_route_table=_optional(ipv4, "route-table", int, 0),
        ipv6_route_table=_optional(ipv6, "route-table", int, 0),
        ipv4_never_default=_optional(ipv4, "never-default", bool, False),
        ipv6_never_default=_optional(ipv6, "never-default", bool, False),
        ipv4_method=_optional(ipv4, "method", str, "disabled"),
        ipv6_method=_optional(ipv6, "method", str, "disabled"),
    )


def _with_route_tables(profile: Profile, defaults: ConnectionDefaults, device: Device) -> Profile:
    """The profile, with NetworkManager's defaults for the tables where it names none."""
    ipv4 = profile.ipv4_route_table or defaults.route_table(device, Family.IPV4)
    ipv6 = profile.ipv6_route_table or defaults.route_table(device, Family.IPV6)
    if (ipv4, ipv6) == (profile.ipv4_route_table, profile.ipv6_route_table):
        return profile
    return replace(profile, ipv4_route_table=ipv4, ipv6_route_table=ipv6)


def _take(known: dict[str, Any], changed: Mapping[str, Any], wanted: frozenset[str]) -> bool:
    """Take over the properties that are wanted; whether there were any."""
    fresh = {key: unpack(value) for key, value in changed.items() if key in wanted}
    known.update(fresh)
    return bool(fresh)


def _is(value: Any, kind: type[_Value]) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _get(properties: Mapping[str, Any], key: str, kind: type[_Value], default: _Value) -> _Value:
    """A property, or the default where it is missing or of another type."""
    value = properties.get(key, default)
    return value if _is(value, kind) else default


def _optional(properties: Mapping[str, Any], key: str, kind: type[_Value], default: _Value) -> _Value:
    """A property, or the default where it is missing; raises :class:`_Malformed` where it is of another type."""
    return _required(properties, key, kind) if key in properties else default


def _required(properties: Mapping[str, Any], key: str, kind: type[_Value]) -> _Value:
    if key not in properties:
        raise _Malformed(f"'{key}' is missing")
    value = properties[key]
    if not _is(value, kind):
        raise _Malformed(f"'{key}' is {value!r}, not of type {kind.__name__}")
    return value  # type: ignore[no-any-return]  # just checked
