# SPDX-License-Identifier: GPL-2.0-or-later
"""For each situation: the rule that decided, and the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from nm_mptcp.config.settings import Config
from nm_mptcp.model.flags import EndpointFlag, ProfileFlag
from nm_mptcp.model.reasons import Why
from nm_mptcp.model.record import decided
from nm_mptcp.model.state import (
    DefaultFlags,
    Desired,
    DeviceState,
    FlagsFrom,
    Limits,
    Link,
    Mode,
    Owner,
    Path,
    SavedSetting,
    State,
)
from nm_mptcp.policy.decide import decide

from .situations import BACKUP, BLUETOOTH, BRIDGE, LEFT_TO_US, MODEM, SUBFLOW, TUN, VETH, WIFI, WIREGUARD, Situation

A, B = "10.0.1.2", "10.0.2.2"
A6, B6 = "2001:db8:1::2", "2001:db8:2::2"
LAMINAR = EndpointFlag.LAMINAR


def path(desired: Desired, address: str) -> Path:
    return next(path for path in desired.paths if path.address == address)


def wished(desired: Desired) -> dict[str, EndpointFlag]:
    return {endpoint.address: endpoint.flags for endpoint in desired.endpoints}


# --- one link: which rule decides ---


def _one(**options: object) -> Callable[[], Situation]:
    def build() -> Situation:
        situation = Situation(**{key[7:]: value for key, value in options.items() if key.startswith("kernel_")})
        rest = {key: value for key, value in options.items() if not key.startswith("kernel_")}
        address = rest.pop("address", f"{A}/24")
        version = rest.pop("version", None)
        situation.link("e1", str(address), **rest)
        if version is not None:
            situation.version = str(version)
        return situation

    return build


ONE_LINK: dict[str, tuple[Callable[[], Situation], State, Why, EndpointFlag | None]] = {
    # kinds, with default flags and our drop-in: the last column is the endpoint that we make
    "ethernet": (_one(), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW),
    "ethernet, IPv6": (_one(address=f"{A6}/64"), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW),
    "wifi": (_one(type=WIFI), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW),
    "veth": (_one(type=VETH), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW),
    "bridge with an uplink": (_one(type=BRIDGE), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW),
    "cellular": (_one(type=MODEM), State.ACTIVE, Why.FLAGS_OF_KIND, BACKUP),
    "bluetooth": (_one(type=BLUETOOTH), State.ACTIVE, Why.FLAGS_OF_KIND, BACKUP),
    "metered wifi": (_one(type=WIFI, metered=1), State.ACTIVE, Why.METERED_BACKUP, BACKUP),
    "wifi guessed to be metered": (_one(type=WIFI, metered=3), State.ACTIVE, Why.METERED_BACKUP, BACKUP),
    "wifi guessed not to be metered": (_one(type=WIFI, metered=4), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW),
    "tun": (_one(type=TUN), State.EXCLUDED, Why.KIND_IS_NO_PATH, None),
    "wireguard": (_one(type=WIREGUARD), State.EXCLUDED, Why.KIND_IS_NO_PATH, None),
    "a type of a NetworkManager to come": (_one(type=99), State.EXCLUDED, Why.KIND_IS_NO_PATH, None),
    "laminar kernel": (_one(kernel_laminar=True), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW | LAMINAR),
    "laminar kernel, cellular": (
        _one(kernel_laminar=True, type=MODEM),
        State.ACTIVE,
        Why.FLAGS_OF_KIND,
        BACKUP | LAMINAR,
    ),
    # NetworkManager before mptcp-flags: all is ours
    "NetworkManager 1.38": (
        _one(version="1.38.2", default_flags=DefaultFlags()),
        State.ACTIVE,
        Why.FLAGS_OF_KIND,
        SUBFLOW,
    ),
    # the profile's own flags: NetworkManager makes the endpoint, we wait for it
    "0x1": (_one(profile={"mptcp_flags": ProfileFlag(0x1)}), State.EXCLUDED, Why.DISABLED_BY_PROFILE, None),
    "0x2": (_one(profile={"mptcp_flags": ProfileFlag(0x2)}), State.WAITING, Why.WAITS_FOR_NETWORKMANAGER, None),
    "0x22": (_one(profile={"mptcp_flags": ProfileFlag(0x22)}), State.WAITING, Why.WAITS_FOR_NETWORKMANAGER, None),
    "0x22 on a tun device": (
        _one(type=TUN, profile={"mptcp_flags": ProfileFlag(0x22)}),
        State.WAITING,
        Why.WAITS_FOR_NETWORKMANAGER,
        None,
    ),
    "0x2 with the sysctl off": (
        _one(kernel_mptcp_enabled=False, profile={"mptcp_flags": ProfileFlag(0x2)}),
        State.EXCLUDED,
        Why.SYSCTL_OFF,
        None,
    ),
    "0x6 with the sysctl off": (
        _one(kernel_mptcp_enabled=False, profile={"mptcp_flags": ProfileFlag(0x6)}),
        State.WAITING,
        Why.WAITS_FOR_NETWORKMANAGER,
        None,
    ),
    "0x2 without a gateway": (
        _one(gateway=False, profile={"mptcp_flags": ProfileFlag(0x2)}),
        State.WAITING,
        Why.NO_DEFAULT_ROUTE,
        None,
    ),
    "0xa without a gateway": (
        _one(gateway=False, profile={"mptcp_flags": ProfileFlag(0xA)}),
        State.WAITING,
        Why.WAITS_FOR_NETWORKMANAGER,
        None,
    ),
    "0x22 with its own route-table: NetworkManager counts main only": (
        _one(profile={"mptcp_flags": ProfileFlag(0x22), "ipv4_route_table": 100}),
        State.WAITING,
        Why.NO_DEFAULT_ROUTE,
        None,
    ),
    # NetworkManager's own defaults
    "no drop-in": (_one(default_flags=DefaultFlags()), State.WAITING, Why.WAITS_FOR_NETWORKMANAGER, None),
    "an administrator's default": (
        _one(default_flags=DefaultFlags(ProfileFlag(0x62), "connection-wwan")),
        State.WAITING,
        Why.WAITS_FOR_NETWORKMANAGER,
        None,
    ),
    "an administrator's disabled": (
        _one(default_flags=DefaultFlags(ProfileFlag(0x1), "connection-no-mptcp")),
        State.EXCLUDED,
        Why.DISABLED_BY_NETWORKMANAGER,
        None,
    ),
    # states of the device
    "unmanaged": (_one(managed=False, state=DeviceState.UNMANAGED), State.EXCLUDED, Why.NOT_MANAGED, None),
    "external": (_one(external=True), State.EXCLUDED, Why.EXTERNAL, None),
    "disconnected": (_one(state=DeviceState.DISCONNECTED), State.EXCLUDED, Why.NOT_CONNECTED, None),
    "failed": (_one(state=DeviceState.FAILED), State.EXCLUDED, Why.NOT_CONNECTED, None),
    "config": (_one(state=DeviceState.CONFIG), State.WAITING, Why.ACTIVATING, None),
    "ip config": (_one(state=DeviceState.IP_CONFIG), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW),
    "ip check (pre-up)": (_one(state=DeviceState.IP_CHECK), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW),
    "going down, no endpoint yet": (_one(state=DeviceState.DEACTIVATING), State.SUSPENDED, Why.DEACTIVATING, None),
    "profile not read yet": (_one(profile=None), State.WAITING, Why.ACTIVATING, None),
    "profile unreadable": (
        _one(profile=None, unreadable="no permission"),
        State.EXCLUDED,
        Why.UNREADABLE,
        None,
    ),
    "hotspot": (_one(profile={"ipv4_method": "shared"}), State.EXCLUDED, Why.SHARED, None),
    # the address
    "IPv4 link-local": (_one(address="169.254.3.4/16"), State.EXCLUDED, Why.LINK_LOCAL, None),
    "IPv6 link-local": (_one(address="fe80::5/64"), State.EXCLUDED, Why.LINK_LOCAL, None),
    "ULA": (_one(address="fd00:1::5/64"), State.EXCLUDED, Why.UNIQUE_LOCAL, None),
    "site-local is in": (_one(address="fec0::5/64"), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW),
    "RFC 1918 is in": (_one(address="192.168.7.5/24"), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW),
    "carrier-grade NAT is in": (_one(address="100.64.7.5/24"), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW),
    "multicast": (_one(address="ff0e::5/64"), State.EXCLUDED, Why.NOT_GLOBAL, None),
    "temporary": (_one(address=f"{A6}/64", flags=0x01), State.EXCLUDED, Why.TEMPORARY, None),
    "IPv4 secondary has the same bit": (_one(flags=0x01), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW),
    "tentative": (_one(address=f"{A6}/64", flags=0x40), State.WAITING, Why.TENTATIVE, None),
    "DAD failed": (_one(address=f"{A6}/64", flags=0x08), State.EXCLUDED, Why.DAD_FAILED, None),
    "deprecated": (_one(address=f"{A6}/64", flags=0x20), State.EXCLUDED, Why.DEPRECATED, None),
    # whose it is
    "by hand, or by keepalived": (_one(by_networkmanager=False), State.EXCLUDED, Why.NOT_CONFIGURED, None),
    "by hand, IPv6": (_one(address=f"{A6}/64", by_networkmanager=False), State.EXCLUDED, Why.NOT_CONFIGURED, None),
    "by hand, IPv4 secondary": (_one(flags=0x01, by_networkmanager=False), State.EXCLUDED, Why.NOT_CONFIGURED, None),
    "by hand, explicit flags": (
        _one(by_networkmanager=False, profile={"mptcp_flags": ProfileFlag(0x22)}),
        State.EXCLUDED,
        Why.NOT_CONFIGURED,
        None,
    ),
    # routes and sysctl
    "no default route": (_one(gateway=False), State.WAITING, Why.NO_DEFAULT_ROUTE, None),
    "never-default": (
        _one(gateway=False, profile={"ipv4_never_default": True}),
        State.EXCLUDED,
        Why.NEVER_DEFAULT,
        None,
    ),
    "own route-table": (_one(profile={"ipv4_route_table": 100}), State.ACTIVE, Why.FLAGS_OF_KIND, SUBFLOW),
    "sysctl off": (_one(kernel_mptcp_enabled=False), State.EXCLUDED, Why.SYSCTL_OFF, None),
}


@pytest.mark.parametrize("name", ONE_LINK)
def test_one_link(name: str) -> None:
    build, state, why, endpoint = ONE_LINK[name]
    situation = build()
    desired = decide(situation.snapshot())
    (only,) = desired.paths
    assert (only.state, only.reason.why) == (state, why)
    assert list(wished(desired).values()) == ([] if endpoint is None else [endpoint])
    assert str(only.reason)


def test_an_interface_that_networkmanager_does_not_know_is_no_path() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    situation.devices.clear()
    assert path(decide(situation.snapshot()), A).reason.why is Why.NOT_MANAGED


# --- who owns the endpoint ---


def test_networkmanagers_endpoint_makes_an_explicit_profile_active_with_its_flags() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", profile={"mptcp_flags": ProfileFlag(0x62)})
    endpoint = situation.endpoint(A, e1, BACKUP, ours=False)
    desired = decide(situation.snapshot())
    shown = path(desired, A)
    assert (shown.state, shown.owner, shown.flags, shown.flags_from, shown.endpoint_id) == (
        State.ACTIVE,
        Owner.NETWORKMANAGER,
        BACKUP,
        FlagsFrom.PROFILE,
        endpoint.id,
    )
    assert not desired.endpoints
    assert desired.rules


def test_an_endpoint_with_networkmanagers_default_flags_means_that_it_owns_the_activation() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", f"{A6}/64")
    situation.endpoint(A, e1, SUBFLOW, ours=False)
    desired = decide(situation.snapshot())
    assert desired.claims == {":1.5/2"}
    assert not desired.endpoints  # not on its other address either: NetworkManager is about to
    assert path(desired, A).reason.why is Why.NETWORKMANAGER_OWNS
    assert path(desired, A6).reason.why is Why.WAITS_FOR_NETWORKMANAGER


@pytest.mark.parametrize("flags", [SUBFLOW, SUBFLOW | LAMINAR])
def test_networkmanagers_laminar_default_is_known_whatever_the_kernel_makes_of_the_flag(flags: EndpointFlag) -> None:
    """One without support drops it, or keeps it without a meaning (before a fix of 2025); a vendor's may support it."""
    situation = Situation()
    situation.version = "1.56.0"
    e1 = situation.link("e1", f"{A}/24")
    situation.endpoint(A, e1, flags, ours=False)
    assert decide(situation.snapshot()).claims


