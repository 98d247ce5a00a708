# SPDX-License-Identifier: GPL-2.0-or-later
"""A tunnel device as OpenVPN makes one: the test holds its other end, and so sees all that goes into it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
from collections import Counter
from typing import TYPE_CHECKING

from .namespaces import network_of
from .uplinks import Packet, read_packet

if TYPE_CHECKING:
    from .bed import Bed

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x1, 0x1000


def tun(name: str, *, blocking: bool = True) -> int:
    """Make a tunnel device in the namespace of this thread; the descriptor of its other end, with which it goes."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | (0 if blocking else os.O_NONBLOCK))
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


class Tunnel:
    """``tun0`` with an address and routes."""

    def __init__(self, bed: Bed, address: str, *routes: str, name: str = "tun0") -> None:
        with network_of(bed.machine.pid):
            self._descriptor = tun(name, blocking=False)
        bed.at_end(self.close)
        bed.machine.run("ip", "address", "add", address, "dev", name)
        bed.machine.run("ip", "link", "set", name, "up")
        for route in routes:
            bed.machine.run("ip", "route", "add", route, "dev", name)
        self._packets: list[Packet] = []

    def sources(self) -> Counter[str]:
        """How many packets went in, by source address."""
        while select.select([self._descriptor], [], [], 0.05)[0]:
            packet = read_packet(os.read(self._descriptor, 1 << 16))
            if packet:
                self._packets.append(packet)
        return Counter(packet.source for packet in self._packets)

    def close(self) -> None:
        """Take the device away."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
