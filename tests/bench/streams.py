# SPDX-License-Identifier: GPL-2.0-or-later
"""Traffic that is watched: an echo every 10 ms, a download, a new connection; each knows when bytes arrived."""

from __future__ import annotations

import contextlib
import itertools
import select
import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

from ..networkmanager.bed import Namespace

#: Seconds between two messages of an interactive stream, and the length of one.
INTERVAL, MESSAGE = 0.01, 32

_BLOCK = bytes(1 << 16)


def _nodelay(end: socket.socket) -> None:
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _as_usual(end: socket.socket) -> None:
    """The congestion control of nearly all machines, whatever this one has; subflows inherit it."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")


def _listener(namespace: Namespace, port: int, protocol: int) -> socket.socket:
    listener = namespace.socket(socket.AF_INET6, socket.SOCK_STREAM, protocol)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _as_usual(listener)
    listener.bind(("::", port))
    listener.listen()
    return listener


class EchoServer:
    """Sends back what it gets, at once. ``once``: it stops listening after the first connection, so joins are refused;
    ``stopped`` is set then.
    """

    def __init__(
        self, namespace: Namespace, port: int, *, protocol: int = socket.IPPROTO_MPTCP, once: bool = False
    ) -> None:
        self._listener = _listener(namespace, port, protocol)
        self._once = once
        self.stopped = threading.Event()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        namespace.bed.at_end(self.close)

    def close(self) -> None:
        """Close it and all its connections."""
        self._wake.close()
        self._thread.join(5)

    def _serve(self) -> None:
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            stack.enter_context(self._listener)
            stack.enter_context(self._woken)
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    end = key.fileobj
                    assert isinstance(end, socket.socket)
                    if end is self._woken:
                        return
                    if end is self._listener:
                        accepted = stack.enter_context(end.accept()[0])
                        _nodelay(accepted)
                        accepted.setblocking(False)
                        selector.register(accepted, selectors.EVENT_READ)
                        if self._once:
                            selector.unregister(end)
                            end.close()
                            self.stopped.set()
                        continue
                    try:
                        data = end.recv(1 << 16)
                        if data:
                            end.sendall(data)
                    except OSError:
                        data = b""
                    if not data:
                        selector.unregister(end)
                        end.close()


class Server:
    """Accepts connections until it is closed, and serves each in a thread of its own."""

    def __init__(self, namespace: Namespace, listener: socket.socket) -> None:
        self._listener = listener
        self._ends = [listener]
        threading.Thread(target=self._accept, daemon=True).start()
        namespace.bed.at_end(self.close)

    def close(self) -> None:
        """Close it and its connections."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def serve(self, end: socket.socket) -> None:
        """Serve one connection; an OSError ends it."""
        raise NotImplementedError

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                end = self._listener.accept()[0]
                self._ends.append(end)
                threading.Thread(target=self._serve, args=(end,), daemon=True).start()

    def _serve(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self.serve(end)


class DownloadServer(Server):
    """Sends as much as it can to whoever connects."""

    def __init__(self, namespace: Namespace, port: int) -> None:
        super().__init__(namespace, _listener(namespace, port, socket.IPPROTO_MPTCP))

    def serve(self, end: socket.socket) -> None:
        """Send."""
        while True:
            end.sendall(_BLOCK)


@dataclass
class Arrivals:
    """When bytes came (seconds of the monotonic clock), and how many each time."""

    times: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def note(self, size: int) -> None:
        """Some came now."""
        self.sizes.append(size)
        self.times.append(time.monotonic())

    def gap(self, begin: float, end: float) -> float:
        """The longest time (s) without a byte between ``begin`` and ``end``, begun silences included."""
        marks = [begin, *(when for when in self.times if begin < when < end), end]
        return max(after - before for before, after in itertools.pairwise(marks))

    def since(self, begin: float) -> bool:
        """Whether any came after ``begin``."""
        return bool(self.times) and self.times[-1] > begin


class Stream:
    """A connection of the machine's whose arrivals are noted by a thread until it is closed."""

    def __init__(self, namespace: Namespace, server: str, port: int) -> None:
        self.arrivals = Arrivals()
        self.error: OSError | None = None
        self.server, self.port = server, port
        self._ended = False
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        self._socket = namespace.socket(family, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        _as_usual(self._socket)
        self._socket.settimeout(10)
        self._socket.connect((server, port))
        _nodelay(self._socket)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        namespace.bed.at_end(self.close)

    def close(self) -> None:
        """End it."""
        self._ended = True
        self._thread.join(5)
        self._socket.close()

    @property
    def alive(self) -> bool:
        """Whether neither end has given it up."""
        return self.error is None

    def _run(self) -> None:
        try:
            self._follow()
        except OSError as error:
            self.error = error

    def _follow(self) -> None:
        raise NotImplementedError


class Echo(Stream):
    """A message each 10 ms, whether or not the ones before came back; ``trips`` are the round-trips (s)."""

    def __init__(self, namespace: Namespace, server: str, port: int) -> None:
        self.trips: list[float] = []
        super().__init__(namespace, server, port)

    def _follow(self) -> None:
        self._socket.setblocking(False)
        waiting = b""
        due = time.monotonic()
        while not self._ended:
            now = time.monotonic()
            if now >= due:
                due = max(due + INTERVAL, now)
                with contextlib.suppress(BlockingIOError):
                    self._socket.send(struct.pack("d", now).ljust(MESSAGE, b"."))
            if not select.select((self._socket,), (), (), max(0.0, due - time.monotonic()))[0]:
                continue
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the other end closed")
            self.arrivals.note(len(data))
            waiting += data
            while len(waiting) >= MESSAGE:
                self.trips.append(time.monotonic() - struct.unpack_from("d", waiting)[0])
                waiting = waiting[MESSAGE:]


class Download(Stream):
    """Takes all that comes."""

    def _follow(self) -> None:
        self._socket.settimeout(0.2)
        while not self._ended:
            try:
                data = self._socket.recv(1 << 18)
            except TimeoutError:
                continue
            if not data:
                raise ConnectionResetError("the other end closed")
            self.arrivals.note(len(data))


class Attempt:
    """One new connection, tried in a thread from ``begin`` on; ``took`` in seconds, None when it failed."""

    def __init__(
        self, namespace: Namespace, server: str, port: int, *, protocol: int = socket.IPPROTO_MPTCP, limit: float = 5
    ) -> None:
        self.begin = time.monotonic()
        self.took: float | None = None
        self.error: OSError | None = None
        self._thread = threading.Thread(target=self._run, args=(namespace, server, port, protocol, limit), daemon=True)
        self._thread.start()

    def _run(self, namespace: Namespace, server: str, port: int, protocol: int, limit: float) -> None:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with namespace.socket(family, socket.SOCK_STREAM, protocol) as end:
            end.settimeout(limit)
            try:
                end.connect((server, port))
                end.sendall(b"hello")
                end.recv(16)
            except OSError as error:
                self.error = error
            else:
                self.took = time.monotonic() - self.begin

    def wait(self) -> Attempt:
        """Wait for its end."""
        self._thread.join()
        return self
