# SPDX-License-Identifier: GPL-2.0-or-later
"""A full tunnel in which nothing is answered: when another link is tried, what is told, when the first is tried again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from nm_mptcp.engine.silence_case import Case, again
from nm_mptcp.engine.tunnel_case import Step, TunnelCase
from nm_mptcp.engine.watched_links import WatchedLinks
from nm_mptcp.kernel.tcp_sockets import TCPSocket
from nm_mptcp.model.state import Carriers, Family, Place, Silence, Way
from nm_mptcp.policy.silence_evidence import Evidence, weigh

from .test_silence_evidence import connecting, look, near, stalled, tcp

TUNNEL, WIFI, LTE = (Place(Family.IPV4, index) for index in (4, 2, 3))
INNER = "10.8.0.2"
CARRIERS = Carriers(INNER, (Way(frozenset(), 2), Way(frozenset({WIFI}), 3)))
LINKS = WatchedLinks({TUNNEL: INNER}, {INNER: TUNNEL}, {TUNNEL: CARRIERS}, names={2: "wlan0", 3: "wwan0", 4: "tun0"})
WORDS = "a peer unanswered for 1.4 s in tun0"
VERDICT = f"{WORDS}, answered by wwan0"


def evidence(*sockets: TCPSocket) -> Evidence:
    return weigh(look(*sockets), {INNER: TUNNEL}, near, inside={INNER}).get(TUNNEL, Evidence())


STALLED = evidence(stalled(INNER, seconds=0.42))


@dataclass
class Watch:
    """Looks each tenth of a second at a tunnel, and acts as the engine does; no attempt is answered unless a test says so."""

    found: Evidence = STALLED
    now: float = 100.0
    received: dict[int, int] = field(default_factory=lambda: {2: 0, 3: 0, 4: 0})
    around: frozenset[Place] = frozenset()
    answered_by: Place | None = None  #: attempts are answered while the tunnel's packets leave by this link
    told: list[Mapping[Place, Silence]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.case = TunnelCase.of(TUNNEL, self.found, LINKS, self.received, self.now)

    def step(self) -> Step:
        self.now += 0.1
        step = self.case.step(self.found, self.received, self.now, self.around, self.now)
        if step is Step.ASK:
            self.case.sent.append(self.now)
            self.case.next_attempt = self.now + 0.1
            if self.answered_by is (LTE if WIFI in self.around else WIFI):
                self.received[self.answered_by.ifindex] += 60
                self.case.on_answer(self.now, self.now + 0.02)
        elif step is Step.LEAD:
            shown = self.case.around()
            self.around = frozenset(place for place, silence in shown.items() if not silence.tried)
            if self.case.confirmed:
                self.case.led = frozenset(shown)
            if not self.told or self.told[-1] != shown:
                self.told.append(shown)
        return step

    def until(self, *steps: Step, seconds: float = 10.0) -> Step:
        ends = self.now + seconds
        while self.now < ends:
            if (step := self.step()) in steps:
                return step
        raise AssertionError(f"none of {steps} within {seconds} s")

    def settles(self) -> None:
        """Until a verdict."""
        self.answered_by = LTE
        while not self.case.confirmed:
            assert self.step() not in (Step.ANSWERED, Step.GIVE_UP)


def test_after_a_second_without_an_answer_another_link_is_tried() -> None:
    watch = Watch()
    watch.until(Step.LEAD)
    assert 1.0 <= watch.case.quiet(watch.now) <= 1.5
    assert watch.told == [{WIFI: Silence(False, WORDS)}]


def test_an_answer_by_it_is_the_verdict_on_the_first_link() -> None:
    watch = Watch()
    watch.settles()
    assert watch.told[-1] == {WIFI: Silence(True, VERDICT)}


def test_no_answer_by_any_link_is_no_verdict_and_the_next_trial_is_far() -> None:
    watch = Watch()
    assert watch.until(Step.ANSWERED, Step.GIVE_UP) is Step.GIVE_UP
    assert watch.case.rest > Case.REST
    assert watch.case.rest_when_answered == watch.case.rest[0]
    assert not watch.case.confirmed


def test_without_a_trial_the_next_examination_is_near() -> None:
    assert Watch().case.rest == Case.REST


@pytest.mark.parametrize(
    "found",
    [evidence(connecting("192.0.2.1")), evidence(stalled(INNER, seconds=0.42, connecting=True))],
    ids=["nobody", "a single peer that was never reached"],
)
def test_what_was_never_reached_proves_nothing(found: Evidence) -> None:
    watch = Watch(found)
    with pytest.raises(AssertionError, match="none of"):
        watch.until(Step.LEAD, Step.ANSWERED, seconds=5)


def test_an_answer_in_the_tunnel_ends_it() -> None:
    watch = Watch(answered_by=WIFI)
    assert watch.until(Step.LEAD, Step.ANSWERED) is Step.ANSWERED


def test_whatever_else_the_tunnel_receives_ends_it() -> None:
    watch = Watch()
    watch.step()
    watch.received[TUNNEL.ifindex] += 1400
    assert watch.step() is Step.ANSWERED


def test_but_not_what_a_peer_sends_again_whose_acknowledgements_vanish() -> None:
    watch = Watch(evidence(stalled(INNER, seconds=0.42, timeouts=1, heard=0.05)))
    watch.step()
    watch.received[TUNNEL.ifindex] += 1400
    assert watch.until(Step.LEAD, Step.ANSWERED) is Step.LEAD


# --- the return


def test_the_first_link_is_tried_again_and_counts_as_silent_meanwhile() -> None:
    watch = Watch()
    watch.settles()
    watch.found = evidence(tcp(INNER, heard=0.01))
    began = watch.now
    watch.until(Step.LEAD, seconds=10)
    assert watch.now - began == pytest.approx(again(0), abs=0.2)
    assert watch.told[-1] == {WIFI: Silence(True, VERDICT, tried=True)}
    watch.answered_by = WIFI
    assert watch.until(Step.ANSWERED, Step.GIVE_UP) is Step.ANSWERED


def test_in_vain_it_is_led_around_again_and_tried_later_each_time() -> None:
    watch = Watch()
    watch.settles()
    watch.found = evidence(tcp(INNER, heard=0.01))
    waits = []
    for _ in range(5):
        began = watch.now
        watch.until(Step.LEAD, seconds=100)
        waits.append(watch.now - began)
        watch.settles()
        assert watch.told[-2:] == [{WIFI: Silence(True, VERDICT, tried=True)}, {WIFI: Silence(True, VERDICT)}]
    assert waits == pytest.approx([5, 10, 20, 40, 60], abs=0.3)


def test_where_nobody_answers_the_link_is_kept_that_carried_something_meanwhile() -> None:
    """As QUIC, or peers that nobody asks."""
    watch = Watch()
    watch.settles()
    watch.found = evidence(tcp(INNER, heard=0.01))
    for wait in (5, 10, 20, 40, 60, 60):
        began = watch.now
        watch.received[TUNNEL.ifindex] += 1400
        watch.until(Step.LEAD, seconds=100)
        assert watch.now - began == pytest.approx(wait, abs=0.3)
        watch.answered_by = None
        while not watch.case.confirmed:
            assert watch.step() not in (Step.ANSWERED, Step.GIVE_UP)
        assert watch.told[-1] == {WIFI: Silence(True, VERDICT)}


def test_where_nobody_answers_and_the_first_link_carried_something_it_is_used_again() -> None:
    watch = Watch()
    watch.settles()
    watch.found = evidence(tcp(INNER, heard=0.01))
    watch.until(Step.LEAD, seconds=10)
    watch.answered_by = None
    step = Step.LEAD
    while step not in (Step.ANSWERED, Step.GIVE_UP) and not watch.case.confirmed:
        if not watch.around:
            watch.received[TUNNEL.ifindex] += 1400
            watch.received[WIFI.ifindex] += 1460
        step = watch.step()
    assert step is Step.ANSWERED


def test_where_nobody_answers_and_it_carried_nothing_all_is_as_without_a_verdict() -> None:
    watch = Watch()
    watch.settles()
    watch.found = evidence(tcp(INNER, heard=0.01))
    watch.until(Step.LEAD, seconds=10)
    watch.answered_by = None
    assert watch.until(Step.ANSWERED, Step.GIVE_UP) is Step.GIVE_UP


def waiting_after_a_verdict() -> Watch:
    """A socket waits although the tunnel is led around the first link, which is not due to be tried."""
    watch = Watch()
    watch.settles()
    watch.case.next_attempt = watch.now + 60
    watch.now += 6
    watch.found = evidence(stalled(INNER, seconds=2.5))
    return watch


def test_it_is_tried_at_once_when_the_link_in_use_is_silent_as_well() -> None:
    watch = waiting_after_a_verdict()
    watch.answered_by = WIFI
    watch.until(Step.LEAD, seconds=3)
    assert watch.until(Step.ANSWERED, Step.GIVE_UP) is Step.ANSWERED


def test_a_dead_peer_beside_others_is_no_reason_to_try_it() -> None:
    watch = waiting_after_a_verdict()
    for _ in range(50):
        watch.received[TUNNEL.ifindex] += 60
        assert watch.step() is Step.WAIT


# --- what is below it changes


def test_it_follows_the_links_below_it_and_ends_with_the_one_that_is_led_around() -> None:
    watch = Watch()
    watch.settles()
    more = Carriers(INNER, (*CARRIERS.ways, Way(frozenset({WIFI, LTE}), 5)))
    assert watch.case.follow(replace(LINKS, tunnels={TUNNEL: more}))
    assert watch.case.carriers is more
    better = Carriers(INNER, (Way(frozenset(), 5), Way(frozenset({Place(Family.IPV4, 5)}), 2), *more.ways[2:]))
    assert not watch.case.follow(replace(LINKS, tunnels={TUNNEL: better})), "without a detour it leaves by a new link"
    fewer = Carriers(INNER, (Way(frozenset(), 3), Way(frozenset({LTE}), 5)))
    assert not watch.case.follow(replace(LINKS, tunnels={TUNNEL: fewer}))
    assert not watch.case.follow(replace(LINKS, tunnels={}))


def test_another_order_of_the_same_links_changes_not_what_the_verdict_is_about() -> None:
    """NetworkManager raises the metric of the silent link's default route, and not that of the server's route."""
    watch = Watch()
    watch.settles()
    watch.found = evidence(tcp(INNER, heard=0.01))
    other = Carriers(INNER, (Way(frozenset(), 3), Way(frozenset({LTE}), 2), Way(frozenset({WIFI}), 3)))
    assert watch.case.follow(replace(LINKS, tunnels={TUNNEL: other}))
    watch.until(Step.LEAD, seconds=10)
    watch.settles()
    assert watch.told[-1] == {WIFI: Silence(True, VERDICT)}
