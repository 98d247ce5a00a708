# SPDX-License-Identifier: GPL-2.0-or-later
"""What NetworkManager, the administrator and we ourselves may change under a connection that cannot move: it lives on.

Either its link is the only one, or its server takes no joins though there is a second link. Each way was tried with
NetworkManager alone first (``NM_MPTCP_ALONE=1`` runs those that need nothing of ours so): nothing is lost that it keeps.
One machine lives through several ways, one after the other; a way that leaves it otherwise than it was ends it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support.waits import wait_for
from .advertiser import Prefix
from .bed import PROTOCOL, SERVER, SERVER6, SYSCTLS, Bed, Namespace
from .conftest import skip_without_tools
from .traffic import Connection, EchoServer
from .uplinks import Uplink

#: With NetworkManager alone: what it keeps is the measure.
ALONE = bool(os.environ.get("NM_MPTCP_ALONE"))

#: Servers that take no joins: all addresses on a machine of their own.
DEAF, DEAF6 = "192.0.2.2", "2001:db8:ffff:2::2"

WIFI, WIFI6, LTE, LTE6 = "10.1.0.7", "2001:db8:1::7", "10.2.0.7", "2001:db8:2::7"


class Talk:
    """A connection on which something is said and answered all the time."""

    def __init__(self, namespace: Namespace, server: str) -> None:
        self._connection = Connection(namespace, server)
        self.server = server
        self._answers = 0
        self._ended: OSError | None = None
        self._quiet = threading.Event()
        threading.Thread(target=self._talk, daemon=True).start()

    def _talk(self) -> None:
        try:
            while not self._quiet.wait(0.05):
                self._connection.echo()
                self._answers += 1
        except OSError as error:
            self._ended = error

    def goes_on(self) -> bool:
        """Whether what is said from now on is answered."""
        before = self._answers
        with contextlib.suppress(AssertionError):
            wait_for("an answer", lambda: self._ended or self._answers > before + 1)
        return self._ended is None and self._answers > before + 1

    def end(self) -> None:
        """Hang up."""
        self._quiet.set()
        self._connection.close()


class World:
    """A machine with a Wi-Fi and an LTE link, both with addresses of both families, and the servers.

    ``automatic``: the Wi-Fi has its addresses by DHCP, renewed each second, and from a router; else all are fixed.
    """

    def __init__(self, directory: Path, installed: Path, *, automatic: bool) -> None:
        self.bed = bed = Bed(directory, installed=installed, product=not ALONE, dropin=not ALONE)
        self.spoilt = False
        self.wifi = self._automatic_link() if automatic else self._link("wlan0", "Wi-Fi", 1, metric=600)
        self.lte = self._link("wwan0", "LTE", 2, metric=700)
        EchoServer(bed.far)
        EchoServer(self._deaf_server())
        if not ALONE:
            bed.start_service()
        # With duplicate address detection, as everywhere.
        bed.machine.sysctl(**{f"net.ipv6.conf.wlan0.{name}": "1" for name in ("accept_dad", "dad_transmits")})
        bed.up("Wi-Fi")
        self.talks: list[Talk] = []

    def _link(self, name: str, profile: str, number: int, *, metric: int) -> Uplink:
        bed = self.bed
        network = bed.network(name, f"10.{number}.0.0/24", f"2001:db8:{number}::/64")
        network.add_address(f"10.{number}.0.2/24")
        link = bed.uplink(name, network)
        bed.profile(
            profile, name, "ipv4.method manual", f"ipv4.addresses 10.{number}.0.7/24", f"ipv4.gateway 10.{number}.0.1",
            "ipv6.method manual", f"ipv6.addresses 2001:db8:{number}::7/64", f"ipv6.gateway 2001:db8:{number}::1",
            f"ipv4.route-metric {metric}", f"ipv6.route-metric {metric}",
        )  # fmt: skip
        return link

    def _automatic_link(self) -> Uplink:
        network = self.bed.network("wlan0", "10.1.0.0/24", "2001:db8:1::/64")
        network.add_address("10.1.0.2/24")
        network.serve_short_leases()
        network.add_router()
        link = self.bed.uplink("wlan0", network)
        settings = ("ipv6.method auto", "ipv6.may-fail no", "ipv4.route-metric 600", "ipv6.route-metric 600")
        self.bed.profile("Wi-Fi", "wlan0", *settings)
        return link

    def _deaf_server(self) -> Namespace:
        namespace = self.bed.namespace("deaf", SYSCTLS)
        peer = str(self.bed.inner(namespace.pid))
        far = self.bed.far
        far.run("ip", "link", "add", "deaf", "type", "veth", "peer", "name", "eth0", "netns", peer)
        far.sh("ip link set deaf up; ip address add fe80::1/64 dev deaf nodad")
        far.sh(f"ip route add {DEAF}/32 dev deaf; ip route add {DEAF6}/128 dev deaf")
        far.sysctl(**{"net.ipv4.conf.deaf.proxy_arp": "1"})
        namespace.sh(
            f"ip address add {DEAF}/32 dev eth0; ip address add {DEAF6}/128 dev eth0 nodad; ip link set eth0 up"
        )
        namespace.sh("ip route add default dev eth0; ip route add default via fe80::1 dev eth0")
        namespace.sysctl(**{"net.mptcp.allow_join_initial_addr_port": "0"})
        return namespace

    def begin(self, *, second_link: bool) -> None:
        """Talk over the Wi-Fi: to servers that take no joins, and where it is the only link to others as well."""
        bed = self.bed
        if second_link:
            bed.up("LTE")
        wait_for("the address of the Wi-Fi is good", self.wifi.addresses)
        shown = bed.machine.ip("-4", "address", "show", "dev", "wlan0")[0]["addr_info"]
        for address in (shown[0]["local"], self.wifi.addresses()[0], *((LTE, LTE6) if second_link else ())):
            bed.wait_endpoint(address)
        self.sync()
        servers = (DEAF, DEAF6) if second_link else (DEAF, DEAF6, SERVER, SERVER6)
        self.talks = [Talk(bed.machine, server) for server in servers]
        for talk in self.talks:
            assert talk.goes_on()

    def lost(self) -> list[str]:
        """The servers of those talks that do not go on."""
        return [talk.server for talk in self.talks if not talk.goes_on()]

    def end(self) -> None:
        """Hang up, and take the second link down."""
        for talk in self.talks:
            talk.end()
        self.talks = []
        self.bed.attempt_nmcli("--wait", "10", "connection", "down", "LTE")
        # Whoever hung up while there was no way may not have been able to say it.
        self.bed.machine.attempt("ss", "-K", "dport", "=", ":5000")

    def sync(self) -> None:
        """Come back when the service has acted on all that happened, where there is one."""
        if self.bed.service and self.bed.service.running:
            self.bed.sync()

    def pass_time(self, seconds: float) -> None:
        """Nothing happens for so long: that is the event."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))


