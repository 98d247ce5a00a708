# SPDX-License-Identifier: GPL-2.0-or-later
"""A small web site that speaks MPTCP, and can tell which of its connections were MPTCP."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from .network import Network

BODY = b"hello from the far side\n"


class Site:
    """Answers each request; ``protocols`` is SO_PROTOCOL of what was accepted: 262 is MPTCP, 6 plain TCP.

    The kernel turns what an MPTCP listener accepts into a plain TCP socket when the other side asked for no MPTCP.
    """

    def __init__(self, network: Network, address: str, port: int = 80) -> None:
        self.protocols: list[int] = []
        self.url = f"http://{address}:{port}/"
        self._listener = network.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((address, port))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            with accepted, contextlib.suppress(OSError):
                self.protocols.append(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL))
                accepted.settimeout(10)
                asked = b""
                while b"\r\n\r\n" not in asked and (part := accepted.recv(4096)):
                    asked += part
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n\r\n"
                accepted.sendall(head.encode() + BODY)
