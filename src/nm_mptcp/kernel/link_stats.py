# SPDX-License-Identifier: GPL-2.0-or-later
"""The byte counters of interfaces (``ip -s link``).

Source: kernel ``if_link.h``: ``RTM_GETSTATS`` with ``IFLA_STATS_LINK_64`` alone, which is cheap.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from .netlink import ROUTE, Requester, attributes

_RTM_GETSTATS = 94
_IFLA_STATS_LINK_64 = 1
_REQUEST = struct.Struct("=BxxxII")  # struct if_stats_msg: family, ifindex, filter
_BYTES = struct.Struct("=16xQQ")  # in struct rtnl_link_stats64, after the packet counters


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """Bytes since the interface was created."""

    received: int = 0
    sent: int = 0


class LinkStats(Requester):
    """Interface statistics: synchronous, for one thread, opened at first use, in that thread's network namespace.

    No privilege is needed. Raises :class:`~nm_mptcp.kernel.errors.KernelError`.
    """

    PROTOCOL = ROUTE

    def links(self) -> Mapping[int, LinkCounters]:
        """The counters of all interfaces, by ifindex."""
        body = _REQUEST.pack(0, 0, 1 << (_IFLA_STATS_LINK_64 - 1))
        found = {}
        for answer in self._netlink.dump(_RTM_GETSTATS, body, what="read the counters of the links"):
            ifindex = _REQUEST.unpack_from(answer.data, answer.start)[1]
            attrs = attributes(answer.data, answer.start + _REQUEST.size, answer.end)
            if len(stats := attrs.get(_IFLA_STATS_LINK_64, b"")) >= _BYTES.size:
                found[ifindex] = LinkCounters(*_BYTES.unpack_from(stats))
        return found
