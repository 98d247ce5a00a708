# SPDX-License-Identifier: GPL-2.0-or-later
"""An MPTCP connection of our own, and whether it speaks MPTCP (kernel: ``mptcp.h``, ``net/mptcp/sockopt.c``)."""

from __future__ import annotations

import contextlib
import socket
import struct

_SOL_MPTCP, _MPTCP_INFO = 284, 1
_TCP_IS_MPTCP = 43
_FALLBACK = 1  # MPTCP_INFO_FLAG_FALLBACK
_NO_LINGER = struct.pack("ii", 1, 0)


def speaks_mptcp(connection: socket.socket) -> bool:
    """Whether a connected socket speaks MPTCP still: TCP_IS_MPTCP (6.10), else MPTCP_INFO (5.16)."""
    with contextlib.suppress(OSError):
        return connection.getsockopt(socket.IPPROTO_TCP, _TCP_IS_MPTCP) == 1
    return (info := information(connection)) is not None and not info[1] & _FALLBACK


def information(connection: socket.socket) -> tuple[int, int] | None:
    """How many additional subflows it has, and its flags (``mptcp_info``); None where it is TCP."""
    try:
        told = connection.getsockopt(_SOL_MPTCP, _MPTCP_INFO, 12)
    except OSError:
        return None
    return (told[0], struct.unpack_from("=I", told, 8)[0]) if len(told) >= 12 else None


def abandon(connection: socket.socket) -> None:
    """Close it at once, without the far end being waited for."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    connection.close()


def speaks_here() -> bool | None:
    """Whether two MPTCP sockets of this machine agree on MPTCP; None where they cannot be connected at all.

    Nothing is sent over it, so no subflow is tried beside it.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
            try:
                client.settimeout(1)
                client.connect(listener.getsockname())
                return speaks_mptcp(client)
            finally:
                abandon(client)
    except OSError:
        return None
