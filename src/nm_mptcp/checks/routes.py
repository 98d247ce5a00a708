# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether each address leaves by its own interface, and its answers are let in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from .. import tables
from ..kernel.ways import Way
from ..model import MAIN_TABLE, Family, Marks, Route, Rule, RuleAction, marks_of
from ..plan import in_order
from .facts import Facts, Place
from .finding import Finding, Remedy, advice, bad, commands, good, moot, unknown, warning

#: Where a table is looked for that nobody uses, for addresses that nm-mptcp does not route.
_FREE_TABLES = range(10000, 11000)


def ways(facts: Facts) -> Iterator[Finding]:
    """Which way the kernel sends packets from each address, as it says itself."""
    places = _carrying(facts)
    if not places:
        yield moot("route", "no address carries")
    for place in places:
        subject = f"{place.interface} {place.address}"
        wrong = _wrong(facts.ways, place)
        if wrong is None:
            gateway = next((way.gateway for way in facts.ways.get(place.address, ()) if way.gateway), None)
            yield good("route", f"leaves by {place.interface}{f' via {gateway}' if gateway else ''}", subject)
            continue
        where = _by(facts, wrong)
        if place.endpoint is not None and place.endpoint.ifindex and _wrong(facts.bound, place) is None:
            words = f"{where}, except subflows that the path manager opens (bound to {place.interface})"
            yield warning("route", words, subject, _routed(facts, place))
        else:
            yield bad("route", f"{where}: nothing from this address gets through", subject, _routed(facts, place))


def rules(facts: Facts) -> Iterator[Finding]:
    """Whether our tables and rules are as they should be."""
    if not facts.routing:
        yield moot("rules", "the configuration says [routing] enabled=no")
        return
    places = [place for place in _carrying(facts) if place.ours]
    if not places:
        yield moot("rules", "nm-mptcp routes no address")
        return
    marks = marks_of(facts.numbering)
    wanted = tables.routing(facts.kernel, [_source(facts, place) for place in places], marks)
    there = frozenset(facts.kernel.rules)
    for place in places:
        table = wanted.table_of.get(place.address, 0)
        subject = f"{place.interface} {place.address}"
        lacking = [rule for rule in wanted.rules if rule.source == place.address and rule not in there]
        strangers = [
            rule
            for rule in facts.kernel.rules
            if rule.source == place.address and marks.on_rule(rule) and rule not in wanted.rules
        ]
        faults = [f"no rule {_words(rule)}" for rule in lacking]
        faults += [f"a wrong rule {_words(rule)}" for rule in strangers]
        if not faults and not in_order(facts.kernel.rules, wanted.rules, place.address, marks):
            faults = ["its rules are out of order, or somebody else's of the same priority stand behind them"]
        faults += _faults_of_table(facts, wanted, table, place)
        if faults:
            yield bad("rules", "; ".join(faults[:4]), subject, commands("nm-mptcp apply", safe=True))
        else:
            own = f"table {table}" if table in facts.numbering.tables else f"the profile's table {table}"
            yield good("rules", f"rules at {facts.numbering.rule_priority}, {own}", subject)


def default_routes(facts: Facts) -> Iterator[Finding]:
    """Whether each link has a default route in the family of each of its addresses, with a good source hint."""
    marks = marks_of(facts.numbering)
    seen: set[tuple[int, Family, int]] = set()
    for place in _carrying(facts):
        family = Family.of(place.address)
        table = MAIN_TABLE
        if place.ours and place.path is not None and place.path["table"] not in facts.numbering.tables:
            table = place.path["table"]
        if (place.ifindex, family, table) in seen:
            continue
        seen.add((place.ifindex, family, table))
        subject = f"{place.interface} {family.label}"
        route = tables.default_route(facts.kernel, place.ifindex, family, table, marks=marks)
        if route is None:
            if _wrong(facts.ways, place) is None:
                yield good("default-route", "none in the main table; rules lead to another one", subject)
            else:
                words = f"there is no {family.label} default route by {place.interface}"
                yield warning("default-route", words, subject, _gateway_of_profile(place, family))
        else:
            via = f" via {gateway}" if (gateway := tables.gateway(route, place.ifindex)) else ""
            hint = f" src {route.source}" if route.source else ""
            yield good("default-route", f"default{via} dev {place.interface}{hint}", subject)


