# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: the table and the rules by which packets from an address leave by its own interface, and by no other.

The rules of an address A with table T, all of one priority, so that the kernel evaluates them in the order of their addition::

    32765 from A lookup T suppress_prefixlength 0       the interface's own prefixes first: two links on one subnet
    32765 from A lookup main suppress_prefixlength 0    then all that is more specific than a default: containers,
                                                        hotspot clients, split tunnels, OpenVPN's 0/1 + 128/1
    32765 from A lookup T                               then the interface's own default route
    32765 from A unreachable                            and no other link, also after the default route is removed

While there are WireGuard tunnels, rules for their own packets come first::

    32765 from A ipproto udp sport P lookup main        WireGuard of the kernel
    32765 from A to PEER lookup main                    WireGuard as a program

It keeps the source address it began with until the route from there leads by another interface. By the rules above it never
does: such a tunnel stayed on the metered link when Wi-Fi came.

The last one is a rule, not a route: while T has no other default, an ``unreachable`` default route in T would end the first
look-up already (kernel: ``fib_rules_lookup`` suppresses only results without an error), and IPv6 prefers it while the
gateway's neighbour entry has failed (``rt6_score_route``), and then probes that gateway only once a minute.

T has a copy of every unicast route that leaves by the interface. The addresses of one interface share a table, unless their
prefixes have different gateways (RFC 8028: two providers on one port): then each uses its own prefix's gateway.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from ..model.state import MAIN_TABLE, MARKS, Family, Kernel, Marks, Numbering, Route, RouteType, Rule, RuleAction
from .identity_cache import cached_by_identity

_DEFAULTS = frozenset(family.default for family in Family)


@dataclass(frozen=True, slots=True)
class RoutedAddress:
    """An address that is to be routed by its own interface."""

    address: str
    ifindex: int
    #: the table in which NetworkManager adds the interface's routes; if it is not main, our rules use it and nothing is copied
    table: int = MAIN_TABLE

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return Family.of(self.address)


#: Interface and gateways of the addresses that share a table; no gateways: all of the interface's.
_Group = tuple[int, frozenset[str]]


@dataclass(frozen=True, slots=True)
class SourceRouting:
    """The routes and rules for some addresses, and the table of each."""

    routes: Mapping[tuple[int, int], frozenset[Route]]  #: by (table, ifindex), as in :class:`Kernel`
    rules: tuple[Rule, ...]  #: those of one address in the order of their evaluation
    table_of: Mapping[str, int]  #: by address

    @property
    def tables(self) -> Mapping[int, Collection[int]]:
        """Our tables by ifindex."""
        found: dict[int, list[int]] = {}
        for table, ifindex in self.routes:
            found.setdefault(ifindex, []).append(table)
        return found


def routing(kernel: Kernel, sources: Iterable[RoutedAddress], marks: Marks = MARKS) -> SourceRouting:
    """The routes and rules for these addresses, with the numbers in force.

    An address whose group finds no free table gets none.
    """
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
            if group not in assigned:  # there are more groups than tables
                continue
            table = assigned[group]
            families.setdefault(group, set()).add(source.family)
        table_of[source.address] = table
        rules += _tunnel_rules(kernel, source, marks)
        rules += _rules(source.address, source.family, table, marks.now)
    routes = {
        (assigned[group], group[0]): copies(
            kernel.routes.get((MAIN_TABLE, group[0]), ()), group[0], frozenset(wanted), assigned[group], marks, group[1]
        )
        for group, wanted in families.items()
    }
    return SourceRouting(routes, tuple(rules), table_of)


def _group(kernel: Kernel, source: RoutedAddress, marks: Marks) -> _Group:
    """The group of an address: with the gateways of its own prefix if the interface's default routes have others as well."""
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


@cached_by_identity(objects=1)
def _gateways(routes: tuple[Route, ...], ifindex: int, family: Family, marks: Marks) -> frozenset[str]:
    """The gateways of an interface's default routes."""
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
    """The best unicast default route by the interface in ``table``, ours excepted; None if there is none."""
    return defaults(kernel.routes.get((table, ifindex), ()), marks).get(family)


