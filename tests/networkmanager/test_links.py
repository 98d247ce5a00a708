# SPDX-License-Identifier: GPL-2.0-or-later
"""Links come, go and change their names; what others made stays through everything."""

from __future__ import annotations

import signal

import pytest

from ..support.waits import wait_for
from .bed import PROTOCOL, SERVER, Bed
from .traffic import Connection, EchoServer
from .uplinks import Links


@pytest.fixture
def up(bed: Bed, links: Links) -> Links:
    """Service running, both links up."""
    bed.start_service()
    links.bring_up()
    return links


def stale(bed: Bed) -> list[object]:
    """Endpoints, rules and tables of ours that belong to no address of an interface that there is."""
    owned = {
        info["local"]: link["ifname"]
        for link in bed.machine.ip("address", "show")
        for info in link.get("addr_info", ())
        if "local" in info
    }
    found: list[object] = [each for each in bed.endpoints() if owned.get(each.address) != each.device]
    rules = bed.rules(protocol=PROTOCOL)
    found += [rule for rule in rules if rule["src"] not in owned]
    looked_at = {str(rule["table"]) for rule in rules if "table" in rule}
    for family in ("-4", "-6"):
        routes = [route for route in bed.routes("all", family) if route.get("protocol") == PROTOCOL]
        found += [route for route in routes if str(route["table"]) not in looked_at]
    return found


def test_a_deleted_link_leaves_nothing(bed: Bed, up: Links) -> None:
    up.lte.remove()
    bed.wait_no_endpoint(up.lte.address)
    bed.sync()
    assert bed.rules(up.lte.address) == []
    assert stale(bed) == []
    assert len(bed.endpoints()) == 1


def test_a_link_that_comes_back_under_another_index_is_a_path_again(bed: Bed, up: Links) -> None:
    before = bed.machine.ip("link", "show", "wwan0")[0]["ifindex"]
    for _ in range(2):
        up.lte.remove()
        up.lte.create()
        wait_for("wwan0 is seen", lambda: "wwan0:disconnected" in bed.nmcli("-g", "DEVICE,STATE", "device"))
        bed.up("LTE")
        bed.wait_endpoint(up.lte.address)
        bed.sync()
        assert bed.wait_endpoint(up.lte.address).device == "wwan0"
        assert bed.default_of(up.lte.address)["dev"] == "wwan0"
        assert stale(bed) == []
    assert bed.machine.ip("link", "show", "wwan0")[0]["ifindex"] != before


def test_a_renamed_link_leaves_nothing_stale(bed: Bed, up: Links) -> None:
    bed.sh("ip link set wwan0 down")
    bed.sh("ip link set wwan0 name modem0")
    bed.sh("ip link set modem0 up")
    wait_for("NetworkManager knows it", lambda: "modem0:" in bed.nmcli("-g", "DEVICE,STATE", "device"))
    bed.sync()
    wait_for("nothing is stale", lambda: not stale(bed))
    bed.modify("LTE", "connection.interface-name modem0")
    wait_for("it can be used", lambda: "modem0:unavailable" not in bed.nmcli("-g", "DEVICE,STATE", "device"))
    bed.up("LTE")
    assert bed.wait_endpoint(up.lte.address).device == "modem0"
    bed.sync()
    assert bed.default_of(up.lte.address)["dev"] == "modem0"
    assert bed.status().path(up.lte.address)["interface"] == "modem0"
    assert stale(bed) == []


def test_two_links_swap_their_names(bed: Bed, up: Links) -> None:
    bed.down("Wi-Fi")
    bed.down("LTE")
    for old, new in (("wlan0", "tmp0"), ("wwan0", "wlan0"), ("tmp0", "wwan0")):
        bed.sh(f"ip link set {old} down")
        bed.sh(f"ip link set {old} name {new}")
        bed.sh(f"ip link set {new} up")
    wait_for("both can be used", lambda: bed.nmcli("-g", "STATE", "device").split().count("disconnected") == 2)
    bed.up("Wi-Fi", "LTE")
    assert bed.wait_endpoint(up.lte.address).device == "wlan0"
    assert bed.wait_endpoint(up.wifi.address).device == "wwan0"
    bed.sync()
    assert bed.default_of(up.wifi.address)["dev"] == "wwan0"
    assert stale(bed) == []


def test_a_link_that_flaps_leaves_nothing_stale(bed: Bed, up: Links) -> None:
    for _ in range(3):
        bed.sh("ip link set wwan0 down")
        bed.sh("ip link set wwan0 up")
    bed.up("LTE")  # NetworkManager may have given it up in the storm ("ip-config-unavailable")
    wait_for("LTE is up again", lambda: bed.machine.ip("route", "show", "default", "dev", "wwan0"), seconds=20)
    bed.wait_endpoint(up.lte.address)
    bed.sync()
    assert bed.default_of(up.lte.address)["gateway"] == up.lte.gateway
    assert stale(bed) == []


# --- what others made


