# SPDX-License-Identifier: GPL-2.0-or-later
"""An endpoint on which a live connection depends is deleted only by somebody's choice: not by a circumstance, nor while it is
not known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from nm_mptcp.config.settings import Config
from nm_mptcp.model.flags import ProfileFlag
from nm_mptcp.model.reasons import Why
from nm_mptcp.model.state import (
    Address,
    AddressFlag,
    DefaultFlags,
    Desired,
    DeviceState,
    Egress,
    Family,
    Link,
    Mode,
    State,
)
from nm_mptcp.policy.decide import decide

from .situations import TUN, Situation

A, B = "2001:db8:1::2", "2001:db8:2::2"

#: By its name what is done to the first link's address, on which a connection stands.
CHANGES: dict[str, Callable[[Situation], None]] = {}


def change(function: Callable[[Situation], None]) -> Callable[[Situation], None]:
    CHANGES[function.__name__] = function
    return function


def profile(situation: Situation, **changes: object) -> None:
    known = situation.devices["e1"].profile
    assert known
    situation.device("e1", profile=replace(known, **changes))


def flags(situation: Situation, more: AddressFlag) -> None:
    situation.addresses[2] = [replace(each, flags=each.flags | more) for each in situation.addresses[2]]


@change
def no_carrier(situation: Situation) -> None:
    situation.links[2] = Link(2, "e1", carrier=False)


@change
def set_down(situation: Situation) -> None:
    situation.links[2] = Link(2, "e1", up=False, carrier=False)
    situation.absent = frozenset(situation.addresses.pop(2))
    situation.routes = [route for route in situation.routes if route.hops[0].ifindex != 2]


@change
def back_and_its_address_not_yet(situation: Situation) -> None:
    situation.absent = frozenset(situation.addresses.pop(2))


@change
def detection_runs_anew(situation: Situation) -> None:
    flags(situation, AddressFlag.TENTATIVE)


@change
def detection_failed(situation: Situation) -> None:
    flags(situation, AddressFlag.TENTATIVE | AddressFlag.DADFAILED)


@change
def deprecated(situation: Situation) -> None:
    flags(situation, AddressFlag.DEPRECATED)


@change
def not_managed(situation: Situation) -> None:
    situation.device("e1", managed=False, state=DeviceState.UNMANAGED, profile=None, activation="")


@change
def unknown_to_networkmanager(situation: Situation) -> None:
    del situation.devices["e1"]


@change
def external(situation: Situation) -> None:
    situation.device("e1", external=True)


@change
def not_connected(situation: Situation) -> None:
    situation.device("e1", state=DeviceState.DISCONNECTED, profile=None, activation="")


@change
def failed(situation: Situation) -> None:
    situation.device("e1", state=DeviceState.FAILED)


@change
def going_down(situation: Situation) -> None:
    situation.device("e1", state=DeviceState.DEACTIVATING)


@change
def unreadable(situation: Situation) -> None:
    situation.device("e1", profile=None, unreadable="no answer in time")


@change
def being_read(situation: Situation) -> None:
    situation.device("e1", profile=None)


@change
def another_kind(situation: Situation) -> None:
    situation.device("e1", type=TUN)


@change
def shared(situation: Situation) -> None:
    profile(situation, ipv6_method="shared")


@change
def never_default(situation: Situation) -> None:
    profile(situation, ipv6_never_default=True)


@change
def its_default_route_is_gone(situation: Situation) -> None:
    situation.routes = [route for route in situation.routes if route.hops[0].ifindex != 2 or not route.is_default]


@change
def switched_off_by_sysctl(situation: Situation) -> None:
    situation.kernel["mptcp_enabled"] = False


@change
def mode_off(situation: Situation) -> None:
    situation.config = Config(mode=Mode.OFF)


def on_two_links(change: str, *, connections: dict[frozenset[str], int] | None) -> Situation:
    situation = Situation()
    for number, address in enumerate((A, B), 1):
        situation.endpoint(address, situation.link(f"e{number}", f"{address}/64"), ours=True)
    situation.rules = list(decide(situation.snapshot()).rules)
    situation.connections = connections
    CHANGES[change](situation)
    return situation


def decision(situation: Situation) -> Desired:
    return decide(situation.snapshot(), situation.config)


def wished(desired: Desired) -> set[str]:
    return {endpoint.address for endpoint in desired.endpoints}


def routed(desired: Desired) -> set[str | None]:
    return {rule.source for rule in desired.rules}


@pytest.mark.parametrize("change", CHANGES)
def test_an_endpoint_that_a_connection_depends_on_stays(change: str) -> None:
    desired = decision(on_two_links(change, connections={frozenset({A}): 1}))
    assert A in wished(desired)
    assert A in routed(desired)
    assert desired.depends_on_connections or change == "detection_runs_anew"


@pytest.mark.parametrize("change", CHANGES)
def test_an_endpoint_stays_until_the_connections_are_known(change: str) -> None:
    desired = decision(on_two_links(change, connections=None))
    assert A in wished(desired)
    assert desired.needs_connections or change == "detection_runs_anew"


@pytest.mark.parametrize("change", sorted(CHANGES.keys() - {"detection_runs_anew", "deprecated"}))
def test_an_endpoint_without_dependents_goes_if_another_path_stays(change: str) -> None:
    desired = decision(on_two_links(change, connections={frozenset({A, B}): 3} if change != "mode_off" else {}))
    assert A not in wished(desired) or change == "switched_off_by_sysctl"  # that takes the other one as well


def test_an_address_that_networkmanager_adds_again_keeps_its_endpoint() -> None:
    situation = on_two_links("detection_runs_anew", connections={})
    before = situation.snapshot().kernel.endpoints
    desired = decision(situation)
    (path,) = [path for path in desired.paths if path.address == A]
    assert (path.state, path.reason.why) == (State.ACTIVE, Why.FLAGS_OF_KIND)
    assert desired.endpoints == {replace(endpoint, id=0) for endpoint in before}
    assert not desired.needs_connections


LONE = CHANGES.keys() - {
    "detection_failed", "not_connected", "failed", "another_kind", "shared", "never_default", "switched_off_by_sysctl",
    "mode_off",
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("connections", [{}, {frozenset({A}): 1}], ids=["idle", "in-use"])
def test_on_a_lone_link(change: str, connections: dict[frozenset[str], int]) -> None:
    """A transient or unknown circumstance deletes nothing; a permanent one does once no connection depends on it."""
    situation = Situation()
    situation.endpoint(A, situation.link("e1", f"{A}/64"), ours=True)
    situation.rules = list(decide(situation.snapshot()).rules)
    situation.connections = connections
    CHANGES[change](situation)
    assert wished(decision(situation)) == ({A} if connections or change in LONE else set())


def test_a_connection_over_both_links_keeps_both_endpoints_if_both_are_to_go() -> None:
    situation = on_two_links("switched_off_by_sysctl", connections={frozenset({A, B}): 1})
    assert wished(decision(situation)) == {A, B}


@pytest.mark.parametrize("link", ["lone", "one of two"])
@pytest.mark.parametrize(
    ("changes", "profiles", "why"),
    [
        ({}, {"mptcp_flags": ProfileFlag.DISABLED}, Why.DISABLED_BY_PROFILE),
        ({"default_flags": DefaultFlags(ProfileFlag.DISABLED, "connection-mine")}, {}, Why.DISABLED_BY_NETWORKMANAGER),
    ],
)
def test_a_deliberate_choice_deletes_the_endpoint(
    link: str, changes: dict[str, object], profiles: dict[str, object], why: Why
) -> None:
    situation = on_two_links("no_carrier", connections={frozenset({A}): 1})
    situation.links[2] = Link(2, "e1")
    if link == "lone":
        del situation.devices["e2"], situation.addresses[3]
        situation.endpoints.pop()
    situation.device("e1", **changes)
    profile(situation, **profiles)
    desired = decision(situation)
    assert A not in wished(desired)
    assert next(path.reason.why for path in desired.paths if path.address == A) is why


def test_the_vpn_guard_is_a_deliberate_choice() -> None:
    situation = on_two_links("no_carrier", connections={frozenset({A}): 1})
    tunnel = situation.link("tun0", "2001:db8:9::2/64", type=16)
    situation.links[tunnel] = replace(situation.links[tunnel], kind="tun")
    situation.kernel["egress"] = {Family.IPV6: (Egress(tunnel), Egress(tunnel))}
    assert A not in wished(decision(situation))


@pytest.mark.parametrize("connections", [None, {}, {frozenset({A}): 1}])
def test_an_unreadable_profile_is_no_path_and_its_endpoint_stays(
    connections: dict[frozenset[str], int] | None,
) -> None:
    """It might disable MPTCP."""
    situation = Situation()
    situation.endpoint(A, situation.link("e1", f"{A}/64"), ours=True)
    situation.connections = connections
    unreadable(situation)
    desired = decision(situation)
    assert wished(desired) == {A}
    (path,) = desired.paths
    assert path.state is State.EXCLUDED
    assert "cannot be read: no answer in time" in str(path.reason)


# --- the reason on a lost link


@pytest.mark.parametrize("endpoint", [True, False])
def test_no_carrier_is_reported_before_duplicate_address_detection(endpoint: bool) -> None:
    """Without carrier it does not begin: from boot on (``ignore-carrier``) the address is tentative as long as that lasts."""
    situation = Situation()
    e1 = situation.link("e1", f"{A}/64", flags=AddressFlag.TENTATIVE)
    situation.links[e1] = Link(e1, "e1", carrier=False)
    if endpoint:
        situation.endpoint(A, e1, ours=True)
    situation.endpoint(B, situation.link("e2", f"{B}/64"), ours=True)
    desired = decision(situation)
    (path,) = [path for path in desired.paths if path.address == A]
    assert (path.state, path.reason.why) == (State.SUSPENDED, Why.NO_CARRIER)
    assert (Family.IPV6, e1) in desired.linkdown or desired.routes.get((254, 3))


def test_damping_does_not_hide_why_an_endpoint_cannot_be_added() -> None:
    """Damped or not: while detection runs, or without a default route, it would be tried once, and in vain."""
    for flags, gateway in ((AddressFlag.TENTATIVE, True), (AddressFlag(0), False)):
        situation = Situation()
        e1 = situation.link("e1", f"{A}/64", flags=flags)
        situation.rules = list(decide(situation.snapshot()).rules)
        if not gateway:
            situation.routes = [route for route in situation.routes if not route.is_default]
        situation.damped = {e1: 4.0}
        assert wished(decision(situation)) == set()


def test_the_rules_of_an_unknown_profile_keep_their_table() -> None:
    """NetworkManager adds its routes to the profile's own table, and main has none."""
    situation = Situation()
    situation.endpoint(A, situation.link("e1", f"{A}/64", profile={"ipv6_route_table": 1000}), ours=True)
    before = decide(situation.snapshot()).rules
    situation.rules = list(before)
    situation.device("e1", external=True, profile=None)
    assert decision(situation).rules == before


def test_an_absent_address_on_another_link_moves_there() -> None:
    situation = Situation()
    e1, e2 = situation.link("e1"), situation.link("e2", f"{A}/64")
    situation.endpoint(A, e1, ours=True)
    situation.absent = frozenset({Address(e1, A, 64)})
    assert {endpoint.place for endpoint in decision(situation).endpoints} == {(A, e2)}
