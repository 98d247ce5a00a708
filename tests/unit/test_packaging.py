# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``make install`` brings: the right files in the right places, and each of them works where it was put."""

from __future__ import annotations

import argparse
import configparser
import importlib
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nm_mptcp.cli import COMMANDS
from nm_mptcp.config.files import PATHS as OUR_PATHS
from nm_mptcp.config.files import ConfigurationFiles
from nm_mptcp.config.keys import KEYS, PATH
from nm_mptcp.config.settings import (
    Config,
    ConnectivityPolicy,
    Failover,
    IPv6Address,
    LimitsPolicy,
    MeteredPolicy,
    PathOptions,
    RoamingPolicy,
    Setting,
)
from nm_mptcp.model.state import PROTOCOL, TABLES, DefaultFlags, Device, DeviceState, DeviceType, Mode
from nm_mptcp.nmsyntax.keyfile import parse
from nm_mptcp.service.interface import METHODS, PROPERTIES
from nm_mptcp.service.path_objects import PATH_PROPERTIES

from ..networkmanager.bed import NEEDED
from .private_bus import PrivateBus, private_bus

ROOT = Path(__file__).parents[2]
DEBIAN = Path("/etc/debian_version").exists()

FILES = {
    "usr/bin/nm-mptcp": 0o755,
    "usr/lib/NetworkManager/dispatcher.d/10-nm-mptcp": 0o755,
    "usr/lib/NetworkManager/dispatcher.d/pre-up.d/10-nm-mptcp": 0o755,
    "usr/lib/NetworkManager/dispatcher.d/pre-down.d/10-nm-mptcp": 0o755,
    "usr/lib/NetworkManager/conf.d/10-nm-mptcp.conf": 0o644,
    "usr/lib/systemd/system/nm-mptcp.service": 0o644,
    "usr/lib/systemd/system/nm-mptcp-group@.service": 0o644,
    "usr/share/dbus-1/system.d/org.nm_mptcp1.conf": 0o644,
    "usr/share/polkit-1/actions/org.nm_mptcp1.policy": 0o644,
    "usr/lib/nm-mptcp/conf.d/10-tethering.conf": 0o644,
    "usr/share/man/man8/nm-mptcp-exec.8": 0o644,
    "usr/share/man/man5/nm-mptcp.conf.5": 0o644,
    "usr/share/man/man5/nm-mptcp-dbus.5": 0o644,
    "usr/share/man/man5/nm-mptcp-json.5": 0o644,
    "usr/share/man/man7/nm-mptcp.7": 0o644,
    "usr/share/man/man8/nm-mptcp.8": 0o644,
    "usr/share/man/man8/nm-mptcp-check.8": 0o644,
    "usr/share/bash-completion/completions/nm-mptcp": 0o644,
    "usr/share/fish/vendor_completions.d/nm-mptcp.fish": 0o644,
    f"usr/share/zsh/{'vendor-completions' if DEBIAN else 'site-functions'}/_nm-mptcp": 0o644,
    "usr/share/doc/nm-mptcp/README.md": 0o644,
    "usr/share/doc/nm-mptcp/LICENSE": 0o644,
    "etc/nm-mptcp/nm-mptcp.conf": 0o644,
    "etc/iproute2/rt_protos.d/nm-mptcp.conf": 0o644,
    "etc/iproute2/rt_tables.d/nm-mptcp.conf": 0o644,
}
if shutil.which("scdoc") is None:
    FILES = {name: mode for name, mode in FILES.items() if "/man/" not in name}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user or mount")


