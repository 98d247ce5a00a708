# SPDX-License-Identifier: GPL-2.0-or-later
"""A link is up and carries no packets: new connections go around it at once, its connections move, and nothing is closed."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.waits import wait_for
from .bed import PROTOCOL, SERVER, SERVER6, Bed
from .test_failover import start_service, wait_state
from .traffic import PORT, Connection, EchoServer, over_both, reaches
from .uplinks import Links

#: Further servers, none of which listens unless a test says so.
OTHERS = ("192.0.2.11", "192.0.2.12", "192.0.2.13")

#: How packets vanish, and what of the link's network still answers.
WAYS = {
    "beyond-the-gateway": {"ways": ()},
    "the-gateway-too": {"ways": (), "gateway": True},
    "the-gateway-says-so": {"ways": (), "told": True},
    "only-what-is-sent": {"ways": ("out",)},
    "only-what-is-received": {"ways": ("in",)},
}


@pytest.fixture
def up(bed: Bed, links: Links) -> Links:
    """Both links are up and are paths; an echo server listens, at several addresses."""
    return bring_up(bed, links)


def bring_up(bed: Bed, links: Links, **service: Any) -> Links:
    for address in OTHERS:
        bed.far.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    EchoServer(bed.far)
    bed.wait_for_dispatcher()
    bed.start_service(**service)
    links.bring_up()
    return links


class Stream:
    """A connection that sends each 10 ms and notes its longest wait for an answer."""

    def __init__(self, bed: Bed, connection: Connection) -> None:
        self.connection = connection
        self.longest = 0.0
        self.echoes = 0
        self.error: OSError | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        bed.at_end(self.close)

    def _run(self) -> None:
        while not self._ended.wait(0.01):
            began = time.monotonic()
            try:
                self.connection.echo()
            except OSError as error:
                self.error = error
                return
            self.longest = max(self.longest, time.monotonic() - began)
            self.echoes += 1

    def goes_on(self, echoes: int = 30) -> None:
        """Wait for so many more answers."""
        enough = self.echoes + echoes
        wait_for("the stream goes on", lambda: self.echoes >= enough or self.error, every=0.01)
        assert self.error is None

    def close(self) -> None:
        self._ended.set()
        self._thread.join(15)


@pytest.fixture
def stream(bed: Bed, up: Links) -> Stream:
    return Stream(bed, over_both(bed, up))


def detours(bed: Bed, device: str, family: str = "-4") -> list[dict[str, Any]]:
    """Our default routes in main that lead around another link."""
    shown = bed.machine.ip(family, "route", "show", "table", "main", "proto", PROTOCOL)
    return [route for route in shown if route["dst"] == "default" and route["dev"] == device]


def wait_silent(bed: Bed, address: str) -> dict[str, object]:
    return wait_state(bed, address, "suspended", "silent")


# --- beside a live stream


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_new_connection_goes_around_a_silent_link(bed: Bed, up: Links, stream: Stream, way: dict[str, Any]) -> None:
    up.wifi.network.silence(*way["ways"], gateway=way.get("gateway", False), told=way.get("told", False))
    wait_for("a detour", lambda: detours(bed, "wwan0"), seconds=3, every=0.01)
    assert reaches(bed.machine, SERVER)
    shown = wait_silent(bed, up.wifi.address)
    assert re.fullmatch(r"silent: a peer unanswered for [\d.]+ s, it answers by wwan0", str(shown["reason"]))
    assert reaches(bed.machine, SERVER)
    assert stream.error is None


def test_its_connections_move_and_nothing_is_closed(bed: Bed, up: Links, stream: Stream) -> None:
    before = stream.connection.subflows()
    endpoint = bed.wait_endpoint(up.wifi.address)
    up.wifi.network.silence()
    wait_silent(bed, up.wifi.address)
    after = bed.wait_endpoint(up.wifi.address)
    assert (after.id, after.flags) == (endpoint.id, endpoint.flags | {"backup"})
    assert before <= stream.connection.subflows()
    assert stream.error is None


def test_it_is_used_again_when_it_answers(bed: Bed, up: Links, stream: Stream) -> None:
    endpoint = bed.wait_endpoint(up.wifi.address)
    up.wifi.network.silence()
    wait_silent(bed, up.wifi.address)
    up.wifi.network.speak()
    wait_state(bed, up.wifi.address, "active", "flags-of-kind")
    wait_for("no detour", lambda: not detours(bed, "wwan0"))
    assert bed.endpoint(up.wifi.address) == endpoint
    stream.close()
    assert stream.error is None
    assert bed.service
    assert "answers again" in bed.service.log()


def test_fifty_silences_change_the_routes_a_few_times_and_nothing_is_lost(bed: Bed, up: Links, stream: Stream) -> None:
    before = stream.connection.subflows()
    for _ in range(50):
        up.wifi.network.silence()
        wait_for("a detour", lambda: detours(bed, "wwan0"), seconds=5, every=0.01)
        stream.goes_on()
        up.wifi.network.speak()
        stream.goes_on()
    assert stream.connection.subflows() >= before
    assert bed.service
    assert 2 <= bed.service.log().count("backup while it may be silent") <= 15
    wait_state(bed, up.wifi.address, "active", "flags-of-kind", seconds=60)
    wait_for("no detour", lambda: not detours(bed, "wwan0"))


@pytest.mark.usefixtures("stream")
def test_what_is_on_the_links_own_network_is_not_led_around_it(bed: Bed, up: Links) -> None:
    up.wifi.network.silence()
    wait_silent(bed, up.wifi.address)
    (route,) = bed.machine.ip("route", "get", up.wifi.network.host(9))
    assert route["dev"] == "wlan0"
    assert reaches(bed.machine, up.wifi.gateway)


@pytest.mark.usefixtures("stream")
def test_a_socket_that_is_bound_to_a_silent_link_still_leaves_by_it(bed: Bed, up: Links) -> None:
    up.wifi.network.silence()
    wait_silent(bed, up.wifi.address)
    (route,) = bed.machine.ip("route", "get", SERVER, "from", up.wifi.address)
    assert route["dev"] == "wlan0"


def test_a_metered_path_carries_meanwhile_and_is_backup_afterwards(bed: Bed, links: Links) -> None:
    bed.modify("LTE", "connection.metered yes")
    up = bring_up(bed, links)
    before = bed.wait_endpoint(up.lte.address)
    assert "backup" in before.flags
    Stream(bed, over_both(bed, up))
    up.wifi.network.silence()
    wait_silent(bed, up.wifi.address)
    assert "backup" not in bed.wait_endpoint(up.lte.address).flags
    assert bed.status().path(up.lte.address)["rule"] == "relieves-silent"
    up.wifi.network.speak()
    wait_state(bed, up.wifi.address, "active", "flags-of-kind")
    wait_for("it is backup again", lambda: bed.endpoint(up.lte.address) == before)


def test_explicit_flags_are_not_changed(bed: Bed, links: Links) -> None:
    bed.modify("Wi-Fi", "connection.mptcp-flags 0x22")
    up = bring_up(bed, links)
    before = bed.wait_endpoint(up.wifi.address)
    Stream(bed, over_both(bed, up))
    up.wifi.network.silence()
    wait_silent(bed, up.wifi.address)
    assert reaches(bed.machine, SERVER)
    assert bed.endpoint(up.wifi.address) == before


@pytest.mark.usefixtures("stream")
def test_a_silent_link_whose_other_is_lost_is_used_as_if_nothing_were_known(bed: Bed, up: Links) -> None:
    up.wifi.network.silence()
    wait_silent(bed, up.wifi.address)
    up.lte.carrier(False)
    wait_for("no detour", lambda: not detours(bed, "wwan0"))
    wait_for("it is active", lambda: bed.status().path(up.wifi.address)["state"] == "active")
    up.wifi.network.speak()
    wait_for("it reaches the server", lambda: reaches(bed.machine, SERVER), seconds=10)


# --- by plain TCP alone


def connecting(bed: Bed, *addresses: str) -> Iterator[socket.socket]:
    for address in addresses:
        client = bed.machine.socket(socket.AF_INET, socket.SOCK_STREAM)
        bed.at_end(client.close)
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect((address, PORT))
        yield client


def test_programs_that_try_again_get_through_by_the_other_link(bed: Bed, up: Links) -> None:
    up.wifi.network.silence()
    waiting = list(connecting(bed, *OTHERS))
    wait_for("a detour", lambda: detours(bed, "wwan0"), seconds=5, every=0.01)
    assert reaches(bed.machine, OTHERS[0])
    assert wait_silent(bed, up.wifi.address)["reason"].startswith("silent: 3 peers")  # type: ignore[attr-defined]
    assert len(waiting) == 3


# --- what is no silence


def examined(bed: Bed) -> None:
    """Wait until a link was examined, and the examination is over."""
    assert bed.service
    service = bed.service
    wait_for("an examination", lambda: "examining" in service.log(), seconds=5)
    time.sleep(4)  # nothing tells that nothing was found


@pytest.fixture
def debugging(bed: Bed, links: Links) -> Links:
    for address in OTHERS:
        bed.far.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    EchoServer(bed.far)
    bed.wait_for_dispatcher()
    bed.start_service("--log-level", "debug")
    links.bring_up()
    return links


def drop(bed: Bed, *addresses: str) -> None:
    """Servers that do not answer, by whichever link."""
    everything = ", ".join(addresses)
    bed.far.sh(f"nft 'add table ip dead; add chain ip dead input {{ type filter hook input priority 0; }};"
               f" add rule ip dead input ip daddr {{ {everything} }} drop'")  # fmt: skip


def assert_no_verdict(bed: Bed, links: Links) -> None:
    assert not detours(bed, "wwan0")
    assert bed.status().path(links.wifi.address)["state"] == "active"
    assert bed.service
    assert "silent" not in bed.service.log()


def test_dead_servers_are_no_silence(bed: Bed, debugging: Links) -> None:
    drop(bed, *OTHERS)
    waiting = list(connecting(bed, *OTHERS))
    examined(bed)
    assert_no_verdict(bed, debugging)
    assert waiting


def test_one_peer_that_is_blocked_on_one_link_is_no_silence(bed: Bed, debugging: Links) -> None:
    bed.far.sh(f"nft 'add table ip dead; add chain ip dead input {{ type filter hook input priority 0; }};"
               f" add rule ip dead input iifname {debugging.wifi.network.interface} ip daddr {OTHERS[0]} drop'")  # fmt: skip
    waiting = list(connecting(bed, OTHERS[0]))
    examined(bed)
    assert_no_verdict(bed, debugging)
    assert waiting


def test_a_dead_server_beside_one_that_answers_is_not_even_examined(bed: Bed, debugging: Links) -> None:
    drop(bed, *OTHERS)
    client = Connection(bed.machine, SERVER, source=debugging.wifi.address)
    waiting = list(connecting(bed, *OTHERS))
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        client.echo()
        time.sleep(0.02)
    assert bed.service
    assert "examining" not in bed.service.log()
    assert_no_verdict(bed, debugging)
    assert waiting


def test_a_port_scan_of_nobody_is_no_silence(bed: Bed, debugging: Links) -> None:
    scanned = [f"198.51.100.{number}" for number in range(1, 255)]
    bed.far.sh("ip route add blackhole 198.51.100.0/24")
    waiting = list(connecting(bed, *scanned))
    examined(bed)
    assert_no_verdict(bed, debugging)
    assert waiting


def test_a_pause_as_of_a_wifi_that_roams_is_no_silence(bed: Bed, up: Links, stream: Stream) -> None:
    up.wifi.network.silence()
    time.sleep(0.8)
    up.wifi.network.speak()
    wait_for("it is used", lambda: not detours(bed, "wwan0"), seconds=10)
    assert bed.service
    assert ": silent" not in bed.service.log()
    assert stream.error is None


def test_the_only_link_is_not_even_traced(bed: Bed, links: Links) -> None:
    EchoServer(bed.far)
    start_service(bed)
    bed.up("Wi-Fi")
    bed.wait_endpoint(links.wifi.address)
    bed.sync()
    before = bed.footprint()
    connection = Connection(bed.machine, SERVER)
    assert instances(bed) == []
    links.wifi.network.silence()
    time.sleep(2)
    assert bed.footprint() == before
    links.wifi.network.speak()
    connection.echo()


def instances(bed: Bed) -> list[str]:
    """The trace instances of this bed's service."""
    assert bed.service
    inner = bed.inner(bed.service.pid)
    return [each.name for each in Path("/sys/kernel/tracing/instances").glob(f"nm-mptcp-{inner}-*")]


