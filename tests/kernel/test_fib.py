# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes without events of their own, one by one (combined in test_fib_random.py), and the promises of the FIB's views."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from nm_mptcp.kernel import sysctl
from nm_mptcp.kernel.fib import FIB, NO_CHANGES, Changes
from nm_mptcp.kernel.rtnl_parse import AddressEvent, LinkEvent, NexthopEvent, RouteEvent, RuleEvent
from nm_mptcp.model.state import MAIN_TABLE, Address, AddressFlag, Family, Hop, Link, Route, RouteType, Rule
from tests.support.network import batch, ip, veth
from tests.support.waits import wait_for

from .subject import Subject


@pytest.fixture
def links(subject: Subject) -> tuple[int, int]:
    """va and vb, each with addresses."""
    indexes = (veth("va", "va-peer"), veth("vb", "vb-peer"))
    for number, name in ((1, "va"), (2, "vb")):
        ip(f"addr add 10.{number}.0.1/24 dev {name}")
        ip(f"addr add 2001:db8:{number}::1/64 dev {name}")
    wait_for("both links", lambda: subject.settled() and len(subject.fib.links) == 5)
    wait_for("no resync due", subject.dump)
    return indexes


def destinations(subject: Subject, index: int, table: int = MAIN_TABLE) -> set[str]:
    return {route.destination for route in subject.fib.routes.get((table, index), ())}


