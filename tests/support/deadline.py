# SPDX-License-Identifier: GPL-2.0-or-later
"""No test hangs a run.

pytest-timeout raises in a test that takes longer than ``timeout`` (pyproject.toml), so that its fixtures still clean up. It
bounds neither what runs after a failure nor code that does not let the exception through: for these the interpreter prints
its stacks and exits, and pytest-xdist reports the test by name. What a test bed runs ends with the interpreter
(PR_SET_PDEATHSIG, ``unshare --kill-child``).
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator

import pytest

from . import retries

#: Seconds for a test and its fixtures, where they boot systems or build them first; elsewhere ``timeout`` of pyproject.toml.
SECONDS = {"machine": 7200, "packages": 1800}

#: Seconds for the cleaning up of a test that was timed out; 60 where this variable does not say otherwise.
GRACE_VARIABLE = "NM_MPTCP_TEST_GRACE"

_STDERR = pytest.StashKey[int]()
_LIMIT = pytest.StashKey[float]()


def pytest_configure(config: pytest.Config) -> None:
    # While a test runs, pytest captures descriptor 2.
    config.stash[_STDERR] = os.dup(2)


def pytest_itemcollected(item: pytest.Item) -> None:
    seconds = SECONDS.get(item.path.parent.name)
    if seconds and not item.get_closest_marker("timeout"):
        item.add_marker(pytest.mark.timeout(seconds))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    marker = item.get_closest_marker("timeout")
    # pytest-timeout's option, when given, is for all tests without a mark.
    seconds = float(
        marker.args[0] if marker else item.config.getoption("timeout") or item.config.getini("timeout") or 0
    )
    grace = float(os.environ.get(GRACE_VARIABLE, "60"))
    item.stash[_LIMIT] = seconds * retries.attempts(item) + grace if seconds else 0.0
    _arm(item)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    # pytest's own faulthandler plugin disarms it at each failure.
    if isinstance(node, pytest.Item):
        _arm(node)


def _arm(item: pytest.Item) -> None:
    if seconds := item.stash.get(_LIMIT, 0.0):
        faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[_STDERR])
