# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as a full tunnel, which paths are below it, and in which order they are suspended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nm_mptcp.config.settings import Config
from nm_mptcp.model.flags import EndpointFlag, ProfileFlag
from nm_mptcp.model.reasons import Why
from nm_mptcp.model.record import GuardRecord, decided, guarded
from nm_mptcp.model.state import (
    MARKS,
    Action,
    AddressFlag,
    Desired,
    DeviceState,
    Egress,
    Endpoint,
    Family,
    LeakingSubflows,
    Limits,
    Link,
    Mode,
    Operation,
    Owner,
    Path,
    Profile,
    Rule,
    SavedSetting,
    Snapshot,
    State,
    Tunnel,
    TunnelBypass,
)
from nm_mptcp.policy.decide import decide
from nm_mptcp.policy.plan import plan

from .any_situation import A as STRAY
from .any_situation import situations
from .model_kernel import apply, ends_subflows
from .situations import BACKUP, MODEM, SUBFLOW, TUN, WIREGUARD, Situation

A, B, A6, B6, INNER = "10.0.1.2", "10.0.2.2", "2001:db8:1::2", "2001:db8:2::2", "10.8.0.2"
IPV4, IPV6 = Family.IPV4, Family.IPV6

PPP, GENERIC, ETHERNET = 23, 14, 1


class Laptop(Situation):
    """Two links with both families and all their endpoints, and an interface into which all IPv4 traffic is routed."""

    def __init__(self, *, kind: str | None = "tun", families: tuple[Family, ...] = (IPV4,), **device: object) -> None:
        super().__init__()
        for name, addresses in (("e1", (A, A6)), ("e2", (B, B6))):
            index = self.link(name, *(f"{each}/{64 if ':' in each else 24}" for each in addresses))
            for address in addresses:
                self.endpoint(address, index, ours=True)
        self.tunnel = self.link("tun0", f"{INNER}/24", gateway=False, **{"type": TUN, "external": True, **device})  # type: ignore[arg-type]
        self.links[self.tunnel] = Link(self.tunnel, "tun0", kind)
        self.leads(dict.fromkeys(families, (self.tunnel, self.tunnel)))
        self.route_as_wanted()

    def leads(self, ways: Mapping[Family, tuple[int, int]], *, encrypted: bool = False) -> None:
        """The interfaces by which the probes of each family leave; others leave by the first link."""
        self.kernel["egress"] = {
            family: tuple(Egress(index, encrypted) for index in ways.get(family, (2, 2))) for family in Family
        }

    def route_as_wanted(self) -> None:
        """The rules from before the tunnel."""
        known, self.kernel["egress"] = self.kernel["egress"], {}
        self.rules = list(decide(self.snapshot()).rules)
        self.kernel["egress"] = known

    def decide(self, config: Config | None = None) -> Desired:
        return decide(self.snapshot(), config or Config())

    def operations(self) -> tuple[Operation, ...]:
        desired, snapshot = self.decide(), self.snapshot()
        return plan(desired, snapshot.kernel, decided(snapshot.ours, snapshot.kernel, desired))


def path(desired: Desired, address: str) -> Path:
    return next(path for path in desired.paths if path.address == address)


def wished(desired: Desired) -> set[str]:
    return {endpoint.address for endpoint in desired.endpoints}


# --- what a full tunnel is


@pytest.mark.parametrize(
    "kind", ["tun", "wireguard", "amneziawg", "ovpn", "xfrm", "vti", "ipip", "sit", "gre", "dummy"]
)
def test_a_link_that_encapsulates_is_a_tunnel(kind: str) -> None:
    assert Laptop(kind=kind).decide().tunnels == {IPV4: Tunnel("the tunnel tun0", frozenset({4}))}


@pytest.mark.parametrize("kind", [None, "bridge", "veth", "bond", "vlan", "macvlan"])
def test_any_other_link_is_no_tunnel(kind: str | None) -> None:
    assert not Laptop(kind=kind, type=ETHERNET).decide().tunnels


@pytest.mark.parametrize(
    "changes",
    [
        {"type": TUN, "external": True},
        {"type": TUN, "external": False},
        {"type": WIREGUARD, "external": False},
        {"type": GENERIC, "external": False},
        {"type": TUN, "managed": False, "external": False, "profile": None, "state": DeviceState.UNMANAGED},
    ],
)
def test_it_is_one_whatever_networkmanager_knows_of_it(changes: Mapping[str, object]) -> None:
    assert Laptop(**changes).decide().tunnels