def test_a_claim_lasts_until_the_next_activation() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    situation.ours = replace(situation.ours, claims=frozenset({":1.5/2"}))
    assert not decide(situation.snapshot()).endpoints
    situation.device("e1", activation=":1.5/99")
    desired = decide(situation.snapshot())
    assert wished(desired) == {A: SUBFLOW}
    assert not desired.claims


def test_an_endpoint_with_its_default_flags_that_replaced_ours_means_that_networkmanager_owns_it() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", type=MODEM)
    own = situation.endpoint(A, e1, BACKUP, ours=True)
    situation.endpoints = [replace(own, flags=SUBFLOW, id=own.id + 1)]
    desired = decide(situation.snapshot())
    assert desired.claims
    assert not desired.endpoints


@pytest.mark.parametrize("flags", [SUBFLOW, BACKUP | EndpointFlag.FULLMESH])
@pytest.mark.parametrize("mode", Mode)
def test_a_change_by_hand_of_our_endpoint_is_left_unchanged(flags: EndpointFlag, mode: Mode) -> None:
    """Also if it then has the flags that NetworkManager would give it; undone it is ours again."""
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", f"{A6}/64", type=MODEM)
    own = situation.endpoint(A, e1, BACKUP, ours=True)
    situation.endpoints = [replace(own, flags=flags)]
    for _ in range(2):
        snapshot = situation.snapshot()
        desired = decide(snapshot, Config(mode=mode))
        situation.ours = decided(snapshot.ours, snapshot.kernel, desired)
        assert not desired.claims
        assert A not in wished(desired)
        assert (path(desired, A).flags, path(desired, A).reason.why) == (flags, Why.FLAGS_BY_HAND)
        # and its neighbour is ours as before
        assert path(desired, A6).owner is Owner.OURS
    situation.endpoints = [own]
    assert path(decide(situation.snapshot()), A).owner is Owner.OURS


