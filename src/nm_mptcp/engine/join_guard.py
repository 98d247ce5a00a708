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
from collections.abc import Callable
from typing import TypeVar

from ..fault_log import FaultLog
from ..kernel.access import KernelAccess
from ..kernel.errors import KernelError
from ..kernel.join_filter import ANNOUNCED_NAME, IPSEC_NAME, JoinFilter, expressible
from ..model.state import IPSEC, Desired, Kernel
from ..policy.tunnels import addresses_of, announces_tunnels_alone
from ..text import printable

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)

#: Where :data:`ANNOUNCED_NAME` is among the tunnels' names by ifindex.
_ANNOUNCED = -2

#: Seconds from a change of routes to the next look at which peers are still needed, and between two such looks when only
#: connections ended.
_AFTER_ROUTES, _AFTER_CLOSE = 1.0, 60.0

#: Seconds between two looks whether the last connection that began in a tunnel has ended, when no tunnel is left.
_LEFT_OVER = 10.0

#: Seconds after the start before a table of an earlier process is looked for, where there is no tunnel.
_AT_REST = 10.0

#: Seconds after which a peer's join no longer follows from an announcement before the filter: its SYN is sent again after 1, 3
#: and 7 s.
_LATE_JOIN = 10.0

#: Seconds before a filter that could not be written is tried again.
_RETRY = 30.0


