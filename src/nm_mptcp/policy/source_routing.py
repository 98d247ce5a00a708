# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: the table and the rules that make an address leave by its own interface, and by no other.

For each address A with table T, all at one priority, so that the order in which they were added counts::

    32765 from A lookup T suppress_prefixlength 0       the interface's own prefixes first: two links on one subnet
    32765 from A lookup main suppress_prefixlength 0    then all that is more specific than a default: containers,
                                                        hotspot clients, split tunnels, OpenVPN's 0/1 + 128/1
    32765 from A lookup T                               then the interface's own default
    32765 from A unreachable                            and no other link, also in the moment the default goes

The end is a rule and never a route: an ``unreachable`` default in T would end the first look-up already while T has no other
default (kernel: ``fib_rules_lookup`` suppresses only what was found without an error), and IPv6 prefers it while the
gateway's neighbour entry has failed (``rt6_score_route``), and asks that gateway but once a minute.

T holds a copy of every unicast route that leaves by the interface. Addresses of one interface share it, save where their
prefixes have gateways of their own (RFC 8028, two providers on one port): then each goes by its own prefix's gateway.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from ..model.state import MAIN_TABLE, MARKS, Family, Kernel, Marks, Numbering, Route, RouteType, Rule, RuleAction
from .identity_cache import remembered

_DEFAULTS = frozenset(family.default for family in Family)


@dataclass(frozen=True, slots=True)
class RoutedAddress:
    """An address that is to be routed by its own interface."""

    address: str
    ifindex: int
    #: where NetworkManager puts the interface's routes: main, or the profile's own table, which the rules then use as it is
    table: int = MAIN_TABLE

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return Family.of(self.address)


#: Which addresses share a table: those of one interface that go by the same of its gateways (none named: by all).
_Group = tuple[int, frozenset[str]]


@dataclass(frozen=True, slots=True)
class SourceRouting:
    """The routes and rules that some sources need, and the table each uses."""

    routes: Mapping[tuple[int, int], frozenset[Route]]  #: by table and interface, as :class:`Kernel` has them
    rules: tuple[Rule, ...]  #: each source's in the order in which they are to be asked
    table_of: Mapping[str, int]

    @property
    def tables(self) -> Mapping[int, Collection[int]]:
        """The tables that are filled, by the interface that they lead out by."""
        found: dict[int, list[int]] = {}
        for table, ifindex in self.routes:
            found.setdefault(ifindex, []).append(table)
        return found


def routing(kernel: Kernel, sources: Iterable[RoutedAddress], marks: Marks = MARKS) -> SourceRouting:
    """What the sources need in the kernel; all of it carries the numbers that are ours now."""
    sources = tuple(sources)
    group_of = {source.address: _group(kernel, source, marks) for source in sources if source.table == MAIN_TABLE}
    assigned = _assign(kernel, group_of, marks)
    rules: list[Rule] = []
    table_of: dict[str, int] = {}
    families: dict[_Group, set[Family]] = {}
    for source in sources:
        table = source.table
        if table == MAIN_TABLE:
            group = group_of[source.address]
            if group not in assigned:  # more groups than tables: this one is routed as anybody's
                continue
            table = assigned[group]
            families.setdefault(group, set()).add(source.family)
        table_of[source.address] = table
        rules += _rules(source.address, source.family, table, marks.now)
    routes = {
        (assigned[group], group[0]): copies(
            kernel.routes.get((MAIN_TABLE, group[0]), ()), group[0], frozenset(wanted), assigned[group], marks, group[1]
        )
        for group, wanted in families.items()
    }
    return SourceRouting(routes, tuple(rules), table_of)


def _group(kernel: Kernel, source: RoutedAddress, marks: Marks) -> _Group:
    """The gateways of the address's own prefix are named where the interface's defaults go by others as well."""
    routes = kernel.routes.get((MAIN_TABLE, source.ifindex), ())
    gateways = _gateways(routes, source.ifindex, source.family, marks)
    if len(gateways) < 2:
        return (source.ifindex, frozenset())
    networks = [
        ipaddress.ip_network((address.address, address.prefixlen), strict=False)
        for address in kernel.addresses.get(source.ifindex, ())
        if address.address == source.address
    ]
    own = frozenset(
        gateway for gateway in gateways if any(ipaddress.ip_address(gateway) in network for network in networks)
    )
    return (source.ifindex, own if own != gateways else frozenset())