def test_an_endpoint_with_other_flags_that_replaced_ours_is_left_unchanged() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    own = situation.endpoint(A, e1, SUBFLOW, ours=True)
    situation.endpoints = [replace(own, flags=BACKUP, id=own.id + 1)]  # a reapply with flags of its own, not read yet
    desired = decide(situation.snapshot())
    assert not desired.claims
    assert not desired.endpoints


def test_a_claim_ends_when_the_profile_gets_flags_of_its_own() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", profile={"mptcp_flags": ProfileFlag(0x22)})
    situation.endpoint(A, e1, SUBFLOW, ours=False)
    situation.ours = replace(situation.ours, claims=frozenset({":1.5/2"}))
    assert not decide(situation.snapshot()).claims


def test_a_manual_endpoint_is_unchanged_and_others_are_still_ours() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", f"{A6}/64")
    situation.endpoint(A, e1, EndpointFlag.SIGNAL, ours=False)
    desired = decide(situation.snapshot())
    assert path(desired, A).owner is Owner.OTHER
    assert wished(desired) == {A6: SUBFLOW}


def test_an_implicit_endpoint_is_replaceable() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    situation.endpoint(A, 0, EndpointFlag.IMPLICIT, ours=False)
    assert wished(decide(situation.snapshot())) == {A: SUBFLOW}


