# SPDX-License-Identifier: GPL-2.0-or-later
"""The log as a real journal keeps it: an entry an event, with fields to find it by, whatever a profile is called."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from shlex import quote
from typing import Any

import pytest

from nm_mptcp.journal import Event

from .built import deb
from .container import Container, reason_to_skip
from .test_boot import preparation
from .test_install import DISTRIBUTIONS

HOSTILE = "Caf\u00e9 \x1b[31m\u202egro\u2066\x07 " + "x" * 4096

Entry = dict[str, Any]


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def system(request: pytest.FixtureRequest) -> Iterator[Container]:
    """A system that had the package and two profiles before it booted."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with Container(request.param, before=preparation(), files=[deb()]) as container:
        yield container


def entries(system: Container, *matches: str) -> list[Entry]:
    """What the journal has of nm-mptcp itself since the boot; a field that is no plain text comes as its bytes."""
    words = " ".join(map(quote, (*matches, "_SYSTEMD_UNIT=nm-mptcp.service")))
    system.run("journalctl --sync")
    told = [json.loads(line) for line in system.run(f"journalctl -b --all -o json {words}").splitlines()]
    return [{name: _text(value) for name, value in entry.items()} for entry in told]


def _text(value: object) -> object:
    return bytes(value).decode() if isinstance(value, list) and all(isinstance(each, int) for each in value) else value


def of(event: Event, system: Container, *matches: str) -> list[Entry]:
    return entries(system, f"MESSAGE_ID={event.value}", *matches)


def wait_for(system: Container, event: Event, *matches: str, number: int = 1) -> list[Entry]:
    deadline = time.monotonic() + 20
    while len(found := of(event, system, *matches)) < number:
        assert time.monotonic() < deadline, [entry["MESSAGE"] for entry in entries(system)]
        time.sleep(0.1)
    return found


def test_a_path_that_came_is_one_entry_with_its_fields(system: Container) -> None:
    endpoints = dict(line.split()[:3:2] for line in system.run("ip mptcp endpoint show").splitlines())
    for link, address in (("wire", "10.0.1.2"), ("air", "10.0.2.2")):
        (entry,) = of(Event.PATH_ACTIVE, system, f"NM_MPTCP_INTERFACE={link}")
        assert entry["NM_MPTCP_ADDRESS"] == address
        assert entry["NM_MPTCP_STATE"] == "active"
        assert entry["NM_MPTCP_ENDPOINT_ID"] == endpoints[address]
        assert entry["NM_MPTCP_REASON"] in entry["MESSAGE"]
        assert entry["MESSAGE"].startswith(f"{link} {address}")
        assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"]) == ("6", "nm-mptcp")
        # By the journal's own protocol, from the service's own process.
        assert (entry["_TRANSPORT"], entry["_UID"]) == ("journal", "0")
        # NetworkManager names a device in the same field, so both are shown together.
        by = system.run(f'journalctl -b -o json NM_DEVICE={link} | grep -o \'"SYSLOG_IDENTIFIER":"[^"]*"\' | sort -u')
        assert "nm-mptcp" in by
        assert "NetworkManager" in by


def test_everything_that_is_logged_is_an_entry_of_the_journals_own_protocol(system: Container) -> None:
    ours = [entry for entry in entries(system) if entry.get("SYSLOG_IDENTIFIER") == "nm-mptcp"]
    assert {entry["_TRANSPORT"] for entry in ours} == {"journal"}
    assert all("\n" not in entry["MESSAGE"] for entry in ours)


def test_a_link_that_is_lost_and_back_is_told_once_each(system: Container) -> None:
    active = len(of(Event.PATH_ACTIVE, system, "NM_MPTCP_INTERFACE=air"))
    system.run("ip link set far-air down")
    (lost,) = wait_for(system, Event.PATH_SUSPENDED, "NM_MPTCP_INTERFACE=air")
    assert (lost["NM_MPTCP_ADDRESS"], lost["NM_MPTCP_RULE"]) == ("10.0.2.2", "no-carrier")
    for _ in range(3):
        system.run("busctl call org.nm_mptcp1 /org/nm_mptcp1 org.nm_mptcp1 Sync")
    assert len(of(Event.PATH_SUSPENDED, system)) == 1
    system.run("ip link set far-air up")
    wait_for(system, Event.PATH_ACTIVE, "NM_MPTCP_INTERFACE=air", number=active + 1)


def test_a_configuration_that_is_refused_is_an_error_with_its_words(system: Container) -> None:
    system.run("mkdir -p /run/nm-mptcp/conf.d; echo '[main]\nmode=best' >/run/nm-mptcp/conf.d/50-test.conf")
    said = system.run("busctl call org.nm_mptcp1 /org/nm_mptcp1 org.nm_mptcp1 Reload || true")
    (entry,) = wait_for(system, Event.CONFIGURATION_REFUSED)
    assert entry["PRIORITY"] == "3"
    assert "mode=best" in entry["NM_MPTCP_REASON"]
    assert entry["NM_MPTCP_REASON"] in said
    system.run("rm /run/nm-mptcp/conf.d/50-test.conf; systemctl reload nm-mptcp")
    assert wait_for(system, Event.CONFIGURATION_READ)


def test_a_profile_of_whatever_name_is_kept_whole_and_harmless(system: Container) -> None:
    before = len(of(Event.PATH_ACTIVE, system, "NM_MPTCP_INTERFACE=air"))
    system.run(f"nmcli connection modify air connection.id {quote(HOSTILE)}")
    system.run("nmcli connection up ifname air")
    entry = wait_for(system, Event.PATH_ACTIVE, "NM_MPTCP_INTERFACE=air", number=before + 1)[-1]
    assert entry["MESSAGE"].isprintable()
    assert "\x1b" not in system.run("journalctl -b -o cat -u nm-mptcp")
    uuid = system.run("nmcli -g GENERAL.CON-UUID device show air").strip()
    assert entry["NM_CONNECTION"] == uuid
    if "NM_MPTCP_PROFILE" in entry:
        assert entry["NM_MPTCP_PROFILE"] == HOSTILE


def test_after_the_journal_was_restarted_it_is_told_again(system: Container) -> None:
    before = len(of(Event.MODE, system))
    system.run("systemctl restart systemd-journald")
    system.run("nm-mptcp mode aggregate && nm-mptcp mode --reset")
    assert len(wait_for(system, Event.MODE, number=before + 1)) > before
