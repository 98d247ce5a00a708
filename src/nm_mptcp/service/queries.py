# SPDX-License-Identifier: GPL-2.0-or-later
"""Queries: the status document, explanations, and the commands of a dry run. Nothing is written here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from ..engine.reconciler import Reconciler, View
from ..engine.record_file import Record, StateError
from ..fault_log import FaultLog
from ..kernel.access import KernelAccess
from ..kernel.errors import KernelError
from ..kernel.ip_commands import closing, command
from ..model.reasons import Reason
from ..model.state import Endpoint, Kernel, Path
from ..policy import reachability
from ..policy.plan import plan
from ..report.documents import Explanation, StatusDocument
from ..report.explain import (
    Known,
    UnknownSubject,
    destination_address,
    explain_destination,
    explain_paths,
    followers,
    subject,
)
from ..report.status import LiveConnections, document
from .shared_answer import PAUSE, SharedAnswer

_log = logging.getLogger(__name__)

#: The parts of the kernel's state that other programs may change without an event.
_WITHOUT_EVENT = ("mptcp_enabled", "path_manager", "limits", "endpoints")

#: Why paths do not reach their destinations, by address.
Troubles = Mapping[str, Reason]


class Queries:
    """Answers from the reconciler's last decision and the kernel's current state; they never delay a convergence.

    :attr:`troubles` is updated by :meth:`refresh`; ``on_troubles`` is called when it changed.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        kernel: KernelAccess,
        record: Record,
        *,
        on_troubles: Callable[[], None] = lambda: None,
    ) -> None:
        self.troubles: Troubles = {}
        self._reconciler = reconciler
        self._kernel = kernel
        self._record = record
        self._on_troubles = on_troubles
        self._faults = FaultLog(_log)
        self._refreshing: asyncio.Task[None] | None = None
        self._current = SharedAnswer(self._read)
        self._live_connections = SharedAnswer(self._read_live_connections)
        self._explaining = asyncio.Lock()
        self._explains = 0

    async def status(self, *, service: bool) -> StatusDocument | None:
        """The status document; None before the first convergence."""
        current = await self._current.get()
        if current is None:
            return None
        view, troubles = current
        return document(
            view.snapshot,
            view.desired,
            self._record.contents,
            mode=view.mode,
            service=service,
            troubles=troubles,
            connections=await self._live_connections.get(),
            paused=self._reconciler.paused,
            kept=self._reconciler.kept,
        )

    async def explain(self, what: str) -> Explanation:
        """Why an interface, address or profile is a path or none, or where a connection to an address goes.

        Explanations are made one at a time, as each needs route look-ups of its own. Raises :class:`UnknownSubject`.
        """
        self._explains += 1
        try:
            async with self._explaining:
                explained = await self._explain(what)
                if self._explains > 1:
                    await asyncio.sleep(PAUSE)
                return explained
        finally:
            self._explains -= 1

    async def _explain(self, what: str) -> Explanation:
        current = await self._current.get()
        if current is None:
            raise UnknownSubject("the service is starting and has not read the state yet: try again in a moment")
        view, troubles = current
        known = Known(
            view.snapshot, view.desired, self._reconciler.config, await self._live_connections.get(), troubles
        )
        kind, paths = subject(what, known)
        if kind != "destination":
            return explain_paths(what, kind, paths, known)
        destination, kernel = destination_address(what), view.snapshot.kernel
        try:
            first = await self._kernel.route(destination, kernel)
            routes = {
                endpoint: await self._kernel.subflow_route(endpoint, destination, kernel)
                for endpoint in followers(destination, first, known)
            }
        except KernelError as error:
            raise UnknownSubject(f"the route there cannot be looked up: {error.text}") from None
        return explain_destination(what, destination, first, routes, known)

    async def pending(self) -> list[str]:
        """The commands that would do what is left to do, a line each; a comment if no command alone does it.

        Raises :class:`KernelError` if the kernel's state cannot be read.
        """
        view = self._reconciler.view
        assert view is not None
        kernel, lines = view.snapshot.kernel, []
        for operation in plan(view.desired, kernel, view.snapshot.ours):
            ended = await self._kernel.would_close(operation)
            line = command(operation, kernel.links)
            if ended is None or ended or not line.startswith("#"):
                lines += [*closing(ended or ()), line]
        return lines

    def refresh(self) -> None:
        """Update :attr:`troubles` in the background."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    def close(self) -> None:
        """Cancel :meth:`refresh`."""
        if self._refreshing is not None:
            self._refreshing.cancel()

    async def _refresh(self) -> None:
        view = self._reconciler.view
        if view is None:
            return
        try:
            troubles = await self._read_troubles(view)
        except Exception:
            _log.exception("checking whether paths reach their destinations failed, retrying at the next change")
            return
        if troubles != self.troubles:
            self.troubles = troubles
            self._on_troubles()

    async def _read_troubles(self, view: View) -> Troubles:
        kernel = view.snapshot.kernel
        cases = reachability.cases(kernel, view.desired.paths)
        try:
            answers = await self._kernel.route_answers([each.question for each in cases], kernel)
            # The live connections are read only if something depends on them.
            close = any(not each.purpose.beyond for each in cases)
            live = frozenset().union(*await self._kernel.connections()) if close else frozenset()
        except KernelError as error:
            self._faults.report("troubles", f"{error}; whether paths reach their destinations is unknown")
            return {}
        self._faults.clear("troubles")
        networkmanager = view.snapshot.networkmanager
        return reachability.troubles(kernel, networkmanager, cases, answers, live, view.desired.marks)

    async def _read(self) -> tuple[View, Troubles] | None:
        """The last decision with the kernel's current state; None before the first one.

        What changes without an event is read again: the routes that packets take, and :data:`_WITHOUT_EVENT`. If the latter
        differs from what the decision was made from, the reconciler converges before.
        """
        if self._reconciler.view is None:
            return None
        try:
            kernel = await self._kernel.refresh(self._reconciler.view.snapshot.kernel)
            if _without_event(kernel) != _without_event(self._reconciler.view.snapshot.kernel):
                await self._reconciler.converge()
                kernel = await self._kernel.refresh(self._reconciler.view.snapshot.kernel)
        except (KernelError, StateError) as error:
            self._faults.report("view", str(error))
            return self._reconciler.view, self.troubles
        self._faults.clear("view")
        view = self._reconciler.view
        at = {endpoint.address: endpoint for endpoint in kernel.endpoints if not endpoint.port}
        paths = tuple(_with_id(path, at.get(path.address)) for path in view.desired.paths)
        networkmanager = replace(view.snapshot.networkmanager, silent=self._reconciler.networkmanager().silent)
        snapshot = replace(view.snapshot, kernel=kernel, networkmanager=networkmanager)
        view = replace(view, snapshot=snapshot, desired=replace(view.desired, paths=paths))
        return view, await self._read_troubles(view)

    async def _read_live_connections(self) -> LiveConnections | None:
        try:
            connections = await self._kernel.live_connections()
        except KernelError as error:
            self._faults.report("live connections", str(error))
            return None
        self._faults.clear("live connections")
        return connections


def _without_event(kernel: Kernel) -> tuple[object, ...]:
    return tuple(getattr(kernel, name) for name in _WITHOUT_EVENT)


def _with_id(path: Path, endpoint: Endpoint | None) -> Path:
    """The path with the current id of the endpoint on its address."""
    id_ = endpoint.id if endpoint and endpoint.ifindex in (0, path.ifindex) else None
    return path if path.endpoint_id == id_ else replace(path, endpoint_id=id_)
