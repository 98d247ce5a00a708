# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp watch``, its pure parts: what two snapshots differ in, rates, and what is drawn."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from rich.text import Text

from nm_mptcp.kernel.link_stats import LinkCounters
from nm_mptcp.kernel.path_manager_events import EventName, PathManagerEvent
from nm_mptcp.kernel.sock_diag import Subflow, SubflowFlag, TCPState
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import Address, Endpoint, Family, Link
from nm_mptcp.text import cells
from nm_mptcp.watch.events import Event, EventType, from_path_manager
from nm_mptcp.watch.render import Canvas, draw, spark, speed
from nm_mptcp.watch.scene import Scene, scene, uplinks
from nm_mptcp.watch.snapshot import DeviceView, PathView, Snapshot, differences
from nm_mptcp.watch.terminal import Terminal
from nm_mptcp.watch.traffic import Traffic

from ..support import shown
from ..svg import picture

NASTY = "a\x1b[2Jb\x07\n\u202eevil\u2066" + "x" * 4096 + "\udcff"

SUBFLOW, BACKUP = EndpointFlag.SUBFLOW, EndpointFlag.SUBFLOW | EndpointFlag.BACKUP


def subflow(local: str, cookie: int, **more: object) -> Subflow:
    return Subflow(
        token=0xABC,
        family=Family.IPV4,
        local=local,
        local_port=40000 + cookie,
        remote="192.0.2.1",
        remote_port=443,
        state=TCPState.ESTABLISHED,
        flags=SubflowFlag.FULLY_ESTABLISHED | SubflowFlag.MP_CAPABLE_LOCAL,
        cookie=cookie,
        **more,  # type: ignore[arg-type]
    )


SNAPSHOT = Snapshot(
    links={1: Link(1, "lo", loopback=True), 2: Link(2, "wlan0"), 3: Link(3, "wwan0"), 4: Link(4, "docker0")},
    addresses={
        2: (Address(2, "10.1.0.50", 24), Address(2, "fe80::1", 64, scope=253)),
        3: (Address(3, "10.2.0.50", 24),),
        4: (Address(4, "172.17.0.1", 16),),
    },
    endpoints=(Endpoint("10.1.0.50", 2, SUBFLOW, 1), Endpoint("10.2.0.50", 3, BACKUP, 2)),
    subflows=(subflow("10.1.0.50", 1, rtt=0.0123), subflow("10.2.0.50", 2)),
    paths=(
        PathView("wlan0", "10.1.0.50", "active", "carries", "flags-of-kind", ("subflow",), 1),
        PathView("wwan0", "10.2.0.50", "active", "backup, since metered", "metered-backup", ("subflow", "backup"), 2),
        PathView("docker0", "172.17.0.1", "excluded", "not managed", "not-managed"),
    ),
    devices=(DeviceView("wlan0", "Home", "wifi"), DeviceView("wwan0", "LTE", "cellular")),
    service=True,
    networkmanager=True,
    version="1.42.4",
)


def names(before: Snapshot, after: Snapshot) -> list[str]:
    return [event.type.value for event in differences(before, after)]


def words(before: Snapshot, after: Snapshot) -> list[str]:
    return [f"{event.type.label}: {event.text}" for event in differences(before, after)]


# --- events


def test_there_is_no_event_between_equal_snapshots() -> None:
    assert names(SNAPSHOT, SNAPSHOT) == []


def test_what_was_unknown_before_makes_no_event() -> None:
    assert names(Snapshot(), SNAPSHOT) == []


def test_what_becomes_unknown_makes_no_event() -> None:
    blind = replace(SNAPSHOT, endpoints=None, subflows=None, paths=None, service=None, networkmanager=None)
    assert names(SNAPSHOT, blind) == []


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (Link(2, "wlan0", carrier=False), "link lost: wlan0: no carrier"),
        (Link(2, "wlan0", up=False, carrier=False), "link lost: wlan0: down"),
    ],
)
def test_a_link_that_is_lost_and_comes_back_is_an_event(link: Link, expected: str) -> None:
    lost = replace(SNAPSHOT, links={**SNAPSHOT.links, 2: link})
    assert words(SNAPSHOT, lost) == [expected]
    assert words(lost, SNAPSHOT) == ["link back: wlan0"]


