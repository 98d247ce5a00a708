# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel has, seen without the product's own code: endpoints and limits by raw generic netlink, the rest by ``ip``."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .namespaces import network_of

NETLINK_GENERIC = 16
GENL_ID_CTRL = 16
NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300

FLAG_NAMES = {1: "signal", 2: "subflow", 4: "backup", 8: "fullmesh", 16: "implicit", 32: "laminar"}


@dataclass(frozen=True, order=True)
class Endpoint:
    """An MPTCP endpoint as the kernel tells it."""

    address: str
    device: str
    flags: frozenset[str]
    id: int
    port: int = 0


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The netlink attributes in ``data``: type and payload."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


class PathManager:
    """The ``mptcp_pm`` family of the network namespace of ``pid``."""

    def __init__(self, pid: int) -> None:
        with network_of(pid):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self._socket.bind((0, 0))
        self._socket.settimeout(5)
        self._pid = pid
        self._sequence = 0
        (reply,) = self._ask(GENL_ID_CTRL, 3, attribute(2, b"mptcp_pm\0"))
        self._family = next(struct.unpack("H", value)[0] for kind, value in attributes(reply) if kind == 1)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints, in the kernel's order."""
        with network_of(self._pid):
            names = dict(socket.if_nameindex())
        found = []
        for reply in self._ask(self._family, 3, b"", dump=True):
            for _, endpoint in attributes(reply):
                told = dict(attributes(endpoint))
                family, binary = (socket.AF_INET, told[3]) if 3 in told else (socket.AF_INET6, told[4])
                address = socket.inet_ntop(family, binary)
                bits = struct.unpack("I", told.get(6, bytes(4)))[0]
                index = struct.unpack("i", told[7])[0] if 7 in told else 0
                flags = frozenset(name for bit, name in FLAG_NAMES.items() if bits & bit)
                device = names.get(index, str(index) if index else "")
                port = struct.unpack("H", told[5])[0] if 5 in told else 0
                found.append(Endpoint(address, device, flags, told[2][0], port))
        return tuple(found)

    def delete(self, number: int) -> None:
        """Delete the endpoint with that id; returns when the kernel has acknowledged it."""
        self._ask(self._family, 2, attribute(1 | 0x8000, attribute(2, struct.pack("B", number))))

    def limits(self) -> dict[str, int]:
        """``subflows`` and ``add_addr_accepted``."""
        (reply,) = self._ask(self._family, 6, b"")
        told = {kind: struct.unpack("I", value)[0] for kind, value in attributes(reply)}
        return {"subflows": told[3], "add_addr_accepted": told[2]}

    def _ask(self, family: int, command: int, payload: bytes, *, dump: bool = False) -> list[bytes]:
        self._sequence += 1
        body = struct.pack("BBH", command, 1, 0) + payload
        flags = REQUEST | (DUMP if dump else ACK)
        self._socket.send(struct.pack("IHHII", 16 + len(body), family, flags, self._sequence, 0) + body)
        replies: list[bytes] = []
        while True:
            data = self._socket.recv(1 << 16)
            while data:
                length, kind, _, sequence, _ = struct.unpack_from("IHHII", data)
                message, data = data[16:length], data[(length + 3) & ~3 :]
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_DONE:
                    return replies
                if kind == NLMSG_ERROR:
                    error = -struct.unpack_from("i", message)[0]
                    if error:
                        raise OSError(error, f"mptcp_pm command {command}")
                    return replies
                replies.append(message[4:])
