# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks the peers of links under examination, by connection attempts: by that link, and by others where no MPTCP connection
shows that they live. A peer in a tunnel is asked in that tunnel alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set

from ..kernel.connect_probe import ConnectProbes
from ..model.state import Family, Place
from ..policy.silence_evidence import Evidence
from .silence_case import PEERS, Case, again
from .watched_links import WatchedLinks

#: Seconds between two connection attempts, the first five and then.
_ATTEMPTS = (0.03, 0.1)
_QUICK = 5

#: Seconds that an attempt waits for its answer: with the attempts of some seconds a full queue of 2 s is waited for.
_PATIENCE = 3.0

#: Links by which peers are asked besides.
_OTHER_LINKS = 2

#: The attempts each time that a silent link is asked again.
_TRIAL = 3


class PeerAttempts:
    """``on_result`` is called after each attempt."""

    def __init__(self, on_result: Callable[[], None]) -> None:
        self._probes = ConnectProbes()
        self._on_result = on_result

    @property
    def own(self) -> Set[tuple[str, int]]:
        """The local addresses and ports of the attempts under way."""
        return self._probes.own

    def ask(
        self, place: Place, case: Case, links: WatchedLinks, evidence: Mapping[Place, Evidence], examined: Set[Place]
    ) -> None:
        """Attempt connections to the peers in turn; at first also by other links, if it is not known that the peers live."""
        now = asyncio.get_running_loop().time()
        others = [
            other
            for other in links.local
            if other.family is place.family and other.ifindex != place.ifindex and other not in examined
            if place not in links.tunnels and other not in links.tunnels
        ]
        targets = case.targets()
        if case.confirmed:
            # Those of this link may be gone by now.
            targets += [target for other in others if other in evidence for target in evidence[other].others_elsewhere][
                :PEERS
            ]
            chosen = [targets[number % len(targets)] for number in range(max(_TRIAL, len(targets)))]
            case.trials += 1
            case.sent.clear()
            case.next_attempt = now + again(case.trials)
        else:
            chosen = [targets[case.made % len(targets)]]
            case.next_attempt = now + _ATTEMPTS[case.made >= _QUICK]
            if case.made == 0 and not case.evidence.elsewhere:
                for peer, port in list(case.evidence.elsewhere_too.items())[:PEERS]:
                    for other in others[:_OTHER_LINKS]:
                        self._attempt(case, place, other, peer, port, links)
        for peer, port in chosen:
            case.made += 1
            self._attempt(case, place, place, peer, port, links)

    def _attempt(self, case: Case, place: Place, by: Place, peer: str, port: int, links: WatchedLinks) -> None:
        """Begin one attempt to reach a peer of ``place`` by a link."""
        local = links.local.get(by)
        if local is None or Family.of(peer) is not by.family:
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        if by == place:
            case.sent.append(began)

        async def attempt() -> None:
            answered = await self._probes.answers(local, by.ifindex, peer, port, _PATIENCE)
            if answered is None and by == place:
                case.forget(began)
            elif answered and by == place:
                case.on_answer(began, loop.time())
            elif answered:
                case.elsewhere[peer] = by
            self._on_result()

        task = asyncio.create_task(attempt())
        case.tasks.add(task)
        task.add_done_callback(case.tasks.discard)
