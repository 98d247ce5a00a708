# SPDX-License-Identifier: GPL-2.0-or-later
"""Our other test suites, run inside a machine."""

from __future__ import annotations

import pytest

from .machine import Machine

#: How many times longer a test waits for a state: an emulated machine is that much slower, and may have to share.
PATIENCE = 8


def run_tests(machine: Machine, *tests: str, seconds: float, environment: str = "") -> None:
    """Run these there with pytest and fail with what failed there; tells how many were run or skipped and why."""
    # An emulated machine takes longer for a test than any other; one that hangs is named before the whole is ended.
    # Where another program's time limit is part of a test, it is too slow.
    options = ("-q", "-rfs", "--tb=short", "-p", "no:cacheprovider", "-m", "'not may_be_late'")
    limit = f"--timeout={seconds / 2:g}"
    command = ("python3", "-m", "pytest", *options, limit, *tests)
    setting = f"NM_MPTCP_COMMAND=/nm-mptcp/command PYTHONPATH=src NM_MPTCP_PATIENCE={PATIENCE} {environment}"
    done = machine.shell(f"cd /nm-mptcp; export {setting}; exec {' '.join(command)}", seconds=seconds)
    print(f"{machine.image.distribution}, kernel {machine.kernel}:", done.output.rstrip().rpartition("\n")[2])
    if done.status != 0:
        how = "failed" if done.status is not None else f"not done after {seconds:g} s"
        told = done.output[-20_000:]
        pytest.fail(f"{how} in {machine.image.distribution} (kernel {machine.kernel}):\n{told}", pytrace=False)
