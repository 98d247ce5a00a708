# SPDX-License-Identifier: GPL-2.0-or-later
"""Twelve links where the kernel takes eight endpoints: the right ones, and nobody's connection pays for it."""

from __future__ import annotations

import pytest

from ..support.waits import wait_for
from .advertiser import Prefix
from .bed import DEFAULT_FLAGS, SERVER, Bed
from .observe import Writes
from .traffic import Connection, EchoServer
from .uplinks import Uplink

LINKS, SLOTS = 12, 8

LEFT_OUT = "left out: the kernel takes 8 endpoints, all used by better paths"


def number_of(link: Uplink) -> int:
    return int(link.name.removeprefix("eth"))


def address_of(link: Uplink) -> str:
    return link.network.host(2)


def plug_in(bed: Bed, number: int, *settings: str, metric: int | None = None) -> Uplink:
    """Link ``number``, the better the lower; its profile is not up yet."""
    link = bed.uplink(f"eth{number}", static=f"10.{number}.0.0/24")
    bed.profile(
        link.name, link.name, "ipv4.method manual", f"ipv4.addresses {address_of(link)}/24",
        f"ipv4.gateway {link.gateway}", f"ipv4.route-metric {metric or 100 + number}", *settings,
    )  # fmt: skip
    return link


def holders(bed: Bed) -> set[str]:
    """The addresses that have an endpoint."""
    return {each.address for each in bed.endpoints()}


def endpoint_writes(writes: Writes) -> list[str]:
    return [write for write in writes.all if "endpoint" in write or "flags" in write]


def wait_holders(bed: Bed, links: list[Uplink], *, seconds: float = 15) -> None:
    """Wait until these links, and no others, have an endpoint."""
    wanted = set(map(address_of, links))
    wait_for(f"endpoints on {sorted(wanted)}", lambda: holders(bed) == wanted, seconds=seconds)


def is_left_out(bed: Bed, link: Uplink) -> bool:
    path = bed.status().path(address_of(link))
    return (path["state"], path["rule"], path["reason"], path["endpoint_id"]) == ("excluded", "no-slot", LEFT_OUT, None)


@pytest.fixture
def twelve(bed: Bed) -> list[Uplink]:
    """All up, best first; an echo server listens."""
    if bed.machine.attempt("ip", "mptcp", "limits", "set", "subflows", "9").returncode == 0:
        pytest.skip("this kernel takes more than eight endpoints")
    EchoServer(bed.far)
    bed.far.run("ip", "mptcp", "limits", "set", "subflows", "8")
    bed.without_dispatcher_scripts()
    links = [plug_in(bed, number) for number in range(1, LINKS + 1)]
    bed.start_service()
    for link in links:
        bed.nmcli("--wait", "0", "connection", "up", link.name)
    wait_for(
        "all are up",
        lambda: bed.nmcli("-g", "STATE", "connection", "show", "--active").split().count("activated") >= LINKS,
        seconds=30,
    )
    wait_holders(bed, links[:SLOTS])
    bed.sync()
    return links


def test_the_eight_best_have_endpoints_and_the_others_say_why_not(bed: Bed, twelve: list[Uplink]) -> None:
    assert bed.service
    for link in twelve[:SLOTS]:
        path = bed.status().path(address_of(link))
        assert (path["state"], path["owner"]) == ("active", "nm-mptcp")
        assert bed.wait_endpoint(address_of(link)).device == link.name
    for link in twelve[SLOTS:]:
        assert is_left_out(bed, link)
        # What begins there leaves by it all the same.
        assert bed.default_of(address_of(link))["dev"] == link.name
    with Writes(bed, bed.service.program) as writes:
        bed.modify("eth12", "connection.zone public")
        bed.reapply("eth3")
        bed.reapply("eth11")
        for _ in range(3):
            bed.sync()
    assert writes.all == []