def test_a_link_is_lost_once_also_when_it_is_taken_down_afterwards() -> None:
    lost = replace(SNAPSHOT, links={**SNAPSHOT.links, 2: Link(2, "wlan0", carrier=False)})
    down = replace(SNAPSHOT, links={**SNAPSHOT.links, 2: Link(2, "wlan0", up=False, carrier=False)})
    assert words(lost, down) == []


def test_links_and_addresses_that_come_and_go_are_events_without_link_local_ones() -> None:
    gone = replace(
        SNAPSHOT,
        links={index: link for index, link in SNAPSHOT.links.items() if index != 2},
        addresses={index: group for index, group in SNAPSHOT.addresses.items() if index != 2},
    )
    assert words(SNAPSHOT, gone) == ["link removed: wlan0", "address removed: wlan0 10.1.0.50"]
    assert words(gone, SNAPSHOT) == ["link added: wlan0: up", "address added: wlan0 10.1.0.50"]


def test_endpoints_in_out_and_changed_are_events_with_id_and_flags() -> None:
    out = replace(SNAPSHOT, endpoints=SNAPSHOT.endpoints[1:])  # type: ignore[index]
    assert words(SNAPSHOT, out) == ["endpoint out: wlan0 10.1.0.50 id 1"]
    assert words(out, SNAPSHOT) == ["endpoint in: wlan0 10.1.0.50 id 1 subflow"]
    changed = replace(SNAPSHOT, endpoints=(Endpoint("10.1.0.50", 2, BACKUP, 1), Endpoint("10.2.0.50", 3, BACKUP, 2)))
    assert words(SNAPSHOT, changed) == ["endpoint changed: wlan0 10.1.0.50 id 1 subflow,backup"]


def test_who_may_not_ask_the_kernel_learns_of_endpoints_from_the_service() -> None:
    before = replace(SNAPSHOT, endpoints=None, subflows=None)
    assert before.paths
    after = replace(before, paths=(replace(before.paths[0], endpoint_id=None), *before.paths[1:]))
    assert words(before, after) == ["endpoint out: wlan0 10.1.0.50 id 1"]


def test_a_path_that_is_decided_anew_is_an_event_with_its_reason() -> None:
    assert SNAPSHOT.paths
    suspended = replace(SNAPSHOT.paths[0], state="suspended", reason="no carrier", rule="no-carrier")
    after = replace(SNAPSHOT, paths=(suspended, *SNAPSHOT.paths[1:]))
    assert words(SNAPSHOT, after) == ["path: wlan0 10.1.0.50 suspended: no carrier"]


def test_a_priority_that_we_change_is_an_event() -> None:
    assert SNAPSHOT.subflows
    backup = replace(SNAPSHOT.subflows[1], flags=SNAPSHOT.subflows[1].flags | SubflowFlag.BACKUP_LOCAL)
    after = replace(SNAPSHOT, subflows=(SNAPSHOT.subflows[0], backup))
    assert words(SNAPSHOT, after) == ["MP_PRIO: backup, requested by us: wwan0 10.2.0.50:40002 to 192.0.2.1:443"]
    assert words(after, SNAPSHOT) == ["MP_PRIO: active, requested by us: wwan0 10.2.0.50:40002 to 192.0.2.1:443"]
    (event,) = differences(SNAPSHOT, after)
    assert (event.fields["by"], event.fields["backup"]) == ("us", True)


