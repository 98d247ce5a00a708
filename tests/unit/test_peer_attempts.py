# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is asked, by which link: a peer in a tunnel in that tunnel alone."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from nm_mptcp.engine.peer_attempts import PeerAttempts
from nm_mptcp.engine.silence_case import Case
from nm_mptcp.engine.watched_links import WatchedLinks
from nm_mptcp.kernel.connect_probe import ConnectProbes
from nm_mptcp.model.state import Carriers, Family, Place, Way
from nm_mptcp.policy.silence_evidence import Evidence

from .test_silence_evidence import LTE, WIFI, C, W, stalled

TUNNEL, INNER = Place(Family.IPV4, 4), "10.8.0.2"
CARRIERS = Carriers(INNER, (Way(frozenset(), 2), Way(frozenset({WIFI}), 3)))


class Probes:
    """Notes from where who is asked."""

    own: frozenset[tuple[str, int]] = frozenset()

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, str]] = []

    async def answers(self, local: str, ifindex: int, remote: str, *_: object) -> bool:
        self.asked.append((local, ifindex, remote))
        return False


#: From which address, by which interface, who.
_Asked = set[tuple[str, int, str]]


def asked(place: Place, links: WatchedLinks, found: Evidence, others: Evidence, *, confirmed: bool = False) -> _Asked:
    """Who is asked by the first attempts."""

    async def run() -> _Asked:
        probes = Probes()
        attempts = PeerAttempts(lambda: None)
        attempts._probes = cast(ConnectProbes, probes)
        evidence = {**dict.fromkeys(links.local, others), place: found}
        attempts.ask(place, Case(0.0, found, found, confirmed=confirmed), links, evidence, {place})
        await asyncio.sleep(0.01)
        return set(probes.asked)

    return asyncio.run(run())


LINKS = WatchedLinks(local={WIFI: W, LTE: C})
ABOVE = WatchedLinks(local={TUNNEL: INNER, WIFI: W, LTE: C}, tunnels={TUNNEL: CARRIERS})
WAITS = Evidence(waiting=(stalled(W, "192.0.2.1"),))
ELSEWHERE = Evidence(others=(("192.0.2.9", 443),))


def test_a_peer_that_does_not_answer_is_asked_by_other_links_as_well() -> None:
    assert asked(WIFI, LINKS, WAITS, ELSEWHERE) == {(W, 2, "192.0.2.1"), (C, 3, "192.0.2.1")}


def test_by_a_silent_link_those_are_asked_that_answer_elsewhere() -> None:
    assert asked(WIFI, LINKS, WAITS, ELSEWHERE, confirmed=True) == {(W, 2, "192.0.2.1"), (W, 2, "192.0.2.9")}


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_peer_in_a_tunnel_is_asked_in_it_alone(confirmed: bool) -> None:
    assert asked(TUNNEL, ABOVE, WAITS, ELSEWHERE, confirmed=confirmed) == {(INNER, 4, "192.0.2.1")}


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_peer_on_a_link_is_asked_in_no_tunnel_and_a_tunnels_not_on_a_link(confirmed: bool) -> None:
    links = WatchedLinks(local={TUNNEL: INNER, WIFI: W}, tunnels={TUNNEL: CARRIERS})
    assert asked(WIFI, links, WAITS, ELSEWHERE, confirmed=confirmed) == {(W, 2, "192.0.2.1")}
