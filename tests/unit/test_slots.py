# SPDX-License-Identifier: GPL-2.0-or-later
"""More paths than the kernel takes endpoints: which ones get a slot, and which keep it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nm_mptcp.config.selector import Selector, addresses
from nm_mptcp.config.settings import Config, PathSection, Setting
from nm_mptcp.model.flags import EndpointFlag, ProfileFlag
from nm_mptcp.model.reasons import Why
from nm_mptcp.model.record import decided
from nm_mptcp.model.state import Action, Desired, Endpoint, Operation, Ours, Snapshot, State
from nm_mptcp.policy.decide import decide
from nm_mptcp.policy.plan import plan

from .model_kernel import apply
from .situations import SUBFLOW, TUN, Situation
from .test_policy import path, wished

A, B, C, D = "10.0.1.2", "10.0.2.2", "10.0.3.2", "10.0.4.2"
IMPLICIT = EndpointFlag.IMPLICIT
EXPLICIT = {"mptcp_flags": ProfileFlag.ENABLED | ProfileFlag.SUBFLOW}


def first(address: str, priority: int) -> Config:
    """A configuration that gives an address a slot priority."""
    section = PathSection("path-x", Selector(address=addresses(address)), {"slot_priority": Setting(priority)})
    return Config(sections=(section,))


def standing(metrics: dict[str, int], *, most: int) -> Situation:
    """A link for each address, the first ``most`` with their endpoint; and no connection."""
    situation = Situation(endpoints_max=most)
    for number, (address, metric) in enumerate(metrics.items()):
        ifindex = situation.link(f"e{number + 1}", f"{address}/24", metric=metric)
        if number < most:
            situation.endpoint(address, ifindex, ours=True)
    return situation


def left_out(desired: Desired) -> set[str]:
    return {path.address for path in desired.paths if path.reason.why is Why.NO_SLOT}


# --- the order


def test_explicit_flags_come_first_then_one_address_per_interface_by_metric() -> None:
    situation = Situation(endpoints_max=3)
    situation.link("e1", "10.0.1.2/24", "10.0.1.3/24", metric=100)
    situation.link("e2", B + "/24", metric=300)
    situation.link("e3", C + "/24", metric=200)
    situation.link("e4", D + "/24", metric=900, profile=EXPLICIT)
    situation.overdue = frozenset({D})
    desired = decide(situation.snapshot())
    assert set(wished(desired)) == {D, "10.0.1.2", C}
    assert left_out(desired) == {B, "10.0.1.3"}
    shown = path(desired, B)
    assert (shown.state, str(shown.reason)) == (
        State.EXCLUDED,
        "left out: the kernel takes 3 endpoints, all used by better paths",
    )


def test_both_families_of_a_link_come_before_second_addresses_of_any() -> None:
    situation = Situation(endpoints_max=3)
    situation.link("e1", "10.0.1.2/24", "10.0.1.3/24", metric=100)
    situation.link("e2", f"{B}/24", "2001:db8:2::2/64", metric=700)
    assert set(wished(decide(situation.snapshot()))) == {"10.0.1.2", B, "2001:db8:2::2"}


def test_a_slot_priority_applies_only_to_the_addresses_of_its_section() -> None:
    situation = Situation(endpoints_max=2)
    situation.link("e1", "10.0.1.2/24", "10.0.1.3/24", metric=100)
    situation.link("e2", f"{B}/24", metric=700)
    assert set(wished(decide(situation.snapshot()))) == {"10.0.1.2", B}
    assert set(wished(decide(situation.snapshot(), first("10.0.1.3", 1)))) == {"10.0.1.2", "10.0.1.3"}
    assert set(wished(decide(situation.snapshot(), first("10.0.1.2", -1)))) == {"10.0.1.3", B}


def test_among_equals_the_one_that_has_its_endpoint_stays() -> None:
    situation = Situation(endpoints_max=1)
    situation.link("e1", f"{A}/24")
    e2 = situation.link("e2", f"{B}/24")
    situation.endpoint(B, e2, ours=True)
    assert set(wished(decide(situation.snapshot()))) == {B}


def test_a_better_path_displaces_only_the_worst_one() -> None:
    situation = standing({A: 100, B: 200, C: 300}, most=3)
    assert not left_out(decide(situation.snapshot()))
    situation.link("e4", f"{D}/24", metric=150)
    desired = decide(situation.snapshot())
    assert left_out(desired) == {C}
    snapshot = situation.snapshot()
    endpoints = [
        (operation.action, operation.value.address)
        for operation in plan(desired, snapshot.kernel, snapshot.ours)
        if isinstance(operation.value, Endpoint)
    ]
    assert endpoints == [(Action.DELETE, C), (Action.ADD, D)]


def test_a_worse_path_displaces_none() -> None:
    situation = standing({A: 100, B: 200, C: 300}, most=2)
    snapshot = situation.snapshot()
    desired = decide(snapshot)
    assert left_out(desired) == {C}
    assert not [each for each in plan(desired, snapshot.kernel, snapshot.ours) if isinstance(each.value, Endpoint)]


# --- connections on displaced endpoints


def test_an_endpoint_with_a_connections_only_subflow_stays_and_the_next_worst_goes() -> None:
    situation = standing({A: 100, B: 200, C: 300, D: 50}, most=3)
    situation.connections = {frozenset({C}): 1, frozenset({A, B}): 1}
    desired = decide(situation.snapshot())
    assert left_out(desired) == {B}
    kept = path(desired, C)
    assert (kept.state, str(kept.reason)) == (
        State.ACTIVE,
        "left out: the kernel takes 3 endpoints, all used by better paths; its endpoint is kept for connections"
        " without another subflow",
    )
    assert desired.depends_on_connections
    assert {A, C, D} == set(wished(desired))


def test_a_better_path_waits_while_connections_need_all_endpoints() -> None:
    situation = standing({A: 200, B: 300, C: 100}, most=2)
    situation.connections = {frozenset({A}): 1, frozenset({B}): 1}
    desired = decide(situation.snapshot())
    assert set(wished(desired)) == {A, B}
    assert left_out(desired) == {C}
    assert desired.depends_on_connections
    situation.connections = {frozenset({A}): 1, frozenset({A, B}): 1}
    assert set(wished(decide(situation.snapshot()))) == {A, C}


def test_two_displaced_endpoints_are_no_alternatives_to_each_other() -> None:
    situation = standing({A: 300, B: 400, C: 100, D: 200}, most=2)
    situation.connections = {frozenset({A, B}): 1}
    assert set(wished(decide(situation.snapshot()))) == {A, B}
    situation.connections = {frozenset({A, B, "192.0.2.1"}): 1}
    assert set(wished(decide(situation.snapshot()))) == {C, D}


def test_one_whose_interface_is_gone_is_no_alternative_either() -> None:
    """Its subflows end as it moves to the new interface, a phone that was plugged in again."""
    situation = standing({A: 100, B: 300, C: 200}, most=2)
    for recreated in (False, True):
        if recreated:
            situation.ours, situation.endpoints = Ours(), []
            situation.endpoint(A, 77, ours=True)
            situation.endpoint(B, 3, ours=True)
        situation.connections = {frozenset({A, B}): 1}
        assert (B in wished(decide(situation.snapshot()))) is recreated


def test_nothing_is_displaced_before_the_connections_are_known() -> None:
    situation = standing({A: 200, B: 300, C: 100}, most=2)
    situation.connections = None
    desired = decide(situation.snapshot())
    assert set(wished(desired)) == {A, B}
    assert desired.needs_connections


def test_connections_are_not_read_if_nothing_would_be_displaced() -> None:
    situation = standing({A: 100, B: 200, C: 300}, most=2)
    situation.connections = None
    assert not decide(situation.snapshot()).needs_connections


def test_a_lost_links_endpoint_that_connections_need_is_not_displaced_either() -> None:
    situation = standing({A: 300, B: 100, C: 200}, most=2)
    situation.links[2] = replace(situation.links[2], carrier=False)
    situation.connections = {frozenset({A}): 1}
    desired = decide(situation.snapshot())
    assert set(wished(desired)) == {A, B}
    assert path(desired, A).state is State.SUSPENDED
    assert left_out(desired) == {C}


# --- lost links


def test_a_lost_links_slot_goes_to_the_next_path_and_back() -> None:
    situation = standing({A: 100, B: 200, C: 300}, most=2)
    situation.links[2] = replace(situation.links[2], carrier=False)
    assert set(wished(decide(situation.snapshot()))) == {B, C}
    situation.links[2] = replace(situation.links[2], carrier=True)
    situation.endpoints = []
    for address, ifindex in ((B, 3), (C, 4)):
        situation.endpoint(address, ifindex, ours=True)
    assert set(wished(decide(situation.snapshot()))) == {A, B}


def test_networkmanagers_withdrawn_endpoint_is_restored_before_any_of_ours() -> None:
    situation = Situation(endpoints_max=2)
    for number, address in enumerate((A, B), 1):
        ifindex = situation.link(f"e{number}", f"{address}/24", metric=100)
        situation.endpoint(address, ifindex, ours=True)
    e3 = situation.link("e3", f"{C}/24", metric=900, profile=EXPLICIT)
    situation.ours = replace(situation.ours, withdrawn=frozenset({Endpoint(C, e3, SUBFLOW)}))
    assert set(wished(decide(situation.snapshot()))) == {A, C}


def test_a_deprecated_addresss_slot_goes_to_its_successor() -> None:
    old, new = "2001:db8:1::5", "2001:db8:9::5"
    situation = Situation(endpoints_max=2)
    e1 = situation.link("e1", f"{old}/64", flags=0x20)
    situation.endpoint(old, e1, ours=True)
    e2 = situation.link("e2", f"{B}/24", metric=900)
    situation.endpoint(B, e2, ours=True)
    situation.address(e1, f"{new}/64")
    assert set(wished(decide(situation.snapshot()))) == {new, B}
    situation.connections = {frozenset({old}): 1}
    assert set(wished(decide(situation.snapshot()))) == {old, new}


def renumbered(*preferred: int | None, standing: int, read: float = 0.0) -> Situation:
    """A link with an address of each of these preferred lifetimes (s), the first ``standing`` with an endpoint."""
    situation = Situation(endpoints_max=standing)
    e1 = situation.link("e1")
    for number, seconds in enumerate(preferred):
        situation.address(e1, f"{prefix(number)}/64", preferred=seconds, read=read)
        if number < standing:
            situation.endpoint(prefix(number), e1, ours=True)
    return situation


def prefix(number: int) -> str:
    """The address in this prefix."""
    return f"2001:db8:{number}::5"


def test_the_longest_preferred_address_has_a_slot_in_any_order_of_arrival() -> None:
    """Each new prefix of a provider that renumbers outlives the previous ones; which passes detection first is chance."""
    situation = renumbered(3000, 1000, 2000, 9000, standing=3)
    desired = decide(situation.snapshot())
    assert set(wished(desired)) == {prefix(number) for number in (0, 2, 3)}
    assert left_out(desired) == {prefix(1)}
    situation.connections = {frozenset({prefix(1)}): 1}
    assert left_out(decide(situation.snapshot())) == {prefix(2)}


def test_an_address_that_is_preferred_forever_comes_first() -> None:
    assert left_out(decide(renumbered(3000, 9000, None, standing=2).snapshot())) == {prefix(0)}


@pytest.mark.parametrize("preferred", [(3600, 3600, 3600), (3600, 3599, 3601), (3540, 3600, 3600)])
def test_an_equally_long_lifetime_displaces_none(preferred: tuple[int, ...]) -> None:
    assert left_out(decide(renumbered(*preferred, standing=2).snapshot())) == {prefix(2)}


@pytest.mark.parametrize("preferred", [(3000, 1000, 2000, 9000), (1900, 1000, 1500, 1059), (1900, 1000, 1500, 1061)])
def test_the_order_does_not_change_with_time(preferred: tuple[int, ...]) -> None:
    def after(seconds: int) -> set[str]:
        left = [max(0, each - seconds) for each in preferred]
        return left_out(decide(renumbered(*left, standing=3, read=float(seconds)).snapshot()))

    assert {frozenset(after(seconds)) for seconds in range(0, 1000, 7)} == {frozenset(after(0))}


def test_lifetimes_read_at_different_times_are_compared_by_their_end() -> None:
    situation = renumbered(1000, 1000, standing=1, read=5000.0)
    situation.addresses[2][1] = replace(situation.addresses[2][1], read=4000.0)
    assert left_out(decide(situation.snapshot())) == {prefix(1)}
    situation.addresses[2][1] = replace(situation.addresses[2][1], read=6000.0)
    assert left_out(decide(situation.snapshot())) == {prefix(0)}


# --- endpoints of other programs


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (1, "left out: the kernel takes 2 endpoints; 1 used by other programs, the rest by better paths"),
        (2, "left out: the kernel takes 2 endpoints, all used by other programs"),
    ],
)
def test_other_programs_endpoints_use_slots(others: int, words: str) -> None:
    situation = Situation(endpoints_max=2)
    situation.link("e1", f"{A}/24")
    situation.link("e2", f"{B}/24", metric=200)
    for number in range(others):
        situation.endpoint(f"192.0.2.{number}", 0, EndpointFlag.SIGNAL, ours=False, port=5000)
    desired = decide(situation.snapshot())
    assert set(wished(desired)) == ({A} if others == 1 else set())
    assert str(path(desired, B).reason) == words


def test_an_implicit_endpoint_uses_a_slot_while_its_address_exists() -> None:
    situation = Situation(endpoints_max=2)
    situation.link("e1", f"{A}/24")
    situation.link("e2", f"{B}/24", metric=200)
    situation.link("tun0", "10.8.0.2/24", type=TUN)
    implicit = situation.endpoint("10.8.0.2", 0, IMPLICIT, ours=False)
    desired = decide(situation.snapshot())
    assert set(wished(desired)) == {A}
    assert not desired.stale
    situation.addresses[4] = []
    snapshot = situation.snapshot()
    desired = decide(snapshot)
    assert set(wished(desired)) == {A, B}
    assert desired.stale == {implicit}
    kernel, _ = apply(plan(desired, snapshot.kernel, snapshot.ours), snapshot.kernel, snapshot.ours)
    assert {endpoint.address for endpoint in kernel.endpoints} == {A, B}


def test_a_stale_one_stays_if_its_slot_is_not_needed() -> None:
    situation = Situation(endpoints_max=3)
    situation.link("e1", f"{A}/24")
    situation.link("e2", f"{B}/24")
    situation.endpoint("10.8.0.2", 0, IMPLICIT, ours=False)
    desired = decide(situation.snapshot())
    assert set(wished(desired)) == {A, B}
    assert not desired.stale


def test_one_on_a_paths_address_uses_no_second_slot_and_is_replaced_first() -> None:
    situation = Situation(endpoints_max=2)
    situation.link("e1", f"{A}/24")
    situation.link("e2", f"{B}/24")
    situation.endpoint(B, 0, IMPLICIT, ours=False)
    snapshot = situation.snapshot()
    desired = decide(snapshot)
    assert set(wished(desired)) == {A, B}
    added = [
        operation.value.address
        for operation in plan(desired, snapshot.kernel, snapshot.ours)
        if operation.action is Action.ADD and isinstance(operation.value, Endpoint)
    ]
    assert added == [B, A]


@pytest.mark.parametrize("needed", [False, True])
def test_in_a_full_table_it_is_deleted_before_unless_a_connection_needs_it(needed: bool) -> None:
    situation = standing({A: 100, B: 200}, most=1)
    situation.kernel["endpoints_max"] = 2
    implicit = situation.endpoint(B, 0, IMPLICIT, ours=False)
    situation.connections = {frozenset({B}): 1} if needed else {}
    snapshot = situation.snapshot()
    desired = decide(snapshot)
    assert desired.stale == (frozenset() if needed else {implicit})
    kernel, _ = apply(plan(desired, snapshot.kernel, snapshot.ours), snapshot.kernel, snapshot.ours)
    assert {endpoint.address for endpoint in kernel.endpoints} == {A, B}
    assert (implicit in kernel.endpoints) is needed


def test_one_on_a_left_out_paths_address_is_deleted_unless_a_connection_needs_it() -> None:
    situation = Situation(endpoints_max=1)
    situation.link("e1", f"{A}/24", metric=100)
    situation.link("e2", f"{B}/24", metric=200)
    implicit = situation.endpoint(B, 0, IMPLICIT, ours=False)
    desired = decide(situation.snapshot())
    assert (set(wished(desired)), desired.stale) == ({A}, {implicit})
    situation.connections = {frozenset({B}): 1}
    desired = decide(situation.snapshot())
    assert (set(wished(desired)), desired.stale) == (set(), set())
    assert left_out(desired) == {A, B}


# --- refusals


def test_a_refused_endpoint_uses_no_slot_of_others() -> None:
    situation = standing({A: 200, B: 300, C: 100}, most=2)
    situation.refused = {(C, 4): "port 443 is in use"}
    desired = decide(situation.snapshot())
    assert set(wished(desired)) == {A, B}
    shown = path(desired, C)
    assert (shown.state, str(shown.reason)) == (
        State.WAITING,
        "the kernel refused the endpoint: port 443 is in use",
    )


def test_a_full_table_does_not_lower_a_paths_rank() -> None:
    situation = standing({A: 200, B: 300, C: 100}, most=2)
    situation.refused = {(C, 4): ""}
    assert set(wished(decide(situation.snapshot()))) == {A, C}


# --- stability


def settle(snapshot: Snapshot) -> tuple[Snapshot, list[list[Operation]]]:
    """The result of repeated decisions, until there is nothing to do."""
    rounds = []
    for _ in range(5):
        desired = decide(snapshot)
        ours = decided(snapshot.ours, snapshot.kernel, desired)
        operations = plan(desired, snapshot.kernel, ours)
        if not operations:
            return replace(snapshot, ours=ours), rounds
        rounds.append([each for each in operations if isinstance(each.value, Endpoint)])
        kernel, ours = apply(operations, snapshot.kernel, ours)
        snapshot = replace(snapshot, kernel=kernel, ours=ours)
    raise AssertionError(f"it flaps: {rounds}")


def test_twelve_links_need_one_plan_and_so_does_each_change_of_one() -> None:
    situation = Situation(endpoints_max=8)
    for number in range(1, 13):
        situation.link(f"e{number}", f"10.0.{number}.2/24", metric=100 + number % 3)
    snapshot, rounds = settle(situation.snapshot())
    assert [len(each) for each in rounds] == [8]
    best = {endpoint.address for endpoint in snapshot.kernel.endpoints}
    for ifindex, link in situation.links.items():
        lost = {**situation.links, ifindex: replace(link, carrier=False)}
        after, rounds = settle(replace(snapshot, kernel=replace(snapshot.kernel, links=lost)))
        # Beside endpoints there are the ways around the lost link.
        changed = [len(each) for each in rounds if each]
        assert changed == ([2] if situation.addresses[ifindex][0].address in best else [])
        back, rounds = settle(replace(after, kernel=replace(after.kernel, links=situation.links)))
        assert len(rounds) <= 1
        assert len(back.kernel.endpoints) == 8
