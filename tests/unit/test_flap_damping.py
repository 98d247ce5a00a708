# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from nm_mptcp.engine.flap_damping import FORGIVEN, SETTLED, FlapDamping


def lost(flaps: FlapDamping, at: float, back: float, ifindex: int = 2) -> None:
    others = {2, 3} - {ifindex}
    flaps.look({2, 3}, set(), at - 0.01)
    flaps.look(others, {ifindex}, at)
    flaps.look({2, 3}, set(), back)


def test_a_link_that_was_never_up_cannot_be_lost() -> None:
    flaps = FlapDamping()
    flaps.look(set(), {2}, 0.0)
    flaps.look({2}, set(), 0.1)
    assert flaps.damped(0.1) == {}
    lost(flaps, 1.0, 1.6)
    assert flaps.damped(1.6) == {}


def test_it_tells_once_which_links_came_back() -> None:
    flaps = FlapDamping()
    assert flaps.look({2, 3}, set(), 0.0) == set()
    assert flaps.look({3}, {2}, 1.0) == set()
    assert flaps.look({2, 3}, set(), 2.0) == {2}
    assert flaps.look({2, 3}, set(), 2.1) == set()
    flaps.look({2}, {3}, 3.0)
    assert flaps.look({2}, set(), 4.0) == set(), "gone for good"


def test_a_return_is_immediate_once_the_peer_has_learnt_of_the_loss() -> None:
    flaps = FlapDamping()
    lost(flaps, 0.0, SETTLED)
    assert flaps.damped(SETTLED) == {}


def test_a_return_right_after_the_loss_waits_for_that() -> None:
    flaps = FlapDamping()
    lost(flaps, 100.0, 100.1)
    assert flaps.damped(100.1) == {2: 0.3}
    assert flaps.next_due(100.1) == 100.0 + SETTLED
    assert flaps.damped(100.0 + SETTLED) == {}


def test_each_later_return_is_held_back_twice_as_long() -> None:
    flaps, now, holds = FlapDamping(), 100.0, []
    for _ in range(9):
        lost(flaps, now, now + 0.5)
        holds.append(flaps.damped(now + 0.5).get(2, 0.0))
        now += 1
    assert holds == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_hold_ends_by_itself_and_is_said_in_advance() -> None:
    flaps = FlapDamping()
    for now in (0.0, 1.0):
        lost(flaps, now, now + 0.5)
    assert flaps.next_due(1.6) == 2.0
    assert flaps.damped(1.9) == {2: 0.5}
    assert flaps.damped(2.0) == {}
    assert flaps.next_due(2.0) is None


def test_a_link_that_stayed_is_forgiven() -> None:
    flaps = FlapDamping()
    for now in (0.0, 1.0, 1.5 + FORGIVEN):
        lost(flaps, now, now + 0.5)
    assert flaps.damped(2.0 + FORGIVEN) == {}


@pytest.mark.parametrize("forget", [False, True])
def test_each_link_has_its_own_past_and_sleep_forgives_all(forget: bool) -> None:
    flaps = FlapDamping()
    for now in (0.0, 1.0):
        lost(flaps, now, now + 0.5)
    lost(flaps, 1.0, 1.6, ifindex=3)
    if forget:
        flaps.forget()
    assert flaps.damped(1.6) == ({} if forget else {2: 0.5})


def test_a_link_that_slept_comes_back_at_once() -> None:
    flaps = FlapDamping()
    flaps.look({2}, set(), 0.0)
    flaps.look(set(), {2}, 0.1)
    flaps.forget()
    flaps.look(set(), {2}, 0.2)
    flaps.look({2}, set(), 0.3)
    assert flaps.damped(0.3) == {}
    flaps.look(set(), {2}, 0.4)
    flaps.look({2}, set(), 0.5)
    assert flaps.damped(0.5) != {}
