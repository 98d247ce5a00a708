# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads and merges the configuration files, and reports errors with file, line, section, key, and what is allowed.

An error never stops the service: :meth:`ConfigurationFiles.read` ignores the line and reports it. With a ``match-`` line it
ignores the whole section of that file, which would otherwise apply to paths that are not meant.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..model.flags import ProfileFlag
from ..nmsyntax.keyfile import ConfigPaths, Line, contents, lines
from ..text import listed, printable
from .keys import KEYS, PATH, keys_of
from .selector import Selector
from .settings import Config, Origin, PathSection, RoutingOptions, Setting

#: Where our configuration is.
PATHS = ConfigPaths(
    main=Path("/etc/nm-mptcp/nm-mptcp.conf"),
    system=Path("/usr/lib/nm-mptcp/conf.d"),
    run=Path("/run/nm-mptcp/conf.d"),
    etc=Path("/etc/nm-mptcp/conf.d"),
)

_MATCH = "match-"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error in the configuration, and where; as text one line."""

    file: Path
    what: str
    line: int = 0  #: 0: the whole file
    section: str = ""
    key: str = ""
    value: str | None = None

    def __str__(self) -> str:
        file = name_of(self.file)
        where = f"{file}, line {self.line}:" if self.line else f"{file}:"
        section = f" [{printable(self.section)}]" if self.section else ""
        key = f" {printable(self.key)}" if self.key else ""
        value = f"={printable(self.value)}" if self.value is not None else ""
        said = section + key + value
        return f"{where}{said}{':' if said else ''} {printable(self.what, longest=None)}"


class ConfigError(Exception):
    """The configuration has errors; one line, with the first problem and the number of others."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        more = f" (and {len(problems) - 1} more: see 'nm-mptcp config --check')" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it is written, as it is parsed, and where it is."""

    text: str
    value: Any
    origin: Origin


#: Section -> key -> value.
_Sections = dict[str, dict[str, Given]]


