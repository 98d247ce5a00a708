# SPDX-License-Identifier: GPL-2.0-or-later
"""MPTCP sockets of this process, and whether they use MPTCP (kernel: ``mptcp.h``, ``net/mptcp/sockopt.c``)."""

from __future__ import annotations

import contextlib
import socket
import struct

_SOL_MPTCP, _MPTCP_INFO = 284, 1
_TCP_IS_MPTCP = 43
_FALLBACK = 1  # MPTCP_INFO_FLAG_FALLBACK
_NO_LINGER = struct.pack("ii", 1, 0)


def uses_mptcp(connection: socket.socket) -> bool:
    """Whether a connected socket still uses MPTCP: TCP_IS_MPTCP (6.10), else MPTCP_INFO (5.16)."""
    with contextlib.suppress(OSError):
        return connection.getsockopt(socket.IPPROTO_TCP, _TCP_IS_MPTCP) == 1
    return (info := information(connection)) is not None and not info[1] & _FALLBACK


def information(connection: socket.socket) -> tuple[int, int] | None:
    """How many additional subflows it has, and its flags (``mptcp_info``); None where it is TCP."""
    try:
        info = connection.getsockopt(_SOL_MPTCP, _MPTCP_INFO, 12)
    except OSError:
        return None
    return (info[0], struct.unpack_from("=I", info, 8)[0]) if len(info) >= 12 else None


def abandon(connection: socket.socket) -> None:
    """Close it with a reset."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    connection.close()


def works_locally() -> bool | None:
    """Whether a connection between two local MPTCP sockets uses MPTCP; None where there is no connection.

    No data is sent, so no further subflow is attempted.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
            try:
                client.settimeout(1)
                client.connect(listener.getsockname())
                return uses_mptcp(client)
            finally:
                abandon(client)
    except OSError:
        return None
