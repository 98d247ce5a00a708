# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from nm_mptcp.config import Config, Failover
from nm_mptcp.configfiles import ConfigError, load


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("", Config()),
        ("# nothing\n", Config()),
        ("[main]\n", Config()),
        ("[main]\nfailover=safe\n", Config(failover=Failover.SAFE)),
        ("[main]\nfailover = off\n", Config(failover=Failover.OFF)),
    ],
)
def test_a_file_says_what_it_says(text: str, config: Config, tmp_path: Path) -> None:
    file = tmp_path / "nm-mptcp.conf"
    file.write_text(text)
    assert load(file) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[main]\nfailover=quick\n", r"\[main\] failover=quick: must be fast, safe or off"),
        (b"[main]\nfailovr=fast\n", r"\[main\] failovr: no such key \(there is failover\)"),
        (b"[mian]\nfailover=fast\n", r"\[mian\]: no such section \(there is main\)"),
        (b"failover=fast\n", "File contains no section headers"),
        (b"[main]\nfailover=fast\nfailover=off\n", "already exists"),
        (b"[main]\nfailover\n", "contains parsing errors"),
        (b"[main]\nfailover=\xff\n", "is not UTF-8 text"),
    ],
)
def test_a_bad_file_gives_one_line_that_says_where_and_what_is_allowed(text: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "nm-mptcp.conf"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match=words) as error:
        load(file)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.conf: cannot be read: No such file or directory"):
        load(tmp_path / "none.conf")
