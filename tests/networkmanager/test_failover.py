# SPDX-License-Identifier: GPL-2.0-or-later
"""A link is lost, flaps, comes back, or is held up by a portal: live connections move, and nobody is left behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from nm_mptcp.engine.flap_damping import EARLIEST_RETURN

from ..support.waits import wait_for
from .bed import DEFAULT_FLAGS, PROTOCOL, SERVER, SERVER6, SYSCTLS, Bed, Namespace
from .connectivity import CHECKING, CheckServer, connectivity, wait_connectivity
from .observe import Writes
from .traffic import Connection, EchoServer, over_both
from .uplinks import Links, Uplink

#: Of two links with static addresses, and the number in these.
LINKS = ((1, "wlan0"), (2, "wwan0"))

LINKDOWN = "net.ipv4.conf.{}.ignore_routes_with_linkdown"


def lose_carrier(link: Uplink) -> None:
    link.carrier(False)


def set_down(link: Uplink) -> None:
    link.bed.machine.run("ip", "link", "set", link.name, "down")


def wait_state(bed: Bed, address: str, state: str, rule: str, *, seconds: float = 10) -> dict[str, object]:
    """Wait until ``status`` shows the path so."""

    def look() -> dict[str, object] | None:
        found = [path for path in bed.status().paths if path["address"] == address]
        return found[0] if found and (found[0]["state"], found[0]["rule"]) == (state, rule) else None

    found = wait_for(f"{address} is {state} ({rule})", look, seconds=seconds)
    assert found
    return found


def start_service(bed: Bed) -> None:
    """Start it when the dispatcher has done its part of NetworkManager's own start: nothing here is about that."""
    bed.wait_for_dispatcher()
    bed.start_service()


@pytest.fixture
def up(bed: Bed, links: Links) -> Links:
    """Both links are up and are paths; an echo server listens."""
    EchoServer(bed.far)
    start_service(bed)
    links.bring_up()
    return links


@pytest.fixture
def lone(bed: Bed, links: Links) -> Uplink:
    """Only the first link is up."""
    EchoServer(bed.far)
    start_service(bed)
    bed.up("Wi-Fi")
    bed.wait_endpoint(links.wifi.address)
    bed.sync()
    return links.wifi


def wait_no_subflow(connection: Connection, address: str) -> None:
    """Wait until the connection has left this address."""
    wait_for(
        f"no subflow from {address}", lambda: all(local != address for local, _ in connection.subflows()), seconds=10
    )


# --- a link is lost, and comes back


@pytest.mark.parametrize(
    ("lose", "rule", "reason"),
    [(lose_carrier, "no-carrier", "no carrier"), (set_down, "link-down", "the interface is down")],
)
def test_a_lost_link_is_suspended_and_its_connections_live_on(
    bed: Bed, up: Links, lose: Callable[[Uplink], None], rule: str, reason: str
) -> None:
    connection = over_both(bed, up)
    kept = {each for each in connection.subflows() if each[0] == up.lte.address}
    lose(up.wifi)
    bed.wait_no_endpoint(up.wifi.address)
    shown = bed.status().path(up.wifi.address)
    assert (shown["state"], shown["rule"], shown["reason"]) == ("suspended", rule, reason)
    assert shown["since"]
    wait_no_subflow(connection, up.wifi.address)
    connection.echo()
    assert kept <= connection.subflows()


def test_with_the_carrier_the_same_endpoint_and_a_subflow_on_the_live_connection_come_back(bed: Bed, up: Links) -> None:
    connection = over_both(bed, up)
    before = bed.wait_endpoint(up.wifi.address)
    up.wifi.carrier(False)
    bed.wait_no_endpoint(up.wifi.address)
    up.wifi.carrier(True)
    after = bed.wait_endpoint(up.wifi.address)
    assert (after.address, after.device, after.flags) == (before.address, before.device, before.flags)
    connection.wait_subflow(up.wifi.address)
    connection.echo()
    wait_for("it is active again", lambda: bed.status().path(up.wifi.address)["state"] == "active")


def test_what_the_kernel_asked_in_vain_while_the_link_was_dead_does_not_hold_its_return_up(bed: Bed, up: Links) -> None:
    """The last packets on the dead link ask for its gateway, and the kernel asks again each second (here: each hour): the join
    of the subflow that comes back would wait behind them."""
    bed.machine.run("sysctl", "-qw", f"net/ipv4/neigh/{up.wifi.name}/retrans_time_ms=3600000")
    connection = over_both(bed, up)
    up.wifi.carrier(False)
    bed.wait_no_endpoint(up.wifi.address)
    bed.machine.run("ping", "-c1", "-W1", "-I", up.wifi.address, up.wifi.gateway, check=False)
    asked = ("ip", "neigh", "show", up.wifi.gateway, "dev", up.wifi.name)
    wait_for("the gateway is asked for in vain", lambda: "INCOMPLETE" in bed.machine.run(*asked))
    up.wifi.carrier(True)
    connection.wait_subflow(up.wifi.address)


