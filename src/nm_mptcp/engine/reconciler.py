# SPDX-License-Identifier: GPL-2.0-or-later
"""One convergence: read the kernel's state, decide, plan, write, and again until nothing is left to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace

from ..config.settings import DEFAULTS, Config
from ..fault_log import FaultLog
from ..journal import Event, log_fields
from ..kernel.access import KernelAccess
from ..kernel.errors import KernelError
from ..model.record import Contents, adopted, decided, seen, since
from ..model.state import (
    Desired,
    Kernel,
    Mode,
    NetworkManager,
    Numbering,
    Operation,
    Ours,
    Owner,
    Snapshot,
    TunnelBypass,
    marks_of,
)
from ..policy.decide import decide
from ..policy.plan import needed, plan, restore, urgent
from .event_log import EventLog
from .history import History
from .plan_executor import PlanExecutor
from .record_file import Record, StateError

_log = logging.getLogger(__name__)

#: How often one convergence plans again if the state changed meanwhile, before it leaves the rest to the next one.
_ROUNDS = 5

#: Routes of one link or table whose comparison would hold up the delete of a lost link's endpoint: 1,000 take some 5 ms. They
#: may have to be compared although none of them changed, as the loss may lead others into the same table.
_MANY = 1000


@dataclass(frozen=True, slots=True)
class View:
    """The snapshot and the decision of the last convergence."""

    snapshot: Snapshot
    desired: Desired
    mode: Mode = Mode.AUTO


class Reconciler:
    """Brings the kernel to the desired state, on call.

    ``networkmanager`` returns NetworkManager's current state; ``on_view`` is called whenever :attr:`view` may have changed. The
    caller holds the record's lock, so that there is only one writer (a dry run needs none).
    """

    def __init__(
        self,
        kernel: KernelAccess,
        networkmanager: Callable[[], NetworkManager],
        record: Record,
        *,
        config: Config = DEFAULTS,
        dry_run: bool = False,
        on_view: Callable[[], None] = lambda: None,
    ) -> None:
        self.view: View | None = None
        self.paused = False  #: after ``clear``: nothing is written until :meth:`resume`
        self.kept = frozenset[str]()  #: addresses whose endpoint, rules and table ``clear`` left for live connections
        self.networkmanager = networkmanager
        self._kernel = kernel
        self._record = record
        self._configured = config
        self._dry_run = dry_run
        self._on_view = on_view
        self._turn = asyncio.Lock()
        self._urgent = asyncio.Event()  #: a link was lost
        self._waits_for_connections = False
        self._compared: object = None  #: the routes that were last compared with the desired ones, by identity
        self._faults = FaultLog(_log)
        guard = record.contents.guard
        self._history = History(guarded=frozenset(guard.tunnels) if guard and guard.until is None else frozenset())
        self._executor = PlanExecutor(kernel, record.contents.ours, self._history, self._faults, self._save)
        self._events = EventLog(record.contents.guard, silent=dry_run)

    def wake(self) -> None:
        """Called when something is left to do; the loop then converges again."""

    async def converge(self, *, thorough: bool = False, loss: bool = False) -> bool:
        """Bring the kernel to the desired state, and verify it; returns whether something was written.

        ``thorough``: also read what the kernel may have changed without an event. ``loss``: read the live connections at once,
        as policy will need them. If a link is lost while operations are left, the convergence starts again with it. Raises
        :class:`KernelError` if the kernel's state cannot be read, :class:`StateError` if the record cannot be written (then no
        endpoint was added).
        """
        try:
            wrote = await self._converge(thorough=thorough, loss=loss)
        except (KernelError, StateError):
            self.wake()  # the loop retries
            raise
        if self._executor.unfinished:
            self.wake()
        return wrote

    async def _converge(self, *, thorough: bool, loss: bool) -> bool:
        async with self._turn:
            wrote = self._executor.unfinished = False
            at_once = loss
            for _ in range(_ROUNDS):
                at_once |= self._take_loss()
                kernel = await self._kernel.look(thorough=thorough and not wrote, at_once=at_once)
                at_once |= self._take_loss()
                loss |= at_once
                connections = await self._connections(at_once=at_once) if loss else None
                view, operations, whole = await self._planned(kernel, connections, at_once=at_once)
                if not operations or self._dry_run or self.paused:
                    break
                wrote_any = await self._write(operations, view, at_once=at_once)
                # The rest of a plan does not wait for its urgent operations to succeed.
                if whole and not wrote_any and not self._urgent.is_set():
                    break
                wrote, at_once = True, False
            if not operations:
                self._executor.nothing_to_do()
            self._events.paths(view.desired)
            if not self._dry_run:
                self._save()
            self._on_view()
            return wrote

    async def _planned(
        self, kernel: Kernel, connections: Mapping[frozenset[str], int] | None, *, at_once: bool
    ) -> tuple[View, tuple[Operation, ...], bool]:
        """The decision from this state, its operations, and whether these are all.

        After a loss these are first only the urgent ones, without a comparison of perhaps thousands of changed routes.
        """
        if at_once and (
            kernel.routes is not self._compared or max(map(len, kernel.routes.values()), default=0) > _MANY
        ):
            view = await self._decide(kernel, connections, hurried=True)
            if operations := urgent(view.desired, kernel, self._executor.ours):
                return view, operations, False
        view = await self._decide(kernel, connections)
        self._compared = kernel.routes
        return view, plan(view.desired, kernel, self._executor.ours), True

    async def _decide(
        self, kernel: Kernel, connections: Mapping[frozenset[str], int] | None = None, *, hurried: bool = False
    ) -> View:
        """The decision from this state, with what policy asks for."""
        networkmanager, now = self.networkmanager(), time.monotonic()
        ours = self._ours_in(kernel)
        await self._probe_neighbours(self._history.links(kernel, now), kernel, networkmanager)
        snapshot = self._history.snapshot(kernel, networkmanager, ours, connections, self.config, now)
        desired = decide(snapshot, self.config, hurried=hurried)
        needs_connections = desired.needs_connections and connections is None
        if needs_connections or desired.needs_bypass:
            if desired.needs_bypass:
                snapshot = replace(snapshot, bypass=await self._bypass(desired))
            if needs_connections:
                snapshot = replace(snapshot, connections=await self._connections())
            desired = decide(snapshot, self.config, hurried=hurried)
        if not networkmanager.running:
            desired = replace(desired, claims=desired.claims | ours.claims)
        self._executor.ours = ours = decided(ours, kernel, desired)
        self.view = View(replace(snapshot, ours=ours), desired, self.config.mode)
        self._waits_for_connections = desired.depends_on_connections
        self._history.decided(desired, time.monotonic())
        self._events.tunnels(desired)
        return self.view

    def _ours_in(self, kernel: Kernel) -> Ours:
        """What is ours, confirmed by this state."""
        return adopted(seen(self._executor.ours, kernel.endpoints), kernel, marks_of(self.config.routing.numbering))

    async def _write(self, operations: tuple[Operation, ...], view: View, *, at_once: bool) -> bool:
        """Execute the plan; see :meth:`PlanExecutor.write`."""
        try:
            return await self._executor.write(
                operations,
                view.snapshot.kernel,
                view.desired,
                unrecorded_numbers=self._executor.ours.numberings != self._record.contents.ours.numberings,
                at_once=at_once,
                lost=self._urgent.is_set,
            )
        finally:
            self._events.closed(self._kernel.closed_subflows, self._kernel.closed_connections)

    def _take_loss(self) -> bool:
        """Whether a link was lost since the last call."""
        loss = self._urgent.is_set()
        self._urgent.clear()
        return loss

    async def _probe_neighbours(self, due: Set[int], kernel: Kernel, networkmanager: NetworkManager) -> None:
        """Probe the neighbours on those of NetworkManager's links that are due, for which packets would wait."""
        names = {device.ip_interface for device in networkmanager.devices if device.profile is not None}
        links = {index for index in due if kernel.links[index].name in names}
        if links and not self._dry_run:
            try:
                await self._kernel.probe_neighbours(links)
            except KernelError as error:
                self._faults.report(
                    "neighbours", f"{error}; packets that wait for a neighbour may wait a second longer"
                )
            else:
                self._faults.clear("neighbours")

    async def _connections(self, *, at_once: bool = False) -> Mapping[frozenset[str], int] | None:
        try:
            connections = await self._kernel.connections(at_once=at_once)
        except KernelError as error:
            words = f"{error}; endpoints of lost links stay, since live connections may depend on them"
            self._faults.report("connections", words)
            return None
        self._faults.clear("connections")
        return connections

    async def _bypass(self, desired: Desired) -> TunnelBypass:
        try:
            bypass = await self._kernel.bypass(desired.tunnels)
        except KernelError as error:
            self._faults.report("bypass", f"{error}; connections that may bypass the tunnel may be closed")
            return TunnelBypass()
        self._faults.clear("bypass")
        return bypass

    def _save(self) -> None:
        paths = self.view.desired.paths if self.view else ()
        began = since(self._record.contents.since, paths, time.time())
        known = self.view.snapshot.kernel.endpoints_max if self.view else 0
        mode = self._record.contents.mode
        self._record.save(Contents(self._executor.ours, began, known, mode, self._events.guard))

    # --- requests ---

    @property
    def config(self) -> Config:
        """The settings in force: the configuration, with the mode that was chosen at run time."""
        mode = self._record.contents.mode
        return replace(self._configured, mode=mode) if mode else self._configured

    def configure(self, config: Config) -> None:
        """Use these settings from now on."""
        self._configured = config
        self.wake()

    async def set_mode(self, mode: Mode | None) -> None:
        """Set the mode until the next boot (None: the configured one), and converge. Raises what :meth:`converge` raises."""
        async with self._turn:
            self._record.save(replace(self._record.contents, mode=mode))
        words = mode or f"{self._configured.mode}, as configured"
        self.wake()
        _log.info("mode %s", words, extra=log_fields(Event.MODE, mode=self.config.mode))
        await self.converge()

    async def clear(self, *, force: bool = False) -> None:
        """Delete all that is ours, restore what was there before, and write nothing until :meth:`resume`.

        Without ``force`` what live connections depend on stays; :attr:`kept` has the addresses. Raises :class:`KernelError` if
        the kernel's state cannot be read, :class:`StateError` if the record cannot be written.
        """
        async with self._turn:
            self.paused = True
            connections = {} if force else await self._connections()
            for _ in range(_ROUNDS):
                kernel = await self._kernel.look(thorough=True)
                if not (operations := self._restoring(kernel, connections)):
                    break
                for operation, error in await self._kernel.execute(operations):
                    self._executor.failed(operation, error, kernel)
                # Once is enough, also if the kernel refused: a setting with another value now is another program's.
                self._executor.ours = replace(
                    self._executor.ours, limits={}, withdrawn=frozenset(), linkdown=frozenset(), loosened=frozenset()
                )
            ours = self._executor.ours
            left = frozenset(own for own in ours.endpoints if own.address in self.kept)
            numberings = ours.numberings if self.kept else frozenset[Numbering]()
            self._executor.ours = Ours(left, ours.claims, numberings=numberings)
            contents = self._record.contents
            self._record.save(Contents(self._executor.ours, endpoints_max=contents.endpoints_max, mode=contents.mode))
            with contextlib.suppress(KernelError):
                await self._decide(await self._kernel.look(thorough=True))
        self._on_view()

    def _restoring(self, kernel: Kernel, connections: Mapping[frozenset[str], int] | None) -> tuple[Operation, ...]:
        """The operations of :meth:`clear` from this state; sets :attr:`kept`."""
        ours = self._ours_in(kernel)
        desired = decide(Snapshot(kernel, self.networkmanager(), ours), self.config)
        ours = decided(ours, kernel, replace(desired, withdrawn=frozenset(), linkdown=ours.linkdown))
        # The endpoints that NetworkManager has adopted are its own now.
        theirs = {path.address for path in desired.paths if path.owner is Owner.NETWORKMANAGER}
        self._executor.ours = ours = replace(
            ours, endpoints=frozenset(own for own in ours.endpoints if own.port or own.address not in theirs)
        )
        self.kept = needed(kernel, ours, connections, desired.marks)
        return restore(kernel, ours, desired.marks, self.kept)

    def resume(self) -> None:
        """Work again after :meth:`clear`."""
        self.paused = False
        self.kept = frozenset()
        self._on_view()
        self.wake()
