# SPDX-License-Identifier: GPL-2.0-or-later
"""Links, addresses, routes and rules, read from and written to the real kernel."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nm_mptcp.kernel import netlink
from nm_mptcp.kernel.errors import KernelError
from nm_mptcp.kernel.rtnetlink import Rtnetlink
from nm_mptcp.model.state import (
    MAIN_TABLE,
    PROTOCOL,
    RULE_PRIORITY,
    WORST_METRIC,
    Address,
    AddressFlag,
    Family,
    Hop,
    Link,
    Route,
    RouteType,
    Rule,
    RuleAction,
)
from tests.support.network import Network, batch, ip, veth
from tests.support.waits import wait_for

from .subject import Subject

TABLE = 42000


@pytest.fixture
def rtnetlink(network: Network) -> Iterator[Rtnetlink]:  # noqa: ARG001
    with Rtnetlink() as rtnetlink:
        yield rtnetlink


@pytest.fixture
def va(network: Network) -> int:  # noqa: ARG001
    index = veth("va", "vb")
    ip("addr add 10.0.0.1/24 dev va")
    ip("addr add 10.1.0.1/24 dev vb")
    ip("addr add 2001:db8::1/64 dev va nodad")
    return index


@pytest.fixture
def vb(va: int) -> int:  # noqa: ARG001
    return socket.if_nametoindex("vb")


def test_links_have_kind_state_and_carrier(rtnetlink: Rtnetlink, va: int, vb: int) -> None:
    def link(index: int) -> Link:
        return next(link for link in rtnetlink.links() if link.index == index)

    assert link(1) == Link(1, "lo", None, loopback=True)
    assert link(va) == Link(va, "va", "veth")
    assert link(va).mtu == 1500
    ip("link set vb down")
    wait_for("no carrier", lambda: link(va) == Link(va, "va", "veth", up=True, carrier=False))
    assert link(vb) == Link(vb, "vb", "veth", up=False, carrier=False)


def test_addresses_have_the_local_and_the_peer_address(rtnetlink: Rtnetlink, va: int) -> None:
    ip("addr add 192.0.2.1 peer 192.0.2.9 dev va")
    ip("addr add 2001:db8:5::1 peer 2001:db8:5::9 dev va nodad")
    found = {address.address: address for address in rtnetlink.addresses() if address.ifindex == va}
    permanent = AddressFlag.PERMANENT
    assert found["10.0.0.1"] == Address(va, "10.0.0.1", 24, flags=permanent)
    assert found["192.0.2.1"] == Address(va, "192.0.2.1", 32, flags=permanent, peer="192.0.2.9")
    assert found["2001:db8:5::1"] == Address(va, "2001:db8:5::1", 128, flags=permanent, peer="2001:db8:5::9")


def test_addresses_have_flags_beyond_the_eighth_bit_and_lifetimes(rtnetlink: Rtnetlink, va: int) -> None:  # noqa: ARG001
    ip("addr add 2001:db8:6::1/64 dev va noprefixroute valid_lft 1000 preferred_lft 500")
    ip("addr add 2001:db8:7::1/64 dev va valid_lft 1000 preferred_lft 0 nodad")

    def found() -> dict[str, Address]:
        return {address.address: address for address in rtnetlink.addresses()}

    assert found()["2001:db8:6::1"].flags == AddressFlag.TENTATIVE | AddressFlag.NOPREFIXROUTE
    assert found()["2001:db8:7::1"].flags == AddressFlag.DEPRECATED
    assert found()["2001:db8:6::1"].preferred in range(490, 501)
    assert found()["2001:db8:6::1"].valid in range(990, 1001)
    assert found()["10.0.0.1"].valid is None


def routes(va: int, vb: int) -> list[Route]:
    """Routes with every attribute, IPv4 and IPv6, that can exist together."""
    common = {"table": TABLE, "protocol": PROTOCOL}
    v6 = {"metric": 1024, **common}
    return [
        Route("10.9.0.0/16", hops=(Hop(va, "10.0.0.2"),), **common),
        Route("10.9.0.0/16", hops=(Hop(va, "10.0.0.2"),), tos=16, **common),
        Route("10.9.0.0/16", hops=(Hop(va),), scope=253, metric=1, source="10.0.0.1", **common),
        Route("10.9.0.0/16", hops=(Hop(va, "192.0.2.1", onlink=True),), metric=2, **common),
        Route("10.9.0.0/16", hops=(Hop(va, "fe80::1"),), metric=3, **common),
        Route(
            "10.9.0.0/16",
            hops=(Hop(va, "10.0.0.2"),),
            metric=4,
            metrics=(("RTAX_ADVMSS", 1000), ("RTAX_INITCWND", 20), ("RTAX_LOCK", 4), ("RTAX_MTU", 1400)),
            **common,
        ),
        Route(
            "0.0.0.0/0",
            hops=(Hop(va, "10.0.0.2", weight=3), Hop(vb, "192.0.2.1", onlink=True, weight=256), Hop(vb, "fe80::7")),
            **common,
        ),
        Route("0.0.0.0/0", type=RouteType.UNREACHABLE, metric=WORST_METRIC, **common),
        Route("10.9.0.0/16", type=RouteType.BLACKHOLE, metric=5, **common),
        Route("10.9.0.0/16", type=RouteType.PROHIBIT, metric=6, **common),
        Route("2001:db8:9::/48", hops=(Hop(va),), **v6),
        Route("2001:db8:a::/48", hops=(Hop(va, "2001:db8::2"),), source="2001:db8::1", **v6),
        Route("2001:db8:b::/48", hops=(Hop(va, "2001:dead::2", onlink=True),), preference=1, **v6),
        Route("2001:db8:c::/48", hops=(Hop(va, "fe80::2"),), preference=3, **v6),
        Route("2001:db8:d::/48", hops=(Hop(va, "fe80::2"),), metrics=(("RTAX_HOPLIMIT", 9), ("RTAX_MTU", 1300)), **v6),
        Route("::/0", hops=(Hop(va, "fe80::2"),), **v6),
        Route("::/0", hops=(Hop(va, "fe80::3"),), **v6),
        Route("::/0", hops=(Hop(vb, "fe80::2", weight=7),), **v6),
        Route("::/0", hops=(Hop(vb, "fe80::2"),), **common, metric=5),
        Route("::/0", type=RouteType.UNREACHABLE, metric=WORST_METRIC, **common),
    ]


def unweighted(route: Route) -> Route:
    return replace(route, hops=tuple(replace(hop, weight=1) for hop in route.hops))


def test_a_route_is_read_back_as_it_was_added(rtnetlink: Rtnetlink, va: int, vb: int) -> None:
    wanted = routes(va, vb)
    for route in wanted:
        rtnetlink.add_route(route)
    assert sorted(map(repr, rtnetlink.routes(TABLE))) == sorted(map(repr, wanted))


def test_a_copy_of_the_main_table_is_the_same_but_for_table_and_protocol(rtnetlink: Rtnetlink, va: int) -> None:
    ip("route add default via 10.0.0.2 dev va proto dhcp src 10.0.0.1 metric 100 mtu 1400")
    ip("route add 10.5.0.0/16 via inet6 fe80::9 dev va")
    ip("-6 route add default proto ra metric 100 pref high nexthop via fe80::5 dev va nexthop via fe80::6 dev va")
    original = rtnetlink.routes(MAIN_TABLE, va)
    assert len(original) == 7
    # On-link routes first, since gateways need them.
    for route in sorted(original, key=lambda route: route.hops[0].gateway is not None):
        rtnetlink.add_route(replace(route, table=TABLE, protocol=PROTOCOL))
    copied = rtnetlink.routes(TABLE)
    assert {replace(route, table=MAIN_TABLE, protocol=0) for route in copied} == {
        replace(route, protocol=0) for route in original
    }


def test_each_route_can_be_deleted_by_itself(rtnetlink: Rtnetlink, va: int, vb: int) -> None:
    wanted = routes(va, vb)
    for route in wanted:
        rtnetlink.add_route(route)
    for count, route in enumerate(wanted, 1):
        rtnetlink.delete_route(route)
        # The weight of an IPv6 route is only reported while it has siblings.
        assert set(map(unweighted, rtnetlink.routes(TABLE))) == set(map(unweighted, wanted[count:]))
        with pytest.raises(KernelError) as gone:
            rtnetlink.delete_route(route)
        assert gone.value.absent


@pytest.mark.parametrize("destination", ["10.9.0.0/16", "2001:db8:9::/48", "0.0.0.0/0", "::/0"])
def test_a_foreign_route_to_the_same_place_is_not_deleted(
    rtnetlink: Rtnetlink, va: int, vb: int, destination: str
) -> None:
    v4 = Family.of(destination) is Family.IPV4
    gateway, other_gateway = ("10.0.0.2", "10.0.0.3") if v4 else ("fe80::2", "fe80::3")
    foreign = Route(destination, TABLE, (Hop(va, gateway),), protocol=4, metric=50)
    rtnetlink.add_route(foreign)
    ours = replace(foreign, protocol=PROTOCOL)
    variants = [
        ours,
        replace(ours, protocol=4, metric=51),
        replace(ours, protocol=4, hops=(Hop(va, other_gateway),)),
        replace(ours, protocol=4, hops=(Hop(vb, gateway),)),
        replace(ours, protocol=4, table=TABLE + 1),
    ]
    if v4:
        variants += [replace(ours, protocol=4, tos=4), replace(ours, protocol=4, type=RouteType.UNREACHABLE, hops=())]
    for variant in variants:
        with pytest.raises(KernelError) as refused:
            rtnetlink.delete_route(variant)
        assert refused.value.absent, variant
    assert rtnetlink.routes(TABLE) == (foreign,)


def test_what_is_left_out_is_no_wildcard(rtnetlink: Rtnetlink, va: int) -> None:
    present = [
        Route("10.9.0.0/16", TABLE, (Hop(va, "10.0.0.2"),), protocol=PROTOCOL, metric=50),
        Route("2001:db8:9::/48", TABLE, (Hop(va, "fe80::2"),), protocol=PROTOCOL, metric=50),
    ]
    for route in present:
        rtnetlink.add_route(route)
    for route in present:
        for variant in (replace(route, metric=0), replace(route, hops=(Hop(va),))):
            with pytest.raises(KernelError) as refused:
                rtnetlink.delete_route(variant)
            assert refused.value.absent
    with pytest.raises(KernelError) as refused:
        rtnetlink.delete_route(replace(present[1], hops=(), type=RouteType.UNREACHABLE))
    assert refused.value.absent
    with pytest.raises(ValueError, match="another's route would match"):
        rtnetlink.delete_route(replace(present[0], protocol=0))
    assert set(rtnetlink.routes(TABLE)) == set(present)


def test_adding_a_route_again_fails_with_eexist(rtnetlink: Rtnetlink, va: int, vb: int) -> None:
    for route in routes(va, vb):
        rtnetlink.add_route(route)
    for route in routes(va, vb):
        with pytest.raises(KernelError) as twice:
            rtnetlink.add_route(route)
        assert twice.value.exists


def test_an_ipv4_route_is_replaced(rtnetlink: Rtnetlink, va: int) -> None:
    old = Route("0.0.0.0/0", TABLE, (Hop(va, "10.0.0.2"),), protocol=PROTOCOL, metric=5)
    new = replace(old, hops=(Hop(va, "10.0.0.3"),), metrics=(("RTAX_MTU", 1300),))
    rtnetlink.replace_route(old)
    rtnetlink.replace_route(new)
    assert rtnetlink.routes(TABLE) == (new,)


def test_an_ipv6_route_is_never_replaced(rtnetlink: Rtnetlink, va: int) -> None:
    with pytest.raises(ValueError, match="IPv6 routes are not replaced"):
        rtnetlink.replace_route(Route("::/0", TABLE, (Hop(va, "fe80::2"),), metric=5))


def test_an_ipv6_sibling_joins_and_leaves_without_the_others(rtnetlink: Rtnetlink, va: int) -> None:
    siblings = [Route("::/0", TABLE, (Hop(va, f"fe80::{n}"),), protocol=PROTOCOL, metric=1024) for n in (2, 3, 4)]
    for sibling in siblings:
        rtnetlink.add_route(sibling)
    assert ip(f"-6 route show table {TABLE}").count("nexthop") == 3
    rtnetlink.delete_route(siblings[0])
    assert set(rtnetlink.routes(TABLE)) == set(siblings[1:])


def test_routes_are_filtered_by_table_and_interface(rtnetlink: Rtnetlink, va: int, vb: int) -> None:
    for route in routes(va, vb):
        rtnetlink.add_route(route)
    everything = rtnetlink.routes()
    assert {route.table for route in everything} == {MAIN_TABLE, TABLE}
    assert set(rtnetlink.routes(TABLE)) == {route for route in everything if route.table == TABLE}
    for index in (va, vb):
        assert set(rtnetlink.routes(ifindex=index)) == {
            route for route in everything if index in {hop.ifindex for hop in route.hops}
        }
    assert rtnetlink.routes(4711) == ()


def test_a_route_that_the_model_cannot_represent_is_other(rtnetlink: Rtnetlink, va: int) -> None:  # noqa: ARG001
    ip("-6 route add 2001:db8:9::/48 from 2001:db8:1::/64 dev va")
    ip("route add throw 10.9.0.0/16")
    found = {route.destination: route.type for route in rtnetlink.routes()}
    assert found["2001:db8:9::/48"] is RouteType.OTHER
    assert found["10.9.0.0/16"] is RouteType.OTHER


def test_local_and_multicast_routes_are_left_out(rtnetlink: Rtnetlink, va: int) -> None:  # noqa: ARG001
    ip("route add local 10.7.0.0/16 dev lo table 100")
    ip("route add multicast 224.0.0.0/4 dev va")
    assert {route.type for route in rtnetlink.routes()} == {RouteType.UNICAST}


def test_a_dead_hop_of_a_multipath_route_is_dead(rtnetlink: Rtnetlink, va: int, vb: int) -> None:
    ip("link add name vc type veth peer name vd")
    ip("link set vc up")
    ip("route add 10.9.0.0/16 nexthop via 10.0.0.2 dev va onlink nexthop via 10.1.0.2 dev vc onlink")
    ip("-6 route add 2001:db8:9::/48 nexthop via fe80::2 dev va nexthop via fe80::2 dev vc")
    ip("link set va down")
    dead = {
        (route.destination, hop.ifindex): hop.dead
        for route in rtnetlink.routes()
        for hop in route.hops
        if route.destination in ("10.9.0.0/16", "2001:db8:9::/48")
    }
    vc = socket.if_nametoindex("vc")
    assert dead == {
        ("10.9.0.0/16", va): True,
        ("10.9.0.0/16", vc): False,
        ("2001:db8:9::/48", va): True,
        ("2001:db8:9::/48", vc): False,
    }
    assert vb


def rules() -> list[Rule]:
    return [
        Rule(Family.IPV4, 32000, "10.0.0.1", TABLE, protocol=PROTOCOL, suppress_prefixlength=0),
        Rule(Family.IPV4, 32001, "10.0.0.1", MAIN_TABLE, protocol=PROTOCOL, suppress_prefixlength=0),
        Rule(Family.IPV4, 32002, "10.0.0.1", TABLE, protocol=PROTOCOL),
        Rule(Family.IPV4, 32002, "10.0.0.0/8", TABLE, protocol=PROTOCOL, suppress_prefixlength=8),
        Rule(Family.IPV4, 32003, None, action=RuleAction.UNREACHABLE, protocol=PROTOCOL),
        Rule(Family.IPV6, 32000, "2001:db8::1", TABLE, protocol=PROTOCOL, suppress_prefixlength=0),
        Rule(Family.IPV6, 32002, "2001:db8::/32", 70000, protocol=PROTOCOL),
    ]


def test_a_rule_is_read_back_as_it_was_added(rtnetlink: Rtnetlink) -> None:
    before = rtnetlink.rules()
    assert [(rule.priority, rule.table, rule.foreign) for rule in before if rule.family is Family.IPV4] == [
        (0, 255, False),
        (32766, 254, False),
        (32767, 253, False),
    ]
    for rule in rules():
        rtnetlink.add_rule(rule)
    assert [rule for rule in rtnetlink.rules() if rule not in before] == rules()
    for rule in rules():
        with pytest.raises(KernelError) as twice:
            rtnetlink.add_rule(rule)
        assert twice.value.exists
    for rule in rules():
        rtnetlink.delete_rule(rule)
    assert rtnetlink.rules() == before


def test_a_hand_made_twin_of_a_rule_is_not_deleted(rtnetlink: Rtnetlink) -> None:
    for rule in rules()[:3]:
        family = 4 if rule.family is Family.IPV4 else 6
        suppress = "" if rule.suppress_prefixlength is None else f"suppress_prefixlength {rule.suppress_prefixlength}"
        ip(f"-{family} rule add from {rule.source} lookup {rule.table} pref {rule.priority} {suppress}")
    before = rtnetlink.rules()
    for rule in rules()[:3]:
        with pytest.raises(KernelError) as refused:
            rtnetlink.delete_rule(rule)
        assert refused.value.absent
        rtnetlink.add_rule(rule)
        rtnetlink.delete_rule(rule)
    assert rtnetlink.rules() == before


def test_rules_of_one_priority_are_in_the_order_of_their_addition(subject: Subject) -> None:
    with Rtnetlink() as rtnetlink:
        mine = [replace(rule, priority=RULE_PRIORITY) for rule in rules()[:3]]
        for rule in mine:
            rtnetlink.add_rule(rule)
        ip(f"rule add from 10.0.0.1 lookup 7 pref {RULE_PRIORITY}")
        ip("rule add to 10.50.0.0/16 lookup 100")  # without a priority: before ours
        (other,) = (rule for rule in rtnetlink.rules() if rule.table == 7)

        def standing() -> list[Rule]:
            return [rule for rule in rtnetlink.rules() if rule.priority == RULE_PRIORITY]

        assert standing() == [*mine, other]
        assert rtnetlink.rules()[1].table == 100
        for rule in mine:
            rtnetlink.move_rule(rule)
        assert standing() == [other, *mine]
        # What is told without suppress_prefixlength matches its twin with it, which stands first.
        rtnetlink.delete_rule(mine[2])
        assert standing() == [other, *mine[1:]]
        assert subject.settled()
        assert not subject.fib.resync_due
        assert not subject.difference()


@pytest.mark.parametrize(
    "selector",
    [
        *("fwmark 1", "iif lo", "dport 22", "not from 10.0.0.9", "tos 4"),
        *("sport 7", "ipproto udp", "ipproto tcp sport 7", "ipproto udp sport 7-8"),
    ],
)
def test_a_rule_with_other_selectors_is_foreign(rtnetlink: Rtnetlink, selector: str) -> None:
    ip(f"rule add {selector} lookup 100 pref 100")
    assert [rule.foreign for rule in rtnetlink.rules() if rule.priority == 100] == [True]


@pytest.mark.parametrize(
    ("selector", "read"),
    [
        ("from 10.0.0.1 to 10.9.0.0/16", Rule(Family.IPV4, 100, "10.0.0.1", 254, destination="10.9.0.0/16")),
        ("from 10.0.0.1 to 10.9.0.1", Rule(Family.IPV4, 100, "10.0.0.1", 254, destination="10.9.0.1")),
        ("from 10.0.0.1 ipproto udp sport 7", Rule(Family.IPV4, 100, "10.0.0.1", 254, udp_port=7)),
        ("from 2001:db8::1 to 2001:db8::2", Rule(Family.IPV6, 100, "2001:db8::1", 254, destination="2001:db8::2")),
        ("from 2001:db8::1 ipproto udp sport 7", Rule(Family.IPV6, 100, "2001:db8::1", 254, udp_port=7)),
    ],
)
def test_rules_for_a_destination_or_a_port_are_read_and_written(
    rtnetlink: Rtnetlink, selector: str, read: Rule
) -> None:
    family = "-6" if read.family is Family.IPV6 else "-4"

    def standing() -> list[Rule]:
        return [replace(rule, protocol=0) for rule in rtnetlink.rules() if rule.priority == 100]

    ip(f"{family} rule add {selector} lookup main pref 100")
    assert standing() == [read]
    assert str(read) == f"100: {selector} lookup main"
    ip(f"{family} rule del pref 100")
    rtnetlink.add_rule(read)
    assert standing() == [read]
    assert selector in ip(f"{family} rule show pref 100")
    rtnetlink.delete_rule(read)
    assert not standing()


def test_without_privileges_the_error_is_one_line(network: Network) -> None:  # noqa: ARG001
    """A process without privileges, in the same namespace."""
    import os

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            Rtnetlink().add_rule(rules()[0])
        except KernelError as error:
            os.write(writer, f"{error.errno} {error}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as told:
        assert told.read() == (
            f"{errno.EPERM} cannot add rule IPv4 32000: from 10.0.0.1 lookup 42000 suppress_prefixlength 0: "
            "Operation not permitted (EPERM) - run as root or with CAP_NET_ADMIN"
        )


def test_a_dump_that_changes_meanwhile_is_repeated(
    rtnetlink: Rtnetlink, va: int, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No unchanged route is ever missing, however the table changes meanwhile."""
    batch("\n".join(f"route add 10.{100 + i // 256}.{i % 256}.0/24 dev va" for i in range(3000)))
    stop = threading.Event()

    def disturb() -> None:
        with network.entered():
            while not stop.is_set():
                batch(
                    "\n".join(f"route add 10.99.{i}.0/24 dev va\nroute del 10.99.{i}.0/24 dev va" for i in range(200))
                )

    monkeypatch.setattr(netlink, "_DUMP_TRIES", 200)
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(5):
            found = {route.destination for route in rtnetlink.routes(MAIN_TABLE)}
            assert sum(not destination.startswith("10.99.") for destination in found) >= 3002
    finally:
        stop.set()
        thread.join()
    assert va


def test_nobody_takes_the_news_of_our_routes_for_an_answer_to_himself(rtnetlink: Rtnetlink, va: int) -> None:
    # A notification has the number of the request that caused it; wireguard-go reads those up to 65535 as its own.
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.ROUTE) as listener:
        listener.bind((0, 1 << (7 - 1)))  # RTNLGRP_IPV4_ROUTE
        rtnetlink.add_route(Route("198.51.100.0/24", table=TABLE, protocol=PROTOCOL, hops=(Hop(va),)))
        (message,) = netlink.messages(listener.recv(1 << 16))
    assert message.sequence > 0xFFFF
