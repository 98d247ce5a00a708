# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: what an ELF file tells about how its program makes sockets: by the C library, or, as Go does, without it.

Everything in the file is a stranger's word: each number is held against the file's size before it is used, tables have an
upper bound, and whatever does not fit raises :class:`ElfError`. Sources: elf(5); kernel: fs/binfmt_elf.c; Go:
src/debug/buildinfo.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAGIC = b"\x7fELF"

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_PF_WRITE = 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5

#: Bytes: the kernel takes no longer interpreter (PATH_MAX), and no library's name is longer than a file's may be.
_PATH_MAX, _NAME_MAX = 4096, 255

#: Bytes of a table that are looked at: 65,535 section headers, the most there can be, are 4 MiB.
_TABLE_MAX = 4 << 20

#: Entries of the dynamic section that are looked at; real ones have some 30, with a needed library each some hundred.
_DYNAMIC_MAX = 4096

_GO_SECTION = b".go.buildinfo\0"
_GO_MAGIC = b"\xff Go buildinf:"

#: Bytes of the first writable segment in which Go's own tools look for the build information of a file without sections.
_GO_SEARCHED = 1 << 20

#: ``go1.22.1``, ``go1.22.1 X:boringcrypto``, ``devel go1.21-0123abc Tue ...``
_GO_RELEASE = re.compile(r"\bgo(\d{1,4})\.(\d{1,4})")


class ElfError(ValueError):
    """The file is no ELF file, or a broken one."""


@dataclass(frozen=True, slots=True)
class Elf:
    """What an ELF file tells."""

    bits: int  #: 32 or 64
    big_endian: bool
    machine: int  #: ``e_machine``: 62 is x86-64, 3 i386, 183 AArch64, 40 ARM
    interpreter: str | None = None  #: PT_INTERP, the dynamic loader; None: static, or a library
    needed: tuple[str, ...] = ()  #: DT_NEEDED, the libraries it is linked with
    #: Go's version of a Go program ("go1.22.1"); "" where it is older than 1.18 (which noted it elsewhere) or no word; None
    #: for all other programs
    go: str | None = None

    @property
    def architecture(self) -> tuple[int, bool, int]:
        """What has to be the same in a program and a library that it loads."""
        return (self.bits, self.big_endian, self.machine)

    @property
    def go_release(self) -> tuple[int, int] | None:
        """Go's version as numbers: (1, 22); None where it is not told."""
        found = _GO_RELEASE.search(self.go or "")
        return (int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True, slots=True)
class _Segment:
    type: int
    flags: int
    offset: int
    address: int
    size: int


