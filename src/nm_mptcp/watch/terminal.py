# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal that rich draws on. What rich does not know is here: single keys, being stopped and continued, and restoring."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live
from rich.text import Text

from ..report.styles import wants_colour
from ..text import NARROWEST, has_unicode
from .render import Canvas

# ECMA-48 and xterm's, beside rich's: a line that a terminal measures differently is cut by it and not continued on the next.
_NO_WRAP, _PLAIN_AND_WRAP = "\x1b[?7l", "\x1b[0m\x1b[?7h"


class Terminal:
    """The alternate screen of a terminal. A context manager that restores the terminal however it is left."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = Console(
            file=stream,
            force_terminal=True,  # the caller has checked it
            force_interactive=True,
            no_color=not wants_colour(),
            markup=False,
            highlight=False,
            emoji=False,
        )
        self._live: Live | None = None
        self._modes: list[Any] | None = None
        self._drawn: list[Text] = []

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    @property
    def keyboard(self) -> int | None:
        """The descriptor to read single keys from; None where standard input is not a terminal."""
        return sys.stdin.fileno() if self._modes is not None else None

    def enter(self) -> None:
        """Switch to the alternate screen."""
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        with contextlib.suppress(OSError, ValueError, termios.error):
            descriptor = sys.stdin.fileno()
            if os.isatty(descriptor):
                modes = termios.tcgetattr(descriptor)
                quiet = [*modes[:3], modes[3] & ~(termios.ECHO | termios.ICANON), *modes[4:]]
                # A job in the background that sets them would be stopped.
                if os.tcgetpgrp(descriptor) == os.getpgrp():
                    termios.tcsetattr(descriptor, termios.TCSADRAIN, quiet)
                    self._modes = modes
        self.redraw()
        self._live.start()
        self._write(_NO_WRAP)

    def leave(self) -> None:
        """Restore the terminal."""
        live, self._live = self._live, None
        if live is None:
            return
        try:
            with contextlib.suppress(OSError, ValueError):  # a terminal that is gone needs nothing
                self._write(_PLAIN_AND_WRAP)
                live.stop()
        finally:
            if self._modes is not None:
                with contextlib.suppress(OSError, ValueError, termios.error):
                    termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._modes)
                self._modes = None

    def pause(self) -> None:
        """Stop this process, as the terminal's stop key requests; when it is continued, switch to the screen again."""
        self.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.enter()

    def canvas(self) -> Canvas:
        """The present size."""
        try:
            width, height = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            width, height = 0, 0
        width, height = width or 80, height or 24
        self._console.size = ConsoleDimensions(width, height)
        return Canvas(max(width, NARROWEST), max(height, 4), has_unicode(self._stream))

    def show(self, lines: Sequence[Text]) -> None:
        """Draw these lines on an otherwise empty screen; nothing is written where they are the same as before."""
        if self._live is not None and list(lines) != self._drawn:
            self._drawn = list(lines)
            self._live.update(Group(*lines), refresh=True)

    def redraw(self) -> None:
        """Write the next lines even if they are the same as before: the size was changed."""
        self._drawn = []

    def _write(self, sequence: str) -> None:
        self._stream.write(sequence)
        self._stream.flush()
