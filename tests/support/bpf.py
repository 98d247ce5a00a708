# SPDX-License-Identifier: GPL-2.0-or-later
"""A BPF program on a control group of its own that refuses MPTCP sockets, by bpf(2) alone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH = 5, 8, 9
_CGROUP_SOCK, _INET_SOCK_CREATE = 9, 2
#: Where ``struct bpf_sock`` has the protocol.
_PROTOCOL = 12

_libc = ctypes.CDLL(None, use_errno=True)


def reason_to_skip() -> str | None:
    """Why no such program can be loaded here, None when it can."""
    if os.uname().machine not in _BPF:
        return "the number of bpf() is not known on this machine"
    if _cgroups() is None:
        return "no cgroup2 file system is mounted"
    try:
        os.close(_loaded())
    except OSError as error:
        return f"this kernel takes no BPF program: {error.strerror}"
    return None


class Refusing:
    """The control group; ``enter`` puts the calling process into it, ``end`` takes the program off it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._program = _loaded()
        _call(_PROG_ATTACH, struct.pack("=IIII", self._handle, self._program, _INET_SOCK_CREATE, 0))

    @property
    def enter(self) -> Callable[[], None]:
        """For ``preexec_fn``."""
        return lambda: (self.place / "cgroup.procs").write_text("0") and None

    def end(self) -> None:
        """Let sockets be made again."""
        _call(_PROG_DETACH, struct.pack("=IIII", self._handle, self._program, _INET_SOCK_CREATE, 0))

    def close(self) -> None:
        """Let go of it."""
        os.close(self._handle)
        os.close(self._program)


@contextlib.contextmanager
def refusing_mptcp_sockets() -> Iterator[Refusing]:
    """A new control group in which ``socket(..., IPPROTO_MPTCP)`` fails (EPERM); gone afterwards."""
    parent = _cgroups()
    assert parent is not None
    place = parent / f"nm-mptcp-test-{os.getpid()}"
    place.mkdir()
    try:
        refusing = Refusing(place)
        try:
            yield refusing
        finally:
            refusing.close()
    finally:
        place.rmdir()


def _loaded() -> int:
    def instruction(code: int, registers: int, offset: int, value: int) -> bytes:
        return struct.pack("=BBhi", code, registers, offset, value)

    program = ctypes.create_string_buffer(
        instruction(0x61, 0x12, _PROTOCOL, 0)  # r2 = sock->protocol
        + instruction(0xB7, 0, 0, 1)  # r0 = 1: allowed
        + instruction(0x55, 0x2, 1, socket.IPPROTO_MPTCP)  # if r2 != IPPROTO_MPTCP skip one
        + instruction(0xB7, 0, 0, 0)  # r0 = 0: refused
        + instruction(0x95, 0, 0, 0)  # return r0
    )
    license_ = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        *(_CGROUP_SOCK, 5, ctypes.addressof(program), ctypes.addressof(license_)),
        *(0, 0, 0, 0, 0, b"", 0, _INET_SOCK_CREATE),
    )
    return _call(_PROG_LOAD, attributes)


def _call(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, 144)
    result: int = _libc.syscall(_BPF[os.uname().machine], command, buffer, len(buffer))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _cgroups() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    return None
