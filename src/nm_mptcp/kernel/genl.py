# SPDX-License-Identifier: GPL-2.0-or-later
"""Generic netlink families: their number and their multicast groups, which a kernel gives out as it likes."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import KernelError
from .netlink import Netlink, attributes

#: The path manager's family and its group of events.
MPTCP_PM = "mptcp_pm"
MPTCP_PM_EVENTS = "mptcp_pm_events"

_GENL_ID_CTRL = 16
_CTRL_CMD_GETFAMILY = 3
_FAMILY_ID, _FAMILY_NAME, _MCAST_GROUPS = 1, 2, 7
_GROUP_NAME, _GROUP_ID = 1, 2


@dataclass(frozen=True, slots=True)
class GenericFamily:
    """A family's number and the numbers of its multicast groups by name."""

    id: int
    groups: Mapping[str, int]


def resolve(netlink: Netlink, name: str, *, what: str) -> GenericFamily:
    """Ask for a family by name. Raises :class:`KernelError` (``absent``) where the kernel has none of that name."""
    text = name.encode() + b"\0"
    body = struct.pack("=BBHHH", _CTRL_CMD_GETFAMILY, 1, 0, 4 + len(text), _FAMILY_NAME) + text
    try:
        (answer,) = netlink.request(_GENL_ID_CTRL, 0, body + bytes(-len(body) % 4), what=what)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        missing = f"this kernel has no '{name}' (a kernel with CONFIG_MPTCP, 5.7 or newer, is needed)"
        raise KernelError(errno.ENOENT, what, missing) from error
    told = attributes(answer.data, answer.start + 4, answer.end)
    groups: dict[str, int] = {}
    listed = told.get(_MCAST_GROUPS, b"")
    for group in attributes(listed, 0, len(listed)).values():
        entry = attributes(group, 0, len(group))
        groups[entry[_GROUP_NAME].rstrip(b"\0").decode()] = struct.unpack("=I", entry[_GROUP_ID])[0]
    return GenericFamily(struct.unpack("=H", told[_FAMILY_ID])[0], groups)
