# SPDX-License-Identifier: GPL-2.0-or-later
"""A filter of system calls that refuses MPTCP sockets, as a container's or a service's may."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LD_W_ABS, _JEQ, _RET = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
#: Where ``struct seccomp_data`` has the number of the call, and the lower half of its third argument.
_NUMBER, _PROTOCOL = 0, 32
_SOCKET = {"x86_64": 41, "aarch64": 198, "riscv64": 198}

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def knows_this_machine() -> bool:
    """Whether the number of ``socket()`` is known here."""
    return os.uname().machine in _SOCKET


def refuse_mptcp_sockets(number: int = errno.EACCES) -> None:
    """From now on ``socket(..., IPPROTO_MPTCP)`` fails in this process and those that it starts."""
    instructions = [
        (_LD_W_ABS, 0, 0, _NUMBER),
        (_JEQ, 0, 3, _SOCKET[os.uname().machine]),
        (_LD_W_ABS, 0, 0, _PROTOCOL),
        (_JEQ, 0, 1, socket.IPPROTO_MPTCP),
        (_RET, 0, 0, _ERRNO | number),
        (_RET, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in instructions))
    program = _Program(len(instructions), ctypes.addressof(code))
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "prctl")
