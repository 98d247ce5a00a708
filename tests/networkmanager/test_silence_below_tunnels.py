# SPDX-License-Identifier: GPL-2.0-or-later
"""A full tunnel leaves a link below it that carries no packets if it is answered by another; nothing else leaves by that."""

from __future__ import annotations

from typing import Any

import pytest

from ..support.waits import wait_for
from .bed import PROTOCOL, SERVER, Bed
from .test_failover import wait_state
from .test_silence import OTHERS, WAYS, Stream, bring_up, connecting, drop
from .traffic import Connection, reaches
from .uplinks import Capture, Links, Packet
from .vpn import VPN, VPN_SERVER, beside_the_tunnel
from .wireguard import NAME, WireGuard, need_wireguard_in_kernel
from .wireguard import SERVER as WG_SERVER

#: The metric of the server's route, as NetworkManager's plugins make it.
METRIC = 50

#: What the tunnel carries before it carries everything.
BEHIND = "198.18.0.0/15"


@pytest.fixture(params=["wireguard-go", "kernel"])
def tunnel(request: pytest.FixtureRequest, bed: Bed, links: Links) -> str:
    """The name of a full tunnel above two links: WireGuard's, by that."""
    kernel = request.param == "kernel"
    if kernel:
        need_wireguard_in_kernel(bed)
    below(bed, links)
    WireGuard(bed, BEHIND, program=not kernel).carry_everything()
    guarded(bed, links)
    return NAME


def below(bed: Bed, links: Links) -> None:
    """Both links are paths."""
    bring_up(bed, links)
    for link in (links.wifi, links.lte):
        bed.wait_endpoint(link.address)


def guarded(bed: Bed, links: Links) -> None:
    """Neither is one any more."""
    for link in (links.wifi, links.lte):
        wait_state(bed, link.address, "suspended", "vpn-guard")
        bed.wait_no_endpoint(link.address)
    bed.sync()


@pytest.fixture
def stream(bed: Bed, tunnel: str) -> Stream:
    """A connection in the tunnel."""
    stream = Stream(bed, Connection(bed.machine, SERVER))
    stream.goes_on()
    assert tunnel
    return stream


def not_the_tunnels(*captures: Capture) -> list[Packet]:
    """What left by links and is not WireGuard's own."""
    return [packet for packet in beside_the_tunnel(*captures) if packet.destination != WG_SERVER]


def led_around(bed: Bed, links: Links) -> str | None:
    """The reason of the Wi-Fi's path, if it tells that the tunnel is led around that."""
    reason = str(bed.status().path(links.wifi.address)["reason"])
    return reason if "led around this link" in reason else None


def ways(bed: Bed) -> list[dict[str, Any]]:
    """Our routes in main."""
    shown: list[dict[str, Any]] = bed.machine.ip("route", "show", "table", "main", "proto", PROTOCOL)
    return shown


def assert_no_verdict(bed: Bed, links: Links) -> None:
    assert not led_around(bed, links)
    assert bed.service
    assert "silent" not in bed.service.log()


@pytest.mark.parametrize("way", [WAYS["beyond-the-gateway"], WAYS["the-gateway-too"], WAYS["only-what-is-sent"]])
def test_a_tunnel_goes_on_by_the_other_link(
    bed: Bed, links: Links, tunnel: str, stream: Stream, way: dict[str, Any]
) -> None:
    captures = [link.capture() for link in (links.wifi, links.lte)]
    links.wifi.network.silence(*way["ways"], gateway=way.get("gateway", False))
    stream.goes_on(300)
    assert reaches(bed.machine, SERVER)
    reason = wait_for("it is told", lambda: led_around(bed, links))
    assert f"in {tunnel}, answered by wwan0" in reason
    assert bed.service
    assert "wlan0: silent (IPv4): a peer unanswered for " in bed.service.log()
    assert not not_the_tunnels(*captures)


def test_so_does_one_with_a_route_of_its_own_to_the_server(bed: Bed, links: Links) -> None:
    below(bed, links)
    vpn = VPN(bed, roams=True)
    vpn.exempt_server(links.wifi.gateway, links.wifi.name, metric=METRIC)
    vpn.up()
    vpn.default_in_halves()
    guarded(bed, links)
    stream = Stream(bed, Connection(bed.machine, SERVER))
    stream.goes_on()
    links.wifi.network.silence()
    stream.goes_on(300)
    wait_for("it is told", lambda: led_around(bed, links))
    assert {way["dst"] for way in ways(bed)} == {"default", VPN_SERVER}


def test_it_returns_when_the_link_answers(bed: Bed, links: Links, stream: Stream) -> None:
    links.wifi.network.silence()
    wait_for("it is told", lambda: led_around(bed, links))
    links.wifi.network.speak()
    wait_for("the detour ends", lambda: not led_around(bed, links), seconds=15)
    stream.goes_on(100)
    assert not ways(bed)
    assert bed.service
    assert "wlan0: answers again (IPv4)" in bed.service.log()


@pytest.mark.may_be_late(reason="the link is tried again after five seconds")
def test_a_link_that_stays_silent_is_tried_in_vain_and_the_tunnel_goes_on(
    bed: Bed, links: Links, stream: Stream
) -> None:
    links.wifi.network.silence()
    wait_for("it is told", lambda: led_around(bed, links))
    wait_for("the link is tried", lambda: not ways(bed), seconds=10, every=0.01)
    stream.goes_on(100)
    assert led_around(bed, links)
    assert bed.service
    assert bed.service.log().count("wlan0: silent (IPv4)") == 1


@pytest.mark.usefixtures("stream")
def test_a_service_that_ends_leaves_no_detour(bed: Bed, links: Links) -> None:
    links.wifi.network.silence()
    wait_for("it is told", lambda: led_around(bed, links))
    assert bed.service
    bed.service.stop()
    assert not ways(bed)


def test_where_both_links_are_silent_all_stays_and_the_first_is_used_when_it_answers(
    bed: Bed, links: Links, stream: Stream
) -> None:
    for link in (links.wifi, links.lte):
        link.network.silence()
    wait_for("a trial", lambda: ways(bed), seconds=10, every=0.01)
    wait_for("its end", lambda: not ways(bed), seconds=10)
    assert bed.service
    assert "silent" not in bed.service.log()
    links.wifi.network.speak()
    stream.goes_on()


def test_the_link_in_use_may_become_silent_as_well(bed: Bed, links: Links, stream: Stream) -> None:
    links.wifi.network.silence()
    wait_for("it is told", lambda: led_around(bed, links))
    links.lte.network.silence()
    links.wifi.network.speak()
    stream.goes_on(100)


def test_dead_servers_behind_it_are_no_silence(bed: Bed, links: Links, stream: Stream) -> None:
    drop(bed, *OTHERS)
    waiting = list(connecting(bed, *OTHERS))
    stream.goes_on(300)
    assert not ways(bed)
    assert_no_verdict(bed, links)
    assert waiting


@pytest.mark.usefixtures("tunnel")
def test_dead_servers_alone_behind_it_are_a_short_trial_and_no_verdict(bed: Bed, links: Links) -> None:
    drop(bed, *OTHERS)
    waiting = list(connecting(bed, *OTHERS))
    wait_for("a trial", lambda: ways(bed), seconds=10, every=0.01)
    wait_for("its end", lambda: not ways(bed), seconds=10)
    assert_no_verdict(bed, links)
    assert reaches(bed.machine, SERVER)
    assert waiting
