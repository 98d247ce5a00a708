# SPDX-License-Identifier: GPL-2.0-or-later
"""What follows from a silent link: the routes around it, and which links are watched. (What its paths become is in
``test_decisions``.)
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from nm_mptcp.config.selector import Selector
from nm_mptcp.config.settings import Config, Failover, MeteredPolicy, PathSection, Setting
from nm_mptcp.model.state import MAIN_TABLE, Action, Family, Hop, Place, Route, Silence
from nm_mptcp.nmsyntax.device_match import DeviceMatch
from nm_mptcp.policy.decide import decide
from nm_mptcp.policy.plan import plan

from .situations import MODEM, WIFI, Situation

W, C = "10.0.1.2", "10.0.2.2"
E1, E2 = 2, 3
HERE, THERE = Place(Family.IPV4, E1), Place(Family.IPV4, E2)
SILENT, SUSPECTED = Silence(True, "2 peers unanswered for 1.0 s"), Silence(False, "2 peers unanswered for 0.4 s")


def travelling(**modem: object) -> Situation:
    """A Wi-Fi (the best) and a modem."""
    situation = Situation()
    situation.link("wlan0", f"{W}/24", type=WIFI, metric=600)
    situation.link("wwan0", f"{C}/24", **{"type": MODEM, "metric": 700} | modem)  # type: ignore[arg-type]
    return situation


def detours(situation: Situation, config: Config = Config()) -> set[tuple[str, int, int]]:  # noqa: B008
    """Destination, metric and interface of our routes in main."""
    routes = decide(situation.snapshot(), config).routes
    return {
        (route.destination, route.metric, ifindex)
        for (table, ifindex), group in routes.items()
        if table == MAIN_TABLE
        for route in group
    }


@pytest.mark.parametrize("silence", [SILENT, SUSPECTED])
def test_the_default_route_is_led_around_it_and_its_own_network_is_not(silence: Silence) -> None:
    situation = travelling()
    assert detours(situation) == set()
    situation.silences = {HERE: silence}
    assert detours(situation) == {("0.0.0.0/0", 599, E2)}


def test_other_routes_by_its_gateway_are_led_around_it_as_well() -> None:
    situation = travelling()
    situation.routes.append(Route("198.51.100.0/24", hops=(Hop(E1, "10.0.1.1"),), metric=600))
    situation.routes.append(Route("198.51.99.0/24", hops=(Hop(E1),), metric=600))
    situation.silences = {HERE: SILENT}
    assert detours(situation) == {("0.0.0.0/0", 599, E2), ("198.51.100.0/24", 599, E2)}


def test_no_link_is_used_that_is_no_path() -> None:
    situation = travelling(metered=1)
    situation.silences = {HERE: SILENT}
    assert detours(situation, Config(metered=MeteredPolicy.EXCLUDE)) == set()
    assert detours(situation) == {("0.0.0.0/0", 599, E2)}


def test_a_silent_link_that_is_not_the_best_needs_no_detour() -> None:
    situation = travelling()
    situation.silences = {THERE: SILENT}
    assert detours(situation) == set()


def test_nothing_is_closed_and_no_endpoint_is_deleted() -> None:
    situation = travelling()
    for address, ifindex in ((W, E1), (C, E2)):
        flags = next(each.flags for each in decide(situation.snapshot()).endpoints if each.address == address)
        situation.endpoint(address, ifindex, flags, ours=True)
    situation.silences = {HERE: SILENT}
    snapshot = situation.snapshot()
    operations = plan(decide(snapshot), snapshot.kernel, snapshot.ours)
    actions = {each.action for each in operations}
    assert Action.SET_FLAGS in actions
    assert not actions & {Action.DELETE, Action.CLOSE_REDUNDANT, Action.CLOSE_ALL}


# --- which links are watched


def test_links_are_watched_where_another_path_of_the_family_could_carry() -> None:
    situation = travelling()
    assert decide(situation.snapshot()).watched == {HERE: W, THERE: C}
    situation.silences = {HERE: SILENT}
    assert decide(situation.snapshot()).watched == {HERE: W, THERE: C}, "also while one is silent"
    situation.links[E2] = replace(situation.links[E2], carrier=False)
    assert decide(situation.snapshot()).watched == {}


def test_nothing_is_watched_below_a_tunnel_without_failover_or_where_it_is_switched_off() -> None:
    situation = travelling()
    assert decide(situation.snapshot(), Config(failover=Failover.OFF)).watched == {}
    section = PathSection(
        "path-wifi", Selector(device=DeviceMatch.parse("interface-name:wlan0")), {"silent_links": Setting(False)}
    )
    assert decide(situation.snapshot(), Config(sections=(section,))).watched == {THERE: C}
