# SPDX-License-Identifier: GPL-2.0-or-later
"""A DHCP server (RFC 2131) whose clients renew after a second: dnsmasq's shortest lease would make a test wait a minute."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

from .namespaces import network_of

DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5
COOKIE = b"\x63\x82\x53\x63"


@dataclass(frozen=True)
class Lease:
    """What a client gets. Durations in seconds."""

    address: str
    prefixlen: int = 24
    routers: tuple[str, ...] = ()
    seconds: int = 3600
    renew_after: int = 1
    vendor: bytes = b""  #: option 43


class LeaseServer:
    """Answers on one interface of a far namespace; ``lease_for`` is asked with each client's hardware address."""

    def __init__(self, pid: int, interface: str, address: str, lease_for: Callable[[str], Lease]) -> None:
        self.address = address
        self.lease_for = lease_for
        self.requests = 0
        with network_of(pid):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # beside the dnsmasq of other interfaces
        self._socket.bind(("", 67))
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._answer, daemon=True, name=f"dhcp {interface}")
        self._thread.start()

    def close(self) -> None:
        """Fall silent."""
        self._wake.close()
        self._thread.join(5)
        self._socket.close()
        self._woken.close()

    def _answer(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket, self._woken], [], [])
            if self._woken in ready:
                return
            data = self._socket.recv(2048)
            options = dict(read_options(data[240:]))
            kind = {DISCOVER: OFFER, REQUEST: ACK}.get(options.get(53, b"\0")[0])
            if kind:
                self.requests += kind == ACK
                renewing = socket.inet_ntoa(data[12:16])
                target = renewing if renewing != "0.0.0.0" else "255.255.255.255"
                with contextlib.suppress(OSError):
                    self._socket.sendto(self._reply(data, kind), (target, 68))

    def _reply(self, asked: bytes, kind: int) -> bytes:
        lease = self.lease_for(asked[28:34].hex(":"))
        server = socket.inet_aton(self.address)
        head = bytes([2]) + asked[1:3] + b"\0" + asked[4:8] + bytes(2) + asked[10:16]
        head += socket.inet_aton(lease.address) + server + bytes(4) + asked[28:44] + bytes(192) + COOKIE
        mask = ipaddress.ip_network(f"0.0.0.0/{lease.prefixlen}").netmask.packed
        options = [
            (53, bytes([kind])),
            (54, server),
            (51, struct.pack("!I", lease.seconds)),
            (58, struct.pack("!I", lease.renew_after)),
            (59, struct.pack("!I", lease.seconds * 7 // 8)),
            (1, mask),
        ]
        if lease.routers:
            options.append((3, b"".join(map(socket.inet_aton, lease.routers))))
        if lease.vendor:
            options.append((43, lease.vendor))
        return head + b"".join(bytes([code, len(value)]) + value for code, value in options) + b"\xff"


def read_options(data: bytes) -> list[tuple[int, bytes]]:
    """The options of a DHCP message, after the cookie."""
    found = []
    while data and data[0] != 255:
        if data[0] == 0:
            data = data[1:]
            continue
        found.append((data[0], data[2 : 2 + data[1]]))
        data = data[2 + data[1] :]
    return found