def test_an_explicit_endpoint_that_networkmanager_failed_to_add_is_added_identically() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", profile={"mptcp_flags": ProfileFlag(0x42)})
    situation.overdue = frozenset({A})
    assert wished(decide(situation.snapshot())) == {A: EndpointFlag.BACKUP}
    # and it stays when it stands, although nothing is overdue any more
    situation.endpoint(A, e1, EndpointFlag.BACKUP, ours=True)
    situation.overdue = frozenset()
    desired = decide(situation.snapshot())
    assert wished(desired) == {A: EndpointFlag.BACKUP}
    assert path(desired, A).state is State.ACTIVE


def test_an_endpoint_that_networkmanager_will_replace_is_unchanged() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", profile={"mptcp_flags": ProfileFlag(0x62)})
    situation.endpoint(A, e1, SUBFLOW, ours=True)
    desired = decide(situation.snapshot())
    assert wished(desired) == {A: SUBFLOW}
    assert path(desired, A).state is State.WAITING


def test_a_refused_endpoint_waits_with_the_kernels_reason_and_is_retried() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    situation.refused = {(A, e1): "out of memory"}
    desired = decide(situation.snapshot())
    assert str(path(desired, A).reason) == "the kernel refused the endpoint: out of memory"
    assert wished(desired) == {A: SUBFLOW}


