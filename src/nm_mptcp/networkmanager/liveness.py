# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether NetworkManager answers. One that does not (stopped, swapped out, in a debugger) is waited for, but nothing waits
with it: after a while it counts as silent, until it says something again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from ..dbus.connection import Bus, BusError
from ..dbus.name_follower import log_failure
from . import names

_log = logging.getLogger(__name__)

#: Seconds after which a NetworkManager that has not answered counts as silent.
SILENT_AFTER = 2.0

#: Seconds for the reply to one call: one that is swapped out answers late.
_CALL_TIMEOUT = 60.0

#: Seconds for which a reply or signal proves that it answers.
_FRESH = 1.0

#: Seconds between two pings.
_PING_INTERVAL = 0.1


class Liveness:
    """Calls NetworkManager's methods, and notes when it is slow to answer. ``on_change`` follows a change of :attr:`silent`."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._bus: Bus | None = None
        self._owner = ""
        self._silence = asyncio.Event()
        self._ping: asyncio.Task[None] | None = None
        self.last_heard = 0.0  #: when it last replied or sent a signal, by the loop's clock

    @property
    def silent(self) -> bool:
        """Whether it is on the bus, and has not answered for a while."""
        return self._silence.is_set()

    def attach(self, bus: Bus, owner: str) -> None:
        """From now on call this NetworkManager, on this connection."""
        self.detach()
        self._bus, self._owner = bus, owner

    def detach(self) -> None:
        """There is no NetworkManager to be called; it does not count as silent."""
        if self._ping is not None:
            self._ping.cancel()
        self._ping = None
        self._bus, self._owner = None, ""
        self._silence.clear()

    async def call(self, path: str, interface: str, member: str, signature: str = "", *body: Any) -> list[Any]:
        """Call a method of NetworkManager's; raises :class:`BusError`."""
        if self._bus is None:
            raise BusError(BusError.DISCONNECTED, f"{member}: NetworkManager is not on the bus")
        alarm = asyncio.get_running_loop().call_later(SILENT_AFTER, self._fall_silent)
        try:
            reply = await self._bus.call(self._owner, path, interface, member, signature, *body, timeout=_CALL_TIMEOUT)
        except BusError as error:
            if error.name not in (BusError.NO_REPLY, BusError.DISCONNECTED):
                self.heard()
            raise
        finally:
            alarm.cancel()
        self.heard()
        return reply

    def heard(self) -> None:
        """It replied, or sent a signal."""
        self.last_heard = asyncio.get_running_loop().time()
        if self._silence.is_set():
            self._silence.clear()
            _log.info("NetworkManager answers again")
            self._on_change()

    async def probe(self) -> None:
        """Find out whether it answers, unless it was heard just now; takes :data:`SILENT_AFTER` at most.

        Whoever asks meanwhile waits for the same reply.
        """
        fresh = self.last_heard + _FRESH > asyncio.get_running_loop().time()
        if not fresh and not self.silent and self._owner:
            await self.wait_for((self._pinging(),))

    async def wait_for(self, tasks: Iterable[asyncio.Future[None]]) -> None:
        """Wait until all of these are done, or NetworkManager is silent."""
        done, silence = asyncio.ensure_future(asyncio.wait(tuple(tasks))), asyncio.ensure_future(self._silence.wait())
        try:
            await asyncio.wait((done, silence), return_when=asyncio.FIRST_COMPLETED)
        finally:
            done.cancel()
            silence.cancel()

    def _fall_silent(self) -> None:
        if not self._silence.is_set():
            self._silence.set()
            _log.warning("NetworkManager does not answer: keeping current paths until it does")
            self._pinging()
            self._on_change()

    def _pinging(self) -> asyncio.Task[None]:
        """Ask something that is quick to answer, until there is a reply."""
        if self._ping is None or self._ping.done():
            self._ping = asyncio.ensure_future(self._ping_until_reply())
            self._ping.add_done_callback(log_failure("asking whether NetworkManager answers"))
        return self._ping

    async def _ping_until_reply(self) -> None:
        while True:
            try:
                await self.call(names.PATH, names.PROPERTIES, "Get", "ss", names.MANAGER, "Version")
            except BusError as error:
                if error.name == BusError.NO_REPLY:
                    await asyncio.sleep(_PING_INTERVAL)
                    continue
            return