def make(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    result = subprocess.run(
        ["make", "-C", str(ROOT), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A staged installation, with this interpreter so that the libraries are there."""
    folder = tmp_path_factory.mktemp("stage")
    umask = os.umask(0o077)  # an administrator's
    try:
        make("install", f"DESTDIR={folder}", "PREFIX=/usr", f"PYTHON={sys.executable}")
    finally:
        os.umask(umask)
    return folder


def installed(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode)
        for path in folder.rglob("*")
        if not path.is_dir() and "nm_mptcp" not in path.parts and "__pycache__" not in path.parts
    }


def test_all_files_are_in_their_places(stage: Path) -> None:
    assert installed(stage) == FILES
    assert all(stat.S_ISREG((stage / name).lstat().st_mode) for name in FILES)


def test_the_whole_package_is_installed_and_nothing_else(stage: Path) -> None:
    source = {path.relative_to(ROOT / "src") for path in (ROOT / "src" / "nm_mptcp").rglob("*.py")}
    folder = stage / "usr" / "lib" / "nm-mptcp"
    there = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {path for path in there if path.suffix == ".py"} == source
    assert {path.name for path in there if path.suffix != ".py"} <= {"py.typed", "10-tethering.conf"}


def test_no_file_has_a_place_left_to_fill_in_or_names_the_stage(stage: Path) -> None:
    for name in FILES:
        text = (stage / name).read_text()
        assert "@BINDIR@" not in text
        assert "@PACKAGE@" not in text
        assert "@PYTHON@" not in text
        assert str(stage) not in text


def test_every_user_may_read_what_was_installed(stage: Path) -> None:
    for path in stage.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o444 == 0o444, path
        assert mode & 0o022 == 0, path
        assert not path.is_dir() or mode & 0o111 == 0o111, path


def test_uninstall_leaves_nothing(tmp_path: Path) -> None:
    make("install", f"DESTDIR={tmp_path}", f"PYTHON={sys.executable}")
    subprocess.run(
        [tmp_path / "usr/bin/nm-mptcp", "--help"], check=True, stdout=subprocess.DEVNULL
    )  # makes __pycache__
    make("uninstall", f"DESTDIR={tmp_path}")
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert not (tmp_path / "usr/lib/nm-mptcp").exists()


def test_folders_can_be_chosen_one_by_one(tmp_path: Path) -> None:
    make(
        "install",
        f"DESTDIR={tmp_path}",
        "PREFIX=/opt/x",
        "LIBDIR=/opt/x/lib64",
        "BINDIR=/bin",
        f"PYTHON={sys.executable}",
    )
    subprocess.run([tmp_path / "bin/nm-mptcp", "--help"], check=True, stdout=subprocess.DEVNULL)
    script = (tmp_path / "opt/x/lib64/NetworkManager/dispatcher.d/pre-up.d/10-nm-mptcp").read_text()
    assert "\ncommand=/bin/nm-mptcp " in script


def test_the_command_runs_from_wherever_the_stage_is(stage: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(stage, moved, symlinks=True)
    link = tmp_path / "link"
    link.symlink_to(moved / "usr/bin/nm-mptcp")
    for command in (moved / "usr/bin/nm-mptcp", link):
        result = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
        assert "nm-mptcp" in result.stdout


def test_neither_environment_nor_working_directory_can_bring_in_code(stage: Path, tmp_path: Path) -> None:
    for name in ("nm_mptcp", "sitecustomize", "usercustomize", "argparse", "json"):
        (tmp_path / f"{name}.py").write_text("open('pwned', 'w'); raise SystemExit('taken over')\n")
    home = {"HOME": str(tmp_path), "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "json.py")}
    subprocess.run(
        [stage / "usr/bin/nm-mptcp", "--help"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **home},
        cwd=tmp_path,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert not (tmp_path / "pwned").exists()


def test_the_installed_code_is_what_the_command_runs(stage: Path, tmp_path: Path) -> None:
    """Not the source tree, which this very interpreter knows too (an editable installation)."""
    copy = tmp_path / "copy"
    shutil.copytree(stage, copy)
    (copy / "usr/lib/nm-mptcp/nm_mptcp/cli/__init__.py").write_text("def main() -> int:\n    return 42\n")
    assert subprocess.run([copy / "usr/bin/nm-mptcp"], check=False).returncode == 42


def test_the_dispatcher_scripts_know_the_command_and_are_the_same(stage: Path) -> None:
    folder = stage / "usr/lib/NetworkManager/dispatcher.d"
    texts = {(folder / place / "10-nm-mptcp").read_text() for place in (".", "pre-up.d", "pre-down.d")}
    assert len(texts) == 1
    assert "\ncommand=/usr/bin/nm-mptcp " in texts.pop()


def test_the_drop_in_is_the_section_that_the_code_looks_for(stage: Path) -> None:
    drop_in = configparser.ConfigParser()
    drop_in.read(stage / "usr/lib/NetworkManager/conf.d/10-nm-mptcp.conf")
    assert drop_in.sections() == [DefaultFlags.OUR_SECTION]
    assert dict(drop_in[DefaultFlags.OUR_SECTION]) == {"connection.mptcp-flags": "1"}


@pytest.mark.skipif(shutil.which("NetworkManager") is None, reason="NetworkManager is not installed")
def test_networkmanager_reads_the_drop_in(stage: Path, tmp_path: Path) -> None:
    (tmp_path / "NetworkManager.conf").touch()
    result = subprocess.run(
        [
            "NetworkManager",
            "--print-config",
            f"--config={tmp_path}/NetworkManager.conf",
            f"--config-dir={tmp_path}",
            f"--system-config-dir={stage}/usr/lib/NetworkManager/conf.d",
            f"--intern-config={tmp_path}/intern.conf",
        ],
        env={"PATH": os.environ["PATH"] + ":/usr/sbin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "[connection-nm-mptcp]\nconnection.mptcp-flags=1\n" in result.stdout


@pytest.mark.parametrize("program", NEEDED)
def test_make_deps_brings_what_the_test_bed_needs(program: str) -> None:
    """Else a fresh machine would skip those tests, and nobody would notice."""
    assert f" has {program}\n" in (ROOT / "tools" / "deps").read_text()


# --- configuration -----------------------------------------------------------------------------------------------------


def test_what_is_shipped_is_good_and_makes_phones_metered(stage: Path) -> None:
    reading = ConfigurationFiles(paths=OUR_PATHS.under(stage)).read()
    assert reading.problems == ()
    assert [path.name for path in reading.files] == ["10-tethering.conf", "nm-mptcp.conf"]
    assert replace(reading.config, sections=()) == Config()
    for driver, metered in {
        "ipheth": True,
        "rndis_host": True,
        "cdc_ncm": None,
        "cdc_ether": None,
        "r8152": None,
    }.items():
        device = Device("enx0", "enx0", DeviceType.ETHERNET, DeviceState.ACTIVATED, driver=driver)
        options = reading.config.for_path(device, profile_id="Phone", profile_uuid="", address="192.0.2.7")
        assert options == PathOptions(assume_metered=Setting(metered))


def test_the_shipped_file_has_every_key_commented_out_and_nothing_else(stage: Path) -> None:
    text = (stage / "etc/nm-mptcp/nm-mptcp.conf").read_text()
    assert [line for line in text.splitlines() if line and line[0] not in "#["] == []
    uncommented = re.sub(r"^#(?=[a-z][a-z0-9-]*=|\[)", "", text, flags=re.MULTILINE)
    sections = parse(uncommented, "nm-mptcp.conf")
    shipped = {PATH if name.startswith(PATH) else name: keys for name, keys in sections.items()}
    assert {name: set(keys) for name, keys in shipped.items()} == {name: set(keys) for name, keys in KEYS.items()}
    for name, keys in shipped.items():
        for key, value in keys.items():
            assert KEYS[name][key].default in (value, ""), key
            KEYS[name][key].parse(value)


def test_an_administrators_file_is_never_overwritten_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "etc/nm-mptcp/nm-mptcp.conf"
    file.parent.mkdir(parents=True)
    file.write_text("[main]\nmode=off\n")
    assert "/etc/nm-mptcp/nm-mptcp.conf is left as it is" in make(
        "install", f"DESTDIR={tmp_path}", f"PYTHON={sys.executable}"
    )
    assert file.read_text() == "[main]\nmode=off\n"
    assert "/etc/nm-mptcp/nm-mptcp.conf was changed, and stays" in make("uninstall", f"DESTDIR={tmp_path}")
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == [file]


def test_a_masked_main_file_stays_masked(tmp_path: Path) -> None:
    file = tmp_path / "etc/nm-mptcp/nm-mptcp.conf"
    file.parent.mkdir(parents=True)
    file.symlink_to("/dev/null")
    make("install", f"DESTDIR={tmp_path}", f"PYTHON={sys.executable}")
    assert file.readlink() == Path("/dev/null")


def test_everybody_may_ask_what_is_configured(stage: Path, tmp_path: Path) -> None:
    (tmp_path / "x.conf").write_text("[main]\nmode=best\n")
    result = subprocess.run(
        [stage / "usr/bin/nm-mptcp", "config", "--check", tmp_path / "x.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.endswith(
        "x.conf, line 2: [main] mode=best: must be auto, handover, interactive, aggregate or off\n"
    )


# --- manual pages ------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "packaging/man/nm-mptcp.conf.5.scd").read_text()


def test_the_page_has_every_key_with_its_default_and_no_other() -> None:
    written: dict[str, dict[str, str]] = {}
    for section, text in re.findall(r"^# \[([\w-]+)\]\n(.*?)(?=^# )", PAGE, re.MULTILINE | re.DOTALL):
        name = PATH if section == f"{PATH}NAME" else section
        written[name] = {
            key: " ".join(words.split())
            for key, words in re.findall(r"^\*([a-z0-9-]+)\*=[^\n]+\n((?:\t[^\n]+\n)+)", text, re.MULTILINE)
        }
    assert {name: set(keys) for name, keys in written.items()} == {name: set(keys) for name, keys in KEYS.items()}
    for name, keys in KEYS.items():
        for key, known in keys.items():
            default = re.search(r"Default: (.+)\.$", written[name][key])
            assert default, f"[{name}] {key}: no default at the end"
            if known.default:
                assert default[1] == known.default, f"[{name}] {key}"


def test_the_page_tells_all_words_that_a_key_takes() -> None:
    for section, kinds in {
        "main": {
            "mode": Mode,
            "failover": Failover,
            "metered": MeteredPolicy,
            "roaming": RoamingPolicy,
            "limits": LimitsPolicy,
        },
        "path": {"connectivity": ConnectivityPolicy, "ipv6-address": IPv6Address},
    }.items():
        for key, kind in kinds.items():
            assert f"\n*{key}*={'|'.join(kind)}\n" in PAGE, (section, key)


DBUS_PAGE = (ROOT / "packaging/man/nm-mptcp-dbus.5.scd").read_text()


def test_the_dbus_page_has_each_method_and_property_with_its_type() -> None:
    parts = dict(re.findall(r"^# ([^\n]+)\n(.*?)(?=^# )", DBUS_PAGE, re.MULTILINE | re.DOTALL))
    for part, table in (
        ("PROPERTIES OF org.nm_mptcp1", PROPERTIES),
        ("PROPERTIES OF org.nm_mptcp1.Path", PATH_PROPERTIES),
    ):
        heads = re.findall(r"^\*[^\n\t]+$", parts[part], re.MULTILINE)
        written = [pair for head in heads for pair in re.findall(r"\*(\w+)\* \((\w+)\)", head)]
        assert dict(written) == {name: kind for name, (kind, _) in table.items()}
        assert len(written) == len(table)
    methods = re.findall(r"^\*(\w+)\*\(", parts["METHODS OF org.nm_mptcp1"], re.MULTILINE)
    assert sorted(methods) == sorted(METHODS)


def test_the_commands_page_has_every_command_and_option() -> None:
    page = (ROOT / "packaging/man/nm-mptcp.8.scd").read_text()
    pages = page + (ROOT / "packaging/man/nm-mptcp-exec.8.scd").read_text()
    for command in COMMANDS:
        assert re.search(rf"^\*{command}\*(?: \S.*)?$", page, re.MULTILINE), command
        parser = argparse.ArgumentParser(add_help=False)
        importlib.import_module(f"nm_mptcp.cli.{command}").options(parser)
        for option in re.findall(r"--[a-z-]+", parser.format_help()):
            assert f"*{option}*" in pages, f"{command} {option}"


@pytest.mark.skipif(None in (shutil.which("man"), shutil.which("scdoc")), reason="man or scdoc is not installed")
@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("man5/nm-mptcp.conf.5", "slot-priority=NUMBER"),
        ("man5/nm-mptcp-dbus.5", "PropertiesChanged"),
        ("man5/nm-mptcp-json.5", "cut_connections"),
        ("man7/nm-mptcp.7", "32765: from A lookup main suppress_prefixlength 0"),
        ("man8/nm-mptcp.8", "apply [--dry-run]"),
        ("man8/nm-mptcp-check.8", "-> nm-mptcp apply"),
    ],
)
def test_man_shows_the_page(stage: Path, page: str, words: str) -> None:
    result = subprocess.run(
        ["man", "--warnings", "-l", stage / "usr/share/man" / page],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "MANWIDTH": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    assert words in result.stdout


# --- iproute2 ----------------------------------------------------------------------------------------------------------


def names(path: Path) -> dict[int, str]:
    lines = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {int(number): name for number, name in lines}


def test_the_names_are_those_of_our_numbers(stage: Path) -> None:
    assert names(stage / "etc/iproute2/rt_protos.d/nm-mptcp.conf") == {PROTOCOL: "nm-mptcp"}
    tables = names(stage / "etc/iproute2/rt_tables.d/nm-mptcp.conf")
    assert all(number in TABLES and name == f"nm-mptcp-{number - TABLES.start}" for number, name in tables.items())
    assert TABLES.start in tables


@needs_root
@pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed")
def test_ip_shows_our_names(stage: Path) -> None:
    script = """
        mount -t tmpfs none /etc/iproute2 2>/dev/null || { mkdir /etc/iproute2; mount -t tmpfs none /etc/iproute2; }
        cp -r "$1"/etc/iproute2/. /etc/iproute2
        ip link set lo up
        ip rule add from 192.0.2.1 lookup 42001 protocol 77 priority 32765
        ip route add default dev lo table 42001 protocol 77
        ip rule show priority 32765
        ip route show table nm-mptcp-1
    """
    result = subprocess.run(
        ["unshare", "-m", "-n", "sh", "-ec", script, "sh", str(stage)], capture_output=True, text=True, check=True
    )
    rule, route = result.stdout.splitlines()
    assert rule.split() == ["32765:", "from", "192.0.2.1", "lookup", "nm-mptcp-1", "proto", "nm-mptcp"]
    assert route.split()[:5] == ["default", "dev", "lo", "proto", "nm-mptcp"]


# --- systemd -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def systemd_analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return program


@pytest.mark.parametrize(
    ("file", "name", "command"),
    [
        ("nm-mptcp.service", "nm-mptcp.service", "daemon"),
        ("nm-mptcp-group@.service", "nm-mptcp-group@system.slice.service", "unit enter %i"),
    ],
)
def test_systemd_finds_nothing_wrong_with_the_unit(
    stage: Path, systemd_analyze: str, tmp_path: Path, file: str, name: str, command: str
) -> None:
    unit = tmp_path / name
    text = (stage / "usr/lib/systemd/system" / file).read_text()
    assert f"\nExecStart=/usr/bin/nm-mptcp {command}\n" in text
    unit.write_text(text.replace("/usr/bin/nm-mptcp", str(stage / "usr/bin/nm-mptcp")))
    result = subprocess.run(
        [systemd_analyze, "verify", "--man=no", "--recursive-errors=no", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in result.stderr.splitlines() if "nm-mptcp" in line]
    assert complaints == []
    assert result.returncode == 0


def test_the_unit_is_hardened(stage: Path, systemd_analyze: str) -> None:
    unit = stage / "usr/lib/systemd/system/nm-mptcp.service"
    result = subprocess.run(
        [systemd_analyze, "security", "--offline=true", "--threshold=25", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" in result.stderr:
        pytest.skip("this systemd-analyze cannot look at a unit file offline")
    assert result.returncode == 0, result.stdout


# --- D-Bus policy ------------------------------------------------------------------------------------------------------


@pytest.fixture
def bus(stage: Path) -> Iterator[PrivateBus]:
    """A bus with the rules of a system bus and our policy, nothing else."""
    policy = f"<include>{stage}/usr/share/dbus-1/system.d/org.nm_mptcp1.conf</include>"
    with private_bus(policy) as bus:
        yield bus


def call(bus: PrivateBus, user: str, method: str, *arguments: str, to: str = "org.nm_mptcp1") -> str:
    """The reply's text, or the name of the error, of one call made by ``user``."""
    result = subprocess.run(
        ["dbus-send", "--system", "--print-reply", f"--dest={to}", "/org/nm_mptcp1", method, *arguments],
        env={"PATH": os.environ["PATH"], **bus.environment},
        user=pwd.getpwnam(user).pw_uid,
        group=pwd.getpwnam(user).pw_gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout if result.returncode == 0 else result.stderr.split(":")[0]


needs_bus = pytest.mark.skipif(
    shutil.which("dbus-daemon") is None or shutil.which("dbus-send") is None, reason="D-Bus programs are not installed"
)
DENIED = "Error org.freedesktop.DBus.Error.AccessDenied"

READING = [
    ("org.nm_mptcp1.Status",),
    ("org.freedesktop.DBus.Introspectable.Introspect",),
    ("org.freedesktop.DBus.Peer.Ping",),
    ("org.freedesktop.DBus.Properties.Get", "string:org.nm_mptcp1", "string:Mode"),
    ("org.freedesktop.DBus.Properties.GetAll", "string:org.nm_mptcp1"),
    ("org.freedesktop.DBus.ObjectManager.GetManagedObjects",),
]
#: What the service itself decides on, with polkit (tests/networkmanager/test_polkit.py).
ASKED_OF_POLKIT = [
    ("org.nm_mptcp1.Sync",),
    ("org.nm_mptcp1.Reload",),
    ("org.nm_mptcp1.SetMode", "string:off"),
]
CHANGING = [
    ("org.nm_mptcp1.Clear",),
    ("org.nm_mptcp1.ClearAll",),
    ("org.nm_mptcp1.Resume",),
    ("org.nm_mptcp1.NotThoughtOfYet",),
    ("org.freedesktop.DBus.Properties.Set", "string:org.nm_mptcp1", "string:Mode", "variant:string:off"),
    ("org.example.Status",),
]


def identity(request: tuple[str, ...]) -> str:
    return request[0]


@needs_root
@needs_bus
@pytest.mark.parametrize("request_", [*READING, *ASKED_OF_POLKIT], ids=identity)
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_anyone_may_read_and_ask(bus: PrivateBus, user: str, request_: tuple[str, ...]) -> None:
    with bus.service("answers") as service:
        assert call(bus, user, *request_).startswith("method return")
        assert service.calls() == [f"{request_[0]} /org/nm_mptcp1"]


@needs_root
@needs_bus
@pytest.mark.parametrize("request_", CHANGING, ids=identity)
def test_only_root_may_call_all_else(bus: PrivateBus, request_: tuple[str, ...]) -> None:
    with bus.service("answers") as service:
        assert call(bus, "nobody", *request_) == DENIED
        assert call(bus, "nobody", *request_, to=":1.0") == DENIED  # its unique name: the first on this bus
        assert call(bus, "root", *request_).startswith("method return")
        assert service.calls() == [f"{request_[0]} /org/nm_mptcp1"]


@needs_root
@needs_bus
def test_only_root_may_be_the_service(bus: PrivateBus) -> None:
    request = (
        "org.freedesktop.DBus.RequestName",
        "string:org.nm_mptcp1",
        "uint32:4",
    )
    assert call(bus, "nobody", *request, to="org.freedesktop.DBus") == DENIED
    assert "uint32 1" in call(bus, "root", *request, to="org.freedesktop.DBus")
