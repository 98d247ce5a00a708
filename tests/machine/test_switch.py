# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs, services and whole sessions onto MPTCP by control group, on kernels with a place for it, and on one without."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import pytest

from ..kernel.test_switch import OLD_GO
from ..support.asker import asker
from ..support.debian import unpacked
from .conftest import DISTRIBUTIONS
from .image import image, reason_to_skip
from .machine import Machine
from .suite import run_tests
from .test_systemd import INSTALL

#: Linux 6.1: without the hook.
WITHOUT = ("bookworm",)

#: The command, where nothing is installed.
EXEC = "import sys; from nm_mptcp.cli import main; sys.exit(main())"

#: A program that says with each socket that it makes what it got, and where.
SERVICE = """\
[Service]
ExecStart=/bin/sh -c 'while :; do /root/asker; echo $? >/run/seen-%n; sleep 0.1; done'
"""


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def booted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with systemd and the product, a service that makes sockets, and a user."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    program = asker(tmp_path_factory.mktemp("asker") / "asker")
    with Machine(image(request.param), systemd=True) as machine:
        machine.put_tree()
        machine.shell(INSTALL, seconds=300).checked()
        machine.run("sh", "-c", "cat >/usr/bin/asker; chmod 755 /usr/bin/asker", given=program.read_bytes()).checked()
        put(machine, "/etc/systemd/system/asks.service", SERVICE.replace("/root", "/usr/bin"))
        put(machine, "/etc/systemd/system/asks@.service", SERVICE.replace("/root", "/usr/bin"))
        machine.shell("systemctl daemon-reload; useradd -m -u 1000 somebody").checked()
        yield machine


@pytest.fixture
def switching(booted: Machine) -> Machine:
    """One whose kernel has a place for it."""
    if booted.image.distribution in WITHOUT:
        pytest.skip(f"kernel {booted.kernel} has no place for it")
    return booted


def put(machine: Machine, place: str, text: str) -> None:
    machine.run("sh", "-c", f"cat >{place}", given=text.encode()).checked()


def sees(machine: Machine, unit: str, protocol: int) -> None:
    """Wait until a service's next sockets are of this protocol."""
    wanted = int(protocol == 262)
    machine.shell(f"""
        rm -f /run/seen-{unit}
        until [ "$(cat /run/seen-{unit} 2>/dev/null)" = {wanted} ]; do sleep 0.1; done
    """).checked()


def in_session(machine: Machine) -> int:
    """What a socket of a new session of the user's is (su by pam_systemd)."""
    status = machine.shell("su - somebody -c /usr/bin/asker").status
    assert status in (0, 1)
    return 262 if status else 6


# --- programs


#: Architectures beside amd64, for those who are asked for.
OTHERS = [(distribution, "arm64") for distribution in DISTRIBUTIONS if distribution == "trixie"]


