# SPDX-License-Identifier: GPL-2.0-or-later
"""How strong the signal of the access points in use is, as NetworkManager tells it: every 6 s where it changed.

Only the access points that devices are connected to are subscribed to, each by its path: a scan changes the strength of all
that are in range, and nobody needs to wake up for those.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Set
from typing import Any

from ..dbus.connection import Bus, BusError, Signal, unpack
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
        self._leaving: set[asyncio.Task[None]] = set()
        self._complaints = FaultLog(_log, "NetworkManager: ")

    def strength(self, path: str) -> int | None:
        """The strength of an access point that is followed (percent), None while it is not known."""
        return self._strengths.get(path)

    def on(self, bus: Bus, owner: str) -> None:
        """From now on ask this NetworkManager on this connection; what is known of another one's is forgotten."""
        if (bus, owner) == (self._bus, self._owner):
            return
        if bus is self._bus:
            self.follow(frozenset())
        for task in self._tasks.values():
            task.cancel()
        self._tasks, self._strengths = {}, {}
        self._bus, self._owner = bus, owner

    def follow(self, paths: Set[str]) -> None:
        """Follow these, and no others any more."""
        for path in self._tasks.keys() - paths:
            self._tasks.pop(path).cancel()
            self._strengths.pop(path, None)
            self._later(self._unsubscribe(path))
        for path in paths - self._tasks.keys():
            self._strengths[path] = None
            self._tasks[path] = asyncio.ensure_future(self._read(path))
            self._tasks[path].add_done_callback(_tell)

    def pending(self) -> list[asyncio.Task[None]]:
        """What is being read just now."""
        return [task for task in self._tasks.values() if not task.done()]

    def close(self) -> None:
        """Stop following, and call nobody any more."""
        self._on_change = lambda: None
        for task in (*self._tasks.values(), *self._leaving):
            task.cancel()
        self._tasks = {}

    def changed(self, signal: Signal) -> bool:
        """Take in a signal of NetworkManager's; False when it is not about an access point that is followed."""
        if signal.path not in self._tasks:
            return False
        interface, properties, _ = signal.body
        if interface == names.ACCESS_POINT and "Strength" in properties:
            self._take(signal.path, unpack(properties["Strength"]))
        return True

    async def _read(self, path: str) -> None:
        """Subscribe, then ask: a change in between is told."""
        assert self._bus is not None
        try:
            await self._bus.add_match(_rule(path))
            (value,) = await self._bus.call(
                self._owner, path, names.PROPERTIES, "Get", "ss", names.ACCESS_POINT, "Strength"
            )
        except BusError as error:
            if not error.gone:
                self._complaints.say("strength", f"the strength of {path} could not be read: {error.text}", path)
        except ValueError:
            self._complaints.say("strength", f"the strength of {path} is not understood", path)
        else:
            if self._strengths.get(path) is None:  # what a signal told since is newer than this answer
                self._take(path, unpack(value))

    def _take(self, path: str, value: Any) -> None:
        known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100
        if not known:
            words = f"the strength of {path} is {value!r}, no percentage: it does not count"
            self._complaints.say("strength", words, path)
        else:
            self._complaints.right("strength", path)
        strength = value if known else None
        if strength != self._strengths.get(path):
            self._strengths[path] = strength
            self._on_change()

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _unsubscribe(self, path: str) -> None:
        if self._bus is not None:
            with contextlib.suppress(BusError):
                await self._bus.remove_match(_rule(path))


def _rule(path: str) -> str:
    return f"type='signal',sender='{names.SERVICE}',interface='{names.PROPERTIES}',member='PropertiesChanged',path='{path}'"


def _tell(task: asyncio.Task[None]) -> None:
    """An error that nobody foresaw belongs into the log, not into the task that nobody awaits."""
    if not task.cancelled() and (error := task.exception()):
        _log.error("an access point's strength could not be read", exc_info=error)
