# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict of ``make bench-behind``: what it holds against nm-mptcp, and what it knows to be chance."""

from __future__ import annotations

import pytest

from ..bench.behind_report import Lived, Run, Stream, page
from ..bench.crowd import PLAIN_SILENT, PLAIN_TALKING, Name
from ..bench.hardships import DOWN, HARDSHIPS, SLEEP

ALONE, AGAIN, PRODUCT = Run("lone link", False, 1), Run("lone link", False, 2), Run("lone link", True, 1)
ORDINARY = "an ordinary server"


def left_behind(
    alone: list[float], again: list[float], product: list[float], *, kind: str, hardship: str = "down", lost: int = 0
) -> bool:
    """The verdict on these waits (s), where of nm-mptcp's connections so many are lost."""
    lived = [
        Lived(
            run,
            hardship,
            [
                Stream(Name(kind, "Wi-Fi", number), "no answer" if run == PRODUCT and number < lost else "", [wait])
                for number, wait in enumerate(waits)
            ],
        )
        for run, waits in ((ALONE, alone), (AGAIN, again), (PRODUCT, product))
    ]
    return page(lived, HARDSHIPS, versions={}, seed=1, failures=0)[1]


@pytest.mark.parametrize("kind", [PLAIN_SILENT, ORDINARY])
@pytest.mark.parametrize(("extra", "behind"), [(0.0, False), (0.2, False), (0.4, True), (2.0, True)])
def test_who_needs_no_timer_is_left_behind_beyond_the_bound(kind: str, extra: float, behind: bool) -> None:
    waits = [75.1] * 6
    assert left_behind(waits, waits, [wait + extra for wait in waits], kind=kind) is behind


def test_one_connection_is_enough() -> None:
    assert left_behind([75.1] * 6, [75.1] * 6, [75.1] * 5 + [77.1], kind=PLAIN_SILENT)


def test_what_networkmanager_alone_shows_against_itself_is_chance() -> None:
    assert not left_behind([75.1] * 6, [75.1] * 5 + [77.1], [75.1] * 5 + [77.1], kind=PLAIN_SILENT)


def test_when_the_next_retransmission_is_due_is_chance() -> None:
    seen = [94.0, 89.9, 91.9, 81.7, 106.3, 106.3]
    assert not left_behind(seen, seen, [106.3] * 6, kind=PLAIN_TALKING)


def test_who_waits_longer_than_any_retransmission_is_left_behind() -> None:
    assert left_behind([106.3] * 6, [106.3] * 6, [2.5 * DOWN] * 6, kind=PLAIN_TALKING)


def test_who_networkmanager_alone_does_not_cut_has_no_such_timer() -> None:
    assert left_behind([0.1] * 6, [0.1] * 6, [2.2] * 6, kind=PLAIN_TALKING)


@pytest.mark.parametrize(("kind", "behind"), [(PLAIN_TALKING, False), (PLAIN_SILENT, True)])
def test_so_it_is_with_who_had_data_under_way_when_the_machine_went_to_sleep(kind: str, behind: bool) -> None:
    """Seen with NetworkManager alone as with nm-mptcp, some in a hundred: 0.2 s, doubled four times."""
    waits = [SLEEP + 0.6] * 6
    assert left_behind(waits, waits, [*waits[:5], SLEEP + 3.8], kind=kind, hardship="sleep") is behind


@pytest.mark.parametrize("hardship", ["flaps", "portal"])
def test_only_a_long_absence_has_such_timers(hardship: str) -> None:
    assert left_behind([3.0] * 6, [3.0] * 6, [5.0] * 6, kind=PLAIN_TALKING, hardship=hardship)


@pytest.mark.parametrize("kind", [PLAIN_TALKING, PLAIN_SILENT, ORDINARY])
def test_who_is_lost_is_left_behind(kind: str) -> None:
    waits = [75.1] * 6
    assert left_behind(waits, waits, waits, kind=kind, lost=1)
