# SPDX-License-Identifier: GPL-2.0-or-later
"""The TCP sockets as the engine reads them, for callers in an asyncio loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from .tcp_sockets import Look, SocketKey, TCPSocket, TCPSockets
from .worker import NetlinkWorker


class SocketAccess:
    """See :class:`.TCPSockets`; every method raises :class:`~nm_mptcp.kernel.errors.KernelError`."""

    def __init__(self, worker: NetlinkWorker) -> None:
        self.reader = TCPSockets()
        self._worker = worker

    async def look(self, local: Mapping[str, int], resent: Set[SocketKey], is_near: Callable[[str], bool]) -> Look:
        """See :meth:`.TCPSockets.look`."""
        return await self._worker.run(self.reader.look, local, resent, is_near)

    async def find(self, keys: Mapping[SocketKey, int]) -> tuple[TCPSocket, ...]:
        """See :meth:`.TCPSockets.find`, which takes less time than to wake a thread, and the loop again."""
        return await self._worker.run_at_once(self.reader.find, keys)

    async def subflows(self, local: Mapping[str, int]) -> tuple[TCPSocket, ...]:
        """See :meth:`.TCPSockets.subflows`."""
        return await self._worker.run(self.reader.subflows, local)
