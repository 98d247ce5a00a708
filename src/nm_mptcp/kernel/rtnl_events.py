# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's events for links, addresses, routes and rules, applied to a :class:`~.fib.FIB` as they arrive.

A full dump, on the worker thread, runs beside the events::

    events.begin_dump()
    try:
        fresh = await worker.run(full_dump, rtnetlink)
    except KernelError:
        events.abandon_dump()
        raise
    complete = events.end_dump(fresh)

The subscription exists before the dump begins, and the events until its end are applied to it as well, so nothing is
missed; meanwhile they are applied to the FIB before it, so a lost carrier is never late.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable

from . import rtnl_parse
from .fib import FIB, NO_CHANGES, Changes
from .netlink import NLMSG_OVERRUN, ROUTE, Subscription, messages
from .rtnetlink import Rtnetlink

# linux/rtnetlink.h: RTNLGRP_*
_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE, _IPV6_RULE, _NEXTHOP = (
    1,
    5,
    7,
    8,
    9,
    11,
    19,
    32,
)
_GROUPS = (_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE, _IPV6_RULE)

#: The groups of links and addresses alone.
LINKS_AND_ADDRESSES = (_LINK, _IPV4_IFADDR, _IPV6_IFADDR)

#: Receive buffer in bytes: events of some 20,000 routes.
_RECEIVE_BUFFER = 16 * 1024 * 1024

#: Bytes of the largest datagram, which is one event; that of a link with many virtual functions is large.
_DATAGRAM = 256 * 1024

#: Events read before other callbacks of the loop have their turn (some 5 ms).
_BATCH = 128

#: Such batches read at the end of a full dump at most: as many as the receive buffer holds.
_WAITING = 1024


def full_dump(rtnetlink: Rtnetlink) -> FIB:
    """Dump everything, on the worker thread. Raises :class:`KernelError`."""
    return FIB.of(rtnetlink.links(), rtnetlink.addresses(), rtnetlink.routes(), rtnetlink.rules())


def dump_links(rtnetlink: Rtnetlink) -> FIB:
    """Dump links and addresses alone, for :data:`LINKS_AND_ADDRESSES`. Raises :class:`KernelError`."""
    return FIB.of(rtnetlink.links(), rtnetlink.addresses(), (), ())


class RtnetlinkEvents:
    """A subscription to the kernel's events, in the running asyncio loop.

    ``on_change`` is called after each burst that changed the FIB, ``on_events_lost`` when events were lost (ENOBUFS, or one
    that could not be read): a full dump is due, and :attr:`events_lost` stays true until one is complete. ``groups``: all, or
    :data:`LINKS_AND_ADDRESSES`.
    """

    def __init__(
        self,
        fib: FIB,
        on_change: Callable[[Changes], None],
        on_events_lost: Callable[[], None],
        *,
        groups: tuple[int, ...] = _GROUPS,
    ) -> None:
        self.fib = fib
        self._groups = groups
        #: Whether events were lost since the last complete dump; true before the first.
        self.events_lost = True
        #: Whether :meth:`read` ended before all events were read.
        self.behind = False
        self._on_change = on_change
        self._on_events_lost = on_events_lost
        self._subscription = Subscription()
        self._alarm = Subscription()  #: for links alone, whose events must not wait for thousands of routes'
        self._kept: list[rtnl_parse.Event] | None = None  # events since begin_dump, None outside of a dump
        self._kept_all = True

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Subscribe, in the network namespace of this thread. Raises :class:`KernelError`."""
        what = "subscribe to the kernel's network events"
        everything = self._groups is _GROUPS
        optional = (_NEXTHOP,) if everything else ()  # since 5.3
        self._subscription.open(
            loop, ROUTE, self._groups, self._readable, receive_buffer=_RECEIVE_BUFFER, what=what, optional=optional
        )
        if everything:
            self._alarm.open(loop, ROUTE, (_LINK,), self._alarmed, receive_buffer=_RECEIVE_BUFFER, what=what)

    def close(self) -> None:
        """Unsubscribe."""
        self._subscription.close()
        self._alarm.close()

    def fileno(self) -> int:
        """The socket, -1 when it is closed."""
        return self._subscription.fileno()

    # --- a full dump

    def begin_dump(self) -> None:
        """Call before the dump."""
        self._kept = []
        self._kept_all = True

    def end_dump(self, fresh: FIB) -> bool:
        """Apply a full dump; ``on_change`` is called with the differences.

        Returns whether it is complete: False when events were lost during it, or a resync is due already.
        """
        for _ in range(_WAITING):  # events from before the dump do no harm
            self.read()
            if not self.behind:
                break
        events, self._kept = self._kept or [], None
        changes = self.fib.adopt(fresh, events)
        self.events_lost = not self._kept_all
        if changes:
            self._on_change(changes)
        return not self.events_lost and not self.fib.resync_due

    def abandon_dump(self) -> None:
        """The dump failed: the FIB stays as it is."""
        self._kept = None

    # --- events

    def _readable(self) -> None:
        """Stops at a lost link, so that ``on_change`` acts on it before the events that follow it, perhaps for thousands of
        routes, are read.
        """
        self.read(until_loss=True)

    def _alarmed(self) -> None:
        """Show lost links at once; all other events are applied in order."""
        changes = NO_CHANGES
        # The other socket has these events as well, and handles errors.
        with contextlib.suppress(OSError, ValueError):
            while (data := _received(self._alarm)) is not None:
                for message in messages(data):
                    event = rtnl_parse.event(message)
                    if isinstance(event, rtnl_parse.LinkEvent):
                        changes |= self.fib.anticipate(event)
        if changes:
            self._on_change(changes)

    def read(self, *, until_loss: bool = False) -> None:
        """Read and apply events, up to a bound or until a link is lost; then :attr:`behind` is true."""
        changes = NO_CHANGES
        lost = False
        self.behind = True
        for _ in range(_BATCH):
            if until_loss and changes.lost_links:
                break
            try:
                data = _received(self._subscription)
                if data is None:
                    self.behind = False
                    changes |= self.fib.caught_up()
                    break
                for message in messages(data):
                    if message.type == NLMSG_OVERRUN:
                        raise ValueError("overrun")
                    event = rtnl_parse.event(message)
                    if event is None:
                        continue
                    if self._kept is not None:
                        self._kept.append(event)
                    changes |= self.fib.update(event)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno not in (errno.ENOBUFS, errno.EMSGSIZE):
                    raise
                lost = True
        if lost:
            self.events_lost = True
            self._kept_all = False
        if changes:
            self._on_change(changes)
        if lost:
            self._on_events_lost()


def _received(subscription: Subscription) -> bytes | None:
    """The next datagram from the kernel, None when there is none."""
    while (sock := subscription.socket) is not None:
        try:
            data, _ancillary, flags, sender = sock.recvmsg(_DATAGRAM)
        except BlockingIOError:
            return None
        except InterruptedError:
            continue
        if flags & socket.MSG_TRUNC:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        if sender[0] == 0:  # 0: the kernel; any process may send as well
            return data
    return None
