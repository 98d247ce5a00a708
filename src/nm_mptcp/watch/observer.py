# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads and listens to the kernel, and makes events of what changes; writes nothing.

The kernel reports links, addresses and the path manager's events, but neither endpoints nor the priority of a subflow: these
are read after every other event, and once an interval. The rest comes over D-Bus (:mod:`.bus_observer`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ..kernel.errors import KernelError
from ..kernel.fib import FIB, Changes
from ..kernel.link_stats import LinkStats
from ..kernel.path_manager import PathManager
from ..kernel.path_manager_events import PathManagerEvent, PathManagerEvents
from ..kernel.rtnetlink import Rtnetlink
from ..kernel.rtnl_events import LINKS_AND_ADDRESSES, RtnetlinkEvents, dump_links
from ..kernel.sock_diag import Sockets
from .bus_observer import BusObserver
from .events import Event, EventType, from_path_manager
from .scene import uplinks
from .snapshot import Snapshot, differences, start_event
from .traffic import Traffic

_log = logging.getLogger(__name__)

#: Seconds after an event at which endpoints and subflows are read again: what follows from it comes later.
_AFTER_EVENT = (0.05, 0.3)

#: Seconds between two readings at least.
_PAUSE = 0.04

#: The part of one processor's time that reading may take, however many sockets there are.
_SHARE = 0.05

#: Seconds that the first answer on the bus is waited for.
_FIRST = 2.0


class Observer:
    """Observes until it is cancelled; :attr:`snapshot` and :attr:`traffic` are the present state.

    ``on_event`` is called for each event, ``on_sample`` every ``interval`` seconds when counters were read.
    """

    def __init__(
        self, on_event: Callable[[Event], None], on_sample: Callable[[], None], *, interval: float = 1.0
    ) -> None:
        self.snapshot = Snapshot()
        self.traffic = Traffic()
        self.missing = ""  #: what is not visible and why, one line
        #: The interfaces that were uplinks at any time: one that is lost is shown still.
        self.shown: frozenset[str] = frozenset()
        self._on_event = on_event
        self._on_sample = on_sample
        self._interval = interval
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._rtnetlink, self._counters = Rtnetlink(), LinkStats()
        self._path_manager, self._sockets = PathManager(), Sockets()
        self._privileged = True
        self._cost = 0.0  #: seconds of processor time of the last reading
        self._rtnetlink_events = RtnetlinkEvents(
            FIB(), self._on_links_changed, self._on_links_lost, groups=LINKS_AND_ADDRESSES
        )
        self._path_manager_events = PathManagerEvents(self._on_path_manager_event)
        self._bus = BusObserver(self._apply)
        self._read_mptcp = asyncio.Event()
        self._read_links = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []

    async def run(self) -> None:
        """Observe. Raises :class:`KernelError` where not even the links can be read."""
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        try:
            self._rtnetlink_events.start(loop)
            await self._links()
            self._subscribe(loop)
            await self._sample()
            tasks.append(asyncio.create_task(self._bus.run()))
            try:
                async with asyncio.timeout(_FIRST):
                    await self._bus.answered.wait()
            except TimeoutError:
                _log.debug("the bus does not answer yet")
            self._remember()
            self._emit(start_event(self.snapshot, self.missing))
            self._on_sample()
            tasks += [
                asyncio.create_task(work()) for work in (self._keep_sampling, self._keep_reading, self._keep_links)
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._bus.close()
            for timer in self._timers:
                timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._rtnetlink_events.close()
            self._path_manager_events.close()
            for netlink in (self._rtnetlink, self._counters, self._path_manager, self._sockets):
                await self._work(netlink.close)
            self._worker.shutdown(wait=False)

    # --- what the kernel reports

    def _subscribe(self, loop: asyncio.AbstractEventLoop) -> None:
        """Subscribe to the path manager's events; where that is refused, :attr:`missing` says why."""
        try:
            self._path_manager_events.start(loop)
        except KernelError as error:
            if error.errno in (errno.EPERM, errno.EACCES):
                self._privileged = False
                self.missing = (
                    "Without CAP_NET_ADMIN the kernel shows no subflows, MPTCP events and endpoints: "
                    "sudo nm-mptcp watch shows all."
                )
            elif error.absent:
                self.missing = f"{error.text[:1].upper()}{error.text[1:]}."
            else:
                raise

    def _on_links_changed(self, _: Changes) -> None:
        fib = self._rtnetlink_events.fib
        self._apply(links=fib.links, addresses=fib.addresses)
        self._schedule()

    def _on_links_lost(self) -> None:
        self._emit(Event(EventType.MISSED, "messages on links and addresses; reading them again", {"of": "links"}))
        self._read_links.set()

    def _on_path_manager_event(self, event: PathManagerEvent | None) -> None:
        if event is None:
            self._emit(Event(EventType.MISSED, "events of MPTCP", {"of": "mptcp"}))
        else:
            interface = self.snapshot.interface_of(event.local, event.ifindex)
            reported = from_path_manager(event, interface, self.snapshot.peer_of(event.token))
            if reported is not None:
                self._emit(reported)
        self._schedule()

    def _schedule(self) -> None:
        """After an event, read what is not reported: now, and when others may have acted on it."""
        for timer in self._timers:
            timer.cancel()
        self._read_mptcp.set()
        loop = asyncio.get_running_loop()
        self._timers = [loop.call_later(delay, self._read_mptcp.set) for delay in _AFTER_EVENT]
        self._bus.ask_after_event()

    # --- what is read from the kernel

    async def _links(self) -> None:
        for _ in range(3):
            self._rtnetlink_events.begin_dump()
            try:
                fresh = await self._work(dump_links, self._rtnetlink)
            except KernelError:
                self._rtnetlink_events.abandon_dump()
                raise
            if self._rtnetlink_events.end_dump(fresh):
                break
        fib = self._rtnetlink_events.fib
        self._apply(links=fib.links, addresses=fib.addresses)

    async def _keep_links(self) -> None:
        while True:
            await self._read_links.wait()
            self._read_links.clear()
            await self._links()
            await asyncio.sleep(_PAUSE)

    async def _keep_reading(self) -> None:
        while True:
            await self._read_mptcp.wait()
            self._read_mptcp.clear()
            try:
                self._apply(**await self._work(self._mptcp))
            except KernelError as error:
                _log.debug("%s", error)  # the next reading may succeed
            await asyncio.sleep(max(_PAUSE, self._cost / _SHARE))

    async def _keep_sampling(self) -> None:
        due = time.monotonic()
        while True:
            began = time.monotonic()
            due = max(due + self._interval, began)
            await asyncio.sleep(due - began)
            try:
                await self._sample()
            except KernelError as error:
                _log.debug("%s", error)
            self._on_sample()
            due += max(0.0, self._cost / _SHARE - self._interval)

    async def _sample(self) -> None:
        """Read all counters."""
        now, found = await self._work(self._measure)
        self._apply(**found)
        self.traffic.add(self.snapshot, now)

    def _measure(self) -> tuple[float, dict[str, Any]]:
        """What is read each interval, and the monotonic time of its counters; on the worker thread.

        Endpoints come first: a process that changes one blocks all that read them, and counters must be of one moment.
        """
        found = self._mptcp()
        now = time.monotonic()
        found["counters"] = self._counters.links()
        return now, found

    def _mptcp(self) -> dict[str, Any]:
        """Endpoints and subflows, as far as they are visible; on the worker thread."""
        if not self._privileged:
            return {}
        began = time.thread_time()
        found: dict[str, Any] = {}
        try:
            found["endpoints"] = self._path_manager.endpoints()
        except KernelError as error:
            if not error.absent:  # a kernel without MPTCP
                raise
        found["subflows"] = self._sockets.subflows()
        self._cost = time.thread_time() - began
        return found

    async def _work(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *arguments)

    # --- the snapshot

    def _apply(self, **changes: Any) -> None:
        """Change fields of the snapshot, and report the difference."""
        before, self.snapshot = self.snapshot, replace(self.snapshot, **changes)
        for event in differences(before, self.snapshot):
            self._emit(event)
            if event.type is not EventType.PATH:
                self._bus.ask()  # its decision on this
        if self._bus.answered.is_set():
            self._remember()

    def _remember(self) -> None:
        self.shown |= uplinks(self.snapshot)

    def _emit(self, event: Event) -> None:
        self._on_event(replace(event, time=time.time()))
