# SPDX-License-Identifier: GPL-2.0-or-later
"""By which of the links below it a full tunnel is answered: what proves it, and what does not."""

from __future__ import annotations

import pytest

from nm_mptcp.engine.tunnel_trial import _DECIDED, _SETTLES, _STAGE, _STAGE_IDLE, TunnelTrial
from nm_mptcp.model.state import Carriers, Family, Place, Way

ETHERNET, WIFI, MODEM = (Place(Family.IPV4, index) for index in (2, 3, 4))
CARRIERS = Carriers(
    "10.8.0.2",
    (
        Way(frozenset(), ETHERNET.ifindex),
        Way(frozenset({ETHERNET}), WIFI.ifindex),
        Way(frozenset({ETHERNET, WIFI}), MODEM.ifindex),
    ),
)

#: When trials begin, and what links have received then.
BEGAN = 100.0
COUNTERS = {2: 1000, 3: 1000, 4: 1000}


def found_silent() -> TunnelTrial:
    """By the first link nothing was answered for a second."""
    return TunnelTrial(CARRIERS, "a peer unanswered for 1.1 s in tun0", BEGAN, began=BEGAN - 1.0)


def led(trial: TunnelTrial, *around: Place, now: float = BEGAN) -> float:
    """The routes lead around these links, and all is seen; when attempts may begin."""
    trial.follow(frozenset(around), now)
    trial.see(COUNTERS, now + _SETTLES)
    assert trial.next_attempt == now + _SETTLES
    return now + _SETTLES


def test_first_it_is_led_around_the_first_link() -> None:
    trial = found_silent()
    assert (trial.around, trial.by) == ({ETHERNET}, WIFI.ifindex)
    assert trial.next_attempt is None, "the routes are not so yet"
    trial.follow(frozenset(), BEGAN)
    assert trial.next_attempt is None
    led(trial, ETHERNET)


def test_an_answer_by_a_link_that_received_something_is_a_verdict() -> None:
    trial = found_silent()
    begin = led(trial, ETHERNET)
    trial.on_answer(begin, begin + 0.05)
    assert trial.answered is None, "no look was made since"
    trial.see({**COUNTERS, 3: 1100}, begin + 0.06)
    assert (trial.answered, trial.around, trial.by) == (1, {ETHERNET}, WIFI.ifindex)


def test_an_answer_while_the_link_received_nothing_came_by_another() -> None:
    trial = found_silent()
    begin = led(trial, ETHERNET)
    trial.on_answer(begin, begin + 0.05)
    trial.see({**COUNTERS, 2: 5000}, begin + 0.06)
    assert trial.answered is None


def test_counters_that_cannot_be_read_tell_nothing() -> None:
    trial = found_silent()
    trial.follow(frozenset({ETHERNET}), BEGAN)
    trial.see({}, BEGAN + _SETTLES)
    assert trial.next_attempt is None
    begin = led(trial, ETHERNET)
    trial.on_answer(begin, begin + 0.1)
    trial.see({}, begin + 0.2)
    assert trial.answered is None


def test_a_late_answer_to_an_attempt_by_the_first_link_is_that_links() -> None:
    trial = found_silent()
    begin = led(trial, ETHERNET)
    trial.on_answer(BEGAN - 0.3, begin + 0.1)
    trial.see(COUNTERS, begin + 0.2)
    assert (trial.answered, trial.around, trial.by) == (0, set(), ETHERNET.ifindex)


def test_an_answer_to_a_packet_that_was_sent_again_proves_nothing() -> None:
    trial = found_silent()
    led(trial, ETHERNET)
    trial.on_answer(BEGAN - 0.8, BEGAN + 0.25)
    trial.see({2: 9000, 3: 9000, 4: 9000}, BEGAN + 0.3)
    assert trial.answered is None


def test_each_link_is_tried_for_a_while_and_then_the_next_one() -> None:
    trial = found_silent()
    begin = led(trial, ETHERNET)
    assert trial.next(begin + _STAGE - 0.1, 0.01) is False
    assert trial.next(begin + _STAGE + 0.1, 0.01) is True
    assert (trial.around, trial.by) == ({ETHERNET, WIFI}, MODEM.ifindex)
    begin = led(trial, ETHERNET, WIFI, now=begin + 2.0)
    assert trial.next(begin + _STAGE + 0.1, 0.01) is None, "none is left"


def test_a_long_way_takes_longer() -> None:
    trial = found_silent()
    begin = led(trial, ETHERNET)
    assert trial.next(begin + _STAGE + 0.1, 0.6) is False
    assert trial.next(begin + 2.5, 0.6) is True


def test_a_session_that_has_to_begin_takes_longer() -> None:
    trial = TunnelTrial(CARRIERS, "", BEGAN, began=BEGAN - 1.0, idle=True)
    begin = led(trial, ETHERNET)
    assert trial.next(begin + _STAGE_IDLE - 0.1, 0.01) is False
    assert trial.next(begin + _STAGE_IDLE + 0.1, 0.01) is True


def test_routes_that_do_not_come_end_it() -> None:
    trial = found_silent()
    assert trial.next(BEGAN + _DECIDED - 0.1, 0.01) is False
    assert trial.next(BEGAN + _DECIDED + 0.1, 0.01) is None


@pytest.mark.parametrize(("answers", "around"), [(ETHERNET, set()), (WIFI, {ETHERNET}), (MODEM, {ETHERNET, WIFI})])
def test_a_later_trial_begins_without_a_detour(answers: Place, around: set[Place]) -> None:
    trial = TunnelTrial(CARRIERS, "", BEGAN, around={ETHERNET})
    led_around: list[Place] = []
    now = BEGAN
    for place in (ETHERNET, WIFI, MODEM):
        begin = led(trial, *led_around, now=now)
        if place is answers:
            trial.on_answer(begin, begin + 0.1)
            trial.see({**COUNTERS, place.ifindex: 1100}, begin + 0.2)
            break
        assert trial.next(begin + _STAGE + 0.1, 0.01)
        led_around.append(place)
        now = begin + 2.0
    assert trial.around == around


def test_without_a_detour_one_of_those_has_to_be_heard_that_were_led_around() -> None:
    trial = TunnelTrial(CARRIERS, "", BEGAN, around={ETHERNET, WIFI})
    begin = led(trial)
    trial.on_answer(begin, begin + 0.1)
    trial.see({**COUNTERS, MODEM.ifindex: 9000}, begin + 0.2)
    assert trial.answered is None, "the tunnel stuck to the link that it was sent by"
    trial.see({**COUNTERS, WIFI.ifindex: 1100}, begin + 0.3)
    assert trial.answered == 0


def test_it_can_end_as_it_was_before() -> None:
    trial = TunnelTrial(CARRIERS, "", BEGAN, around={ETHERNET, WIFI})
    assert trial.settle({ETHERNET, WIFI})
    assert trial.around == {ETHERNET, WIFI}
    for around in (set[Place](), {WIFI}, {MODEM}):
        assert not TunnelTrial(CARRIERS, "", BEGAN).settle(around)
