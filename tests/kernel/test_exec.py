# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp exec`` with real programs: whether it was MPTCP is what the server sees."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nm_mptcp.kernel import sysctl
from nm_mptcp.launch import programs
from nm_mptcp.launch.elf import read
from nm_mptcp.launch.refusals import refused_by_mptcp
from nm_mptcp.launch.strace import FailedOption
from tests.support.command import COMMAND, as_user
from tests.support.debian import unpacked
from tests.support.network import Network
from tests.support.site import BODY, Site
from tests.support.waits import wait_for

MPTCP, TCP = [socket.IPPROTO_MPTCP], [socket.IPPROTO_TCP]
NOBODY = 65534


def needs(*names: str) -> None:
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="session")
def go_program() -> str:
    """``hey``, a client of Debian's that is written in Go, built with a Go that knows the setting."""
    program = shutil.which("hey")
    if program is None or not _knows_the_setting(program):
        try:
            program = str(unpacked("trixie", "hey") / "usr/bin/hey")
        except RuntimeError as error:
            pytest.skip(f"no program of a new Go: {error}")
    assert _knows_the_setting(program)
    return program


def _knows_the_setting(program: str) -> bool:
    with open(program, "rb") as file:
        return (read(file).go_release or (0, 0)) >= (1, 21)


#: By a control group (test_switch.py) it would be this machine that gets a program in its kernel, and a scope of its systemd.
PRELOAD = "--method=preload"


def run(*words: str, command: tuple[str, ...] = COMMAND, **how: object) -> subprocess.CompletedProcess[str]:
    """Run the command in this thread's namespace."""
    return subprocess.run(
        [*command, words[0], PRELOAD, *words[1:]],
        **{"capture_output": True, "text": True, "check": False, "timeout": 60, **how},  # type: ignore[call-overload]
    )


def fetched(site: Site, *program: str, **how: object) -> tuple[list[int], str]:
    """The protocol that the server saw, and the messages before it; fails unless the command got the page."""
    done = run("exec", "--", *program, **how)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    seen = site.protocols[:]
    site.protocols.clear()
    return seen, "".join(line for line in done.stderr.splitlines() if line.startswith("nm-mptcp:"))


# --- what works --------------------------------------------------------------------------------------------------------


def test_a_dynamic_program_speaks_mptcp(site: Site, wrapper: str) -> None:  # noqa: ARG001
    needs("curl")
    assert subprocess.run(["curl", "-s", site.url], capture_output=True, check=True).stdout == BODY
    assert site.protocols == TCP
    site.protocols.clear()
    assert fetched(site, "curl", "-s", site.url) == (MPTCP, "")


def test_a_go_program_speaks_mptcp(site: Site, go_program: str) -> None:
    subprocess.run([go_program, "-n", "1", "-c", "1", site.url], capture_output=True, check=True)
    assert site.protocols == TCP
    site.protocols.clear()
    assert fetched(site, go_program, "-n", "1", "-c", "1", site.url) == (MPTCP, "")


def test_children_speak_mptcp_whatever_started_them(site: Site, wrapper: str, go_program: str, tmp_path: Path) -> None:  # noqa: ARG001
    needs("curl")
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ncurl -s {site.url}\n{go_program} -n 1 -c 1 {site.url}\n")
    script.chmod(0o755)
    assert fetched(site, str(script)) == (MPTCP * 2, "")


def test_a_script_of_python_speaks_mptcp(site: Site, wrapper: str, tmp_path: Path) -> None:  # noqa: ARG001
    needs("python3")
    script = tmp_path / "script"
    script.write_text(
        f"#!/usr/bin/env python3\nimport urllib.request\nprint(urllib.request.urlopen('{site.url}').read())\n"
    )
    script.chmod(0o755)
    assert fetched(site, str(script)) == (MPTCP, "")


