# SPDX-License-Identifier: GPL-2.0-or-later
"""The program in the kernel that makes MPTCP sockets of TCP ones, in chosen control groups.

It is asked by the kernel's ``update_socket_protocol(family, type, protocol)`` (net/socket.c, Linux 6.6), which exists for this.
An answer other than 0 takes the place of the protocol, and whoever attached a program later is not asked any more. So for all
that is not meant the answer is 0, never the protocol.

Arguments are in slots of eight bytes, and only their lower half is compared, which is the same on every architecture.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import sys

#: The function that it is attached to, and the parameters that it knows it by.
FUNCTION, PARAMETERS = "update_socket_protocol", ("family", "type", "protocol")

#: How deep below the root a control group may be to be found: a bounded loop.
LEVELS = 16

#: Bytes of a key in the table of control groups (the group's id), and of a value (unused).
KEY_SIZE, VALUE_SIZE = 8, 4

_MPTCP = 262
_TYPE_MASK = 0xF  # SOCK_TYPE_MASK; above it are SOCK_NONBLOCK and SOCK_CLOEXEC

# Helpers of the kernel: include/uapi/linux/bpf.h, __BPF_FUNC_MAPPER.
_MAP_LOOKUP, _ANCESTOR_ID = 1, 123
_PSEUDO_MAP_FD = 1

# Codes: class, size or source, operation.
_LOAD, _STORE, _WIDE = 0x79, 0x7B, 0x18
_SET, _COPY, _ADD, _AND32 = 0xB7, 0xBF, 0x07, 0x54
_IF_EQUAL32, _IF_NOT32, _IF_EQUAL, _IF_NOT, _IF_BELOW = 0x16, 0x56, 0x15, 0x55, 0xA5
_CALL, _EXIT = 0x85, 0x95

#: Code, destination, source, where to go or offset in memory, value. Where to go is a name; a name alone is a place.
_Line = tuple[int, int, int, "int | str", int]
_LINES: tuple[_Line | str, ...] = (
    (_LOAD, 2, 1, 8, 0),  # type
    (_AND32, 2, 0, 0, _TYPE_MASK),
    (_IF_NOT32, 2, 0, "other", socket.SOCK_STREAM),
    (_LOAD, 2, 1, 0, 0),  # family
    (_IF_EQUAL32, 2, 0, "internet", socket.AF_INET),
    (_IF_NOT32, 2, 0, "other", socket.AF_INET6),
    "internet",
    (_LOAD, 2, 1, 16, 0),  # protocol
    (_IF_EQUAL32, 2, 0, "tcp", 0),
    (_IF_NOT32, 2, 0, "other", socket.IPPROTO_TCP),
    "tcp",
    (_SET, 6, 0, 0, 0),  # the level, from the root down
    "level",
    (_COPY, 1, 6, 0, 0),
    (_CALL, 0, 0, 0, _ANCESTOR_ID),
    (_IF_EQUAL, 0, 0, "other", 0),  # there is none that deep
    (_STORE, 10, 0, -8, 0),  # its id, as a key
    (_WIDE, 1, _PSEUDO_MAP_FD, 0, 0),  # the table
    (0, 0, 0, 0, 0),
    (_COPY, 2, 10, 0, 0),
    (_ADD, 2, 0, 0, -8),
    (_CALL, 0, 0, 0, _MAP_LOOKUP),
    (_IF_NOT, 0, 0, "registered", 0),
    (_ADD, 6, 0, 0, 1),
    (_IF_BELOW, 6, 0, "level", LEVELS),
    "other",
    (_SET, 0, 0, 0, 0),
    (_EXIT, 0, 0, 0, 0),
    "registered",
    (_SET, 0, 0, 0, _MPTCP),
    (_EXIT, 0, 0, 0, 0),
)


def instructions(table: int, order: str = sys.byteorder) -> bytes:
    """The program for a table of control groups (its file descriptor), in a byte order (``little``, ``big``)."""
    lines = [line for line in _LINES if not isinstance(line, str)]
    places, number = {}, 0
    for line in _LINES:
        if isinstance(line, str):
            places[line] = number
        else:
            number += 1
    code = b""
    for number, (operation, destination, source, where, value) in enumerate(lines):
        offset = places[where] - number - 1 if isinstance(where, str) else where
        low, high = (destination, source) if order == "little" else (source, destination)
        value = table if operation == _WIDE else value
        code += struct.pack("<BBhi" if order == "little" else ">BBhi", operation, low | high << 4, offset, value)
    return code


def version() -> str:
    """A name for this very program: another one has another name."""
    return hashlib.sha256(instructions(0, "little")).hexdigest()[:8]
