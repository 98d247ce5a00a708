# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager's state, followed: its objects are read once (``GetManagedObjects``), then signals only.

A signal comes in at :meth:`Client._on_signal`; ``object_tree`` takes its properties, ``applied_connections`` reads what a new
activation runs with, ``to_device`` makes the value that policy sees. :meth:`Client.refresh_profiles` is for the dispatcher
script, since no signal announces a reapply.

NetworkManager is never started by us; while it is away the devices last seen are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..dbus.connection import Bus, BusError, Signal
from ..dbus.name_follower import NameFollower, managed_objects
from ..fault_log import FaultLog
from ..model.state import Device, DeviceState, DeviceType, NetworkManager
from . import names
from .access_points import AccessPoints
from .applied_connections import AppliedConnections
from .defaults import ConnectionDefaults, DefaultsReader
from .liveness import Liveness
from .modems import Modems
from .object_tree import DeviceObject, Effect, ObjectTree
from .to_device import DeviceContext, to_device
from .typed_values import get

_log = logging.getLogger(__name__)

#: Seconds between two tries to read objects that NetworkManager refuses or does not have yet; doubled up to the second.
_RETRY = (0.1, 10.0)

#: Seconds for all objects at the start, where NetworkManager answers but does not have them yet.
_START_TIMEOUT = 10.0

#: Seconds for a check of connectivity, which NetworkManager itself gives 20.
_CHECK = 30.0

#: Matches no ``match-device`` that singles out devices.
_NO_DEVICE = Device("", "", DeviceType.UNKNOWN, DeviceState.UNKNOWN)