@cached_by_identity(objects=1)
def defaults(routes: tuple[Route, ...], marks: Marks) -> Mapping[Family, Route]:
    """The best unicast default route of each family among these, ours excepted."""
    best: dict[Family, Route] = {}
    for route in routes:
        if route.destination in _DEFAULTS and route.type is RouteType.UNICAST and not marks.on_route(route):
            family = route.family
            if family not in best or route.metric < best[family].metric:
                best[family] = route
    return best


def gateway(route: Route | None, ifindex: int) -> str | None:
    """The gateway of a route on this interface; None if it is on-link, or there is no route."""
    return next((hop.gateway for hop in route.hops if hop.ifindex == ifindex), None) if route else None


@cached_by_identity(objects=1)
def copies(
    routes: tuple[Route, ...],
    ifindex: int,
    families: frozenset[Family],
    table: int,
    marks: Marks = MARKS,
    gateways: frozenset[str] = frozenset(),
) -> frozenset[Route]:
    """Copies for ``table`` of main's routes by the interface; default routes only by ``gateways``, if there are any.

    Of a multipath route only the hops by this interface are copied. Of IPv4 routes with the same destination, type of service
    and metric the kernel uses the first, so only that one is copied; those of IPv6 are siblings of one route, and all are.
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


@cached_by_identity(objects=1)
def own_rules(rules: tuple[Rule, ...], marks: Marks) -> frozenset[Rule]:
    """The rules among these that are ours."""
    return frozenset(filter(marks.on_rule, rules))


@cached_by_identity(objects=1)
def _has_foreign(routes: tuple[Route, ...], marks: Marks) -> bool:
    return not all(map(marks.on_route, routes))


def rank(rule: Rule) -> int:
    """The position of a rule of ours among those of its address: 0 for a tunnel's own packets, 1 to 4 for all others."""
    if not rule.only_by_source:
        return 0
    if rule.action is not RuleAction.TO_TABLE:
        return 4
    if rule.suppress_prefixlength is None:
        return 3
    return 2 if rule.table == MAIN_TABLE else 1


def _tunnel_rules(kernel: Kernel, source: RoutedAddress, marks: Marks) -> Iterable[Rule]:
    """The rules by which WireGuard's own packets follow the main table. Those that exist stay while it cannot be read."""
    if kernel.wireguard is None:
        yield from (
            rule
            for rule in kernel.rules
            if rule.source == source.address and not rule.only_by_source and marks.on_rule(rule)
        )
        return
    rule = Rule(source.family, marks.now.rule_priority, source.address, MAIN_TABLE, protocol=marks.now.protocol)
    for port in sorted(kernel.wireguard.ports):
        yield replace(rule, udp_port=port)
    for peer in sorted(kernel.wireguard.peers):
        if Family.of(peer) is source.family:
            yield replace(rule, destination=peer)


def _rules(address: str, family: Family, table: int, numbering: Numbering) -> Iterable[Rule]:
    priority, ours = numbering.rule_priority, numbering.protocol
    yield Rule(family, priority, address, table, protocol=ours, suppress_prefixlength=0)
    yield Rule(family, priority, address, MAIN_TABLE, protocol=ours, suppress_prefixlength=0)
    yield Rule(family, priority, address, table, protocol=ours)
    yield Rule(family, priority, address, action=RuleAction.UNREACHABLE, protocol=ours)


def _assign(kernel: Kernel, group_of: Mapping[str, _Group], marks: Marks) -> dict[_Group, int]:
    """A table for each group: the one that its addresses' rules or its interface's routes use, else the lowest free one."""
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

    def keep(tables_of: Callable[[_Group], Collection[int]]) -> None:
        for group in wanted:
            if group not in assigned and (kept := set(tables_of(group)) - used):
                assigned[group] = min(kept)
                used.add(assigned[group])

    keep(lambda group: by_rule.get(group, ()))
    keep(lambda group: by_interface.get(group[0], ()))
    used |= {table for table, _, _ in in_range}
    free = (table for table in tables if table not in used)
    assigned.update(zip((group for group in wanted if group not in assigned), free, strict=False))
    return assigned
