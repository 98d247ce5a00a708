# SPDX-License-Identifier: GPL-2.0-or-later
"""A FIB under test, its events, and dumps to compare it with."""

from __future__ import annotations

import asyncio

from nm_mptcp.kernel.fib import FIB, Changes
from nm_mptcp.kernel.rtnetlink import Rtnetlink
from nm_mptcp.kernel.rtnl_events import RtnetlinkEvents, full_dump

from ..support.waits import wait_for


class Subject:
    """A FIB, its events, and dumps to compare it with."""

    def __init__(self) -> None:
        self.changes: list[Changes] = []
        self.losses = 0
        self.last_difference = ""
        self.loop = asyncio.new_event_loop()
        self.fib = FIB()
        self.events = RtnetlinkEvents(self.fib, self.changes.append, self._on_lost)
        self.events.start(self.loop)
        self.rtnetlink = Rtnetlink()
        self.dump()

    def _on_lost(self) -> None:
        self.losses += 1

    def close(self) -> None:
        self.events.close()
        self.rtnetlink.close()
        self.loop.close()

    def dump(self) -> bool:
        self.events.begin_dump()
        return self.events.end_dump(full_dump(self.rtnetlink))

    def difference(self) -> str:
        """How the FIB differs from a dump, "": not at all."""
        fresh = full_dump(self.rtnetlink)
        self.events.read()
        words = []
        for kind in ("links", "addresses", "routes"):
            known, dumped = getattr(self.fib, kind), getattr(fresh, kind)
            for place in sorted(known.keys() | dumped.keys()):
                mine, other = known.get(place, ()), dumped.get(place, ())
                if kind == "links":
                    mine, other = (mine,), (other,)
                for one in set(mine) - set(other):
                    words.append(f"{kind} {place}: only the FIB has {one}")
                for one in set(other) - set(mine):
                    words.append(f"{kind} {place}: only the kernel has {one}")
                if len(mine) != len(set(mine)):
                    words.append(f"{kind} {place}: the FIB has a duplicate")
        if self.fib.rules != fresh.rules:
            words.append(f"rules: {self.fib.rules} instead of {fresh.rules}")
        return "\n".join(words)

    def settled(self) -> bool:
        """Whether it agrees with the kernel, or a resync is due; waits for that."""
        difference = ""

        def agrees() -> bool:
            nonlocal difference
            self.events.read()
            difference = self.difference()
            return not difference or self.fib.resync_due

        try:
            wait_for("the FIB shows what the kernel has", agrees, seconds=2)
        except AssertionError:
            return False
        finally:
            self.last_difference = difference
        return True