@pytest.fixture(scope="module", params=[*((each, "amd64") for each in DISTRIBUTIONS), *OTHERS], ids="-".join)
def in_turn(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine without systemd, in which the switch is attached and detached often."""
    distribution, architecture = request.param
    if reason := reason_to_skip(architecture):
        pytest.skip(reason)
    with Machine(image(distribution, architecture), in_turn=True) as machine:
        machine.put_tree()
        if architecture == "amd64" and distribution not in WITHOUT:
            # Of a Debian that may be in no archive any more; its test skips where it is not.
            with contextlib.suppress(RuntimeError):
                program = (unpacked("bullseye", "hey") / "usr/bin/hey").read_bytes()
                command = f"cat >/usr/bin/{OLD_GO}; chmod 755 /usr/bin/{OLD_GO}"
                machine.run("sh", "-c", command, given=program, seconds=300).checked()
        yield machine


def test_programs_of_every_kind_on_this_kernel(in_turn: Machine) -> None:
    machine = in_turn
    machine.shell("mount -t bpf -o mode=0700 bpf /sys/fs/bpf").checked()
    try:
        if machine.image.distribution in WITHOUT:
            words = f"cd /nm-mptcp; PYTHONPATH=src python3 -c {quote(EXEC)} exec --method=%s -- true"
            done = machine.shell(words % "ebpf")
            assert (done.status, "not run: this kernel has no hook for it" in done.output) == (125, True)
            done = machine.shell(words % "auto")
            assert (done.status, done.output) == (0, "")
        else:
            run_tests(machine, "tests/kernel/test_switch.py", seconds=1200, environment="NM_MPTCP_SWITCH=here")
    finally:
        machine.shell("umount /sys/fs/bpf").checked()


def test_it_works_in_a_kernel_that_is_locked_down(in_turn: Machine, tmp_path: Path) -> None:
    """Runs after the other: there is no way back from it."""
    machine = in_turn
    if machine.image.distribution in WITHOUT:
        pytest.skip(f"kernel {machine.kernel} has no place for it")
    own = "x86_64" if machine.image.architecture == "amd64" else "aarch64"
    asks = asker(tmp_path / "asker", machine=own).read_bytes()
    machine.run("sh", "-c", "cat >/usr/bin/asker; chmod 755 /usr/bin/asker", given=asks).checked()
    machine.shell("mount -t securityfs none /sys/kernel/security; mount -t bpf -o mode=0700 bpf /sys/fs/bpf").checked()
    for how in ("integrity", "confidentiality"):
        machine.shell(f"""
            echo {how} >/sys/kernel/security/lockdown
            grep -F '[{how}]' /sys/kernel/security/lockdown
        """).checked()
        done = machine.shell(f"cd /nm-mptcp; PYTHONPATH=src python3 -c {quote(EXEC)} exec --method=ebpf -- asker")
        assert (done.status, done.output) == (1, "")
        machine.shell("rm -r /sys/fs/bpf/nm-mptcp").checked()


# --- services


def test_a_service_is_switched_while_it_runs_and_at_each_start(switching: Machine) -> None:
    machine = switching
    machine.run("systemctl", "start", "asks").checked()
    sees(machine, "asks.service", 6)
    pid = machine.run("systemctl", "show", "-P", "MainPID", "asks").checked()

    told = machine.run("nm-mptcp", "unit", "enable", "asks").checked()
    assert "sockets that it makes from now on are MPTCP" in told
    assert "systemctl restart asks.service" in told
    sees(machine, "asks.service", 262)
    assert machine.run("systemctl", "show", "-P", "MainPID", "asks").checked() == pid
    document = json.loads(machine.run("nm-mptcp", "unit", "status", "--json", "asks").checked())
    assert (document["method"], document["in_force"], document["registered"]) == ("ebpf", True, True)

    machine.run("systemctl", "restart", "asks").checked()
    sees(machine, "asks.service", 262)
    machine.run("systemctl", "stop", "asks").checked()
    assert "registered" not in machine.run("nm-mptcp", "unit", "status", "asks").checked()

    # As after a boot, where nothing is loaded.
    machine.shell("rm -r /sys/fs/bpf/nm-mptcp; systemctl start asks").checked()
    sees(machine, "asks.service", 262)

    told = machine.run("nm-mptcp", "unit", "disable", "asks").checked()
    assert "sockets that it makes from now on are TCP" in told
    sees(machine, "asks.service", 6)
    assert machine.shell("ls /sys/fs/bpf/nm-mptcp").status != 0
    machine.run("systemctl", "stop", "asks").checked()


def test_a_template_counts_for_each_instance(switching: Machine) -> None:
    machine = switching
    machine.shell("systemctl start asks@one; nm-mptcp unit enable asks@; systemctl start asks@two").checked()
    sees(machine, "asks@one.service", 262)
    sees(machine, "asks@two.service", 262)
    machine.shell("nm-mptcp unit disable asks@").checked()
    sees(machine, "asks@one.service", 6)
    sees(machine, "asks@two.service", 6)
    machine.shell("systemctl stop asks@one asks@two; ! ls /sys/fs/bpf/nm-mptcp").checked()


def test_a_hardened_service(switching: Machine) -> None:
    machine = switching
    lines = ("DynamicUser=yes", "PrivateUsers=yes", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes")
    more = ("SystemCallFilter=@system-service", "RestrictAddressFamilies=AF_INET", "ProtectKernelTunables=yes")
    properties = "\n".join(
        (
            "[Service]",
            "Type=oneshot",
            "RemainAfterExit=yes",
            *lines,
            *more,
            "SuccessExitStatus=1",
            "ExecStart=/usr/bin/asker",
        )
    )
    put(machine, "/etc/systemd/system/hard.service", properties + "\n")
    machine.shell("systemctl daemon-reload; nm-mptcp unit enable hard; systemctl start hard").checked()
    assert machine.run("systemctl", "show", "-P", "ExecMainStatus", "hard").checked().strip() == "1"
    machine.shell("nm-mptcp unit disable hard; systemctl restart hard").checked()
    assert machine.run("systemctl", "show", "-P", "ExecMainStatus", "hard").checked().strip() == "0"


def test_a_service_in_another_root_is_refused_with_the_reason(switching: Machine) -> None:
    machine = switching
    put(machine, "/etc/systemd/system/jail.service", "[Service]\nRootDirectory=/srv\nExecStart=/bin/true\n")
    machine.run("systemctl", "daemon-reload").checked()
    done = machine.run("nm-mptcp", "unit", "enable", "--method=ebpf", "jail")
    assert done.status == 1
    assert "it runs in /srv (RootDirectory=" in done.output


def test_where_mptcp_is_off_a_unit_is_not_changed_and_a_start_stays_on_tcp(switching: Machine) -> None:
    machine = switching
    machine.shell("nm-mptcp unit enable asks; sysctl -qw net.mptcp.enabled=0; systemctl start asks").checked()
    try:
        sees(machine, "asks.service", 6)
        done = machine.run("nm-mptcp", "unit", "enable", "asks")
        assert (done.status, "sysctl -w net.mptcp.enabled=1" in done.output) == (1, True)
    finally:
        machine.shell("sysctl -qw net.mptcp.enabled=1; nm-mptcp unit disable asks; systemctl stop asks").checked()


def test_without_a_place_in_the_kernel_a_service_gets_variables(booted: Machine) -> None:
    machine = booted
    if machine.image.distribution not in WITHOUT:
        pytest.skip(f"kernel {machine.kernel} has a place for it")
    put(machine, "/etc/systemd/system/curl.service", "[Service]\nType=oneshot\nExecStart=/usr/bin/curl --version\n")
    machine.shell("systemctl daemon-reload; nm-mptcp unit enable curl").checked()
    assert json.loads(machine.run("nm-mptcp", "unit", "status", "--json", "curl").checked())["method"] == "preload"
    done = machine.run("nm-mptcp", "unit", "enable", "--method=ebpf", "curl")
    assert (done.status, "this kernel has no hook for it" in done.output) == (1, True)
    machine.run("nm-mptcp", "unit", "disable", "curl").checked()


# --- slices


def test_a_whole_session_goes_over_mptcp_after_one_command_and_is_back_after_one(switching: Machine) -> None:
    machine = switching
    assert in_session(machine) == 6
    machine.run("nm-mptcp", "unit", "enable", "user-1000.slice").checked()
    assert in_session(machine) == 262
    # The next login makes the slice anew.
    machine.shell(
        "loginctl terminate-user somebody || true; while ls -d /sys/fs/cgroup/user.slice/user-1000.slice; do sleep 0.1; done"
    )
    assert in_session(machine) == 262
    machine.run("nm-mptcp", "unit", "disable", "user-1000.slice").checked()
    assert in_session(machine) == 6
    machine.shell("! ls /sys/fs/bpf/nm-mptcp").checked()


def test_all_services_go_over_mptcp_by_their_slice(switching: Machine) -> None:
    machine = switching
    machine.run("systemctl", "start", "asks").checked()
    machine.run("nm-mptcp", "unit", "enable", "system.slice").checked()
    sees(machine, "asks.service", 262)
    # As at a boot, in which the slice is just there, and basic.target starts what registers it.
    machine.shell("rm -r /sys/fs/bpf/nm-mptcp").checked()
    sees(machine, "asks.service", 6)
    machine.shell("systemctl start basic.target").checked()
    sees(machine, "asks.service", 262)
    machine.run("systemctl", "is-active", "nm-mptcp-group@system.slice.service").checked()
    machine.run("nm-mptcp", "unit", "disable", "system.slice").checked()
    sees(machine, "asks.service", 6)
    machine.shell("systemctl stop asks; ! ls /sys/fs/bpf/nm-mptcp").checked()


# --- exec under systemd


def test_a_program_gets_a_scope_of_its_own_in_the_slice_that_it_was_started_in(switching: Machine) -> None:
    machine = switching
    run = "systemd-run --quiet --scope --slice=machine.slice nm-mptcp exec --method=ebpf --"
    told = machine.shell(f"{run} sh -c 'cat /proc/self/cgroup; exec asker'")
    assert told.status == 1
    assert "0::/machine.slice/nm-mptcp-exec-" in told.output
    machine.shell("! systemctl --no-legend list-units 'nm-mptcp-exec-*' | grep .").checked()


def test_in_a_service_a_program_stays_the_services(switching: Machine) -> None:
    machine = switching
    run = "systemd-run --quiet --wait --pipe nm-mptcp exec --method=ebpf --"
    told = machine.shell(f"{run} sh -c 'cat /proc/self/cgroup; exec asker'")
    assert told.status == 1
    assert ".service/nm-mptcp-exec-" in told.output


def test_users_of_sudo_and_setpriv_stay_in_the_group_and_a_login_leaves_it(switching: Machine) -> None:
    machine = switching
    inside = "nm-mptcp exec --quiet --method=ebpf --"
    assert machine.shell(f"{inside} sudo -u somebody /usr/bin/asker").status == 1
    assert machine.shell(f"{inside} setpriv --reuid=1000 --clear-groups /usr/bin/asker").status == 1
    done = machine.shell("nm-mptcp exec --method=ebpf -- su - somebody -c /usr/bin/asker")
    assert done.status == 0
    assert "su starts programs in another control group" in done.output


def test_the_kernel_did_not_complain(booted: Machine) -> None:
    """Runs after the others of its module, in whose course the kernel may have."""
    if complaints := booted.complaints():
        pytest.fail(f"the kernel {booted.kernel} said:\n" + "\n".join(complaints), pytrace=False)


def test_uninstalling_takes_it_away(switching: Machine) -> None:
    """The last of its module."""
    machine = switching
    machine.shell("nm-mptcp unit enable asks; systemctl start asks").checked()
    sees(machine, "asks.service", 262)
    machine.shell("make -s -C /nm-mptcp uninstall; ! ls /sys/fs/bpf/nm-mptcp").checked()
    sees(machine, "asks.service", 6)
    machine.shell("systemctl restart asks").checked()
    sees(machine, "asks.service", 6)