def test_an_interface_that_is_pulled_out_leaves_no_endpoint_and_its_connections_live_on(bed: Bed, up: Links) -> None:
    connection = over_both(bed, up)
    up.wifi.remove()
    bed.wait_no_endpoint(up.wifi.address)
    wait_no_subflow(connection, up.wifi.address)
    connection.echo()


def test_an_address_that_is_taken_away_leaves_no_endpoint_and_its_connections_live_on(bed: Bed, up: Links) -> None:
    connection = over_both(bed, up)
    bed.sh(f"ip address del {up.wifi.address}/24 dev wlan0")
    bed.wait_no_endpoint(up.wifi.address)
    wait_no_subflow(connection, up.wifi.address)
    connection.echo()


def test_a_backup_path_carries_when_the_other_is_lost_and_is_backup_still(bed: Bed, links: Links) -> None:
    EchoServer(bed.far)
    bed.modify("LTE", "connection.metered yes")
    start_service(bed)
    bed.up("Wi-Fi", "LTE")
    before = bed.wait_endpoint(links.lte.address)
    assert "backup" in before.flags
    connection = over_both(bed, links)
    links.wifi.carrier(False)
    bed.wait_no_endpoint(links.wifi.address)
    connection.echo()
    assert bed.endpoint(links.lte.address) == before


def test_both_links_lost_leave_both_endpoints_or_one_and_the_connection_lives_on(bed: Bed, up: Links) -> None:
    connection = over_both(bed, up)
    up.wifi.carrier(False)
    bed.wait_no_endpoint(up.wifi.address)
    up.lte.carrier(False)
    wait_state(bed, up.lte.address, "active", "kept-last")
    assert bed.endpoint(up.lte.address)
    up.lte.carrier(True)
    connection.echo()
    up.wifi.carrier(True)
    bed.wait_endpoint(up.wifi.address, seconds=20)
    connection.wait_subflow(up.wifi.address)


def test_the_only_link_is_never_suspended(bed: Bed, lone: Uplink) -> None:
    connection = Connection(bed.machine, SERVER)
    before, subflows = bed.endpoints(), connection.subflows()
    lone.carrier(False)
    shown = wait_state(bed, lone.address, "active", "kept-last")
    assert "no carrier" in str(shown["reason"])
    assert bed.endpoints() == before
    lone.carrier(True)
    wait_state(bed, lone.address, "active", "flags-of-kind")
    connection.echo()
    assert (bed.endpoints(), connection.subflows()) == (before, subflows)


def test_an_initial_subflow_on_a_temporary_address_moves_as_well(bed: Bed) -> None:
    EchoServer(bed.far)
    wifi = bed.uplink("wlan0", ra="2001:db8:1::/64")
    lte = bed.uplink("wwan0", ra="2001:db8:2::/64")
    for name, link, privacy in (("Wi-Fi", wifi, "2"), ("LTE", lte, "0")):
        settings = ["ipv4.method disabled", "ipv6.method auto", f"ipv6.ip6-privacy {privacy}"]
        bed.profile(name, link.name, *settings)
    start_service(bed)
    bed.up("Wi-Fi", "LTE")
    for link in (wifi, lte):
        bed.wait_endpoint(link.address6())
    stable = wifi.address6()
    temporary = wait_for(
        "a temporary address", lambda: [it for it in wifi.addresses(without=("tentative",)) if it != stable]
    )[0]
    connection = Connection(bed.machine, SERVER6, source=temporary)
    connection.wait_subflow(lte.address6())
    wifi.carrier(False)
    bed.wait_no_endpoint(stable)
    wait_no_subflow(connection, temporary)
    connection.echo()
    assert {local for local, _ in connection.subflows()} == {lte.address6()}


@pytest.mark.bed(configuration="[main]\nignore-carrier=*\n")
def test_a_link_that_never_had_a_carrier_is_led_around_for_both_families(bed: Bed) -> None:
    """Without one duplicate address detection does not begin, and the IPv6 address is tentative as long as that lasts."""
    EchoServer(bed.far)
    links = [bed.uplink(name, bed.network(name, f"10.{n}.0.0/24", f"2001:db8:{n}::/64")) for n, name in LINKS]
    links[0].carrier(False)
    bed.machine.sysctl(**{f"net.ipv6.conf.wlan0.{name}": "1" for name in ("accept_dad", "dad_transmits")})
    start_service(bed)
    for n, name in LINKS:
        bed.profile(
            name, name, "ipv4.method manual", f"ipv4.addresses 10.{n}.0.7/24", f"ipv4.gateway 10.{n}.0.1",
            "ipv6.method manual", f"ipv6.addresses 2001:db8:{n}::7/64", f"ipv6.gateway 2001:db8:{n}::1",
            f"ipv4.route-metric {n}00", f"ipv6.route-metric {n}00",
        )  # fmt: skip
        bed.up(name)
    for address in ("10.2.0.7", "2001:db8:2::7"):
        bed.wait_endpoint(address)
    for address in ("10.1.0.7", "2001:db8:1::7"):
        shown = wait_state(bed, address, "suspended", "no-carrier")
        assert shown["reason"] == "no carrier"
    for server in (SERVER, SERVER6):
        began = Connection(bed.machine, server)
        assert {local for local, _ in began.subflows()} <= {"10.2.0.7", "2001:db8:2::7"}
    links[0].carrier(True)
    for address in ("10.1.0.7", "2001:db8:1::7"):
        bed.wait_endpoint(address)


