# SPDX-License-Identifier: GPL-2.0-or-later
"""The operations and their order; then properties of the plan for any situation (hypothesis)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nm_mptcp.config.settings import Config
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.record import adopted, decided
from nm_mptcp.model.state import (
    MAIN_TABLE,
    MARKS,
    PROTOCOL,
    RULE_PRIORITY,
    Action,
    Desired,
    Endpoint,
    Family,
    Hop,
    Kernel,
    LeakingSubflows,
    Limits,
    Link,
    LinkdownSetting,
    Operation,
    Ours,
    OwnEndpoint,
    ReversePathSetting,
    Route,
    RouteType,
    Rule,
    SavedSetting,
    Tunnel,
)
from nm_mptcp.policy.decide import decide
from nm_mptcp.policy.plan import count_unrecorded, needed, plan, restore
from nm_mptcp.policy.source_routing import rank

from .any_situation import CONFIGURATIONS, situations
from .model_kernel import apply, ends_subflows, foreign
from .situations import BACKUP, SUBFLOW, Situation, grouped, rules_of

A, B = "10.0.1.2", "10.0.2.2"


def verbs(operations: Iterable[Operation]) -> list[str]:
    return [f"{operation.action} {type(operation.value).__name__.lower()}" for operation in operations]


def planned(situation: Situation) -> tuple[Operation, ...]:
    snapshot = situation.snapshot()
    return plan(decide(snapshot), snapshot.kernel, snapshot.ours)


def test_an_endpoint_is_added_last_and_limits_before_it() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    assert verbs(planned(situation)) == ["set limits"] + ["add route"] * 2 + ["add rule"] * 4 + ["add endpoint"]


def test_an_endpoint_is_deleted_first() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    kernel, ours = apply(planned(situation), situation.snapshot().kernel, Ours())
    wanted = ["delete endpoint", "set limits"] + ["delete rule"] * 4 + ["delete route"] * 2
    assert verbs(restore(kernel, ours)) == wanted


def test_on_link_prefixes_are_added_before_the_routes_by_their_gateways() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    routes = [operation.value for operation in planned(situation) if isinstance(operation.value, Route)]
    assert [route.destination for route in routes] == ["10.0.1.0/24", "0.0.0.0/0"]
    assert [bool(route.hops and route.hops[0].gateway) for route in routes] == [False, True]


# --- the order of rules ----------------------------------------------------------------------------------------------


def ordered(wanted: tuple[Rule, ...], *there: Rule) -> tuple[Rule, ...]:
    """The rules after the plan was executed with these before it; a second plan has nothing to do."""
    desired = Desired(rules=wanted)
    kernel, ours = apply(plan(desired, Kernel(rules=there), Ours()), Kernel(rules=there), Ours())
    assert not plan(desired, kernel, ours)
    return kernel.rules


FIRST, MAIN, DEFAULT, END = rules_of(A)
OTHERS = Rule(Family.IPV4, RULE_PRIORITY, A, 7)


def test_rules_are_added_in_the_order_of_their_evaluation() -> None:
    assert ordered(rules_of(A)) == rules_of(A)


@pytest.mark.parametrize(
    "there",
    [
        (MAIN, DEFAULT, END),
        (FIRST, DEFAULT, END),
        (FIRST, MAIN, END),
        (FIRST, MAIN, DEFAULT),
        (END, DEFAULT, MAIN, FIRST),
        (DEFAULT, FIRST, MAIN, END),
        (FIRST, FIRST, MAIN, DEFAULT, DEFAULT, END, END),
        rules_of(A, 42001),
    ],
)
def test_missing_doubled_and_misplaced_rules_are_corrected(there: tuple[Rule, ...]) -> None:
    assert ordered(rules_of(A), *there) == rules_of(A)


def test_rules_missing_at_the_end_are_only_added() -> None:
    assert verbs(plan(Desired(rules=rules_of(A)), Kernel(rules=(FIRST, MAIN)), Ours())) == ["add rule"] * 2


def test_our_rules_move_behind_another_programs_of_our_priority() -> None:
    assert ordered(rules_of(A), OTHERS, *rules_of(A)) == (OTHERS, *rules_of(A))
    assert ordered(rules_of(A), *rules_of(A), OTHERS) == (OTHERS, *rules_of(A))
    assert ordered(rules_of(A), FIRST, MAIN, OTHERS, DEFAULT, END) == (OTHERS, *rules_of(A))


def test_rules_of_another_family_or_priority_do_not_matter() -> None:
    for other in (Rule(Family.IPV6, RULE_PRIORITY, None, 7), Rule(Family.IPV4, 32766, None, 254)):
        assert not plan(Desired(rules=rules_of(A)), Kernel(rules=(*rules_of(A), other)), Ours())


def test_while_rules_move_nothing_is_rejected_that_would_be_routed() -> None:
    moved = plan(Desired(rules=rules_of(A)), Kernel(rules=(*rules_of(A), OTHERS)), Ours())
    assert [(operation.action, operation.value) for operation in moved] == [
        (Action.DELETE, END),
        (Action.REPLACE, FIRST),
        (Action.REPLACE, MAIN),
        (Action.REPLACE, DEFAULT),
        (Action.ADD, END),
    ]


def test_rules_of_a_release_that_had_other_priorities_go_once_the_new_ones_stand() -> None:
    old = (*(replace(rule, priority=32000 + n) for n, rule in enumerate(rules_of(A)[:3])),)
    operations = plan(Desired(rules=rules_of(A)), Kernel(rules=old), Ours())
    assert verbs(operations) == ["add rule"] * 4 + ["delete rule"] * 3
    assert [operation.value for operation in operations[4:]] == [old[2], old[1], old[0]]


TUNNELS = replace(MAIN, suppress_prefixlength=None, udp_port=51820)


def test_a_rule_for_a_tunnels_packets_is_put_before_the_others() -> None:
    assert ordered((TUNNELS, *rules_of(A)), *rules_of(A)) == (TUNNELS, *rules_of(A))
    other = replace(TUNNELS, udp_port=51821)
    assert ordered((other, *rules_of(A)), TUNNELS, *rules_of(A)) == (other, *rules_of(A))
    assert ordered((TUNNELS, other, *rules_of(A)), other, *rules_of(A)) == (TUNNELS, other, *rules_of(A))


def test_such_a_rule_goes_without_moving_the_others() -> None:
    operations = plan(Desired(rules=rules_of(A)), Kernel(rules=(TUNNELS, *rules_of(A))), Ours())
    assert operations == (Operation(Action.DELETE, TUNNELS),)
    behind = plan(Desired(rules=rules_of(A)), Kernel(rules=(TUNNELS, *rules_of(A), OTHERS)), Ours())
    assert [operation.value for operation in behind] == [END, *rules_of(A), TUNNELS]


def test_the_rejecting_rule_of_a_removed_address_is_deleted_first() -> None:
    gone = [operation.value for operation in plan(Desired(), Kernel(rules=rules_of(A)), Ours())]
    assert gone == [END, FIRST, MAIN, DEFAULT]


def test_a_priority_is_changed_in_place() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    own = situation.endpoint(A, e1, SUBFLOW, ours=True)
    situation.device("e1", metered=1)
    (change,) = [operation for operation in planned(situation) if isinstance(operation.value, Endpoint)]
    assert change == Operation(Action.SET_FLAGS, replace(own, flags=BACKUP))


def test_flags_that_cannot_be_changed_in_place_need_a_delete_and_an_add() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    situation.endpoint(A, e1, EndpointFlag.SIGNAL, ours=True)
    assert [verb for verb in verbs(planned(situation)) if "endpoint" in verb] == ["delete endpoint", "add endpoint"]


def test_a_changed_gateway_is_replaced_in_one_step_on_ipv4_and_added_before_deleted_on_ipv6() -> None:
    def changed(address: str, gateway: str) -> list[str]:
        situation = Situation()
        situation.link("e1", address)
        kernel, ours = apply(planned(situation), situation.snapshot().kernel, Ours())
        routes = [
            replace(route, hops=(Hop(2, gateway),))
            if route.is_default and route.hops and route.protocol != PROTOCOL
            else route
            for group in kernel.routes.values()
            for route in group
        ]
        kernel = replace(kernel, routes=grouped(routes))
        snapshot = replace(situation.snapshot(), kernel=kernel, ours=ours)
        return verbs(plan(decide(snapshot), kernel, ours))

    assert changed(f"{A}/24", "10.0.1.254") == ["replace route"]
    assert changed("2001:db8:1::2/64", "2001:db8:1::254") == ["add route", "delete route"]


def test_an_ipv4_route_that_moves_to_another_interface_is_replaced_in_one_step() -> None:
    """A failover route, as the link that it used is lost as well: without it packets would go to the first lost link."""
    by = {
        ifindex: Route("0.0.0.0/0", hops=(Hop(ifindex, f"10.0.{ifindex}.1"),), protocol=PROTOCOL) for ifindex in (2, 3)
    }
    desired = Desired(routes={(MAIN_TABLE, 3): frozenset({by[3]})})
    kernel = Kernel(routes={(MAIN_TABLE, 2): (by[2],)})
    assert plan(desired, kernel, Ours()) == (Operation(Action.REPLACE, by[3]),)
    by = {ifindex: replace(route, destination="::/0") for ifindex, route in by.items()}
    desired = Desired(routes={(MAIN_TABLE, 3): frozenset({by[3]})})
    assert verbs(plan(desired, Kernel(routes={(MAIN_TABLE, 2): (by[2],)}), Ours())) == ["add route", "delete route"]


def test_an_ipv6_route_that_differs_in_its_mtu_alone_is_deleted_before_it_is_added() -> None:
    situation = Situation()
    situation.link("e1", "2001:db8:1::2/64")
    kernel, ours = apply(planned(situation), situation.snapshot().kernel, Ours())
    routes = [
        replace(route, metrics=(("RTAX_MTU", 1400),)) if route.is_default and route.protocol == 16 else route
        for group in kernel.routes.values()
        for route in group
    ]
    kernel = replace(kernel, routes=grouped(routes))
    snapshot = replace(situation.snapshot(), kernel=kernel, ours=ours)
    assert verbs(plan(decide(snapshot), kernel, ours)) == ["delete route", "add route"]


def test_a_recreated_interface_moves_its_endpoint() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    situation.endpoint(A, 77, SUBFLOW, ours=True)
    assert [verb for verb in verbs(planned(situation)) if "endpoint" in verb] == ["delete endpoint", "add endpoint"]


def test_a_recreated_interface_moves_an_endpoint_that_was_edited_by_hand() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    for index, verbs_of_it in ((77, ["delete endpoint", "add endpoint"]), (e1, [])):
        situation.endpoints.clear()
        situation.ours = Ours()
        edited = situation.endpoint(A, index, SUBFLOW, ours=True)
        situation.endpoints[0] = replace(edited, flags=BACKUP)
        snapshot = situation.snapshot()
        ours = adopted(snapshot.ours, snapshot.kernel, MARKS)
        operations = plan(decide(replace(snapshot, ours=ours)), snapshot.kernel, ours)
        assert [verb for verb in verbs(operations) if "endpoint" in verb] == verbs_of_it


def test_a_limit_is_restored_only_if_it_has_our_value() -> None:
    ours = Ours(limits={"subflows": SavedSetting(2, 4), "add_addr_accepted": SavedSetting(0, 2)})
    (operation,) = restore(Kernel(limits=Limits(4, 3)), ours)
    assert operation == Operation(Action.SET, Limits(2, 3))


def test_nothing_is_deleted_that_merely_looks_like_ours() -> None:
    foreign = Kernel(
        routes=grouped([Route("192.0.2.0/24", 42, (Hop(2),), protocol=4), Route("::/0", 42000, (Hop(2),), protocol=3)]),
        rules=(
            Rule(Family.IPV4, 32765, A, 42000),
            Rule(Family.IPV4, 32765, A, 42000, protocol=3),
            Rule(Family.IPV4, 32765, A, 42000, protocol=PROTOCOL, foreign=True),
        ),
        endpoints=(Endpoint(A, 2, SUBFLOW, 1), Endpoint(B, 0, EndpointFlag.SIGNAL, 2, 8080)),
    )
    assert not plan(
        Desired(),
        foreign,
        Ours(frozenset({OwnEndpoint(A, 3, SUBFLOW, SUBFLOW, 1), OwnEndpoint(A, 2, BACKUP, BACKUP, 1)})),
    )


# --- what live connections need, and what is kept for them


def test_needed_are_addresses_of_ours_that_have_all_subflows_of_a_connection() -> None:
    ours = Ours(frozenset({OwnEndpoint(A, 2, SUBFLOW, SUBFLOW, 1)}))
    elsewhere = Rule(Family.IPV4, RULE_PRIORITY, "10.0.3.2", 7)
    kernel = Kernel(endpoints=(Endpoint(A, 2, SUBFLOW, 1),), rules=(*rules_of(B), elsewhere))
    assert needed(kernel, ours, None) == {A, B}
    assert needed(kernel, ours, {frozenset({A}): 1, frozenset({B, "10.0.3.2"}): 1}) == {A}
    assert needed(kernel, ours, {frozenset({A, B}): 1}) == {A, B}
    assert needed(kernel, ours, {frozenset({"10.0.3.2"}): 1}) == frozenset()


def test_for_a_kept_address_all_stays_but_what_rejects_packets() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    kernel, ours = apply(planned(situation), situation.snapshot().kernel, Ours())
    rejecting = Route("0.0.0.0/0", 42000, type=RouteType.UNREACHABLE, protocol=PROTOCOL, metric=4278198272)
    others = Route("192.0.2.0/24", 42000, (Hop(2),), protocol=4)
    routes = [*(route for group in kernel.routes.values() for route in group), rejecting, others]
    kernel = replace(kernel, routes=grouped(routes))
    limits, *changes = restore(kernel, ours, kept=frozenset({A}))
    assert isinstance(limits.value, Limits)
    assert changes == [Operation(Action.DELETE, END), Operation(Action.DELETE, rejecting)]


def test_subflows_beside_a_tunnel_are_closed_first_and_the_tunnels_are_named() -> None:
    tunnels = {Family.IPV4: Tunnel("the tunnel tun0", frozenset({7}))}
    desired = Desired(close_all=frozenset({A}), tunnels=tunnels)
    assert plan(desired, Kernel(), Ours()) == (Operation(Action.CLOSE_ALL, LeakingSubflows(frozenset({A}), tunnels)),)


# --- routes without carrier


def test_a_setting_is_written_where_the_link_is_and_can_be_read() -> None:
    places = [(Family.IPV4, 2), (Family.IPV4, 3), (Family.IPV4, 4)]
    links = {3: Link(3, "e3"), 4: Link(4, "e4")}
    kernel = Kernel(links=links, linkdown_ignored={places[0]: False, places[2]: False})
    (operation,) = plan(Desired(linkdown=frozenset(places)), kernel, Ours())
    assert operation.value == LinkdownSetting(Family.IPV4, 4, "e4", True)


# --- the order of routes


def test_a_route_without_an_interface_is_the_last_of_its_table() -> None:
    rejecting = Route("0.0.0.0/0", 42000, type=RouteType.UNREACHABLE, metric=100)
    routes = [rejecting, *(Route("0.0.0.0/0", 42000, (Hop(index, "10.0.1.1"),), metric=index) for index in (1, 2))]
    desired = Desired(routes={place: frozenset(group) for place, group in grouped(routes).items()})
    added = [operation.value for operation in plan(desired, Kernel(), Ours())]
    assert added == [routes[1], routes[2], rejecting]


# --- strict reverse-path filters below a full tunnel


def test_a_strict_filter_is_made_loose_before_the_rules_go_and_strict_again_after_they_are_back() -> None:
    links = {2: Link(2, "wlan0"), 3: Link(3, "wwan0")}
    loose = Operation(Action.SET, ReversePathSetting(2, "wlan0", loose=True))
    strict = replace(loose, value=ReversePathSetting(2, "wlan0", loose=False))
    kernel = Kernel(links=links, strict=frozenset({2, 3}), rules=rules_of(A))
    assert plan(Desired(loosened=frozenset({2})), kernel, Ours())[0] == loose
    ours = Ours(loosened=frozenset({2}))
    assert not plan(Desired(loosened=frozenset({2})), Kernel(links=links), ours), "nothing is written twice"
    assert plan(Desired(rules=rules_of(A)), Kernel(links=links), ours)[-1] == strict
    assert plan(Desired(), Kernel(links=links), ours) == (strict,)
    assert restore(Kernel(links=links), ours) == (strict,)


def test_another_programs_setting_stays() -> None:
    links = {2: Link(2, "wlan0")}
    assert not plan(Desired(loosened=frozenset({2})), Kernel(links=links), Ours()), "it is loose, or off, already"
    again = Kernel(links=links, strict=frozenset({2}))
    assert not plan(Desired(loosened=frozenset({2})), again, Ours(loosened=frozenset({2}))), "nobody fights for it"


# --- properties of any situation -------------------------------------------------------------------------------------


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(situations(), st.sampled_from(CONFIGURATIONS))
def test_any_situation_needs_one_plan_that_changes_nothingforeign(situation: Situation, config: Config) -> None:
    snapshot = situation.snapshot()
    desired = decide(snapshot, config)
    ours = decided(snapshot.ours, snapshot.kernel, desired)
    operations = plan(desired, snapshot.kernel, ours)

    names = verbs(each for each in operations if not ends_subflows(each))
    ups = [place for place, verb in enumerate(names) if verb == "add endpoint"]
    downs = [place for place, verb in enumerate(names) if verb == "delete endpoint"]
    prepared = [place for place, verb in enumerate(names) if verb in ("add route", "replace route", "add rule")]
    assert not ups or not prepared or min(ups) > max(prepared), "endpoints come last"
    assert downs == list(range(len(downs))), "endpoints go first"

    kernel, after = apply(operations, snapshot.kernel, ours)
    assert len(kernel.endpoints) <= kernel.endpoints_max
    again = replace(snapshot, kernel=kernel, ours=after)
    assert foreign(again, desired.withdrawn) == foreign(replace(snapshot, ours=ours), desired.withdrawn)

    # A second look may see that a replacement works now, and then leave what it replaced; a third has nothing to do.
    kernel, after = apply(plan(decide(again, config), kernel, after), kernel, after)
    settled = replace(snapshot, kernel=kernel, ours=after)
    for family in Family:
        last = [MARKS.on_rule(rule) for rule in kernel.rules if (rule.family, rule.priority) == (family, RULE_PRIORITY)]
        assert last == sorted(last), "ours are behind all others of their priority"
    for address in {rule.source for rule in filter(MARKS.on_rule, kernel.rules)}:
        assert [rank(rule) for rule in kernel.rules if MARKS.on_rule(rule) and rule.source == address] == [1, 2, 3, 4]
    assert all(map(ends_subflows, plan(decide(settled, config), kernel, after)))

    # And all of it can be taken back; what was taken from NetworkManager is given back, and so is there again.
    given_back = {endpoint.place for endpoint in after.withdrawn}
    kernel, after = apply(restore(kernel, after), kernel, after)
    assert not [route for group in kernel.routes.values() for route in group if MARKS.on_route(route)]
    assert not [rule for rule in kernel.rules if MARKS.on_rule(rule)]
    assert not [e for e in kernel.endpoints if after.owns(e) and e.place not in given_back]
    assert given_back <= {endpoint.place for endpoint in kernel.endpoints}


@pytest.mark.parametrize("family", [Family.IPV4, Family.IPV6])
def test_a_steady_state_plans_nothing(family: Family) -> None:
    situation = Situation()
    for number in (1, 2):
        situation.link(f"e{number}", f"10.0.{number}.2/24" if family is Family.IPV4 else f"2001:db8:{number}::2/64")
    snapshot = situation.snapshot()
    kernel, ours = apply(plan(decide(snapshot), snapshot.kernel, snapshot.ours), snapshot.kernel, snapshot.ours)
    assert not plan(decide(replace(snapshot, kernel=kernel, ours=ours)), kernel, ours)


def test_only_what_is_to_be_restored_must_be_recorded_before_its_delete() -> None:
    ours, theirs = Endpoint("10.0.1.2", 2, SUBFLOW, 1), Endpoint("10.0.2.2", 3, SUBFLOW, 2)
    deletes = [Operation(Action.DELETE, ours), Operation(Action.DELETE, theirs)]
    added = Operation(Action.ADD, replace(ours, id=0))
    assert count_unrecorded([*deletes, added], withdrawn=frozenset()) == 2
    assert count_unrecorded([*deletes, added], withdrawn={replace(theirs, id=0)}) == 1
    assert count_unrecorded([added, *deletes], withdrawn=frozenset()) == 0
