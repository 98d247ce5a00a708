# SPDX-License-Identifier: GPL-2.0-or-later
"""Real MPTCP connections between two namespaces."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from .network import Network


class Echo:
    """An MPTCP connection from this thread's namespace to an echo server in another; closed at the end of ``with``."""

    def __init__(
        self, far: Network, server: str, *, port: int = 5001, source: str = "", socket_family: int | None = None
    ) -> None:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        self._listener = far.socket(family, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((server, port))
        self._listener.listen()
        self._served: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._client = socket.socket(socket_family or family, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        self._client.settimeout(10)
        if source:
            self._client.bind((source, 0))
        mapped = socket_family == socket.AF_INET6 and family == socket.AF_INET
        self._client.connect((f"::ffff:{server}" if mapped else server, port))
        self.echo()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            self._served, _ = self._listener.accept()
            with self._served as served:
                while data := served.recv(65536):
                    served.sendall(data)

    def send(self, data: bytes) -> None:
        """Send something, without waiting for an answer."""
        self._client.sendall(data)

    def echo(self, data: bytes = b"hello") -> None:
        """Send something and get it back; raises OSError when the connection is dead."""
        self.send(data)
        got = b""
        while len(got) < len(data):
            part = self._client.recv(65536)
            if not part:
                raise ConnectionResetError("the connection was closed")
            got += part
        assert got == data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._listener.close()
        if self._served is not None:
            with contextlib.suppress(OSError):
                self._served.shutdown(socket.SHUT_RDWR)  # wakes the thread, where the client's end was not heard of
        self._thread.join(5)


def two_paths(near: Network, far: Network) -> tuple[int, int]:
    """Two veth pairs between the namespaces: v1 (10.1.0.1, 2001:db8:1::1) and v2 (10.2.0.1, 2001:db8:2::1) on our side,
    the same with .2 and ::2 on the other; a server address 10.9.0.1 and 2001:db8:9::1 there, reached by v1, and by v2
    from v2's addresses. Gives our ifindexes.
    """
    near.ip("link set lo up")
    indexes = []
    far.ip("addr add 10.9.0.1/32 dev lo")
    far.ip("addr add 2001:db8:9::1/128 dev lo nodad")
    for number in (1, 2):
        near.ip(f"link add name v{number} type veth peer name v{number} netns {far.path}")
        for side, last in ((near, 1), (far, 2)):
            side.ip(f"link set v{number} up")
            side.ip(f"addr add 10.{number}.0.{last}/24 dev v{number}")
            side.ip(f"addr add 2001:db8:{number}::{last}/64 dev v{number} nodad")
        near.ip(f"route add default via 10.{number}.0.2 dev v{number} metric {number}")
        near.ip(f"-6 route add default via 2001:db8:{number}::2 dev v{number} metric {number}")
        near.ip(f"route add default via 10.{number}.0.2 dev v{number} table 10{number}")
        near.ip(f"-6 route add default via 2001:db8:{number}::2 dev v{number} table 10{number}")
        near.ip(f"rule add from 10.{number}.0.1 lookup 10{number}")
        near.ip(f"-6 rule add from 2001:db8:{number}::1 lookup 10{number}")
        with near.entered():
            indexes.append(socket.if_nametoindex(f"v{number}"))
    far.ip("mptcp limits set subflows 8 add_addr_accepted 8")
    near.ip("mptcp limits set subflows 8 add_addr_accepted 8")
    return indexes[0], indexes[1]