def test_service_and_networkmanager_coming_and_going_are_events() -> None:
    alone = replace(SNAPSHOT, service=False, networkmanager=False)
    assert names(SNAPSHOT, alone) == ["service-gone", "networkmanager-gone"]
    assert names(alone, SNAPSHOT) == ["service-up", "networkmanager-up"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (EventName.CREATED, "connection-opened: wlan0 10.1.0.50:40001 to 192.0.2.1:443"),
        (
            EventName.SUBFLOW_ESTABLISHED,
            "subflow-up: wlan0 10.1.0.50:40001 to 192.0.2.1:443 (backup, requested by the peer)",
        ),
        (EventName.SUBFLOW_PRIORITY, "mp-prio: backup, requested by the peer: wlan0 10.1.0.50:40001 to 192.0.2.1:443"),
        (EventName.SUBFLOW_CLOSED, "subflow-closed: wlan0 10.1.0.50:40001 to 192.0.2.1:443: Connection timed out"),
        (EventName.CLOSED, "connection-closed: with 192.0.2.1:443"),
        (EventName.REMOVED, "peer-address-removed: id 7 (with 192.0.2.1:443)"),
        (EventName.ANNOUNCED, "peer-address-announced: 192.0.2.1 (with 192.0.2.1:443)"),
    ],
)
def test_events_of_the_path_manager_have_a_text(name: EventName, line: str) -> None:
    reported = PathManagerEvent(
        name,
        token=0xABC,
        remote_id=7,
        local="10.1.0.50",
        local_port=40001,
        remote="192.0.2.1",
        remote_port=443,
        backup=True,
        error=110 if name is EventName.SUBFLOW_CLOSED else 0,
    )
    event = from_path_manager(reported, SNAPSHOT.interface_of(reported.local), SNAPSHOT.peer_of(reported.token))
    assert event
    assert f"{event.type.value}: {event.text}" == line
    json.dumps(event.document())


def test_events_that_say_nothing_about_paths_are_left_out() -> None:
    assert from_path_manager(PathManagerEvent(EventName.LISTENER_CREATED), "") is None


def test_a_line_of_json_has_time_and_name_and_is_utf8_whatever_an_interface_is_called() -> None:
    fields = {"interface": "w\udcff\x1b", "more": ["\udcff"], "links": {"w\udcff\x1b": {"in": 1}}}
    event = Event(EventType.LINK_LOST, "", fields, time=1.5)
    text = json.dumps(event.document())
    assert json.loads(text) == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "event": "link-lost",
        "interface": "w?\x1b",
        "more": ["?"],
        "links": {"w?\x1b": {"in": 1}},
    }
    assert text.isprintable()


def test_every_event_is_in_the_manual_and_the_manual_has_no_others() -> None:
    documented = shown.heads(shown.sections("nm-mptcp-json(5)")["WATCH"])
    assert sorted(documented) == sorted(name.value for name in EventType)


# --- rates


def test_rates_are_bits_per_second_of_the_link_and_of_it_what_mptcp_carries() -> None:
    traffic = Traffic()
    traffic.add(replace(SNAPSHOT, counters={2: LinkCounters(1000, 0)}), 10.0)
    later = replace(
        SNAPSHOT,
        counters={2: LinkCounters(1000 + 250_000, 500)},
        subflows=(subflow("10.1.0.50", 1, received=200_000, sent=100),),
    )
    traffic.add(later, 12.0)
    (rates,) = traffic.history("wlan0")
    assert (rates.into, rates.out, rates.mptcp_in, rates.mptcp_out) == (1_000_000, 2000, 800_000, 400)
    assert traffic.subflows[1].into == 800_000


def test_a_counter_that_begins_anew_is_no_traffic() -> None:
    traffic = Traffic()
    for time, counted in enumerate((10**9, 5)):
        traffic.add(replace(SNAPSHOT, counters={2: LinkCounters(counted, counted)}), float(time))
    assert traffic.history("wlan0")[0].into == 0


def test_where_subflows_are_not_visible_mptcps_part_is_unknown() -> None:
    traffic = Traffic()
    for time in (0.0, 1.0):
        traffic.add(replace(SNAPSHOT, subflows=None, counters={2: LinkCounters()}), time)
    assert traffic.history("wlan0")[0].mptcp_in is None


