# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp watch`` beside real links, a real NetworkManager and real connections, on real terminals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ..support.waits import wait_for
from .bed import SERVER, Bed, command
from .namespaces import Program, has_ended
from .observe import Writes
from .terminals import Screen
from .traffic import Connection, EchoServer
from .uplinks import Links

NOBODY = 65534

NASTY = "Wi\x1b[31m-Fi\u202e\u2066 \x07" + "x" * 4000


class Stream:
    """``nm-mptcp watch --json``, and its events so far."""

    def __init__(self, bed: Bed, *options: str) -> None:
        self.program: Program = bed.machine.spawn(*command(), "watch", "--json", *options, log="watch")
        self.wait("start")

    def events(self) -> list[dict[str, Any]]:
        """What it has said so far."""
        return [json.loads(line) for line in self.program.lines()]

    def wait(self, name: str, **fields: object) -> dict[str, Any]:
        """Wait for an event with these fields."""

        def look() -> dict[str, Any] | None:
            found = [
                event
                for event in self.events()
                if event["event"] == name and all(event.get(field) == value for field, value in fields.items())
            ]
            return found[-1] if found else None

        try:
            found = wait_for(f"{name} {fields}", look)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.program.output()}") from None
        assert found
        return found

    def order(self, *names: str) -> list[str]:
        """The names of those events, in the order in which they came."""
        return [event["event"] for event in self.events() if event["event"] in names]


