# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel side on other kernels: our own kernel tests, inside a machine."""

from __future__ import annotations

import pytest

from .machine import Machine
from .suite import run_tests

#: They start many programs, which takes long in an emulated machine: of these only what tells most about a version.
PROGRAMS = ("test_exec", "test_units")
STORIES_OF_PROGRAMS = (
    "dynamic_program",
    "go_program",
    "old_go",
    "mptcp_is_off",
    "while_the_drop_in_is_there",
    "hardening",
    "listening_socket",
    "unix_socket",
)


def test_the_kernel_tests_pass_on_this_kernel(machine: Machine) -> None:
    elsewhere = (f"--ignore=tests/kernel/{name}.py" for name in PROGRAMS)
    run_tests(machine, "tests/kernel", *elsewhere, seconds=3000)


def test_programs_and_units_come_onto_mptcp(machine: Machine) -> None:
    """With the distribution's own systemd, mptcpize and Go."""
    stories = " or ".join(STORIES_OF_PROGRAMS)
    run_tests(machine, *(f"tests/kernel/{name}.py" for name in PROGRAMS), "-k", f"'{stories}'", seconds=1800)


def test_the_kernel_did_not_complain(machine: Machine) -> None:
    """Runs after the others of its module, in whose course the kernel may have."""
    if complaints := machine.complaints():
        pytest.fail(f"the kernel {machine.kernel} said:\n" + "\n".join(complaints), pytrace=False)
