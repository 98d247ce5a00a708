# SPDX-License-Identifier: GPL-2.0-or-later
"""Sequences of chaos: the same for a seed, written and read again, and shortened to what fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ..chaos.script import BATCHES, TRIES, Batch, lives, read, shortest, written
from ..chaos.steps import Step


def test_a_seed_gives_always_the_same_steps_and_as_many_as_asked_for() -> None:
    one, same, other = lives(1000, 5), lives(1000, 5), lives(1000, 6)
    assert one == same != other
    assert sum(len(batch) for life in one for batch in life) == 1000
    assert all(len(life) <= BATCHES for life in one)
    names = {step.name for life in one for batch in life for step in batch}
    assert {"carrier", "modify", "signal", "record", "tunnel", "foreign"} <= names


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    (life,) = lives(100, 1)
    place = tmp_path / "steps"
    place.write_text(written(life), encoding="utf-8")
    assert read(place) == life


@pytest.mark.parametrize("line", ["jump", "carrier wlan0", "carrier wlan9 up", "carrier wlan0 up now", "wait a"])
def test_a_line_that_is_no_step_is_refused_with_its_text(line: str) -> None:
    with pytest.raises(ValueError, match=f"'{line}' is no step"):
        Step.read(line)


def test_the_shortest_sequence_that_fails_is_found() -> None:
    (life,) = lives(120, 2)
    needed = life[7][0], life[20][-1]
    tries = 0

    def fails(batches: Sequence[Batch]) -> bool:
        nonlocal tries
        tries += 1
        steps = [step for batch in batches for step in batch]
        return all(each in steps for each in needed)

    found = shortest(life, fails, tries=1000)
    assert sorted(map(str, (step for batch in found for step in batch))) == sorted(map(str, needed))
    tries = 0
    shortest(life, fails)
    assert tries <= TRIES
