# SPDX-License-Identifier: GPL-2.0-or-later
"""Output that cannot be written, and streams that are closed: one line at most, and never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import COMMAND

#: Commands that print something, whatever machine they run on.
PRINTS = [
    ["--help"],
    ["--version"],
    ["config"],
    ["config", "--json"],
    ["mode"],
    ["mode", "--json"],
    # Elsewhere it also says that it is missing.
    *([["exec", "--dry-run", "--", "true"]] if shutil.which("mptcpize") else []),
    ["exec", "--json", "--", "true"],
]


def shell(line: str, *words: str, unbuffered: bool) -> subprocess.CompletedProcess[str]:
    """``line`` as a shell has it, in which "$@" is the command with these words."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    program = [COMMAND[0], *(["-u"] if unbuffered else []), *COMMAND[1:]]
    return subprocess.run(
        ["sh", "-c", line, "sh", *program, *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=environment,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
@pytest.mark.parametrize("unbuffered", [False, True], ids=["at the end", "at once"])
@pytest.mark.parametrize("words", PRINTS, ids=" ".join)
def test_a_full_disk_is_told_in_one_line(words: list[str], unbuffered: bool) -> None:
    done = shell('"$@" >/dev/full', *words, unbuffered=unbuffered)
    if unbuffered and words[0].startswith("--"):
        return  # argparse keeps that to itself
    assert (done.returncode, done.stderr) == (1, "nm-mptcp: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize("words", PRINTS, ids=" ".join)
def test_a_reader_that_has_enough_is_no_error(words: list[str]) -> None:
    done = shell('"$@" | true', *words, unbuffered=False)
    assert done.stderr == ""


@pytest.mark.parametrize("words", PRINTS, ids=" ".join)
def test_a_closed_output_is_no_error(words: list[str]) -> None:
    done = shell('"$@" >&-', *words, unbuffered=False)
    assert done.stderr == ""
    assert done.returncode in (0, 1 if words[0] == "exec" else 0)


def test_what_goes_wrong_is_not_told_in_the_output() -> None:
    for line in ('"$@" 2>&-', '"$@" 2>/dev/full'):
        done = shell(line, "config", "--json", "--check", "/no/such/file", unbuffered=False)
        assert (done.returncode, done.stdout[:1], "nm-mptcp:" in done.stdout) == (1, "{", False)
        assert shell(line, "exec", "--", "/no/such/program", unbuffered=False).returncode == 127
        assert shell(line, "no-such-command", unbuffered=False).returncode == 2


def test_a_terminal_that_has_not_all_of_unicode_shows_the_rest_of_a_name() -> None:
    shown = {"what": "Caf\u00e9 \u5bb6", "kind": "profile", "paths": [], "facts": []}
    code = (
        "import sys; from nm_mptcp import cli; from nm_mptcp.service import remote;"
        f" remote.explain = lambda _: {shown!a}; sys.exit(cli.main(['explain', 'x']))"
    )
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"Caf\xe9 ?: no path\n", b"")


def test_a_program_finds_its_streams_closed_as_they_were() -> None:
    for number in (0, 1, 2):
        line = f'"$@" {number}>&- ; echo status $? >&{1 if number != 1 else 2}'
        done = shell(line, "exec", "--quiet", "--", "sh", "-c", f"test ! -e /proc/self/fd/{number}", unbuffered=False)
        assert "status 0" in done.stdout + done.stderr, number
