# SPDX-License-Identifier: GPL-2.0-or-later
"""The service: an engine fed by NetworkManager's signals and the kernel's, and our D-Bus interface beside it.

It stays up whatever goes: the bus, NetworkManager, a refused name. What it knew counts until it knows better.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from ..config.files import ConfigError, ConfigurationFiles
from ..config.settings import Config
from ..dbus.connection import Bus, BusError, Signal
from ..dbus.names import NAME
from ..dbus.polkit import authorize
from ..engine.loop import Engine
from ..engine.record_file import Record, StateError
from ..journal import Event, log_fields
from ..kernel.access import KernelAccess
from ..kernel.errors import KernelError
from ..model.state import NetworkManager
from ..networkmanager.client import Client
from . import sd_notify
from .interface import Service
from .path_objects import Objects
from .queries import Queries
from .shared_answer import SharedAnswer

_log = logging.getLogger(__name__)

#: Seconds between two tries to reach a bus that is away; doubled up to the second.
_RETRY = (0.2, 5.0)

#: logind's interface (``org.freedesktop.login1(5)``), on the name without its last part.
_LOGIN = "org.freedesktop.login1.Manager"

#: Seconds that the first look waits for the bus and for NetworkManager: then links are looked after without them.
_FIRST_WORD = 2.5

#: Seconds that ``Sync`` waits for what NetworkManager is being asked; the dispatcher script waits 2 s for all.
_SETTLE = 1.0


class Daemon:
    """The whole service; :meth:`run` ends at SIGTERM or SIGINT and leaves working paths behind."""

    def __init__(self, record: Record, config: Config, configuration: ConfigurationFiles) -> None:
        self._record = record
        self._configuration = configuration
        self._kernel = KernelAccess(endpoints_max=record.contents.endpoints_max)
        self._engine = Engine(
            self._kernel,
            self._networkmanager,
            record,
            config=config,
            before_recheck=self._ask_again,
            after_recheck=self._refresh_queries,
            on_view=self._show,
        )
        self._queries = Queries(self._engine, self._kernel, record, on_troubles=self._show)
        self._asking: asyncio.Task[bool] | None = None
        self._client: Client | None = None
        self._objects: Objects | None = None
        self._asked = asyncio.Event()  #: NetworkManager was asked once, or cannot be
        self._shown = SharedAnswer(self._status)
        self._ready = False
        self._turn = asyncio.Lock()  #: of the one that reads the configuration
        self._beside: set[asyncio.Task[None]] = set()

    async def run(self, hung_up: Sequence[int] = ()) -> None:
        """Work until told to stop. Raises :class:`KernelError` when the kernel cannot be watched at all.

        ``hung_up``: what came of SIGHUP before, since the configuration was read.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        if hung_up:
            self._hang_up()
        await self._kernel.watch(self._engine.on_kernel_change, self._engine.on_path_manager_event)
        stopped: asyncio.Task[object] = asyncio.create_task(stop.wait())
        asked: asyncio.Task[object] = asyncio.create_task(self._asked.wait())
        tasks = [stopped, asked, asyncio.create_task(self._follow_bus())]
        try:
            await asyncio.wait((stopped, asked), timeout=_FIRST_WORD, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            tasks.remove(asked)
            tasks += [asyncio.create_task(self._engine.run()), asyncio.create_task(self._keep_alive())]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()
        finally:
            sd_notify.notify("STOPPING=1")
            if self._client is not None:
                self._client.close()
            self._queries.close()
            for task in (*tasks, *self._beside):
                task.cancel()
            await asyncio.gather(*tasks, *self._beside, return_exceptions=True)
            await self._kernel.close()
        _log.info("stopped; endpoints, rules and routes stay as they are")

    def _networkmanager(self) -> NetworkManager:
        return self._client.state if self._client else NetworkManager()

    def _ask_again(self) -> None:
        """Read the applied connections again, beside everything else: no signal tells of a reapply."""
        if self._client is not None and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._client.refresh_profiles())

    def _refresh_queries(self) -> None:
        self._queries.refresh()

    def _show(self) -> None:
        """What was decided may have changed: those who follow our objects are told."""
        if self._objects is not None:
            self._objects.changed()

    async def _keep_alive(self) -> None:
        """Tell the service manager that we are ready, and from then on that the loop turns."""
        await self._engine.first_convergence.wait()
        self._ready = True
        await sd_notify.announce("READY=1")
        _log.info("ready")
        interval = sd_notify.watchdog_interval()
        while True:
            if interval is None:
                await asyncio.Event().wait()
            await asyncio.sleep(interval or 0)
            sd_notify.notify("WATCHDOG=1")

    def _hang_up(self) -> None:
        """SIGHUP: read the configuration again; what comes of it is in the log."""

        async def reload() -> None:
            with contextlib.suppress(ConfigError, KernelError, StateError):
                await self._reload()

        self._later(reload())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Have it done beside everything else; it ends with the service."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _reload(self) -> None:
        """Read the configuration again; one that is no good changes nothing.

        Raises :class:`ConfigError`, and what a look at the kernel raises.
        """
        async with self._turn:
            # A manager that is too busy to hear it need not know.
            told = self._ready and sd_notify.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                config = await asyncio.get_running_loop().run_in_executor(None, self._configuration.load)
                self._engine.configure(config)
                _log.info("the configuration was read again", extra=log_fields(Event.CONFIGURATION_READ))
                await self._engine.converge()
            except ConfigError as error:
                _log.error(
                    "%s; the configuration stays as it was",
                    error,
                    extra=log_fields(Event.CONFIGURATION_REFUSED, reason=error),
                )
                raise
            except (KernelError, StateError) as error:
                _log.warning("%s", error)
                raise
            finally:
                if told and not sd_notify.notify("READY=1"):
                    self._later(sd_notify.announce("READY=1"))

    async def _follow_bus(self) -> None:
        """Be on the bus whenever there is one; says once that it is away, and once that it is back."""
        delay, longest = _RETRY
        told = False
        while True:
            bus = Bus()
            try:
                await bus.connect()
                if self._client is None:
                    self._client = Client(bus, self._engine.wake, on_strength=self._engine.on_signal_strength)
                    await self._client.start()
                else:
                    await self._client.attach(bus)
                await self._follow_sleep(bus)
                await self._serve(bus)
                if told:
                    _log.info("the system bus is back")
                told, delay = False, _RETRY[0]
                self._asked.set()
                self._engine.wake()
                why = await bus.lost
            except BusError as error:
                why = str(error)
            except Exception as error:
                why = f"following the bus failed: {type(error).__name__}"
                _log.log(logging.DEBUG if told else logging.ERROR, "following the bus failed", exc_info=True)
            finally:
                if self._objects is not None:
                    self._objects.close()
                    self._objects = None
                bus.close()
            self._asked.set()
            if not told:
                told = True
                _log.warning("%s; everything stays as it is, trying again every %g s at the latest", why, longest)
            self._engine.wake()
            await asyncio.sleep(delay)
            delay = min(delay * 2, longest)

    async def _follow_sleep(self, bus: Bus) -> None:
        """After the machine slept everything is looked at afresh; going to sleep, NetworkManager takes links down itself."""

        def handle(signal: Signal) -> None:
            if (signal.interface, signal.member) == (_LOGIN, "PrepareForSleep") and list(signal.body) == [False]:
                self._engine.on_resume()

        bus.on_signal(handle)
        await bus.add_match(
            f"type='signal',sender='{_LOGIN.rpartition('.')[0]}',interface='{_LOGIN}',member='PrepareForSleep'"
        )

    async def _serve(self, bus: Bus) -> None:
        """Offer our interface; without it the service still does its work."""
        service = Service(
            sync=self._sync,
            status=self._shown.get,
            clear=self._engine.clear,
            clear_all=partial(self._engine.clear, force=True),
            resume=self._engine.resume,
            reload=self._reload,
            set_mode=self._engine.set_mode,
            explain=self._queries.explain,
            authorize=partial(authorize, bus),
        )
        self._objects = Objects(
            bus,
            service,
            lambda: self._engine.view,
            lambda: self._record.contents,
            lambda: self._queries.troubles,
            lambda: self._engine.paused,
        )
        try:
            if not await bus.request_name(NAME):
                _log.error(
                    "the name %s is taken on the bus: another nm-mptcp runs; dispatcher scripts will talk to it", NAME
                )
        except BusError as error:
            _log.error(
                "cannot take the name %s on the bus (%s): is share/dbus-1/system.d/%s.conf installed?"
                " Dispatcher scripts and 'nm-mptcp apply' cannot reach this service",
                NAME,
                error,
                NAME,
            )

    async def _sync(self) -> None:
        """Look now: at what NetworkManager has said so far, and at what a reapply may have changed."""
        if self._client is not None:
            with contextlib.suppress(BusError):
                await self._client.settled(_SETTLE)
                await self._client.refresh_profiles(_SETTLE)
        await self._engine.converge(thorough=True)

    async def _status(self) -> str:
        """The status document as JSON."""
        if self._client is not None:
            await self._client.probe()
        return json.dumps(await self._queries.status(service=True) or {})


#: Seconds after which the loop gives way to the netlink thread and back. Python's 5 ms are longer than a link's loss may
#: take to be acted on, and a burst of NetworkManager's signals keeps the loop busy for more than that.
_SWITCH = 0.0005

#: How many objects more are made than given up before Python looks for garbage. With its own 700 it does so in nearly every
#: look, now and then among all that is known of the kernel (5 ms with 10,000 routes), and a link's loss waits for it. What
#: is really garbage, objects that hold each other, is rare here.
_GARBAGE = 20_000


def run(record: Record, config: Config, configuration: ConfigurationFiles, hung_up: Sequence[int] = ()) -> None:
    """Run the service in this process until a signal ends it.

    ``configuration`` is read again at each reload, and at once where ``hung_up`` has something.
    """
    sys.setswitchinterval(_SWITCH)
    gc.set_threshold(_GARBAGE)

    async def main() -> None:
        await Daemon(record, config, configuration).run(hung_up)

    asyncio.run(main())