@dataclass(frozen=True, slots=True)
class Reading:
    """The merged files, and what is wrong in them."""

    config: Config
    files: tuple[Path, ...] = ()  #: those that could be read, lowest priority first
    problems: tuple[Problem, ...] = ()
    #: the values by section and key; ``[path-*]`` sections highest priority first
    given: Mapping[str, Mapping[str, Given]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConfigurationFiles:
    """The files that are read: all in their order, or only ``file``."""

    file: Path | None = None
    paths: ConfigPaths = PATHS

    def read(self) -> Reading:
        """Read and merge what is valid, and report the rest. Never raises."""
        problems = [] if self.file else _unlistable(self.paths)
        paths = [self.file] if self.file else list(self.paths.in_order())
        merged: _Sections = {}
        used: list[Path] = []
        for path in paths:
            try:
                data = contents(path)
            except FileNotFoundError:
                # The main file is optional, and a drop-in may have been removed just now; a dangling link is an error.
                if path == self.file or path.is_symlink():
                    problems.append(Problem(path, "no such file"))
                continue
            except OSError as error:
                problems.append(Problem(path, f"cannot be read: {error.strerror}"))
                continue
            except ValueError as error:
                problems.append(Problem(path, str(error).removeprefix(f"{path}: ")))
                continue
            used.append(path)
            _merge(merged, _sections(path, data, problems))
        paths_first = [name for name in reversed(merged) if name.startswith(PATH)]
        given = {name: merged[name] for name in ("main", "routing", *paths_first) if name in merged}
        return Reading(_config(given), tuple(used), tuple(problems), given)

    def load(self) -> Config:
        """The settings; raises :class:`ConfigError` if anything is wrong in the files."""
        reading = self.read()
        if reading.problems:
            raise ConfigError(reading.problems)
        return reading.config


def name_of(path: Path) -> str:
    """A file's name as printable text, whatever bytes it consists of."""
    return printable(str(path), longest=4096)


def _unlistable(files: ConfigPaths) -> list[Problem]:
    """Directories that exist, but cannot be listed."""
    problems = []
    for directory in (files.system, files.run, files.etc):
        try:
            os.listdir(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(Problem(directory, f"cannot be listed: {error.strerror}"))
    return problems


def _merge(merged: _Sections, sections: _Sections) -> None:
    """Add a file: it wins, key by key. In reverse, since all is reversed at the end (NetworkManager's order)."""
    for name in reversed(sections):
        merged.setdefault(name, {}).update(sections[name])


def _sections(path: Path, data: bytes, problems: list[Problem]) -> _Sections:
    """The valid lines of one file, by section."""
    if data.startswith(_BYTE_ORDER_MARK):
        problems.append(Problem(path, "begins with a byte order mark; must be UTF-8 without one", 1))
        data = data.removeprefix(_BYTE_ORDER_MARK)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        problems.append(Problem(path, "is not UTF-8: this file is ignored", number))
        return {}
    sections: _Sections = {}
    headers: dict[str, int] = {}
    distrusted: set[str] = set()
    for line in lines(text):
        section = sections.setdefault(line.section, {})
        what = _syntax_error(line)
        if not what and not line.key:
            what = _header_error(line, headers)
            headers.setdefault(line.section, line.number)
        if what:
            problems.append(Problem(path, what, line.number, line.section))
            distrusted.add(line.section)
        elif line.key and keys_of(line.section) is not None:
            _add_value(path, line, section, problems, distrusted)
    problems += _ports_without_signal(path, sections)
    # Without all of its match- lines a section would apply to other paths than are meant.
    out = {name for name in sections if keys_of(name) is None or (name.startswith(PATH) and name in distrusted)}
    return {name: keys for name, keys in sections.items() if name not in out}


def _syntax_error(line: Line) -> str:
    """Why a line cannot be parsed, "" when it can."""
    if line.problem:
        return line.problem
    for char in line.section + line.key + line.value:
        if unicodedata.category(char) == "Cc" and char != "\t":
            return f"has a control character (U+{ord(char):04X})"
    return ""


def _header_error(line: Line, before: Mapping[str, int]) -> str:
    """What is wrong with a section header, "" when nothing is."""
    if keys_of(line.section) is None:
        return f"unknown section; must be [main], [routing] or [{PATH}NAME]"
    if line.section in before:
        return f"duplicate section (first in line {before[line.section]})"
    return ""


def _add_value(
    path: Path, line: Line, section: dict[str, Given], problems: list[Problem], distrusted: set[str]
) -> None:
    """Add the value of a ``key=value`` line to its section, or report what is wrong with it."""
    known = keys_of(line.section) or {}
    value = line.value.rstrip()
    key = known.get(line.key)
    if key is None:
        what = f"unknown key; must be {listed(known, 'or')}"
    elif line.key in section:
        what = f"duplicate key (first in line {section[line.key].origin.line})"
    else:
        try:
            section[line.key] = Given(value, key.parse(value), Origin(name_of(path), line.number, line.section))
            return
        except ValueError as error:
            what = str(error)
    problems.append(Problem(path, what, line.number, line.section, line.key, value))
    if key is None or line.key.startswith(_MATCH):
        distrusted.add(line.section)


def _ports_without_signal(path: Path, sections: _Sections) -> Iterator[Problem]:
    """Remove ports that the kernel refuses: it accepts one only with ``signal`` and without ``subflow``."""
    for name, keys in sections.items():
        port = keys.get("signal-port")
        if port is None:
            continue
        flags = keys["flags"].value if "flags" in keys else ProfileFlag(0)
        if ProfileFlag.SIGNAL not in flags or ProfileFlag.SUBFLOW in flags:
            what = "needs flags with signal and without subflow, in the same section"
            yield Problem(path, what, port.origin.line, name, "signal-port", port.text)
            del keys["signal-port"]


def _config(given: Mapping[str, Mapping[str, Given]]) -> Config:
    """The settings from the values given."""

    def values(section: str) -> dict[str, Any]:
        return {_name(key): value.value for key, value in given.get(section, {}).items()}

    return Config(
        **values("main"),
        routing=RoutingOptions(**values("routing")),
        sections=tuple(_path_section(name, keys) for name, keys in given.items() if name.startswith(PATH)),
        origins={(section, key): value.origin for section in KEYS for key, value in given.get(section, {}).items()},
    )


def _path_section(name: str, keys: Mapping[str, Given]) -> PathSection:
    matches = {key.removeprefix(_MATCH): value.value for key, value in keys.items() if key.startswith(_MATCH)}
    settings = {
        _name(key): Setting(value.value, value.origin) for key, value in keys.items() if not key.startswith(_MATCH)
    }
    return PathSection(name, Selector(**matches), settings)


def _name(key: str) -> str:
    return key.replace("-", "_")