def test_a_link_that_is_gone_is_forgotten() -> None:
    traffic = Traffic()
    for time in (0.0, 1.0):
        traffic.add(replace(SNAPSHOT, counters={2: LinkCounters()}), time)
    traffic.add(replace(SNAPSHOT, counters={}), 2.0)
    assert traffic.history("wlan0") == ()


# --- the screen


def measured() -> Traffic:
    traffic = Traffic()
    into = 0
    for second in range(200):
        into += 2_500_000 if second % 20 else 0
        counters = {2: LinkCounters(into, second * 10_000), 3: LinkCounters(0, second * 3)}
        subflows = (subflow("10.1.0.50", 1, received=into, rtt=0.0123), subflow("10.2.0.50", 2))
        traffic.add(replace(SNAPSHOT, counters=counters, subflows=subflows), float(second))
    return traffic


def made(snapshot: Snapshot = SNAPSHOT, **more: object) -> Scene:
    events = [Event(EventType.LINK_LOST, "wlan0: no carrier", time=number / 10) for number in range(50)]
    return scene(snapshot, measured(), events, time=0.0, **more)  # type: ignore[arg-type]


def drawn(width: int = 80, height: int = 24, *, unicode: bool = True, of: Scene | None = None) -> list[str]:
    return [line.plain.rstrip() for line in draw(of or made(), Canvas(width, height, unicode))]


def test_the_uplinks_are_shown_and_a_bridge_of_containers_is_left_out() -> None:
    assert uplinks(SNAPSHOT) == {"wlan0", "wwan0"}
    assert "  Left out: 1 interface without a path (--all shows all)." in drawn(height=40)


def test_without_service_and_networkmanager_every_link_with_an_address_is_shown() -> None:
    bare = Snapshot(links=SNAPSHOT.links, addresses=SNAPSHOT.addresses)
    assert uplinks(bare) == {"wlan0", "wwan0", "docker0"}


def test_a_screen_of_80_columns() -> None:
    lines = drawn(80, 30)
    assert lines[0].startswith("nm-mptcp watch   service active   NetworkManager 1.42.4")
    assert "LINKS ── a full bar is 20.0 Mbit/s ──" in lines[2]
    assert lines[3] == "wlan0  Home, wifi     active  10.1.0.50 id 1, 1 subflow"
    assert lines[4].startswith("  in  20.0 Mbit/s  MPTCP 20.0 Mbit/s  █ ██")
    assert lines[6] == "wwan0  LTE, cellular  backup  10.2.0.50 id 2, 1 subflow"
    assert lines[7] == "  backup, since metered"
    assert "  wlan0  10.1.0.50:40001  active  in 20.0 Mbit/s  out    0 bit/s   rtt 12.3 ms" in lines
    assert re.fullmatch(r"  \d\d:\d\d:04\.900  link lost          wlan0: no carrier", lines[-1])
    assert len(lines) == 30


def test_a_screen_of_160_columns_has_longer_graphs_and_the_same_words() -> None:
    narrow, wide = drawn(80, 30), drawn(160, 30)
    assert len(wide[4]) > 150 > 80 >= len(narrow[4])
    assert [line[:36] for line in wide[3:8]] == [line[:36] for line in narrow[3:8]]


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("width", [20, 40, 79, 80, 81, 120, 160, 400])
@pytest.mark.parametrize("height", [4, 10, 24, 60])
def test_it_fits_the_terminal_whatever_its_size_and_whatever_a_profile_is_called(
    width: int, height: int, unicode: bool
) -> None:
    snapshot = replace(
        SNAPSHOT,
        links={**SNAPSHOT.links, 2: Link(2, NASTY)},
        devices=(DeviceView(NASTY, NASTY, "wifi"), DeviceView("wwan0", "家のネットワーク" * 20, "e\u0301" * 50)),
        paths=(PathView("wwan0", "10.2.0.50", "suspended", NASTY, "x"),),
        version=NASTY,
    )
    lines = drawn(width, height, unicode=unicode, of=made(snapshot, missing="not all can be seen " * 9))
    assert len(lines) <= height
    for line in lines:
        assert cells(line) <= width
        assert line.isprintable()
        assert unicode or line.isascii()


