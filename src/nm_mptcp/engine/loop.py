# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop: gather, decide, plan, apply, verify. The only place with time in it.

An event says only "look again". A burst of events is answered at its first one (an address that went away after a moment),
then coalesced; after it the kernel is looked at again at 50 ms and at 1 s, since NetworkManager may re-add endpoints
unannounced and the kernel takes some routes away without a word. In a steady state nothing is written and nothing wakes up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace

from ..config.settings import DEFAULTS, Config
from ..fault_log import FaultLog
from ..journal import LEVELS, Event, log_fields
from ..kernel.access import KernelAccess
from ..kernel.errors import KernelError
from ..kernel.fib import Changes
from ..kernel.ip_commands import closing, command
from ..kernel.path_manager_events import PathManagerEvent
from ..model.flags import names
from ..model.reasons import Reason, Why
from ..model.record import (
    Contents,
    adopted,
    decided,
    guarded,
    seen,
    since,
    with_endpoints,
    with_limits,
    with_linkdown,
    without_endpoints,
)
from ..model.state import (
    Action,
    Desired,
    Endpoint,
    Kernel,
    Limits,
    LinkdownSetting,
    Mode,
    NetworkManager,
    Numbering,
    Operation,
    Ours,
    Owner,
    Path,
    Snapshot,
    State,
    TunnelBypass,
    marks_of,
)
from ..policy import reachability
from ..policy.decide import decide
from ..policy.plan import needed, plan, restore, unrecorded, urgent
from ..report.documents import Explanation, StatusDocument
from ..report.status import LiveConnections, document
from ..service.shared_answer import PAUSE, Shared
from ..text import printable
from .address_grace import Absences
from .endpoint_retry import Refusals
from .flap_damping import Flaps
from .neighbour_probes import Arrivals
from .record import Record, StateError
from .signal_hysteresis import Key, Strengths
from .subflow_retry import Healing

_log = logging.getLogger(__name__)
_DEBUG = LEVELS["debug"]

#: How often one convergence plans again, when the world changed under it, before it leaves the rest to the next look.
_ROUNDS = 5

#: Seconds between two convergences in a storm of events; the first of a storm is answered at once.
_COALESCE = 0.01

#: Seconds in which the netlink thread has this one's turn too, so that it has sent what it is to send first.
_HEAD_START = 0.001

#: Seconds for which an address may be away. NetworkManager takes addresses away and adds them again where their order
#: changes, as with a new IPv6 prefix (``nm_platform_ip6_address_sync``); 5 ms were seen. TCP does not notice it, but to
#: delete the endpoint would close the subflows.
_AWAY = 0.02

#: Seconds after a burst at which the kernel is looked at again.
LOOKS = (0.05, 1.0)

#: Seconds before a failed look, or what the kernel refused in it, is tried again; doubled each time, up to the second.
RETRY = (0.1, 30.0)

#: Seconds after which NetworkManager's silent failure to add an endpoint is taken for one.
_OVERDUE = 0.9


#: What of the kernel may be changed by anybody without a word of it.
_UNTOLD = ("mptcp_enabled", "path_manager", "limits", "endpoints")


@dataclass(frozen=True, slots=True)
class View:
    """What the last look saw and decided."""

    snapshot: Snapshot
    desired: Desired
    mode: Mode = Mode.AUTO
    #: what keeps addresses that carry from reaching anything, by address, as far as it was asked for
    troubles: Mapping[str, Reason] = field(default_factory=dict)


