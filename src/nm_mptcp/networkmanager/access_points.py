# SPDX-License-Identifier: GPL-2.0-or-later
"""The signal strength of the access points in use; NetworkManager updates it every 6 s where it changed.

Only the access points that devices are connected to are subscribed to, each by its path: a scan changes the strength of all
that are in range, which would wake the service up for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Set
from typing import Any

from ..dbus.connection import Bus, BusError, Signal, unpack
from ..dbus.name_follower import log_failure
from ..fault_log import FaultLog
from . import names

_log = logging.getLogger(__name__)


class AccessPoints:
    """Follows the strength of some access points. ``on_change`` is called, without arguments, after each change."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._bus: Bus | None = None
        self._owner = ""
        self._strengths: dict[str, int | None] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._unsubscribing: set[asyncio.Task[None]] = set()
        self._faults = FaultLog(_log, "NetworkManager: ")

    def strength(self, path: str) -> int | None:
        """The strength of an access point that is followed (percent), None while it is not known."""
        return self._strengths.get(path)

    def on(self, bus: Bus, owner: str) -> None:
        """From now on ask this NetworkManager on this connection; what another one's access points had is forgotten."""
        if (bus, owner) == (self._bus, self._owner):
            return
        if bus is self._bus:
            self.follow(frozenset())
        for task in self._tasks.values():
            task.cancel()
        self._tasks, self._strengths = {}, {}
        self._bus, self._owner = bus, owner

    def follow(self, paths: Set[str]) -> None:
        """Follow these object paths, and no others any more."""
        for path in self._tasks.keys() - paths:
            self._tasks.pop(path).cancel()
            self._strengths.pop(path, None)
            leaving = asyncio.ensure_future(self._unsubscribe(path))
            self._unsubscribing.add(leaving)
            leaving.add_done_callback(self._unsubscribing.discard)
        for path in paths - self._tasks.keys():
            self._strengths[path] = None
            self._tasks[path] = asyncio.ensure_future(self._read(path))
            self._tasks[path].add_done_callback(log_failure("reading an access point's strength"))

    def pending(self) -> list[asyncio.Task[None]]:
        """What is being read."""
        return [task for task in self._tasks.values() if not task.done()]

    def close(self) -> None:
        """Stop following and calling back."""
        self._on_change = lambda: None
        for task in (*self._tasks.values(), *self._unsubscribing):
            task.cancel()
        self._tasks = {}

    def changed(self, signal: Signal) -> bool:
        """Take in a ``PropertiesChanged``; False when it is not of an access point that is followed."""
        if signal.path not in self._tasks:
            return False
        interface, properties, _ = signal.body
        if interface == names.ACCESS_POINT and "Strength" in properties:
            self._take(signal.path, unpack(properties["Strength"]))
        return True

    async def _read(self, path: str) -> None:
        """Subscribe, then ask, so that no change in between is missed."""
        assert self._bus is not None
        try:
            await self._bus.add_match(_rule(path))
            (value,) = await self._bus.call(
                self._owner, path, names.PROPERTIES, "Get", "ss", names.ACCESS_POINT, "Strength"
            )
        except BusError as error:
            if not error.gone:
                self._faults.report("strength", f"strength of {path} could not be read: {error.text}", path)
        except ValueError:
            self._faults.report("strength", f"strength of {path}: malformed reply", path)
        else:
            if self._strengths.get(path) is None:  # else a signal came meanwhile, which is newer
                self._take(path, unpack(value))

    def _take(self, path: str, value: Any) -> None:
        known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100
        if not known:
            self._faults.report("strength", f"strength of {path} is {value!r}, not a percentage: ignored", path)
        else:
            self._faults.clear("strength", path)
        strength = value if known else None
        if strength != self._strengths.get(path):
            self._strengths[path] = strength
            self._on_change()

    async def _unsubscribe(self, path: str) -> None:
        if self._bus is not None:
            with contextlib.suppress(BusError):
                await self._bus.remove_match(_rule(path))


def _rule(path: str) -> str:
    return f"type='signal',sender='{names.SERVICE}',interface='{names.PROPERTIES}',member='PropertiesChanged',path='{path}'"