# --- nobody is left behind


def server_without_joins(bed: Bed) -> str:
    """A server whose kernel takes no joins to its initial address, as content networks have them."""
    namespace = another_server(bed, "192.0.2.2")
    namespace.sysctl(**{"net.mptcp.allow_join_initial_addr_port": "0"})
    EchoServer(namespace)
    return "192.0.2.2"


def server_without_subflows(bed: Bed) -> str:
    """A server whose limits leave no room for a subflow."""
    namespace = another_server(bed, "192.0.2.3")
    namespace.run("ip", "mptcp", "limits", "set", "subflows", "0", "add_addr_accepted", "0")
    EchoServer(namespace)
    return "192.0.2.3"


def server_that_stops_listening(bed: Bed) -> str:
    """A server that closes its listener once it has its connection, so that every join is reset."""
    namespace = another_server(bed, "192.0.2.4")
    _serve_one(namespace, socket.IPPROTO_MPTCP)
    return "192.0.2.4"


def server_of_plain_tcp(bed: Bed) -> str:
    """A server that knows no MPTCP: the connection falls back."""
    namespace = another_server(bed, "192.0.2.5")
    _serve_one(namespace, socket.IPPROTO_TCP)
    return "192.0.2.5"


def another_server(bed: Bed, address: str) -> Namespace:
    """A machine of its own out there, with that address."""
    name = f"host-{address.rpartition('.')[2]}"
    namespace = bed.namespace(name, SYSCTLS)
    peer = str(bed.inner(namespace.pid))
    bed.far.run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", peer)
    namespace.sh(f"ip address add {address}/32 dev eth0; ip link set eth0 up; ip route add default dev eth0")
    bed.far.sh(f"ip link set {name} up; ip route add {address}/32 dev {name}")
    bed.far.sysctl(**{f"net.ipv4.conf.{name}.proxy_arp": "1"})
    return namespace


def _serve_one(namespace: Namespace, protocol: int) -> None:
    listener = namespace.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    listener.bind(("0.0.0.0", 5000))
    listener.listen()

    def serve() -> None:
        accepted = listener.accept()[0]
        namespace.bed.at_end(accepted.close)
        listener.close()
        with contextlib.suppress(OSError):
            while data := accepted.recv(1 << 16):
                accepted.sendall(data)

    threading.Thread(target=serve, daemon=True).start()


SERVERS = [server_without_joins, server_without_subflows, server_that_stops_listening, server_of_plain_tcp]


@pytest.mark.parametrize("server", SERVERS)
def test_a_connection_that_cannot_move_outlives_the_flap_of_one_of_two_links(
    bed: Bed, up: Links, server: Callable[[Bed], str]
) -> None:
    address = server(bed)
    stuck = Connection(bed.machine, address)
    before = bed.wait_endpoint(up.wifi.address)
    assert {local for local, _ in stuck.subflows()} >= {up.wifi.address}
    lost = time.monotonic()
    up.wifi.carrier(False)
    if server is server_of_plain_tcp:
        wait_for("the link is suspended", lambda: bed.status().path(up.wifi.address)["state"] == "suspended")
    else:
        shown = wait_state(bed, up.wifi.address, "suspended", "kept-for-connections")
        assert "no carrier" in str(shown["reason"])
        assert bed.endpoint(up.wifi.address) == before
    wait_for("two seconds of flap", lambda: time.monotonic() > lost + 2)
    up.wifi.carrier(True)
    stuck.echo()
    wait_for("the path is active", lambda: bed.status().path(up.wifi.address)["state"] == "active", seconds=20)
    assert bed.wait_endpoint(up.wifi.address).flags == before.flags


@pytest.mark.parametrize("server", [*SERVERS, None])
def test_every_connection_outlives_the_flap_of_the_only_link(
    bed: Bed, lone: Uplink, server: Callable[[Bed], str] | None
) -> None:
    connection = Connection(bed.machine, server(bed) if server else SERVER)
    lost = time.monotonic()
    lone.carrier(False)
    wait_for("two seconds of flap", lambda: time.monotonic() > lost + 2)
    lone.carrier(True)
    connection.echo()


def test_beside_a_connection_that_cannot_move_the_others_move_by_their_own_subflows(bed: Bed, up: Links) -> None:
    address = server_without_joins(bed)
    stuck = Connection(bed.machine, address)
    moving = Connection(bed.machine, SERVER)

    def to(server: str) -> set[str]:
        shown = bed.machine.run("ss", "-Htn", "state", "established", "dst", server)
        return {line.split()[2].rpartition(":")[0].partition("%")[0] for line in shown.splitlines()}

    both = {up.wifi.address, up.lte.address}
    wait_for("the one that can move is on both links", lambda: to(SERVER) == both)
    up.wifi.carrier(False)
    wait_state(bed, up.wifi.address, "suspended", "kept-for-connections")
    wait_for("it has left the dead link", lambda: to(SERVER) == {up.lte.address})
    moving.echo()
    assert to(address) == {up.wifi.address}
    assert bed.endpoint(up.wifi.address)
    up.wifi.carrier(True)
    stuck.echo()


