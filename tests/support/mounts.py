# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that look otherwise to a test: a mount namespace of the thread that steps into it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .waits import wait_for

_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def mounts_of_its_own() -> Iterator[None]:
    """What this thread, and programs that it starts, mount from now on is theirs alone, and gone afterwards."""
    here = os.getcwd()
    home = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNS), "unshare")
        try:
            _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount")
            yield
        finally:
            # A thread that was started within shares our folders until the kernel is done with it, a moment after its end is
            # known here; as long as anybody does, nobody goes elsewhere (EINVAL).
            wait_for("the way back to the mounts of before", lambda: _libc.setns(home, _CLONE_NEWNS) == 0)
            os.chdir(here)
    finally:
        os.close(home)


def hide(place: str | Path, behind: Path) -> None:
    """Let ``behind`` be seen at a place; inside :func:`mounts_of_its_own`."""
    subprocess.run(["mount", "--bind", str(behind), str(place)], check=True)


def show(place: str | Path) -> None:
    """Undo :func:`hide`."""
    subprocess.run(["umount", str(place)], check=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
