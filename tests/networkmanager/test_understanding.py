# SPDX-License-Identifier: GPL-2.0-or-later
"""``status``, ``explain`` and the log, beside real links and connections: what they say is what is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ..support.datagrams import Datagrams
from ..support.waits import wait_for
from .bed import SERVER, Bed, command
from .caller import NOBODY, calls
from .observe import writes_of
from .traffic import Connection, EchoServer
from .uplinks import Links

HOSTILE = "Caf\u00e9 \x1b[31m\u202egro\u2066\x07 " + "x" * 4096


def explain(bed: Bed, what: str, *, user: tuple[str, ...] = ()) -> dict[str, Any]:
    return json.loads(bed.machine.run(*user, *command(), "explain", "--json", what))


def test_status_tells_what_each_link_carries_and_what_is_held_back(bed: Bed, up: Links) -> None:
    both = Connection(bed.machine, SERVER)
    both.wait_subflow(up.lte.address)
    alone = Connection(bed.machine, SERVER, source=up.lte.address)
    alone.wait_subflow(up.wifi.address)

    good = bed.status()
    assert (good["state"], good["problems"]) == ("good", [])
    assert good["connections"] == {"total": 2, "subflows": 4, "additional_most": 1}
    assert good["kernel"]["endpoints_used"] == 2
    links = {link["interface"]: link for link in good["links"]}
    assert set(links) == {"wlan0", "wwan0"}
    for link in links.values():
        assert (link["state"], link["priority"], link["up"], link["carrier"]) == ("active", "regular", True, True)
        assert (link["connections"], link["subflows"], link["alone"]) == (2, 2, 0)
    assert good.path(up.wifi.address)["subflows"] == 2
    text = bed.nm_mptcp("status")
    assert "connections: 2 live over MPTCP, 4 subflows" in text

    up.wifi.carrier(False)
    bed.wait_no_endpoint(up.wifi.address)
    held = wait_for("it is told", lambda: (now := bed.status())["connections"]["subflows"] == 2 and now)
    assert held["state"] == "held-back"
    assert held["problems"] == [f"wlan0 {up.wifi.address}: no carrier"]
    links = {link["interface"]: link for link in held["links"]}
    assert (links["wlan0"]["state"], links["wlan0"]["carrier"], links["wlan0"]["alone"]) == ("suspended", False, 0)
    assert links["wlan0"]["since"]
    assert (links["wwan0"]["state"], links["wwan0"]["alone"]) == ("active", 2)
    said = bed.machine.attempt(*command(), "status")
    assert said.returncode == 1
    assert re.search(r"no carrier \(since \d\d:\d\d:\d\d\)", said.stdout)

    # Anybody sees all of it with the service; without it, not the connections.
    as_nobody = bed.machine.attempt(*NOBODY, *command(), "status", "--json")
    assert as_nobody.returncode == 0
    assert json.loads(as_nobody.stdout)["connections"] == held["connections"]
    assert bed.service
    bed.service.stop()
    assert bed.status()["connections"] == held["connections"]
    as_nobody = bed.machine.attempt(*NOBODY, *command(), "status", "--json")
    assert json.loads(as_nobody.stdout)["connections"] is None

    # What live connections depend on would stay.
    bed.nm_mptcp("clear", "--force")
    cleared = bed.machine.attempt(*command(), "status")
    assert cleared.returncode == 2
    assert ": not working" in cleared.stdout.splitlines()[0]
    assert "no path has its endpoint in the kernel: 'nm-mptcp apply'" in cleared.stdout


def test_explain_tells_what_the_kernel_then_does(bed: Bed, up: Links) -> None:
    told = explain(bed, SERVER, user=NOBODY)
    assert told["kind"] == "destination"
    assert (told["first"]["source"], told["first"]["interface"]) == (up.wifi.address, "wlan0")
    assert told["first"]["gateway"] == up.wifi.gateway
    (follower,) = told["subflows"]
    assert (follower["address"], follower["interface"], follower["gateway"]) == (
        up.lte.address,
        "wwan0",
        up.lte.gateway,
    )
    assert follower["table"] == bed.table_of(up.lte.address)
    connection = Connection(bed.machine, SERVER)
    connection.wait_subflow(up.lte.address)
    assert {address for address, _ in connection.subflows()} == set(told["learns"])

    # A limit that lets nothing follow, and a route that is not there.
    bed.sh("ip mptcp limits set subflows 0")
    assert explain(bed, SERVER)["subflows"][0]["reason"]
    bed.sh("ip -6 route add unreachable 2001:db8:dead::/48; ip route add prohibit 203.0.113.0/24")
    for place in ("2001:db8:dead::1", "203.0.113.1"):
        assert explain(bed, place)["first"]["error"]
        assert "fails" in bed.nm_mptcp("explain", place)
    assert explain(bed, SERVER)["first"]["interface"] == "wlan0"
    assert explain(bed, "localhost")["what"] == "localhost"

    # From a profile to the kernel, by each of its names.
    uuid = bed.nmcli("-g", "connection.uuid", "connection", "show", "LTE").strip()
    by_name, by_uuid, by_interface, by_address = (
        explain(bed, what, user=NOBODY)["paths"] for what in ("LTE", uuid, "wwan0", up.lte.address)
    )
    assert by_name == by_uuid == by_interface == by_address
    facts = {fact["about"]: fact["says"] for fact in by_name[0]["facts"]}
    assert facts["endpoint"].startswith(f"id {bed.wait_endpoint(up.lte.address).id}:")
    assert facts["rules"].count("32765: from") == 4

    # What it says to type does what it says.
    commands = {each["to"]: each["type"] for each in by_name[0]["commands"]}
    bed.sh(commands["use it only as backup"])
    wait_for("it is backup", lambda: "backup" in bed.wait_endpoint(up.lte.address).flags)
    wait_for("it is told", lambda: explain(bed, "LTE")["paths"][0]["priority"] == "backup")
    commands = {each["to"]: each["type"] for each in explain(bed, "LTE")["paths"][0]["commands"]}
    bed.sh(commands["let nm-mptcp choose its flags"])
    wait_for("it is as before", lambda: "backup" not in bed.wait_endpoint(up.lte.address).flags)
    bed.sh(commands["disable it as a path"])
    bed.wait_no_endpoint(up.lte.address)
    wait_for("it is told", lambda: explain(bed, "LTE")["paths"][0]["rule"] == "disabled-by-profile")

    # What no connection goes to by several paths, and nothing at all, is told in one line.
    for what, status, words in (
        ("224.0.0.1", 1, "is a multicast address"),
        ("0.0.0.0", 1, "is the unspecified address"),
        ("fe80::1%wlan0", 1, "is link-local"),
        ("", 2, "explain needs an interface, an address, a profile or a host"),
    ):
        told_off = bed.machine.attempt(*command(), "explain", what)
        assert (told_off.returncode, told_off.stdout) == (status, "")
        assert words in told_off.stderr
        assert "no host" not in told_off.stderr
        assert len(told_off.stderr.strip().splitlines()) == 1

    wrong = bed.machine.attempt(*command(), "explain", "no.such.thing.invalid")
    assert wrong.returncode == 1
    assert len(wrong.stderr.strip().splitlines()) == 1
    (refused,) = calls(bed, ["/org/nm_mptcp1", "org.nm_mptcp1", "Explain", "s", "nothing"])
    assert refused["error"] == "org.freedesktop.DBus.Error.InvalidArgs"


@pytest.mark.usefixtures("up")
def test_looking_writes_nothing_and_is_quick(bed: Bed, figures: dict[str, str]) -> None:
    for what in (["status"], ["status", "--json"], ["explain", "wlan0"], ["explain", SERVER]):
        assert writes_of(bed, *command(), *what) == []
        taken = []
        for _ in range(5):
            began = time.monotonic()
            bed.machine.run(*command(), *what)
            taken.append(time.monotonic() - began)
        figures[f"nm-mptcp {' '.join(what)}, with the service"] = (
            f"{statistics.median(taken) * 1000:.0f} ms (median of 5)"
        )
    before = bed.footprint()
    assert bed.service
    bed.service.stop()
    for what in (["status"], ["explain", SERVER]):
        # "set limits" asks for the kernel's maximum, with numbers that it always refuses.
        assert set(writes_of(bed, *NOBODY, *command(), *what)) <= {"set limits"}
    assert bed.footprint() == before


@pytest.mark.usefixtures("up")
def test_output_that_cannot_be_written_is_told_in_one_line(bed: Bed) -> None:
    looks = ["status", "status --json", "explain wlan0", "check", "check --json", "mode"]
    for what in [*looks, "watch --json", "watch --lines"]:
        full = bed.machine.attempt("sh", "-c", f'"$@" {what} >/dev/full', "sh", *command())
        words = "nm-mptcp: the output cannot be written: No space left on device\n"
        assert (full.returncode, full.stderr) == (1, words), what
    for what in looks:
        for how in (">&-", "2>&-", "<&-", "| head -c 1", "2>/dev/full"):
            odd = bed.machine.attempt("sh", "-c", f'"$@" {what} {how}', "sh", *command())
            assert odd.stderr == "", (what, how)


# --- the log


@pytest.fixture
def journal(bed: Bed) -> Iterator[Datagrams]:
    """A journal that listens in the bed."""
    place = bed.path("/run/systemd/journal/socket")
    place.parent.mkdir(parents=True)
    with contextlib.closing(Datagrams(place)) as journal:
        place.chmod(0o666)
        yield journal


def entries(journal: Datagrams) -> list[dict[str, str]]:
    """The entries since the last time, also NetworkManager's; a field with a newline would have its length before it."""
    return [
        dict(line.split("=", 1) for line in datagram.decode(errors="replace").split("\n") if "=" in line)
        for datagram in journal.take()
    ]


