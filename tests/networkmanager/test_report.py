# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp check --report --mask``: one file for a bug report that tells of nobody and nowhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .bed import SERVER, SERVER6, Bed, command
from .traffic import Connection
from .uplinks import Links

WIFI = 'Caf\u00e9 Zuhause \u202e\x1b[31m "quoted" \\ ' + "y" * 300
CELLULAR, BRIDGE, AWAY = "Zo\u00eb's phone", "Keller", "Villa Geheim"
HOST = "zoes-laptop"


@pytest.fixture
def private(bed: Bed, up: Links) -> Links:
    """A machine whose every name and address tells something of its owner."""
    bed.sh(f"hostname {HOST}.example.org")
    bed.modify("Wi-Fi", f"connection.id {WIFI}")
    bed.modify("LTE", f"connection.id {CELLULAR}")
    bed.up(WIFI, CELLULAR)
    bed.profile(AWAY, "nowhere0")
    # Without an address, so that it is no path.
    bed.nmcli(
        *("connection", "add", "type", "bridge", "ifname", "br7", "con-name", BRIDGE, "bridge.stp", "no"),
        *("ipv4.method", "disabled", "ipv6.method", "disabled"),
    )
    bed.nmcli("--wait", "10", "connection", "up", BRIDGE)
    bed.sh("ip link set dev wlan0 alias 'Uplink of Zoe'")
    bed.write(
        "/run/nm-mptcp/conf.d/50-test.conf",
        f"# Settings of Zoe\n[path-of-zoe]\nmatch-connection={CELLULAR}\npriority=backup\n[path-villa]\npriority=best\n",
    )
    for link in (up.wifi, up.lte):
        bed.wait_endpoint(link.address)
    bed.sync()
    return up


def report(bed: Bed, *arguments: str) -> str:
    place = bed.directory / "report"
    place.unlink(missing_ok=True)
    bed.machine.attempt(*command(), "check", "--report", str(place), *arguments, seconds=60)
    return Path(place).read_text()


def secrets(bed: Bed) -> set[str]:
    """What is known of this machine, asked of its own tools."""
    addresses = {
        each["local"] for link in bed.machine.ip("address") for each in link["addr_info"] if link["ifname"] != "lo"
    }
    gateways = {route["gateway"] for route in bed.machine.ip("route", "show", "table", "all") if "gateway" in route}
    hardware = {link["address"] for link in bed.machine.ip("link") if link["ifname"] != "lo"}
    short = {re.sub(r"(?<![0-9a-f])0(?=[0-9a-f])", "", each) for each in hardware}  # as bridge_id has them
    uuids = set(bed.nmcli("-g", "UUID", "connection").split())
    names = {
        WIFI,
        json.dumps(WIFI)[1:-1],
        json.dumps(WIFI, ensure_ascii=False)[1:-1],
        "Zuhause",
        CELLULAR,
        BRIDGE,
        AWAY,
    }
    return (
        addresses | gateways | hardware | short | uuids | names | {HOST, "example.org", "zoe", "villa", SERVER, SERVER6}
    )


def test_a_masked_report_tells_of_nobody(bed: Bed, private: Links) -> None:
    connection = Connection(bed.machine, SERVER)
    connection.wait_subflow(private.lte.address)
    bed.sh(f"echo '{SERVER} reached-by-zoe.example.org' >/run/hosts; mount --bind /run/hosts /etc/hosts")
    arguments = ("--reach", "reached-by-zoe.example.org:5001")
    plain, masked = report(bed, *arguments), report(bed, *arguments, "--mask")

    known = secrets(bed)
    # They are there, so that their absence says something.
    for each in (
        private.wifi.address,
        private.lte.gateway,
        CELLULAR,
        "Zuhause",
        "villa",
        SERVER,
        "Uplink of Zoe",
    ):
        assert each in plain
    assert [each for each in known if each.lower() in masked.lower()] == []
    assert not re.search(r"(?:[0-9a-f]{1,2}:){5}[0-9a-f]{1,2}", masked)

    # What belongs together is still seen to, and what is no secret is there.
    parts = dict(re.findall(r"^==> (.*)\n((?:(?!==> ).*\n)*)", masked, re.MULTILINE))
    status = json.loads(parts["nm-mptcp status --json"])
    wifi = next(path for path in status["paths"] if path["interface"] == "wlan0")
    assert wifi["address"].startswith("IPV4-")
    assert f"{wifi['address']} id " in parts["ip mptcp endpoint show"]
    assert wifi["uuid"] in parts["nmcli -f DEVICE,TYPE,STATE,CON-UUID device"]
    assert wifi["address"] in parts["ss -Mani"]
    assert "mode" in status
    assert json.loads(parts["nm-mptcp check --json"])["findings"]
