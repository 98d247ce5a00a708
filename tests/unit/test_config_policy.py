# SPDX-License-Identifier: GPL-2.0-or-later
"""What the configuration changes in policy, and what it never overrides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nm_mptcp.config.files import ConfigurationFiles
from nm_mptcp.config.settings import Config
from nm_mptcp.engine.record_file import Record
from nm_mptcp.model.flags import EndpointFlag, ProfileFlag
from nm_mptcp.model.reasons import Why
from nm_mptcp.model.record import Contents, decided
from nm_mptcp.model.state import (
    Connectivity,
    DefaultFlags,
    FlagsFrom,
    Limits,
    Numbering,
    Ours,
    Route,
    Rule,
    Snapshot,
    State,
)
from nm_mptcp.policy.decide import decide
from nm_mptcp.policy.plan import plan, restore

from .model_kernel import apply
from .situations import BACKUP, MODEM, SUBFLOW, TUN, WIFI, Situation
from .test_policy import path, wished

A, B, C = "10.0.1.2", "10.0.2.2", "10.0.3.2"


@pytest.fixture
def config(tmp_path: Path) -> Any:
    def config(text: str) -> Config:
        (tmp_path / "x.conf").write_text(text)
        return ConfigurationFiles(tmp_path / "x.conf").load()

    return config


ETHERNET: dict[str, Any] = {"metered": 4}
METERED: dict[str, Any] = {"type": WIFI, "metered": 1}
GUESSED: dict[str, Any] = {"type": WIFI, "metered": 3}
CELLULAR: dict[str, Any] = {"type": MODEM, "metered": 3}
PROFILE: dict[str, Any] = {"profile": {"mptcp_flags": ProfileFlag.ENABLED | ProfileFlag.SUBFLOW}}
NETWORKMANAGERS: dict[str, Any] = {
    "default_flags": DefaultFlags(ProfileFlag.ENABLED | ProfileFlag.SIGNAL, "connection-x")
}

_BY_KIND, _BY_SECTION = Why.FLAGS_OF_KIND, Why.FLAGS_OF_CONFIGURATION


@pytest.mark.parametrize(
    ("text", "link", "state", "why", "flags"),
    [
        # flags: the first section that matches, whatever the kind is
        ("[path-x]\nflags=backup,subflow", ETHERNET, State.ACTIVE, _BY_SECTION, BACKUP),
        ("[path-x]\nflags=subflow", CELLULAR, State.ACTIVE, _BY_SECTION, SUBFLOW),
        ("[path-x]\nflags=subflow", METERED, State.ACTIVE, _BY_SECTION, SUBFLOW),
        ("[path-x]\nflags=subflow", {"type": TUN}, State.ACTIVE, _BY_SECTION, SUBFLOW),
        ("[path-x]\nflags=signal", ETHERNET, State.ACTIVE, _BY_SECTION, EndpointFlag.SIGNAL),
        ("[path-x]\nflags=subflow,laminar", ETHERNET, State.ACTIVE, _BY_SECTION, SUBFLOW),  # a kernel without laminar
        ("[path-x]\nflags=disabled", ETHERNET, State.EXCLUDED, Why.DISABLED_BY_CONFIGURATION, None),
        ("[path-x]\nmatch-connection=other\nflags=disabled", ETHERNET, State.ACTIVE, _BY_KIND, SUBFLOW),
        (
            "[path-x]\nmatch-connection=e1\nflags=disabled",
            ETHERNET,
            State.EXCLUDED,
            Why.DISABLED_BY_CONFIGURATION,
            None,
        ),
        (f"[path-x]\nmatch-address={B}\nflags=disabled", ETHERNET, State.ACTIVE, _BY_KIND, SUBFLOW),
        # metered: as NetworkManager holds it; a cellular link is backup by its kind
        ("", METERED, State.ACTIVE, Why.METERED_BACKUP, BACKUP),
        ("[main]\nmetered=backup", GUESSED, State.ACTIVE, Why.METERED_BACKUP, BACKUP),
        ("[main]\nmetered=ignore", METERED, State.ACTIVE, _BY_KIND, SUBFLOW),
        ("[main]\nmetered=ignore", CELLULAR, State.ACTIVE, _BY_KIND, BACKUP),
        ("[main]\nmetered=exclude", METERED, State.EXCLUDED, Why.METERED, None),
        ("[main]\nmetered=exclude", CELLULAR, State.EXCLUDED, Why.METERED, None),
        ("[main]\nmetered=exclude", ETHERNET, State.ACTIVE, _BY_KIND, SUBFLOW),
        ("[main]\nmetered=exclude", {"type": TUN, "metered": 1}, State.EXCLUDED, Why.KIND_IS_NO_PATH, None),
        ("[main]\nmetered=exclude\n[path-x]\nmetered=ignore", METERED, State.ACTIVE, _BY_KIND, SUBFLOW),
        ("[path-x]\nmetered=exclude", METERED, State.EXCLUDED, Why.METERED, None),
        # a path may be assumed to be metered, or not, unless the profile says which
        ("[path-x]\nassume-metered=yes", ETHERNET, State.ACTIVE, Why.METERED_BACKUP, BACKUP),
        ("[path-x]\nassume-metered=yes", {}, State.ACTIVE, Why.METERED_BACKUP, BACKUP),
        ("[path-x]\nassume-metered=yes", {"metered": 2}, State.ACTIVE, _BY_KIND, SUBFLOW),
        ("[path-x]\nassume-metered=no", METERED, State.ACTIVE, Why.METERED_BACKUP, BACKUP),
        ("[path-x]\nassume-metered=no", GUESSED, State.ACTIVE, _BY_KIND, SUBFLOW),
        ("[main]\nmetered=exclude\n[path-x]\nassume-metered=yes", ETHERNET, State.EXCLUDED, Why.METERED, None),
        ("[main]\nmetered=ignore\n[path-x]\nassume-metered=yes", ETHERNET, State.ACTIVE, _BY_KIND, SUBFLOW),
        # a profile's flags, and what NetworkManager makes itself, are never overruled
        ("[path-x]\nflags=disabled", PROFILE, State.WAITING, Why.WAITS_FOR_NETWORKMANAGER, None),
        ("[main]\nmetered=exclude", PROFILE | METERED, State.WAITING, Why.WAITS_FOR_NETWORKMANAGER, None),
        ("[path-x]\nflags=disabled", NETWORKMANAGERS, State.WAITING, Why.WAITS_FOR_NETWORKMANAGER, None),
        (
            "[path-x]\nflags=subflow",
            {"profile": {"mptcp_flags": ProfileFlag.DISABLED}},
            State.EXCLUDED,
            Why.DISABLED_BY_PROFILE,
            None,
        ),
    ],
)
def test_which_rule_decides(
    text: str, link: dict[str, Any], state: State, why: Why, flags: EndpointFlag | None, config: Any
) -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", **link)
    desired = decide(situation.snapshot(), config(text))
    found = path(desired, A)
    assert (found.state, found.reason.why, wished(desired).get(A)) == (state, why, flags)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[path-x]\nflags=subflow", "set by [path-x] in {0}/x.conf"),
        ("[path-x]\nflags=disabled", "disabled by [path-x] in {0}/x.conf"),
        (
            "[main]\nmetered=exclude",
            "this connection is metered according to NetworkManager, and [main] in {0}/x.conf sets metered=exclude",
        ),
        (
            "[path-phone]\nmetered=backup",
            "backup: this wifi connection is metered according to NetworkManager, and [path-phone] in {0}/x.conf sets"
            " metered=backup",
        ),
        ("", "backup: this wifi connection is metered according to NetworkManager"),
    ],
)
def test_the_reason_names_section_and_file(text: str, words: str, config: Any, tmp_path: Path) -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", **METERED)
    found = path(decide(situation.snapshot(), config(text)), A)
    assert str(found.reason) == words.format(tmp_path)
    assert (found.flags_from is FlagsFrom.CONFIG) is ("flags=" in text or "exclude" in text)


def test_a_changed_section_changes_the_priority_in_place(config: Any) -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    situation.endpoint(A, e1, SUBFLOW, ours=True)
    snapshot = situation.snapshot()
    operations = plan(decide(snapshot, config("[path-x]\nflags=subflow,backup")), snapshot.kernel, snapshot.ours)
    assert [str(each.action) for each in operations if not isinstance(each.value, Route | Rule | Limits)] == [
        "set-flags"
    ]


# --- slots, connectivity, limits ---


def test_a_higher_slot_priority_keeps_a_slot_first(config: Any) -> None:
    situation = Situation(endpoints_max=2)
    for number, address in enumerate((A, B, C), 1):
        situation.link(f"e{number}", f"{address}/24", metric=100 * number)
    assert wished(decide(situation.snapshot())).keys() == {A, B}
    desired = decide(situation.snapshot(), config("[path-x]\nmatch-device=e3\nslot-priority=1"))
    assert wished(desired).keys() == {A, C}
    assert path(desired, B).reason.why is Why.NO_SLOT
    desired = decide(situation.snapshot(), config("[path-x]\nmatch-device=e1\nslot-priority=-1"))
    assert wished(desired).keys() == {B, C}


def test_connectivity_may_be_ignored_for_a_path(config: Any) -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", ipv4_connectivity=Connectivity.PORTAL)
    situation.link("e2", f"{B}/24", ipv4_connectivity=Connectivity.FULL)
    assert path(decide(situation.snapshot()), A).reason.why is Why.NO_CONNECTIVITY
    desired = decide(situation.snapshot(), config("[path-x]\nmatch-device=e1\nconnectivity=ignore"))
    assert path(desired, A).state is State.ACTIVE
    assert A in wished(desired)


@pytest.mark.parametrize(
    ("text", "path_"),
    [
        ("[path-x]\nmatch-address=10.0.1.2", True),
        ("[path-x]\nmatch-address=10.0.1.0/24\nflags=subflow,backup", True),
        ("[path-x]\nmatch-device=interface-name:e1\nmatch-address=10.0.0.0/8,except:10.0.1.3", True),
        ("[path-x]\nmatch-device=interface-name:e2\nmatch-address=10.0.1.2", False),
        ("[path-x]\nmatch-address=except:10.0.2.0/24", False),
        ("[path-x]\nmatch-address=10.0.1.3", False),
        ("[path-x]\nflags=subflow", False),
    ],
)
def test_an_address_that_networkmanager_did_not_configure_is_a_path_if_a_section_names_it(
    text: str, path_: bool, config: Any
) -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", by_networkmanager=False)
    desired = decide(situation.snapshot(), config(text))
    assert set(wished(desired)) == ({A} if path_ else set())


def test_limits_may_be_kept_as_they_are(config: Any) -> None:
    situation = Situation(limits=Limits(0, 0))
    situation.link("e1", f"{A}/24")
    assert decide(situation.snapshot()).limits == Limits(2, 1)
    assert decide(situation.snapshot(), config("[main]\nlimits=keep")).limits is None


# --- routing ---


def test_one_path_may_be_without_rules(config: Any) -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    situation.link("e2", f"{B}/24")
    desired = decide(situation.snapshot(), config("[path-x]\nmatch-device=e1\nrouting=no"))
    assert {rule.source for rule in desired.rules} == {B}
    assert (path(desired, A).table, path(desired, B).table) == (None, 42000)
    assert wished(desired).keys() == {A, B}


def test_without_routing_a_link_that_is_set_down_is_lost_as_well(config: Any) -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24")
    situation.link("e2", f"{B}/24")
    situation.endpoint(A, e1, SUBFLOW, ours=True)
    situation.links[e1] = replace(situation.links[e1], up=False, carrier=False)
    situation.routes = [route for route in situation.routes if route.hops[0].ifindex != e1]
    desired = decide(situation.snapshot(), config("[routing]\nenabled=no"))
    assert (path(desired, A).state, path(desired, A).reason.why) == (State.SUSPENDED, Why.LINK_DOWN)
    assert A not in wished(desired)


def settled(snapshot: Snapshot, config: Config) -> Snapshot:
    """The state after the plan for these settings; nothing is left to do then."""
    desired = decide(snapshot, config)
    ours = decided(snapshot.ours, snapshot.kernel, desired)
    kernel, ours = apply(plan(desired, snapshot.kernel, ours), snapshot.kernel, ours)
    after = replace(snapshot, kernel=kernel, ours=ours)
    again = decide(after, config)
    ours = decided(ours, kernel, again)
    assert not plan(again, kernel, ours)
    return replace(after, ours=ours)


def numbers(snapshot: Snapshot) -> set[tuple[int, int, int]]:
    """Protocol and tables of all routes that are not in main, and protocol and priorities of all rules."""
    routes = {(0, route.protocol, route.table) for group in snapshot.kernel.routes.values() for route in group}
    return {each for each in routes if each[2] != 254} | {
        (1, rule.protocol, rule.priority) for rule in snapshot.kernel.rules
    }


@pytest.mark.parametrize("settings", ["tables=500-599", "rule-priority=31800", "protocol=201", "enabled=no"])
def test_changed_numbers_leave_nothing_with_the_old_ones(settings: str, config: Any) -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", "2001:db8:1::2/64")
    situation.link("e2", f"{B}/24")
    before = settled(situation.snapshot(), Config())
    new = config(f"[routing]\n{settings}\n")
    after = settled(before, new)
    numbering = new.routing.numbering
    assert after.ours.numberings == {numbering}
    if not new.routing.enabled:
        assert numbers(after) == set()
        return
    tables = {each[2] for each in numbers(after) if each[0] == 0}
    assert tables == {numbering.tables[0], numbering.tables[1]}
    assert {each[1] for each in numbers(after)} == {numbering.protocol}
    assert {each[2] for each in numbers(after) if each[0] == 1} == {numbering.rule_priority}
    # ... and back.
    assert numbers(settled(after, Config())) == numbers(before)


def test_earlier_numbers_are_known_from_the_record(tmp_path: Path, config: Any) -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    old = config("[routing]\ntables=500-599\nprotocol=201\n")
    before = settled(situation.snapshot(), old)
    Record(tmp_path).save(Contents(before.ours))
    after = settled(replace(before, ours=Record(tmp_path).load().ours), Config())
    assert {each[1] for each in numbers(after)} == {77}


def test_earlier_numbers_are_recorded_while_anything_has_them(config: Any) -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    before = settled(situation.snapshot(), Config())
    new = config("[routing]\nprotocol=201\n")
    desired = decide(before, new)
    assert decided(before.ours, before.kernel, desired).numberings == {Numbering(), new.routing.numbering}


def test_the_default_numbers_are_not_ours_if_others_are_configured(config: Any) -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    theirs = settled(situation.snapshot(), Config())  # another program that uses 77 and our tables
    new = config("[routing]\nprotocol=201\n")
    after = settled(replace(theirs, ours=Ours()), new)
    assert numbers(theirs) <= numbers(after)
    assert {each[2] for each in numbers(after) if each[:2] == (0, 201)} == {42001}
    kernel, _ = apply(restore(after.kernel, after.ours, decide(after, new).marks), after.kernel, after.ours)
    assert numbers(replace(after, kernel=kernel)) == numbers(theirs)


# --- which IPv6 addresses ---


STABLE, TEMPORARY = "2001:db8:1::2", "2001:db8:1::7777"


def with_privacy(**link: Any) -> Situation:
    """A link with a stable and a temporary address."""
    situation = Situation()
    ifindex = situation.link("e1", f"{STABLE}/64", **link)
    situation.address(ifindex, f"{TEMPORARY}/64", flags=0x01)
    return situation


@pytest.mark.parametrize(
    ("which", "paths", "others"),
    [
        ("stable", {STABLE}, {TEMPORARY: Why.TEMPORARY}),
        ("temporary", {TEMPORARY}, {STABLE: Why.STABLE}),
        ("all", {STABLE, TEMPORARY}, {}),
    ],
)
def test_the_chosen_addresses_are_paths_and_the_others_are_routed_with_them(
    which: str, paths: set[str], others: dict[str, Why], config: Any
) -> None:
    desired = decide(with_privacy().snapshot(), config(f"[path-x]\nipv6-address={which}"))
    assert wished(desired).keys() == paths
    assert {each.address: each.reason.why for each in desired.paths if each.state is State.EXCLUDED} == others
    assert {rule.source for rule in desired.rules} == {STABLE, TEMPORARY}


def test_networkmanager_itself_adds_stable_ones_only(config: Any) -> None:
    desired = decide(with_privacy(**PROFILE).snapshot(), config("[path-x]\nipv6-address=all"))
    assert path(desired, STABLE).reason.why is Why.WAITS_FOR_NETWORKMANAGER
    assert path(desired, TEMPORARY).reason.why is Why.TEMPORARY


def test_ipv6_address_does_not_apply_to_ipv4(config: Any) -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24")
    situation.address(2, "10.0.1.3/24", flags=0x01)  # IPv4: "secondary"
    assert wished(decide(situation.snapshot(), config("[path-x]\nipv6-address=temporary"))).keys() == {A, "10.0.1.3"}


def test_the_unchosen_address_keeps_its_endpoint_until_the_chosen_one_has_its_own(config: Any) -> None:
    situation = with_privacy()
    situation.endpoint(STABLE, 2, ours=True)
    settings = config("[path-x]\nipv6-address=temporary")
    desired = decide(situation.snapshot(), settings)
    assert wished(desired).keys() == {STABLE, TEMPORARY}
    assert path(desired, STABLE).reason.why is Why.KEPT_UNTIL_REPLACED
    situation.endpoint(TEMPORARY, 2, ours=True)
    desired = decide(situation.snapshot(), settings)
    assert wished(desired).keys() == {TEMPORARY}
    assert path(desired, STABLE).reason.why is Why.NO_LONGER_CHOSEN
    situation.connections = {frozenset({STABLE}): 1}
    desired = decide(situation.snapshot(), settings)
    assert wished(desired).keys() == {STABLE, TEMPORARY}
    assert desired.depends_on_connections
    situation.connections = {frozenset({STABLE, TEMPORARY}): 1}
    assert wished(decide(situation.snapshot(), settings)).keys() == {TEMPORARY}


def test_without_a_chosen_address_there_is_nothing_to_wait_for(config: Any) -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{STABLE}/64")
    situation.address(e1, "fe80::5/64", gateway=False)
    situation.endpoint(STABLE, e1, ours=True)
    desired = decide(situation.snapshot(), config("[path-x]\nipv6-address=temporary"))
    assert not wished(desired)
    assert path(desired, STABLE).reason.why is Why.STABLE


def test_a_temporary_address_in_use_outlives_networkmanagers_absence(config: Any) -> None:
    settings = config("[path-x]\nmatch-connection=e1\nipv6-address=temporary")
    situation = with_privacy()
    situation.endpoint(TEMPORARY, 2, ours=True)
    device = situation.devices["e1"]
    situation.device("e1", profile=None)  # it is being read, and the section is for it
    assert wished(decide(situation.snapshot(), settings)).keys() == {TEMPORARY}
    situation.devices["e1"] = device
    situation.running = False
    situation.devices.clear()
    desired = decide(situation.snapshot(), settings)
    assert wished(desired).keys() == {TEMPORARY}
    assert path(desired, TEMPORARY).reason.why is Why.KEPT_NETWORKMANAGER_AWAY


def test_a_deprecated_temporary_address_goes_when_its_successor_has_its_endpoint(config: Any) -> None:
    settings = config("[path-x]\nipv6-address=temporary")
    situation = with_privacy()
    old = "2001:db8:1::5555"
    situation.address(2, f"{old}/64", flags=0x21)
    situation.endpoint(old, 2, ours=True)
    assert wished(decide(situation.snapshot(), settings)).keys() == {old, TEMPORARY}
    situation.endpoint(TEMPORARY, 2, ours=True)
    assert wished(decide(situation.snapshot(), settings)).keys() == {TEMPORARY}
