# SPDX-License-Identifier: GPL-2.0-or-later
"""The neighbours of a link that has come back: whom the kernel asks for in vain is asked for at once.

While a link is dead its neighbours are forgotten, and the first packet that goes there all the same (the end of a subflow, a
retransmission) asks for the gateway in vain. The kernel asks again each ``retrans_time_ms``, a second, and until then all
packets wait in its queue, also the join of the subflow that comes back with the link. So each unanswered question is put
afresh when the link is back; what waits in the queue stays there, and leaves with the answer.
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
    """Asks for neighbours: synchronous, for one thread, opened at first use, in that thread's network namespace."""

    PROTOCOL = ROUTE

    def incomplete(self, ifindexes: Collection[int]) -> tuple[tuple[int, str], ...]:
        """Interface and address of each neighbour on these interfaces that is asked for. Raises KernelError."""
        found = []
        for answer in self._netlink.dump(_RTM_GETNEIGH, _NDMSG.pack(0, 0, 0, 0, 0), what="read the neighbours"):
            family, ifindex, state, _, _ = _NDMSG.unpack_from(answer.data, answer.start)
            told = attributes(answer.data, answer.start + _NDMSG.size, answer.end)
            if family in set(Family) and ifindex in ifindexes and state & _NUD_INCOMPLETE and _NDA_DST in told:
                found.append((ifindex, socket.inet_ntop(family, told[_NDA_DST])))
        return tuple(found)

    def probe(self, ifindexes: Collection[int]) -> None:
        """Put each unanswered question on these interfaces afresh, now. Raises KernelError.

        The state "none" ends the question and leaves the queue (``__neigh_update``); "use" begins it again, and sends it at
        once (``neigh_event_send``). To delete the entry would do as well, but drop what waits.
        """
        for ifindex, address in self.incomplete(ifindexes):
            with contextlib.suppress(KernelError):  # answered or gone meanwhile
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
        what = f"ask for the neighbour {address} on #{ifindex}"
        self._netlink.request(_RTM_NEWNEIGH, NLM_F_REPLACE, encoded(message), what=what)
