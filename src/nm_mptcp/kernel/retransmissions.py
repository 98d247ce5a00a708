# SPDX-License-Identifier: GPL-2.0-or-later
"""Notifications of TCP retransmissions, by the kernel's tracepoint ``tcp:tcp_retransmit_skb`` in a trace instance of our own.

While nothing is retransmitted there is no wake-up. While much is, there are :data:`RATE` notifications a second, after the
first :data:`BURST`: what is traced in between stays in the instance's small buffer until it is read. The tracepoint covers all
network namespaces; the addresses tell which retransmissions may be ours.

An instance needs root's uid but no capability, and tracefs, which containers do not have. A process that is killed leaves its
instance behind; the next one removes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .tcp_sockets import SocketKey
from .tracefs import PLACES

_log = logging.getLogger(__name__)

#: Notifications a second, and how many may follow each other after :data:`_SHORTEST` when there were none for a while.
RATE, BURST = 2, 5
_SHORTEST = 0.03

#: Seconds between two readings of :class:`RetransmissionPoll`.
_POLL = 1.0

_PREFIX = "nm-mptcp-"
_EVENT = "events/tcp/tcp_retransmit_skb/enable"
_LINE = re.compile(rb" sport=(\d+) dport=(\d+) saddr=(\S+) daddr=(\S+) saddrv6=(\S+) daddrv6=(\S+)")

#: KiB of the ring buffer of each processor: a hundred retransmissions.
_BUFFER = "16"

#: Seconds after which an instance counts as left behind: a younger one may not be opened by its process yet.
_YOUNG = 60.0

#: Bytes read at a time, and how often before the loop goes on: what is left is only more of the same.
_CHUNK, _CHUNKS = 16 * 1024, 16


class Retransmissions:
    """Calls ``on_sockets`` with the sockets that retransmitted."""

    def __init__(self, on_sockets: Callable[[frozenset[SocketKey]], None], places: tuple[Path, ...] = PLACES) -> None:
        self._on_sockets = on_sockets
        self._places = places
        self._instance: Path | None = None
        self._pipe = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._left = float(BURST)  #: notifications left
        self._counted = 0.0  #: when that was computed, by the loop's clock

    @property
    def active(self) -> bool:
        """Whether :meth:`start` was successful and :meth:`stop` was not called since."""
        return self._pipe >= 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to trace. Raises :class:`OSError` where there is no tracefs, or this process may not use it."""
        self._loop = loop
        place = next((place for place in self._places if (place / "instances").is_dir()), None)
        if place is None:
            raise FileNotFoundError(f"no tracefs in {' or '.join(map(str, self._places))}")
        remove_left_over(place)
        self._instance = place / "instances" / f"{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        self._instance.mkdir(0o700)
        try:
            self._write("buffer_size_kb", _BUFFER)
            with contextlib.suppress(OSError):  # since 5.0; before, a reader is woken at once anyway
                self._write("buffer_percent", "0")
            self._pipe = os.open(self._instance / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._write(_EVENT, "1")
        except OSError:
            self.stop()
            raise
        loop.add_reader(self._pipe, self._readable)

    def stop(self) -> None:
        """End tracing, and remove the instance."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pipe >= 0:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1
        if self._instance is not None:
            with contextlib.suppress(OSError):
                self._write(_EVENT, "0")
            with contextlib.suppress(OSError):
                self._instance.rmdir()
            self._instance = None

    def _readable(self) -> None:
        sockets: set[SocketKey] = set()
        try:
            for _ in range(_CHUNKS):
                try:
                    data = os.read(self._pipe, _CHUNK)
                except BlockingIOError:
                    break
                if not data:
                    break
                sockets.update(sockets_in(data))
        except OSError as error:
            _log.debug("tracing retransmissions: %s", error)
        self._pause()
        if sockets:
            self._on_sockets(frozenset(sockets))

    def _pause(self) -> None:
        """Read no more for a while."""
        loop = self._loop
        assert loop is not None
        now = loop.time()
        self._left = min(self._left + (now - self._counted) * RATE, float(BURST)) - 1
        self._counted = now
        loop.remove_reader(self._pipe)
        self._timer = loop.call_later(_SHORTEST if self._left >= 1 else 1 / RATE, self._resume)

    def _resume(self) -> None:
        self._timer = None
        if self._pipe >= 0 and self._loop is not None:
            self._loop.add_reader(self._pipe, self._readable)

    def _write(self, name: str, value: str) -> None:
        assert self._instance is not None
        (self._instance / name).write_text(value, encoding="ascii")


def sockets_in(data: bytes) -> Iterator[SocketKey]:
    """The sockets in the text of ``trace_pipe``; the addresses of IPv4 packets are IPv4, also if the socket is IPv6."""
    for port, peer_port, ipv4, peer4, ipv6, peer6 in set(_LINE.findall(data)):
        yield _address(ipv4, ipv6), int(port), _address(peer4, peer6), int(peer_port)


def _address(ipv4: bytes, ipv6: bytes) -> str:
    address: str = (ipv6 if ipv4 == b"0.0.0.0" else ipv4).decode("ascii", "replace")
    return address.removeprefix("::ffff:") if "." in address else address


def remove_left_over(place: Path) -> None:
    """Remove instances of processes that ended without :meth:`Retransmissions.stop`; one in use is busy, and stays."""
    for instance in (place / "instances").glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - instance.stat().st_mtime > _YOUNG:
                instance.rmdir()


class RetransmissionPoll:
    """The substitute where nothing can be traced: reads each second whether this network namespace retransmitted anything."""

    def __init__(self, on_retransmission: Callable[[], None]) -> None:
        self._on_retransmission = on_retransmission
        self._seen = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def active(self) -> bool:
        """Whether it was started."""
        return self._timer is not None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to poll."""
        self._seen = retransmitted_segments()
        self._timer = loop.call_later(_POLL, self._due, loop)

    def stop(self) -> None:
        """End polling."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(_POLL, self._due, loop)
        now = retransmitted_segments()
        if now != self._seen:
            self._seen = now
            self._on_retransmission()


def retransmitted_segments() -> int:
    """``Tcp: RetransSegs`` of this network namespace (``/proc/net/snmp``), 0 where it cannot be read."""
    try:
        text = Path("/proc/net/snmp").read_text(encoding="ascii")
    except OSError:
        return 0
    names, values = ([*line.split()] for line in text.splitlines() if line.startswith("Tcp:"))
    return int(dict(zip(names, values, strict=True)).get("RetransSegs", "0"))