# --- the ways: what is done, and after the yield, when the talks were looked at, what puts it back

Way = Callable[[World], Iterator[None]]
WAYS: dict[str, Way] = {}

#: Ways that leave the machine otherwise than they found it.
SPOILING: set[str] = set()

#: Ways that need something of ours.
OURS: set[str] = set()

#: Ways that need a link with DHCP and a router, and those that are tried there as well.
AUTOMATIC: set[str] = set()
ALSO_AUTOMATIC = ("reapply_of_dns", "the_interface_is_set_down_and_up", "the_cable_is_out_for_a_moment", "not_managed")


def way(*, spoils: bool = False, ours: bool = False, automatic: bool = False) -> Callable[[Way], Way]:
    def note(function: Way) -> Way:
        name = function.__name__
        WAYS[name] = function
        SPOILING.update({name} if spoils else ())
        OURS.update({name} if ours else ())
        AUTOMATIC.update({name} if automatic else ())
        return function

    return note


# what NetworkManager does


@way()
def reapply_of_dns(world: World) -> Iterator[None]:
    world.bed.modify("Wi-Fi", "ipv4.dns 192.0.2.53", "ipv6.dns 2001:db8::53")
    world.bed.reapply("wlan0")
    yield
    world.bed.modify("Wi-Fi", "ipv4.dns ", "ipv6.dns ")
    world.bed.reapply("wlan0")


