# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import errno

from nm_mptcp.engine.subflow_retry import SubflowRetry
from nm_mptcp.kernel.path_manager_events import EventName, PathManagerEvent

A = "10.0.1.2"


def event(name: EventName, *, token: int = 1, error: int = 0, port: int = 4000) -> PathManagerEvent:
    return PathManagerEvent(name, token, local=A, local_port=port, remote="192.0.2.1", remote_port=80, error=error)


def died(healing: SubflowRetry, now: float, *, token: int = 1, error: int = errno.ETIMEDOUT) -> None:
    healing.on_event(event(EventName.SUBFLOW_ESTABLISHED, token=token), now - 1)
    assert healing.on_event(event(EventName.SUBFLOW_CLOSED, token=token, error=error), now)


def test_a_subflow_that_died_by_an_error_is_due_after_a_second() -> None:
    healing = SubflowRetry()
    died(healing, 10.0)
    assert healing.due(10.5) == frozenset()
    assert healing.next_due(10.5) == 11.0
    assert healing.due(11.0) == {A}


def test_each_try_waits_twice_as_long_and_there_is_an_end() -> None:
    healing, now, waits = SubflowRetry(), 0.0, []
    died(healing, now)
    while (due := healing.next_due(now)) is not None:
        waits.append(due - now)
        now = due
        healing.tried(A, now)
    assert waits[:5] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert (len(waits), waits[-1]) == (12, 300.0)


def test_one_that_ended_in_peace_needs_no_healing() -> None:
    healing = SubflowRetry()
    healing.on_event(event(EventName.SUBFLOW_ESTABLISHED), 0.0)
    assert not healing.on_event(event(EventName.SUBFLOW_CLOSED), 1.0)
    assert healing.next_due(1.0) is None


def test_a_peer_that_refused_is_not_asked_again() -> None:
    healing = SubflowRetry()
    assert not healing.on_event(event(EventName.SUBFLOW_CLOSED, error=errno.ECONNREFUSED), 1.0)
    healing.on_event(event(EventName.SUBFLOW_CLOSED, error=errno.ETIMEDOUT, port=4001), 2.0)
    assert healing.due(100.0) == frozenset()


def test_a_join_that_was_reset_is_tried_once_more() -> None:
    healing = SubflowRetry()
    assert healing.on_event(event(EventName.SUBFLOW_CLOSED, error=errno.ECONNRESET), 1.0)
    assert healing.due(2.0) == {A}
    healing.tried(A, 2.0)
    assert not healing.on_event(event(EventName.SUBFLOW_CLOSED, error=errno.ECONNRESET, port=4001), 2.1)
    assert healing.due(100.0) == frozenset()


def test_a_reset_of_an_established_subflow_is_no_refusal() -> None:
    healing = SubflowRetry()
    died(healing, 1.0, error=errno.ECONNRESET)
    assert healing.due(3.0) == {A}


def test_it_is_over_when_the_connection_ended_or_has_its_subflow_again() -> None:
    healing = SubflowRetry()
    died(healing, 1.0)
    healing.on_event(PathManagerEvent(EventName.CLOSED, 1), 1.5)
    assert healing.due(9.0) == frozenset()
    died(healing, 10.0, token=2)
    healing.on_event(event(EventName.SUBFLOW_ESTABLISHED, token=2, port=4001), 10.5)
    assert healing.due(19.0) == frozenset()


def test_it_is_over_when_the_endpoint_was_added_for_another_reason() -> None:
    healing = SubflowRetry()
    died(healing, 1.0)
    healing.on_endpoint_added(A)
    assert healing.due(9.0) == frozenset()


def remembered(healing: SubflowRetry) -> int:
    return sum(map(len, (healing._established, healing._refusing, healing._resets, healing._heard)))


def test_connections_whose_end_was_not_told_are_forgotten_when_they_are_known_to_be_gone() -> None:
    """The kernel drops events where nobody takes them in time; a busy server has millions of connections in a month."""
    healing = SubflowRetry()
    most = 0
    for token in range(20_000):
        healing.on_event(event(EventName.SUBFLOW_ESTABLISHED, token=token), float(token))
        healing.on_event(
            event(EventName.SUBFLOW_CLOSED, token=token, error=errno.ECONNREFUSED, port=4001), float(token)
        )
        if healing.crowded:
            healing.keep(frozenset({7, token - 1, token}), token - 10.0)
        most = max(most, remembered(healing))
    assert most <= 4 * 1011
    assert 7 in healing._established


def test_what_was_heard_after_the_question_is_kept() -> None:
    healing = SubflowRetry()
    healing.on_event(event(EventName.ESTABLISHED, token=1), 1.0)
    healing.on_event(event(EventName.ESTABLISHED, token=2), 5.0)
    healing.keep(frozenset(), 3.0)
    assert set(healing._established) == {2}


def test_nothing_is_left_of_a_connection_that_ended() -> None:
    healing = SubflowRetry()
    died(healing, 10.0)
    healing.on_event(PathManagerEvent(EventName.CLOSED, 1), 11.0)
    assert remembered(healing) == 0
