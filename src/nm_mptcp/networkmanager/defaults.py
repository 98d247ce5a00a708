# SPDX-License-Identifier: GPL-2.0-or-later
"""The defaults for connection properties in NetworkManager's configuration files, device by device.

Read from the files as NetworkManager reads them (``nm-config.c``, ``nm-config-data.c``; NetworkManager.conf(5)), because
``NetworkManager --print-config`` sorts the sections by name, while their order decides which of two wins:

- files: ``/usr/lib/NetworkManager/conf.d``, ``/run/NetworkManager/conf.d``, ``NetworkManager.conf``,
  ``/etc/NetworkManager/conf.d``; a name in a later directory hides the same name in an earlier one;
- within a file the first section that matches wins, of several files the last; ``[connection]`` comes last of all. A
  section that several files write keeps the place of the first;
- the first matching section that has the property or ``stop-match`` decides, even if its value is invalid.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..model.flags import ProfileFlag
from ..model.state import DefaultFlags, Device, Family
from ..nmsyntax import keyfile
from ..nmsyntax.device_match import DeviceMatch, decide, split

_log = logging.getLogger(__name__)

_FLAGS = "connection.mptcp-flags"
_PREFIX = "connection"
_MATCH = "match-device"
_STOP = "stop-match"
_NUMBER = re.compile(r"\s*\+?(0x[0-9a-f]+|[0-9]+)\s*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class ConnectionSection:
    """A ``[connection*]`` section."""

    name: str
    match: DeviceMatch | None = None  #: None: every device
    stop: bool = False
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkManagerPaths(keyfile.ConfigPaths):
    """Where NetworkManager's configuration is; by default where every distribution builds it to look."""

    main: Path = Path("/etc/NetworkManager/NetworkManager.conf")
    system: Path = Path("/usr/lib/NetworkManager/conf.d")
    run: Path = Path("/run/NetworkManager/conf.d")
    etc: Path = Path("/etc/NetworkManager/conf.d")

    @classmethod
    def of(cls, arguments: Iterable[str]) -> NetworkManagerPaths:
        """Where a NetworkManager with these arguments reads it (``argv`` without the program's name)."""
        built_in = cls()
        places = {"config": built_in.main, "system-config-dir": built_in.system, "config-dir": built_in.etc}
        options = iter(arguments)
        for option in options:
            name, equals, value = option.partition("=")
            key = name.removeprefix("--")
            if not name.startswith("--") or key not in places:
                continue
            places[key] = Path(value if equals else next(options, "") or places[key])
        return cls(main=places["config"], system=places["system-config-dir"], etc=places["config-dir"])


@dataclass(frozen=True, slots=True)
class ConnectionDefaults:
    """The defaults for connection properties, of all files."""

    sections: tuple[ConnectionSection, ...] = ()  #: highest priority first
    dhcp_plugin: str = "internal"  #: ``main.dhcp``

    def lookup(self, key: str, device: Device) -> tuple[str, str] | None:
        """The value of a property for a device, and its section's name; None where none is configured."""
        for section in self.sections:
            value = section.values.get(key)
            if value is None and not section.stop:
                continue
            if section.match is None or section.match.matches(device, dhcp_plugin=self.dhcp_plugin):
                return None if value is None else (value, section.name)
        return None

    def flags(self, device: Device) -> DefaultFlags:
        """The default for ``connection.mptcp-flags``; 0, or what is not a number, counts as not configured."""
        found = self.lookup(_FLAGS, device)
        number = _number(found[0]) if found else None
        return DefaultFlags(normalize(number), found[1]) if found and number else DefaultFlags()

    def route_table(self, device: Device, family: Family) -> int:
        """The default for ``ipv4.route-table`` or ``ipv6.route-table``, 0 where none is configured."""
        found = self.lookup("ipv4.route-table" if family is Family.IPV4 else "ipv6.route-table", device)
        number = _number(found[0]) if found else None
        return number if number is not None and number <= 0xFFFFFFFF else 0


def read(files: NetworkManagerPaths, *, version: str = "", tag: str = "") -> ConnectionDefaults:
    """Read and merge the files.

    ``version`` is NetworkManager's and ``tag`` its ``NM_CONFIG_ENABLE_TAG`` (for ``[.config] enable=``). Raises
    :class:`OSError`, or :class:`ValueError` with the file's name, where NetworkManager refuses a file as well.
    """
    merged: dict[str, dict[str, str]] = {}
    dhcp_plugin = "internal"
    for path in files.in_order():
        try:
            data = keyfile.contents(path)
        except FileNotFoundError:
            continue  # there is no main file, or a drop-in was removed just now
        groups = keyfile.parse(data.decode(errors="replace"), str(path))
        if path != files.main and not _enabled(groups.get(".config", {}), version, tag):
            continue
        _merge(merged, groups)
        dhcp_plugin = groups.get("main", {}).get("dhcp", dhcp_plugin).strip()
    names = [name for name in reversed(merged) if name != _PREFIX]
    if _PREFIX in merged:
        names.append(_PREFIX)
    return ConnectionDefaults(tuple(_section(name, merged[name]) for name in names), dhcp_plugin)


def normalize(number: int) -> ProfileFlag:
    """A number as flags (``nm_mptcp_flags_normalize``): never 0, without unknown bits, without fullmesh beside signal."""
    known = ProfileFlag(number & sum(ProfileFlag))
    if ProfileFlag.DISABLED in known:
        return ProfileFlag.DISABLED
    flags = known | ProfileFlag.ENABLED
    if ProfileFlag.SIGNAL in flags and ProfileFlag.FULLMESH in flags:
        flags &= ~ProfileFlag.FULLMESH
    return flags


