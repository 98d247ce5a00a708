# SPDX-License-Identifier: GPL-2.0-or-later
"""The status document, what it says of how things stand, and the screen; harmless whatever others wrote."""

from __future__ import annotations

import datetime
import io
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from nm_mptcp.model.flags import ProfileFlag
from nm_mptcp.model.reasons import Why
from nm_mptcp.model.record import Contents, Since, since
from nm_mptcp.model.state import AddressFlag, Connectivity, DeviceState, Link, Mode
from nm_mptcp.policy.decide import decide
from nm_mptcp.report.health import Verdict
from nm_mptcp.report.status import LiveConnections, document
from nm_mptcp.report.status_text import plain, screen, show
from nm_mptcp.text import cells

from .situations import BACKUP, MODEM, SUBFLOW, Situation

A, B, C = "10.0.1.2", "10.0.2.2", "10.0.3.2"
NOW = 1_800_000_000.0

HOSTILE = {
    "control characters": "Wi\x1b[2JFi\x07\r\nroot: active\x9b1m",
    "direction marks": "\u202egro.live\u2066 \u200f",
    "4 KB of text": "x" * 4096,
    "broken UTF-8": b"Caf\xe9 \xff\xfe".decode("utf-8", "surrogateescape"),
    "markup": "[bold red]evil[/] {curly} %s",
}


def laptop(**kernel: Any) -> Situation:
    """Two links that are paths, with their endpoints, and lo."""
    made = Situation(**kernel)
    made.link("wlan0", f"{A}/24", metric=600)
    made.link("wwan0", f"{B}/24", type=MODEM, metric=700)
    made.endpoint(A, 2, SUBFLOW, ours=True)
    made.endpoint(B, 3, BACKUP, ours=True)
    made.links[1] = Link(1, "lo", loopback=True)
    return made


def look(
    situation: Situation,
    *,
    connections: LiveConnections | None = None,
    paused: bool = False,
    waited: float = 0.0,
    service: bool = True,
) -> dict[str, Any]:
    """The document; every path is as it is since ``waited`` seconds."""
    snapshot = situation.snapshot()
    desired = decide(snapshot)
    contents = Contents(since=since({}, desired.paths, NOW - waited))
    return document(
        snapshot, desired, contents, mode=Mode.AUTO, service=service, connections=connections, paused=paused, now=NOW
    )


def shown(status: dict[str, Any], **options: Any) -> str:
    now = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    return "\n".join(plain(screen(status, now=now, **options)))


# --- how things stand


def test_an_ordinary_laptop_is_good() -> None:
    status = look(laptop())
    assert (status["state"], status["problems"]) == ("good", [])


def test_one_link_and_nothing_else_is_good() -> None:
    situation = Situation()
    situation.link("wlan0", f"{A}/24", "fe80::1/64")
    situation.endpoint(A, 2, SUBFLOW, ours=True)
    assert look(situation)["state"] == "good"


def test_no_link_at_all_is_good_nothing_is_broken() -> None:
    assert look(Situation())["state"] == "good"


def _no_carrier() -> Situation:
    made = laptop()
    made.links[2] = replace(made.links[2], carrier=False)
    return made


def _lone_without_carrier() -> Situation:
    made = Situation()
    made.link("wlan0", f"{A}/24")
    made.endpoint(A, 2, SUBFLOW, ours=True)
    made.links[2] = replace(made.links[2], carrier=False)
    return made


def _portal() -> Situation:
    made = laptop()
    made.device("wlan0", ipv4_connectivity=Connectivity.PORTAL)
    made.device("wwan0", ipv4_connectivity=Connectivity.FULL)
    return made


def _refused() -> Situation:
    made = Situation()
    made.link("wlan0", f"{A}/24")
    made.link("eth0", f"{B}/24")
    made.endpoint(B, 3, SUBFLOW, ours=True)
    made.refused = {(A, 2): "too many addresses"}
    return made


def _left_out() -> Situation:
    made = Situation(endpoints_max=1)
    made.link("wlan0", f"{A}/24")
    made.link("eth0", f"{B}/24", metric=200)
    made.endpoint(A, 2, SUBFLOW, ours=True)
    return made


def _lan_without_gateway() -> Situation:
    made = laptop()
    made.link("eth0", f"{C}/24", gateway=False)
    return made


def _without_endpoint(*missing: str) -> Situation:
    made = laptop()
    made.endpoints = [each for each in made.endpoints if each.address not in missing]
    return made


def _disconnected() -> Situation:
    made = laptop()
    made.device("wwan0", state=DeviceState.DISCONNECTED, profile=None)
    made.endpoints.pop()
    return made


def _activating() -> Situation:
    made = laptop()
    made.link("eth0", f"{C}/24", state=DeviceState.CONFIG)
    return made


