# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the link by which a full tunnel is answered: its packets are led in each of its ways in turn, until an attempt is
answered that began since then, and the link has received something. So the answer proves what it is about, and a trial that
fails leaves all as it was. Times are of the loop's clock, in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from ..model.state import Carriers, Place

#: Seconds for which each way is tried, or so many round-trip times if that is longer.
_STAGE, _STAGE_TRIPS = 1.0, 4

#: The same where nothing was heard for a while: WireGuard may have to begin a session, and asks for that each 5 s
#: (``REKEY_TIMEOUT``).
_STAGE_IDLE = 6.0

#: Seconds within which an answer is one to the first packet of an attempt, which left as the routes were when it began. TCP
#: sends it again after a second (RFC 6298), when they may be others.
_FIRST = 0.9

#: Seconds after a change of routes in which attempts tell nothing: wireguard-go asks by which link its packets would leave.
_SETTLES = 0.2

#: Seconds within which the routes have to be as wanted, else the trial ends: something else keeps the service from deciding.
_DECIDED = 3.0


class TunnelTrial:
    """A trial of these ways for the tunnel with this ifindex. ``began``: attempts since then went by the first one, without any
    detour, and have no answer so far; None: it is to be tried as well, and answers if one of the links that were led ``around``
    receives something. ``idle``: nothing was heard in the tunnel for a while.
    """

    def __init__(
        self,
        carriers: Carriers,
        words: str,
        now: float,
        *,
        tunnel: int = 0,
        began: float | None = None,
        around: Set[Place] = frozenset(),
        idle: bool = False,
    ) -> None:
        self.words = words  #: why it is tried
        self.carried: set[int] = set()  #: the ways in which the tunnel received something by a link in question
        self.carriers = carriers
        self.answered: int | None = None  #: the way in which the tunnel is answered
        self._ways = carriers.ways
        self._links = [{way.by} for way in self._ways]  #: those that have to receive something
        if around:
            self._links[0] = {place.ifindex for place in around}
        self._stage = _STAGE_IDLE if idle else _STAGE
        self._number = 0 if began is None else 1  #: of the way that is tried
        self._wanted = now  #: since when
        #: by way: since when attempts tell of it; what its links had received then; when one of them was answered
        self._since: dict[int, float] = {} if began is None else {0: began}
        self._before: dict[int, int] = {}
        self._tunnel, self._tunnel_before = tunnel, 0
        self._answers: dict[int, float] = {}

    @property
    def around(self) -> frozenset[Place]:
        """What is to be led around now; once the tunnel is answered, what has to be."""
        return self._ways[self._number if self.answered is None else self.answered].around

    @property
    def by(self) -> int:
        """The ifindex of the link by which the tunnel is answered, or is tried."""
        return self._ways[self._number if self.answered is None else self.answered].by

    @property
    def next_attempt(self) -> float | None:
        """When attempts may begin to tell something; None while that is not known."""
        return self._since[self._number] if self._number in self._before else None

    def follow(self, around: frozenset[Place], now: float) -> None:
        """The routes lead around these links now."""
        if self._number not in self._since and around == self.around:
            self._since[self._number] = now + _SETTLES

    def see(self, received: Mapping[int, int], looked: float) -> None:
        """The bytes that links had received at this time, by ifindex; none: they could not be read."""
        if not received:
            return

        def count(way: int) -> int:
            return sum(received.get(ifindex, 0) for ifindex in self._links[way])

        since = self._since.get(self._number)
        tunnel = received.get(self._tunnel, 0)
        if since is not None and looked >= since:
            if self._number not in self._before:
                self._before[self._number], self._tunnel_before = count(self._number), tunnel
            elif count(self._number) > self._before[self._number] and tunnel > self._tunnel_before:
                self.carried.add(self._number)
        for way, when in self._answers.items():
            if self.answered is None and looked >= when and count(way) > self._before.get(way, -1):
                self.answered = way

    def on_answer(self, began: float, now: float) -> None:
        """An attempt that began at this time was answered."""
        before = [way for way, since in self._since.items() if since <= began]
        if before and now - began < _FIRST:
            self._answers.setdefault(max(before), now)

    def next(self, now: float, trip: float) -> bool | None:
        """Go on to the next way if this one was tried for long enough (True); None: none is left."""
        since = self._since.get(self._number)
        if since is None:
            return None if now - self._wanted > _DECIDED else False
        if now - since < max(self._stage, _STAGE_TRIPS * trip):
            return False
        if self._number + 1 >= len(self._ways):
            return None
        self._number += 1
        self._wanted = now
        return True

    def settle(self, around: Set[Place]) -> bool:
        """End as if the tunnel were answered while it is led around these links; False if that is none of the ways."""
        for number, way in enumerate(self._ways):
            if around and around == way.around:
                self.answered = number
        return self.answered is not None
