# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read of the sockets when something was sent again, and what shows that a silent link is answered."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

import pytest

from nm_mptcp.engine.link_silence import LinkSilence
from nm_mptcp.engine.silence_case import Case
from nm_mptcp.engine.silence_watch import SilenceWatch
from nm_mptcp.engine.socket_looks import SocketLooks
from nm_mptcp.engine.tunnel_case import TunnelCase
from nm_mptcp.engine.tunnel_trial import TunnelTrial
from nm_mptcp.engine.watched_links import WatchedLinks
from nm_mptcp.kernel.access import KernelAccess
from nm_mptcp.kernel.connect_probe import ConnectProbes
from nm_mptcp.kernel.tcp_sockets import Look, SocketKey, TCPSocket
from nm_mptcp.kernel.traffic_access import TrafficAccess
from nm_mptcp.model.state import Carriers, Family, Place, Way
from nm_mptcp.policy.silence_evidence import Evidence

from .test_silence_evidence import LTE, PLACES, WIFI, C, W, look, stalled, tcp

#: One that is heard, though it lost a packet; and one that waits.
HEARD = tcp(W, "192.0.2.1", unacked=3, retransmitted=1, heard=0.01)
WAITS = stalled(W, "192.0.2.2")


class Kernel:
    """Knows some sockets, and notes what it is asked."""

    def __init__(self, *sockets: TCPSocket, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.sockets = sockets
        self.meanwhile = meanwhile
        self.asked: list[str] = []
        self.resent: frozenset[SocketKey] = frozenset()

    @property
    def traffic(self) -> Kernel:
        return self

    async def find(self, keys: Mapping[SocketKey, int]) -> tuple[TCPSocket, ...]:
        self.asked.append(f"for {len(keys)}")
        self.meanwhile()
        return tuple(each for each in self.sockets if each.key in keys)

    async def received(self) -> Mapping[int, int]:
        self.asked.append("what links received")
        return {}

    async def look(self, _: object, resent: frozenset[SocketKey], *__: object) -> Look:
        self.asked.append("for all")
        self.meanwhile()
        self.resent = resent
        return look(*self.sockets)


class Unanswered:
    """Attempts that are sent, and that nobody answers."""

    own: frozenset[tuple[str, int]] = frozenset()

    async def answers(self, *_: object) -> bool:
        await asyncio.sleep(3)
        return False


def watch(kernel: Kernel, silence: LinkSilence | None = None) -> SilenceWatch:
    watch = SilenceWatch(cast(KernelAccess, kernel), silence or LinkSilence(), lambda: None)
    watch._links = WatchedLinks(place_of=PLACES)  # none has an address to ask peers from
    return watch


def asked(kernel: Kernel, *resent: TCPSocket, act: Callable[[SilenceWatch], None] | None = None) -> list[str]:
    """What the kernel is asked when these sockets send again."""

    async def run() -> list[str]:
        watched = watch(kernel)
        if act:
            act(watched)
        else:
            watched._on_sockets(frozenset(each.key for each in resent))
        await asyncio.sleep(0.05)
        watched.close()
        return kernel.asked

    return asyncio.run(run())


def test_a_socket_that_is_heard_is_all_that_is_looked_at() -> None:
    assert asked(Kernel(HEARD, WAITS), HEARD) == ["for 1"]


def test_one_that_waits_beside_it_changes_nothing() -> None:
    assert asked(Kernel(HEARD, WAITS), HEARD, WAITS) == ["for 2"]


def test_where_one_waits_and_none_is_heard_all_are_looked_at() -> None:
    assert asked(Kernel(HEARD, WAITS), WAITS) == ["for 1", "for all"]


def test_a_socket_of_another_network_namespace_is_not_found() -> None:
    assert asked(Kernel(), WAITS) == ["for 1"]


def many(**values: object) -> list[TCPSocket]:
    return [tcp(W, f"192.0.2.{number}", unacked=1, retransmitted=1, **values) for number in range(1, 101)]


def test_of_many_some_are_enough_where_one_of_them_is_heard() -> None:
    assert asked(Kernel(*many(heard=0.01)), *many()) == ["for 16"]


def test_of_many_some_are_not_enough_where_none_of_them_is_heard() -> None:
    assert asked(Kernel(*many(heard=0.3)[:-16]), *many()) == ["for 16", "for all"]


def test_where_it_is_not_known_what_was_sent_again_all_are_looked_at() -> None:
    assert asked(Kernel(HEARD), act=lambda watched: watched._on_any()) == ["for all"]


def test_what_is_sent_again_during_a_look_causes_another() -> None:
    kernel = Kernel(HEARD, WAITS)

    def later() -> None:
        kernel.meanwhile = lambda: None
        watched[0]._on_sockets(frozenset({WAITS.key}))
        kernel.sockets = (WAITS,)

    watched: list[SilenceWatch] = []

    def act(each: SilenceWatch) -> None:
        watched.append(each)
        kernel.meanwhile = later
        each._on_sockets(frozenset({HEARD.key}))

    assert asked(kernel, act=act)[-2:] == ["for 2", "for all"]


def test_what_was_sent_again_long_ago_tells_nothing() -> None:
    """By then the socket may wait for something else, which was sent a moment ago."""
    kernel = Kernel(WAITS)

    def act(watched: SilenceWatch) -> None:
        watched._resent[HEARD.key] = asyncio.get_running_loop().time() - 10
        watched._resent[WAITS.key] = asyncio.get_running_loop().time() - 0.1
        watched._on_retransmission()

    assert asked(kernel, act=act) == ["for 1", "for all"]
    assert kernel.resent == {WAITS.key}


def test_a_look_that_waited_for_a_processor_does_not_delay_the_next_one() -> None:
    """Its share is of what it used: on a busy machine silence is noticed as soon."""

    class Busy(Kernel):
        async def look(self, *asked: object) -> Look:
            await asyncio.sleep(0.2)
            return await super().look(*asked)  # type: ignore[arg-type]

    async def run() -> float:
        looks = SocketLooks(cast(TrafficAccess, Busy()), set())
        looks.due_in(0.01)
        await looks.look(WatchedLinks(place_of=PLACES), set())
        return looks.due_in(0.01)

    assert asyncio.run(run()) == 0


@pytest.mark.parametrize("looking", [False, True], ids=["while it waits", "during a look"])
def test_a_process_that_did_not_run_for_a_while_knows_nothing_of_the_time(looking: bool) -> None:
    """As on a machine that sleeps: it may have been answered, but did not ask."""
    waiting = [stalled(W, f"192.0.2.{number}", token=7, unacked=20) for number in (1, 2)]
    kernel, silence = Kernel(*waiting, tcp(C, token=7, heard=0.01)), LinkSilence()

    async def run() -> list[bool]:
        loop = asyncio.get_running_loop()
        watched = watch(kernel, silence)
        watched._links = WatchedLinks(local={WIFI: W, LTE: C}, place_of=PLACES)
        silence.watch({WIFI, LTE}, loop.time())
        watched._attempts._probes = cast(ConnectProbes, Unanswered())
        watched._on_sockets(frozenset(each.key for each in waiting))
        async with asyncio.timeout(5):
            while not silence.silences(loop.time()):
                await asyncio.sleep(0.01)
        verdicts = [each.confirmed for each in silence.silences(loop.time()).values()]
        if looking:
            kernel.meanwhile = lambda: time.sleep(0.8)
            await asyncio.sleep(0.05)
            kernel.meanwhile = lambda: None
        else:
            loop.call_soon(time.sleep, 0.8)
        await asyncio.sleep(0.05)
        verdicts += [each.confirmed for each in silence.silences(loop.time()).values()]
        watched.close()
        return verdicts

    assert asyncio.run(run()) == [False], "suspected, and given up"


# --- attempts


def test_an_attempt_that_was_not_sent_does_not_count() -> None:
    found = case()
    found.sent = [1.0, 2.0]
    found.forget(2.0)
    assert found.attempts(10.0).unanswered == 1
    found.forget(7.0)
    assert found.attempts(10.0).unanswered == 1, "it was forgotten already, when silence was certain"


# --- a silent link is answered again


def case() -> Case:
    return Case(0.0, Evidence(), Evidence(), confirmed=True)


@pytest.mark.parametrize(
    ("looks", "flows"),
    [
        pytest.param([(10.0, 0.01), (10.5, 0.01)], True, id="answers at two looks"),
        pytest.param([(10.0, 0.01)], False, id="one may be a peer's retransmission"),
        pytest.param([(10.0, 0.01), (10.03, 0.04), (10.1, 0.11)], False, id="the same one, seen again"),
        pytest.param([(10.0, 0.01), (10.5, 0.4), (11.0, 0.01)], False, id="none for a while in between"),
        pytest.param([(10.0, 0.01), (10.1, 0.01), (10.2, 0.01), (10.3, 0.01)], True, id="several, by quick looks"),
    ],
)
def test_answers_flow(looks: list[tuple[float, float]], flows: bool) -> None:
    found = case()
    assert [found.flows(Evidence(heard=heard), now) for now, heard in looks][-1] is flows


def test_a_look_that_was_not_made_again_says_nothing_new() -> None:
    """Where looks have to wait, attempts go on."""
    watched = watch(Kernel())
    found = case()
    found.next_attempt = math.inf
    watched._cases[WIFI] = found
    watched._looked = 10.0
    for now in (10.0, 10.3, 10.6):
        watched._update(WIFI, found, Evidence(heard=0.01), now)
    assert WIFI in watched._cases


def test_before_silence_is_certain_it_does_not_count() -> None:
    found = case()
    found.confirmed = False
    assert not any(found.flows(Evidence(heard=0.01), now) for now in (10.0, 10.5, 11.0))


# --- full tunnels

TUNNEL, INNER = Place(Family.IPV4, 4), "10.8.0.2"
CARRIERS = Carriers(INNER, (Way(frozenset(), 2), Way(frozenset({WIFI}), 3)))
ABOVE = WatchedLinks({TUNNEL: INNER}, {**PLACES, INNER: TUNNEL}, {TUNNEL: CARRIERS}, inside=frozenset({INNER}))
IN_TUNNEL = stalled(INNER, "192.0.2.1")


def above(kernel: Kernel) -> SilenceWatch:
    watched = watch(kernel)
    watched._links = ABOVE
    watched._attempts._probes = cast(ConnectProbes, Unanswered())
    return watched


def test_the_counters_are_read_while_a_tunnel_is_examined_also_without_a_socket_in_it() -> None:
    kernel = Kernel(IN_TUNNEL)

    async def run() -> tuple[int, int]:
        watched = above(kernel)
        await watched._look()
        before = kernel.asked.count("what links received")
        watched._open_cases(asyncio.get_running_loop().time())
        kernel.sockets = ()
        await watched._look()
        watched.close()
        return before, kernel.asked.count("what links received")

    assert asyncio.run(run()) == (1, 2)


def test_without_a_tunnel_that_is_examined_no_counter_is_read() -> None:
    kernel = Kernel(tcp(INNER, "192.0.2.1", heard=0.01))

    async def run() -> None:
        watched = above(kernel)
        await watched._look()
        watched.close()

    asyncio.run(run())
    assert "what links received" not in kernel.asked


def test_only_one_tunnel_is_examined_at_a_time() -> None:
    async def run() -> int:
        watched = above(Kernel())
        other = Place(Family.IPV6, 4)
        watched._links = replace(
            ABOVE, local={TUNNEL: INNER, other: "fd00::2"}, tunnels={other: CARRIERS, TUNNEL: CARRIERS}
        )
        waits = Evidence(waiting=(IN_TUNNEL,))
        watched._evidence = {TUNNEL: waits, other: waits}
        watched._open_cases(asyncio.get_running_loop().time())
        found = len(watched._cases)
        watched.close()
        return found

    assert asyncio.run(run()) == 1


# --- rests


def rests(*kinds: bool) -> list[float]:
    """How long a tunnel is left alone each time that it is given up, after a trial or without one."""

    async def run() -> list[float]:
        watched = above(Kernel())
        found = []
        for tried in kinds:
            case = TunnelCase.of(TUNNEL, Evidence(waiting=(IN_TUNNEL,)), ABOVE, {}, 0.0)
            case.trial = TunnelTrial(CARRIERS, "", 0.0, began=0.0) if tried else None
            watched._cases[TUNNEL] = case
            watched._give_up(TUNNEL, case, 100.0)
            found.append(watched._resting[TUNNEL][0] - 100.0)
        watched.forget()
        assert not watched._resting
        watched.close()
        return found

    return asyncio.run(run())


def test_each_trial_in_vain_is_followed_by_a_longer_rest() -> None:
    assert rests(*[True] * 5) == [10, 20, 40, 60, 60]


def test_what_is_given_up_without_a_trial_is_soon_examined_again_and_trials_stay_rare() -> None:
    assert rests(False, True, True, True, False, True) == [1, 10, 20, 40, 8, 16]
