# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether packets from each address leave by its own interface, and whether the answers are accepted."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterator, Mapping

from ..kernel.route_lookup import RouteAnswer
from ..model.device_types import TUNNEL_LINKS
from ..model.state import MAIN_TABLE, Family, Marks, Route, RouteResult, Rule, marks_of
from ..policy import reachability, source_routing
from ..policy.plan import in_order
from ..report.remedies import own_table
from ..text import printable
from .facts import CheckedAddress, SystemFacts, Trouble
from .finding import Finding, Remedy, advice, bad, commands, good, not_applicable, unknown, warning

#: Tables from which a free one is proposed, for addresses that nm-mptcp does not route.
_FREE_TABLES = range(10000, 11000)


def route_lookups(facts: SystemFacts) -> Iterator[Finding]:
    """The kernel's route for packets from each address, and whether they reach what the address is for."""
    addresses = _in_use(facts)
    if not addresses:
        yield not_applicable("route", "no address is in use")
    for checked in addresses:
        subject = checked.subject
        trouble, misrouted = facts.trouble(checked), _misrouted(facts, checked)
        if trouble is not None:
            # For a manual endpoint there is no profile that would allow it to have no default route.
            make = bad if trouble.lost or not checked.decided else warning
            yield make("route", trouble.text, subject, _trouble_remedy(facts, checked, trouble))
        elif misrouted is not None and not _is_tunnel(facts, misrouted):
            only = f"subflows that the path manager opens (bound to {checked.interface})"
            evidence = f"{_leaves_by(facts, misrouted)}, except {only}"
            yield warning("route", evidence, subject, _route_remedy(facts, checked))
        else:
            gateway = next((each.bound.gateway for each in _answers(facts, checked) if each.bound.gateway), None)
            yield good("route", f"leaves by {checked.interface}{f' via {gateway}' if gateway else ''}", subject)


def rules(facts: SystemFacts) -> Iterator[Finding]:
    """Whether nm-mptcp's rules and tables are complete and in order."""
    if not facts.routing:
        yield not_applicable("rules", "[routing] enabled=no is configured")
        return
    addresses = [checked for checked in _in_use(facts) if checked.ours]
    if not addresses:
        yield not_applicable("rules", "no address is routed by nm-mptcp")
        return
    faulty = dict(_routing_faults(facts, addresses))
    for checked in addresses:
        subject = checked.subject
        if faults := faulty.get(checked.address):
            yield bad("rules", "; ".join(faults[:4]), subject, commands("nm-mptcp apply", safe=True))
        else:
            table = checked.table
            own = f"table {table}" if table in facts.numbering.tables else f"the profile's table {table}"
            yield good("rules", f"rules at {facts.numbering.rule_priority}, {own}", subject)


def _routing_faults(facts: SystemFacts, addresses: list[CheckedAddress]) -> Iterator[tuple[str, list[str]]]:
    """What is wrong with nm-mptcp's rules and tables: address -> faults."""
    marks = marks_of(facts.numbering)
    wanted = source_routing.routing(facts.kernel, [_source(facts, checked) for checked in addresses], marks)
    there = frozenset(facts.kernel.rules)
    for checked in addresses:
        table = wanted.table_of.get(checked.address, 0)
        missing = [rule for rule in wanted.rules if rule.source == checked.address and rule not in there]
        extra = [
            rule
            for rule in facts.kernel.rules
            if rule.source == checked.address and marks.on_rule(rule) and rule not in wanted.rules
        ]
        faults = [f"no rule '{rule}'" for rule in missing]
        faults += [f"a wrong rule '{rule}'" for rule in extra]
        if not faults and not in_order(facts.kernel.rules, wanted.rules, checked.address, marks):
            faults = ["its rules are out of order, or in front of another program's of the same priority"]
        faults += _table_faults(facts, wanted, table, checked)
        if faults:
            yield checked.address, faults