class DefaultsReader:
    """Reads the defaults, and reads them again only when the files have changed.

    ``root``: where NetworkManager's file system is seen from here (in another mount namespace: ``/proc/PID/root``).
    """

    def __init__(self, *, root: Path = Path("/")) -> None:
        self._root = root
        self.defaults = ConnectionDefaults()  #: what was read last
        self._read_for: object = None
        self._turn = threading.Lock()  #: a second reader waits for the first one's result
        self.unread = ""  #: why the files could not be read the last time, "" when they could

    async def read(self, *, pid: int = 0, version: str = "") -> ConnectionDefaults:
        """The defaults in the files now; never raises and never blocks the loop.

        ``pid`` is NetworkManager's: its arguments may name other files. Where a file cannot be read or parsed, none of them
        counts: what was read before stays in force, as in NetworkManager, and the reason is logged.
        """
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._read, pid, version)
        except (OSError, ValueError) as error:
            words = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            if words != self.unread:
                self.unread = words
                _log.warning("NetworkManager's configuration: %s; keeping the defaults read before", words)
        return self.defaults

    def _read(self, pid: int, version: str) -> None:
        files = NetworkManagerPaths.of(_arguments(self._root / "proc" / str(pid) / "cmdline") if pid else []).under(
            self._root
        )
        with self._turn:
            read_for = (files, files.signature(), version)
            if read_for != self._read_for:
                self.defaults = read(files, version=version)
                self._read_for, self.unread = read_for, ""


def _merge(merged: dict[str, dict[str, str]], groups: Mapping[str, Mapping[str, str]]) -> None:
    """Add a file's connection sections, in reverse, since all of it is reversed at the end (``read_config``)."""
    for name in reversed([name for name in groups if name.startswith(_PREFIX)]):
        for key, value in groups[name].items():
            if key[:-1] and key[-1] in "+-":
                if key[:-1] == _MATCH:
                    section = merged.setdefault(name, {})
                    section[_MATCH] = _extend(section.get(_MATCH, ""), value, add=key[-1] == "+")
                continue
            merged.setdefault(name, {})[key] = value


def _extend(old: str, new: str, *, add: bool) -> str:
    """``match-device+=`` and ``match-device-=``."""
    before, change = split(old), split(new)
    words = [*before, *(word for word in change if word not in before)] if add else before
    if not add:
        words = [word for word in before if word not in change]
    return ",".join(_escape(word) for word in words)


def _escape(word: str) -> str:
    for plain, escaped in (("\\", "\\\\"), (",", "\\,"), (";", "\\;"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        word = word.replace(plain, escaped)
    return word.replace(" ", "\\s")


def _section(name: str, values: Mapping[str, str]) -> ConnectionSection:
    match = values.get(_MATCH)
    return ConnectionSection(
        name=name,
        match=None if match is None else DeviceMatch.lenient(match),
        stop=keyfile.boolean(values.get(_STOP, "")) is True,
        values={key: keyfile.unescape(value) for key, value in values.items() if key not in (_MATCH, _STOP)},
    )


def _enabled(config: Mapping[str, str], version: str, tag: str) -> bool:
    """``[.config] enable=``: a boolean, or a list of versions and tags (``ignore_config_snippet``)."""
    value = config.get("enable")
    if value is None:
        return True
    plain = keyfile.boolean(value)
    if plain is not None:
        return plain
    terms = []
    for word in split(value):
        negative = word.lower().startswith("except:")
        text = word[len("except:") :] if negative else word
        terms.append((negative, partial(_enabling, text, version, tag)))
    return decide(terms)


def _enabling(term: str, version: str, tag: str) -> bool:
    name, colon, value = term.partition(":")
    match name.lower() + colon:
        case "env:":
            return bool(tag) and value == tag
        case "nm-version:" | "nm-version-min:" | "nm-version-max:" as kind:
            return _version_matches(kind, value.strip(), version)
    return False


def _version_matches(kind: str, wanted: str, version: str) -> bool:
    """Only the last number in ``wanted`` may differ, and only with -min and -max (``match_config_eval``)."""
    try:
        numbers = [int(part) for part in wanted.split(".")]
        have = [int(part) for part in version.split("-")[0].split(".")[:3]]
    except ValueError:
        return False
    if len(numbers) > 3 or len(have) < len(numbers) or numbers[:-1] != have[: len(numbers) - 1]:
        return False
    last, is_ = numbers[-1], have[len(numbers) - 1]
    return is_ >= last if kind == "nm-version-min:" else is_ <= last if kind == "nm-version-max:" else is_ == last


def _number(value: str) -> int | None:
    """A number as NetworkManager reads it (``_nm_utils_ascii_str_to_int64``), None where it refuses it.

    C's rules: hexadecimal after ``0x``, octal after ``0`` (tried with 1.42).
    """
    found = _NUMBER.fullmatch(value)
    if found is None:
        return None
    digits = found[1]
    try:
        number = int(digits, 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10)
    except ValueError:
        return None  # 8 or 9 in an octal number
    return number if number <= 0x7FFFFFFFFFFFFFFF else None


def _arguments(cmdline: Path) -> list[str]:
    """A process's arguments without its name; empty where they cannot be read (``hidepid``, or the process is gone)."""
    try:
        words = cmdline.read_bytes().split(b"\0")
    except OSError:
        return []
    return [os.fsdecode(word) for word in words[1:] if word]
