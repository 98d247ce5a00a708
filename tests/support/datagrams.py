# SPDX-License-Identifier: GPL-2.0-or-later
"""A socket for datagrams that somebody always reads, as systemd and its journal do: who writes to it is never kept waiting.

Unread, it would take as many as ``net.unix.max_dgram_qlen`` says: ten where systemd did not raise it.
"""

from __future__ import annotations

import queue
import socket
import threading
from pathlib import Path

_MARK = b"\0all before this"


class Datagrams:
    """All that is sent to a new socket at this place, in order, until :meth:`close`."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(place))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._thread = threading.Thread(target=self._read, daemon=True, name=f"reads {place.name}")
        self._thread.start()

    def take(self) -> list[bytes]:
        """What was sent since the last time, up to now."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(_MARK, str(self._place))
        return list(iter(self._received.get, _MARK))

    def close(self) -> None:
        """Read no more, and take the socket away."""
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join(5)
        self._socket.close()
        self._place.unlink(missing_ok=True)

    def _read(self) -> None:
        # Nobody sends an empty one: that is the end.
        while datagram := self._socket.recv(1 << 20):
            self._received.put(datagram)
