# SPDX-License-Identifier: GPL-2.0-or-later
"""Follow another program's objects on the bus: who owns its name, its objects once, then its signals.

The signals are asked for before the objects, so that none is missed. Those that arrive while the objects are being read are
held and delivered after them, in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .connection import DAEMON, Bus, BusError, Signal

_log = logging.getLogger(__name__)


class NameFollower:
    """Follows the owner of a well-known name; starts no service.

    ``load`` is started, as a task, for each owner that comes, and cancelled when that owner goes; it reads the objects and
    calls :meth:`release` before it returns, ``on_loaded`` follows. ``on_signal`` gets the owner's signals, ``on_lost`` is
    called when the owner goes. ``rules`` are match rules; they have to include ``NameOwnerChanged`` of the name.
    """

    def __init__(
        self,
        name: str,
        rules: Sequence[str],
        *,
        load: Callable[[str], Awaitable[None]],
        on_loaded: Callable[[], None],
        on_signal: Callable[[Signal], None],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._rules = rules
        self._load = load
        self._on_loaded = on_loaded
        self._on_signal = on_signal
        self._on_lost = on_lost
        self._bus: Bus | None = None
        self._owner_signalled = False  #: since :meth:`start`, which makes GetNameOwner's reply the older news
        self._held: list[Signal] | None = None  #: signals that wait for the objects
        self.owner = ""  #: the unique name of the owner, "" when there is none
        self.loading: asyncio.Task[None] | None = (
            None  #: reads the objects; None when they are read, or there is no owner
        )

    async def start(self, bus: Bus) -> None:
        """Subscribe, and start loading if the name has an owner. After a lost connection: once more, with the new one.

        Raises :class:`BusError` when the connection fails. That the name has no owner is no error.
        """
        self.stop()
        self._bus, self._owner_signalled = bus, False
        bus.on_signal(lambda signal: self._receive(signal) if bus is self._bus else None)
        await asyncio.gather(*(bus.add_match(rule) for rule in self._rules))
        owner = await bus.owner(self._name)
        if owner and not self._owner_signalled:
            self._owned_by(owner)

    def stop(self) -> None:
        """Stop following, without a call of ``on_lost``; the connection is left open."""
        self._stop_loading()
        self._bus, self.owner = None, ""

    def release(self) -> None:
        """Deliver the signals that were held; later ones come at once."""
        held, self._held = self._held or [], None
        for signal in held:
            self._on_signal(signal)

    def _owned_by(self, owner: str) -> None:
        if owner == self.owner:
            return
        self._stop_loading()
        if self.owner:
            self.owner = ""
            self._on_lost()
        self.owner = owner
        if owner:
            self._held = []
            self.loading = asyncio.ensure_future(self._load_from(owner))
            self.loading.add_done_callback(log_failure(f"reading the objects of {self._name}"))

    def _stop_loading(self) -> None:
        if self.loading is not None:
            self.loading.cancel()
        self.loading = self._held = None

    async def _load_from(self, owner: str) -> None:
        await self._load(owner)
        self.loading = None
        self._on_loaded()

    def _receive(self, signal: Signal) -> None:
        if signal.member == "NameOwnerChanged" and signal.sender == DAEMON:
            name, _, owner = signal.body
            if name == self._name:
                self._owner_signalled = True
                self._owned_by(owner)
        elif not self.owner or signal.sender != self.owner:
            return
        elif self._held is not None:
            self._held.append(signal)
        else:
            self._on_signal(signal)


async def managed_objects(
    call: Callable[[], Awaitable[list[Any]]], complain: Callable[[str], None], retry: tuple[float, float]
) -> dict[str, Any]:
    """The reply to ``GetManagedObjects``, called until it succeeds: object path -> interface -> properties.

    ``complain`` gets the reason of each failure, in one line. ``retry``: seconds to the second call, doubled with each up to
    the second value.
    """
    delay, longest = retry
    while True:
        try:
            (objects,) = await call()
            if isinstance(objects, dict):
                return objects
            reason = "the reply is not a list of objects"
        except BusError as error:
            reason = error.text
        except ValueError:
            reason = "the reply is not a list of objects"
        complain(reason)
        await asyncio.sleep(delay)
        delay = min(delay * 2, longest)


def log_failure(what: str) -> Callable[[asyncio.Task[Any]], None]:
    """A done callback for a task that nobody awaits: an exception, which would go unseen, is logged with its traceback."""

    def log(task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()):
            _log.error("%s failed", what, exc_info=error)

    return log
