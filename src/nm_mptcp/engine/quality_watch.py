# SPDX-License-Identifier: GPL-2.0-or-later
"""Mode ``interactive``: samples the subflows of the watched links each second while any of them is in use."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from ..fault_log import FaultLog
from ..kernel.access import KernelAccess
from ..kernel.errors import KernelError
from ..kernel.tcp_sockets import SocketKey, TCPSocket
from ..model.state import Mode, Place
from .link_quality import LinkQuality, sample
from .watched_links import WatchedLinks

_log = logging.getLogger(__name__)

#: Seconds between two samples while subflows are in use, and while connections exist and none is; none without connections.
_INTERVAL, _IDLE = 1.0, 10.0


class QualityWatch:
    """Watches the links of each decision, in mode ``interactive``. ``wake`` is called when one becomes poor or well."""

    def __init__(self, kernel: KernelAccess, quality: LinkQuality, wake: Callable[[], None]) -> None:
        self._kernel = kernel
        self._quality = quality
        self._wake = wake
        self._place_of: Mapping[str, Place] = {}
        self._before: Mapping[SocketKey, TCPSocket] = {}
        self._task: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._faults = FaultLog(_log)

    def follow(self, links: WatchedLinks, mode: Mode) -> None:
        """Watch these links from now on."""
        self._place_of = {address: place for address, place in links.place_of.items() if place not in links.tunnels}
        if mode is not Mode.INTERACTIVE or not self._place_of:
            self.close()
        elif self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def on_connection(self) -> None:
        """A connection or subflow was established."""
        self._opened.set()

    def close(self) -> None:
        """Watch nothing."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._quality.poor:
            self._wake()
        self._quality.forget()
        self._before = {}

    async def _run(self) -> None:
        while True:
            self._opened.clear()
            used = await self._sample()
            if used is None:
                await self._opened.wait()
                await asyncio.sleep(_INTERVAL)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_INTERVAL if used else _IDLE):
                        await (asyncio.Event() if used else self._opened).wait()

    async def _sample(self) -> bool | None:
        """Take a sample; whether any subflow was in use since the one before, None if there is none."""
        try:
            sockets = await self._kernel.traffic.subflows(
                {address: place.ifindex for address, place in self._place_of.items()}
            )
        except KernelError as error:
            self._faults.report("sockets", f"{error}; slow links are not noticed")
            return False
        self._faults.clear("sockets")
        before, self._before = self._before, {each.key: each for each in sockets}
        if self._quality.update(sample(sockets, self._place_of, before), asyncio.get_running_loop().time()):
            self._wake()
        if not sockets:
            return None
        return any(each.sent > before[each.key].sent for each in sockets if each.key in before)
