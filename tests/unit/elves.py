# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes small ELF files, of any class and byte order."""

from __future__ import annotations

import struct

GO_MAGIC = b"\xff Go buildinf:"


def go_build(version: bytes, *, inline: bool = True) -> bytes:
    """Go's build information: since 1.18 with the version inline, before with pointers."""
    head = GO_MAGIC + bytes([8, 2 if inline else 0])
    return head.ljust(32, b"\0") + (bytes([len(version)]) + version if inline else b"")


def elf(
    *,
    bits: int = 64,
    order: str = "<",
    machine: int = 62,
    interpreter: str | None = None,
    needed: tuple[str, ...] = (),
    go: bytes | None = None,
    sections: bool = True,
) -> bytes:
    """An ELF program; ``go`` is its build information, in a section or (without sections) in a writable segment."""
    wide = bits == 64
    header_layout = order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH")
    header_size = 16 + struct.calcsize(header_layout)
    segment_layout, segment_size = (order + "IIQQQQQQ", 56) if wide else (order + "IIIIIIII", 32)
    segment_count = 2 + (interpreter is not None) + bool(needed)
    body = b""
    start = header_size + segment_count * segment_size
    start += -start % 16
    base = 0x10000

    def put(data: bytes) -> int:
        nonlocal body
        body += b"\0" * (-len(body) % 16)
        body += data
        return start + len(body) - len(data)

    segments = []

    def segment(kind: int, flags: int, offset: int, size: int) -> None:
        if wide:
            segments.append(struct.pack(segment_layout, kind, flags, offset, base + offset, 0, size, size, 16))
        else:
            segments.append(struct.pack(segment_layout, kind, offset, base + offset, 0, size, size, flags, 16))

    if interpreter is not None:
        name = interpreter.encode() + b"\0"
        segment(3, 4, put(name), len(name))
    if needed:
        strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
        place = put(strings)
        entries = [
            (5, base + place),
            *((1, strings.index(b"\0" + name.encode() + b"\0") + 1) for name in needed),
            (0, 0),
        ]
        dynamic = b"".join(struct.pack(order + ("QQ" if wide else "II"), *entry) for entry in entries)
        segment(2, 6, put(dynamic), len(dynamic))
    data = put(go if go is not None else b"data")
    segment(1, 6, data, len(go or b"data"))
    names, headers = b"\0.go.buildinfo\0.shstrtab\0", []
    if sections:
        layout = order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII")
        strings_at = put(names)
        headers.append(struct.pack(layout, *[0] * 10))
        if go is not None:
            headers.append(struct.pack(layout, 1, 1, 3, base + data, data, len(go), 0, 0, 16, 0))
        headers.append(struct.pack(layout, 15, 3, 0, 0, strings_at, len(names), 0, 0, 1, 0))
    table = put(b"".join(headers)) if headers else 0
    segment(1, 5, 0, start + len(body))
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]).ljust(12, b"\0")
    header = struct.pack(
        header_layout,
        *(2, machine, 1, base, header_size, table, 0, header_size, segment_size, segment_count),
        *((64 if wide else 40) if headers else 0, len(headers), len(headers) - 1 if headers else 0),
    )
    assert len(segments) == segment_count
    return (ident + header + b"".join(segments)).ljust(start, b"\0") + body