def test_it_is_one_that_networkmanager_does_not_know_at_all() -> None:
    laptop = Laptop()
    del laptop.devices["tun0"]
    assert laptop.decide().tunnels


def test_an_uplink_of_networkmanager_is_no_tunnel() -> None:
    assert not Laptop(type=MODEM, external=False).decide().tunnels


def test_ppp_is_a_tunnel_only_while_a_vpn_plugin_is_active() -> None:
    laptop = Laptop(kind="ppp", type=PPP)
    assert not laptop.decide().tunnels
    laptop.vpn = True
    assert laptop.decide().tunnels


def test_pppoe_beside_a_vpn_is_an_uplink() -> None:
    laptop = Laptop(kind="ppp", type=ETHERNET, external=False)
    laptop.vpn = True
    assert not laptop.decide().tunnels


@pytest.mark.parametrize("ways", [(4, 2), (2, 4), (4, 0), (0, 0), (2, 2)])
def test_a_tunnel_for_half_of_the_family_is_not_full(ways: tuple[int, int]) -> None:
    laptop = Laptop()
    laptop.leads({IPV4: ways})
    desired = laptop.decide()
    assert not desired.tunnels
    assert wished(desired) == {A, B, A6, B6}


def test_an_ipsec_policy_is_a_tunnel_without_an_interface() -> None:
    laptop = Laptop()
    laptop.leads({IPV4: (2, 2)}, encrypted=True)
    desired = laptop.decide()
    assert desired.tunnels[IPV4] == Tunnel("an IPsec policy")
    assert str(path(desired, A).reason) == "VPN guard: all IPv4 traffic leaves by an IPsec policy"


# --- paths below it


def test_paths_below_are_suspended_in_the_families_of_the_tunnel() -> None:
    desired = Laptop().decide()
    for address in (A, B):
        found = path(desired, address)
        assert (found.state, found.reason.why) == (State.SUSPENDED, Why.VPN_GUARD)
        assert str(found.reason) == "VPN guard: all IPv4 traffic leaves by the tunnel tun0"
        assert found.table is None
    assert wished(desired) == {A6, B6}
    assert {rule.source for rule in desired.rules} == {A6, B6}
    assert desired.close_all == {A, B}


@pytest.mark.parametrize("connections", [None, {frozenset({A}): 1}], ids=["unknown", "one"])
def test_in_mode_off_no_endpoint_stays_below_it_for_a_live_connection(
    connections: dict[frozenset[str], int] | None,
) -> None:
    laptop = Laptop()
    laptop.connections, laptop.bypass = connections, TunnelBypass()
    assert {each.address for each in laptop.decide(Config(mode=Mode.OFF)).endpoints} & {A, B} == set()


def test_both_families_are_suspended_by_a_tunnel_of_both() -> None:
    desired = Laptop(families=(IPV4, IPV6)).decide()
    assert not wished(desired)
    assert not desired.rules
    assert set(desired.tunnels) == {IPV4, IPV6}


def test_with_the_guard_off_nothing_is_suspended() -> None:
    desired = Laptop().decide(Config(vpn_guard=False))
    assert not desired.tunnels
    assert not desired.close_all
    assert wished(desired) == {A, B, A6, B6}


def test_a_lone_link_is_no_exception() -> None:
    laptop = Laptop()
    laptop.device("e2", state=DeviceState.DISCONNECTED)
    assert path(laptop.decide(), A).state is State.SUSPENDED


@pytest.mark.parametrize(
    "changes",
    [
        {"carrier": False},
        {"up": False, "carrier": False},
    ],
)
def test_a_lost_link_below_a_tunnel_keeps_no_endpoint_and_no_rule(changes: Mapping[str, bool]) -> None:
    laptop = Laptop()
    laptop.links[2] = replace(laptop.links[2], **changes)
    desired = laptop.decide()
    assert wished(desired) == {B6} or wished(desired) == {A6, B6}
    assert path(desired, A).reason.why is Why.VPN_GUARD
    assert not [place for place in desired.linkdown if place[0] is IPV4]


def test_a_deprecated_address_keeps_no_endpoint() -> None:
    laptop = Laptop(families=(IPV4, IPV6))
    laptop.addresses[2] = [replace(each, flags=each.flags | 0x20) for each in laptop.addresses[2]]
    desired = laptop.decide()
    assert not wished(desired)
    assert A6 in desired.close_all


