# SPDX-License-Identifier: GPL-2.0-or-later
"""The switch in a real kernel: MPTCP inside a registered control group, whatever the program is built of, and TCP outside.

It takes the machine's own BPF file system, so this runs in machines of our own alone (``tests/machine/test_switch.py``).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nm_mptcp.kernel import sysctl
from nm_mptcp.launch import control_groups, program, registration, switch
from nm_mptcp.launch.control_groups import id_of, switched_in
from nm_mptcp.launch.switch import DIRECTORY, BpfKernel, SwitchError
from tests.support.asker import asker, machines
from tests.support.command import COMMAND, as_user
from tests.support.network import Network
from tests.support.site import Site

MPTCP, TCP = [socket.IPPROTO_MPTCP], [socket.IPPROTO_TCP]
NOBODY = 65534
IS_MPTCP, IS_TCP = 1, 0
#: ``hey`` of Debian 11, of a Go before 1.21, where the machine was given it.
OLD_GO = "hey-bullseye"
BY_EBPF = (*COMMAND, "exec", "--method=ebpf", "--")

pytestmark = pytest.mark.skipif(
    os.environ.get("NM_MPTCP_SWITCH") != "here",
    reason="needs a kernel that takes tracing programs, in a machine of its own (make test-machine)",
)


@pytest.fixture(autouse=True)
def _apart(network: Network) -> Iterator[None]:  # noqa: ARG001
    """Each test in a network of its own; without a switch before and after."""
    _remove()
    yield
    _remove()


def _remove() -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(DIRECTORY)


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group in which nothing runs."""
    root = control_groups.root()
    assert root is not None
    group = root / f"nm-mptcp-test-{os.getpid()}"
    group.mkdir()
    yield group
    for below in sorted(group.rglob("*"), reverse=True):
        if below.is_dir():
            below.rmdir()
    group.rmdir()


def run(*words: str | Path, **how: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, words)],
        **{"capture_output": True, "text": True, "check": False, "timeout": 120, **how},  # type: ignore[call-overload]
    )


def pins() -> list[str]:
    return sorted(path.name for path in DIRECTORY.iterdir()) if DIRECTORY.exists() else []


# --- whatever a program is built of


STREAM, FLAGS = socket.SOCK_STREAM, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
TCP_SOCKETS = [
    (family, STREAM | flags, protocol)
    for family in (socket.AF_INET, socket.AF_INET6)
    for flags in (0, FLAGS)
    for protocol in (0, socket.IPPROTO_TCP)
]
OTHER_SOCKETS = [
    (socket.AF_INET, socket.SOCK_DGRAM, 0),
    (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP),
    (socket.AF_UNIX, STREAM, 0),
    (socket.AF_NETLINK, socket.SOCK_RAW, 0),
]


@pytest.mark.parametrize("machine", machines())
def test_static_programs_get_mptcp_for_tcp_and_nothing_else_inside_and_nothing_outside(
    tmp_path: Path, machine: str
) -> None:
    sockets = [*TCP_SOCKETS, *OTHER_SOCKETS]
    for number, (family, kind, protocol) in enumerate(sockets):
        asker(tmp_path / f"asker-{number}", machine=machine, family=family, kind=kind, protocol=protocol)
    script = ("sh", "-c", f"for n in $(seq 0 {len(sockets) - 1}); do {tmp_path}/asker-$n; echo $?; done")
    outside, inside = [IS_TCP] * len(sockets), [IS_MPTCP] * len(TCP_SOCKETS) + [IS_TCP] * len(OTHER_SOCKETS)
    assert [int(line) for line in run(*script).stdout.split()] == outside
    done = run(*BY_EBPF, *script)
    assert ([int(line) for line in done.stdout.split()], done.stderr) == (inside, "")
    assert [int(line) for line in run(*script).stdout.split()] == outside


