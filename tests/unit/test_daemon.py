# SPDX-License-Identifier: GPL-2.0-or-later
"""The service in states that cannot be reached otherwise; all others are tested with a real bus and NetworkManager."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nm_mptcp.config.files import ConfigurationFiles
from nm_mptcp.config.settings import DEFAULTS
from nm_mptcp.engine.record_file import Record
from nm_mptcp.service import daemon
from nm_mptcp.service.daemon import Daemon


def test_no_error_ends_the_following_of_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    class Broken:
        """A bus by an unknown library."""

        async def connect(self) -> None:
            nonlocal tries
            tries += 1
            raise AttributeError("no attribute '_stream'")

        def close(self) -> None:
            pass

    monkeypatch.setattr(daemon, "Bus", Broken)
    monkeypatch.setattr(daemon, "_RETRY", (0.001, 0.002))

    async def story() -> None:
        following = asyncio.create_task(Daemon(Record(tmp_path), DEFAULTS, ConfigurationFiles(None))._follow_bus())
        async with asyncio.timeout(5):
            while tries < 10 and not following.done():
                await asyncio.sleep(0.001)
        assert not following.done()
        following.cancel()

    asyncio.run(story())
    assert (
        len([line for line in caplog.messages if "following the bus failed" in line]) == 2
    )  # with its traceback, and what then


def test_a_busy_systemd_does_not_delay_a_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    busy = True

    def notify(*assignments: str) -> bool:
        if not busy:
            heard.append(assignments[0])
        return not busy

    monkeypatch.setattr(daemon.sd_notify, "notify", notify)

    async def story() -> None:
        nonlocal busy
        subject = Daemon(Record(tmp_path), DEFAULTS, ConfigurationFiles(tmp_path / "mine.conf"))
        subject._ready = True
        monkeypatch.setattr(subject._engine, "converge", done)
        (tmp_path / "mine.conf").touch()
        async with asyncio.timeout(5):
            await subject._reload()
        assert heard == []
        busy = False
        async with asyncio.timeout(5):
            await subject._reload()
        assert heard == ["RELOADING=1", "READY=1"]

    asyncio.run(story())


async def done(**_: object) -> bool:
    return False