@way()
def one_more_address(world: World) -> Iterator[None]:
    world.bed.modify("Wi-Fi", f"ipv6.addresses 2001:db8:1::8/64,{WIFI6}/64", f"ipv4.addresses 10.1.0.8/24,{WIFI}/24")
    world.bed.reapply("wlan0")
    yield
    world.bed.modify("Wi-Fi", f"ipv6.addresses {WIFI6}/64", f"ipv4.addresses {WIFI}/24")
    world.bed.reapply("wlan0")


@way()
def another_route_metric(world: World) -> Iterator[None]:
    world.bed.nmcli("device", "modify", "wlan0", "ipv4.route-metric", "50", "ipv6.route-metric", "50")
    yield
    world.bed.nmcli("device", "modify", "wlan0", "ipv4.route-metric", "600", "ipv6.route-metric", "600")


@way()
def a_worse_route_metric(world: World) -> Iterator[None]:
    world.bed.nmcli("device", "modify", "wlan0", "ipv4.route-metric", "900", "ipv6.route-metric", "900")
    yield
    world.bed.nmcli("device", "modify", "wlan0", "ipv4.route-metric", "600", "ipv6.route-metric", "600")


@way()
def never_default_and_back(world: World) -> Iterator[None]:
    never = ("ipv4.never-default", "yes", "ipv6.never-default", "yes")
    again = ("ipv4.never-default", "no", "ipv4.gateway", "10.1.0.1")
    again6 = ("ipv6.never-default", "no", "ipv6.gateway", "2001:db8:1::1")
    for settings in (never, (*again, *again6)):
        world.bed.nmcli("device", "modify", "wlan0", *settings)
        world.sync()
        world.pass_time(0.3)
    yield


@way()
def another_gateway(world: World) -> Iterator[None]:
    world.bed.nmcli("device", "modify", "wlan0", "ipv4.gateway", "10.1.0.2")
    yield
    world.bed.nmcli("device", "modify", "wlan0", "ipv4.gateway", "10.1.0.1")


@way()
def metered(world: World) -> Iterator[None]:
    world.bed.modify("Wi-Fi", "connection.metered yes")
    world.bed.reapply("wlan0")
    world.pass_time(0.3)
    yield
    world.bed.modify("Wi-Fi", "connection.metered unknown")
    world.bed.reapply("wlan0")


@way()
def another_mtu(world: World) -> Iterator[None]:
    world.bed.modify("Wi-Fi", "ethernet.mtu 1400")
    world.bed.reapply("wlan0")
    yield
    world.bed.modify("Wi-Fi", "ethernet.mtu 0")
    world.bed.reapply("wlan0")


@way(spoils=True)
def not_managed(world: World) -> Iterator[None]:
    world.bed.nmcli("device", "set", "wlan0", "managed", "no")
    world.pass_time(1.5)
    yield


@way()
def restart_of_networkmanager(world: World) -> Iterator[None]:
    world.bed.stop_networkmanager()
    world.bed.start_networkmanager()
    yield


@way(spoils=True)
def restart_of_networkmanager_without_its_state(world: World) -> Iterator[None]:
    world.bed.stop_networkmanager()
    shutil.rmtree(world.bed.path("/run/NetworkManager"))
    world.bed.path("/run/NetworkManager").mkdir()
    world.bed.start_networkmanager()
    world.pass_time(1.5)
    yield


@way()
def kill_of_networkmanager(world: World) -> Iterator[None]:
    world.bed.networkmanager.stop(signal.SIGKILL)
    world.pass_time(0.3)
    world.bed.start_networkmanager()
    yield


@way()
def networkmanager_answers_late(world: World) -> Iterator[None]:
    """It stands still while a link goes and comes, and is asked for what it has applied meanwhile."""
    world.bed.networkmanager.send(signal.SIGSTOP)
    world.wifi.carrier(False)
    world.pass_time(0.4)
    world.wifi.carrier(True)
    world.pass_time(3)
    world.bed.networkmanager.go_on()
    world.pass_time(0.5)
    yield


