# SPDX-License-Identifier: GPL-2.0-or-later
"""What tells of traffic, as the engine reads it: the TCP sockets and the links' counters, for callers in an asyncio loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from .link_stats import LinkStats
from .tcp_sockets import Look, SocketKey, TCPSocket, TCPSockets
from .worker import NetlinkWorker


class TrafficAccess:
    """See :class:`.TCPSockets` and :class:`.LinkStats`; every method raises :class:`~nm_mptcp.kernel.errors.KernelError`."""

    def __init__(self, worker: NetlinkWorker) -> None:
        self.sockets = TCPSockets()
        self.counters = LinkStats()
        self._worker = worker

    async def look(self, local: Mapping[str, int], resent: Set[SocketKey], is_near: Callable[[str], bool]) -> Look:
        """See :meth:`.TCPSockets.look`."""
        return await self._worker.run(self.sockets.look, local, resent, is_near)

    async def find(self, keys: Mapping[SocketKey, int]) -> tuple[TCPSocket, ...]:
        """See :meth:`.TCPSockets.find`, which takes less time than to wake a thread, and the loop again."""
        return await self._worker.run_at_once(self.sockets.find, keys)

    async def subflows(self, local: Mapping[str, int]) -> tuple[TCPSocket, ...]:
        """See :meth:`.TCPSockets.subflows`."""
        return await self._worker.run(self.sockets.subflows, local)

    async def received(self) -> Mapping[int, int]:
        """The bytes that each link has received, by ifindex."""
        links = await self._worker.run(self.counters.links)
        return {ifindex: counters.received for ifindex, counters in links.items()}
