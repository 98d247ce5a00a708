# SPDX-License-Identifier: GPL-2.0-or-later
"""A netlink socket: requests, acknowledgements and dumps, independent of pyroute2's version.

Why not pyroute2's own sockets: those of 0.9 do not work inside a running asyncio loop and filter dumps in user space, none
of them reports which attribute was rejected, and they do not notice an interrupted dump. Its message classes build our
requests; answers and events are read by :func:`attributes`, in a fifth of the time for a route.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from ..text import printable
from .errors import KernelError

if TYPE_CHECKING:
    import asyncio  # whoever has a loop has imported it

# linux/netlink.h
ROUTE = 0
SOCK_DIAG = 4
XFRM = 6
GENERIC = 16

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200

#: linux/err.h
_MAX_ERRNO = 4095

_NLMSGERR_ATTR_MSG = 1
_NLMSGERR_ATTR_OFFS = 2

SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_RCVBUFFORCE = 33

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_ATTRIBUTE_TYPE = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

#: The kernel fills at most 32 KiB for a dump, but one message (a link with many virtual functions) may be larger.
_BUFFER = 256 * 1024

#: Seconds to wait for an answer. The kernel answers during the system call; this is for one that is broken.
_TIMEOUT = 30.0

#: The numbers of requests. The kernel's notification has the number of the request that caused it, and wireguard-go reads
#: those of routes up to 65535 as answers to requests of its own, and so misses the change (``sticky_linux.go``).
_FIRST_SEQUENCE, _LAST_SEQUENCE = 0x10000, 0x7FFFFFFF

#: How often a dump is repeated that was interrupted by changes.
_DUMP_TRIES = 8


class Message(NamedTuple):
    """One netlink message: its header's type and flags, and where its payload lies in ``data``."""

    type: int
    flags: int
    sequence: int
    data: bytes
    start: int
    end: int


def messages(data: bytes, offset: int = 0) -> Iterator[Message]:
    """The messages of a datagram from ``offset``. Raises :class:`ValueError` for one that is truncated or malformed."""
    size = len(data)
    while offset < size:
        if size - offset < 16:
            raise ValueError("netlink datagram with a truncated header")
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
        if length < 16 or offset + length > size:
            raise ValueError("netlink message with an impossible length")
        yield Message(kind, flags, sequence, data, offset + 16, offset + length)
        offset += (length + 3) & ~3


