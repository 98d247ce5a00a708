# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles with connection.permissions: root reads them; what cannot be read is no path."""

from __future__ import annotations

import json
import re

import pytest

from ..support.waits import wait_for
from .bed import Bed, Status, command
from .uplinks import Links

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]


@pytest.fixture
def private(bed: Bed, links: Links) -> Links:
    """LTE's profile is daemon's alone; service running, both links up."""
    bed.start_service()
    bed.modify("LTE", "connection.permissions user:daemon")
    bed.up("Wi-Fi", "LTE")
    bed.wait_endpoint(links.wifi.address)
    bed.sync()
    return links


def test_a_private_profile_is_a_path(bed: Bed, private: Links) -> None:
    bed.wait_endpoint(private.lte.address)
    path = bed.status().path(private.lte.address)
    assert (path["profile"], path["state"], path["owner"]) == ("LTE", "active", "nm-mptcp")


def test_a_private_profile_that_is_disabled_is_none(bed: Bed, private: Links) -> None:
    bed.wait_endpoint(private.lte.address)
    bed.modify("LTE", "connection.mptcp-flags 0x1")
    bed.up("LTE")
    bed.wait_no_endpoint(private.lte.address)
    bed.sync()
    assert not bed.endpoint(private.lte.address)
    assert "disabled" in bed.status().path(private.lte.address)["reason"]


def test_a_profile_that_cannot_be_read_is_no_path_and_says_so(bed: Bed, private: Links) -> None:
    assert bed.service
    bed.service.stop()
    said = bed.machine.attempt(*NOBODY, *command(), "status", "--json")
    assert said.returncode == 0, said.stderr
    path = Status(json.loads(said.stdout)).path(private.lte.address)
    assert path["state"] == "excluded"
    assert "read" in path["reason"] or "permission" in path["reason"]


@pytest.mark.usefixtures("private")
def test_any_user_may_read_the_services_status(bed: Bed) -> None:
    said = bed.machine.attempt(*NOBODY, *command(), "status", "--json")
    assert said.returncode == 0, said.stderr
    assert Status(json.loads(said.stdout))["service"] == "active"


@pytest.mark.usefixtures("private")
@pytest.mark.parametrize("what", ["apply", "clear"])
def test_only_root_may_change_anything(bed: Bed, what: str) -> None:
    before = bed.footprint()
    done = bed.machine.attempt(*NOBODY, *command(), what)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert bed.footprint() == before


def test_a_user_who_may_not_see_a_profile_is_not_advised_to_exclude_its_path(bed: Bed, private: Links) -> None:
    bed.machine.run("chmod", "644", "/etc/NetworkManager/NetworkManager.conf")
    done = bed.machine.attempt(*NOBODY, *command(), "apply", "--dry-run")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"permission denied: must be root \(wwan0: .*permission.*\)", done.stderr)
    bed.modify("LTE", "connection.permissions ")
    bed.up("LTE")
    bed.wait_endpoint(private.lte.address)
    bed.sync()
    done = bed.machine.attempt(*NOBODY, *command(), "apply", "--dry-run")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_profile_changed_on_disk_alone_changes_nothing_until_it_is_applied(bed: Bed, private: Links) -> None:
    before = bed.wait_endpoint(private.wifi.address)
    bed.modify("Wi-Fi", "connection.mptcp-flags 0x1")
    bed.sync()
    assert bed.endpoint(private.wifi.address) == before
    bed.reapply("wlan0")
    wait_for("it is no path any more", lambda: not bed.endpoint(private.wifi.address))
