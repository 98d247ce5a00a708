# SPDX-License-Identifier: GPL-2.0-or-later
"""When a Wi-Fi signal becomes weak, and when strong again."""

from __future__ import annotations

import pytest

from nm_mptcp.config.settings import WeakSignal
from nm_mptcp.engine.signal_hysteresis import HOLD, SignalHysteresis

BOUNDS = WeakSignal(leave=40, enter=50)
WLAN = ("wlan0", BOUNDS)


def weak_after(*steps: tuple[float, int | None], bounds: WeakSignal = BOUNDS) -> list[bool]:
    """Whether it is weak after each step; steps are seconds and strengths."""
    strengths, found = SignalHysteresis(), []
    for now, strength in steps:
        strengths.update({("wlan0", bounds): strength}, now)
        found.append(bool(strengths.weak()))
    return found


@pytest.mark.parametrize(("strength", "weak"), [(100, False), (40, False), (39, True), (0, True)])
def test_a_new_signal_has_the_state_of_its_first_strength(strength: int, weak: bool) -> None:
    assert weak_after((0.0, strength)) == [weak]


def test_a_signal_becomes_weak_after_it_stayed_below_the_lower_bound() -> None:
    assert weak_after((0, 60), (1, 39), (1 + HOLD - 0.1, 39), (1 + HOLD, 38)) == [False, False, False, True]


def test_a_dip_that_the_next_reading_does_not_confirm_is_ignored() -> None:
    assert not any(weak_after((0, 60), (1, 30), (7, 41), (8, 30), (14, 45), (30, 60)))


def test_a_signal_becomes_strong_after_it_stayed_above_the_upper_bound() -> None:
    assert weak_after((0, 30), (10, 49), (20, 49), (30, 50), (30 + HOLD, 55)) == [True, True, True, True, False]


def test_between_the_bounds_nothing_changes() -> None:
    assert weak_after((0, 60), (10, 45), (20, 41), (60, 49)) == [False] * 4
    assert weak_after((0, 30), (10, 45), (20, 41), (60, 49)) == [True] * 4


def test_an_unknown_strength_keeps_the_state_and_restarts_the_delay() -> None:
    assert weak_after((0, 30), (1, None), (60, None), (61, 30)) == [True] * 4
    assert weak_after((0, 60), (1, 30), (5, None), (9, 30), (9 + HOLD - 0.1, 30)) == [False] * 5
    assert weak_after((0, None), (100, None)) == [False, False]


def test_a_bound_of_zero_never_makes_a_signal_weak() -> None:
    assert not any(weak_after((0, 0), (100, 0), bounds=WeakSignal(leave=0, enter=0)))


def test_an_absent_signal_is_forgotten_and_sleep_resets_all() -> None:
    strengths = SignalHysteresis()
    strengths.update({WLAN: 30}, 0.0)
    strengths.update({}, 1.0)
    assert not strengths.weak()
    strengths.update({WLAN: 30}, 2.0)
    strengths.forget()
    assert not strengths.weak()
    assert not strengths.knows("wlan0")


def test_each_of_several_bounds_has_its_own_state() -> None:
    strict = ("wlan0", WeakSignal(leave=70, enter=80))
    strengths = SignalHysteresis()
    strengths.update({WLAN: 60, strict: 60}, 0.0)
    assert strengths.weak() == {strict}


def test_the_end_of_the_delay_is_known() -> None:
    strengths = SignalHysteresis()
    strengths.update({WLAN: 60}, 0.0)
    assert strengths.next_due(0.0) is None
    strengths.update({WLAN: 30}, 5.0)
    assert strengths.next_due(5.0) == 5.0 + HOLD
    strengths.update({WLAN: 30}, 5.0 + HOLD)
    assert strengths.next_due(5.0 + HOLD) is None


@pytest.mark.parametrize(
    ("past", "now", "matters"),
    [
        ([60], 55, False),  # strong, stays strong
        ([60], 39, True),  # a hold begins
        ([60, 39], 35, False),  # it goes on
        ([60, 39], 41, True),  # it ends in nothing
        ([60, 39], None, True),
        ([30], 49, False),  # weak, stays weak
        ([30], 50, True),
        ([30], None, False),
        ([], 60, True),  # nothing known yet
        ([], None, False),
    ],
)
def test_only_a_strength_beyond_a_bound_requires_an_update(past: list[int], now: int | None, matters: bool) -> None:
    strengths = SignalHysteresis()
    for second, strength in enumerate(past):
        strengths.update({WLAN: strength}, float(second))
    assert strengths.moved([("wlan0", now), ("wlan1", None)]) is matters
