# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from nm_mptcp.engine.endpoint_retry import EndpointRetry

PLACE, OTHER = ("10.0.1.2", 2), ("10.0.2.2", 3)


def test_the_first_try_is_after_a_second_and_each_delay_is_twice_the_one_before() -> None:
    refusals = EndpointRetry()
    now, delays = 100.0, []
    for _ in range(11):
        refusals.refused(PLACE, "port 443 is in use", now)
        due = refusals.next_due(now)
        assert due is not None
        delays.append(due - now)
        now = due
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_try_that_something_else_made_does_not_put_the_next_one_off() -> None:
    refusals = EndpointRetry()
    refusals.refused(PLACE, "no", 100.0)
    refusals.refused(PLACE, "no", 100.5)
    assert refusals.next_due(100.5) == 101.0


def test_what_was_taken_is_forgotten() -> None:
    refusals = EndpointRetry()
    refusals.refused(PLACE, "no", 100.0)
    refusals.accepted(PLACE)
    refusals.accepted(OTHER)
    assert refusals.words() == {}
    assert refusals.next_due(100.0) is None


def test_what_nobody_wants_is_forgotten() -> None:
    refusals = EndpointRetry()
    refusals.refused(PLACE, "no", 100.0)
    refusals.refused(OTHER, "", 100.0)
    refusals.keep({OTHER})
    assert refusals.words() == {OTHER: ""}


def test_the_last_words_count() -> None:
    refusals = EndpointRetry()
    refusals.refused(PLACE, "", 100.0)
    refusals.refused(PLACE, "port 443 is in use", 100.1)
    assert refusals.words() == {PLACE: "port 443 is in use"}