def test_an_endpoint_kept_without_networkmanager_is_suspended_too() -> None:
    laptop = Laptop()
    laptop.running = False
    assert wished(laptop.decide()) == {A6, B6}


def test_networkmanagers_endpoint_is_withdrawn_and_recorded() -> None:
    laptop = Laptop()
    e3 = laptop.link("e3", "10.0.3.2/24", profile={"mptcp_flags": ProfileFlag(0x62)})
    laptop.endpoint("10.0.3.2", e3, BACKUP, ours=False)
    desired = laptop.decide()
    assert desired.withdrawn == {Endpoint("10.0.3.2", e3, BACKUP)}
    assert "10.0.3.2" in desired.close_all
    kept = decided(laptop.ours, laptop.snapshot().kernel, desired)
    laptop.ours = kept
    laptop.endpoints = [endpoint for endpoint in laptop.endpoints if endpoint.address != "10.0.3.2"]
    assert decided(kept, laptop.snapshot().kernel, laptop.decide()).withdrawn == desired.withdrawn
    laptop.leads({})
    assert Endpoint("10.0.3.2", e3, BACKUP) in laptop.decide().endpoints


def test_another_programs_endpoint_is_unchanged_but_not_routed() -> None:
    laptop = Laptop()
    e3 = laptop.link("e3", "10.0.3.2/24")
    laptop.endpoint("10.0.3.2", e3, EndpointFlag.SUBFLOW | EndpointFlag.FULLMESH, ours=False)
    desired = laptop.decide()
    assert path(desired, "10.0.3.2").reason.why is Why.SOMEBODY_ELSE_OWNS
    assert not desired.withdrawn
    assert "10.0.3.2" not in {rule.source for rule in desired.rules}


def test_a_tunnel_with_flags_of_its_own_is_a_path_and_is_guarded() -> None:
    laptop = Laptop(
        type=TUN,
        external=False,
        profile={
            "type": "tun",
            "mptcp_flags": ProfileFlag.ENABLED | ProfileFlag.SUBFLOW | ProfileFlag.ALSO_WITHOUT_DEFAULT_ROUTE,
        },
    )
    laptop.endpoint(INNER, laptop.tunnel, SUBFLOW, ours=False)
    desired = laptop.decide()
    assert path(desired, INNER).state is State.ACTIVE
    assert INNER not in {endpoint.address for endpoint in desired.withdrawn}
    assert path(desired, A).reason.why is Why.VPN_GUARD


def test_the_subflows_on_a_temporary_address_with_rules_are_closed() -> None:
    laptop = Laptop(families=(IPV6,))
    temporary = "2001:db8:1::7777"
    laptop.address(2, f"{temporary}/64", flags=0x01)
    laptop.route_as_wanted()
    desired = laptop.decide()
    assert temporary in desired.close_all
    assert path(desired, temporary).reason.why is Why.TEMPORARY
    assert not [rule for rule in desired.rules if rule.source == temporary]


# --- connections that bypass the tunnel


def test_the_subflows_that_bypass_the_tunnel_are_read_before_an_endpoint_is_deleted() -> None:
    laptop = Laptop()
    laptop.bypass = None
    desired = laptop.decide()
    assert desired.needs_bypass
    assert wished(desired) == {A, B, A6, B6}


def test_an_endpoint_stays_for_an_allowed_bypass_and_no_subflow_is_allowed() -> None:
    laptop = Laptop()
    laptop.bypass = TunnelBypass(allowed=frozenset({A}))
    desired = laptop.decide()
    assert path(desired, A).reason.why is Why.KEPT_BESIDE_TUNNEL
    assert wished(desired) == {A, A6, B6}
    assert desired.limits == Limits(0, 0)
    assert desired.depends_on_connections
    assert desired.close_all == {A, B}


def test_leaking_subflows_on_such_an_address_are_closed_also_later() -> None:
    laptop = Laptop()
    laptop.rules = []
    laptop.bypass = TunnelBypass(allowed=frozenset({A}))
    assert laptop.decide().close_all == {B}
    laptop.bypass = TunnelBypass(allowed=frozenset({A}), leaking=frozenset({A}))
    assert laptop.decide().close_all == {A, B}


def test_networkmanagers_endpoint_stays_for_it_as_well() -> None:
    laptop = Laptop()
    e3 = laptop.link("e3", "10.0.3.2/24", profile={"mptcp_flags": ProfileFlag(0x22)})
    laptop.endpoint("10.0.3.2", e3, ours=False)
    laptop.bypass = TunnelBypass(allowed=frozenset({"10.0.3.2"}))
    desired = laptop.decide()
    assert not desired.withdrawn
    assert "10.0.3.2" not in wished(desired)


