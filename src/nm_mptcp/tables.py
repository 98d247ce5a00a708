# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: the table and the rules that make an address leave by its own interface, and by no other.

For each address A of an interface with table T, in the manner of nm-cloud-setup::

    32000 from A lookup T suppress_prefixlength 0       the interface's own prefixes first: two links on one subnet
    32001 from A lookup main suppress_prefixlength 0    then all that is more specific than a default: containers,
                                                        hotspot clients, split tunnels, OpenVPN's 0/1 + 128/1
    32002 from A lookup T                               then the interface's own default

T holds a copy of every unicast route that leaves by the interface and ends in an ``unreachable`` default, so that nothing
falls through to another link in the moment the default goes. A rejecting route ends a lookup in spite of
``suppress_prefixlength`` (kernel: ``fib_rules_lookup`` suppresses only what was found without an error), so while T has
no default of its own the end is a rule instead of a route, and containers stay reachable::

    32003 from A unreachable
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .memory import remembered
from .model import (
    MAIN_TABLE,
    MARKS,
    WORST_METRIC,
    Family,
    Kernel,
    Marks,
    Numbering,
    Route,
    RouteType,
    Rule,
    RuleAction,
)
from .values import frozen, replace

_DEFAULTS = frozenset(family.default for family in Family)


@frozen
class Source:
    """An address that is to be routed by its own interface."""

    address: str
    ifindex: int
    #: where NetworkManager puts the interface's routes: main, or the profile's own table, which the rules then use as it is
    table: int = MAIN_TABLE

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return Family.of(self.address)


@frozen
class Routing:
    """The routes and rules that some sources need, and the table each uses."""

    routes: Mapping[tuple[int, int], frozenset[Route]]  #: by table and interface, as :class:`Kernel` has them
    rules: frozenset[Rule]
    table_of: dict[str, int]


def routing(kernel: Kernel, sources: Iterable[Source], marks: Marks = MARKS) -> Routing:
    """What the sources need in the kernel; all of it carries the numbers that are ours now."""
    sources = tuple(sources)
    numbering = marks.now
    assigned = _assign(kernel, sources, marks)
    rules: set[Rule] = set()
    table_of: dict[str, int] = {}
    families: dict[tuple[int, int], set[Family]] = {}  # of the sources of each table and interface
    for source in sources:
        table = source.table if source.table != MAIN_TABLE else assigned.get(source.ifindex, 0)
        if not table:  # more interfaces than tables: this one is routed as anybody's
            continue
        table_of[source.address] = table
        families.setdefault((table, source.ifindex), set()).add(source.family)
        ends = (
            source.table == MAIN_TABLE and default_route(kernel, source.ifindex, source.family, marks=marks) is not None
        )
        rules.update(_rules(source.address, source.family, table, ends, numbering))
    routes: dict[tuple[int, int], frozenset[Route]] = {}
    for (table, ifindex), wanted in families.items():
        if table in numbering.tables and assigned.get(ifindex) == table:
            group = kernel.routes.get((MAIN_TABLE, ifindex), ())
            routes[table, ifindex] = copies(group, ifindex, frozenset(wanted), table, marks)
            routes[table, 0] = frozenset(
                _unreachable(family, table, numbering.protocol)
                for family in wanted
                if default_route(kernel, ifindex, family, marks=marks)
            )
    return Routing(routes, frozenset(rules), table_of)


def default_route(
    kernel: Kernel, ifindex: int, family: Family, table: int = MAIN_TABLE, *, marks: Marks = MARKS
) -> Route | None:
    """The best unicast default route that leaves by the interface, None where there is none."""
    return defaults(kernel.routes.get((table, ifindex), ()), marks).get(family)


@remembered(objects=1)
def defaults(routes: tuple[Route, ...], marks: Marks) -> Mapping[Family, Route]:
    """The best unicast default route of each family among these, ours aside."""
    best: dict[Family, Route] = {}
    for route in routes:
        if route.destination in _DEFAULTS and route.type is RouteType.UNICAST and not marks.on_route(route):
            family = route.family
            if family not in best or route.metric < best[family].metric:
                best[family] = route
    return best


