# SPDX-License-Identifier: GPL-2.0-or-later
"""Control groups (cgroup2): where they are, their ids, and whether a socket made in one is MPTCP.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst; fs/kernfs/mount.c for ids as file handles.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

#: The type of a handle that is nothing but an id of kernfs (FILEID_KERNFS), and its bytes.
_KERNFS, _ID_SIZE = 0xFE, 8


def mounted(kind: str) -> list[Path]:
    """Where file systems of this kind are mounted, as this process sees it."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.split() for line in file]
    return [
        Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line[1])) for line in lines if line[2] == kind
    ]


def root() -> Path | None:
    """The root of the hierarchy, None where none is mounted, or something else over it."""
    return next((place for place in mounted("cgroup2") if (place / "cgroup.controllers").exists()), None)


def own(root: Path) -> Path:
    """The control group of this process. Raises OSError, also where it is outside of what this namespace shows."""
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    place = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    if ".." in place.split("/"):  # cgroup_namespaces(7)
        raise FileNotFoundError(errno.ENOENT, "this process is in none that can be seen from here")
    return root / place.strip("/")


def id_of(group: Path) -> int:
    """What the kernel and its programs call it: kernfs has it as the inode's number. Raises OSError."""
    return group.stat().st_ino


def place_of(root: Path, number: int) -> Path | None:
    """The control group with this id, None when there is none any more. Raises OSError, as for all but root."""
    handle = ctypes.create_string_buffer(struct.pack("=IiQ", _ID_SIZE, _KERNFS, number))
    mount = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        group = _libc.open_by_handle_at(mount, handle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if group < 0:
            error = ctypes.get_errno()
            if error in (errno.ESTALE, errno.ENOENT):
                return None
            raise OSError(error, os.strerror(error))
    finally:
        os.close(mount)
    try:
        return Path(os.readlink(f"/proc/self/fd/{group}"))
    finally:
        os.close(group)


@contextlib.contextmanager
def temporary(parent: Path) -> Iterator[Path]:
    """A new and empty control group, gone afterwards. Raises OSError."""
    group = parent / f"nm-mptcp-check-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        group.rmdir()


def enter(group: Path) -> None:
    """Move this process there. Raises OSError."""
    (group / "cgroup.procs").write_text("0")


def protocol() -> int:
    """The protocol of a socket for which this process asks as programs ask for TCP. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as tcp:
        return tcp.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)


def switched() -> bool:
    """Whether it is an MPTCP socket, without having been asked for."""
    try:
        return protocol() == socket.IPPROTO_MPTCP
    except OSError:
        return False


def switched_in(group: Path) -> bool:
    """As :func:`switched`, for a process in this control group. Raises OSError."""
    child = os.fork()
    if not child:
        status = 2
        with contextlib.suppress(BaseException):
            enter(group)
            status = 0 if switched() else 1
        os._exit(status)
    _, status = os.waitpid(child, 0)
    if (code := os.waitstatus_to_exitcode(status)) not in (0, 1):
        raise OSError(errno.EACCES, "no process can be moved there", str(group))
    return code == 0
