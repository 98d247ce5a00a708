# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from nm_mptcp.engine.neighbour_probes import ASKED, NeighbourProbes


def asked(arrivals: NeighbourProbes, now: float) -> list[float]:
    """When a link that is up from now on is asked about, where nothing else wakes anybody: seconds from now."""
    times = [0.0] if arrivals.look({2}, {2, 3}, now) else []
    while (due := arrivals.next_due(now)) is not None:
        assert arrivals.look(set(), {2, 3}, due) == {2}
        times.append(due - now)
    return times


def test_the_neighbours_of_a_link_that_came_back_are_asked_for_a_few_times_and_then_left_to_the_kernel() -> None:
    assert asked(NeighbourProbes(), 100.0) == pytest.approx(ASKED)


def test_each_return_begins_afresh() -> None:
    arrivals = NeighbourProbes()
    arrivals.look({2}, {2}, 100.0)
    arrivals.look(set(), {2}, 100.3)
    assert asked(arrivals, 100.5) == pytest.approx(ASKED)


def test_what_was_slept_over_is_asked_once() -> None:
    arrivals = NeighbourProbes()
    assert arrivals.look({2}, {2}, 100.0) == {2}
    assert arrivals.look(set(), {2}, 100.15) == {2}
    assert arrivals.look(set(), {2}, 100.16) == set()
    assert arrivals.next_due(100.16) == 100.2


def test_a_link_that_is_lost_again_is_asked_nothing() -> None:
    arrivals = NeighbourProbes()
    arrivals.look({2, 3}, {2, 3}, 100.0)
    assert arrivals.look(set(), {3}, 100.1) == {3}
    assert arrivals.look(set(), {2, 3}, 100.2) == {3}


def test_without_returns_nothing_is_due() -> None:
    arrivals = NeighbourProbes()
    assert arrivals.look(set(), {2}, 100.0) == set()
    assert arrivals.next_due(100.0) is None