def test_a_script_without_an_interpreter_is_run_by_the_shell(site: Site, wrapper: str, tmp_path: Path) -> None:  # noqa: ARG001
    needs("curl")
    script = tmp_path / "script"
    script.write_text('curl -s "$1"\n')
    script.chmod(0o755)
    assert fetched(site, str(script), site.url) == (MPTCP, "")


# --- what MPTCP refuses a program --------------------------------------------------------------------------------------


#: kTLS; an option that no socket knows; and some of sockets of which none is TCP's.
ASKS = """
import socket
pair = socket.socketpair()
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0nm-mptcp-test")
listener.listen()
client = socket.socket(socket.AF_UNIX)
client.connect("\\0nm-mptcp-test")
server = socket.socket(socket.AF_INET)
server.listen()
for end, what in (
    (server, (6, 31, b"tls")),
    (server, (6, 99, 1)),
    (pair[0], (1, 60, 1)),
    (listener.accept()[0], (6, 12, 1)),
):
    try:
        end.setsockopt(*what)
    except OSError:
        pass
"""
TOLD = [
    "it used 1 MPTCP socket",
    "setsockopt(SOL_TCP, TCP_ULP) failed because the socket is MPTCP: Protocol not available (ENOPROTOOPT), once; "
    "the kernel does not encrypt (kTLS), the program has to",
]
SOUND = "no socket option failed because of MPTCP"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where strace's files are while the program runs, for nobody else to enter; nothing is left there."""
    needs("strace")
    place = tmp_path / "temporary"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(place))
    yield place
    assert list(place.iterdir()) == []


def checked(*program: str, **how: object) -> tuple[int, list[str]]:
    """The exit status, and what ``--check`` told."""
    done = run("exec", "--quiet", "--check", "--", *program, **how)
    return done.returncode, [line.removeprefix("nm-mptcp: check: ") for line in done.stderr.splitlines()]


def test_what_mptcp_refuses_a_program_is_told_when_it_has_ended(folder: Path, wrapper: str) -> None:  # noqa: ARG001
    assert checked("/usr/bin/python3", "-c", ASKS) == (0, TOLD)


def test_a_program_of_a_user_is_checked_and_gets_none_of_the_files(folder: Path, wrapper: str) -> None:  # noqa: ARG001
    done = run(
        "exec", "--check", "--user", "nobody", "--", "/usr/bin/python3", "-c", ASKS + "import os; print(os.getresuid())"
    )
    assert (done.returncode, done.stdout) == (0, f"({NOBODY}, {NOBODY}, {NOBODY})\n")
    assert done.stderr.splitlines() == [f"nm-mptcp: check: {line}" for line in TOLD]


def test_its_children_are_watched_too(site: Site, wrapper: str, folder: Path) -> None:  # noqa: ARG001
    needs("curl")
    status, told = checked("sh", "-c", f"curl -s {site.url}; exit 3")
    assert (status, told, site.protocols) == (3, ["it used 1 MPTCP socket", SOUND], MPTCP)


def test_what_go_makes_to_see_what_there_is_does_not_count(site: Site, go_program: str, folder: Path) -> None:  # noqa: ARG001
    assert checked(go_program, "-n", "1", "-c", "1", site.url) == (0, ["it used 1 MPTCP socket", SOUND])


def test_a_static_program_is_seen_to_stay_tcp(site: Site, wrapper: str, folder: Path) -> None:  # noqa: ARG001
    needs("busybox")
    status, told = checked("busybox", "wget", "-q", "-O", "-", site.url)
    assert (status, told) == (0, ["it used 0 MPTCP sockets, and 1 that stayed TCP"])


