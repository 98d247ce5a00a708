# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from nm_mptcp.engine.flap_damping import EARLIEST_RETURN, RESET_AFTER, FlapDamping


def lost(flaps: FlapDamping, at: float, back: float, ifindex: int = 2) -> None:
    others = {2, 3} - {ifindex}
    flaps.update({2, 3}, set(), at - 0.01)
    flaps.update(others, {ifindex}, at)
    flaps.update({2, 3}, set(), back)


def test_a_link_that_was_never_up_is_not_lost() -> None:
    flaps = FlapDamping()
    flaps.update(set(), {2}, 0.0)
    flaps.update({2}, set(), 0.1)
    assert flaps.damped(0.1) == {}
    lost(flaps, 1.0, 1.6)
    assert flaps.damped(1.6) == {}


def test_a_return_is_reported_once() -> None:
    flaps = FlapDamping()
    assert flaps.update({2, 3}, set(), 0.0) == set()
    assert flaps.update({3}, {2}, 1.0) == set()
    assert flaps.update({2, 3}, set(), 2.0) == {2}
    assert flaps.update({2, 3}, set(), 2.1) == set()
    flaps.update({2}, {3}, 3.0)
    assert flaps.update({2}, set(), 4.0) == set(), "gone for good"


def test_a_late_return_is_not_delayed() -> None:
    flaps = FlapDamping()
    lost(flaps, 0.0, EARLIEST_RETURN)
    assert flaps.damped(EARLIEST_RETURN) == {}


def test_a_return_right_after_the_loss_waits_for_the_peer() -> None:
    flaps = FlapDamping()
    lost(flaps, 100.0, 100.1)
    assert flaps.damped(100.1) == {2: 0.3}
    assert flaps.next_due(100.1) == 100.0 + EARLIEST_RETURN
    assert flaps.damped(100.0 + EARLIEST_RETURN) == {}


def test_delays_double() -> None:
    flaps, now, holds = FlapDamping(), 100.0, []
    for _ in range(9):
        lost(flaps, now, now + 0.5)
        holds.append(flaps.damped(now + 0.5).get(2, 0.0))
        now += 1
    assert holds == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_the_end_of_a_delay_is_known() -> None:
    flaps = FlapDamping()
    for now in (0.0, 1.0):
        lost(flaps, now, now + 0.5)
    assert flaps.next_due(1.6) == 2.0
    assert flaps.damped(1.9) == {2: 0.5}
    assert flaps.damped(2.0) == {}
    assert flaps.next_due(2.0) is None


def test_losses_are_forgotten_on_a_link_that_stays_up() -> None:
    flaps = FlapDamping()
    for now in (0.0, 1.0, 1.5 + RESET_AFTER):
        lost(flaps, now, now + 0.5)
    assert flaps.damped(2.0 + RESET_AFTER) == {}


@pytest.mark.parametrize("forget", [False, True])
def test_each_link_has_its_own_history_and_sleep_resets_all(forget: bool) -> None:
    flaps = FlapDamping()
    for now in (0.0, 1.0):
        lost(flaps, now, now + 0.5)
    lost(flaps, 1.0, 1.6, ifindex=3)
    if forget:
        flaps.forget()
    assert flaps.damped(1.6) == ({} if forget else {2: 0.5})


def test_a_link_returns_at_once_after_sleep() -> None:
    flaps = FlapDamping()
    flaps.update({2}, set(), 0.0)
    flaps.update(set(), {2}, 0.1)
    flaps.forget()
    flaps.update(set(), {2}, 0.2)
    flaps.update({2}, set(), 0.3)
    assert flaps.damped(0.3) == {}
    flaps.update(set(), {2}, 0.4)
    flaps.update({2}, set(), 0.5)
    assert flaps.damped(0.5) != {}
