# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop: a convergence at each change, and when time alone changes something.

The loss of a link comes from ``kernel.rtnl_events`` by ``kernel.fib`` (``Changes.lost_links``) to
:meth:`Engine.on_kernel_change`, which makes it urgent; ``policy.suspension`` decides what may go, ``policy.plan.urgent`` what
goes first, and ``engine.plan_executor`` sends the first delete before anything else is done.

An event says only "look again". A burst of events is answered at its first one (an address that was removed after a moment),
then coalesced; after it the kernel is looked at again at 50 ms and at 1 s, since NetworkManager may re-add endpoints
without notice and the kernel removes some routes without an event. In a steady state nothing is written and nothing wakes up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from ..config.settings import DEFAULTS, Config
from ..kernel.access import KernelAccess
from ..kernel.errors import KernelError
from ..kernel.fib import Changes
from ..kernel.path_manager_events import PathManagerEvent
from ..model.state import NetworkManager
from .reconciler import Reconciler
from .record_file import Record, StateError

_log = logging.getLogger(__name__)

#: Seconds between two convergences in a storm of events; the first of a storm is answered at once.
_COALESCE = 0.01

#: Seconds for which an address may be away. NetworkManager removes addresses and adds them again where their order
#: changes, as with a new IPv6 prefix (``nm_platform_ip6_address_sync``); 5 ms were measured. TCP does not notice it, but
#: deleting the endpoint would close its subflows.
_AWAY = 0.02

#: Seconds after a burst at which the kernel is looked at again.
LOOKS = (0.05, 1.0)

#: Seconds before a failed look, or what the kernel refused in it, is tried again; doubled each time, up to the second.
RETRY = (0.1, 30.0)


class Engine(Reconciler):
    """A reconciler that runs at each event, and when time changes something.

    ``on_look`` is called before the looks after a burst, to ask again for what no signal tells of (a reapply), ``after_look``
    after them.
    """

    def __init__(
        self,
        kernel: KernelAccess,
        networkmanager: Callable[[], NetworkManager],
        record: Record,
        *,
        config: Config = DEFAULTS,
        dry_run: bool = False,
        on_look: Callable[[], None] = lambda: None,
        after_look: Callable[[], None] = lambda: None,
        on_view: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(kernel, networkmanager, record, config=config, dry_run=dry_run, on_view=on_view)
        self.first_look = asyncio.Event()  #: it was made, or failed
        self._on_look, self._after_look = on_look, after_look
        self._dirty = asyncio.Event()
        self._addresses_lost = False
        self._afresh = True
        self._failing = ""  #: why the last look failed
        self._retry: float | None = None  #: when to try again what failed
        self._delay = RETRY[0]

    def wake(self) -> None:
        """Something changed: look again."""
        self._dirty.set()

    def on_kernel_change(self, changes: Changes) -> None:
        """Links, addresses, routes or rules changed; the loss of a link does not wait, that of an address not long."""
        if changes.lost_links:
            self._urgent.set()
        if changes.lost_addresses:
            self._addresses_lost = True
        self._dirty.set()

    def on_path_manager_event(self, event: PathManagerEvent | None) -> None:
        """A connection or subflow came or went; None: events were lost."""
        failed = event is not None and self._history.subflows.on_event(event, time.monotonic())
        if self._history.subflows.crowded:
            self._history.subflows.keep(*self._kernel.alive)
        if failed or self._waits_for_connections:
            self._dirty.set()

    def on_signal_strength(self) -> None:
        """A Wi-Fi signal became stronger or weaker: look again only where a threshold was crossed."""
        devices = self.networkmanager().devices
        if self._history.signals.moved((device.ip_interface, device.strength) for device in devices):
            self._dirty.set()

    def on_resume(self) -> None:
        """The machine slept: everything is looked at afresh, and no link's past counts."""
        self._history.forget()
        self._afresh = True
        self._urgent.set()
        self._dirty.set()

    async def run(self) -> None:
        """Converge at every change, until cancelled."""
        loop = asyncio.get_running_loop()
        looks: list[asyncio.TimerHandle] = []
        alarm: asyncio.TimerHandle | None = None
        due = False  # whether it was only a look that woke us

        def look() -> None:
            nonlocal due
            due = True
            self._on_look()
            self._dirty.set()

        self.wake()
        while True:
            await self._dirty.wait()
            if self._addresses_lost:
                await self._pause(_AWAY)
            by_look, due = due, False
            self._dirty.clear()
            loss = self._urgent.is_set() or self._addresses_lost
            self._addresses_lost = False
            thorough, self._afresh = by_look or self._afresh, False
            wrote = await self._converge_safely(thorough=thorough, loss=loss)
            if by_look:
                self._after_look()
            if wrote or not by_look:
                for handle in looks:
                    handle.cancel()
                looks = [loop.call_later(delay, look) for delay in LOOKS]
            if alarm is not None:
                alarm.cancel()
            now = time.monotonic()
            ends = [end for end in (self._history.next_due(now), self._retry) if end is not None]
            alarm = loop.call_later(min(ends) - now + 0.001, self.wake) if ends else None
            await self._pause(_COALESCE)

    async def _pause(self, seconds: float) -> None:
        """Wait for so long, or until a link is lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._urgent.wait()

    async def _converge_safely(self, *, thorough: bool, loss: bool) -> bool:
        """One convergence; an error in it is logged once, and it is tried again until it succeeds."""
        wrote, failure = False, ""
        try:
            wrote = await self._converge(thorough=thorough or self._retry is not None, loss=loss)
        except (KernelError, StateError) as error:
            failure = str(error)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
            if not self._failing:
                _log.exception("reconcile failed")
        self.first_look.set()
        if failure and not self._failing:
            _log.warning("reconcile failed, retrying within %g s: %s", RETRY[1], failure)
        elif not failure and self._failing:
            _log.info("reconcile works again")
        self._failing = failure
        self._schedule_retry(needed=bool(failure) or self._executor.unfinished)
        return wrote

    def _schedule_retry(self, *, needed: bool) -> None:
        """Have it tried again, each time after a longer delay."""
        now = time.monotonic()
        if not needed:
            self._retry, self._delay = None, RETRY[0]
        elif self._retry is None or now >= self._retry:
            self._retry = now + self._delay
            self._delay = min(2 * self._delay, RETRY[1])
