# SPDX-License-Identifier: GPL-2.0-or-later
"""A missing library is reported in one line, with what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

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


class Without(PathFinder):
    """Finds modules as ever, but for those of one library."""

    def __init__(self, library: str) -> None:
        self._library = library

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:  # type: ignore[override]
        return None if name == self._library else PathFinder.find_spec(name, path, target)


def hide(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """As if a library were not installed, also where it is imported already."""
    for name in list(sys.modules):
        if name.partition(".")[0] == library:
            monkeypatch.delitem(sys.modules, name)
    finders = [finder for finder in sys.meta_path if finder is not PathFinder]
    monkeypatch.setattr(sys, "meta_path", [*finders, Without(library)])


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_bus_library_that_is_missing(words: list[str], tmp_path: Path) -> None:
    done = run(words, tmp_path, NM_MPTCP_DBUS="jeepney")
    expected = "nm-mptcp: NM_MPTCP_DBUS is 'jeepney': must be 'fast' (dbus-fast) or 'next' (dbus-next)\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_pyroute2_that_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(_: object) -> int:
        raise ModuleNotFoundError("No module named 'pyroute2'", name="pyroute2")

    monkeypatch.setattr(apply, "main", missing)
    assert main(["apply"]) == 1
    assert capsys.readouterr().err == "nm-mptcp: no pyroute2: install python3-pyroute2\n"


@pytest.mark.parametrize("words", [["exec", "--", "cat"], ["exec", "--dry-run", "cat"], ["exec", "--json", "cat"]])
def test_pyelftools_that_is_missing(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hide(monkeypatch, "elftools")
    assert main(words) == 1
    assert capfd.readouterr() == ("", "nm-mptcp: no pyelftools: install python3-pyelftools\n")


def test_help_needs_no_library(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    hide(monkeypatch, "elftools")
    for command in ("exec", "unit"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
    assert capsys.readouterr().err == ""


def test_what_is_wrong_with_nm_mptcp_itself_is_seen_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise ImportError("cannot import name 'plan'", name="nm_mptcp.policy.plan")

    monkeypatch.setattr(apply, "main", broken)
    with pytest.raises(ImportError, match="plan"):
        main(["apply"])