def test_the_limits_are_restored() -> None:
    laptop = Laptop()
    laptop.leads({})
    laptop.kernel["limits"] = Limits(0, 8)
    laptop.ours = replace(laptop.ours, limits={"subflows": SavedSetting(8, 0)})
    # The tunnel's device is still there: what begins in it stays in it, so no address of a peer is accepted.
    assert laptop.decide().limits == Limits(8, 0)
    laptop.links = {index: link for index, link in laptop.links.items() if link.kind != "tun"}
    assert laptop.decide().limits == Limits(8, 8)
    for name in ("e1", "e2"):  # also when no path is left meanwhile
        laptop.device(name, state=DeviceState.DISCONNECTED)
    assert laptop.decide().limits == Limits(8, 8)


# --- the order


def test_the_order_is_the_limit_then_subflows_and_rules_then_endpoints() -> None:
    forbidden, cut, *others = Laptop().operations()
    assert (forbidden.action, forbidden.value) == (Action.SET, Limits(0, 0))
    assert cut.action is Action.CLOSE_ALL
    assert isinstance(cut.value, LeakingSubflows)
    assert cut.value.addresses == {A, B}
    gone = [operation.value for operation in others if operation.action is Action.DELETE]
    rules = [value for value in gone if isinstance(value, Rule)]
    assert {rule.source for rule in rules} == {A, B}
    assert gone[: len(rules)] == rules
    assert [value.address for value in gone[len(rules) : len(rules) + 2] if isinstance(value, Endpoint)] == [A, B]


def test_a_lone_endpoint_is_deleted_without_that_limit() -> None:
    laptop = Laptop()
    laptop.endpoints = [endpoint for endpoint in laptop.endpoints if endpoint.address != B]
    assert laptop.operations()[0].action is Action.CLOSE_ALL


def test_the_limit_is_restored_after_the_endpoints_are_deleted() -> None:
    laptop = Laptop()
    laptop.endpoints = [endpoint for endpoint in laptop.endpoints if endpoint.address in (A6, B6)]
    laptop.rules = [rule for rule in laptop.rules if rule.source in (A6, B6)]
    laptop.kernel["limits"] = Limits(0, 2)
    laptop.ours = replace(laptop.ours, limits={"subflows": SavedSetting(5, 0)})
    assert laptop.decide().limits == Limits(5, 0), "the tunnel is up: no address of a peer is accepted"


def test_nothing_is_written_once_nothing_is_left() -> None:
    laptop = Laptop()
    for _ in range(2):
        for operation in laptop.operations():
            value = operation.value
            if isinstance(value, Endpoint) and operation.action is Action.DELETE:
                laptop.endpoints = [each for each in laptop.endpoints if each.address != value.address]
            if isinstance(value, Rule):
                laptop.rules = [each for each in laptop.rules if each != value]
    found = laptop.operations()
    assert not [op for op in found if op.action is Action.CLOSE_ALL or isinstance(op.value, Rule | Endpoint)]


# --- the record


def test_the_record_starts_again_with_each_period_and_keeps_the_last() -> None:
    assert guarded(None, {}, 1.0) is None
    first = guarded(None, {IPV4: "tun0"}, 1.0)
    assert first == GuardRecord({IPV4: "tun0"}, 1.0)
    counted = first.counted(3, 1)
    assert guarded(counted, {IPV4: "tun0"}, 2.0) is counted
    more = guarded(counted, {IPV4: "tun0", IPV6: "tun0"}, 3.0)
    assert more == GuardRecord({IPV4: "tun0", IPV6: "tun0"}, 1.0, None, 3, 1)
    ended = guarded(more, {}, 4.0)
    assert ended == GuardRecord({IPV4: "tun0", IPV6: "tun0"}, 1.0, 4.0, 3, 1)
    assert guarded(ended, {}, 5.0) is ended
    assert guarded(ended, {IPV4: "wg0"}, 6.0) == GuardRecord({IPV4: "wg0"}, 6.0)


def test_a_vpn_profile_counts_as_a_tunnel_by_its_type() -> None:
    laptop = Laptop(kind=None, type=ETHERNET, external=False)
    laptop.devices["tun0"] = replace(laptop.devices["tun0"], profile=Profile("VPN", "uuid", "vpn"))
    assert laptop.decide().tunnels


# --- properties of any situation


