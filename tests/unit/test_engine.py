# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop itself, with a kernel in which nothing is to do; what it does in a real one the other tests see."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from nm_mptcp import engine
from nm_mptcp.kernel.access import KernelAccess
from nm_mptcp.kernel.mirror import Changes
from nm_mptcp.model import Kernel, NetworkManager
from nm_mptcp.state import Record


class Quiet:
    """A kernel with nothing in it."""

    def __init__(self) -> None:
        self.looks = 0

    async def look(self, *, thorough: bool = False) -> Kernel:  # noqa: ARG002
        self.looks += 1
        return Kernel()

    async def connections(self) -> Mapping[frozenset[str], int]:
        return {}


@pytest.mark.parametrize("turns", range(6))
def test_it_ends_when_it_is_told_to_in_whatever_moment_of_a_loss(
    turns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With asyncio.wait_for of Python 3.11 a cancellation in the moment of an event is lost, and the loop never ends."""
    monkeypatch.setattr(engine, "_COALESCE", 5.0)

    async def story() -> bool:
        kernel = Quiet()
        subject = engine.Engine(cast(KernelAccess, kernel), NetworkManager, Record(tmp_path))
        running = asyncio.create_task(subject.run())
        while not kernel.looks:
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)  # it waits for more of the burst now
        subject.changed(Changes(lost_links=frozenset({2})))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=2)
        running.cancel()
        return bool(done)

    assert asyncio.run(story())
