# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``nm-mptcp check`` says to type where systemd is asked for something: typed, word for word."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nm_mptcp.checks import conflicts, manager

from ..support.badstates import bad_state_of
from .built import deb
from .container import Container, reason_to_skip
from .test_boot import preparation
from .test_install import DISTRIBUTIONS


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def system(request: pytest.FixtureRequest) -> Iterator[Container]:
    """A system that had the package and two profiles before it booted."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with Container(request.param, before=preparation(), files=[deb()]) as container:
        yield container


def found(system: Container, check: str) -> dict[str, Any]:
    """The one finding of this check."""
    findings = json.loads(system.run("nm-mptcp check --json || true"))["findings"]
    (finding,) = [each for each in findings if each["check"] == check and not each["subject"]]
    return finding


def follow(system: Container, finding: dict[str, Any]) -> None:
    assert finding["remedy"]["commands"], finding
    for line in finding["remedy"]["commands"]:
        system.run(line)


def test_nothing_is_wrong_on_a_machine_with_the_package(system: Container) -> None:
    findings = json.loads(system.run("nm-mptcp check --json || true"))["findings"]
    wrong = [each for each in findings if each["result"] in ("bad", "warning")]
    # It is a container: how its kernel was built it may not know.
    assert [each for each in wrong if each["check"] not in ("tools", "kernel-options")] == []


@bad_state_of(manager.service)
def test_a_service_that_does_not_run(system: Container) -> None:
    system.run("systemctl disable --now nm-mptcp")
    finding = found(system, "service")
    assert finding["result"] == "warning"
    follow(system, finding)
    assert found(system, "service")["result"] == "good"
    assert system.run("systemctl is-enabled nm-mptcp").strip() == "enabled"


@bad_state_of(manager.service)
def test_a_service_that_does_not_answer(system: Container) -> None:
    system.run("systemctl kill --signal=STOP nm-mptcp")
    finding = found(system, "service")
    assert finding["result"] == "bad"
    follow(system, finding)
    assert found(system, "service")["result"] == "good"


@bad_state_of(manager.networkmanager)
def test_a_networkmanager_that_does_not_run(system: Container) -> None:
    system.run("systemctl stop NetworkManager")
    finding = found(system, "networkmanager")
    assert finding["result"] == "bad"
    follow(system, finding)
    assert found(system, "networkmanager")["result"] == "good"


@bad_state_of(manager.configuration)
def test_a_configuration_that_is_no_good(system: Container) -> None:
    system.run("echo '[main]\nmode=best' >/etc/nm-mptcp/conf.d/50-test.conf")
    finding = found(system, "configuration")
    assert finding["result"] == "warning"
    (command,) = finding["remedy"]["commands"]
    assert "mode=best" in system.run(f"{command} || true")
    assert "then correct the file, and 'systemctl reload nm-mptcp'" in finding["remedy"]["words"]
    system.run("echo '[main]\nmode=handover' >/etc/nm-mptcp/conf.d/50-test.conf; systemctl reload nm-mptcp")
    assert found(system, "configuration")["result"] == "good"
    assert json.loads(system.run("nm-mptcp status --json"))["mode"] == "handover"
    system.run("rm /etc/nm-mptcp/conf.d/50-test.conf; systemctl reload nm-mptcp")


@bad_state_of(conflicts.networkd)
def test_a_networkd_that_deletes_what_others_made(system: Container) -> None:
    """A real one: rules of ours are gone when it starts, unless it was told."""
    ours = [line for line in system.run("ip rule show").splitlines() if "nm-mptcp" in line]
    assert ours
    system.run("systemctl start systemd-networkd")
    finding = found(system, "systemd-networkd")
    assert finding["result"] == "warning"
    follow(system, finding)
    assert found(system, "systemd-networkd")["result"] == "good"
    system.wait(f"test $(ip rule show | grep -c nm-mptcp) = {len(ours)}")
    system.run("systemctl restart systemd-networkd")
    assert [line for line in system.run("ip rule show").splitlines() if "nm-mptcp" in line] == ours
    system.run("systemctl stop systemd-networkd systemd-networkd.socket")


def test_a_path_of_another_is_told_by_the_unit_that_it_runs_in(system: Container) -> None:
    """A program called mptcpd, as a service: it is the service that has to be stopped."""
    system.run("cp /usr/bin/sleep /usr/local/bin/mptcpd")
    unit = "[Service]\\nExecStart=/usr/local/bin/mptcpd infinity\\n[Install]\\nWantedBy=multi-user.target\\n"
    system.run(f"printf '{unit}' >/etc/systemd/system/mptcp.service; systemctl enable --now mptcp")
    system.wait("pidof mptcpd")
    finding = found(system, "mptcpd")
    assert finding["result"] == "warning"
    assert finding["remedy"]["commands"] == ["systemctl disable --now mptcp.service"]
    follow(system, finding)
    assert found(system, "mptcpd")["result"] == "good"