def ticks(pid: int) -> int:
    """What a process has used of the processor, in ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_link_is_lost_and_comes_back_and_a_priority_changes_while_three_watch(bed: Bed, up: Links) -> None:
    stream = Stream(bed, "--rates")
    narrow = Screen(bed.machine, *command(), "watch", columns=80, rows=36)
    wide = Screen(bed.machine, *command(), "watch", columns=160, rows=36, env={"NO_COLOR": "1"})
    nobody = Screen(bed.machine, *command(), "watch", columns=80, rows=36, user=NOBODY)
    screens = (narrow, wide, nobody)
    for screen in screens:
        screen.wait_for("service active", "wlan0  Wi-Fi", "wwan0  LTE", "EVENTS")
    for screen in (narrow, wide):
        screen.wait_for("SUBFLOWS ── none")
    assert "\x1b[32m" in narrow.frame
    assert not re.search(r"\x1b\[3\dm", wide.frame)
    assert "Without CAP_NET_ADMIN" in nobody.text

    # A connection, its second subflow, and what both carry.
    connection = Connection(bed.machine, SERVER)
    connection.wait_subflow(up.lte.address)
    stream.wait("connection-opened", interface="wlan0", address=up.wifi.address, peer=SERVER)
    stream.wait("subflow-up", interface="wwan0", address=up.lte.address, endpoint_id=bed.endpoint(up.lte.address).id)
    connection.echo(bytes(1 << 20))

    def carried() -> bool:
        rates = [event["links"] for event in stream.events() if event["event"] == "rates"]
        return any(
            each.get(name) and 0 < each[name]["mptcp_in"] <= each[name]["in"]
            for each in rates
            for name in ("wlan0", "wwan0")
        )

    wait_for("a rate, and of it MPTCP's", carried)
    for screen in (narrow, wide):
        screen.wait_for("connection opened", "subflow up", "SUBFLOWS ── 2 in 1 connection", "active", "a full bar is")

    # A link is lost.
    stream_before = bed.endpoint(up.wifi.address)
    assert stream_before
    up.wifi.carrier(False)
    stream.wait("link-lost", interface="wlan0", state="no carrier")
    stream.wait("endpoint-out", interface="wlan0", address=up.wifi.address, endpoint_id=stream_before.id)
    stream.wait("path", address=up.wifi.address, state="suspended", rule="no-carrier")
    stream.wait("subflow-closed", interface="wlan0", address=up.wifi.address)
    assert stream.order("link-lost", "endpoint-out") == ["link-lost", "endpoint-out"]
    for screen in screens:
        screen.wait_for("link lost          wlan0: no carrier", f"endpoint out       wlan0 {up.wifi.address}")
        screen.wait_for("no carrier", f"path               wlan0 {up.wifi.address} suspended: no carrier")

    # It is back.
    up.wifi.carrier(True)
    stream.wait("link-back", interface="wlan0")
    stream.wait("endpoint-in", address=up.wifi.address, flags=["subflow", "laminar"])
    stream.wait("subflow-up", interface="wlan0", address=up.wifi.address)
    for screen in (narrow, wide):
        screen.wait_for("link back          wlan0", "endpoint in", "subflow up         wlan0")

    # The other is to be backup: MP_PRIO.
    bed.modify("LTE", "connection.metered yes")
    bed.reapply("wwan0")
    bed.sync()
    event = stream.wait("mp-prio", interface="wwan0", by="us", backup=True)
    assert (event["address"], event["peer"]) == (up.lte.address, SERVER)
    stream.wait("endpoint-changed", interface="wwan0")
    for screen in (narrow, wide):
        screen.wait_for("MP_PRIO            backup, requested by us: wwan0", "backup")
    for screen in screens:
        screen.wait_for("backup: ", "endpoint changed")

    # And the peer asks for the same.
    bed.far.run("ip", "mptcp", "endpoint", "add", SERVER, "id", "9", "subflow")
    bed.far.run("ip", "mptcp", "endpoint", "change", "id", "9", "backup")
    stream.wait("mp-prio", by="peer", backup=True, peer=SERVER)
    for screen in (narrow, wide):
        screen.wait_for("MP_PRIO            backup, requested by the peer: ")

    # The service stops: what the kernel reports is still shown, and NetworkManager's profiles are known.
    assert bed.service
    bed.service.stop()
    stream.wait("service-gone")
    for screen in screens:
        screen.wait_for("service not running", "service gone", "wlan0  Wi-Fi")

    # Another size, and the end.
    wide.resize(100, 20)
    wait_for("it is drawn again", lambda: max(map(len, wide.text.splitlines()), default=0) == 100)
    assert len(wide.text.splitlines()) <= 20
    for screen in screens:
        assert screen.modes != screen.before
    narrow.press("q")
    os.kill(wide.pid, signal.SIGINT)
    os.kill(nobody.pid, signal.SIGTERM)
    for screen in screens:
        assert screen.wait() == 0
        assert_left_as_it_was(screen)
    for line in stream.events():
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    assert stream.program.stop(signal.SIGTERM) == 0


def assert_left_as_it_was(screen: Screen) -> None:
    assert screen.written.endswith("\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l")
    assert screen.modes == screen.before


def test_watching_writes_nothing_and_costs_little(bed: Bed, up: Links, figures: dict[str, str]) -> None:
    screen = Screen(bed.machine, *command(), "watch")
    screen.wait_for("EVENTS")
    connection = Connection(bed.machine, SERVER)
    screen.wait_for("subflow up")
    pid = screen.pid
    before, began = ticks(pid), time.monotonic()
    frames = len(screen.frames)
    wait_for("ten pictures", lambda: len(screen.frames) >= frames + 10, seconds=30)
    used, seconds = (ticks(pid) - before) / os.sysconf("SC_CLK_TCK"), time.monotonic() - began
    figures["nm-mptcp watch, idle"] = f"{100 * used / seconds:.1f} % of a core"

    class Running:
        inner_pid = bed.inner(pid)

    Running.pid = pid  # type: ignore[attr-defined]
    with Writes(bed, Running) as writes:  # type: ignore[arg-type]
        up.wifi.carrier(False)
        screen.wait_for("endpoint out")
        up.wifi.carrier(True)
        screen.wait_for("endpoint in")
    assert writes.all == []
    connection.close()


@pytest.mark.parametrize("form", ["--json", "--lines"])
def test_it_ends_quietly_when_nobody_reads_any_more(bed: Bed, form: str) -> None:
    reading = subprocess.Popen(
        [*bed.machine.entering, "env", "-i", "PATH=/usr/bin:/bin", *command(), "watch", form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert reading.stdout
    assert reading.stderr
    assert b"start" in reading.stdout.readline()
    reading.stdout.close()
    assert reading.wait(10) in (0, 128 + signal.SIGPIPE)
    assert reading.stderr.read() == b""


def test_without_the_service_a_dumb_terminal_gets_lines(bed: Bed, links: Links) -> None:
    EchoServer(bed.far)
    bed.up("Wi-Fi")
    screen = Screen(bed.machine, *command(), "watch", env={"TERM": "dumb"})
    wait_for("the first line", lambda: "service not running, NetworkManager 1." in screen.written)
    links.wifi.carrier(False)
    wait_for("the line of the loss", lambda: "link lost          wlan0: no carrier" in screen.written)
    assert "\x1b" not in screen.written
    os.kill(screen.pid, signal.SIGINT)
    assert screen.wait() == 0


def test_without_rich_a_terminal_gets_lines_and_a_note(bed: Bed, links: Links) -> None:
    EchoServer(bed.far)
    bed.up("Wi-Fi")
    program = "import sys; sys.modules['rich'] = None; import nm_mptcp.cli; sys.exit(nm_mptcp.cli.main(['watch']))"
    screen = Screen(bed.machine, sys.executable, "-c", program)
    wait_for("the first line", lambda: "service not running, NetworkManager 1." in screen.written)
    links.wifi.carrier(False)
    wait_for("the line of the loss", lambda: "link lost          wlan0: no carrier" in screen.written)
    assert screen.written.count("nm-mptcp: note: no rich, so lines of events only: install python3-rich\r\n") == 1
    assert "\x1b" not in screen.written
    os.kill(screen.pid, signal.SIGINT)
    assert screen.wait() == 0


@pytest.mark.usefixtures("up")
def test_a_hostile_name_of_a_profile_breaks_neither_screen_nor_json(bed: Bed) -> None:
    bed.modify("Wi-Fi", f"connection.id {NASTY}")
    bed.up(NASTY)
    screen = Screen(bed.machine, *command(), "watch")
    text = screen.wait_for("wlan0  Wi?[31m-Fi", "EVENTS")
    assert all(line.isprintable() and len(line) <= 80 for line in text.splitlines())
    Stream(bed)


def without_stopping(screen: Screen) -> str:
    """The state of the program, as ``ps`` has it."""
    return Path(f"/proc/{screen.pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.usefixtures("up")
def test_stopped_by_the_keyboard_it_gives_the_screen_back_and_takes_it_again(bed: Bed) -> None:
    screen = Screen(bed.machine, *command(), "watch")
    screen.wait_for("EVENTS")
    os.kill(screen.pid, signal.SIGTSTP)
    wait_for("it is stopped", lambda: without_stopping(screen) == "T")
    wait_for("the screen is given back", lambda: screen.written.endswith("\x1b[?1049l"))
    assert screen.modes == screen.before
    frames = len(screen.frames)
    screen.go_on()
    wait_for("it draws again", lambda: len(screen.frames) > frames)
    screen.press("q")
    assert screen.wait() == 0
    assert_left_as_it_was(screen)


@pytest.mark.usefixtures("up")
def test_it_ends_with_its_terminal(bed: Bed) -> None:
    screen = Screen(bed.machine, *command(), "watch")
    screen.wait_for("EVENTS")
    pid = screen.pid
    screen.hang_up()
    wait_for("the program has ended", lambda: has_ended(pid))


@pytest.mark.usefixtures("up")
def test_an_error_leaves_the_terminal_as_it_was_and_is_printed_after_that(bed: Bed) -> None:
    program = (
        "import sys, nm_mptcp.cli, nm_mptcp.watch.render as render\n"
        "def broken(*_): raise RuntimeError('broken on purpose')\n"
        "render.draw = broken\n"
        "sys.exit(nm_mptcp.cli.main(['watch']))"
    )
    screen = Screen(bed.machine, sys.executable, "-c", program)
    assert screen.wait(20) == 1
    wait_for("what went wrong", lambda: "RuntimeError: broken on purpose" in screen.written)
    _, _, after = screen.written.rpartition("\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l")
    assert "RuntimeError: broken on purpose" in after
    assert screen.modes == screen.before
