# SPDX-License-Identifier: GPL-2.0-or-later
"""Each check has a test that brings about its bad state on a real kernel, NetworkManager or systemd."""

from __future__ import annotations

import importlib

from nm_mptcp.checks import CHECKS
from tests.support.badstates import TESTS

MODULES = (
    "tests.kernel.test_checks",
    "tests.kernel.test_checks_conflicts",
    "tests.networkmanager.test_check",
    "tests.networkmanager.test_health",
    "tests.packages.test_remedies",
)


def test_each_check_has_a_test_that_brings_about_its_bad_state() -> None:
    for name in MODULES:
        importlib.import_module(name)
    assert [check.__qualname__ for check in CHECKS if check not in TESTS] == []
    assert [check.__qualname__ for check in TESTS if check not in CHECKS] == []
    assert all(test.rpartition(".")[0] in MODULES for tests in TESTS.values() for test in tests)
