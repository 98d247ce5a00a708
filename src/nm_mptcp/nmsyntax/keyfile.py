# SPDX-License-Identifier: GPL-2.0-or-later
"""Key files (``[section]``, ``key=value``) as GLib and NetworkManager parse them, and the order of several files.

A file in a later directory hides the file of the same name in an earlier one, so an empty file, or a link to ``/dev/null``,
masks it (NetworkManager: ``nm-config.c``, ``read_config`` and ``_get_config_dir_files``).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..text import printable

#: Longest file that is read, in bytes: a wrong file must not fill the memory.
LIMIT = 1 << 20

_TRUE = ("yes", "on", "true", "1")
_FALSE = ("no", "off", "false", "0")
_ESCAPES = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_HEADER = re.compile(r"\[([^]]+)\][ \t]*")

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class ConfigPaths:
    """Where a program's configuration is: its main file, and the directories of drop-ins."""

    main: Path
    system: Path
    run: Path
    etc: Path

    def under(self, root: Path) -> Self:
        """The same paths under another root."""
        return type(self)(*(root / str(each).lstrip("/") for each in (self.main, self.system, self.run, self.etc)))

    def in_order(self) -> Iterator[Path]:
        """The files that are not hidden, lowest priority first."""
        system, run, etc = (_snippets(directory) for directory in (self.system, self.run, self.etc))
        if self.run in (self.system, self.etc):
            run = {}
        yield from (path for name, path in system.items() if name not in run and name not in etc)
        yield from (path for name, path in run.items() if name not in etc)
        yield self.main
        yield from etc.values()

    def signature(self) -> tuple[tuple[str, int, int, int], ...]:
        """Names, modification times (ns), sizes and inodes of the files: differs when any of them changed."""
        return tuple(_stamp(path) for path in self.in_order())


@dataclass(frozen=True, slots=True)
class Line:
    """A line: a section header (no ``key``), ``key=value``, or what is neither (``problem``)."""

    number: int
    section: str = ""
    key: str = ""
    value: str = ""
    problem: str = ""


def contents(path: Path) -> bytes:
    """All of a file; never blocks, whatever kind of file it is.

    Raises :class:`OSError`, and :class:`ValueError` (with the path) for what is not a file or too long. ``/dev/null`` is empty.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev:
                return b""
            kind = next((words for test, words in _KINDS if test(status.st_mode)), "something else")
            raise ValueError(f"{path}: is {kind}, not a file")
        with open(handle, "rb", closefd=False) as file:
            data = file.read(LIMIT + 1)
    finally:
        os.close(handle)
    if len(data) > LIMIT:
        raise ValueError(f"{path}: is longer than {LIMIT >> 20} MiB: not a configuration file")
    return data


def lines(text: str) -> Iterator[Line]:
    """The lines of a key file, without comments and empty lines (GLib: ``g_key_file_parse_line``)."""
    section: str | None = None
    for number, line in enumerate(text.split("\n"), 1):
        line = line.lstrip(" \t\r\f\v").removesuffix("\r")
        if not line or line.startswith("#"):
            continue
        if header := _HEADER.fullmatch(line):
            section = header[1]
            yield Line(number, section)
            continue
        key, equals, value = line.partition("=")
        key = key.rstrip()
        if line.startswith("[") and not equals:
            section = ""  # the lines that follow belong to no known section
            yield Line(number, problem=f"'{printable(line)}' is not a section header")
        elif not equals or not key:
            yield Line(number, section or "", problem=f"'{printable(line)}' is neither 'key=value' nor a comment")
        elif section is None:
            yield Line(number, problem=f"'{printable(key)}' is before the first section header")
        else:
            yield Line(number, section, key, value.lstrip())


def parse(text: str, name: str) -> dict[str, dict[str, str]]:
    """A key file's sections, in order, each key with its last value (``GKeyFile``).

    Raises :class:`ValueError` with file and line.
    """
    sections: dict[str, dict[str, str]] = {}
    for line in lines(text):
        if line.problem:
            raise ValueError(f"{name}, line {line.number}: {line.problem}")
        section = sections.setdefault(line.section, {})
        if line.key:
            section[line.key] = line.value
    return sections


def unescape(value: str) -> str:
    """A value as ``g_key_file_get_string`` returns it; an unknown escape stays as written."""
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), value)


def boolean(value: str) -> bool | None:
    """A boolean as NetworkManager parses it; None where it is not one."""
    word = value.strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None


def _snippets(directory: Path) -> dict[str, Path]:
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".conf"))
    except OSError:
        return {}
    return {name: directory / name for name in names}


def _stamp(path: Path) -> tuple[str, int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (str(path), 0, 0, 0)
    return (str(path), status.st_mtime_ns, status.st_size, status.st_ino)
