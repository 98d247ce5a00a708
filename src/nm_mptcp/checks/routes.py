# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether each address leaves by its own interface, and its answers are let in."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterator, Mapping

from ..kernel.route_lookup import RouteAnswer
from ..model.device_types import TUNNEL_LINKS
from ..model.state import MAIN_TABLE, Family, Marks, Route, RouteResult, Rule, RuleAction, marks_of
from ..policy import reachability, source_routing
from ..policy.plan import in_order
from ..report.remedies import own_table
from ..text import printable
from .facts import Facts, Place, Trouble
from .finding import Finding, Remedy, advice, bad, commands, good, not_applicable, unknown, warning

#: Where a table is looked for that nobody uses, for addresses that nm-mptcp does not route.
_FREE_TABLES = range(10000, 11000)


def ways(facts: Facts) -> Iterator[Finding]:
    """Which way the kernel sends packets from each address, as it says itself, and whether they get to what it is for."""
    places = _carrying(facts)
    if not places:
        yield not_applicable("route", "no address carries")
    for place in places:
        subject = f"{place.interface} {place.address}"
        trouble, astray = facts.trouble(place), _astray(facts, place)
        if trouble is not None:
            # Of what somebody made by hand no profile says that it may do without a default route.
            make = bad if trouble.lost or not place.decided else warning
            yield make("route", trouble.words, subject, _relieved(facts, place, trouble))
        elif astray is not None and not _is_tunnel(facts, astray):
            words = f"{_by(facts, astray)}, except subflows that the path manager opens (bound to {place.interface})"
            yield warning("route", words, subject, _routed(facts, place))
        else:
            gateway = next((each.bound.gateway for each in _answers(facts, place) if each.bound.gateway), None)
            yield good("route", f"leaves by {place.interface}{f' via {gateway}' if gateway else ''}", subject)


def rules(facts: Facts) -> Iterator[Finding]:
    """Whether our tables and rules are as they should be."""
    if not facts.routing:
        yield not_applicable("rules", "the configuration says [routing] enabled=no")
        return
    places = [place for place in _carrying(facts) if place.ours]
    if not places:
        yield not_applicable("rules", "nm-mptcp routes no address")
        return
    faulty = dict(_faults(facts, places))
    for place in places:
        subject = f"{place.interface} {place.address}"
        if faults := faulty.get(place.address):
            yield bad("rules", "; ".join(faults[:4]), subject, commands("nm-mptcp apply", safe=True))
        else:
            table = place.table
            own = f"table {table}" if table in facts.numbering.tables else f"the profile's table {table}"
            yield good("rules", f"rules at {facts.numbering.rule_priority}, {own}", subject)


def _faults(facts: Facts, places: list[Place]) -> Iterator[tuple[str, list[str]]]:
    """What is wrong with our own rules and tables, by address."""
    marks = marks_of(facts.numbering)
    wanted = source_routing.routing(facts.kernel, [_source(facts, place) for place in places], marks)
    there = frozenset(facts.kernel.rules)
    for place in places:
        table = wanted.table_of.get(place.address, 0)
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
            yield place.address, faults


def default_routes(facts: Facts) -> Iterator[Finding]:
    """Whether each link has a default route in the family of each of its addresses, with a good source hint."""
    marks = marks_of(facts.numbering)
    seen: set[tuple[int, Family, int]] = set()
    for place in _carrying(facts):
        family = Family.of(place.address)
        table = MAIN_TABLE
        if place.table is not None and place.table not in facts.numbering.tables:
            table = place.table
        if (place.ifindex, family, table) in seen:
            continue
        seen.add((place.ifindex, family, table))
        subject = f"{place.interface} {family.label}"
        route = source_routing.default_route(facts.kernel, place.ifindex, family, table, marks=marks)
        if route is None:
            trouble, case = facts.trouble(place), facts.cases.get(place.address)
            if trouble is not None:
                words = f"there is no {family.label} default route by {place.interface}"
                yield warning("default-route", words, subject, _relieved(facts, place, trouble))
            elif case is not None and case.purpose.default:
                yield good("default-route", "none in the main table; rules lead to another one", subject)
            else:
                yield good("default-route", "none, and none is needed for what its own routes lead to", subject)
        else:
            via = f" via {gateway}" if (gateway := source_routing.gateway(route, place.ifindex)) else ""
            hint = f" src {route.source}" if route.source else ""
            yield good("default-route", f"default{via} dev {place.interface}{hint}", subject)


def reverse_path(facts: Facts) -> Iterator[Finding]:
    """The kernel's reverse-path filter (IPv4): strict is right where the address leaves by its own interface."""
    dropped = facts.counters.get("IPReversePathFilter", 0)
    places = [place for place in _carrying(facts) if Family.of(place.address) is Family.IPV4]
    if not places:
        yield not_applicable("reverse-path", "no IPv4 address carries")
    for place in places:
        subject = f"{place.interface} {place.address}"
        own = int(facts.sysctls.get(f"net/ipv4/conf/{place.interface}/rp_filter", "0"))
        common = int(facts.sysctls.get("net/ipv4/conf/all/rp_filter", "0"))
        value = max(own, common)
        if value != 1:
            yield good("reverse-path", f"rp_filter is {value}: {'loose' if value else 'off'}", subject)
        elif _astray(facts, place) is None:
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
        yield not_applicable("firewall", f"'{rule}', but no address carries{whose}")
    for place in places:
        subject = f"{place.interface} {place.address}"
        bound = (each.bound for each in _answers(facts, place))
        if facts.trouble(place) is None and all(reachability.arrives(way, place.ifindex) for way in bound):
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
        yield not_applicable("arp", "no two links are on one IPv4 subnet")
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


