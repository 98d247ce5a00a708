# SPDX-License-Identifier: GPL-2.0-or-later
"""When to re-add an endpoint whose subflows failed.

The kernel tries an endpoint once for each connection and never again, unless the endpoint is deleted and added. That is done
with growing delays, a limited number of times, and never for a connection whose peer refused.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field

from ..kernel.path_manager_events import EventName, PathManagerEvent

#: Seconds before the first retry, doubled with each, and their maximum.
_DELAY = (1.0, 300.0)

#: Retries, until a subflow on the address lived for :data:`_RECOVERED` or its endpoint was added for another reason.
_MAX_TRIES = 12

#: Seconds that a subflow must live for its address to count as recovered.
_RECOVERED = 60.0

#: Errors by which a peer refuses a join; such a connection is not retried.
_REFUSED = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})

#: Resets that count as a refusal: a single one may come from a peer that has not noticed the previous subflow's end yet.
_MAX_RESETS = 2

#: Connections that are tracked before those that ended without an event are removed.
_PRUNE_AT = 1000

_Subflow = tuple[str, int, str, int]


@dataclass(slots=True, eq=False)
class _Failure:
    """The failures on an address."""

    tokens: set[int] = field(default_factory=set)  #: the connections that lost a subflow
    tries: int = 0
    due: float = 0.0  #: the next retry (the caller's clock, s)


class SubflowRetry:
    """Tracks failed subflows by address. Times are in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failure] = {}
        self._established: dict[int, dict[_Subflow, float]] = {}
        self._refusing: set[int] = set()
        self._resets: Counter[int] = Counter()
        self._last_event: dict[int, float] = {}  #: by connection
        self._prune_at = _PRUNE_AT

    @property
    def needs_pruning(self) -> bool:
        """Whether enough connections are tracked to call :meth:`prune`."""
        return len(self._last_event) > self._prune_at

    def prune(self, alive: Set[int], asked: float) -> None:
        """Forget connections that were not ``alive`` at the time ``asked``, and without an event since."""
        for token in [token for token, last in self._last_event.items() if last < asked and token not in alive]:
            self._forget(token)
        self._prune_at = max(_PRUNE_AT, 2 * len(self._last_event))

    def on_event(self, event: PathManagerEvent, now: float) -> bool:
        """Update the state by an event of the path manager; True if a subflow failed whose endpoint is to be retried."""
        if event.name is EventName.CLOSED:
            self._forget(event.token)
            return False
        self._last_event[event.token] = now
        if event.local is None or event.remote is None:
            return False
        subflow = (event.local, event.local_port, event.remote, event.remote_port)
        alive = self._established.setdefault(event.token, {})
        if event.name in (EventName.ESTABLISHED, EventName.SUBFLOW_ESTABLISHED):
            alive[subflow] = now
            if failure := self._failures.get(event.local):
                failure.tokens.discard(event.token)
        elif event.name is EventName.SUBFLOW_CLOSED:
            began = alive.pop(subflow, None)
            if event.error in _REFUSED and began is None and self._is_refusal(event):
                self._refusing.add(event.token)
            elif event.error and event.token not in self._refusing:
                return self._failed(event.local, event.token, began, now)
        if not alive:
            self._established.pop(event.token, None)
        return False

    def due(self, now: float) -> frozenset[str]:
        """The addresses whose endpoint is to be re-added now."""
        return frozenset(
            address
            for address, failure in self._failures.items()
            if failure.tokens - self._refusing and failure.tries < _MAX_TRIES and failure.due <= now
        )

    def next_due(self, now: float) -> float | None:
        """When the next retry is due; None: there is none."""
        times = [
            failure.due
            for failure in self._failures.values()
            if failure.tokens - self._refusing and failure.tries < _MAX_TRIES and failure.due > now
        ]
        return min(times, default=None)

    def on_endpoint_readded(self, address: str, now: float) -> None:
        """The endpoint was deleted and added again, as a retry."""
        if failure := self._failures.get(address):
            failure.tries += 1
            failure.due = now + min(_DELAY[0] * 2**failure.tries, _DELAY[1])

    def on_endpoint_added(self, address: str) -> None:
        """The endpoint was added for another reason, so that the kernel tries it on all live connections."""
        self._failures.pop(address, None)

    def forget(self) -> None:
        """Forget all failures: after a sleep the delays begin anew."""
        self._failures.clear()

    def _is_refusal(self, event: PathManagerEvent) -> bool:
        self._resets[event.token] += 1
        return event.error == errno.ECONNREFUSED or self._resets[event.token] >= _MAX_RESETS

    def _failed(self, address: str, token: int, began: float | None, now: float) -> bool:
        failure = self._failures.setdefault(address, _Failure())
        if began is not None and now - began >= _RECOVERED:
            failure.tries = 0
        if not failure.tokens and failure.due <= now:
            failure.due = now + min(_DELAY[0] * 2**failure.tries, _DELAY[1])
        failure.tokens.add(token)
        return True

    def _forget(self, token: int) -> None:
        self._last_event.pop(token, None)
        self._established.pop(token, None)
        self._refusing.discard(token)
        self._resets.pop(token, None)
        for address, failure in list(self._failures.items()):
            failure.tokens.discard(token)
            if not failure.tokens and not failure.tries:
                del self._failures[address]
