# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel as the engine uses it: reads and writes by netlink on one worker thread, events in the asyncio loop.

After :meth:`KernelAccess.watch` a look costs one dump of endpoints and limits; links, addresses, routes and rules come
from the FIB that the kernel's events keep. Without it (one look, no service) everything is dumped.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass, replace

from ..model.state import (
    Egress,
    Endpoint,
    Family,
    Kernel,
    Limits,
    Link,
    Operation,
    Route,
    RouteResult,
    Rule,
    Tunnel,
    TunnelBypass,
    WireGuard,
)
from . import messages as _messages  # noqa: F401  # now, rather than before the first write
from . import sysctl
from .connections import Connections, established_addresses
from .egress import EgressLookup
from .errors import KernelError
from .fib import FIB, Changes
from .linkdown_sysctl import LinkdownSysctls
from .neighbours import Neighbours
from .operations import OperationWriter, PresentRoutes
from .path_manager import PathManager
from .path_manager_events import PathManagerEvent, PathManagerEvents
from .reverse_path import ReversePathFilters
from .route_lookup import RouteAnswer, RouteAnswers, RouteLookup, RouteQuery
from .rtnetlink import Rtnetlink
from .rtnl_events import RtnetlinkEvents, full_dump
from .sock_diag import Sockets, Subflow, may_administer
from .subflow_closer import SubflowCloser
from .traffic_access import TrafficAccess
from .wireguard import WireGuardLinks
from .worker import NetlinkWorker

#: Queries answered in one go: a lost link's endpoint waits less than a millisecond for them.
_QUERIES = 8

#: How often a full dump is repeated because events were lost during it.
_DUMPS = 3

#: How often, in a storm of events, a batch of them is read before a look.
_READS = 4

#: Seconds of writing before other work has its turn: some hundred routes.
_SLICE = 0.002


#: Links, routes, rules and addresses.
_Depends = tuple[Mapping[int, Link], Mapping[tuple[int, int], tuple[Route, ...]], tuple[Rule, ...], object]


@dataclass(frozen=True, slots=True)
class _Settings:
    """What rarely changes and has no event; when a link is lost the last values do."""

    mptcp_enabled: bool
    path_manager: str
    limits: Limits


