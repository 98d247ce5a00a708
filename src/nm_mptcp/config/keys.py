# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of ``nm-mptcp.conf``: the parser of each, and its default as it would be written.

Pure. A parser raises :class:`ValueError` with what is allowed; the caller adds where.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..model.flags import ProfileFlag, names
from ..model.state import Mode
from ..nmsyntax.device_match import DeviceMatch
from ..nmsyntax.keyfile import boolean
from ..text import listed
from .selector import addresses, connections
from .settings import ConnectivityPolicy, Failover, IPv6Address, LimitsPolicy, MeteredPolicy, RoamingPolicy, WeakSignal

#: Prefix of the sections that apply to paths.
PATH = "path-"

_INTEGER = re.compile(r"[+-]?[0-9]{1,12}", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,10})\s*(?:-\s*([0-9]{1,10}))?", re.ASCII)

#: Protocol numbers of others (iproute2's ``rt_protos``, kernel ``rtnetlink.h``). 0 to 4 are reserved.
_PROTOCOLS = {
    0: "unspec",
    1: "redirect",
    2: "kernel",
    3: "boot",
    4: "static",
    8: "gated",
    9: "ra",
    10: "mrt",
    11: "zebra",
    12: "bird",
    13: "dnrouted",
    14: "xorp",
    15: "ntk",
    16: "dhcp",
    17: "mrouted",
    18: "keepalived",
    42: "babel",
    84: "ovn",
    99: "openr",
    186: "bgp",
    187: "isis",
    188: "ospf",
    189: "rip",
    192: "eigrp",
}

#: Tables of the kernel (``rtnetlink.h``, RT_TABLE_*).
_TABLES = {0: "unspec", 253: "default", 254: "main", 255: "local"}

#: Our rules come after NetworkManager's for WireGuard (up to 31767) and before the main table's (32766).
_PRIORITIES = range(31768, 32766)

_SLOT_PRIORITIES = range(-1000, 1001)

#: The words of ``flags=``: nmcli's.
_FLAGS = {
    name: flag
    for flag in (
        ProfileFlag.SUBFLOW,
        ProfileFlag.BACKUP,
        ProfileFlag.SIGNAL,
        ProfileFlag.FULLMESH,
        ProfileFlag.LAMINAR,
        ProfileFlag.DISABLED,
    )
    for name in names(flag)
}


@dataclass(frozen=True, slots=True)
class Key:
    """A key: the parser of its value, and its default."""

    parse: Callable[[str], Any]
    default: str  #: as it would be written; "" where there is nothing to write


def one_of(kind: type[enum.StrEnum]) -> Callable[[str], enum.StrEnum]:
    """A parser for the words of an enumeration."""

    def parse(text: str) -> enum.StrEnum:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"must be {listed(kind, 'or')}") from None

    return parse


def yes_or_no(text: str) -> bool:
    """A boolean, by NetworkManager's words."""
    value = boolean(text)
    if value is None:
        raise ValueError("must be yes or no")
    return value


def integer_in(allowed: range) -> Callable[[str], int]:
    """A parser for an integer in this range."""

    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text) or int(text) not in allowed:
            raise ValueError(f"must be an integer from {allowed[0]} to {allowed[-1]}")
        return int(text)

    return parse


def rule_priority(text: str) -> int:
    """The priority of our rules."""
    try:
        return integer_in(_PRIORITIES)(text)
    except ValueError as error:
        raise ValueError(
            f"{error}: nm-mptcp's rules come after NetworkManager's for WireGuard (to 31767)"
            " and before the main table's (32766)"
        ) from None


def protocol(text: str) -> int:
    """A routing protocol number that no other program uses: routes and rules that have it are ours to delete."""
    value = integer_in(range(1, 256))(text) if text not in ("0", "+0", "-0") else 0
    if value in _PROTOCOLS:
        raise ValueError(
            f"{value} is '{_PROTOCOLS[value]}', whose routes nm-mptcp would treat as its own; must be an integer from 5 to"
            " 255 that no other program uses"
        )
    return value


