# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from dataclasses import replace

import pytest

from nm_mptcp.model.state import (
    MAIN_TABLE,
    PROTOCOL,
    Address,
    Family,
    Hop,
    Kernel,
    Route,
    RouteType,
    Rule,
    RuleAction,
    WireGuard,
)
from nm_mptcp.policy.source_routing import RoutedAddress, SourceRouting, copies, default_route, gateway, routing

from .situations import grouped

A, B = "10.0.1.2", "10.0.2.2"
ONLINK1 = Route("10.0.1.0/24", hops=(Hop(1),), protocol=2, scope=253, source=A)
DEFAULT1 = Route("0.0.0.0/0", hops=(Hop(1, "10.0.1.1"),), protocol=16, metric=100)
ONLINK2 = Route("10.0.2.0/24", hops=(Hop(2),), protocol=2, scope=253, source=B)
DEFAULT2 = Route("0.0.0.0/0", hops=(Hop(2, "10.0.2.1"),), protocol=16, metric=600)


def of(routing: SourceRouting) -> frozenset[Route]:
    return frozenset().union(*routing.routes.values())


def copied(route: Route | tuple[Route, ...], family: Family) -> frozenset[Route]:
    return copies(route if isinstance(route, tuple) else (route,), 1, frozenset({family}), 42000)


def kernel(*routes: Route, rules: tuple[Rule, ...] = ()) -> Kernel:
    return Kernel(routes=grouped(routes), rules=rules)


def ours(route: Route, table: int = 42000) -> Route:
    return replace(route, table=table, protocol=PROTOCOL)


def of_address(address: str, table: int, priority: int = 32765) -> tuple[Rule, ...]:
    """The rules of an address, in their order."""
    family = Family.of(address)
    return (
        Rule(family, priority, address, table, protocol=PROTOCOL, suppress_prefixlength=0),
        Rule(family, priority, address, MAIN_TABLE, protocol=PROTOCOL, suppress_prefixlength=0),
        Rule(family, priority, address, table, protocol=PROTOCOL),
        Rule(family, priority, address, action=RuleAction.UNREACHABLE, protocol=PROTOCOL),
    )


def test_an_address_gets_four_rules_behind_all_others_and_a_copy_of_its_interfaces_routes() -> None:
    result = routing(kernel(ONLINK1, DEFAULT1, ONLINK2, DEFAULT2), [RoutedAddress(A, 1)])
    assert result.table_of == {A: 42000}
    assert of(result) == {ours(ONLINK1), ours(DEFAULT1)}
    assert result.rules == of_address(A, 42000)


def test_wireguards_own_packets_follow_the_main_table() -> None:
    state = replace(
        kernel(ONLINK1, DEFAULT1), wireguard=WireGuard(frozenset({51820}), frozenset({"192.0.2.1", "2001:db8::1"}))
    )
    result = routing(state, [RoutedAddress(A, 1)])
    own = Rule(Family.IPV4, 32765, A, MAIN_TABLE, protocol=PROTOCOL)
    assert result.rules == (
        replace(own, udp_port=51820),
        replace(own, destination="192.0.2.1"),
        *of_address(A, 42000),
    )


def test_rules_for_them_stay_while_wireguard_cannot_be_read() -> None:
    own = Rule(Family.IPV4, 32765, A, MAIN_TABLE, protocol=PROTOCOL, udp_port=51820)
    there = (own, *of_address(A, 42000))
    foreign = replace(own, protocol=4)
    state = replace(kernel(ONLINK1, DEFAULT1, rules=(foreign, *there)), wireguard=None)
    assert routing(state, [RoutedAddress(A, 1)]).rules == there


@pytest.mark.parametrize("routes", [(ONLINK1,), (ONLINK1, DEFAULT1)])
def test_packets_are_rejected_by_a_rule_never_by_a_route(routes: tuple[Route, ...]) -> None:
    result = routing(kernel(*routes), [RoutedAddress(A, 1)])
    assert all(route.type is RouteType.UNICAST for route in of(result))
    assert result.rules[-1] == Rule(Family.IPV4, 32765, A, action=RuleAction.UNREACHABLE, protocol=PROTOCOL)


