# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as File
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nm_mptcp.engine.record_file import Record, StateError, _encode
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.reasons import Reason, Why
from nm_mptcp.model.record import (
    Contents,
    GuardRecord,
    Since,
    decided,
    seen,
    since,
    with_endpoints,
    with_limits,
    without_endpoints,
)
from nm_mptcp.model.state import (
    Action,
    Desired,
    Endpoint,
    Family,
    Kernel,
    Limits,
    Mode,
    Numbering,
    Ours,
    OwnEndpoint,
    Path,
    SavedSetting,
    State,
)
from nm_mptcp.policy.decide import decide
from nm_mptcp.policy.plan import plan
from nm_mptcp.report.status import document

from .situations import BACKUP, SUBFLOW, Situation

A = Endpoint("10.0.1.2", 2, SUBFLOW)
OURS = Ours(
    frozenset({OwnEndpoint("10.0.1.2", 2, SUBFLOW, SUBFLOW, 7)}),
    frozenset({":1.5/9"}),
    {"subflows": SavedSetting(2, 4)},
)


def test_a_saved_record_is_read_back(tmp_path: File) -> None:
    contents = Contents(OURS, {"10.0.1.2%2": Since("active", "FLAGS_OF_KIND", 1700000000.25)})
    Record(tmp_path / "run").save(contents)
    assert Record(tmp_path / "run").load() == contents


def test_everybody_may_read_the_record(tmp_path: File) -> None:
    record = Record(tmp_path)
    record.save(Contents(OURS))
    assert stat.S_IMODE(record.file.stat().st_mode) == 0o644


def test_an_unchanged_record_is_not_written(tmp_path: File) -> None:
    record = Record(tmp_path)
    record.save(Contents(OURS))
    before = record.file.stat().st_ino
    record.save(Contents(OURS))
    assert record.file.stat().st_ino == before


BROKEN = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"version": 2}',
    b'{"version": 1, "endpoints": [["10.0.0.1"]]}',
    b"\0\0",
    b"1",
    b"\xff\xfe",
    b"[" * 100_000,
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda text: repr(text[:20]))
def test_a_broken_record_is_renamed_and_logged(broken: bytes, tmp_path: File, caplog: pytest.LogCaptureFixture) -> None:
    record = Record(tmp_path)
    record.file.write_bytes(broken)
    with caplog.at_level(logging.ERROR):
        assert record.load() == Contents()
    (line,) = caplog.messages
    assert line.startswith(f"{record.file}: not a record of nm-mptcp (")
    assert line.endswith("; renamed to state.broken")
    assert (tmp_path / "state.broken").read_bytes() == broken


@pytest.mark.parametrize("broken", BROKEN, ids=lambda text: repr(text[:20]))
def test_a_reader_does_not_rename_a_broken_record(
    broken: bytes, tmp_path: File, caplog: pytest.LogCaptureFixture
) -> None:
    record = Record(tmp_path)
    record.file.write_bytes(broken)
    with caplog.at_level(logging.ERROR):
        assert record.load(aside=False) == Contents()
        assert record.load(aside=False) == Contents()
    assert len(caplog.messages) == 2
    assert "'nm-mptcp apply' writes a new one" in caplog.messages[0]
    assert record.file.read_bytes() == broken
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


def test_an_unwritable_directory_is_named(tmp_path: File) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match=r"file/run/state\.json: cannot be written: Not a directory"):
        Record(tmp_path / "file" / "run").save(Contents(OURS))


def test_there_is_one_writer_and_the_other_gets_its_process_id(tmp_path: File) -> None:
    with (
        Record(tmp_path).lock(0),
        pytest.raises(StateError, match=f"another nm-mptcp is running.*{os.getpid()}"),
        Record(tmp_path).lock(0.05),
    ):
        pass
    with Record(tmp_path).lock(0):
        pass


# --- records that cannot be used ---

WELL = _encode(
    Contents(
        Ours(
            OURS.endpoints,
            OURS.claims,
            {"subflows": SavedSetting(2, 4)},
            frozenset({replace(A, flags=BACKUP)}),
            frozenset({(Family.IPV4, 2)}),
            frozenset({Numbering(78, range(50000, 50100), 1000)}),
            frozenset({3}),
        ),
        {"10.0.1.2%2": Since("active", "FLAGS_OF_KIND", 1700000000.25)},
        8,
        Mode.HANDOVER,
        GuardRecord({Family.IPV4: "tun0"}, 1700000000.0, 1700000001.0, 3, 1),
    )
)

#: Numbers as JSON may have them, whatever a field is for.
NUMBERS = [
    "Infinity",
    "-Infinity",
    "NaN",
    "1e999",
    "-1",
    "1.5",
    "true",
    "null",
    '"x"',
    "[]",
    "{}",
    str(2**64),
    str(10**400),
]


