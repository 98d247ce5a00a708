# SPDX-License-Identifier: GPL-2.0-or-later
"""The purpose of an address, and what the results of route look-ups mean for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nm_mptcp.kernel.route_lookup import PROBES, RouteAnswer, on_link
from nm_mptcp.model.flags import EndpointFlag, ProfileFlag
from nm_mptcp.model.reasons import Why
from nm_mptcp.model.record import Contents
from nm_mptcp.model.state import (
    MAIN_TABLE,
    MARKS,
    Endpoint,
    Family,
    Hop,
    Link,
    Route,
    RouteResult,
    RouteType,
    Rule,
    RuleAction,
)
from nm_mptcp.policy import reachability
from nm_mptcp.policy.decide import decide
from nm_mptcp.policy.plan import plan
from nm_mptcp.report.status import overall

from .situations import SUBFLOW, Situation

A, B = "10.0.1.2", "10.0.2.2"
ALSO = {"mptcp_flags": ProfileFlag.ENABLED | ProfileFlag.SUBFLOW | ProfileFlag.ALSO_WITHOUT_DEFAULT_ROUTE}


def laptop(**second: Any) -> Situation:
    """Two links that are paths; the second one with these options."""
    situation = Situation()
    one = situation.link("wlan0", f"{A}/24")
    two = situation.link("wwan0", f"{B}/24", **second)
    for address, index in ((A, one), (B, two)):
        situation.endpoint(address, index, SUBFLOW, ours=not second)
    return situation


def purpose(situation: Situation, address: str, ifindex: int) -> reachability.Purpose:
    return reachability.Purposes(situation.snapshot().kernel).of(address, ifindex)


def told(situation: Situation, ways: dict[str, RouteResult], *, live: tuple[str, ...] = ()) -> dict[str, Why]:
    """The addresses in trouble if all of their look-ups have these results, bound or not."""
    snapshot = situation.snapshot()
    asked = reachability.cases(snapshot.kernel, decide(snapshot).paths)
    answers = {
        each.question.address: tuple(
            RouteAnswer(way, way)
            for way in [ways.get(each.question.address, RouteResult(each.ifindex))] * len(each.question.destinations)
        )
        for each in asked
    }
    found = reachability.troubles(snapshot.kernel, snapshot.networkmanager, asked, answers, live, MARKS)
    return {address: reason.why for address, reason in found.items()}


# --- the purpose of an address


def test_with_a_default_route_the_destinations_are_the_probes() -> None:
    found = purpose(laptop(), A, 2)
    assert (found.destinations, found.default) == (PROBES[Family.IPV4], True)


def test_without_one_the_destinations_follow_from_its_routes() -> None:
    situation = laptop(gateway=False)
    assert purpose(situation, B, 3) == reachability.Purpose(("10.0.2.1",), networks=("10.0.2.0/24",))
    situation.routes.append(Route("172.20.0.0/16", hops=(Hop(3, "10.0.2.1"),)))
    assert purpose(situation, B, 3) == reachability.Purpose(
        ("172.20.0.1", "10.0.2.1"), beyond=True, networks=("10.0.2.0/24",)
    )


def test_rejecting_and_link_local_routes_are_no_purpose() -> None:
    situation = Situation()
    situation.link("eth0", "2001:db8:1::2/64", gateway=False)
    situation.routes = [
        Route("fe80::/64", hops=(Hop(2),)),
        Route("ff00::/8", hops=(Hop(2),)),
        Route("::/0", type=RouteType.UNREACHABLE),
    ]
    assert purpose(situation, "2001:db8:1::2", 2) == reachability.Purpose()


def test_the_tables_of_its_rules_are_used() -> None:
    situation = laptop(gateway=False)
    situation.routes.append(Route("0.0.0.0/0", 500, (Hop(3, "10.0.2.1"),)))
    for rule, default in (
        (Rule(Family.IPV4, 100, A, 500), False),
        (Rule(Family.IPV4, 100, B, 500, foreign=True), False),
        (Rule(Family.IPV4, 100, B, 500, destination="192.0.2.1"), False),
        (Rule(Family.IPV4, 100, B, 500, udp_port=7), False),
        (Rule(Family.IPV4, 100, B, action=RuleAction.UNREACHABLE), False),
        (Rule(Family.IPV4, 100, B, 500), True),
        (Rule(Family.IPV4, 100, "10.0.2.0/24", 500), True),
        (Rule(Family.IPV4, 100, None, 500), True),
    ):
        situation.rules = [rule]
        assert purpose(situation, B, 3).default is default, rule


def test_its_own_address_is_no_destination_and_its_peer_is() -> None:
    situation = Situation()
    situation.link("ppp0", "10.0.1.1/24", gateway=False)
    assert purpose(situation, "10.0.1.1", 2).destinations == ("10.0.1.2",)
    situation.addresses[2] = [replace(situation.addresses[2][0], prefixlen=32, peer="10.9.9.9")]
    situation.routes = [Route("10.9.9.9/32", hops=(Hop(2),))]
    assert purpose(situation, "10.0.1.1", 2) == reachability.Purpose(("10.9.9.9",), networks=("10.9.9.9/32",))


# --- troubles


REFUSED = RouteResult(error="an 'unreachable' route or rule")


@pytest.mark.parametrize(
    ("ways", "wanted"),
    [
        ({}, {}),
        ({A: REFUSED}, {A: Why.NO_WAY}),
        ({A: REFUSED, B: REFUSED}, {A: Why.NO_WAY, B: Why.NO_WAY}),
        ({A: RouteResult(error=on_link("85.85.85.85", "wlan0"))}, {A: Why.NO_WAY}),
        ({A: RouteResult(3)}, {A: Why.NO_WAY}),
        ({A: RouteResult(1, local=True)}, {}),
    ],
)
def test_an_address_that_reaches_no_destination_is_in_trouble(
    ways: dict[str, RouteResult], wanted: dict[str, Why]
) -> None:
    assert told(laptop(), ways) == wanted


def test_reaching_one_destination_is_enough() -> None:
    snapshot = laptop().snapshot()
    (first, _) = reachability.cases(snapshot.kernel, decide(snapshot).paths)
    answers = {A: (RouteAnswer(REFUSED, REFUSED), RouteAnswer(RouteResult(2), RouteResult(2)))}
    assert reachability.troubles(snapshot.kernel, snapshot.networkmanager, [first], answers, (), MARKS) == {}


@pytest.mark.parametrize(
    ("second", "live", "wanted"),
    [
        ({"gateway": False, "profile": ALSO}, (), {B: Why.OWN_NETWORK}),
        ({"gateway": False, "profile": {**ALSO, "ipv4_never_default": True}}, (), {B: Why.REFUSES_DEFAULT}),
        ({"gateway": False, "profile": ALSO}, (B,), {}),
        ({"gateway": False, "profile": ALSO}, (A,), {B: Why.OWN_NETWORK}),
    ],
)
def test_reaching_only_its_network_is_trouble_if_others_have_a_default_route(
    second: dict[str, Any], live: tuple[str, ...], wanted: dict[str, Why]
) -> None:
    assert told(laptop(**second), {}, live=live) == wanted


def test_a_signalled_address_needs_no_route_beyond_its_network() -> None:
    situation = laptop(gateway=False, profile=ALSO)
    situation.endpoints[1] = replace(situation.endpoints[1], flags=EndpointFlag.SIGNAL)
    assert told(situation, {}) == {}


def test_reaching_only_its_network_is_enough_if_no_other_has_a_default_route() -> None:
    situation = laptop(gateway=False, profile=ALSO)
    situation.routes = [route for route in situation.routes if not route.is_default]
    situation.device("wlan0", profile=replace(situation.devices["wlan0"].profile, **ALSO))  # type: ignore[type-var]
    assert told(situation, {}) == {}


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        ([], None),
        ([Link(8, "eth0", carrier=False), Link(9, "vnet0", "tun")], "no carrier on eth0"),
        ([Link(8, "eth0", up=False), Link(9, "veth7", "veth")], "no carrier on eth0"),
        ([Link(8, "eth0"), Link(9, "vnet0", "tun")], None),
        ([Link(8, "bond0", "bond", carrier=False), Link(9, "eth1")], None),
        (
            [Link(9, "vnet0", "tun"), Link(8, "veth7", "veth")],
            "none of its ports leads out of this machine (veth7, vnet0)",
        ),
    ],
)
def test_a_bridges_uplink_is_a_port_of_no_container(ports: list[Link], words: str | None) -> None:
    situation = Situation()
    index = situation.link("br0", f"{A}/24")
    situation.links[index] = replace(situation.links[index], kind="bridge")
    situation.links |= {port.index: replace(port, master=index) for port in ports}
    reason = reachability.without_uplink(situation.snapshot().kernel, index, {"br0"})
    assert (reason.detail if reason else None) == words


# --- the overall state


@pytest.mark.parametrize(
    ("ways", "state"),
    [({}, "good"), ({A: REFUSED}, "held-back"), ({B: REFUSED}, "held-back"), ({A: REFUSED, B: REFUSED}, "not-working")],
)
def test_trouble_is_part_of_the_overall_state(ways: dict[str, RouteResult], state: str) -> None:
    situation = laptop()
    snapshot = situation.snapshot()
    desired = decide(snapshot)
    asked = reachability.cases(snapshot.kernel, desired.paths)
    said = {each.question.address: ways.get(each.question.address, RouteResult(each.ifindex)) for each in asked}
    answers = {address: (RouteAnswer(way, way),) for address, way in said.items()}
    troubles = reachability.troubles(snapshot.kernel, snapshot.networkmanager, asked, answers, (), MARKS)
    judged, causes = overall(snapshot, desired, Contents(), troubles, paused=False, now=0.0)
    assert judged.value == state
    assert len(causes) == len(ways)


# --- another program's endpoint for another interface


@pytest.mark.parametrize("ifindex", [2, 99], ids=["another", "gone"])
def test_an_endpoint_for_another_interface_is_a_trouble_and_stays(ifindex: int) -> None:
    situation = Situation()
    situation.link("wlan0", f"{A}/24")
    situation.link("wwan0", f"{B}/24")
    situation.endpoint(B, ifindex, SUBFLOW, ours=False)
    snapshot = situation.snapshot()
    desired = decide(snapshot)
    assert told(situation, {}) == {B: Why.ENDPOINT_ELSEWHERE}
    changed = {
        each.value.address for each in plan(desired, snapshot.kernel, snapshot.ours) if isinstance(each.value, Endpoint)
    }
    assert changed == {A}
    # It is a path for all else: it is routed, and what is lost is led around by it.
    assert {rule.source for rule in desired.rules} == {A, B}
    situation.links[2] = replace(situation.links[2], carrier=False)
    assert decide(situation.snapshot()).routes[MAIN_TABLE, 3]


@pytest.mark.parametrize("flags", [EndpointFlag.SIGNAL, SUBFLOW])
def test_an_endpoint_without_an_interface_or_one_that_is_announced_is_none(flags: EndpointFlag) -> None:
    situation = Situation()
    situation.link("wlan0", f"{A}/24")
    situation.endpoint(A, 99 if flags is EndpointFlag.SIGNAL else 0, flags, ours=False)
    snapshot = situation.snapshot()
    judged, causes = overall(snapshot, decide(snapshot), Contents(), {}, paused=False, now=0.0)
    assert told(situation, {}) == {}
    assert (judged.value, causes) == ("good", [])