def ours(journal: Datagrams) -> list[dict[str, str]]:
    """Those of nm-mptcp."""
    return [each for each in entries(journal) if each["SYSLOG_IDENTIFIER"] == "nm-mptcp"]


def test_the_journal_gets_one_entry_an_event_with_fields(bed: Bed, links: Links, journal: Datagrams) -> None:
    bed.modify("Wi-Fi", f"connection.id {HOSTILE}")
    log = bed.directory / "service.log"
    log.touch()
    stream = f"{os.stat(log).st_dev}:{os.stat(log).st_ino}"
    service = bed.start_service(env={"JOURNAL_STREAM": stream})
    EchoServer(bed.far)
    bed.up(HOSTILE, "LTE")
    endpoint = bed.wait_endpoint(links.wifi.address)
    bed.wait_endpoint(links.lte.address)
    bed.sync()
    everything = entries(journal)
    seen = [each for each in everything if each["SYSLOG_IDENTIFIER"] == "nm-mptcp"]
    theirs = [each for each in everything if each not in seen]
    assert log.read_text() == ""
    (active,) = [
        each for each in seen if each.get("NM_MPTCP_ADDRESS") == links.wifi.address and "active" in each["MESSAGE"]
    ]
    assert (active["NM_MPTCP_INTERFACE"], active["NM_DEVICE"]) == ("wlan0", "wlan0")
    assert active["NM_MPTCP_ENDPOINT_ID"] == str(endpoint.id)
    assert active["NM_MPTCP_STATE"] == "active"
    assert active["NM_MPTCP_REASON"]
    assert active["PRIORITY"] == "6"
    assert len(active["MESSAGE_ID"]) == 32
    assert active["MESSAGE"].isprintable()
    # Both name a device and a connection in the same fields.
    assert any(
        each.get("NM_DEVICE") == "wlan0" and each.get("NM_CONNECTION") == active["NM_CONNECTION"] for each in theirs
    )

    # The name that others chose breaks neither screen nor JSON.
    said = bed.machine.attempt(*command(), "status")
    assert all(line.isprintable() for line in said.stdout.splitlines())
    assert all(len(line) < 200 for line in said.stdout.splitlines())
    assert bed.status().path(links.wifi.address)["profile"] == HOSTILE
    told = bed.nm_mptcp("explain", "wlan0")
    assert all(line.isprintable() for line in told.splitlines())
    assert explain(bed, HOSTILE)["paths"][0]["interface"] == "wlan0"

    links.wifi.carrier(False)
    bed.wait_no_endpoint(links.wifi.address)
    bed.sync()
    (lost,) = [each for each in ours(journal) if each.get("NM_MPTCP_ADDRESS") == links.wifi.address]
    assert (lost["NM_MPTCP_STATE"], lost["NM_MPTCP_RULE"]) == ("suspended", "no-carrier")
    assert lost["NM_MPTCP_ENDPOINT_ID"] == str(endpoint.id)
    assert lost["MESSAGE_ID"] != active["MESSAGE_ID"]
    for _ in range(3):
        bed.sync()
    assert ours(journal) == []
    assert service.running
