# SPDX-License-Identifier: GPL-2.0-or-later
"""What is deleted when a link is lost, and what is not; what is restored, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nm_mptcp.config.settings import Config, Failover
from nm_mptcp.model.flags import EndpointFlag, ProfileFlag
from nm_mptcp.model.reasons import Why
from nm_mptcp.model.record import decided
from nm_mptcp.model.state import (
    MAIN_TABLE,
    Action,
    Connectivity,
    Desired,
    DeviceState,
    Endpoint,
    Family,
    Link,
    LinkdownSetting,
    Operation,
    Path,
    RedundantSubflows,
    RouteType,
    RuleAction,
    State,
)
from nm_mptcp.policy.decide import decide
from nm_mptcp.policy.plan import needed, plan, restore

from .situations import BACKUP, MODEM, SUBFLOW, Situation

A, B, TEMPORARY = "10.0.1.2", "10.0.2.2", "2001:db8:1::7777"
A6, B6 = "2001:db8:1::2", "2001:db8:2::2"


def two_links(**first: object) -> Situation:
    """Two links with their endpoints; the first lost its carrier."""
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", **first)  # type: ignore[arg-type]
    situation.endpoint(A, e1, ours=True)
    e2 = situation.link("e2", f"{B}/24")
    situation.endpoint(B, e2, ours=True)
    lose(situation, e1)
    return situation


def lose(situation: Situation, ifindex: int) -> None:
    situation.links[ifindex] = replace(situation.links[ifindex], carrier=False)


def path(desired: Desired, address: str) -> Path:
    return next(path for path in desired.paths if path.address == address)


def wished(desired: Desired) -> set[str]:
    return {endpoint.address for endpoint in desired.endpoints}


def operations(situation: Situation, config: Config | None = None) -> tuple[Operation, ...]:
    snapshot = situation.snapshot()
    desired = decide(snapshot, config) if config else decide(snapshot)
    return plan(desired, snapshot.kernel, decided(snapshot.ours, snapshot.kernel, desired))


@pytest.mark.parametrize(
    ("link", "why"),
    [(Link(2, "e1", carrier=False), Why.NO_CARRIER), (Link(2, "e1", up=False, carrier=False), Why.LINK_DOWN)],
)
def test_a_lost_link_is_suspended_while_another_path_stays(link: Link, why: Why) -> None:
    situation = two_links()
    situation.links[2] = link
    desired = decide(situation.snapshot())
    assert (path(desired, A).state, path(desired, A).reason.why) == (State.SUSPENDED, why)
    assert wished(desired) == {B}


def test_a_link_that_is_set_down_is_lost_although_its_routes_were_removed_first() -> None:
    situation = two_links()
    situation.rules = list(decide(situation.snapshot()).rules)
    situation.links[2] = Link(2, "e1", up=False, carrier=False)
    situation.routes = [route for route in situation.routes if route.hops[0].ifindex != 2]
    desired = decide(situation.snapshot())
    assert (path(desired, A).state, path(desired, A).reason.why) == (State.SUSPENDED, Why.LINK_DOWN)


def test_the_delete_is_the_first_operation() -> None:
    first, *_ = operations(two_links())
    assert (first.action, first.value) == (Action.DELETE, Endpoint(A, 2, SUBFLOW, 1))


def test_a_lone_link_is_never_suspended() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    situation.endpoint(A, e1, ours=True)
    lose(situation, e1)
    desired = decide(situation.snapshot())
    assert wished(desired) == {A}
    assert path(desired, A).reason.why is Why.KEPT_LAST


def test_a_path_of_the_other_family_is_no_alternative() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    situation.endpoint(A, e1, ours=True)
    e2 = situation.link("e2", f"{B6}/64")
    situation.endpoint(B6, e2, ours=True)
    lose(situation, e1)
    assert wished(decide(situation.snapshot())) == {A, B6}


def test_two_dead_links_are_no_alternative_to_each_other() -> None:
    situation = two_links()
    lose(situation, 3)
    assert wished(decide(situation.snapshot())) == {A, B}


def test_nothing_is_deleted_before_the_connections_are_known() -> None:
    situation = two_links()
    situation.connections = None
    desired = decide(situation.snapshot())
    assert desired.needs_connections
    assert wished(desired) == {A, B}


def test_an_endpoint_stays_for_connections_that_have_no_other_subflow() -> None:
    situation = two_links()
    situation.connections = {frozenset({A}): 2, frozenset({A, B}): 1, frozenset({B}): 5}
    desired = decide(situation.snapshot())
    assert wished(desired) == {A, B}
    assert str(path(desired, A).reason) == "no carrier; its endpoint is kept for connections without another subflow"
    assert path(desired, A).state is State.SUSPENDED
    assert desired.depends_on_connections
    # and those that have one are moved
    (sever,) = [operation for operation in operations(situation) if operation.action is Action.CLOSE_REDUNDANT]
    assert sever.value == RedundantSubflows(frozenset({A}), frozenset({A}))


def test_if_all_connections_have_another_subflow_the_endpoint_is_deleted() -> None:
    situation = two_links()
    situation.connections = {frozenset({A, B}): 3}
    verbs = [operation.action for operation in operations(situation)]
    assert verbs[0] is Action.DELETE
    assert Action.CLOSE_REDUNDANT not in verbs


def test_siblings_on_lost_links_do_not_count() -> None:
    situation = two_links()
    e3 = situation.link("e3", "10.0.3.2/24")
    situation.endpoint("10.0.3.2", e3, ours=True)
    lose(situation, 3)  # B as well
    situation.connections = {frozenset({A, B}): 1}
    assert wished(decide(situation.snapshot())) == {A, B, "10.0.3.2"}


def test_the_initial_subflow_on_a_temporary_address_moves_too() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A6}/64")
    situation.address(e1, f"{TEMPORARY}/64", flags=0x01)
    situation.endpoint(A6, e1, ours=True)
    e2 = situation.link("e2", f"{B6}/64")
    situation.endpoint(B6, e2, ours=True)
    lose(situation, e1)
    situation.connections = {frozenset({TEMPORARY, B6}): 1}
    deleted = [op.value for op in operations(situation) if op.action is Action.DELETE]
    assert deleted == [Endpoint(A6, e1, SUBFLOW, 1), Endpoint(TEMPORARY)]
    situation.connections = {frozenset({TEMPORARY}): 1, frozenset({TEMPORARY, B6}): 1}
    done = operations(situation)
    assert Endpoint(TEMPORARY) not in [op.value for op in done]
    assert done[0].value == RedundantSubflows(frozenset({TEMPORARY}), frozenset({A6, TEMPORARY}))


def test_networkmanagers_endpoint_is_withdrawn_and_restored_identically() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", profile={"mptcp_flags": ProfileFlag(0x62)})
    theirs = situation.endpoint(A, e1, BACKUP, ours=False)
    e2 = situation.link("e2", f"{B}/24")
    situation.endpoint(B, e2, ours=True)
    lose(situation, e1)
    snapshot = situation.snapshot()
    desired = decide(snapshot)
    situation.ours = decided(snapshot.ours, snapshot.kernel, desired)
    assert situation.ours.withdrawn == {Endpoint(A, e1, BACKUP)}
    first, *_ = plan(desired, snapshot.kernel, situation.ours)
    assert first == Operation(Action.DELETE, theirs)

    situation.endpoints.remove(theirs)
    assert A not in wished(decide(situation.snapshot()))
    situation.links[e1] = Link(e1, "e1")
    assert Endpoint(A, e1, BACKUP) in decide(situation.snapshot()).endpoints


def test_an_endpoint_that_networkmanager_adds_again_is_withdrawn_again() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", profile={"mptcp_flags": ProfileFlag(0x22)})
    e2 = situation.link("e2", f"{B}/24")
    situation.endpoint(B, e2, ours=True)
    lose(situation, e1)
    situation.ours = replace(situation.ours, withdrawn=frozenset({Endpoint(A, e1, SUBFLOW)}))
    again = situation.endpoint(A, e1, SUBFLOW, ours=False)
    assert operations(situation)[0] == Operation(Action.DELETE, again)


def test_clear_restores_networkmanagers_withdrawn_endpoint() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", profile={"mptcp_flags": ProfileFlag(0x22)})
    situation.ours = replace(situation.ours, withdrawn=frozenset({Endpoint(A, e1, SUBFLOW), Endpoint("192.0.2.9", 9)}))
    snapshot = situation.snapshot()
    assert [op.value for op in restore(snapshot.kernel, snapshot.ours) if op.action is Action.ADD] == [
        Endpoint(A, e1, SUBFLOW)
    ]


def cleared(situation: Situation, connections: dict[frozenset[str], int] | None) -> tuple[set[str], set[object]]:
    """What clear leaves: the addresses of endpoints, and of rules with their actions."""
    situation.rules = list(decide(situation.snapshot()).rules)
    snapshot = situation.snapshot()
    kept = needed(snapshot.kernel, snapshot.ours, connections)
    gone = {each.value for each in restore(snapshot.kernel, snapshot.ours, kept=kept) if each.action is Action.DELETE}
    return (
        {endpoint.address for endpoint in snapshot.kernel.endpoints if endpoint not in gone},
        {(rule.source, rule.action) for rule in snapshot.kernel.rules if rule not in gone},
    )


@pytest.mark.parametrize(
    ("connections", "left"),
    [
        ({}, set()),
        ({frozenset({A}): 1}, {A}),
        ({frozenset({A, B}): 1}, {A, B}),
        ({frozenset({A, "10.0.9.2"}): 1}, set()),
        ({frozenset({"10.0.9.2"}): 1}, set()),
        (None, {A, B}),
    ],
)
def test_clear_leaves_what_a_live_connection_depends_on(
    connections: dict[frozenset[str], int] | None, left: set[str]
) -> None:
    """Its endpoint, and the rules that route its packets, but not the one that rejects them."""
    situation = two_links()
    endpoints, rules = cleared(situation, connections)
    assert endpoints == left
    assert rules == {(address, RuleAction.TO_TABLE) for address in left}


def test_clear_keeps_the_table_of_a_kept_address_without_its_rejecting_rule() -> None:
    situation = two_links()
    desired = decide(situation.snapshot())
    situation.rules = list(desired.rules)
    situation.routes += [route for group in desired.routes.values() for route in group if route.table != MAIN_TABLE]
    snapshot = situation.snapshot()
    gone = {
        each.value
        for each in restore(snapshot.kernel, snapshot.ours, kept=frozenset({A}))
        if each.action is Action.DELETE
    }
    left = [route for group in snapshot.kernel.routes.values() for route in group if route not in gone]
    tables = {rule.table for rule in snapshot.kernel.rules if rule.source == A} - {0, MAIN_TABLE}
    assert {route.table for route in left} == tables | {MAIN_TABLE}
    assert all(route.type is RouteType.UNICAST for route in left)


def test_a_manual_endpoint_on_a_lost_link_is_unchanged() -> None:
    situation = two_links()
    situation.ours = replace(situation.ours, endpoints=frozenset())
    situation.endpoints = [Endpoint(A, 2, EndpointFlag.SIGNAL, 1)]
    assert not [op for op in operations(situation) if op.action is Action.DELETE and isinstance(op.value, Endpoint)]


# --- return ---


def test_a_flapping_link_is_damped_and_a_lone_one_is_not() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    situation.damped = {e1: 2.0}
    assert wished(decide(situation.snapshot())) == {A}
    situation.link("e2", f"{B}/24")
    desired = decide(situation.snapshot())
    assert wished(desired) == {B}
    assert str(path(desired, A).reason) == "the link is flapping: suspended for 2 s"


def test_an_endpoint_that_stayed_through_the_flap_is_not_damped() -> None:
    situation = two_links()
    situation.links[2] = Link(2, "e1")
    situation.damped = {2: 2.0}
    assert path(decide(situation.snapshot()), A).state is State.ACTIVE


# --- the other modes ---


def test_safe_only_makes_it_backup() -> None:
    situation = two_links()
    (change,) = [op for op in operations(situation, Config(failover=Failover.SAFE)) if isinstance(op.value, Endpoint)]
    assert change == Operation(Action.SET_FLAGS, Endpoint(A, 2, BACKUP, 1))


def test_off_leaves_it_to_networkmanager() -> None:
    situation = two_links()
    assert not [op for op in operations(situation, Config(failover=Failover.OFF)) if isinstance(op.value, Endpoint)]


# --- planned ---


def test_the_path_of_a_deactivated_connection_is_suspended_if_another_stays() -> None:
    situation = two_links()
    situation.links[2] = Link(2, "e1")
    situation.device("e1", state=DeviceState.DEACTIVATING)
    assert operations(situation)[0] == Operation(Action.DELETE, Endpoint(A, 2, SUBFLOW, 1))
    situation.connections = {frozenset({A}): 1}
    assert wished(decide(situation.snapshot())) == {A, B}


# --- connectivity ---


@pytest.mark.parametrize(
    ("mine", "others", "new", "existing"),
    [
        (Connectivity.FULL, Connectivity.FULL, True, SUBFLOW),
        (Connectivity.UNKNOWN, Connectivity.FULL, True, SUBFLOW),
        (Connectivity.NONE, Connectivity.FULL, True, SUBFLOW),
        (Connectivity.PORTAL, Connectivity.FULL, False, BACKUP),
        (Connectivity.LIMITED, Connectivity.FULL, False, BACKUP),
        (Connectivity.PORTAL, Connectivity.LIMITED, True, SUBFLOW),  # the check's own server may be away
        (Connectivity.LIMITED, Connectivity.UNKNOWN, True, SUBFLOW),
    ],
)
def test_behind_a_portal_a_new_endpoint_waits_and_an_existing_one_becomes_backup(
    mine: Connectivity, others: Connectivity, new: bool, existing: EndpointFlag
) -> None:
    def situation() -> Situation:
        situation = Situation()
        situation.link("e1", f"{A}/24", ipv4_connectivity=mine)
        situation.link("e2", f"{B}/24", ipv4_connectivity=others)
        return situation

    assert (A in wished(decide(situation().snapshot()))) == new
    standing = situation()
    standing.endpoint(A, 2, SUBFLOW, ours=True)
    assert Endpoint(A, 2, existing) in decide(standing.snapshot()).endpoints


def test_a_lone_link_behind_a_portal_is_a_path() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", ipv4_connectivity=Connectivity.PORTAL)
    assert wished(decide(situation.snapshot())) == {A}


# --- new connections ---


def settings(situation: Situation) -> list[tuple[Family, int, bool]]:
    values = [operation.value for operation in operations(situation) if isinstance(operation.value, LinkdownSetting)]
    return [(value.family, value.ifindex, value.ignored) for value in values]


def test_routes_of_a_dead_link_are_ignored_while_another_path_of_that_family_is_active() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    assert settings(situation) == []
    e2 = situation.link("e2", f"{B}/24", f"{B6}/64")
    assert settings(situation) == [(Family.IPV4, e1, True), (Family.IPV4, e2, True)]


def test_the_sysctl_is_reset_if_it_has_our_value() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    situation.ours = replace(situation.ours, linkdown=frozenset({(Family.IPV4, e1)}))
    situation.kernel["linkdown_ignored"] = {(Family.IPV4, e1): True}
    assert settings(situation) == [(Family.IPV4, e1, False)]


def test_an_administrators_own_setting_is_respected() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    situation.link("e2", f"{B}/24")
    situation.kernel["linkdown_ignored"] = {(Family.IPV4, 2): True, (Family.IPV4, 3): True}
    assert settings(situation) == []  # his ones stay, also where we would not want it
    situation.kernel["linkdown_ignored"] = {(Family.IPV4, 2): False, (Family.IPV4, 3): False}
    situation.ours = replace(situation.ours, linkdown=frozenset({(Family.IPV4, 2)}))
    assert settings(situation) == [(Family.IPV4, 3, True)]  # he turned the first off after we had turned it on


# --- failed subflows ---


def test_an_endpoint_whose_subflows_failed_is_readded_if_it_has_none() -> None:
    situation = two_links(type=MODEM)
    situation.links[2] = Link(2, "e1")
    situation.endpoints[0] = replace(situation.endpoints[0], flags=SUBFLOW)
    situation.device("e1", type=1)
    situation.subflow_retry_due = frozenset({A})
    situation.connections = {frozenset({B}): 1}
    renewed = [op for op in operations(situation) if isinstance(op.value, Endpoint)]
    assert renewed == [
        Operation(Action.DELETE, Endpoint(A, 2, SUBFLOW, 1)),
        Operation(Action.ADD, Endpoint(A, 2, SUBFLOW)),
    ]
    situation.connections = {frozenset({B}): 1, frozenset({A, B}): 1}
    assert not [op for op in operations(situation) if isinstance(op.value, Endpoint)]  # one stands: it would be cut


@pytest.mark.parametrize("known", [True, False])
def test_a_link_is_lost_while_networkmanager_does_not_answer(known: bool) -> None:
    """Also if the service was started meanwhile: then the record and the kernel show what is ours."""
    situation = Situation()
    situation.silent, situation.running = True, known
    for number in (1, 2):
        ifindex = situation.link(f"e{number}", f"10.0.{number}.2/24")
        situation.endpoint(f"10.0.{number}.2", ifindex, ours=True)
    before = decide(situation.snapshot())
    situation.rules = list(before.rules)
    if not known:
        situation.devices.clear()
    assert {each.address for each in decide(situation.snapshot()).endpoints} == {"10.0.1.2", "10.0.2.2"}
    assert set(decide(situation.snapshot()).rules) == set(before.rules)
    situation.links[2] = replace(situation.links[2], carrier=False)
    desired = decide(situation.snapshot())
    assert {each.address for each in desired.endpoints} == {"10.0.2.2"}
    situation.endpoints.pop(0)
    assert set(decide(situation.snapshot()).rules) == set(before.rules)
