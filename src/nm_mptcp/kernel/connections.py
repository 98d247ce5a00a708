# SPDX-License-Identifier: GPL-2.0-or-later
"""The live MPTCP connections by the local addresses of their subflows, ready when a link is lost.

For the answer the kernel goes through its whole table of TCP sockets: some milliseconds, more where there is more memory,
and a lost link's endpoint waits for it. So an answer is kept for as long as no event of the path manager says that it may
be another, and asked for again once the events have ceased. Events say only that, never what there is: a change without
one (a peer that half-closes) is seen at the looks that follow each loss.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from .errors import KernelError
from .sock_diag import Subflow, TCPState

#: Seconds after an event at which the answer is asked for anew: a join is complete a round-trip after its event.
_SETTLED = 0.3

#: How many times as long as it took to answer nothing is asked: where there are many sockets it may take a second.
_REST = 100


class Connections:
    """How many live connections stand on exactly which local addresses. ``subflows`` asks the kernel, on any one thread."""

    def __init__(self, subflows: Callable[[], tuple[Subflow, ...]]) -> None:
        self._subflows = subflows
        self._news = 0  #: counts what the path manager told
        #: the last answer, and the news when it was asked for
        self._kept: tuple[int, Mapping[frozenset[str], int]] | None = None
        #: the tokens of the connections that had a subflow at the last answer, and when it was asked for (``time.monotonic``)
        self.alive: tuple[frozenset[int], float] = (frozenset(), 0.0)
        self._cost = 0.0  #: seconds that the last answer took
        self._loop: asyncio.AbstractEventLoop | None = None
        self._again: Callable[[], Awaitable[object]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    def follow(self, loop: asyncio.AbstractEventLoop, again: Callable[[], Awaitable[object]]) -> None:
        """From now on :meth:`told` is called at each event. ``again`` calls :meth:`read`, where it disturbs nobody."""
        self._loop, self._again = loop, again
        self.told()

    def unfollow(self) -> None:
        """End :meth:`follow`."""
        self._loop = self._kept = None
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def told(self) -> None:
        """The path manager told something: what is kept is past, and is asked for again in a while."""
        self._news += 1
        if self._loop is not None and self._timer is None:
            self._timer = self._loop.call_later(max(_SETTLED, _REST * self._cost), self._due)

    @property
    def kept(self) -> Mapping[frozenset[str], int] | None:
        """The last answer where nothing was told since it was asked for, None where it has to be asked for."""
        return self._kept[1] if self._kept is not None and self._kept[0] == self._news else None

    def read(self) -> Mapping[frozenset[str], int]:
        """Ask the kernel. Raises :class:`KernelError`."""
        news, began = self._news, time.monotonic()
        subflows = self._subflows()
        self._cost = time.monotonic() - began
        self.alive = (frozenset(subflow.token for subflow in subflows), began)
        answer = Counter(frozenset(addresses) for addresses in standing(subflows))
        # That a join was completed nobody is told.
        settled = all(subflow.established for subflow in subflows if subflow.state is TCPState.ESTABLISHED)
        self._kept = (news, answer) if settled and self._loop is not None else None
        return answer

    def _due(self) -> None:
        self._timer = None
        if self._loop is not None and self.kept is None:
            self._asking = self._loop.create_task(self._ask_again())

    async def _ask_again(self) -> None:
        assert self._again is not None
        with contextlib.suppress(KernelError):  # who needs the answer asks for himself, and is told
            await self._again()


def standing(subflows: tuple[Subflow, ...]) -> tuple[tuple[str, ...], ...]:
    """The live connections: of each the local addresses of its established subflows, one an established subflow."""
    places: dict[int, list[str]] = {}
    for subflow in subflows:
        if subflow.established:
            places.setdefault(subflow.token, []).append(subflow.local)
    return tuple(map(tuple, places.values()))
