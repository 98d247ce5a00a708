# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp mode``: which paths carry, changed under a live connection."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from ..support.waits import wait_for
from .bed import SERVER, Bed
from .traffic import Connection, EchoServer
from .uplinks import Links


@pytest.fixture
def over_both(bed: Bed, up: Links) -> Iterator[Connection]:
    connection = Connection(bed.machine, SERVER)
    connection.wait_subflow(up.lte.address)
    yield connection
    connection.close()


def flags(bed: Bed, address: str) -> set[str]:
    endpoint = bed.endpoint(address)
    return set(endpoint.flags) - {"laminar"} if endpoint else set()


def backups(bed: Bed) -> set[str]:
    """Local addresses of the subflows that are backup."""
    shown = bed.machine.run("ss", "-Htni", "state", "established", "dport = :5000").splitlines()
    heads, details = shown[::2], shown[1::2]
    return {
        head.split()[2].rpartition(":")[0].partition("%")[0]
        for head, detail in zip(heads, details, strict=True)
        if "tcp-ulp-mptcp flags:" in detail and "b" in detail.partition("flags:")[2].split()[0].lower()
    }


def test_modes_change_priorities_on_live_subflows_and_cut_none(bed: Bed, up: Links, over_both: Connection) -> None:
    before = over_both.subflows()
    assert backups(bed) == set()
    bed.nm_mptcp("mode", "handover")
    assert (flags(bed, up.wifi.address), flags(bed, up.lte.address)) == ({"subflow"}, {"subflow", "backup"})
    wait_for("the other subflow is backup", lambda: backups(bed) == {up.lte.address})
    bed.nm_mptcp("mode", "aggregate")
    assert flags(bed, up.lte.address) == {"subflow"}
    wait_for("no subflow is backup", lambda: backups(bed) == set())
    over_both.echo()
    assert over_both.subflows() == before


def test_in_handover_the_next_best_link_carries_when_the_best_is_lost(
    bed: Bed, up: Links, over_both: Connection
) -> None:
    bed.nm_mptcp("mode", "handover")
    up.wifi.carrier(False)
    bed.wait_no_endpoint(up.wifi.address)
    wait_for("the other link carries", lambda: flags(bed, up.lte.address) == {"subflow"})
    over_both.echo()
    up.wifi.carrier(True)
    bed.wait_endpoint(up.wifi.address)
    wait_for("it is backup again", lambda: flags(bed, up.lte.address) == {"subflow", "backup"})
    over_both.echo()


def test_a_mode_lasts_over_the_services_restart_until_it_is_reset(bed: Bed, up: Links) -> None:
    bed.nm_mptcp("mode", "handover")
    assert bed.service
    bed.service.stop()
    bed.start_service()
    assert bed.status()["mode"] == "handover"
    assert flags(bed, up.lte.address) == {"subflow", "backup"}
    bed.nm_mptcp("mode", "--reset")
    assert flags(bed, up.lte.address) == {"subflow"}
    assert json.loads(bed.nm_mptcp("mode", "--json")) == {"mode": "auto", "configured": "auto", "from": "the default"}


def test_without_the_service_a_mode_counts_as_well(bed: Bed, up: Links) -> None:
    assert bed.service
    bed.service.stop()
    bed.nm_mptcp("mode", "handover")
    assert flags(bed, up.lte.address) == {"subflow", "backup"}
    assert "handover" in bed.nm_mptcp("mode")


def test_off_leaves_the_kernel_to_others_and_cuts_nothing(bed: Bed, up: Links, over_both: Connection) -> None:
    before = over_both.subflows()
    bed.nm_mptcp("mode", "off")
    over_both.echo()
    assert over_both.subflows() == before
    over_both.close()
    wait_for("no endpoint is left", lambda: not bed.endpoints())
    wait_for("no rule is left", lambda: not bed.rules(up.wifi.address) and not bed.rules(up.lte.address))
    bed.nm_mptcp("mode", "auto")
    bed.wait_endpoint(up.wifi.address)


def test_an_unknown_mode_is_refused_in_a_line(bed: Bed, up: Links) -> None:  # noqa: ARG001
    call = ("busctl", "--system", "call", "org.nm_mptcp1", "/org/nm_mptcp1", "org.nm_mptcp1", "SetMode", "s", "fast")
    refused = bed.machine.attempt(*call)
    assert refused.returncode != 0
    assert "no such mode: 'fast' (there is auto, handover, interactive, aggregate, off" in refused.stderr


def test_interactive_shares_the_load_with_a_backup_while_the_link_is_slow(bed: Bed, links: Links) -> None:
    EchoServer(bed.far)
    bed.modify("LTE", "connection.metered yes")
    bed.wait_for_dispatcher()
    bed.start_service()
    links.bring_up()
    bed.nm_mptcp("mode", "interactive")
    assert flags(bed, links.lte.address) == {"subflow", "backup"}
    connection = Connection(bed.machine, SERVER)
    connection.wait_subflow(links.lte.address)
    # Half a second of packets towards the machine waits in the queue of the link.
    tbf = ["root", "tbf", "rate", "1mbit", "burst", "16k", "latency", "500ms"]
    bed.far.run("tc", "qdisc", "add", "dev", links.wifi.far_name, *tbf)
    datagrams = bed.far.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ended = threading.Event()

    def flood() -> None:
        while not ended.wait(0.1):
            for _ in range(15):
                datagrams.sendto(bytes(1400), (links.wifi.address, 9))

    threading.Thread(target=flood, daemon=True).start()
    bed.at_end(ended.set)

    def shared() -> bool:
        connection.echo(b"quick?")
        return bed.status().path(links.lte.address)["rule"] == "shares-load"

    wait_for("the backup shares the load", shared, seconds=40)
    assert flags(bed, links.lte.address) == {"subflow"}
    assert flags(bed, links.wifi.address) == {"subflow"}
    ended.set()
    bed.far.run("tc", "qdisc", "del", "dev", links.wifi.far_name, "root")

    def alone() -> bool:
        connection.echo(b"quick again")
        return flags(bed, links.lte.address) == {"subflow", "backup"}

    wait_for("it is backup again", alone, seconds=40)
    connection.close()
