# SPDX-License-Identifier: GPL-2.0-or-later
"""``--report``: one file with everything for a bug report, on request without addresses and names."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..config.files import PATHS
from ..report.documents import CheckDocument
from ..text import printable
from .facts import SystemFacts

#: Commands whose output is included.
_COMMANDS = (
    ("ip", "-d", "link", "show"),
    ("ip", "address", "show"),
    ("ip", "-4", "rule", "show"),
    ("ip", "-6", "rule", "show"),
    ("ip", "-4", "route", "show", "table", "all"),
    ("ip", "-6", "route", "show", "table", "all"),
    ("ip", "mptcp", "endpoint", "show"),
    ("ip", "mptcp", "limits", "show"),
    ("ss", "-Mani"),
    ("ss", "-tani"),
    ("nmcli", "-f", "all", "general", "status"),
    ("nmcli", "-f", "DEVICE,TYPE,STATE,CON-UUID", "device"),
)
#: Seconds for each.
_TIMEOUT = 10
#: Lines of each that are included: 10,000 routes say no more than the first of them.
_LINES = 500

#: Six bytes, also without leading zeros (``bridge_id``), or the twenty of InfiniBand.
_MAC = re.compile(
    r"(?<![0-9A-Fa-f:])(?:(?:[0-9A-Fa-f]{1,2}:){5}[0-9A-Fa-f]{1,2}|(?:[0-9A-Fa-f]{2}:){19}[0-9A-Fa-f]{2})(?![0-9A-Fa-f:])"
)
_UUID = re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]*)")
#: The last scheme of udev's interface names.
_NAMED_BY_MAC = re.compile(r"(?<=\b(?:en|wl|ww)x)[0-9a-f]{12}\b")
_CHOSEN = re.compile(r"match-connection=[^\n]*")
#: Free text: comments, names of sections, descriptions of links.
_COMMENT = re.compile(r"^[ \t]*[#;].*\n?", re.MULTILINE)
_SECTION = re.compile(r"\[path-([^\]\n]+)\]")
_ALIAS = re.compile(r"^(\s+alias ).*$", re.MULTILINE)
#: The same on every machine, so they identify no one.
_COMMON = frozenset(("0.0.0.0", "127.0.0.1", "127.0.0.0", "127.255.255.255", "255.255.255.255", "::", "::1"))


def text(facts: SystemFacts, checked: CheckDocument) -> str:
    """The report; each part begins with a line ``==> NAME``."""
    parts = [f"==> {name}\n{body.rstrip()}\n" for name, body in _parts(facts, checked)]
    return "\n".join(parts)


def write(file: str, report: str, *, mask: bool, facts: SystemFacts, reached: str | None = None) -> None:
    """Write it to a file that only its owner may read, or print it (``-``). Raises :class:`OSError`.

    ``reached`` is the host of ``--reach``, which a masked report does not name.
    """
    report = masked(report, _names(facts, reached)) if mask else report
    if file == "-":
        sys.stdout.write(report)
        return
    # O_NOFOLLOW: in a directory like /tmp a symbolic link may be another user's.
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(handle, "w", encoding="utf-8", errors="replace") as stream:
        stream.write(report)


def masked(report: str, names: dict[str, str]) -> str:
    """Without addresses, hardware addresses, UUIDs, comments and ``names`` (name -> what stands for it).

    Equal values get equal masks, so that relations remain visible.
    """
    known: dict[str, str] = {}

    def as_(kind: str) -> Callable[[re.Match[str]], str]:
        def replaced(found: re.Match[str]) -> str:
            value = found[0].lower()
            if kind in ("IPV4", "IPV6"):
                trailing = ":" if value.endswith(":") and not value.endswith("::") else ""
                value = value.removesuffix(":") if trailing else value
                if value in _COMMON or not _is_address(value):
                    return found[0]
            else:
                trailing = ""
                if kind == "MAC":
                    value = ":".join(part.zfill(2) for part in value.split(":"))
            number = 1 + sum(1 for each in known.values() if each.startswith(f"{kind}-"))
            return known.setdefault(value, f"{kind}-{number}") + trailing

        return replaced

    report = _ALIAS.sub(r"\1NAME", _COMMENT.sub("", report))
    sections = dict.fromkeys(_SECTION.findall(report))
    names = names | {f"path-{name}": f"path-SECTION-{number}" for number, name in enumerate(sections, 1)}
    for name, mask in sorted(names.items(), key=lambda item: -len(item[0])):
        report = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", mask, report)
    report = _CHOSEN.sub("match-connection=NAME", report)
    for pattern, kind in (
        (_UUID, "UUID"),
        (_MAC, "MAC"),
        (_NAMED_BY_MAC, "HARDWARE"),
        (_IPV6, "IPV6"),
        (_IPV4, "IPV4"),
    ):
        report = pattern.sub(as_(kind), report)
    return report


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _names(facts: SystemFacts, reached: str | None) -> dict[str, str]:
    """Names of the machine, of the host of ``--reach`` and of profiles (networks, people) -> masks."""
    found: dict[str, str] = {}
    interfaces = {link.name for link in facts.kernel.links.values()}
    for number, name in enumerate(dict.fromkeys(_profiles(facts.status)), 1):
        if name in interfaces:
            continue  # interfaces are not masked
        # As it is, in JSON, and in texts.
        for form in (name, json.dumps(name)[1:-1], printable(name), printable(name, 200)):
            found[form] = f"PROFILE-{number}"
    if reached:
        found[reached] = "REACHED"
    host = platform.node()
    short, _, domain = host.partition(".")
    found |= {name: mask for name, mask in ((domain, "DOMAIN"), (short, "HOST"), (host, "HOST")) if name}
    return {name: mask for name, mask in found.items() if name != "localhost"}


def _profiles(document: Any) -> Iterator[str]:
    """Every value of a key ``profile`` in a document."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            if key == "profile" and isinstance(value, str) and value:
                yield value
            else:
                yield from _profiles(value)
    elif isinstance(document, list):
        for value in document:
            yield from _profiles(value)


