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
#: packets sent and not acknowledged; of these retransmitted; milliseconds since the last data and the last acknowledgement;
#: round-trip time (microseconds); that of the receiver; all retransmissions; bytes acknowledged and received; segments sent;
#: the shortest round-trip time (microseconds).
_INFO = struct.Struct("=2xBxB3xI12xI8xI12xII8xI20xI4xI16xQQI8xI")

#: Milliseconds after which a socket that waits for nothing counts as idle.
_IDLE = 60_000

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
    heard: float  #: seconds since its peer's last packet; meaningless while ``connecting``
    waited: float  #: seconds since it first sent what it waits for, by its timeouts
    rtt: float  #: smoothed round-trip time in seconds, 0: not measured
    trip: float  #: the round-trip time in the direction of most data, in seconds, 0: not measured
    shortest: float  #: the shortest round-trip time of late, in seconds
    sent: int  #: segments sent so far
    resent: int  #: segments sent again so far

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
    """The sockets with these local addresses (text by :func:`packed` form), without those that are idle for long."""
    before = _MESSAGE.size  #: bytes before tcp_info, the same in nearly all answers of a kernel
    for message in answers:
        data, start = message.data, message.start
        family, state, _, _, port, peer_port, own, peer, ifindex = _MESSAGE.unpack_from(data, start)
        text = local.get(own)
        if text is None:
            continue
        before = _info_at(data, start, message.end, before)
        if not before:
            before = _MESSAGE.size
            continue
        (timeouts, doubled, timeout, unacked, again, data_ago, ack_ago, rtt, as_receiver, resent, acked, received, sent,
         shortest) = _INFO.unpack_from(data, start + before + 4)  # fmt: skip
        # The kernel notes an acknowledgement only where it says something new.
        heard = min(data_ago, ack_ago) if received else ack_ago
        if not unacked and heard > _IDLE:
            continue
        if family == socket.AF_INET6 and peer.startswith(_MAPPED):
            family, peer = socket.AF_INET, peer[12:]
        yield TCPSocket(
            Family(family),
            text,
            int.from_bytes(port, "big"),
            socket.inet_ntop(family, peer[:4] if family == socket.AF_INET else peer),
            int.from_bytes(peer_port, "big"),
            ifindex,
            _token(data, start + before, message.end),
            state == TCPState.SYN_SENT,
            unacked,
            max(timeouts, again),
            timeouts,
            acked,
            heard / 1e3,
            _waited(timeouts, doubled, timeout / 1e6),
            rtt / 1e6,
            (as_receiver if as_receiver and received > acked else rtt) / 1e6,
            shortest / 1e6,
            sent,
            resent,
        )


def _info_at(data: bytes, start: int, end: int, guess: int) -> int:
    """The offset of the attribute with tcp_info from ``start``; 0: it has none. ``guess`` is where it may be."""
    for offset in (guess, _MESSAGE.size):
        at = start + offset
        while end - at >= 4:
            length, kind = _ATTRIBUTE.unpack_from(data, at)
            if kind == _INET_DIAG_INFO:
                return at - start if length >= 4 + _INFO.size else 0
            if length < 4 or offset != _MESSAGE.size:
                break
            at += (length + 3) & ~3
    return 0


def _token(data: bytes, at: int, end: int) -> int:
    """The token of a subflow, whose attributes follow tcp_info; 0: it is none."""
    while end - at >= 4:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if kind & 0x3FFF == _INET_DIAG_ULP_INFO:
            return token_of(data[at + 4 : at + length])
        if length < 4:
            break
        at += (length + 3) & ~3
    return 0


def _waited(timeouts: int, doubled: int, timeout: float) -> float:
    """The sum of the timeouts so far, in seconds. They double, but those of the first SYNs are equal
    (``tcp_syn_linear_timeouts``). A retransmission before any timeout is a tail loss probe, which comes as late as one.
    """
    first: float = timeout / 2 ** min(doubled, 32)
    return timeout - first + max(timeouts - doubled, 0 if doubled else 1) * first
