# SPDX-License-Identifier: GPL-2.0-or-later
"""The failover routes for a link without carrier, and when its own routes are used again."""

from __future__ import annotations

from dataclasses import replace

from nm_mptcp.config.settings import Config, Failover
from nm_mptcp.model.reasons import Why
from nm_mptcp.model.state import MAIN_TABLE, PROTOCOL, Action, Family, Hop, LinkdownSetting, Route
from nm_mptcp.policy.decide import decide
from nm_mptcp.policy.failover_routes import MAX_DESTINATIONS, failover_routes
from nm_mptcp.policy.plan import plan

from .situations import Situation

A, B, C = "10.0.1.2", "10.0.2.2", "10.0.3.2"
A6, B6 = "2001:db8:1::2", "2001:db8:2::2"
E1, E2, E3 = 2, 3, 4
V4, V6 = Family.IPV4, Family.IPV6


def lose(situation: Situation, *links: int) -> None:
    for ifindex in links:
        situation.links[ifindex] = replace(situation.links[ifindex], carrier=False)


def ways(situation: Situation, *lost: tuple[Family, int]) -> dict[tuple[str, int], tuple[int, str | None]]:
    """Destination and metric -> interface and gateway, of the failover routes."""
    found = failover_routes(situation.snapshot().kernel, set(lost)).routes
    assert all(
        route.protocol == PROTOCOL and route.table == MAIN_TABLE for routes in found.values() for route in routes
    )
    return {
        (route.destination, route.metric): (ifindex, route.hops[0].gateway)
        for (_, ifindex), routes in found.items()
        for route in routes
    }


def docked() -> Situation:
    """A cable (the best) and a Wi-Fi, both families."""
    situation = Situation()
    situation.link("e1", f"{A}/24", f"{A6}/64", metric=100)
    situation.link("e2", f"{B}/24", f"{B6}/64", metric=600)
    return situation


def test_the_next_best_default_route_is_preferred_to_the_lost_one() -> None:
    situation = docked()
    lose(situation, E1)
    assert ways(situation, (V4, E1), (V6, E1)) == {
        ("0.0.0.0/0", 99): (E2, "10.0.2.1"),
        ("10.0.1.0/24", 99): (E2, "10.0.2.1"),
        ("::/0", 99): (E2, "2001:db8:2::1"),
        ("2001:db8:1::/64", 99): (E2, "2001:db8:2::1"),
    }


def test_nothing_is_put_beside_a_better_route_of_a_link_that_is_no_path() -> None:
    """Its metric is one less than the silent link's, as NetworkManager numbers links of a kind."""
    situation = Situation()
    for number, metric in enumerate((100, 101, 600), 1):
        situation.link(f"e{number}", f"10.0.{number}.2/24", f"2001:db8:{number}::2/64", metric=metric)
    silent, paths = {(V4, E2), (V6, E2)}, {(V4, E3), (V6, E3)}
    assert not failover_routes(situation.snapshot().kernel, set(), silent=silent, paths=paths).routes


def test_only_families_with_another_path_get_failover_routes() -> None:
    situation = docked()
    lose(situation, E1)
    assert {destination for destination, _ in ways(situation, (V6, E1))} == {"::/0", "2001:db8:1::/64"}


def test_a_link_that_was_second_needs_a_failover_route_only_for_its_own_subnet() -> None:
    situation = docked()
    lose(situation, E2)
    assert ways(situation, (V4, E2)) == {("10.0.2.0/24", 599): (E1, "10.0.1.1")}
    assert failover_routes(situation.snapshot().kernel, {(V4, E2)}).covered == {(V4, E2)}


def test_on_one_subnet_its_hosts_are_reached_by_the_other_link_too() -> None:
    situation = Situation()
    situation.link("e1", "10.0.1.2/24", metric=100)
    situation.link("e2", "10.0.1.3/24", metric=600)
    lose(situation, E1)
    assert ways(situation, (V4, E1)) == {("0.0.0.0/0", 99): (E2, "10.0.1.1"), ("10.0.1.0/24", 99): (E2, None)}


def test_both_of_two_lost_links_get_failover_routes() -> None:
    situation = docked()
    situation.link("e3", f"{C}/24", metric=700)
    lose(situation, E1, E2)
    assert ways(situation, (V4, E1), (V4, E2)) == {
        ("0.0.0.0/0", 99): (E3, "10.0.3.1"),
        ("10.0.1.0/24", 99): (E3, "10.0.3.1"),
        ("10.0.2.0/24", 599): (E3, "10.0.3.1"),
    }


def route_to(situation: Situation, destination: str, ifindex: int, gateway: str | None, metric: int = 100) -> None:
    situation.routes.append(Route(destination, MAIN_TABLE, (Hop(ifindex, gateway),), protocol=4, metric=metric))


def test_a_static_route_of_the_lost_link_is_replaced_by_the_longest_prefix_that_covers_it() -> None:
    situation = docked()
    situation.link("e3", f"{C}/24", metric=50)
    route_to(situation, "192.0.2.128/25", E1, "10.0.1.9")
    route_to(situation, "192.0.2.0/24", E2, "10.0.2.9", metric=700)
    lose(situation, E1)
    assert ways(situation, (V4, E1))["192.0.2.128/25", 99] == (E2, "10.0.2.9")


def test_a_destination_that_no_route_covers_gets_no_failover_route() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", gateway=False)
    situation.link("e2", f"{B}/24", gateway=False)
    lose(situation, E1)
    assert ways(situation, (V4, E1)) == {}


