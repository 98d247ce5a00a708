# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's types, and the program that is attached to one of its functions."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nm_mptcp.launch import program
from nm_mptcp.launch.btf import BtfError, Function, find_function

from .btfs import FUNC, Btf

NAME = program.FUNCTION


# --- the kernel's types


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_function_is_found_behind_types_of_every_kind(order: str) -> None:
    btf = Btf(order)
    followed = {1: 4, 3: 12, 14: 4, 17: 4}
    each = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
    kinds = range(1, 20)
    for kind in kinds:
        members = 3 if kind in each else 0
        btf.add(kind, btf.name(f"t{kind}"), members, bytes(followed.get(kind, 0) + members * each.get(kind, 0)))
    btf.prototype("family", "type", "protocol")
    btf.add(FUNC, btf.name(NAME), 1, size=len(kinds) + 1)
    assert find_function(btf.data(), NAME) == Function(len(kinds) + 2, ("family", "type", "protocol"))


def test_the_prototype_may_come_later_and_the_name_be_the_end_of_another() -> None:
    btf = Btf()
    place = btf.name(f"x_{NAME}") + 2
    btf.add(FUNC, place, size=2)
    btf.prototype("a")
    assert find_function(btf.data(), NAME) == Function(1, ("a",))


def test_without_such_a_function_there_is_none() -> None:
    btf = Btf()
    btf.prototype("family")
    btf.add(FUNC, btf.name(f"{NAME}_too"), size=1)
    assert find_function(btf.data(), NAME) is None
    btf.add(8, btf.name(NAME))  # a typedef of that name
    assert find_function(btf.data(), NAME) is None


def test_an_unknown_kind_is_an_error_and_no_guess() -> None:
    btf = Btf()
    btf.add(20, btf.name("new"))
    btf.prototype("a")
    btf.add(FUNC, btf.name(NAME), size=2)
    with pytest.raises(BtfError, match="kind that is not known here \\(20\\)"):
        find_function(btf.data(), NAME)


@pytest.mark.parametrize("prototype", [0, 1, 77])
def test_a_function_without_a_prototype_is_an_error(prototype: int) -> None:
    btf = Btf()
    btf.add(FUNC, btf.name(NAME), size=prototype)
    with pytest.raises(BtfError, match="no prototype"):
        find_function(btf.data(), NAME)


def test_what_is_cut_off_is_an_error() -> None:
    btf = Btf()
    btf.prototype("a", "b", "c")
    btf.add(FUNC, btf.name(NAME), size=1)
    whole = btf.data()
    for length in range(len(whole)):
        with pytest.raises(BtfError):
            find_function(whole[:length], NAME)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for head in (b"", struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, 0, 100, 100, 60)):
        with contextlib.suppress(BtfError):
            find_function(head + data + NAME.encode() + b"\0", NAME)


@pytest.mark.skipif(not Path("/sys/kernel/btf/vmlinux").exists(), reason="this kernel does not tell its types")
def test_this_kernels_types_are_all_known() -> None:
    found = find_function(Path("/sys/kernel/btf/vmlinux").read_bytes(), "inet_create")
    assert found is not None
    assert found.parameters == ("net", "sock", "protocol", "kern")


# --- the program


class Machine:
    """Runs the instructions as the kernel does."""

    def __init__(self, order: str, groups: tuple[int, ...], registered: frozenset[int]) -> None:
        self.order, self.groups, self.registered = order, groups, registered

    def answer(self, family: int, kind: int, protocol: int) -> int:
        """What the program answers for a socket."""
        pack = "<" if self.order == "little" else ">"
        code = list(struct.iter_unpack(f"{pack}BBhi", program.instructions(7, self.order)))
        # The kernel extends what it stores of an int to the slot in ways of its own: the upper half is not to be relied on.
        arguments = {8 * n: 0xDEADBEEF << 32 | value for n, value in enumerate((family, kind, protocol))}
        registers: dict[int, int] = {1: 0, 10: 0}
        stack: dict[int, int] = {}
        at = steps = 0
        while True:
            steps += 1
            assert steps < 1000
            operation, nibbles, offset, value = code[at]
            low, high = nibbles & 15, nibbles >> 4
            to, source = (low, high) if self.order == "little" else (high, low)
            at += 1
            wide = registers.get(to, 0)
            match operation:
                case 0x79:
                    assert source == 1
                    registers[to] = arguments[offset]
                case 0x54:
                    registers[to] = wide & 0xFFFFFFFF & value
                case 0x16 | 0x56:
                    at += offset if (wide & 0xFFFFFFFF == value) == (operation == 0x16) else 0
                case 0x15 | 0x55:
                    at += offset if (wide == value) == (operation == 0x15) else 0
                case 0xA5:
                    at += offset if wide < value else 0
                case 0xB7:
                    registers[to] = value
                case 0xBF:
                    registers[to] = registers[source]
                case 0x07:
                    registers[to] = wide + value
                case 0x7B:
                    assert (to, offset) == (10, -8)
                    stack[-8] = registers[source]
                case 0x18:
                    assert (source, value) == (1, 7)
                    registers[to] = 0x7AB1E
                    at += 1
                case 0x85:
                    if value == 123:
                        level = registers[1]
                        result = self.groups[level] if level < len(self.groups) else 0
                    else:
                        assert (value, registers[1], registers[2]) == (1, 0x7AB1E, -8)
                        result = 0x1000 if stack[-8] in self.registered else 0
                    registers = {0: result, 6: registers.get(6, 0), 10: 0}  # the others are gone
                case 0x95:
                    return registers[0]
                case _:
                    raise AssertionError(f"an instruction that is not known: {operation:#x}")


NONBLOCK, CLOEXEC = 0o4000, 0o2000000


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(
    ("family", "kind", "protocol", "answer"),
    [
        (2, 1, 0, 262),
        (2, 1, 6, 262),
        (10, 1, 0, 262),
        (10, 1, 6, 262),
        (2, 1 | NONBLOCK | CLOEXEC, 0, 262),
        (2, 2, 0, 0),
        (2, 2, 17, 0),
        (2, 3, 6, 0),
        (2, 5, 132, 0),
        (2, 1, 132, 0),
        (2, 1, 262, 0),
        (10, 1, 262, 0),
        (1, 1, 0, 0),
        (40, 1, 0, 0),
        (16, 3, 0, 0),
    ],
)
def test_tcp_sockets_of_a_registered_group_are_mptcp_and_nothing_else(
    order: str, family: int, kind: int, protocol: int, answer: int
) -> None:
    assert Machine(order, (1, 20, 300), frozenset({20})).answer(family, kind, protocol) == answer
    assert Machine(order, (1, 21, 300), frozenset({20})).answer(family, kind, protocol) == 0


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_group_counts_for_all_below_it(order: str) -> None:
    groups = tuple(range(100, 120))
    for level, group in enumerate(groups):
        found = Machine(order, groups, frozenset({group})).answer(2, 1, 0)
        assert found == (262 if level < program.LEVELS else 0), level
    assert Machine(order, groups, frozenset()).answer(2, 1, 0) == 0
    assert Machine(order, groups[:1], frozenset(groups[:1])).answer(2, 1, 0) == 262


def test_it_is_short_and_another_one_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(program.instructions(0)) // 8 == 26
    before = program.version()
    monkeypatch.setattr(program, "LEVELS", 16)
    assert program.version() == before
    lines = [(0xB7, 0, 0, 0, 261) if line == (0xB7, 0, 0, 0, 262) else line for line in program._LINES]
    monkeypatch.setattr(program, "_LINES", tuple(lines))
    assert program.version() != before