# Each: commands before, commands, and whether the FIB follows without a resync.
SILENT: list[tuple[str, list[str], list[str], bool]] = [
    (
        "ipv4 routes vanish with a link that goes down",
        ["route add 10.9.0.0/16 via 10.1.0.2", "route add default via 10.1.0.2 table 100"],
        ["link set va down"],
        True,
    ),
    (
        "of an ipv4 multipath route the hop dies with its link",
        ["route add 10.9.0.0/16 nexthop via 10.1.0.2 nexthop via 10.2.0.2"],
        ["link set va down"],
        True,
    ),
    (
        "an ipv4 multipath route goes with its last link",
        ["route add 10.9.0.0/16 nexthop via 10.1.0.2 nexthop via 10.2.0.2"],
        ["link set va down", "link set vb down"],
        True,
    ),
    (
        "a dead hop is revived with its link",
        ["route add 10.9.0.0/16 nexthop via 10.1.0.2 nexthop via 10.2.0.2", "link set va down"],
        ["link set va up"],
        False,
    ),
    (
        "ipv4 routes vanish with the last address",
        ["route add 10.9.0.0/16 via 10.1.0.2", "route add 10.8.0.0/16 dev va"],
        ["addr del 10.1.0.1/24 dev va"],
        True,
    ),
    (
        "ipv4 routes stay while there is another address",
        ["addr add 10.5.0.1/24 dev va", "route add 10.9.0.0/16 via 10.1.0.2"],
        ["addr del 10.1.0.1/24 dev va"],
        True,
    ),
    (
        "ipv4 routes vanish with the address that is their source hint",
        ["addr add 10.5.0.1/32 dev va", "route add 10.9.0.0/16 dev vb src 10.5.0.1"],
        ["addr del 10.5.0.1/32 dev va"],
        True,
    ),
    (
        "but not while another link has it",
        ["addr add 10.5.0.1/32 dev va", "addr add 10.5.0.1/32 dev vb", "route add 10.9.0.0/16 dev vb src 10.5.0.1"],
        ["addr del 10.5.0.1/32 dev va"],
        True,
    ),
    (
        "nor in one of our tables",
        ["addr add 10.5.0.1/32 dev va", "route add 10.9.0.0/16 dev vb src 10.5.0.1 table 42000"],
        ["addr del 10.5.0.1/32 dev va"],
        True,
    ),
    (
        "nor in another table, which might be a vrf's",
        ["addr add 10.5.0.1/32 dev va", "route add 10.9.0.0/16 dev vb src 10.5.0.1 table 100"],
        ["addr del 10.5.0.1/32 dev va"],
        False,
    ),
    (
        "an ipv6 route loses the source hint with the address",
        ["addr add 2001:db8:5::1/128 dev va nodad", "-6 route add 2001:db8:9::/48 dev va src 2001:db8:5::1"],
        ["addr del 2001:db8:5::1/128 dev va"],
        True,
    ),
    (
        "an ipv4 multipath route goes when one of its links is deleted",
        ["route add 10.9.0.0/16 nexthop via 10.1.0.2 nexthop via 10.2.0.2"],
        ["link del va"],
        True,
    ),
    ("everything of a deleted link goes", ["-6 route add default via fe80::2 dev va"], ["link del va"], True),
    (
        "an ipv6 sibling dies with its link",
        ["-6 route add 2001:db8:9::/48 nexthop via fe80::2 dev va nexthop via fe80::2 dev vb"],
        ["link set va down"],
        True,
    ),
    (
        "an ipv6 sibling is revived with its link",
        [
            "-6 route add 2001:db8:9::/48 nexthop via fe80::2 dev va nexthop via fe80::2 dev vb",
            "link set va down",
        ],
        ["link set va up"],
        False,
    ),
    (
        "a sibling is added and deleted",
        ["-6 route add default proto ra metric 1024 via fe80::2 dev va"],
        ["-6 route append default proto ra metric 1024 via fe80::3 dev va"],
        True,
    ),
    (
        "the attributes of the remaining siblings may be reported differently",
        [
            "-6 route add default metric 1024 via fe80::2 dev va mtu 1300",
            "-6 route append default metric 1024 via fe80::3 dev va",
        ],
        ["-6 route del default metric 1024 via fe80::2 dev va"],
        False,
    ),
    (
        "a replaced ipv4 route",
        ["route add 10.9.0.0/16 via 10.1.0.2"],
        ["route replace 10.9.0.0/16 via 10.2.0.2"],
        True,
    ),
    (
        "replaced ipv6 siblings",
        ["-6 route add 2001:db8:9::/48 nexthop via fe80::2 dev va nexthop via fe80::2 dev vb"],
        ["-6 route replace 2001:db8:9::/48 via fe80::7 dev va"],
        True,
    ),
    (
        "a replaced one of several ipv4 routes",
        ["route add 10.9.0.0/16 via 10.1.0.2", "route append 10.9.0.0/16 via 10.1.0.3"],
        ["route replace 10.9.0.0/16 via 10.2.0.2"],
        False,
    ),
    (
        "a link's mtu that bounds its routes' own",
        ["-6 route add 2001:db8:9::/48 dev va mtu 1450"],
        ["link set va mtu 1400"],
        False,
    ),
    (
        "a nexthop object that is deleted",
        ["nexthop add id 7 via 10.1.0.2 dev va", "route add 10.9.0.0/16 nhid 7"],
        ["nexthop del id 7"],
        False,
    ),
    (
        "a nexthop object that is replaced",
        ["nexthop add id 7 via 10.1.0.2 dev va", "route add 10.9.0.0/16 nhid 7"],
        ["nexthop replace id 7 via 10.2.0.2 dev vb"],
        False,
    ),
    (
        "a renamed link",
        ["route add 10.9.0.0/16 via 10.1.0.2", "link set va down"],
        ["link set va name other", "link set other up"],
        True,
    ),
    (
        "rules that differ in their mark alone",
        ["rule add from 10.1.0.1 fwmark 1 lookup 100 pref 5", "rule add from 10.1.0.1 fwmark 2 lookup 100 pref 5"],
        ["rule del from 10.1.0.1 fwmark 1 lookup 100 pref 5"],
        False,
    ),
]