@way(spoils=True)
def we_start_while_networkmanager_does_not_answer(world: World) -> Iterator[None]:
    if world.bed.service:
        world.bed.service.kill()
    world.bed.networkmanager.send(signal.SIGSTOP)
    if world.bed.service:
        world.bed.start_service(wait=False)
    world.pass_time(6)
    world.bed.networkmanager.go_on()
    world.pass_time(0.5)
    yield


@way()
def a_second_link_comes_and_goes(world: World) -> Iterator[None]:
    was_up = "wwan0:connected" in world.bed.nmcli("-t", "-f", "DEVICE,STATE", "device")
    for _ in range(2):
        (world.bed.down if was_up else world.bed.up)("LTE")
        was_up = not was_up
        world.sync()
    yield


@way(spoils=True)
def a_dock_with_a_better_link(world: World) -> Iterator[None]:
    dock = world.bed.uplink("eth0", static="10.3.0.0/24")
    world.bed.profile(
        "Dock", "eth0", "ipv4.method manual", f"ipv4.addresses {dock.network.host(7)}/24",
        f"ipv4.gateway {dock.gateway}", "ipv4.route-metric 100",
    )  # fmt: skip
    world.bed.up("Dock")
    world.bed.wait_endpoint(dock.network.host(7))
    world.sync()
    yield


@way()
def reload_of_networkmanagers_configuration(world: World) -> Iterator[None]:
    world.bed.configure("60-more.conf", "[connection-more]\nconnection.llmnr=0\n")
    yield
    world.bed.configure("60-more.conf", "")


@way()
def the_cable_is_out_for_a_moment(world: World) -> Iterator[None]:
    world.wifi.carrier(False)
    world.pass_time(0.5)
    world.wifi.carrier(True)
    yield


@way()
def the_cable_is_out_for_two_seconds(world: World) -> Iterator[None]:
    world.wifi.carrier(False)
    world.pass_time(2)
    world.wifi.carrier(True)
    yield


# what a router or a DHCP server does


@way(automatic=True)
def leases_are_renewed(world: World) -> Iterator[None]:
    world.pass_time(2.5)
    yield


@way(automatic=True)
def leases_name_no_router_for_a_while(world: World) -> Iterator[None]:
    world.wifi.network.leased_router = None
    wait_for("the default route is gone", lambda: not default_routes(world, "-4"))
    world.sync()
    world.wifi.network.leased_router = world.wifi.network.gateway
    wait_for("the default route is back", lambda: default_routes(world, "-4"))
    yield


@way(automatic=True)
def leases_name_another_router(world: World) -> Iterator[None]:
    world.wifi.network.leased_router = "10.1.0.2"
    wait_for("there is another default route", lambda: default_routes(world, "-4") == ["10.1.0.2"])
    world.sync()
    yield
    world.wifi.network.leased_router = world.wifi.network.gateway
    wait_for("the default route is back", lambda: default_routes(world, "-4") == [world.wifi.network.gateway])


@way(automatic=True)
def a_router_that_is_none_for_a_while(world: World) -> Iterator[None]:
    router = world.wifi.network.routers[0]
    router.advertise(lifetime=0)
    wait_for("the default route is gone", lambda: not default_routes(world, "-6"))
    world.sync()
    router.advertise(lifetime=1800)
    wait_for("the default route is back", lambda: default_routes(world, "-6"))
    yield


@way(automatic=True, spoils=True)
def a_new_prefix(world: World) -> Iterator[None]:
    network = world.wifi.network
    network.add_prefix("2001:db8:9::/64")
    network.routers[0].advertise(prefixes=(Prefix("2001:db8:1::/64"), Prefix("2001:db8:9::/64")))
    wait_for("an address in it", lambda: len(world.wifi.addresses()) > 1)
    world.sync()
    yield


@way(automatic=True, spoils=True)
def a_prefix_on_its_way_out(world: World) -> Iterator[None]:
    network = world.wifi.network
    network.add_prefix("2001:db8:9::/64")
    prefixes = (Prefix("2001:db8:1::/64", preferred=0), Prefix("2001:db8:9::/64"))
    network.routers[0].advertise(prefixes=prefixes)
    wait_for(
        "an address in the new one alone", lambda: [each[:11] for each in world.wifi.addresses()] == ["2001:db8:9:"]
    )
    world.sync()
    yield


