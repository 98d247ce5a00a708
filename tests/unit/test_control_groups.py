# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a program's own control group is put, and whose rights it gets."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from nm_mptcp.launch import control_groups, program, switch
from nm_mptcp.launch.identity import UserError, user
from nm_mptcp.launch.registration import in_service, slice_of

from .btfs import FUNC, Btf

ROOT = Path("/sys/fs/cgroup")


@pytest.mark.parametrize(
    ("group", "service", "place"),
    [
        ("", False, None),
        ("init.scope", False, None),
        ("system.slice/ssh.service", True, "system.slice"),
        ("system.slice/system-getty.slice/getty@tty1.service", True, "system-getty.slice"),
        ("user.slice/user-1000.slice/session-3.scope", False, "user-1000.slice"),
        # A terminal of a desktop's: in a unit of the user's own service manager.
        ("user.slice/user-1000.slice/user@1000.service/app.slice/x.service", False, "user-1000.slice"),
        ("machine.slice/libpod-1.scope/container", False, "machine.slice"),
        ("kubepods/pod1", False, None),
    ],
)
def test_a_program_stays_in_its_service_and_in_the_limits_of_its_slice(
    group: str, service: bool, place: str | None
) -> None:
    assert in_service(ROOT / group, ROOT) is service
    assert slice_of(ROOT / group, ROOT) == place


def test_this_process_has_a_control_group() -> None:
    root = control_groups.root()
    if root is None:
        pytest.skip("no cgroup2 file system is mounted")
    try:
        own = control_groups.own(root)
    except FileNotFoundError:
        pytest.skip("this process is in a control group outside of its namespace")
    assert own.is_relative_to(root)
    if os.geteuid() == 0:
        assert control_groups.place_of(root, control_groups.id_of(own)) == own
        assert control_groups.place_of(root, (1 << 62) - 1) is None


@pytest.mark.parametrize(
    ("told", "own"),
    [("0::/\n", "/cg"), ("1:cpu:/x\n0::/a.slice/b.service\n", "/cg/a.slice/b.service"), ("0::/../b.scope\n", None)],
)
def test_the_group_of_a_process_is_read_where_it_can_be_seen(
    monkeypatch: pytest.MonkeyPatch, told: str, own: str | None
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: told)
    if own is None:
        with pytest.raises(FileNotFoundError, match="none that can be seen"):
            control_groups.own(Path("/cg"))
    else:
        assert control_groups.own(Path("/cg")) == Path(own)


def test_a_hierarchy_that_something_else_is_mounted_over_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_groups, "mounted", lambda _: [tmp_path / "covered", tmp_path])
    assert control_groups.root() is None
    (tmp_path / "cgroup.controllers").touch()
    assert control_groups.root() == tmp_path


def test_what_is_mounted_is_read_with_its_odd_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("bpf /sys/fs/bpf bpf rw 0 0\nbpf /mnt/a\\040b bpf rw 0 0\nproc /proc proc rw 0 0\n")
    real = open
    monkeypatch.setattr(
        "builtins.open", lambda path, **how: real(mounts if path == "/proc/self/mounts" else path, **how)
    )
    assert control_groups.mounted("bpf") == [Path("/sys/fs/bpf"), Path("/mnt/a b")]
    assert control_groups.mounted("cgroup2") == []


def test_a_user_is_found_by_name_and_by_number() -> None:
    root = pwd.getpwuid(0)
    assert user(root.pw_name) == user("0")
    assert user("0").variables["HOME"] == root.pw_dir
    for word in ("no-such-user", "-1", "4000000000", "99999999999999999999", ""):
        with pytest.raises(UserError, match="there is no user"):
            user(word)


def test_what_stands_in_the_way_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert switch.obstacle() == "only root can load a program into the kernel"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(switch, "unsupported", lambda: switch.NO_HOOK)
    assert switch.obstacle() == switch.NO_HOOK
    monkeypatch.setattr(switch, "unsupported", lambda: None)
    monkeypatch.setattr(switch, "_text", lambda _: "0")
    assert switch.obstacle() == switch.NO_FTRACE
    monkeypatch.setattr(switch, "_text", lambda _: "1")
    monkeypatch.setattr(control_groups, "mounted", lambda _: [])
    assert switch.obstacle() == switch.NO_FILE_SYSTEM
    monkeypatch.setattr(control_groups, "mounted", lambda kind: [switch.FILE_SYSTEM] if kind == "bpf" else [])
    assert switch.obstacle() == switch.NO_CONTROL_GROUPS
    monkeypatch.setattr(control_groups, "root", lambda: ROOT)
    assert switch.obstacle() is None
    monkeypatch.setattr("nm_mptcp.launch.bpf.number", lambda: None)
    assert "not known on this machine" in str(switch.obstacle())


def test_a_kernel_is_asked_for_its_types_and_not_for_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switch, "BTF", tmp_path / "vmlinux")
    assert switch.unsupported() == switch.NO_BTF
    (tmp_path / "vmlinux").write_bytes(b"something else")
    assert "does not begin as BTF" in str(switch.unsupported())
    for parameters, told in (
        (("family", "type", "protocol"), None),
        (("net", "family", "type"), switch.NO_HOOK),
    ):
        btf = Btf()
        btf.prototype(*parameters)
        btf.add(FUNC, btf.name(program.FUNCTION), size=1)
        (tmp_path / "vmlinux").write_bytes(btf.data())
        assert switch.unsupported() == told
