# SPDX-License-Identifier: GPL-2.0-or-later
"""A full tunnel under examination: by which of the links below it it is answered. Times are of the loop's clock, in seconds.

Nobody behind a tunnel may be asked beside it, so whether they live is not known. Silence in the tunnel is a reason to try
another link, and only an answer by that is a verdict on the first one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..model.state import Carriers, Place, Silence
from ..policy.silence_evidence import Evidence, Standing, judge_if_alive, tunnel_in_words
from .silence_case import Case, again
from .tunnel_trial import TunnelTrial
from .watched_links import WatchedLinks

#: Seconds without an answer after which the first link is tried again sooner: the one in use may be silent by now as well.
_OUT = 2.0

#: Seconds between two looks while the routes are about to change.
_LOOK = 0.1

#: Seconds for which a tunnel that no link carries is not examined again, doubled each time, and their maximum. Mostly a peer
#: has died, and each trial sends by a link that may cost money.
_REST = (10.0, 60.0)

#: Seconds without anything heard after which the tunnel's session may have ended (WireGuard: ``REJECT_AFTER_TIME``, 180 s).
_IDLE = 120.0


class Step(enum.Enum):
    """What is to be done next."""

    WAIT = enum.auto()
    ASK = enum.auto()  #: the tunnel's peers, in the tunnel
    LEAD = enum.auto()  #: around :attr:`TunnelCase.around`
    ANSWERED = enum.auto()  #: it is answered by the first link
    GIVE_UP = enum.auto()


@dataclass(slots=True, eq=False, kw_only=True)
class TunnelCase(Case):
    """The tunnel of this interface and family, with the links below it."""

    place: Place
    names: Mapping[int, str]  #: of the interfaces
    carriers: Carriers
    received: int | None  #: bytes, by its counter; None: not known
    received_at: float = 0.0  #: when a look found more
    trial: TunnelTrial | None = None
    confirmed_at: float = 0.0
    vain: int = 0  #: the last trials by which nobody answered
    received_then: int | None = None  #: when a verdict was confirmed
    verdicts: Mapping[Place, Silence] = field(default_factory=dict)  #: the last ones, and the links that they are about
    judged: Carriers | None = None

    @property
    def rest(self) -> tuple[float, float]:
        """As :attr:`Case.rest`, longer after a trial."""
        return Case.REST if self.trial is None else _REST

    @property
    def rest_when_answered(self) -> float | None:
        """As :attr:`Case.rest_when_answered`; a trial without a verdict was in vain."""
        return None if self.verdicts else self.rest[0]

    @classmethod
    def of(
        cls, place: Place, found: Evidence, links: WatchedLinks, received: Mapping[int, int], now: float
    ) -> TunnelCase:
        """A new case."""
        return cls(
            now,
            found,
            found,
            next_attempt=now,
            place=place,
            names=links.names,
            carriers=links.tunnels[place],
            received=received.get(place.ifindex),
            received_at=now,
        )

    def follow(self, links: WatchedLinks) -> bool:
        """As :meth:`Case.follow`; not if it is led around what is no longer below it, or a new link is the first one."""
        self.names = links.names
        self.carriers = links.tunnels.get(self.place, self.carriers)
        known = self.judged is None or self.carriers.ways[0].by in self.judged.links
        return known and self.place in links.tunnels and self.around().keys() <= links.below

    def around(self) -> dict[Place, Silence]:
        """What is to be led around, and why; what was before counts as silent until a trial shows that it is not."""
        if self.trial is None:
            return {}
        if self.confirmed:
            by = self.names.get(self.trial.by, f"interface {self.trial.by}")
            return dict.fromkeys(self.trial.around, Silence(True, f"{self.trial.words}, answered by {by}"))
        suspected = dict.fromkeys(self.trial.around, Silence(False, self.trial.words))
        before = {
            place: replace(silence, tried=place not in self.trial.around) for place, silence in self.verdicts.items()
        }
        return suspected | before

    def on_answer(self, began: float, now: float) -> None:
        """As :meth:`Case.on_answer`."""
        self.answered = True
        if self.trial is not None:
            self.trial.on_answer(began, now)

    def step(
        self, found: Evidence, received: Mapping[int, int], looked: float, around: frozenset[Place], now: float
    ) -> Step:
        """Go on by what was seen at ``looked``, the counters of the links among it, while routes lead around these links."""
        count = received.get(self.place.ifindex)
        more = None not in (count, self.received) and count != self.received
        if more:
            self.received_at = looked
        self.received = count if count is not None else self.received
        self.waits = bool(found.waiting)
        if found.waiting or found.others:
            self.evidence = found
        if self.confirmed:
            return self._return(found, now)
        if self.trial is not None:
            self.trial.see(received, looked)
            return self._try(self.trial, around, now)
        # Whatever else is received shows that the tunnel works, but for what those send again that are waited for: they live,
        # and what is sent to them vanishes.
        alive = more and not found.heard_in_vain(looked - self.began)
        if self.answered or alive or found.progress(self.first, looked - self.began):
            return Step.ANSWERED
        if judge_if_alive(self.evidence, self.attempts(looked), self.quiet(looked)) is Standing.SILENT:
            name = self.names.get(self.place.ifindex, f"interface {self.place.ifindex}")
            words = tunnel_in_words(self.evidence, self.quiet(now), name)
            idle = self.evidence.last_heard > _IDLE
            self.trial = TunnelTrial(self.carriers, words, now, tunnel=self.place.ifindex, began=self.began, idle=idle)
            return self._try(self.trial, around, now)
        return self._ask(now)

    def _ask(self, now: float) -> Step:
        return Step.ASK if now >= self.next_attempt else Step.WAIT

    def _try(self, trial: TunnelTrial, around: frozenset[Place], now: float) -> Step:
        trial.follow(around, now)
        if trial.answered is not None:
            self.vain = 0
            return self._confirm(trial, now) if trial.around else Step.ANSWERED
        gone_on = trial.next(now, self.evidence.trip)
        if gone_on is None:
            # Nobody who was asked lives, but the tunnel carries something: by the first link again, or by the one in use since
            # the verdict. Else all is as without one.
            if 0 in trial.carried:
                return Step.ANSWERED
            self.vain += 1
            carried = self.received_then != self.received
            return self._confirm(trial, now) if carried and trial.settle(self.verdicts.keys()) else Step.GIVE_UP
        if gone_on or trial.next_attempt is None:
            self.next_attempt = now + _LOOK  # unless the routes change before, which is told
            return Step.LEAD
        self.next_attempt = max(self.next_attempt, trial.next_attempt)
        return self._ask(now)

    def _confirm(self, trial: TunnelTrial, now: float) -> Step:
        self.judged = trial.carriers
        self.confirmed, self.confirmed_at = True, now
        self.verdicts, self.received_then = self.around(), self.received
        self.next_attempt = now + again(self.trials)
        self.trials += 1
        self.sent.clear()
        return Step.LEAD

    def _return(self, found: Evidence, now: float) -> Step:
        """Try the first link again, if that is due."""
        since = max(self.received_at + _OUT, self.confirmed_at + again(self.vain))
        out = found.suspicious and found.quiet >= _OUT and now >= since
        if self.trial is None or not (out or now >= self.next_attempt):
            return Step.WAIT
        self.confirmed = False
        # NetworkManager's check changes the order; what the verdict is about, and the route to a server, it leaves.
        known = self.judged if self.judged is not None and self.judged.links == self.carriers.links else self.carriers
        around = self.verdicts.keys()
        self.trial = TunnelTrial(known, self.trial.words, now, tunnel=self.place.ifindex, around=around)
        self.next_attempt = now + _LOOK
        return Step.LEAD
