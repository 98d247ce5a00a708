# SPDX-License-Identifier: GPL-2.0-or-later
"""A static program of a hundred bytes that asks for one socket: it ends with 1 when it got MPTCP, else 0.
Before that it may make and close many, to be timed.

It needs no loader, no C library and no compiler. Its calls are those of arch/x86/entry/syscalls, and for arm64 those of
include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import os
import platform
import socket
import struct
from pathlib import Path

_SO_PROTOCOL = 38
_BASE = 0x400000

#: Number in an ELF header (elf(5)), and bits.
_MACHINES = {"x86_64": (62, 64), "i386": (3, 32), "aarch64": (183, 64)}


def machines() -> tuple[str, ...]:
    """What programs may be built for here, the kernel's own first; none where that is not known."""
    own = platform.machine()
    return {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64",)}.get(own, ())


def reason_to_skip() -> str | None:
    """Why it cannot run here, None when it can."""
    return None if machines() else f"the program is for {', '.join(_MACHINES)}"


def asker(
    path: Path,
    *,
    machine: str | None = None,
    family: int = socket.AF_INET,
    kind: int = 1,
    protocol: int = 0,
    before: int = 0,
) -> Path:
    """Write it there, for every user to run; ``before``: sockets that it makes and closes first (x86_64 only)."""
    machine = machine or machines()[0]
    code = {"x86_64": _x86_64, "i386": _i386, "aarch64": _aarch64}[machine](family, kind, protocol)
    if before:
        assert machine == "x86_64"
        code = _made_and_closed(family, kind, protocol, before) + code
    path.write_bytes(_elf(*_MACHINES[machine], code))
    os.chmod(path, 0o755)
    return path


def _x86_64(family: int, kind: int, protocol: int) -> bytes:
    return b"".join(
        (
            _set(0xB8, 41) + _set(0xBF, family) + _set(0xBE, kind) + _set(0xBA, protocol) + b"\x0f\x05",  # socket
            b"\x89\xc7\x6a\x04\x49\x89\xe0\x6a\x00\x49\x89\xe2",  # the result; 4 bytes for the answer, which is 0
            _set(0xBE, socket.SOL_SOCKET) + _set(0xBA, _SO_PROTOCOL) + _set(0xB8, 55) + b"\x0f\x05",  # getsockopt
            b"\x41\x8b\x3a\xc1\xef\x08" + _set(0xB8, 60) + b"\x0f\x05",  # exit(answer >> 8)
        )
    )


def _made_and_closed(family: int, kind: int, protocol: int, times: int) -> bytes:
    once = b"".join(
        (
            _set(0xB8, 41) + _set(0xBF, family) + _set(0xBE, kind) + _set(0xBA, protocol) + b"\x0f\x05",  # socket
            b"\x89\xc7" + _set(0xB8, 3) + b"\x0f\x05\xff\xcb",  # close it; one time less
        )
    )
    return _set(0xBB, times) + once + b"\x75" + struct.pack("b", -len(once) - 2)


def _i386(family: int, kind: int, protocol: int) -> bytes:
    return b"".join(
        (
            _set(0xB8, 359) + _set(0xBB, family) + _set(0xB9, kind) + _set(0xBA, protocol) + b"\xcd\x80",
            b"\x89\xc3\x6a\x00\x89\xe6\x6a\x04\x89\xe7",
            _set(0xB9, socket.SOL_SOCKET) + _set(0xBA, _SO_PROTOCOL) + _set(0xB8, 365) + b"\xcd\x80",
            b"\x8b\x1e\xc1\xeb\x08" + _set(0xB8, 1) + b"\xcd\x80",
        )
    )


def _set(register: int, value: int) -> bytes:
    return struct.pack("<BI", register, value)


def _aarch64(family: int, kind: int, protocol: int) -> bytes:
    def call(number: int) -> tuple[int, ...]:
        return (*put(8, number), 0xD4000001)  # svc 0

    def put(register: int, value: int) -> tuple[int, ...]:
        low, high = value & 0xFFFF, value >> 16
        return (0xD2800000 | low << 5 | register, 0xF2A00000 | high << 5 | register)  # movz; movk, lsl 16

    words = (
        *(*put(0, family), *put(1, kind), *put(2, protocol), *call(198)),  # socket
        *(0xD10043FF, *put(3, 4), 0xB9000BE3, 0xB90003FF),  # room on the stack: 4 bytes, 0 so far, and their number
        *(*put(1, socket.SOL_SOCKET), *put(2, _SO_PROTOCOL), 0x910003E3, 0x910023E4, *call(209)),  # getsockopt
        *(0xB94003E0, 0x53087C00, *call(93)),  # exit(answer >> 8)
    )
    return struct.pack(f"<{len(words)}I", *words)


def _elf(machine: int, bits: int, code: bytes) -> bytes:
    """One segment, which holds all (elf(5))."""
    head, entry = (64 + 56, "Q") if bits == 64 else (52 + 32, "I")
    size = head + len(code)
    identity = struct.pack("<4sBBBB8x", b"\x7fELF", bits // 32, 1, 1, 0)
    start, table = _BASE + head, 64 if bits == 64 else 52
    header = struct.pack(
        f"<HHI{entry}{entry}{entry}IHHHHHH",
        *(2, machine, 1, start, table, 0, 0, table, head - table, 1, 0, 0, 0),
    )
    if bits == 64:
        segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096)
    else:
        segment = struct.pack("<IIIIIIII", 1, 0, _BASE, _BASE, size, size, 5, 4096)
    return identity + header + segment + code