class Client:
    """Follows NetworkManager, and ModemManager for roaming, which NetworkManager does not expose.

    ``on_change`` is called, without arguments, after each change of :attr:`state`; ``on_strength`` where only the strength of
    a Wi-Fi signal changed, which happens often.
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
        self._state = NetworkManager()
        self._faults = FaultLog(_log, "NetworkManager: ")
        self._defaults = defaults or DefaultsReader()
        self._pid = 0
        self._tree = ObjectTree()
        self._devices: dict[str, Device] = {}  #: by object path; those without a name are left out
        self._follower = NameFollower(
            names.SERVICE,
            names.MATCH_RULES,
            load=self._load,
            on_loaded=self._loaded,
            on_signal=self._on_signal,
            on_lost=lambda: self._lost("it left the bus"),
        )
        self._liveness = Liveness(lambda: self._publish(replace(self._state, silent=self._liveness.silent)))
        self._applied = AppliedConnections(self._liveness, self._read_defaults, self._refresh, self._faults)
        self._modems = Modems(lambda: self._refresh_where(lambda device: device.type is DeviceType.MODEM))
        self._access_points = AccessPoints(lambda: self._refresh_where(lambda device: bool(device.access_point)))

    @property
    def state(self) -> NetworkManager:
        """NetworkManager's state now; while it is away ``running`` is False and the devices are those last seen."""
        return self._state

    async def start(self) -> None:
        """Subscribe and read; returns when all is read, or NetworkManager is silent: then it is read when it answers.

        NetworkManager not running is no error. Raises :class:`BusError` when the connection fails.
        """
        bus = self._bus
        bus.lost.add_done_callback(
            lambda _: self._detach("the connection to the bus is gone") if bus is self._bus else None
        )
        modems = asyncio.ensure_future(self._modems.start(bus))
        try:
            await self._follower.start(bus)
            await modems  # a modem that roams must not count as at home until that is known: it would cost money
        finally:
            modems.cancel()
            await asyncio.gather(modems, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_TIMEOUT):
                while (loading := self._follower.loading) and not loading.done() and not self._liveness.silent:
                    await self._liveness.wait_for((loading,))

    async def attach(self, bus: Bus) -> None:
        """Go on with a new connection after the old one was lost; what is known is kept meanwhile. Raises as :meth:`start`."""
        self._detach("moved to a new connection")
        self._bus = bus
        await self.start()

    async def settled(self, timeout: float = 2.0) -> bool:
        """Wait until what earlier signals caused to be read has been read; False after ``timeout`` (s), or when NetworkManager
        is silent.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while tasks := self._running_tasks():
                    if self._liveness.silent:
                        return False
                    await self._liveness.wait_for(tasks)
        return not self._running_tasks()

    async def refresh_profiles(self, timeout: float = 2.0) -> bool:
        """Read the applied connection of every active device again; False when ``timeout`` (s) was not enough."""
        for path, device in self._tree.devices.items():
            if device.active and self._follower.owner:
                self._applied.read(path, device)
        return await self.settled(timeout)

    async def probe(self) -> None:
        """Find out whether NetworkManager answers, in case nothing was heard of it for a while; takes 2 s at most."""
        if self._follower.loading is None:
            await self._liveness.probe()

    async def check_connectivity(self) -> None:
        """Have NetworkManager check the connectivity of all devices now, if it does at all; waits for the result."""
        if self._tree.checks_connectivity and self._follower.owner:
            # Not by way of liveness: the answer may take as long as a check of a link that does not answer.
            with contextlib.suppress(BusError):
                await self._bus.call(names.SERVICE, names.PATH, names.MANAGER, "CheckConnectivity", timeout=_CHECK)

    def close(self) -> None:
        """Stop following and calling back; the connection is left open."""
        self._on_change = self._on_strength = lambda: None
        self._modems.close()
        self._access_points.close()
        self._state = replace(self._state, running=False)  # that the connection goes then is no news
        self._detach("closed")

    # --- NetworkManager comes and goes -------------------------------------------------------------------------

    async def _load(self, owner: str) -> None:
        """Read all objects and every applied connection; the new state is published after it."""
        self._liveness.attach(self._bus, owner)
        with contextlib.suppress(BusError):
            (self._pid,) = await self._bus.call(
                names.BUS, "/org/freedesktop/DBus", names.BUS, "GetConnectionUnixProcessID", "s", owner
            )
        objects = await self._managed_objects()
        tree = ObjectTree()
        for path, interfaces in objects.items():
            try:
                tree.add(path, interfaces)
            except (TypeError, ValueError, AttributeError) as error:
                self._faults.report("object", f"object {path} is malformed: {error}", path)
            else:
                self._faults.clear("object", path)
        await self._defaults.read(pid=self._pid, version=tree.version)
        self._tree, self._devices = tree, {}
        before = self._applied.take_over()
        self._follower.release()
        await self._applied.read_all(owner, self._tree.devices, before)

    def _loaded(self) -> None:
        self._access_points.on(self._bus, self._follower.owner)
        self._refresh(*self._tree.devices)
        if self._tree.manager:
            _log.info("NetworkManager %s is running", self._state.version or "(of unknown version)")

    async def _managed_objects(self) -> dict[str, Any]:
        complained = False

        def complain(reason: str) -> None:
            nonlocal complained
            if not complained and not self._liveness.silent:
                complained = True
                _log.warning("NetworkManager's objects could not be read (%s): retrying", reason)

        return await managed_objects(
            lambda: self._liveness.call(names.OBJECT_MANAGER_PATH, names.OBJECT_MANAGER, "GetManagedObjects"),
            complain,
            _RETRY,
        )

    async def _read_defaults(self) -> ConnectionDefaults:
        return await self._defaults.read(pid=self._pid, version=self._tree.version)

    def _detach(self, why: str) -> None:
        self._follower.stop()
        self._lost(why)

    def _lost(self, why: str) -> None:
        self._liveness.detach()
        self._applied.cancel()
        if self._state.running:
            _log.info("NetworkManager is gone (%s): keeping its last state", why)
        self._publish(replace(self._state, running=False, startup=False, silent=False))

    def _running_tasks(self) -> list[asyncio.Task[None]]:
        loading = self._follower.loading
        tasks = (*((loading,) if loading else ()), *self._applied.tasks(), *self._access_points.pending())
        return [task for task in tasks if not task.done()]

    # --- signals -----------------------------------------------------------------------------------------------

    def _on_signal(self, signal: Signal) -> None:
        if self._follower.loading is None:
            self._liveness.heard()
        try:
            changed = signal.interface == names.PROPERTIES and signal.member == "PropertiesChanged"
            effect = None if changed and self._access_points.changed(signal) else self._tree.handle(signal)
        except (TypeError, ValueError, AttributeError) as error:
            words = f"signal {signal.member} of {signal.path} is malformed: {error}"
            self._faults.report("signal", words, (signal.member, signal.path))
            return
        self._faults.clear("signal", (signal.member, signal.path))
        if effect is not None:
            self._apply(effect)

    def _apply(self, effect: Effect) -> None:
        """Do what follows from a signal."""
        if effect.lease:
            for path, device in self._tree.devices.items():
                if self._applied.of(path).profile is not None:
                    self._applied.read(path, device)
            return
        for path in effect.removed:
            self._applied.forget(path)
            self._devices.pop(path, None)
        for path in effect.activations:
            self._applied.update(path, self._tree.devices[path])
        self._refresh(*effect.changed)

    # --- the state ---------------------------------------------------------------------------------------------

    def _refresh(self, *paths: str) -> None:
        """Build these devices anew, and the state with them; publish it if it differs."""
        if self._follower.loading is not None:
            return  # all of them follow when everything is read
        self._access_points.follow({each.access_point for each in self._tree.devices.values()} - {""})
        for path in paths:
            if device := self._tree.devices.get(path):
                self._refresh_device(path, device)
        if not self._tree.manager:
            return  # on the bus, but its objects are not there yet
        self._publish(
            NetworkManager(
                running=True,
                startup=get(self._tree.manager, "Startup", bool, False),
                version=self._tree.version,
                default_flags=self._defaults.defaults.flags(_NO_DEVICE),
                unread=self._defaults.unread,
                vpn=any(get(active, "Vpn", bool, False) for active in self._tree.active.values()),
                silent=self._liveness.silent,
                devices=tuple(sorted(self._devices.values(), key=lambda device: device.interface)),
            )
        )

    def _refresh_device(self, path: str, device: DeviceObject) -> None:
        active = device.active
        context = DeviceContext(
            activation=f"{self._follower.owner}{active}" if active else "",
            active_connection=self._tree.active.get(active),
            applied=self._applied.of(path),
            connectivity_checked=self._tree.checks_connectivity,
            roaming=self._modems.roaming,
            strength=self._access_points.strength(device.access_point),
        )
        value, problem = to_device(device, context)
        if problem:
            self._faults.report("device", f"device {path}: {problem}", path)
        else:
            self._faults.clear("device", path)
        if value.interface:
            self._devices[path] = value

    def _refresh_where(self, affected: Callable[[DeviceObject], bool]) -> None:
        """Something that others say of such devices has changed."""
        if self._follower.owner:
            self._refresh(*[path for path, device in self._tree.devices.items() if affected(device)])

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
