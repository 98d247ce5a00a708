# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own types: the number of a function in ``/sys/kernel/btf/vmlinux``, and what its parameters are called.

The records of types have no index and differ in length, so that all before the wanted one have to be understood: an unknown
kind is an error, never a guess. Source: the kernel's Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

_MAGIC = 0xEB9F

#: Bytes of a record: name, kind and number of members, size or type.
_RECORD = 12

#: Kind -> bytes that follow its record, and bytes for each member.
_LENGTHS = {
    1: (4, 0),  # INT
    2: (0, 0),  # PTR
    3: (12, 0),  # ARRAY
    4: (0, 12),  # STRUCT
    5: (0, 12),  # UNION
    6: (0, 8),  # ENUM
    7: (0, 0),  # FWD
    8: (0, 0),  # TYPEDEF
    9: (0, 0),  # VOLATILE
    10: (0, 0),  # CONST
    11: (0, 0),  # RESTRICT
    12: (0, 0),  # FUNC
    13: (0, 8),  # FUNC_PROTO
    14: (4, 0),  # VAR
    15: (0, 12),  # DATASEC
    16: (0, 0),  # FLOAT
    17: (4, 0),  # DECL_TAG
    18: (0, 0),  # TYPE_TAG
    19: (0, 12),  # ENUM64
}
_FUNC, _FUNC_PROTO = 12, 13


class BtfError(ValueError):
    """The data is not BTF, or has what is not known here."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the kernel."""

    id: int  #: the number of its type
    parameters: tuple[str, ...]  #: their names


def find_function(data: bytes, name: str) -> Function | None:
    """The function of this name, None where there is none. Raises :class:`BtfError`."""
    try:
        order, types, strings = _parts(data)
        # Strings may share their ends.
        names = {found.start() for found in re.finditer(re.escape(name.encode() + b"\0"), strings)}
        return _search(order, types, strings, names) if names else None
    except struct.error:
        raise BtfError("a record of the kernel's BTF is cut off") from None


def _parts(data: bytes) -> tuple[str, bytes, bytes]:
    """Byte order, records of types, strings."""
    order = next((each for each in "<>" if struct.unpack_from(f"{each}H", data)[0] == _MAGIC), None)
    if order is None:
        raise BtfError("the kernel's BTF does not begin as BTF does")
    version, _, header, *places = struct.unpack_from(f"{order}BB5I", data, 2)
    if version != 1:
        raise BtfError(f"the kernel's BTF has version {version}, 1 is known")
    type_start, type_length, string_start, string_length = places
    types = data[header + type_start :][:type_length]
    strings = data[header + string_start :][:string_length]
    if len(types) != type_length or len(strings) != string_length:
        raise BtfError("the kernel's BTF is cut off")
    return order, types, strings


def _search(order: str, types: bytes, strings: bytes, names: set[int]) -> Function | None:
    unpack, places, found = struct.Struct(f"{order}III").unpack_from, [0], None  # number 0 is void
    place = 0
    while place < len(types):
        name, info, _ = unpack(types, place)
        kind = info >> 24 & 0x1F
        try:
            fixed, each = _LENGTHS[kind]
        except KeyError:
            raise BtfError(f"the kernel's BTF has types of a kind that is not known here ({kind})") from None
        if kind == _FUNC and name in names:
            found = len(places)
        places.append(place)
        place += _RECORD + fixed + each * (info & 0xFFFF)
    if found is None:
        return None
    _, _, prototype = unpack(types, places[found])
    if not 0 < prototype < len(places):
        raise BtfError("a function of the kernel's BTF has no prototype")
    place = places[prototype]
    _, info, _ = unpack(types, place)
    if info >> 24 & 0x1F != _FUNC_PROTO:
        raise BtfError("a function of the kernel's BTF has no prototype")
    members = (struct.unpack_from(f"{order}II", types, place + _RECORD + 8 * n)[0] for n in range(info & 0xFFFF))
    return Function(found, tuple(_string(strings, member) for member in members))


def _string(strings: bytes, place: int) -> str:
    return strings[place : strings.find(b"\0", place)].decode(errors="replace")
