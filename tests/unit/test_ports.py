# SPDX-License-Identifier: GPL-2.0-or-later
"""Endpoints with a port: which are ours, and which may exist beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path as File

import pytest

from nm_mptcp.config.selector import Selector
from nm_mptcp.config.settings import Config, PathSection, Setting
from nm_mptcp.engine.record_file import Record
from nm_mptcp.kernel.ip_commands import command
from nm_mptcp.model.flags import EndpointFlag, ProfileFlag
from nm_mptcp.model.reasons import Why
from nm_mptcp.model.record import Contents, decided, seen, with_endpoints, without_endpoints
from nm_mptcp.model.state import Action, Endpoint, Operation, Ours, OwnEndpoint, Owner, State
from nm_mptcp.policy.decide import decide
from nm_mptcp.policy.plan import plan, restore

from .situations import SUBFLOW, Situation
from .test_policy import path

A, B = "10.0.1.2", "10.0.2.2"
SIGNAL = EndpointFlag.SIGNAL
EXPLICIT = {"mptcp_flags": ProfileFlag.ENABLED | ProfileFlag.SIGNAL}


def listening(port: int = 443) -> Config:
    """A configuration that has each address announced with this port; 0: without one."""
    settings = {"flags": Setting(ProfileFlag.ENABLED | ProfileFlag.SIGNAL)}
    more = {"signal_port": Setting(port)} if port else {}
    return Config(sections=(PathSection("path-x", Selector(), settings | more),))


def server() -> tuple[Situation, int]:
    situation = Situation()
    return situation, situation.link("e1", f"{A}/24")


def endpoints(situation: Situation, config: Config) -> list[tuple[Action, int]]:
    """The operations on endpoints: the action and the port."""
    snapshot = situation.snapshot()
    desired = decide(snapshot, config)
    operations = plan(desired, snapshot.kernel, decided(snapshot.ours, snapshot.kernel, desired))
    return [(each.action, each.value.port) for each in operations if isinstance(each.value, Endpoint)]


def test_the_port_is_that_of_the_section_that_chose_the_flags() -> None:
    situation, _ = server()
    desired = decide(situation.snapshot(), listening())
    assert desired.endpoints == {Endpoint(A, 2, SIGNAL, port=443)}
    assert path(desired, A).port == 443
    assert endpoints(situation, listening()) == [(Action.ADD, 443)]


def test_a_profiles_own_flags_have_no_port() -> None:
    situation = Situation()
    situation.link("e1", f"{A}/24", profile=EXPLICIT)
    situation.overdue = frozenset({A})
    assert decide(situation.snapshot(), listening()).endpoints == {Endpoint(A, 2, SIGNAL)}


def test_an_existing_one_is_unchanged() -> None:
    situation, e1 = server()
    situation.endpoint(A, e1, SIGNAL, ours=True, port=443)
    assert endpoints(situation, listening()) == []


@pytest.mark.parametrize(("before", "after"), [(443, 444), (443, 0), (0, 443)])
def test_another_port_is_another_endpoint(before: int, after: int) -> None:
    situation, e1 = server()
    situation.endpoint(A, e1, SIGNAL, ours=True, port=before)
    assert endpoints(situation, listening(after)) == [(Action.DELETE, before), (Action.ADD, after)]


def test_another_programs_endpoint_with_another_port_does_not_matter() -> None:
    situation, e1 = server()
    situation.endpoint(A, e1, SIGNAL, ours=False, port=444)
    assert endpoints(situation, listening()) == [(Action.ADD, 443)]
    assert endpoints(situation, Config()) == [(Action.ADD, 0)]


@pytest.mark.parametrize("port", [443, 0])
def test_another_programs_endpoint_with_the_same_port_or_without_one_is_unchanged(port: int) -> None:
    situation, e1 = server()
    situation.endpoint(A, e1, SIGNAL, ours=False, port=port)
    assert endpoints(situation, listening()) == []
    shown = path(decide(situation.snapshot(), listening()), A)
    assert (shown.owner, shown.reason.why) == (Owner.OTHER, Why.SOMEBODY_ELSE_OWNS)


def test_ours_is_deleted_if_networkmanager_now_adds_the_endpoint() -> None:
    situation = Situation()
    e1 = situation.link("e1", f"{A}/24", profile=EXPLICIT)
    situation.endpoint(A, e1, SIGNAL, ours=True, port=443)
    assert endpoints(situation, listening()) == [(Action.DELETE, 443)]
    situation.endpoint(A, e1, SIGNAL, ours=False)
    assert endpoints(situation, listening()) == [(Action.DELETE, 443)]
    assert path(decide(situation.snapshot(), listening()), A).owner is Owner.NETWORKMANAGER


def test_an_endpoint_kept_for_connections_keeps_its_port() -> None:
    situation, e1 = server()
    situation.endpoint(A, e1, SIGNAL, ours=True, port=443)
    situation.link("e2", f"{B}/24")
    situation.links[e1] = replace(situation.links[e1], carrier=False)
    situation.connections = {frozenset({A}): 1}
    desired = decide(situation.snapshot(), Config())
    assert path(desired, A).state is State.SUSPENDED
    assert Endpoint(A, e1, SIGNAL, port=443) in desired.endpoints


def test_without_networkmanager_it_keeps_its_port() -> None:
    situation, e1 = server()
    situation.endpoint(A, e1, SIGNAL, ours=True, port=443)
    situation.running = False
    situation.devices.clear()
    assert endpoints(situation, listening()) == []


def test_deleting_it_closes_only_subflows_to_the_port_so_initial_ones_are_closed_too() -> None:
    situation, e1 = server()
    situation.endpoint(A, e1, SIGNAL, ours=True, port=443)
    e2 = situation.link("e2", f"{B}/24")
    situation.endpoint(B, e2, SIGNAL, ours=True, port=443)
    situation.links[e1] = replace(situation.links[e1], carrier=False)
    situation.connections = {frozenset({A, B}): 1}
    desired = decide(situation.snapshot(), listening())
    assert desired.close_initial_subflows == {A}
    assert desired.endpoints == {Endpoint(B, e2, SIGNAL, port=443)}


def test_clear_deletes_all_of_ours_and_nothing_else() -> None:
    situation, e1 = server()
    mine = situation.endpoint(A, e1, SIGNAL, ours=True, port=443)
    situation.endpoint(A, e1, SIGNAL, ours=False, port=444)
    snapshot = situation.snapshot()
    taken_back = [each for each in restore(snapshot.kernel, snapshot.ours) if isinstance(each.value, Endpoint)]
    assert taken_back == [Operation(Action.DELETE, mine)]


# --- the record


def test_endpoints_of_one_address_differ_by_port() -> None:
    plain, with_port = Endpoint(A, 2, SUBFLOW), Endpoint(A, 2, SIGNAL, port=443)
    ours = with_endpoints(with_endpoints(Ours(), [plain]), [with_port])
    ours = seen(ours, [replace(plain, id=3), replace(with_port, id=4)])
    assert {(own.port, own.id) for own in ours.endpoints} == {(0, 3), (443, 4)}
    assert not ours.owns(Endpoint(A, 2, SIGNAL, 4, 444))
    assert {own.port for own in seen(ours, [replace(plain, id=3)]).endpoints} == {0}
    again = without_endpoints(with_endpoints(ours, [with_port]), [with_port])
    assert {own.port for own in again.endpoints} == {0}


def test_the_record_has_the_port_and_an_older_one_has_none(tmp_path: File) -> None:
    ours = Ours(frozenset({OwnEndpoint(A, 2, SIGNAL, SIGNAL, 4, 443), OwnEndpoint(B, 3, SUBFLOW, SUBFLOW, 5)}))
    record = Record(tmp_path)
    record.save(Contents(ours))
    assert Record(tmp_path).load().ours == ours
    written = json.loads(record.file.read_text())
    written["endpoints"] = [each[:5] for each in written["endpoints"] if not each[5]]
    record.file.write_text(json.dumps(written))
    assert Record(tmp_path).load().ours.endpoints == {OwnEndpoint(B, 3, SUBFLOW, SUBFLOW, 5)}


def test_the_command_has_the_port() -> None:
    situation, _ = server()
    added = Operation(Action.ADD, Endpoint(A, 2, SIGNAL, port=443))
    assert command(added, situation.links) == f"ip mptcp endpoint add {A} port 443 dev e1 signal"
