# SPDX-License-Identifier: GPL-2.0-or-later
"""logind as far as sleep goes: a machine's suspend, as NetworkManager and nm-mptcp hear of it (``org.freedesktop.login1(5)``).

Who wants to do something before the machine sleeps takes a "delay" lock, a file descriptor, and closes it when that is done;
logind says that the machine is about to sleep, waits for the locks, and says when it is awake again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nm_mptcp.dbus.connection import LIBRARY, ServiceInterface, method, signal

from ..support.waits import wait_for

if TYPE_CHECKING:
    from .bed import Bed

#: Without systemd's own policy nobody may have the name on the bus.
POLICY = Path("/usr/share/dbus-1/system.d/org.freedesktop.login1.conf")

_NAME, _PATH, _INTERFACE = "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"


class _Manager(ServiceInterface):
    """What of logind's manager has to do with sleep."""

    def __init__(self) -> None:
        super().__init__(_INTERFACE)
        self.locks: list[tuple[str, int, int]] = []  #: who holds it, logind's end, and the end that was given away

    @method()
    def Inhibit(self, what: "s", who: "s", why: "s", mode: "s") -> "h":  # type: ignore[name-defined]  # noqa: ARG002, F821, UP037
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        if "sleep" in what.split(":") and mode == "delay":
            self.locks.append((who, ours, theirs))
        return theirs

    @signal()
    def PrepareForSleep(self, start) -> "b":  # type: ignore[name-defined, no-untyped-def]  # noqa: F821, UP037
        return start


def _closed(descriptor: int) -> bool:
    """Whether nobody has the other end of a pipe any more."""
    with contextlib.suppress(BlockingIOError):
        return os.read(descriptor, 1) == b""
    return False


class Logind:
    """A logind on the bed's bus; start it before whoever shall hear of sleep takes its lock."""

    def __init__(self, bed: Bed) -> None:
        self._address = f"unix:path={bed.path('/run/dbus/system_bus_socket')}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="logind")
        self._thread.start()
        bed.at_end(self.close)
        self._bus, self._manager = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)

    async def _serve(self) -> tuple[Any, _Manager]:
        library = importlib.import_module(f"{LIBRARY}.aio")
        bus = await library.MessageBus(bus_address=self._address, negotiate_unix_fd=True).connect()
        manager = _Manager()
        bus.export(_PATH, manager)
        await bus.request_name(_NAME)
        return bus, manager

    def inhibitors(self) -> list[str]:
        """Who wants to be waited for before the machine sleeps."""
        return [who for who, _, _ in self._manager.locks]

    def wait_inhibitor(self, who: str) -> None:
        """Come back when ``who`` has its lock."""
        wait_for(f"{who} wants to be told of sleep", lambda: who in self.inhibitors())

    def sleep(self, bed: Bed) -> None:
        """The machine falls asleep, as one whose links are hardware.

        NetworkManager takes those down when it hears of sleep, but leaves software devices as they are, and so all of a
        bed; with networking switched off it takes these down as well, on the same way (``do_sleep_wake`` in nm-manager.c).
        What is still being activated is waited for: the end of a pre-up script replaces the deactivation that was queued, and
        NetworkManager then answers never (``nm_device_queue_state`` holds one state, and 1.42 waits for all devices).
        """
        wait_for("no device is being activated", lambda: "connecting" not in bed.nmcli("-t", "-f", "STATE", "device"))
        self.prepare()
        bed.nmcli("networking", "off")

    def wake(self, bed: Bed) -> None:
        """The machine wakes up."""
        self.resume()
        bed.nmcli("networking", "on")

    def prepare(self, *, seconds: float = 5.0) -> None:
        """Say that the machine is about to sleep; come back when everybody is ready for it (logind waits 5 s at most)."""
        locks, self._manager.locks = self._manager.locks, []
        for _, _, theirs in locks:
            os.close(theirs)
        self._say(True)

        for who, ours, _ in locks:
            wait_for(f"{who} is ready for sleep", functools.partial(_closed, ours), seconds=seconds, every=0.005)
            os.close(ours)

    def resume(self) -> None:
        """Say that the machine is awake again."""
        self._say(False)

    def _say(self, start: bool) -> None:
        async def say() -> None:
            self._manager.PrepareForSleep(start)

        asyncio.run_coroutine_threadsafe(say(), self._loop).result(10)

    def close(self) -> None:
        """Be gone from the bus."""

        async def end() -> None:
            self._bus.disconnect()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._bus.wait_for_disconnect(), 1)

        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        for _, ours, theirs in self._manager.locks:
            os.close(ours)
            os.close(theirs)
