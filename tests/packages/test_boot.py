# SPDX-License-Identifier: GPL-2.0-or-later
"""A system that boots with the package: paths are there when the network is called online, and nothing waits for us."""

from __future__ import annotations

import json
from collections.abc import Iterator
from shlex import quote

import pytest

from .built import deb
from .container import Container, reason_to_skip
from .system import System
from .test_install import DISTRIBUTIONS, NETWORKMANAGER

PROFILE = """\
[connection]
id={name}
type=ethernet
interface-name={name}
[ipv4]
method=manual
address1=10.0.{number}.2/24,10.0.{number}.1
[ipv6]
method=disabled
"""

#: Those that call the network online.
ONLINE = ("NetworkManager-wait-online.service", "network-online.target")

# Looks when it is called so, by the one whose name this one's has after the @.
PROBE = """\
[Unit]
Wants=%i
After=%i
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'ip mptcp endpoint show >/run/%i.endpoints; ip rule show >/run/%i.rules'
[Install]
WantedBy=multi-user.target
"""


def preparation(*, package: bool = True) -> str:
    """Two links with profiles, which a boot brings up by itself.

    Without the package it was there and was purged: what dpkg has just done makes the next second faster.
    """
    script = [
        "dpkg --install /root/nm-mptcp*.deb",
        *([] if package else ["dpkg --purge nm-mptcp"]),
        f"printf %s {quote(NETWORKMANAGER)} >/etc/NetworkManager/conf.d/test.conf",
        f"printf %s {quote(PROBE)} >/etc/systemd/system/probe@.service",
        f"systemctl --quiet enable {' '.join(f'probe@{unit}.service' for unit in ONLINE)} NetworkManager-wait-online.service",
    ]
    for number, name in enumerate(("wire", "air"), start=1):
        profile = f"/etc/NetworkManager/system-connections/{name}.nmconnection"
        script += [
            f"ip link add {name} type veth peer name far-{name}; ip link set far-{name} up",
            f"install -m 600 /dev/null {profile}",
            f"printf %s {quote(PROFILE.format(name=name, number=number))} >{profile}",
        ]
    return "\n".join(script)


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def system(request: pytest.FixtureRequest) -> Iterator[Container]:
    """A system that had the package and two profiles before it booted; no udev tells of links."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with Container(request.param, before=preparation(), files=[deb()]) as container:
        yield container


@pytest.mark.parametrize("unit", ONLINE)
def test_paths_are_there_when_the_network_is_called_online(system: System, unit: str) -> None:
    endpoints = system.run(f"cat /run/{unit}.endpoints")
    assert "10.0.1.2" in endpoints
    assert "10.0.2.2" in endpoints
    assert system.run(f"cat /run/{unit}.rules").count("proto nm-mptcp") == 8
    paths = json.loads(system.run("nm-mptcp status --json"))["paths"]
    ours = {path["interface"]: path["owner"] for path in paths if path["state"] == "active"}
    assert ours == {"wire": "nm-mptcp", "air": "nm-mptcp"}


def test_the_boot_does_not_wait_for_the_service(system: System) -> None:
    """But for who waits for the network."""
    waiting = system.run("systemctl list-dependencies --plain --before nm-mptcp.service").split()[1:]
    assert {*ONLINE} <= set(waiting)
    after = system.run("systemctl show --property=After --value multi-user.target NetworkManager.service").split()
    assert "nm-mptcp.service" not in after
    assert "ordering cycle" not in system.run("journalctl -b -o cat _PID=1")
    print(
        system.distribution,
        system.run("systemd-analyze; systemd-analyze blame; systemd-analyze critical-chain network-online.target"),
    )


def test_nothing_failed_or_was_tried_twice(system: System) -> None:
    assert system.run("systemctl show --property=NRestarts --value nm-mptcp").strip() == "0"
    log = system.run("journalctl -b -o cat -p warning -u nm-mptcp || true")
    assert "Traceback" not in log
    assert "cannot" not in log


def test_no_event_of_the_boot_does_the_work_of_a_service_that_is_on_its_way(system: System) -> None:
    """NetworkManager has the pre-up of a connection wait for the events before it: half a second for such a look."""
    event = "strace -f -qq -e trace=execve -o /run/traced /usr/lib/NetworkManager/dispatcher.d/10-nm-mptcp wire up"
    applied = 'grep -q \'/usr/bin/nm-mptcp", "apply"\' /run/traced'
    system.run("systemctl stop nm-mptcp")
    system.run(f"{event}; {applied}")

    held = "[Service]\nExecStartPre=/bin/sh -c 'until test -e /run/go; do sleep 0.05; done'\n"
    folder = "/run/systemd/system/nm-mptcp.service.d"
    system.run(f"mkdir {folder}; printf %s {quote(held)} >{folder}/held.conf; systemctl daemon-reload")
    try:
        system.run("systemctl start --no-block nm-mptcp")
        system.wait("test $(systemctl is-active nm-mptcp) = activating")
        assert system.run(event) == ""
        assert system.run_quietly(applied).returncode == 1
    finally:
        system.run(f"touch /run/go; rm -r {folder}; systemctl daemon-reload")
    system.wait("systemctl is-active nm-mptcp")
    assert {path["owner"] for path in json.loads(system.run("nm-mptcp status --json"))["paths"]} >= {"nm-mptcp"}
