# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads what the TCP sockets tell about the watched links, within a share of a processor."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping, Set
from typing import TypeVar

from ..fault_log import FaultLog
from ..kernel.errors import KernelError
from ..kernel.tcp_sockets import Look, SocketKey
from ..kernel.traffic_access import TrafficAccess
from ..model.state import Place
from ..policy.silence_evidence import Evidence, is_clear, weigh
from .watched_links import WatchedLinks

_log = logging.getLogger(__name__)

_Found = TypeVar("_Found")

#: Seconds of looking that are saved up for a burst.
_SAVED = 0.05

#: Of the sockets that sent again, so many are looked up, those of late.
_ASKED = 16


class SocketLooks:
    """Looks at sockets. ``own`` are the local addresses and ports of our connection attempts, which are no evidence."""

    def __init__(self, traffic: TrafficAccess, own: Set[tuple[str, int]]) -> None:
        self._traffic = traffic
        self._own = own
        self._faults = FaultLog(_log)
        self._left = _SAVED  #: seconds of a processor that are left, and when that was computed
        self._counted = 0.0

    def due_in(self, share: float) -> float:
        """Seconds until the next look may be made; ``share`` of the time since the last call is saved up for it."""
        now = asyncio.get_running_loop().time()
        self._left = min(self._left + share * (now - self._counted), _SAVED)
        self._counted = now
        return max(0.0, -self._left / share)

    async def are_clear(self, links: WatchedLinks, resent: dict[SocketKey, float]) -> bool:
        """Whether the sockets that sent again (when they did) tell by themselves that no link is to be examined. The kernel
        finds them at once, however many others there are.
        """
        mine = [key for key in sorted(resent, key=resent.__getitem__) if key[0] in links.place_of]
        asked = {key: links.place_of[key[0]].ifindex for key in mine[-_ASKED:]}
        found = await self._timed(self._traffic.find(asked))
        if found is None:
            return False
        evidence = self._weighed(Look(found), links, resent.keys())
        places = {links.place_of[key[0]] for key in mine}
        return all(is_clear(place, evidence, complete=len(asked) == len(mine)) for place in places)

    async def look(self, links: WatchedLinks, resent: Set[SocketKey]) -> dict[Place, Evidence]:
        """The evidence about each link, by all sockets; none after an error."""
        resent = frozenset(resent)  # more may come meanwhile
        local = dict.fromkeys(links.inside, 0)
        local |= {address: place.ifindex for address, place in links.place_of.items()}
        found = await self._timed(self._traffic.look(local, resent, links.is_near))
        return {} if found is None else self._weighed(found, links, resent)

    async def received(self) -> Mapping[int, int]:
        """The bytes that each link has received, by ifindex; none after an error."""
        return await self._timed(self._traffic.received()) or {}

    def _weighed(self, found: Look, links: WatchedLinks, resent: Set[SocketKey]) -> dict[Place, Evidence]:
        others = tuple(each for each in found.sockets if each.key[:2] not in self._own)
        return weigh(found._replace(sockets=others), links.place_of, links.is_near, resent, links.inside)

    async def _timed(self, read: Awaitable[_Found]) -> _Found | None:
        """What is read, or None after an error; how long it keeps a processor counts, not how long others keep it from one."""
        began = time.process_time()
        try:
            found = await read
        except KernelError as error:
            self._faults.report("sockets", f"{error}; silent links are not noticed")
            return None
        else:
            self._faults.clear("sockets")
            return found
        finally:
            self._left -= time.process_time() - began
