# SPDX-License-Identifier: GPL-2.0-or-later
"""A TCP connection attempt by one link: whether the other end answers at all, also by refusing it.

It is made only to peers that are talked to anyway, while their answers fail to appear.
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


async def answers(local: str, ifindex: int, remote: str, port: int, seconds: float) -> bool:
    """Whether a peer answers a connection attempt from this address by this interface within so many seconds.

    The connection is reset at once. False also if it cannot be attempted.
    """
    loop = asyncio.get_running_loop()
    try:
        sock = socket.socket(Family.of(remote), socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError:
        return False
    with contextlib.closing(sock):
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, ifindex)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.bind((local, 0))
            async with asyncio.timeout(seconds):
                await loop.sock_connect(sock, (remote, port))
        except TimeoutError:
            return False
        except OSError as error:
            return error.errno in _ANSWERS
    return True