class KernelAccess:
    """Reads the kernel and writes to it, in the network namespace of the thread that creates it."""

    def __init__(self, *, endpoints_max: int = 0) -> None:
        """``endpoints_max``: what the kernel answered before, since this boot; 0: it is asked at the first look."""
        self._worker = NetlinkWorker()
        self._rtnetlink = Rtnetlink()
        self._path_manager = PathManager()
        self._sockets = Sockets()
        self.traffic = TrafficAccess(self._worker)
        self._neighbours = Neighbours()
        self._route_lookup = RouteLookup()
        self._egress = EgressLookup()
        self._wireguard = WireGuardLinks()
        self._linkdown = LinkdownSysctls()
        self._reverse_path = ReversePathFilters()
        self._closer = SubflowCloser(self._sockets, self._path_manager, self._egress)
        self._writer = OperationWriter(
            self._rtnetlink,
            self._path_manager,
            self._closer,
            self._linkdown,
            self._reverse_path,
            on_limits=self._forget_settings,
        )
        self._connections = Connections(self._sockets.subflows)
        self._fib = FIB()
        self._rtnetlink_events: RtnetlinkEvents | None = None
        self._path_manager_events: PathManagerEvents | None = None
        self._endpoints_max = endpoints_max
        self._settings: _Settings | None = None  #: of the last look

    async def watch(
        self, on_change: Callable[[Changes], None], on_event: Callable[[PathManagerEvent | None], None]
    ) -> None:
        """Follow the kernel: ``on_change`` after each burst of events that changed something, or was lost (a full dump is
        due); ``on_event`` for each event of the path manager. Raises :class:`KernelError`.
        """
        loop = asyncio.get_running_loop()
        self._rtnetlink_events = RtnetlinkEvents(self._fib, on_change, lambda: on_change(Changes(resync_due=True)))
        self._rtnetlink_events.start(loop)
        if sysctl.path_manager():

            def path_manager_event(event: PathManagerEvent | None) -> None:
                self._connections.on_event()
                on_event(event)

            self._path_manager_events = PathManagerEvents(path_manager_event)
            self._path_manager_events.start(loop)
            self._connections.follow(loop, self.connections)
        self._egress.follow(loop, lambda: on_change(Changes(rules=True)))
        await self._dump_all(self._rtnetlink_events)

    async def close(self) -> None:
        """Unsubscribe, and close the sockets when the worker has done its current work."""
        if self._rtnetlink_events is not None:
            self._rtnetlink_events.close()
        if self._path_manager_events is not None:
            self._path_manager_events.close()
        self._connections.unfollow()
        self._egress.unfollow()
        for requester in (
            self._rtnetlink,
            self._path_manager,
            self._sockets,
            self.traffic.sockets,
            self.traffic.counters,
            self._neighbours,
            self._route_lookup,
            self._egress,
            self._wireguard,
        ):
            await self._worker.run(requester.close)
        self._worker.close()

    # --- what there is

    async def look(self, *, thorough: bool = False, at_once: bool = False) -> Kernel:
        """What the kernel has now.

        ``thorough``: also what it may have changed without an event. ``at_once``: before any other work, with the settings
        of the last look. Raises :class:`KernelError`.
        """
        if self._rtnetlink_events is None:
            self._fib.adopt(await self._worker.run(full_dump, self._rtnetlink))
        else:
            # The events of our own writes are there by now, and have to count.
            for _ in range(1 if at_once else _READS):
                self._rtnetlink_events.read()
                if not self._rtnetlink_events.behind:
                    break
            if self._rtnetlink_events.events_lost or (thorough and self._fib.resync_due):
                await self._dump_all(self._rtnetlink_events)
        fib = self._fib
        depends = (fib.links, fib.routes, fib.rules, fib.addresses)
        read = self._worker.run_at_once if at_once else self._worker.run
        known = self._settings if at_once else None
        endpoints, settings, egress, wireguard = await read(self._read, depends, known, thorough)
        self._settings = settings
        before = Kernel(
            laminar=sysctl.knows_laminar(),
            linkdown_ignored=self._linkdown.read(fib.links, afresh=thorough),
            linkdown_default=self._linkdown.default,
            egress=egress,
            strict=self._reverse_path.strict(fib.links, egress, afresh=thorough),
            ipsec=self._egress.ipsec,
            wireguard=wireguard,
        )
        return self._with_events(before, endpoints, settings)

    async def refresh(self, before: Kernel) -> Kernel:
        """An earlier look, with endpoints, limits and sysctls read anew, which have no events, and with the events since.

        Does not disturb a look in progress. Raises :class:`KernelError`.
        """
        return self._with_events(before, *await self._worker.run(self._read_unannounced))

    def _with_events(self, before: Kernel, endpoints: tuple[Endpoint, ...], settings: _Settings) -> Kernel:
        fib = self._fib
        return replace(
            before,
            mptcp_enabled=settings.mptcp_enabled,
            path_manager=settings.path_manager,
            endpoints_max=self._endpoints_max,
            links=fib.links,
            addresses=fib.addresses,
            routes=fib.routes,
            rules=fib.rules,
            endpoints=endpoints,
            limits=settings.limits,
        )

    async def _dump_all(self, events: RtnetlinkEvents) -> None:
        for _ in range(_DUMPS):
            events.begin_dump()
            try:
                fresh = await self._worker.run(full_dump, self._rtnetlink)
            except KernelError:
                events.abandon_dump()
                raise
            if events.end_dump(fresh):
                return

    # --- connections

    @property
    def alive(self) -> tuple[frozenset[int], float]:
        """The tokens of the live connections when they were last read, and when that was (``time.monotonic``)."""
        return self._connections.alive

    async def connections(self, *, at_once: bool = False) -> Mapping[frozenset[str], int]:
        """The number of live MPTCP connections by the local addresses of their established subflows (see
        :class:`~nm_mptcp.model.state.Snapshot`).

        ``at_once``: before any other work, and the last answer unless an event came since. Raises :class:`KernelError`.
        """
        if not at_once:
            return await self._worker.run(self._connections.read)
        if self._path_manager_events is not None:
            self._path_manager_events.read()
        kept = self._connections.kept
        return kept if kept is not None else await self._worker.run_at_once(self._connections.read)

    async def live_connections(self) -> tuple[tuple[str, ...], ...] | None:
        """For each live MPTCP connection the local addresses of its established subflows, one for each subflow.

        None without CAP_NET_ADMIN, which it takes to see subflows. Raises :class:`KernelError`.
        """
        return established_addresses(await self._worker.run(self._sockets.subflows)) if may_administer() else None

    async def bypass(self, tunnels: Mapping[Family, Tunnel]) -> TunnelBypass:
        """The local addresses of subflows that do not go through these tunnels. Raises :class:`KernelError`."""
        return await self._worker.run(self._bypass, tunnels)

    async def peers_of(self, tunnels: Set[int], addresses: Set[str]) -> frozenset[str]:
        """The peers of live connections that began in these tunnels (ifindexes), which have these addresses.

        Raises :class:`KernelError`.
        """
        began = await self._worker.run(self._closer.began_in, tunnels, addresses)
        return frozenset(subflow.remote for subflow in began)

    async def close_beside(self, tunnels: Set[int], addresses: Set[str]) -> None:
        """See :meth:`.SubflowCloser.close_beside`. Raises :class:`KernelError`."""
        await self._worker.run(self._closer.close_beside, tunnels, addresses)

    @property
    def closed_subflows(self) -> int:
        """Subflows that the VPN guard closed since this was created."""
        return self._closer.closed_subflows

    @property
    def closed_connections(self) -> int:
        """Of these the connections that had no other subflow."""
        return self._closer.closed_connections

    async def would_close(self, operation: Operation) -> tuple[Subflow, ...] | None:
        """See :meth:`.SubflowCloser.would_close`. Raises :class:`KernelError`."""
        return await self._worker.run(self._closer.would_close, operation)

    # --- route look-ups

    async def route(self, destination: str, kernel: Kernel) -> RouteResult:
        """The route of a connection's first subflow, see :meth:`.RouteLookup.unbound`. Raises :class:`KernelError`."""
        return self._with_policies(destination, await self._worker.run(self._route_lookup.unbound, destination, kernel))

    async def subflow_route(self, endpoint: Endpoint, destination: str, kernel: Kernel) -> RouteResult:
        """The route of a subflow from an endpoint, see :meth:`.RouteLookup.bound`. Raises :class:`KernelError`."""
        bound = self._route_lookup.bound
        result = await self._worker.run(bound, destination, endpoint.address, endpoint.ifindex, kernel)
        return self._with_policies(destination, replace(result, source=result.source or endpoint.address))

    def _with_policies(self, destination: str, result: RouteResult) -> RouteResult:
        """A result with whether an IPsec policy encrypts the packet."""
        if result.error or result.local or not result.source:
            return result
        return replace(result, encrypted=self._egress.encrypts(result.source, destination, result.ifindex))

    async def route_answers(self, queries: Iterable[RouteQuery], kernel: Kernel) -> RouteAnswers:
        """The answers to these queries; now and then other work has its turn. Raises :class:`KernelError`."""
        queries = tuple(queries)
        answers: dict[str, tuple[RouteAnswer, ...]] = {}
        for begin in range(0, len(queries), _QUERIES):
            answers.update(await self._worker.run(self._answers, queries[begin : begin + _QUERIES], kernel))
        return answers

    # --- writes

    async def probe_neighbours(self, ifindexes: Collection[int]) -> None:
        """See :meth:`.Neighbours.probe`. Raises :class:`KernelError`."""
        await self._worker.run(self._neighbours.probe, ifindexes)

    async def execute(
        self, operations: Iterable[Operation], *, at_once: bool = False
    ) -> list[tuple[Operation, KernelError]]:
        """Do the operations in order; returns those that failed, each with its error. A failure does not stop the others.

        ``at_once``: all of them before any other work.
        """
        operations = tuple(operations)
        if at_once:
            failures: list[tuple[Operation, KernelError]] = []
            await self._worker.run_at_once(self._writer.write, operations, self._present(), failures, math.inf)
            return failures
        return (await self.execute_until(operations, interrupted=lambda: False))[0]

    async def execute_until(
        self, operations: tuple[Operation, ...], *, interrupted: Callable[[], bool]
    ) -> tuple[list[tuple[Operation, KernelError]], tuple[Operation, ...]]:
        """Do the operations in order until ``interrupted()``, which is asked every few milliseconds, when other work has its
        turn as well.

        Returns those that failed, each with its error, and those that were not begun.
        """
        failures: list[tuple[Operation, KernelError]] = []
        present = self._present()
        done = 0
        while done < len(operations):
            done += await self._worker.run(self._writer.write, operations[done:], present, failures, _SLICE)
            if self._rtnetlink_events is not None and done < len(operations):
                # The events of our own writes must not delay that of a lost link.
                self._rtnetlink_events.read()
                while self._rtnetlink_events.behind and not interrupted():
                    await asyncio.sleep(0)
                    self._rtnetlink_events.read()
                if interrupted():
                    break
        return failures, operations[done:]

    def _present(self) -> PresentRoutes:
        complete = not (
            self._fib.resync_due or (self._rtnetlink_events is not None and self._rtnetlink_events.events_lost)
        )
        return PresentRoutes(self._fib, self._rtnetlink, complete=complete)

    # --- on the worker thread

    def _read(
        self, depends: _Depends, known: _Settings | None, afresh: bool
    ) -> tuple[tuple[Endpoint, ...], _Settings, Mapping[Family, tuple[Egress, ...]], WireGuard | None]:
        endpoints, settings = self._read_unannounced(known)
        wireguard = self._wireguard.look(depends[0], at_once=known is not None)
        return endpoints, settings, self._egress.look(*depends, afresh=afresh), wireguard

    def _read_unannounced(self, known: _Settings | None = None) -> tuple[tuple[Endpoint, ...], _Settings]:
        settings = known or self._read_settings()
        return self._path_manager.endpoints() if settings.path_manager else (), settings

    def _read_settings(self) -> _Settings:
        """Without MPTCP in the kernel ``path_manager`` is "", and there are no limits."""
        path_manager = sysctl.path_manager()
        if path_manager and not self._endpoints_max:
            self._endpoints_max = self._path_manager.endpoints_max()
        limits = self._path_manager.limits() if path_manager else Limits(0, 0)
        return _Settings(sysctl.mptcp_enabled(), path_manager, limits)

    def _forget_settings(self) -> None:
        self._settings = None

    def _bypass(self, tunnels: Mapping[Family, Tunnel]) -> TunnelBypass:
        return self._egress.bypass(self._sockets.subflows(), tunnels)

    def _answers(self, queries: tuple[RouteQuery, ...], kernel: Kernel) -> RouteAnswers:
        return {query.address: self._route_lookup.answers(query, kernel) for query in queries}
