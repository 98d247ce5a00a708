# SPDX-License-Identifier: GPL-2.0-or-later
"""The linters, run as tests: what they find is the failure's text."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from . import versions

ROOT = Path(__file__).parents[1]

SHELL_SCRIPTS = [
    ".ci/run",
    "dispatcher.d/10-nm-mptcp",
    "packaging/completions/nm-mptcp.bash",
    "packaging/debian/nm-mptcp.postinst",
    "packaging/debian/nm-mptcp.postrm",
    "packaging/debian/nm-mptcp.prerm",
    "packaging/debian/tests/networkmanager",
    "packaging/debian/tests/unit",
    "tests/machine/guest/customize",
    "tests/machine/guest/init",
    "tests/support/root.sh",
    "tools/deps",
    "tools/package",
    "tools/python",
    "tools/venv",
]

PYTHON = ["src", "tests", "tools/dist"]


def check(*command: str) -> None:
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        pytest.fail(f"{' '.join(command)}\n{result.stdout}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    check(sys.executable, "-m", "ruff", "check", *PYTHON)


def test_the_code_is_in_form() -> None:
    check(sys.executable, "-m", "ruff", "format", "--check", "--diff", *PYTHON)


def test_the_types_are_right() -> None:
    check(sys.executable, "-m", "mypy", "--strict")


@pytest.mark.parametrize("script", SHELL_SCRIPTS)
def test_shellcheck_finds_nothing(script: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    check("shellcheck", *(["--shell=bash"] if script.endswith(".bash") else []), script)


def test_every_file_of_code_names_its_licence() -> None:
    files = [
        ROOT / "Makefile",
        ROOT / "tools/dist",
        *(ROOT / "packaging/completions").iterdir(),
        *(ROOT / script for script in SHELL_SCRIPTS),
    ]
    files += [path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")]
    identifier = "SPDX-License-Identifier: GPL-2.0-or-later"
    bare = [
        str(path.relative_to(ROOT))
        for path in files
        if path.stat().st_size and identifier not in "".join(path.read_text().splitlines(keepends=True)[:3])
    ]
    assert bare == []


def test_whatever_waits_in_a_test_gives_up_one_day() -> None:
    """A loop that sleeps has a limit of time within its function, or the stories of its file have one (``run``); or it is a
    thread's, which goes on until it is told to end.
    """
    endless = [
        f"{path.relative_to(ROOT)}:{loop.lineno}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if not {"guest", "bench"}
        & set(path.parts)  # programs that live as long as their machine, or as they are asked to
        for loop, bounds in _loops(ast.parse(path.read_text()), ())
        if "sleep" in _called(loop)
        and not bounds & {"monotonic", "time", "timeout"}
        and not re.search(r"ended|stop|wake", ast.unparse(loop.test))
    ]
    assert endless == []


def _loops(node: ast.AST, bounds: Iterable[str]) -> Iterator[tuple[ast.While, set[str]]]:
    """Every ``while``, and what is called in the functions around it."""
    if isinstance(node, ast.Module):
        stories = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "run"]
        bounds = {name for each in stories for name in _called(each)}
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        bounds = {*bounds, *_called(node)}
    elif isinstance(node, ast.While):
        yield node, set(bounds)
    for child in ast.iter_child_nodes(node):
        yield from _loops(child, bounds)


def _called(node: ast.AST) -> set[str]:
    calls = [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]
    return {each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in calls}


def test_the_table_of_versions_is_as_the_runs_of_the_tests_have_written_it() -> None:
    page = (ROOT / "docs/testing.md").read_text()
    before, rows, after = versions.read(page)
    assert rows
    assert before + versions.table(rows) + after == page, "no line of it is written by hand: make versions"
    assert len({tuple(row[column] for column in versions.KEY) for row in rows}) == len(rows)
    for row in rows:
        assert row["run"].startswith("make test"), row
        # What runs here has no library missing, and says so in numbers.
        for name in ("kernel", "NetworkManager", "Python", "D-Bus library", "pyroute2"):
            assert re.search(r"\d+\.\d+", row[name]), (name, row)
