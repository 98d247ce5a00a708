# SPDX-License-Identifier: GPL-2.0-or-later
"""Imports go one way, from the command line down to the nouns; ``docs/design.md`` shows the same table."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/nm_mptcp"

#: The floors of the house, from the ground; a file at the top of the package is a room of its own. What is on a floor may
#: import from the floors below it.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("text",),
    ("journal", "fault_log"),
    ("model",),
    ("nmsyntax", "dbus", "kernel"),
    ("config", "networkmanager"),
    ("policy",),
    ("engine",),
    ("report",),
    ("service",),
    ("watch", "checks"),
    ("cli",),
)

#: ``launch`` stands apart: it needs nothing of the rest, and only the command line needs it.
APART = "launch"

#: What the floors would allow and is not wanted: the two sources of facts know nothing of each other.
FORBIDDEN = frozenset({("networkmanager", "kernel")})

FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def may_import(package: str, other: str) -> bool:
    """Whether a module of one package may import from another."""
    if package == other or other == "text":
        return True
    if APART in (package, other):
        return package == "cli"
    return FLOOR[other] < FLOOR[package] and (package, other) not in FORBIDDEN


def package_of(file: Path) -> str:
    """The package that a source file belongs to; ``""`` for the root's own ``__init__``."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """The line and package of each import of ours in a file, also of those inside functions."""
    depth = len(file.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level == 0:
                words = (node.module or "").split(".")
                below = words[1:] if words[0] == "nm_mptcp" else None
            else:
                assert node.level <= depth, f"{file}:{node.lineno} leaves the package"
                below = (node.module or "").split(".") if node.level == depth else None
            if below is None:
                continue
            if below and below[0]:
                yield node.lineno, below[0]
            else:
                yield from ((node.lineno, each.name) for each in node.names if not each.name.startswith("__"))
        elif isinstance(node, ast.Import):
            for each in node.names:
                words = each.name.split(".")
                if words[0] == "nm_mptcp" and len(words) > 1:
                    yield node.lineno, words[1]


FILES = sorted(file for file in PACKAGE.rglob("*.py") if package_of(file))


def test_every_room_is_on_a_floor() -> None:
    assert {package_of(file) for file in FILES} == {*FLOOR, APART}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_it_imports_only_from_below(file: Path) -> None:
    package = package_of(file)
    upward = [f"line {line}: {name}" for line, name in imported(file) if not may_import(package, name)]
    assert not upward, f"{package} imports from its own floor or above, see FLOORS: {'; '.join(upward)}"


def test_the_design_shows_these_floors() -> None:
    text = (ROOT / "docs/design.md").read_text()
    rows = re.findall(r"^\| \d+ \| (.*?) \|", text, re.MULTILINE)
    assert tuple(tuple(re.findall(r"`(\w+)`", names)) for names in rows) == FLOORS