class Engine:
    """Brings the kernel to what policy wants, whenever something changed.

    ``networkmanager`` is asked for what NetworkManager says at each look; ``on_look`` is called at the looks after a burst,
    to ask again what nobody is told of (a reapply), ``on_view`` whenever :attr:`view` may be another. One engine at a time
    may write: whoever makes one holds the record's lock (a dry run needs none).
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
        on_view: Callable[[], None] = lambda: None,
    ) -> None:
        self.view: View | None = None
        self.first_look = asyncio.Event()  #: it was made, or failed
        self._afresh = True
        self.paused = False  #: after ``clear``: nothing is written until :meth:`resume`
        self.kept = frozenset[str]()  #: addresses whose endpoint, rules and table ``clear`` left for live connections
        self._kernel = kernel
        self._networkmanager = networkmanager
        self._record = record
        self._ours = record.contents.ours
        self._configured = config
        self._dry_run = dry_run
        self._on_look = on_look
        self._on_view = on_view
        self._turn = asyncio.Lock()
        self._dirty = asyncio.Event()
        self._refusals = Refusals()
        self._awaited: dict[str, float] = {}
        self._flaps = Flaps()
        self._arrivals = Arrivals()
        self._absences = Absences()
        self._healing = Healing()
        self._strengths = Strengths()
        self._waits_for_connections = False
        self._urgent = asyncio.Event()
        self._addresses_lost = False
        self._failing: str | None = None  #: why the last look failed
        self._unfinished = False  #: whether the kernel refused what it should have taken
        self._retry: float | None = None  #: when to try again what failed
        self._delay = RETRY[0]
        self._told: dict[tuple[str, int], tuple[object, ...]] = {}
        self._last_id: dict[tuple[str, int], int] = {}  #: of each address the last endpoint that it had
        self._complaints = FaultLog(_log)
        self._guard = record.contents.guard
        self._cut = (0, 0)
        self._compared: object = None  #: the routes that were compared last with what is desired; it is remembered
        self._minding: asyncio.Task[None] | None = None  #: asks whether paths reach anything
        self._shown = Shared(self._view_now)
        self._standing = Shared(self._standing_now)
        self._explaining = asyncio.Lock()
        self._explains = 0

    # --- events ---

    def wake(self) -> None:
        """Something changed: look again."""
        self._dirty.set()

    def changed(self, changes: Changes) -> None:
        """The kernel told of changes; a link that was lost is not kept waiting, and what stood on an address not for long."""
        if changes.lost_links:
            self._urgent.set()
        if changes.lost_addresses:
            self._addresses_lost = True
        self._dirty.set()

    def on_path_manager_event(self, event: PathManagerEvent | None) -> None:
        """A connection or subflow came or went; None: some did, and nobody knows which."""
        wounded = event is not None and self._healing.event(event, time.monotonic())
        if self._healing.crowded:
            self._healing.keep(*self._kernel.alive)
        if wounded or self._waits_for_connections:
            self._dirty.set()

    def strength_changed(self) -> None:
        """A Wi-Fi signal became stronger or weaker: only where that means anything, look again."""
        devices = self._networkmanager().devices
        if self._strengths.moved((device.ip_interface, device.strength) for device in devices):
            self._dirty.set()

    def on_resume(self) -> None:
        """The machine slept: everything is looked at afresh, and no past is held against any link."""
        self._flaps.forget()
        self._strengths.forget()
        self._healing.forget()
        self._afresh = True
        self._urgent.set()
        self._dirty.set()

    async def run(self) -> None:
        """Converge at every change, until cancelled."""
        try:
            await self._run()
        finally:
            if self._minding is not None:
                self._minding.cancel()

    async def _run(self) -> None:
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
                await self._quiet(_AWAY)
            by_look, due = due, False
            self._dirty.clear()
            loss = self._urgent.is_set() or self._addresses_lost
            self._addresses_lost = False
            thorough, self._afresh = by_look or self._afresh, False
            wrote = await self._converge_safely(thorough=thorough, loss=loss)
            if by_look and (self._minding is None or self._minding.done()):
                # No loss waits for it.
                self._minding = loop.create_task(self._mind_troubles())
            if wrote or not by_look:
                for handle in looks:
                    handle.cancel()
                looks = [loop.call_later(delay, look) for delay in LOOKS]
            if alarm is not None:
                alarm.cancel()
            now = time.monotonic()
            dues = (
                self._flaps.next_end(now),
                self._arrivals.next_due(),
                self._absences.next_due(now),
                self._healing.next_due(now),
                self._strengths.next_end(now),
                self._refusals.next_due(now),
                self._retry,
            )
            ends = [end for end in dues if end is not None]
            alarm = loop.call_later(min(ends) - now + 0.001, self.wake) if ends else None
            await self._quiet(_COALESCE)

    async def _quiet(self, seconds: float) -> None:
        """Wait for so long, or until a link is lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._urgent.wait()

    async def _converge_safely(self, *, thorough: bool, loss: bool) -> bool:
        """One convergence; what goes wrong in it is told once, and tried again until it goes well."""
        wrote, failure = False, ""
        try:
            wrote = await self._converge(thorough=thorough or self._retry is not None, loss=loss)
        except (KernelError, StateError) as error:
            failure = str(error)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
            if self._failing is None:
                _log.exception("reconcile failed")
        self.first_look.set()
        if failure and self._failing is None:
            _log.warning("reconcile failed, retrying within %g s: %s", RETRY[1], failure)
        elif not failure and self._failing is not None:
            _log.info("reconcile works again")
        self._failing = failure or None
        self._try_again(failure or self._unfinished)
        return wrote

    def _try_again(self, needed: object) -> None:
        """Have it tried again; each time that comes of this is followed by a longer pause."""
        now = time.monotonic()
        if not needed:
            self._retry, self._delay = None, RETRY[0]
        elif self._retry is None or now >= self._retry:
            self._retry = now + self._delay
            self._delay = min(2 * self._delay, RETRY[1])

    # --- one convergence ---

    async def converge(self, *, thorough: bool = False, loss: bool = False) -> bool:
        """Bring the kernel to what is desired now, and verify it; True when something was written.

        With ``thorough`` what the kernel may have changed silently is read again; with ``loss`` it is known beforehand that
        policy will ask for the live connections, so it is not asked twice. A link that is lost while there is much to write
        does not wait for the rest: all begins anew with it. Raises :class:`KernelError` when the kernel cannot be looked at
        at all, :class:`StateError` when the record cannot be written (then no endpoint is added).
        """
        try:
            wrote = await self._converge(thorough=thorough, loss=loss)
        except (KernelError, StateError):
            self.wake()  # for the loop, which tries again
            raise
        if self._unfinished:
            self.wake()
        return wrote

    async def _converge(self, *, thorough: bool, loss: bool) -> bool:
        async with self._turn:
            wrote = self._unfinished = False
            at_once = loss
            for _ in range(_ROUNDS):
                at_once |= self._take_loss()
                kernel = await self._kernel.look(thorough=thorough and not wrote, at_once=at_once)
                at_once |= self._take_loss()
                loss |= at_once
                connections = await self._connections(at_once=at_once) if loss else None
                hurried = at_once and kernel.routes is not self._compared
                await self._decide(kernel, connections, hurried=hurried)
                operations = self._plan(kernel, hurried=hurried)
                if hurried and not operations:
                    await self._decide(kernel, connections)
                    operations = self._plan(kernel)
                if not operations or self._dry_run or self.paused:
                    break
                if not (await self._apply(operations, kernel, at_once=at_once) or self._urgent.is_set()):
                    break
                wrote, at_once = True, False
            if not operations:
                self._complaints.only("operation", frozenset())
                self._complaints.only("endpoint", self._refusals.words().keys())
            self._tell()
            self._remember()
            self._on_view()
            return wrote

    async def _decide(
        self,
        kernel: Kernel,
        connections: Mapping[frozenset[str], int] | None = None,
        *,
        hurried: bool = False,
    ) -> None:
        """Policy's view of this look; ``hurried``: of what is urgent after a loss, not of thousands of routes that changed."""
        networkmanager = self._networkmanager()
        ours = self._ours_in(kernel)
        now = time.monotonic()
        up = {index for index, link in kernel.links.items() if link.up and link.carrier}
        back = self._flaps.look(up, kernel.links.keys() - up, now)
        await self._ask_neighbours(self._arrivals.look(back, up, now), kernel, networkmanager)
        snapshot = Snapshot(
            kernel,
            networkmanager,
            ours,
            self._overdue(),
            self._refusals.words(),
            connections,
            held=self._flaps.held(now),
            subflow_retry_due=self._healing.due(now),
            weak=self._weak(kernel, networkmanager, now),
            absent=self._absences.look(kernel, networkmanager, filter(ours.owns, kernel.endpoints), now),
        )
        desired = decide(snapshot, self.config, hurried=hurried)
        asks_connections = desired.asks_connections and connections is None
        if asks_connections or desired.asks_bypass:
            if desired.asks_bypass:
                snapshot = replace(snapshot, bypass=await self._bypass(desired))
            if asks_connections:
                snapshot = replace(snapshot, connections=await self._connections())
            desired = decide(snapshot, self.config, hurried=hurried)
        if not networkmanager.running:
            desired = replace(desired, claims=desired.claims | ours.claims)
        self._ours = ours = decided(ours, kernel, desired)
        troubles = self.view.troubles if self.view else {}
        self.view = View(replace(snapshot, ours=ours), desired, self.config.mode, troubles)
        self._waits_for_connections = desired.awaits_connections
        self._await_networkmanager(desired)
        self._mind_guard(desired)
        self._refusals.keep({(path.address, path.ifindex) for path in desired.paths if path.reason.why is Why.REFUSED})

    def _plan(self, kernel: Kernel, *, hurried: bool = False) -> tuple[Operation, ...]:
        """What it takes to get where policy wants to be."""
        assert self.view is not None
        desired = self.view.desired
        if hurried:
            return urgent(desired, kernel, self._ours)
        self._compared = kernel.routes
        return plan(desired, kernel, self._ours)

    def _ours_in(self, kernel: Kernel) -> Ours:
        """What of ours this look has seen."""
        return adopted(seen(self._ours, kernel.endpoints), kernel, marks_of(self.config.routing.numbering))

    async def _ask_neighbours(self, due: Set[int], kernel: Kernel, networkmanager: NetworkManager) -> None:
        """Nothing is to wait longer than it must for the neighbours of a link of NetworkManager's that came back."""
        names = {device.ip_interface for device in networkmanager.devices if device.profile is not None}
        links = {index for index in due if kernel.links[index].name in names}
        if links and not self._dry_run:
            try:
                await self._kernel.probe_neighbours(links)
            except KernelError as error:
                self._complaints.say("neighbours", f"{error}; what waits for a neighbour may wait a second longer")
            else:
                self._complaints.right("neighbours")

    def _weak(self, kernel: Kernel, networkmanager: NetworkManager, now: float) -> frozenset[str]:
        """The addresses on a Wi-Fi whose signal is weak, by the bounds that count for each."""
        devices = [
            device
            for device in networkmanager.devices
            if device.profile is not None
            and (device.strength is not None or self._strengths.knows(device.ip_interface))
        ]
        strengths: dict[Key, int | None] = {}
        places: dict[str, Key] = {}
        index_of = {link.name: index for index, link in kernel.links.items()} if devices else {}
        for device in devices:
            assert device.profile is not None
            for address in kernel.addresses.get(index_of.get(device.ip_interface, 0), ()):
                options = self.config.for_path(
                    device,
                    profile_id=device.profile.id,
                    profile_uuid=device.profile.uuid,
                    address=address.address,
                )
                key = (device.ip_interface, options.weak_signal.value)
                strengths[key] = device.strength
                places[address.address] = key
        self._strengths.look(strengths, now)
        weak = self._strengths.weak()
        return frozenset(address for address, key in places.items() if key in weak)

    async def _connections(self, *, at_once: bool = False) -> Mapping[frozenset[str], int] | None:
        try:
            connections = await self._kernel.connections(at_once=at_once)
        except KernelError as error:
            words = f"{error}; endpoints of lost links stay, since live connections may depend on them"
            self._complaints.say("connections", words)
            return None
        self._complaints.right("connections")
        return connections

    async def _bypass(self, desired: Desired) -> TunnelBypass:
        try:
            bypass = await self._kernel.bypass(desired.tunnels)
        except KernelError as error:
            self._complaints.say("bypass", f"{error}; connections that stand beside the tunnel may be cut")
            return TunnelBypass()
        self._complaints.right("bypass")
        return bypass

    def _take_loss(self) -> bool:
        """Whether a link was lost since the last time."""
        loss = self._urgent.is_set()
        self._urgent.clear()
        return loss

    async def _apply(self, operations: tuple[Operation, ...], kernel: Kernel, *, at_once: bool) -> bool:
        """Write, until another link is lost; the record comes before what it has to tell of, while a lost link's endpoints go
        already: with ``at_once`` the first of them before anything else is done.

        False when nothing of it succeeded: then trying again at once is of no use.
        """
        was = self._ours
        written = [
            op.value
            for op in operations
            if op.action in (Action.ADD, Action.SET_FLAGS) and isinstance(op.value, Endpoint)
        ]
        self._ours = with_endpoints(self._ours, written)
        settings = [op.value for op in operations if isinstance(op.value, LinkdownSetting)]
        self._ours = with_linkdown(self._ours, settings)
        limits = [op.value for op in operations if isinstance(op.value, Limits)]
        for wanted in limits:
            self._ours = with_limits(self._ours, kernel.limits, wanted)
        taken = self.view.desired.withdrawn if self.view else frozenset()
        numbered = self._ours.numberings != self._record.contents.ours.numberings
        first = unrecorded(operations, taken)
        ahead = min(first, 1) if at_once else 0
        failures = await self._kernel.execute(operations[:ahead], at_once=True)
        lost = self._urgent.is_set
        going = asyncio.ensure_future(self._kernel.execute_until(operations[ahead:first], interrupted=lost))
        try:
            if written or settings or limits or taken or numbered:
                if first > ahead:
                    await asyncio.sleep(_HEAD_START)
                self._save()
        except StateError:
            self._ours = was  # nothing of it will be done
            raise
        finally:
            failed, left = await going
            failures += failed
        renewed = self.view.desired.renewed if self.view else frozenset()
        for address in renewed:
            self._healing.tried(address, time.monotonic())
            _log.info(
                "%s: its subflows died by an error; the endpoint is tried again",
                address,
                extra=log_fields(Event.PATH_RENEWED, address=address),
            )
        for operation in operations:
            value = operation.value
            if operation.action is Action.ADD and isinstance(value, Endpoint) and value.address not in renewed:
                self._healing.came_anew(value.address)
        if left:
            left += operations[first:]
        else:
            failed, left = await self._kernel.execute_until(operations[first:], interrupted=lost)
            failures += failed
        self._count_cut()
        for operation, error in failures:
            self._failed(operation, error, kernel)
        refusals = [operation for operation, error in failures if not _is_ordinary(operation, error)]
        # An endpoint that is refused has its own time: it may be somebody else's will.
        self._unfinished = any(_subject(operation)[0] == "operation" for operation in refusals)
        self._complaints.only("operation", {_subject(operation)[1] for operation in refusals})
        self._complaints.only("endpoint", self._refusals.words().keys())
        unwritten = [op for op, _ in failures] + list(left)
        refused = [op.value for op in unwritten if op.action is Action.ADD and isinstance(op.value, Endpoint)]
        if refused:
            self._ours = without_endpoints(self._ours, refused)
        # A setting that somebody else changed meanwhile is as much or as little ours as it was before.
        kept = {(op.value.family, op.value.ifindex) for op in unwritten if isinstance(op.value, LinkdownSetting)}
        if kept:
            self._ours = replace(self._ours, linkdown=(self._ours.linkdown - kept) | (was.linkdown & kept))
        if any(isinstance(op.value, Limits) for op in left):
            self._ours = replace(self._ours, limits=was.limits)
        for endpoint in written:
            if endpoint not in refused:
                self._refusals.accepted(endpoint.place)
        if _log.isEnabledFor(_DEBUG):
            for operation in operations[: len(operations) - len(left)]:
                _log.debug("%s", command(operation, kernel.links))
        return len(unwritten) < len(operations)

    def _count_cut(self) -> None:
        """Note, and say, what the guard has cut since the last time."""
        cut = (self._kernel.closed_subflows, self._kernel.closed_connections)
        new = (cut[0] - self._cut[0], cut[1] - self._cut[1])
        self._cut = cut
        if self._guard is not None and any(new):
            self._guard = self._guard.counted(*new)
            extra = log_fields(Event.VPN_GUARD, cut_subflows=new[0], cut_connections=new[1])
            _log.info("VPN guard: %d subflows closed, %d connections had no other", *new, extra=extra)

    def _mind_guard(self, desired: Desired) -> None:
        """Keep since when which tunnels are guarded, and say when that changes."""
        tunnels = {family: tunnel.name for family, tunnel in desired.tunnels.items()}
        before, self._guard = self._guard, guarded(self._guard, tunnels, time.time())
        if (
            self._dry_run
            or self._guard is None
            or (before is not None and before.tunnels == self._guard.tunnels and before.until == self._guard.until)
        ):
            return
        if tunnels:
            words = ", ".join(f"all {family.label} traffic leaves by {name}" for family, name in tunnels.items())
            extra = log_fields(Event.VPN_GUARD, state="on", tunnels=",".join(tunnels.values()))
            _log.info("VPN guard: %s; nothing goes around it", words, extra=extra)
        else:
            _log.info("VPN guard: no full tunnel any more", extra=log_fields(Event.VPN_GUARD, state="off"))

    def _failed(self, operation: Operation, error: KernelError, kernel: Kernel) -> None:
        """An operation that the kernel refused: under races "exists" and "absent" are ordinary, the rest is told once."""
        if isinstance(operation.value, Endpoint) and operation.action is Action.ADD and not error.exists:
            self._refusals.refused(operation.value.place, "" if error.full else error.text, time.monotonic())
        words = f"{error} [{command(operation, kernel.links)}]"
        if _is_ordinary(operation, error):
            _log.debug("%s", words)
        else:
            value = operation.value
            place = value if isinstance(value, Endpoint) else None
            link = kernel.links.get(place.ifindex) if place else None
            extra = log_fields(
                Event.REFUSED_BY_KERNEL,
                address=place and place.address,
                interface=link and link.name,
                reason=error.text,
            )
            kind, subject = _subject(operation)
            self._complaints.say(kind, words, subject, extra=extra)

    # --- what time has to do with it ---

    def _overdue(self) -> frozenset[str]:
        now = time.monotonic()
        return frozenset(address for address, began in self._awaited.items() if now - began >= _OVERDUE)

    def _await_networkmanager(self, desired: Desired) -> None:
        """Note since when NetworkManager's endpoints are awaited; one that we added for it stays noted while it stands."""
        now = time.monotonic()
        overdue = self._overdue()
        self._awaited = {
            path.address: self._awaited.get(path.address, now)
            for path in desired.paths
            if path.reason.why is Why.WAITS_FOR_NETWORKMANAGER or path.address in overdue
        }

    def _remember(self) -> None:
        if not self._dry_run:
            self._save()

    def _save(self) -> None:
        paths = self.view.desired.paths if self.view else ()
        began = since(self._record.contents.since, paths, time.time())
        known = self.view.snapshot.kernel.endpoints_max if self.view else 0
        self._record.save(Contents(self._ours, began, known, self._record.contents.mode, self._guard))

    def _tell(self) -> None:
        """One line in the log for each path that changed; nothing is repeated."""
        assert self.view is not None
        desired = self.view.desired
        now: dict[tuple[str, int], tuple[object, ...]] = {}
        for path in desired.paths:
            place = (path.address, path.ifindex)
            if path.endpoint_id is not None:
                self._last_id[place] = path.endpoint_id
            # Why an active path is active may change without anything changing for anybody.
            active, excluded = path.state is State.ACTIVE, path.state is State.EXCLUDED
            now[place] = (path.state, None if active else path.reason.why, None if excluded else path.flags)
            if not self._dry_run and now[place] != self._told.get(place) and self._worth_telling(path):
                _log.info("%s", _line(path), extra=_fields(path, self._last_id.get(place)))
        if not self._dry_run:
            for address, ifindex in self._told.keys() - now.keys():
                last_id = self._last_id.pop((address, ifindex), None)
                if self._told[address, ifindex][0] is not State.EXCLUDED:
                    extra = log_fields(Event.PATH_GONE, address=address, endpoint_id=last_id)
                    _log.info("%s is gone", address, extra=extra)
        self._told = now

    def _worth_telling(self, path: Path) -> bool:
        """An address that is no path and never was is in ``status``, not in the log."""
        before = self._told.get((path.address, path.ifindex))
        return path.state is not State.EXCLUDED or (before is not None and before[0] is not State.EXCLUDED)

    # --- what people ask for ---

    async def status(self, *, service: bool) -> StatusDocument | None:
        """The status document: what was decided last, in the kernel as it is now; None before the first look."""
        view = await self._shown.get()
        if view is None:
            return None
        return document(
            view.snapshot,
            view.desired,
            self._record.contents,
            mode=view.mode,
            service=service,
            troubles=view.troubles,
            connections=await self._standing.get(),
            paused=self.paused,
            kept=self.kept,
        )

    async def explain(self, what: str) -> Explanation:
        """Why an interface, address or profile is a path or none, or where a connection to an address goes.

        One after the other: each asks the kernel some questions of its own. Raises
        :class:`~nm_mptcp.report.explain.UnknownSubject`.
        """
        self._explains += 1
        try:
            async with self._explaining:
                explained = await self._explained(what)
                if self._explains > 1:
                    await asyncio.sleep(PAUSE)
                return explained
        finally:
            self._explains -= 1

    async def _explained(self, what: str) -> Explanation:
        # Imported when somebody asks: the service itself has no use for it.
        from ..report.explain import (
            Known,
            UnknownSubject,
            destination_address,
            explain_destination,
            explain_paths,
            followers,
        )
        from ..report.explain import subject as subject_of

        view = await self._shown.get()
        if view is None:
            raise UnknownSubject("nothing was looked at yet: try again in a moment")
        known = Known(view.snapshot, view.desired, self.config, await self._standing.get(), view.troubles)
        kind, paths = subject_of(what, known)
        if kind != "destination":
            return explain_paths(what, kind, paths, known)
        destination = destination_address(what)
        kernel = view.snapshot.kernel
        try:
            first = await self._kernel.route(destination, kernel)
            ways = {
                endpoint: await self._kernel.subflow_route(endpoint, destination, kernel)
                for endpoint in followers(destination, first, known)
            }
        except KernelError as error:
            raise UnknownSubject(f"the kernel does not tell the way there: {error.text}") from None
        return explain_destination(what, destination, first, ways, known)

    async def pending(self) -> list[str]:
        """The commands that would do what was planned last: a line each, a comment where none does it alone.

        Raises :class:`KernelError`.
        """
        assert self.view is not None
        kernel, lines = self.view.snapshot.kernel, []
        for operation in plan(self.view.desired, kernel, self.view.snapshot.ours):
            ended = await self._kernel.would_close(operation)
            line = command(operation, kernel.links)
            if ended is None or ended or not line.startswith("#"):
                lines += [*closing(ended or ()), line]
        return lines

    async def _mind_troubles(self) -> None:
        """Ask whether what carries reaches anything."""
        view = self.view
        if view is None:
            return
        try:
            troubles = await self._troubles(view)
        except Exception:
            _log.exception("whether paths reach anything could not be asked; the next look tries again")
            return
        if self.view is not None and troubles != self.view.troubles:
            self.view = replace(self.view, troubles=troubles)
            self._on_view()

    async def _troubles(self, view: View) -> Mapping[str, Reason]:
        """What keeps the paths of a view from reaching anything."""
        kernel = view.snapshot.kernel
        asked = reachability.cases(kernel, view.desired.paths)
        try:
            answers = await self._kernel.route_answers([each.question for each in asked], kernel)
            # What stands on them is asked for only where something depends on it.
            close = any(not each.purpose.beyond for each in asked)
            live = frozenset().union(*await self._kernel.connections()) if close else frozenset()
        except KernelError as error:
            self._complaints.say("troubles", f"{error}; whether paths reach anything is not known")
            return {}
        self._complaints.right("troubles")
        networkmanager = view.snapshot.networkmanager
        return reachability.troubles(kernel, networkmanager, asked, answers, live, view.desired.marks)

    async def _view_now(self) -> View | None:
        """What was decided last, with the kernel as it is now: no event tells of the ways of packets, nor of what is changed by
        hand in :data:`_UNTOLD`. Where that is not what was decided from it is decided, and acted on, anew; else nothing is
        written, and no convergence waits for it.
        """
        if self.view is None:
            return None
        try:
            kernel = await self._kernel.refresh(self.view.snapshot.kernel)
            if _untold(kernel) != _untold(self.view.snapshot.kernel):
                await self.converge()
                kernel = await self._kernel.refresh(self.view.snapshot.kernel)
        except (KernelError, StateError) as error:
            self._complaints.say("view", str(error))
            return self.view
        self._complaints.right("view")
        view = self.view
        ids = {endpoint.address: endpoint for endpoint in kernel.endpoints if not endpoint.port}
        paths = tuple(
            path if path.endpoint_id == (id_ := _id_on(ids.get(path.address), path)) else replace(path, endpoint_id=id_)
            for path in view.desired.paths
        )
        networkmanager = replace(view.snapshot.networkmanager, silent=self._networkmanager().silent)
        snapshot = replace(view.snapshot, kernel=kernel, networkmanager=networkmanager)
        view = replace(view, snapshot=snapshot, desired=replace(view.desired, paths=paths))
        return replace(view, troubles=await self._troubles(view))

    async def _standing_now(self) -> LiveConnections | None:
        try:
            standing = await self._kernel.live_connections()
        except KernelError as error:
            self._complaints.say("standing", str(error))
            return None
        self._complaints.right("standing")
        return standing

    @property
    def config(self) -> Config:
        """The settings that count: as configured, in the mode that was chosen at run time."""
        mode = self._record.contents.mode
        return replace(self._configured, mode=mode) if mode else self._configured

    def configure(self, config: Config) -> None:
        """Decide by these settings from now on."""
        self._configured = config
        self.wake()

    async def set_mode(self, mode: Mode | None) -> None:
        """Choose the mode until the next boot, or with None leave it to the configuration; and bring the kernel to it.

        Raises what :meth:`converge` raises.
        """
        async with self._turn:
            self._record.save(replace(self._record.contents, mode=mode))
        words = mode or f"{self._configured.mode}, as configured"
        _log.info("mode %s", words, extra=log_fields(Event.MODE, mode=self.config.mode))
        await self.converge()

    async def clear(self, *, force: bool = False) -> None:
        """Take out all that is ours, put back what was there before, and write nothing more until :meth:`resume`.

        What a live connection depends on stays, unless ``force`` is the word: :attr:`kept` names the addresses.
        """
        async with self._turn:
            self.paused = True
            connections = {} if force else await self._connections()
            for _ in range(_ROUNDS):
                kernel = await self._kernel.look(thorough=True)
                ours = self._ours_in(kernel)
                desired = decide(Snapshot(kernel, self._networkmanager(), ours), self.config)
                ours = decided(ours, kernel, replace(desired, withdrawn=frozenset(), linkdown=ours.linkdown))
                # What NetworkManager has adopted is its own by now.
                adopted = {path.address for path in desired.paths if path.owner is Owner.NETWORKMANAGER}
                self._ours = ours = replace(
                    ours, endpoints=frozenset(own for own in ours.endpoints if own.port or own.address not in adopted)
                )
                self.kept = needed(kernel, ours, connections, desired.marks)
                operations = restore(kernel, ours, desired.marks, self.kept)
                if not operations:
                    break
                for operation, error in await self._kernel.execute(operations):
                    self._failed(operation, error, kernel)
                # Once is enough, also where the kernel refused: what holds something else by now is somebody else's.
                self._ours = replace(self._ours, limits={}, withdrawn=frozenset(), linkdown=frozenset())
            left = frozenset(own for own in self._ours.endpoints if own.address in self.kept)
            numberings = self._ours.numberings if self.kept else frozenset[Numbering]()
            self._ours = Ours(left, self._ours.claims, numberings=numberings)
            contents = self._record.contents
            self._record.save(Contents(self._ours, endpoints_max=contents.endpoints_max, mode=contents.mode))
            with contextlib.suppress(KernelError):
                await self._decide(await self._kernel.look(thorough=True))
        self._on_view()

    def resume(self) -> None:
        """End what :meth:`clear` began."""
        self.paused = False
        self.kept = frozenset()
        self._on_view()
        self.wake()


