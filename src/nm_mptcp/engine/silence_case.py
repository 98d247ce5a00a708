# SPDX-License-Identifier: GPL-2.0-or-later
"""One link under examination: what was seen and asked since it began. Times are of the loop's clock, in seconds."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import ClassVar

from ..model.state import Place
from ..policy.silence_evidence import Attempts, Evidence
from .watched_links import WatchedLinks

#: Seconds after which an attempt counts as unanswered, or two round-trip times if that is longer.
_PROMPT = 0.06

#: The same where no round-trip time is known.
_PROMPT_UNKNOWN = 0.5

#: Peers asked by one link.
PEERS = 4

#: Seconds after which a silent link is asked again, doubled each time, and their maximum.
_AGAIN = (5.0, 60.0)

#: Seconds between two looks at a silent link on which sockets wait.
LOOK = 0.5

#: Answers, half of :data:`LOOK` apart at least, that show that a silent link answers.
_FLOWS = 2


def again(trials: int) -> float:
    """Seconds after which a silent link is asked again that was so many times."""
    first, longest = _AGAIN
    return min(first * 2.0 ** min(trials, 10), longest)


@dataclass(slots=True, eq=False)
class Case:
    """A link under examination."""

    #: Seconds for which a link without a verdict is not examined again, doubled each time, and their maximum.
    REST: ClassVar = (1.0, 8.0)

    began: float
    first: Evidence  #: when it began
    evidence: Evidence  #: the last in which sockets wait
    waits: bool = True  #: sockets wait on it now
    heard: int = 0  #: answers after which others were heard in time, since the silence was confirmed; when the last was
    heard_at: float = 0.0
    silent_since: float | None = None  #: when the first verdict was
    confirmed: bool = False
    led: frozenset[Place] = frozenset()  #: the links that everybody was told are silent
    next_attempt: float = 0.0
    trials: int = 0
    made: int = 0  #: attempts by this link
    sent: list[float] = field(default_factory=list)  #: when the attempts that have no answer began
    answered: bool = False
    elsewhere: dict[str, Place] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def attempts(self, now: float) -> Attempts:
        """The results so far; an attempt counts as unanswered when its answer should be there."""
        after = max(_PROMPT, 2 * self.evidence.trip) if self.evidence.trip else _PROMPT_UNKNOWN
        unanswered = sum(1 for sent in self.sent if now - sent >= after)
        return Attempts(unanswered, now - self.began, self.answered, self.elsewhere)

    @property
    def rest(self) -> tuple[float, float]:
        """:attr:`REST`."""
        return self.REST

    @property
    def rest_when_answered(self) -> float | None:
        """Seconds for which a link that answered is not examined again; None: no rest."""
        return self.REST[0] if self.silent_since is None else None

    def follow(self, links: WatchedLinks) -> bool:
        """These links are watched now, this one among them; whether it is examined still."""
        del links
        return True

    def on_answer(self, began: float, now: float) -> None:
        """An attempt by this link that began at this time was answered."""
        del began, now
        self.answered = True

    def forget(self, began: float) -> None:
        """An attempt that began at this time was not sent."""
        with contextlib.suppress(ValueError):  # those from before silence was certain are forgotten
            self.sent.remove(began)

    def flows(self, found: Evidence, looked: float) -> bool:
        """Whether answers come again and again, by a look at this time: what is heard once may be a peer's own retransmission,
        and is still to be seen when the next look follows soon.
        """
        when = looked - found.heard
        if not self.confirmed or found.heard >= LOOK / 2:
            self.heard = 0
        elif not self.heard or when - self.heard_at >= LOOK / 2:
            self.heard += 1
            self.heard_at = when
        return self.heard >= _FLOWS

    def quiet(self, now: float) -> float:
        """Seconds for which nothing was answered."""
        return self.first.quiet + now - self.began

    def targets(self) -> list[tuple[str, int]]:
        """The peers to ask by this link, those that do not answer first."""
        return [*list(self.evidence.peers.items())[:PEERS], *self.evidence.others]
