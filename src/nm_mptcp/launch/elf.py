# SPDX-License-Identifier: GPL-2.0-or-later
"""What an ELF file says of how its program makes sockets: through the C library, or without it, as Go does.

pyelftools parses the file, but does not know Go's build information. Any file may be given, so what is read is bounded, and
whatever pyelftools stumbles over is an :class:`ElfError`. Sources: elf(5); kernel: fs/binfmt_elf.c; Go: src/debug/buildinfo.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, BinaryIO

MAGIC = b"\x7fELF"

_PF_WRITE = 2

#: Bytes: what the kernel takes of program headers (load_elf_phdrs()), and of an interpreter's path (PATH_MAX).
_HEADERS_MAX, _PATH_MAX = 65536, 4096

#: Calls of read(), and bytes of each. Real programs take some 2,000; what a file makes pyelftools do has no other bound (it
#: goes through all sections for each dynamic segment, and reads names until they end).
_READS_MAX, _READ_MAX = 50_000, 1 << 20

#: Real programs have some 30, and those of the kernel's some hundred.
_SECTIONS_MAX = 1000

_GO_MAGIC = b"\xff Go buildinf:"

#: Bytes of Go's version, with its length, that are looked at.
_VERSION_MAX = 2 + 255
#: ``go1.22.1``, ``go1.22.1 X:boringcrypto``, ``devel go1.21-0123abc Tue ...``
_GO_RELEASE = re.compile(r"\bgo(\d{1,4})\.(\d{1,4})")


class ElfError(ValueError):
    """The file is not an ELF file, or a broken one."""


@dataclass(frozen=True, slots=True)
class Elf:
    """What matters of an ELF file."""

    bits: int  #: 32 or 64
    big_endian: bool
    machine: int  #: ``e_machine``: 62 is x86-64, 3 i386, 183 AArch64, 40 ARM
    interpreter: str | None = None  #: PT_INTERP, the dynamic loader; None: static, or a library
    needed: tuple[str, ...] = ()  #: DT_NEEDED, the libraries it is linked with
    #: Go's version of a Go program ("go1.22.1"); "" where it is older than 1.18 (which noted it elsewhere) or unreadable;
    #: None for all other programs
    go: str | None = None

    @property
    def architecture(self) -> tuple[int, bool, int]:
        """What has to be the same in a program and a library that it loads."""
        return (self.bits, self.big_endian, self.machine)

    @property
    def go_release(self) -> tuple[int, int] | None:
        """Go's version as numbers: (1, 22); None where it is not known."""
        found = _GO_RELEASE.search(self.go or "")
        return (int(found[1]), int(found[2])) if found else None


def read(file: BinaryIO) -> Elf:
    """Read an ELF file that is open for reading.

    Raises :class:`ElfError` for a file that is not ELF, or so broken that the kernel or pyelftools refuses it; OSError when it
    cannot be read; ImportError where pyelftools is not installed.
    """
    from elftools.elf.elffile import ELFFile  # here: only what examines a program needs it
    from elftools.elf.enums import ENUM_E_MACHINE

    try:
        stream: Any = _Bounded(file)
        elf: Any = ELFFile(stream)
        size = elf["e_phnum"] * elf["e_phentsize"]
        if size > _HEADERS_MAX or (size and elf["e_phentsize"] != elf.structs.Elf_Phdr.sizeof()):
            raise ElfError("the kernel refuses its program headers")
        interpreter = next(elf.iter_segments("PT_INTERP"), None)
        dynamic = next(elf.iter_segments("PT_DYNAMIC"), None)
        return Elf(
            bits=elf.elfclass,
            big_endian=not elf.little_endian,
            machine=ENUM_E_MACHINE.get(elf["e_machine"], elf["e_machine"]),
            interpreter=_path(interpreter) if interpreter else None,
            needed=tuple(tag.needed for tag in dynamic.iter_tags("DT_NEEDED") if tag.needed) if dynamic else (),
            go=_go(elf),
        )
    except (ElfError, OSError):
        raise
    except Exception as error:
        # pyelftools checks little: besides its own errors there are those of struct, decoding, recursion, missing parts, ...
        raise ElfError(f"not an ELF file, or a broken one: {error or type(error).__name__}") from error


class _Bounded:
    """A file that may be read neither without end nor behind its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        self._left = _READS_MAX

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file's. Raises :class:`ElfError`."""
        if whence == os.SEEK_SET and not 0 <= offset <= self._size:
            raise ElfError("it refers to what is behind its end")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As a file's."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """As a file's. Raises :class:`ElfError`."""
        self._left -= 1
        if self._left < 0 or not 0 <= size <= _READ_MAX:
            raise ElfError("it is too large to be examined")
        return self._file.read(size)


def _path(interpreter: Any) -> str:
    if not 2 <= interpreter["p_filesz"] <= _PATH_MAX:
        raise ElfError("the interpreter's path is empty or too long")
    path: bytes = interpreter.data()
    if path[-1:] != b"\0":
        raise ElfError("the interpreter's path does not end")
    return os.fsdecode(path.partition(b"\0")[0])


def _go(elf: Any) -> str | None:
    """Go's version: from the section that its linker makes, else from where Go's own tools look for it."""
    section = elf.get_section_by_name(".go.buildinfo") if elf.num_sections() <= _SECTIONS_MAX else None
    if section is not None:
        blob = _bytes(elf, section["sh_offset"], section["sh_size"])
    else:
        segments = elf.iter_segments("PT_LOAD")
        data = next((each for each in segments if each["p_flags"] & _PF_WRITE), None)
        blob = _aligned(_bytes(elf, data["p_offset"], data["p_filesz"])) if data else b""
    if not blob.startswith(_GO_MAGIC) or len(blob) < 32:
        return None
    # Bit 1: since Go 1.18 the version follows inline; before, it had to be chased through pointers.
    return _text(blob[32 : 32 + _VERSION_MAX]) if blob[15] & 2 else ""


def _bytes(elf: Any, offset: int, size: int) -> bytes:
    """As much of this as may be read at once."""
    elf.stream.seek(offset)
    data: bytes = elf.stream.read(min(size, _READ_MAX))
    return data


def _aligned(data: bytes) -> bytes:
    """From the first place on where Go's build information begins."""
    place = data.find(_GO_MAGIC)
    while place % 16 and place >= 0:
        place = data.find(_GO_MAGIC, place + 1)
    return data[place:] if place >= 0 else b""


def _text(data: bytes) -> str:
    """A string with its length in front as a varint, of one or two bytes here; "" when it is not plain text."""
    if not data:
        return ""
    length, start = (data[0], 1) if data[0] < 0x80 else ((data[0] & 0x7F) | (data[1:2] or b"\0")[0] << 7, 2)
    text = data[start : start + length]
    if len(text) != length or not text.isascii():
        return ""
    decoded = text.decode()
    return decoded if decoded.isprintable() else ""
