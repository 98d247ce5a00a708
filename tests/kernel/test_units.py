# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp unit`` with a real systemd and real services: whether it was MPTCP is what the server sees."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nm_mptcp.kernel import sysctl
from nm_mptcp.launch import programs
from nm_mptcp.launch.units import SOCKET_SINCE
from tests.support.command import COMMAND, as_user
from tests.support.network import Network
from tests.support.site import Site

from .nested import Nested, reason_to_skip

MPTCP, TCP = [socket.IPPROTO_MPTCP], [socket.IPPROTO_TCP]
DROP_IN = "50-nm-mptcp.conf"
DIRECTORY = "/etc/systemd/system"


@pytest.fixture
def systemd(network: Network) -> Iterator[Nested]:  # noqa: ARG001
    if reason := reason_to_skip():
        pytest.skip(reason)
    with Nested() as systemd:
        yield systemd


@pytest.fixture
def site(site: Site) -> Site:
    """It is curl that asks it here."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return site


def fetch(url: str, *lines: str) -> str:
    """A service that fetches a page once."""
    curl = shutil.which("curl")
    settings = "\n".join(lines)
    return f"[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart={curl} -sf {url}\n{settings}\n"


def lasting(*lines: str) -> str:
    """A service that keeps running."""
    settings = "\n".join(lines)
    return f"[Unit]\nDefaultDependencies=no\n[Service]\nExecStart={shutil.which('sleep')} 1000\n{settings}\n"


def unit(systemd: Nested, *words: str) -> subprocess.CompletedProcess[str]:
    # By a control group (tests/machine/test_switch.py) it would be this machine's kernel that gets a program.
    method = ["--method=preload"] if words[0] == "enable" else []
    return systemd.run(*COMMAND, "unit", words[0], *method, *words[1:])


def enabled(systemd: Nested, name: str, *words: str) -> str:
    """Enable it; returns standard error."""
    done = unit(systemd, "enable", name, *words)
    assert done.returncode == 0, done.stderr
    return done.stderr


def seen(systemd: Nested, site: Site, name: str) -> list[int]:
    """The protocol that the server sees in one run of a service."""
    site.protocols.clear()
    systemd.systemctl("start", name)
    return site.protocols[:]


def environment(systemd: Nested, name: str) -> str:
    return systemd.systemctl("show", "--property=Environment", "--value", name).strip()


# --- services ----------------------------------------------------------------------------------------------------------


def test_a_service_speaks_mptcp_while_the_drop_in_is_there(systemd: Nested, site: Site, wrapper: str) -> None:
    vendor = systemd.put("fetch.service", fetch(site.url, "Environment=MINE=1", "Environment=OTHER=2"))
    text = vendor.read_text()
    assert seen(systemd, site, "fetch") == TCP

    done = unit(systemd, "enable", "fetch")
    path = f"{DIRECTORY}/fetch.service.d/{DROP_IN}"
    assert done.stdout.splitlines() == [
        f"fetch.service: wrote {path}",
        "fetch.service: it takes effect at the next start",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    assert seen(systemd, site, "fetch") == MPTCP
    assert environment(systemd, "fetch") == f"MINE=1 OTHER=2 GODEBUG=multipathtcp=1 LD_PRELOAD={wrapper}"
    assert vendor.read_text() == text
    file = systemd.units / "fetch.service.d" / DROP_IN
    assert file.stat().st_mode & 0o777 == 0o644
    assert os.listdir(file.parent) == [DROP_IN]

    done = unit(systemd, "disable", "fetch")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"fetch.service: removed {path}\n")
    assert seen(systemd, site, "fetch") == TCP
    assert not file.parent.exists()
    assert unit(systemd, "disable", "fetch").stdout == f"fetch.service: there is no {path}\n"


def test_what_the_service_preloads_and_debugs_already_is_kept(systemd: Nested, site: Site, wrapper: str) -> None:
    own = programs.find("true", os.environ["PATH"])  # no library: the loader says so and goes on
    systemd.put("fetch.service", fetch(site.url, f'Environment="LD_PRELOAD=/no%%such.so {own}" GODEBUG=netdns=go'))
    enabled(systemd, "fetch")
    variables = environment(systemd, "fetch").split()
    assert f"LD_PRELOAD=/no%such.so:{own}:{wrapper}" in variables
    assert "GODEBUG=netdns=go,multipathtcp=1" in variables
    assert seen(systemd, site, "fetch") == MPTCP


def test_the_default_environment_of_services_is_kept(systemd: Nested, wrapper: str) -> None:
    systemd.systemctl("set-environment", "LD_PRELOAD=/all.so", "GODEBUG=x=1")
    systemd.put("sleep.service", lasting())
    enabled(systemd, "sleep")
    assert environment(systemd, "sleep") == f"GODEBUG=x=1,multipathtcp=1 LD_PRELOAD=/all.so:{wrapper}"


def test_enabled_again_it_follows_changes_of_the_vendors_unit(systemd: Nested, wrapper: str) -> None:
    systemd.put("sleep.service", lasting("Environment=LD_PRELOAD=/old.so"))
    enabled(systemd, "sleep")
    again = unit(systemd, "enable", "sleep")
    assert again.stdout.startswith(f"sleep.service: unchanged {DIRECTORY}/sleep.service.d/{DROP_IN}\n")
    systemd.put("sleep.service", lasting("Environment=LD_PRELOAD=/new.so"))
    enabled(systemd, "sleep")
    assert f"LD_PRELOAD=/new.so:{wrapper}" in environment(systemd, "sleep").split()


def test_other_drop_ins_stay(systemd: Nested, wrapper: str) -> None:
    systemd.put("sleep.service", lasting())
    other = systemd.put("sleep.service.d/10-other.conf", "[Service]\nEnvironment=LD_PRELOAD=/early.so\n")
    enabled(systemd, "sleep")
    assert f"LD_PRELOAD=/early.so:{wrapper}" in environment(systemd, "sleep").split()
    assert unit(systemd, "disable", "sleep").returncode == 0
    assert os.listdir(other.parent) == ["10-other.conf"]


def test_a_later_drop_in_that_undoes_ours_is_an_error_and_nothing_is_left(systemd: Nested, wrapper: str) -> None:
    systemd.put("sleep.service", lasting())
    later = systemd.put("sleep.service.d/90-later.conf", "[Service]\nEnvironment=LD_PRELOAD=/late.so\n")
    done = unit(systemd, "enable", "sleep")
    assert done.returncode == 1
    assert done.stderr == (
        "nm-mptcp: sleep.service not changed: LD_PRELOAD is set again by"
        f" {DIRECTORY}/sleep.service.d/90-later.conf, which is read later: append {wrapper} there\n"
    )
    assert os.listdir(later.parent) == ["90-later.conf"]
    assert environment(systemd, "sleep") == "LD_PRELOAD=/late.so"


def test_an_environment_file_with_precedence_is_reported(systemd: Nested, wrapper: str, tmp_path: Path) -> None:
    file = tmp_path / "defaults"
    file.write_text("# LD_PRELOAD=/no\nOTHER=1\n")
    systemd.put("sleep.service", lasting(f"EnvironmentFile=-{file}", "EnvironmentFile=-/no/such"))
    enabled(systemd, "sleep")
    file.write_text("LD_PRELOAD=/file.so\n")
    done = unit(systemd, "enable", "sleep")
    assert done.returncode == 1
    assert f"{file} sets LD_PRELOAD" in done.stderr
    assert f"append {wrapper} there" in done.stderr
    assert (systemd.units / "sleep.service.d" / DROP_IN).exists()  # as it was before


def test_an_alias_is_its_unit(systemd: Nested, wrapper: str) -> None:  # noqa: ARG001
    real = systemd.put("real.service", lasting())
    (real.parent / "nick.service").symlink_to("real.service")
    systemd.systemctl("daemon-reload")
    assert "wrote /etc/systemd/system/real.service.d/" in unit(systemd, "enable", "nick").stdout
    assert unit(systemd, "status", "nick").stdout.startswith("real.service: MPTCP by ")
    assert "removed /etc/systemd/system/real.service.d/" in unit(systemd, "disable", "nick").stdout


def test_a_template_counts_for_each_instance_and_an_instance_for_itself(
    systemd: Nested, site: Site, wrapper: str
) -> None:
    systemd.put("fetch@.service", fetch(site.url, "Environment=LD_PRELOAD=/opt/%i.so"))
    enabled(systemd, "fetch@one")
    assert (seen(systemd, site, "fetch@one"), seen(systemd, site, "fetch@two")) == (MPTCP, TCP)
    assert unit(systemd, "disable", "fetch@one").returncode == 0
    done = unit(systemd, "enable", "fetch@")
    assert 'systemctl restart "fetch@*.service"' in done.stdout
    assert (seen(systemd, site, "fetch@one"), seen(systemd, site, "fetch@two")) == (MPTCP, MPTCP)
    assert f"LD_PRELOAD=/opt/two.so:{wrapper}" in environment(systemd, "fetch@two").split()
    assert unit(systemd, "status", "fetch@").returncode == 0


HARDENED = [
    "DynamicUser=yes",
    "NoNewPrivileges=yes",
    "MemoryDenyWriteExecute=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallFilter=@system-service",
    "SystemCallArchitectures=native",
    "CapabilityBoundingSet=",
    "ProtectKernelModules=yes",
    "ProtectProc=invisible",
]


def test_hardening_does_not_keep_a_service_from_mptcp(systemd: Nested, site: Site, wrapper: str) -> None:  # noqa: ARG001
    systemd.put("fetch.service", fetch(site.url, *HARDENED))
    assert enabled(systemd, "fetch") == ""
    assert seen(systemd, site, "fetch") == MPTCP


@pytest.mark.parametrize("setting", ["TemporaryFileSystem", "InaccessiblePaths", "NoExecPaths"])
def test_a_service_that_cannot_load_the_wrapper_is_reported_and_stays_on_tcp(
    systemd: Nested, site: Site, wrapper: str, setting: str
) -> None:
    systemd.put("fetch.service", fetch(site.url, f"{setting}={os.path.dirname(wrapper)}"))
    stderr = enabled(systemd, "fetch")
    assert stderr.count("\n") == 1
    assert f"{setting}=" in stderr
    assert seen(systemd, site, "fetch") == TCP


def test_a_program_that_cannot_be_wrapped_is_reported(systemd: Nested, wrapper: str) -> None:  # noqa: ARG001
    busybox = shutil.which("busybox")
    if busybox is None or programs.examine(busybox, {}, uid=0, gid=0).form is not programs.Form.STATIC:
        pytest.skip("there is no static busybox")
    systemd.put("box.service", f"[Service]\nExecStart={busybox} sleep 1000\n")
    assert f"box.service: {busybox} is static" in enabled(systemd, "box")


# --- running ones ------------------------------------------------------------------------------------------------------


def test_a_running_service_is_left_running_until_it_is_restarted(systemd: Nested, wrapper: str) -> None:  # noqa: ARG001
    systemd.put("sleep.service", lasting())
    systemd.systemctl("start", "sleep")

    def pid() -> str:
        return systemd.systemctl("show", "--property=MainPID", "--value", "sleep").strip()

    first = pid()
    done = unit(systemd, "enable", "sleep")
    assert done.stdout.endswith("sleep.service: apply it with: systemctl restart sleep.service\n")
    assert pid() == first
    done = unit(systemd, "status", "sleep")
    assert done.returncode == 0
    assert f"its process {first} was started without it\n" in done.stdout
    facts = json.loads(unit(systemd, "status", "--json", "sleep").stdout)
    assert (facts["in_force"], facts["running_with_it"], facts["active"]) == (True, False, True)

    done = unit(systemd, "enable", "--restart", "sleep")
    assert done.stdout.endswith("sleep.service: restarted\n")
    assert pid() != first
    facts = json.loads(unit(systemd, "status", "--json", "sleep").stdout)
    assert (facts["in_force"], facts["running_with_it"], facts["findings"]) == (True, True, [])

    assert unit(systemd, "disable", "sleep").returncode == 0
    done = unit(systemd, "status", "sleep")
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "sleep.service: no MPTCP: there is no drop-in")


def test_a_drop_in_that_systemd_has_not_read_is_reported(systemd: Nested, wrapper: str) -> None:  # noqa: ARG001
    systemd.put("sleep.service", lasting())
    systemd.systemctl("start", "sleep")  # a unit that runs is not loaded anew when it is asked about
    file = systemd.units / "sleep.service.d" / DROP_IN
    file.parent.mkdir()
    file.write_text(unit(systemd, "enable", "--dry-run", "sleep").stdout.partition("\n")[2])
    done = unit(systemd, "status", "sleep")
    assert done.returncode == 1
    assert "systemctl daemon-reload" in done.stdout
    systemd.systemctl("daemon-reload")
    assert unit(systemd, "status", "sleep").returncode == 0


def test_a_missing_library_is_reported(systemd: Nested, wrapper: str) -> None:
    systemd.put("sleep.service", lasting())
    enabled(systemd, "sleep")
    assert systemd.run("mount", "-t", "tmpfs", "none", os.path.dirname(wrapper)).returncode == 0
    done = unit(systemd, "status", "sleep")
    assert done.returncode == 1
    assert f"{wrapper} is gone: nm-mptcp unit enable sleep.service" in done.stdout
    done = unit(systemd, "enable", "sleep")  # which cannot be done now: as it was before
    assert "mptcpize" in done.stderr
    assert (systemd.units / "sleep.service.d" / DROP_IN).exists()


# --- what is refused ---------------------------------------------------------------------------------------------------


def test_without_mptcp_in_the_kernel_the_unit_is_not_changed(systemd: Nested, wrapper: str) -> None:  # noqa: ARG001
    systemd.put("sleep.service", lasting())
    sysctl.write("net/mptcp/enabled", 0)
    done = unit(systemd, "enable", "sleep")
    assert done.returncode == 1
    assert "sysctl -w net.mptcp.enabled=1" in done.stderr
    assert not (systemd.units / "sleep.service.d").exists()


def test_status_warns_when_the_kernel_has_no_mptcp_any_more(systemd: Nested, wrapper: str) -> None:  # noqa: ARG001
    systemd.put("sleep.service", lasting())
    enabled(systemd, "sleep")
    assert unit(systemd, "status", "sleep").stderr == ""
    sysctl.write("net/mptcp/enabled", 0)
    assert "its sockets cannot be made at all" in unit(systemd, "status", "sleep").stderr


def test_units_that_are_missing_masked_or_of_another_type(systemd: Nested) -> None:
    systemd.put("away.service", lasting()).unlink()
    systemd.systemctl("mask", "--runtime", "away.service")
    for name, words in (
        ("no-such", "no-such.service: there is no such unit"),
        ("no-such@", "no-such@.service: there is no such unit"),
        ("away", "away.service: it is masked"),
        ("x.timer", "x.timer: only services, sockets and slices can use MPTCP"),
        ("../x", "'../x' is not the name of a service, socket or slice"),
    ):
        done = unit(systemd, "enable", name)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"nm-mptcp: {words}\n")


def test_a_foreign_drop_in_is_not_changed(systemd: Nested, wrapper: str) -> None:  # noqa: ARG001
    systemd.put("sleep.service", lasting())
    file = systemd.put(f"sleep.service.d/{DROP_IN}", "[Service]\nEnvironment=A=1\n")
    for action in ("enable", "disable"):
        done = unit(systemd, action, "sleep")
        assert done.returncode == 1
        assert "was not made by nm-mptcp" in done.stderr
    assert file.read_text() == "[Service]\nEnvironment=A=1\n"


def test_only_root_changes_units(systemd: Nested, wrapper: str) -> None:  # noqa: ARG001
    systemd.put("sleep.service", lasting())
    somebody = as_user(65534, "unit", "status", "sleep")
    for action in ("enable", "disable"):
        done = systemd.run(*somebody, "unit", action, "sleep")
        assert (done.returncode, done.stderr) == (
            1,
            f"nm-mptcp: only root may change units: sudo nm-mptcp unit {action} sleep\n",
        )


def test_a_dry_run_writes_nothing(systemd: Nested, wrapper: str) -> None:
    systemd.put("sleep.service", lasting())
    done = unit(systemd, "enable", "--dry-run", "sleep")
    assert done.stdout.splitlines()[0] == f"# {DIRECTORY}/sleep.service.d/{DROP_IN}"
    assert done.stdout.splitlines()[-1] == f'Environment="LD_PRELOAD={wrapper}"'
    assert not (systemd.units / "sleep.service.d").exists()


def test_without_systemd_there_are_no_units(network: Network) -> None:  # noqa: ARG001
    if os.path.isdir("/run/systemd/system"):
        pytest.skip("systemd runs here")
    done = subprocess.run([*COMMAND, "unit", "status", "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "nm-mptcp: this system was not booted with systemd, so there are no units\n",
    )


# --- sockets -----------------------------------------------------------------------------------------------------------

LISTEN = "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=10.0.0.1:80\nAccept=yes\n"


def connected(far: Network, protocol: int) -> bool:
    """Whether a connection from the far side that asks for MPTCP stays MPTCP."""
    with far.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as client:
        client.settimeout(10)
        client.connect(("10.0.0.1", 80))
        return client.getsockopt(socket.SOL_TCP, protocol) == 1


def test_a_listening_socket_of_systemds_speaks_mptcp(systemd: Nested, site: Site, far: Network) -> None:  # noqa: ARG001
    systemd.put("echo@.service", f"[Service]\nExecStart={shutil.which('cat')}\nStandardInput=socket\n")
    systemd.put("echo.socket", LISTEN)
    systemd.systemctl("start", "echo.socket")
    done = unit(systemd, "enable", "--restart", "echo.socket")
    if systemd.version < SOCKET_SINCE:
        assert done.returncode == 1
        assert f"systemd {systemd.version} has no SocketProtocol=mptcp, 257 has" in done.stderr
        assert not (systemd.units / "echo.socket.d").exists()
        return
    assert done.returncode == 0, done.stderr
    tcp_is_mptcp = 43
    assert connected(far, tcp_is_mptcp)
    assert unit(systemd, "status", "echo.socket").returncode == 0
    assert unit(systemd, "disable", "--restart", "echo.socket").returncode == 0
    assert not connected(far, tcp_is_mptcp)


def test_a_socket_unit_with_a_unix_socket_is_refused(systemd: Nested) -> None:
    if systemd.version < SOCKET_SINCE:
        pytest.skip(f"systemd {systemd.version} has no SocketProtocol=mptcp")
    systemd.put("both.service", lasting())
    systemd.put("both.socket", "[Socket]\nListenStream=10.0.0.1:81\nListenStream=/run/both\n")
    done = unit(systemd, "enable", "both.socket")
    assert done.returncode == 1
    assert "/run/both" in done.stderr


def test_a_service_with_a_socket_unit_is_reported(systemd: Nested, wrapper: str) -> None:  # noqa: ARG001
    systemd.put("sleep.service", lasting())
    systemd.put("sleep.socket", "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=127.0.0.1:82\n")
    systemd.systemctl("start", "sleep.socket")
    done = unit(systemd, "enable", "sleep")
    assert "nm-mptcp unit enable sleep.socket" in done.stdout
