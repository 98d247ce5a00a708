# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses that routers give: privacy addresses, prefixes that change, addresses on their way out."""

from __future__ import annotations

import ipaddress
import threading

import pytest

from ..support.waits import wait_for
from .advertiser import Advertisement, Prefix
from .bed import SERVER6, Bed
from .kernel_view import PathManager
from .observe import Writes
from .traffic import Connection, EchoServer
from .uplinks import Uplink

OLD, NEW = "2001:db8:1::/64", "2001:db8:9::/64"


def within(prefix: str) -> object:
    """Whether an address lies in the prefix."""
    return lambda address: ipaddress.ip_address(address) in ipaddress.ip_network(prefix)


@pytest.fixture
def wifi(bed: Bed) -> Uplink:
    """Service running, a Wi-Fi with privacy addresses up."""
    EchoServer(bed.far)
    bed.start_service()
    uplink = bed.uplink("wlan0", ra=OLD)
    bed.profile("Wi-Fi", "wlan0", "ipv4.method disabled", "ipv6.method auto", "ipv6.ip6-privacy 2", "ipv6.may-fail no")
    bed.up("Wi-Fi")
    bed.wait_endpoint(uplink.address6())
    bed.sync()
    return uplink


def test_privacy_addresses_give_one_path_by_the_stable_address(bed: Bed, wifi: Uplink) -> None:
    stable = wifi.address6()
    temporary = wait_for("a privacy address", lambda: set(wifi.addresses(without=())) - {stable})
    bed.sync()
    assert [each.address for each in bed.endpoints()] == [stable]
    for address in temporary:
        # Connections begin on it, so it has to leave by its own link like the stable one.
        assert bed.default_of(address)["dev"] == "wlan0"
        path = bed.status().path(address)
        assert path["state"] == "excluded"
        assert "temporary" in path["reason"] or "privacy" in path["reason"]


def test_link_local_and_unique_local_addresses_are_no_paths(bed: Bed, wifi: Uplink) -> None:
    network = wifi.network
    network.routers[0].advertise(prefixes=(Prefix(OLD), Prefix("fd00:1::/64")))
    local = wifi.address6(satisfying=within("fd00:1::/64"))
    bed.sync()
    assert {each.address for each in bed.endpoints()} == {wifi.address6(satisfying=within(OLD))}
    assert bed.status().path(local)["state"] == "excluded"


def test_a_prefix_change_moves_the_path_and_there_is_always_one(bed: Bed, wifi: Uplink) -> None:
    assert bed.service
    old = wifi.address6()
    connection = Connection(bed.machine, SERVER6, source=old)
    wifi.network.add_prefix(NEW)
    without = 0
    ended = threading.Event()
    look = PathManager(bed.machine.pid)
    bed.at_end(look.close)

    def watch() -> None:
        nonlocal without
        while not ended.is_set():
            without += not look.endpoints()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with Writes(bed, bed.service.program) as writes:
            wifi.network.routers[0].advertise(prefixes=(Prefix(OLD, preferred=0), Prefix(NEW)))
            new = wifi.address6(satisfying=within(NEW))
            wait_for("the path is the new one", lambda: bed.endpoint(new), every=0.1)
            connection.wait_subflow(new)
            wifi.network.routers[0].advertise(prefixes=(Prefix(OLD, valid=0, preferred=0), Prefix(NEW)))
            wait_for("the old path is gone", lambda: not bed.endpoint(old), seconds=15, every=0.1)
    finally:
        ended.set()
        watcher.join()
    assert not without
    order = [write for write in writes.all if write.endswith("endpoint")]
    assert order.index("add endpoint") < order.index("delete endpoint")
    connection.echo()
    bed.sync()
    assert [each.address for each in bed.endpoints()] == [new]
    assert bed.rules(new)


