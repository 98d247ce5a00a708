# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the link by which a full tunnel is answered: its packets are led around none of the links below it, then around the
first, then around the first two, and so on, until an attempt is answered that began since then, and the link has received
something. So the answer proves what it is about, and a trial that fails leaves all as it was. Times are of the loop's clock,
in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from ..model.state import Carriers, Place

#: Seconds for which the tunnel is tried by each link, or so many round-trip times if that is longer.
_STAGE, _STAGE_TRIPS = 1.0, 4

#: Seconds within which an answer is one to the first packet of an attempt, which left as the routes were when it began. TCP
#: sends it again after a second (RFC 6298), when they may be others.
_FIRST = 0.9

#: Seconds after a change of routes in which attempts tell nothing: wireguard-go asks by which link its packets would leave.
_SETTLES = 0.2

#: Seconds within which the routes have to be as wanted: a kernel that refuses them ends the trial.
_DECIDED = 3.0


class TunnelTrial:
    """A trial of these links, in the order of their numbers. ``began``: attempts since then went by the first of them, and have
    no answer so far; None: the first one is to be tried as well.
    """

    def __init__(self, carriers: Carriers, words: str, now: float, *, began: float | None = None) -> None:
        self.words = words  #: why it is tried
        self.answered: int | None = None  #: the number of the link by which the tunnel is answered
        self._links = carriers.links
        self._number = 0 if began is None else 1  #: of the link that is tried
        self._wanted = now  #: since when
        #: by number of the link: since when attempts tell of it; what it had received then; when one of them was answered
        self._since: dict[int, float] = {} if began is None else {0: began}
        self._before: dict[int, int | None] = {}
        self._answers: dict[int, float] = {}

    @property
    def around(self) -> frozenset[Place]:
        """What is to be led around now; once the tunnel is answered, what has to be."""
        return frozenset[Place]().union(*self._links[: self._number if self.answered is None else self.answered])

    @property
    def by(self) -> int:
        """The ifindex of the link by which the tunnel is answered, or is tried."""
        return self._ifindex(self._number if self.answered is None else self.answered)

    @property
    def next_attempt(self) -> float | None:
        """When attempts may begin to tell something; None while that is not known."""
        return self._since[self._number] if self._number in self._before else None

    def follow(self, around: frozenset[Place], now: float) -> None:
        """The routes lead around these links now."""
        if self._number not in self._since and around == self.around:
            self._since[self._number] = now + _SETTLES

    def see(self, received: Mapping[int, int], looked: float) -> None:
        """The bytes that links had received at this time, by ifindex."""
        since = self._since.get(self._number)
        if since is not None and looked >= since:
            self._before.setdefault(self._number, received.get(self.by))
        for number, when in self._answers.items():
            before, after = self._before.get(number), received.get(self._ifindex(number))
            if self.answered is None and looked >= when and (before is None or after is None or after > before):
                self.answered = number

    def on_answer(self, began: float, now: float) -> None:
        """An attempt that began at this time was answered."""
        before = [number for number, since in self._since.items() if since <= began]
        if before and now - began < _FIRST:
            self._answers.setdefault(max(before), now)

    def next(self, now: float, trip: float) -> bool | None:
        """Go on to the next link if this one was tried for long enough (True); None: none is left."""
        since = self._since.get(self._number)
        if since is None:
            return None if now - self._wanted > _DECIDED else False
        if now - since < max(_STAGE, _STAGE_TRIPS * trip):
            return False
        if self._number + 1 >= len(self._links):
            return None
        self._number += 1
        self._wanted = now
        return True

    def settle(self, around: Set[Place]) -> bool:
        """End as if the tunnel were answered while it is led around these links; False if they are no such links."""
        for number in range(1, len(self._links)):
            if around == frozenset[Place]().union(*self._links[:number]):
                self.answered = number
        return self.answered is not None

    def _ifindex(self, number: int) -> int:
        return min(self._links[number]).ifindex
