# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: routing tables that end in a route that rejects: a VPN's "this tunnel, or nowhere"."""

from __future__ import annotations

from collections.abc import Mapping

from ..model.state import MAIN_TABLE, Family, Route, RouteType, Rule

_NONE: frozenset[tuple[Family, int]] = frozenset()

#: Types of a default route that is the end of a kill switch's table.
_REJECTING = frozenset({RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT})


def kill_switches(
    routes: Mapping[tuple[int, int], tuple[Route, ...]], rules: tuple[Rule, ...]
) -> frozenset[tuple[Family, int]]:
    """The tables other than main that end in a rejecting default route and that a rule leads to, by family: "the tunnel, or
    nowhere". Whether ordinary packets get there only a look-up tells, as the rule may be for marked ones.
    """
    ends = {
        (route.family, table)
        for (table, ifindex), group in routes.items()
        if not ifindex and table != MAIN_TABLE
        for route in group
        if route.is_default and route.type in _REJECTING
    }
    return (
        frozenset((rule.family, rule.table) for rule in rules if (rule.family, rule.table) in ends) if ends else _NONE
    )
