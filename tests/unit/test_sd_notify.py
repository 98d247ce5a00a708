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
    """A service manager that receives only on request."""
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(place))
        monkeypatch.setenv("NOTIFY_SOCKET", str(place))
        yield manager


def fill(manager: socket.socket) -> int:
    """Fill its socket from another one; returns how many datagrams it took."""
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


def test_notifications_arrive(manager: socket.socket) -> None:
    assert notify("READY=1", "STATUS=well")
    assert manager.recv(100) == b"READY=1\nSTATUS=well"


def test_a_manager_that_is_gone_does_not_block(manager: socket.socket) -> None:
    fill(manager)
    assert notify("WATCHDOG=1") is False


def test_announce_retries_until_it_is_sent_without_blocking(manager: socket.socket) -> None:
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
def test_without_a_manager_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", place)
    assert notify("READY=1")
