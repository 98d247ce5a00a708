# SPDX-License-Identifier: GPL-2.0-or-later
"""Which paths are regular in each mode, and what overrides the mode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nm_mptcp.config.selector import Selector, addresses
from nm_mptcp.config.settings import Config, MeteredPolicy, Origin, PathSection, Setting
from nm_mptcp.model.flags import EndpointFlag, ProfileFlag
from nm_mptcp.model.reasons import Why
from nm_mptcp.model.state import Action, DefaultFlags, Desired, Endpoint, Mode, State
from nm_mptcp.policy.decide import decide
from nm_mptcp.policy.plan import plan

from .situations import BACKUP, MODEM, SUBFLOW, WIFI, Situation

CABLE, AIR, CELL = "10.0.1.2", "10.0.2.2", "10.0.3.2"
AUTO, HANDOVER, INTERACTIVE, AGGREGATE, OFF = Mode


def laptop(**cell: Any) -> Situation:
    """A cable, a Wi-Fi and a modem, in this order of metrics."""
    situation = Situation()
    situation.link("eth0", f"{CABLE}/24", metric=100)
    situation.link("wlan0", f"{AIR}/24", metric=600, type=WIFI)
    situation.link("wwan0", f"{CELL}/24", metric=700, type=MODEM, **cell)
    return situation


def decided(situation: Situation, mode: Mode, **settings: Any) -> Desired:
    return decide(situation.snapshot(), Config(mode=mode, **settings))


def flags(situation: Situation, mode: Mode, **settings: Any) -> dict[str, EndpointFlag]:
    return {endpoint.address: endpoint.flags for endpoint in decided(situation, mode, **settings).endpoints}


@pytest.mark.parametrize(
    ("mode", "cable", "air", "cell"),
    [
        (AUTO, SUBFLOW, SUBFLOW, BACKUP),
        (INTERACTIVE, SUBFLOW, SUBFLOW, BACKUP),
        (HANDOVER, SUBFLOW, BACKUP, BACKUP),
        (AGGREGATE, SUBFLOW, SUBFLOW, SUBFLOW),
    ],
)
def test_which_links_are_regular(mode: Mode, cable: EndpointFlag, air: EndpointFlag, cell: EndpointFlag) -> None:
    assert flags(laptop(), mode) == {CABLE: cable, AIR: air, CELL: cell}


def test_with_the_best_link_lost_the_next_best_is_regular() -> None:
    situation = laptop()
    situation.links[2] = replace(situation.links[2], carrier=False)
    assert flags(situation, HANDOVER) == {AIR: SUBFLOW, CELL: BACKUP}


def test_both_families_of_the_best_link_are_regular() -> None:
    situation = laptop()
    situation.address(2, "2001:db8:1::2/64", metric=100)
    situation.address(3, "2001:db8:2::2/64", metric=600)
    found = flags(situation, HANDOVER)
    assert (found["2001:db8:1::2"], found["2001:db8:2::2"]) == (SUBFLOW, BACKUP)


def test_a_profiles_flags_override_any_mode() -> None:
    situation = laptop(profile={"mptcp_flags": ProfileFlag(0x62)})  # enabled, subflow, backup
    situation.endpoint(CELL, 4, BACKUP, ours=False)
    for mode in Mode:
        (path,) = [path for path in decided(situation, mode).paths if path.address == CELL]
        assert (path.flags, path.state, path.reason.why) == (BACKUP, State.ACTIVE, Why.FLAGS_OF_PROFILE)


def test_a_path_that_a_profile_makes_backup_is_not_the_best_link() -> None:
    situation = Situation()
    situation.link("eth0", f"{CABLE}/24", metric=100, profile={"mptcp_flags": ProfileFlag(0x62)})
    situation.endpoint(CABLE, 2, BACKUP, ours=False)
    situation.link("wlan0", f"{AIR}/24", metric=600, type=WIFI)
    assert flags(situation, HANDOVER) == {AIR: SUBFLOW}


def test_a_profiles_regular_path_with_a_better_route_is_the_best_link() -> None:
    situation = Situation()
    situation.link("eth0", f"{CABLE}/24", metric=100, profile={"mptcp_flags": ProfileFlag(0x22)})
    situation.endpoint(CABLE, 2, SUBFLOW, ours=False)
    situation.link("wlan0", f"{AIR}/24", metric=600, type=WIFI)
    assert flags(situation, HANDOVER) == {AIR: BACKUP}


def test_all_are_regular_but_those_configured_as_backup() -> None:
    metered = laptop(metered=1)
    assert flags(metered, AGGREGATE)[CELL] == SUBFLOW
    written = {("main", "metered"): Origin("nm-mptcp.conf", 2, "main")}
    assert flags(metered, AGGREGATE, metered=MeteredPolicy.BACKUP, origins=written)[CELL] == BACKUP
    assert CELL not in flags(metered, AGGREGATE, metered=MeteredPolicy.EXCLUDE, origins=written)


def test_networkmanagers_endpoint_keeps_its_flags() -> None:
    situation = Situation()
    situation.link("eth0", f"{CABLE}/24", metric=100)
    situation.link("wlan0", f"{AIR}/24", metric=600, default_flags=DefaultFlags())
    situation.endpoint(AIR, 3, SUBFLOW, ours=False)
    (path,) = [path for path in decided(situation, HANDOVER).paths if path.address == AIR]
    assert path.flags == SUBFLOW


def test_another_mode_changes_priorities_in_place() -> None:
    situation = laptop()
    for address, ifindex, before in ((CABLE, 2, SUBFLOW), (AIR, 3, BACKUP), (CELL, 4, BACKUP)):
        situation.endpoint(address, ifindex, before, ours=True)
    snapshot = situation.snapshot()
    operations = plan(decided(situation, AGGREGATE), snapshot.kernel, snapshot.ours)
    endpoints = [operation for operation in operations if isinstance(operation.value, Endpoint)]
    assert {(operation.action, operation.value.place[0]) for operation in endpoints} == {  # type: ignore[union-attr]
        (Action.SET_FLAGS, AIR),
        (Action.SET_FLAGS, CELL),
    }


def test_reasons_name_the_mode_and_the_better_link() -> None:
    said = {path.address: str(path.reason) for path in decided(laptop(), HANDOVER).paths}
    assert said[CABLE] == "mode handover, regular: its route metric is the lowest"
    assert said[AIR] == "mode handover, backup: eth0 has the lowest route metric"

    said = {path.address: str(path.reason) for path in decided(laptop(), AGGREGATE).paths}
    assert set(said.values()) == {"mode aggregate, regular: all paths are regular"}


def test_without_networkmanager_a_mode_holds_as_well() -> None:
    situation = laptop()
    for address, ifindex in ((CABLE, 2), (AIR, 3), (CELL, 4)):
        situation.endpoint(address, ifindex, SUBFLOW, ours=True)
    situation.running, situation.devices = False, {}
    assert flags(situation, HANDOVER) == {CABLE: SUBFLOW, AIR: BACKUP, CELL: BACKUP}


def test_a_path_without_a_default_route_is_the_last_to_be_the_best_link() -> None:
    situation = Situation()
    explicit = {"mptcp_flags": ProfileFlag(0x2A)}  # enabled, also without a default route, subflow
    situation.link("eth0", f"{CABLE}/24", gateway=False, profile=explicit)
    situation.endpoint(CABLE, 2, SUBFLOW, ours=False)
    situation.link("wlan0", f"{AIR}/24", metric=600, type=WIFI)
    said = {path.address: str(path.reason) for path in decided(situation, HANDOVER).paths}
    assert said[AIR] == "mode handover, regular: its route metric is the lowest"


def test_where_all_carriers_are_lost_no_link_is_better() -> None:
    situation = laptop()
    for ifindex in (2, 3, 4):
        situation.links[ifindex] = replace(situation.links[ifindex], carrier=False)
    assert {path.flags for path in decided(situation, HANDOVER).paths} == {SUBFLOW}


# --- off ---


def test_off_leaves_no_path_and_no_rule() -> None:
    situation = laptop()
    desired = decided(situation, OFF)
    assert (desired.endpoints, desired.rules, desired.limits) == (frozenset(), (), None)
    assert {path.reason.why for path in desired.paths} == {Why.MODE_OFF}


@pytest.mark.parametrize("mode", Mode)
def test_the_flags_of_a_section_override_any_mode(mode: Mode) -> None:
    section = PathSection("path-x", Selector(address=addresses(CELL)), {"flags": Setting(ProfileFlag(0x62))})
    desired = decide(laptop().snapshot(), Config(mode=mode, sections=(section,)))
    (path,) = [path for path in desired.paths if path.address == CELL]
    assert (path.flags, path.state, path.reason.why) == (BACKUP, State.ACTIVE, Why.FLAGS_OF_CONFIGURATION)
    assert CELL in {endpoint.address for endpoint in desired.endpoints}
    assert CELL in {rule.source for rule in desired.rules}


def test_a_section_without_flags_adds_no_path_in_mode_off() -> None:
    section = PathSection("path-x", Selector(address=addresses(CELL)), {"slot_priority": Setting(7)})
    assert not decide(laptop().snapshot(), Config(mode=OFF, sections=(section,))).endpoints


def test_off_keeps_an_endpoint_for_connections_without_another_subflow() -> None:
    situation = laptop()
    situation.endpoint(CABLE, 2, ours=True)
    situation.endpoint(AIR, 3, ours=True)
    situation.endpoint(CELL, 4, BACKUP, ours=True)
    situation.connections = {frozenset({CABLE}): 1, frozenset({CABLE, AIR}): 2}
    desired = decided(situation, OFF)
    assert {endpoint.address for endpoint in desired.endpoints} == {CABLE, AIR}
    assert not desired.close_redundant
    assert desired.depends_on_connections


def test_off_reads_the_connections_before_it_deletes_an_endpoint() -> None:
    situation = laptop()
    situation.endpoint(CABLE, 2, ours=True)
    situation.connections = None
    desired = decided(situation, OFF)
    assert desired.needs_connections
    assert {endpoint.address for endpoint in desired.endpoints} == {CABLE}
