# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks over D-Bus: the service for its status, or NetworkManager for its profiles where the service is not running."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any, Protocol

from ..dbus.connection import DAEMON, Bus, BusError, Signal
from ..dbus.names import INTERFACE, NAME, PATH
from ..model.device_types import kind_of
from ..networkmanager.client import Client
from .snapshot import DeviceView, devices_of, paths_of

_log = logging.getLogger(__name__)

#: Seconds after an event at which the service is asked: it may act on the event itself, and on what follows from it.
_AFTER_EVENT = (0.1, 1.1)
#: Seconds after one of its signals.
_AFTER_SIGNAL = 0.2
#: Seconds after which it is asked without either: not every change of its status has a signal.
_INTERVAL = 2.0

#: Seconds between two calls at least.
_PAUSE = 0.04

#: Seconds until a lost bus is tried again.
_RETRY = 3.0


class Apply(Protocol):
    """Takes new values of fields of :class:`.snapshot.Snapshot`."""

    def __call__(self, **changes: Any) -> None:
        """Each by its name."""


class BusObserver:
    """Keeps the fields of a snapshot up to date that D-Bus has."""

    def __init__(self, apply: Apply) -> None:
        self.answered = asyncio.Event()  #: once there was an answer, or no bus
        self._apply = apply
        self._ask = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        self._after_signal: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        """Ask at once."""
        self._ask.set()

    def ask_after_event(self) -> None:
        """Ask at once, and again when the service may have acted."""
        for timer in self._timers:
            timer.cancel()
        self._ask.set()
        loop = asyncio.get_running_loop()
        self._timers = [loop.call_later(delay, self._ask.set) for delay in _AFTER_EVENT]

    def close(self) -> None:
        """Cancel what is due."""
        for timer in (*self._timers, *([self._after_signal] if self._after_signal else [])):
            timer.cancel()

    async def run(self) -> None:
        """Stay connected to the bus until it is cancelled."""
        while True:
            bus = Bus()
            asking: asyncio.Task[None] | None = None
            try:
                await bus.connect()
                bus.on_signal(self._on_signal)
                await bus.add_match(
                    f"type='signal',sender='{DAEMON}',interface='{DAEMON}',member='NameOwnerChanged',arg0='{NAME}'"
                )
                await bus.add_match(f"type='signal',sender='{NAME}'")
                asking = asyncio.create_task(self._keep_asking(bus))
                await asyncio.wait((asking, bus.lost), return_when=asyncio.FIRST_COMPLETED)
                if asking.done():
                    asking.result()
            except BusError as error:
                _log.debug("%s", error)
            finally:
                if asking is not None:
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
                bus.close()
            self._apply(service=False, networkmanager=False, paths=None)
            self.answered.set()
            await asyncio.sleep(_RETRY)

    def _on_signal(self, signal: Signal) -> None:
        """The service appeared on the bus, disappeared from it, or reports a change."""
        if signal.interface == DAEMON and signal.member == "NameOwnerChanged":
            self._ask.set()
            return
        loop = asyncio.get_running_loop()
        # Our own call may be what makes it signal, so not at once; and once for several signals.
        due = self._after_signal is None or self._after_signal.when() < loop.time()
        if signal.path.startswith(PATH) and due:
            self._after_signal = loop.call_later(_AFTER_SIGNAL, self._ask.set)

    async def _keep_asking(self, bus: Bus) -> None:
        client: Client | None = None
        try:
            while True:
                self._ask.clear()
                changes = await _status(bus)
                if changes is None:
                    if client is None:
                        client = Client(bus, self._ask.set)
                        await client.start()
                    changes = _without_service(client)
                self._apply(**changes)
                self.answered.set()
                await asyncio.sleep(_PAUSE)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_INTERVAL):
                        await self._ask.wait()
        finally:
            if client is not None:
                client.close()


async def _status(bus: Bus) -> dict[str, Any] | None:
    """The service's status, None where the service is not running or does not answer."""
    try:
        (text,) = await bus.call(NAME, PATH, INTERFACE, "Status")
        status = json.loads(text)
        return {
            "service": True,
            "paths": paths_of(status),
            "devices": devices_of(status),
            "networkmanager": bool(status["networkmanager"]["running"]),
            "version": str(status["networkmanager"]["version"]),
        }
    except BusError as error:
        if error.name == BusError.DISCONNECTED:
            raise
        _log.debug("the service does not answer: %s", error)
    except (ValueError, KeyError, TypeError) as error:  # of another version than this command
        _log.debug("the service's status cannot be read: %r", error)
    return None


def _without_service(client: Client) -> dict[str, Any]:
    """What NetworkManager itself says: its version, and the profiles of the devices that it manages."""
    return {
        "service": False,
        "paths": None,
        "devices": tuple(
            DeviceView(device.ip_interface or device.interface, device.profile.id, kind_of(device).name)
            for device in client.state.devices
            if device.managed and device.profile
        ),
        "networkmanager": client.state.running,
        "version": client.state.version,
    }
