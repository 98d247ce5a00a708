# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program of the test bed has written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.networkmanager.namespaces import Program


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(["sleep", "60"], entering=["sh", "-c", '"$@"; exit', "sh"], log=tmp_path / "log")
    yield made
    made.stop()


def test_a_line_is_read_once_it_is_whole(program: Program) -> None:
    with program.log.open("a") as log:
        log.write('{"a": 1}\n{"b": ')
    assert program.lines() == ['{"a": 1}']
    with program.log.open("a") as log:
        log.write("2}\n")
    assert program.lines() == ['{"a": 1}', '{"b": 2}']


def test_nothing_yet_is_no_line(program: Program) -> None:
    assert program.lines() == []
