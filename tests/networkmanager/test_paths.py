# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection that comes up becomes a path: endpoint, rules, table and limits, and then nothing more is written."""

from __future__ import annotations

import re
import socket
import statistics
import time

import pytest

from ..support.waits import wait_for
from .bed import DEFAULT_FLAGS, PROTOCOL, SERVER, Bed, command
from .kernel_view import attributes
from .observe import Writes, writes_of
from .traffic import Connection, EchoServer
from .uplinks import Links

RTMGRP_IPV4_ROUTE = 0x40
RTM_NEWROUTE = 24


@pytest.fixture
def two_paths(bed: Bed, links: Links) -> Links:
    """Service running, both links up and in use."""
    bed.start_service()
    links.bring_up()
    return links


def test_each_link_has_an_endpoint_bound_to_it(bed: Bed, two_paths: Links) -> None:
    assert {(each.address, each.device, each.flags) for each in bed.endpoints()} == {
        (two_paths.wifi.address, "wlan0", DEFAULT_FLAGS),
        (two_paths.lte.address, "wwan0", DEFAULT_FLAGS),
    }


def test_what_networkmanager_did_not_configure_is_no_path_unless_a_section_names_it(bed: Bed) -> None:
    """A floating address of keepalived's, and what is added by hand; all that NetworkManager itself adds is one."""
    wifi = bed.uplink("wlan0", dhcp="10.1.0.0/24", ra="2001:db8:1::/64")
    static = bed.uplink("eth0", static="10.2.0.0/24")
    bed.sh("ip link set eth0 up; ip address add 10.2.0.7/24 dev eth0")  # as before NetworkManager came
    bed.profile("Wi-Fi", "wlan0", "ipv6.method auto")
    bed.profile(
        "Office", "eth0", "ipv4.method manual", "ipv4.addresses 10.2.0.7/24,10.2.0.8/24,10.2.7.7/32",
        f"ipv4.gateway {static.gateway}", "ipv6.method manual", "ipv6.addresses 2001:db8:2::7/64,2001:db8:2::8/128",
        "ipv6.gateway 2001:db8:2::1",
    )  # fmt: skip
    bed.start_service()
    bed.up("Wi-Fi", "Office")
    theirs = {"10.2.0.7", "10.2.0.8", "10.2.7.7", "2001:db8:2::7", "2001:db8:2::8", wifi.address, wifi.address6()}
    for address in theirs:
        bed.wait_endpoint(address)
    others = ("10.2.0.99/24", "10.1.9.9/32", "2001:db8:1::99/64")
    for address, name in zip(others, ("eth0", "wlan0", "wlan0"), strict=True):
        bed.sh(f"ip address add {address} dev {name} {'nodad' if ':' in address else ''}")
    bed.sync()
    assert {each.address for each in bed.endpoints()} == theirs
    for address in (text.split("/")[0] for text in others):
        path = bed.status().path(address)
        assert (path["state"], path["rule"]) == ("excluded", "not-configured")
        assert bed.rules(address) == []
    (remedy,) = [line for line in bed.nm_mptcp("explain", "10.1.9.9").splitlines() if "match-address=" in line]
    section, match = re.findall(r"\[path-[a-z]+\]|match-address=[0-9.]+", remedy)
    bed.write("/run/nm-mptcp/conf.d/50-test.conf", f"{section}\n{match}\n")
    bed.sh("dbus-send --system --print-reply --dest=org.nm_mptcp1 /org/nm_mptcp1 org.nm_mptcp1.Reload")
    bed.wait_endpoint("10.1.9.9")


def test_each_address_has_four_rules_of_ours_behind_all_others(bed: Bed, two_paths: Links) -> None:
    for link in (two_paths.wifi, two_paths.lte):
        table = str(bed.table_of(link.address))
        found = [
            (rule["priority"], rule.get("table"), rule.get("suppress_prefixlen"), rule["protocol"])
            for rule in bed.rules(link.address)
        ]
        assert found == [
            (32765, table, 0, PROTOCOL),
            (32765, "254", 0, PROTOCOL),
            (32765, table, None, PROTOCOL),
            (32765, None, None, PROTOCOL),
        ]


