# SPDX-License-Identifier: GPL-2.0-or-later
"""All TCP sockets of some local addresses, with what they wait for (socket diagnosis, ``ss -ti``).

Sources: kernel ``inet_diag.h``, ``tcp.h`` (``struct tcp_info``) and ``net/ipv4/tcp.c`` (``tcp_get_info``).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..model.state import Family
from .netlink import Message
from .sock_diag import TCPState, token_of

#: The fixed part of an answer: family, state, timer, retransmissions, ports, addresses, interface; queues and owner follow.
_MESSAGE = struct.Struct("=BBBB2s2s16s16sI8x20x")
_ATTRIBUTE = struct.Struct("=HH")
_INET_DIAG_INFO, _INET_DIAG_ULP_INFO = 2, 19

#: In ``struct tcp_info``: consecutive timeouts, and how often the timeout was doubled since; the timeout (microseconds);
#: packets sent and not acknowledged; of these retransmitted; milliseconds since the last acknowledgement; round-trip time
#: (microseconds); bytes acknowledged.
_INFO = struct.Struct("=2xBxB3xI12xI8xI16xI8xI48xQ")

#: The prefix of an IPv4 address in IPv6 form.
_MAPPED = bytes(10) + b"\xff\xff"


#: Local address and port, remote address and port.
SocketKey = tuple[str, int, str, int]


class TCPSocket(NamedTuple):
    """A TCP socket, plain or a subflow."""

    family: Family  #: of its packets (IPv4 for an IPv4 peer of an IPv6 socket)
    local: str
    local_port: int
    remote: str
    remote_port: int
    ifindex: int  #: the interface that it is bound to, 0: none
    token: int  #: of its MPTCP connection, 0: it is no subflow
    connecting: bool  #: its SYN was not answered yet
    unacked: int  #: packets that were sent and not acknowledged
    retransmitted: int  #: how often what it waits for was sent again
    timeouts: int  #: how often in a row nothing more was acknowledged in time
    acked: int  #: bytes that its peer acknowledged so far
    heard: (
        float  #: seconds since its peer's last acknowledgement, also of nothing new; meaningless while ``connecting``
    )
    waited: float  #: seconds since it first sent what it waits for, by its timeouts
    rtt: float  #: smoothed round-trip time in seconds, 0: not measured

    @property
    def key(self) -> SocketKey:
        """Both ends."""
        return (self.local, self.local_port, self.remote, self.remote_port)


def packed(address: str) -> tuple[bytes, ...]:
    """A local address in the forms in which the kernel reports it: IPv4 also in IPv6 form."""
    family = Family.of(address)
    value = socket.inet_pton(family, address)
    return (value.ljust(16, b"\0"), _MAPPED + value) if family is Family.IPV4 else (value,)


def parse(answers: list[Message], local: Mapping[bytes, str]) -> Iterator[TCPSocket]:
    """The sockets with these local addresses: text by :func:`packed` form."""
    for message in answers:
        data, start = message.data, message.start
        family, state, _, _, port, peer_port, own, peer, ifindex = _MESSAGE.unpack_from(data, start)
        text = local.get(own)
        if text is None:
            continue
        info = layer = b""
        start += _MESSAGE.size
        while message.end - start >= 4:
            length, kind = _ATTRIBUTE.unpack_from(data, start)
            if length < 4:
                break
            if kind == _INET_DIAG_INFO:
                info = data[start + 4 : start + length]
            elif kind & 0x3FFF == _INET_DIAG_ULP_INFO:
                layer = data[start + 4 : start + length]
            start += (length + 3) & ~3
        if len(info) < _INFO.size:
            continue
        timeouts, doubled, timeout, unacked, again, heard, rtt, acked = _INFO.unpack_from(info)
        if family == socket.AF_INET6 and peer.startswith(_MAPPED):
            family, peer = socket.AF_INET, peer[12:]
        yield TCPSocket(
            Family(family),
            text,
            int.from_bytes(port, "big"),
            socket.inet_ntop(family, peer[:4] if family == socket.AF_INET else peer),
            int.from_bytes(peer_port, "big"),
            ifindex,
            token_of(layer) if layer else 0,
            state == TCPState.SYN_SENT,
            unacked,
            max(timeouts, again),
            timeouts,
            acked,
            heard / 1e3,
            _waited(timeouts, doubled, timeout / 1e6),
            rtt / 1e6,
        )


def _waited(timeouts: int, doubled: int, timeout: float) -> float:
    """The sum of the timeouts so far, in seconds. They double, but those of the first SYNs are equal
    (``tcp_syn_linear_timeouts``). A retransmission before any timeout is a tail loss probe, which comes as late as one.
    """
    first: float = timeout / 2 ** min(doubled, 32)
    return timeout - first + max(timeouts - doubled, 0 if doubled else 1) * first
