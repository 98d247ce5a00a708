# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel side on other kernels: our own kernel tests, inside a machine."""

from __future__ import annotations

import pytest

from .machine import Machine
from .suite import run_tests


def test_the_kernel_tests_pass_on_this_kernel(machine: Machine) -> None:
    run_tests(machine, "tests/kernel", seconds=1200)


def test_the_kernel_did_not_complain(machine: Machine) -> None:
    """Runs after the others of its module, in whose course the kernel may have."""
    if complaints := machine.complaints():
        pytest.fail(f"the kernel {machine.kernel} said:\n" + "\n".join(complaints), pytrace=False)
