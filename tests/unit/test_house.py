# SPDX-License-Identifier: GPL-2.0-or-later
"""The house stays one to live in: nothing too long, nothing twice, no name that only its author understands."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src/nm_mptcp"
FILES = sorted(PACKAGE.rglob("*.py"))

LONGEST_CLASS, LONGEST_FUNCTION, LONGEST_REPETITION = 310, 50, 10

#: Longer than that, and why it is one subject.
ONE_SUBJECT = {
    "kernel/fib.py:FIB": "one cache with one invariant: it equals a dump, whatever the order of events; fuzzed as a whole",
}

#: Names of earlier releases that said nothing to a reader, and what they are called now.
FORMER = {
    "wilted": "subflow_retry_due",
    "unseated": "close_initial_subflows",
    "severed": "close_redundant",
    "Severance": "RedundantSubflows",
    "SEVER": "CLOSE_REDUNDANT",
    "Cut": "LeakingSubflows",
    "Departure": "Egress",
    "Written": "SavedSetting",
    "Sides": "TunnelBypass",
    "Mirror": "FIB",
    "awoke": "on_resume",
    "happened": "on_path_manager_event",
    "moot": "not_applicable",
    "DOORS": "ENVIRONMENT_BOUNDARIES",
    "_be_let_in": "_authenticate",
    "plainbus": "service.remote",
}


def name(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def lengths(file: Path) -> Iterator[tuple[str, int, int]]:
    """Each class and function of a file: its name, its lines, and how many it may have."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            most = LONGEST_CLASS if isinstance(node, ast.ClassDef) else LONGEST_FUNCTION
            yield f"{name(file)}:{node.name}", (node.end_lineno or 0) - node.lineno + 1, most


@pytest.mark.parametrize("file", FILES, ids=name)
def test_nothing_is_longer_than_a_reader_can_hold(file: Path) -> None:
    long = [f"{what}: {lines} lines" for what, lines, most in lengths(file) if lines > most and what not in ONE_SUBJECT]
    assert not long


def test_what_may_be_longer_is() -> None:
    long = {what for file in FILES for what, lines, most in lengths(file) if lines > most}
    assert ONE_SUBJECT.keys() == long & ONE_SUBJECT.keys()


def test_no_ten_lines_stand_twice() -> None:
    """Blank lines, comments, imports and lone brackets do not count."""
    places: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for file in FILES:
        code = [
            (number, stripped)
            for number, line in enumerate(file.read_text().splitlines(), 1)
            if len(stripped := line.strip()) > 2 and not stripped.startswith(("#", "from ", "import "))
        ]
        for start in range(len(code) - LONGEST_REPETITION + 1):
            run = code[start : start + LONGEST_REPETITION]
            places[tuple(line for _, line in run)].append(f"{name(file)}:{run[0][0]}")
    assert not [where for where in places.values() if len(where) > 1]


@pytest.mark.parametrize("file", FILES, ids=name)
def test_no_former_name_is_left(file: Path) -> None:
    tokens = tokenize.generate_tokens(io.StringIO(file.read_text()).readline)
    left = {
        f"line {each.start[0]}: {each.string}"
        for each in tokens
        if each.type == tokenize.NAME and each.string in FORMER
    }
    assert not left


#: What reads the wall clock, and for what: no decision depends on it, so a clock that jumps changes none.
WALL_CLOCK = {
    "checks/bug_report.py": "the time of the report",
    "checks/paths.py": "how long a path has waited, shown",
    "cli/watch.py": "the time of an event, and on the screen",
    "engine/event_log.py": "since when the VPN guard acts, shown",
    "engine/reconciler.py": "since when a path has its state, shown",
    "kernel/retransmissions.py": "the age of a directory of another process",
    "report/status.py": "the time of the document",
    "report/status_text.py": "how long ago, shown",
    "service/path_objects.py": "the time of the document",
    "watch/observer.py": "the time of an event",
}


def test_nothing_is_decided_by_the_wall_clock() -> None:
    reading = ("time.time()", "datetime.now", "time.localtime", "CLOCK_REALTIME")
    found = {str(file.relative_to(PACKAGE)) for file in FILES if any(word in file.read_text() for word in reading)}
    assert found == set(WALL_CLOCK)