def _failed_address() -> Situation:
    made = laptop()
    made.address(2, "2001:db8::2/64", flags=AddressFlag.DADFAILED)
    return made


@pytest.mark.parametrize(
    ("situation", "state"),
    [
        pytest.param(_no_carrier(), "held-back", id="no carrier on one of two"),
        pytest.param(_lone_without_carrier(), "held-back", id="no carrier on the only one, kept"),
        pytest.param(_portal(), "held-back", id="behind a portal"),
        pytest.param(_refused(), "held-back", id="refused by the kernel"),
        pytest.param(_left_out(), "held-back", id="no slot left"),
        pytest.param(_failed_address(), "held-back", id="the address is somebody else's"),
        pytest.param(_lan_without_gateway(), "good", id="a LAN without a gateway"),
        pytest.param(_disconnected(), "good", id="a device that is not connected"),
        pytest.param(_activating(), "good", id="a device that is being set up"),
        pytest.param(_without_endpoint(A), "held-back", id="one path without its endpoint"),
        pytest.param(_without_endpoint(A, B), "not-working", id="no path has its endpoint"),
        pytest.param(laptop(mptcp_enabled=False), "not-working", id="sysctl off, though endpoints are there"),
        pytest.param(Situation(mptcp_enabled=False), "not-working", id="sysctl off"),
        pytest.param(laptop(path_manager="userspace"), "not-working", id="the userspace path manager"),
        pytest.param(Situation(path_manager="", mptcp_enabled=False), "not-working", id="no MPTCP"),
    ],
)
def test_how_it_stands(situation: Situation, state: str) -> None:
    found = look(situation)
    assert found["state"] == state, found["problems"]
    assert bool(found["problems"]) == (state != "good")


def test_what_should_take_a_moment_is_held_back_when_it_does_not_end() -> None:
    assert look(_activating(), waited=9)["state"] == "good"
    late = look(_activating(), waited=11)
    assert late["state"] == "held-back"
    assert late["problems"] == [f"eth0 {C}: NetworkManager is activating the device (config)"]


def test_after_clear_nothing_works() -> None:
    assert look(laptop(), paused=True)["state"] == "not-working"


def test_without_networkmanager_what_is_kept_works_and_that_it_is_away_is_told() -> None:
    situation = laptop()
    situation.running = False
    kept = look(situation)
    assert kept["state"] == "held-back"
    assert kept["problems"] == ["NetworkManager is not running: current paths are kept, and no new ones are added"]
    situation = Situation()
    situation.running = False
    assert look(situation)["state"] == "not-working"


def test_the_exit_status_follows() -> None:
    assert [verdict.status for verdict in Verdict] == [0, 1, 2]


# --- what is in it


def test_connections_are_counted_by_link_and_address() -> None:
    situation = laptop()
    situation.address(2, "2001:db8::2/64")
    live = ((A, B), (A,), (A, A), ("2001:db8::2", A), ("127.0.0.1",), ("::1", "127.0.0.1"))
    status = look(situation, connections=live)
    assert status["connections"] == {"total": 4, "subflows": 7, "additional_most": 1}
    wifi, lte = status["links"]
    assert (wifi["interface"], wifi["connections"], wifi["subflows"], wifi["alone"]) == ("wlan0", 4, 6, 3)
    assert (lte["interface"], lte["connections"], lte["subflows"], lte["alone"]) == ("wwan0", 1, 1, 0)
    assert {path["address"]: path["subflows"] for path in status["paths"]} == {A: 5, "2001:db8::2": 1, B: 1}


def test_connections_that_nobody_may_see_are_not_none() -> None:
    status = look(laptop())
    assert status["connections"] is None
    assert [link["alone"] for link in status["links"]] == [None, None]
    assert "connections: unknown without" in shown(status)


def test_a_link_stands_as_the_best_of_its_addresses() -> None:
    situation = laptop()
    situation.address(2, "fe80::2/64", scope=253, gateway=False)
    wifi = look(situation)["links"][0]
    assert (wifi["state"], wifi["priority"], wifi["addresses"]) == ("active", "regular", [A, "fe80::2"])
    assert look(situation)["links"][1]["priority"] == "backup"


def test_what_was_noted_of_another_state_is_not_since_when() -> None:
    snapshot = laptop().snapshot()
    noted = Contents(since={f"{A}%2": Since("suspended", Why.NO_CARRIER.name, NOW)})
    status = document(snapshot, decide(snapshot), noted, mode=Mode.AUTO, service=True, now=NOW)
    assert [path["since"] for path in status["paths"]] == [None, None]


# --- the screen


def test_the_screen_tells_what_is_suspended_and_since_when() -> None:
    text = shown(look(_no_carrier(), waited=90000))
    assert ": degraded" in text.splitlines()[0]
    assert f"  ! wlan0 {A}: no carrier" in text
    assert "no carrier (since 2027-01-14 07:00:00)" in text
    assert "no carrier (since 07:59:00)" in shown(look(_no_carrier(), waited=60))


