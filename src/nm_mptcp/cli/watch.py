# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp watch``: links, subflows and their events, live."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import importlib.util
import json
import os
import signal
import stat
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from . import fail

if TYPE_CHECKING:
    from ..watch.events import Event
    from ..watch.observer import Observer
    from ..watch.terminal import Terminal

#: Events that are kept for the screen.
_KEPT = 500

#: Seconds in which several changes are drawn as one.
_TOGETHER = 0.03

_QUIT = (b"q", b"Q", b"\x04")


def options(parser: argparse.ArgumentParser) -> None:
    """``--json``, ``--rates``, ``--lines``, ``--all`` and ``--interval``."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print a line of JSON for each event")
    how.add_argument("--lines", action="store_true", help="print a line for each event, also on a terminal")
    parser.add_argument("--rates", action="store_true", help="with --json: also what each link carries")
    parser.add_argument("--all", action="store_true", help="show also interfaces that have no path")
    parser.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="SECONDS", help="between measurements (default: 1)"
    )
    parser.epilog = (
        "Ends with q, Ctrl-C or SIGTERM. Where the output is not a terminal, or a dumb one, it prints lines of events."
    )


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0.1 <= (seconds := float(text)) <= 3600:
            return seconds
    raise argparse.ArgumentTypeError(f"'{text}' must be 0.1 to 3600 seconds")


def main(arguments: argparse.Namespace) -> int:
    """Watch until a signal or key ends it; reads only, and shows what the kernel allows this user to see."""
    from ..kernel.errors import KernelError

    lines = arguments.json or arguments.lines or not _can_draw(sys.stdout)
    try:
        asyncio.run((_print if lines else _draw)(arguments, sys.stdout))
    except KernelError as error:
        return fail(error)
    except OSError as error:
        if error.errno != errno.EIO:  # the terminal is gone
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _can_draw(stream: TextIO) -> bool:
    from ..report.styles import takes_escapes

    if not takes_escapes(stream):
        return False
    if importlib.util.find_spec("rich") is None:
        fail("note: no rich, so lines of events only: install python3-rich")
        return False
    return True


async def _print(arguments: argparse.Namespace, stream: TextIO) -> None:
    """A line for each event, flushed at once."""
    from ..text import has_unicode, width_of, wrapped
    from ..watch.events import Event, EventType
    from ..watch.observer import Observer

    unicode = has_unicode(stream)

    def write(*lines: str) -> None:
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()

    def on_event(event: Event) -> None:
        if arguments.json:
            write(json.dumps(event.document()))
            return
        width = width_of(stream)
        lines = event.lines(width)
        if event.type is EventType.START:
            lines += wrapped(observer.missing, "", "", width)
        write(*lines if unicode else (line.encode("ascii", "replace").decode() for line in lines))

    def on_sample() -> None:
        if arguments.json and arguments.rates:
            on_event(Event(EventType.RATES, "", {"links": _rates(observer)}, time.time()))

    observer = Observer(on_event, on_sample, interval=arguments.interval)
    await _until_stopped(observer, stream)


def _rates(observer: Observer) -> dict[str, object]:
    found: dict[str, object] = {}
    for link in observer.snapshot.links.values():
        history = observer.traffic.history(link.name)
        if history and not link.loopback:
            rates = history[-1]
            found[link.name] = {
                "in": round(rates.into),
                "out": round(rates.out),
                "mptcp_in": None if rates.mptcp_in is None else round(rates.mptcp_in),
                "mptcp_out": None if rates.mptcp_out is None else round(rates.mptcp_out),
            }
    return found


async def _draw(arguments: argparse.Namespace, stream: TextIO) -> None:
    """The whole terminal, drawn after events and each interval."""
    from ..watch.events import EventType
    from ..watch.observer import Observer
    from ..watch.terminal import Terminal

    loop = asyncio.get_running_loop()
    events: deque[Event] = deque(maxlen=_KEPT)
    pending: list[asyncio.TimerHandle] = []

    def on_event(event: Event) -> None:
        if event.type is not EventType.START:
            events.append(event)
            draw_soon()

    def draw_soon() -> None:
        if not pending:
            pending.append(loop.call_later(_TOGETHER, draw))

    def draw() -> None:
        pending.clear()
        _show(terminal, observer, events, everything=arguments.all)

    def on_resize() -> None:
        terminal.redraw()
        draw_soon()

    def on_stop_key() -> None:
        terminal.pause()
        draw_soon()

    observer = Observer(on_event, draw, interval=arguments.interval)
    with Terminal(stream) as terminal:
        loop.add_signal_handler(signal.SIGWINCH, on_resize)
        loop.add_signal_handler(signal.SIGTSTP, on_stop_key)
        await _until_stopped(observer, stream, terminal.keyboard)


def _show(terminal: Terminal, observer: Observer, events: deque[Event], *, everything: bool) -> None:
    from ..watch import render
    from ..watch.scene import scene

    snapshot = observer.snapshot
    shown = [link.name for link in snapshot.links.values()] if everything else observer.shown
    found = scene(snapshot, observer.traffic, events, time=time.time(), missing=observer.missing, shown=shown)
    terminal.show(render.draw(found, terminal.canvas()))


async def _until_stopped(observer: Observer, stream: TextIO, keyboard: int | None = None) -> None:
    """Observe until a signal, a key, or until a pipe that is written to has no reader any more."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()
    failure: list[BaseException] = []

    def end(*_: object) -> None:
        if not stop.done():
            stop.set_result(None)

    def failed(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """An exception of a callback ends the program; asyncio would only log it, over the screen."""
        error = context.get("exception")
        failure.append(error if isinstance(error, BaseException) else RuntimeError(str(context.get("message"))))
        end()

    loop.set_exception_handler(failed)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)
    if _is_pipe(stream):
        loop.add_reader(stream.fileno(), end)  # a pipe's writing end is readable once the other is closed
    if keyboard is not None:
        loop.add_reader(keyboard, _key, keyboard, end)
    watching = asyncio.ensure_future(observer.run())
    try:
        await asyncio.wait((watching, stop), return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        if failure:
            raise failure[0]
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _key(keyboard: int, end: Callable[[], None]) -> None:
    try:
        pressed = os.read(keyboard, 64)
    except BlockingIOError:
        return
    except OSError:  # the terminal is gone
        pressed = b""
    if not pressed or pressed in _QUIT:
        end()


def _is_pipe(stream: TextIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False
