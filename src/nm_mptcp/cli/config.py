# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp config``: the merged configuration with the origin of each value, its errors, and reloading it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..config.files import ConfigurationFiles, Given, Reading, name_of
from ..config.keys import KEYS, PATH
from ..service import remote
from ..text import printable
from . import fail, refused


def options(parser: argparse.ArgumentParser) -> None:
    """``--check [FILE]``, ``--reload`` and ``--json``."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check",
        metavar="FILE",
        nargs="?",
        const="",
        help="only print errors, in FILE or in all files",
    )
    what.add_argument("--reload", action="store_true", help="make the service reload its configuration")
    parser.epilog = "Exit status: 0 no errors; 1 errors."
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def main(arguments: argparse.Namespace) -> int:
    """Without ``--reload`` from the files alone, for every user. Errors are lines on standard error."""
    if arguments.reload:
        return _reload()
    reading = ConfigurationFiles(Path(arguments.check) if arguments.check else None).read()
    if arguments.json:
        print(json.dumps(_document(reading), indent=2))
    elif arguments.check is None:
        print(_text(reading))
    for problem in reading.problems:
        print(f"nm-mptcp: {problem}", file=sys.stderr)
    return 1 if reading.problems else 0


def _reload() -> int:
    """By the service, which knows its files; with an error in them it keeps its configuration."""
    from ..dbus.connection import BusError

    try:
        if not remote.order("Reload"):
            return fail("the service is not running")
    except BusError as error:
        return refused(error)
    return 0


def _settings(reading: Reading) -> dict[str, dict[str, Given | str]]:
    """Section -> key -> what is given, else the default; sections for paths have no defaults."""
    merged: dict[str, dict[str, Given | str]] = {
        section: {key: reading.given.get(section, {}).get(key, known.default) for key, known in keys.items()}
        for section, keys in KEYS.items()
        if section != PATH
    }
    merged.update((section, dict(keys)) for section, keys in reading.given.items() if section not in merged)
    return merged


def _document(reading: Reading) -> dict[str, Any]:
    return {
        "files": [name_of(path) for path in reading.files],
        "sections": {
            section: {
                key: {"value": value, "file": None, "line": None}
                if isinstance(value, str)
                else {"value": value.text, "file": value.origin.file, "line": value.origin.line}
                for key, value in keys.items()
            }
            for section, keys in _settings(reading).items()
        },
        "problems": [str(problem) for problem in reading.problems],
    }


def _text(reading: Reading) -> str:
    """The sections in the files' own syntax, with the origin of each value; of those for paths the first match wins."""
    lines = [f"# {name_of(path)}" for path in reading.files] or ["# no file: defaults only"]
    for section, keys in _settings(reading).items():
        lines += ["", f"[{printable(section)}]"]
        for key, value in keys.items():
            written = value if isinstance(value, str) else printable(value.text, longest=1000)
            where = "default" if isinstance(value, str) else f"{value.origin.file}, line {value.origin.line}"
            lines.append(f"{f'{key}={written}':<32}  # {where}")
    return "\n".join(lines)
