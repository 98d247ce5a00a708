# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop: a convergence at each change, and when time alone changes something.

The loss of a link comes from ``kernel.rtnl_events`` by ``kernel.fib`` (``Changes.lost_links``) to
:meth:`Engine.on_kernel_change`, which makes it urgent; ``policy.suspension`` decides what may go, ``policy.plan.urgent`` what
goes first, and ``engine.plan_executor`` sends the first delete before anything else is done.

The loop is level-triggered: an event only causes a convergence, and what it does follows from the state. The first event of a
burst is handled at once (the removal of an address after :data:`_ADDRESS_DELAY`), the following ones are coalesced. 50 ms and
1 s after a burst the state is read again, as NetworkManager may re-add endpoints, and the kernel removes some routes, without
an event. In a steady state nothing is written and no timer runs.
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
from ..kernel.path_manager_events import EventName, PathManagerEvent
from ..model.state import NetworkManager
from .join_guard import JoinGuard
from .quality_watch import QualityWatch
from .reconciler import Reconciler
from .record_file import Record, StateError
from .silence_watch import SilenceWatch
from .watched_links import WatchedLinks

_log = logging.getLogger(__name__)

#: Seconds between two convergences in a burst of events; the first one starts at once.
_COALESCE = 0.01

#: Seconds before the removal of an address takes effect. NetworkManager removes addresses and adds them again when their order
#: changes, as with a new IPv6 prefix (``nm_platform_ip6_address_sync``; measured: 5 ms later). TCP survives that, but deleting
#: the endpoint would close its subflows.
_ADDRESS_DELAY = 0.02

#: Seconds after a burst at which the state is read again.
RECHECKS = (0.05, 1.0)

#: Seconds before a failed convergence or reading, or an operation that the kernel refused, is retried; doubled each time, and
#: the maximum.
RETRY = (0.1, 30.0)


