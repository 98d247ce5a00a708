# SPDX-License-Identifier: GPL-2.0-or-later
"""Real connections: an echo server and clients, MPTCP or plain TCP, in any namespace of the bed."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from typing import TYPE_CHECKING

from ..support.waits import wait_for
from .bed import SERVER

if TYPE_CHECKING:
    from .bed import Bed, Namespace
    from .uplinks import Links

PORT = 5000


class EchoServer:
    """Sends back what it gets, on every address of its namespace or on one."""

    def __init__(self, namespace: Namespace, port: int = PORT, *, address: str = "::") -> None:
        self._listener = namespace.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        self._listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((address if ":" in address else f"::ffff:{address}", port))
        self._listener.listen()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="echo")
        self._thread.start()
        namespace.bed.at_end(self.close)

    def close(self) -> None:
        """Close it and all its connections."""
        self._wake.close()
        self._thread.join(5)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for each in (self._listener, self._woken):
                selector.register(each, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    ready = key.fileobj
                    assert isinstance(ready, socket.socket)
                    if ready is self._woken:
                        for other in [key.fileobj for key in selector.get_map().values()]:
                            assert isinstance(other, socket.socket)
                            other.close()
                        return
                    if ready is self._listener:
                        selector.register(self._listener.accept()[0], selectors.EVENT_READ)
                        continue
                    try:
                        data = ready.recv(1 << 16)
                    except OSError:
                        data = b""
                    if data:
                        with contextlib.suppress(OSError):
                            ready.sendall(data)
                    else:
                        selector.unregister(ready)
                        ready.close()


class Connection:
    """A client's MPTCP connection to an :class:`EchoServer`."""

    def __init__(self, namespace: Namespace, server: str, *, source: str | None = None, port: int = PORT) -> None:
        self.namespace = namespace
        self.server = server
        self.port = port
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        self._socket = namespace.socket(family, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        namespace.bed.at_end(self._socket.close)
        self._socket.settimeout(10)
        if source:
            self._socket.bind((source, 0))
        self._socket.connect((server, port))
        # A connection is fully established, and may get more subflows, when data has gone both ways.
        self.echo()

    def echo(self, data: bytes = b"is there anybody out there") -> None:
        """Send it and get it back; an OSError when the connection is dead."""
        self._socket.sendall(data)
        got = b""
        while len(got) < len(data):
            piece = self._socket.recv(1 << 16)
            if not piece:
                raise ConnectionResetError("the connection was closed")
            got += piece
        assert got == data

    def subflows(self) -> set[tuple[str, int]]:
        """Local address and port of each established subflow: the same pair later is the same subflow."""
        shown = self.namespace.run("ss", "-Htn", "state", "established", f"dport = :{self.port}")
        found = set()
        for line in shown.splitlines():
            address, _, port = line.split()[2].rpartition(":")
            found.add((address.partition("%")[0].strip("[]"), int(port)))
        return found

    def wait_subflow(self, address: str, *, seconds: float = 10) -> None:
        """Wait for a subflow by this local address."""
        wait_for(
            f"a subflow from {address}",
            lambda: any(local == address for local, _ in self.subflows()),
            seconds=seconds,
        )

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def over_both(bed: Bed, links: Links) -> Connection:
    """A connection to the far server with a subflow on each link."""
    connection = Connection(bed.machine, SERVER)
    for link in (links.wifi, links.lte):
        connection.wait_subflow(link.address)
    return connection


def counter(namespace: Namespace, name: str) -> int:
    """One of the kernel's MPTCP counters in this namespace (``nstat`` calls it ``MPTcpExt`` and ``name``)."""
    lines = [line.split() for line in namespace.run("cat", "/proc/net/netstat").splitlines()]
    names, values = (line for line in lines if line[0] == "MPTcpExt:")
    return int(values[names.index(name)])


def reaches(
    namespace: Namespace, server: str, *, source: str | None = None, port: int = PORT, seconds: float = 3
) -> bool:
    """Whether a plain TCP connection, bound to ``source``, gets an answer."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with namespace.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        try:
            if source:
                client.bind((source, 0))
            client.connect((server, port))
            client.sendall(b"hello")
            return client.recv(16) == b"hello"
        except OSError:
            return False


def send_datagram(namespace: Namespace, server: str, *, source: str | None = None, mark: int = 0) -> None:
    """Send one datagram that nobody answers; that there is no way is no error."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with namespace.socket(family, socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
        if mark:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("I", mark))
        if source:
            client.bind((source, 0))
        client.sendto(b"hello", (server, PORT))
