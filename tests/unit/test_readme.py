# SPDX-License-Identifier: GPL-2.0-or-later
"""The screens that README.md and the manual pages show are what the commands print, and what they have typed is understood."""

from __future__ import annotations

import datetime
import re
from dataclasses import replace

import pytest

from nm_mptcp.cli import COMMANDS, parser_of
from nm_mptcp.config.settings import DEFAULTS
from nm_mptcp.model.record import Contents, since
from nm_mptcp.model.state import Limits, Mode, RouteResult
from nm_mptcp.policy.decide import decide
from nm_mptcp.report.explain import Known, explain_destination, followers
from nm_mptcp.report.explain_text import text
from nm_mptcp.report.status import LiveConnections, document
from nm_mptcp.report.status_text import plain, screen

from ..support import shown
from .situations import BACKUP, MODEM, SUBFLOW, WIFI, Situation

NOW = datetime.datetime(2026, 11, 23, 10, 31, tzinfo=datetime.UTC)
UP = NOW.replace(minute=30, second=6)


def phone(*, lost: bool = False) -> Situation:
    """Home Wi-Fi and a modem, a download on both."""
    made = Situation(limits=Limits(4, 2))
    made.version = "1.52.1"
    uuid = "6ba3a2e9-8a4b-4e0c-9d0c-0c1d3a4f5b60"
    made.link("wlan0", "10.1.0.50/24", type=WIFI, metric=600, profile={"id": "Home", "uuid": uuid})
    made.link("wwan0", "10.2.0.50/24", type=MODEM, metric=700, profile={"id": "Phone"})
    made.endpoint("10.1.0.50", 2, SUBFLOW, ours=True)
    made.endpoint("10.2.0.50", 3, BACKUP, ours=True)
    if lost:
        del made.endpoints[0]
        made.links[2] = replace(made.links[2], carrier=False)
    return made


def status(situation: Situation, connections: LiveConnections) -> str:
    snapshot = situation.snapshot()
    desired = decide(snapshot)
    began = since({}, desired.paths, UP.timestamp())
    shown = document(
        snapshot,
        desired,
        Contents(since=began),
        mode=Mode.AUTO,
        service=True,
        connections=connections,
        now=NOW.timestamp(),
    )
    return "\n".join(plain(screen(shown, now=NOW)))


def explanation() -> str:
    snapshot = phone().snapshot()
    facts = Known(snapshot, decide(snapshot), DEFAULTS)
    first = RouteResult(2, "10.1.0.1", 42000, source="10.1.0.50")
    ways = {
        path: RouteResult(3, "10.2.0.1", 42001, source="10.2.0.50") for path in followers("192.0.2.1", first, facts)
    }
    return text(explain_destination("192.0.2.1", "192.0.2.1", first, ways, facts))


SCREENS = {
    "nm-mptcp status": lambda: status(phone(), (("10.1.0.50", "10.2.0.50"),)),
    "nm-mptcp status, the Wi-Fi lost": lambda: status(phone(lost=True), (("10.2.0.50",),)),
    "nm-mptcp explain 192.0.2.1": explanation,
}

#: Where each is shown.
SHOWN_IN = {
    "nm-mptcp status": "README.md",
    "nm-mptcp status, the Wi-Fi lost": "nm-mptcp(8)",
    "nm-mptcp explain 192.0.2.1": "nm-mptcp(8)",
}


@pytest.mark.parametrize("name", SCREENS)
def test_what_is_shown_is_what_is_printed(name: str) -> None:
    where = SHOWN_IN[name]
    blocks = shown.blocks_of_readme() if where == "README.md" else shown.blocks_of(where)
    printed = SCREENS[name]()
    assert printed in {block.removeprefix(f"$ {name}\n") for block in blocks}, f"{where} should show:\n{printed}"


def typed() -> list[list[str]]:
    """The commands that somebody is to type, without what is optional; a mere name of a command is none."""
    found = [m.group(1) for line in shown.lines() if (m := re.match(r"(?:\$ )?(?:sudo )?nm-mptcp (\S.*)", line))]
    words = [re.split(r"\s+(?:#|>|&&|\|)", re.sub(r"\[[^]]*\]", "", line))[0].split() for line in found]
    return [line for line in words if line[1:] and not line[0][0].isdigit()]


def test_there_are_commands() -> None:
    assert {line[0] for line in typed() if line[0] in COMMANDS} >= {"check", "exec", "explain", "unit"}


@pytest.mark.parametrize("words", typed(), ids=" ".join)
def test_a_command_that_is_shown_is_understood(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        parser_of(COMMANDS)[0].parse_args(words)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


if __name__ == "__main__":
    for name, made in SCREENS.items():
        print(f"=== {name}\n{made()}")