def test_each_table_holds_its_links_routes_alone(bed: Bed, two_paths: Links) -> None:
    tables = {link.name: bed.table_of(link.address) for link in (two_paths.wifi, two_paths.lte)}
    assert len(set(tables.values())) == 2
    for link, subnet in ((two_paths.wifi, "10.1.0.0/24"), (two_paths.lte, "10.2.0.0/24")):
        routes = bed.routes(tables[link.name])
        assert tables[link.name] in range(42000, 43000)
        assert {route["protocol"] for route in routes} == {PROTOCOL}
        assert {route.get("type", "unicast") for route in routes} <= {"unicast", "1"}
        found = [(route["dst"], route.get("gateway"), route["dev"]) for route in routes]
        assert sorted(found) == [(subnet, None, link.name), ("default", link.gateway, link.name)]


@pytest.mark.usefixtures("two_paths")
def test_limits_are_raised_to_what_the_paths_need(bed: Bed) -> None:
    limits = bed.path_manager.limits()
    assert limits["subflows"] >= 2
    assert limits["add_addr_accepted"] >= 1


@pytest.mark.usefixtures("two_paths")
def test_more_paths_need_higher_limits(bed: Bed) -> None:
    for number in range(3, 6):
        bed.uplink(f"eth{number}", dhcp=f"10.{number}.0.0/24")
        bed.profile(f"Ethernet {number}", f"eth{number}")
        bed.up(f"Ethernet {number}")
        bed.wait_endpoint(f"10.{number}.0.50")
    bed.sync()
    assert bed.path_manager.limits()["subflows"] >= 4


def test_limits_that_an_administrator_set_higher_stay(bed: Bed, links: Links) -> None:
    bed.sh("ip mptcp limits set subflows 7 add_addr_accepted 6")
    bed.start_service()
    bed.up("Wi-Fi", "LTE")
    bed.wait_endpoint(links.lte.address)
    bed.sync()
    assert bed.path_manager.limits() == {"subflows": 7, "add_addr_accepted": 6}


def test_a_connection_uses_both_links(bed: Bed, two_paths: Links) -> None:
    EchoServer(bed.far)
    connection = Connection(bed.machine, SERVER)
    connection.wait_subflow(two_paths.lte.address)
    by_lte = two_paths.lte.capture()
    for _ in range(50):
        connection.echo()
    assert {address for address, _ in connection.subflows()} == {two_paths.wifi.address, two_paths.lte.address}
    assert set(by_lte.sources()) <= {two_paths.lte.address}


def test_a_link_that_goes_leaves_nothing(bed: Bed, two_paths: Links) -> None:
    table = bed.table_of(two_paths.lte.address)
    bed.down("LTE")
    bed.wait_no_endpoint(two_paths.lte.address)
    bed.sync()
    assert bed.rules(two_paths.lte.address) == []
    assert bed.routes(table) == []
    assert bed.endpoint(two_paths.wifi.address)


# --- nothing is written twice


@pytest.mark.usefixtures("links")
def test_a_second_apply_writes_nothing(bed: Bed) -> None:
    bed.up("Wi-Fi", "LTE")
    bed.nm_mptcp("apply")
    before = bed.footprint()
    assert writes_of(bed, *command(), "apply") == []
    assert bed.footprint() == before


def test_apply_beside_the_service_asks_it_and_neither_writes(bed: Bed, two_paths: Links) -> None:
    assert bed.service
    with Writes(bed, bed.service.program) as service:
        assert writes_of(bed, *command(), "apply") == []
    assert service.all == []
    assert {link.address for link in (two_paths.wifi, two_paths.lte)} == {each.address for each in bed.endpoints()}


def test_apply_beside_the_service_makes_the_service_write(bed: Bed, two_paths: Links) -> None:
    assert bed.service
    with Writes(bed, bed.service.program) as service:
        bed.sh(f"ip mptcp endpoint del id {bed.wait_endpoint(two_paths.lte.address).id}")
        assert writes_of(bed, *command(), "apply") == []
    assert service.all == ["add endpoint"]
    assert bed.endpoint(two_paths.lte.address)


