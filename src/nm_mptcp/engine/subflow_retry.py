# SPDX-License-Identifier: GPL-2.0-or-later
"""Subflows that died by an error while their endpoint stayed: when to try that endpoint again.

The kernel tries an endpoint once for each connection and never again. Deleting and adding it makes it try; that is done
with a growing delay, a bounded number of times, and never for a connection whose peer refused.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field

from ..kernel.path_manager_events import EventName, PathManagerEvent

#: Seconds before the first try; doubled with each, up to the second.
_DELAY = (1.0, 300.0)

#: Tries after which an address is given up until a subflow on it lived, or its endpoint came anew.
_TRIES = 12

#: Seconds that a subflow has to live for its address to count as healed.
_HEALED = 60.0

#: The peer said no: it is not asked again.
_REFUSED = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})

#: A single reset of a join may be a peer that has not yet noticed the end of the subflow before; a second one is a no.
_PATIENCE = 2

#: Connections of which something may be remembered before it is asked which of them live: the end of some was not told.
_CROWD = 1000

_Subflow = tuple[str, int, str, int]


@dataclass(slots=True, eq=False)
class _Wound:
    """An address whose subflows died: which connections lost one, and when to try next (the caller's clock, s)."""

    tokens: set[int] = field(default_factory=set)
    tries: int = 0
    due: float = 0.0


class SubflowRetry:
    """Remembers deaths. It has no clock: the caller says what time it is."""

    def __init__(self) -> None:
        self._wounds: dict[str, _Wound] = {}
        self._established: dict[int, dict[_Subflow, float]] = {}
        self._refusing: set[int] = set()
        self._resets: Counter[int] = Counter()
        self._heard: dict[int, float] = {}  #: of each connection the last event
        self._crowd = _CROWD

    @property
    def crowded(self) -> bool:
        """Whether so many connections are remembered that some of them will have ended: see :meth:`keep`."""
        return len(self._heard) > self._crowd

    def keep(self, alive: Set[int], asked: float) -> None:
        """Forget connections that were not alive when that was asked, and of which nothing was heard since."""
        for token in [token for token, heard in self._heard.items() if heard < asked and token not in alive]:
            self._forget(token)
        self._crowd = max(_CROWD, 2 * len(self._heard))

    def on_event(self, event: PathManagerEvent, now: float) -> bool:
        """Take in an event of the path manager; True when an address needs healing that did not before."""
        if event.name is EventName.CLOSED:
            self._forget(event.token)
            return False
        self._heard[event.token] = now
        if event.local is None or event.remote is None:
            return False
        subflow = (event.local, event.local_port, event.remote, event.remote_port)
        alive = self._established.setdefault(event.token, {})
        if event.name in (EventName.ESTABLISHED, EventName.SUBFLOW_ESTABLISHED):
            alive[subflow] = now
            if wound := self._wounds.get(event.local):
                wound.tokens.discard(event.token)
        elif event.name is EventName.SUBFLOW_CLOSED:
            began = alive.pop(subflow, None)
            if event.error in _REFUSED and began is None and self._is_no(event):
                self._refusing.add(event.token)
            elif event.error and event.token not in self._refusing:
                return self._wounded(event.local, event.token, began, now)
        if not alive:
            self._established.pop(event.token, None)
        return False

    def due(self, now: float) -> frozenset[str]:
        """Addresses whose endpoint is to be tried again now."""
        return frozenset(
            address
            for address, wound in self._wounds.items()
            if wound.tokens - self._refusing and wound.tries < _TRIES and wound.due <= now
        )

    def next_due(self, now: float) -> float | None:
        """When the next try is; None when there is none."""
        times = [
            wound.due
            for wound in self._wounds.values()
            if wound.tokens - self._refusing and wound.tries < _TRIES and wound.due > now
        ]
        return min(times, default=None)

    def tried(self, address: str, now: float) -> None:
        """The endpoint was deleted and added again."""
        if wound := self._wounds.get(address):
            wound.tries += 1
            wound.due = now + min(_DELAY[0] * 2**wound.tries, _DELAY[1])

    def on_endpoint_added(self, address: str) -> None:
        """Its endpoint was added for another reason: the kernel tries it by itself, on all live connections."""
        self._wounds.pop(address, None)

    def forget(self) -> None:
        """All delays begin anew: the machine slept."""
        self._wounds.clear()

    def _is_no(self, event: PathManagerEvent) -> bool:
        self._resets[event.token] += 1
        return event.error == errno.ECONNREFUSED or self._resets[event.token] >= _PATIENCE

    def _wounded(self, address: str, token: int, began: float | None, now: float) -> bool:
        wound = self._wounds.setdefault(address, _Wound())
        if began is not None and now - began >= _HEALED:
            wound.tries = 0
        if not wound.tokens and wound.due <= now:
            wound.due = now + min(_DELAY[0] * 2**wound.tries, _DELAY[1])
        wound.tokens.add(token)
        return True

    def _forget(self, token: int) -> None:
        self._heard.pop(token, None)
        self._established.pop(token, None)
        self._refusing.discard(token)
        self._resets.pop(token, None)
        for address, wound in list(self._wounds.items()):
            wound.tokens.discard(token)
            if not wound.tokens and not wound.tries:
                del self._wounds[address]