# --- two providers on one port -------------------------------------------------------------------------------------

A1, A2, A3 = "10.0.1.2", "10.0.9.2", "10.0.5.2"
BY1, BY2 = (Route("0.0.0.0/0", hops=(Hop(1, f"10.0.{n}.1"),), metric=metric) for n, metric in ((1, 100), (9, 200)))


def port(*routes: Route, addresses: tuple[str, ...] = (A1, A2, A3), rules: tuple[Rule, ...] = ()) -> Kernel:
    """One port with an address of each of two providers, and one of neither."""
    group = tuple(Address(1, address, 24 if Family.of(address) is Family.IPV4 else 64) for address in addresses)
    return Kernel(addresses={1: group}, routes=grouped(routes), rules=rules)


def defaults_by(result: SourceRouting, address: str) -> set[str | None]:
    table = result.table_of[address]
    family = Family.of(address)
    return {
        hop.gateway
        for (number, _), routes in result.routes.items()
        for route in routes
        if number == table and route.destination == family.default
        for hop in route.hops
    }


def test_each_address_uses_the_gateway_of_its_own_prefix() -> None:
    result = routing(port(BY1, BY2), [RoutedAddress(A1, 1), RoutedAddress(A2, 1), RoutedAddress(A3, 1)])
    assert defaults_by(result, A1) == {"10.0.1.1"}
    assert defaults_by(result, A2) == {"10.0.9.1"}
    assert defaults_by(result, A3) == {"10.0.1.1", "10.0.9.1"}
    assert len(set(result.table_of.values())) == 3


def test_the_same_by_ipv6_and_of_a_multipath_default_only_that_hop() -> None:
    six = [Route("::/0", hops=(Hop(1, f"2001:db8:{n}::1"),), metric=100) for n in (1, 2)]
    both = Route("0.0.0.0/0", hops=(Hop(1, "10.0.1.1", weight=2), Hop(1, "10.0.9.1")))
    at = ("2001:db8:1::2", "2001:db8:2::2", A1)
    result = routing(port(*six, both, addresses=at), [RoutedAddress(address, 1) for address in at])
    assert [defaults_by(result, address) for address in at] == [{"2001:db8:1::1"}, {"2001:db8:2::1"}, {"10.0.1.1"}]


def test_with_one_gateway_the_addresses_of_an_interface_share_its_table() -> None:
    result = routing(port(BY1), [RoutedAddress(A1, 1), RoutedAddress(A2, 1), RoutedAddress("2001:db8::2", 1)])
    assert set(result.table_of.values()) == {42000}


def test_when_a_second_gateway_comes_the_first_keeps_the_table() -> None:
    rules = (*of_address(A1, 42003), *of_address(A2, 42003))
    have = port(BY1, BY2, ours(BY1, 42003), rules=rules)
    assert routing(have, [RoutedAddress(A1, 1), RoutedAddress(A2, 1)]).table_of == {A1: 42003, A2: 42000}


def test_each_interface_has_a_table_and_both_families_share_it() -> None:
    result = routing(
        kernel(DEFAULT1, DEFAULT2), [RoutedAddress(A, 1), RoutedAddress(B, 2), RoutedAddress("2001:db8::2", 1)]
    )
    assert result.table_of == {A: 42000, B: 42001, "2001:db8::2": 42000}


def test_an_interface_keeps_the_table_that_it_has() -> None:
    have = kernel(DEFAULT1, DEFAULT2, ours(DEFAULT2, 42000))
    assert routing(have, [RoutedAddress(A, 1), RoutedAddress(B, 2)]).table_of == {A: 42001, B: 42000}


def test_a_table_is_known_by_the_rules_when_the_kernel_flushed_its_routes() -> None:
    rule = Rule(Family.IPV4, 32765, A, 42007, protocol=PROTOCOL)
    assert routing(kernel(DEFAULT1, rules=(rule,)), [RoutedAddress(A, 1)]).table_of == {A: 42007}


