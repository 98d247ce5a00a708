# SPDX-License-Identifier: GPL-2.0-or-later
"""The TCP sockets of some local addresses, with what they wait for (socket diagnosis, ``ss -ti``).

A look at all sockets of a busy machine takes mostly the time that objects of them would take. So all are read, by one
``struct`` each, and objects are made of those that tell something: :class:`Look`.

Sources: kernel ``inet_diag.h``, ``tcp.h`` (``struct tcp_info``), ``net/ipv4/inet_diag.c`` (conditions) and
``net/ipv4/tcp.c`` (``tcp_get_info``).
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import NamedTuple

from ..model.state import Family
from .netlink import SOCK_DIAG, Requester
from .sock_diag import (
    GETSOCK,
    INET_DIAG_INFO,
    INET_DIAG_ULP_INFO,
    INET_ULP_INFO_MPTCP,
    READ,
    TOKEN_LOCAL,
    WITH_INFO,
    TCPState,
    all_sockets,
)

_SOCK_DIAG_BY_FAMILY = 20
_ANY_STATE = 0xFFFFFFFF
_SYN_SENT = int(TCPState.SYN_SENT)
_NO_COOKIE = 0xFFFFFFFFFFFFFFFF
_REQUEST = struct.Struct("=BBBxI2s2s16s16sIQ")

#: A message begins with its length and type. Its fixed part: family, state, ports, addresses, interface, cookie; timers,
#: queues and owner follow.
_START = struct.Struct("=IH10x")
_FIXED = struct.Struct("=16xBB2x2s2s16s16sIQ20x")
_KEY_AT, _KEY_END = 20, 56
_ATTRIBUTE = struct.Struct("=HH")
_HEAD = struct.Struct("=I")
_TOKEN = struct.Struct("=HHI")

#: In ``struct tcp_info``: consecutive timeouts, and how often the timeout was doubled since; the timeout (microseconds);
#: packets sent and not acknowledged; of these acknowledged selectively, and retransmitted; milliseconds since the last data
#: that were new and the last acknowledgement; round-trip time (microseconds); that of the receiver; all retransmissions; bytes
#: acknowledged and received; segments sent; the shortest round-trip time (microseconds).
_INFO = struct.Struct("=2xBxB3xI12xII4xI12xII8xI20xI4xI16xQQI8xI")

#: What decides whether a socket tells something. Of the fixed part: length, state, addresses, interface, cookie; of tcp_info
#: with its attribute's header: timeouts, packets not acknowledged and retransmitted, milliseconds, round-trip time, bytes.
_SCAN = "=I13xB6x16s16sIQ20x{gap}xI2xB21xI8xI12xII8xI48xQQ{rest}x"
_SCANNED = 136  #: bytes of tcp_info

#: Milliseconds after which a socket that waits for nothing counts as idle.
_IDLE = 60_000

#: Of the sockets of a local address that wait for nothing, so many that were heard last are told of.
_LATEST = 32

#: Local addresses up to which the kernel is asked for theirs alone: it compares one after the other.
_CONDITIONS = 16
_BYTECODE, _SOURCE, _JUMP = 1, 7, 1

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
    cookie: int  #: identifies the socket
    sacked: int  #: of :attr:`unacked`: acknowledged selectively
    told: float  #: seconds since its peer's last data that were new, infinity: none came

    @property
    def key(self) -> SocketKey:
        """Both ends."""
        return (self.local, self.local_port, self.remote, self.remote_port)


class Look(NamedTuple):
    """What the sockets of some local addresses tell, of all that are not idle for long."""

    #: those that sent again what they wait for, and the subflows of their connections; of the others of each local address
    #: those heard last, and that with the longest round-trip time
    sockets: tuple[TCPSocket, ...] = ()
    acked: Mapping[int, int] = {}  #: of all, by cookie: the bytes that the peer acknowledged so far


class TCPSockets(Requester):
    """Reads sockets: synchronous, for one thread, opened at first use, in that thread's network namespace.

    Every method raises :class:`KernelError`.
    """

    PROTOCOL = SOCK_DIAG

    def look(self, local: Mapping[str, int], resent: Set[SocketKey], is_near: Callable[[str], bool]) -> Look:
        """What the sockets with these local addresses tell. ``local`` has the interface of each; ``resent`` are sockets that
        were seen to send again; the peers for which ``is_near`` are not among those that were heard last.
        """
        scan = _Scan(local, resent, is_near)
        self._read(local, scan.take)
        return scan.look()

    def subflows(self, local: Mapping[str, int]) -> tuple[TCPSocket, ...]:
        """All subflows with these local addresses that are not idle for long."""
        scan = _Scan(local, frozenset(), lambda _: True)
        self._read(local, scan.take)
        return tuple(each for each in scan.subflows() if each.unacked or each.heard <= _IDLE / 1e3)

    def find(self, keys: Mapping[SocketKey, int]) -> tuple[TCPSocket, ...]:
        """Those of the sockets with these ends that exist, each if it is bound to this interface or to none. The kernel looks
        them up, which takes microseconds however many others there are.
        """
        requests = [_request(key, ifindex) for key, ifindex in keys.items()]
        locals_ = {form: key[0] for key in keys for form in packed(key[0])}
        found = []
        for message in self._netlink.ask(_SOCK_DIAG_BY_FAMILY, requests, what=READ):
            at = message.start - _START.size
            layout = _layout(message.data, at, message.end - at)
            local = _FIXED.unpack_from(message.data, at)[4]
            if layout is not None and local in locals_:
                found.append(_socket((at, message.data, layout), locals_[local]))
        return tuple(each for each in found if each.key in keys)  # listeners are found as well

    def _read(self, local: Iterable[str], take: Callable[[bytes], int]) -> None:
        self._netlink.dump_by(GETSOCK, all_sockets() + _condition(local), take, what=READ)


class _Layout(NamedTuple):
    """Where the fields are in messages of one length, in bytes from the beginning of the message."""

    length: int
    size: int  #: to the next message
    head: int  #: the header of the attribute with tcp_info, as a number
    info: int  #: where tcp_info begins
    token: int  #: where the attribute with the token of a subflow begins, 0: it is none
    scan: struct.Struct


#: A socket in a datagram: where it begins, the datagram, the layout.
_Found = tuple[int, bytes, _Layout]


class _Own:
    """A local address, and the sockets with it that wait for nothing."""

    __slots__ = ("address", "ifindex", "latest", "limit", "longest", "near", "slowest")

    def __init__(self, address: str, ifindex: int, near: _Near) -> None:
        self.address = address
        self.ifindex = ifindex
        self.near = near
        self.limit = _IDLE  #: milliseconds since the last answer up to which a socket may be one of the latest
        self.latest: list[tuple[int, _Found]] = []
        self.longest = 0  #: round-trip time, and whose it is
        self.slowest: list[_Found] = []

    def trim(self) -> None:
        """Keep the latest."""
        self.latest = sorted(self.latest, key=lambda each: each[0])[:_LATEST]
        if len(self.latest) == _LATEST:
            self.limit = self.latest[-1][0]


class _Scan:
    """Takes datagrams with sockets, and keeps what tells something."""

    def __init__(self, local: Mapping[str, int], resent: Set[SocketKey], is_near: Callable[[str], bool]) -> None:
        near = {family: _Near(family, is_near) for family in Family}
        self._owns = [_Own(address, ifindex, near[Family.of(address)]) for address, ifindex in local.items()]
        self._own = {form: own for own in self._owns for form in packed(own.address)}
        self._resent = {form for key in resent for form in _keys(key)}
        self._layouts: dict[int, _Layout] = {}
        self._waiting: list[_Found] = []
        self._subflows: list[_Found] = []
        self._acked: dict[int, int] = {}

    def take(self, data: bytes) -> int:
        """Where the sockets at the beginning of a datagram end. Raises :class:`ValueError` for a malformed one."""
        at, end = 0, len(data)
        while end - at >= _START.size:
            length, kind = _START.unpack_from(data, at)
            if kind != GETSOCK:
                break
            if length < _FIXED.size or at + _aligned(length) > end:
                raise ValueError("netlink message with an impossible length")
            layout = self._layouts.get(length)
            if layout is None or layout.head != _HEAD.unpack_from(data, at + layout.info - 4)[0]:
                layout = _layout(data, at, length)
            if layout is None:  # a socket without tcp_info
                at += _aligned(length)
            else:
                self._layouts[length] = layout
                at = self._take(data, at, layout)
        for own in self._owns:
            if len(own.latest) > 2 * _LATEST:
                own.trim()
        return at

    def _take(self, data: bytes, at: int, layout: _Layout) -> int:
        """Take the messages from ``at`` on that have this layout; where they end. All sockets there are come through here, so
        nothing is done that need not be.
        """
        own_of, acked_by, resent = self._own, self._acked, self._resent
        length, step, wanted, is_subflow = layout.length, layout.size, layout.head, layout.token
        rows = memoryview(data)[at : at + (len(data) - at) // step * step]
        for (size, state, local, peer, ifindex, cookie, head, timeouts, unacked, again, data_ago, ack_ago, rtt, acked,
             received) in layout.scan.iter_unpack(rows):  # fmt: skip
            if size != length or head != wanted:
                break
            begin = at
            at += step
            own = own_of.get(local)
            if own is None:
                continue
            if is_subflow:
                self._subflows.append((begin, data, layout))
            # With new data the kernel notes an acknowledgement only where it says something new, too.
            heard = ack_ago if not received or ack_ago < data_ago else data_ago
            if heard > _IDLE and not unacked:
                continue
            acked_by[cookie] = acked
            if unacked and (
                again or timeouts or state == _SYN_SENT or data[begin + _KEY_AT : begin + _KEY_END] in resent
            ):
                self._waiting.append((begin, data, layout))
            elif not ifindex or ifindex == own.ifindex:
                if heard <= own.limit and not own.near[peer]:
                    own.latest.append((heard, (begin, data, layout)))
                if rtt > own.longest and not own.near[peer]:
                    own.longest, own.slowest = rtt, [(begin, data, layout)]
        return at

    def look(self) -> Look:
        """What was kept."""
        tokens = {_token(each) for each in self._waiting if each[2].token}
        kept = [*self._waiting, *(each for each in self._subflows if tokens and _token(each) in tokens)]
        for own in self._owns:
            own.trim()
            kept += [*(found for _, found in own.latest), *own.slowest]
        return Look(self._made(dict.fromkeys(kept)), self._acked)

    def subflows(self) -> tuple[TCPSocket, ...]:
        """All subflows."""
        return self._made(self._subflows)

    def _made(self, kept: Iterable[_Found]) -> tuple[TCPSocket, ...]:
        return tuple(_socket(each, self._own[_FIXED.unpack_from(each[1], each[0])[4]].address) for each in kept)


class _Near(dict[bytes, bool]):
    """Whether a peer is near, by its packed address; each is asked for once."""

    def __init__(self, family: Family, is_near: Callable[[str], bool]) -> None:
        super().__init__()
        self._family = family
        self._is_near = is_near

    def __missing__(self, peer: bytes) -> bool:
        near = self[peer] = self._is_near(_text(peer, self._family))
        return near


def packed(address: str) -> tuple[bytes, ...]:
    """An address in the forms in which the kernel reports it: IPv4 also in IPv6 form."""
    family = Family.of(address)
    value = socket.inet_pton(family, address)
    return (value.ljust(16, b"\0"), _MAPPED + value) if family is Family.IPV4 else (value,)


def _text(value: bytes, family: Family) -> str:
    """An address in text form, of packets of this family."""
    if family is Family.IPV4:
        value = value[12:] if value.startswith(_MAPPED) else value[:4]
    return socket.inet_ntop(family, value)


def _port(port: int) -> bytes:
    return port.to_bytes(2, "big")


def _keys(key: SocketKey) -> Iterator[bytes]:
    """Both ends as they are in a message."""
    own, port, peer, peer_port = key
    for own_form, peer_form in zip(packed(own), packed(peer), strict=False):
        yield _port(port) + _port(peer_port) + own_form + peer_form


def _request(key: SocketKey, ifindex: int) -> bytes:
    own, port, peer, peer_port = key
    return _REQUEST.pack(
        Family.of(own), socket.IPPROTO_TCP, WITH_INFO, _ANY_STATE,
        _port(port), _port(peer_port), packed(own)[0], packed(peer)[0], ifindex, _NO_COOKIE,
    )  # fmt: skip


def _condition(local: Iterable[str]) -> bytes:
    """The attribute that asks for the sockets with these addresses alone (``INET_DIAG_REQ_BYTECODE``); none for many."""
    addresses = [(Family.of(address), packed(address)[0]) for address in local]
    if not 0 < len(addresses) <= _CONDITIONS:
        return b""
    code = b""
    for family, value in reversed(addresses):
        value = value[:4] if family is Family.IPV4 else value  # of IPv6 sockets, too
        compared = struct.pack("=BBxxi", family, len(value) * 8, -1) + value
        size = 4 + len(compared)
        # Met: the jump behind it, to the end. Not met: what follows the jump, or behind the end, which is to say no.
        jump = struct.pack("=BBH", _JUMP, 4, 4 + len(code)) if code else b""
        code = struct.pack("=BBH", _SOURCE, size, size + 4) + compared + jump + code
    return _ATTRIBUTE.pack(4 + len(code), _BYTECODE) + code


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _find(data: bytes, at: int, end: int, kind: int) -> tuple[int, int] | None:
    """Where an attribute's payload begins and ends."""
    while end - at >= 4:
        length, found = _ATTRIBUTE.unpack_from(data, at)
        if length < 4 or at + length > end:
            return None
        if found & 0x3FFF == kind:
            return at + 4, at + length
        at += _aligned(length)
    return None


