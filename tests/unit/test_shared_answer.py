# SPDX-License-Identifier: GPL-2.0-or-later
"""One answer for all waiting callers, delivered a few at a time."""

from __future__ import annotations

import asyncio

import pytest

from nm_mptcp.service import shared_answer
from nm_mptcp.service.shared_answer import SLICE, SharedAnswer
from tests.support.running import until


class Maker:
    """Makes answers, each when it may."""

    def __init__(self) -> None:
        self.made = 0
        self.may = asyncio.Event()

    async def make(self) -> int:
        self.made += 1
        number = self.made
        await self.may.wait()
        return number


def test_callers_during_a_computation_share_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one being computed may be older than what the caller wants to see."""
    monkeypatch.setattr(shared_answer, "PAUSE", 0)

    async def story() -> None:
        maker = Maker()
        answers = SharedAnswer(maker.make)
        first = asyncio.ensure_future(answers.get())
        await asyncio.sleep(0)
        await until("one is being made", lambda: maker.made > 0)
        others = [asyncio.ensure_future(answers.get()) for _ in range(1000)]
        await asyncio.sleep(0)
        assert maker.made == 1
        maker.may.set()
        assert (await first, set(await asyncio.gather(*others)), maker.made) == (1, {2}, 2)
        assert await answers.get() == 3

    asyncio.run(story())


def test_other_tasks_run_between_the_answers() -> None:
    async def story() -> None:
        maker = Maker()
        maker.may.set()
        answers = SharedAnswer(maker.make)
        asked = [asyncio.ensure_future(answers.get()) for _ in range(10 * SLICE)]
        done = 0
        async with asyncio.timeout(60):
            while done < len(asked):
                await asyncio.sleep(0)
                now = sum(each.done() for each in asked)
                assert now - done <= SLICE
                done = now

    asyncio.run(story())


def test_all_waiting_callers_get_an_error_and_the_next_call_tries_again() -> None:
    async def story() -> None:
        errors = [ValueError("no")]

        async def make() -> str:
            if errors:
                raise errors.pop()
            return "yes"

        answers = SharedAnswer(make)
        for said in await asyncio.gather(answers.get(), answers.get(), return_exceptions=True):
            assert isinstance(said, ValueError)
        assert await answers.get() == "yes"

    asyncio.run(story())


def test_a_cancelled_caller_does_not_affect_the_others() -> None:
    async def story() -> None:
        maker = Maker()
        answers = SharedAnswer(maker.make)
        gone, other = asyncio.ensure_future(answers.get()), asyncio.ensure_future(answers.get())
        await until("one is being made", lambda: maker.made > 0)
        gone.cancel()
        maker.may.set()
        assert await other == 1

    asyncio.run(story())
