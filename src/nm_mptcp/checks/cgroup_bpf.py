# SPDX-License-Identifier: GPL-2.0-or-later
"""Control groups of this process that have a BPF program on socket creation: bpf(2), without a library.

Only looked up when a socket cannot be created. Source: the kernel's ``include/uapi/linux/bpf.h`` (``BPF_PROG_QUERY``).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_PROG_QUERY, _INET_SOCK_CREATE = 16, 2


def refusing() -> tuple[str, ...]:
    """Their directories, this process's own first; none without CAP_NET_ADMIN, or on an unknown architecture."""
    number = _BPF.get(os.uname().machine)
    if number is None:
        return ()
    return tuple(str(place) for place in _own() if _has_program(number, place))


def _own() -> Iterator[Path]:
    """The control groups that this process is in, up to the root of the visible hierarchy."""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        groups = Path("/proc/thread-self/cgroup").read_text().splitlines()
    except OSError:
        return
    root = next((Path(line.split()[1]) for line in mounts if line.split()[2] == "cgroup2"), None)
    own = next((line.removeprefix("0::") for line in groups if line.startswith("0::")), None)
    if root is None or own is None:
        return
    place = root / own.strip("/")
    yield place
    for parent in place.parents:
        if not parent.is_relative_to(root):
            return
        yield parent


def _has_program(number: int, place: Path) -> bool:
    try:
        group = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # target_fd, attach_type, query_flags, attach_flags, prog_ids (none: only count), prog_cnt
        attributes = ctypes.create_string_buffer(struct.pack("=IIIIQI", group, _INET_SOCK_CREATE, 0, 0, 0, 0), 144)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(number, _PROG_QUERY, attributes, len(attributes)) < 0:
            return False
        return bool(struct.unpack_from("=I", attributes, 24)[0])
    finally:
        os.close(group)
