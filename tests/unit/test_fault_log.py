# SPDX-License-Identifier: GPL-2.0-or-later
"""A fault is logged once, and again when it returns."""

from __future__ import annotations

import logging

import pytest

from nm_mptcp.fault_log import FaultLog


@pytest.fixture
def faults() -> FaultLog:
    return FaultLog(logging.getLogger("test"), "NetworkManager: ")


def test_a_fault_is_logged_once_and_again_after_it_was_cleared(
    faults: FaultLog, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        faults.report("device", "State is missing", "eth0")
    faults.report("device", "State is missing", "eth1")
    faults.clear("device", "eth0")
    faults.report("device", "State is missing", "eth0")
    faults.report("device", "State is missing", "eth1")
    assert caplog.messages == ["NetworkManager: State is missing"] * 3


def test_another_fault_of_the_same_subject_is_logged(faults: FaultLog, caplog: pytest.LogCaptureFixture) -> None:
    for message in ("one", "other", "one"):
        faults.report("device", message, "eth0")
    assert len(caplog.messages) == 2


def test_a_fault_with_another_message_each_time_does_not_fill_the_log(
    faults: FaultLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        faults.report("device", f"State is {number}", "eth0")
    assert len(caplog.messages) == 20


def test_all_faults_of_a_kind_are_cleared_except_some(faults: FaultLog, caplog: pytest.LogCaptureFixture) -> None:
    for about in "abc":
        faults.report("rule", "no", about)
    faults.report("route", "no", "a")
    faults.clear_except("rule", {"b"})
    caplog.clear()
    for about in "abc":
        faults.report("rule", "no", about)
    faults.report("route", "no", "a")
    assert len(caplog.messages) == 2


def test_the_number_of_faults_is_bounded(faults: FaultLog) -> None:
    for about in range(5000):
        faults.report("device", "broken", about)
    assert len(faults._logged) <= 1000
