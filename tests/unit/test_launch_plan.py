# SPDX-License-Identifier: GPL-2.0-or-later
"""How programs are run with MPTCP sockets: a table of programs and of what is installed."""

from __future__ import annotations

import errno
import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nm_mptcp.launch.elf import Elf, read
from nm_mptcp.launch.plan import (
    GROUP_BOUNDARIES,
    SETTING,
    LaunchContext,
    Method,
    ObstacleKind,
    godebug,
    plan_launch,
    plan_switched,
    preload,
    refusal,
    root_could,
)
from nm_mptcp.launch.programs import Form, Program, Wrapper

from .elves import elf, go_build

LOADER, MUSL = "/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"
WRAP, WRAP32 = (
    "/usr/lib/x86_64-linux-gnu/mptcpize/libmptcpwrap.so.0",
    "/usr/lib/i386-linux-gnu/mptcpize/libmptcpwrap.so.0",
)


def of(**words: object) -> Elf:
    return read(io.BytesIO(elf(**words)))  # type: ignore[arg-type]


WRAPPER = Wrapper(WRAP, of(needed=("libc.so.6",)))
WRAPPER32 = Wrapper(WRAP32, of(bits=32, machine=3, needed=("libc.so.6",)))
DYNAMIC = Program("/usr/bin/curl", Form.DYNAMIC, of(interpreter=LOADER))
STATIC = Program("/bin/busybox", Form.STATIC, of())
NARROW = Program("/opt/old", Form.DYNAMIC, of(interpreter="/lib/ld-linux.so.2", bits=32, machine=3))
ALPINE = Program("/opt/alpine", Form.DYNAMIC, of(interpreter=MUSL))


def go(version: bytes) -> Program:
    return Program("/usr/bin/hey", Form.GO, of(go=go_build(version, inline=bool(version))))


USUAL = LaunchContext(program=DYNAMIC, wrappers=(WRAPPER,), environment={"PATH": "/usr/bin"})
BOTH = {"GODEBUG": SETTING, "LD_PRELOAD": WRAP}


def test_a_dynamic_program_gets_the_wrapper_and_its_go_children_the_setting() -> None:
    planned = plan_launch(USUAL, ["curl", "-v", "http://x"])
    assert (planned.file, planned.arguments) == ("/usr/bin/curl", ("curl", "-v", "http://x"))
    assert planned.variables == BOTH
    assert planned.works


@pytest.mark.parametrize(
    ("context", "obstacle", "variables"),
    [
        (replace(USUAL, program=go(b"go1.21.0")), None, BOTH),
        (replace(USUAL, program=go(b"go1.24.4"), wrappers=()), None, {"GODEBUG": SETTING}),
        (replace(USUAL, program=go(b"devel +a1b2c3")), None, BOTH),
        (replace(USUAL, program=go(b"go1.19.8")), ObstacleKind.OLD_GO, BOTH),
        (replace(USUAL, program=go(b"")), ObstacleKind.OLD_GO, BOTH),
        (replace(USUAL, program=STATIC), ObstacleKind.STATIC, BOTH),
        (replace(USUAL, program=replace(DYNAMIC, privileges=("setuid",))), ObstacleKind.PRIVILEGED, BOTH),
        (replace(USUAL, program=NARROW), ObstacleKind.ARCHITECTURE, {"GODEBUG": SETTING}),
        (
            replace(USUAL, program=NARROW, wrappers=(WRAPPER, WRAPPER32)),
            None,
            {"GODEBUG": SETTING, "LD_PRELOAD": WRAP32},
        ),
        (replace(USUAL, program=ALPINE), ObstacleKind.LIBC, {"GODEBUG": SETTING}),
        (replace(USUAL, program=ALPINE, wrappers=(Wrapper(WRAP, of(needed=("libc.musl-x86_64.so.1",))),)), None, BOTH),
        (replace(USUAL, program=Program("/x.jar", Form.UNKNOWN)), ObstacleKind.UNKNOWN, BOTH),
        (replace(USUAL, program=replace(DYNAMIC, path="/usr/bin/sudo")), ObstacleKind.ENVIRONMENT_BOUNDARY, BOTH),
        (replace(USUAL, wrappers=()), ObstacleKind.NO_WRAPPER, {"GODEBUG": SETTING}),
        (replace(USUAL, error=errno.ENOPROTOOPT), ObstacleKind.NO_MPTCP, {}),
        (replace(USUAL, program=go(b"go1.24.4"), error=errno.EPERM), ObstacleKind.NO_MPTCP, {}),
    ],
)
def test_obstacles_are_reported_and_the_rest_is_done(
    context: LaunchContext, obstacle: ObstacleKind | None, variables: dict[str, str]
) -> None:
    planned = plan_launch(context, ["it", "-x"])
    assert [each.kind for each in planned.obstacles] == ([obstacle] if obstacle else [])
    assert planned.works == (obstacle is None)
    assert planned.variables == variables
    assert planned.arguments == ("it", "-x")
    assert all(each.text and "\n" not in each.text for each in planned.obstacles)


