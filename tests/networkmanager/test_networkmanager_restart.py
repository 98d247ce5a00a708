# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager and the bus may go and come back; the service stays, and logs it once."""

from __future__ import annotations

import re
import signal

import pytest

from ..support.waits import wait_for
from .bed import PROTOCOL, SERVER, Bed, command
from .traffic import Connection
from .uplinks import Links


def told(log: str, what: str) -> list[str]:
    """The lines of the log that speak of ``what`` going, and those of its coming back, by their verbs."""
    return [line for line in log.splitlines() if re.search(what, line, re.IGNORECASE)]


def test_networkmanager_stops_and_starts(bed: Bed, up: Links) -> None:
    service = bed.service
    assert service
    connection = Connection(bed.machine, SERVER)
    connection.wait_subflow(up.lte.address)
    before, subflows = bed.footprint(), connection.subflows()
    length = len(service.log())
    bed.stop_networkmanager()
    wait_for("it is said", lambda: told(service.log()[length:], "networkmanager"))
    bed.sync()
    # Without NetworkManager nobody knows better than what is there.
    assert bed.footprint() == before
    assert connection.subflows() == subflows
    assert bed.status()["networkmanager"]["version"] in ("", None)
    bed.start_networkmanager()
    wait_for("Wi-Fi is known again", lambda: "Wi-Fi" in bed.nmcli("-g", "NAME", "connection", "show", "--active"))
    bed.sync()
    assert service.running
    assert bed.footprint() == before
    assert connection.subflows() == subflows
    connection.echo()
    lines = told(service.log()[length:], "networkmanager")
    assert len(lines) == 2, lines


def test_what_changed_while_networkmanager_was_away_is_followed(bed: Bed, up: Links) -> None:
    bed.stop_networkmanager()
    bed.sh("ip link set wwan0 down")
    bed.sh("ip address flush dev wwan0")
    bed.start_networkmanager(settled=False)
    bed.wait_no_endpoint(up.lte.address)
    bed.sync()
    assert bed.rules(up.lte.address) == []
    bed.sh("ip link set wwan0 up")
    bed.up("LTE")
    bed.wait_endpoint(up.lte.address)


@pytest.mark.usefixtures("up")
def test_networkmanager_that_is_killed_and_started_anew(bed: Bed) -> None:
    before = bed.endpoints()
    bed.networkmanager.stop(9)
    bed.start_networkmanager()
    wait_for("Wi-Fi is known again", lambda: "Wi-Fi" in bed.nmcli("-g", "NAME", "connection", "show", "--active"))
    bed.sync()
    assert bed.endpoints() == before


def test_the_bus_stops_and_starts(bed: Bed, up: Links) -> None:
    service = bed.service
    assert service
    before = bed.footprint()
    length = len(service.log())
    bed.stop_bus()
    wait_for("it is said", lambda: told(service.log()[length:], r"\bbus is gone"))
    assert service.running
    assert bed.footprint() == before
    bed.networkmanager.stop()
    bed.start_bus()
    bed.start_networkmanager()
    wait_for("the service is back on the bus", lambda: bed.attempt_sync().returncode == 0, seconds=20)
    wait_for("Wi-Fi is known again", lambda: "Wi-Fi" in bed.nmcli("-g", "NAME", "connection", "show", "--active"))
    bed.sync()
    assert service.running
    assert {each.address for each in bed.endpoints()} == {up.wifi.address, up.lte.address}
    bed.down("LTE")
    bed.wait_no_endpoint(up.lte.address)
    log = service.log()[length:]
    assert (len(told(log, r"\bbus is gone")), len(told(log, r"connected to the system bus again"))) == (1, 1), log


def test_the_service_starts_before_the_bus_and_networkmanager(bed: Bed, links: Links) -> None:
    bed.without_dispatcher_scripts()
    bed.stop_networkmanager()
    bed.stop_bus()
    bed.start_service(wait=False)
    bed.start_bus()
    bed.start_networkmanager()
    assert bed.service
    wait_for("the cables are in", lambda: bed.nmcli("-g", "STATE", "device").split().count("disconnected") >= 2)
    bed.service.wait_until_ready()
    bed.up("Wi-Fi", "LTE")
    for link in (links.wifi, links.lte):
        bed.wait_endpoint(link.address, seconds=20)