@way(automatic=True)
def another_mtu_of_the_router(world: World) -> Iterator[None]:
    world.wifi.network.routers[0].advertise(mtu=1400)
    world.pass_time(0.5)
    yield
    world.wifi.network.routers[0].advertise(mtu=1500)


def default_routes(world: World, family: str) -> list[str]:
    """The gateways that the Wi-Fi's default routes name."""
    shown = world.bed.machine.ip(family, "route", "show", "default", "dev", "wlan0")
    return [route["gateway"] for route in shown if route.get("protocol") != PROTOCOL]


# what an administrator does


@way()
def the_interface_is_set_down_and_up(world: World) -> Iterator[None]:
    world.bed.sh("ip link set wlan0 down")
    world.pass_time(0.5)
    world.bed.sh("ip link set wlan0 up")
    yield


@way()
def the_default_route_is_deleted_and_added_again(world: World) -> Iterator[None]:
    world.bed.sh("ip route del default dev wlan0; ip -6 route del default dev wlan0")
    world.sync()
    world.pass_time(0.5)
    world.bed.sh("ip route add default via 10.1.0.1 dev wlan0 metric 600 proto static")
    world.bed.sh("ip -6 route add default via 2001:db8:1::1 dev wlan0 metric 600 proto static")
    yield


@way()
def an_address_is_deprecated(world: World) -> Iterator[None]:
    world.bed.sh(f"ip address change {WIFI6}/64 dev wlan0 preferred_lft 0 valid_lft forever")
    world.sync()
    yield
    world.bed.sh(f"ip address change {WIFI6}/64 dev wlan0 preferred_lft forever valid_lft forever")


@way()
def an_address_is_added_by_hand(world: World) -> Iterator[None]:
    world.bed.sh("ip address add 10.1.0.99/24 dev wlan0; ip address add 2001:db8:1::99/64 dev wlan0 nodad")
    world.sync()
    yield
    world.bed.sh("ip address del 10.1.0.99/24 dev wlan0; ip address del 2001:db8:1::99/64 dev wlan0")


@way()
def mptcp_is_off_by_sysctl_for_a_moment(world: World) -> Iterator[None]:
    world.bed.machine.sysctl(**{"net.mptcp.enabled": "0"})
    world.sync()
    world.pass_time(0.3)
    world.bed.machine.sysctl(**{"net.mptcp.enabled": "1"})
    world.sync()
    yield


@way()
def limits_by_hand(world: World) -> Iterator[None]:
    world.bed.sh("ip mptcp limits set subflows 0 add_addr_accepted 0")
    world.sync()
    yield
    world.bed.sh("ip mptcp limits set subflows 8 add_addr_accepted 8")


@way(ours=True)
def our_rules_are_flushed(world: World) -> Iterator[None]:
    for family in ("-4", "-6"):
        world.bed.machine.attempt("ip", family, "rule", "flush", "protocol", "77")  # while we put them back
    world.pass_time(0.3)
    world.sync()
    yield


@way(ours=True)
def our_tables_are_flushed(world: World) -> Iterator[None]:
    world.bed.sh("ip route flush table all proto 77; ip -6 route flush table all proto 77")
    world.pass_time(0.3)
    world.sync()
    yield


@way()
def flags_of_the_endpoint_are_edited(world: World) -> Iterator[None]:
    for address in (WIFI, WIFI6):
        world.bed.sh(f"ip mptcp endpoint change id {world.bed.wait_endpoint(address).id} backup")
    world.sync()
    yield
    for address in (WIFI, WIFI6):
        world.bed.sh(f"ip mptcp endpoint change id {world.bed.wait_endpoint(address).id} nobackup")


@way(spoils=True)
def the_interface_gets_another_name(world: World) -> Iterator[None]:
    world.bed.sh("ip link set wlan0 name wlan9")
    world.pass_time(1)
    yield


# what we do


