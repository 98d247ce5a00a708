# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink(7): reads links, addresses, routes and rules, and writes our routes and rules."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from typing import Any

from ..model.state import Address, Family, Link, Route, RouteType, Rule
from . import rtnl_pack, rtnl_parse
from .errors import KernelError
from .netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, ROUTE, Requester, encoded


class Rtnetlink(Requester):
    """Requests: synchronous, for one thread, opened at first use, in that thread's network namespace.

    Every method raises :class:`~nm_mptcp.kernel.errors.KernelError`.
    """

    PROTOCOL = ROUTE

    # --- reading

    def links(self) -> tuple[Link, ...]:
        """All interfaces."""
        # IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS: without counters, which are not used here.
        body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0) + struct.pack("=HHI", 8, 29, 1 << 3)
        answers = self._netlink.dump(rtnl_parse.RTM_GETLINK, body, what="read the links")
        return tuple(link for link in map(rtnl_parse.link, answers) if link is not None)

    def addresses(self) -> tuple[Address, ...]:
        """All IPv4 and IPv6 addresses."""
        body = struct.pack("=BBBBI", socket.AF_UNSPEC, 0, 0, 0, 0)
        answers = self._netlink.dump(rtnl_parse.RTM_GETADDR, body, what="read the addresses")
        return tuple(address for address in map(rtnl_parse.address, answers) if address is not None)

    def routes(self, table: int | None = None, ifindex: int | None = None) -> tuple[Route, ...]:
        """The routes of all tables but the local one, of one table, or by one interface (IPv4 multipath routes with all
        their hops). The kernel filters since 4.20; before that they are filtered here.
        """
        what = "read the routes" if table is None else f"read the routes of table {table}"
        found: list[Route] = []
        for family in Family:
            body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
            if table is not None:
                body += struct.pack("=HHI", 8, 15, table)
            if ifindex is not None:
                body += struct.pack("=HHI", 8, 4, ifindex)
            for answer in self._table(body, what):
                found += rtnl_parse.routes(answer)
        return tuple(
            route
            for route in found
            if (table is None or route.table == table)
            and (ifindex is None or any(hop.ifindex == ifindex for hop in route.hops))
        )

    def rules(self) -> tuple[Rule, ...]:
        """The policy routing rules of both families, each family's in the order of evaluation."""
        found: list[Rule] = []
        for family in Family:
            body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
            answers = self._netlink.dump(rtnl_parse.RTM_GETRULE, body, what="read the rules")
            found += [rule for rule in map(rtnl_parse.rule, answers) if rule is not None]
        return tuple(found)

    # --- writing

    def add_route(self, route: Route) -> None:
        """Add a route. An IPv6 route joins those with the same destination and metric (multipath siblings), and fails with
        EEXIST if it exists; an IPv4 route fails with EEXIST if any has its destination, TOS and metric.
        """
        ours = NLM_F_EXCL if route.family is Family.IPV4 else NLM_F_APPEND
        if route.family is Family.IPV6 and route.type is not RouteType.UNICAST:
            ours = NLM_F_EXCL
        self._route(rtnl_parse.RTM_NEWROUTE, NLM_F_CREATE | ours, route, "add")

    def replace_route(self, route: Route) -> None:
        """Replace the IPv4 route with the same destination, TOS and metric, or add it.

        Raises :class:`ValueError` for IPv6, where it would replace a sibling as well.
        """
        if route.family is Family.IPV6:
            raise ValueError(f"IPv6 routes are not replaced but added and deleted: {describe_route(route)}")
        self._route(rtnl_parse.RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route, "replace")

    def delete_route(self, route: Route, *, is_present: Callable[[Route], bool] | None = None) -> None:
        """Delete exactly this route: one that differs in protocol, metric, TOS, type or hops stays. Fails with ESRCH if it does
        not exist.

        The kernel matches anything where a value is 0 or left out (``fib_nh_match``, ``ip6_route_del``). So a route without
        a protocol raises :class:`ValueError`, and where metric or gateway are missing it is first checked that the route
        exists: by ``is_present``, which a caller gives who deletes many, or else by a dump of the table.
        """
        if not route.protocol:
            raise ValueError(f"delete route {describe_route(route)}: without a protocol another's route would match")
        vague = not route.metric or not route.hops or any(not hop.gateway for hop in route.hops)
        if vague and not (is_present or self._is_present)(route):
            raise KernelError(errno.ESRCH, f"delete route {describe_route(route)}")
        self._route(rtnl_parse.RTM_DELROUTE, 0, route, "delete")

    def add_rule(self, rule: Rule) -> None:
        """Add a rule. Fails with EEXIST if the same exists."""
        what = f"add rule {rule.family.label} {rule}"
        self._netlink.request(rtnl_parse.RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, _rule_body(rule), what=what)

    def move_rule(self, rule: Rule) -> None:
        """Move an existing rule behind all others of its priority: it is added a second time, then the first is deleted."""
        what = f"move rule {rule.family.label} {rule}"
        self._netlink.request(rtnl_parse.RTM_NEWRULE, NLM_F_CREATE, _rule_body(rule), what=what)
        self._netlink.request(rtnl_parse.RTM_DELRULE, 0, _rule_body(rule), what=what)

    def delete_rule(self, rule: Rule) -> None:
        """Delete the first such rule; one that differs in its protocol stays. Fails with ENOENT if there is none.

        Without ``suppress_prefixlength`` it also matches a rule that has it (kernel: ``rule_find``): the caller orders its
        deletes accordingly.
        """
        what = f"delete rule {rule.family.label} {rule}"
        self._netlink.request(rtnl_parse.RTM_DELRULE, 0, _rule_body(rule), what=what)

    def _route(self, kind: int, flags: int, route: Route, verb: str) -> None:
        self._netlink.request(kind, flags, rtnl_pack.route(route), what=f"{verb} route {describe_route(route)}")

    def _is_present(self, route: Route) -> bool:
        return route in self.routes(route.table, route.hops[0].ifindex if route.hops else None)

    def _table(self, body: bytes, what: str) -> list[Any]:
        """A dump of routes; a table that does not exist (ENOENT) is empty."""
        try:
            return list(self._netlink.dump(rtnl_parse.RTM_GETROUTE, body, what=what))
        except KernelError as error:
            if error.absent:
                return []
            raise