class JoinGuard:
    """Follows decisions, in the background: ``nft`` takes longer than a lost link may wait."""

    def __init__(self, kernel: KernelAccess) -> None:
        self._kernel = kernel
        self._filter = JoinFilter()
        self._wanted: dict[int, str] = {}  #: the tunnels' names by ifindex
        self._addresses: frozenset[str] = frozenset()  #: of tunnels since the filter was written, and of no other link
        self._written: frozenset[str] | None = None  #: None: to be read
        self._close_due = False  #: subflows beside a tunnel may be from before the filter
        self._close_again: float | None = None  #: when they may be so for the last time, by the loop's clock
        self._events = 0  #: changes of the table, counted
        self._depends: tuple[object, ...] = ()
        self._prune_at: float | None = None  #: by the loop's clock; None: not due
        self._pruned = 0.0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._calling = asyncio.Lock()  #: held while ``nft`` runs
        self._faults = FaultLog(_log)

    def follow(self, desired: Desired, kernel: Kernel) -> None:
        """Guard the tunnels of this decision from now on."""
        names = {index: kernel.links[index].name for index in desired.stays_inside - {IPSEC}}
        wanted = {index: name for index, name in names.items() if expressible(name)}
        if len(wanted) < len(names):
            strange = ", ".join(printable(name) for index, name in names.items() if index not in wanted)
            self._faults.report(
                "names", f"the packet filter cannot name {strange}: its connections may get subflows beside it"
            )
        if IPSEC in desired.stays_inside:
            wanted[IPSEC] = IPSEC_NAME
        addresses = addresses_of(wanted.keys(), kernel, self._addresses)
        if wanted and announces_tunnels_alone(desired.paths, kernel.endpoints, addresses):
            wanted[_ANNOUNCED] = ANNOUNCED_NAME
        if wanted != self._wanted or addresses != self._addresses:
            self._wanted, self._addresses = wanted, addresses
            self._changed.set()
        depends = (kernel.routes, kernel.rules)
        if len(depends) != len(self._depends) or any(a is not b for a, b in zip(depends, self._depends, strict=True)):
            self._depends = depends
            self._prune(_AFTER_ROUTES)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def on_connection_closed(self) -> None:
        """A connection ended: its peer may be forgotten."""
        since = asyncio.get_running_loop().time() - self._pruned
        self._prune(max(_AFTER_CLOSE - since, _AFTER_ROUTES))

    def _prune(self, seconds: float) -> None:
        """Look which peers are still needed, in so many seconds at the latest."""
        due = asyncio.get_running_loop().time() + seconds
        if (self._wanted or self._written) and (self._prune_at is None or due < self._prune_at - _AFTER_ROUTES):
            self._prune_at = due
            self._changed.set()

    async def clear(self) -> None:
        """Remove the filter, until the next :meth:`follow`."""
        self._wanted = {}
        self.close()
        with contextlib.suppress(KernelError):
            await self._call(self._filter.write, frozenset(), frozenset())

    def close(self) -> None:
        """Follow no more; the filter stays."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._filter.unfollow()
        self._written = None

    async def _call(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        """Call a function of the filter in a thread. One at a time, also when the caller is cancelled: ``nft`` goes on."""
        async with self._calling:
            return await asyncio.shield(asyncio.to_thread(function, *arguments))

    async def _run(self) -> None:
        with contextlib.suppress(KernelError):
            self._filter.follow(asyncio.get_running_loop(), self._on_table)
        if not self._wanted:
            await self._wait(_AT_REST)  # a table that a process before left is not urgent
        while True:
            self._changed.clear()
            try:
                await self._update()
            except Exception as error:
                self._written = None
                missing = isinstance(error, KernelError) and error.errno == errno.ENOENT
                needless = missing and not self._wanted
                if not needless:
                    effect = "connections through a tunnel may get subflows beside it"
                    what = str(error) if isinstance(error, KernelError) else f"{type(error).__name__}: {error}"
                    self._faults.report("filter", f"{what}; {effect}" + (" (install nftables)" if missing else ""))
                await self._wait(math.inf if needless else _RETRY)
            else:
                self._faults.clear("filter")
                if self._written and not self._wanted:
                    await self._wait(_LEFT_OVER)
                elif self._close_again is None:
                    await self._wait(math.inf)
                elif not await self._wait(self._close_again - asyncio.get_running_loop().time()):
                    self._close_due, self._close_again = True, None

    async def _wait(self, seconds: float) -> bool:
        """Wait for a change, but not longer than that; whether there was one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                return await self._changed.wait()
        return False

    async def _update(self) -> None:
        loop = asyncio.get_running_loop()
        wanted, events = frozenset(self._wanted.values()), self._events
        if self._written is None:
            found = await self._call(self._filter.tunnels)
            self._written = found if events == self._events else None
        if self._written is None:
            self._changed.set()
        elif wanted and self._written != wanted:
            await self._call(self._filter.write, wanted, await self._peers())
            known, guarded = ((self._written or frozenset()) - {ANNOUNCED_NAME}, wanted - {ANNOUNCED_NAME})
            self._written, self._close_due, self._close_again = wanted, True, loop.time() + _LATE_JOIN
            if guarded != known:
                names = ", ".join(sorted("an IPsec policy" if name == IPSEC_NAME else name for name in guarded))
                _log.info("connections that begin in %s get no subflow beside it", names)
            await self._complete()
        elif self._close_due and wanted:
            await self._complete()
        elif self._written and not wanted and not await self._peers():
            await self._call(self._filter.write, wanted, frozenset())
            self._written, self._addresses = wanted, frozenset()
        elif self._written and self._prune_at and not await self._wait(self._prune_at - loop.time()):
            self._prune_at, self._pruned = None, loop.time()
            remembered = await self._call(self._filter.peers)
            await self._call(self._filter.forget, remembered - await self._peers())
            await self._call(self._filter.remember, await self._peers())

    async def _complete(self) -> None:
        """Close what got beside the tunnels before the filter was there, and remember what began meanwhile."""
        await self._call(self._filter.remember, await self._peers())
        await self._kernel.close_beside(self._wanted.keys(), self._addresses)
        self._close_due = False

    async def _peers(self) -> frozenset[str]:
        return await self._kernel.peers_of(self._wanted.keys(), self._addresses)

    def _on_table(self) -> None:
        """The table changed, perhaps by :meth:`_update`: see whether it is still there."""
        self._events += 1
        self._written = None
        self._changed.set()
