# SPDX-License-Identifier: GPL-2.0-or-later
"""Another user of the machine: reads all, and is refused all that changes anything, in a line each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .built import deb
from .container import Container, reason_to_skip
from .test_install import DISTRIBUTIONS, LINKS, NETWORKMANAGER, kernel, status

HERE = Path(__file__).parent
NOBODY = "setpriv --reuid=nobody --regid=nogroup --clear-groups"

#: What anybody may call.
READING = {
    *("org.freedesktop.DBus.Introspectable.Introspect", "org.freedesktop.DBus.ObjectManager.GetManagedObjects"),
    *("org.freedesktop.DBus.Peer.Ping", "org.freedesktop.DBus.Peer.GetMachineId"),
    *("org.freedesktop.DBus.Properties.Get", "org.freedesktop.DBus.Properties.GetAll"),
    *("org.nm_mptcp1.Status", "org.nm_mptcp1.Explain"),
}

#: All that belongs to the package, and what it has written.
PLACES = "$(dpkg -L nm-mptcp | grep -v -e ^/.$ | sort) /run/nm-mptcp $(find /run/nm-mptcp /etc/nm-mptcp)"

BY_THE_BUS = "permission denied: must be root"
#: There is no polkit in these systems.
BY_THE_SERVICE = r"the service returned an error: permission denied: must be root \(polkit is not available\)"
BY_THE_FILE = "/run/nm-mptcp/lock: cannot be opened: Permission denied: run this as root"

#: What a person may type to change something, and what he is told with the service and without it.
CHANGING = {
    "apply": (BY_THE_BUS, BY_THE_FILE),
    "clear": (BY_THE_BUS, BY_THE_FILE),
    "mode handover": (BY_THE_SERVICE, BY_THE_FILE),
    "mode --reset": (BY_THE_SERVICE, BY_THE_FILE),
    "daemon": ("the service is already running: .*", BY_THE_FILE),
    "unit enable ssh": ("only root may change units: .*",) * 2,
    "unit disable ssh": ("only root may change units: .*",) * 2,
}


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def system(request: pytest.FixtureRequest) -> Iterator[Container]:
    """A system with two paths, and a service that could be brought onto MPTCP."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with Container(request.param) as container:
        container.run("cat >/etc/NetworkManager/conf.d/test.conf <<'E'\n" + NETWORKMANAGER + "E\nnmcli general reload")
        container.run("printf '[Service]\\nExecStart=/bin/sleep 1\\n' >/etc/systemd/system/ssh.service")
        container.put(deb(), "/root/nm-mptcp.deb")
        container.put(HERE / "stranger.py", "/tmp/stranger.py")
        container.run("apt-get -q -y --no-install-recommends install /root/nm-mptcp.deb", seconds=180)
        container.run(LINKS)
        container.run("cd /tmp; umask 0; mkdir mine; chmod 755 /tmp/stranger.py")
        yield container


def everything(system: Container) -> dict[str, object]:
    """All that he could have changed."""
    shown = status(system)
    for path in shown["paths"]:
        del path["since"], path["endpoint_id"]
    return {
        **kernel(system),
        "status": shown,
        "process": system.run("systemctl show -p NRestarts,ActiveState nm-mptcp"),
        "files": system.run(f"for place in {PLACES}; do test -d $place || sha256sum $place; done | grep -v /run/"),
        "units": system.run("find /etc/systemd /run/systemd/system | sort"),
    }


@pytest.fixture(autouse=True)
def unchanged(system: Container) -> Iterator[None]:
    before = everything(system)
    yield
    assert everything(system) == before


def test_on_the_bus_he_may_read_and_nothing_else(system: Container) -> None:
    told = json.loads(system.run(f"{NOBODY} python3 /tmp/stranger.py bus org.nm_mptcp1"))
    objects = {member.split()[0] for member in told}
    assert len([path for path in objects if path.startswith("/org/nm_mptcp1/")]) >= 2
    done = {member.split()[1] for member, words in told.items() if words == "done"}
    changing = {member: words for member, words in told.items() if member.split()[1] not in READING}
    assert done <= READING
    assert {"org.nm_mptcp1.Status"} <= done
    wanted = {"Sync", "Clear", "ClearAll", "Resume", "Reload", "SetMode", "Mode=", "State="}
    assert {member.rpartition(".")[2] for member in changing} >= wanted
    for member, words in changing.items():
        assert "\n" not in words, member
        assert "ccess denied" in words or "must be root" in words, (member, words)


