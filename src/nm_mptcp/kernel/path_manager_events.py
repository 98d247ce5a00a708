# SPDX-License-Identifier: GPL-2.0-or-later
"""The path manager's events of connections and subflows (multicast group ``mptcp_pm_events``).

There are none of endpoints. CAP_NET_ADMIN is needed.
Source: kernel ``Documentation/netlink/specs/mptcp_pm.yaml`` and ``uapi/linux/mptcp.h``.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import logging
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from . import genl
from .errors import KernelError
from .netlink import GENERIC, Message, Netlink, Subscription, attributes, messages

_log = logging.getLogger(__name__)

_RECEIVE_BUFFER = 4 * 1024 * 1024  # bytes
_BATCH = 512  # datagrams read before other callbacks of the loop have their turn
_TOKEN, _FAMILY, _LOC_ID, _REM_ID, _SADDR4, _SADDR6, _DADDR4, _DADDR6, _SPORT, _DPORT = range(1, 11)
_BACKUP, _ERROR, _FLAGS, _TIMEOUT, _IF_IDX, _RESET_REASON, _RESET_FLAGS, _SERVER_SIDE = range(11, 19)
_FLAG_SERVER_SIDE = 0x2


class EventName(enum.IntEnum):
    """``MPTCP_EVENT_*``; any other is OTHER."""

    OTHER = 0
    CREATED = 1  #: a connection, with MP_CAPABLE
    ESTABLISHED = 2  #: a connection can take subflows
    CLOSED = 3
    ANNOUNCED = 6  #: the peer announced an address (ADD_ADDR)
    REMOVED = 7  #: the peer withdrew an address (RM_ADDR)
    SUBFLOW_ESTABLISHED = 10
    SUBFLOW_CLOSED = 11  #: with ``error`` unless it was closed in order
    SUBFLOW_PRIORITY = 13
    LISTENER_CREATED = 15
    LISTENER_CLOSED = 16


@dataclass(frozen=True, slots=True)
class PathManagerEvent:
    """One event; what it does not contain is None, or 0."""

    name: EventName
    token: int = 0  #: the connection, by its local token
    local_id: int | None = None  #: id of the endpoint on our side, 0 for the initial subflow's
    remote_id: int | None = None
    local: str | None = None
    local_port: int = 0
    remote: str | None = None
    remote_port: int = 0
    ifindex: int = 0  #: the interface that the subflow is bound to
    backup: bool = False  #: the peer has set it to backup; our own flag is not reported
    error: int = 0  #: errno of a subflow that was closed: ETIMEDOUT, ECONNRESET, EHOSTUNREACH, ...
    reset_reason: int | None = None  #: MP_TCPRST's reason
    server_side: bool = False


class PathManagerEvents:
    """A subscription to the path manager's events, in the running asyncio loop.

    ``callback`` gets each event, and None when some were lost (ENOBUFS, or one that could not be read): then live subflows
    are to be listed (:func:`nm_mptcp.kernel.sock_diag.subflows`).
    """

    def __init__(self, callback: Callable[[PathManagerEvent | None], None]) -> None:
        self._callback = callback
        self._subscription = Subscription()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Subscribe, in the network namespace of this thread. Raises :class:`KernelError` (``absent``: no MPTCP)."""
        what = "subscribe to the path manager's events"
        with Netlink(GENERIC) as netlink:
            family = genl.resolve(netlink, genl.MPTCP_PM, what=what)
        group = family.groups.get(genl.MPTCP_PM_EVENTS)
        if group is None:
            raise KernelError(errno.ENOENT, what, "this kernel has no such events (5.12 or newer is needed)")
        self._subscription.open(loop, GENERIC, (group,), self.read, receive_buffer=_RECEIVE_BUFFER, what=what)

    def close(self) -> None:
        """Unsubscribe."""
        self._subscription.close()

    def fileno(self) -> int:
        """The socket, -1 when it is closed."""
        return self._subscription.fileno()

    def read(self) -> None:
        """Read events, up to a bound; called by the loop."""
        for _ in range(_BATCH):
            sock = self._subscription.socket
            if sock is None:
                return
            try:
                data, _ancillary, _flags, sender = sock.recvmsg(65536)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._callback(None)
                continue
            if sender[0] != 0:
                continue
            events: list[PathManagerEvent] = []
            try:
                events += map(parse, messages(data))
            except (ValueError, struct.error, OSError) as error:
                _log.debug("unreadable path manager event: %s", error)
                self._callback(None)
            for event in events:
                self._callback(event)


def parse(message: Message) -> PathManagerEvent:
    """The event of a message. Raises :class:`ValueError`, :class:`struct.error` or :class:`OSError` when it is malformed."""
    (command,) = struct.unpack_from("=B", message.data, message.start)
    attrs = attributes(message.data, message.start + 4, message.end)
    name = EventName.OTHER
    with contextlib.suppress(ValueError):
        name = EventName(command)
    return PathManagerEvent(
        name=name,
        token=_number(attrs, _TOKEN, "=I") or 0,
        local_id=_number(attrs, _LOC_ID, "=B"),
        remote_id=_number(attrs, _REM_ID, "=B"),
        local=_address(attrs, _SADDR4, _SADDR6),
        local_port=_number(attrs, _SPORT, "!H") or 0,
        remote=_address(attrs, _DADDR4, _DADDR6),
        remote_port=_number(attrs, _DPORT, "!H") or 0,
        ifindex=_number(attrs, _IF_IDX, "=i") or 0,
        backup=bool(_number(attrs, _BACKUP, "=B")),
        error=_number(attrs, _ERROR, "=B") or 0,
        reset_reason=_number(attrs, _RESET_REASON, "=I"),
        # Up to 6.17 an attribute, since then a flag.
        server_side=bool(_number(attrs, _SERVER_SIDE, "=B") or (_number(attrs, _FLAGS, "=H") or 0) & _FLAG_SERVER_SIDE),
    )


def _number(attrs: dict[int, bytes], attribute: int, format_: str) -> int | None:
    if attribute not in attrs:
        return None
    return int(struct.unpack(format_, attrs[attribute])[0])


def _address(attrs: dict[int, bytes], ipv4: int, ipv6: int) -> str | None:
    if ipv4 in attrs:
        return socket.inet_ntop(socket.AF_INET, attrs[ipv4])
    if ipv6 not in attrs:
        return None
    address = socket.inet_ntop(socket.AF_INET6, attrs[ipv6])
    # An IPv4 peer of an IPv6 socket.
    return address.removeprefix("::ffff:") if address.startswith("::ffff:") and "." in address else address
