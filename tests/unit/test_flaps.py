# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from nm_mptcp.flaps import FORGIVEN, Flaps


def test_the_first_return_is_immediate_and_each_later_one_is_held_back_twice_as_long() -> None:
    flaps, now, holds = Flaps(), 100.0, []
    for _ in range(9):
        flaps.look({2}, now)
        flaps.look(set(), now + 0.1)
        holds.append(flaps.held(now + 0.1).get(2, 0.0))
        now += 1
    assert holds == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_hold_ends_by_itself_and_is_said_in_advance() -> None:
    flaps = Flaps()
    for now in (0.0, 1.0):
        flaps.look({2}, now)
        flaps.look(set(), now + 0.1)
    assert flaps.next_end(1.2) == 1.6
    assert flaps.held(1.5) == {2: 0.5}
    assert flaps.held(1.6) == {}
    assert flaps.next_end(1.6) is None


def test_a_link_that_stayed_is_forgiven() -> None:
    flaps = Flaps()
    for now in (0.0, 1.0):
        flaps.look({2}, now)
        flaps.look(set(), now + 0.1)
    flaps.look({2}, 1.1 + FORGIVEN)
    flaps.look(set(), 1.2 + FORGIVEN)
    assert flaps.held(1.2 + FORGIVEN) == {}


def test_each_link_has_its_own_past_and_sleep_forgives_all() -> None:
    flaps = Flaps()
    for now in (0.0, 1.0):
        flaps.look({2}, now)
        flaps.look(set(), now + 0.1)
    flaps.look({3}, 1.2)
    flaps.look(set(), 1.3)
    assert flaps.held(1.3) == {2: 0.5}
    flaps.forget()
    assert flaps.held(1.3) == {}