def leaves(value: Any, *place: Any) -> Iterator[tuple[Any, ...]]:
    """The places of the record's numbers."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, *place, key)
    elif isinstance(value, int | float):
        yield place


def changed(place: tuple[Any, ...], number: str) -> bytes:
    """The record with another value there."""
    data = json.loads(json.dumps(WELL))
    holder = data
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = "HERE"
    return json.dumps(data).replace('"HERE"', number).encode()


@pytest.mark.parametrize("place", list(leaves(WELL)), ids=str)
def test_a_number_out_of_range_is_a_broken_record(place: tuple[Any, ...], tmp_path: File) -> None:
    record = Record(tmp_path)
    for number in NUMBERS:
        if (place, number) == (("guard", "until"), "null") or (number == "1.5" and place[-1] in ("since", "until", 2)):
            continue  # a time, or that there is none
        record.file.write_bytes(changed(place, number))
        assert record.load() == Contents(), number
        assert (tmp_path / "state.broken").exists()
        (tmp_path / "state.broken").unlink()


def test_a_record_of_an_older_version_is_read(tmp_path: File) -> None:
    record = Record(tmp_path)
    data = json.loads(json.dumps(WELL))
    data["endpoints"] = [each[:5] for each in data["endpoints"]]  # before ports
    for name in ("numberings", "mode", "guard", "loosened"):
        del data[name]
    record.file.write_text(json.dumps(data))
    assert record.load().ours.endpoints == OURS.endpoints


@pytest.mark.parametrize("kind", ["folder", "fifo", "unreadable"])
def test_an_unreadable_or_special_file_is_renamed(kind: str, tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(tmp_path)
    if kind == "folder":
        record.file.mkdir()
    elif kind == "fifo":
        os.mkfifo(record.file)
    else:
        record.file.touch()
        monkeypatch.setattr(
            File, "read_bytes", lambda path: (_ for _ in ()).throw(PermissionError(13, "no", str(path)))
        )
    assert record.load() == Contents()
    monkeypatch.undo()
    record.save(Contents(OURS))
    assert Record(tmp_path).load() == Contents(OURS)


def refused(record: Record) -> bytes:
    raise PermissionError(13, "Permission denied", str(record.file))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(sorted(WELL)), JSON), st.binary(max_size=40))
def test_any_contents_are_read_or_renamed_and_what_is_read_can_be_shown_and_written(
    tmp_path: File, changes: dict[str, Any], junk: bytes
) -> None:
    record = Record(tmp_path)
    for text in (json.dumps({**WELL, **changes}).encode(), junk):
        record.file.write_bytes(text)
        contents = record.load()
        situation = Situation()
        situation.link("e1", "10.0.1.2/24")
        situation.ours = contents.ours
        snapshot = situation.snapshot()
        document(snapshot, decide(snapshot), contents, mode=Mode.AUTO, service=True)
        (tmp_path / "other" / "state.json").unlink(missing_ok=True)
        Record(tmp_path / "other").save(contents)
        assert Record(tmp_path / "other").load() == contents


def test_without_the_record_our_rules_and_routes_are_known_by_their_numbers(tmp_path: File) -> None:
    situation = Situation()
    situation.link("e1", "10.0.1.2/24")
    made = decide(situation.snapshot())
    situation.rules = list(made.rules)
    situation.routes += [route for routes in made.routes.values() for route in routes]
    situation.devices.clear()
    record = Record(tmp_path)
    record.file.write_bytes(b'{"version": 1, "since": {"x": ["a", "b", Infinity]}}')
    situation.ours = record.load().ours
    snapshot = situation.snapshot()
    taken_out = {
        op.value for op in plan(decide(snapshot), snapshot.kernel, snapshot.ours) if op.action is Action.DELETE
    }
    assert set(made.rules) <= taken_out


# --- what is ours ---


def test_an_endpoint_is_ours_from_before_it_is_added() -> None:
    ours = with_endpoints(Ours(), [A])
    assert ours.owns(replace(A, id=3))


def test_a_dump_confirms_the_id_and_then_another_id_is_not_ours() -> None:
    ours = seen(with_endpoints(Ours(), [A]), [replace(A, id=3)])
    assert ours.owns(replace(A, id=3))
    assert not ours.owns(replace(A, id=4))


def test_other_flags_than_ours_mean_that_it_was_replaced_even_with_the_same_id() -> None:
    ours = seen(with_endpoints(Ours(), [A]), [replace(A, id=3)])
    assert not ours.owns(replace(A, id=3, flags=BACKUP))


def test_during_a_change_of_flags_both_are_ours_and_after_it_the_new_ones() -> None:
    ours = seen(with_endpoints(Ours(), [A]), [replace(A, id=3)])
    changing = with_endpoints(ours, [replace(A, id=3, flags=BACKUP)])
    assert changing.owns(replace(A, id=3))
    assert changing.owns(replace(A, id=3, flags=BACKUP))
    changed = seen(changing, [replace(A, id=3, flags=BACKUP)])
    assert changed.owns(replace(A, id=3, flags=BACKUP))
    assert not changed.owns(replace(A, id=3))


def test_a_deleted_endpoint_is_forgotten() -> None:
    assert seen(OURS, []).endpoints == frozenset()


def test_a_replaced_endpoint_is_kept_for_one_decision() -> None:
    replaced = [Endpoint("10.0.1.2", 2, BACKUP, 8)]
    assert seen(OURS, replaced).endpoints == OURS.endpoints
    after = decided(OURS, Kernel(endpoints=tuple(replaced)), Desired(claims=frozenset({"claim"})))
    assert (after.endpoints, after.claims) == (frozenset(), frozenset({"claim"}))


def test_an_endpoint_edited_by_hand_is_ours_again_when_the_change_is_undone() -> None:
    edited = Endpoint("10.0.1.2", 2, BACKUP, 7)
    after = decided(seen(OURS, [edited]), Kernel(endpoints=(edited,)), Desired())
    assert after.is_edited(edited)
    assert not after.owns(edited)
    back = replace(edited, flags=SUBFLOW)
    assert seen(after, [back]).owns(back)
    for other in (EndpointFlag.SIGNAL, SUBFLOW | EndpointFlag.LAMINAR):  # nothing changes these in place
        assert not OURS.is_edited(replace(edited, flags=other))


def test_an_endpoint_that_could_not_be_added_is_not_ours() -> None:
    ours = without_endpoints(with_endpoints(Ours(), [A]), [A])
    assert not ours.owns(replace(A, id=9))


def test_the_limit_before_the_first_write_is_restored() -> None:
    once = with_limits(Ours(), Limits(2, 0), Limits(4, 0))
    assert once.limits == {"subflows": SavedSetting(2, 4)}
    twice = with_limits(once, Limits(4, 0), Limits(6, 3))
    assert twice.limits == {"subflows": SavedSetting(2, 6), "add_addr_accepted": SavedSetting(0, 3)}


def test_since_stays_while_state_and_reason_stay() -> None:
    path = Path("10.0.1.2", 2, "e1", State.ACTIVE, Reason(Why.FLAGS_OF_KIND, "wifi carries"))
    first = since({}, [path], 10.0)
    assert since(first, [replace(path, reason=Reason(Why.FLAGS_OF_KIND, "other words"))], 20.0) == first
    changed = since(first, [replace(path, state=State.SUSPENDED)], 30.0)
    assert changed["10.0.1.2%2"].time == 30.0


def test_since_when_a_containers_address_is_none_of_our_paths_is_not_noted() -> None:
    containers = Path("172.17.0.1", 9, "docker0", State.EXCLUDED, Reason(Why.NOT_MANAGED))
    assert since({}, [containers], 10.0) == {}
    path = Path("10.0.1.2", 2, "e1", State.ACTIVE, Reason(Why.FLAGS_OF_KIND, "wifi carries"), profile="Wi-Fi")
    disabled = replace(path, state=State.EXCLUDED, reason=Reason(Why.DISABLED_BY_PROFILE))
    assert since({}, [disabled], 10.0)["10.0.1.2%2"].time == 10.0
    # One that was a path, and is handed over to another program.
    noted = since(since({}, [path], 10.0), [replace(disabled, profile="")], 20.0)
    assert noted["10.0.1.2%2"].time == 20.0


def test_a_limit_with_its_original_value_is_not_ours() -> None:
    lowered = with_limits(Ours(), Limits(8, 2), Limits(0, 2))
    assert lowered.limits == {"subflows": SavedSetting(8, 0)}
    raised = with_limits(lowered, Limits(0, 2), Limits(8, 2))
    assert decided(raised, Kernel(limits=Limits(0, 2)), Desired()).limits == {"subflows": SavedSetting(8, 8)}
    assert decided(raised, Kernel(limits=Limits(8, 2)), Desired()).limits == {}


def test_the_guards_record_is_kept(tmp_path: File) -> None:
    guard = GuardRecord({Family.IPV4: "the tunnel tun0"}, 1700000000.5, None, 3, 1)
    Record(tmp_path).save(Contents(OURS, guard=guard))
    assert Record(tmp_path).load().guard == guard


def test_a_record_of_before_the_guard_is_read(tmp_path: File) -> None:
    Record(tmp_path).save(Contents(OURS))
    file = tmp_path / "state.json"
    data = json.loads(file.read_text())
    del data["guard"]
    file.write_text(json.dumps(data))
    assert Record(tmp_path).load() == Contents(OURS)
