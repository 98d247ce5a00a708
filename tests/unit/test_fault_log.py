# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong is said once, and again when it returns."""

from __future__ import annotations

import logging

import pytest

from nm_mptcp.fault_log import FaultLog


@pytest.fixture
def complaints() -> FaultLog:
    return FaultLog(logging.getLogger("test"), "NetworkManager: ")


def test_what_stays_wrong_is_said_once_and_what_comes_back_again(
    complaints: FaultLog, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        complaints.say("device", "State is missing", "eth0")
    complaints.say("device", "State is missing", "eth1")
    complaints.right("device", "eth0")
    complaints.say("device", "State is missing", "eth0")
    complaints.say("device", "State is missing", "eth1")
    assert caplog.messages == ["NetworkManager: State is missing"] * 3


def test_another_fault_of_the_same_thing_is_said(complaints: FaultLog, caplog: pytest.LogCaptureFixture) -> None:
    for words in ("one", "other", "one"):
        complaints.say("device", words, "eth0")
    assert len(caplog.messages) == 2


def test_what_is_wrong_in_another_way_each_time_does_not_fill_the_log(
    complaints: FaultLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        complaints.say("device", f"State is {number}", "eth0")
    assert len(caplog.messages) == 20


def test_all_of_a_kind_are_right_but_these(complaints: FaultLog, caplog: pytest.LogCaptureFixture) -> None:
    for about in "abc":
        complaints.say("rule", "no", about)
    complaints.say("route", "no", "a")
    complaints.only("rule", {"b"})
    caplog.clear()
    for about in "abc":
        complaints.say("rule", "no", about)
    complaints.say("route", "no", "a")
    assert len(caplog.messages) == 2


def test_it_does_not_grow_without_a_bound(complaints: FaultLog) -> None:
    for about in range(5000):
        complaints.say("device", "broken", about)
    assert len(complaints._said) <= 1000
