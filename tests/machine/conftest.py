# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines to run tests in, one at a time. Which: ``NM_MPTCP_MACHINES``, Debian's code names (bookworm trixie)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from . import figures
from .image import image, reason_to_skip
from .machine import Machine

MEASURED = pytest.StashKey[list[figures.Figures]]()

DISTRIBUTIONS = os.environ.get("NM_MPTCP_MACHINES", "bookworm trixie").split()


@pytest.fixture(scope="session", params=DISTRIBUTIONS)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A booted machine without systemd, this tree in /nm-mptcp; used by all tests of its distribution."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with Machine(image(request.param)) as machine:
        machine.put_tree()
        yield machine


def measured(config: pytest.Config, told: figures.Figures) -> None:
    """Figures that are kept when the run has passed; they may still become more."""
    config.stash.setdefault(MEASURED, []).append(told)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # Without the long stories a run measures half of it, and half replaces no whole.
    if os.environ.get("NM_MPTCP_RUN") == "make test-machine" and exitstatus == pytest.ExitCode.OK:
        kept: list[figures.Figures] = session.config.stash.get(MEASURED, [])
        figures.write(kept)
