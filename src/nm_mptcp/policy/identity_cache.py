# SPDX-License-Identifier: GPL-2.0-or-later
"""What was computed from a large unchanging value is not computed again while it is the very same object.

The mirror of the kernel hands out the same tuples while nothing in them changed; hashing 10,000 routes to find that out
would take longer than anything else that a lost link waits for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")

#: How much is remembered for each function: so many items in the large values, in each of two generations.
_ROOM = 30_000


def remembered(objects: int) -> Callable[[Callable[_Arguments, _Answer]], Callable[_Arguments, _Answer]]:
    """Remember the answers of a pure function; its first ``objects`` arguments count by identity, the others by value.

    What was not asked for during a whole generation is forgotten, so that values of the past do not pile up.
    """

    def decorate(function: Callable[_Arguments, _Answer]) -> Callable[_Arguments, _Answer]:
        young: dict[tuple[object, ...], tuple[tuple[Any, ...], _Answer]] = {}
        old: dict[tuple[object, ...], tuple[tuple[Any, ...], _Answer]] = {}
        weight = 0

        @functools.wraps(function)
        def ask(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Answer:
            nonlocal young, old, weight
            assert not kwargs, "arguments are told apart by their place"
            key = (*map(id, args[:objects]), *args[objects:])
            known = young.get(key)
            if known is not None:
                return known[1]
            # The objects are held beside the answer, so that no other can get their identity.
            known = old.get(key) or (args[:objects], function(*args, **kwargs))
            if weight > _ROOM:
                young, old, weight = {}, young, 0
            young[key] = known
            weight += 1 + sum(map(len, known[0]))
            return known[1]

        return ask

    return decorate