@pytest.mark.usefixtures("two_paths")
def test_changes_that_mean_nothing_make_no_write(bed: Bed) -> None:
    assert bed.service
    bed.sh("ip link add hand0 type veth peer name hand1")
    with Writes(bed, bed.service.program) as service:
        for number in range(1, 6):
            bed.sh(f"ip address add 172.30.{number}.1/24 dev hand0")
            bed.sh(f"ip rule add from 172.30.{number}.1 lookup 4711")
        bed.sh("ip link set hand0 up")
        bed.modify("Wi-Fi", "connection.zone public")
        bed.sh("ip link del hand0")
        bed.sync()
    assert service.all == []


def test_dry_run_says_what_apply_would_do_and_writes_nothing(bed: Bed, links: Links) -> None:
    bed.without_dispatcher_scripts()
    bed.up("Wi-Fi", "LTE")
    before = bed.footprint()
    assert writes_of(bed, *command(), "apply", "--dry-run") == []
    assert bed.footprint() == before
    said = bed.nm_mptcp("apply", "--dry-run")
    for link in (links.wifi, links.lte):
        assert f"ip mptcp endpoint add {link.address} dev {link.name}" in said
        assert f"from {link.address}" in said
        assert f"default via {link.gateway}" in said
    bed.nm_mptcp("apply")
    assert "ip mptcp endpoint" not in bed.nm_mptcp("apply", "--dry-run")


@pytest.mark.usefixtures("links")
def test_the_commands_of_a_dry_run_do_what_apply_does(bed: Bed) -> None:
    bed.without_dispatcher_scripts()
    bed.up("Wi-Fi", "LTE")
    said = bed.nm_mptcp("apply", "--dry-run")
    commands = [line.strip().replace(" laminar", "") for line in said.splitlines() if line.strip().startswith("ip ")]
    assert commands
    bed.sh("\n".join(commands))
    by_hand = bed.footprint()
    bed.machine.run("ip", "mptcp", "endpoint", "flush")
    for rule in bed.rules(protocol=PROTOCOL):
        bed.machine.run("ip", "rule", "del", "priority", str(rule["priority"]), "from", rule["src"])
    for table in {route["table"] for route in by_hand["tables"] if route.get("protocol") == PROTOCOL}:
        bed.machine.run("ip", "route", "flush", "table", str(table))
    bed.nm_mptcp("apply")
    by_apply = bed.footprint()
    assert (by_hand["rules"], by_hand["tables"], by_hand["limits"]) == (
        by_apply["rules"],
        by_apply["tables"],
        by_apply["limits"],
    )
    assert {each.address for each in by_hand["endpoints"]} == {each.address for each in by_apply["endpoints"]}


@pytest.mark.may_be_late(reason="NetworkManager deactivates a device that has had no carrier for 6 s")
def test_the_commands_of_a_dry_run_close_no_socket_that_apply_leaves(bed: Bed, links: Links) -> None:
    """A link is lost that a connection without any other subflow stands on, and an ssh; a third has a sibling elsewhere."""
    bed.without_dispatcher_scripts()
    EchoServer(bed.far)
    EchoServer(bed.far, 5001, address=SERVER)
    bed.up("Wi-Fi")
    bed.nm_mptcp("apply")
    address = links.wifi.address
    alone = Connection(bed.machine, SERVER, source=address, port=5001)
    ssh = bed.machine.socket(socket.AF_INET, socket.SOCK_STREAM)
    bed.at_end(ssh.close)
    ssh.bind((address, 0))
    ssh.connect((SERVER, 5001))
    bed.up("LTE")
    bed.nm_mptcp("apply")
    alone.wait_subflow(links.lte.address)
    (joined,) = [port for local, port in alone.subflows() if local == links.lte.address]
    bed.sh(f"ss -tK 'src {links.lte.address}:{joined}'")
    wait_for("it is alone", lambda: {local for local, _ in alone.subflows()} == {address})
    both = Connection(bed.machine, SERVER)
    both.wait_subflow(links.lte.address)
    links.wifi.carrier(False)
    wait_for("it is seen", lambda: bed.status().path(address)["state"] == "suspended")

    said = bed.nm_mptcp("apply", "--dry-run")
    (port,) = [port for local, port in both.subflows() if local == address]
    assert re.findall("^ss .*", said, re.MULTILINE) == [f"ss -tK 'src {address}:{port} dst {SERVER}:5000'"]
    bed.sh(said)
    links.wifi.carrier(True)
    wait_for("it is closed", lambda: {local for local, _ in both.subflows()} == {links.lte.address})
    alone.echo()
    ssh.sendall(b"still here")
    assert ssh.recv(64) == b"still here"