def reverse_path(facts: Facts) -> Iterator[Finding]:
    """The kernel's reverse-path filter (IPv4): strict is right where the address leaves by its own interface."""
    dropped = facts.counters.get("IPReversePathFilter", 0)
    places = [place for place in _carrying(facts) if Family.of(place.address) is Family.IPV4]
    if not places:
        yield moot("reverse-path", "no IPv4 address carries")
    for place in places:
        subject = f"{place.interface} {place.address}"
        own = int(facts.sysctls.get(f"net/ipv4/conf/{place.interface}/rp_filter", "0"))
        common = int(facts.sysctls.get("net/ipv4/conf/all/rp_filter", "0"))
        value = max(own, common)
        if value != 1:
            yield good("reverse-path", f"rp_filter is {value}: {'loose' if value else 'off'}", subject)
        elif _wrong(facts.ways, place) is None:
            yield good("reverse-path", "rp_filter is 1 (strict), and the address leaves by its own interface", subject)
        else:
            words = f"rp_filter is 1 (strict), and the way back is not by {place.interface}: answers are dropped"
            many = f" ({dropped} packets so far)" if dropped else ""
            yield bad("reverse-path", words + many, subject, _routed(facts, place))


def firewall(facts: Facts) -> Iterator[Finding]:
    """Reverse-path matches in nftables, firewalld's among them."""
    known = facts.firewall
    if known.unread:
        set_ = f"; firewalld.conf says IPv6_rpfilter={known.firewalld}" if known.firewalld else ""
        yield unknown("firewall", f"the packet filter could not be looked at: {known.unread}{set_}")
        return
    if not known.rules:
        yield good("firewall", "no reverse-path match in nftables")
        return
    whose = f" (firewalld: IPv6_rpfilter={known.firewalld})" if known.firewalld else ""
    rule = known.rules[0]
    places = _carrying(facts)
    if not places:
        yield moot("firewall", f"'{rule}', but no address carries{whose}")
    for place in places:
        subject = f"{place.interface} {place.address}"
        if _wrong(facts.bound, place) is None:
            yield good("firewall", f"'{rule}' lets answers to this address in{whose}", subject)
        else:
            words = f"'{rule}' drops answers to this address: no route leaves by {place.interface}{whose}"
            yield bad("firewall", words, subject, _routed(facts, place))


def one_subnet(facts: Facts) -> Iterator[Finding]:
    """Two links on one subnet: each must answer ARP for its own addresses only."""
    at: dict[str, dict[int, str]] = {}
    for ifindex, group in facts.kernel.addresses.items():
        for each in group:
            link = facts.kernel.links.get(ifindex)
            if each.family is Family.IPV4 and each.prefixlen < 31 and each.scope == 0 and link and not link.loopback:
                subnet = ipaddress.ip_interface(f"{each.address}/{each.prefixlen}").network
                at.setdefault(str(subnet), {})[ifindex] = link.name
    carrying = {place.ifindex for place in _carrying(facts)}
    shared = {subnet: links for subnet, links in at.items() if len(links) > 1 and carrying & set(links)}
    if not shared:
        yield moot("arp", "no two links are on one IPv4 subnet")
    for network, links in shared.items():
        for name in sorted(links.values()):
            ignore, announce, filter_ = (_arp(facts, name, key) for key in ("arp_ignore", "arp_announce", "arp_filter"))
            settings = f"arp_ignore {ignore}, arp_announce {announce}, arp_filter {filter_}"
            if (ignore in (1, 2) or filter_) and announce:
                yield good("arp", f"{network} is on {len(links)} links, and each answers for itself ({settings})", name)
                continue
            lines = [f"sysctl -w net/ipv4/conf/{name}/{key}" for key in ("arp_ignore=1", "arp_announce=2")]
            words = f"{network} is on {' and '.join(sorted(links.values()))}, and this one answers for the others ({settings})"
            yield warning("arp", words, name, commands(*lines))


def _arp(facts: Facts, name: str, key: str) -> int:
    return max(int(facts.sysctls.get(f"net/ipv4/conf/{where}/{key}", "0")) for where in (name, "all"))


def _carrying(facts: Facts) -> list[Place]:
    """The addresses that are there and should carry, those of suspended paths and of links that are down aside."""
    return [
        place
        for place in facts.places()
        if place.ifindex
        and facts.kernel.links[place.ifindex].up
        and not facts.kernel.links[place.ifindex].loopback
        and (place.path is None or place.path["state"] not in ("suspended", "waiting"))
        # Beside a full tunnel nothing is meant to leave by the link below.
        and facts.tunnels.get(Family.of(place.address).label.lower()) in (None, place.interface)
    ]


def _wrong(ways: Mapping[str, tuple[Way, ...]], place: Place) -> Way | None:
    """The first of these ways that is not by the address's own interface."""
    return next((way for way in ways.get(place.address, ()) if way.ifindex != place.ifindex), None)


