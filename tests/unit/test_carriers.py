# SPDX-License-Identifier: GPL-2.0-or-later
"""A full tunnel above several links: it can leave one that is silent, and only by one that would carry without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nm_mptcp.config.selector import Selector
from nm_mptcp.config.settings import Config, Failover, MeteredPolicy, PathSection, Setting
from nm_mptcp.model.state import MAIN_TABLE, Carriers, Egress, Hop, Place, Route, Silence, Way
from nm_mptcp.nmsyntax.device_match import DeviceMatch

from .test_vpn_guard import INNER, IPV4, IPV6, A, B, Laptop, Mode, path

E1, E2, TUNNEL = 2, 3, Place(IPV4, 4)
FIRST, SECOND = Place(IPV4, E1), Place(IPV4, E2)
NONE = Way(frozenset(), E1)
BOTH = {TUNNEL: Carriers(INNER, (NONE, Way(frozenset({FIRST}), E2)))}
SUSPECTED = Silence(False, "a peer unanswered for 1.1 s in tun0")
CERTAIN = Silence(True, "a peer unanswered for 1.1 s in tun0, answered by wwan0")


def led(laptop: Laptop, config: Config | None = None) -> set[tuple[str, int, int]]:
    """Destination, metric and interface of our routes in main."""
    return {
        (route.destination, route.metric, ifindex)
        for (table, ifindex), group in laptop.decide(config).routes.items()
        if table == MAIN_TABLE
        for route in group
    }


def test_the_links_are_in_the_kernels_order() -> None:
    assert Laptop().decide().carriers == BOTH


def test_another_metric_is_another_order() -> None:
    laptop = Laptop()
    laptop.routes = [
        replace(route, metric=900) if route.is_default and route.hops[0].ifindex == E1 else route
        for route in laptop.routes
    ]
    assert laptop.decide().carriers[TUNNEL].ways == (Way(frozenset(), E2), Way(frozenset({SECOND}), E1))


def test_a_tunnel_of_both_families_has_links_of_both_families() -> None:
    laptop = Laptop(families=(IPV4, IPV6))
    laptop.address(4, "2001:db8:8::2/64", gateway=False)
    found = laptop.decide().carriers
    ways = (NONE, Way(frozenset({Place(IPV4, E1), Place(IPV6, E1)}), E2))
    assert found == {TUNNEL: Carriers(INNER, ways), Place(IPV6, 4): Carriers("2001:db8:8::2", ways)}


@pytest.mark.parametrize("kind", ["ipip", "gre", "sit", "vti"])
def test_a_tunnel_that_keeps_its_address_cannot_move(kind: str) -> None:
    assert Laptop(kind=kind).decide().carriers == {}


def test_none_is_watched_above_one_link() -> None:
    laptop = Laptop()
    laptop.links[E2] = replace(laptop.links[E2], carrier=False)
    assert laptop.decide().carriers == {}


def test_a_link_that_would_not_carry_without_it_carries_no_tunnel() -> None:
    laptop = Laptop()
    laptop.devices["e2"] = replace(laptop.devices["e2"], metered=1)
    assert laptop.decide(Config(metered=MeteredPolicy.EXCLUDE)).carriers == {}
    assert laptop.decide().carriers == BOTH


@pytest.mark.parametrize("config", [Config(failover=Failover.OFF), Config(mode=Mode.OFF), Config(vpn_guard=False)])
def test_nothing_is_led_around_where_that_is_switched_off(config: Config) -> None:
    laptop = Laptop()
    laptop.silences = {FIRST: CERTAIN}
    assert laptop.decide(config).carriers == {}
    if config.vpn_guard:  # without it the links are paths, and judged by their own connections
        assert led(laptop, config) == set()


def test_a_link_that_must_not_be_led_around_is_the_last_one() -> None:
    section = PathSection(
        "path-e1", Selector(device=DeviceMatch.parse("interface-name:e1")), {"silent_links": Setting(False)}
    )
    assert Laptop().decide(Config(sections=(section,))).carriers == {}


@pytest.mark.parametrize("silence", [SUSPECTED, CERTAIN])
def test_what_is_routed_by_main_is_led_around_and_nothing_else_changes(silence: Silence) -> None:
    laptop = Laptop()
    laptop.routes.append(Route("192.0.2.77/32", hops=(Hop(E1, "10.0.1.1"),), metric=50))
    before = laptop.decide()
    laptop.silences = {FIRST: silence}
    assert led(laptop) == {("0.0.0.0/0", 99, E2), ("192.0.2.77/32", 49, E2)}
    after = laptop.decide()
    assert (after.endpoints, after.rules, after.limits) == (before.endpoints, before.rules, before.limits)
    assert after.carriers[TUNNEL].links == before.carriers[TUNNEL].links


def test_a_verdict_is_told_and_a_suspicion_is_not() -> None:
    laptop = Laptop()
    laptop.silences = {FIRST: SUSPECTED}
    guard = "VPN guard: all IPv4 traffic leaves by the tunnel tun0"
    assert str(path(laptop.decide(), A).reason) == guard
    laptop.silences = {FIRST: CERTAIN}
    assert str(path(laptop.decide(), A).reason) == f"{guard}, which is led around this link: {CERTAIN.evidence}"
    assert str(path(laptop.decide(), B).reason) == guard


def test_where_all_are_silent_nothing_is_led_around() -> None:
    laptop = Laptop()
    laptop.silences = {FIRST: CERTAIN, SECOND: CERTAIN}
    assert led(laptop) == set()


def test_a_link_that_is_tried_again_is_silent_still_and_is_not_led_around() -> None:
    laptop = Laptop()
    laptop.silences = {FIRST: replace(CERTAIN, tried=True)}
    assert led(laptop) == set()
    assert CERTAIN.evidence in str(path(laptop.decide(), A).reason)


# --- what is led around, below a tunnel


@pytest.mark.parametrize("destination", ["172.20.0.0/16", "198.51.100.0/24", "10.20.30.40/32"])
def test_a_network_beside_the_tunnel_is_this_links_alone(destination: str) -> None:
    laptop = Laptop()
    laptop.routes.append(Route(destination, hops=(Hop(E1, "10.0.1.7"),), metric=100))
    laptop.silences = {FIRST: CERTAIN}
    assert led(laptop) == {("0.0.0.0/0", 99, E2)}


def test_nothing_is_put_in_front_of_the_tunnels_own_route_of_the_same_metric() -> None:
    laptop = Laptop()
    laptop.routes.append(Route("0.0.0.0/0", hops=(Hop(4),), metric=100))
    laptop.silences = {FIRST: CERTAIN}
    assert led(laptop) == set()


def test_where_the_server_has_a_route_its_link_is_the_first_whatever_networkmanager_thinks_of_it() -> None:
    laptop = Laptop()
    laptop.routes = [
        replace(route, metric=20100) if route.is_default and route.hops[0].ifindex == E1 else route
        for route in laptop.routes
    ]
    laptop.routes.append(Route("192.0.2.77/32", hops=(Hop(E1, "10.0.1.1"),), metric=50))
    ways = laptop.decide().carriers[TUNNEL].ways
    assert ways[:2] == BOTH[TUNNEL].ways
    assert ways[2:] == (Way(frozenset({SECOND}), E1),), "that is not certain, so the other way round is tried as well"


def test_a_family_that_ipsec_encrypts_is_led_nowhere() -> None:
    laptop = Laptop(families=(IPV4, IPV6))
    laptop.kernel["egress"][IPV6] = (Egress(E1, True), Egress(E1, True))
    assert laptop.decide().carriers == BOTH
    laptop.kernel["egress"][IPV4] = (Egress(4), Egress(E1, True))
    assert laptop.decide().carriers == {}


def test_of_three_links_the_last_may_be_one_that_must_not_be_led_around() -> None:
    laptop = Laptop()
    laptop.link("e3", "10.0.3.2/24", metric=200)
    section = PathSection(
        "path-e2", Selector(device=DeviceMatch.parse("interface-name:e2")), {"silent_links": Setting(False)}
    )
    ways = laptop.decide(Config(sections=(section,))).carriers[TUNNEL].ways
    assert ways == BOTH[TUNNEL].ways
    third = Way(frozenset({FIRST, SECOND}), 5)
    assert laptop.decide().carriers[TUNNEL].ways == (*BOTH[TUNNEL].ways, third)


def test_a_family_that_no_other_link_has_is_not_led_around() -> None:
    laptop = Laptop(families=(IPV4, IPV6))
    laptop.addresses[E2] = [each for each in laptop.addresses[E2] if each.family is IPV4]
    assert laptop.decide().carriers == BOTH


# --- three links


def third(laptop: Laptop) -> Place:
    laptop.link("e3", "10.0.3.2/24", metric=200)
    return Place(IPV4, 5)


def test_a_link_that_is_tried_again_carries_what_is_led_around_another() -> None:
    laptop = Laptop()
    third(laptop)
    laptop.silences = {FIRST: CERTAIN, SECOND: replace(CERTAIN, tried=True)}
    assert led(laptop) == {("0.0.0.0/0", 99, E2)}
    assert laptop.decide().around == {FIRST}


def test_what_is_led_around_is_told() -> None:
    laptop = Laptop()
    last = third(laptop)
    laptop.silences = {FIRST: CERTAIN, SECOND: SUSPECTED}
    assert laptop.decide().around == {FIRST, SECOND}
    laptop.silences |= {last: CERTAIN}
    assert laptop.decide().around == set(), "there is nothing left by which it could be led"
