# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp watch``, its pure parts: what two looks differ in, rates, and what is drawn."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from nm_mptcp.kernel.link_stats import LinkCounters
from nm_mptcp.kernel.path_manager_events import EventName, PathManagerEvent
from nm_mptcp.kernel.sock_diag import Subflow, SubflowFlag, TCPState
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import Address, Endpoint, Family, Link
from nm_mptcp.report.styles import render, text_of
from nm_mptcp.text import cells
from nm_mptcp.watch.events import Happening, Name, of_event
from nm_mptcp.watch.render import Canvas, draw, spark, speed
from nm_mptcp.watch.scene import Scene, scene, uplinks
from nm_mptcp.watch.snapshot import DeviceView, Look, PathView, differences
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


LOOK = Look(
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


def names(before: Look, after: Look) -> list[str]:
    return [happening.name.value for happening in differences(before, after)]


def words(before: Look, after: Look) -> list[str]:
    return [f"{happening.name.label}: {happening.words}" for happening in differences(before, after)]


# --- what happened


def test_nothing_happens_between_two_looks_at_the_same() -> None:
    assert names(LOOK, LOOK) == []


def test_what_was_not_known_before_is_nothing_that_happened() -> None:
    assert names(Look(), LOOK) == []


def test_what_cannot_be_seen_any_more_is_nothing_that_happened() -> None:
    blind = replace(LOOK, endpoints=None, subflows=None, paths=None, service=None, networkmanager=None)
    assert names(LOOK, blind) == []


@pytest.mark.parametrize(
    ("link", "happens"),
    [
        (Link(2, "wlan0", carrier=False), "link lost: wlan0: no carrier"),
        (Link(2, "wlan0", up=False, carrier=False), "link lost: wlan0: down"),
    ],
)
def test_a_link_that_is_lost_and_comes_back_is_told(link: Link, happens: str) -> None:
    lost = replace(LOOK, links={**LOOK.links, 2: link})
    assert words(LOOK, lost) == [happens]
    assert words(lost, LOOK) == ["link back: wlan0"]


def test_a_link_is_lost_once_also_when_it_is_taken_down_afterwards() -> None:
    lost = replace(LOOK, links={**LOOK.links, 2: Link(2, "wlan0", carrier=False)})
    down = replace(LOOK, links={**LOOK.links, 2: Link(2, "wlan0", up=False, carrier=False)})
    assert words(lost, down) == []


def test_links_and_addresses_that_come_and_go_are_told_without_link_local_ones() -> None:
    gone = replace(
        LOOK,
        links={index: link for index, link in LOOK.links.items() if index != 2},
        addresses={index: group for index, group in LOOK.addresses.items() if index != 2},
    )
    assert words(LOOK, gone) == ["link removed: wlan0", "address removed: wlan0 10.1.0.50"]
    assert words(gone, LOOK) == ["link added: wlan0: up", "address added: wlan0 10.1.0.50"]


def test_endpoints_in_out_and_changed_are_told_with_id_and_flags() -> None:
    out = replace(LOOK, endpoints=LOOK.endpoints[1:])  # type: ignore[index]
    assert words(LOOK, out) == ["endpoint out: wlan0 10.1.0.50 id 1"]
    assert words(out, LOOK) == ["endpoint in: wlan0 10.1.0.50 id 1 subflow"]
    changed = replace(LOOK, endpoints=(Endpoint("10.1.0.50", 2, BACKUP, 1), Endpoint("10.2.0.50", 3, BACKUP, 2)))
    assert words(LOOK, changed) == ["endpoint changed: wlan0 10.1.0.50 id 1 subflow,backup"]


def test_who_may_not_ask_the_kernel_learns_of_endpoints_from_the_service() -> None:
    before = replace(LOOK, endpoints=None, subflows=None)
    assert before.paths
    after = replace(before, paths=(replace(before.paths[0], endpoint_id=None), *before.paths[1:]))
    assert words(before, after) == ["endpoint out: wlan0 10.1.0.50 id 1"]


def test_a_path_that_is_decided_anew_is_told_with_its_reason() -> None:
    assert LOOK.paths
    suspended = replace(LOOK.paths[0], state="suspended", reason="no carrier", rule="no-carrier")
    after = replace(LOOK, paths=(suspended, *LOOK.paths[1:]))
    assert words(LOOK, after) == ["path: wlan0 10.1.0.50 suspended: no carrier"]


def test_a_priority_that_we_change_is_told() -> None:
    assert LOOK.subflows
    backup = replace(LOOK.subflows[1], flags=LOOK.subflows[1].flags | SubflowFlag.BACKUP_LOCAL)
    after = replace(LOOK, subflows=(LOOK.subflows[0], backup))
    assert words(LOOK, after) == ["MP_PRIO: backup, we ask: wwan0 10.2.0.50:40002 to 192.0.2.1:443"]
    assert words(after, LOOK) == ["MP_PRIO: carries, we ask: wwan0 10.2.0.50:40002 to 192.0.2.1:443"]
    (happening,) = differences(LOOK, after)
    assert (happening.facts["by"], happening.facts["backup"]) == ("us", True)


def test_service_and_networkmanager_coming_and_going_are_told() -> None:
    alone = replace(LOOK, service=False, networkmanager=False)
    assert names(LOOK, alone) == ["service-gone", "networkmanager-gone"]
    assert names(alone, LOOK) == ["service-up", "networkmanager-up"]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (EventName.CREATED, "connection-opened: wlan0 10.1.0.50:40001 to 192.0.2.1:443"),
        (EventName.SUBFLOW_ESTABLISHED, "subflow-up: wlan0 10.1.0.50:40001 to 192.0.2.1:443 (backup, the peer asks)"),
        (EventName.SUBFLOW_PRIORITY, "mp-prio: backup, the peer asks: wlan0 10.1.0.50:40001 to 192.0.2.1:443"),
        (EventName.SUBFLOW_CLOSED, "subflow-closed: wlan0 10.1.0.50:40001 to 192.0.2.1:443: Connection timed out"),
        (EventName.CLOSED, "connection-closed: with 192.0.2.1:443"),
        (EventName.REMOVED, "peer-address-removed: the one with id 7 (with 192.0.2.1:443)"),
        (EventName.ANNOUNCED, "peer-address-announced: 192.0.2.1 (with 192.0.2.1:443)"),
    ],
)
def test_events_of_the_path_manager_are_told_in_words(event: EventName, line: str) -> None:
    told = PathManagerEvent(
        event,
        token=0xABC,
        remote_id=7,
        local="10.1.0.50",
        local_port=40001,
        remote="192.0.2.1",
        remote_port=443,
        backup=True,
        error=110 if event is EventName.SUBFLOW_CLOSED else 0,
    )
    happening = of_event(told, LOOK.interface_of(told.local), LOOK.peer_of(told.token))
    assert happening
    assert f"{happening.name.value}: {happening.words}" == line
    json.dumps(happening.document())


