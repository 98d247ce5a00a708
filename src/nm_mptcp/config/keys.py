# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of ``nm-mptcp.conf``: what each takes, what it is called in ``config``, and its default as it is written.

Pure. A parser raises :class:`ValueError` with what is allowed; the caller says where.
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

#: The sections for paths begin with this.
PATH = "path-"

_INTEGER = re.compile(r"[+-]?[0-9]{1,12}", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,10})\s*(?:-\s*([0-9]{1,10}))?", re.ASCII)

#: ``rt_protos`` (iproute2, kernel ``rtnetlink.h``): whose routes these are. 0 to 4 are reserved, and never a daemon's.
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

#: Tables with a meaning of their own (kernel: ``rtnetlink.h``, RT_TABLE_*).
_TABLES = {0: "unspec", 253: "default", 254: "main", 255: "local"}

#: Our rules come after NetworkManager's for WireGuard (up to 31767) and before the main table's (32766).
_PRIORITIES = range(31768, 32766)

_SLOT_PRIORITIES = range(-1000, 1001)

#: What ``flags=`` takes: nmcli's words.
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
    """A key: how its value is read, and what counts where it is not given."""

    parse: Callable[[str], Any]
    default: str  #: as it would be written; "" where there is nothing to write


def one_of(kind: type[enum.StrEnum]) -> Callable[[str], enum.StrEnum]:
    """A parser for one of the words of an enumeration."""

    def parse(text: str) -> enum.StrEnum:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"must be {listed(kind, 'or')}") from None

    return parse


def yes_or_no(text: str) -> bool:
    """A boolean, as NetworkManager writes them."""
    value = boolean(text)
    if value is None:
        raise ValueError("must be yes or no")
    return value


def integer_in(allowed: range) -> Callable[[str], int]:
    """A parser for an integer within bounds."""

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
    """A routing protocol number that is nobody else's: what carries it is taken for ours, and deleted when it is not wanted."""
    value = integer_in(range(1, 256))(text) if text not in ("0", "+0", "-0") else 0
    if value in _PROTOCOLS:
        raise ValueError(
            f"{value} is '{_PROTOCOLS[value]}', whose routes nm-mptcp would take for its own; must be an integer from 5 to"
            " 255 that no other program uses"
        )
    return value


def tables(text: str) -> range:
    """A range of routing tables, ``FIRST-LAST``, or a single one."""
    found = _RANGE.fullmatch(text)
    if not found:
        raise ValueError("must be FIRST-LAST, such as 42000-42999")
    first, last = int(found[1]), int(found[2] or found[1])
    if last > 0xFFFFFFFF:
        raise ValueError("a table's number is 4294967295 at most")
    if last < first:
        raise ValueError("FIRST-LAST: the first is greater than the last")
    for number, name in _TABLES.items():
        if first <= number <= last:
            raise ValueError(f"table {number} is '{name}', which is never nm-mptcp's; must be tables of its own")
    return range(first, last + 1)


def flags(text: str) -> ProfileFlag:
    """Flags by nmcli's words, between commas or spaces; ``disabled`` alone, or flags with "enabled" implied."""
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
            raise ValueError("'disabled' must stand alone")
        return value
    if ProfileFlag.SIGNAL in value and ProfileFlag.FULLMESH in value:
        raise ValueError("the kernel refuses signal and fullmesh together: leave one of them out")
    return value | ProfileFlag.ENABLED


def weak_signal(text: str) -> WeakSignal:
    """``LEAVE`` or ``LEAVE,RETURN`` in percent; 0 switches it off."""
    numbers = [word.strip() for word in text.split(",")]
    if len(numbers) > 2 or not all(_INTEGER.fullmatch(number) and 0 <= int(number) <= 100 for number in numbers):
        raise ValueError("must be LEAVE or LEAVE,RETURN: percent from 0 (off) to 100, such as 40,50")
    leave = int(numbers[0])
    if leave == 0:
        if len(numbers) == 2:
            raise ValueError("0 switches it off and must stand alone")
        return WeakSignal(0, 0)
    enter = int(numbers[1]) if len(numbers) == 2 else min(leave + _HYSTERESIS, 100)
    if enter <= leave:
        raise ValueError("LEAVE,RETURN: RETURN must be greater than LEAVE, or paths would flap")
    return WeakSignal(leave, enter)


#: Percent between leaving and returning, unless it is said.
_HYSTERESIS = WeakSignal().enter - WeakSignal().leave


#: Section -> key. The sections for paths stand under :data:`PATH`. A key with ``-`` is called with ``_`` in ``config``.
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
        "slot-priority": Key(integer_in(_SLOT_PRIORITIES), "0"),
        "ipv6-address": Key(one_of(IPv6Address), "stable"),
        "signal-port": Key(integer_in(range(1, 65536)), ""),
    },
}


def keys_of(section: str) -> Mapping[str, Key] | None:
    """The keys of a section; None where there is no such section."""
    if section.startswith(PATH) and section != PATH:
        return KEYS[PATH]
    return KEYS.get(section) if section != PATH else None
