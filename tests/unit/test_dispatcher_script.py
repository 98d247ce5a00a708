# SPDX-License-Identifier: GPL-2.0-or-later
"""``dispatcher.d/10-nm-mptcp``, run by a real shell against a real bus (a private one) as NetworkManager would run it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.support import network as namespaces
from tests.support.mounts import mounts_of_its_own

from .private_bus import PrivateBus, private_bus

SCRIPT = Path(__file__).parents[2] / "dispatcher.d" / "10-nm-mptcp"

WAITED_FOR = ["pre-up", "pre-down", "vpn-pre-up", "vpn-pre-down"]
AFTERWARDS = [
    "up",
    "down",
    "vpn-up",
    "vpn-down",
    "reapply",
    "dhcp4-change",
    "dhcp6-change",
    "connectivity-change",
]
NOT_OURS = ["hostname", "dns-change", "device-add", "device-delete", "no-such-action", "", "up; touch x", "*"]

UNSHARE = shutil.which("unshare") or "unshare"

#: Where the script looks before it looks in PATH.
FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")

SYNC = "org.nm_mptcp1.Sync /org/nm_mptcp1"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the bus of these tests lets only root own names"),
    pytest.mark.skipif(namespaces.reason_to_skip() is not None, reason="the script is run in namespaces of its own"),
    pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="dbus-daemon is not installed"),
    pytest.mark.skipif(shutil.which("dbus-send") is None, reason="dbus-send is not installed"),
]


@pytest.fixture
def bus() -> Iterator[PrivateBus]:
    with private_bus() as bus:
        yield bus


class Dispatcher:
    """Runs an installed copy of the script beside a stand-in for the command, which writes down how it was called."""

    def __init__(self, folder: Path, bus: PrivateBus) -> None:
        self.folder = folder
        self.bus = bus
        self.called = folder / "called"
        self.command = folder / "bin" / "nm-mptcp"
        self.command.parent.mkdir()
        self.behave(f'echo "$@" >>{self.called}')
        self.script = folder / "10-nm-mptcp"
        self.script.write_text(SCRIPT.read_text().replace("/@BINDIR@", str(self.command.parent)))
        self.script.chmod(0o755)

    def behave(self, lines: str) -> None:
        self.command.write_text(f"#!/bin/sh\n{lines}\n")
        self.command.chmod(0o755)

    def run(
        self, *arguments: str, hidden: tuple[str, ...] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """One event; programs in ``hidden`` are not there (in a mount namespace of this run only), nor is a nm-mptcp that is
        installed on this machine, nor its service.
        """
        nothing = self.folder / "nothing"
        nothing.touch(mode=0o644)
        mounts = [f"mount --bind {nothing} {os.path.realpath(path)}" for path in map(shutil.which, hidden) if path]
        mounts += [f"mount -t tmpfs nothing {place}" for place in ("/run/systemd/units",) if Path(place).is_dir()]
        installed = {os.path.realpath(place) for place in FOLDERS if Path(place, "nm-mptcp").exists()}
        mounts += [line for number, place in enumerate(sorted(installed)) for line in self._without(place, number)]
        steps = ["(", f"PATH={':'.join(FOLDERS)}", *mounts, ")", 'exec "$@"']
        path = os.environ["PATH"] if hidden else "/usr/bin:/bin"
        return subprocess.run(
            [UNSHARE, "--mount", "/bin/sh", "-ec", "\n".join(steps), "sh", str(self.script), *arguments],
            env={"PATH": path, **self.bus.environment, **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,  # the exit status is 0, always
        )

    def _without(self, place: str, number: int) -> list[str]:
        """What lets a folder be seen without the command: unlike a file in its place, it leaves nothing to be found."""
        shade = self.folder / f"shade{number}"
        shade.mkdir(exist_ok=True)
        return [
            f"mount -t tmpfs shade {shade}",
            f"mkdir {shade}/upper {shade}/work",
            f"mknod {shade}/upper/nm-mptcp c 0 0",
            f"mount -t overlay -o lowerdir={place},upperdir={shade}/upper,workdir={shade}/work shade {place}",
        ]

    def applied(self) -> list[str]:
        return self.called.read_text().splitlines() if self.called.exists() else []


@pytest.fixture
def dispatcher(tmp_path: Path, bus: PrivateBus) -> Dispatcher:
    return Dispatcher(tmp_path, bus)


def silent(result: subprocess.CompletedProcess[str]) -> bool:
    return result.stdout == result.stderr == ""


@pytest.mark.parametrize("action", WAITED_FOR + AFTERWARDS)
def test_with_the_service_up_each_action_is_one_sync(dispatcher: Dispatcher, bus: PrivateBus, action: str) -> None:
    with bus.service("answers") as service:
        assert silent(dispatcher.run("eth0", action))
        assert service.calls() == [SYNC]
    assert dispatcher.applied() == []


@pytest.mark.parametrize("action", AFTERWARDS)
def test_without_the_service_the_command_takes_one_look(dispatcher: Dispatcher, action: str) -> None:
    assert silent(dispatcher.run("eth0", action))
    assert dispatcher.applied() == ["apply"]


@pytest.mark.parametrize("action", WAITED_FOR)
def test_without_the_service_a_connection_is_not_held_up(dispatcher: Dispatcher, action: str) -> None:
    assert silent(dispatcher.run("eth0", action))
    assert dispatcher.applied() == []


@pytest.mark.parametrize("action", NOT_OURS)
def test_other_actions_do_nothing(dispatcher: Dispatcher, bus: PrivateBus, action: str) -> None:
    assert silent(dispatcher.run("eth0", action))
    with bus.service("answers") as service:
        assert silent(dispatcher.run("eth0", action))
        assert service.calls() == []
    assert dispatcher.applied() == []
    assert not (dispatcher.folder / "x").exists()


#: What NetworkManager sets for a script, partly with what a network or its owner chose, and what a shell takes to heart.
VARIABLES = (
    *("CONNECTION_ID", "CONNECTION_FILENAME", "DEVICE_IFACE", "IP4_ADDRESS_0", "DHCP4_DOMAIN_NAME", "VPN_IP_IFACE"),
    *(
        "IFS",
        "ENV",
        "BASH_ENV",
        "PS4",
        "CDPATH",
        "HOME",
        "TMPDIR",
        "LC_ALL",
        "POSIXLY_CORRECT",
        "answer",
        "name",
        "there",
    ),
)
COMMANDS = ("$(touch x)", "`touch x`", "; touch x", "-n", "--help", "*", "'", '"', "\\", "\x1b[31m", "a\nb")
ODD = st.sampled_from(COMMANDS) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(ODD, max_size=3),
    st.sampled_from(WAITED_FOR + AFTERWARDS),
    st.dictionaries(st.sampled_from(VARIABLES), ODD),
)
def test_whatever_names_and_variables_say_the_action_is_one_sync(
    dispatcher: Dispatcher, bus: PrivateBus, others: list[str], action: str, variables: dict[str, str]
) -> None:
    interface, *rest = others or ["eth0"]
    assume(interface != "lo")
    with bus.service("answers") as service:
        assert silent(dispatcher.run(interface, action, *rest, **variables))
        assert service.calls() == [SYNC]
        assert silent(dispatcher.run("eth0", f"{action}{interface}x", *rest, **variables))
        assert service.calls() == []
    assert not (dispatcher.folder / "x").exists()


@pytest.mark.parametrize("arguments", [(), ("eth0",)])
def test_a_call_without_an_action_does_nothing(dispatcher: Dispatcher, arguments: tuple[str, ...]) -> None:
    assert silent(dispatcher.run(*arguments))
    assert dispatcher.applied() == []


@pytest.mark.parametrize("hidden", [(), ("dbus-send",)])
def test_a_service_that_never_answers_is_given_up_with_one_line(
    dispatcher: Dispatcher, bus: PrivateBus, hidden: tuple[str, ...]
) -> None:
    if hidden and shutil.which("busctl") is None:
        pytest.skip("busctl is not installed")
    with bus.service("hangs") as service:
        result = dispatcher.run("eth0", "pre-up", hidden=hidden)
        assert service.calls() == [SYNC]
    assert result.stderr == "nm-mptcp: pre-up: the service did not answer within 2 s\n"
    assert dispatcher.applied() == []


def test_a_service_that_is_stopped_by_a_signal_is_given_up(dispatcher: Dispatcher, bus: PrivateBus) -> None:
    with bus.service("answers") as service:
        service.process.send_signal(signal.SIGSTOP)
        result = dispatcher.run("eth0", "up")
    assert result.stderr == "nm-mptcp: up: the service did not answer within 2 s\n"
    assert dispatcher.applied() == []  # it is there: two writers must never be


@pytest.mark.parametrize("hidden", [(), ("dbus-send",)])
def test_a_bus_that_hangs_is_given_up_as_soon(dispatcher: Dispatcher, bus: PrivateBus, hidden: tuple[str, ...]) -> None:
    if hidden and shutil.which("busctl") is None:
        pytest.skip("busctl is not installed")
    bus.process.send_signal(signal.SIGSTOP)
    try:
        result = dispatcher.run("eth0", "pre-up", hidden=hidden)
    finally:
        bus.process.send_signal(signal.SIGCONT)
    assert result.stderr == "nm-mptcp: pre-up: the service did not answer within 2 s\n"


@pytest.mark.parametrize("action", ["pre-up", "up"])
def test_an_error_from_the_service_is_one_line(dispatcher: Dispatcher, bus: PrivateBus, action: str) -> None:
    with bus.service("refuses"):
        result = dispatcher.run("eth0", action)
    assert result.stderr == f"nm-mptcp: {action}: Sync failed: Error org.nm_mptcp1.Error.Failed: table full *\n"
    assert dispatcher.applied() == []


def test_a_service_that_lacks_another_one_is_there(dispatcher: Dispatcher, bus: PrivateBus) -> None:
    with bus.service("lacks another"):
        result = dispatcher.run("eth0", "up")
    assert result.stderr.startswith("nm-mptcp: up: Sync failed: Error org.nm_mptcp1.Error.Failed: ")
    assert dispatcher.applied() == []


def test_without_dbus_send_busctl_is_used(dispatcher: Dispatcher, bus: PrivateBus) -> None:
    if shutil.which("busctl") is None:
        pytest.skip("busctl is not installed")
    hidden = ("dbus-send",)
    with bus.service("answers") as service:
        assert silent(dispatcher.run("eth0", "up", hidden=hidden))
        assert service.calls() == [SYNC]
    assert silent(dispatcher.run("eth0", "pre-up", hidden=hidden))
    assert dispatcher.applied() == []
    assert silent(dispatcher.run("eth0", "up", hidden=hidden))
    assert dispatcher.applied() == ["apply"]


def test_without_either_program_the_command_asks_the_service_itself(dispatcher: Dispatcher, bus: PrivateBus) -> None:
    hidden = ("dbus-send", "busctl")
    with bus.service("answers"):
        assert silent(dispatcher.run("eth0", "pre-up", hidden=hidden))
        assert dispatcher.applied() == []
        assert silent(dispatcher.run("eth0", "up", hidden=hidden))
    assert dispatcher.applied() == ["apply"]


@pytest.mark.parametrize("action", ["pre-up", "up"])
def test_without_a_bus_there_is_one_line_and_no_more(dispatcher: Dispatcher, action: str) -> None:
    result = dispatcher.run("eth0", action, DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent/socket")
    assert result.stderr.startswith(f"nm-mptcp: {action}: Sync failed: ")
    assert result.stderr.count("\n") == 1
    assert dispatcher.applied() == []


def test_what_the_network_says_is_never_run(dispatcher: Dispatcher) -> None:
    """Names, DHCP options and the like come from the network; the working directory may be anybody's."""
    evil = "$(touch pwned)`touch pwned`'; touch pwned; #\"\n*"
    for program in ("dbus-send", "busctl", "timeout", "nm-mptcp", "head"):
        trap = dispatcher.folder / program
        trap.write_text("#!/bin/sh\ntouch pwned\n")
        trap.chmod(0o755)
    result = dispatcher.run(
        evil, "up", PATH=".:" + str(dispatcher.folder), CONNECTION_ID=evil, DHCP4_DOMAIN_NAME=evil, IFS="/", CDPATH="."
    )
    assert silent(result)
    assert dispatcher.applied() == ["apply"]
    assert not (dispatcher.folder / "pwned").exists()