# --- status


def test_status_tells_each_path_and_its_reason(bed: Bed, two_paths: Links) -> None:
    status = bed.status()
    assert status["service"] == "active"
    assert status["networkmanager"]["version"] == bed.nmcli("-g", "VERSION", "general").strip()
    assert set(status["networkmanager"]) >= {"version", "default_flags"}
    assert status["kernel"]["mptcp_enabled"] is True
    assert status["kernel"]["path_manager"] == "kernel"
    assert status["kernel"]["endpoints_max"] >= 8
    assert status["limits"] == bed.path_manager.limits()
    for link, profile in ((two_paths.wifi, "Wi-Fi"), (two_paths.lte, "LTE")):
        path = status.path(link.address)
        endpoint = bed.wait_endpoint(link.address)
        assert path["interface"] == link.name
        assert path["profile"] == profile
        assert path["uuid"] == bed.nmcli("-g", "connection.uuid", "connection", "show", profile).strip()
        assert path["kind"]
        assert set(path["flags"]) == DEFAULT_FLAGS
        assert path["flags_from"] == "kind"
        assert path["state"] == "active"
        assert path["reason"]
        assert path["since"]
        assert path["endpoint_id"] == endpoint.id
        assert path["owner"] == "nm-mptcp"
        assert path["table"] == bed.table_of(link.address)
        assert path["gateway"] == link.gateway


@pytest.mark.usefixtures("two_paths")
def test_status_without_the_service_says_so_and_shows_the_same_paths(bed: Bed) -> None:
    with_service = bed.status()
    assert bed.service
    bed.service.stop()
    without = bed.status()
    assert without["service"] == "absent"
    kept = ("interface", "address", "flags", "state", "endpoint_id", "owner", "table", "gateway")
    assert [[path[key] for key in kept] for path in without.paths] == [
        [path[key] for key in kept] for path in with_service.paths
    ]


def test_status_is_readable_without_json_too(bed: Bed, two_paths: Links) -> None:
    said = bed.nm_mptcp("status")
    for word in ("wlan0", "wwan0", two_paths.wifi.address, two_paths.lte.address, "active"):
        assert word in said


@pytest.mark.usefixtures("two_paths")
def test_a_second_service_does_not_start(bed: Bed) -> None:
    done = bed.machine.attempt(*command(), "daemon", seconds=20)
    assert done.returncode != 0
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
    assert bed.service
    assert bed.service.running


# --- how fast, for the record


def test_a_path_is_there_when_its_address_and_route_are(bed: Bed, links: Links, figures: dict[str, str]) -> None:
    bed.without_dispatcher_scripts()
    bed.start_service()
    bed.up("Wi-Fi")
    bed.wait_endpoint(links.wifi.address)
    took = []
    for _ in range(20):
        routes = bed.machine.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        with routes:
            routes.bind((0, RTMGRP_IPV4_ROUTE))
            routes.setblocking(False)
            bed.nmcli("--wait", "0", "connection", "up", "LTE")
            took.append(_from_route_to_endpoint(bed, routes, links.lte.address))
        wait_for(
            "LTE is up", lambda: "LTE:activated" in bed.nmcli("-g", "NAME,STATE", "connection", "show", "--active")
        )
        bed.down("LTE")
        bed.wait_no_endpoint(links.lte.address)
    figures["address and route there -> endpoint there, ms"] = (
        f"median {statistics.median(took) * 1000:.1f}, max {max(took) * 1000:.1f} of {len(took)}"
    )


def _from_route_to_endpoint(bed: Bed, routes: socket.socket, address: str) -> float:
    """Seconds from the notification of the link's default route in main to the endpoint."""
    seen = None
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            while seen is None:
                if _is_default_by_gateway(routes.recv(1 << 16)):
                    seen = time.monotonic()
        except BlockingIOError:
            pass
        if seen is not None and bed.endpoint(address):
            return time.monotonic() - seen
    raise AssertionError(f"no endpoint {address}")


def _is_default_by_gateway(message: bytes) -> bool:
    kind = int.from_bytes(message[4:6], "little")
    length, table = message[17], message[20]
    return kind == RTM_NEWROUTE and length == 0 and table == 254 and 5 in dict(attributes(message[28:]))
