# SPDX-License-Identifier: GPL-2.0-or-later
"""Links, addresses, routes and rules: reading them, and writing the routes and rules that are ours."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from typing import Any

from ..model.state import Address, Family, Link, Route, RouteType, Rule, RuleAction
from . import rtnl_pack, rtnl_parse
from .errors import KernelError
from .netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, ROUTE, Requester, encoded


class Rtnetlink(Requester):
    """rtnetlink requests: synchronous, for one thread, opened at first use, in that thread's network namespace.

    Everything raises :class:`~nm_mptcp.kernel.errors.KernelError`.
    """

    PROTOCOL = ROUTE

    # --- reading

    def links(self) -> tuple[Link, ...]:
        """All interfaces."""
        # IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS: no counters, which nobody here looks at.
        body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0) + struct.pack("=HHI", 8, 29, 1 << 3)
        answers = self._netlink.dump(rtnl_parse.RTM_GETLINK, body, what="read the links")
        return tuple(link for link in map(rtnl_parse.link, answers) if link is not None)

    def addresses(self) -> tuple[Address, ...]:
        """All IPv4 and IPv6 addresses."""
        body = struct.pack("=BBBBI", socket.AF_UNSPEC, 0, 0, 0, 0)
        answers = self._netlink.dump(rtnl_parse.RTM_GETADDR, body, what="read the addresses")
        return tuple(address for address in map(rtnl_parse.address, answers) if address is not None)

    def routes(self, table: int | None = None, ifindex: int | None = None) -> tuple[Route, ...]:
        """The routes of all tables save the local one, or of one table, or those over one interface (IPv4 multipath
        routes with all their hops). The kernel filters (4.20; older ones tell all, and they are filtered here).
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
        """The policy routing rules of both families, each family's in the order in which they are asked."""
        found: list[Rule] = []
        for family in Family:
            body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
            answers = self._netlink.dump(rtnl_parse.RTM_GETRULE, body, what="read the rules")
            found += [rule for rule in map(rtnl_parse.rule, answers) if rule is not None]
        return tuple(found)

    # --- writing

    def add_route(self, route: Route) -> None:
        """Add a route. An IPv6 route joins those with the same destination and metric (multipath siblings); the same one
        again is EEXIST. In IPv4 anything with the same destination, TOS and metric is in the way (EEXIST).
        """
        ours = NLM_F_EXCL if route.family is Family.IPV4 else NLM_F_APPEND
        if route.family is Family.IPV6 and route.type is not RouteType.UNICAST:
            ours = NLM_F_EXCL
        self._route(rtnl_parse.RTM_NEWROUTE, NLM_F_CREATE | ours, route, "add")

    def replace_route(self, route: Route) -> None:
        """Put an IPv4 route in the place of the one with the same destination, TOS and metric, or add it.

        There is no such thing for IPv6: it would take the place of a sibling as well. Raises ValueError there.
        """
        if route.family is Family.IPV6:
            raise ValueError(f"IPv6 routes are not replaced but added and deleted: {describe_route(route)}")
        self._route(rtnl_parse.RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route, "replace")

    def delete_route(self, route: Route, *, is_present: Callable[[Route], bool] | None = None) -> None:
        """Delete this very route: another that differs in protocol, metric, TOS, type or hops stays. ESRCH: not there.

        What is 0 or left out matches anything in the kernel (``fib_nh_match``, ``ip6_route_del``). So a route without a
        protocol is refused with :class:`ValueError`, and where metric or gateway are left out it is first made sure that
        the route is there: by reading the table, or ``is_present``, for who deletes many and knows them all.
        """
        if not route.protocol:
            raise ValueError(f"delete route {describe_route(route)}: without a protocol it might be anybody's")
        vague = not route.metric or not route.hops or any(not hop.gateway for hop in route.hops)
        if vague and not (is_present or self._is_present)(route):
            raise KernelError(errno.ESRCH, f"delete route {describe_route(route)}")
        self._route(rtnl_parse.RTM_DELROUTE, 0, route, "delete")

    def add_rule(self, rule: Rule) -> None:
        """Add a rule; EEXIST when the same is there already."""
        what = f"add rule {describe_rule(rule)}"
        self._netlink.request(rtnl_parse.RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, _rule_body(rule), what=what)

    def move_rule(self, rule: Rule) -> None:
        """Put a rule that is there behind all others of its priority: the same is added once more, then the first goes."""
        what = f"move rule {describe_rule(rule)}"
        self._netlink.request(rtnl_parse.RTM_NEWRULE, NLM_F_CREATE, _rule_body(rule), what=what)
        self._netlink.request(rtnl_parse.RTM_DELRULE, 0, _rule_body(rule), what=what)

    def delete_rule(self, rule: Rule) -> None:
        """Delete the first such rule: a twin with another protocol stays. ENOENT: not there.

        Without ``suppress_prefixlength`` it matches one that has it as well (``rule_find``): who wants that one to stay has
        to see to it.
        """
        what = f"delete rule {describe_rule(rule)}"
        self._netlink.request(rtnl_parse.RTM_DELRULE, 0, _rule_body(rule), what=what)

    def _route(self, kind: int, flags: int, route: Route, verb: str) -> None:
        self._netlink.request(kind, flags, rtnl_pack.route(route), what=f"{verb} route {describe_route(route)}")

    def _is_present(self, route: Route) -> bool:
        return route in self.routes(route.table, route.hops[0].ifindex if route.hops else None)

    def _table(self, body: bytes, what: str) -> list[Any]:
        """A dump of routes; a table that was never made is an empty one (ENOENT)."""
        try:
            return list(self._netlink.dump(rtnl_parse.RTM_GETROUTE, body, what=what))
        except KernelError as error:
            if error.absent:
                return []
            raise


def describe_route(route: Route) -> str:
    """A route in ``ip route``'s words, interfaces by number."""
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


def describe_rule(rule: Rule) -> str:
    """A rule in ``ip rule``'s words."""
    words = [f"{rule.priority}:", "from", rule.source or "all"]
    words += ["lookup", str(rule.table)] if rule.action is RuleAction.TO_TABLE else [rule.action.name.lower()]
    if rule.suppress_prefixlength is not None:
        words += ["suppress_prefixlength", str(rule.suppress_prefixlength)]
    return f"{rule.family.label} {' '.join(words)}"


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
    if rule.source is not None:
        source, _, length = rule.source.partition("/")
        message["src_len"] = int(length) if length else rule.family.bits
        attrs.append(("FRA_SRC", source))
    if rule.suppress_prefixlength is not None:
        attrs.append(("FRA_SUPPRESS_PREFIXLEN", rule.suppress_prefixlength))
    message["attrs"] = attrs
    return encoded(message)
