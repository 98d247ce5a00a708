# SPDX-License-Identifier: GPL-2.0-or-later
"""The path manager's events: connections and subflows that come and go (multicast group ``mptcp_pm_events``).

They tell of live connections, not of endpoints: for those there is no event. CAP_NET_ADMIN is needed.
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

_ROOM = 4 * 1024 * 1024
_BATCH = 512
_TOKEN, _FAMILY, _LOC_ID, _REM_ID, _SADDR4, _SADDR6, _DADDR4, _DADDR6, _SPORT, _DPORT = range(1, 11)
_BACKUP, _ERROR, _FLAGS, _TIMEOUT, _IF_IDX, _RESET_REASON, _RESET_FLAGS, _SERVER_SIDE = range(11, 19)
_FLAG_SERVER_SIDE = 0x2


class EventName(enum.IntEnum):
    """``MPTCP_EVENT_*``; one that is not known yet is OTHER."""

    OTHER = 0
    CREATED = 1  #: a connection: MP_CAPABLE seen
    ESTABLISHED = 2  #: a connection can take subflows
    CLOSED = 3
    ANNOUNCED = 6  #: the peer announced an address
    REMOVED = 7  #: the peer took an address back
    SUBFLOW_ESTABLISHED = 10
    SUBFLOW_CLOSED = 11  #: with ``error`` where it did not end in peace
    SUBFLOW_PRIORITY = 13
    LISTENER_CREATED = 15
    LISTENER_CLOSED = 16


@dataclass(frozen=True, slots=True)
class PathManagerEvent:
    """One event; what it does not tell is None (numbers that have a natural nothing: 0)."""

    name: EventName
    token: int = 0  #: the connection, by its local token
    local_id: int | None = None  #: id of the endpoint on our side, 0 for the initial subflow's
    remote_id: int | None = None
    local: str | None = None
    local_port: int = 0
    remote: str | None = None
    remote_port: int = 0
    ifindex: int = 0  #: the interface that the subflow is bound to
    backup: bool = False  #: the peer wants it used only when no other is left; what we want is not told
    error: int = 0  #: errno of a subflow that was closed: ETIMEDOUT, ECONNRESET, EHOSTUNREACH, ...
    reset_reason: int | None = None  #: MP_TCPRST's reason
    server_side: bool = False


class PathManagerEvents:
    """A subscription to the path manager's events, in the running asyncio loop.

    ``callback`` gets each event, and None when some were lost (a burst was larger than the socket's room): what is
    alive must then be asked for (:func:`nm_mptcp.kernel.sock_diag.subflows`).
    """

    def __init__(self, callback: Callable[[PathManagerEvent | None], None]) -> None:
        self._callback = callback
        self._subscription = Subscription()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Subscribe, in the network namespace of this thread. Raises :class:`KernelError` (``absent``: no MPTCP)."""
        what = "listen to the path manager's events"
        with Netlink(GENERIC) as netlink:
            family = genl.resolve(netlink, genl.MPTCP_PM, what=what)
        group = family.groups.get(genl.MPTCP_PM_EVENTS)
        if group is None:
            raise KernelError(errno.ENOENT, what, "this kernel has no such events (5.12 or newer is needed)")
        self._subscription.open(loop, GENERIC, (group,), self.read, room=_ROOM, what=what)

    def close(self) -> None:
        """Unsubscribe."""
        self._subscription.close()

    def fileno(self) -> int:
        """The socket, -1 when it is closed."""
        return self._subscription.fileno()

    def read(self) -> None:
        """Read what waits, up to a bound; called by the loop."""
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
    """What one message tells. Raises ValueError, struct.error or OSError when it is malformed."""
    (command,) = struct.unpack_from("=B", message.data, message.start)
    told = attributes(message.data, message.start + 4, message.end)
    name = EventName.OTHER
    with contextlib.suppress(ValueError):
        name = EventName(command)
    return PathManagerEvent(
        name=name,
        token=_number(told, _TOKEN, "=I") or 0,
        local_id=_number(told, _LOC_ID, "=B"),
        remote_id=_number(told, _REM_ID, "=B"),
        local=_address(told, _SADDR4, _SADDR6),
        local_port=_number(told, _SPORT, "!H") or 0,
        remote=_address(told, _DADDR4, _DADDR6),
        remote_port=_number(told, _DPORT, "!H") or 0,
        ifindex=_number(told, _IF_IDX, "=i") or 0,
        backup=bool(_number(told, _BACKUP, "=B")),
        error=_number(told, _ERROR, "=B") or 0,
        reset_reason=_number(told, _RESET_REASON, "=I"),
        # An attribute of its own up to 6.17, a flag since.
        server_side=bool(_number(told, _SERVER_SIDE, "=B") or (_number(told, _FLAGS, "=H") or 0) & _FLAG_SERVER_SIDE),
    )


def _number(told: dict[int, bytes], attribute: int, format_: str) -> int | None:
    if attribute not in told:
        return None
    return int(struct.unpack(format_, told[attribute])[0])


def _address(told: dict[int, bytes], ipv4: int, ipv6: int) -> str | None:
    if ipv4 in told:
        return socket.inet_ntop(socket.AF_INET, told[ipv4])
    if ipv6 not in told:
        return None
    address = socket.inet_ntop(socket.AF_INET6, told[ipv6])
    # Of a socket that takes both families, an IPv4 peer.
    return address.removeprefix("::ffff:") if address.startswith("::ffff:") and "." in address else address