def tables(text: str) -> range:
    """A range of routing tables, ``FIRST-LAST``, or one table."""
    found = _RANGE.fullmatch(text)
    if not found:
        raise ValueError("must be FIRST-LAST, such as 42000-42999")
    first, last = int(found[1]), int(found[2] or found[1])
    if last > 0xFFFFFFFF:
        raise ValueError("must be tables up to 4294967295")
    if last < first:
        raise ValueError("must be FIRST-LAST, with FIRST not greater than LAST")
    for number, name in _TABLES.items():
        if first <= number <= last:
            raise ValueError(f"table {number} is '{name}'; must be tables that nothing else uses")
    return range(first, last + 1)


def flags(text: str) -> ProfileFlag:
    """Flags by nmcli's words, separated by commas or spaces; ``disabled`` alone, all others with "enabled" implied."""
    words = [word for word in re.split(r"[,\s]+", text.lower()) if word]
    if unknown := [word for word in words if word not in _FLAGS]:
        raise ValueError(f"unknown flag '{unknown[0]}'; must be some of {listed(_FLAGS)}")
    if not words:
        raise ValueError(f"must be some of {listed(_FLAGS)}")
    value = ProfileFlag(0)
    for word in words:
        value |= _FLAGS[word]
    if value & ProfileFlag.DISABLED:
        if value != ProfileFlag.DISABLED:
            raise ValueError("'disabled' must be alone")
        return value
    if ProfileFlag.SIGNAL in value and ProfileFlag.FULLMESH in value:
        raise ValueError("the kernel refuses signal and fullmesh together: remove one of them")
    return value | ProfileFlag.ENABLED


def weak_signal(text: str) -> WeakSignal:
    """``LEAVE`` or ``LEAVE,RETURN`` in percent; 0: off."""
    numbers = [word.strip() for word in text.split(",")]
    if len(numbers) > 2 or not all(_INTEGER.fullmatch(number) and 0 <= int(number) <= 100 for number in numbers):
        raise ValueError("must be LEAVE or LEAVE,RETURN: percent from 0 (off) to 100, such as 40,50")
    leave = int(numbers[0])
    if leave == 0:
        if len(numbers) == 2:
            raise ValueError("0 (off) must be alone")
        return WeakSignal(0, 0)
    enter = int(numbers[1]) if len(numbers) == 2 else min(leave + _HYSTERESIS, 100)
    if enter <= leave:
        raise ValueError("must be LEAVE,RETURN with RETURN greater than LEAVE, else paths would flap")
    return WeakSignal(leave, enter)


#: Percent between LEAVE and RETURN where RETURN is not given.
_HYSTERESIS = WeakSignal().enter - WeakSignal().leave


#: Section -> key; :data:`PATH` for all ``[path-*]`` sections. ``settings`` has a key's value with ``_`` for ``-``.
KEYS: Mapping[str, Mapping[str, Key]] = {
    "main": {
        "mode": Key(one_of(Mode), "auto"),
        "failover": Key(one_of(Failover), "fast"),
        "vpn-guard": Key(yes_or_no, "yes"),
        "metered": Key(one_of(MeteredPolicy), "backup"),
        "roaming": Key(one_of(RoamingPolicy), "exclude"),
        "limits": Key(one_of(LimitsPolicy), "auto"),
    },
    "routing": {
        "enabled": Key(yes_or_no, "yes"),
        "tables": Key(tables, "42000-42999"),
        "rule-priority": Key(rule_priority, "32765"),
        "protocol": Key(protocol, "77"),
    },
    PATH: {
        "match-device": Key(DeviceMatch.parse, ""),
        "match-connection": Key(connections, ""),
        "match-address": Key(addresses, ""),
        "flags": Key(flags, ""),
        "metered": Key(one_of(MeteredPolicy), ""),
        "assume-metered": Key(yes_or_no, ""),
        "roaming": Key(one_of(RoamingPolicy), ""),
        "weak-signal": Key(weak_signal, "40,50"),
        "routing": Key(yes_or_no, "yes"),
        "connectivity": Key(one_of(ConnectivityPolicy), "check"),
        "silent-links": Key(yes_or_no, "yes"),
        "slot-priority": Key(integer_in(_SLOT_PRIORITIES), "0"),
        "ipv6-address": Key(one_of(IPv6Address), "stable"),
        "signal-port": Key(integer_in(range(1, 65536)), ""),
    },
}


def keys_of(section: str) -> Mapping[str, Key] | None:
    """The keys of a section; None for an unknown section."""
    if section.startswith(PATH) and section != PATH:
        return KEYS[PATH]
    return KEYS.get(section) if section != PATH else None