def attributes(data: bytes, start: int, end: int) -> dict[int, bytes]:
    """Attributes by type, without its flag bits; of a repeated one the last, as in the kernel (``nla_parse``).

    Raises :class:`ValueError` for one that is malformed.
    """
    found: dict[int, bytes] = {}
    unpack = _ATTRIBUTE.unpack_from
    while end - start >= 4:
        length, kind = unpack(data, start)
        if length < 4 or start + length > end:
            raise ValueError("netlink attribute with an impossible length")
        found[kind & _ATTRIBUTE_TYPE] = data[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def encoded(message: Any) -> bytes:
    """The payload (without the header) of a message built with one of pyroute2's classes."""
    message.encode()
    return bytes(message.data[16:])


def set_receive_buffer(sock: socket.socket, size: int) -> None:
    """Set the size in bytes: beyond ``rmem_max`` with CAP_NET_ADMIN, else up to it."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def join(sock: socket.socket, group: int) -> None:
    """Subscribe to a multicast group."""
    sock.setsockopt(SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)


class Closing:
    """A context manager that calls :meth:`close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        raise NotImplementedError


class Requester(Closing):
    """Requests of one protocol: synchronous, for one thread, opened at first use, in that thread's network namespace.

    Every method that asks the kernel raises :class:`KernelError`.
    """

    PROTOCOL: ClassVar[int]

    def __init__(self) -> None:
        self._netlink = Netlink(self.PROTOCOL)

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()


class Subscription:
    """Multicast groups of a protocol, read in an asyncio loop."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: int,
        groups: Iterable[int],
        on_readable: Callable[[], None],
        *,
        receive_buffer: int,
        what: str,
        optional: Iterable[int] = (),
    ) -> None:
        """Subscribe, in the network namespace of this thread. ``receive_buffer`` is in bytes; ``optional`` are groups that
        older kernels lack. Raises :class:`KernelError` with ``what`` in its text.
        """
        try:
            sock = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol
            )
        except OSError as error:
            raise KernelError(error.errno or 0, what, error.strerror) from error
        try:
            set_receive_buffer(sock, receive_buffer)
            sock.bind((0, 0))
            for group in groups:
                join(sock, group)
            for group in optional:
                with contextlib.suppress(OSError):
                    join(sock, group)
        except OSError as error:
            sock.close()
            raise KernelError(error.errno or 0, what, error.strerror) from error
        self.socket, self._loop = sock, loop
        loop.add_reader(sock.fileno(), on_readable)

    def close(self) -> None:
        """Unsubscribe."""
        if self.socket is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self.socket.fileno())
            self.socket.close()
        self.socket = self._loop = None

    def fileno(self) -> int:
        """The socket, -1 when it is closed."""
        return self.socket.fileno() if self.socket is not None else -1


class Netlink(Closing):
    """A socket for requests: synchronous, for one thread at a time, opened at the first request.

    It works in the network namespace of the thread that made the first request.
    """

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._socket: socket.socket | None = None
        self._sequence = _FIRST_SEQUENCE
        self._buffer = bytearray(0)

    def close(self) -> None:
        """Close the socket; the next request would open another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def request(self, kind: int, flags: int, payload: bytes, *, what: str) -> list[Message]:
        """Send one request, and return the answers when it is acknowledged.

        Raises :class:`KernelError` with ``what`` in its text.
        """
        sock = self._open(what)
        self._send(sock, kind, flags | NLM_F_REQUEST | NLM_F_ACK, (payload,), what)
        return self._answers(sock, what)[0]

    def ask(self, kind: int, payloads: Sequence[bytes], *, what: str) -> list[Message]:
        """Send several requests at once, each of which has one answer; an object that is absent has none.

        Raises :class:`KernelError` with ``what`` in its text.
        """
        if not payloads:
            return []
        sock = self._open(what)
        self._send(sock, kind, NLM_F_REQUEST, payloads, what)
        pending = {self._sequence - number for number in range(len(payloads))}
        found = []
        while pending:
            for message in self._receive(sock, what):
                if message.sequence not in pending:
                    continue  # of a request that timed out
                pending.discard(message.sequence)
                if message.type != NLMSG_ERROR:
                    found.append(message)
                    continue
                try:
                    self._check(message, what)
                except KernelError as error:
                    if not error.absent:
                        self.close()  # further answers are under way
                        raise
        return found

    def dump(self, kind: int, payload: bytes, *, what: str) -> list[Message]:
        """All objects of a kind; repeated when they changed meanwhile (``NLM_F_DUMP_INTR``).

        Raises :class:`KernelError` with ``what`` in its text; EAGAIN when they changed during every one of several tries.
        """
        sock = self._open(what)
        for _ in range(_DUMP_TRIES):
            self._send(sock, kind, NLM_F_REQUEST | NLM_F_DUMP, (payload,), what)
            answers, interrupted = self._answers(sock, what)
            if not interrupted:
                return answers
        raise KernelError(errno.EAGAIN, what, "it kept changing while it was read")

    def _open(self, what: str) -> socket.socket:
        if self._socket is not None:
            return self._socket
        try:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self._protocol)
        except OSError as error:
            raise KernelError(error.errno or 0, what, f"no netlink socket: {error.strerror}") from error
        sock.settimeout(_TIMEOUT)
        # With strict checking (since 4.20) the kernel filters dumps by table and interface.
        for option in (_NETLINK_EXT_ACK, _NETLINK_CAP_ACK, _NETLINK_GET_STRICT_CHK):
            with contextlib.suppress(OSError):
                sock.setsockopt(SOL_NETLINK, option, 1)
        set_receive_buffer(sock, 4 * 1024 * 1024)
        self._buffer = bytearray(_BUFFER)
        self._socket = sock
        return sock

    def _send(self, sock: socket.socket, kind: int, flags: int, payloads: Sequence[bytes], what: str) -> None:
        data = b""
        if self._sequence > _LAST_SEQUENCE - len(payloads):
            self._sequence = _FIRST_SEQUENCE
        for payload in payloads:
            self._sequence += 1
            data += _HEADER.pack(16 + len(payload), kind, flags, self._sequence, 0) + payload
        try:
            sock.sendto(data, (0, 0))
        except OSError as error:
            self.close()
            raise KernelError(error.errno or 0, what, error.strerror) from error

    def dump_by(self, kind: int, payload: bytes, read: Callable[[bytes], int], *, what: str) -> None:
        """A dump whose datagrams ``read`` takes: it returns where the objects at the beginning of one end. It may raise
        :class:`ValueError`, and must not be told of each message: that takes longer than the kernel takes for it.

        Raises :class:`KernelError` with ``what`` in its text.
        """
        sock = self._open(what)
        self._send(sock, kind, NLM_F_REQUEST | NLM_F_DUMP, (payload,), what)
        while not any(self._ends(message, what) for message in self._receive(sock, what, read)):
            pass

    def _answers(self, sock: socket.socket, what: str) -> tuple[list[Message], bool]:
        """The answers, and whether a dump was interrupted."""
        answers: list[Message] = []
        interrupted = False
        while True:
            for message in self._receive(sock, what):
                if message.sequence != self._sequence:
                    continue  # of a request that timed out
                interrupted |= bool(message.flags & NLM_F_DUMP_INTR)
                if self._ends(message, what):
                    return answers, interrupted
                answers.append(message)

    def _ends(self, message: Message, what: str) -> bool:
        """Whether a message ends the answers; raises the error that it tells of."""
        if message.sequence != self._sequence or message.type not in (NLMSG_ERROR, NLMSG_DONE):
            return False
        self._check(message, what)
        return True

    def _receive(self, sock: socket.socket, what: str, read: Callable[[bytes], int] | None = None) -> list[Message]:
        """The messages of a datagram, without the objects that ``read`` takes."""
        try:
            size, _ancillary, flags, _sender = sock.recvmsg_into([self._buffer])
            if flags & socket.MSG_TRUNC:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            data = bytes(memoryview(self._buffer)[:size])
            return list(messages(data, read(data) if read else 0))
        except (OSError, ValueError) as error:
            # Else the remaining answers would be read as those to the next request.
            self.close()
            if isinstance(error, TimeoutError):
                raise KernelError(errno.ETIMEDOUT, what, "the kernel does not answer") from error
            number = error.errno or 0 if isinstance(error, OSError) else errno.EBADMSG
            raise KernelError(number, what, None if isinstance(error, OSError) else str(error)) from error

    @staticmethod
    def _check(message: Message, what: str) -> None:
        """Raise the error of an acknowledgement or of the end of a dump."""
        if message.end - message.start < 4:
            return
        number = min(-_ERROR.unpack_from(message.data, message.start)[0], _MAX_ERRNO)
        if number <= 0:
            return
        text = attribute = None
        # What cannot be read of the explanation is left out: the number says what failed.
        with contextlib.suppress(ValueError, struct.error):
            text, attribute = _explanation(message)
        raise KernelError(number, what, text, attribute=attribute)


def _explanation(message: Message) -> tuple[str | None, int | None]:
    """The text of an error, and the offset of the attribute that it is about (``NETLINK_EXT_ACK``); None for what is missing.

    Raises :class:`ValueError` or :class:`struct.error` for a malformed one.
    """
    if not message.flags & _NLM_F_ACK_TLVS:
        return None, None
    start = message.start + 4
    if message.type == NLMSG_ERROR:
        # The request's header follows, and its payload without NLM_F_CAPPED.
        length = _HEADER.unpack_from(message.data, start)[0]
        start += 16 if message.flags & _NLM_F_CAPPED else (length + 3) & ~3
    found = attributes(message.data, start, message.end)
    text, offset = found.get(_NLMSGERR_ATTR_MSG), found.get(_NLMSGERR_ATTR_OFFS)
    return (
        None if text is None else printable(text.rstrip(b"\0").decode(errors="replace"), longest=None),
        None if offset is None else int(struct.unpack("=I", offset)[0]),
    )
