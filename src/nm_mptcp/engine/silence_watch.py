# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices links that are up and carry no packets, from the first retransmissions, and notices when they answer again.

While nothing is retransmitted, nothing is done. A retransmission from a watched link causes a look at the sockets that sent
again, which the kernel finds at once; only if one waits for too long, and none of the others was heard, at all TCP sockets. If
some wait and nobody was heard by that link, their peers, and those of other connections by it, are asked for
:data:`_EXAMINE` seconds by connection attempts: by this link, and by others where no MPTCP connection shows that they live.
``policy.silence_evidence`` judges. A silent link is asked again after 5 s, 10 s, ... 60 s, and looked at twice a second
while sockets wait on it. A full tunnel is led around the links below it in turn (:mod:`.tunnel_case`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping

from ..journal import Event, log_fields
from ..kernel.access import KernelAccess
from ..kernel.tcp_sockets import SocketKey
from ..model.state import Place, Silence
from ..policy.silence_evidence import Evidence, Standing, in_words, judge
from .link_silence import LinkSilence
from .peer_attempts import PeerAttempts
from .retransmission_source import RetransmissionSource
from .silence_case import LOOK, Case, again
from .socket_looks import SocketLooks
from .tunnel_case import Step, TunnelCase
from .watched_links import WatchedLinks

_log = logging.getLogger(__name__)

#: Seconds for which peers are asked before a link without a verdict counts as good.
_EXAMINE = 3.0

#: Seconds by which an examination may go on late; later, this process or the machine slept, and what was answered is not known.
_STALLED = 0.5

#: The share of a processor that looks may use, also while a link is examined.
_SHARE, _SHARE_EXAMINED = 0.01, 0.1


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
        self._attempts = PeerAttempts(self._on_result)
        self._looks = SocketLooks(kernel.traffic, self._attempts.own)
        self._links = WatchedLinks()
        self._cases: dict[Place, Case] = {}
        self._resent: dict[SocketKey, float] = {}  #: the last retransmission of each socket, of the last seconds
        self._untold = False  #: something was sent again, and it is not known what
        self._missed = False  #: something was sent again since the last look began
        self._resting: dict[Place, tuple[float, float]] = {}  #: until when, and how long the next rest is
        self._examining: asyncio.Task[None] | None = None
        self._stir = asyncio.Event()  #: something happened that an examination waits for
        self._evidence: dict[Place, Evidence] = {}  #: by the last look, and when that was
        self._looked = 0.0
        self._received: Mapping[int, int] = {}  #: the bytes of each link's counter then
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, links: WatchedLinks) -> None:
        """Watch these links from now on; none: nothing is traced."""
        self._links = links
        self._evidence = {place: found for place, found in self._evidence.items() if place in links.local}
        for place, case in list(self._cases.items()):
            if place not in links.local or not case.follow(links):
                self._close(place)
        if links.tunnels:
            self._stir.set()
        self._silence.watch(links.local.keys() - links.tunnels.keys(), time.monotonic(), links.below)
        self._source.follow(wanted=bool(links.local))

    def forget(self) -> None:
        """The machine slept: what waited says nothing about the present."""
        self._end()
        self._resting.clear()
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
        mine = [key for key in sockets if key[0] in self._links.place_of and key[:2] not in self._attempts.own]
        if mine:
            self._resent.update(dict.fromkeys(mine, now))
            self._on_retransmission()

    def _on_result(self) -> None:
        self._stir.set()

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
        tunnels = self._links.tunnels.keys()
        if any(place in self._cases or self._evidence.get(place, Evidence()).suspicious for place in tunnels):
            self._received = await self._looks.received()

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
        for place in [place for place, case in self._cases.items() if not case.confirmed and not case.led]:
            self._give_up(place, self._cases[place], now)
        return True

    def _open_cases(self, now: float) -> None:
        """Begin to examine links on which sockets wait and nobody was heard."""
        for place, found in self._evidence.items():
            if place in self._cases or place not in self._links.local or not found.suspicious:
                continue
            if now < max(self._resting.get(place, (0.0, 0.0))[0], self._not_before):
                continue
            case = self._opened(place, found, now)
            if case is None:
                continue
            self._cases[place] = case
            _log.debug("%s, %s: examining (%s)", self._links.names.get(place.ifindex), place.family.label, found)

    def _opened(self, place: Place, found: Evidence, now: float) -> Case | None:
        """A new case; None while a tunnel is examined, if only for the other family: all go by the same links."""
        if place not in self._links.tunnels:
            return Case(now, found, found, next_attempt=now)
        if any(isinstance(other, TunnelCase) for other in self._cases.values()):
            return None
        return TunnelCase.of(place, found, self._links, self._received, now)

    def _update(self, place: Place, case: Case, found: Evidence, now: float) -> None:
        """Judge one link by what is known now, and ask its peers if that is due."""
        if isinstance(case, TunnelCase):
            self._update_tunnel(place, case, found, now)
            return
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
            self._ask(place, case)

    def _answered(self, place: Place, case: Case) -> None:
        self._resting.pop(place, None)
        if (rest := case.rest_when_answered) is not None:
            self._resting[place] = (asyncio.get_running_loop().time() + rest, rest)
        self._end_case(place, case)

    def _end_case(self, place: Place, case: Case) -> None:
        """The link counts as good."""
        self._close(place)
        for told in sorted(case.led):
            self._tell(told)
        if case.silent_since is not None and self._silence.set(place, None, time.monotonic()):
            self._wake()

    def _tell(self, place: Place, *, silent: str = "") -> None:
        """Log that a link is silent, for this reason, or answers again."""
        name, family = self._links.names.get(place.ifindex, ""), place.family.label
        if silent:
            extra = log_fields(Event.LINK_SILENT, interface=name, family=family, reason=silent)
            _log.warning("%s: silent (%s): %s", name, family, silent, extra=extra)
        else:
            extra = log_fields(Event.LINK_ANSWERS, interface=name, family=family)
            _log.info("%s: answers again (%s)", name, family, extra=extra)

    def _silent(self, place: Place, case: Case, confirmed: bool, now: float) -> None:
        if case.confirmed:
            return
        words = in_words(case.evidence, case.attempts(now), case.quiet(now), self._links.names)
        if case.silent_since is None:
            case.silent_since = now
            self._on_suspicion()
        if confirmed:
            case.confirmed = True
            case.sent.clear()
            case.led = frozenset({place})
            case.next_attempt = now + again(0)
            self._tell(place, silent=words)
        if self._silence.set(place, Silence(confirmed, words), time.monotonic()):
            self._wake()

    def _give_up(self, place: Place, case: Case, now: float) -> None:
        """No verdict: the link counts as good, and is not examined again for a while."""
        self._end_case(place, case)
        shortest, longest = case.rest
        rest = min(max(self._resting.get(place, (0.0, 0.0))[1], shortest), longest)
        self._resting[place] = (now + rest, 2 * rest)

    def _update_tunnel(self, place: Place, case: TunnelCase, found: Evidence, now: float) -> None:
        """The same of a full tunnel."""
        around = self._links.around & self._links.below
        step = case.step(found, self._received, self._looked, around, now)
        if step is Step.ANSWERED:
            self._answered(place, case)
        elif step is Step.GIVE_UP or (case.trial is None and now - case.began > _EXAMINE):
            self._give_up(place, case, now)
        elif step is Step.ASK:
            self._ask(place, case)
        elif step is Step.LEAD:
            self._lead(case)

    def _lead(self, case: TunnelCase) -> None:
        """Lead a tunnel around the links that its case names; tell of it once that is certain."""
        around = case.around()
        if case.silent_since is None:
            case.silent_since = asyncio.get_running_loop().time()
            self._on_suspicion()
        if case.confirmed:
            for place in sorted(around.keys() - case.led):
                self._tell(place, silent=around[place].evidence)
            for place in sorted(case.led - around.keys()):
                self._tell(place)
            case.led = frozenset(around)
        if self._silence.lead(around):
            self._wake()

    def _close(self, place: Place) -> None:
        case = self._cases.pop(place)
        if isinstance(case, TunnelCase) and self._silence.lead({}):
            self._wake()
        for task in case.tasks:
            task.cancel()
        self._stir.set()

    def _ask(self, place: Place, case: Case) -> None:
        self._attempts.ask(place, case, self._links, self._evidence, self._cases.keys())

    def _due(self, case: Case, now: float) -> float:
        """When a case is to be looked at again without an event: while something waits on it, an answer may come."""
        return min(case.next_attempt, now + LOOK) if case.confirmed and case.waits else case.next_attempt