def test_also_on_an_interface_set_down_the_others_move_by_their_own_subflows(bed: Bed, up: Links) -> None:
    stuck = Connection(bed.machine, server_without_joins(bed))
    moving = Connection(bed.machine, SERVER)

    def to(server: str) -> set[str]:
        shown = bed.machine.run("ss", "-Htn", "state", "established", "dst", server)
        return {line.split()[2].rpartition(":")[0].partition("%")[0] for line in shown.splitlines()}

    wait_for("the one that can move is on both links", lambda: to(SERVER) == {up.wifi.address, up.lte.address})
    set_down(up.wifi)
    wait_for("it has left the dead link", lambda: to(SERVER) == {up.lte.address}, seconds=3)
    moving.echo()
    bed.sh("ip link set wlan0 up")
    stuck.echo()


def test_the_endpoint_goes_when_its_last_dependent_ends(bed: Bed, up: Links) -> None:
    stuck = Connection(bed.machine, server_without_joins(bed))
    up.wifi.carrier(False)
    wait_state(bed, up.wifi.address, "suspended", "kept-for-connections")
    stuck.close()
    bed.sh("ss -K dst 192.0.2.2 >/dev/null")  # its goodbye cannot be sent
    bed.wait_no_endpoint(up.wifi.address)
    wait_state(bed, up.wifi.address, "suspended", "no-carrier")


# --- NetworkManager's own endpoints


@pytest.fixture
def explicit(bed: Bed, links: Links) -> Links:
    """The Wi-Fi's profile has flags of its own, so NetworkManager makes its endpoint."""
    EchoServer(bed.far)
    bed.modify("Wi-Fi", "connection.mptcp-flags 0x62")
    start_service(bed)
    links.bring_up()
    assert bed.status().path(links.wifi.address)["owner"] == "networkmanager"
    return links


def test_networkmanagers_endpoint_is_suspended_and_comes_back_the_same(bed: Bed, explicit: Links) -> None:
    connection = over_both(bed, explicit)
    before = bed.wait_endpoint(explicit.wifi.address)
    explicit.wifi.carrier(False)
    bed.wait_no_endpoint(explicit.wifi.address)
    wait_state(bed, explicit.wifi.address, "suspended", "no-carrier")
    connection.echo()
    explicit.wifi.carrier(True)
    after = bed.wait_endpoint(explicit.wifi.address)
    assert (after.address, after.device, after.flags) == (before.address, before.device, before.flags)
    connection.wait_subflow(explicit.wifi.address)


def test_an_endpoint_that_networkmanager_adds_again_is_withdrawn_again(bed: Bed, explicit: Links) -> None:
    before = bed.wait_endpoint(explicit.wifi.address)
    bed.uplink("eth0", dhcp="10.3.0.0/24")
    bed.profile("Ethernet", "eth0", "connection.mptcp-flags 0x22")
    explicit.wifi.carrier(False)
    bed.wait_no_endpoint(explicit.wifi.address)
    for _ in range(2):
        bed.up("Ethernet")
        bed.wait_no_endpoint(explicit.wifi.address, seconds=3)
        bed.down("Ethernet")
        bed.wait_no_endpoint(explicit.wifi.address, seconds=3)
    flags = "subflow" if before.flags == {"subflow"} else ",".join(sorted(before.flags))
    bed.sh(f"ip mptcp endpoint add {before.address} dev wlan0 {flags.replace(',', ' ')}")  # as if it had
    bed.sync()
    bed.wait_no_endpoint(explicit.wifi.address, seconds=3)
    explicit.wifi.carrier(True)
    after = bed.wait_endpoint(explicit.wifi.address)
    assert (after.device, after.flags) == (before.device, before.flags)


# --- new connections


def ignored(bed: Bed, link: Uplink) -> str:
    return bed.machine.read_sysctl(LINKDOWN.format(link.name))


def test_routes_by_a_dead_link_are_ignored_only_while_another_path_is_active(bed: Bed, up: Links) -> None:
    wait_for("both are ignored without carrier", lambda: ignored(bed, up.wifi) == ignored(bed, up.lte) == "1")
    bed.down("LTE")
    wait_for("the only link's routes count", lambda: ignored(bed, up.wifi) == "0")


def test_a_new_connection_leaves_by_the_other_link(bed: Bed, up: Links) -> None:
    up.wifi.carrier(False)
    bed.wait_no_endpoint(up.wifi.address)
    connection = Connection(bed.machine, SERVER)
    assert {local for local, _ in connection.subflows()} == {up.lte.address}


def routed(bed: Bed, *selectors: str) -> str:
    """The interface that a packet to the server leaves by; "" where there is no way."""
    answer = bed.machine.attempt("ip", "-json", "route", "get", SERVER, *selectors)
    return str(json.loads(answer.stdout)[0]["dev"]) if answer.returncode == 0 else ""


def ways_around(bed: Bed) -> list[dict[str, object]]:
    return [route for route in bed.routes("main") if route.get("protocol") == PROTOCOL]