def _layout(data: bytes, at: int, length: int) -> _Layout | None:
    """The layout of the message at ``at``; None of one without tcp_info."""
    info = _find(data, at + _FIXED.size, at + length, INET_DIAG_INFO)
    if info is None or info[1] - info[0] < _INFO.size:
        return None
    token: tuple[int, int] | None = at + _FIXED.size, at + length
    for kind in (INET_DIAG_ULP_INFO, INET_ULP_INFO_MPTCP, TOKEN_LOCAL):
        token = _find(data, *token, kind) if token is not None else None
    size, begin = _aligned(length), info[0] - at
    scan = struct.Struct(_SCAN.format(gap=begin - 4 - _FIXED.size, rest=size - begin - _SCANNED))
    head = _HEAD.unpack_from(data, info[0] - 4)[0]
    return _Layout(length, size, head, begin, token[0] - 4 - at if token is not None else 0, scan)


def _token(found: _Found) -> int:
    """The token of a subflow's connection, 0: it is none."""
    at, data, layout = found
    if not layout.token:
        return 0
    length, kind, token = _TOKEN.unpack_from(data, at + layout.token)
    return int(token) if length == _TOKEN.size and kind & 0x3FFF == TOKEN_LOCAL else 0


def _socket(found: _Found, local: str) -> TCPSocket:
    at, data, layout = found
    _, state, port, peer_port, _, peer, ifindex, cookie = _FIXED.unpack_from(data, at)
    (timeouts, doubled, timeout, unacked, sacked, again, data_ago, ack_ago, rtt, as_receiver, resent, acked, received, sent,
     shortest) = _INFO.unpack_from(data, at + layout.info)  # fmt: skip
    family = Family.of(local)
    return TCPSocket(
        family,
        local,
        int.from_bytes(port, "big"),
        _text(peer, family),
        int.from_bytes(peer_port, "big"),
        ifindex,
        _token(found),
        state == _SYN_SENT,
        unacked,
        max(timeouts, again),
        timeouts,
        acked,
        (min(data_ago, ack_ago) if received else ack_ago) / 1e3,
        _waited(timeouts, doubled, timeout / 1e6),
        rtt / 1e6,
        (as_receiver if as_receiver and received > acked else rtt) / 1e6,
        shortest / 1e6,
        sent,
        resent,
        cookie,
        sacked,
        data_ago / 1e3 if received else math.inf,
    )


def _waited(timeouts: int, doubled: int, timeout: float) -> float:
    """The sum of the timeouts so far, in seconds. They double, but those of the first SYNs are equal
    (``tcp_syn_linear_timeouts``). A retransmission before any timeout is a tail loss probe, which comes as late as one.
    """
    first: float = timeout / 2 ** min(doubled, 32)
    return timeout - first + max(timeouts - doubled, 0 if doubled else 1) * first
