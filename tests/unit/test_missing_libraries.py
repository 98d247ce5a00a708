# SPDX-License-Identifier: GPL-2.0-or-later
"""A library that is not there is told in one line, with what to install."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from nm_mptcp.cli import apply, main
from tests.support.command import COMMAND

COMMANDS = [["apply", "--dry-run"], ["watch", "--json"], ["mode"], ["daemon"]]


def run(words: list[str], tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, on a machine without a bus."""
    return subprocess.run(
        [*COMMAND, "--state-dir", str(tmp_path), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/no-bus"} | environment,
    )


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_bus_library_that_is_missing(words: list[str], tmp_path: Path) -> None:
    done = run(words, tmp_path, NM_MPTCP_DBUS="jeepney")
    expected = "nm-mptcp: NM_MPTCP_DBUS is 'jeepney': it may be 'fast' (dbus-fast) or 'next' (dbus-next)\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_pyroute2_that_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(_: object) -> int:
        raise ModuleNotFoundError("No module named 'pyroute2'", name="pyroute2")

    monkeypatch.setattr(apply, "main", missing)
    assert main(["apply"]) == 1
    assert capsys.readouterr().err == "nm-mptcp: no pyroute2: install python3-pyroute2\n"


def test_what_is_wrong_with_nm_mptcp_itself_is_seen_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise ImportError("cannot import name 'plan'", name="nm_mptcp.policy.plan")

    monkeypatch.setattr(apply, "main", broken)
    with pytest.raises(ImportError, match="plan"):
        main(["apply"])