@pytest.mark.parametrize(
    ("before", "commands", "known"), [case[1:] for case in SILENT], ids=[case[0] for case in SILENT]
)
@pytest.mark.usefixtures("links")
def test_changes_without_an_event_are_followed_or_make_a_resync_due(
    subject: Subject, before: list[str], commands: list[str], known: bool
) -> None:
    for command in before:
        ip(command)
    wait_for("a complete dump", subject.dump)
    for command in commands:
        ip(command)
    subject.events.read()
    if known:
        wait_for("the same without a dump", lambda: not subject.difference())
        assert not subject.fib.resync_due
    else:
        wait_for("a resync is due", lambda: subject.events.read() or subject.fib.resync_due)
    wait_for("the same after a dump", lambda: subject.dump() and not subject.difference())


def test_ipv6_switched_off_makes_a_resync_due_where_siblings_stay(subject: Subject, links: tuple[int, int]) -> None:
    ip("-6 route add 2001:db8:9::/48 nexthop via fe80::2 dev va nexthop via fe80::2 dev vb")
    wait_for("a complete dump", subject.dump)
    sysctl.write(sysctl.interface("ipv6", "va", "disable_ipv6"), 1)
    wait_for("a resync is due", lambda: subject.events.read() or subject.fib.resync_due)
    wait_for("the same after a dump", lambda: subject.dump() and not subject.difference())
    assert "2001:db8:9::/48" not in destinations(subject, links[0])
    assert "2001:db8:9::/48" in destinations(subject, links[1])


def test_a_multipath_route_is_shown_for_each_of_its_links_that_is_up(subject: Subject, links: tuple[int, int]) -> None:
    va, vb = links
    ip("route add 10.9.0.0/16 nexthop via 10.1.0.2 weight 3 nexthop via 10.2.0.2")
    subject.events.read()
    (whole,) = [route for route in subject.fib.routes[MAIN_TABLE, va] if route.destination == "10.9.0.0/16"]
    assert whole.hops == (Hop(va, "10.1.0.2", weight=3), Hop(vb, "10.2.0.2"))
    assert whole in subject.fib.routes[MAIN_TABLE, vb]
    ip("link set va down")
    subject.events.read()
    (left,) = [route for route in subject.fib.routes[MAIN_TABLE, vb] if route.destination == "10.9.0.0/16"]
    assert left.hops == (Hop(vb, "10.2.0.2"),)
    assert "10.9.0.0/16" not in destinations(subject, va)


def lost_links(subject: Subject, *commands: str, until: int) -> frozenset[int]:
    """The lost links that are reported until ``until`` is: the ends of a pair have events of their own."""
    subject.events.read()
    subject.changes.clear()
    for command in commands:
        ip(command)

    def lost() -> frozenset[int]:
        subject.events.read()
        return frozenset[int]().union(*(change.lost_links for change in subject.changes))

    wait_for("the loss", lambda: until in lost())
    return lost()


@pytest.mark.parametrize("command", ["link set va-peer down", "link set va down", "link del va"])
def test_a_lost_link_is_reported(subject: Subject, links: tuple[int, int], command: str) -> None:
    va, vb = links
    assert vb not in lost_links(subject, command, until=va)
    assert va not in lost_links(subject, "link set vb-peer down", until=vb)


def test_a_lost_address_is_reported(subject: Subject, links: tuple[int, int]) -> None:
    subject.changes.clear()
    ip("addr del 10.1.0.1/24 dev va")
    wait_for("the change", lambda: subject.events.read() or subject.changes)
    lost = frozenset[Address]().union(*(change.lost_addresses for change in subject.changes))
    assert lost == {Address(links[0], "10.1.0.1", 24, flags=AddressFlag.PERMANENT)}


def test_a_loss_that_only_a_dump_shows_is_reported(subject: Subject, links: tuple[int, int]) -> None:
    """Events were lost meanwhile."""
    subject.changes.clear()
    held = subject.events._subscription.socket
    subject.events._subscription.socket = None
    ip("addr del 10.1.0.1/24 dev va")
    ip("link set vb down")
    fresh = Subject()
    subject.events.begin_dump()
    subject.events.end_dump(fresh.fib)
    subject.events._subscription.socket = held
    fresh.close()
    (change,) = subject.changes
    assert links[1] in change.lost_links
    assert "10.1.0.1" in {address.address for address in change.lost_addresses}
    assert change.routes


