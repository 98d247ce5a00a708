# SPDX-License-Identifier: GPL-2.0-or-later
"""A cache for pure functions of large values, which are compared by identity.

:mod:`nm_mptcp.kernel.fib` returns the same tuple while nothing in it changed; hashing 10,000 routes to find that out would
take longer than the rest of the reaction to a lost link.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

#: Size of the cache of each function: items in its large values, for each of two generations.
_ROOM = 30_000


def cached_by_identity(objects: int) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """Cache the results of a pure function; its first ``objects`` arguments are compared by identity, the others by value.

    A result that was not used during a whole generation is dropped. The function takes positional arguments only.
    """

    def decorate(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        young: dict[tuple[object, ...], tuple[tuple[Any, ...], _Result]] = {}
        old: dict[tuple[object, ...], tuple[tuple[Any, ...], _Result]] = {}
        weight = 0

        @functools.wraps(function)
        def ask(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            nonlocal young, old, weight
            assert not kwargs, "the key consists of positional arguments"
            key = (*map(id, args[:objects]), *args[objects:])
            known = young.get(key)
            if known is not None:
                return known[1]
            # Keep the objects with the result, so that their ids cannot be reused.
            known = old.get(key) or (args[:objects], function(*args, **kwargs))
            if weight > _ROOM:
                young, old, weight = {}, young, 0
            young[key] = known
            weight += 1 + sum(map(len, known[0]))
            return known[1]

        return ask

    return decorate