def test_the_first_lines_say_by_which_links_it_goes() -> None:
    assert shown(look(laptop())).splitlines()[1] == "wlan0 active, wwan0 backup"
    assert shown(look(_no_carrier())).splitlines()[2] == "wwan0 active (backup, no regular path)"
    assert shown(look(_named("Home"))).splitlines()[1] == "wlan0 (Home) active, no other path"
    assert shown(look(_lone_without_carrier())).splitlines()[2].startswith("service: ")
    nothing = shown(look(Situation())).splitlines()
    assert nothing[0].endswith(": no path")
    assert nothing[1].startswith("service: ")


def test_whose_an_endpoint_is_where_it_is_not_ours() -> None:
    situation = Situation()
    situation.link("wlan0", f"{A}/24", profile={"mptcp_flags": ProfileFlag(0x22)})
    situation.endpoint(A, 2, SUBFLOW, ours=False)
    assert "; endpoint owned by NetworkManager (since " in shown(look(situation))
    assert "endpoint owned" not in shown(look(laptop()))


def test_addresses_that_can_be_no_path_are_left_out_unless_asked_for() -> None:
    situation = laptop()
    situation.link("br-x", "172.17.0.1/16", managed=False, profile=None)
    situation.address(2, "fe80::2/64", scope=253, gateway=False)
    status = look(situation)
    assert "Left out: 2 addresses" in shown(status)
    assert "fe80::2" not in shown(status)
    assert "172.17.0.1" in shown(status, everything=True)
    assert "fe80::2" in shown(status, everything=True)


def _named(name: str, *, interface: str = "wlan0") -> Situation:
    made = Situation()
    made.link(interface, f"{A}/24", profile={"id": name})
    made.endpoint(A, 2, SUBFLOW, ours=True)
    return made


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_no_name_breaks_screen_or_json(name: str) -> None:
    status = look(_named(name, interface=name[:15]))
    text = shown(status)
    assert all(line.isprintable() for line in text.splitlines())
    assert all(len(line) < 200 for line in text.splitlines())
    assert len(text.splitlines()) == len(shown(look(_named("Wi-Fi"))).splitlines())
    again = json.loads(json.dumps(status).encode("ascii"))
    json.dumps(status, ensure_ascii=False).encode("utf-8")
    assert again["paths"][0]["profile"] == name.encode("utf-8", "replace").decode()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [20, 40, 80, 160])
@pytest.mark.parametrize("name", ["Wi-Fi", *HOSTILE.values()], ids=["plain", *HOSTILE])
def test_a_terminal_is_coloured_and_says_the_same(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("nm_mptcp.report.status_text.width_of", lambda _: columns)
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    show(look(_named(name)), terminal)
    said = terminal.getvalue()
    assert "\x1b[32m" in said
    bare = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert all(line.isprintable() for line in bare.splitlines())
    assert ": working" in " ".join(bare.split())
    if len(name) < 64 and columns >= 40:
        assert all(cells(line) <= columns for line in bare.splitlines())
    monkeypatch.setenv("NO_COLOR", "1")
    quiet = Terminal()
    show(look(_named(name)), quiet)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", quiet.getvalue())
    monkeypatch.setenv("TERM", "dumb")
    dumb = Terminal()
    show(look(_named(name)), dumb)
    assert [line.rstrip() for line in bare.splitlines()] == dumb.getvalue().splitlines()


def at(columns: int) -> list[str]:
    return plain(screen(look(laptop()), now=datetime.datetime.now().astimezone()), columns)


def test_a_narrow_terminal_has_fewer_columns_and_those_whole() -> None:
    lines = at(40)
    assert all(cells(line) <= 40 for line in lines)
    (header,) = [line for line in lines if line.startswith("LINK")]
    assert header.split() == ["LINK", "PROFILE", "KIND", "STATE"]
    assert any(re.fullmatch(r"wlan0 .* active", line) for line in lines)


def test_what_an_address_has_no_column_for_is_told_below() -> None:
    lines = at(16)
    place = next(number for number, line in enumerate(lines) if line.startswith("ADDRESS"))
    assert lines[place].split() == ["ADDRESS", "LINK"]
    assert lines[place + 1].split() == [A, "wlan0"]
    assert " ".join(" ".join(lines[place + 2 : place + 7]).split()).startswith("state active, flags subflow, id 1")


def test_columns_stand_below_each_other_whatever_a_profile_is_called() -> None:
    status = look(_named("家庭无线网络"))
    header, row = [line for line in shown(status).splitlines() if "家庭" in line or "PROFILE" in line][-2:]
    assert cells(row[: row.index("active")]) == header.index("STATE")