def default_routes(facts: SystemFacts) -> Iterator[Finding]:
    """Whether each link has a default route for the family of each of its addresses."""
    marks = marks_of(facts.numbering)
    seen: set[tuple[int, Family, int]] = set()
    for checked in _in_use(facts):
        family = Family.of(checked.address)
        table = MAIN_TABLE
        if checked.table is not None and checked.table not in facts.numbering.tables:
            table = checked.table
        if (checked.ifindex, family, table) in seen:
            continue
        seen.add((checked.ifindex, family, table))
        subject = f"{checked.interface} {family.label}"
        route = source_routing.default_route(facts.kernel, checked.ifindex, family, table, marks=marks)
        if route is None:
            trouble, case = facts.trouble(checked), facts.cases.get(checked.address)
            if trouble is not None:
                words = f"there is no {family.label} default route by {checked.interface}"
                yield warning("default-route", words, subject, _trouble_remedy(facts, checked, trouble))
            elif case is not None and case.purpose.default:
                yield good("default-route", "none in the main table; rules select another one", subject)
            else:
                yield good("default-route", "none, and its own routes need none", subject)
        else:
            via = f" via {gateway}" if (gateway := source_routing.gateway(route, checked.ifindex)) else ""
            hint = f" src {route.source}" if route.source else ""
            yield good("default-route", f"default{via} dev {checked.interface}{hint}", subject)


def reverse_path(facts: SystemFacts) -> Iterator[Finding]:
    """The kernel's reverse-path filter (IPv4): strict works where packets from the address leave by its own interface."""
    dropped = facts.counters.get("IPReversePathFilter", 0)
    addresses = [checked for checked in _in_use(facts) if Family.of(checked.address) is Family.IPV4]
    if not addresses:
        yield not_applicable("reverse-path", "no IPv4 address is in use")
    for checked in addresses:
        subject = checked.subject
        own = int(facts.sysctls.get(f"net/ipv4/conf/{checked.interface}/rp_filter", "0"))
        common = int(facts.sysctls.get("net/ipv4/conf/all/rp_filter", "0"))
        value = max(own, common)
        if value != 1:
            yield good("reverse-path", f"rp_filter is {value}: {'loose' if value else 'off'}", subject)
        elif _misrouted(facts, checked) is None:
            yield good("reverse-path", "rp_filter is 1 (strict), and packets leave by the own interface", subject)
        else:
            words = f"rp_filter is 1 (strict), and the return route is not by {checked.interface}: answers are dropped"
            many = f" ({dropped} packets so far)" if dropped else ""
            yield bad("reverse-path", words + many, subject, _route_remedy(facts, checked))


def firewall(facts: SystemFacts) -> Iterator[Finding]:
    """Reverse-path matches in nftables, firewalld's among them."""
    known = facts.firewall
    if known.unread:
        set_ = f"; firewalld.conf sets IPv6_rpfilter={known.firewalld}" if known.firewalld else ""
        yield unknown("firewall", f"cannot read the packet filter: {known.unread}{set_}")
        return
    if not known.rules:
        yield good("firewall", "no reverse-path match in nftables")
        return
    whose = f" (firewalld: IPv6_rpfilter={known.firewalld})" if known.firewalld else ""
    rule = known.rules[0]
    addresses = _in_use(facts)
    if not addresses:
        yield not_applicable("firewall", f"'{rule}', but no address is in use{whose}")
    for checked in addresses:
        subject = checked.subject
        bound = (each.bound for each in _answers(facts, checked))
        if facts.trouble(checked) is None and all(reachability.arrives(route, checked.ifindex) for route in bound):
            yield good("firewall", f"'{rule}' accepts answers to this address{whose}", subject)
        else:
            words = f"'{rule}' drops answers to this address: no route leaves by {checked.interface}{whose}"
            yield bad("firewall", words, subject, _route_remedy(facts, checked))


def tunnels(facts: SystemFacts) -> Iterator[Finding]:
    """Whether the packet filter is there that keeps connections in the tunnel that they began in."""
    known = facts.firewall
    if not facts.guarded:
        yield not_applicable("tunnels", "there is no tunnel that connections have to stay in")
    for name in facts.guarded:
        leaks = "a connection that begins in it may get subflows beside it"
        if not facts.tools.get("nft"):
            remedy = advice("install nftables; the service tries again within half a minute")
            yield bad("tunnels", f"nft is not installed: {leaks}", name, remedy)
        elif known.unread:
            yield unknown("tunnels", f"cannot read the packet filter: {known.unread}", name)
        elif name in known.guarded:
            yield good("tunnels", "connections that begin in it get no subflow beside it (nft table nm-mptcp)", name)
        else:
            remedy = commands("systemctl restart nm-mptcp") if facts.systemd else advice("restart the service")
            yield bad("tunnels", f"the nft table nm-mptcp does not have it: {leaks}", name, remedy)


