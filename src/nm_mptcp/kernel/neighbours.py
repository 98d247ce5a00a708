# SPDX-License-Identifier: GPL-2.0-or-later
"""Neighbours of a link that has come back: incomplete entries are probed at once.

While a link has no carrier its neighbour entries go, and the first packet sent there all the same (the end of a subflow, a
retransmission) begins a resolution of the gateway that cannot succeed. The kernel repeats its request every
``retrans_time_ms``, a second, and until then all packets wait in the entry's queue, also the join of the subflow that comes
back with the link. So each resolution in progress is begun anew when the link is back; the queue is kept.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Collection

from ..model.state import Family
from .errors import KernelError
from .netlink import NLM_F_REPLACE, ROUTE, Requester, attributes, encoded

_RTM_NEWNEIGH, _RTM_GETNEIGH = 28, 30
_NDMSG = struct.Struct("=BxxxiHBB")
_NDA_DST = 1
_NUD_NONE, _NUD_INCOMPLETE = 0x00, 0x01
_NTF_USE = 0x01


class Neighbours(Requester):
    """Neighbour entries: synchronous, for one thread, opened at first use, in that thread's network namespace."""

    PROTOCOL = ROUTE

    def incomplete(self, ifindexes: Collection[int]) -> tuple[tuple[int, str], ...]:
        """Interface and address of each entry on these interfaces that is being resolved. Raises :class:`KernelError`."""
        found = []
        for answer in self._netlink.dump(_RTM_GETNEIGH, _NDMSG.pack(0, 0, 0, 0, 0), what="read the neighbours"):
            family, ifindex, state, _, _ = _NDMSG.unpack_from(answer.data, answer.start)
            attrs = attributes(answer.data, answer.start + _NDMSG.size, answer.end)
            if family in set(Family) and ifindex in ifindexes and state & _NUD_INCOMPLETE and _NDA_DST in attrs:
                found.append((ifindex, socket.inet_ntop(family, attrs[_NDA_DST])))
        return tuple(found)

    def probe(self, ifindexes: Collection[int]) -> None:
        """Begin each resolution in progress on these interfaces anew. Raises :class:`KernelError`.

        NUD_NONE ends a resolution and keeps the queue (kernel: ``__neigh_update``), NTF_USE begins another and sends its
        request at once (``neigh_event_send``). Deleting the entry would drop the queue.
        """
        for ifindex, address in self.incomplete(ifindexes):
            with contextlib.suppress(KernelError):  # resolved or gone by now
                self._write(ifindex, address, _NUD_NONE, 0)
                self._write(ifindex, address, _NUD_NONE, _NTF_USE)

    def _write(self, ifindex: int, address: str, state: int, flags: int) -> None:
        from .messages import ndmsg

        message = ndmsg()
        message["family"] = int(Family.of(address))
        message["ifindex"] = ifindex
        message["state"] = state
        message["flags"] = flags
        message["attrs"] = [("NDA_DST", address)]
        what = f"probe the neighbour {address} on #{ifindex}"
        self._netlink.request(_RTM_NEWNEIGH, NLM_F_REPLACE, encoded(message), what=what)