def test_a_lost_links_slot_goes_to_the_next_path_and_back(bed: Bed, twelve: list[Uplink]) -> None:
    assert bed.service
    connection = Connection(bed.machine, SERVER)
    with Writes(bed, bed.service.program) as writes:
        twelve[2].carrier(False)
        wait_holders(bed, [*twelve[:2], *twelve[3 : SLOTS + 1]])
        assert bed.status().path(address_of(twelve[2]))["state"] == "suspended"
        connection.wait_subflow(address_of(twelve[SLOTS]))
        twelve[2].carrier(True)
        wait_holders(bed, twelve[:SLOTS])
        assert is_left_out(bed, twelve[SLOTS])
        twelve[SLOTS + 1].carrier(False)  # one that has none anyway
        wait_for("it is known", lambda: bed.status().path(address_of(twelve[SLOTS + 1]))["state"] == "suspended")
        twelve[SLOTS + 1].carrier(True)
        wait_for("it is left out again", lambda: is_left_out(bed, twelve[SLOTS + 1]))
        bed.sync()
    assert endpoint_writes(writes) == ["delete endpoint", "add endpoint"] * 2
    connection.wait_subflow(address_of(twelve[2]))
    connection.echo()


def test_a_link_that_flaps_ends_where_it_belongs_and_connections_live(bed: Bed, twelve: list[Uplink]) -> None:
    assert bed.service
    connection = Connection(bed.machine, SERVER)
    with Writes(bed, bed.service.program) as writes:
        for _ in range(10):
            twelve[0].carrier(False)
            connection.echo()
            twelve[0].carrier(True)
            connection.echo()
        wait_holders(bed, twelve[:SLOTS], seconds=40)
        bed.sync()
    # Its first loss counts at once, and what it comes back to is held back the longer the more often it goes.
    assert endpoint_writes(writes).count("add endpoint") <= 6
    connection.echo()


def test_a_better_link_takes_the_worst_ones_place_and_gives_it_back(bed: Bed, twelve: list[Uplink]) -> None:
    assert bed.service
    worst = twelve[SLOTS - 1]
    connection = Connection(bed.machine, SERVER, source=address_of(worst))
    for link in twelve[: SLOTS - 1]:
        connection.wait_subflow(address_of(link))
    better = plug_in(bed, 20, metric=50)
    with Writes(bed, bed.service.program) as writes:
        bed.up(better.name)
        wait_holders(bed, [better, *twelve[: SLOTS - 1]])
        bed.sync()
    assert endpoint_writes(writes) == ["delete endpoint", "add endpoint"]
    assert is_left_out(bed, worst)
    connection.echo()
    connection.wait_subflow(address_of(better))
    bed.down(better.name)
    wait_holders(bed, twelve[:SLOTS])
    wait_for("it is active", lambda: bed.status().path(address_of(worst))["state"] == "active")
    connection.echo()


def test_a_connections_last_subflow_is_not_displaced(bed: Bed, twelve: list[Uplink]) -> None:
    bed.far.sysctl(**{"net.mptcp.allow_join_initial_addr_port": "0"})
    worst, next_worst = twelve[SLOTS - 1], twelve[SLOTS - 2]
    connection = Connection(bed.machine, SERVER, source=address_of(worst))
    subflows = connection.subflows()
    better = plug_in(bed, 20, metric=50)
    bed.up(better.name)
    wait_holders(bed, [better, *twelve[: SLOTS - 2], worst])
    assert is_left_out(bed, next_worst)
    shown = bed.status().path(address_of(worst))
    assert (shown["state"], shown["rule"]) == ("active", "kept-for-connections")
    assert shown["reason"] == f"{LEFT_OUT}; its endpoint is kept for connections without another subflow"
    connection.echo()
    assert connection.subflows() == subflows
    connection.close()
    wait_holders(bed, [better, *twelve[: SLOTS - 1]])
    assert is_left_out(bed, worst)