@pytest.mark.parametrize(
    "somebody",
    [
        {"routes": (Route("192.0.2.0/24", 42000, (Hop(9),), protocol=4),)},
        {"rules": (Rule(Family.IPV4, 100, "192.0.2.1", 42000),)},
        {"rules": (Rule(Family.IPV6, 100, None, 42000, foreign=True, protocol=PROTOCOL),)},
    ],
)
def test_a_table_that_another_program_uses_is_not_used(somebody: dict[str, tuple[object, ...]]) -> None:
    have = kernel(DEFAULT1, ours(DEFAULT1), *somebody.get("routes", ()), rules=somebody.get("rules", ()))  # type: ignore[arg-type]
    assert routing(have, [RoutedAddress(A, 1)]).table_of == {A: 42001}


def test_a_profiles_own_table_is_used_and_nothing_is_copied() -> None:
    result = routing(kernel(replace(DEFAULT1, table=100)), [RoutedAddress(A, 1, 100)])
    assert result.table_of == {A: 100}
    assert not of(result)
    assert result.rules == of_address(A, 100)


def test_of_a_multipath_route_only_our_own_hops_are_copied() -> None:
    multipath = Route("0.0.0.0/0", hops=(Hop(1, "10.0.1.1", weight=3), Hop(2, "10.0.2.1", weight=2)))
    assert copied(multipath, Family.IPV4) == {ours(replace(multipath, hops=(Hop(1, "10.0.1.1"),)))}


def test_two_hops_by_the_same_interface_stay_a_multipath_route() -> None:
    hops = (Hop(1, "10.0.1.1", weight=3), Hop(1, "10.0.1.254", weight=2))
    route = Route("0.0.0.0/0", hops=hops)
    assert copied(route, Family.IPV4) == {ours(route)}


def test_a_copy_keeps_everything_but_table_and_protocol() -> None:
    route = Route(
        "198.51.100.0/24",
        hops=(Hop(1, "fe80::1", onlink=True),),
        protocol=16,
        scope=0,
        metric=7,
        tos=16,
        source=A,
        metrics=(("RTAX_ADVMSS", 1300), ("RTAX_MTU", 1400)),
    )
    assert copied(route, Family.IPV4) == {ours(route)}


def test_ipv6_siblings_are_all_copied_and_of_an_ipv4_twin_only_the_first() -> None:
    siblings = [Route("::/0", hops=(Hop(1, gateway),), metric=100) for gateway in ("fe80::1", "fe80::2")]
    assert len(copied(tuple(siblings), Family.IPV6)) == 2
    twins = [Route("0.0.0.0/0", hops=(Hop(1, gateway),), metric=100) for gateway in ("10.0.1.1", "10.0.1.9")]
    assert copied(tuple(twins), Family.IPV4) == {ours(twins[0])}


def test_routes_without_a_next_hop_and_our_own_are_not_copied() -> None:
    blackhole = Route("192.0.2.0/24", type=RouteType.BLACKHOLE)
    assert not copied((blackhole, replace(DEFAULT1, protocol=PROTOCOL)), Family.IPV4)


def test_the_gateway_is_that_of_the_best_default() -> None:
    worse = replace(DEFAULT1, metric=900, hops=(Hop(1, "10.0.1.9"),))
    best = default_route(kernel(worse, DEFAULT1, DEFAULT2), 1, Family.IPV4)
    assert best == DEFAULT1
    assert gateway(best, 1) == "10.0.1.1"
    assert gateway(None, 1) is None


def test_with_more_interfaces_than_tables_the_last_ones_get_none() -> None:
    sources = [RoutedAddress(f"10.{n // 250}.{n % 250}.2", n) for n in range(2, 1010)]
    result = routing(Kernel(), sources)
    assert len(result.table_of) == 1000
    assert len(set(result.table_of.values())) == 1000