def test_what_stands_on_a_dead_link_waits_for_it_while_new_connections_are_led_around(bed: Bed, up: Links) -> None:
    wait_for("both are ignored without carrier", lambda: ignored(bed, up.wifi) == ignored(bed, up.lte) == "1")
    up.wifi.carrier(False)
    wait_for("the dead link's routes count again", lambda: ignored(bed, up.wifi) == "0")
    assert routed(bed) == up.lte.name
    assert routed(bed, "from", up.wifi.address) == up.wifi.name  # TCP tries again as if nothing had been said
    up.wifi.carrier(True)
    wait_for("no way around is left", lambda: not ways_around(bed))
    assert routed(bed) == up.wifi.name
    wait_for("it is ignored without carrier again", lambda: ignored(bed, up.wifi) == "1")


def test_the_way_around_goes_with_the_lost_route(bed: Bed, up: Links) -> None:
    up.wifi.carrier(False)
    wait_for("a way around", lambda: ways_around(bed))
    bed.down("Wi-Fi")
    wait_for("no way around is left", lambda: not ways_around(bed))
    assert routed(bed) == up.lte.name


def test_clear_takes_the_way_around_away(bed: Bed, up: Links) -> None:
    up.wifi.carrier(False)
    wait_for("a way around", lambda: ways_around(bed))
    bed.nm_mptcp("clear")
    assert not ways_around(bed)


def test_on_the_only_link_a_plain_connect_waits_for_the_carrier(bed: Bed, lone: Uplink) -> None:
    lone.carrier(False)
    wait_state(bed, lone.address, "active", "kept-last")
    with bed.machine.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        assert client.connect_ex((SERVER, 5000)) == errno.EINPROGRESS
        lone.carrier(True)
        client.setblocking(True)
        client.settimeout(10)
        wait_for(
            "it connects",
            lambda: bed.machine.run("ss", "-Htn", "state", "established", "dport = :5000").strip(),
            seconds=10,
        )


def test_it_is_put_back_on_the_connection_that_was_taken_down(bed: Bed, up: Links) -> None:
    wait_for("it is set", lambda: ignored(bed, up.lte) == "1")
    bed.down("LTE")
    wait_for("it is put back", lambda: ignored(bed, up.lte) == "0")


def test_an_administrators_own_setting_is_left_as_it_is(bed: Bed, links: Links) -> None:
    bed.machine.sysctl(**{LINKDOWN.format("wlan0"): "1"})
    start_service(bed)
    bed.up("Wi-Fi", "LTE")
    wait_for("the other one is set", lambda: ignored(bed, links.lte) == "1")
    links.lte.carrier(False)
    wait_state(bed, links.lte.address, "suspended", "no-carrier")
    bed.sync()
    assert ignored(bed, links.wifi) == "1"
    bed.nm_mptcp("clear")
    assert (ignored(bed, links.wifi), ignored(bed, links.lte)) == ("1", "0")


def test_what_an_administrator_sets_later_is_left_as_it_is(bed: Bed, up: Links) -> None:
    wait_for("it is set", lambda: ignored(bed, up.wifi) == "1")
    bed.machine.sysctl(**{LINKDOWN.format("wlan0"): "0"})
    up.lte.carrier(False)
    bed.wait_no_endpoint(up.lte.address)
    up.lte.carrier(True)
    bed.wait_endpoint(up.lte.address)
    bed.sync()
    assert ignored(bed, up.wifi) == "0"


def test_clear_puts_the_setting_back(bed: Bed, up: Links) -> None:
    wait_for("both are set", lambda: ignored(bed, up.wifi) == ignored(bed, up.lte) == "1")
    bed.nm_mptcp("clear")
    assert (ignored(bed, up.wifi), ignored(bed, up.lte)) == ("0", "0")


def test_nothing_with_the_dead_links_source_leaves_by_the_other_link(bed: Bed, up: Links) -> None:
    connection = over_both(bed, up)
    capture = up.lte.capture()
    up.wifi.carrier(False)
    bed.wait_no_endpoint(up.wifi.address)
    for _ in range(20):
        connection.echo()
    up.wifi.carrier(True)
    bed.wait_endpoint(up.wifi.address)
    connection.echo()
    assert capture.sources()[up.wifi.address] == 0


# --- a planned move


class AddressGone:
    """Which endpoints there are at the moment at which an address has gone."""

    def __init__(self, bed: Bed, address: str) -> None:
        self._socket = bed.machine.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._socket.bind((0, 0x10))  # RTMGRP_IPV4_IFADDR
        self._bed, self._address = bed, socket.inet_aton(address)
        self.endpoints: set[str] | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with self._socket:
            while True:
                data = self._socket.recv(1 << 16)
                if data[4] == 21 and self._address in data:  # RTM_DELADDR
                    self.endpoints = {endpoint.address for endpoint in self._bed.endpoints()}
                    return

    def wait(self) -> set[str]:
        self._thread.join(10)
        assert self.endpoints is not None, "the address is still there"
        return self.endpoints


def test_a_connection_taken_down_loses_its_endpoint_before_its_address(bed: Bed, up: Links) -> None:
    connection = over_both(bed, up)
    watch = AddressGone(bed, up.wifi.address)
    bed.down("Wi-Fi")
    assert up.wifi.address not in watch.wait()
    connection.echo()
    assert {local for local, _ in connection.subflows()} == {up.lte.address}


