# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from nm_mptcp.model import (
    MAIN_TABLE,
    PROTOCOL,
    WORST_METRIC,
    Family,
    Hop,
    Kernel,
    Route,
    RouteType,
    Rule,
    RuleAction,
)
from nm_mptcp.tables import Routing, Source, copies, default_route, gateway, routing
from nm_mptcp.values import replace

from .situations import grouped

A, B = "10.0.1.2", "10.0.2.2"
ONLINK1 = Route("10.0.1.0/24", hops=(Hop(1),), protocol=2, scope=253, source=A)
DEFAULT1 = Route("0.0.0.0/0", hops=(Hop(1, "10.0.1.1"),), protocol=16, metric=100)
ONLINK2 = Route("10.0.2.0/24", hops=(Hop(2),), protocol=2, scope=253, source=B)
DEFAULT2 = Route("0.0.0.0/0", hops=(Hop(2, "10.0.2.1"),), protocol=16, metric=600)


def of(routing: Routing) -> frozenset[Route]:
    return frozenset().union(*routing.routes.values())


def copied(route: Route | tuple[Route, ...], family: Family) -> frozenset[Route]:
    return copies(route if isinstance(route, tuple) else (route,), 1, frozenset({family}), 42000)


def kernel(*routes: Route, rules: tuple[Rule, ...] = ()) -> Kernel:
    return Kernel(routes=grouped(routes), rules=rules)


def ours(route: Route, table: int = 42000) -> Route:
    return replace(route, table=table, protocol=PROTOCOL)


def end(table: int = 42000, family: Family = Family.IPV4) -> Route:
    return Route(family.default, table, type=RouteType.UNREACHABLE, protocol=PROTOCOL, metric=WORST_METRIC)


def test_an_address_gets_three_rules_and_a_table_that_ends_in_unreachable() -> None:
    result = routing(kernel(ONLINK1, DEFAULT1, ONLINK2, DEFAULT2), [Source(A, 1)])
    assert result.table_of == {A: 42000}
    assert of(result) == {ours(ONLINK1), ours(DEFAULT1), end()}
    assert result.rules == {
        Rule(Family.IPV4, 32000, A, 42000, protocol=PROTOCOL, suppress_prefixlength=0),
        Rule(Family.IPV4, 32001, A, MAIN_TABLE, protocol=PROTOCOL, suppress_prefixlength=0),
        Rule(Family.IPV4, 32002, A, 42000, protocol=PROTOCOL),
    }


def test_without_a_default_of_its_own_the_end_is_a_rule_so_that_main_is_still_asked() -> None:
    result = routing(kernel(ONLINK1), [Source(A, 1)])
    assert of(result) == {ours(ONLINK1)}
    assert Rule(Family.IPV4, 32003, A, action=RuleAction.UNREACHABLE, protocol=PROTOCOL) in result.rules


def test_each_interface_has_a_table_and_both_families_share_it() -> None:
    result = routing(kernel(DEFAULT1, DEFAULT2), [Source(A, 1), Source(B, 2), Source("2001:db8::2", 1)])
    assert result.table_of == {A: 42000, B: 42001, "2001:db8::2": 42000}


def test_an_interface_keeps_the_table_that_it_has() -> None:
    have = kernel(DEFAULT1, DEFAULT2, ours(DEFAULT2, 42000), end(42000))
    assert routing(have, [Source(A, 1), Source(B, 2)]).table_of == {A: 42001, B: 42000}


def test_a_table_is_known_by_the_rules_when_the_kernel_flushed_its_routes() -> None:
    rule = Rule(Family.IPV4, 32002, A, 42007, protocol=PROTOCOL)
    assert routing(kernel(DEFAULT1, rules=(rule,)), [Source(A, 1)]).table_of == {A: 42007}


@pytest.mark.parametrize(
    "somebody",
    [
        {"routes": (Route("192.0.2.0/24", 42000, (Hop(9),), protocol=4),)},
        {"rules": (Rule(Family.IPV4, 100, "192.0.2.1", 42000),)},
        {"rules": (Rule(Family.IPV6, 100, None, 42000, foreign=True, protocol=PROTOCOL),)},
    ],
)
def test_a_table_that_somebody_else_uses_is_left_to_him(somebody: dict[str, tuple[object, ...]]) -> None:
    have = kernel(DEFAULT1, ours(DEFAULT1), *somebody.get("routes", ()), rules=somebody.get("rules", ()))  # type: ignore[arg-type]
    assert routing(have, [Source(A, 1)]).table_of == {A: 42001}


def test_a_profiles_own_table_is_pointed_to_and_nothing_is_copied() -> None:
    result = routing(kernel(replace(DEFAULT1, table=100)), [Source(A, 1, 100)])
    assert result.table_of == {A: 100}
    assert not of(result)
    assert {(rule.priority, rule.table, rule.action) for rule in result.rules} == {
        (32000, 100, RuleAction.TO_TABLE),
        (32001, MAIN_TABLE, RuleAction.TO_TABLE),
        (32002, 100, RuleAction.TO_TABLE),
        (32003, 0, RuleAction.UNREACHABLE),
    }


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


def test_unreachable_and_its_like_are_not_copied_nor_are_our_own() -> None:
    blackhole = Route("192.0.2.0/24", type=RouteType.BLACKHOLE)
    assert not copied((blackhole, replace(DEFAULT1, protocol=PROTOCOL)), Family.IPV4)


def test_the_gateway_is_that_of_the_best_default() -> None:
    worse = replace(DEFAULT1, metric=900, hops=(Hop(1, "10.0.1.9"),))
    best = default_route(kernel(worse, DEFAULT1, DEFAULT2), 1, Family.IPV4)
    assert best == DEFAULT1
    assert gateway(best, 1) == "10.0.1.1"
    assert gateway(None, 1) is None


def test_more_interfaces_than_tables_leave_the_last_ones_as_they_were() -> None:
    sources = [Source(f"10.{n // 250}.{n % 250}.2", n) for n in range(2, 1010)]
    result = routing(Kernel(), sources)
    assert len(result.table_of) == 1000
    assert len(set(result.table_of.values())) == 1000