def by_hand(bed: Bed) -> None:
    """An endpoint, rules, routes and a table that an administrator made."""
    bed.sh("""
        ip link add hand0 type veth peer name hand1
        ip link set hand0 up
        ip link set hand1 up
        ip address add 10.99.0.1/24 dev hand0
        ip mptcp endpoint add 10.99.0.1 id 200 signal
        ip mptcp endpoint add 10.99.0.2 dev hand0 id 201 subflow backup
        ip rule add priority 1000 from 10.99.0.1 lookup 42
        ip rule add priority 32000 from 10.99.0.1 lookup 42
        ip rule add priority 32001 fwmark 7 lookup 42 protocol static
        ip -6 rule add priority 32002 from 2001:db8:99::/64 lookup 42
        ip route add default dev hand0 table 42
        ip route add 198.51.100.0/24 via 10.99.0.9 dev hand0
        ip route add 198.51.101.0/24 via 10.99.0.9 dev hand0 table 42500 protocol static
    """)  # fmt: skip


def hand_made(bed: Bed) -> list[object]:
    """What there is of :func:`by_hand`."""
    return [
        [each for each in bed.endpoints() if each.address.startswith("10.99.")],
        [
            rule
            for rule in bed.rules()
            if rule.get("src", "").startswith(("10.99.", "2001:db8:99")) or rule.get("fwmark")
        ],
        [route for route in bed.routes("all") if route.get("dev") == "hand0" and route["dst"] != "local"],
    ]


def test_what_an_administrator_made_stays_through_everything(bed: Bed, links: Links) -> None:
    by_hand(bed)
    before = hand_made(bed)
    assert [len(part) for part in before if isinstance(part, list)][:2] == [2, 4]
    service = bed.start_service()
    links.bring_up()
    assert hand_made(bed) == before, "after up"
    bed.reapply("wwan0")
    links.lte.carrier(False)
    bed.sync()
    links.lte.carrier(True)
    bed.down("LTE")
    bed.sync()
    assert hand_made(bed) == before, "after down"
    service.kill()
    service = bed.start_service()
    bed.sync()
    assert hand_made(bed) == before, "after kill -9 and start"
    assert service.program.stop(signal.SIGTERM) == 0
    bed.nm_mptcp("apply")
    assert hand_made(bed) == before, "after apply"
    bed.nm_mptcp("clear")
    assert hand_made(bed) == before, "after clear"


def test_a_table_that_somebody_uses_is_not_taken(bed: Bed, links: Links) -> None:
    bed.sh("ip link add hand0 type veth peer name hand1")
    bed.sh("ip link set hand0 up")
    bed.sh("ip route add 198.51.100.0/24 dev hand0 table 42000")
    bed.sh("ip rule add priority 900 from 10.99.0.1 lookup 42001")
    before = bed.routes(42000)
    bed.start_service()
    links.bring_up()
    assert bed.routes(42000) == before
    assert bed.routes(42001) == []
    assert {bed.table_of(link.address) for link in (links.wifi, links.lte)} == {42002, 42003}


def test_a_table_of_ours_that_somebody_else_uses_is_left_to_him(bed: Bed, up: Links) -> None:
    bed.sh("ip link add hand0 type veth peer name hand1")
    bed.sh("ip link set hand0 up")
    table = bed.table_of(up.lte.address)
    endpoint = bed.wait_endpoint(up.lte.address)
    bed.sh(f"ip route add 198.51.100.0/24 dev hand0 table {table} protocol static")
    bed.sync()
    wait_for("ours is another table", lambda: bed.table_of(up.lte.address) != table)
    bed.sync()
    assert [(route["dst"], route["dev"]) for route in bed.routes(table)] == [("198.51.100.0/24", "hand0")]
    assert bed.default_of(up.lte.address)["gateway"] == up.lte.gateway
    assert bed.endpoint(up.lte.address) == endpoint
    assert stale(bed) == []


def test_a_rule_or_route_of_ours_that_somebody_removed_is_put_back(bed: Bed, up: Links) -> None:
    rules, table = bed.rules(up.lte.address), bed.table_of(up.lte.address)
    routes = bed.routes(table)
    bed.sh(f"ip rule del priority 32765 from {up.lte.address} lookup main suppress_prefixlength 0")
    wait_for("the rule is back", lambda: bed.rules(up.lte.address) == rules)
    bed.sh(f"ip route del default via {up.lte.gateway} table {table}")
    wait_for("the route is back", lambda: bed.routes(table) == routes)


def test_an_implicit_endpoint_is_replaceable(bed: Bed, links: Links) -> None:
    bed.without_dispatcher_scripts()
    bed.up("Wi-Fi", "LTE")
    # The server tells of another address, and routing, not an endpoint, chooses the source of the subflow to it.
    bed.far.run("ip", "address", "add", "192.0.2.2/32", "dev", "lo")
    bed.far.run("ip", "mptcp", "endpoint", "add", "192.0.2.2", "signal")
    bed.sh(f"ip route add 192.0.2.2 via {links.lte.gateway} dev wwan0; ip mptcp limits set add_addr_accepted 2")
    EchoServer(bed.far)
    connection = Connection(bed.machine, SERVER)
    connection.wait_subflow(links.lte.address)
    assert bed.wait_endpoint(links.lte.address).flags == {"implicit"}
    bed.start_service()
    bed.sync()
    endpoint = bed.wait_endpoint(links.lte.address)
    assert "implicit" not in endpoint.flags
    assert endpoint.device == "wwan0"
