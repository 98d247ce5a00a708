# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine sleeps and wakes up: everything is looked at afresh, paths come back, and no past is held against a link."""

from __future__ import annotations

import os
import time

import pytest

from ..support.waits import wait_for
from .bed import Bed
from .logind import POLICY, Logind
from .traffic import EchoServer, over_both
from .uplinks import Links


@pytest.fixture
def logind(bed: Bed) -> Logind:
    """A logind on the bed's bus."""
    if not POLICY.exists():
        why = f"{POLICY} is missing (Debian package: systemd): nobody may be logind on the bus"
        (pytest.fail if os.environ.get("NM_MPTCP_TESTS") == "all" else pytest.skip)(why)
    return Logind(bed)


@pytest.fixture
def up(bed: Bed, logind: Logind, links: Links) -> Links:
    """Both links are up, come up by themselves, and are paths; an echo server listens."""
    EchoServer(bed.far)
    bed.start_service()
    for name in ("Wi-Fi", "LTE"):
        bed.up(name)
        bed.modify(name, "connection.autoconnect yes")
    for link in (links.wifi, links.lte):
        bed.wait_endpoint(link.address)
    logind.wait_inhibitor("NetworkManager")
    bed.scripts_are_done()
    bed.sync()
    return links


def asleep(bed: Bed, links: Links) -> bool:
    """Whether NetworkManager has taken both links down."""
    shown = bed.nmcli("-t", "-f", "DEVICE,STATE", "device").split()
    return {f"{link.name}:unmanaged" for link in (links.wifi, links.lte)} <= set(shown)


def test_asleep_there_is_no_path_and_awake_both_are_back_as_they_were(bed: Bed, up: Links, logind: Logind) -> None:
    before = sorted((each.address, each.device, each.flags) for each in bed.endpoints())
    logind.sleep(bed)
    wait_for("both links are down", lambda: asleep(bed, up))
    wait_for("no endpoint is left", lambda: not bed.endpoints())
    logind.wake(bed)
    for link in (up.wifi, up.lte):
        bed.wait_endpoint(link.address, seconds=20)
    bed.sync()
    assert sorted((each.address, each.device, each.flags) for each in bed.endpoints()) == before
    assert {path["address"]: path["state"] for path in bed.status().paths if path["state"] == "active"} == {
        up.wifi.address: "active",
        up.lte.address: "active",
    }


def test_a_connection_that_slept_goes_on_over_both_links(bed: Bed, up: Links, logind: Logind) -> None:
    # The server does not learn that the subflows from before are dead, and would count them against new ones.
    bed.far.run("ip", "mptcp", "limits", "set", "subflows", "8", "add_addr_accepted", "8")
    connection = over_both(bed, up)
    logind.sleep(bed)
    wait_for("both links are down", lambda: asleep(bed, up))
    logind.wake(bed)
    for link in (up.wifi, up.lte):
        bed.wait_endpoint(link.address, seconds=20)
    connection.echo()
    for link in (up.wifi, up.lte):
        connection.wait_subflow(link.address, seconds=20)


@pytest.mark.may_be_late(reason="the losses have to come in quicker succession than their damping ends")
def test_what_flapped_before_the_sleep_comes_back_at_once(bed: Bed, up: Links, logind: Logind) -> None:
    up.wifi.flap(7)
    wait_for("it is held back", lambda: bed.status().path(up.wifi.address)["rule"] == "held-back")
    assert not bed.endpoint(up.wifi.address)
    assert bed.service
    told = len(bed.service.log())
    logind.prepare()
    logind.resume()
    # Seven flaps are held against it for sixteen seconds.
    bed.wait_endpoint(up.wifi.address, seconds=5)
    bed.sync()
    assert bed.status().path(up.wifi.address)["rule"] == "flags-of-kind"
    assert "held back" not in bed.service.log()[told:]


def test_a_link_that_went_down_for_the_sleep_has_not_flapped(bed: Bed, up: Links, logind: Logind) -> None:
    for _ in range(3):
        logind.sleep(bed)
        wait_for("both links are down", lambda: asleep(bed, up))
        logind.wake(bed)
        for link in (up.wifi, up.lte):
            bed.wait_endpoint(link.address, seconds=20)
    assert bed.service
    told = [line for line in bed.service.log().splitlines() if "held back" in line]
    assert told == []


def test_what_changed_silently_while_asleep_is_seen(bed: Bed, up: Links, logind: Logind) -> None:
    bed.wait_endpoint(up.wifi.address)
    bed.sync()
    begin = time.monotonic()
    wait_for("the looks after the last burst are over", lambda: time.monotonic() > begin + 2)
    bed.sh(f"ip mptcp endpoint delete id {bed.wait_endpoint(up.wifi.address).id}")  # of that nobody is told
    logind.resume()  # only that: going to sleep, NetworkManager would say something as well
    bed.wait_endpoint(up.wifi.address, seconds=5)


def test_links_that_stay_up_in_sleep_keep_everything(bed: Bed, up: Links, logind: Logind) -> None:
    """As with Wake-on-LAN: NetworkManager leaves such links as they are."""
    connection = over_both(bed, up)
    before, subflows = bed.endpoints(), connection.subflows()
    logind.prepare()
    logind.resume()
    bed.sync()
    assert (bed.endpoints(), connection.subflows()) == (before, subflows)
    connection.echo()
