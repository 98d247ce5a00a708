# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP connection attempts by one link: whether the other end answers at all, also by refusing them.

They are made only to peers that are talked to anyway, while their answers fail to appear.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct

from ..model.state import Family

_SO_BINDTOIFINDEX = 62  # since 5.1

#: The peer itself answered, if only with a reset.
_ANSWERS = frozenset({0, errno.ECONNREFUSED, errno.ECONNRESET})

#: The attempt was on its way, and the kernel or the neighbour resolution gave up, or a router said that it leads nowhere, as
#: one does whose line is dead (kernel: ``icmp_err_convert``, ``icmpv6_err_convert``).
_UNANSWERED = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.EACCES})


class ConnectProbes:
    """Attempts; :attr:`own` are the local addresses and ports of those under way, which are no evidence of other programs."""

    def __init__(self) -> None:
        self.own: set[tuple[str, int]] = set()

    async def answers(self, local: str, ifindex: int, remote: str, port: int, seconds: float) -> bool | None:
        """Whether a peer answers a connection attempt from this address by this interface within so many seconds.

        The connection is reset at once. None if the attempt was not sent.
        """
        loop = asyncio.get_running_loop()
        try:
            sock = socket.socket(Family.of(remote), socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError:
            return None
        with contextlib.closing(sock):
            own: tuple[str, int] | None = None
            try:
                sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, ifindex)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.bind((local, 0))
                own = (local, sock.getsockname()[1])
                self.own.add(own)
                if (begun := sock.connect_ex((remote, port))) != errno.EINPROGRESS:
                    return True if begun in _ANSWERS else None  # with an error at once it was never sent
                async with asyncio.timeout(seconds):
                    await loop.sock_connect(sock, (remote, port))
            except TimeoutError:
                return False
            except OSError as error:
                return True if error.errno in _ANSWERS else False if error.errno in _UNANSWERED else None
            finally:
                if own is not None:
                    self.own.discard(own)
        return True
