# SPDX-License-Identifier: GPL-2.0-or-later
"""WireGuard's own packets follow the main table, although they keep the source address that they began with."""

from __future__ import annotations

import socket

import pytest

from ..support.waits import wait_for
from .bed import PROTOCOL, Bed
from .traffic import EchoServer
from .uplinks import Capture, Links
from .wireguard import NAME, SERVER, WireGuard, need_wireguard_in_kernel

#: What the tunnel carries.
PREFIX = "198.51.100.0/24"


@pytest.fixture(params=[True, False], ids=["wireguard-go", "kernel"])
def tunnel(request: pytest.FixtureRequest, bed: Bed, links: Links) -> WireGuard:
    """A split tunnel that began on the only link, which is not the best one."""
    if not request.param:
        need_wireguard_in_kernel(bed)
    EchoServer(bed.far)
    bed.wait_for_dispatcher()
    bed.start_service()
    bed.up("LTE")
    bed.wait_endpoint(links.lte.address)
    return WireGuard(bed, PREFIX, program=request.param)


def exempting(bed: Bed, address: str) -> list[str]:
    """The rules for the tunnel's packets from an address."""
    lines = bed.sh("ip rule show priority 32765").splitlines()
    return [line for line in lines if f"from {address} " in line and (" to " in line or " sport " in line)]


def wait_moved(tunnel: WireGuard, capture: Capture, source: str, *, before: Capture) -> None:
    """Wait until the tunnel's packets leave by the other link, and none by the one ``before`` any more."""
    wait_for("the tunnel's packets leave by the other link", lambda: tunnel.own(capture), seconds=20)
    moved, left = len(tunnel.own(capture)), len(tunnel.own(before))
    wait_for("more of them do", lambda: len(tunnel.own(capture)) >= moved + 3, seconds=20)
    assert {packet.source for packet in tunnel.own(capture)} == {source}
    assert len(tunnel.own(before)) == left


def test_they_move_to_the_better_link_when_it_comes(bed: Bed, links: Links, tunnel: WireGuard) -> None:
    wait_for("the rule is there", lambda: exempting(bed, links.lte.address))
    bed.up("Wi-Fi")
    bed.wait_endpoint(links.wifi.address)
    wait_for("the rule is there", lambda: exempting(bed, links.wifi.address))
    capture, before = links.wifi.capture(), links.lte.capture()
    wait_moved(tunnel, capture, links.wifi.address, before=before)


def test_they_move_when_their_link_loses_its_default_route(bed: Bed, links: Links, tunnel: WireGuard) -> None:
    bed.up("Wi-Fi")
    bed.wait_endpoint(links.wifi.address)
    capture, before = links.wifi.capture(), links.lte.capture()
    bed.sh("ip route del default dev wwan0")
    wait_moved(tunnel, capture, links.wifi.address, before=before)


@pytest.mark.usefixtures("tunnel")
def test_all_else_from_the_address_leaves_by_its_link(bed: Bed, links: Links) -> None:
    bed.up("Wi-Fi")
    bed.wait_endpoint(links.wifi.address)
    wait_for("the rule is there", lambda: exempting(bed, links.wifi.address))
    capture = links.lte.capture()
    with bed.machine.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind((links.lte.address, 0))
        bound.sendto(b"on purpose", ("192.0.2.1", 9))
    wait_for("it left by its link", lambda: [it for it in capture.packets() if it.destination == "192.0.2.1"])


@pytest.mark.usefixtures("tunnel")
def test_the_rules_end_with_the_tunnel_and_the_others_stay_in_order(bed: Bed, links: Links) -> None:
    wait_for("the rule is there", lambda: exempting(bed, links.lte.address))
    assert not bed.nm_mptcp("apply", "--dry-run")
    bed.sh(f"ip link del {NAME}")
    wait_for("it is gone", lambda: not exempting(bed, links.lte.address))
    rules = [rule for rule in bed.rules(protocol=PROTOCOL) if rule["src"] == links.lte.address]
    assert [rule.get("action", "to_tbl") for rule in rules] == ["to_tbl"] * 3 + ["7"]
    assert SERVER not in bed.sh("ip rule")
