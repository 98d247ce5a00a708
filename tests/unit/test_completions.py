# SPDX-License-Identifier: GPL-2.0-or-later
"""The completions for bash, zsh and fish know all that the command takes, and nothing that it does not."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nm_mptcp.cli import COMMANDS, parser_of
from nm_mptcp.journal import LEVELS
from nm_mptcp.launch.plan import Method
from nm_mptcp.model.state import Mode

from ..support.shells import COMPLETIONS, FILES, offers, taken, there

SHELLS = tuple(FILES)
PARSER, _ = parser_of(COMMANDS)
(SUBPARSERS,) = (action for action in PARSER._actions if isinstance(action, argparse._SubParsersAction))

#: The line before an option of each command, and of none.
PARSERS: dict[str, argparse.ArgumentParser] = {"": PARSER, **SUBPARSERS.choices}

run = pytest.mark.parametrize(
    "shell",
    [
        pytest.param(shell, marks=pytest.mark.skipif(not there(shell), reason=f"{shell} is not installed"))
        for shell in SHELLS
    ],
)


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def long(parser: argparse.ArgumentParser) -> set[str]:
    return {option for option in options(parser) if option.startswith("--")}


# --- run for real


@run
@pytest.mark.parametrize("command", list(PARSERS))
def test_each_command_has_exactly_its_options(shell: str, command: str) -> None:
    offered = offers(shell, f"nm-mptcp {command} --" if command else "nm-mptcp --")
    assert {word for word in offered if word.startswith("--") and word != "--"} == long(PARSERS[command])


@run
def test_all_commands_are_offered_and_no_other(shell: str) -> None:
    assert offers(shell, "nm-mptcp ") - options(PARSER) == set(COMMANDS)
    assert offers(shell, "nm-mptcp --state-dir /tmp --log-level debug ") - options(PARSER) == set(COMMANDS)
    assert offers(shell, "nm-mptcp st") == {"status"}


@run
def test_values_are_those_that_the_command_takes(shell: str) -> None:
    assert offers(shell, "nm-mptcp mode ") == set(Mode)
    assert offers(shell, "nm-mptcp mode auto ") - options(PARSERS["mode"]) == set()
    assert offers(shell, "nm-mptcp unit ") == {"enable", "disable", "status"}
    for command in ("exec", "unit"):
        assert offers(shell, f"nm-mptcp {command} --method ") == set(Method)
    # "warning" and "error" are taken as well, as other words for the same.
    assert offers(shell, "nm-mptcp --log-level ") == set(LEVELS) - {"warning", "error"}


@run
def test_files_are_offered_where_one_is_wanted(shell: str, tmp_path: Path) -> None:
    (tmp_path / "mine.conf").touch()
    for before in ("status --config", "check --report", "config --check"):
        if shell == "zsh" and before == "config --check":
            continue  # there it is --check=FILE, since FILE may be left out
        offered = offers(shell, f"nm-mptcp {before} {tmp_path}/mi")
        assert {Path(word).name for word in offered} == {"mine.conf"}, before


@run
def test_a_program_and_its_arguments_are_completed_behind_exec(shell: str, tmp_path: Path) -> None:
    assert "env" in offers(shell, "nm-mptcp exec en")
    assert "env" in offers(shell, "nm-mptcp exec --quiet -- en")
    (tmp_path / "mine.txt").touch()
    for before in ("exec -- cat", "exec cat", "--log-level debug exec -q cat"):
        offered = offers(shell, f"nm-mptcp {before} {tmp_path}/mi")
        assert {Path(word).name for word in offered} == {"mine.txt"}, before
    assert long(PARSERS["exec"]) & offers(shell, "nm-mptcp exec cat --") <= {"--help"}


# --- what others have named


@pytest.fixture
def named(tmp_path: Path) -> dict[str, str]:
    """An nmcli and a systemctl that know what a shell might stumble over."""
    folder = tmp_path / "bin"
    folder.mkdir()
    names = "\n".join(HOSTILE)
    (folder / "nmcli").write_text(f"#!/bin/sh\ncat <<'END'\n{names}\nEND\n")
    (folder / "systemctl").write_text("#!/bin/sh\necho 'zeta.service enabled enabled'\necho 'zetb@.socket static -'\n")
    for program in folder.iterdir():
        program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


HOSTILE = {
    "Zuhause Wi-Fi": "Zu",
    "Zq$(touch pwned)": "Zq",
    "Zr`touch pwned`;touch pwned": "Zr",
    'Zx"y\\z $HOME': "Zx",
    "Zy=no:2001:db8::1": "Zy=no:20",
}


@run
@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_profile_is_taken_by_its_name_whatever_that_is(
    shell: str, name: str, named: dict[str, str], tmp_path: Path
) -> None:
    assert taken(shell, f"nm-mptcp explain {HOSTILE[name]}\t", named, tmp_path) == ["explain", name]
    assert not (tmp_path / "pwned").exists()


@run
def test_a_name_may_be_quoted_by_hand(shell: str, named: dict[str, str], tmp_path: Path) -> None:
    for quote in "'\"":
        assert taken(shell, f"nm-mptcp explain {quote}Zuhause W\t", named, tmp_path) == ["explain", "Zuhause Wi-Fi"]
    assert taken(shell, 'nm-mptcp explain "Zq\t', named, tmp_path) == ["explain", "Zq$(touch pwned)"]
    assert not (tmp_path / "pwned").exists()


@run
def test_interfaces_and_units_are_offered(shell: str, named: dict[str, str]) -> None:
    assert {"lo", "Zuhause Wi-Fi"} <= {word.replace("\\", "") for word in offers(shell, "nm-mptcp explain ", named)}
    assert offers(shell, "nm-mptcp unit enable zet", named) == {"zeta.service", "zetb@.socket"}
    assert offers(shell, "nm-mptcp unit disable zet", named) == set()


# --- as text, where a shell is not there to be asked


def written(shell: str) -> Iterator[tuple[str, str]]:
    """The commands and the options that the file has for each, as pairs."""
    text = (COMPLETIONS / FILES[shell]).read_text()
    if shell == "fish":
        for line in re.findall(r"^complete -c nm-mptcp -n .*$", text, re.MULTILINE):
            given = re.search(r"'__nm_mptcp_(none|command) ?([a-z ]*)'", line)
            option = re.search(r" -l ([a-z-]+)", line)
            for command in given[2].split() or [""] if given and option else []:
                yield command, f"--{option[1]}"  # type: ignore[index]
        return
    if shell == "zsh":
        head, _, text = text.partition("argument)\n")
        everywhere = head[head.index("_arguments -C") :]
        yield from (("", option) for option in ["--help", *re.findall(r"--[a-z-]+", everywhere)])
    for command, part in re.findall(r"^ +(\w+|\"\")\)\n(.*?)^ +;;$", text, re.MULTILINE | re.DOTALL):
        name = command.strip('"')
        if name not in PARSERS:
            continue
        words = re.sub(r"\[[^\]]*\]", "", part) if shell == "zsh" else "".join(re.findall(r'options="(.*?)"', part))
        words += "".join(f" --{word}" for word in ("help", "config", "method") if f"${word}" in words)
        yield from ((name, option) for option in re.findall(r"--[a-z-]+", words))


@pytest.mark.parametrize("shell", SHELLS)
def test_the_files_have_every_option_of_every_command_and_no_other(shell: str) -> None:
    wanted = {(command, option) for command, parser in PARSERS.items() for option in long(parser)}
    assert set(written(shell)) == wanted


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_they_say_of_a_command_what_its_help_says(shell: str) -> None:
    text = (COMPLETIONS / FILES[shell]).read_text()
    for command, words in COMMANDS.items():
        told = words.replace(": ", ", ")
        assert f"'{command}:{told}'" in text or f"-a {command} -d '{told}'" in text, command
