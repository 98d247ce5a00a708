# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of versions in docs/testing.md: what each run of the tests saw, written by the runs themselves.

``tests/versions.py seen``, with any Python 3, prints what there is where it runs, in JSON. A run that passed keeps it in
``.cache/versions`` (``tests/conftest.py``); ``make versions`` brings that into the table, row by row.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".cache" / "versions"

#: What each row tells. The first two say which row it is, so that a later run replaces it.
COLUMNS = ("run", "distribution", "kernel", "NetworkManager", "Python", "D-Bus library", "pyroute2")
KEY = COLUMNS[:2]

_BEGIN = "<!-- made by `make versions` -->\n"
_END = "<!-- end -->\n"

#: The options of pytest that leave tests out, by the names it gives them. (`-m` is part of what some targets are.)
_SELECTING = ("keyword", "lf", "deselect", "ignore", "ignore_glob", "stepwise", "collectonly")

Row = dict[str, str]


def seen() -> Row:
    """What there is here; "-" for what is not there."""
    libraries = (f"{name} {found}" for name in ("dbus-fast", "dbus-next") if (found := _installed(name)) != "-")
    return {
        "distribution": _distribution(),
        "kernel": _kernel(),
        "NetworkManager": _networkmanager(),
        "Python": platform.python_version(),
        "D-Bus library": next(libraries, "-"),
        "pyroute2": _installed("pyroute2"),
    }


def is_whole(arguments: Iterable[str], options: Mapping[str, object]) -> bool:
    """Whether a run of pytest with these is one of all tests of its files, and not of some of them or of what failed before."""
    return not any(options.get(name) for name in _SELECTING) and not any("::" in each for each in arguments)


def keep(run: str, row: Row) -> None:
    """Keep what a run saw until ``make versions``; ``run`` is the command that a person would type."""
    KEPT.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", f"{run} {row['distribution']}".lower())
    (KEPT / f"{name}.json").write_text(json.dumps({"run": run, **row}) + "\n")


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown, in order."""
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    lines += sorted(tuple(row[column] for column in COLUMNS) for row in rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def read(readme: str) -> tuple[str, list[Row], str]:
    """What is before the table, its rows, and what is after it; ValueError where there is none."""
    before, begin, rest = readme.partition(_BEGIN)
    text, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"there is no table between {_BEGIN.strip()} and {_END.strip()}")
    cells = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    return before + begin, [dict(zip(COLUMNS, row, strict=True)) for row in cells], end + after


def write(readme: Path) -> int:
    """Bring what was kept into the table; how many rows were."""
    before, rows, after = read(readme.read_text())
    known = {tuple(row[column] for column in KEY): row for row in rows}
    new = [json.loads(file.read_text()) for file in sorted(KEPT.glob("*.json"))]
    known |= {tuple(row[column] for column in KEY): row for row in new}
    readme.write_text(before + table(known.values()) + after)
    return len(new)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def _distribution() -> str:
    try:
        words = platform.freedesktop_os_release()
    except OSError:
        return platform.system()
    return words["PRETTY_NAME"].replace(" GNU/Linux", "")


def _kernel() -> str:
    # Debian's release is that of the interface for modules, which stays the same for years.
    debian = re.search(r"Debian (\S+)", platform.version())
    return f"{debian[1]} (Debian)" if debian else platform.release().partition("-")[0]


def _networkmanager() -> str:
    for program in ("NetworkManager", "/usr/sbin/NetworkManager"):
        try:
            return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            continue
    return "-"


if __name__ == "__main__":
    if sys.argv[1:] == ["seen"]:
        print(json.dumps(seen()))
    else:
        print(f"docs/testing.md: {write(ROOT / 'docs/testing.md')} rows from {KEPT.relative_to(ROOT)}")
