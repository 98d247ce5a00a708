# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers that are the same for all callers: computed once for those that wait, and delivered a few at a time.

Any user may call as often as they like, and a lost link must not wait for that: neither for a thousand dumps of the kernel's
state nor for a thousand replies in one iteration of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_Answer = TypeVar("_Answer")

#: How many callers get the answer in one iteration of the loop, and the seconds until the next ones do.
SLICE, PAUSE = 8, 0.005


class SharedAnswer(Generic[_Answer]):
    """``make`` computes the answer, one at a time. Callers that come meanwhile get the next one, as the state may change."""

    def __init__(self, make: Callable[[], Awaitable[_Answer]]) -> None:
        self._make = make
        self._waiting: list[asyncio.Future[_Answer]] = []
        self._serving: asyncio.Task[None] | None = None

    async def get(self) -> _Answer:
        """An answer that is computed after this call. Raises what ``make`` raises."""
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        return await answer

    async def _serve(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            made = asyncio.ensure_future(self._make())
            try:
                await asyncio.wait((made,))
            finally:
                made.cancel()
            for number, answer in enumerate(waiting, 1):
                if answer.done():
                    continue  # the caller has gone
                if error := made.exception():
                    answer.set_exception(error)
                else:
                    answer.set_result(made.result())
                if number % SLICE == 0:
                    await asyncio.sleep(PAUSE)
