# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import gc
import weakref

from nm_mptcp.policy.identity_cache import _ROOM, cached_by_identity


class Large(list[int]):
    """A sequence that can be weakly referenced."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def test_results_are_cached_by_identity_not_by_equality() -> None:
    looks = []

    @cached_by_identity(objects=1)
    def size(values: Large, extra: int) -> int:
        looks.append(extra)
        return len(values) + extra

    values = Large(range(10))
    assert [size(values, 1), size(values, 1), size(values, 2), size(Large(range(10)), 1)] == [11, 11, 12, 11]
    assert looks == [1, 2, 1]


def test_unused_results_are_dropped() -> None:
    @cached_by_identity(objects=1)
    def first(values: Large) -> int:
        return values[0]

    past = []
    for _ in range(6):
        values = Large(range(_ROOM))
        first(values)
        past.append(weakref.ref(values))
    del values
    gc.collect()
    assert past[0]() is None
    assert sum(value() is not None for value in past) <= 4