def test_the_only_connection_taken_down_and_up_keeps_what_networkmanager_alone_keeps(bed: Bed, lone: Uplink) -> None:
    connection = Connection(bed.machine, SERVER)
    bed.down("Wi-Fi")
    bed.up("Wi-Fi")
    bed.wait_endpoint(lone.address)
    connection.echo()


def test_a_switch_of_profile_moves_connections_and_ends_with_both_paths(bed: Bed, up: Links) -> None:
    bed.profile("Office", "wlan0", "ipv4.route-metric 600")
    connection = over_both(bed, up)
    bed.up("Office")
    connection.echo()
    bed.wait_endpoint(up.wifi.address)
    connection.wait_subflow(up.wifi.address)
    connection.echo()


def test_networkmanager_stopping_cuts_nothing(bed: Bed, up: Links) -> None:
    connection = over_both(bed, up)
    subflows = connection.subflows()
    bed.stop_networkmanager()
    connection.echo()
    assert connection.subflows() == subflows
    up.wifi.carrier(False)
    bed.wait_no_endpoint(up.wifi.address)
    connection.echo()


# --- flaps


@pytest.mark.may_be_late(reason="status has to be asked while the link is still damped, for 2 s")
def test_a_flapping_link_is_held_back_longer_each_time_and_comes_back_by_itself(bed: Bed, up: Links) -> None:
    connection = over_both(bed, up)
    before = bed.wait_endpoint(up.wifi.address)
    up.wifi.flap(4)
    shown = bed.status().path(up.wifi.address)
    assert (shown["state"], shown["rule"]) == ("suspended", "held-back")
    assert "flapping: suspended for" in shown["reason"]
    assert shown["since"]
    assert not bed.endpoint(up.wifi.address)
    connection.echo()
    after = bed.wait_endpoint(up.wifi.address, seconds=20)
    assert (after.device, after.flags) == (before.device, before.flags)
    connection.wait_subflow(up.wifi.address)


def test_the_first_loss_of_a_link_is_not_held_against_it(bed: Bed, up: Links) -> None:
    up.wifi.carrier(False)
    bed.wait_no_endpoint(up.wifi.address)
    time.sleep(EARLIEST_RETURN)  # the story is that the peer has had the time to learn of it
    up.wifi.carrier(True)
    bed.wait_endpoint(up.wifi.address)
    assert bed.service
    assert "held back" not in bed.service.log()


def test_that_a_new_link_was_not_up_yet_is_no_loss(bed: Bed) -> None:
    start_service(bed)
    links = Links(bed.uplink("wlan0", dhcp="10.1.0.0/24"), bed.uplink("wwan0", dhcp="10.2.0.0/24"))
    bed.profile("Wi-Fi", "wlan0")
    bed.profile("LTE", "wwan0")
    bed.up("Wi-Fi", "LTE")
    for link in (links.wifi, links.lte):
        bed.wait_endpoint(link.address)
    links.wifi.carrier(False)
    bed.wait_no_endpoint(links.wifi.address)
    time.sleep(EARLIEST_RETURN)  # as above
    links.wifi.carrier(True)
    bed.wait_endpoint(links.wifi.address)
    assert bed.service
    assert "held back" not in bed.service.log()


def test_the_only_link_is_not_held_back(bed: Bed, lone: Uplink) -> None:
    connection = Connection(bed.machine, SERVER)
    before = bed.endpoints()
    lone.flap(4)
    assert bed.status().path(lone.address)["state"] == "active"
    assert bed.endpoints() == before
    connection.echo()


@pytest.mark.may_be_late(reason="the losses have to come in quicker succession than their damping ends")
def test_a_link_held_back_comes_at_once_when_it_is_the_last(bed: Bed, up: Links) -> None:
    connection = over_both(bed, up)
    up.wifi.flap(6)
    assert bed.status().path(up.wifi.address)["rule"] == "held-back"
    up.lte.carrier(False)
    bed.wait_endpoint(up.wifi.address, seconds=3)
    connection.echo()


@pytest.mark.parametrize("seed", [1])
def test_a_hundred_random_flaps_end_where_they_began_and_the_transfer_is_whole(bed: Bed, up: Links, seed: int) -> None:
    chance = random.Random(seed)
    before = bed.endpoints()
    transfer = Transfer(bed)
    assert bed.service
    with Writes(bed, bed.service.program) as writes:
        for _ in range(100):
            link = chance.choice((up.wifi, up.lte))
            link.carrier(False)
            time.sleep(math.exp(chance.uniform(math.log(0.01), math.log(2))))  # the flap itself, no wait for anything
            link.carrier(True)
            time.sleep(chance.uniform(0.01, 0.2))
        assert transfer.end() == transfer.expected
        for link in (up.wifi, up.lte):
            wait_state(bed, link.address, "active", "flags-of-kind", seconds=60)
    assert [(it.address, it.device, it.flags) for it in sorted(bed.endpoints())] == [
        (it.address, it.device, it.flags) for it in sorted(before)
    ]
    over_both(bed, up).echo()
    # Held back at most of its returns; when the other one is lost meanwhile it has to come at once.
    assert writes.all.count("add endpoint") <= 60


