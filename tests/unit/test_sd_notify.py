# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nm_mptcp.service.sd_notify import announce, notify


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager that hears only when it is asked to."""
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(place))
        monkeypatch.setenv("NOTIFY_SOCKET", str(place))
        yield manager


def fill(manager: socket.socket) -> int:
    """Say things until it takes no more, from nobody; how many it took."""
    taken = 0
    while True:
        # What each may have under way is bounded as well, and sooner where the queue is long.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            before = taken
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.sendto(b"X=1", manager.getsockname())
                    taken += 1
            if taken == before:
                return taken


def test_what_is_said_arrives(manager: socket.socket) -> None:
    assert notify("READY=1", "STATUS=well")
    assert manager.recv(100) == b"READY=1\nSTATUS=well"


def test_a_manager_that_does_not_listen_keeps_nobody_waiting(manager: socket.socket) -> None:
    fill(manager)
    assert notify("WATCHDOG=1") is False


def test_what_a_manager_waits_for_is_said_until_it_is_taken_while_all_else_goes_on(manager: socket.socket) -> None:
    async def story() -> None:
        taken = fill(manager)
        announcing = asyncio.create_task(announce("READY=1"))
        await asyncio.sleep(0)
        assert not announcing.done()
        for _ in range(taken):
            manager.recv(100)
        await asyncio.wait_for(announcing, 10)
        assert manager.recv(100) == b"READY=1"

    asyncio.run(story())


@pytest.mark.parametrize("place", ["", "relative", "/nowhere/notify"])
def test_without_a_manager_it_is_silent(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", place)
    assert notify("READY=1")
