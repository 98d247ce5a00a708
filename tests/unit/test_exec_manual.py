# SPDX-License-Identifier: GPL-2.0-or-later
"""nm-mptcp-exec(8) and nm-mptcp-json(5) have all that ``exec`` and ``unit`` know."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nm_mptcp.cli.exec import document
from nm_mptcp.launch import program
from nm_mptcp.launch.plan import ENVIRONMENT_BOUNDARIES, GROUP_BOUNDARIES, LaunchContext, ObstacleKind, plan_launch
from nm_mptcp.launch.programs import Form, Program
from nm_mptcp.launch.switch import DIRECTORY, MOST_GROUPS
from nm_mptcp.launch.units import FILE, SLICE_SERVICE, SOCKET_SINCE

from ..support import shown

PAGE = Path(__file__).parents[2] / "packaging/man/nm-mptcp-exec.8.scd"
TEXT = PAGE.read_text()
WORDS = {word.strip("_") for word in re.findall(r"[\w-]+", TEXT)}
JSON_WORDS = {
    command: {word.strip("_") for word in re.findall(r"[\w-]+", shown.sections("nm-mptcp-json(5)")[command])}
    for command in ("EXEC", "UNIT")
}


@pytest.mark.parametrize("command", ["exec", "unit"])
def test_every_option_is_documented(command: str) -> None:
    parser = argparse.ArgumentParser(prog=f"nm-mptcp {command}")
    importlib.import_module(f"nm_mptcp.cli.{command}").options(parser)
    help_text = parser.format_help()
    options = set(re.findall(r"--[a-z-]+", help_text)) - {"--help"}
    assert options
    assert options <= set(re.findall(r"--[a-z-]+", TEXT))


def test_every_name_in_the_documents_is_documented() -> None:
    context = LaunchContext(Program("/bin/x", Form.STATIC))
    names = document(context, plan_launch(context, ["x"]), ["x"])
    inner = [name for part in names.values() if isinstance(part, dict) for name in part]
    assert {*names, *inner, *(one.value for one in ObstacleKind), *(one.value for one in Form)} <= JSON_WORDS["EXEC"]
    source = (PAGE.parents[2] / "src/nm_mptcp/cli/unit.py").read_text()
    of_units = set(re.findall(r'^            "(\w+)":', source, re.MULTILINE))
    assert "in_force" in of_units
    assert of_units <= JSON_WORDS["UNIT"]


def test_facts_that_are_written_twice_are_the_same() -> None:
    assert f"version {SOCKET_SINCE}" in TEXT
    assert f"NAME.d/{FILE}" in TEXT
    assert ENVIRONMENT_BOUNDARIES.keys() | set(GROUP_BOUNDARIES) <= WORDS
    assert f"BPF program of {len(program.instructions(0)) // 8} instructions" in TEXT
    assert f"{MOST_GROUPS:,} groups" in TEXT
    assert f"_{DIRECTORY}_" in TEXT
    assert f"_{SLICE_SERVICE.format('system.slice')}_" in TEXT


def test_the_recipe_answers_nothing_for_what_is_not_meant() -> None:
    """Any other answer keeps the kernel from asking programs that others attached later."""
    recipe = TEXT[TEXT.index("SEC(") : TEXT.index("and then, with")]
    assert re.findall(r"return (\w+);", recipe) == ["262", "0"]


@pytest.mark.skipif(None in (shutil.which("man"), shutil.which("scdoc")), reason="man or scdoc is not installed")
def test_man_shows_the_page(tmp_path: Path) -> None:
    made = subprocess.run(["scdoc"], input=TEXT, capture_output=True, text=True, check=True)
    (tmp_path / "page.8").write_text(made.stdout)
    result = subprocess.run(
        ["man", "--warnings", "-l", tmp_path / "page.8"],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "MANWIDTH": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    assert "bpf_get_current_ancestor_cgroup_id(1) == SLICE" in result.stdout
    assert "__sys_socket()" in result.stdout
