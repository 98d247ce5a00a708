# SPDX-License-Identifier: GPL-2.0-or-later
"""Retries: only of tests that are marked with the reason why they may be late, printed and counted.

``@pytest.mark.may_be_late(reason="...")`` lets pytest-rerunfailures run the test again when it fails, until the third failure
in a run; more than three retries in a run, of whatever tests, fail the run. Where pytest-rerunfailures is not installed
(tests inside Debian machines), nothing is retried.
"""

from __future__ import annotations

import os

import pytest

MARK = "may_be_late"

#: How often a marked test may run, and how many retries of all tests a run may have.
ATTEMPTS, MOST = 3, 3

#: Seconds before a retry, for what keeps the machine busy to end; 5 where this variable does not say otherwise.
DELAY_VARIABLE = "NM_MPTCP_RETRY_DELAY"

_RETRIED = pytest.StashKey[list[pytest.TestReport]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{MARK}(reason): why a loaded machine may fail this test: it is retried, and counted"
    )
    if any(config.getoption(name, None) for name in ("reruns", "force_reruns")):
        raise pytest.UsageError(f"only tests marked with {MARK}(reason=...) are retried: no --reruns")
    config.stash[_RETRIED] = []
    config.pluginmanager.register(_Counter(config))


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("flaky"):
        raise pytest.UsageError(f"{item.nodeid}: use {MARK}(reason=...), which is counted, and not flaky")
    if marks := list(item.iter_markers(MARK)):
        if not all(_has_reason(mark) for mark in marks):
            raise pytest.UsageError(f"{item.nodeid}: {MARK} needs a reason, and nothing else: {MARK}(reason='...')")
        item.user_properties.append((MARK, marks[0].kwargs["reason"]))
        if item.config.pluginmanager.hasplugin("rerunfailures"):
            delay = float(os.environ.get(DELAY_VARIABLE, "5"))
            item.add_marker(pytest.mark.flaky(reruns=ATTEMPTS - 1, reruns_delay=delay))


def _has_reason(mark: pytest.Mark) -> bool:
    reason = mark.kwargs.get("reason")
    return isinstance(reason, str) and bool(reason.strip()) and len(mark.args) + len(mark.kwargs) == 1


def attempts(item: pytest.Item) -> int:
    """How often this test may run."""
    return ATTEMPTS if item.get_closest_marker(MARK) else 1


def retried(config: pytest.Config) -> list[pytest.TestReport]:
    """The failures so far after which a test was run again, in the run's main process."""
    return config.stash[_RETRIED]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and len(retried(session.config)) > MOST:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = retried(config)
    if not reports:
        return
    terminalreporter.section("retries")
    for report in reports:
        # What was raised, in its first line.
        error = next((line[1:].strip() for line in report.longreprtext.splitlines() if line.startswith("E ")), "")
        terminalreporter.write_line(f"{report.nodeid}: may be late: {dict(report.user_properties)[MARK]}")
        terminalreporter.write_line(f"    {error}")
    verdict = f"more than {MOST}: the run has failed" if len(reports) > MOST else f"at most {MOST} in a run"
    terminalreporter.write_line(f"{len(reports)} retries ({verdict})", red=len(reports) > MOST)


class _Counter:
    """The reports of all workers pass through the main process."""

    def __init__(self, config: pytest.Config) -> None:
        self._retried = retried(config)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome == "rerun":  # type: ignore[comparison-overlap]  # as pytest-rerunfailures calls it
            self._retried.append(report)
