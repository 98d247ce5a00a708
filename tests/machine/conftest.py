# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines to run tests in, one at a time. Which: ``NM_MPTCP_MACHINES``, Debian's code names (bookworm trixie)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .image import image, reason_to_skip
from .machine import Machine

DISTRIBUTIONS = os.environ.get("NM_MPTCP_MACHINES", "bookworm trixie").split()


@pytest.fixture(scope="session", params=DISTRIBUTIONS)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A booted machine without systemd, this tree in /nm-mptcp; used by all tests of its distribution."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with Machine(image(request.param)) as machine:
        machine.put_tree()
        yield machine
