# SPDX-License-Identifier: GPL-2.0-or-later
"""Generic netlink families: their id and their multicast groups, which the kernel assigns at run time."""

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
    """A family's id, and the ids of its multicast groups by name."""

    id: int
    groups: Mapping[str, int]


def resolve(netlink: Netlink, name: str, *, what: str) -> GenericFamily:
    """Look up a family by name. Raises :class:`KernelError`, which is ``absent`` where the kernel has none of that name."""
    text = name.encode() + b"\0"
    body = struct.pack("=BBHHH", _CTRL_CMD_GETFAMILY, 1, 0, 4 + len(text), _FAMILY_NAME) + text
    try:
        (answer,) = netlink.request(_GENL_ID_CTRL, 0, body + bytes(-len(body) % 4), what=what)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        missing = f"this kernel has no '{name}' (a kernel with CONFIG_MPTCP, 5.7 or newer, is needed)"
        raise KernelError(errno.ENOENT, what, missing) from error
    attrs = attributes(answer.data, answer.start + 4, answer.end)
    groups: dict[str, int] = {}
    listed = attrs.get(_MCAST_GROUPS, b"")
    for group in attributes(listed, 0, len(listed)).values():
        entry = attributes(group, 0, len(group))
        groups[entry[_GROUP_NAME].rstrip(b"\0").decode()] = struct.unpack("=I", entry[_GROUP_ID])[0]
    return GenericFamily(struct.unpack("=H", attrs[_FAMILY_ID])[0], groups)
