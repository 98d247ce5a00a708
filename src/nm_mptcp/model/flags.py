# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager's ``connection.mptcp-flags`` and the kernel's endpoint flags, and the conversion of each to the other.

Sources: NetworkManager ``libnm-core-public/nm-dbus-types`` (``NMMptcpFlags``, since 1.40; laminar since 1.56) and the
kernel's ``Documentation/netlink/specs/mptcp_pm.yaml`` (``MPTCP_PM_ADDR_FLAG_*``; laminar since 6.18).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable


class EndpointFlag(enum.IntFlag):
    """The flags of an endpoint (``MPTCP_PM_ADDR_FLAG_*``)."""

    SIGNAL = 0x01
    SUBFLOW = 0x02
    BACKUP = 0x04
    FULLMESH = 0x08
    IMPLICIT = 0x10
    LAMINAR = 0x20


class ProfileFlag(enum.IntFlag):
    """The value of ``connection.mptcp-flags`` in a profile (``NMMptcpFlags``); 0 is "not set"."""

    DISABLED = 0x001
    ENABLED = 0x002
    ALSO_WITHOUT_SYSCTL = 0x004
    ALSO_WITHOUT_DEFAULT_ROUTE = 0x008
    SIGNAL = 0x010
    SUBFLOW = 0x020
    BACKUP = 0x040
    FULLMESH = 0x080
    LAMINAR = 0x100


#: The flags that ``set-flags`` changes in place (kernel: ``mptcp_pm_nl_set_flags``); for others the endpoint is re-added.
CHANGEABLE = EndpointFlag.BACKUP | EndpointFlag.FULLMESH

#: Profile flag -> endpoint flag. Only these describe an endpoint; the other profile flags decide *whether* there is one.
_PAIRS: tuple[tuple[ProfileFlag, EndpointFlag], ...] = (
    (ProfileFlag.SIGNAL, EndpointFlag.SIGNAL),
    (ProfileFlag.SUBFLOW, EndpointFlag.SUBFLOW),
    (ProfileFlag.BACKUP, EndpointFlag.BACKUP),
    (ProfileFlag.FULLMESH, EndpointFlag.FULLMESH),
    (ProfileFlag.LAMINAR, EndpointFlag.LAMINAR),
)


def endpoint_flags(profile: ProfileFlag) -> EndpointFlag:
    """The endpoint flags that NetworkManager gives the kernel for a profile's flags.

    There is no implied ``subflow``: 0x2 makes an endpoint without any flag (NetworkManager: ``nm-netns.c``).
    """
    flags = EndpointFlag(0)
    for theirs, ours in _PAIRS:
        if profile & theirs:
            flags |= ours
    return flags


def profile_flags(endpoint: EndpointFlag) -> ProfileFlag:
    """The profile flags that ask NetworkManager for exactly these endpoint flags (``enabled`` included)."""
    flags = ProfileFlag.ENABLED
    for theirs, ours in _PAIRS:
        if endpoint & ours:
            flags |= theirs
    return flags


def names(flags: enum.IntFlag) -> list[str]:
    """The names of flags as in ``nmcli`` and ``ip mptcp``, lowest bit first; unknown bits as one hexadecimal number."""
    known = [flag for flag in type(flags) if flag in flags]
    rest = int(flags) & ~sum(int(flag) for flag in known)
    spelled = [(flag.name or "").lower().replace("_", "-") for flag in known]
    return spelled + ([f"0x{rest:x}"] if rest else [])


def parse_endpoint_flags(words: Iterable[str]) -> EndpointFlag:
    """Endpoint flags from their names. Raises :class:`ValueError`, which names the first unknown word."""
    flags = EndpointFlag(0)
    for word in words:
        try:
            flags |= EndpointFlag[word.strip().upper()]
        except KeyError:
            allowed = ", ".join(names(EndpointFlag(0x3F)))
            raise ValueError(f"unknown endpoint flag '{word.strip()}' (allowed: {allowed})") from None
    return flags