@pytest.mark.parametrize("family", [4, 6])
def test_routes_of_a_link_without_carrier_are_shown_also_where_the_kernel_ignores_them(
    subject: Subject, links: tuple[int, int], family: int
) -> None:
    """There is no event when they are ignored, and ours among them have to be deleted all the same."""
    place, gateway = ("10.9.0.0/16", "10.1.0.2") if family == 4 else ("2001:db8:9::/48", "2001:db8:1::2")
    ip(f"-{family} route add {place} via {gateway} dev va table 42000 proto 77")
    sysctl.write(f"net/ipv{family}/conf/va/ignore_routes_with_linkdown", 1)
    ip("link set va-peer down")
    wait_for("no carrier", lambda: subject.events.read() or not subject.fib.links[links[0]].carrier)

    def shown() -> set[str]:
        return {route.destination for route in subject.fib.routes.get((42000, links[0]), ())}

    assert shown() == {place}
    assert not subject.difference()
    subject.dump()
    assert shown() == {place}
    ip(f"-{family} route del {place} via {gateway} dev va table 42000 proto 77")
    wait_for("it is gone", lambda: subject.events.read() or not shown())
    assert not subject.difference()


# --- views, without a kernel

VA, VB = Link(2, "va"), Link(3, "vb")
ROUTES = [Route(f"10.{i // 250}.{i % 250}.0/24", hops=(Hop(2 + i % 2, "10.9.9.9"),)) for i in range(1000)]
RULE = Rule(Family.IPV4, 32000, "10.0.0.1", 42000, protocol=77)
ADDRESS = Address(2, "10.0.0.1", 24)


def loaded() -> FIB:
    fib = FIB()
    fib.adopt(FIB.of([VA, VB], [ADDRESS, Address(3, "10.0.1.1", 24)], ROUTES, [RULE]))
    return fib


def test_views_are_snapshots() -> None:
    fib = loaded()
    before = (fib.links, fib.addresses, fib.routes, fib.rules)
    copies = tuple(map(repr, before))
    fib.update(RouteEvent(True, (Route("192.0.2.0/24", hops=(Hop(2),)),)))
    fib.update(AddressEvent(False, ADDRESS))
    fib.update(LinkEvent(False, VB))
    fib.update(RuleEvent(False, RULE))
    assert (fib.links, fib.addresses, fib.routes, fib.rules) != before
    assert tuple(map(repr, before)) == copies


def test_what_did_not_change_is_the_same_object() -> None:
    fib = loaded()
    links, addresses, routes, rules = fib.links, fib.addresses, fib.routes, fib.rules
    fib.update(RouteEvent(True, (Route("192.0.2.0/24", hops=(Hop(2),)),)))
    assert fib.links is links
    assert fib.addresses is addresses
    assert fib.rules is rules
    assert fib.routes[MAIN_TABLE, 3] is routes[MAIN_TABLE, 3]
    assert fib.routes[MAIN_TABLE, 2] != routes[MAIN_TABLE, 2]
    routes = fib.routes
    assert fib.routes is routes


def test_a_dump_of_the_same_changes_nothing() -> None:
    fib = loaded()
    routes, addresses = fib.routes, fib.addresses
    found = fib.adopt(FIB.of([VB, VA], [Address(3, "10.0.1.1", 24), ADDRESS], list(reversed(ROUTES)), [RULE]))
    assert not found
    assert all(fib.routes[place] is group for place, group in routes.items())
    assert all(fib.addresses[place] is group for place, group in addresses.items())