def _answers(facts: Facts, place: Place) -> tuple[RouteAnswer, ...]:
    return facts.answers.get(place.address, ())


def _astray(facts: Facts, place: Place) -> RouteResult | None:
    """The first way, of a socket that is bound to the address alone, that is not by the address's own interface."""
    plain = (each.plain for each in _answers(facts, place))
    return next((way for way in plain if not reachability.arrives(way, place.ifindex)), None)


def _is_tunnel(facts: Facts, way: RouteResult) -> bool:
    """Whether it leaves by a tunnel: then somebody chose that, and no guard of the tunnel stands against it."""
    link = facts.kernel.links.get(way.ifindex)
    return link is not None and link.kind in TUNNEL_LINKS


def _by(facts: Facts, way: RouteResult) -> str:
    if way.error:
        return f"packets find {way.error}"
    link = facts.kernel.links.get(way.ifindex)
    return f"packets leave by {link.name if link else f'interface {way.ifindex}'} (table {way.table})"


def _source(facts: Facts, place: Place) -> source_routing.RoutedAddress:
    table = place.table
    assert table is not None
    return source_routing.RoutedAddress(
        place.address, place.ifindex, MAIN_TABLE if table in facts.numbering.tables else table
    )


def _faults_of_table(facts: Facts, wanted: source_routing.SourceRouting, table: int, place: Place) -> list[str]:
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


def _relieved(facts: Facts, place: Place, trouble: Trouble) -> Remedy:
    """What ends a trouble, as far as anything that can be typed does."""
    family = Family.of(place.address)
    if trouble.rule == "refuses-default" and place.path is not None:
        name = shlex.quote(printable(place.interface))
        setting = own_table(family, place.ifindex)
        return commands(
            f"nmcli connection modify uuid {place.path['uuid']} {setting}",
            f"nmcli device reapply {name}",
            words="a default route in a table of its own: nothing takes it but what is bound to the address",
        )
    if trouble.rule in ("own-network", "refuses-default"):
        return advice(f"{_by_hand(place)}; as it is good for servers in that network alone")
    if trouble.rule == "no-uplink":
        return advice("plug in the cable of its port, or bring that one up: it comes back by itself")
    return _routed(facts, place)


def _by_hand(place: Place) -> str:
    return f"add a default route by {place.interface}, in a table of its own with a rule from {place.address}"


def _routed(facts: Facts, place: Place) -> Remedy:
    """What makes an address leave by its own interface."""
    family = Family.of(place.address)
    ip = "ip -6" if family is Family.IPV6 else "ip"
    wrong = _astray(facts, place)
    in_front = _deciding(facts, place, wrong.table) if wrong is not None and wrong.table else None
    if in_front is not None:
        where = f"{ip} rule show priority {in_front.priority}"
        if in_front.source is None:
            return advice(f"a rule for all addresses decides before the table of the link: see who made it ({where})")
        whose = f" protocol {in_front.protocol}" if in_front.protocol else ""
        line = f"{ip} rule delete priority {in_front.priority} from {in_front.source} lookup {in_front.table}{whose}"
        return commands(line, words="this rule decides before the table of the link: see who made it")
    if place.ours and any(True for _ in _faults(facts, [place])):
        return commands("nm-mptcp apply", safe=True)
    default = source_routing.default_route(facts.kernel, place.ifindex, family, marks=_marks(facts))
    if default is None and not place.ours:
        return advice(_by_hand(place))
    if place.ours or default is None or (wrong is not None and wrong.error):
        to = next((each for each in facts.cases[place.address].question.destinations), "") if facts.cases else ""
        return advice(
            f"see which rule or route says so: {ip} route get {to} from {place.address}; {ip} rule; {ip} route show table all"
        )
    used = {table for table, _ in facts.kernel.routes} | {rule.table for rule in facts.kernel.rules}
    table = next(number for number in _FREE_TABLES if number not in used)
    gateway = source_routing.gateway(default, place.ifindex)
    via = f"via {gateway} " if gateway else ""
    return commands(
        f"{ip} route add default {via}dev {shlex.quote(place.interface)} table {table}",
        f"{ip} rule add from {place.address} lookup {table}",
    )


def _marks(facts: Facts) -> Marks:
    return marks_of(facts.numbering)


def _deciding(facts: Facts, place: Place, table: int) -> Rule | None:
    """Somebody's rule that sends this address into the table where its wrong way was found, before it is our turn, or
    main's. One with other selectors cannot be told whole.
    """
    marks = _marks(facts)
    for rule in facts.kernel.rules:
        if rule.family is not Family.of(place.address) or rule.foreign or not _covers(rule.source, place.address):
            continue
        if marks.on_rule(rule) or (rule.table == MAIN_TABLE and rule.source is None):
            return None
        if rule.table == table and rule.suppress_prefixlength is None:
            return rule
    return None


def _covers(source: str | None, address: str) -> bool:
    return source is None or ipaddress.ip_address(address) in ipaddress.ip_network(source)
