# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from nm_mptcp.engine.endpoint_retry import EndpointRetry

PLACE, OTHER = ("10.0.1.2", 2), ("10.0.2.2", 3)


def test_the_first_retry_is_after_a_second_and_delays_double() -> None:
    refusals = EndpointRetry()
    now, delays = 100.0, []
    for _ in range(11):
        refusals.refused(PLACE, "port 443 is in use", now)
        due = refusals.next_due(now)
        assert due is not None
        delays.append(due - now)
        now = due
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_an_early_retry_does_not_postpone_the_next_one() -> None:
    refusals = EndpointRetry()
    refusals.refused(PLACE, "no", 100.0)
    refusals.refused(PLACE, "no", 100.5)
    assert refusals.next_due(100.5) == 101.0


def test_an_accepted_endpoint_is_forgotten() -> None:
    refusals = EndpointRetry()
    refusals.refused(PLACE, "no", 100.0)
    refusals.accepted(PLACE)
    refusals.accepted(OTHER)
    assert refusals.reasons() == {}
    assert refusals.next_due(100.0) is None


def test_an_unwanted_endpoint_is_forgotten() -> None:
    refusals = EndpointRetry()
    refusals.refused(PLACE, "no", 100.0)
    refusals.refused(OTHER, "", 100.0)
    refusals.keep({OTHER})
    assert refusals.reasons() == {OTHER: ""}


def test_the_last_reason_is_reported() -> None:
    refusals = EndpointRetry()
    refusals.refused(PLACE, "", 100.0)
    refusals.refused(PLACE, "port 443 is in use", 100.1)
    assert refusals.reasons() == {PLACE: "port 443 is in use"}