@pytest.mark.parametrize("owner", ["NetworkManager", "somebody"])
def test_an_endpoint_on_an_address_that_networkmanager_did_not_configure_is_left(owner: str) -> None:
    situation = Situation()
    explicit = {"mptcp_flags": ProfileFlag(0x22)} if owner == "NetworkManager" else {}
    e1 = situation.link("e1", f"{A}/24", by_networkmanager=False, profile=explicit)
    situation.endpoint(A, e1, SUBFLOW | EndpointFlag.SIGNAL, ours=False)
    desired = decide(situation.snapshot())
    assert path(desired, A).state is State.ACTIVE
    assert not desired.endpoints
    assert not desired.withdrawn


def test_addresses_from_pppd_and_service_addresses_on_loopback_are_paths() -> None:
    situation = Situation()
    ppp = situation.link("ppp0", f"{A}/32", by_networkmanager=False, type=MODEM)
    situation.links[ppp] = Link(ppp, "ppp0", "ppp")
    lo = situation.link("lo", f"{B}/32", by_networkmanager=False, type=32, profile={"mptcp_flags": ProfileFlag(0x1A)})
    situation.links[lo] = Link(lo, "lo", loopback=True)
    desired = decide(situation.snapshot())
    assert path(desired, A).state is State.ACTIVE
    assert path(desired, B).reason.why is Why.WAITS_FOR_NETWORKMANAGER


def test_an_address_of_another_program_has_no_rules() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    situation.address(e1, f"{B}/32", by_networkmanager=False, gateway=False)
    assert {rule.source for rule in decide(situation.snapshot()).rules} == {A}


def test_an_address_with_lifetimes_changed_by_hand_keeps_its_endpoint() -> None:
    """``ip address change ... preferred_lft 0`` clears the flag of an IPv6 address."""
    situation = Situation()
    e1 = situation.link("e1", f"{A6}/64", by_networkmanager=False)
    situation.endpoint(A6, e1, ours=True)
    assert path(decide(situation.snapshot()), A6).reason.why is Why.FLAGS_OF_KIND
    situation.endpoints.clear()
    assert path(decide(situation.snapshot()), A6).reason.why is Why.NOT_CONFIGURED


# --- paths together ---


def test_a_deprecated_address_keeps_its_endpoint_until_its_replacement_has_one() -> None:
    situation = Situation()
    e1 = situation.link("e1", "2001:db8:1::5/64", flags=0x20)
    situation.endpoint("2001:db8:1::5", e1, ours=True)
    situation.address(e1, "2001:db8:9::5/64")
    desired = decide(situation.snapshot())
    assert set(wished(desired)) == {"2001:db8:1::5", "2001:db8:9::5"}
    assert path(desired, "2001:db8:1::5").reason.why is Why.KEPT_UNTIL_REPLACED
    situation.endpoint("2001:db8:9::5", e1, ours=True)
    assert set(wished(decide(situation.snapshot()))) == {"2001:db8:9::5"}


@pytest.mark.parametrize("circumstance", ["no default", "going down", "setting up again"])
def test_the_last_path_outlives_mere_circumstances(circumstance: str) -> None:
    def situation(*, second: bool) -> Situation:
        situation = Situation()
        e1 = situation.link("e1", f"{A}/24")
        situation.endpoint(A, e1, ours=True)
        if second:
            situation.link("e2", f"{B}/24")
        if circumstance == "no default":
            situation.routes = [r for r in situation.routes if not (r.is_default and r.hops[0].ifindex == e1)]
        elif circumstance == "going down":
            situation.device("e1", state=DeviceState.DEACTIVATING)
        else:
            situation.device("e1", state=DeviceState.CONFIG)
        return situation

    alone = decide(situation(second=False).snapshot())
    assert set(wished(alone)) == {A}
    assert path(alone, A).reason.why is Why.KEPT_LAST
    assert set(wished(decide(situation(second=True).snapshot()))) == {B}


@pytest.mark.parametrize("how", ["not running", "starting"])
def test_without_networkmanager_everything_stays(how: str) -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    situation.link("e2", f"{B}/24")
    situation.endpoint(A, e1, BACKUP, ours=True)
    situation.running, situation.startup = (False, False) if how == "not running" else (True, True)
    situation.devices.clear()
    desired = decide(situation.snapshot())
    assert wished(desired) == {A: BACKUP}
    assert str(path(desired, A).reason) == f"kept unchanged: NetworkManager is {how}"
    assert {rule.source for rule in desired.rules} == {A}


def test_a_claim_ends_only_while_networkmanager_runs() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    situation.ours = replace(situation.ours, claims=frozenset({"gone"}))
    assert not decide(situation.snapshot()).claims