def test_packets_with_another_links_source_use_that_link() -> None:
    situation = docked()
    situation.link("e3", f"{C}/24", metric=700)
    lose(situation, E1)
    found = failover_routes(
        situation.snapshot().kernel, {(V4, E1)}, tables={E1: [42000], E2: [42001], E3: [42002]}
    ).routes
    by = {
        table: {(route.destination, route.hops[0].gateway) for route in routes} for (table, _), routes in found.items()
    }
    assert by == {
        MAIN_TABLE: {("0.0.0.0/0", "10.0.2.1"), ("10.0.1.0/24", "10.0.2.1")},
        42001: {("10.0.1.0/24", "10.0.2.1")},
        42002: {("10.0.1.0/24", "10.0.3.1")},
    }


def test_the_routes_of_a_full_table_stay_ignored_instead() -> None:
    situation = docked()
    for number in range(MAX_DESTINATIONS):
        route_to(situation, f"172.16.{number}.0/24", E1, "10.0.1.1")
    lose(situation, E1)
    found = failover_routes(situation.snapshot().kernel, {(V4, E1)})
    assert (found.routes, found.covered) == ({}, frozenset())


def test_a_lost_link_whose_metric_is_0_keeps_its_routes_ignored() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", metric=0)
    situation.link("e2", f"{B}/24", metric=600)
    lose(situation, E1)
    found = failover_routes(situation.snapshot().kernel, {(V4, E1)})
    assert (found.routes, found.covered) == ({}, frozenset())
    assert (V4, E1) in decide(situation.snapshot()).linkdown


def test_of_a_multipath_default_the_hop_that_is_left_leads_around() -> None:
    situation = Situation()
    for name in ("e1", "e2"):
        situation.link(name, "169.254.1.2/16", gateway=False)
    hops = (Hop(E1, "10.0.1.1", weight=2), Hop(E2, "10.0.2.1", weight=3))
    situation.routes.append(Route("0.0.0.0/0", MAIN_TABLE, hops, metric=100))
    lose(situation, E1)
    assert ways(situation, (V4, E1)) == {("0.0.0.0/0", 99): (E2, "10.0.2.1")}


def test_link_local_prefixes_get_no_failover_route() -> None:
    situation = Situation()
    situation.link("e1", "fe80::2/64", gateway=False)
    situation.link("e2", "fe80::3/64", gateway=False, metric=600)
    lose(situation, E1)
    assert ways(situation, (V6, E1)) == {}


def test_our_failover_route_is_no_default_route_of_its_link() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", metric=100)
    situation.link("e2", f"{B}/24", gateway=False)
    situation.routes.append(Route("0.0.0.0/0", MAIN_TABLE, (Hop(E2, "10.0.2.1"),), protocol=PROTOCOL, metric=99))
    lose(situation, E1)
    assert ways(situation, (V4, E1)) == {}
    assert [path.reason.why for path in decide(situation.snapshot()).paths if path.address == B] == [
        Why.NO_DEFAULT_ROUTE
    ]


# --- in the plan ---


def operations(situation: Situation, config: Config | None = None) -> list[tuple[Action, object]]:
    snapshot = situation.snapshot()
    desired = decide(snapshot, config) if config else decide(snapshot)
    planned = plan(desired, snapshot.kernel, snapshot.ours)
    return [
        (operation.action, operation.value)
        for operation in planned
        if isinstance(operation.value, LinkdownSetting)
        or (isinstance(operation.value, Route) and operation.value.table == MAIN_TABLE)
    ]


def way(gateway: str = "10.0.2.1", destination: str = "0.0.0.0/0") -> Route:
    return Route(destination, MAIN_TABLE, (Hop(E2, gateway),), protocol=PROTOCOL, metric=99)


def two_links() -> Situation:
    situation = Situation()
    situation.link("e1", f"{A}/24", metric=100)
    situation.link("e2", f"{B}/24", metric=600)
    situation.kernel["linkdown_ignored"] = {(V4, E1): True, (V4, E2): True}
    situation.ours = replace(situation.ours, linkdown=frozenset({(V4, E1), (V4, E2)}))
    return situation


def test_failover_routes_are_added_before_the_sysctl_is_reset() -> None:
    situation = two_links()
    lose(situation, E1)
    assert operations(situation) == [
        (Action.ADD, way()),
        (Action.ADD, way(destination="10.0.1.0/24")),
        (Action.SET, LinkdownSetting(V4, E1, "e1", False)),
        (Action.SET, LinkdownSetting(V4, E2, "e2", False)),  # the last one left waits for its link
    ]


def test_when_the_carrier_returns_the_failover_routes_are_deleted() -> None:
    situation = two_links()
    situation.routes.append(way())
    situation.kernel["linkdown_ignored"] = {(V4, E1): False, (V4, E2): False}
    situation.ours = replace(situation.ours, linkdown=frozenset())
    assert operations(situation) == [
        (Action.SET, LinkdownSetting(V4, E1, "e1", True)),
        (Action.SET, LinkdownSetting(V4, E2, "e2", True)),
        (Action.DELETE, way()),
    ]


def test_a_changed_gateway_changes_the_failover_route() -> None:
    situation = two_links()
    lose(situation, E1)
    situation.routes.append(way("10.0.2.9"))
    assert (Action.REPLACE, way()) in operations(situation)


def test_without_failover_there_are_no_failover_routes() -> None:
    situation = two_links()
    lose(situation, E1)
    assert operations(situation, Config(failover=Failover.OFF)) == [
        (Action.SET, LinkdownSetting(V4, E1, "e1", False)),
        (Action.SET, LinkdownSetting(V4, E2, "e2", False)),
    ]
