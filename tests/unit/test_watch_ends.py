# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp watch`` is cancelled in the very moment of an event."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from nm_mptcp.dbus.connection import Bus, BusError
from nm_mptcp.watch import bus_observer as module
from nm_mptcp.watch.bus_observer import BusObserver


class Busy:
    """A bus on which a service answers each call with a status."""

    calls = 0

    async def call(self, *_: object) -> tuple[str]:
        self.calls += 1
        if self.calls > 10:
            raise BusError(BusError.DISCONNECTED, "nobody ended it")
        return ('{"paths": [], "devices": [], "networkmanager": {"running": true, "version": "1.42.4"}}',)


@pytest.mark.parametrize("turns", range(5))
def test_the_end_is_not_lost_beside_an_event(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """``turns``: of the loop, between the event and the cancellation."""
    monkeypatch.setattr(module, "_PAUSE", 0)

    async def end_it() -> None:
        observer = BusObserver(lambda **_: None)
        asking = asyncio.create_task(observer._keep_asking(cast(Bus, Busy())))
        await observer.answered.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        observer.ask()
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        (ended,) = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)

    asyncio.run(end_it())