def test_what_the_command_says_about_a_failure_reaches_the_journal(dispatcher: Dispatcher) -> None:
    dispatcher.behave("echo progress; echo 'nm-mptcp: no permission' >&2; exit 1")
    result = dispatcher.run("eth0", "up")
    assert (result.stdout, result.stderr) == ("", "nm-mptcp: no permission\n")


def test_a_command_that_is_not_there_is_named(dispatcher: Dispatcher) -> None:
    dispatcher.command.unlink()
    result = dispatcher.run("eth0", "up")
    assert "'nm-mptcp apply' did not run to its end (exit status 127)" in result.stderr


def test_in_a_source_tree_the_command_is_found_in_path(dispatcher: Dispatcher) -> None:
    dispatcher.script = SCRIPT
    assert silent(dispatcher.run("eth0", "up", PATH=f"/usr/bin:/bin:{dispatcher.command.parent}"))
    assert dispatcher.applied() == ["apply"]


def test_what_is_installed_on_this_machine_is_never_run(dispatcher: Dispatcher, tmp_path: Path) -> None:
    """By these very tests: it would change this machine's network."""
    poison, upper = tmp_path / "poison", tmp_path / "upper"
    upper.mkdir()
    with mounts_of_its_own():
        subprocess.run(["mount", "-t", "tmpfs", "poison", upper], check=True)
        for name in ("files", "work"):
            (upper / name).mkdir()
        (upper / "files/nm-mptcp").write_text(f"#!/bin/sh\ntouch {poison}\n")
        (upper / "files/nm-mptcp").chmod(0o755)
        options = f"lowerdir=/usr/bin,upperdir={upper}/files,workdir={upper}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "poison", "/usr/bin"], check=True)
        subprocess.run(["nm-mptcp"], env={"PATH": "/usr/bin:/bin"}, check=True)
        assert poison.exists()
        poison.unlink()
        dispatcher.script = SCRIPT
        assert silent(dispatcher.run("eth0", "up", PATH=f"/usr/bin:/bin:{dispatcher.command.parent}"))
        dispatcher.command.unlink()
        dispatcher.run("eth0", "up")
    assert dispatcher.applied() == ["apply"]
    assert not poison.exists()
