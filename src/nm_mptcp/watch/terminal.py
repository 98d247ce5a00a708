# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal that is drawn on, and is afterwards as it was before."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from ..report.styles import Line, render, wants_colour
from ..text import NARROWEST
from .render import Canvas

# ECMA-48 and xterm's: the alternate screen, the cursor, lines that are not continued on the next.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _TO_END_OF_LINE, _TO_END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def has_unicode(stream: TextIO) -> bool:
    """Whether it takes more than ASCII."""
    return (stream.encoding or "").lower().replace("-", "") in ("utf8", "utf8sig")


class Terminal:
    """The alternate screen of a terminal. A context manager, that leaves it as it was however it is left."""

    def __init__(self, stream: TextIO, *, colour: bool | None = None) -> None:
        """``colour``: None for what the environment says (``NO_COLOR``)."""
        self._stream = stream
        self._colour = wants_colour() if colour is None else colour
        self._unicode = has_unicode(stream)
        self._modes: list[Any] | None = None
        self._before = ""
        self._entered = False

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    @property
    def keyboard(self) -> int | None:
        """The descriptor that keys come from, each at once; None where standard input is no terminal."""
        return sys.stdin.fileno() if self._modes is not None else None

    def enter(self) -> None:
        """Take the screen."""
        self._entered = True
        with contextlib.suppress(OSError, ValueError, termios.error):
            descriptor = sys.stdin.fileno()
            if os.isatty(descriptor):
                modes = termios.tcgetattr(descriptor)
                quiet = [*modes[:3], modes[3] & ~(termios.ECHO | termios.ICANON), *modes[4:]]
                # A job in the background that sets them would be stopped.
                if os.tcgetpgrp(descriptor) == os.getpgrp():
                    termios.tcsetattr(descriptor, termios.TCSADRAIN, quiet)
                    self._modes = modes
        self._before = ""
        self._stream.write(_ENTER)
        self._stream.flush()

    def leave(self) -> None:
        """Give it back."""
        if not self._entered:
            return
        self._entered = False
        try:
            with contextlib.suppress(OSError, ValueError):  # a terminal that is gone needs nothing
                self._stream.write(_LEAVE)
                self._stream.flush()
        finally:
            if self._modes is not None:
                with contextlib.suppress(OSError, ValueError, termios.error):
                    termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._modes)
                self._modes = None

    def pause(self) -> None:
        """Stop this process, as the terminal's stop key asks for; the screen is there again when it goes on."""
        self.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.enter()

    def canvas(self) -> Canvas:
        """How large it is now."""
        try:
            width, height = os.get_terminal_size(self._stream.fileno())
        except OSError:
            width, height = 80, 24
        return Canvas(max(width, NARROWEST) if width else 80, max(height, 4) if height else 24, self._unicode)

    def show(self, lines: Sequence[Line]) -> None:
        """Draw these lines, and nothing else; nothing is written where they are the same as before."""
        drawn = "\r\n".join(render(line, colour=self._colour) + _TO_END_OF_LINE for line in lines)
        if drawn != self._before:
            self._before = drawn
            self._stream.write(_HOME + drawn + _TO_END_OF_SCREEN)
            self._stream.flush()

    def redraw(self) -> None:
        """Write the next lines whatever was before: the terminal's size changed."""
        self._before = ""