def test_events_that_say_nothing_about_paths_are_left_out() -> None:
    assert of_event(PathManagerEvent(EventName.LISTENER_CREATED), "") is None


def test_a_line_of_json_has_time_and_name_and_is_utf8_whatever_an_interface_is_called() -> None:
    facts = {"interface": "w\udcff\x1b", "more": ["\udcff"], "links": {"w\udcff\x1b": {"in": 1}}}
    happening = Happening(Name.LINK_LOST, "", facts, time=1.5)
    text = json.dumps(happening.document())
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
    assert sorted(documented) == sorted(name.value for name in Name)


# --- rates


def test_rates_are_bits_per_second_of_the_link_and_of_it_what_mptcp_carries() -> None:
    traffic = Traffic()
    traffic.add(replace(LOOK, counters={2: LinkCounters(1000, 0)}), 10.0)
    later = replace(
        LOOK,
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
        traffic.add(replace(LOOK, counters={2: LinkCounters(counted, counted)}), float(time))
    assert traffic.history("wlan0")[0].into == 0


def test_where_subflows_may_not_be_seen_nothing_is_said_of_mptcp() -> None:
    traffic = Traffic()
    for time in (0.0, 1.0):
        traffic.add(replace(LOOK, subflows=None, counters={2: LinkCounters()}), time)
    assert traffic.history("wlan0")[0].mptcp_in is None


def test_a_link_that_is_gone_is_forgotten() -> None:
    traffic = Traffic()
    for time in (0.0, 1.0):
        traffic.add(replace(LOOK, counters={2: LinkCounters()}), time)
    traffic.add(replace(LOOK, counters={}), 2.0)
    assert traffic.history("wlan0") == ()


# --- what is shown


def measured() -> Traffic:
    traffic = Traffic()
    into = 0
    for second in range(200):
        into += 2_500_000 if second % 20 else 0
        counters = {2: LinkCounters(into, second * 10_000), 3: LinkCounters(0, second * 3)}
        subflows = (subflow("10.1.0.50", 1, received=into, rtt=0.0123), subflow("10.2.0.50", 2))
        traffic.add(replace(LOOK, counters=counters, subflows=subflows), float(second))
    return traffic


def made(look: Look = LOOK, **more: object) -> Scene:
    happenings = [Happening(Name.LINK_LOST, "wlan0: no carrier", time=number / 10) for number in range(50)]
    return scene(look, measured(), happenings, time=0.0, **more)  # type: ignore[arg-type]


def drawn(width: int = 80, height: int = 24, *, unicode: bool = True, of: Scene | None = None) -> list[str]:
    return [text_of(line) for line in draw(of or made(), Canvas(width, height, unicode))]


def test_the_uplinks_are_shown_and_a_bridge_of_containers_is_left_out() -> None:
    assert uplinks(LOOK) == {"wlan0", "wwan0"}
    assert "  Left out: 1 interface without a path (--all shows all)." in drawn(height=40)


def test_without_service_and_networkmanager_every_link_with_an_address_is_shown() -> None:
    bare = Look(links=LOOK.links, addresses=LOOK.addresses)
    assert uplinks(bare) == {"wlan0", "wwan0", "docker0"}


def test_a_screen_of_80_columns() -> None:
    lines = drawn(80, 30)
    assert lines[0].startswith("nm-mptcp watch   service active   NetworkManager 1.42.4")
    assert "LINKS ── a full bar is 20.0 Mbit/s ──" in lines[2]
    assert lines[3] == "wlan0  Home, wifi     active  10.1.0.50 id 1, 1 subflow"
    assert lines[4].startswith("  in  20.0 Mbit/s  MPTCP 20.0 Mbit/s  █ ██")
    assert lines[6] == "wwan0  LTE, cellular  backup  10.2.0.50 id 2, 1 subflow"
    assert lines[7] == "  backup, since metered"
    assert "  wlan0  10.1.0.50:40001  carries  in 20.0 Mbit/s  out    0 bit/s   rtt 12.3 ms" in lines
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
    look = replace(
        LOOK,
        links={**LOOK.links, 2: Link(2, NASTY)},
        devices=(DeviceView(NASTY, NASTY, "wifi"), DeviceView("wwan0", "家のネットワーク" * 20, "e\u0301" * 50)),
        paths=(PathView("wwan0", "10.2.0.50", "suspended", NASTY, "x"),),
        version=NASTY,
    )
    lines = drawn(width, height, unicode=unicode, of=made(look, missing="not all can be seen " * 9))
    assert len(lines) <= height
    for line in lines:
        assert cells(line) <= width
        assert line.isprintable()
        assert unicode or line.isascii()


def test_a_narrow_screen_has_in_two_lines_what_others_have_in_one() -> None:
    lines = drawn(40, 40)
    assert lines[0] == "service active   NetworkManager 1.42.4"
    assert lines[3:5] == ["wlan0  Home, wifi     active", "  10.1.0.50 id 1, 1 subflow"]
    at = lines.index("  wlan0  10.1.0.50:40001  carries")
    assert lines[at + 1] == "    in 20.0 Mbit/s  out    0 bit/s"
    assert "  Left out: 1 interface without a path" in lines
    assert re.fullmatch(r"  \d\d:\d\d:04\.900  link lost", lines[-2])
    assert lines[-1] == "    wlan0: no carrier"
    assert not any("…" in line for line in lines)


def test_of_many_connections_only_some_are_shown_and_events_keep_their_place() -> None:
    many = tuple(replace(subflow("10.1.0.50", number), token=number) for number in range(100))
    lines = drawn(80, 24, of=made(replace(LOOK, subflows=many)))
    assert any("more lines" in line for line in lines)
    assert sum("link lost" in line for line in lines) >= 3


@pytest.mark.parametrize("height", [14, 24, 60])
def test_of_many_links_only_some_are_shown_and_events_keep_their_place(height: int) -> None:
    links = {index: Link(index, f"eth{index}") for index in range(2, 502)}
    addresses = {index: (Address(index, f"10.{index // 256}.{index % 256}.1", 24),) for index in links}
    subflows = tuple(
        replace(subflow(addresses[index][0].address, index), token=index, ifindex=index) for index in links
    )
    crowd = replace(LOOK, links=links, addresses=addresses, subflows=subflows, paths=None, devices=(), endpoints=())
    lines = drawn(80, height, of=made(crowd))
    assert any("more links" in line for line in lines)
    assert sum("link lost" in line for line in lines) >= 3
    assert len(lines) == height


def test_a_small_screen_has_one_line_a_link() -> None:
    lines = drawn(80, 14)
    assert any(line.startswith("wlan0") and "in 20.0 Mbit/s" in line for line in lines)


def test_a_link_without_carrier_says_so_in_words() -> None:
    lost = replace(LOOK, links={**LOOK.links, 2: Link(2, "wlan0", carrier=False)})
    assert "wlan0  Home, wifi     no carrier" in drawn(of=made(lost))[3]


def test_what_cannot_be_seen_is_told() -> None:
    blind = replace(LOOK, endpoints=None, subflows=None)
    lines = drawn(of=made(blind, missing="Without CAP_NET_ADMIN it cannot be seen."))
    assert lines[1] == "Without CAP_NET_ADMIN it cannot be seen."
    assert not any("SUBFLOWS" in line for line in lines)


def test_no_colour_means_no_colour_and_the_same_words() -> None:
    lines = draw(made(), Canvas(80, 30))
    coloured, plain = ("\n".join(render(line, colour=colour) for line in lines) for colour in (True, False))
    assert re.search(r"\x1b\[3\dm", coloured)
    assert not re.search(r"\x1b\[3\dm", plain)
    strip = re.compile(r"\x1b\[[0-9;]*m")
    assert strip.sub("", coloured) == strip.sub("", plain)


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
def test_speeds_are_told_in_eleven_characters(rate: float, text: str) -> None:
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
    happening = Happening(Name.LINK_BACK, "wlan0", time=0.25)
    assert happening.lines(zone=datetime.UTC) == ["00:00:00.250  link back          wlan0"]
    assert happening.lines(40, zone=datetime.UTC) == ["00:00:00.250  link back", "    wlan0"]
    assert Happening(Name.SERVICE_UP).lines(zone=datetime.UTC) == ["00:00:00.000  service up"]
