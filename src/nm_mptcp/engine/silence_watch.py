# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices links that are up and carry no packets, from the first retransmissions, and notices when they answer again.

While nothing is retransmitted, nothing is done. A retransmission from a watched link causes a look at the sockets that sent
again, which the kernel finds at once; only if one waits for too long, and none of the others was heard, at all TCP sockets. If
some wait and nobody was heard by that link, their peers, and those of other connections by it, are asked for
:data:`_EXAMINE` seconds by connection attempts: by this link, and by others where no MPTCP connection shows that they live.
``policy.silence_evidence`` judges. A silent link is asked again after 5 s, 10 s, ... 60 s, and looked at twice a second
while sockets wait on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..journal import Event, log_fields
from ..kernel.access import KernelAccess
from ..kernel.connect_probe import ConnectProbes
from ..kernel.tcp_sockets import SocketKey
from ..model.state import Family, Place, Silence
from ..policy.silence_evidence import Attempts, Evidence, Standing, in_words, judge
from .link_silence import LinkSilence
from .retransmission_source import RetransmissionSource
from .socket_looks import SocketLooks
from .watched_links import WatchedLinks

_log = logging.getLogger(__name__)

#: Seconds between two connection attempts, the first five and then.
_ATTEMPTS = (0.03, 0.1)
_QUICK = 5

#: Seconds for which peers are asked before a link without a verdict counts as good.
_EXAMINE = 3.0

#: Seconds that an attempt waits for its answer: with the attempts of these seconds a full queue of 2 s is waited for.
_PATIENCE = 3.0

#: Seconds after which an attempt counts as unanswered, or two round-trip times if that is longer.
_PROMPT = 0.06

#: The same where no round-trip time is known.
_PROMPT_UNKNOWN = 0.5

#: Peers asked by one link, and links by which peers are asked besides.
_PEERS, _OTHER_LINKS = 4, 2

#: Seconds after which a silent link is asked again, doubled each time, and their maximum; and how many attempts each time.
_AGAIN = (5.0, 60.0)
_TRIAL = 3

#: Seconds between two looks at a silent link on which sockets wait.
_LOOK = 0.5

#: Answers, half of :data:`_LOOK` apart at least, that show that a silent link answers.
_FLOWS = 2

#: Seconds for which a link without a verdict is not examined again, doubled each time, and their maximum.
_REST = (1.0, 8.0)

#: Seconds by which an examination may go on late; later, this process or the machine slept, and what was answered is not known.
_STALLED = 0.5

#: The share of a processor that looks may use, also while a link is examined.
_SHARE, _SHARE_EXAMINED = 0.01, 0.1


@dataclass(slots=True, eq=False)
class _Case:
    """A link under examination. Times are of the loop's clock, in seconds."""

    began: float
    first: Evidence  #: when it began
    evidence: Evidence  #: the last in which sockets wait
    waits: bool = True  #: sockets wait on it now
    heard: int = 0  #: answers after which others were heard in time, since the silence was confirmed; when the last was
    heard_at: float = 0.0
    silent_since: float | None = None  #: when the first verdict was
    confirmed: bool = False
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

    def forget(self, began: float) -> None:
        """An attempt that began at this time was not sent."""
        with contextlib.suppress(ValueError):  # those from before silence was certain are forgotten
            self.sent.remove(began)

    def flows(self, found: Evidence, looked: float) -> bool:
        """Whether answers come again and again, by a look at this time: what is heard once may be a peer's own retransmission,
        and is still to be seen when the next look follows soon.
        """
        when = looked - found.heard
        if not self.confirmed or found.heard >= _LOOK / 2:
            self.heard = 0
        elif not self.heard or when - self.heard_at >= _LOOK / 2:
            self.heard += 1
            self.heard_at = when
        return self.heard >= _FLOWS

    def quiet(self, now: float) -> float:
        """Seconds for which nothing was answered."""
        return self.first.quiet + now - self.began

    def targets(self) -> list[tuple[str, int]]:
        """The peers to ask by this link, those that do not answer first."""
        return [*list(self.evidence.peers.items())[:_PEERS], *self.evidence.others]


