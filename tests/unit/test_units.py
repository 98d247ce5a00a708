# SPDX-License-Identifier: GPL-2.0-or-later
"""Units as systemctl shows them, and their drop-ins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nm_mptcp.launch.units import (
    Unit,
    UnitError,
    assignments,
    drop_in_path,
    full_name,
    group_drop_in,
    group_obstacle,
    is_template,
    parse_unit,
    registers_group,
    registrar,
    service_drop_in,
    setting_obstacles,
    shown_as,
    socket_drop_in,
    socket_obstacle,
    split,
)

WRAP = "/usr/lib/x86_64-linux-gnu/mptcpize/libmptcpwrap.so.0"


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("ssh", "ssh.service"),
        ("ssh.service", "ssh.service"),
        ("ssh.socket", "ssh.socket"),
        ("user-1000.slice", "user-1000.slice"),
        ("getty@", "getty@.service"),
        ("getty@tty1", "getty@tty1.service"),
        ("systemd-fsck@dev-disk\\x2dby.service", "systemd-fsck@dev-disk\\x2dby.service"),
        ("org.example.Thing", "org.example.Thing.service"),
    ],
)
def test_a_name_without_a_suffix_is_a_service(word: str, name: str) -> None:
    assert full_name(word) == name


@pytest.mark.parametrize(
    "word",
    [
        "",
        ".service",
        "../x",
        "a/b",
        "/etc/passwd.service",
        "a b",
        "x\n",
        "-.mount",
        "-.slice",
        "x.timer",
        "ä",
        "x" * 256,
    ],
)
def test_what_is_no_name_of_a_service_socket_or_slice_is_refused(word: str) -> None:
    with pytest.raises(UnitError):
        full_name(word)


def test_of_a_template_an_instance_is_asked_for() -> None:
    assert is_template("getty@.service")
    assert not is_template("getty@tty1.service")
    assert shown_as("getty@tty1.service") == "getty@tty1.service"
    instance = shown_as("getty@.service")
    assert not is_template(instance)
    found = parse_unit("getty@.service", {"Id": [instance], "Environment": [f"LD_PRELOAD=/x/{instance[6:-8]}.so"]})
    assert (found.name, found.variable("LD_PRELOAD")) == ("getty@.service", "/x/%i.so")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("a b", ["a", "b"]),
        (
            '"A=a b" "B=q\\"uo" "C=d\\$\\$e" "D=back\\\\slash" E=1 ""',
            ["A=a b", 'B=q"uo', "C=d$$e", "D=back\\slash", "E=1", ""],
        ),
        ('"LD_PRELOAD=/usr/\\$LIB/x.so"', ["LD_PRELOAD=/usr/$LIB/x.so"]),
        ('"open', ["open"]),
        ("end\\", ["end\\"]),
    ],
)
def test_lists_are_read_as_systemctl_prints_them(line: str, words: list[str]) -> None:
    assert split(line) == words


@given(st.text(max_size=60))
def test_any_line_is_read(line: str) -> None:
    split(line)
    assignments(line)


def test_the_environment_of_a_unit_is_that_of_its_list() -> None:
    found = parse_unit("x.service", {"Environment": ['LD_PRELOAD=/a.so "GODEBUG=100%"'], "Id": ["x.service"]})
    assert found.environment == {"LD_PRELOAD": "/a.so", "GODEBUG": "100%%"}


def test_files_and_programs_of_a_unit() -> None:
    found = parse_unit(
        "x.service",
        {
            "EnvironmentFiles": ["/etc/x y (ignore_errors=yes)", "/etc/z (ignore_errors=no)"],
            "ExecStart": [
                "{ path=/bin/true ; argv[]=/bin/true a ; b ; ignore_errors=no }",
                "{ path=/bin/env ; argv[]=x }",
            ],
            "MainPID": ["0"],
        },
    )
    assert found.environment_files == ("/etc/x y", "/etc/z")
    assert found.programs == ("/bin/true", "/bin/env")


def test_a_drop_in_of_a_service() -> None:
    found = service_drop_in({"GODEBUG": "multipathtcp=1", "LD_PRELOAD": f'/a "b"\\:{WRAP}'})
    assert found == (
        "# Made by nm-mptcp: 'nm-mptcp unit disable' removes it.\n"
        "[Service]\n"
        'Environment="GODEBUG=multipathtcp=1"\n'
        f'Environment="LD_PRELOAD=/a \\"b\\"\\\\:{WRAP}"\n'
    )


# --- by control group


def test_a_service_registers_its_control_group_at_each_start() -> None:
    text = group_drop_in("ssh.service", "/usr/bin/nm-mptcp")
    assert text == (
        "# Made by nm-mptcp: 'nm-mptcp unit disable' removes it.\n"
        "[Service]\n"
        "ExecStartPre=+-/usr/bin/nm-mptcp unit enter %n\n"
        "ExecStopPost=+-/usr/bin/nm-mptcp unit leave %n\n"
    )
    assert group_drop_in("ssh@.service", "/usr/bin/nm-mptcp") == text
    odd = group_drop_in("x.service", '/opt/a b/100%/"q"/nm-mptcp')
    assert 'ExecStartPre=+-"/opt/a b/100%%/\\"q\\"/nm-mptcp" unit enter %n\n' in odd


def test_a_users_slice_is_registered_by_the_first_service_in_it() -> None:
    assert registrar("user-1000.slice") == "user-runtime-dir@1000.service"
    assert drop_in_path("user-1000.slice").endswith("/user-runtime-dir@1000.service.d/50-nm-mptcp.conf")
    assert "unit enter user-1000.slice\n" in group_drop_in("user-1000.slice", "/usr/bin/nm-mptcp")


@pytest.mark.parametrize("name", ["system.slice", "user.slice", "user-.slice", "machine-x.slice"])
def test_another_slice_wants_the_service_that_registers_it(name: str) -> None:
    assert registrar(name) == {"system.slice": "basic.target"}.get(name, name)
    assert group_drop_in(name, "/x").endswith(f"\n[Unit]\nWants=nm-mptcp-group@{name}.service\n")


def test_our_drop_ins_are_told_apart() -> None:
    for name in ("x.service", "user-7.slice", "system.slice"):
        assert registers_group(group_drop_in(name, "/x"))
    assert not registers_group(service_drop_in({"GODEBUG": "x"}))
    assert not registers_group(socket_drop_in())


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        (Unit("x.service"), None),
        (Unit("x.slice"), None),
        (Unit("x.service", root="/"), None),
        (Unit("x.service", root="/srv"), "/srv"),
        (Unit("x.service", root_image="/x.img"), "/x.img"),
        (Unit("x.socket"), "systemd makes its socket"),
    ],
)
def test_units_whose_control_group_can_be_registered(unit: Unit, words: str | None) -> None:
    found = group_obstacle(unit)
    assert (found is None) if words is None else (words in str(found))


def test_a_drop_in_of_a_socket() -> None:
    assert socket_drop_in().endswith("\n[Socket]\nSocketProtocol=mptcp\n")


@pytest.mark.parametrize(
    ("listens", "version", "words"),
    [
        (("[::]:80 (Stream)",), 257, None),
        (("[::]:80 (Stream)", "/run/x (Datagram)", "/run/y (FIFO)"), 260, None),
        (("[::]:80 (Stream)",), 256, "257"),
        (("[::]:80 (Stream)", "/run/x (Stream)"), 257, "/run/x"),
        (("@abstract (Stream)",), 257, "@abstract"),
        (("[::]:53 (Datagram)",), 257, "no TCP port"),
        ((), 257, "no TCP port"),
    ],
)
def test_sockets_that_can_be_mptcp(listens: tuple[str, ...], version: int, words: str | None) -> None:
    trouble = socket_obstacle(Unit("x.socket", listens=listens), version)
    assert (words is None and trouble is None) or (words is not None and words in str(trouble))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, None),
        ({"root_image": "/x.img"}, "RootImage"),
        ({"hidden": ("/usr/lib/x86_64-linux-gnu",)}, "does not see"),
        ({"hidden": ("-/usr:ro",)}, "does not see"),
        ({"hidden": ("/usr/lib/x86",)}, None),
        ({"no_exec": ("/",)}, "NoExecPaths"),
        ({"no_exec": ("/",), "exec": ("+/usr/lib",)}, None),
        ({"no_exec": ("/usr/lib/x86_64-linux-gnu",), "exec": ("/usr",)}, "NoExecPaths"),
        ({"selinux": "system_u:system_r:x_t"}, "SELinux"),
        ({"unset": ("LD_PRELOAD",)}, "UnsetEnvironment"),
        ({"unset": ("GODEBUG=x",)}, "UnsetEnvironment"),
        ({"unset": ("OTHER",)}, None),
    ],
)
def test_what_a_units_own_settings_stand_in_the_way_of(settings: dict[str, tuple[str, ...]], words: str | None) -> None:
    found = list(setting_obstacles(Unit("x.service", **settings), {"LD_PRELOAD": WRAP, "GODEBUG": "x"}, WRAP))  # type: ignore[arg-type]
    assert len(found) == (words is not None)
    assert words is None or words in found[0]