def test_the_service_starts_while_networkmanager_is_not_there(bed: Bed, links: Links) -> None:
    bed.without_dispatcher_scripts()
    bed.stop_networkmanager()
    service = bed.start_service()
    bed.sync()
    assert bed.endpoints() == ()
    assert bed.rules(protocol=PROTOCOL) == []
    bed.start_networkmanager()
    wait_for("the cables are in", lambda: bed.nmcli("-g", "STATE", "device").split().count("disconnected") >= 2)
    bed.up("Wi-Fi")
    bed.wait_endpoint(links.wifi.address)
    assert service.running


@pytest.mark.usefixtures("up")
def test_the_watchdog_is_fed(bed: Bed) -> None:
    service = bed.service
    assert service
    wait_for("two signs of life", lambda: service.notifications().count("WATCHDOG=1") >= 2, seconds=15)
    service.stop()
    assert "STOPPING=1" in service.notifications()


def test_a_networkmanager_that_does_not_answer_is_not_awaited(bed: Bed, up: Links) -> None:
    """It owns its name: it is stopped, swapped out, or somebody looks at it in a debugger; and we are started meanwhile."""
    assert bed.service
    assert bed.service.stop() == 0
    before = bed.footprint()
    bed.networkmanager.send(signal.SIGSTOP)
    # As an administrator who wants to know: without the service, and with it.
    for service in (False, True):
        if service:
            bed.start_service()
        bed.nm_mptcp("apply", seconds=8)
        assert bed.footprint() == before
        said = bed.machine.attempt(*command(), "status", seconds=8)
        assert (said.returncode, "NetworkManager does not answer" in said.stdout) == (1, True)
        assert bed.status()["networkmanager"]["silent"]
        kept = bed.status().path(up.lte.address)
        assert (kept["state"], kept["rule"]) == ("active", "kept-networkmanager-away")
    up.lte.carrier(False)
    bed.wait_no_endpoint(up.lte.address)
    assert bed.endpoint(up.wifi.address)
    assert bed.service.stop() == 0

    length = len(bed.service.log())
    service_again = bed.start_service()
    bed.networkmanager.go_on()
    wait_for("it answers again", lambda: not bed.status()["networkmanager"]["silent"])
    up.lte.carrier(True)
    bed.wait_endpoint(up.lte.address)
    lines = told(service_again.log()[length:], "NetworkManager (does not answer|answers)")
    assert len(lines) == 2, lines


def test_a_networkmanager_that_falls_silent_while_we_follow_it(bed: Bed, up: Links) -> None:
    bed.networkmanager.send(signal.SIGSTOP)
    wait_for("it is said", lambda: bed.status()["networkmanager"]["silent"])
    up.lte.carrier(False)
    bed.wait_no_endpoint(up.lte.address)
    up.lte.carrier(True)
    bed.wait_endpoint(up.lte.address)
    bed.networkmanager.go_on()
    wait_for("it answers again", lambda: not bed.status()["networkmanager"]["silent"])
    assert bed.status()["state"] == "good"


def test_a_bus_that_does_not_answer_keeps_the_service_from_nothing(bed: Bed, up: Links) -> None:
    assert bed.service
    assert bed.service.stop() == 0
    bed.bus.send(signal.SIGSTOP)
    bed.nm_mptcp("apply", seconds=8)
    said = bed.machine.attempt(*command(), "status", seconds=8)
    assert (said.returncode, "the system bus does not answer" in said.stderr) == (2, True)
    service = bed.start_service()
    up.lte.carrier(False)
    bed.wait_no_endpoint(up.lte.address)
    assert service.stop() == 0
    bed.start_service()
    bed.bus.go_on()
    up.lte.carrier(True)
    bed.up("LTE")  # NetworkManager may have given it up meanwhile
    bed.wait_endpoint(up.lte.address, seconds=20)
