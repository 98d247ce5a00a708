# SPDX-License-Identifier: GPL-2.0-or-later
"""What would run for a command, in folders of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nm_mptcp.launch.programs import Form, Program, ProgramError, examine, find, wrappers

from .elves import elf, go_build

LOADER = "/lib64/ld-linux-x86-64.so.2"
UID, GID = os.getuid(), os.getgid()


@pytest.fixture
def bin_(tmp_path: Path) -> Path:
    put(tmp_path / "tool", elf(interpreter=LOADER))
    put(tmp_path / "fixed", elf())
    put(tmp_path / "gopher", elf(interpreter=LOADER, go=go_build(b"go1.22.1")))
    put(tmp_path / "plain", b"no program", mode=0o644)
    (tmp_path / "folder").mkdir()
    return tmp_path


def put(path: Path, data: bytes, mode: int = 0o755) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def seen(bin_: Path, word: str) -> Program:
    return examine(word, {"PATH": str(bin_)}, uid=UID, gid=GID)


@pytest.mark.parametrize(("name", "form"), [("tool", Form.DYNAMIC), ("fixed", Form.STATIC), ("gopher", Form.GO)])
def test_forms_of_programs(bin_: Path, name: str, form: Form) -> None:
    program = seen(bin_, name)
    assert (program.path, program.form, program.script) == (str(bin_ / name), form, ())
    assert seen(bin_, str(bin_ / name)) == program


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ("#!{bin}/tool", Form.DYNAMIC),
        ("#! {bin}/tool  -x", Form.DYNAMIC),
        ("#!\t{bin}/fixed\t-x", Form.STATIC),
        ("#!/usr/bin/env fixed", Form.STATIC),
        ("#!/usr/bin/env  gopher", Form.GO),
        ("#!/usr/bin/env -S gopher -x", Form.GO),
        ("#!/usr/bin/env -S -i A=1 gopher -x", Form.GO),
        ("#!/usr/bin/env --split-string=gopher -x", Form.GO),
    ],
)
def test_a_script_is_what_its_interpreter_is(bin_: Path, line: str, form: Form) -> None:
    script = put(bin_ / "script", line.format(bin=bin_).encode() + b"\nfirst line\n")
    program = seen(bin_, "script")
    assert program.form is form
    assert program.script[0] == program.path == str(script)
    assert not program.shell


@pytest.mark.skipif(not os.path.exists("/usr/bin/env"), reason="there is no /usr/bin/env")
@pytest.mark.parametrize("words", ["nosuch", "-S", "-S 'open", "-S -i", "A=1"])
def test_an_env_that_leads_nowhere_is_itself_the_program(bin_: Path, words: str) -> None:
    put(bin_ / "script", f"#!/usr/bin/env {words}\n".encode())
    assert seen(bin_, "script").runs == "/usr/bin/env"


def test_a_script_of_a_script_is_followed(bin_: Path) -> None:
    put(bin_ / "inner", f"#!{bin_}/fixed\n".encode())
    put(bin_ / "outer", f"#!{bin_}/inner\n".encode())
    program = seen(bin_, "outer")
    assert program.form is Form.STATIC
    assert program.script == tuple(str(bin_ / name) for name in ("outer", "inner", "fixed"))


def test_a_script_of_itself_ends(bin_: Path) -> None:
    put(bin_ / "loop", f"#!{bin_}/loop\n".encode())
    assert seen(bin_, "loop").form is Form.UNKNOWN


@pytest.mark.parametrize("data", [b"#!", b"#!\n", b"#!  \nx", b"\0\1\2", b"\x7fELF", b"MZ\0"])
def test_what_nobody_can_read_is_unknown(bin_: Path, data: bytes) -> None:
    put(bin_ / "odd", data)
    assert seen(bin_, "odd").form is Form.UNKNOWN


def test_a_text_is_the_shells(bin_: Path) -> None:
    put(bin_ / "text", b"echo hello\n")
    program = seen(bin_, "text")
    assert program.shell
    assert program.runs == "/bin/sh"


@pytest.mark.parametrize(
    ("word", "status"),
    [("nosuch", 127), ("/no/such", 127), ("", 127), ("folder", 127), ("{bin}/folder", 126), ("{bin}/plain", 126)],
)
def test_what_cannot_be_run_has_the_status_of_a_shell(bin_: Path, word: str, status: int) -> None:
    with pytest.raises(ProgramError) as raised:
        seen(bin_, word.format(bin=bin_))
    assert raised.value.status == status


def test_the_first_that_may_be_run_is_taken_and_a_refusal_is_reported_only_at_the_end(
    bin_: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    put(other / "plain", elf())
    assert find("plain", f"{bin_}:{other}") == str(other / "plain")
    with pytest.raises(ProgramError, match="permission denied"):
        find("plain", f"{bin_}:/nowhere")


def test_wrappers_of_all_architectures_are_found_once_each_by_the_name_that_stays(tmp_path: Path) -> None:
    for triplet, bits in (("x86_64-linux-gnu", 64), ("i386-linux-gnu", 32)):
        folder = tmp_path / "usr/lib" / triplet / "mptcpize"
        folder.mkdir(parents=True)
        put(folder / "libmptcpwrap.so.0.0.1", elf(bits=bits))
        (folder / "libmptcpwrap.so.0").symlink_to("libmptcpwrap.so.0.0.1")
        put(folder / "libmptcpwrap.so.broken", b"garbage")
    found = wrappers(root=tmp_path)
    assert [(Path(one.path).name, one.elf.bits) for one in found] == [
        ("libmptcpwrap.so.0", 32),
        ("libmptcpwrap.so.0", 64),
    ]


def test_wrappers_beside_mptcpize_come_first(tmp_path: Path) -> None:
    for place in ("opt/x/lib/mptcpize", "usr/lib64/mptcpize"):
        (tmp_path / place).mkdir(parents=True)
        put(tmp_path / place / "libmptcpwrap.so.0.0.5", elf())
    (tmp_path / "opt/x/bin").mkdir()
    put(tmp_path / "opt/x/bin/mptcpize", elf(interpreter=LOADER))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mptcpize").symlink_to(tmp_path / "opt/x/bin/mptcpize")
    found = wrappers(str(tmp_path / "bin/mptcpize"), root=tmp_path)
    assert [one.path for one in found] == [
        str(tmp_path / place / "libmptcpwrap.so.0.0.5") for place in ("opt/x/lib/mptcpize", "usr/lib64/mptcpize")
    ]
