# SPDX-License-Identifier: GPL-2.0-or-later
"""Gathers what there is and tells what happens; asks and listens only, and writes nothing.

Links and addresses are told by the kernel, subflows and their end by the path manager; of endpoints nobody tells, so they
are asked for after everything else that happens, and once an interval. What nm-mptcp decided the service says; where there
is none, NetworkManager is asked for its profiles.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ..dbus.connection import DAEMON, Bus, BusError, Signal
from ..dbus.names import INTERFACE, NAME, PATH
from ..kernel.errors import KernelError
from ..kernel.fib import FIB, Changes
from ..kernel.link_stats import LinkStats
from ..kernel.monitor import LINKS_AND_ADDRESSES, Monitor, dump_links
from ..kernel.path_manager import PathManager
from ..kernel.path_manager_events import PathManagerEvent, PathManagerEvents
from ..kernel.rtnetlink import Rtnetlink
from ..kernel.sock_diag import Sockets
from ..model.device_types import kind_of
from ..networkmanager.client import Client
from .events import Happening, Name, of_event
from .scene import uplinks
from .snapshot import DeviceView, Look, devices_of, differences, paths_of
from .traffic import Traffic

_log = logging.getLogger(__name__)

#: Seconds after something happened at which endpoints and subflows are looked at again: what follows from it comes later.
_AFTER = (0.05, 0.3)
#: ... and at which the service is asked again.
_ASK_AFTER = (0.1, 1.1)
#: ... when it says itself that something changed.
_ASK_AFTER_SIGNAL = 0.2

#: Seconds between two looks, or two questions, at least.
_PAUSE = 0.04

#: A look may take this part of the processor's time, however many sockets there are.
_SHARE = 0.05

#: Seconds after which the service is asked again though nothing happened; there is not a signal for everything.
_ASK = 2.0

#: Seconds until a lost bus is tried again, and that the first answer is waited for.
_RETRY = 3.0
_FIRST = 2.0


class Observer:
    """Watches until it is cancelled; :attr:`look` and :attr:`traffic` are what it knows now.

    ``on_happening`` is called for each thing that happens, ``on_sample`` after each interval (seconds) when counters were
    read.
    """

    def __init__(
        self, on_happening: Callable[[Happening], None], on_sample: Callable[[], None], *, interval: float = 1.0
    ) -> None:
        self.look = Look()
        self.traffic = Traffic()
        self.missing = ""  #: what cannot be seen, and why: one line
        #: The interfaces that were uplinks at any time: one that is lost is still to be seen.
        self.shown: frozenset[str] = frozenset()
        self._on_happening = on_happening
        self._on_sample = on_sample
        self._interval = interval
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._rtnetlink, self._counters = Rtnetlink(), LinkStats()
        self._path_manager, self._sockets = PathManager(), Sockets()
        self._privileged = True
        self._cost = 0.0  #: seconds of the processor's time that the last look took
        self._monitor = Monitor(FIB(), self._changed, self._links_lost, groups=LINKS_AND_ADDRESSES)
        self._events = PathManagerEvents(self._happened)
        self._relook = asyncio.Event()
        self._links_stale = asyncio.Event()
        self._ask = asyncio.Event()
        self._answered = asyncio.Event()  #: the bus was asked once
        self._timers: list[asyncio.TimerHandle] = []
        self._asking: asyncio.TimerHandle | None = None  #: because of a signal of the service's

    async def run(self) -> None:
        """Watch. Raises :class:`KernelError` where not even the links can be seen."""
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        try:
            self._monitor.start(loop)
            await self._look_at_links()
            self._listen(loop)
            await self._sample()
            tasks.append(asyncio.create_task(self._follow_bus()))
            try:
                async with asyncio.timeout(_FIRST):
                    await self._answered.wait()
            except TimeoutError:
                _log.debug("the bus does not answer yet")
            self._remember()
            self._tell(Happening(Name.START, self._start_words(), self._start_facts()))
            self._on_sample()
            tasks += [
                asyncio.create_task(work()) for work in (self._keep_sampling, self._keep_looking, self._keep_links)
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for timer in (*self._timers, *([self._asking] if self._asking else [])):
                timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._monitor.close()
            self._events.close()
            for netlink in (self._rtnetlink, self._counters, self._path_manager, self._sockets):
                await self._work(netlink.close)
            self._worker.shutdown(wait=False)

    # --- the kernel

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Subscribe to the path manager's events; without the right to, say what cannot be seen."""
        try:
            self._events.start(loop)
        except KernelError as error:
            if error.errno in (errno.EPERM, errno.EACCES):
                self._privileged = False
                self.missing = (
                    "Without CAP_NET_ADMIN the kernel tells nothing of subflows, MPTCP events and endpoints: "
                    "sudo nm-mptcp watch shows all."
                )
            elif error.absent:
                self.missing = f"{error.text[:1].upper()}{error.text[1:]}."
            else:
                raise

    def _changed(self, _: Changes) -> None:
        fib = self._monitor.fib
        self._apply(links=fib.links, addresses=fib.addresses)
        self._poke()

    def _links_lost(self) -> None:
        """Events of links were lost: all are looked at."""
        self._tell(Happening(Name.MISSED, "links and addresses are looked at again", {"of": "links"}))
        self._links_stale.set()

    def _happened(self, event: PathManagerEvent | None) -> None:
        if event is None:
            self._tell(Happening(Name.MISSED, "some of MPTCP's events", {"of": "mptcp"}))
        else:
            interface = self.look.interface_of(event.local, event.ifindex)
            happening = of_event(event, interface, self.look.peer_of(event.token))
            if happening is not None:
                self._tell(happening)
        self._poke()

    def _poke(self) -> None:
        """Something happened: look at what is not told of, now and when others have acted on it."""
        loop = asyncio.get_running_loop()
        for timer in self._timers:
            timer.cancel()
        self._relook.set()
        self._ask.set()
        self._timers = [loop.call_later(delay, self._relook.set) for delay in _AFTER]
        self._timers += [loop.call_later(delay, self._ask.set) for delay in _ASK_AFTER]

    async def _look_at_links(self) -> None:
        for _ in range(3):
            self._monitor.begin_dump()
            try:
                fresh = await self._work(dump_links, self._rtnetlink)
            except KernelError:
                self._monitor.abandon_dump()
                raise
            if self._monitor.end_dump(fresh):
                break
        fib = self._monitor.fib
        self._apply(links=fib.links, addresses=fib.addresses)

    async def _keep_links(self) -> None:
        while True:
            await self._links_stale.wait()
            self._links_stale.clear()
            await self._look_at_links()
            await asyncio.sleep(_PAUSE)

    async def _keep_looking(self) -> None:
        while True:
            await self._relook.wait()
            self._relook.clear()
            try:
                self._apply(**await self._work(self._mptcp))
            except KernelError as error:
                _log.debug("%s", error)  # the next look may have more luck
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
        self.traffic.add(self.look, now)

    def _measure(self) -> tuple[float, dict[str, Any]]:
        """Everything that is read each interval, and when its counters were; on the worker thread.

        Endpoints come first: who changes one holds up all who ask for them, and counters must be of one moment.
        """
        found = self._mptcp()
        now = time.monotonic()
        found["counters"] = self._counters.links()
        return now, found

    def _mptcp(self) -> dict[str, Any]:
        """Endpoints and subflows, as far as they may be seen; on the worker thread."""
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

    # --- the bus

    async def _follow_bus(self) -> None:
        """Be on the bus whenever there is one."""
        while True:
            bus = Bus()
            asking: asyncio.Task[None] | None = None
            try:
                await bus.connect()
                bus.on_signal(self._signalled)
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
            self._answered.set()
            await asyncio.sleep(_RETRY)

    def _signalled(self, signal: Signal) -> None:
        """The service came, went, or says that something changed."""
        if signal.interface == DAEMON and signal.member == "NameOwnerChanged":
            self._ask.set()
        elif signal.path.startswith(PATH) and (
            self._asking is None or self._asking.when() < asyncio.get_running_loop().time()
        ):
            # Its answer may be what makes it signal: so not at once, and several signals together.
            self._asking = asyncio.get_running_loop().call_later(_ASK_AFTER_SIGNAL, self._ask.set)

    async def _keep_asking(self, bus: Bus) -> None:
        """Ask the service; where there is none, NetworkManager."""
        client: Client | None = None
        try:
            while True:
                self._ask.clear()
                told = await self._status(bus)
                if told is not None:
                    self._apply(**told)
                else:
                    if client is None:
                        client = Client(bus, self._ask.set)
                        await client.start()
                    self._apply(
                        service=False,
                        paths=None,
                        devices=_devices(client),
                        networkmanager=client.state.running,
                        version=client.state.version,
                    )
                self._answered.set()
                await asyncio.sleep(_PAUSE)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ASK):
                        await self._ask.wait()
        finally:
            if client is not None:
                client.close()

    async def _status(self, bus: Bus) -> dict[str, Any] | None:
        """What the service says; None where there is none, or it does not answer."""
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
            _log.debug("the service's status makes no sense: %r", error)
        return None

    # --- what is known

    def _apply(self, **changes: Any) -> None:
        """Something new is known: tell how it differs from what was known before."""
        before, self.look = self.look, replace(self.look, **changes)
        for happening in differences(before, self.look):
            self._tell(happening)
            if happening.name is not Name.PATH:
                self._ask.set()  # the service will have more to say of it
        if self._answered.is_set():
            self._remember()

    def _remember(self) -> None:
        self.shown |= uplinks(self.look)

    def _tell(self, happening: Happening) -> None:
        self._on_happening(replace(happening, time=time.time()))

    def _start_words(self) -> str:
        look = self.look
        service = "the service runs" if look.service else "there is no service"
        manager = f"NetworkManager {look.version}".strip() if look.networkmanager else "no NetworkManager"
        return f"{service}, {manager}"

    def _start_facts(self) -> dict[str, object]:
        look = self.look
        return {
            "service": bool(look.service),
            "networkmanager": look.version if look.networkmanager else None,
            "missing": self.missing or None,
            "links": [
                {
                    "interface": link.name,
                    "up": link.up,
                    "carrier": link.carrier,
                    "addresses": [address.address for address in look.addresses.get(link.index, ())],
                }
                for link in look.links.values()
                if not link.loopback
            ],
            "endpoints": None
            if look.endpoints is None
            else [
                {
                    "interface": look.interface_of(endpoint.address, endpoint.ifindex),
                    "address": endpoint.address,
                    "endpoint_id": endpoint.id,
                }
                for endpoint in look.endpoints
            ],
            "subflows": None
            if look.subflows is None
            else [
                {
                    "token": subflow.token,
                    "interface": look.interface_of(subflow.local, subflow.ifindex),
                    "address": subflow.local,
                    "port": subflow.local_port,
                    "peer": subflow.remote,
                    "peer_port": subflow.remote_port,
                    "backup": subflow.backup,
                }
                for subflow in look.subflows
            ],
        }


def _devices(client: Client) -> tuple[DeviceView, ...]:
    """What NetworkManager says of the devices that it manages."""
    return tuple(
        DeviceView(device.ip_interface or device.interface, device.profile.id, kind_of(device).name)
        for device in client.state.devices
        if device.managed and device.profile
    )