class Transfer:
    """An upload of random bytes that goes on until :meth:`end`, and its checksum at both ends."""

    def __init__(self, bed: Bed) -> None:
        self._listener = bed.far.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        self._listener.bind((SERVER, 5005))
        self._listener.listen()
        self._client = bed.machine.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        self._client.settimeout(60)
        self._ended = False
        self._sent, self._received = hashlib.sha256(), hashlib.sha256()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._receive, self._send)]
        for thread in self._threads:
            thread.start()

    @property
    def expected(self) -> str:
        return self._sent.hexdigest()

    def end(self) -> str:
        """The checksum of what arrived."""
        self._ended = True
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "the transfer does not end"
        return self._received.hexdigest()

    def _send(self) -> None:
        chance = random.Random(0)
        with self._client:
            self._client.connect((SERVER, 5005))
            while not self._ended:
                block = chance.randbytes(1 << 13)
                self._client.sendall(block)
                self._sent.update(block)
                time.sleep(0.005)  # some 1.5 MB/s: the machine has other things to do

    def _receive(self) -> None:
        with self._listener, self._listener.accept()[0] as end:
            while data := end.recv(1 << 16):
                self._received.update(data)


# --- connectivity, as NetworkManager checks it

CHECKED = pytest.mark.bed(configuration=CHECKING)


@pytest.fixture
def check(bed: Bed) -> Iterator[CheckServer]:
    """The check's server, far away."""
    return CheckServer(bed)  # type: ignore[return-value]


@CHECKED
def test_a_new_path_behind_a_portal_is_held_back_and_joined_when_the_portal_opens(
    bed: Bed, links: Links, check: CheckServer
) -> None:
    EchoServer(bed.far)
    bed.machine.sysctl(**{"net.ipv4.tcp_syn_retries": "1"})
    check.portals = {"10.1."}
    bed.far.sh(
        "nft add table inet portal; nft 'add chain inet portal in { type filter hook input priority 0; }';"
        "nft add rule inet portal in ip saddr 10.1.0.0/16 tcp dport 5000 drop"
    )
    start_service(bed)
    bed.up("LTE")
    bed.wait_endpoint(links.lte.address)
    wait_connectivity(bed, "wwan0", "full")
    connection = Connection(bed.machine, SERVER)
    bed.up("Wi-Fi")
    wait_connectivity(bed, "wlan0", "portal")
    wait_for("it is held back", lambda: bed.status().path(links.wifi.address)["rule"] == "no-connectivity")
    shown = bed.status().path(links.wifi.address)
    assert shown["state"] in ("waiting", "suspended")
    assert "portal" in shown["reason"]
    assert "backup" in shown["flags"] or not bed.endpoint(links.wifi.address)
    wait_for(
        "no join is on its way any more",
        lambda: not bed.machine.run("ss", "-Htn", "state", "syn-sent", "dport = :5000").strip(),
    )
    bed.far.sh("nft delete table inet portal")
    check.portals = set()
    wait_connectivity(bed, "wlan0", "full")
    connection.wait_subflow(links.wifi.address)
    assert bed.wait_endpoint(links.wifi.address).flags == DEFAULT_FLAGS


@CHECKED
def test_a_path_that_falls_behind_a_portal_becomes_backup_and_nothing_is_cut(
    bed: Bed, up: Links, check: CheckServer
) -> None:
    for name in ("wlan0", "wwan0"):
        wait_connectivity(bed, name, "full")
    bed.sync()
    connection = over_both(bed, up)
    subflows, before = connection.subflows(), bed.wait_endpoint(up.wifi.address)
    check.portals = {"10.1."}
    wait_connectivity(bed, "wlan0", "portal")
    wait_state(bed, up.wifi.address, "suspended", "no-connectivity")
    now = bed.wait_endpoint(up.wifi.address)
    assert (now.id, now.flags) == (before.id, before.flags | {"backup"})
    check.portals = set()
    wait_connectivity(bed, "wlan0", "full")
    wait_state(bed, up.wifi.address, "active", "flags-of-kind")
    assert bed.wait_endpoint(up.wifi.address) == before
    assert connection.subflows() == subflows
    connection.echo()


@CHECKED
def test_an_outage_of_the_checks_own_server_costs_no_subflow(bed: Bed, up: Links, check: CheckServer) -> None:
    for name in ("wlan0", "wwan0"):
        wait_connectivity(bed, name, "full")
    bed.sync()
    connection = over_both(bed, up)
    subflows, before = connection.subflows(), bed.endpoints()
    check.close()
    wait_for("NetworkManager calls both limited", lambda: set(connectivity(bed).values()) >= {"limited"}, seconds=60)
    wait_for(
        "both are", lambda: [connectivity(bed)[name] for name in ("wlan0", "wwan0")] == ["limited"] * 2, seconds=60
    )
    bed.sync()
    assert bed.endpoints() == before
    assert connection.subflows() == subflows
    connection.echo()