def _by(facts: Facts, way: Way) -> str:
    if way.refused:
        return f"packets find {way.refused}"
    link = facts.kernel.links.get(way.ifindex)
    return f"packets leave by {link.name if link else f'interface {way.ifindex}'} (table {way.table})"


def _source(facts: Facts, place: Place) -> tables.Source:
    assert place.path is not None
    table = place.path["table"]
    return tables.Source(place.address, place.ifindex, MAIN_TABLE if table in facts.numbering.tables else table)


def _faults_of_table(facts: Facts, wanted: tables.Routing, table: int, place: Place) -> list[str]:
    family = Family.of(place.address)

    def of_family(group: Mapping[tuple[int, int], tuple[Route, ...] | frozenset[Route]]) -> frozenset[Route]:
        return frozenset(
            route
            for key in ((table, place.ifindex), (table, 0))
            for route in group.get(key, ())
            if route.family is family
        )

    if table not in facts.numbering.tables:
        return []
    # While a link has no carrier there are ways around it.
    around = {
        route.destination
        for (number, ifindex), routes in facts.kernel.routes.items()
        if number == MAIN_TABLE and (link := facts.kernel.links.get(ifindex)) and not link.carrier
        for route in routes
    }
    want = of_family(wanted.routes)
    have = frozenset(
        route for route in of_family(facts.kernel.routes) if route in want or route.destination not in around
    )
    faults = [f"no route to {_destination(route)} in table {table}" for route in sorted(want - have, key=_place_of)]
    return faults + [
        f"a wrong route to {_destination(route)} in table {table}" for route in sorted(have - want, key=_place_of)
    ]


def _place_of(route: Route) -> tuple[str, int]:
    return (route.destination, route.metric)


def _destination(route: Route) -> str:
    return "default" if route.is_default else route.destination


def _words(rule: Rule) -> str:
    end = f"lookup {rule.table}" if rule.action is RuleAction.TO_TABLE else rule.action.name.lower()
    least = f" suppress_prefixlength {rule.suppress_prefixlength}" if rule.suppress_prefixlength is not None else ""
    return f"'{rule.priority}: from {rule.source} {end}{least}'"


def _routed(facts: Facts, place: Place) -> Remedy:
    """What makes an address leave by its own interface."""
    family = Family.of(place.address)
    ip = "ip -6" if family is Family.IPV6 else "ip"
    wrong = _wrong(facts.ways, place)
    first = facts.numbering.rule_priority if place.ours else 32766
    in_front = _deciding(facts, place, first, wrong.table) if wrong is not None else None
    if in_front is not None:
        source = f"from {in_front.source or 'all'}"
        line = f"{ip} rule delete priority {in_front.priority} {source} lookup {in_front.table}"
        return commands(line, words="this rule decides before the table of the link: see who made it")
    if place.ours:
        return commands("nm-mptcp apply", safe=True)
    default = tables.default_route(facts.kernel, place.ifindex, family, marks=_marks(facts))
    if default is None:
        return _gateway_of_profile(place, family)
    used = {table for table, _ in facts.kernel.routes} | {rule.table for rule in facts.kernel.rules}
    table = next(number for number in _FREE_TABLES if number not in used)
    gateway = tables.gateway(default, place.ifindex)
    via = f"via {gateway} " if gateway else ""
    return commands(
        f"{ip} route add default {via}dev {place.interface} table {table}",
        f"{ip} rule add from {place.address} lookup {table}",
    )


def _gateway_of_profile(place: Place, family: Family) -> Remedy:
    if place.path is not None and place.path["uuid"]:
        key = "ipv4" if family is Family.IPV4 else "ipv6"
        return commands(
            f"nmcli connection show uuid {place.path['uuid']}",
            words=f"look at {key}.gateway and {key}.never-default: the profile gives no default route",
        )
    return advice(f"add a default route by {place.interface}, in a table of its own with a rule from {place.address}")


def _marks(facts: Facts) -> Marks:
    return marks_of(facts.numbering)


def _deciding(facts: Facts, place: Place, before: int, table: int) -> Rule | None:
    """Somebody's rule that sends this address into the table where its wrong way was found, before it is our turn."""
    for rule in sorted(facts.kernel.rules, key=lambda rule: rule.priority):
        if rule.priority >= before:
            return None
        if rule.family is not Family.of(place.address) or rule.table != table or rule.foreign:
            continue
        if rule.suppress_prefixlength is None and _covers(rule.source, place.address):
            return rule
    return None


def _covers(source: str | None, address: str) -> bool:
    return source is None or ipaddress.ip_address(address) in ipaddress.ip_network(source)
