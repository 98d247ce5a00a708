# SPDX-License-Identifier: GPL-2.0-or-later
"""BTF as the kernel gives it, made by hand."""

from __future__ import annotations

import struct

FUNC, FUNC_PROTO = 12, 13


class Btf:
    """Types are numbered as they are added, from 1 on."""

    def __init__(self, order: str = "<") -> None:
        self._order = order
        self._types = b""
        self._strings = b"\0"

    def name(self, text: str) -> int:
        """Where this string is."""
        place = len(self._strings)
        self._strings += text.encode() + b"\0"
        return place

    def add(self, kind: int, name: int, members: int = 0, more: bytes = b"", size: int = 0) -> None:
        """A type."""
        self._types += struct.pack(f"{self._order}III", name, kind << 24 | members, size) + more

    def prototype(self, *parameters: str) -> None:
        """A FUNC_PROTO."""
        places = [self.name(each) for each in parameters]
        self.add(FUNC_PROTO, 0, len(places), b"".join(struct.pack(f"{self._order}II", each, 1) for each in places))

    def data(self) -> bytes:
        """The whole."""
        header = struct.pack(
            f"{self._order}HBB5I", 0xEB9F, 1, 0, 24, 0, len(self._types), len(self._types), len(self._strings)
        )
        return header + self._types + self._strings
