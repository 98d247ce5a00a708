# SPDX-License-Identifier: GPL-2.0-or-later
"""Notifications of retransmissions while they are wanted: traced, or polled where nothing can be traced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..kernel.retransmissions import RetransmissionPoll, Retransmissions
from ..kernel.tcp_sockets import SocketKey

_log = logging.getLogger(__name__)

#: Seconds after which tracing ends when it is not wanted any more: to end it takes time, and a lost link may be back soon.
_STOP_AFTER = 60.0


class RetransmissionSource:
    """Calls ``on_sockets`` with the sockets that retransmitted, or ``on_any`` where it is not known which did."""

    def __init__(self, on_sockets: Callable[[frozenset[SocketKey]], None], on_any: Callable[[], None]) -> None:
        self._trace = Retransmissions(on_sockets)
        self._poll = RetransmissionPoll(on_any)
        self._untraceable = False
        self._stopping: asyncio.TimerHandle | None = None

    def follow(self, *, wanted: bool) -> None:
        """Begin, or end after a while."""
        loop = asyncio.get_running_loop()
        active = self._trace.active or self._poll.active
        if not wanted:
            if active and self._stopping is None:
                self._stopping = loop.call_later(_STOP_AFTER, self.stop)
            return
        if self._stopping is not None:
            self._stopping.cancel()
            self._stopping = None
        if active:
            return
        if not self._untraceable:
            try:
                self._trace.start(loop)
                return
            except OSError as error:
                self._untraceable = True
                _log.info("retransmissions cannot be traced, reading their counter each second: %s", error)
        self._poll.start(loop)

    def stop(self) -> None:
        """End now."""
        if self._stopping is not None:
            self._stopping.cancel()
            self._stopping = None
        self._trace.stop()
        self._poll.stop()