def test_a_deprecated_address_gets_no_new_path(bed: Bed) -> None:
    bed.without_dispatcher_scripts()
    network = bed.network("wlan0", prefix6=OLD)
    network.add_router(Advertisement((Prefix(OLD, preferred=0), Prefix(NEW))))
    network.add_prefix(NEW)
    wifi = bed.uplink("wlan0", network)
    bed.profile("Wi-Fi", "wlan0", "ipv4.method disabled", "ipv6.method auto", "ipv6.may-fail no")
    bed.up("Wi-Fi")
    new = wifi.address6(satisfying=within(NEW))
    # NetworkManager rounds up: the address is preferred for one second first.
    wait_for("the other is deprecated", lambda: wifi.addresses() == [new])
    (old,) = set(wifi.addresses(without=())) - {new}
    bed.start_service()
    bed.wait_endpoint(new)
    bed.sync()
    assert {each.address for each in bed.endpoints()} == {new}
    path = bed.status().path(old)
    assert path["state"] == "excluded"
    assert "deprecated" in path["reason"]


def test_a_deprecated_address_in_use_stays_until_its_replacement_works(bed: Bed, wifi: Uplink) -> None:
    old = wifi.address6()
    before = bed.wait_endpoint(old)
    connection = Connection(bed.machine, SERVER6, source=old)
    subflows = connection.subflows()
    wifi.network.routers[0].advertise(prefixes=(Prefix(OLD, preferred=0),))
    wait_for("the address is deprecated", lambda: old not in wifi.addresses())
    bed.sync()
    assert bed.endpoint(old) == before
    assert len(bed.rules(old)) == 4
    assert connection.subflows() == subflows
    assert bed.status().path(old)["state"] == "active"
    wifi.network.add_prefix(NEW)
    wifi.network.routers[0].advertise(prefixes=(Prefix(OLD, preferred=0), Prefix(NEW)))
    new = wifi.address6(satisfying=within(NEW))
    connection.wait_subflow(new)
    bed.wait_no_endpoint(old)
    connection.echo()


def test_a_router_that_withdraws_takes_the_path_along(bed: Bed, wifi: Uplink) -> None:
    other = bed.uplink("wwan0", ra="2001:db8:2::/64")
    bed.profile("LTE", "wwan0", "ipv4.method disabled", "ipv6.method auto", "ipv6.may-fail no")
    bed.up("LTE")
    bed.wait_endpoint(other.address6())
    address = wifi.address6()
    wifi.network.routers[0].advertise(lifetime=0)
    bed.wait_no_endpoint(address)
    wifi.network.routers[0].advertise(lifetime=1800)
    bed.wait_endpoint(address)


def test_the_only_path_is_kept_when_its_router_withdraws(bed: Bed, wifi: Uplink) -> None:
    before = bed.wait_endpoint(wifi.address6())
    wifi.network.routers[0].advertise(lifetime=0)
    wait_for("no default route", lambda: not bed.machine.ip("-6", "route", "show", "default"))
    bed.sync()
    wifi.network.routers[0].advertise(lifetime=1800)
    bed.sync()
    assert bed.endpoint(before.address) == before


def test_a_routers_preference_and_mtu_are_copied(bed: Bed) -> None:
    bed.start_service()
    network = bed.network("wlan0", prefix6=OLD)
    router = network.add_router()
    wifi = bed.uplink("wlan0", network)
    bed.profile("Wi-Fi", "wlan0", "ipv4.method disabled", "ipv6.method auto", "ipv6.may-fail no")
    bed.up("Wi-Fi")
    address = wifi.address6()
    bed.wait_endpoint(address)
    router.advertise(preference="high", routes=(("2001:db8:77::/48", 1800),))

    def facts(table: int | str) -> set[tuple[str, str | None, str | None]]:
        return {
            (route["dst"], route.get("gateway"), route.get("pref"))
            for route in bed.routes(table, "-6")
            if route.get("gateway")
        }

    wait_for("NetworkManager has it", lambda: {"high"} == {each[2] for each in facts("main") if each[0] == "default"})
    wait_for("so have we", lambda: facts(bed.table_of(address)) == facts("main"))
    assert any(each[0] == "2001:db8:77::/48" for each in facts("main"))


# --- which of them are paths: ipv6-address=


SETTINGS = "/run/nm-mptcp/conf.d/50-test.conf"

#: Privacy addresses that are followed by the next one after a few seconds, instead of a day.
SHORT_LIVED = {
    "net.ipv6.conf.wlan0.temp_prefered_lft": "10",
    "net.ipv6.conf.wlan0.temp_valid_lft": "600",
    "net.ipv6.conf.wlan0.max_desync_factor": "0",
    "net.ipv6.conf.wlan0.dad_transmits": "1",
}