class SilenceWatch:
    """Watches the links that each decision names. ``wake`` is called when a verdict changed; ``on_suspicion`` when a link
    is suspected.
    """

    def __init__(
        self,
        kernel: KernelAccess,
        silence: LinkSilence,
        wake: Callable[[], None],
        on_suspicion: Callable[[], None] = lambda: None,
    ) -> None:
        self._silence = silence
        self._wake = wake
        self._on_suspicion = on_suspicion
        self._source = RetransmissionSource(self._on_sockets, self._on_any)
        self._probes = ConnectProbes()
        self._looks = SocketLooks(kernel.tcp_sockets, self._probes.own)
        self._links = WatchedLinks()
        self._cases: dict[Place, _Case] = {}
        self._resent: dict[SocketKey, float] = {}  #: the last retransmission of each socket, of the last seconds
        self._untold = False  #: something was sent again, and it is not known what
        self._missed = False  #: something was sent again since the last look began
        self._resting: dict[Place, tuple[float, float]] = {}  #: until when, and how long the next rest is
        self._examining: asyncio.Task[None] | None = None
        self._stir = asyncio.Event()  #: something happened that an examination waits for
        self._evidence: dict[Place, Evidence] = {}  #: by the last look, and when that was
        self._looked = 0.0
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, links: WatchedLinks) -> None:
        """Watch these links from now on; none: nothing is traced."""
        self._links = links
        self._evidence = {place: found for place, found in self._evidence.items() if place in links.local}
        for place in self._cases.keys() - links.local.keys():
            self._close(place)
        self._silence.watch(links.local.keys(), time.monotonic())
        self._source.follow(wanted=bool(links.local))

    def forget(self) -> None:
        """The machine slept: what waited says nothing about the present."""
        self._end()
        self._not_before = asyncio.get_running_loop().time() + _EXAMINE

    def close(self) -> None:
        """End all."""
        self._end()
        self._links = WatchedLinks()
        self._source.stop()

    def _end(self) -> None:
        for place in list(self._cases):
            self._close(place)
        self._evidence, self._resent = {}, {}
        if self._examining is not None:
            self._examining.cancel()
            self._examining = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- looks

    def _on_sockets(self, sockets: frozenset[SocketKey]) -> None:
        now = asyncio.get_running_loop().time()
        mine = [key for key in sockets if key[0] in self._links.place_of and key[:2] not in self._probes.own]
        if mine:
            self._resent.update(dict.fromkeys(mine, now))
            self._on_retransmission()

    def _on_any(self) -> None:
        self._untold = True
        self._on_retransmission()

    def _on_retransmission(self) -> None:
        """Look at the sockets, now or when a look is due again."""
        self._missed = True
        if self._examining is not None:
            self._stir.set()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            due = max(loop.time() + self._looks.due_in(_SHARE), self._not_before)
            if due > loop.time():
                self._timer = loop.call_at(due, self._begin)
            else:
                self._begin()

    def _begin(self) -> None:
        self._timer = None
        self._examining = asyncio.create_task(self._examine_safely())

    async def _examine_safely(self) -> None:
        """Examine; after a fault no link counts as silent, and the next retransmission begins anew."""
        try:
            self._missed = False
            untold, self._untold = self._untold, False
            if untold or not await self._looks.are_clear(self._links, self._of_late()):
                await self._examine()
        except Exception:
            _log.exception("examining silent links failed")
            for place in list(self._cases):
                self._close(place)
            for place in self._links.local:
                self._silence.set(place, None, time.monotonic())
            self._wake()
        self._examining = None
        if self._missed:
            self._on_retransmission()

    async def _look(self) -> None:
        self._missed = False
        self._evidence = await self._looks.look(self._links, self._of_late().keys())
        self._looked = asyncio.get_running_loop().time()

    def _of_late(self) -> dict[SocketKey, float]:
        """The sockets that sent again in the last seconds, and when."""
        now = asyncio.get_running_loop().time()
        self._resent = {key: seen for key, seen in self._resent.items() if now - seen < _EXAMINE}
        return self._resent

    # --- examination

    async def _examine(self) -> None:
        """Look, ask and judge until no link is under examination or silent."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        await self._look()
        while True:
            self._stir.clear()
            if self._stalled(due):
                self._evidence = {}
            self._open_cases(loop.time())
            for place, case in list(self._cases.items()):
                self._update(place, case, self._evidence.get(place, Evidence()), loop.time())
            if not self._cases:
                return
            now = loop.time()
            due = min(self._due(case, now) for case in self._cases.values())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(max(due, now + 0.001)):
                    await self._stir.wait()
            self._stalled(due)
            examined = any(not case.confirmed for case in self._cases.values())
            if not self._looks.due_in(_SHARE_EXAMINED if examined else _SHARE):
                await self._look()

    def _stalled(self, due: float) -> bool:
        """Whether it is so late after ``due`` that what was answered is not known; then what is not certain yet is given up."""
        now = asyncio.get_running_loop().time()
        if now - due <= _STALLED:
            return False
        for place in [place for place, case in self._cases.items() if not case.confirmed]:
            self._give_up(place, self._cases[place], now)
        return True

    def _open_cases(self, now: float) -> None:
        """Begin to examine links on which sockets wait and nobody was heard."""
        for place, found in self._evidence.items():
            if place in self._cases or place not in self._links.local or not found.suspicious:
                continue
            if now < max(self._resting.get(place, (0.0, 0.0))[0], self._not_before):
                continue
            self._cases[place] = _Case(now, found, found, next_attempt=now)
            _log.debug("%s, %s: examining (%s)", self._links.names.get(place.ifindex), place.family.label, found)

    def _update(self, place: Place, case: _Case, found: Evidence, now: float) -> None:
        """Judge one link by what is known now, and ask its peers if that is due."""
        case.waits = bool(found.waiting)
        if found.waiting and not case.confirmed:
            case.evidence = found
        standing = judge(case.evidence, case.attempts(now), case.quiet(now))
        looked = self._looked
        if case.flows(found, looked) or standing is Standing.GOOD or found.progress(case.first, looked - case.began):
            self._answered(place, case)
            return
        if standing is Standing.SILENT or (standing is Standing.SUSPECT and case.silent_since is None):
            self._silent(place, case, standing is Standing.SILENT, now)
        if not case.confirmed and now - case.began > _EXAMINE:
            self._give_up(place, case, now)
        elif now >= case.next_attempt:
            self._ask(place, case, now)

    def _answered(self, place: Place, case: _Case) -> None:
        self._resting.pop(place, None)
        if case.silent_since is None:
            self._resting[place] = (asyncio.get_running_loop().time() + _REST[0], _REST[0])
        self._close(place)
        if case.confirmed:
            name = self._links.names.get(place.ifindex, "")
            _log.info(
                "%s: answers again (%s)",
                name,
                place.family.label,
                extra=log_fields(Event.LINK_ANSWERS, interface=name, family=place.family.label),
            )
        if case.silent_since is not None and self._silence.set(place, None, time.monotonic()):
            self._wake()

    def _silent(self, place: Place, case: _Case, confirmed: bool, now: float) -> None:
        if case.confirmed:
            return
        words = in_words(case.evidence, case.attempts(now), case.quiet(now), self._links.names)
        if case.silent_since is None:
            case.silent_since = now
            self._on_suspicion()
        if confirmed:
            case.confirmed = True
            case.sent.clear()
            case.next_attempt = now + _AGAIN[0]
            name = self._links.names.get(place.ifindex, "")
            _log.warning(
                "%s: silent (%s): %s",
                name,
                place.family.label,
                words,
                extra=log_fields(Event.LINK_SILENT, interface=name, family=place.family.label, reason=words),
            )
        if self._silence.set(place, Silence(confirmed, words), time.monotonic()):
            self._wake()

    def _give_up(self, place: Place, case: _Case, now: float) -> None:
        """No verdict: the link counts as good, and is not examined again for a while."""
        self._close(place)
        rest = self._resting.get(place, (0.0, _REST[0]))[1]
        self._resting[place] = (now + rest, min(2 * rest, _REST[1]))
        if case.silent_since is not None and self._silence.set(place, None, time.monotonic()):
            self._wake()

    def _close(self, place: Place) -> None:
        case = self._cases.pop(place)
        for task in case.tasks:
            task.cancel()
        self._stir.set()

    def _due(self, case: _Case, now: float) -> float:
        """When a case is to be looked at again without an event: while something waits on it, an answer may come."""
        return min(case.next_attempt, now + _LOOK) if case.confirmed and case.waits else case.next_attempt

    # --- connection attempts

    def _ask(self, place: Place, case: _Case, now: float) -> None:
        """Attempt connections to the peers in turn; at first also by other links, if it is not known that the peers live."""
        targets = case.targets()
        if case.confirmed:
            targets += self._peers_elsewhere(place)
            chosen = [targets[number % len(targets)] for number in range(max(_TRIAL, len(targets)))]
            case.trials += 1
            case.sent.clear()
            case.next_attempt = now + min(_AGAIN[0] * 2 ** min(case.trials, 10), _AGAIN[1])
        else:
            chosen = [targets[case.made % len(targets)]]
            case.next_attempt = now + _ATTEMPTS[case.made >= _QUICK]
            if case.made == 0 and not case.evidence.elsewhere:
                self._ask_elsewhere(place, case)
        for peer, port in chosen:
            case.made += 1
            self._attempt(case, place, place, peer, port)

    def _peers_elsewhere(self, place: Place) -> list[tuple[str, int]]:
        """Peers that answer by other links: those of this link may be gone by now."""
        return [
            target
            for other, found in self._evidence.items()
            if other.family is place.family and other != place and other not in self._cases
            for target in found.others_elsewhere
        ][:_PEERS]

    def _ask_elsewhere(self, place: Place, case: _Case) -> None:
        others = [
            other
            for other in self._links.local
            if other.family is place.family and other.ifindex != place.ifindex and other not in self._cases
        ]
        for peer, port in list(case.evidence.elsewhere_too.items())[:_PEERS]:
            for other in others[:_OTHER_LINKS]:
                self._attempt(case, place, other, peer, port)

    def _attempt(self, case: _Case, place: Place, by: Place, peer: str, port: int) -> None:
        """Begin one attempt to reach a peer of ``place`` by a link."""
        local = self._links.local.get(by)
        if local is None or Family.of(peer) is not by.family:
            return
        began = asyncio.get_running_loop().time()
        if by == place:
            case.sent.append(began)

        async def attempt() -> None:
            answered = await self._probes.answers(local, by.ifindex, peer, port, _PATIENCE)
            if answered is None and by == place:
                case.forget(began)
            elif answered and by == place:
                case.answered = True
            elif answered:
                case.elsewhere[peer] = by
            self._stir.set()

        task = asyncio.create_task(attempt())
        case.tasks.add(task)
        task.add_done_callback(case.tasks.discard)
