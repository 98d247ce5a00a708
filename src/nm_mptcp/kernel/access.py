# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel for the engine: looks and writes, synchronous netlink on one worker thread, events in the asyncio loop.

After :meth:`KernelAccess.watch` a look costs one dump of endpoints and limits; links, addresses, routes and rules come
from the mirror that the kernel's events keep. Without it (one look, no service) everything is dumped.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from ..model.state import (
    Action,
    Egress,
    Endpoint,
    Family,
    Kernel,
    LeakingSubflows,
    Limits,
    Link,
    LinkdownSetting,
    Operation,
    RedundantSubflows,
    Route,
    RouteResult,
    Rule,
    Tunnel,
    TunnelBypass,
)
from . import messages as _messages  # noqa: F401  # now, not in front of the first write
from . import sysctl
from .connections import Connections, standing
from .egress import EgressLookup
from .errors import KernelError
from .fib import FIB, Changes
from .monitor import Monitor, full_dump
from .neighbours import Neighbours
from .path_manager import PathManager
from .path_manager_events import PathManagerEvent, PathManagerEvents
from .route_lookup import RouteAnswer, RouteAnswers, RouteLookup, RouteQuery
from .rtnetlink import Rtnetlink
from .sock_diag import Sockets, Subflow, may_administer

_Answer = TypeVar("_Answer")

#: For how many addresses ways are asked for at a time: what a loss waits for then is below a millisecond.
_QUESTIONS = 8

#: How often a full look is begun again because events were lost while it was made.
_TRIES = 3

#: How often, in a storm of events, more of them are read before what is known by then is looked at.
_READS = 4

#: Seconds of writing after which others have their turn: some hundred routes.
_SLICE = 0.002


@dataclass(frozen=True, slots=True)
class _Settings:
    """What hardly anybody changes, and nobody is told of: a loss, which cannot wait, does without asking."""

    mptcp_enabled: bool
    path_manager: str
    limits: Limits


class _Known:
    """Which routes are there, for a list of those to be deleted: as the mirror knows it, and where it does not, as the kernel
    tells it - once for each table and interface.
    """

    def __init__(self, fib: FIB, rtnetlink: Rtnetlink, *, trusted: bool) -> None:
        self._fib = fib
        self._rtnetlink = rtnetlink
        self._trusted = trusted
        self._read: dict[tuple[int, int], set[Route]] = {}

    def has(self, route: Route) -> bool:
        """Whether it is there; it is about to be deleted, and asked for again it is not."""
        place = (route.table, route.hops[0].ifindex if route.hops else 0)
        there = self._read.get(place)
        if there is None:
            if self._trusted and self._fib.stands_alone(route):
                return True
            there = self._read[place] = set(self._rtnetlink.routes(place[0], place[1] or None))
        if route not in there:
            return False
        there.remove(route)
        return True