class Engine(Reconciler):
    """A reconciler that runs at each event, and when time alone changes something.

    ``before_recheck`` is called before each recheck after a burst, to read what NetworkManager does not signal (a reapply), and
    ``after_recheck`` after it; ``on_suspicion`` when a link may be silent.
    """

    def __init__(
        self,
        kernel: KernelAccess,
        networkmanager: Callable[[], NetworkManager],
        record: Record,
        *,
        config: Config = DEFAULTS,
        dry_run: bool = False,
        before_recheck: Callable[[], None] = lambda: None,
        after_recheck: Callable[[], None] = lambda: None,
        on_view: Callable[[], None] = lambda: None,
        on_suspicion: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(kernel, networkmanager, record, config=config, dry_run=dry_run, on_view=on_view)
        self.first_convergence = asyncio.Event()  #: it was done, or failed
        self._silence = SilenceWatch(kernel, self._history.silence, self.wake, on_suspicion)
        self._quality = QualityWatch(kernel, self._history.quality, self.wake)
        self._joins = JoinGuard(kernel)
        self._before_recheck, self._after_recheck = before_recheck, after_recheck
        self._dirty = asyncio.Event()
        self._addresses_lost = False
        self._afresh = True
        self._failing = ""  #: why the last convergence failed; "": it did not
        self._retry: float | None = None  #: when to retry it (monotonic clock, s)
        self._delay = RETRY[0]

    def wake(self) -> None:
        """Request a convergence."""
        self._dirty.set()

    def on_kernel_change(self, changes: Changes) -> None:
        """Links, addresses, routes or rules changed. The loss of a link is handled without any delay."""
        if changes.lost_links:
            self._urgent.set()
        if changes.lost_addresses:
            self._addresses_lost = True
        self._dirty.set()

    def on_path_manager_event(self, event: PathManagerEvent | None) -> None:
        """A connection or subflow was established or closed; None: events were lost."""
        if event is None or event.name in (EventName.ESTABLISHED, EventName.SUBFLOW_ESTABLISHED):
            self._quality.on_connection()
        if event is None or event.name is EventName.CLOSED:
            self._joins.on_connection_closed()
        failed = event is not None and self._history.subflows.on_event(event, time.monotonic())
        if self._history.subflows.needs_pruning:
            self._history.subflows.prune(*self._kernel.alive)
        if failed or self._waits_for_connections:
            self._dirty.set()

    def on_signal_strength(self) -> None:
        """The strength of a Wi-Fi signal changed: converge only if a bound was crossed."""
        devices = self.networkmanager().devices
        if self._history.signals.moved((device.ip_interface, device.strength) for device in devices):
            self._dirty.set()

    def on_resume(self) -> None:
        """The machine slept: read all state again, and forget the history of links."""
        self._history.forget()
        self._silence.forget()
        self._afresh = True
        self._urgent.set()
        self._dirty.set()

    async def clear(self, *, force: bool = False) -> None:
        """See :meth:`Reconciler.clear`; removes the packet filter as well."""
        await super().clear(force=force)
        self._watch_links()
        await self._joins.clear()

    async def run(self) -> None:
        """Converge at each change, until cancelled."""
        try:
            await self._run()
        finally:
            self._silence.close()
            await self._take_back_silences()
            self._quality.close()
            self._joins.close()

    async def _take_back_silences(self) -> None:
        """Nobody would notice later that a silent link answers again: leave it as it would be without a verdict."""
        if self.view is not None and self.view.snapshot.silences:
            self._history.silence.forget()
            with contextlib.suppress(Exception):
                await self._converge(thorough=False, loss=False)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        rechecks: list[asyncio.TimerHandle] = []
        alarm: asyncio.TimerHandle | None = None
        due = False  # whether a recheck woke the loop

        def recheck() -> None:
            nonlocal due
            due = True
            self._before_recheck()
            self._dirty.set()

        self.wake()
        while True:
            await self._dirty.wait()
            if self._addresses_lost:
                await self._pause(_ADDRESS_DELAY)
            by_recheck, due = due, False
            self._dirty.clear()
            loss = self._urgent.is_set() or self._addresses_lost
            self._addresses_lost = False
            thorough, self._afresh = by_recheck or self._afresh, False
            wrote = await self._converge_safely(thorough=thorough, loss=loss)
            self._watch_links()
            if by_recheck:
                self._after_recheck()
            if wrote or not by_recheck:
                for handle in rechecks:
                    handle.cancel()
                rechecks = [loop.call_later(delay, recheck) for delay in RECHECKS]
            if alarm is not None:
                alarm.cancel()
            now = time.monotonic()
            ends = [end for end in (self._history.next_due(now), self._retry) if end is not None]
            alarm = loop.call_later(min(ends) - now + 0.001, self.wake) if ends else None
            await self._pause(_COALESCE)

    def _watch_links(self) -> None:
        """Follow the last decision's links; none while nothing may be written."""
        if self.paused:
            self._silence.close()
            self._quality.close()
        elif self.view is not None:
            desired, kernel = self.view.desired, self.view.snapshot.kernel
            links = WatchedLinks.of(desired, kernel)
            self._silence.follow(links)
            self._quality.follow(links, self.view.mode)
            self._joins.follow(desired, kernel)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until a link is lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._urgent.wait()

    async def _converge_safely(self, *, thorough: bool, loss: bool) -> bool:
        """One convergence. An error is logged once, and the convergence retried until it succeeds."""
        wrote, failure = False, ""
        try:
            wrote = await self._converge(thorough=thorough or self._retry is not None, loss=loss)
        except (KernelError, StateError) as error:
            failure = str(error)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
            if not self._failing:
                _log.exception("reconcile failed")
        self.first_convergence.set()
        if failure and not self._failing:
            _log.warning("reconcile failed, retrying within %g s: %s", RETRY[1], failure)
        elif not failure and self._failing:
            _log.info("reconcile works again")
        self._failing = failure
        # Programs that drive a tunnel may answer later, of which no event tells.
        unread = self.view is not None and self.view.snapshot.kernel.wireguard is None
        self._schedule_retry(needed=bool(failure) or self._executor.unfinished or unread)
        return wrote

    def _schedule_retry(self, *, needed: bool) -> None:
        """Schedule a retry, each time after a longer delay."""
        now = time.monotonic()
        if not needed:
            self._retry, self._delay = None, RETRY[0]
        elif self._retry is None or now >= self._retry:
            self._retry = now + self._delay
            self._delay = min(2 * self._delay, RETRY[1])
