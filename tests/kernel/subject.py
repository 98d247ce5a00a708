# SPDX-License-Identifier: GPL-2.0-or-later
"""A mirror under test, with its monitor, and fresh dumps to hold against it."""

from __future__ import annotations

import asyncio

from nm_mptcp.kernel.fib import FIB, Changes
from nm_mptcp.kernel.monitor import Monitor, look
from nm_mptcp.kernel.routing import Routing
from tests.support.network import wait_for


class Subject:
    """A mirror with its monitor, and fresh dumps to hold against it."""

    def __init__(self) -> None:
        self.changes: list[Changes] = []
        self.losses = 0
        self.last_difference = ""
        self.loop = asyncio.new_event_loop()
        self.mirror = FIB()
        self.monitor = Monitor(self.mirror, self.changes.append, self._on_lost)
        self.monitor.start(self.loop)
        self.routing = Routing()
        self.look()

    def _on_lost(self) -> None:
        self.losses += 1

    def close(self) -> None:
        self.monitor.close()
        self.routing.close()
        self.loop.close()

    def look(self) -> bool:
        self.monitor.begin_look()
        return self.monitor.end_look(look(self.routing))

    def difference(self) -> str:
        """What a fresh dump shows differently, "" when nothing."""
        fresh = look(self.routing)
        self.monitor.read()
        words = []
        for kind in ("links", "addresses", "routes"):
            ours, theirs = getattr(self.mirror, kind), getattr(fresh, kind)
            for place in sorted(ours.keys() | theirs.keys()):
                mine, told = ours.get(place, ()), theirs.get(place, ())
                if kind == "links":
                    mine, told = (mine,), (told,)
                for one in set(mine) - set(told):
                    words.append(f"{kind} {place}: only the mirror has {one}")
                for one in set(told) - set(mine):
                    words.append(f"{kind} {place}: only the kernel has {one}")
                if len(mine) != len(set(mine)):
                    words.append(f"{kind} {place}: the mirror has something twice")
        if self.mirror.rules != fresh.rules:
            words.append(f"rules: {self.mirror.rules} instead of {fresh.rules}")
        return "\n".join(words)

    def settled(self) -> bool:
        """Whether it agrees with the kernel, or doubts; waits for that."""
        difference = ""

        def agrees() -> bool:
            nonlocal difference
            self.monitor.read()
            difference = self.difference()
            return not difference or self.mirror.doubtful

        try:
            wait_for("the mirror shows what the kernel has", agrees, seconds=2)
        except AssertionError:
            return False
        finally:
            self.last_difference = difference
        return True
