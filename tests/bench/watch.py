# SPDX-License-Identifier: GPL-2.0-or-later
"""When things happened in the kernel, seen from outside of any tool; times are seconds of the monotonic clock."""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Collection

from ..networkmanager.bed import Namespace
from ..networkmanager.kernel_view import PathManager, attributes

_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 20, 24
_GROUPS = 0x1 | 0x10 | 0x40  # links, IPv4 addresses, IPv4 routes
_LOWER_UP, _UP = 0x10000, 0x1
_MAIN = 254
_SO_RCVBUFFORCE = 33
_NETLINK_GENERIC, _SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 16, 270, 1
_SUBFLOW_CLOSED = 11

#: Seconds between two looks at what the kernel tells nobody.
_EVERY = 0.001

#: The same where nothing happened yet. An endpoint goes some milliseconds after its subflows, of which there is an event.
_SELDOM = 0.005


class Events:
    """The kernel's own events about one interface: when its carrier went or came, its address and default route came."""

    def __init__(self, namespace: Namespace, interface: str) -> None:
        with_name = namespace.ip("link", "show", "dev", interface)
        self._index = int(with_name[0]["ifindex"])
        self._socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)  # thousands of routes may come at once
        self._socket.bind((0, _GROUPS))
        self._news = threading.Condition()
        self.seen: list[tuple[float, str]] = []
        threading.Thread(target=self._listen, daemon=True).start()
        namespace.bed.at_end(self._socket.close)

    def _listen(self) -> None:
        up = True
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except OSError:
                return
            now = time.monotonic()
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                body, data = data[16:length], data[(length + 3) & ~3 :]
                word = ""
                if kind == _RTM_NEWLINK and struct.unpack_from("=i", body, 4)[0] == self._index:
                    flags = struct.unpack_from("=I", body, 8)[0]
                    is_up = flags & (_LOWER_UP | _UP) == _LOWER_UP | _UP
                    word, up = ("" if is_up == up else "back" if is_up else "lost"), is_up
                elif kind == _RTM_NEWADDR and struct.unpack_from("=i", body, 4)[0] == self._index:
                    word = "address"
                elif kind == _RTM_NEWROUTE and body[1] == 0 and body[4] == _MAIN:
                    word = "route"
                if word:
                    with self._news:
                        self.seen.append((now, word))
                        self._news.notify_all()

    def wait(self, word: str, *, after: float, seconds: float = 10) -> float:
        """When that happened first after ``after``."""
        with self._news:
            if not self._news.wait_for(lambda: self.first(word, after=after), seconds):
                raise AssertionError(f"no event {word!r} in {seconds:g} s")
        found = self.first(word, after=after)
        assert found
        return found

    def first(self, word: str, *, after: float) -> float | None:
        """When that happened first after ``after``, None when it did not yet."""
        return next((when for when, what in self.seen if what == word and when > after), None)


def until(question: Callable[[], bool], *, seconds: float) -> float | None:
    """When the answer became true, asked each millisecond; None when it did not in that time."""
    end = time.monotonic() + seconds
    while not question():
        if time.monotonic() > end:
            return None
        time.sleep(_EVERY)
    return time.monotonic()


class EndpointWatch:
    """Looks at the endpoints each millisecond from now on, and notes when each of ``addresses`` had gone.

    As long as ``idle`` says that nothing happened it looks seldom: who looks takes the processor from whom he looks at.
    """

    def __init__(
        self, namespace: Namespace, addresses: Collection[str], *, idle: Callable[[], bool] = lambda: False
    ) -> None:
        self._idle = idle
        self.gone: dict[str, float] = {}
        self._addresses = set(addresses)
        self._path_manager = PathManager(namespace.pid)
        self._ended = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        namespace.bed.at_end(self.close)

    def _watch(self) -> None:
        while not self._ended and len(self.gone) < len(self._addresses):
            there = {endpoint.address for endpoint in self._path_manager.endpoints()}
            now = time.monotonic()
            for address in self._addresses - there:
                self.gone.setdefault(address, now)
            time.sleep(_SELDOM if self._idle() else _EVERY)

    def wait(self, seconds: float) -> bool:
        """Wait until all have gone, at most so long."""
        self._thread.join(seconds)
        return len(self.gone) == len(self._addresses)

    def close(self) -> None:
        """Look no more."""
        self._ended = True
        self._thread.join(5)
        self._path_manager.close()


class Subflows:
    """Established TCP sockets, by socket diagnosis: cheap enough to be asked each millisecond."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)  # NETLINK_SOCK_DIAG
        self._socket.settimeout(5)
        namespace.bed.at_end(self._socket.close)

    def to(self, server: str, port: int) -> set[tuple[str, int]]:
        """Local address and port of each one to that server."""
        family, size = (socket.AF_INET6, 16) if ":" in server else (socket.AF_INET, 4)
        request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 1 << 1) + bytes(48)
        self._socket.send(struct.pack("=IHHII", 16 + len(request), 20, 0x301, 1, 0) + request)
        found: set[tuple[str, int]] = set()
        while True:
            data = self._socket.recv(1 << 16)
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                body, data = data[16:length], data[(length + 3) & ~3 :]
                if kind in (2, 3):
                    return found
                ours, theirs = struct.unpack_from("!HH", body, 4)
                local, remote = (socket.inet_ntop(family, body[at : at + size]) for at in (8, 24))
                if (remote, theirs) == (server, port):
                    found.add((local, ours))


class Closings:
    """When subflows were closed on the machine, as its path manager tells everybody who listens."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, self._group())
        self._times: list[float] = []
        threading.Thread(target=self._listen, daemon=True).start()
        namespace.bed.at_end(self._socket.close)

    def first(self, *, after: float) -> float | None:
        """When the first was closed after ``after``."""
        return next((when for when in list(self._times) if when > after), None)

    def _group(self) -> int:
        body = struct.pack("BBHHH9s3x", 3, 1, 0, 13, 2, b"mptcp_pm")  # CTRL_CMD_GETFAMILY by name
        self._socket.send(struct.pack("IHHII", 16 + len(body), 16, 1, 1, 0) + body)
        told = dict(attributes(self._socket.recv(1 << 16)[20:]))
        groups = [dict(attributes(group)) for _, group in attributes(told[7])]
        return next(int.from_bytes(group[2], sys.byteorder) for group in groups if group[1] == b"mptcp_pm_events\0")

    def _listen(self) -> None:
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except OSError:
                return
            if data[16] == _SUBFLOW_CLOSED:
                self._times.append(time.monotonic())