def read(file: BinaryIO) -> Elf:
    """Read what matters of an ELF file that can be sought in.

    Raises :class:`ElfError` for one that is none or that the kernel would not run; OSError when it cannot be read.
    """
    return _Reader(file).elf()


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        ident = self._at(0, 16, "the file")
        if ident[:4] != MAGIC:
            raise ElfError("no ELF file")
        if ident[4] not in (1, 2) or ident[5] not in (1, 2):
            raise ElfError("an ELF file of unknown class or byte order")
        self._wide = ident[4] == 2
        self._order = ">" if ident[5] == 2 else "<"

    def elf(self) -> Elf:
        layout = "HHIQQQIHHHHHH" if self._wide else "HHIIIIIHHHHHH"
        header = struct.unpack(
            self._order + layout, self._at(16, struct.calcsize(self._order + layout), "the ELF header")
        )
        (
            _,
            machine,
            _,
            _,
            programs,
            sections,
            _,
            _,
            program_size,
            program_count,
            section_size,
            section_count,
            names,
        ) = header
        segments = tuple(self._segments(programs, program_size, program_count))
        return Elf(
            bits=64 if self._wide else 32,
            big_endian=self._order == ">",
            machine=machine,
            interpreter=self._interpreter(segments),
            needed=self._needed(segments),
            go=self._go(segments, sections, section_size, section_count, names),
        )

    def _at(self, offset: int, length: int, what: str) -> bytes:
        """Exactly these bytes of the file."""
        if offset < 0 or length < 0 or offset + length > self._size:
            raise ElfError(f"{what} is cut short")
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) != length:  # it shrank meanwhile
            raise ElfError(f"{what} is cut short")
        return data

    def _up_to(self, offset: int, length: int) -> bytes:
        """These bytes, as far as the file has them."""
        if not 0 <= offset < self._size:
            return b""
        return self._at(offset, min(length, self._size - offset), "the file")

    def _segments(self, offset: int, size: int, count: int) -> Iterator[_Segment]:
        layout = self._order + ("IIQQQQQQ" if self._wide else "IIIIIIII")
        if count and size != struct.calcsize(layout):
            raise ElfError("the program headers have a size of their own")
        for fields in struct.iter_unpack(layout, self._at(offset, size * count, "the table of program headers")):
            if self._wide:
                kind, flags, place, address, _, length = fields[:6]
            else:
                kind, place, address, _, length, _, flags = fields[:7]
            yield _Segment(kind, flags, place, address, length)

    def _interpreter(self, segments: tuple[_Segment, ...]) -> str | None:
        for segment in segments:
            if segment.type == _PT_INTERP:
                if not 2 <= segment.size <= _PATH_MAX:
                    raise ElfError("the interpreter's name is of no good length")
                name = self._at(segment.offset, segment.size, "the interpreter's name")
                if name[-1:] != b"\0":
                    raise ElfError("the interpreter's name does not end")
                return os.fsdecode(name.partition(b"\0")[0])
        return None

    def _needed(self, segments: tuple[_Segment, ...]) -> tuple[str, ...]:
        """Nothing where the dynamic section makes no sense: that is the loader's business, not the kernel's."""
        layout = self._order + ("QQ" if self._wide else "II")
        entry = struct.calcsize(layout)
        for segment in segments:
            if segment.type != _PT_DYNAMIC:
                continue
            data = self._up_to(segment.offset, min(segment.size, entry * _DYNAMIC_MAX))
            names, strings = [], None
            for tag, value in struct.iter_unpack(layout, data[: len(data) // entry * entry]):
                if tag == _DT_NULL:
                    break
                if tag == _DT_NEEDED:
                    names.append(value)
                elif tag == _DT_STRTAB:
                    strings = self._place(value, segments)
            if strings is not None:
                return tuple(filter(None, (self._name(strings + name) for name in names)))
        return ()

    def _place(self, address: int, segments: tuple[_Segment, ...]) -> int | None:
        """Where in the file that is which gets this address in memory."""
        for segment in segments:
            if segment.type == _PT_LOAD and segment.address <= address < segment.address + segment.size:
                return segment.offset + address - segment.address
        return None

    def _name(self, offset: int) -> str:
        name, end, _ = self._up_to(offset, _NAME_MAX + 1).partition(b"\0")
        return os.fsdecode(name) if end else ""

    def _go(self, segments: tuple[_Segment, ...], offset: int, size: int, count: int, names: int) -> str | None:
        blob = self._go_section(offset, size, count, names)
        if blob is None:
            data = next((one for one in segments if one.type == _PT_LOAD and one.flags & _PF_WRITE), None)
            blob = self._go_searched(data) if data else None
        if blob is None or not blob.startswith(_GO_MAGIC) or len(blob) < 32:
            return None
        # Bit 1: since Go 1.18 the version follows inline; before, it had to be chased through pointers.
        return _text_of(blob[32:]) if blob[15] & 2 else ""

    def _go_section(self, offset: int, size: int, count: int, names: int) -> bytes | None:
        """The section that Go's linker makes; None where there is none, or no sections that make sense."""
        layout = self._order + ("IIQQQQIIQQ" if self._wide else "IIIIIIIIII")
        if size != struct.calcsize(layout) or not 0 < names < count or size * count > _TABLE_MAX:
            return None
        table = self._up_to(offset, size * count)
        if len(table) != size * count:
            return None
        sections = [fields[:6] for fields in struct.iter_unpack(layout, table)]
        strings = sections[names][4]
        for name, _, _, _, place, length in sections:
            if self._up_to(strings + name, len(_GO_SECTION)) == _GO_SECTION:
                return self._up_to(place, min(length, 32 + 2 + _NAME_MAX))
        return None

    def _go_searched(self, segment: _Segment) -> bytes | None:
        data = self._up_to(segment.offset, min(segment.size, _GO_SEARCHED))
        place = data.find(_GO_MAGIC)
        while place >= 0:
            if place % 16 == 0:
                return data[place : place + 32 + 2 + _NAME_MAX]
            place = data.find(_GO_MAGIC, place + 1)
        return None


def _text_of(data: bytes) -> str:
    """A string with its length in front as a varint, of one or two bytes here; "" when it is no plain text."""
    if not data:
        return ""
    length, start = (data[0], 1) if data[0] < 0x80 else ((data[0] & 0x7F) | (data[1:2] or b"\0")[0] << 7, 2)
    text = data[start : start + length]
    if len(text) != length or not text.isascii():
        return ""
    decoded = text.decode()
    return decoded if decoded.isprintable() else ""