@way(ours=True)
def each_mode(world: World) -> Iterator[None]:
    for mode in ("handover", "aggregate", "off", "auto"):
        world.bed.nm_mptcp("mode", mode)
        world.pass_time(0.2)
    yield


@way(ours=True)
def mode_off(world: World) -> Iterator[None]:
    world.bed.nm_mptcp("mode", "off")
    world.sync()
    yield
    world.bed.nm_mptcp("mode", "--reset")


def configure(world: World, text: str) -> None:
    world.bed.write("/run/nm-mptcp/conf.d/60-test.conf", text, 0o644)
    world.bed.sh("dbus-send --system --print-reply --dest=org.nm_mptcp1 /org/nm_mptcp1 org.nm_mptcp1.Reload")
    world.sync()


@way(ours=True)
def another_configuration(world: World) -> Iterator[None]:
    configure(world, "[path-mine]\nmatch-device=interface-name:wlan0\nflags=subflow,backup,laminar\n")
    configure(world, "[path-mine]\nmatch-device=interface-name:wlan0\nmetered=exclude\nassume-metered=yes\n")
    yield
    configure(world, "")


@way(ours=True)
def our_restart(world: World) -> Iterator[None]:
    assert world.bed.service
    world.bed.service.stop()
    world.bed.start_service()
    yield


@way(ours=True)
def our_sudden_death(world: World) -> Iterator[None]:
    assert world.bed.service
    world.bed.service.kill()
    world.bed.modify("Wi-Fi", "ipv4.dns 192.0.2.54")
    world.bed.reapply("wlan0")
    world.bed.start_service()
    yield


@way(ours=True)
def our_restart_while_the_interface_is_down(world: World) -> Iterator[None]:
    assert world.bed.service
    world.bed.service.kill()
    world.bed.sh("ip link set wlan0 down")
    world.bed.start_service()
    world.pass_time(0.3)
    world.bed.sh("ip link set wlan0 up")
    yield


@way(ours=True)
def clear(world: World) -> Iterator[None]:
    world.bed.nm_mptcp("clear")
    world.pass_time(0.3)
    yield
    world.bed.nm_mptcp("apply")


@way(ours=True)
def clear_without_the_service(world: World) -> Iterator[None]:
    assert world.bed.service
    world.bed.service.stop()
    world.bed.nm_mptcp("clear")
    world.pass_time(0.3)
    yield
    world.bed.start_service()


@way(ours=True)
def apply_without_the_service(world: World) -> Iterator[None]:
    assert world.bed.service
    world.bed.service.stop()
    world.bed.nm_mptcp("apply")
    world.bed.reapply("wlan0")
    world.bed.nm_mptcp("apply")
    yield
    world.bed.start_service()


@pytest.fixture(scope="module")
def worlds(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bool], World]]:
    """Gives a world (automatic or not) that nothing has happened to, or nothing that was not put back."""
    made: dict[bool, World] = {}

    def world(automatic: bool) -> World:
        known = made.get(automatic)
        if known is None or known.spoilt:
            if known:
                known.bed.stop()
            known = made[automatic] = World(tmp_path_factory.mktemp("ways"), installed, automatic=automatic)
        return known

    skip_without_tools()
    yield world
    for each in made.values():
        each.bed.stop()


TRIED = [(name, name in AUTOMATIC) for name in WAYS] + [(name, True) for name in ALSO_AUTOMATIC]


@pytest.mark.parametrize("links", ["lone", "two"])
@pytest.mark.parametrize(
    ("name", "automatic"),
    [pytest.param(*each, id=each[0] + "-auto" * each[1]) for each in TRIED if not (ALONE and each[0] in OURS)],
)
def test_what_cannot_move_lives_on(worlds: Callable[[bool], World], name: str, automatic: bool, links: str) -> None:
    world = worlds(automatic)
    world.spoilt = True
    world.begin(second_link=links == "two")
    steps = WAYS[name](world)
    next(steps)
    world.sync()
    lost = world.lost()
    if lost:
        told = "\n".join(f"--- {title}\n{text}" for title, text in world.bed.story().items())
        pytest.fail(f"{name}: lost {', '.join(lost)}\n{told}")
    next(steps, None)
    world.end()
    world.spoilt = name in SPOILING
