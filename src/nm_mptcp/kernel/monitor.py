# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's events for links, addresses, routes and rules, as they come, into a :class:`~.fib.FIB`.

A full look (dumps, on the worker thread) goes side by side with events::

    monitor.begin_dump()
    try:
        fresh = await loop.run_in_executor(worker, look, rtnetlink)
    except KernelError:
        monitor.abandon_dump()
        raise
    complete = monitor.end_dump(fresh)

The socket is subscribed before the dump begins and events are kept until it is taken in, so nothing falls in between;
meanwhile events act on what was known before, so a lost carrier is never late.
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

#: For those who only want to know of links and addresses.
LINKS_AND_ADDRESSES = (_LINK, _IPV4_IFADDR, _IPV6_IFADDR)

#: Bytes of events that may wait: some 20,000 routes.
_ROOM = 16 * 1024 * 1024

#: A datagram is one event; links with many virtual functions are the largest.
_DATAGRAM = 256 * 1024

#: Events read in one go before other things in the loop get a turn (some 5 ms).
_BATCH = 128

#: Such batches that may wait when a full look ends: all that there is room for.
_WAITING = 1024


def full_dump(rtnetlink: Rtnetlink) -> FIB:
    """A full look, for the worker thread. Raises :class:`KernelError`."""
    return FIB.of(rtnetlink.links(), rtnetlink.addresses(), rtnetlink.routes(), rtnetlink.rules())


def dump_links(rtnetlink: Rtnetlink) -> FIB:
    """A look at links and addresses alone, for :data:`LINKS_AND_ADDRESSES`. Raises :class:`KernelError`."""
    return FIB.of(rtnetlink.links(), rtnetlink.addresses(), (), ())


class Monitor:
    """A subscription to the kernel's events, in the running asyncio loop.

    ``on_change`` is called after each burst that changed the mirror, ``on_lost`` when events were lost (ENOBUFS, or one
    that could not be read): a full look is due, and :attr:`lost` stays true until one is complete. ``groups``: what to
    be told of, all unless :data:`LINKS_AND_ADDRESSES` is given.
    """

    def __init__(
        self,
        fib: FIB,
        on_change: Callable[[Changes], None],
        on_lost: Callable[[], None],
        *,
        groups: tuple[int, ...] = _GROUPS,
    ) -> None:
        self.fib = fib
        self._groups = groups
        #: Whether events were lost since the last complete look; true before the first.
        self.lost = True
        #: Whether more may wait than was read last.
        self.behind = False
        self._on_change = on_change
        self._on_lost = on_lost
        self._subscription = Subscription()
        self._alarm = Subscription()  #: links alone: a loss is not to wait behind thousands of routes
        self._kept: list[rtnl_parse.Event] | None = None  # events since begin_dump, None when there is no look
        self._kept_whole = True

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Subscribe, in the network namespace of this thread. Raises :class:`KernelError`."""
        what = "listen to the kernel's network events"
        everything = self._groups is _GROUPS
        wished = (_NEXTHOP,) if everything else ()  # 5.3
        self._subscription.open(loop, ROUTE, self._groups, self._readable, room=_ROOM, what=what, wished=wished)
        if everything:
            self._alarm.open(loop, ROUTE, (_LINK,), self._alarmed, room=_ROOM, what=what)

    def close(self) -> None:
        """Unsubscribe."""
        self._subscription.close()
        self._alarm.close()

    def fileno(self) -> int:
        """The socket, -1 when it is closed."""
        return self._subscription.fileno()

    # --- a full look

    def begin_dump(self) -> None:
        """Call before the first dump of a full look."""
        self._kept = []
        self._kept_whole = True

    def end_dump(self, fresh: FIB) -> bool:
        """Take in a full look; ``on_change`` is called with the differences. Returns whether it is complete: False when
        events were lost while it was made, or it turned doubtful at once, and another look is due.
        """
        for _ in range(_WAITING):  # what waits in the socket may be older than the look, and does no harm
            self.read()
            if not self.behind:
                break
        events, self._kept = self._kept or [], None
        changes = self.fib.adopt(fresh, events)
        self.lost = not self._kept_whole
        if changes:
            self._on_change(changes)
        return not self.lost and not self.fib.doubtful

    def abandon_dump(self) -> None:
        """The look failed: what was known before stays."""
        self._kept = None

    # --- events

    def _readable(self) -> None:
        """Called by the loop: a lost link is told at once, and what comes with it (thousands of routes, it may be) read after
        others had their turn.
        """
        self.read(until_loss=True)

    def _alarmed(self) -> None:
        """A link is lost as soon as anything says so; what is told before and after it comes in its order."""
        changes = NO_CHANGES
        # What cannot be read is told by the other socket as well.
        with contextlib.suppress(OSError, ValueError):
            while (data := _received(self._alarm)) is not None:
                for message in messages(data):
                    event = rtnl_parse.event(message)
                    if isinstance(event, rtnl_parse.LinkEvent):
                        changes |= self.fib.foresee(event)
        if changes:
            self._on_change(changes)

    def read(self, *, until_loss: bool = False) -> None:
        """Read what waits, up to a bound or to the first loss of a link: :attr:`behind` tells whether more may wait."""
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
            self.lost = True
            self._kept_whole = False
        if changes:
            self._on_change(changes)
        if lost:
            self._on_lost()


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
        if sender[0] == 0:  # others may send to us as well; only the kernel is believed
            return data
    return None