def _is_ordinary(operation: Operation, error: KernelError) -> bool:
    """Whether this comes of races, and the next look sees what is there."""
    return error.absent if operation.action is Action.DELETE else error.exists or error.absent


def _subject(operation: Operation) -> tuple[str, object]:
    """What a refusal is about: an endpoint's place, or the operation itself."""
    if operation.action is Action.ADD and isinstance(operation.value, Endpoint):
        return "endpoint", operation.value.place
    return "operation", operation


def _untold(kernel: Kernel) -> tuple[object, ...]:
    return tuple(getattr(kernel, name) for name in _UNTOLD)


def _id_on(endpoint: Endpoint | None, path: Path) -> int | None:
    """The id of the endpoint that stands on a path's address."""
    return endpoint.id if endpoint and endpoint.ifindex in (0, path.ifindex) else None


def _line(path: Path) -> str:
    flags = f" [{' '.join(names(path.flags))}]" if path.flags and path.state is not State.EXCLUDED else ""
    profile = f" ({printable(path.profile)!r})" if path.profile else ""
    return f"{path.interface} {path.address}{profile}: {path.state}{flags}: {path.reason}"


def _fields(path: Path, endpoint_id: int | None) -> dict[str, object]:
    """The same for who looks for it in the journal; ``endpoint_id`` is that of the last endpoint it had."""
    return log_fields(
        Event[f"PATH_{path.state.name}"],
        interface=path.interface,
        address=path.address,
        profile=path.profile or None,
        uuid=path.uuid or None,
        state=path.state.value,
        rule=path.reason.why.rule_name,
        reason=path.reason,
        flags=",".join(names(path.flags)) or None,
        endpoint_id=endpoint_id,
        owner=path.owner.value,
        table=path.table,
    )