def test_without_a_wrapper_to_be_found_mptcpize_is_run() -> None:
    planned = plan_launch(replace(USUAL, wrappers=(), mptcpize="/opt/bin/mptcpize"), ["curl", "-v"])
    assert planned.works
    assert (planned.file, planned.arguments) == ("/opt/bin/mptcpize", ("mptcpize", "run", "/usr/bin/curl", "-v"))


def test_with_the_wrapper_mptcpize_is_not_needed() -> None:
    """Version 0.12 drops the user's own LD_PRELOAD, and ends with 255 and no word where a shell says 126."""
    planned = plan_launch(replace(USUAL, mptcpize="/usr/bin/mptcpize"), ["curl"])
    assert planned.file == "/usr/bin/curl"


def test_a_text_without_an_interpreter_is_run_as_a_shell_runs_it() -> None:
    text = replace(DYNAMIC, path="/opt/text", script=("/opt/text", "/bin/sh"), shell=True)
    planned = plan_launch(replace(USUAL, program=text), ["text", "-x"])
    assert (planned.file, planned.arguments) == ("/bin/sh", ("/bin/sh", "/opt/text", "-x"))


def test_the_users_own_settings_are_kept() -> None:
    context = replace(USUAL, environment={"LD_PRELOAD": "/a.so /b.so", "GODEBUG": "netdns=go"})
    assert plan_launch(context, ["curl"]).variables == {
        "LD_PRELOAD": f"/a.so:/b.so:{WRAP}",
        "GODEBUG": "netdns=go,multipathtcp=1",
    }


def test_the_line_for_a_shell_is_quoted() -> None:
    assert plan_launch(USUAL, ["curl", "a b"]).shell() == f"GODEBUG={SETTING} LD_PRELOAD={WRAP} curl 'a b'"


# --- by control group


@pytest.mark.parametrize("program", [DYNAMIC, STATIC, NARROW, ALPINE, go(b"go1.19.8"), Program("/x", Form.UNKNOWN)])
def test_in_a_registered_group_it_does_not_matter_what_a_program_is(program: Program) -> None:
    planned = plan_switched(program, ["it", "-x"])
    assert (planned.method, planned.works, planned.variables) == (Method.EBPF, True, {})
    assert (planned.file, planned.arguments) == (program.path, ("it", "-x"))


def test_a_text_without_an_interpreter_is_run_as_a_shell_runs_it_there_too() -> None:
    text = replace(DYNAMIC, path="/opt/text", script=("/opt/text", "/bin/sh"), shell=True)
    assert plan_switched(text, ["text", "-x"]).arguments == ("/bin/sh", "/opt/text", "-x")


@pytest.mark.parametrize("name", GROUP_BOUNDARIES)
def test_programs_that_start_others_in_another_group_are_reported(name: str) -> None:
    planned = plan_switched(replace(DYNAMIC, path=f"/usr/bin/{name}"), [name, "x"])
    assert [each.kind for each in planned.obstacles] == [ObstacleKind.ENVIRONMENT_BOUNDARY]


def test_sudo_stays_in_the_group() -> None:
    assert plan_switched(replace(DYNAMIC, path="/usr/bin/sudo"), ["sudo", "-u", "x", "true"]).works


def test_why_there_can_be_no_group_is_an_obstacle() -> None:
    planned = plan_switched(DYNAMIC, ["curl"], "this kernel has no hook")
    assert [(each.kind, each.text) for each in planned.obstacles] == [
        (ObstacleKind.NO_SWITCH, "this kernel has no hook")
    ]


def test_a_user_is_told_what_root_could_do() -> None:
    planned = plan_launch(replace(USUAL, program=STATIC), ["busybox", "wget", "a b"])
    assert root_could(planned, ["busybox", "wget", "a b"], "me") == (
        "root can bring it onto MPTCP: sudo nm-mptcp exec --user me -- busybox wget 'a b'"
    )
    for context in (USUAL, replace(USUAL, error=errno.ENOPROTOOPT), replace(USUAL, program=go(b"go1.24.4"))):
        assert root_could(plan_launch(context, ["x"]), ["x"], "me") is None


@given(st.text(alphabet="abmultipathtcp=01,", max_size=60))
def test_appending_twice_is_appending_once(before: str) -> None:
    assert godebug(godebug(before)) == godebug(before)
    assert godebug(before).endswith(SETTING)
    assert preload(preload(before, WRAP), WRAP) == preload(before, WRAP)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errno.ENOPROTOOPT, "net.mptcp.enabled=1"),
        (errno.EPROTONOSUPPORT, "CONFIG_MPTCP"),
        (errno.EINVAL, "5.6"),
        (errno.EPERM, "SELinux"),
        (errno.EACCES, "SELinux"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_each_refusal_of_the_kernel_is_explained(error: int, words: str) -> None:
    assert words in refusal(error)
