# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that boots with the package: its own kernel, udev and boot, where a container has none of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from ..bench.boot import active_after
from ..conftest import saw
from ..packages import test_boot
from ..packages.built import deb
from .booted import Booted
from .conftest import DISTRIBUTIONS, measured
from .figures import Figures
from .image import image, reason_to_skip
from .machine import ROOT, Machine


@contextlib.contextmanager
def booted(distribution: str, *, package: bool = True) -> Iterator[Booted]:
    """A machine that had two profiles, and the package, before it booted."""
    before, files = test_boot.preparation(package=package), [deb(), ROOT / "tests/versions.py"]
    with Machine(image(distribution), systemd=True, before=before, files=files) as machine:
        system = Booted(machine)
        system.run("systemctl is-system-running --wait || true")
        yield system


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def system(request: pytest.FixtureRequest) -> Iterator[Booted]:
    """One with the package."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with booted(request.param) as system:
        yield system


@pytest.mark.parametrize("unit", test_boot.ONLINE)
def test_paths_are_there_when_the_network_is_called_online(system: Booted, unit: str) -> None:
    test_boot.test_paths_are_there_when_the_network_is_called_online(system, unit)


def test_the_boot_does_not_wait_for_the_service(system: Booted, request: pytest.FixtureRequest) -> None:
    """Prints what waited for what; tells how long a boot with the package took, and one without."""
    test_boot.test_the_boot_does_not_wait_for_the_service(system)
    seen = json.loads(system.run("python3 /root/versions.py seen"))
    saw(request.config, seen)
    figures = Figures(seen)
    measured(request.config, figures)
    with_ = active_after(system)
    with booted(system.distribution, package=False) as alone:
        without = active_after(alone)
    for unit in (unit for unit in with_ if unit in without):
        figures.tell(
            f"boot: {unit} active after, without and with the package",
            f"{without[unit] / 1000:.1f} s, {with_[unit] / 1000:.1f} s",
        )


def test_nothing_failed_or_was_tried_twice(system: Booted) -> None:
    test_boot.test_nothing_failed_or_was_tried_twice(system)