def test_no_signal_of_his_reaches_the_service(system: Container) -> None:
    """Not even one that claims to be NetworkManager's: the bus refuses what is sent to the service alone."""
    bus = "org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus"
    owner = system.run(f"busctl --system call {bus} GetNameOwner s org.nm_mptcp1").split('"')[1]
    for to in ("org.nm_mptcp1", owner):
        told = system.run_quietly(
            f"{NOBODY} dbus-send --system --type=method_call --print-reply --dest={to} /org/nm_mptcp1 org.nm_mptcp1.Clear"
        )
        assert told.returncode == 1
        assert "org.freedesktop.DBus.Error.AccessDenied" in told.stdout
    for signal in (
        "/org/freedesktop/login1 org.freedesktop.login1.Manager.PrepareForSleep boolean:false",
        "/org/freedesktop/DBus org.freedesktop.DBus.NameOwnerChanged"
        " string:org.freedesktop.NetworkManager string::1.1 string:",
    ):
        for destination in ("", f"--dest={owner}"):
            system.run_quietly(f"{NOBODY} dbus-send --system --type=signal {destination} {signal}")
    # The service has had its turn after all of these.
    system.run("busctl --system call org.nm_mptcp1 /org/nm_mptcp1 org.nm_mptcp1 Sync")
    log = system.run("journalctl -b -o cat -u nm-mptcp")
    assert "NetworkManager is gone" not in log, log


def test_no_file_of_the_package_is_his_to_write(system: Container) -> None:
    told = json.loads(system.run(f"{NOBODY} python3 /tmp/stranger.py files {PLACES}"))
    assert {"/run/nm-mptcp/state.json", "/etc/nm-mptcp/nm-mptcp.conf", "/usr/bin/nm-mptcp"} <= told.keys()
    assert set(told.values()) <= {"Permission denied", "Read-only file system"}, told


def started(system: Container) -> None:
    """Start the service, however often that was done of late."""
    system.run("systemctl reset-failed nm-mptcp; systemctl start nm-mptcp")


@pytest.mark.parametrize("service", ["active", "inactive"])
@pytest.mark.parametrize("command", CHANGING)
def test_each_command_that_changes_something_is_refused_in_one_line(
    system: Container, command: str, service: str
) -> None:
    if service == "inactive":
        system.run("systemctl stop nm-mptcp")
        before = kernel(system)
    done = system.run_quietly(f"{NOBODY} timeout 20 nm-mptcp {command}")
    if service == "inactive":
        assert kernel(system) == before
        started(system)
    assert done.returncode == 1, done.stdout
    assert re.fullmatch(f"nm-mptcp: {CHANGING[command][service == 'inactive']}\n", done.stdout), done.stdout


def test_a_record_of_his_own_helps_him_nothing(system: Container) -> None:
    assert system.run_quietly(f"{NOBODY} nm-mptcp --state-dir /tmp/mine apply").stdout.strip().endswith(BY_THE_BUS)
    system.run("systemctl stop nm-mptcp; ip mptcp endpoint flush")
    told = {
        command: system.run_quietly(f"{NOBODY} nm-mptcp --state-dir /tmp/mine {command}")
        for command in ("apply", "clear", "mode off")
    }
    left = system.run("ip mptcp endpoint show")
    started(system)
    system.wait("test $(ip mptcp endpoint show | wc -l) = 2")
    assert left == ""
    for command, done in told.items():
        assert done.returncode == 1, command
        assert re.fullmatch(r"nm-mptcp: cannot .* - run as root or with CAP_NET_ADMIN\n", done.stdout), done.stdout


def test_check_fixes_nothing_for_him(system: Container) -> None:
    system.run("ip mptcp limits set subflow 0 add_addr_accepted 0")
    before = everything(system)
    done = system.run_quietly(f"{NOBODY} nm-mptcp check --fix --yes")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert everything(system) == before
    system.run("ip mptcp limits set subflow 4 add_addr_accepted 2")
    print(done.stdout)
