# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal of the bed's (a pty), with what a program has drawn on it, and a program whose output is read as it comes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nm_mptcp.text import cells

from ..support.waits import wait_for
from .namespaces import children, die_with_parent

if TYPE_CHECKING:
    from .bed import Namespace

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """A program on a terminal of its own, of a given size; what it has written is read all the time."""

    def __init__(
        self,
        namespace: Namespace,
        *command: str,
        columns: int = 80,
        rows: int = 24,
        env: Mapping[str, str] | None = None,
        user: int | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        self.name = os.ttyname(slave)
        self.resize(columns, rows, tell=False)
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self._data = b""
        environment = {**namespace.bed.environment, "TERM": "xterm-256color", **(env or {})}
        words = [f"{name}={value}" for name, value in environment.items()]
        become = (
            ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all"]
            if user is not None
            else []
        )
        self._popen = subprocess.Popen(
            [*namespace.entering, "env", "-i", *words, *become, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=self._own_terminal,
        )
        namespace.bed.at_end(self.close)
        self._wake = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _own_terminal(self) -> None:
        die_with_parent()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while not self._wake.is_set():
                if select.select([self._master], [], [], 0.1)[0]:
                    data = os.read(self._master, 1 << 16)
                    if not data:
                        return
                    self._data += data

    @property
    def pid(self) -> int:
        """Of the program itself, as pytest numbers it."""
        return wait_for("the program runs", lambda: children(self._popen.pid))[0]

    @property
    def written(self) -> str:
        """All that it has written so far, with its escape sequences."""
        return self._data.decode(errors="replace")

    @property
    def frames(self) -> list[str]:
        """What it has drawn, with what makes it bold and coloured; only whole frames, of as many lines as the terminal has."""
        frames = self.written.replace("\r\n", "\n").split("\x1b[H")[1:]
        return [frame for frame in frames if frame.count("\n") == self._size[1] - 1 and self._is_whole(frame)]

    def _is_whole(self, frame: str) -> bool:
        return cells(_ESCAPE.sub("", frame.rpartition("\n")[2])) == self._size[0]

    @property
    def frame(self) -> str:
        """The last of them."""
        return (self.frames or [""])[-1]

    @property
    def text(self) -> str:
        """What a person reads of it."""
        return _ESCAPE.sub("", self.frame)

    def resize(self, columns: int, rows: int, *, tell: bool = True) -> None:
        """Another size, as when a window is dragged."""
        self._size = (columns, rows)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            os.kill(self.pid, signal.SIGWINCH)

    def wait_for(self, *words: str, seconds: float = 15) -> str:
        """Wait until all of these are on the screen."""
        try:
            return wait_for(
                f"{words} on the screen",
                lambda: all(each in self.text for each in words) and self.text,
                seconds=seconds,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}\n{self.written[-2000:]!r}") from None

    def press(self, keys: str) -> None:
        """As if typed."""
        os.write(self._master, keys.encode())

    def go_on(self) -> None:
        """Let a stopped program go on; nsenter stops with it."""
        for pid in (self._popen.pid, self.pid):
            os.kill(pid, signal.SIGCONT)

    def wait(self, seconds: float = 10) -> int:
        """Wait for the program's end; its exit status."""
        return self._popen.wait(seconds)

    def hang_up(self) -> None:
        """Take the terminal away, as when its window is closed."""
        self._wake.set()
        self._reader.join(5)
        for descriptor in (self._slave, self._master):
            os.close(descriptor)
        self._slave = self._master = -1

    @property
    def modes(self) -> list[object]:
        """The terminal's modes now (``tcgetattr``)."""
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        """End it."""
        if self._popen.poll() is None:
            for pid in children(self._popen.pid):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self._popen.kill()
            self._popen.wait(5)
        self._wake.set()
        self._reader.join(5)
        for descriptor in (self._master, self._slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)