def choose(bed: Bed, which: str) -> None:
    """Set ``ipv6-address`` and have the service, if it runs, read it."""
    bed.write(SETTINGS, f"[path-x]\nipv6-address={which}\n")
    if bed.service:
        where = ["--dest=org.nm_mptcp1", "/org/nm_mptcp1", "org.nm_mptcp1.Reload"]
        bed.machine.run("dbus-send", "--system", "--print-reply", *where)


def endpoint_writes(writes: Writes) -> list[str]:
    return [write for write in writes.all if write.endswith("endpoint")]


def paths_are(bed: Bed, wifi: Uplink, which: str) -> bool:
    """Whether the endpoints are those of the preferred addresses of one kind."""
    preferred, stable = set(wifi.addresses(without=("deprecated",))), set(wifi.addresses())
    wanted = {"stable": stable, "temporary": preferred - stable, "all": preferred}[which]
    return bool(wanted) and {each.address for each in bed.endpoints()} == wanted


def test_another_choice_makes_the_new_path_before_it_takes_the_old_one(bed: Bed, wifi: Uplink) -> None:
    assert bed.service
    connection = Connection(bed.machine, SERVER6, source=wifi.address6())
    for which, order in (
        ("temporary", ["add endpoint", "delete endpoint"]),
        ("all", ["add endpoint"]),
        ("stable", ["delete endpoint"]),
    ):
        with Writes(bed, bed.service.program) as writes:
            choose(bed, which)
            wait_for(f"{which} addresses are paths", lambda which=which: paths_are(bed, wifi, which))
            bed.sync()
        assert endpoint_writes(writes) == order
        connection.echo()
        for local, _ in connection.subflows():
            assert bed.default_of(local)["dev"] == "wlan0"
    stable = wifi.address6()
    choose(bed, "temporary")
    wait_for("it is excluded", lambda: bed.status().path(stable)["rule"] == "stable")
    assert SETTINGS in bed.status().path(stable)["reason"]


def test_a_connection_keeps_the_unchosen_address_until_it_has_another(bed: Bed, wifi: Uplink) -> None:
    bed.far.sysctl(**{"net.mptcp.allow_join_initial_addr_port": "0"})
    stable = wifi.address6()
    connection = Connection(bed.machine, SERVER6, source=stable)
    subflows = connection.subflows()
    choose(bed, "temporary")
    (temporary,) = set(wifi.addresses(without=("deprecated",))) - {stable}
    bed.wait_endpoint(temporary)
    shown = bed.status().path(stable)
    assert (shown["state"], shown["rule"]) == ("active", "kept-until-replaced")
    assert connection.subflows() == subflows
    connection.echo()
    connection.close()
    bed.wait_no_endpoint(stable)


def test_a_temporary_address_is_followed_by_the_next_one_and_a_stream_goes_on(bed: Bed) -> None:
    EchoServer(bed.far)
    bed.without_dispatcher_scripts()
    wifi = bed.uplink("wlan0", ra=OLD)
    bed.machine.sysctl(**SHORT_LIVED)
    choose(bed, "temporary")
    service = bed.start_service()
    bed.profile("Wi-Fi", "wlan0", "ipv4.method disabled", "ipv6.method auto", "ipv6.ip6-privacy 2", "ipv6.may-fail no")
    bed.up("Wi-Fi")
    stable = wifi.address6()
    (first,) = wait_for("a privacy address", lambda: set(wifi.addresses(without=("tentative",))) - {stable})
    bed.wait_endpoint(first)
    bed.sync()
    connection = Connection(bed.machine, SERVER6, source=first)
    with Writes(bed, service.program) as writes:
        wait_for("the first is deprecated", lambda: first not in wifi.addresses(without=("deprecated",)), seconds=30)
        (second, *_) = set(wifi.addresses(without=("deprecated",))) - {stable}
        connection.wait_subflow(second)
        bed.wait_no_endpoint(first)
        bed.sync()
    assert endpoint_writes(writes)[:2] == ["add endpoint", "delete endpoint"]
    connection.echo()
    assert first not in {local for local, _ in connection.subflows()}
    shown = bed.status().path(first)
    assert (shown["state"], shown["rule"]) == ("excluded", "deprecated")