def test_a_link_that_is_not_to_be_led_around_is_not(bed: Bed, links: Links) -> None:
    bed.write("/etc/nm-mptcp/nm-mptcp.conf", "[path-wifi]\nmatch-device=interface-name:wlan0\nsilent-links=no\n")
    up = bring_up(bed, links)
    stream = Stream(bed, over_both(bed, up))
    up.wifi.network.silence()
    time.sleep(2)
    assert not detours(bed, "wwan0")
    assert bed.status().path(up.wifi.address)["state"] == "active"
    assert stream.error is None


def test_ipv6_alone_may_be_silent(bed: Bed) -> None:
    wifi = bed.uplink("wlan0", dhcp="10.1.0.0/24", ra="2001:db8:1::/64")
    lte = bed.uplink("wwan0", dhcp="10.2.0.0/24", ra="2001:db8:2::/64")
    for name, link, metric in (("Wi-Fi", wifi, 600), ("LTE", lte, 700)):
        bed.profile(name, link.name, "ipv6.method auto", f"ipv4.route-metric {metric}", f"ipv6.route-metric {metric}")
    EchoServer(bed.far)
    start_service(bed)
    bed.up("Wi-Fi", "LTE")
    for link in (wifi, lte):
        bed.wait_endpoint(link.address)
        bed.wait_endpoint(link.address6())
    bed.sync()
    connection = Connection(bed.machine, SERVER6)
    connection.wait_subflow(lte.address6())
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(0.01):
            connection.echo()

    threading.Thread(target=send, daemon=True).start()
    wifi.network.silence(family="ip6")
    wait_state(bed, wifi.address6(), "suspended", "silent")
    assert detours(bed, "wwan0", "-6")
    assert not detours(bed, "wwan0")
    assert reaches(bed.machine, SERVER6)
    assert bed.status().path(wifi.address)["state"] == "active"
    ended.set()