def gateway(route: Route | None, ifindex: int) -> str | None:
    """The gateway of a route on this interface; None for on-link and for no route."""
    return next((hop.gateway for hop in route.hops if hop.ifindex == ifindex), None) if route else None


@remembered(objects=1)
def copies(
    routes: tuple[Route, ...], ifindex: int, families: frozenset[Family], table: int, marks: Marks = MARKS
) -> frozenset[Route]:
    """Main's routes that leave by the interface, as they are to stand in ``table``.

    Of a multipath route only the hops by this interface are taken. Where main has two routes of one destination, service
    and metric, the kernel uses the first, and so only that one is copied (IPv6 takes them all: siblings of one route).
    """
    found: dict[tuple[object, ...], Route] = {}
    for route in routes:
        family = route.family
        if family not in families or route.type is not RouteType.UNICAST or marks.on_route(route):
            continue
        hops = tuple(hop for hop in route.hops if hop.ifindex == ifindex)
        if len(hops) == 1:
            hops = (replace(hops[0], weight=1),)
        copy = replace(route, table=table, protocol=marks.now.protocol, hops=hops)
        key: tuple[object, ...] = (copy.destination, copy.tos, copy.metric)
        found.setdefault(key + hops if family is Family.IPV6 else key, copy)
    return frozenset(found.values())


@remembered(objects=1)
def own_rules(rules: tuple[Rule, ...], marks: Marks) -> frozenset[Rule]:
    """Those of the kernel's rules that are ours."""
    return frozenset(filter(marks.on_rule, rules))


@remembered(objects=1)
def _has_foreign(routes: tuple[Route, ...], marks: Marks) -> bool:
    return not all(map(marks.on_route, routes))


def _unreachable(family: Family, table: int, protocol: int) -> Route:
    return Route(family.default, table, type=RouteType.UNREACHABLE, protocol=protocol, metric=WORST_METRIC)


def _rules(address: str, family: Family, table: int, table_ends: bool, numbering: Numbering) -> Iterable[Rule]:
    first, ours = numbering.rule_priority, numbering.protocol
    yield Rule(family, first, address, table, protocol=ours, suppress_prefixlength=0)
    yield Rule(family, first + 1, address, MAIN_TABLE, protocol=ours, suppress_prefixlength=0)
    yield Rule(family, first + 2, address, table, protocol=ours)
    if not table_ends:
        yield Rule(family, first + 3, address, action=RuleAction.UNREACHABLE, protocol=ours)


def _assign(kernel: Kernel, sources: tuple[Source, ...], marks: Marks) -> dict[int, int]:
    """A table for each interface: the one it has, else the lowest that nobody uses."""
    tables = marks.now.tables
    in_range = [(table, ifindex, routes) for (table, ifindex), routes in kernel.routes.items() if table in tables]
    others = {table for table, _, routes in in_range if _has_foreign(routes, marks)}
    own = own_rules(kernel.rules, marks)
    others |= {rule.table for rule in kernel.rules if rule.table in tables and rule not in own}
    had: dict[int, set[int]] = {}
    owner_of = {source.address: source.ifindex for source in sources}
    for rule in own:
        if rule.table in tables and rule.source in owner_of:
            had.setdefault(owner_of[rule.source], set()).add(rule.table)
    for table, ifindex, _ in in_range:
        had.setdefault(ifindex, set()).add(table)

    assigned: dict[int, int] = {}
    wanted = sorted({source.ifindex for source in sources if source.table == MAIN_TABLE})
    for ifindex in wanted:
        kept = had.get(ifindex, set()) - others - set(assigned.values())
        if kept:
            assigned[ifindex] = min(kept)
    taken = others | set(assigned.values()) | {table for table, _, _ in in_range}
    free = (table for table in tables if table not in taken)
    assigned.update(zip((ifindex for ifindex in wanted if ifindex not in assigned), free, strict=False))
    return assigned
