# SPDX-License-Identifier: GPL-2.0-or-later
"""``--help`` fits a terminal of 80 columns, says each thing in one line, and what is typed wrong is told in one."""

from __future__ import annotations

import argparse
import re

import pytest

from nm_mptcp.cli import COMMANDS, main, parser_of

PARSER, _ = parser_of(COMMANDS)
(SUBPARSERS,) = (action for action in PARSER._actions if isinstance(action, argparse._SubParsersAction))
PARSERS: dict[str, argparse.ArgumentParser] = {"": PARSER, **SUBPARSERS.choices}

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("command", list(PARSERS))
def test_each_option_takes_one_line_of_a_terminal(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = ESCAPE.sub("", PARSERS[command].format_help()).splitlines()
    assert max(map(len, lines)) <= 80
    # What goes on in the next line is indented by more than what begins one.
    assert [
        line for line in lines if re.match(r" {8,}\S", line) and not line.lstrip().startswith(("[", "COMMAND"))
    ] == []


@pytest.mark.parametrize("command", list(PARSERS))
def test_all_are_told_in_the_same_style(command: str) -> None:
    parser = PARSERS[command]
    for action in parser._actions:
        if action is SUBPARSERS:
            continue
        assert action.help, action
        assert action.help[0].islower() or action.help[0] == "'", action.help
        assert not action.help.endswith("."), action.help
        if action.nargs != 0:
            assert re.fullmatch(r"[A-Z]+(\[:PORT\])?", str(action.metavar)), action
    assert parser.description
    assert re.fullmatch(r"[A-Z].*\.", parser.description)
    for line in (parser.epilog or "Nothing.").splitlines():
        assert line.endswith((".", ":")) or line.startswith("  "), line


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ([], "nm-mptcp: the following arguments are required: COMMAND (see 'nm-mptcp --help')"),
        (["stat"], "nm-mptcp: argument COMMAND: invalid choice: 'stat'"),
        (["status", "wlan0"], "nm-mptcp status: unrecognized arguments: wlan0 (see 'nm-mptcp status --help')"),
        (["--jason", "status"], "nm-mptcp: unrecognized arguments: --jason (see 'nm-mptcp --help')"),
        (["explain"], "nm-mptcp explain: the following arguments are required: WHAT (see 'nm-mptcp explain --help')"),
        (["mode", "best"], "nm-mptcp mode: argument MODE: invalid choice: 'best'"),
        (["unit", "start", "ssh"], "nm-mptcp unit: argument ACTION: invalid choice: 'start'"),
        (["watch", "--interval", "x"], "nm-mptcp watch: argument --interval: 'x' must be 0.1 to 3600 seconds"),
        (["watch", "--interval", "0"], "nm-mptcp watch: argument --interval: '0' must be 0.1 to 3600 seconds"),
        (["--state-dir", "status", "exec", "--jason"], "nm-mptcp exec: unrecognized arguments: --jason"),
    ],
)
def test_what_is_typed_wrong_is_told_in_one_line(
    typed: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(typed)
    assert ended.value.code == 2
    said = ESCAPE.sub("", capsys.readouterr().err)
    assert len(said.splitlines()) == 1
    assert said.startswith(words)
    assert "--help')" in said


def test_a_program_to_run_may_be_called_as_a_command_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state-dir", "watch", "exec", "--dry-run", "--quiet", "--", "/nowhere/status"]) == 127
    assert "/nowhere/status" in capsys.readouterr().err