@CHECKED
def test_the_only_link_is_a_path_also_behind_a_portal(bed: Bed, links: Links, check: CheckServer) -> None:
    check.portals = {"10.1."}
    start_service(bed)
    bed.up("Wi-Fi")
    wait_connectivity(bed, "wlan0", "portal")
    bed.sync()
    assert bed.wait_endpoint(links.wifi.address).flags == DEFAULT_FLAGS
    assert bed.status().path(links.wifi.address)["state"] == "active"


@CHECKED
@pytest.mark.usefixtures("lone")
def test_a_connectivity_flap_of_the_only_link_changes_nothing(bed: Bed, check: CheckServer) -> None:
    wait_connectivity(bed, "wlan0", "full")
    connection = Connection(bed.machine, SERVER)
    before, subflows = bed.endpoints(), connection.subflows()
    for portals, found in (({"10.1."}, "portal"), (set(), "full")):
        check.portals = portals
        wait_connectivity(bed, "wlan0", found)
        bed.sync()
        assert (bed.endpoints(), connection.subflows()) == (before, subflows)
    connection.echo()


# --- healing


def test_a_subflow_that_died_by_an_error_is_tried_again_and_no_other_is_cut(bed: Bed, up: Links) -> None:
    for namespace in (bed.machine, bed.far):
        namespace.sysctl(**{"net.ipv4.tcp_retries2": "3"})
    connection = over_both(bed, up)
    kept = {each for each in connection.subflows() if each[0] == up.lte.address}
    before = bed.wait_endpoint(up.wifi.address)
    bed.sh(
        "nft add table inet hole; nft 'add chain inet hole out { type filter hook output priority 0; }';"
        "nft 'add chain inet hole in { type filter hook input priority 0; }';"
        "nft add rule inet hole out oifname wlan0 tcp dport 5000 drop;"
        "nft add rule inet hole in iifname wlan0 tcp sport 5000 drop"
    )

    def died() -> bool:
        for _ in range(20):
            connection.echo(bytes(1 << 14))  # more than one subflow takes at once, so that the dead one gets its share
        return {local for local, _ in connection.subflows()} == {up.lte.address}

    wait_for("the subflow has died", died, seconds=60)
    endpoint = bed.wait_endpoint(up.wifi.address)
    assert (endpoint.device, endpoint.flags) == (before.device, before.flags)
    bed.sh("nft delete table inet hole")
    connection.wait_subflow(up.wifi.address, seconds=60)
    assert kept <= connection.subflows()
    connection.echo()


@pytest.mark.usefixtures("up")
def test_a_server_that_refuses_joins_is_not_asked_again_and_again(bed: Bed) -> None:
    connection = Connection(bed.machine, server_that_stops_listening(bed))
    assert bed.service
    with Writes(bed, bed.service.program) as writes:
        begin = time.monotonic()
        wait_for("some seconds pass", lambda: time.monotonic() > begin + 5)
    assert "delete endpoint" not in writes.all
    connection.echo()


# --- large tables


def test_a_loss_among_many_routes_and_addresses_is_acted_on_all_the_same(
    bed: Bed, up: Links, figures: dict[str, str]
) -> None:
    connection = over_both(bed, up)
    bed.far.run(
        "ip", "link", "add", "far-big", "type", "veth", "peer", "name", "big", "netns", str(bed.inner(bed.init))
    )
    bed.far.run("ip", "link", "set", "far-big", "up")
    bed.nmcli("device", "set", "big", "managed", "no")
    bed.sh("ip link set big up")
    addresses = [f"address add 10.200.{n // 250}.{n % 250 + 1}/32 dev big" for n in range(500)]
    routes = [f"route add 10.{100 + n // 2500}.{n // 10 % 250}.{n % 10 * 16}/28 dev big" for n in range(10_000)]
    batch = bed.directory / "batch"
    batch.write_text("\n".join([*addresses, *routes]) + "\n")
    bed.machine.run("ip", "-batch", str(batch))
    wait_for("all is there", lambda: len(bed.routes("main")) > 10_000, seconds=30)
    bed.sync()
    bed.sync()
    lost = _when_lost(bed, "wlan0")
    up.wifi.carrier(False)
    bed.wait_no_endpoint(up.wifi.address)
    figures["loss among 10,000 routes and 500 addresses, endpoint gone after"] = (
        f"{(time.monotonic() - lost()) * 1000:.0f} ms (looked at each 5 ms)"
    )
    wait_state(bed, up.wifi.address, "suspended", "no-carrier")
    connection.echo()
    up.wifi.carrier(True)
    bed.wait_endpoint(up.wifi.address)
    connection.wait_subflow(up.wifi.address)


def _when_lost(bed: Bed, interface: str) -> Callable[[], float]:
    """Gives a function that tells when the kernel told of the interface's next change."""
    index = int(bed.machine.ip("link", "show", "dev", interface)[0]["ifindex"])
    listener = bed.machine.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    listener.bind((0, 1))
    found: list[float] = []

    def listen() -> None:
        with listener:
            while not found:
                data = listener.recv(1 << 16)
                if int.from_bytes(data[20:24], "little") == index:
                    found.append(time.monotonic())

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()

    def when() -> float:
        thread.join(10)
        return found[0]

    return when
