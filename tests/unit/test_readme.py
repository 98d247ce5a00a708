# SPDX-License-Identifier: GPL-2.0-or-later
"""The screens that README.md shows are what the commands print."""

from __future__ import annotations

import datetime
import re
from dataclasses import replace
from pathlib import Path

import pytest

from nm_mptcp.cli import COMMANDS, parser_of
from nm_mptcp.config.settings import DEFAULTS
from nm_mptcp.model.record import Contents, since
from nm_mptcp.model.state import Limits, Mode
from nm_mptcp.policy.decide import decide
from nm_mptcp.report.explain import Known, Way, explain_destination, followers
from nm_mptcp.report.explain_text import text
from nm_mptcp.report.status import Standing, document
from nm_mptcp.report.status_text import plain, screen

from .situations import BACKUP, MODEM, SUBFLOW, WIFI, Situation

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

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


def status(situation: Situation, standing: Standing) -> str:
    snapshot = situation.snapshot()
    desired = decide(snapshot)
    began = since({}, desired.paths, UP.timestamp())
    shown = document(
        snapshot, desired, Contents(since=began), mode=Mode.AUTO, service=True, standing=standing, now=NOW.timestamp()
    )
    return "\n".join(plain(screen(shown, now=NOW)))


def explanation() -> str:
    snapshot = phone().snapshot()
    facts = Known(snapshot, decide(snapshot), DEFAULTS)
    first = Way(2, "10.1.0.1", 42000, source="10.1.0.50")
    ways = {path: Way(3, "10.2.0.1", 42001, source="10.2.0.50") for path in followers("192.0.2.1", first, facts)}
    return text(explain_destination("192.0.2.1", "192.0.2.1", first, ways, facts))


SCREENS = {
    "nm-mptcp status": lambda: status(phone(), (("10.1.0.50", "10.2.0.50"),)),
    "nm-mptcp status, the Wi-Fi lost": lambda: status(phone(lost=True), (("10.2.0.50",),)),
    "nm-mptcp explain 192.0.2.1": explanation,
}


def blocks() -> list[str]:
    """What README.md shows indented, without the indentation."""
    found = re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", README, re.MULTILINE)
    return [re.sub("^    ", "", block, flags=re.MULTILINE).rstrip("\n") for block in found]


@pytest.mark.parametrize("name", SCREENS)
def test_the_readme_shows_what_is_printed(name: str) -> None:
    shown = {block.removeprefix(f"$ {name}\n") for block in blocks()}
    assert SCREENS[name]() in shown, f"README.md should show:\n{SCREENS[name]()}"


def typed() -> list[list[str]]:
    """The commands that README.md has somebody type, without what is optional; a mere name of a command is none."""
    shown = [line for block in blocks() for line in block.splitlines()] + re.findall("`([^`\n]+)`", README)
    found = [m.group(1) for line in shown if (m := re.match(r"(?:\$ )?(?:sudo )?nm-mptcp (\S.*)", line.strip()))]
    words = [re.split(r"\s+(?:#|>|&&|\|)", re.sub(r"\[[^]]*\]", "", line))[0].split() for line in found]
    return [line for line in words if line[1:] and not line[0][0].isdigit()]


def test_the_readme_has_commands() -> None:
    assert {line[0] for line in typed() if line[0] in COMMANDS} >= {"check", "exec", "explain", "unit"}


@pytest.mark.parametrize("words", typed(), ids=" ".join)
def test_a_command_in_the_readme_is_understood(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        parser_of(COMMANDS)[0].parse_args(words)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


if __name__ == "__main__":
    for name, made in SCREENS.items():
        print(f"=== {name}\n{made()}")
