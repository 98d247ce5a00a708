# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from nm_mptcp.engine.neighbour_probes import PROBE_AFTER, NeighbourProbes


def probed(probes: NeighbourProbes, now: float) -> list[float]:
    """When the neighbours of a link that is up from now on are probed, without other events: seconds from now."""
    times = [0.0] if probes.update({2}, {2, 3}, now) else []
    while (due := probes.next_due(now)) is not None:
        assert probes.update(set(), {2, 3}, due) == {2}
        times.append(due - now)
    return times


def test_neighbours_are_probed_several_times_after_a_return_then_by_the_kernel_alone() -> None:
    assert probed(NeighbourProbes(), 100.0) == pytest.approx(PROBE_AFTER)


def test_each_return_starts_again() -> None:
    probes = NeighbourProbes()
    probes.update({2}, {2}, 100.0)
    probes.update(set(), {2}, 100.3)
    assert probed(probes, 100.5) == pytest.approx(PROBE_AFTER)


def test_missed_probes_are_sent_once() -> None:
    probes = NeighbourProbes()
    assert probes.update({2}, {2}, 100.0) == {2}
    assert probes.update(set(), {2}, 100.15) == {2}
    assert probes.update(set(), {2}, 100.16) == set()
    assert probes.next_due(100.16) == 100.2


def test_no_probe_on_a_link_that_is_lost_again() -> None:
    probes = NeighbourProbes()
    probes.update({2, 3}, {2, 3}, 100.0)
    assert probes.update(set(), {3}, 100.1) == {3}
    assert probes.update(set(), {2, 3}, 100.2) == {3}


def test_without_returns_nothing_is_due() -> None:
    probes = NeighbourProbes()
    assert probes.update(set(), {2}, 100.0) == set()
    assert probes.next_due(100.0) is None
