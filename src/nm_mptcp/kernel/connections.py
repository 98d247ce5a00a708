# SPDX-License-Identifier: GPL-2.0-or-later
"""The live MPTCP connections by the local addresses of their subflows, at hand when a link is lost.

To list subflows the kernel walks its whole table of TCP sockets: some milliseconds, more where there is more memory, for
which a lost link's endpoint would wait. So the answer is cached until an event of the path manager, and read again some
time after the last one. Events only invalidate it; what changes without one (a peer that half-closes) is seen by the looks
that follow each loss.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from .errors import KernelError
from .sock_diag import Subflow, TCPState

#: Seconds from an event to the next read: a join is complete a round-trip after its event.
_SETTLED = 0.3

#: The pause before the next read, as a multiple of what the last one took: with many sockets that may be a second.
_REST = 100


class Connections:
    """The number of live connections by the local addresses of their established subflows.

    ``subflows`` reads them from the kernel, on whatever thread calls :meth:`read`.
    """

    def __init__(self, subflows: Callable[[], tuple[Subflow, ...]]) -> None:
        self._subflows = subflows
        self._events = 0  #: of the path manager, counted
        #: the last answer, and the count of events when it was read
        self._kept: tuple[int, Mapping[frozenset[str], int]] | None = None
        #: the tokens of the connections that had a subflow at the last read, and when that was (``time.monotonic``)
        self.alive: tuple[frozenset[int], float] = (frozenset(), 0.0)
        self._cost = 0.0  #: seconds that the last read took
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reread: Callable[[], Awaitable[object]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[None] | None = None

    def follow(self, loop: asyncio.AbstractEventLoop, reread: Callable[[], Awaitable[object]]) -> None:
        """Cache answers from now on: :meth:`on_event` is called at each event. ``reread`` calls :meth:`read` on its thread."""
        self._loop, self._reread = loop, reread
        self.on_event()

    def unfollow(self) -> None:
        """End :meth:`follow`."""
        self._loop = self._kept = None
        if self._timer is not None:
            self._timer.cancel()
        if self._reading is not None:
            self._reading.cancel()

    def on_event(self) -> None:
        """An event of the path manager: the cached answer is invalid, and is read again after a while."""
        self._events += 1
        if self._loop is not None and self._timer is None:
            self._timer = self._loop.call_later(max(_SETTLED, _REST * self._cost), self._due)

    @property
    def kept(self) -> Mapping[frozenset[str], int] | None:
        """The cached answer, None where there is no valid one."""
        return self._kept[1] if self._kept is not None and self._kept[0] == self._events else None

    def read(self) -> Mapping[frozenset[str], int]:
        """Read the answer from the kernel. Raises :class:`KernelError`."""
        events, began = self._events, time.monotonic()
        subflows = self._subflows()
        self._cost = time.monotonic() - began
        self.alive = (frozenset(subflow.token for subflow in subflows), began)
        answer = Counter(frozenset(addresses) for addresses in established_addresses(subflows))
        # A join that is still incomplete becomes complete without an event.
        settled = all(subflow.established for subflow in subflows if subflow.state is TCPState.ESTABLISHED)
        self._kept = (events, answer) if settled and self._loop is not None else None
        return answer

    def _due(self) -> None:
        self._timer = None
        if self._loop is not None and self.kept is None:
            self._reading = self._loop.create_task(self._read_again())

    async def _read_again(self) -> None:
        assert self._reread is not None
        with contextlib.suppress(KernelError):  # whoever needs the answer reads it, and gets the error
            await self._reread()


def established_addresses(subflows: tuple[Subflow, ...]) -> tuple[tuple[str, ...], ...]:
    """For each live connection the local addresses of its established subflows, one for each subflow."""
    addresses: dict[int, list[str]] = {}
    for subflow in subflows:
        if subflow.established:
            addresses.setdefault(subflow.token, []).append(subflow.local)
    return tuple(map(tuple, addresses.values()))