@remembered(objects=1)
def _gateways(routes: tuple[Route, ...], ifindex: int, family: Family, marks: Marks) -> frozenset[str]:
    """The gateways by which the defaults of an interface go."""
    return frozenset(
        hop.gateway
        for route in routes
        if route.destination == family.default and route.type is RouteType.UNICAST and not marks.on_route(route)
        for hop in route.hops
        if hop.ifindex == ifindex and hop.gateway
    )


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
    routes: tuple[Route, ...],
    ifindex: int,
    families: frozenset[Family],
    table: int,
    marks: Marks = MARKS,
    gateways: frozenset[str] = frozenset(),
) -> frozenset[Route]:
    """Main's routes that leave by the interface, as they are to stand in ``table``; defaults only by ``gateways``, if any.

    Of a multipath route only the hops by this interface are taken. Where main has two routes of one destination, service
    and metric, the kernel uses the first, and so only that one is copied (IPv6 takes them all: siblings of one route).
    """
    found: dict[tuple[object, ...], Route] = {}
    for route in routes:
        family = route.family
        if family not in families or route.type is not RouteType.UNICAST or marks.on_route(route):
            continue
        hops = route.hops
        if len(hops) != 1 or hops[0].ifindex != ifindex:
            hops = tuple(hop for hop in hops if hop.ifindex == ifindex)
        if gateways and route.is_default:
            hops = tuple(hop for hop in hops if hop.gateway in gateways)
            if not hops:
                continue
        if len(hops) == 1 and hops[0].weight != 1:
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


def rank(rule: Rule) -> int:
    """The place of a rule of ours among those of its address."""
    if rule.action is not RuleAction.TO_TABLE:
        return 3
    if rule.suppress_prefixlength is None:
        return 2
    return 1 if rule.table == MAIN_TABLE else 0


def _rules(address: str, family: Family, table: int, numbering: Numbering) -> Iterable[Rule]:
    priority, ours = numbering.rule_priority, numbering.protocol
    yield Rule(family, priority, address, table, protocol=ours, suppress_prefixlength=0)
    yield Rule(family, priority, address, MAIN_TABLE, protocol=ours, suppress_prefixlength=0)
    yield Rule(family, priority, address, table, protocol=ours)
    yield Rule(family, priority, address, action=RuleAction.UNREACHABLE, protocol=ours)


def _assign(kernel: Kernel, group_of: Mapping[str, _Group], marks: Marks) -> dict[_Group, int]:
    """A table for each group: the one that its addresses' rules or its interface's routes have, else the lowest that nobody
    uses.
    """
    tables = marks.now.tables
    in_range = [(table, ifindex, routes) for (table, ifindex), routes in kernel.routes.items() if table in tables]
    others = {table for table, _, routes in in_range if _has_foreign(routes, marks)}
    own = own_rules(kernel.rules, marks)
    others |= {rule.table for rule in kernel.rules if rule.table in tables and rule not in own}
    by_rule: dict[_Group, set[int]] = {}
    for rule in own:
        group = group_of.get(rule.source or "")
        if rule.table in tables and group is not None:
            by_rule.setdefault(group, set()).add(rule.table)
    by_interface: dict[int, set[int]] = {}
    for table, ifindex, _ in in_range:
        by_interface.setdefault(ifindex, set()).add(table)

    assigned: dict[_Group, int] = {}
    used = set(others)
    wanted = sorted(set(group_of.values()), key=lambda group: (group[0], sorted(group[1])))

    def keep(had: Callable[[_Group], Collection[int]]) -> None:
        for group in wanted:
            if group not in assigned and (kept := set(had(group)) - used):
                assigned[group] = min(kept)
                used.add(assigned[group])

    keep(lambda group: by_rule.get(group, ()))
    keep(lambda group: by_interface.get(group[0], ()))
    used |= {table for table, _, _ in in_range}
    free = (table for table in tables if table not in used)
    assigned.update(zip((group for group in wanted if group not in assigned), free, strict=False))
    return assigned
