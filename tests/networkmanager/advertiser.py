# SPDX-License-Identifier: GPL-2.0-or-later
"""An IPv6 router that says exactly what a test tells it to, at that moment: router advertisements (RFC 4861, RFC 4191)."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import struct
import threading
from dataclasses import dataclass, field, replace

from .namespaces import network_of

ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 133, 134
ALL_NODES, ALL_ROUTERS = "ff02::1", "ff02::2"
ICMP6_FILTER = 1


@dataclass(frozen=True)
class Prefix:
    """A prefix information option; lifetimes in seconds."""

    prefix: str
    valid: int = 3600
    preferred: int = 3600


@dataclass(frozen=True)
class Advertisement:
    """What a router says. ``lifetime`` 0: it is no default router (any more)."""

    prefixes: tuple[Prefix, ...] = ()
    lifetime: int = 1800
    preference: str = "medium"
    routes: tuple[tuple[str, int], ...] = ()  #: route information options: prefix, lifetime
    mtu: int | None = None

    def packet(self, hardware_address: bytes) -> bytes:
        """The ICMPv6 message; the kernel fills in the checksum."""
        preference = {"medium": 0, "high": 1, "low": 3}[self.preference] if self.lifetime else 0
        parts = [
            struct.pack("!BBHBBHII", ROUTER_ADVERTISEMENT, 0, 0, 64, preference << 3, self.lifetime, 0, 0),
            struct.pack("!BB6s", 1, 1, hardware_address),
        ]
        if self.mtu is not None:
            parts.append(struct.pack("!BBHI", 5, 1, 0, self.mtu))
        for option in self.prefixes:
            net = ipaddress.IPv6Network(option.prefix)
            head = struct.pack("!BBBBIII", 3, 4, net.prefixlen, 0xC0, option.valid, option.preferred, 0)
            parts.append(head + net.network_address.packed)
        for prefix, lifetime in self.routes:
            net = ipaddress.IPv6Network(prefix)
            parts.append(struct.pack("!BBBBI", 24, 3, net.prefixlen, 0, lifetime) + net.network_address.packed)
        return b"".join(parts)


@dataclass
class Router:
    """A router on one interface of a far namespace. It answers solicitations and speaks when told to."""

    pid: int
    interface: str
    link_local: str
    hardware_address: bytes
    says: Advertisement = field(default_factory=Advertisement)

    def __post_init__(self) -> None:
        with network_of(self.pid):
            self._index = socket.if_nametoindex(self.interface)
            self._speaker = self._open()
            self._listener = self._open()
        self._speaker.bind((self.link_local, 0, 0, self._index))
        only_solicitations = [0xFFFFFFFF] * 8
        only_solicitations[ROUTER_SOLICITATION // 32] &= ~(1 << (ROUTER_SOLICITATION % 32))
        self._listener.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, struct.pack("8I", *only_solicitations))
        group = socket.inet_pton(socket.AF_INET6, ALL_ROUTERS) + struct.pack("I", self._index)
        self._listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._answer, daemon=True, name=f"router {self.interface}")
        self._thread.start()

    def _open(self) -> socket.socket:
        made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode())
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        return made

    def advertise(self, **changes: object) -> None:
        """Say it now to all nodes, and from now on; ``changes`` are fields of :class:`Advertisement`."""
        self.says = replace(self.says, **changes)  # type: ignore[arg-type]
        self._speak()

    def close(self) -> None:
        """Fall silent without a farewell."""
        self._wake.close()
        self._thread.join(5)
        for made in (self._speaker, self._listener, self._woken):
            made.close()

    def _speak(self) -> None:
        self._speaker.sendto(self.says.packet(self.hardware_address), (ALL_NODES, 0, 0, self._index))

    def _answer(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._woken], [], [])
            if self._woken in ready:
                return
            self._listener.recv(2048)
            with contextlib.suppress(OSError):  # the far side's carrier is down: nobody would hear it
                self._speak()