TENTATIVE = AddressFlag.TENTATIVE
LASTING = (Why.FLAGS_OF_KIND, Why.FLAGS_OF_PROFILE, Why.FLAGS_OF_NETWORKMANAGER, Why.NETWORKMANAGER_OWNS)


def settle(snapshot: Snapshot) -> Snapshot:
    """The state after repeated convergences, until nothing is left to do (the model has no connections)."""
    for _ in range(4):
        desired = decide(snapshot)
        ours = decided(snapshot.ours, snapshot.kernel, desired)
        operations = plan(desired, snapshot.kernel, ours)
        kernel, ours = apply([op for op in operations if op.action is not Action.CLOSE_ALL], snapshot.kernel, ours)
        snapshot = replace(snapshot, kernel=kernel, ours=ours)
    assert all(map(ends_subflows, plan(decide(snapshot), snapshot.kernel, snapshot.ours)))
    return snapshot


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(situations(), st.data())
def test_in_any_situation_nothing_is_left_below_a_tunnel_and_all_returns_after_it(
    situation: Situation, data: st.DataObject
) -> None:
    before = settle(situation.snapshot())
    tunnel = 77
    kernel = replace(
        before.kernel,
        links={**before.kernel.links, tunnel: Link(tunnel, "tun0", "tun")},
        egress={IPV4: (Egress(tunnel),) * 2},
    )
    addresses = sorted({endpoint.address for endpoint in kernel.endpoints})
    beside = frozenset(data.draw(st.sets(st.sampled_from(addresses)))) if addresses else frozenset[str]()
    below = settle(replace(before, kernel=kernel, bypass=TunnelBypass(beside)))

    # What NetworkManager itself runs as a tunnel may be a path by its profile's flags.
    others = {path.address for path in decide(below).paths if path.kind != "tun"} - {STRAY}
    assert not [
        rule for rule in below.kernel.rules if MARKS.on_rule(rule) and rule.family is IPV4 and rule.source in others
    ]
    standing = {
        e.address for e in below.kernel.endpoints if e.address in others and e.family is IPV4 and below.ours.owns(e)
    }
    assert standing <= beside
    assert (below.kernel.limits.subflows == 0) or not standing
    theirs = {e for e in before.kernel.endpoints if not before.ours.owns(e) and not e.flags & EndpointFlag.IMPLICIT}
    assert theirs - set(below.kernel.endpoints) <= {replace(e, id=0) for e in below.ours.withdrawn} | {
        e for e in theirs if any(e.place == taken.place for taken in below.ours.withdrawn)
    }

    after = settle(replace(below, kernel=replace(below.kernel, egress={})))
    # One of ours in NetworkManager's place comes back once that is overdue to add its own.
    late = frozenset(path.address for path in decide(after).paths if path.reason.why is Why.WAITS_FOR_NETWORKMANAGER)
    after = settle(replace(after, overdue=late))
    # What was only kept, for want of another path or of NetworkManager, has no reason to come back; and a slot that was
    # free meanwhile may have found somebody else.
    if any(path.reason.why is Why.NO_SLOT for path in (*decide(before).paths, *decide(after).paths)):
        return
    # What NetworkManager made where it would make none now (no default route in main, say), or with other flags, does not,
    # either.
    anew = {(p.address, p.flags) for p in decide(replace(before, kernel=replace(before.kernel, endpoints=()))).paths}
    tentative = {each.address for group in kernel.addresses.values() for each in group if each.flags & TENTATIVE}
    paths = {
        p.address
        for p in decide(before).paths
        if p.state is State.ACTIVE
        and p.reason.why in LASTING
        and p.gateway
        and (p.owner is Owner.OURS or (p.table in MARKS.now.tables and (p.address, p.flags) in anew))
    }
    up = {device.ip_interface for device in before.networkmanager.devices if device.state is DeviceState.ACTIVATED}
    paths = {p.address for p in decide(before).paths if p.address in paths - tentative and p.interface in up}
    if not kernel.mptcp_enabled:
        return
    for kept in (endpoint for endpoint in before.kernel.endpoints if endpoint.address in paths):
        assert [e.flags for e in after.kernel.endpoints if e.key == kept.key] == [kept.flags]
    routed = [
        {(rule.source, rule.priority) for rule in each.kernel.rules if rule.source in paths} for each in (before, after)
    ]
    assert routed[0] == routed[1]  # the table may be another
    assert after.kernel.limits.subflows >= situation.kernel["limits"].subflows
