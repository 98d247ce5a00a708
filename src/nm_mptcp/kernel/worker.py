# SPDX-License-Identifier: GPL-2.0-or-later
"""The one thread that may use the sockets for netlink requests, for callers in an asyncio loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")


class NetlinkWorker:
    """Runs functions one at a time: the sockets for requests are synchronous, and each is for one thread at a time."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._in_use = threading.Lock()  #: held by the thread that uses the sockets

    def close(self) -> None:
        """Accept no more work; does not wait."""
        self._executor.shutdown(wait=False)

    async def run(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        """Call the function in the worker's thread, and return or raise what it does."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._locked, function, *arguments)

    async def run_at_once(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        """The same in the loop's own thread, which it blocks, unless the worker is busy.

        To hand work over and back takes some milliseconds while the processors are busy, as they are when a link is lost.
        """
        if not self._in_use.acquire(blocking=False):
            return await self.run(function, *arguments)
        try:
            return function(*arguments)
        finally:
            self._in_use.release()

    def _locked(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        with self._in_use:
            return function(*arguments)