def test_a_busybox_is_seen_to_speak_mptcp_at_the_far_side(site: Site) -> None:
    words = ("busybox", "wget", "-q", "-O", "-", site.url)
    assert run(*words).returncode == 0
    assert run(*BY_EBPF, *words).returncode == 0
    assert site.protocols == TCP + MPTCP


@pytest.mark.parametrize("program", ["hey", OLD_GO])
def test_go_needs_no_setting(site: Site, program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not here")
    words = (program, "-n", "1", "-c", "1", site.url)
    environment = {**os.environ, "GODEBUG": "multipathtcp=0"}  # which the old one does not know
    assert run(*words).returncode == 0
    assert run(*BY_EBPF, *words, env=environment).returncode == 0
    assert site.protocols == TCP + MPTCP


def test_setuid_programs_and_those_with_capabilities(tmp_path: Path) -> None:
    asks = asker(tmp_path / "asker")
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    os.chown(asks, NOBODY, NOBODY)
    asks.chmod(0o6755)
    assert run(*BY_EBPF, asks).returncode == IS_MPTCP
    asks.chmod(0o755)
    os.setxattr(asks, "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
    assert run(*COMMAND, "exec", "--method=ebpf", "--user", "nobody", "--", asks).returncode == IS_MPTCP


def test_children_and_new_namespaces(tmp_path: Path) -> None:
    asks = asker(tmp_path / "asker")
    assert run(*BY_EBPF, "sh", "-c", f"(env -i {asks})").returncode == IS_MPTCP
    assert run(*BY_EBPF, "unshare", "-n", "-m", "-p", "-f", asks).returncode == IS_MPTCP
    assert run(*BY_EBPF, "setsid", "-w", asks).returncode == IS_MPTCP


def test_a_listener_takes_mptcp(network: Network, far: Network) -> None:  # noqa: ARG001
    script = (
        "import socket; s = socket.create_server(('127.0.0.1', 0));"
        " c = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); c.connect(s.getsockname());"
        " print(s.getsockopt(1, 38), s.accept()[0].getsockopt(1, 38))"
    )
    network.ip("link set lo up")
    assert run(*BY_EBPF, sys.executable, "-c", script).stdout.split() == ["262", "262"]


# --- it becomes the program


def test_the_process_becomes_the_program_with_its_status_and_signals(tmp_path: Path) -> None:  # noqa: ARG001
    with subprocess.Popen([*BY_EBPF, "sh", "-c", "echo $$"], stdout=subprocess.PIPE, text=True) as process:
        assert int(process.communicate()[0]) == process.pid
    assert run(*BY_EBPF, "sh", "-c", "exit 42").returncode == 42
    assert run(*BY_EBPF, "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    assert run(*BY_EBPF, "no-such-program").returncode == 127
    question = ["sh", "-c", "echo /proc/self/fd/*; grep -E '^Sig(Ign|Blk|Cgt)' /proc/self/status; env | sort"]
    # The shell's own process id is in none of these.
    assert run(*BY_EBPF, *question).stdout == run(*question).stdout


def test_root_rights_are_given_up_for_a_user(tmp_path: Path) -> None:  # noqa: ARG001
    question = "id -u; id -g; id -G; grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status; echo $HOME $USER"
    done = run(*COMMAND, "exec", "--method=ebpf", "--user", "nobody", "--", "sh", "-c", question)
    uid, gid, groups, *capabilities, names = done.stdout.splitlines()
    assert (uid, gid, groups) == ("65534", "65534", "65534")
    assert [line.split()[1] for line in capabilities] == ["0" * 16] * 3
    assert names == "/nonexistent nobody"
    done = run(*COMMAND, "exec", "--user", "no-such-user", "--", "true")
    assert (done.returncode, done.stderr) == (125, "nm-mptcp: there is no user 'no-such-user'\n")


def test_what_mptcp_refuses_a_program_is_told_by_who_is_not_switched() -> None:
    script = "import socket; s = socket.socket(); s.listen()\n"
    script += "try: s.setsockopt(6, 31, b'tls')\nexcept OSError: s.setsockopt(6, 1, 1)"
    done = run(*BY_EBPF[:-1], "--check", "--", "sh", "-c", '"$1" -c "$2"; exit 3', "sh", sys.executable, script)
    assert done.returncode == 3
    told = [line.partition(": check: ")[2] for line in done.stderr.splitlines()]
    assert told[0] == "it used 1 MPTCP socket (TCP where it left its control group)"
    assert told[1].startswith("setsockopt(SOL_TCP, TCP_ULP) failed because the socket is MPTCP: ")
    assert len(told) == 2


def test_groups_of_ended_programs_are_removed_and_forgotten(tmp_path: Path) -> None:
    root = control_groups.root()
    assert root is not None
    before = set(control_groups.own(root).iterdir())
    for _ in range(3):
        assert run(*BY_EBPF, asker(tmp_path / "asker")).returncode == IS_MPTCP
    # The last, which the next one would remove.
    assert set(registration.registered()) == set(control_groups.own(root).iterdir()) - before
    assert len(registration.registered()) == 1


def test_a_dry_run_loads_nothing(tmp_path: Path) -> None:
    asks = str(asker(tmp_path / "asker"))
    done = run(*COMMAND, "exec", "--dry-run", "--", asks)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{asks}\n", "")
    document = json.loads(run(*COMMAND, "exec", "--json", "--", asks).stdout)
    assert (document["method"], document["works"], document["execute"]["environment"]) == ("ebpf", True, {})
    assert pins() == []


# --- the switch


def test_only_what_is_below_a_registered_group_is_switched(group: Path) -> None:
    deep = group
    for number in range(4):
        deep = deep / str(number)
    deep.mkdir(parents=True)
    registration.register(group)
    assert [switched_in(each) for each in (group, deep, group.parent)] == [True, True, False]
    registration.forget(group)
    registration.register(deep)
    assert [switched_in(each) for each in (group, deep)] == [False, True]


def test_a_thousand_groups(group: Path) -> None:
    places = [group / str(number) for number in range(1000)]
    for place in places:
        place.mkdir()
    with switch.loaded() as groups:
        for place in places:
            groups.register(id_of(place))
    assert all(switched_in(place) for place in places[::99])
    assert not switched_in(group)
    for place in places:
        place.rmdir()
    registration.register(group)
    assert registration.registered() == (group,)


def test_a_full_table_says_so(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "MOST_GROUPS", 2)
    with switch.loaded() as groups:
        groups.register(1)
        groups.register(2)
        with pytest.raises(SwitchError, match="2 control groups are registered"):
            groups.register(id_of(group))


def test_without_its_pins_all_is_tcp_again(group: Path) -> None:
    registration.register(group)
    assert switched_in(group)
    _remove()
    assert not switched_in(group)


class Dying(BpfKernel):
    """The loader is killed at a step."""

    def __init__(self, step: int) -> None:
        self._left = step

    def _step(self) -> None:
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def __getattribute__(self, name: str) -> object:
        if not name.startswith("_"):
            self._step()
        return super().__getattribute__(name)


def _in_child(work: Callable[[], object]) -> int:
    child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            work()
            status = 0
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("step", range(6))
def test_a_loader_killed_at_any_step_leaves_nothing_or_one_that_works(group: Path, step: int) -> None:
    def load() -> None:
        with switch.loaded(kernel=Dying(step)):
            pass

    status = _in_child(load)
    assert status == (-signal.SIGKILL if step < 5 else 0)
    if len(pins()) == 2:
        with switch.found() as groups:
            assert groups is not None
            groups.register(id_of(group))
        assert switched_in(group)
    else:
        assert pins() in ([], ["groups"])
        assert not switched_in(group)
    registration.register(group)
    assert switched_in(group)
    assert len(pins()) == 2


def test_an_upgrade_switches_a_registered_group_all_the_while(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registration.register(group)
    before = pins()
    stop = group / "stop"
    asked = [sys.executable, "-c", _WATCH, str(group / "cgroup.procs")]
    with subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline() == "watching\n"
        for number in range(5):
            monkeypatch.setattr("nm_mptcp.launch.program.version", lambda number=number: f"{number:08}")
            registration.load()
        output, _ = watch.communicate("stop\n")
    assert output == "set()\n", stop
    assert pins() == ["groups", "link-00000004"] != before
    assert switched_in(group)


_WATCH = """
import select, socket, sys
open(sys.argv[1], "w").write("0")
print("watching", flush=True)
wrong = set()
while not select.select([0], [], [], 0)[0]:
    with socket.socket() as one:
        wrong |= {one.getsockopt(1, 38)} - {262}
print(wrong)
"""


def test_ten_loaders_at_once_leave_one(group: Path, tmp_path: Path) -> None:
    asks = asker(tmp_path / "asker")
    loaders = [subprocess.Popen([*BY_EBPF, str(asks)]) for _ in range(10)]
    assert [loader.wait(120) for loader in loaders] == [IS_MPTCP] * 10
    assert len(pins()) == 2
    registration.register(group)
    assert switched_in(group)


# --- what stands in the way is told


def test_where_mptcp_is_off_nothing_is_registered(tmp_path: Path) -> None:
    asks = str(asker(tmp_path / "asker"))
    sysctl.write("net/mptcp/enabled", 0)
    done = run(*BY_EBPF, asks)
    assert done.returncode == 125
    assert done.stderr == "nm-mptcp: not run: MPTCP is switched off: sysctl -w net.mptcp.enabled=1\n"
    done = run(*COMMAND, "exec", "--", asks)
    assert done.returncode == IS_TCP
    assert "this runs with plain TCP" in done.stderr
    assert pins() == []


def test_where_function_tracing_is_off_it_says_so(tmp_path: Path) -> None:
    asks = str(asker(tmp_path / "asker"))
    subprocess.run(["sysctl", "-qw", "kernel.ftrace_enabled=0"], check=True)
    try:
        done = run(*BY_EBPF, asks)
        assert (done.returncode, "sysctl -w kernel.ftrace_enabled=1" in done.stderr) == (125, True)
    finally:
        subprocess.run(["sysctl", "-qw", "kernel.ftrace_enabled=1"], check=True)


def test_it_is_seen_when_the_kernel_does_not_ask_the_program(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason: it takes the program, and a socket in a registered group stays TCP."""
    answers = (0xB7, 0, 0, 0, socket.IPPROTO_MPTCP)
    lines = tuple((*line[:4], 0) if line == answers else line for line in program._LINES)
    monkeypatch.setattr(program, "_LINES", lines)
    with pytest.raises(SwitchError, match="no MPTCP socket all the same"):
        registration.register(group)
    assert pins() == []


def test_another_user_can_register_nothing_and_see_nothing(group: Path, tmp_path: Path) -> None:
    registration.register(group)
    before = pins()
    asks = str(asker(tmp_path / "asker"))
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    somebody = as_user(NOBODY, "exec", "--json", "true")
    done = run(*somebody, "exec", "--method=ebpf", "--", asks, cwd="/")
    assert (done.returncode, done.stderr) == (
        125,
        "nm-mptcp: not run: only root can load a program into the kernel\n",
    )
    done = run(*somebody, "exec", "--", asks, cwd="/")
    assert done.returncode == IS_TCP
    assert f"root can bring it onto MPTCP: sudo nm-mptcp exec --user nobody -- {asks}\n" in done.stderr
    setpriv = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    assert run(*setpriv, "ls", DIRECTORY).returncode != 0
    assert run(*setpriv, "rm", "-rf", DIRECTORY).returncode != 0
    assert pins() == before
    assert switched_in(group)
