# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for all tests: limits of time, retries, and what a whole run saw.

A run that ``NM_MPTCP_RUN`` names is kept for the table of versions when all its tests passed, without a retry.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING

import hypothesis
import pytest

from . import versions
from .support import deadline, retries

if TYPE_CHECKING:
    import pluggy

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("nm-mptcp", deadline=None)
hypothesis.settings.load_profile("nm-mptcp")

ELSEWHERE = pytest.StashKey[list[versions.Row]]()


def pytest_configure(config: pytest.Config) -> None:
    for plugin in (retries, deadline):
        config.pluginmanager.register(plugin)


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
        and not retries.retried(session.config)
        and versions.is_whole(session.config.args, vars(session.config.option))
    ):
        for row in session.config.stash.get(ELSEWHERE, None) or [versions.seen()]:
            versions.keep(run, row)


@pytest.hookimpl(hookwrapper=True)  # pluggy of Debian 12 knows no other wrapper
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    """The report of a failed test tells of what it used that has a story to tell: a bed, a system."""
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for used in getattr(item, "funcargs", {}).values():
            if story := getattr(used, "story", None):
                report.sections += story().items()