def one_subnet(facts: SystemFacts) -> Iterator[Finding]:
    """Links on the same subnet: each must answer ARP for its own addresses only."""
    at: dict[str, dict[int, str]] = {}
    for ifindex, group in facts.kernel.addresses.items():
        for each in group:
            link = facts.kernel.links.get(ifindex)
            if each.family is Family.IPV4 and each.prefixlen < 31 and each.scope == 0 and link and not link.loopback:
                subnet = ipaddress.ip_interface(f"{each.address}/{each.prefixlen}").network
                at.setdefault(str(subnet), {})[ifindex] = link.name
    carrying = {checked.ifindex for checked in _in_use(facts)}
    shared = {subnet: links for subnet, links in at.items() if len(links) > 1 and carrying & set(links)}
    if not shared:
        yield not_applicable("arp", "no two links are on one IPv4 subnet")
    for network, links in shared.items():
        for name in sorted(links.values()):
            ignore, announce, filter_ = (_arp(facts, name, key) for key in ("arp_ignore", "arp_announce", "arp_filter"))
            settings = f"arp_ignore {ignore}, arp_announce {announce}, arp_filter {filter_}"
            if (ignore in (1, 2) or filter_) and announce:
                yield good(
                    "arp",
                    f"{network} is on {len(links)} links, and each answers for its own addresses ({settings})",
                    name,
                )
                continue
            lines = [f"sysctl -w net/ipv4/conf/{name}/{key}" for key in ("arp_ignore=1", "arp_announce=2")]
            words = f"{network} is on {' and '.join(sorted(links.values()))}"
            evidence = f"{words}, and this one answers ARP for the others ({settings})"
            yield warning("arp", evidence, name, commands(*lines))


def _arp(facts: SystemFacts, name: str, key: str) -> int:
    return max(int(facts.sysctls.get(f"net/ipv4/conf/{where}/{key}", "0")) for where in (name, "all"))


def _in_use(facts: SystemFacts) -> list[CheckedAddress]:
    """The addresses that are used now: not those of suspended and waiting paths, nor of links that are down."""
    return [
        checked
        for checked in facts.addresses()
        if checked.ifindex
        and facts.kernel.links[checked.ifindex].up
        and not facts.kernel.links[checked.ifindex].loopback
        and (checked.path is None or checked.path["state"] not in ("suspended", "waiting"))
        # With a full tunnel no packet is meant to leave by the link below.
        and facts.tunnels.get(Family.of(checked.address).label.lower()) in (None, checked.interface)
    ]


def _answers(facts: SystemFacts, checked: CheckedAddress) -> tuple[RouteAnswer, ...]:
    return facts.answers.get(checked.address, ())


def _misrouted(facts: SystemFacts, checked: CheckedAddress) -> RouteResult | None:
    """The first route, of a socket bound to the address alone, that is not by the address's own interface."""
    plain = (each.plain for each in _answers(facts, checked))
    return next((route for route in plain if not reachability.arrives(route, checked.ifindex)), None)


def _is_tunnel(facts: SystemFacts, route: RouteResult) -> bool:
    """Whether the route is by a tunnel, which is an administrator's choice."""
    link = facts.kernel.links.get(route.ifindex)
    return link is not None and link.kind in TUNNEL_LINKS


def _leaves_by(facts: SystemFacts, route: RouteResult) -> str:
    if route.error:
        return f"packets find {route.error}"
    link = facts.kernel.links.get(route.ifindex)
    return f"packets leave by {link.name if link else f'interface {route.ifindex}'} (table {route.table})"


def _source(facts: SystemFacts, checked: CheckedAddress) -> source_routing.RoutedAddress:
    table = checked.table
    assert table is not None
    return source_routing.RoutedAddress(
        checked.address, checked.ifindex, MAIN_TABLE if table in facts.numbering.tables else table
    )


def _table_faults(
    facts: SystemFacts, wanted: source_routing.SourceRouting, table: int, checked: CheckedAddress
) -> list[str]:
    family = Family.of(checked.address)

    def of_family(group: Mapping[tuple[int, int], tuple[Route, ...] | frozenset[Route]]) -> frozenset[Route]:
        return frozenset(
            route
            for key in ((table, checked.ifindex), (table, 0))
            for route in group.get(key, ())
            if route.family is family
        )

    if table not in facts.numbering.tables:
        return []
    # While a link has no carrier, failover routes for its destinations are in the other links' tables.
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
    faults = [f"no route to {_destination(route)} in table {table}" for route in sorted(want - have, key=_route_order)]
    return faults + [
        f"a wrong route to {_destination(route)} in table {table}" for route in sorted(have - want, key=_route_order)
    ]


