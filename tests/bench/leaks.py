# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes out of an uplink, with the kernel's time of each packet; when the routes moved; traffic that shows it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..networkmanager.bed import Namespace
from ..networkmanager.namespaces import network_of
from ..networkmanager.uplinks import ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, PACKET_OUTGOING, TCP, read_packet
from ..networkmanager.vpn import VPN_SERVER
from .streams import Server

_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_RTM_NEWROUTE, _RTM_NEWRULE = 24, 32
_GROUPS = 0x40 | 0x80  # IPv4 routes and rules
_RTA_OIF = 4


@dataclass(frozen=True)
class Leak:
    """A TCP packet that came out of an uplink and was not the VPN's own."""

    time: float  #: of the wall clock (s)
    size: int  #: bytes, from the IP header on
    source: str
    port: int  #: the server's


class LeakCapture:
    """All TCP packets that the machine sends out by one uplink, the VPN's own aside."""

    def __init__(self, namespace: Namespace, interface: str) -> None:
        with network_of(namespace.pid):
            # No protocol before it is bound: until then it would hear every interface.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)
        namespace.bed.at_end(self._socket.close)

    def take(self) -> list[Leak]:
        """Those since the last time."""
        found = []
        while True:
            try:
                data, ancillary, _, sender = self._socket.recvmsg(1 << 16, 64)
            except BlockingIOError:
                return found
            if sender[2] == PACKET_OUTGOING or sender[1] not in (ETH_P_IP, ETH_P_IPV6):
                continue
            packet = read_packet(data)
            if packet is None or packet.protocol != TCP or packet.destination == VPN_SERVER:
                continue
            seconds, nanoseconds = next(
                struct.unpack("ll", value) for _, kind, value in ancillary if kind == _SO_TIMESTAMPNS
            )
            found.append(Leak(seconds + nanoseconds / 1e9, len(data), packet.source, packet.destination_port))


class Moves:
    """When routes into a device, of half a family or more, and rules came; wall clock."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._socket.bind((0, _GROUPS))
        self.seen: list[float] = []
        threading.Thread(target=self._listen, daemon=True).start()
        namespace.bed.at_end(self._socket.close)

    def _listen(self) -> None:
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except OSError:
                return
            now = time.time()
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                body, data = data[16:length], data[(length + 3) & ~3 :]
                # nm-mptcp's own carry protocol 77.
                if (kind == _RTM_NEWROUTE and body[1] <= 1 and body[5] != 77) or kind == _RTM_NEWRULE:
                    self.seen.append(now)


class Sink(Server):
    """Takes all that anybody sends, and answers with a byte now and then."""

    def __init__(self, namespace: Namespace, port: int) -> None:
        listener = namespace.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::", port))
        listener.listen(64)
        super().__init__(namespace, listener)

    def serve(self, end: socket.socket) -> None:
        """Take and answer."""
        while end.recv(1 << 16):
            end.send(b".")


class Upload:
    """A connection that sends 2 kB each 2 ms (8 Mbit/s), as far as it can."""

    def __init__(self, namespace: Namespace, server: str, port: int) -> None:
        self._socket = namespace.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        self._socket.settimeout(10)
        self._socket.connect((server, port))
        self._socket.setblocking(False)
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        namespace.bed.at_end(self.close)

    def close(self) -> None:
        """End it."""
        self._ended = True
        self._thread.join(5)
        self._socket.close()

    def _run(self) -> None:
        block = bytes(2048)
        while not self._ended:
            time.sleep(0.002)
            with contextlib.suppress(OSError):
                self._socket.send(block)
            with contextlib.suppress(OSError):
                self._socket.recv(1 << 16)


class Newcomers:
    """New connections, one each 25 ms from ``begin`` on; each sends 32 kB in four pieces and stays open."""

    def __init__(self, namespace: Namespace, server: str, port: int, *, begin: float, seconds: float) -> None:
        self.worked = self.failed = 0
        self._ends: list[socket.socket] = []
        self._place = (namespace, server, port)
        self._times = (begin, begin + seconds)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        namespace.bed.at_end(self.close)

    def wait(self) -> None:
        """Wait until the last has begun."""
        self._thread.join()

    def close(self) -> None:
        """Close them."""
        for end in self._ends:
            end.close()

    def _run(self) -> None:
        namespace, server, port = self._place
        begin, end = self._times
        time.sleep(max(0.0, begin - time.time()))
        while time.time() < end:
            client = namespace.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
            self._ends.append(client)
            client.settimeout(2)
            try:
                client.connect((server, port))
                for _ in range(4):
                    client.sendall(bytes(8192))
                    client.recv(1 << 10)
            except OSError:
                self.failed += 1
            else:
                self.worked += 1
            time.sleep(0.025)


def sent(leaks: Sequence[Leak], begin: float, end: float, port: int) -> tuple[int, int]:
    """Packets and bytes to that port in that time."""
    found = [leak.size for leak in leaks if begin <= leak.time < end and leak.port == port]
    return len(found), sum(found)