def _parts(facts: SystemFacts, checked: CheckDocument) -> Iterator[tuple[str, str]]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    versions = [
        f"nm-mptcp {__version__}",
        f"kernel {facts.release} ({platform.machine()})",
        f"NetworkManager {(facts.status and facts.status['networkmanager']['version']) or 'not running'}",
        f"Python {platform.python_version()}",
        f"iproute2 {facts.iproute_version or 'absent'}",
    ]
    yield "nm-mptcp report", "\n".join([f"made {now}", *versions])
    yield "/etc/os-release", _file(Path("/etc/os-release"))
    yield "nm-mptcp check --json", json.dumps(checked, indent=2)
    yield "nm-mptcp status --json", json.dumps(facts.status or {}, indent=2)
    yield "sysctls", "\n".join(f"{name} = {value}" for name, value in sorted(facts.sysctls.items()))
    counted = {name: value for name, value in facts.counters.items() if value and name in _of_mptcp(facts)}
    yield "counters that are not 0", "\n".join(f"{name} {value}" for name, value in counted.items())
    for path in PATHS.in_order():
        yield str(path), _file(path)
    for command in _COMMANDS:
        yield " ".join(command), _output(command, facts)


def _of_mptcp(facts: SystemFacts) -> set[str]:
    """MPTcpExt, which follows TcpExt in the file, and what matters of TcpExt."""
    names = list(facts.counters)
    first = names.index("MPCapableSYNRX") if "MPCapableSYNRX" in names else len(names)
    return {*names[first:], "IPReversePathFilter"}


def _file(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        return f"({error.strerror})"


def _output(command: tuple[str, ...], facts: SystemFacts) -> str:
    place = facts.tools.get(command[0]) or command[0]
    try:
        done = subprocess.run(
            [place, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"({getattr(error, 'strerror', None) or 'timed out'})"
    lines = (done.stdout + done.stderr).splitlines()
    more = [f"(and {len(lines) - _LINES} lines more)"] if len(lines) > _LINES else []
    return "\n".join([*lines[:_LINES], *more])
