# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import errno

from nm_mptcp.engine.subflow_retry import SubflowRetry
from nm_mptcp.kernel.path_manager_events import EventName, PathManagerEvent

A = "10.0.1.2"


def event(name: EventName, *, token: int = 1, error: int = 0, port: int = 4000) -> PathManagerEvent:
    return PathManagerEvent(name, token, local=A, local_port=port, remote="192.0.2.1", remote_port=80, error=error)


def failed(retry: SubflowRetry, now: float, *, token: int = 1, error: int = errno.ETIMEDOUT) -> None:
    retry.on_event(event(EventName.SUBFLOW_ESTABLISHED, token=token), now - 1)
    assert retry.on_event(event(EventName.SUBFLOW_CLOSED, token=token, error=error), now)


def test_a_failed_subflow_is_retried_after_a_second() -> None:
    retry = SubflowRetry()
    failed(retry, 10.0)
    assert retry.due(10.5) == frozenset()
    assert retry.next_due(10.5) == 11.0
    assert retry.due(11.0) == {A}


def test_delays_double_and_retries_are_limited() -> None:
    retry, now, waits = SubflowRetry(), 0.0, []
    failed(retry, now)
    while (due := retry.next_due(now)) is not None:
        waits.append(due - now)
        now = due
        retry.on_endpoint_readded(A, now)
    assert waits[:5] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert (len(waits), waits[-1]) == (12, 300.0)


def test_a_subflow_closed_without_an_error_is_not_retried() -> None:
    retry = SubflowRetry()
    retry.on_event(event(EventName.SUBFLOW_ESTABLISHED), 0.0)
    assert not retry.on_event(event(EventName.SUBFLOW_CLOSED), 1.0)
    assert retry.next_due(1.0) is None


def test_a_refused_join_is_not_retried() -> None:
    retry = SubflowRetry()
    assert not retry.on_event(event(EventName.SUBFLOW_CLOSED, error=errno.ECONNREFUSED), 1.0)
    retry.on_event(event(EventName.SUBFLOW_CLOSED, error=errno.ETIMEDOUT, port=4001), 2.0)
    assert retry.due(100.0) == frozenset()


def test_a_reset_join_is_retried_once() -> None:
    retry = SubflowRetry()
    assert retry.on_event(event(EventName.SUBFLOW_CLOSED, error=errno.ECONNRESET), 1.0)
    assert retry.due(2.0) == {A}
    retry.on_endpoint_readded(A, 2.0)
    assert not retry.on_event(event(EventName.SUBFLOW_CLOSED, error=errno.ECONNRESET, port=4001), 2.1)
    assert retry.due(100.0) == frozenset()


def test_a_reset_of_an_established_subflow_is_no_refusal() -> None:
    retry = SubflowRetry()
    failed(retry, 1.0, error=errno.ECONNRESET)
    assert retry.due(3.0) == {A}


def test_no_retry_after_the_connection_ended_or_has_its_subflow_again() -> None:
    retry = SubflowRetry()
    failed(retry, 1.0)
    retry.on_event(PathManagerEvent(EventName.CLOSED, 1), 1.5)
    assert retry.due(9.0) == frozenset()
    failed(retry, 10.0, token=2)
    retry.on_event(event(EventName.SUBFLOW_ESTABLISHED, token=2, port=4001), 10.5)
    assert retry.due(19.0) == frozenset()


def test_no_retry_after_the_endpoint_was_added_for_another_reason() -> None:
    retry = SubflowRetry()
    failed(retry, 1.0)
    retry.on_endpoint_added(A)
    assert retry.due(9.0) == frozenset()


def tracked(retry: SubflowRetry) -> int:
    return sum(map(len, (retry._established, retry._refusing, retry._resets, retry._last_event)))


def test_connections_that_ended_without_an_event_are_pruned() -> None:
    """The kernel drops events if its socket buffer is full; a busy server has millions of connections in a month."""
    retry = SubflowRetry()
    most = 0
    for token in range(20_000):
        retry.on_event(event(EventName.SUBFLOW_ESTABLISHED, token=token), float(token))
        retry.on_event(event(EventName.SUBFLOW_CLOSED, token=token, error=errno.ECONNREFUSED, port=4001), float(token))
        if retry.needs_pruning:
            retry.prune(frozenset({7, token - 1, token}), token - 10.0)
        most = max(most, tracked(retry))
    assert most <= 4 * 1011
    assert 7 in retry._established


def test_connections_with_an_event_after_the_dump_are_not_pruned() -> None:
    retry = SubflowRetry()
    retry.on_event(event(EventName.ESTABLISHED, token=1), 1.0)
    retry.on_event(event(EventName.ESTABLISHED, token=2), 5.0)
    retry.prune(frozenset(), 3.0)
    assert set(retry._established) == {2}


def test_nothing_is_kept_of_a_connection_that_ended() -> None:
    retry = SubflowRetry()
    failed(retry, 10.0)
    retry.on_event(PathManagerEvent(EventName.CLOSED, 1), 11.0)
    assert tracked(retry) == 0
