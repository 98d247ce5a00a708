# SPDX-License-Identifier: GPL-2.0-or-later
"""The service: the engine, driven by events of NetworkManager and the kernel, and our D-Bus interface.

It keeps running without the bus, NetworkManager or its bus name, and keeps the last known state until there is a newer one.
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

#: Seconds between two attempts to connect to the bus, doubled with each, and their maximum.
_RETRY = (0.2, 5.0)

#: logind's interface (``org.freedesktop.login1(5)``); its bus name is the same without the last part.
_LOGIN = "org.freedesktop.login1.Manager"

#: Seconds that the first convergence waits for the bus and NetworkManager; after that it starts without them.
_START_TIMEOUT = 2.5

#: Seconds that ``Sync`` waits for replies of NetworkManager; the dispatcher script waits 2 s for the whole call.
_SETTLE = 1.0


class Daemon:
    """The service. :meth:`run` ends at SIGTERM or SIGINT, and leaves endpoints, rules and routes as they are."""

    def __init__(self, record: Record, config: Config, configuration: ConfigurationFiles) -> None:
        self._record = record
        self._configuration = configuration
        self._kernel = KernelAccess(endpoints_max=record.contents.endpoints_max)
        self._engine = Engine(
            self._kernel,
            self._networkmanager,
            record,
            config=config,
            before_recheck=self._refresh_profiles,
            after_recheck=self._refresh_queries,
            on_view=self._show,
            on_suspicion=self._check_connectivity,
        )
        self._queries = Queries(self._engine, self._kernel, record, on_troubles=self._show)
        self._asking: asyncio.Task[bool] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._objects: Objects | None = None
        self._asked = asyncio.Event()  #: NetworkManager's state was read once, or cannot be
        self._shown = SharedAnswer(self._status)
        self._ready = False
        self._turn = asyncio.Lock()  #: held while the configuration is read
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, hung_up: Sequence[int] = ()) -> None:
        """Run until SIGTERM or SIGINT. Raises :class:`KernelError` if the kernel's events cannot be subscribed to.

        ``hung_up``: the SIGHUPs received since the configuration was read; if there are any it is read again.
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
            await asyncio.wait((stopped, asked), timeout=_START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
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
            for task in (*tasks, *self._background):
                task.cancel()
            await asyncio.gather(*tasks, *self._background, return_exceptions=True)
            await self._kernel.close()
        _log.info("stopped; endpoints, rules and routes stay as they are")

    def _networkmanager(self) -> NetworkManager:
        return self._client.state if self._client else NetworkManager()

    def _refresh_profiles(self) -> None:
        """Read the applied connections again, in the background: NetworkManager does not signal a reapply."""
        if self._client is not None and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._client.refresh_profiles())

    def _check_connectivity(self) -> None:
        """A link may be silent: NetworkManager is to find out as well, as far as it checks, and to decide about DNS."""
        if self._client is not None and (self._checking is None or self._checking.done()):
            self._checking = asyncio.create_task(self._client.check_connectivity())

    def _refresh_queries(self) -> None:
        self._queries.refresh()

    def _show(self) -> None:
        """Publish a decision that may have changed."""
        if self._objects is not None:
            self._objects.changed()

    async def _keep_alive(self) -> None:
        """Notify the service manager of readiness, and then of each watchdog interval."""
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
        """SIGHUP: read the configuration again; the result is logged."""

        async def reload() -> None:
            with contextlib.suppress(ConfigError, KernelError, StateError):
                await self._reload()

        self._in_background(reload())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task that is cancelled when the service ends."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _reload(self) -> None:
        """Read the configuration again; an invalid one changes nothing.

        Raises :class:`ConfigError` for an invalid one, and what :meth:`Engine.converge` raises.
        """
        async with self._turn:
            # A service manager that is too busy to receive it is not notified.
            notified = self._ready and sd_notify.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                config = await asyncio.get_running_loop().run_in_executor(None, self._configuration.load)
                self._engine.configure(config)
                _log.info("configuration reloaded", extra=log_fields(Event.CONFIGURATION_READ))
                await self._engine.converge()
            except ConfigError as error:
                _log.error(
                    "%s; keeping the current configuration",
                    error,
                    extra=log_fields(Event.CONFIGURATION_REFUSED, reason=error),
                )
                raise
            except (KernelError, StateError) as error:
                _log.warning("%s", error)
                raise
            finally:
                if notified and not sd_notify.notify("READY=1"):
                    self._in_background(sd_notify.announce("READY=1"))

    async def _follow_bus(self) -> None:
        """Stay connected to the bus; its loss and return are logged once."""
        delay, longest = _RETRY
        logged = False
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
                if logged:
                    _log.info("connected to the system bus again")
                logged, delay = False, _RETRY[0]
                self._asked.set()
                self._engine.wake()
                why = await bus.lost
            except BusError as error:
                why = str(error)
            except Exception as error:
                why = f"following the bus failed: {type(error).__name__}"
                _log.log(logging.DEBUG if logged else logging.ERROR, "following the bus failed", exc_info=True)
            finally:
                if self._objects is not None:
                    self._objects.close()
                    self._objects = None
                bus.close()
            self._asked.set()
            if not logged:
                logged = True
                _log.warning("%s; keeping current paths; retrying within %g s", why, longest)
            self._engine.wake()
            await asyncio.sleep(delay)
            delay = min(delay * 2, longest)

    async def _follow_sleep(self, bus: Bus) -> None:
        """Subscribe to logind's signal after sleep. None is needed before: NetworkManager itself takes links down."""

        def handle(signal: Signal) -> None:
            if (signal.interface, signal.member) == (_LOGIN, "PrepareForSleep") and list(signal.body) == [False]:
                self._engine.on_resume()

        bus.on_signal(handle)
        await bus.add_match(
            f"type='signal',sender='{_LOGIN.rpartition('.')[0]}',interface='{_LOGIN}',member='PrepareForSleep'"
        )

    async def _serve(self, bus: Bus) -> None:
        """Export our interface and request our name; without them the service still works."""
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
                _log.error("the bus name %s has another owner: dispatcher scripts call that nm-mptcp", NAME)
        except BusError as error:
            _log.error(
                "cannot own the bus name %s (%s): is share/dbus-1/system.d/%s.conf installed?"
                " Dispatcher scripts and 'nm-mptcp apply' cannot reach this service",
                NAME,
                error,
                NAME,
            )

    async def _sync(self) -> None:
        """Converge with NetworkManager's current state, also with what a reapply may have changed."""
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


#: Seconds after which Python switches between the loop and the netlink thread. Its default of 5 ms is longer than the reaction
#: to a lost link may take, and a burst of NetworkManager's signals keeps the loop busy for longer than that.
_SWITCH_INTERVAL = 0.0005

#: Net allocations of objects between two garbage collections. With Python's default of 700 there is one in nearly every
#: convergence, at times of the whole state of the kernel (5 ms with 10,000 routes), and a lost link waits for it. Reference
#: cycles are rare here.
_GC_THRESHOLD = 20_000


def run(record: Record, config: Config, configuration: ConfigurationFiles, hung_up: Sequence[int] = ()) -> None:
    """Run the service in this process until SIGTERM or SIGINT. Raises what :meth:`Daemon.run` raises.

    ``configuration`` is read again at each reload, and at once if ``hung_up`` has any signals.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.set_threshold(_GC_THRESHOLD)

    async def main() -> None:
        await Daemon(record, config, configuration).run(hung_up)

    asyncio.run(main())
