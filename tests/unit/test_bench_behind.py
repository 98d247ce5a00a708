# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict of ``make bench-behind``: what it holds against nm-mptcp, and what it knows to be chance."""

from __future__ import annotations

import pytest

from ..bench.behind_report import Lived, Run, Stream, page
from ..bench.crowd import PLAIN_TCP, Name
from ..bench.hardships import HARDSHIPS

ALONE, AGAIN, PRODUCT = Run("lone link", False, 1), Run("lone link", False, 2), Run("lone link", True, 1)
ORDINARY = "an ordinary server"


def left_behind(
    alone: list[float], again: list[float], product: list[float], *, kind: str = PLAIN_TCP, lost: int = 0
) -> bool:
    """The verdict on these waits (s), where of nm-mptcp's connections so many are lost."""
    lived = [
        Lived(
            run,
            "down",
            [
                Stream(Name(kind, "Wi-Fi", number), "no answer" if run == PRODUCT and number < lost else "", [wait])
                for number, wait in enumerate(waits)
            ],
        )
        for run, waits in ((ALONE, alone), (AGAIN, again), (PRODUCT, product))
    ]
    return page(lived, HARDSHIPS, versions={}, seed=1, failures=0)[1]


@pytest.mark.parametrize("kind", [PLAIN_TCP, ORDINARY])
@pytest.mark.parametrize(("extra", "behind"), [(0.0, False), (0.2, False), (0.4, True), (2.0, True)])
def test_who_waits_longer_is_left_behind_beyond_the_bound(kind: str, extra: float, behind: bool) -> None:
    waits = [75.1] * 6
    assert left_behind(waits, waits, [wait + extra for wait in waits], kind=kind) is behind


def test_one_connection_is_enough() -> None:
    assert left_behind([75.1] * 6, [75.1] * 6, [75.1] * 5 + [77.1])


def test_what_networkmanager_alone_shows_against_itself_is_chance() -> None:
    assert not left_behind([75.1] * 6, [75.1] * 5 + [77.1], [75.1] * 5 + [77.1])


def test_a_wait_is_compared_with_those_of_the_same_rank() -> None:
    assert not left_behind([3.0, 1.0, 1.0], [1.0, 3.0, 1.0], [1.0, 1.0, 3.0])


def test_no_answer_once_in_twenty_is_chance() -> None:
    alone = [75.1] * 20
    assert not left_behind(alone, alone, [75.1] * 19 + [77.1])
    assert left_behind(alone, alone, [75.1] * 18 + [77.1] * 2)


@pytest.mark.parametrize("kind", [PLAIN_TCP, ORDINARY])
def test_who_is_lost_is_left_behind(kind: str) -> None:
    waits = [75.1] * 6
    assert left_behind(waits, waits, waits, kind=kind, lost=1)
