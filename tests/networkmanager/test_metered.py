# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection becomes metered, and is no longer: live subflows learn of it (MP_PRIO), and none is closed."""

from __future__ import annotations

import re
import signal
import time
from functools import partial

import pytest

from nm_mptcp.engine.loop import RECHECKS

from ..support.waits import wait_for
from .bed import DEFAULT_FLAGS, KERNEL, SERVER, Bed
from .traffic import Connection, EchoServer, counter
from .uplinks import Uplink

RESERVE = DEFAULT_FLAGS | {"backup"}


@pytest.fixture
def up(bed: Bed) -> tuple[Uplink, Uplink]:
    """Two links; the first one's lease is renewed each second. Only signals tell the service of anything."""
    phone = bed.uplink("wlan0", bed.network("phone", "10.1.0.0/24"))
    phone.network.serve_short_leases()
    other = bed.uplink("eth0", dhcp="10.2.0.0/24")
    bed.profile("Phone", "wlan0", "ipv4.route-metric 600")
    bed.profile("Wired", "eth0", "ipv4.route-metric 100")
    bed.without_dispatcher_scripts()
    EchoServer(bed.far)
    bed.start_service()
    bed.up("Phone", "Wired")
    for link in (phone, other):
        assert bed.wait_endpoint(link.address).flags == DEFAULT_FLAGS
    return phone, other


def wait_flags(bed: Bed, address: str, flags: frozenset[str]) -> None:
    def look() -> bool:
        endpoint = bed.endpoint(address)
        assert endpoint, "the endpoint was taken out"
        return endpoint.flags == flags

    wait_for(f"{address} is {' '.join(sorted(flags))}", look, every=0.002)


def test_a_service_that_was_frozen_while_connections_came_up_knows_whose_they_are(
    bed: Bed, up: tuple[Uplink, Uplink]
) -> None:
    """Its look at the applied connections is due at the very moment when the signals of the new activation come."""
    service, (phone, _) = bed.service, up
    assert service
    bed.modify("Phone", "connection.metered yes")
    for _ in range(4):
        bed.sync()
        service.program.send(signal.SIGSTOP)
        due = time.monotonic() + RECHECKS[-1]
        bed.up("Phone")
        wait_for("its look is overdue", partial(_is_past, due))
        service.program.go_on()
        bed.sync()
        shown = bed.status().path(phone.address)
        assert (shown["flags_from"], shown["owner"], set(shown["flags"])) == ("kind", "nm-mptcp", RESERVE)


def _is_past(moment: float) -> bool:
    return time.monotonic() > moment


def test_a_priority_that_is_changed_by_hand_is_left_and_is_no_word_of_networkmanagers(
    bed: Bed, up: tuple[Uplink, Uplink]
) -> None:
    """Not where it leaves exactly the flags of NetworkManager's default either (here: without laminar)."""
    phone = up[0]
    bed.write("/run/nm-mptcp/conf.d/50-test.conf", "[path-phone]\nmatch-connection=Phone\nflags=subflow,backup\n")
    bed.sh("dbus-send --system --print-reply --dest=org.nm_mptcp1 /org/nm_mptcp1 org.nm_mptcp1.Reload")
    wait_for("it is backup", lambda: bed.wait_endpoint(phone.address).flags == {"subflow", "backup"})
    before = bed.wait_endpoint(phone.address)
    bed.sh(f"ip mptcp endpoint change id {before.id} nobackup")
    for _ in range(2):
        bed.sync()
        assert (bed.wait_endpoint(phone.address).id, bed.wait_endpoint(phone.address).flags) == (before.id, {"subflow"})
        shown = bed.status().path(phone.address)
        assert (shown["owner"], shown["rule"], shown["priority"]) == ("other", "flags-by-hand", "regular")
    (undo,) = re.findall(r"ip mptcp endpoint change id \d+ \w+", bed.nm_mptcp("explain", phone.address))
    bed.sh(undo)
    bed.sync()
    assert bed.wait_endpoint(phone.address) == before
    assert bed.status().path(phone.address)["rule"] == "flags-of-configuration"


@pytest.fixture
def connection(bed: Bed, up: tuple[Uplink, Uplink]) -> Connection:
    """With a subflow on both."""
    made = Connection(bed.machine, SERVER)
    for link in up:
        made.wait_subflow(link.address)
    return made


def test_what_the_user_calls_metered_is_backup_at_once_and_keeps_its_subflows(
    bed: Bed, up: tuple[Uplink, Uplink], connection: Connection
) -> None:
    phone, _ = up
    before, told = connection.subflows(), counter(bed.machine, "MPPrioTx")
    bed.modify("Phone", "connection.metered yes")
    bed.reapply("wlan0")
    wait_flags(bed, phone.address, RESERVE)
    assert counter(bed.machine, "MPPrioTx") > told
    shown = bed.status().path(phone.address)
    assert (shown["state"], shown["rule"]) == ("active", "metered-backup")
    capture = phone.capture(both=True)
    for _ in range(16):
        connection.echo(bytes(4096))
    assert capture.data() == 0
    told = counter(bed.machine, "MPPrioTx")
    bed.modify("Phone", "connection.metered no")
    bed.reapply("wlan0")
    wait_flags(bed, phone.address, DEFAULT_FLAGS)
    assert counter(bed.machine, "MPPrioTx") > told
    assert connection.subflows() == before


def test_what_networkmanager_guesses_from_a_new_lease_counts_the_same(
    bed: Bed, up: tuple[Uplink, Uplink], connection: Connection
) -> None:
    phone, _ = up
    before, told = connection.subflows(), counter(bed.machine, "MPPrioTx")
    phone.network.metered = True
    wait_flags(bed, phone.address, RESERVE)
    assert counter(bed.machine, "MPPrioTx") > told
    assert "yes (guessed)" in bed.nmcli("-f", "GENERAL.METERED", "device", "show", "wlan0")
    phone.network.metered = False
    wait_flags(bed, phone.address, DEFAULT_FLAGS)
    assert connection.subflows() == before


@pytest.mark.skipif(KERNEL < (6, 12), reason="older kernels know of no backup for a connection's first subflow")
def test_a_connection_that_begins_on_a_metered_link_goes_on_by_the_other_one(
    bed: Bed, up: tuple[Uplink, Uplink]
) -> None:
    phone, other = up
    bed.modify("Phone", "connection.metered yes", "ipv4.route-metric 50")
    bed.up("Phone")
    bed.sync()
    wait_flags(bed, phone.address, RESERVE)
    connection = Connection(bed.machine, SERVER)
    for link in up:
        connection.wait_subflow(link.address)
    metered, free = phone.capture(both=True), other.capture(both=True)
    for _ in range(16):
        connection.echo(bytes(4096))
    assert metered.data() == 0
    assert free.data() > 0


def test_a_metered_link_that_is_alone_carries_all_the_same(bed: Bed, up: tuple[Uplink, Uplink]) -> None:
    phone, _ = up
    bed.down("Wired")
    bed.modify("Phone", "connection.metered yes")
    bed.reapply("wlan0")
    wait_flags(bed, phone.address, RESERVE)
    Connection(bed.machine, SERVER).echo()


def test_flags_of_the_profile_are_law_where_it_is_metered_too(bed: Bed, up: tuple[Uplink, Uplink]) -> None:
    phone, _ = up
    bed.modify("Phone", "connection.metered yes", "connection.mptcp-flags 0x22")
    bed.up("Phone")
    bed.sync()
    wait_flags(bed, phone.address, frozenset({"subflow"}))