class KernelAccess:
    """Looks at the kernel and writes to it, in the network namespace of the thread that makes it."""

    def __init__(self, *, endpoints_max: int = 0) -> None:
        """``endpoints_max``: what the kernel answered before, since this boot; 0: it is asked at the first look."""
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._in_use = threading.Lock()  #: held by the thread that uses the sockets for requests
        self._rtnetlink = Rtnetlink()
        self._path_manager = PathManager()
        self._sockets = Sockets()
        self._connections = Connections(self._sockets.subflows)
        self._neighbours = Neighbours()
        self._ways = RouteLookup()
        self._departures = EgressLookup()
        #: subflows that were cut since this was made, and connections that had no other
        self.closed_subflows = self.closed_connections = 0
        self._linkdown: Mapping[tuple[Family, int], bool] = {}
        self._linkdown_default = frozenset(
            family for family in Family if (sysctl.read(_linkdown(family, "default")) or "0") != "0"
        )
        self._fib = FIB()
        self._monitor: Monitor | None = None
        self._events: PathManagerEvents | None = None
        self._endpoints_max = endpoints_max
        self._settings: _Settings | None = None  #: as they were at the last look

    async def watch(
        self, on_change: Callable[[Changes], None], on_event: Callable[[PathManagerEvent | None], None]
    ) -> None:
        """Follow the kernel from now on: ``on_change`` after each burst that changed something (or was lost: a full look
        is due), ``on_event`` for each event of the path manager. Raises :class:`KernelError`.
        """
        loop = asyncio.get_running_loop()
        self._monitor = Monitor(self._fib, on_change, lambda: on_change(Changes(doubtful=True)))
        self._monitor.start(loop)
        if sysctl.path_manager():

            def told(event: PathManagerEvent | None) -> None:
                self._connections.told()
                on_event(event)

            self._events = PathManagerEvents(told)
            self._events.start(loop)
            self._connections.follow(loop, self.connections)
        self._departures.follow(loop, lambda: on_change(Changes(rules=True)))
        await self._look_at_all(self._monitor)

    async def close(self) -> None:
        """Stop following, and close the sockets once the worker has done what it is at."""
        if self._monitor is not None:
            self._monitor.close()
        if self._events is not None:
            self._events.close()
        self._connections.unfollow()
        self._departures.unfollow()
        await self._work(self._rtnetlink.close)
        await self._work(self._path_manager.close)
        await self._work(self._sockets.close)
        await self._work(self._neighbours.close)
        await self._work(self._ways.close)
        await self._work(self._departures.close)
        self._worker.shutdown(wait=False)

    @property
    def alive(self) -> tuple[frozenset[int], float]:
        """The tokens of the connections that lived when that was asked last, and when that was (``time.monotonic``)."""
        return self._connections.alive

    async def look(self, *, thorough: bool = False, at_once: bool = False) -> Kernel:
        """What the kernel has now; ``thorough``: also what it may have changed without telling; ``at_once``: others wait, and
        its settings may be those of the last look.

        Raises :class:`KernelError`.
        """
        if self._monitor is None:
            self._fib.adopt(await self._work(full_dump, self._rtnetlink))
        else:
            # Our own writes have been told of by now, and are to be seen.
            for _ in range(1 if at_once else _READS):
                self._monitor.read()
                if not self._monitor.behind:
                    break
            if self._monitor.lost or (thorough and self._fib.doubtful):
                await self._look_at_all(self._monitor)
        mirror = self._fib
        depends = (mirror.links, mirror.routes, mirror.rules, mirror.addresses)
        read = self._at_once if at_once else self._work
        known = self._settings if at_once else None
        endpoints, settings, egress = await read(self._ask, depends, known, thorough)
        self._settings = settings
        before = Kernel(
            laminar=sysctl.knows_laminar(),
            linkdown_ignored=self._linkdown_ignored(thorough=thorough),
            linkdown_default=self._linkdown_default,
            egress=egress,
        )
        return self._up_to_date(before, endpoints, settings)

    async def refresh(self, before: Kernel) -> Kernel:
        """What was looked at, with what no event tells of as it is now: endpoints, limits and whether MPTCP is on; besides,
        what events told since. Disturbs no look that is under way. Raises :class:`KernelError`.
        """
        return self._up_to_date(before, *await self._work(self._unannounced))

    def _up_to_date(self, before: Kernel, endpoints: tuple[Endpoint, ...], settings: _Settings) -> Kernel:
        """With these, and with what events told."""
        mirror = self._fib
        return replace(
            before,
            mptcp_enabled=settings.mptcp_enabled,
            path_manager=settings.path_manager,
            endpoints_max=self._endpoints_max,
            links=mirror.links,
            addresses=mirror.addresses,
            routes=mirror.routes,
            rules=mirror.rules,
            endpoints=endpoints,
            limits=settings.limits,
        )

    async def connections(self, *, at_once: bool = False) -> Mapping[frozenset[str], int]:
        """How many live MPTCP connections stand on exactly these local addresses (see :class:`~nm_mptcp.model.state.Snapshot`);
        ``at_once``: others wait, and the last answer will do where no event says that it may be another.

        Raises :class:`KernelError`.
        """
        if not at_once:
            return await self._work(self._connections.read)
        if self._events is not None:
            self._events.read()  # what was told by now counts
        kept = self._connections.kept
        return kept if kept is not None else await self._at_once(self._connections.read)

    async def bypass(self, tunnels: Mapping[Family, Tunnel]) -> TunnelBypass:
        """Where subflows stand beside and around these tunnels. Raises :class:`KernelError`."""
        return await self._work(self._bypass, tunnels)

    async def live_connections(self) -> tuple[tuple[str, ...], ...] | None:
        """The live MPTCP connections: of each the local addresses of its established subflows, one an established subflow.

        None without CAP_NET_ADMIN: then the kernel does not say which sockets are subflows. Raises :class:`KernelError`.
        """
        return standing(await self._work(self._sockets.subflows)) if may_administer() else None

    async def route(self, destination: str, kernel: Kernel) -> RouteResult:
        """By which way a connection begins (see :meth:`~nm_mptcp.kernel.route_lookup.RouteLookup.unbound`).

        Raises :class:`KernelError`.
        """
        return await self._work(self._ways.unbound, destination, kernel)

    async def subflow_route(self, endpoint: Endpoint, destination: str, kernel: Kernel) -> RouteResult:
        """By which way a subflow from an endpoint goes (see :meth:`~nm_mptcp.kernel.route_lookup.RouteLookup.bound`).

        Raises :class:`KernelError`.
        """
        return await self._work(self._ways.bound, destination, endpoint.address, endpoint.ifindex, kernel)

    async def route_answers(self, asked: Iterable[RouteQuery], kernel: Kernel) -> RouteAnswers:
        """How the kernel answers these questions; between some of them others have their turn. Raises :class:`KernelError`."""
        asked = tuple(asked)
        found: dict[str, tuple[RouteAnswer, ...]] = {}
        for begin in range(0, len(asked), _QUESTIONS):
            found.update(await self._work(self._answers, asked[begin : begin + _QUESTIONS], kernel))
        return found

    async def ask_neighbours(self, ifindexes: Collection[int]) -> None:
        """Ask at once for the neighbours on links that came back (see :mod:`.neighbours`). Raises :class:`KernelError`."""
        await self._work(self._neighbours.ask_anew, ifindexes)

    async def execute(
        self, operations: Iterable[Operation], *, at_once: bool = False
    ) -> list[tuple[Operation, KernelError]]:
        """Do the operations in order; gives those that failed, each with its error. The others are done all the same.

        ``at_once``: others wait, for as long as it takes.
        """
        operations = tuple(operations)
        if at_once:
            failures: list[tuple[Operation, KernelError]] = []
            known = _Known(self._fib, self._rtnetlink, trusted=self._trusted())
            await self._at_once(self._execute, operations, known, failures, math.inf)
            return failures
        return (await self.begin(operations, unless=lambda: False))[0]

    async def begin(
        self, operations: tuple[Operation, ...], *, unless: Callable[[], bool]
    ) -> tuple[list[tuple[Operation, KernelError]], tuple[Operation, ...]]:
        """Do the operations in order until something more urgent is to be done; gives those that failed, each with its error,
        and those that were not begun.

        However many there are, every few milliseconds others have their turn, and ``unless`` is asked.
        """
        failures: list[tuple[Operation, KernelError]] = []
        known = _Known(self._fib, self._rtnetlink, trusted=self._trusted())
        done = 0
        while done < len(operations):
            done += await self._work(self._execute, operations[done:], known, failures, _SLICE)
            if self._monitor is not None and done < len(operations):
                # What is told of our own writes must not pile up in front of what is told of a loss.
                self._monitor.read()
                while self._monitor.behind and not unless():
                    await asyncio.sleep(0)
                    self._monitor.read()
                if unless():
                    break
        return failures, operations[done:]

    def _trusted(self) -> bool:
        """Whether the mirror knows of all there is."""
        return not (self._fib.doubtful or (self._monitor is not None and self._monitor.lost))

    async def would_close(self, operation: Operation) -> tuple[Subflow, ...] | None:
        """The subflows that an operation would itself close, were it done now; None where the kernel does not say which
        sockets are subflows (that takes CAP_NET_ADMIN). Raises :class:`KernelError`.
        """
        return await self._work(self._ended, operation)

    # --- on the worker thread

    def _ask(
        self, depends: tuple[Mapping[int, Link], object, object, object], known: _Settings | None, afresh: bool
    ) -> tuple[tuple[Endpoint, ...], _Settings, Mapping[Family, tuple[Egress, ...]]]:
        endpoints, settings = self._unannounced(known)
        return endpoints, settings, self._departures.look(*depends, afresh=afresh)

    def _unannounced(self, known: _Settings | None = None) -> tuple[tuple[Endpoint, ...], _Settings]:
        settings = known or self._settings_now()
        return self._path_manager.endpoints() if settings.path_manager else (), settings

    def _settings_now(self) -> _Settings:
        """A kernel without MPTCP has no limits, and is an ordinary one: then ``path_manager`` is empty."""
        path_manager = sysctl.path_manager()
        if path_manager and not self._endpoints_max:
            self._endpoints_max = self._path_manager.endpoints_max()
        limits = self._path_manager.limits() if path_manager else Limits(0, 0)
        return _Settings(sysctl.mptcp_enabled(), path_manager, limits)

    def _execute(
        self,
        operations: Sequence[Operation],
        known: _Known,
        failures: list[tuple[Operation, KernelError]],
        seconds: float,
    ) -> int:
        """Do at least one of the operations, and no further one after so long; gives how many."""
        end = time.monotonic() + seconds
        for done, operation in enumerate(operations, 1):
            try:
                self._do(operation, known)
            except KernelError as error:
                failures.append((operation, error))
            if time.monotonic() > end:
                return done
        return len(operations)

    def _do(self, operation: Operation, known: _Known) -> None:
        match operation:
            case Operation(Action.ADD, Endpoint() as endpoint):
                self._path_manager.add(endpoint)
            case Operation(Action.DELETE, Endpoint() as endpoint):
                if endpoint.port and endpoint.id:
                    self._vacate(endpoint)
                self._path_manager.delete(endpoint)
            case Operation(Action.SET_FLAGS, Endpoint() as endpoint):
                self._path_manager.set_flags(endpoint, endpoint.flags)
            case Operation(Action.SET, Limits() as limits):
                self._settings = None
                self._path_manager.set_limits(limits)
            case Operation(Action.SET, LinkdownSetting() as setting):
                self._set_linkdown(setting)
            case Operation(Action.CLOSE_REDUNDANT, RedundantSubflows() as redundant):
                self._sever(redundant)
            case Operation(Action.CLOSE_ALL, LeakingSubflows() as cut):
                self._cut(cut)
            case Operation(Action.ADD, Route() as route):
                self._rtnetlink.add_route(route)
            case Operation(Action.REPLACE, Route() as route):
                self._rtnetlink.replace_route(route)
            case Operation(Action.DELETE, Route() as route):
                self._rtnetlink.delete_route(route, is_there=known.has)
            case Operation(Action.ADD, Rule() as rule):
                self._rtnetlink.add_rule(rule)
            case Operation(Action.REPLACE, Rule() as rule):
                self._rtnetlink.move_rule(rule)
            case Operation(Action.DELETE, Rule() as rule):
                self._rtnetlink.delete_rule(rule)
            case _:
                raise ValueError(f"no such operation: {operation}")

    def _ended(self, operation: Operation) -> tuple[Subflow, ...] | None:
        match operation:
            case Operation(Action.CLOSE_REDUNDANT, RedundantSubflows() as redundant):
                return tuple(self._severed(redundant)) if may_administer() else None
            case Operation(Action.CLOSE_ALL, LeakingSubflows() as cut):
                return tuple(self._cut_of(cut, self._sockets.subflows())) if may_administer() else None
            case Operation(Action.DELETE, Endpoint(id=id_, port=port) as endpoint) if id_ and port:
                return tuple(self._vacated(endpoint)) if may_administer() else None
        return ()

    def _answers(self, asked: tuple[RouteQuery, ...], kernel: Kernel) -> RouteAnswers:
        return {each.address: self._ways.answers(each, kernel) for each in asked}

    def _set_linkdown(self, setting: LinkdownSetting) -> None:
        """Looked at anew, since no event tells of a change: what somebody else has set by now is his (EEXIST)."""
        path = _linkdown(setting.family, setting.name)
        there = (sysctl.read(path) or "0") != "0"
        if there != setting.ignored:
            sysctl.write(path, int(setting.ignored))
        self._linkdown = {**self._linkdown, (setting.family, setting.ifindex): setting.ignored}
        if there == setting.ignored:
            raise KernelError(errno.EEXIST, f"set the sysctl {path} to {setting.ignored:d}", "somebody else has set it")

    def _sever(self, redundant: RedundantSubflows) -> None:
        """Looked at anew: a connection whose last sibling ended meanwhile is left alone."""
        for subflow in self._severed(redundant):
            with contextlib.suppress(KernelError):  # gone already, or a kernel that cannot: then TCP's timers decide
                self._end(subflow)

    def _severed(self, redundant: RedundantSubflows) -> list[Subflow]:
        established = [subflow for subflow in self._sockets.subflows() if subflow.established]
        alive = {subflow.token for subflow in established if subflow.local not in redundant.lost}
        return [each for each in established if each.local in redundant.addresses and each.token in alive]

    def _bypass(self, tunnels: Mapping[Family, Tunnel]) -> TunnelBypass:
        return self._departures.bypass(self._sockets.subflows(), tunnels)

    def _cut(self, cut: LeakingSubflows) -> None:
        """Also what is not established yet. A reset is one packet, and nothing follows it; a subflow that is closed in order
        would go on for as long as its peer does not answer.
        """
        there = self._sockets.subflows()
        ended = self._cut_of(cut, there)
        for subflow in ended:
            try:
                self._sockets.destroy(subflow)
            except KernelError as error:
                if not error.absent and subflow.local_id == 0:
                    # A kernel that cannot; additional ones go with their endpoint.
                    self._path_manager.delete(Endpoint(subflow.local, port=subflow.local_port))
        self.closed_subflows += len(ended)
        alive = {subflow.token for subflow in set(there) - set(ended)}
        self.closed_connections += len({subflow.token for subflow in ended} - alive)

    def _cut_of(self, cut: LeakingSubflows, there: Iterable[Subflow]) -> list[Subflow]:
        return self._departures.tunnelled((each for each in there if each.local in cut.addresses), cut.tunnels)

    def _vacate(self, endpoint: Endpoint) -> None:
        """Close the subflows on an endpoint's port that have a live sibling, by a reset: closed by the endpoint's end they
        would hold the port for a minute (TIME_WAIT), and nothing could listen there again.
        """
        with contextlib.suppress(KernelError):
            for subflow in self._vacated(endpoint):
                with contextlib.suppress(KernelError):
                    self._sockets.destroy(subflow)

    def _vacated(self, endpoint: Endpoint) -> list[Subflow]:
        subflows = [subflow for subflow in self._sockets.subflows() if subflow.established]
        there = [each for each in subflows if (each.local, each.local_port) == (endpoint.address, endpoint.port)]
        alive = {subflow.token for subflow in subflows if subflow not in there}
        return [subflow for subflow in there if subflow.token in alive]

    def _end(self, subflow: Subflow) -> None:
        """An initial subflow by the path manager, which tells the peer by another one (RM_ADDR): it stops sending there at
        once. For an additional one there is no such way, but to delete the endpoint; its peer finds out by its own timers.
        """
        if subflow.local_id == 0:
            self._path_manager.delete(Endpoint(subflow.local, port=subflow.local_port))
        else:
            self._sockets.destroy(subflow)

    def _linkdown_ignored(self, *, thorough: bool) -> Mapping[tuple[Family, int], bool]:
        """The setting on every interface; there is no event for it: read once, and at thorough looks."""
        known = {} if thorough else self._linkdown
        result = {}
        for ifindex, link in self._fib.links.items():
            if link.loopback:
                continue
            for family in Family:
                value = known.get((family, ifindex))
                if value is None:
                    text = sysctl.read(_linkdown(family, link.name))
                    value = None if text is None else text != "0"
                if value is not None:
                    result[family, ifindex] = value
        self._linkdown = result
        return result

    async def _look_at_all(self, monitor: Monitor) -> None:
        for _ in range(_TRIES):
            monitor.begin_dump()
            try:
                fresh = await self._work(full_dump, self._rtnetlink)
            except KernelError:
                monitor.abandon_dump()
                raise
            if monitor.end_dump(fresh):
                return

    async def _work(self, function: Callable[..., _Answer], *arguments: object) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._alone, function, *arguments)

    def _alone(self, function: Callable[..., _Answer], *arguments: object) -> _Answer:
        with self._in_use:
            return function(*arguments)

    async def _at_once(self, function: Callable[..., _Answer], *arguments: object) -> _Answer:
        """The same in the loop's own thread, unless the worker is at something: to hand it over and to come back takes some
        milliseconds where the processors are busy, as they are when a link was lost.
        """
        if not self._in_use.acquire(blocking=False):
            return await self._work(function, *arguments)
        try:
            return function(*arguments)
        finally:
            self._in_use.release()


def _linkdown(family: Family, name: str) -> str:
    return sysctl.interface("ipv4" if family is Family.IPV4 else "ipv6", name, "ignore_routes_with_linkdown")
