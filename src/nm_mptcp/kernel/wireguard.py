# SPDX-License-Identifier: GPL-2.0-or-later
"""WireGuard's own packets: the ports of the kernel's module (generic netlink), and the peers of programs that speak it
(wireguard-go, boringtun), by their configuration protocol (https://www.wireguard.com/xplatform/).

Neither announces a change. So they are read again at each look, but in a storm of events for a twentieth of the time at most.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..fault_log import FaultLog
from ..model.state import Link, WireGuard
from .errors import KernelError
from .genl import resolve
from .netlink import GENERIC, Requester, attributes

_log = logging.getLogger(__name__)

#: Kinds of links, and the kernel's families of the same names: AmneziaWG is WireGuard in disguise.
_KINDS = frozenset({"wireguard", "amneziawg"})

# linux/wireguard.h
_CMD_GET_DEVICE, _VERSION = 0, 1
_IFINDEX, _LISTEN_PORT = 1, 6

#: Where programs listen for their configuration, by the names of their links.
_SOCKETS = tuple(Path("/run", kind) for kind in sorted(_KINDS))

#: Seconds to wait for such a program: a look must not wait for one that does not answer. And after how many seconds it is asked
#: again, doubled each time, and their maximum.
_TIMEOUT = 0.05
_RETRY = (0.5, 60.0)

#: Bytes of a program's answer that are read.
_LONGEST = 1 << 20

#: A link with more peers is a server's, which others reach by an address that it must keep.
_MAX_PEERS = 16

#: Seconds between two readings while no link changes; and how many times the duration of the last one, since a tunnel may have
#: thousands of prefixes.
_PAUSE, _SHARE = 0.03, 20

_DENIED = frozenset({errno.EPERM, errno.EACCES})


class WireGuardLinks(Requester):
    """Reads WireGuard's links: synchronous, for one thread, opened at first use, in that thread's network namespace."""

    PROTOCOL = GENERIC

    def __init__(self, sockets: tuple[Path, ...] = _SOCKETS) -> None:
        """``sockets``: the folders in which programs listen."""
        super().__init__()
        self._sockets = sockets
        self._faults = FaultLog(_log)
        self._links: Mapping[int, Link] | None = None
        self._next = 0.0  #: when it is read again, in seconds of ``time.monotonic``
        self._known: WireGuard | None = WireGuard()
        self._families: dict[str, int] = {}  #: ids by name; read again after a link changed, as is all of this
        #: the sockets of programs that did not answer: when to ask again, and the delay after the next failure
        self._silent: dict[Path, tuple[float, float]] = {}

    def look(self, links: Mapping[int, Link], *, at_once: bool = False) -> WireGuard | None:
        """How to recognize the packets of all of these links; None when it cannot be read. ``at_once``: what was last read."""
        begin = time.monotonic()
        if at_once or (links is self._links and begin < self._next):
            return self._known
        if links is not self._links:
            self._links = links
            self._families.clear()
            self._silent.clear()
        self._known = self._read(links)
        end = time.monotonic()
        self._next = end + max(_PAUSE, _SHARE * (end - begin))
        return self._known

    def _read(self, links: Mapping[int, Link]) -> WireGuard | None:
        try:
            ports = frozenset(self._ports(link for link in links.values() if link.kind in _KINDS and link.up))
            peers = frozenset(self._peers(link.name for link in links.values() if link.kind == "tun" and link.up))
        except (KernelError, OSError, ValueError, struct.error) as error:
            if getattr(error, "errno", 0) not in _DENIED:
                self._faults.report("look", f"{error}; rules for WireGuard's own packets stay as they are")
            return None
        self._faults.clear("look")
        return WireGuard(ports, peers)

    def _ports(self, links: Iterable[Link]) -> Iterator[int]:
        """The ports of the kernel's links."""
        for link in links:
            kind = str(link.kind)
            what = f"read the WireGuard interface {link.name}"
            if kind not in self._families:
                self._families[kind] = resolve(self._netlink, kind, what=what).id
            body = struct.pack("=BBHHHI", _CMD_GET_DEVICE, _VERSION, 0, 8, _IFINDEX, link.index)
            try:
                answers = self._netlink.dump(self._families[kind], body, what=what)
            except KernelError as error:
                if error.errno == errno.ENODEV:
                    continue
                raise
            # Further messages have more of the peers alone.
            for answer in answers[:1]:
                port = attributes(answer.data, answer.start + 4, answer.end).get(_LISTEN_PORT)
                if port is not None and any(port):
                    yield struct.unpack("=H", port)[0]

    def _peers(self, names: Iterable[str]) -> Iterator[str]:
        """The peers' addresses of links that a program drives."""
        for path in (folder / f"{name}.sock" for name in names for folder in self._sockets):
            if not path.exists():
                continue
            try:
                answer = self._answer(path)
            except TimeoutError:
                raise TimeoutError(f"the program at {path} does not answer") from None
            except (ConnectionRefusedError, FileNotFoundError):
                continue  # it ended
            peers = list(endpoints(answer))
            if len(peers) <= _MAX_PEERS:
                yield from peers

    def _answer(self, path: Path) -> str:
        """The answer of a program, if it is time to ask it. Raises :class:`OSError`, :class:`TimeoutError`."""
        now = time.monotonic()
        due, delay = self._silent.get(path, (now, _RETRY[0]))
        if now < due:
            raise TimeoutError
        try:
            answer = _ask(path)
        except TimeoutError:
            self._silent[path] = now + delay, min(2 * delay, _RETRY[1])
            raise
        self._silent.pop(path, None)
        return answer


def _ask(path: Path) -> str:
    """The configuration of the link, which ends by an empty line. Raises :class:`OSError`, :class:`TimeoutError`."""
    answer = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(_TIMEOUT)
        connection.connect(str(path))
        connection.sendall(b"get=1\n\n")
        while len(answer) < _LONGEST and not answer.endswith(b"\n\n"):
            data = connection.recv(65536)
            if not data:
                break
            answer += data
    return answer.decode("ascii", "replace")


def endpoints(answer: str) -> Iterator[str]:
    """The addresses of the peers in an answer to ``get=1``. Raises :class:`ValueError` when it is malformed."""
    for line in answer.splitlines():
        key, _, value = line.partition("=")
        if key == "endpoint":
            host = value.rpartition(":")[0].strip("[]").partition("%")[0]
            address = ipaddress.ip_address(host)
            yield str(getattr(address, "ipv4_mapped", None) or address)