def describe_route(route: Route) -> str:
    """A route as ``ip route`` prints it, interfaces by number."""
    words = [] if route.type is RouteType.UNICAST else [route.type.name.lower()]
    words.append("default" if route.is_default else route.destination)
    for hop in route.hops:
        if len(route.hops) > 1:
            words.append("nexthop")
        if hop.gateway:
            words += ["via", hop.gateway]
        words += ["dev", f"#{hop.ifindex}"]
    words += ["table", str(route.table)]
    if route.metric:
        words += ["metric", str(route.metric)]
    return " ".join(words)


def _rule_body(rule: Rule) -> bytes:
    from .messages import fibmsg

    message = fibmsg()
    message["family"] = int(rule.family)
    message["action"] = int(rule.action)
    attrs: list[tuple[str, Any]] = [
        ("FRA_PRIORITY", rule.priority),
        ("FRA_PROTOCOL", rule.protocol),
    ]
    if rule.table:
        attrs.append(("FRA_TABLE", rule.table))
    for name, field, prefix in (("FRA_SRC", "src_len", rule.source), ("FRA_DST", "dst_len", rule.destination)):
        if prefix is not None:
            address, _, length = prefix.partition("/")
            message[field] = int(length) if length else rule.family.bits
            attrs.append((name, address))
    if rule.udp_port:
        attrs += [("FRA_IP_PROTO", socket.IPPROTO_UDP), ("FRA_SPORT_RANGE", f"{rule.udp_port}:{rule.udp_port}")]
    if rule.suppress_prefixlength is not None:
        attrs.append(("FRA_SUPPRESS_PREFIXLEN", rule.suppress_prefixlength))
    message["attrs"] = attrs
    return encoded(message)
