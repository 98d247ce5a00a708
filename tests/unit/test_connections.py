# SPDX-License-Identifier: GPL-2.0-or-later
"""For how long an answer about the live connections is kept, and when it is asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from nm_mptcp.kernel import connections
from nm_mptcp.kernel.connections import Connections
from nm_mptcp.kernel.errors import KernelError
from nm_mptcp.kernel.sock_diag import Subflow, SubflowFlag, TCPState
from nm_mptcp.model.state import Family

WIFI, MODEM = "10.1.0.1", "10.2.0.1"


def subflow(local: str, *, token: int = 1, state: TCPState = TCPState.ESTABLISHED, flags: int = 0) -> Subflow:
    return Subflow(token, Family.IPV4, local, 1, "10.9.0.1", 2, state, SubflowFlag(flags))


class Kernel:
    """What it shows, and how often it was asked."""

    def __init__(self, *subflows: Subflow) -> None:
        self.subflows = subflows
        self.asked = 0

    def ask(self) -> tuple[Subflow, ...]:
        self.asked += 1
        return self.subflows


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_SETTLED", 0.0)


@asynccontextmanager
async def followed(kernel: Kernel) -> AsyncIterator[Connections]:
    """From the first answer on."""
    subject = Connections(kernel.ask)

    async def again() -> Mapping[frozenset[str], int]:
        return subject.read()

    subject.follow(asyncio.get_running_loop(), again)
    await asked(kernel, 1)
    try:
        yield subject
    finally:
        subject.unfollow()


async def asked(kernel: Kernel, times: int) -> None:
    async with asyncio.timeout(5):
        while kernel.asked < times:
            await asyncio.sleep(0.001)


def test_it_is_asked_for_before_anybody_wants_it_and_kept() -> None:
    async def story() -> None:
        kernel = Kernel(subflow(WIFI), subflow(MODEM), subflow(WIFI, token=2))
        async with followed(kernel) as subject:
            assert subject.kept == {frozenset({WIFI, MODEM}): 1, frozenset({WIFI}): 1}

    asyncio.run(story())


def test_an_event_ends_it_and_has_it_asked_for_once_more_however_many_come() -> None:
    async def story() -> None:
        kernel = Kernel(subflow(WIFI))
        async with followed(kernel) as subject:
            kernel.subflows = (subflow(WIFI), subflow(MODEM))
            for _ in range(3):
                subject.on_event()
            assert subject.kept is None
            await asked(kernel, 2)
            assert subject.kept == {frozenset({WIFI, MODEM}): 1}
            for _ in range(10):
                await asyncio.sleep(0.001)
            assert kernel.asked == 2

    asyncio.run(story())


def test_what_is_told_while_it_is_asked_for_counts() -> None:
    async def story() -> None:
        kernel = Kernel(subflow(WIFI))
        async with followed(kernel) as subject:
            ask = kernel.ask

            def interrupted() -> tuple[Subflow, ...]:
                there = ask()
                subject.on_event()
                return there

            subject._subflows = interrupted
            assert subject.read() == {frozenset({WIFI}): 1}
            assert subject.kept is None

    asyncio.run(story())


def test_a_join_that_is_not_complete_yet_is_not_kept() -> None:
    """There is no event for its completion, and who takes it for missing would spare the link's endpoint."""

    async def story() -> None:
        kernel = Kernel(subflow(WIFI), subflow(MODEM, flags=SubflowFlag.JOIN_LOCAL))
        async with followed(kernel) as subject:
            assert subject.kept is None

    asyncio.run(story())


def test_a_join_that_nobody_answered_yet_hinders_nothing() -> None:
    """Its coming would be an event."""

    async def story() -> None:
        kernel = Kernel(subflow(WIFI), subflow(MODEM, state=TCPState.SYN_SENT, flags=SubflowFlag.JOIN_LOCAL))
        async with followed(kernel) as subject:
            assert subject.kept == {frozenset({WIFI}): 1}

    asyncio.run(story())


def test_it_is_asked_for_the_more_rarely_the_longer_it_takes() -> None:
    """On a server with very many sockets an answer takes a second."""

    async def story() -> None:
        kernel = Kernel(subflow(WIFI))
        async with followed(kernel) as subject:
            subject._cost = 1.0
            subject.on_event()
            assert subject._timer is not None
            assert subject._timer.when() - asyncio.get_running_loop().time() > connections._REST - 1

    asyncio.run(story())


def test_a_kernel_that_does_not_answer_harms_nobody() -> None:
    async def story() -> None:
        kernel = Kernel(subflow(WIFI))
        async with followed(kernel) as subject:
            ask = kernel.ask

            def refused() -> tuple[Subflow, ...]:
                ask()
                raise KernelError(12, "read the TCP sockets")

            subject._subflows = refused
            subject.on_event()
            await asked(kernel, 2)
            assert subject.kept is None
            subject._subflows = ask
            subject.on_event()
            await asked(kernel, 3)
            assert subject.kept == {frozenset({WIFI}): 1}

    asyncio.run(story())


def test_where_nobody_tells_of_events_nothing_is_kept() -> None:
    subject = Connections(Kernel(subflow(WIFI)).ask)
    assert subject.read() == {frozenset({WIFI}): 1}
    assert subject.kept is None
