# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the configuration is, reading and merging it, and what is no good in it: file, line, section, key, what is allowed.

What is not good never stops the service: :func:`read` leaves it out and tells of it. Left out is as little as possible -
a line; but with a ``match-`` line all that the file says in that section, which would else be for paths that are not meant.
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
    """What is no good, and where; as text one line."""

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
        return f"{where}{said}{':' if said else ''} {self.what}"


class ConfigError(Exception):
    """The configuration is no good; one line, of the first problem and how many more there are."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        more = f" (and {len(problems) - 1} more: see 'nm-mptcp config --check')" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was written, what it means, and where."""

    text: str
    value: Any
    origin: Origin


#: Section -> key -> value.
_Sections = dict[str, dict[str, Given]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the files say, merged."""

    config: Config
    files: tuple[Path, ...] = ()  #: those that were read, lowest priority first
    problems: tuple[Problem, ...] = ()
    #: what is given, by section and key; the sections for paths highest priority first
    given: Mapping[str, Mapping[str, Given]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConfigurationFiles:
    """What is read: all files in their order, or one that somebody named instead."""

    file: Path | None = None
    paths: ConfigPaths = PATHS

    def read(self) -> Reading:
        """Read and merge what is good, and tell of what is not. Never raises."""
        problems = [] if self.file else _unlistable(self.paths)
        paths = [self.file] if self.file else list(self.paths.in_order())
        merged: _Sections = {}
        used: list[Path] = []
        for path in paths:
            try:
                data = contents(path)
            except FileNotFoundError:
                # No main file is none; a snippet may just have gone. But a link that leads nowhere is a mistake.
                if path == self.file or path.is_symlink():
                    problems.append(Problem(path, "there is no such file"))
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
        """The configuration, if all of it is good. Raises :class:`ConfigError`."""
        reading = self.read()
        if reading.problems:
            raise ConfigError(reading.problems)
        return reading.config


def name_of(path: Path) -> str:
    """A file's name as it may stand in a line of text, whatever bytes it is made of."""
    return printable(str(path), longest=4096)


def _unlistable(files: ConfigPaths) -> list[Problem]:
    """Directories that are there, but cannot be looked into."""
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
    """A later file wins, key by key; in reverse, since the whole is read backwards in the end (NetworkManager's order)."""
    for name in reversed(sections):
        merged.setdefault(name, {}).update(sections[name])


def _sections(path: Path, data: bytes, problems: list[Problem]) -> _Sections:
    """What one file says, without what is no good."""
    if data.startswith(_BYTE_ORDER_MARK):
        problems.append(Problem(path, "begins with a byte order mark; must be UTF-8 without one", 1))
        data = data.removeprefix(_BYTE_ORDER_MARK)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        problems.append(Problem(path, "is not UTF-8 text: nothing of this file counts", number))
        return {}
    sections: _Sections = {}
    headers: dict[str, int] = {}
    doubtful: set[str] = set()
    for line in lines(text):
        section = sections.setdefault(line.section, {})
        what = _unreadable(line)
        if not what and not line.key:
            what = _wrong_header(line, headers)
            headers.setdefault(line.section, line.number)
        if what:
            problems.append(Problem(path, what, line.number, line.section))
            doubtful.add(line.section)
        elif line.key and keys_of(line.section) is not None:
            _take(path, line, section, problems, doubtful)
    problems += _ports_without_signal(path, sections)
    # Without a line of a section for paths, the rest might be for others than are meant.
    out = {name for name in sections if keys_of(name) is None or (name.startswith(PATH) and name in doubtful)}
    return {name: keys for name, keys in sections.items() if name not in out}


def _unreadable(line: Line) -> str:
    """Why a line says nothing at all, "" when it does."""
    if line.problem:
        return line.problem
    for char in line.section + line.key + line.value:
        if unicodedata.category(char) == "Cc" and char != "\t":
            return f"has a control character (U+{ord(char):04X})"
    return ""


def _wrong_header(line: Line, before: Mapping[str, int]) -> str:
    """Why there can be no such section here, "" when there can."""
    if keys_of(line.section) is None:
        return f"no such section (there is [main], [routing] and [{PATH}NAME])"
    if line.section in before:
        return f"the section is there twice (first in line {before[line.section]})"
    return ""


def _take(path: Path, line: Line, section: dict[str, Given], problems: list[Problem], doubtful: set[str]) -> None:
    """Take what a ``key=value`` line says into its section, or tell why that cannot be."""
    known = keys_of(line.section) or {}
    value = line.value.rstrip()
    key = known.get(line.key)
    if key is None:
        what = f"no such key (there is {listed(known)})"
    elif line.key in section:
        what = f"the key is there twice (first in line {section[line.key].origin.line})"
    else:
        try:
            section[line.key] = Given(value, key.parse(value), Origin(name_of(path), line.number, line.section))
            return
        except ValueError as error:
            what = str(error)
    problems.append(Problem(path, what, line.number, line.section, line.key, value))
    if key is None or line.key.startswith(_MATCH):
        doubtful.add(line.section)


def _ports_without_signal(path: Path, sections: _Sections) -> Iterator[Problem]:
    """Take out ports that the kernel would refuse: it takes one with ``signal`` and without ``subflow`` only."""
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
    """The nouns of what is given."""

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