def test_where_mptcp_is_off_nothing_fails_because_of_it(site: Site, folder: Path) -> None:  # noqa: ARG001
    needs("curl")
    quick_ack = FailedOption("setsockopt", 6, 12, "SOL_TCP, TCP_QUICKACK", "ENOPROTOOPT")
    assert refused_by_mptcp(quick_ack)
    sysctl.write("net/mptcp/enabled", 0)
    assert not refused_by_mptcp(quick_ack)
    assert checked("curl", "-s", site.url) == (0, ["it used 0 MPTCP sockets, and 1 that stayed TCP"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_program(folder: Path, number: signal.Signals) -> None:  # noqa: ARG001
    words = (*COMMAND, "exec", PRELOAD, "--quiet", "--check", "--", "sh", "-c")
    script = f"trap 'exit 7' {number.value}; echo ready; while :; do sleep 0.1; done"
    # What is ignored when a shell begins cannot be trapped in it: SIGHUP where the tests were started by nohup.
    usual = ("env", f"--default-signal={number.name[3:]}")
    with subprocess.Popen(
        [*usual, *words, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(60) == 7


@pytest.mark.parametrize("after", [0.05, 0.1, 0.2])
def test_a_signal_at_any_time_ends_it_and_leaves_nothing(folder: Path, after: float) -> None:  # noqa: ARG001
    """The times are where a signal comes, not what is measured: before, while and after it is started."""
    program = ("sleep", f"61.{os.getpid()}")
    words = (*COMMAND, "exec", PRELOAD, "--quiet", "--check", "--", *program)
    with subprocess.Popen(["timeout", f"{after}", *words], stderr=subprocess.PIPE, text=True) as process:
        _, told = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in told) == (124, False)
    wait_for("the program has ended", lambda: not running(*program))


def running(*words: str) -> bool:
    """Whether a process has this command line."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if place.read_text().split("\0")[:-1] == list(words):
                return True
    return False


def test_what_it_leaves_behind_goes_on_and_nobody_traces_it(tmp_path: Path, folder: Path) -> None:  # noqa: ARG001
    """Also what is about to start programs, which strace could not let go of by itself."""
    loop = f"n=0; while [ $n -lt 40 ]; do n=$((n + 1)); /bin/true; done; echo >{tmp_path}/ended-"
    script = "".join(f"({loop}{number}) & " for number in range(10))
    assert checked("sh", "-c", script)[0] == 0
    wait_for("all have ended", lambda: len(list(tmp_path.glob("ended-*"))) == 10, seconds=30)


def test_its_status_is_told_also_when_the_files_are_gone(tmp_path: Path, folder: Path) -> None:  # noqa: ARG001
    status, told = checked("sh", "-c", f"rm -rf {folder}/*; exit 7")
    assert (status, told) == (7, ["strace could not run or trace it, so nothing is known"])


def test_it_ends_also_where_sigchld_is_ignored(folder: Path) -> None:  # noqa: ARG001
    """As some launchers leave it: the kernel would tell nobody that the program has ended."""
    done = run(
        "exec", "--quiet", "--check", "--", "sh", "-c", "exit 7", command=("env", "--ignore-signal=CHLD", *COMMAND)
    )
    assert done.returncode == 7


def test_what_cannot_be_run_has_the_status_of_a_shell(tmp_path: Path, folder: Path) -> None:  # noqa: ARG001
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF and no more")
    broken.chmod(0o755)
    assert run("exec", "--quiet", "--check", "--", str(broken)).returncode == 126
    assert run("exec", "--quiet", "--check", "--", "no-such-program").returncode == 127


def test_without_strace_nothing_is_run(tmp_path: Path, folder: Path) -> None:  # noqa: ARG001
    (tmp_path / "true").symlink_to("/bin/true")
    done = run("exec", "--check", "--", "true", env={**os.environ, "PATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (125, "nm-mptcp: not run: --check needs strace (package strace)\n")


@pytest.mark.parametrize("other", ["--dry-run", "--json"])
def test_check_runs_the_program_and_these_do_not(other: str) -> None:
    done = run("exec", "--check", other, "--", "true")
    assert (done.returncode, done.stdout) == (2, "")
    assert "use one of them" in done.stderr


# --- what cannot work, and is reported -------------------------------------------------------------------------------------


def test_a_static_program_stays_on_tcp_and_its_children_do_not(site: Site, wrapper: str) -> None:  # noqa: ARG001
    needs("busybox", "curl")
    if programs.examine("busybox", os.environ, uid=0, gid=0).form is not programs.Form.STATIC:
        pytest.skip("this busybox is not static")
    seen, stderr = fetched(site, "busybox", "wget", "-q", "-O", "-", site.url)
    assert seen == TCP
    assert "static" in stderr
    assert fetched(site, "busybox", "sh", "-c", f"{shutil.which('curl')} -s {site.url}")[0] == MPTCP


def test_a_program_of_an_old_go_stays_on_tcp(site: Site) -> None:
    needs("hey")
    if _knows_the_setting(str(shutil.which("hey"))):
        pytest.skip("this hey was built with a Go that knows the setting")
    seen, stderr = fetched(site, "hey", "-n", "1", "-c", "1", site.url)
    assert seen == TCP
    assert "go1.19" in stderr


def test_a_setuid_program_stays_on_tcp(site: Site, wrapper: str, tmp_path: Path) -> None:  # noqa: ARG001
    needs("curl")
    program = tmp_path / "curl"
    shutil.copy(str(shutil.which("curl")), program)
    os.chown(program, NOBODY, NOBODY)
    for mode, word in ((0o4755, "setuid"), (0o2755, "setgid")):
        program.chmod(mode)
        seen, stderr = fetched(site, str(program), "-s", site.url)
        assert seen == TCP
        assert f"({word})" in stderr
    program.chmod(0o755)
    assert fetched(site, str(program), "-s", site.url) == (MPTCP, "")


def test_a_program_with_capabilities_stays_on_tcp_for_a_user_and_not_for_root(
    site: Site,
    wrapper: str,  # noqa: ARG001
    tmp_path: Path,
) -> None:
    needs("curl")
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    program = tmp_path / "curl"
    shutil.copy(str(shutil.which("curl")), program)
    program.chmod(0o755)
    revision_2_effective, net_bind_service = 0x02000001, 1 << 10
    os.setxattr(program, "security.capability", struct.pack("<5I", revision_2_effective, net_bind_service, 0, 0, 0))
    how = {"command": as_user(NOBODY, "exec", "--json", "true"), "cwd": "/"}
    seen, stderr = fetched(site, str(program), "-s", site.url, **how)
    assert seen == TCP
    assert "file capabilities" in stderr
    assert fetched(site, str(program), "-s", site.url) == (MPTCP, "")
    os.removexattr(program, "security.capability")
    assert fetched(site, str(program), "-s", site.url, **how) == (MPTCP, "")


def test_where_mptcp_is_off_a_program_still_reaches_the_server(site: Site, wrapper: str) -> None:  # noqa: ARG001
    """The wrapper does not fall back: with it, the program would fail."""
    needs("curl")
    sysctl.write("net/mptcp/enabled", 0)
    seen, stderr = fetched(site, "curl", "-s", site.url)
    assert seen == TCP
    assert "sysctl -w net.mptcp.enabled=1" in stderr


def test_what_cannot_work_is_an_exit_status_and_runs_nothing(wrapper: str, network: Network) -> None:  # noqa: ARG001
    needs("curl")
    done = run("exec", "--json", "--", "curl", "-s", "x")
    document = json.loads(done.stdout)
    assert (done.returncode, document["works"], document["findings"], document["wrapper"]) == (0, True, [], wrapper)
    assert document["execute"]["environment"] == {"GODEBUG": "multipathtcp=1", "LD_PRELOAD": wrapper}
    sysctl.write("net/mptcp/enabled", 0)
    done = run("exec", "--json", "--", "curl", "-s", "x")
    document = json.loads(done.stdout)
    assert (done.returncode, document["works"], document["mptcp"]["error"]) == (1, False, "ENOPROTOOPT")
    assert [finding["obstacle"] for finding in document["findings"]] == ["no-mptcp"]
    shown = run("exec", "--quiet", "--dry-run", "--", "curl", "a b")
    assert (shown.returncode, shown.stdout, shown.stderr) == (1, "curl 'a b'\n", "")


# --- it becomes the program --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_status_is_the_programs(network: Network, status: int) -> None:  # noqa: ARG001
    assert run("exec", "--", "sh", "-c", f"exit {status}").returncode == status


def test_the_process_becomes_the_program(network: Network) -> None:  # noqa: ARG001
    with subprocess.Popen(
        [*COMMAND, "exec", PRELOAD, "--", "sh", "-c", "echo $$"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert int(process.communicate()[0]) == process.pid
    assert run("exec", "--", "sh", "-c", "kill -TERM $$").returncode == -15


@pytest.mark.parametrize(
    ("words", "status", "stderr"),
    [
        (["no-such-program"], 127, "nm-mptcp: no-such-program: command not found\n"),
        (["/no/such/program"], 127, "nm-mptcp: /no/such/program: command not found\n"),
        ([""], 127, "nm-mptcp: '': command not found\n"),
        (["/etc/passwd"], 126, "nm-mptcp: /etc/passwd: permission denied\n"),
        (["/etc"], 126, "nm-mptcp: /etc: is a directory\n"),
        ([], 2, "nm-mptcp: exec needs a program: nm-mptcp exec -- COMMAND [ARGUMENT...]\n"),
    ],
)
def test_what_cannot_be_run_ends_as_in_a_shell(network: Network, words: list[str], status: int, stderr: str) -> None:  # noqa: ARG001
    done = run("exec", "--", *words)
    assert (done.returncode, done.stderr) == (status, stderr)


def test_a_broken_program_ends_as_in_a_shell(network: Network, tmp_path: Path) -> None:  # noqa: ARG001
    for name, data, status in (
        ("binary", b"\x00\x01\x02garbage", 126),
        ("elf", b"\x7fELF\x02\x01garbage", 126),
        ("script", b"#!/no/such/interpreter\n", 127),
        ("loop", b"#!" + os.fsencode(tmp_path / "loop") + b"\n", 126),
    ):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o755)
        done = run("exec", "--quiet", "--", str(tmp_path / name))
        assert (name, done.returncode) == (name, status), done.stderr
        assert done.stderr.startswith("nm-mptcp: ")
        assert done.stderr.count("\n") == 1


def test_arguments_and_environment_arrive_untouched(network: Network, wrapper: str) -> None:  # noqa: ARG001
    odd = ["--", "-q", "--json", "", "a b", "\n", "\x1b[31m", "ä"]
    assert run("exec", "--", "printf", "%s.", *odd).stdout == ".".join([*odd, ""])
    assert run("exec", "printf", "%s.", *odd).stdout == ".".join([*odd, ""])
    shell = str(shutil.which("env"))
    given = {"ONE": "1", "LD_PRELOAD": "", "GODEBUG": "netdns=go"}
    done = run("exec", "--", shell, env=given).stdout.splitlines()
    assert sorted(done) == ["GODEBUG=netdns=go,multipathtcp=1", f"LD_PRELOAD={wrapper}", "ONE=1"]


def test_signals_are_handled_as_under_a_shell(network: Network) -> None:  # noqa: ARG001
    """Python ignores SIGPIPE; a program that inherited that would not end with its reader."""
    question = ["grep", "-E", "^Sig(Ign|Blk|Cgt)", "/proc/self/status"]
    shell = subprocess.run(question, capture_output=True, text=True, check=True).stdout
    assert run("exec", "--", *question).stdout == shell


def test_open_files_are_inherited_and_none_is_added(network: Network) -> None:  # noqa: ARG001
    question = ["sh", "-c", "echo /proc/self/fd/*"]
    reader, writer = os.pipe()
    try:
        plain = subprocess.run(question, pass_fds=[reader], capture_output=True, text=True, check=True).stdout
        assert run("exec", "--", *question, pass_fds=[reader]).stdout == plain
    finally:
        os.close(reader)
        os.close(writer)
