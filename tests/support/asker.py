# SPDX-License-Identifier: GPL-2.0-or-later
"""A static program of a hundred bytes, for 64 or 32 bits, that asks for one socket: it ends with 1 when it got MPTCP, else 0.
Before that it may make and close many, to be timed.

It needs no loader, no C library and no compiler; its calls are those of x86 (arch/x86/entry/syscalls).
"""

from __future__ import annotations

import os
import platform
import socket
import struct
from pathlib import Path

_SO_PROTOCOL = 38
_BASE = 0x400000


def reason_to_skip() -> str | None:
    """Why it cannot run here, None when it can."""
    return None if platform.machine() == "x86_64" else "the program is for x86"


def asker(
    path: Path, *, bits: int = 64, family: int = socket.AF_INET, kind: int = 1, protocol: int = 0, before: int = 0
) -> Path:
    """Write it there, for every user to run; ``before``: sockets that it makes and closes first (64 bits only)."""
    code = (_code64 if bits == 64 else _code32)(family, kind, protocol)
    if before:
        assert bits == 64
        code = _made_and_closed64(family, kind, protocol, before) + code
    path.write_bytes(_elf(bits, code))
    os.chmod(path, 0o755)
    return path


def _code64(family: int, kind: int, protocol: int) -> bytes:
    return b"".join(
        (
            _set(0xB8, 41) + _set(0xBF, family) + _set(0xBE, kind) + _set(0xBA, protocol) + b"\x0f\x05",  # socket
            b"\x89\xc7\x6a\x04\x49\x89\xe0\x6a\x00\x49\x89\xe2",  # the result; 4 bytes for the answer, which is 0
            _set(0xBE, socket.SOL_SOCKET) + _set(0xBA, _SO_PROTOCOL) + _set(0xB8, 55) + b"\x0f\x05",  # getsockopt
            b"\x41\x8b\x3a\xc1\xef\x08" + _set(0xB8, 60) + b"\x0f\x05",  # exit(answer >> 8)
        )
    )


def _made_and_closed64(family: int, kind: int, protocol: int, times: int) -> bytes:
    once = b"".join(
        (
            _set(0xB8, 41) + _set(0xBF, family) + _set(0xBE, kind) + _set(0xBA, protocol) + b"\x0f\x05",  # socket
            b"\x89\xc7" + _set(0xB8, 3) + b"\x0f\x05\xff\xcb",  # close it; one time less
        )
    )
    return _set(0xBB, times) + once + b"\x75" + struct.pack("b", -len(once) - 2)


def _code32(family: int, kind: int, protocol: int) -> bytes:
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


def _elf(bits: int, code: bytes) -> bytes:
    """One segment, which holds all (elf(5))."""
    head, entry = (64 + 56, "Q") if bits == 64 else (52 + 32, "I")
    size = head + len(code)
    identity = struct.pack("<4sBBBB8x", b"\x7fELF", bits // 32, 1, 1, 0)
    start, table = _BASE + head, 64 if bits == 64 else 52
    header = struct.pack(
        f"<HHI{entry}{entry}{entry}IHHHHHH",
        *(2, 62 if bits == 64 else 3, 1, start, table, 0, 0, table, head - table, 1, 0, 0, 0),
    )
    if bits == 64:
        segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096)
    else:
        segment = struct.pack("<IIIIIIII", 1, 0, _BASE, _BASE, size, size, 5, 4096)
    return identity + header + segment + code
