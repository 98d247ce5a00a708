# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf(2), without a library: what the switch needs of it.

Each function raises OSError as the kernel says it. File descriptors are close-on-exec. Source: the kernel's
include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

#: The number of the call, by machine and the pointer's width.
_NUMBERS = {
    ("x86_64", 64): 321,
    ("x86_64", 32): 357,
    ("i686", 32): 357,
    ("i586", 32): 357,
    ("aarch64", 64): 280,
    ("aarch64", 32): 386,
    ("armv7l", 32): 386,
    ("riscv64", 64): 280,
    ("loongarch64", 64): 280,
    ("ppc64le", 64): 361,
    ("ppc64", 64): 361,
    ("s390x", 64): 351,
}

_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _NEXT_KEY = 0, 2, 3, 4
_PROG_LOAD, _OBJ_PIN, _OBJ_GET, _OBJ_INFO, _RAW_TRACEPOINT_OPEN = 5, 6, 7, 15, 17
_HASH, _NO_PREALLOC = 1, 1
_TRACING, _MODIFY_RETURN = 26, 26

#: More than any kernel that is known has in ``union bpf_attr``; the rest has to be zero.
_ATTRIBUTES = 192

_libc = ctypes.CDLL(None, use_errno=True)


def number() -> int | None:
    """The number of the system call on this machine, None where it is not known."""
    return _NUMBERS.get((os.uname().machine, 64 if sys.maxsize > 1 << 32 else 32))


class Table:
    """A hash with a key of 64 bits, and values that mean nothing."""

    def __init__(self, handle: int, value_size: int) -> None:
        self.handle = handle
        self._value_size = value_size

    @classmethod
    def create(cls, name: str, *, value_size: int, entries: int) -> Table:
        """An empty one; memory is taken as it fills."""
        attributes = struct.pack("=7I16s", _HASH, 8, value_size, entries, _NO_PREALLOC, 0, 0, name.encode())
        return cls(_call(_MAP_CREATE, attributes), value_size)

    @classmethod
    def pinned(cls, path: Path, *, value_size: int) -> Table:
        """The one that is pinned there. ValueError: it is another kind of object."""
        handle = _on_path(_OBJ_GET, path)
        shape = ctypes.create_string_buffer(80)
        try:
            _call(_OBJ_INFO, struct.pack("=IIQ", handle, len(shape), ctypes.addressof(shape)))
            # type, id, key_size, value_size
            kind, _, key, value = struct.unpack_from("=4I", shape)
            if (kind, key, value) != (_HASH, 8, value_size):
                raise ValueError(f"{path} is not the table of control groups")
        except BaseException:
            os.close(handle)
            raise
        return cls(handle, value_size)

    def add(self, key: int) -> None:
        """Add a key, or leave it there. Errno E2BIG: the table is full."""
        name, value = ctypes.c_uint64(key), ctypes.create_string_buffer(self._value_size)
        _call(_MAP_UPDATE, struct.pack("=IIQQQ", self.handle, 0, ctypes.addressof(name), ctypes.addressof(value), 0))

    def discard(self, key: int) -> None:
        """Remove a key, if it is there."""
        name = ctypes.c_uint64(key)
        with contextlib.suppress(FileNotFoundError):
            _call(_MAP_DELETE, struct.pack("=IIQQQ", self.handle, 0, ctypes.addressof(name), 0, 0))

    def keys(self) -> Iterator[int]:
        """All keys; nobody may change the table meanwhile."""
        key, after = ctypes.c_uint64(), ctypes.c_uint64()
        before = 0
        while True:
            places = (self.handle, 0, before, ctypes.addressof(after), 0)
            try:
                _call(_NEXT_KEY, struct.pack("=IIQQQ", *places))
            except FileNotFoundError:
                return
            yield after.value
            key.value, before = after.value, ctypes.addressof(key)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.handle)


def load(name: str, instructions: bytes, function: int) -> int:
    """Load a program that may change the result of a function of the kernel (the number of its type in BTF)."""
    code, license_ = ctypes.create_string_buffer(instructions, len(instructions)), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQII16sIIIIQIIQII",
        *(_TRACING, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(license_)),
        *(0, 0, 0, 0, 0),  # no log, kern_version, prog_flags
        *(name.encode(), 0, _MODIFY_RETURN),
        *(0, 0, 0, 0, 0, 0, 0),  # no types and lines of its own
        function,
    )
    return _call(_PROG_LOAD, attributes)


def attach(program: int) -> int:
    """Attach a loaded program to its function; it is, as long as the result (a link) is open or pinned."""
    return _call(_RAW_TRACEPOINT_OPEN, struct.pack("=QI", 0, program))


def pin(handle: int, path: Path) -> None:
    """Give it a name in a BPF file system, which keeps it."""
    _on_path(_OBJ_PIN, path, handle)


def _on_path(command: int, path: Path, handle: int = 0) -> int:
    text = ctypes.create_string_buffer(os.fsencode(path))
    return _call(command, struct.pack("=QI", ctypes.addressof(text), handle))


def _call(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, _ATTRIBUTES)
    result: int = _libc.syscall(number(), command, buffer, _ATTRIBUTES)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
