# SPDX-License-Identifier: GPL-2.0-or-later
"""Many echo streams at once, followed by one thread; each knows when answers came and what it waited for."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from ..networkmanager.bed import Namespace

#: Seconds between two messages of a stream: the waits are known to within about that.
INTERVAL = 0.04

#: Bytes of a message, and messages that may be unanswered: then the program that talks here waits, too, as they do.
_MESSAGE, _UNANSWERED = 32, 250

_BLOCK = bytes(_MESSAGE)

#: The kind of streams that are one TCP connection for all their life.
PLAIN_TCP = "plain TCP"


@dataclass(frozen=True, order=True)
class Name:
    """Which stream it is: the kind of its server, the link that was there when it began, and its number of those."""

    kind: str
    origin: str
    number: int

    @property
    def alike(self) -> tuple[str, str]:
        """What those have in common that are compared."""
        return self.kind, self.origin


@dataclass
class Told:
    """What became of a stream; times are seconds of the monotonic clock."""

    name: Name
    arrivals: list[float] = field(default_factory=list)
    error: str = ""

    def silences(self, end: float) -> list[tuple[float, float]]:
        """Begin and length of each time without an answer, the last one until ``end``."""
        return [(before, after - before) for before, after in itertools.pairwise([*self.arrivals, end])]

    def waits(self, marks: Sequence[float], end: float) -> list[float]:
        """For each time from one mark to the next: the longest silence (s) that began in it, however long it went on."""
        # What is lost at a mark may be missed by a silence that began with the last answer before it.
        begins = [mark - 2 * INTERVAL for mark in marks]
        longest = [0.0] * len(begins)
        for begin, length in self.silences(end):
            place = bisect.bisect_right(begins, begin) - 1
            if place >= 0:
                longest[place] = max(longest[place], length)
        return longest


class _Stream:
    def __init__(self, end: socket.socket, name: Name) -> None:
        self.socket = end
        self.told = Told(name)
        self.sent = self.got = 0

    def say(self) -> None:
        if self.sent - self.got < _UNANSWERED * _MESSAGE:
            with contextlib.suppress(BlockingIOError):
                self.sent += self.socket.send(_BLOCK)

    def hear(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError("the other end closed")
        self.got += len(data)
        self.told.arrivals.append(time.monotonic())


class Crowd:
    """Connect all with :meth:`join`, then :meth:`begin`; :meth:`end` gives what became of each."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._streams: list[_Stream] = []
        self._ended = False
        self._paused: Collection[str] = ()
        self._thread = threading.Thread(target=self._run, daemon=True, name="crowd")
        namespace.bed.at_end(self._close)

    def join(
        self, name: Name, server: str, port: int, *, before_data: Callable[[float], object] = lambda _: None
    ) -> None:
        """One more connection, on which data has gone both ways; ``before_data`` is waited for (s) when it stands."""
        end = self._namespace.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        end.settimeout(10)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        end.connect((server, port))
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        before_data(10)
        end.sendall(_BLOCK)
        left = _MESSAGE
        while left:
            left -= len(end.recv(left))
        end.setblocking(False)
        self._streams.append(_Stream(end, name))

    def begin(self) -> None:
        """Let them all talk."""
        self._thread.start()

    def pause(self, paused: bool, *kinds: str) -> None:
        """Say nothing for a while, as programs of a machine that sleeps: all, or only the streams of these kinds."""
        self._paused = (kinds or {stream.told.name.kind for stream in self._streams}) if paused else ()

    def flows(self, since: float) -> bool:
        """Whether each that has no error got an answer after ``since``, and none waits for one now."""
        now = time.monotonic()
        streams = [stream.told for stream in self._streams if not stream.told.error]
        return all(told.arrivals and told.arrivals[-1] > max(since, now - 3 * INTERVAL) for told in streams)

    def end(self) -> list[Told]:
        """Stop talking; what became of each."""
        self._ended = True
        self._thread.join(10)
        return [stream.told for stream in self._streams]

    def _close(self) -> None:
        self.end()
        for stream in self._streams:
            stream.socket.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for stream in self._streams:
                selector.register(stream.socket, selectors.EVENT_READ, stream)
            # They take turns, so that the kernel's timers are not the same for all.
            turns = itertools.cycle(self._streams)
            step = INTERVAL / len(self._streams)
            due = time.monotonic()
            while not self._ended:
                now = time.monotonic()
                while due <= now:
                    stream = next(turns)
                    due += step
                    if stream.told.name.kind not in self._paused and not stream.told.error:
                        self._try(selector, stream, stream.say)
                for key, _ in selector.select(max(0.0, due - time.monotonic())):
                    self._try(selector, key.data, key.data.hear)

    @staticmethod
    def _try(selector: selectors.BaseSelector, stream: _Stream, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            stream.told.error = error.strerror or str(error)
            selector.unregister(stream.socket)