def test_an_address_on_two_interfaces_is_a_path_where_it_has_its_endpoint() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    e2 = situation.link("e2", f"{A}/24")
    situation.endpoint(A, e2, ours=True)
    desired = decide(situation.snapshot())
    assert [
        (path.interface, path.state, str(path.reason)) for path in desired.paths if path.state is State.EXCLUDED
    ] == [("e1", State.EXCLUDED, "the same address is a path on e2")]
    assert {(endpoint.address, endpoint.ifindex) for endpoint in desired.endpoints} == {(A, e2)}


# --- limits ---


@pytest.mark.parametrize(
    ("links", "have", "want"),
    [
        (1, Limits(2, 0), Limits(2, 1)),
        (2, Limits(2, 0), Limits(4, 2)),
        (3, Limits(2, 0), Limits(6, 3)),
        (6, Limits(2, 0), Limits(8, 6)),
        (2, Limits(8, 8), None),
        (2, Limits(8, 0), Limits(8, 2)),
        (0, Limits(2, 0), None),
    ],
)
def test_limits_are_raised_to_what_the_paths_need_and_never_lowered(
    links: int, have: Limits, want: Limits | None
) -> None:
    situation = Situation(limits=have)
    for number in range(links):
        situation.link(f"e{number}", f"10.0.{number}.2/24")
    assert decide(situation.snapshot()).limits == want


def test_a_full_mesh_needs_a_subflow_to_each_accepted_address() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", profile={"mptcp_flags": ProfileFlag(0xA2)})
    situation.endpoint(A, e1, EndpointFlag.SUBFLOW | EndpointFlag.FULLMESH, ours=False)
    situation.link("e2", f"{B}/24")
    # One for each path, one for each address accepted, and in the mesh one more for each.
    assert decide(situation.snapshot()).limits == Limits(8, 4)


@pytest.mark.parametrize(("links", "want"), [(1, Limits(6, 1)), (2, Limits(8, 2))])
def test_all_addresses_of_the_peer_connect_to_a_signalled_one(links: int, want: Limits) -> None:
    situation = Situation()
    for number in range(links):
        address = f"10.0.{number}.2"
        ifindex = situation.link(f"e{number}", f"{address}/24", profile={"mptcp_flags": ProfileFlag(0x12)})
        situation.endpoint(address, ifindex, EndpointFlag.SIGNAL, ours=False)
    assert decide(situation.snapshot()).limits == want


def test_a_limit_that_an_administrator_changed_is_unchanged() -> None:
    situation = Situation(limits=Limits(1, 2))
    situation.link("e1", f"{A}/24")
    situation.link("e2", f"{B}/24")
    situation.ours = replace(
        situation.ours, limits={"subflows": SavedSetting(2, 4), "add_addr_accepted": SavedSetting(0, 2)}
    )
    assert decide(situation.snapshot()).limits is None


# --- routing follows ---


def test_a_temporary_address_has_rules_if_its_interface_has_a_path() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A6}/64")
    situation.address(e1, "2001:db8:1::7777/64", flags=0x01)
    desired = decide(situation.snapshot())
    assert {rule.source for rule in desired.rules} == {A6, "2001:db8:1::7777"}
    assert path(desired, "2001:db8:1::7777").table == path(desired, A6).table == 42000


def test_an_address_without_its_default_route_keeps_rules_but_gets_no_new_ones() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    e2 = situation.link("e2", f"{B}/24")
    both = decide(situation.snapshot())
    situation.routes = [r for r in situation.routes if not (r.is_default and r.hops[0].ifindex == e2)]
    assert B not in {rule.source for rule in decide(situation.snapshot()).rules}
    situation.rules = list(both.rules)
    assert B in {rule.source for rule in decide(situation.snapshot()).rules}


def test_an_excluded_kind_has_no_rules() -> None:
    situation = Situation()
    situation.link("tun0", "10.8.0.2/24", type=TUN)
    desired = decide(situation.snapshot())
    assert not desired.rules
    assert not desired.routes


def test_the_table_is_ready_before_networkmanager_adds_its_endpoint() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", default_flags=DefaultFlags())
    assert {rule.source for rule in decide(situation.snapshot()).rules} == {A}


def test_the_situation_of_the_drop_in_is_what_the_package_ships() -> None:
    assert (LEFT_TO_US.flags, LEFT_TO_US.section) == (ProfileFlag.DISABLED, "connection-nm-mptcp")