def _route_order(route: Route) -> tuple[str, int]:
    return (route.destination, route.metric)


def _destination(route: Route) -> str:
    return "default" if route.is_default else route.destination


def _trouble_remedy(facts: SystemFacts, checked: CheckedAddress, trouble: Trouble) -> Remedy:
    """What ends a trouble."""
    family = Family.of(checked.address)
    if trouble.rule == "refuses-default" and checked.path is not None:
        name = shlex.quote(printable(checked.interface))
        setting = own_table(family, checked.ifindex)
        return commands(
            f"nmcli connection modify uuid {checked.path['uuid']} {setting}",
            f"nmcli device reapply {name}",
            words="a default route in a table of its own, used only by sockets bound to the address",
        )
    if trouble.rule in ("own-network", "refuses-default"):
        return advice(f"{_manual_route(checked)}; without it only servers in that network are reachable")
    if trouble.rule == "no-uplink":
        return advice("connect the cable of its port, or bring the port up")
    if trouble.rule == "endpoint-elsewhere":
        return advice("see 'endpoint'")
    return _route_remedy(facts, checked)


def _manual_route(checked: CheckedAddress) -> str:
    return f"add a default route by {checked.interface}, in a table of its own with a rule from {checked.address}"


def _route_remedy(facts: SystemFacts, checked: CheckedAddress) -> Remedy:
    """What makes packets from the address leave by its own interface."""
    family = Family.of(checked.address)
    ip = "ip -6" if family is Family.IPV6 else "ip"
    wrong = _misrouted(facts, checked)
    in_front = _preceding_rule(facts, checked, wrong.table) if wrong is not None and wrong.table else None
    if in_front is not None:
        where = f"{ip} rule show priority {in_front.priority}"
        if in_front.source is None:
            return advice(
                f"a rule for all addresses comes before the link's table: find out which program made it ({where})"
            )
        whose = f" protocol {in_front.protocol}" if in_front.protocol else ""
        line = f"{ip} rule delete priority {in_front.priority} from {in_front.source} lookup {in_front.table}{whose}"
        return commands(line, words="this rule comes before the link's table: find out which program made it")
    if checked.ours and any(True for _ in _routing_faults(facts, [checked])):
        return commands("nm-mptcp apply", safe=True)
    default = source_routing.default_route(facts.kernel, checked.ifindex, family, marks=_marks(facts))
    if default is None and not checked.ours:
        return advice(_manual_route(checked))
    if checked.ours or default is None or (wrong is not None and wrong.error):
        to = next((each for each in facts.cases[checked.address].question.destinations), "") if facts.cases else ""
        return advice(
            f"find the rule or route: {ip} route get {to} from {checked.address}; {ip} rule; {ip} route show table all"
        )
    used = {table for table, _ in facts.kernel.routes} | {rule.table for rule in facts.kernel.rules}
    table = next(number for number in _FREE_TABLES if number not in used)
    gateway = source_routing.gateway(default, checked.ifindex)
    via = f"via {gateway} " if gateway else ""
    return commands(
        f"{ip} route add default {via}dev {shlex.quote(checked.interface)} table {table}",
        f"{ip} rule add from {checked.address} lookup {table}",
    )


def _marks(facts: SystemFacts) -> Marks:
    return marks_of(facts.numbering)


def _preceding_rule(facts: SystemFacts, checked: CheckedAddress, table: int) -> Rule | None:
    """Another program's rule, before nm-mptcp's and main's, that looks up this table for this address.

    Not one with selectors that the snapshot does not have: it could not be deleted by what is known of it.
    """
    marks = _marks(facts)
    for rule in facts.kernel.rules:
        if rule.family is not Family.of(checked.address) or not _covers(rule, checked.address):
            continue
        if marks.on_rule(rule) or (rule.table == MAIN_TABLE and rule.source is None):
            return None
        if rule.table == table and rule.suppress_prefixlength is None:
            return rule
    return None


def _covers(rule: Rule, address: str) -> bool:
    """Whether a rule applies to all packets from an address."""
    if not rule.only_by_source:
        return False
    return rule.source is None or ipaddress.ip_address(address) in ipaddress.ip_network(rule.source)
