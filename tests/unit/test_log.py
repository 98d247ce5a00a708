# SPDX-License-Identifier: GPL-2.0-or-later
"""Logging is made ready for who logs, and costs nobody else anything."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from nm_mptcp.log import LEVELS


@pytest.mark.parametrize("command", ["check", "explain", "status"])
def test_a_command_that_the_service_answers_does_not_load_logging(command: str) -> None:
    code = f"import sys; from nm_mptcp.cli import parser_of; parser_of(['{command}'], alone=True); print(*sys.modules)"
    assert "logging" not in alone(code).stdout.split()


def test_the_first_that_logs_has_the_level_that_was_chosen() -> None:
    code = "from nm_mptcp import log; log.choose('info'); log.logger('a').info('one'); log.logger('b').debug('two')"
    assert alone(code).stderr == "nm-mptcp: INFO: one\n"


def test_the_levels_are_those_of_logging() -> None:
    assert LEVELS["err"] == LEVELS["error"] == logging.ERROR
    assert LEVELS["warn"] == LEVELS["warning"] == logging.WARNING
    assert (LEVELS["info"], LEVELS["debug"]) == (logging.INFO, logging.DEBUG)
    assert LEVELS["trace"] < logging.DEBUG
    assert LEVELS["off"] > logging.CRITICAL


def alone(code: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
