# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading ELF files: real ones, made ones, broken ones."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nm_mptcp.launch.elf import Elf, ElfError, read

from .elves import elf, go_build

LOADER = "/lib64/ld-linux-x86-64.so.2"
LAYOUTS = pytest.mark.parametrize(("bits", "order"), [(64, "<"), (64, ">"), (32, "<"), (32, ">")])


def of(data: bytes) -> Elf:
    return read(io.BytesIO(data))


@LAYOUTS
def test_class_order_and_machine_are_read(bits: int, order: str) -> None:
    assert of(elf(bits=bits, order=order, machine=40)).architecture == (bits, order == ">", 40)


@LAYOUTS
def test_a_program_with_a_loader_is_not_a_static_one(bits: int, order: str) -> None:
    assert of(elf(bits=bits, order=order, interpreter=LOADER)).interpreter == LOADER
    assert of(elf(bits=bits, order=order)).interpreter is None


@LAYOUTS
def test_the_libraries_that_it_is_linked_with_are_read(bits: int, order: str) -> None:
    assert of(elf(bits=bits, order=order, needed=("libx.so.1", "libc.so.6"))).needed == ("libx.so.1", "libc.so.6")
    assert of(elf(bits=bits, order=order)).needed == ()


@LAYOUTS
@pytest.mark.parametrize("sections", [True, False])
def test_a_go_program_is_recognised_with_and_without_sections(bits: int, order: str, sections: bool) -> None:
    file = of(elf(bits=bits, order=order, go=go_build(b"go1.22.1"), sections=sections))
    assert (file.go, file.go_release) == ("go1.22.1", (1, 22))
    assert of(elf(bits=bits, order=order, sections=sections)).go is None


@pytest.mark.parametrize(
    ("version", "release"),
    [
        (b"go1.21", (1, 21)),
        (b"go1.24.4 X:boringcrypto", (1, 24)),
        (b"devel go1.21-a1b2c3 Tue Apr 4 2023", (1, 21)),
        (b"devel +a1b2c3", None),
        (b"go1.2\x1b[31m", None),
        (b"go\xff1.22", None),
        (b"", None),
    ],
)
def test_versions_of_go(version: bytes, release: tuple[int, int] | None) -> None:
    assert of(elf(go=go_build(version))).go_release == release


def test_a_go_before_1_18_says_no_version() -> None:
    assert of(elf(go=go_build(b"", inline=False))).go == ""


@pytest.mark.parametrize(
    "data",
    [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x03\x01".ljust(64, b"\0"), b"\x7fELF\x02\x01".ljust(64, b"\xff")],
    ids=["empty", "script", "only the magic", "no class", "all bits set"],
)
def test_what_is_no_elf_file_is_an_error_with_words(data: bytes) -> None:
    with pytest.raises(ElfError, match=r"\w"):
        of(data)


def test_an_interpreter_without_an_end_is_an_error() -> None:
    data = elf(interpreter=LOADER)
    with pytest.raises(ElfError, match="does not end"):
        of(data.replace(LOADER.encode() + b"\0", LOADER.encode() + b"X"))


@given(st.binary(max_size=400))
def test_garbage_is_read_or_refused(data: bytes) -> None:
    for text in (data, b"\x7fELF\x02\x01" + data, b"\x7fELF\x01\x02" + data):
        with contextlib.suppress(ElfError):
            of(text)


WHOLE = [
    elf(bits=bits, order=order, interpreter=LOADER, needed=("libc.so.6",), go=go_build(b"go1.22.1"))
    for bits in (32, 64)
    for order in "<>"
]


@settings(max_examples=500)
@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.integers(0, 900), st.binary(min_size=1, max_size=9)), max_size=6),
    st.none() | st.integers(0, 900),
)
def test_a_damaged_file_is_read_or_refused(whole: bytes, damage: list[tuple[int, bytes]], end: int | None) -> None:
    data = bytearray(whole)
    for place, piece in damage:
        data[place : place + len(piece)] = piece
    try:
        file = of(bytes(data[:end]))
    except ElfError:
        return
    assert file.bits in (32, 64)
    assert file.go is None or file.go.isprintable()


def test_every_number_may_be_the_worst() -> None:
    for whole in WHOLE[1:3]:  # of each class and each byte order one
        for place in range(len(whole)):
            for piece in (b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7):
                data = bytearray(whole)
                data[place : place + 8] = piece
                with contextlib.suppress(ElfError):
                    of(bytes(data))


def test_a_file_that_is_a_table_and_nothing_else_takes_no_time_to_speak_of() -> None:
    """65,535 sections that are all named alike: bounded by the file's size, never its square."""
    whole = bytearray(elf(go=None))
    whole[60:62] = (65535).to_bytes(2, "little")
    with io.BytesIO(bytes(whole) + b"\1" * (65535 * 64)) as file:
        assert read(file).go is None


def test_a_file_that_makes_much_work_is_refused_soon() -> None:
    """Each of 1,100 dynamic segments has pyelftools go through 1,000 sections."""
    whole = elf(needed=("libc.so.6",))
    dynamic = whole[64 : 64 + 56]
    headers, sections = dynamic * 1100, struct.pack("<IIQQQQIIQQ", *[0] * 10) * 1000
    data = bytearray(whole + headers + sections)
    struct.pack_into("<QQ", data, 32, len(whole), len(whole) + len(headers))
    struct.pack_into("<HHHHH", data, 54, 56, 1100, 64, 1000, 0)
    assert of(whole).needed
    with pytest.raises(ElfError, match="too large"):
        of(bytes(data))


def test_more_program_headers_than_the_kernel_takes_are_an_error() -> None:
    data = bytearray(elf(interpreter=LOADER) + b"\1" * (56 * 1200))
    struct.pack_into("<H", data, 56, 1171)
    with pytest.raises(ElfError, match="the kernel refuses"):
        of(bytes(data))


def test_a_text_without_an_end_is_not_read_to_the_end_of_a_large_file(tmp_path: Path) -> None:
    whole = elf(needed=("libc.so.6",))
    path = tmp_path / "large"
    needed, behind = struct.pack("<QQ", 1, 1), struct.pack("<QQ", 1, len(whole))
    path.write_bytes(whole.replace(needed, behind) + b"X" * (40 << 20))
    with path.open("rb") as file, pytest.raises(ElfError, match="too large"):
        read(file)


def test_this_very_interpreter_is_dynamic_with_its_libraries() -> None:
    program = os.path.realpath(sys.executable)
    with open(program, "rb") as file:
        found = read(file)
    assert found.bits in (32, 64)
    assert found.go is None
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf is not installed, to compare with")
    readelf_says = subprocess.run([readelf, "-Wld", program], capture_output=True, text=True, check=True).stdout
    assert f"interpreter: {found.interpreter}]" in readelf_says
    assert all(f"Shared library: [{name}]" in readelf_says for name in found.needed)


@pytest.mark.skipif(shutil.which("hey") is None, reason="hey, a Go program of Debian's, is not installed")
def test_a_go_program_of_debians_is_recognised() -> None:
    with Path(str(shutil.which("hey"))).open("rb") as file:
        found = read(file)
    assert found.go is not None
    assert found.go.startswith("go1.")
