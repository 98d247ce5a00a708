# SPDX-License-Identifier: GPL-2.0-or-later
"""What a whole run of tests saw is kept for the README's table of versions, where ``NM_MPTCP_RUN`` names the run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from . import versions

ELSEWHERE = pytest.StashKey[list[versions.Row]]()


def saw(config: pytest.Config, row: versions.Row) -> None:
    """What there is in a system of their own that tests ran in: those are the rows then, and not this system."""
    config.stash.setdefault(ELSEWHERE, []).append(row)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    run = os.environ.get("NM_MPTCP_RUN")
    # A worker of pytest-xdist is not the run.
    if (
        run
        and exitstatus == pytest.ExitCode.OK
        and not hasattr(session.config, "workerinput")
        and versions.is_whole(session.config.args, vars(session.config.option))
    ):
        for row in session.config.stash.get(ELSEWHERE, None) or [versions.seen()]:
            versions.keep(run, row)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[pytest.TestReport]:
    """The report of a failed test tells of what it used that has a story to tell: a bed, a system."""
    report: pytest.TestReport = yield
    if report.when == "call" and report.failed:
        for used in getattr(item, "funcargs", {}).values():
            if story := getattr(used, "story", None):
                report.sections += story().items()
    return report