def test_explicit_flags_get_the_place_that_networkmanager_found_taken(bed: Bed, twelve: list[Uplink]) -> None:
    assert bed.service
    explicit = plug_in(bed, 30, "connection.mptcp-flags subflow", metric=900)
    bed.up(explicit.name)
    endpoint = bed.wait_endpoint(address_of(explicit))
    assert (endpoint.device, endpoint.flags) == (explicit.name, {"subflow"})
    wait_holders(bed, [*twelve[: SLOTS - 1], explicit])
    shown = bed.status().path(address_of(explicit))
    assert (shown["state"], shown["flags_from"], shown["owner"]) == ("active", "profile", "networkmanager")
    assert is_left_out(bed, twelve[SLOTS - 1])
    # NetworkManager takes it for its own, so that neither a reapply nor another profile's coming and going touch it.
    with Writes(bed, bed.service.program) as writes:
        bed.reapply(explicit.name)
        other = plug_in(bed, 31, "connection.mptcp-flags 0x1")
        bed.up(other.name)
        bed.down(other.name)
        bed.sync()
    assert endpoint_writes(writes) == []
    assert bed.endpoint(address_of(explicit)) == endpoint
    # A lost link's explicit flags come back before all others.
    explicit.carrier(False)
    wait_holders(bed, twelve[:SLOTS])
    explicit.carrier(True)
    wait_holders(bed, [*twelve[: SLOTS - 1], explicit])
    assert bed.wait_endpoint(address_of(explicit)).flags == {"subflow"}
    bed.down(explicit.name)
    wait_holders(bed, twelve[:SLOTS])
    assert all(each.flags == DEFAULT_FLAGS for each in bed.endpoints())


def test_of_the_prefixes_of_a_provider_that_renumbers_the_newest_has_a_place(bed: Bed) -> None:
    if bed.machine.attempt("ip", "mptcp", "limits", "set", "subflows", "9").returncode == 0:
        pytest.skip("this kernel takes more than 8 endpoints")
    wifi = bed.uplink("wlan0", ra="2001:db8:100::/64")
    router = wifi.network.routers[0]
    old = [Prefix(f"2001:db8:1{number:02}::/64", preferred=2000 + 100 * number) for number in range(SLOTS)]
    router.advertise(prefixes=tuple(old))
    bed.profile("Wi-Fi", "wlan0", "ipv4.method disabled", "ipv6.method auto", "ipv6.may-fail no")
    bed.start_service()
    bed.up("Wi-Fi")
    wait_for("all have an endpoint", lambda: len(holders(bed)) == SLOTS)
    before = holders(bed)
    router.advertise(prefixes=(*old, Prefix("2001:db8:1ff::/64", preferred=3500)))

    def settled() -> bool:
        prefixes = [{each[:13] for each in some} for some in (holders(bed) - before, before - holders(bed))]
        return prefixes == [{"2001:db8:1ff:"}, {"2001:db8:100:"}]

    wait_for("the newest has taken the place of the one that ends first", settled)
    bed.sync()
    assert settled()


def test_endpoints_made_by_hand_are_no_less_than_ours(bed: Bed, twelve: list[Uplink]) -> None:
    twelve[0].carrier(False)
    wait_holders(bed, twelve[1 : SLOTS + 1])
    bed.nm_mptcp("clear")
    by_hand = [f"192.0.2.{number}" for number in (101, 102, 103)]
    for address in by_hand:
        bed.sh(f"ip mptcp endpoint add {address} signal")
    where = ["--dest=org.nm_mptcp1", "/org/nm_mptcp1", "org.nm_mptcp1.Resume"]
    bed.machine.run("dbus-send", "--system", "--print-reply", *where)
    wait_for("the best have the rest", lambda: holders(bed) == {*map(address_of, twelve[1:6]), *by_hand})
    bed.sync()
    assert holders(bed) == {*map(address_of, twelve[1:6]), *by_hand}
    path = bed.status().path(address_of(twelve[6]))
    assert path["reason"] == (
        "left out: the kernel takes 8 endpoints; 3 used by other programs, the rest by better paths"
    )
