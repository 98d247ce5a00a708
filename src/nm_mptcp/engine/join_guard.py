# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps the packet filter by which connections stay in the tunnel that they began in (``kernel.join_filter``).

It is written when a tunnel comes, again when another program removed it, and removed when no tunnel is left and no live
connection that began in one. Peers without a live connection that
began in a tunnel are forgotten some time after routes changed or a connection ended: a server that is reached beside the
tunnel later may have all paths.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math

from ..fault_log import FaultLog
from ..kernel.access import KernelAccess
from ..kernel.errors import KernelError
from ..kernel.join_filter import JoinFilter
from ..model.state import Desired, Kernel

_log = logging.getLogger(__name__)

#: Seconds from a change to the next look at which peers are still needed.
_PRUNE_AFTER = 1.0

#: Seconds between two looks whether the last connection that began in a tunnel has ended, when no tunnel is left.
_LEFT_OVER = 5.0

#: Seconds before a filter that could not be written is tried again.
_RETRY = 30.0


class JoinGuard:
    """Follows decisions, in the background: ``nft`` takes longer than a lost link may wait."""

    def __init__(self, kernel: KernelAccess) -> None:
        self._kernel = kernel
        self._filter = JoinFilter()
        self._wanted: dict[int, str] = {}  #: the tunnels' names by ifindex
        self._addresses: frozenset[str] = frozenset()  #: of tunnels since the filter was written
        self._written: frozenset[str] | None = None  #: None: to be read
        self._depends: tuple[object, ...] = ()
        self._prune = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._faults = FaultLog(_log)

    def follow(self, desired: Desired, kernel: Kernel) -> None:
        """Guard the tunnels of this decision from now on."""
        wanted = {index: kernel.links[index].name for index in desired.stays_inside}
        addresses = frozenset(each.address for index in wanted for each in kernel.addresses.get(index, ()))
        if wanted != self._wanted or not addresses <= self._addresses:
            self._wanted, self._addresses = wanted, self._addresses | addresses
            self._changed.set()
        depends = (kernel.routes, kernel.rules)
        if len(depends) != len(self._depends) or any(a is not b for a, b in zip(depends, self._depends, strict=True)):
            self._depends = depends
            self.on_connection_closed()
        if wanted and self._task is None:
            self._task = asyncio.create_task(self._run())

    def on_connection_closed(self) -> None:
        """A connection ended: its peer may be forgotten."""
        if self._written and not self._prune:
            self._prune = True
            self._changed.set()

    async def clear(self) -> None:
        """Remove the filter, until the next :meth:`follow`."""
        self._wanted = {}
        self.close()
        with contextlib.suppress(KernelError):
            await asyncio.to_thread(self._filter.write, frozenset(), frozenset())

    def close(self) -> None:
        """Follow no more; the filter stays."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._filter.unfollow()
        self._written = None

    async def _run(self) -> None:
        with contextlib.suppress(KernelError):
            self._filter.follow(asyncio.get_running_loop(), self._on_rule_set)
        while True:
            self._changed.clear()
            try:
                await self._update()
            except KernelError as error:
                missing = error.errno == errno.ENOENT
                effect = "connections through a tunnel may get subflows beside it"
                self._faults.report("filter", f"{error}; {effect}" + (" (install nftables)" if missing else ""))
                self._written = None
                await self._wait(_RETRY)
            else:
                self._faults.clear("filter")
                left_over = self._written and not self._wanted
                await self._wait(_LEFT_OVER if left_over else math.inf)

    async def _wait(self, seconds: float) -> bool:
        """Wait for a change, but not longer than that; whether there was one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                return await self._changed.wait()
        return False

    async def _update(self) -> None:
        wanted = frozenset(self._wanted.values())
        if self._written is None:
            self._written = await asyncio.to_thread(self._filter.tunnels)
        if wanted and self._written != wanted:
            await asyncio.to_thread(self._filter.write, wanted, await self._peers())
            self._written = wanted
            await self._kernel.close_beside(self._wanted.keys(), self._addresses)
            _log.info("connections that begin in %s get no subflow beside it", ", ".join(sorted(wanted)))
        elif self._written and not wanted and not await self._peers():
            await asyncio.to_thread(self._filter.write, wanted, frozenset())
            self._written, self._addresses = wanted, frozenset()
        elif self._written and self._prune and not await self._wait(_PRUNE_AFTER):
            self._prune = False
            remembered = await asyncio.to_thread(self._filter.peers)
            if stale := remembered - await self._peers():
                await asyncio.to_thread(self._filter.forget, stale)

    async def _peers(self) -> frozenset[str]:
        return await self._kernel.peers_of(self._wanted.keys(), self._addresses)

    def _on_rule_set(self) -> None:
        """Some rule set changed, perhaps by :meth:`_update`: see whether the filter is still there."""
        self._written = None
        self._changed.set()