REPEATED: list[Callable[[], object]] = [
    lambda: LinkEvent(True, VA),
    lambda: AddressEvent(True, ADDRESS),
    lambda: RouteEvent(True, (ROUTES[0],)),
    lambda: RouteEvent(False, (Route("192.0.2.0/24", hops=(Hop(2),)),)),
    lambda: AddressEvent(False, Address(2, "192.0.2.1", 24)),
    lambda: LinkEvent(False, Link(9, "vz")),
    lambda: RuleEvent(False, Rule(Family.IPV6, 1)),
    lambda: NexthopEvent(False),
    lambda: RouteEvent(True, (Route("10.0.0.0/8", table=255, hops=(Hop(2),)),)),
    lambda: RouteEvent(True, (Route("224.0.0.0/4", hops=(Hop(2),), type=RouteType.MULTICAST),)),
]


@pytest.mark.parametrize("event", REPEATED)
def test_an_event_without_news_changes_nothing(event: Callable[[], object]) -> None:
    fib = loaded()
    assert fib.update(event()) is NO_CHANGES  # type: ignore[arg-type]
    assert not fib.resync_due


def test_a_rule_that_is_added_again_exists_twice_and_the_first_is_deleted_first() -> None:
    fib = loaded()
    other = replace(RULE, source="10.0.0.9")
    for event in (RuleEvent(True, other), RuleEvent(True, RULE)):
        assert fib.update(event).rules
    assert fib.rules == (RULE, other, RULE)
    fib.update(RuleEvent(False, RULE))
    assert fib.rules == (other, RULE)


def test_refreshed_lifetimes_are_shown_and_are_not_a_change() -> None:
    fib = loaded()
    assert not fib.update(AddressEvent(True, Address(2, "10.0.0.1", 24, preferred=5, valid=9)))
    assert fib.addresses[2][0].valid == 9
    assert not fib.adopt(
        FIB.of([VA, VB], [Address(2, "10.0.0.1", 24, valid=7), Address(3, "10.0.1.1", 24)], ROUTES, [RULE])
    )
    assert fib.addresses[2][0].valid == 7


def test_events_from_before_the_dump_do_no_harm() -> None:
    """They are replayed after it."""
    fib = loaded()
    extra = Route("192.0.2.0/24", hops=(Hop(2),))
    fresh = FIB.of([VA, VB], [ADDRESS, Address(3, "10.0.1.1", 24)], [*ROUTES, extra], [RULE])
    gone = Route("198.51.100.0/24", hops=(Hop(3),))
    changes = fib.adopt(
        fresh,
        [
            RouteEvent(True, (gone,)),
            RouteEvent(True, (extra,)),
            RouteEvent(False, (gone,)),
            RuleEvent(False, RULE),
            RuleEvent(True, RULE),
        ],
    )
    assert changes == Changes(routes=True)
    assert {extra, *ROUTES} == {route for group in fib.routes.values() for route in group}
    assert fib.rules == (RULE,)


def test_changes_are_joined() -> None:
    one = Changes(links=True, lost_links=frozenset({1}))
    other = Changes(addresses=True, lost_links=frozenset({2}), resync_due=True)
    assert one | other == Changes(links=True, addresses=True, lost_links=frozenset({1, 2}), resync_due=True)
    assert (one | NO_CHANGES) is one
    assert (NO_CHANGES | one) is one
    assert not NO_CHANGES


def test_thousands_of_routes_are_followed(subject: Subject, links: tuple[int, int]) -> None:
    places = [f"10.{100 + i // 256}.{i % 256}.0/24" for i in range(3000)]
    batch("\n".join(f"route add {place} via 10.1.0.2" for place in places))
    wait_for("all of them", lambda: subject.events.read() or destinations(subject, links[0]) >= set(places))
    ip("link set va down")
    wait_for("none of them", lambda: subject.events.read() or not destinations(subject, links[0]) & set(places))
    assert not subject.difference()
    assert socket.if_nametoindex("va") == links[0]
