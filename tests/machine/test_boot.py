# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that boots with the package: its own kernel, udev and boot, where a container has none of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..packages import test_boot
from ..packages.built import deb
from ..packages.system import System
from .booted import Booted
from .conftest import DISTRIBUTIONS
from .image import image, reason_to_skip
from .machine import Machine


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    """A machine that had the package and two profiles before it booted."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with Machine(image(request.param), systemd=True, before=test_boot.preparation(), files=[deb()]) as machine:
        booted = Booted(machine)
        booted.run("systemctl is-system-running --wait || true")
        yield booted


@pytest.mark.parametrize("unit", test_boot.ONLINE)
def test_paths_are_there_when_the_network_is_called_online(system: System, unit: str) -> None:
    test_boot.test_paths_are_there_when_the_network_is_called_online(system, unit)


def test_the_boot_does_not_wait_for_the_service(system: System) -> None:
    """Prints what waited for what."""
    test_boot.test_the_boot_does_not_wait_for_the_service(system)


def test_nothing_failed_or_was_tried_twice(system: System) -> None:
    test_boot.test_nothing_failed_or_was_tried_twice(system)