def test_a_narrow_screen_has_in_two_lines_what_others_have_in_one() -> None:
    lines = drawn(40, 40)
    assert lines[0] == "service active   NetworkManager 1.42.4"
    assert lines[3:5] == ["wlan0  Home, wifi     active", "  10.1.0.50 id 1, 1 subflow"]
    at = lines.index("  wlan0  10.1.0.50:40001  active")
    assert lines[at + 1] == "    in 20.0 Mbit/s  out    0 bit/s"
    assert "  Left out: 1 interface without a path" in lines
    assert re.fullmatch(r"  \d\d:\d\d:04\.900  link lost", lines[-2])
    assert lines[-1] == "    wlan0: no carrier"
    assert not any("…" in line for line in lines)


def test_of_many_connections_only_some_are_shown_and_events_keep_their_place() -> None:
    many = tuple(replace(subflow("10.1.0.50", number), token=number) for number in range(100))
    lines = drawn(80, 24, of=made(replace(SNAPSHOT, subflows=many)))
    assert any("more lines" in line for line in lines)
    assert sum("link lost" in line for line in lines) >= 3


@pytest.mark.parametrize("height", [14, 24, 60])
def test_of_many_links_only_some_are_shown_and_events_keep_their_place(height: int) -> None:
    links = {index: Link(index, f"eth{index}") for index in range(2, 502)}
    addresses = {index: (Address(index, f"10.{index // 256}.{index % 256}.1", 24),) for index in links}
    subflows = tuple(
        replace(subflow(addresses[index][0].address, index), token=index, ifindex=index) for index in links
    )
    crowd = replace(SNAPSHOT, links=links, addresses=addresses, subflows=subflows, paths=None, devices=(), endpoints=())
    lines = drawn(80, height, of=made(crowd))
    assert any("more links" in line for line in lines)
    assert sum("link lost" in line for line in lines) >= 3
    assert len(lines) == height


def test_a_small_screen_has_one_line_a_link() -> None:
    lines = drawn(80, 14)
    assert any(line.startswith("wlan0") and "in 20.0 Mbit/s" in line for line in lines)


def test_a_link_without_carrier_says_so_in_words() -> None:
    lost = replace(SNAPSHOT, links={**SNAPSHOT.links, 2: Link(2, "wlan0", carrier=False)})
    assert "wlan0  Home, wifi     no carrier" in drawn(of=made(lost))[3]


def test_what_is_not_visible_is_shown_as_missing() -> None:
    blind = replace(SNAPSHOT, endpoints=None, subflows=None)
    lines = drawn(of=made(blind, missing="Without CAP_NET_ADMIN it cannot be seen."))
    assert lines[1] == "Without CAP_NET_ADMIN it cannot be seen."
    assert not any("SUBFLOWS" in line for line in lines)


