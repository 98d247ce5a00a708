# SPDX-License-Identifier: GPL-2.0-or-later
"""The addresses that get rules: all that NetworkManager routes on an uplink, paths or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nm_mptcp.config.settings import Config, RoutingOptions
from nm_mptcp.model.flags import ProfileFlag
from nm_mptcp.model.state import Connectivity, DefaultFlags, DeviceState, Mode
from nm_mptcp.policy.decide import decide

from .situations import BRIDGE, WIFI, Situation

A, B = "10.0.1.2", "10.0.2.2"
A6 = "2001:db8:1::2"
LOOPBACK = 32


def routed(situation: Situation, config: Config | None = None) -> set[str | None]:
    """The addresses that have rules."""
    snapshot = situation.snapshot()
    desired = decide(snapshot, config) if config else decide(snapshot)
    return {rule.source for rule in desired.rules}


@pytest.mark.parametrize(
    "why",
    [
        {"mptcp_enabled": False},
        {"state": DeviceState.IP_CONFIG},
        {"state": DeviceState.IP_CHECK},
        {"ipv4_connectivity": Connectivity.PORTAL, "ipv6_connectivity": Connectivity.PORTAL},
        {"profile": {"mptcp_flags": ProfileFlag.ENABLED | ProfileFlag.SUBFLOW}},
    ],
    ids=["no MPTCP", "IP_CONFIG", "IP_CHECK", "portal", "waits for NetworkManager"],
)
def test_an_address_that_networkmanager_routes_has_rules_path_or_not(why: dict[str, Any]) -> None:
    situation = Situation(**{key: why.pop(key) for key in ("mptcp_enabled",) if key in why})
    situation.link("e1", f"{A}/24", f"{A6}/64", type=WIFI, **why)
    situation.link("e2", f"{B}/24", ipv4_connectivity=Connectivity.FULL, ipv6_connectivity=Connectivity.FULL)
    assert routed(situation) == {A, A6, B}


@pytest.mark.parametrize(
    "other",
    [
        {"managed": False},
        {"external": True},
        {"profile": None},
        {"state": DeviceState.PREPARE},
        {"state": DeviceState.DISCONNECTED},
        {"type": BRIDGE, "profile": {"ipv4_method": "shared"}},
        {"profile": {"ipv4_method": "shared"}},
        {"profile": {"mptcp_flags": ProfileFlag.DISABLED}},
        {"default_flags": DefaultFlags(ProfileFlag.DISABLED, "connection")},
    ],
    ids=[
        "unmanaged",
        "external",
        "no profile",
        "PREPARE",
        "disconnected",
        "bridge",
        "hotspot",
        "disabled",
        "disabled by default",
    ],
)
def test_without_uplink_or_with_mptcp_disabled_there_are_no_rules(other: dict[str, Any]) -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", **other)
    assert routed(situation) == set()


def test_a_link_without_a_default_route_has_no_rules_unless_it_is_or_was_a_path() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", gateway=False)
    assert routed(situation) == set()
    situation.link("e2", f"{B}/24", gateway=False, profile={"mptcp_flags": ProfileFlag(0x2A)})
    situation.endpoint(B, 3, ours=False)
    assert routed(situation) == {B}


@pytest.mark.parametrize("address", ["fe80::2/64", "169.254.7.7/16"])
def test_link_local_addresses_have_no_rules(address: str) -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", address)
    assert routed(situation) == {A}


def test_a_unique_local_address_has_rules() -> None:
    situation = Situation()
    situation.link("e1", "fd00::2/64")
    assert routed(situation) == {"fd00::2"}


def test_a_service_address_on_the_loopback_interface_has_no_rules() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    flags = ProfileFlag.ENABLED | ProfileFlag.SIGNAL | ProfileFlag.ALSO_WITHOUT_DEFAULT_ROUTE
    lo = situation.link("lo", "198.51.100.7/32", gateway=False, type=LOOPBACK, profile={"mptcp_flags": flags})
    situation.links[lo] = replace(situation.links[lo], loopback=True)
    situation.endpoint("198.51.100.7", lo, ours=False)
    assert routed(situation) == {A}


def test_an_address_on_two_links_has_no_rules() -> None:
    situation = Situation()
    for name in ("wwan0", "wwan1"):
        situation.link(name, "192.168.8.100/24", f"10.0.{name[-1]}.2/24")
    assert routed(situation) == {"10.0.0.2", "10.0.1.2"}


def test_in_mode_off_and_without_routing_there_are_no_rules() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    assert routed(situation, Config(mode=Mode.OFF)) == set()
    assert routed(situation, Config(routing=RoutingOptions(enabled=False))) == set()


def test_rules_outlive_the_default_route_but_not_a_profile_with_never_default() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", gateway=False)
    situation.rules += decide_rules(A)
    assert routed(situation) == {A}
    assert situation.devices["e1"].profile is not None
    situation.device("e1", profile=replace(situation.devices["e1"].profile, ipv4_never_default=True))
    assert routed(situation) == set()


def decide_rules(address: str) -> list[Any]:
    """The rules that an address got while it had a default route."""
    situation = Situation()
    situation.link("e1", f"{address}/24")
    return list(decide(situation.snapshot()).rules)


def test_an_address_that_an_interface_has_twice_has_its_rules_once() -> None:
    """An interface may have the same IPv4 address with two prefix lengths (``__inet_insert_ifa``)."""
    situation = Situation()
    situation.link("e1", f"{A}/24", f"{A}/32")
    rules = [rule for rule in decide(situation.snapshot()).rules if rule.source == A]
    assert len(rules) == len(set(rules)) == 4


def test_an_address_on_two_interfaces_has_no_rules_whoever_manages_the_other_one() -> None:
    """Also while NetworkManager is away: whether an unmanaged interface is looked at then depends on the rules."""
    situation = Situation()
    situation.link("e1", f"{A}/24")
    rules = list(decide(situation.snapshot()).rules)
    e2 = situation.link("e2", managed=False)
    situation.address(e2, f"{A}/24", metric=200)
    for situation.running in (True, False):
        for situation.rules in ([], rules):
            assert routed(situation) == set()
    situation.addresses[e2].clear()
    assert routed(situation) == {A}