class Tty(io.TextIOWrapper):
    """What is written to a terminal of 80 columns and 24 lines."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    @property
    def written(self) -> str:
        """All of it so far."""
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode()


@pytest.fixture(autouse=True)
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "COLORTERM", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


def screen() -> str:
    """What is written for a scene, from entering to leaving the screen."""
    tty = Tty()
    with Terminal(tty) as terminal:
        terminal.show(draw(made(), terminal.canvas()))
    return tty.written


ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_no_colour_means_no_colour_and_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = screen()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = screen()
    assert re.search(r"\x1b\[3\dm", coloured)
    assert not re.search(r"\x1b\[3\dm", plain)
    assert ESCAPE.sub("", coloured) == ESCAPE.sub("", plain)


def test_nothing_is_written_when_nothing_changed() -> None:
    tty = Tty()
    with Terminal(tty) as terminal:
        terminal.show(draw(made(), terminal.canvas()))
        before = tty.written
        terminal.show(draw(made(), terminal.canvas()))
        assert tty.written == before
        terminal.redraw()
        terminal.show(draw(made(), terminal.canvas()))
        assert len(tty.written) > len(before)


def test_the_terminal_is_restored_whatever_happens() -> None:
    tty = Tty()
    with contextlib.suppress(ZeroDivisionError), Terminal(tty) as terminal:
        terminal.show([Text("x")])
        terminal.leave()
        terminal.enter()
        terminal.show([Text("y")])
        raise ZeroDivisionError
    assert tty.written.startswith("\x1b[?1049h")
    for on, off in (("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?25l", "\x1b[?25h"), ("\x1b[?7l", "\x1b[?7h")):
        assert tty.written.count(on) == tty.written.count(off) == 2
    assert tty.written.endswith("\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l")


def test_a_drawing_that_fails_leaves_nothing_to_be_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = Tty()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with contextlib.suppress(ZeroDivisionError), Terminal(tty) as terminal:
        monkeypatch.setattr(Text, "__rich_console__", broken)
        terminal.show([Text("x")])
        pytest.fail("it was drawn")
    assert tty.written.endswith("\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l")


@pytest.mark.parametrize("width", [1, 5, 19])
def test_on_a_terminal_narrower_than_any_lines_are_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((width, 24)))
    monkeypatch.setattr(Tty, "fileno", lambda _: 1)
    frame = screen().rpartition("\x1b[H")[2]
    lines = ESCAPE.sub("", frame).split("\n")
    assert len(lines) == 24
    assert all(cells(line) <= width for line in lines)


def test_a_size_in_the_environment_is_not_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "5")
    frame = screen().rpartition("\x1b[H")[2]
    assert [len(line) for line in ESCAPE.sub("", frame).split("\n")] == [80] * 24


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0, "   0 bit/s "),
        (999, " 999 bit/s "),
        (1500, " 1.5 kbit/s"),
        (99_960, " 100 kbit/s"),
        (999_600, " 1.0 Mbit/s"),
        (19.96e6, "20.0 Mbit/s"),
        (2.5e9, " 2.5 Gbit/s"),
        (123e9, " 123 Gbit/s"),
    ],
)
def test_speeds_take_eleven_characters(rate: float, text: str) -> None:
    assert speed(rate) == text
    assert len(text) == 11


def test_a_bar_is_there_for_all_that_is_not_nothing() -> None:
    assert spark([0, 1, 50, 100], 100, 6, Canvas()) == "   ▁▄█"
    assert spark([0, 1, 50, 100], 100, 2, Canvas(unicode=False)) == "=@"
    assert spark([0, 0], 0, 4, Canvas()) == "    "


def test_a_picture_has_each_word_at_its_place_and_needs_nothing_from_elsewhere() -> None:
    made = picture("\x1b[1mLINKS \x1b[0m──\n  a<b \x1b[31mno carrier\x1b[0m ▁█", title="a & b", columns=20)
    root = ElementTree.fromstring(made)
    texts = {each.text: each for each in root.iter("{http://www.w3.org/2000/svg}text")}
    assert list(texts) == ["a & b", "LINKS", "a<b", "no", "carrier"]
    assert texts["a<b"].get("x") == "36"
    assert texts["no"].get("fill") == "#f87171"
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", made)


def test_times_are_those_of_the_place() -> None:
    event = Event(EventType.LINK_BACK, "wlan0", time=0.25)
    assert event.lines(zone=datetime.UTC) == ["00:00:00.250  link back          wlan0"]
    assert event.lines(40, zone=datetime.UTC) == ["00:00:00.250  link back", "    wlan0"]
    assert Event(EventType.SERVICE_UP).lines(zone=datetime.UTC) == ["00:00:00.000  service up"]
