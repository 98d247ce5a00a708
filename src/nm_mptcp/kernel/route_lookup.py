# SPDX-License-Identifier: GPL-2.0-or-later
"""How the kernel itself routes a packet (``ip route get TO from SOURCE``), by all its rules and tables."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..model.state import AddressFlag, Family, Kernel, Route, RouteResult, RouteType, RuleAction
from . import rtnl_parse
from .errors import KernelError
from .netlink import ROUTE, Netlink, Requester

#: Destinations that stand for the Internet: one address in each half of a family's public space, so that a VPN that covers it
#: by two halves is seen. No packet is sent to them. Alternating bits outside of special ranges, since hardly any network has
#: a specific route there; IPv6 allocates from 2000::/3 alone.
PROBES: Mapping[Family, tuple[str, ...]] = {
    Family.IPV4: ("85.85.85.85", "170.170.170.170"),
    Family.IPV6: ("2aaa:aaaa:aaaa:aaaa:aaaa:aaaa:aaaa:aaaa", "3555:5555:5555:5555:5555:5555:5555:5555"),
}

_ROUTE = struct.Struct("=BBBBBBBBI")
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_MARK, _RTA_IP_PROTO = 1, 2, 4, 16, 27
_RTM_F_LOOKUP_TABLE = 0x1000

#: Errors of a look-up that mean "not routed", in words: no route, one that rejects, or a source that is no local address.
NO_ROUTE = {
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "an 'unreachable' route or rule",
    errno.EACCES: "a 'prohibit' route or rule",
    errno.EINVAL: "a 'blackhole' route, or the address is not there",
    errno.ENETDOWN: "the network is down",
    errno.EOPNOTSUPP: "no such family here",
    errno.EAFNOSUPPORT: "no such family here",
    errno.ENODEV: "the interface is gone",
}

#: Types of routes that reject: IPv4 answers with the error, IPv6 with the route.
_REJECTS = {
    RouteType.BLACKHOLE: errno.EINVAL,
    RouteType.UNREACHABLE: errno.EHOSTUNREACH,
    RouteType.PROHIBIT: errno.EACCES,
}


def lookup(
    netlink: Netlink, destination: str, source: str | None = None, ifindex: int = 0, *, mark: int = 0
) -> RouteResult:
    """How the kernel would route a TCP packet from root; read-only.

    ``source`` and ``ifindex`` are what the packet's socket is bound to, ``mark`` is its SO_MARK. Raises :class:`KernelError`,
    with an ``errno`` of :data:`NO_ROUTE` where the packet is not routed.
    """
    family = Family.of(destination)
    # IPv6 reports the table without the flag, and rejects a request with it.
    flags = _RTM_F_LOOKUP_TABLE if family is Family.IPV4 else 0
    body = _ROUTE.pack(family, family.bits, family.bits if source else 0, 0, 0, 0, 0, 0, flags)
    for attribute, address in ((_RTA_DST, destination), (_RTA_SRC, source)):
        if address:
            packed = socket.inet_pton(family, address)
            body += struct.pack("=HH", 4 + len(packed), attribute) + packed
    if ifindex:
        body += struct.pack("=HHI", 8, _RTA_OIF, ifindex)
    if mark:
        body += struct.pack("=HHI", 8, _RTA_MARK, mark)
    # Without the protocol IPv4 looks up for UDP, which rules may treat differently (since 4.18).
    body += struct.pack("=HHB3x", 5, _RTA_IP_PROTO, socket.IPPROTO_TCP)
    what = f"find the route to {destination}" + (f" from {source}" if source else "")
    (answer,) = netlink.request(rtnl_parse.RTM_GETROUTE, 0, body, what=what)
    found = rtnl_parse.lookup(answer)
    if isinstance(found, RouteResult):
        return found
    raise KernelError(_REJECTS.get(found, errno.ENETUNREACH), what)


@dataclass(frozen=True, slots=True)
class RouteQuery:
    """What to look up for a local address."""

    address: str
    bound: int  #: the interface that its subflows are bound to, 0: none
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouteAnswer:
    """How packets from an address to one destination are routed."""

    plain: RouteResult  #: from a socket that is bound to the address alone
    bound: RouteResult  #: from the subflows that the path manager opens


#: By address, an answer for each destination of its query.
RouteAnswers = Mapping[str, tuple[RouteAnswer, ...]]


def on_link(destination: str, link: str) -> str:
    """The error of a packet that is bound to an interface and has no route there: IPv4 sends it all the same, to no avail."""
    return f"no route: the kernel treats {destination} as a neighbour on {link} (on-link)"


class RouteLookup(Requester):
    """Route look-ups: synchronous, for one thread, opened at first use, in that thread's network namespace.

    They are for TCP, without a mark and as root: rules by port, by mark or by another user do not match. Every method raises
    :class:`KernelError`, save where the packet is not routed: then :attr:`RouteResult.error` is set.
    """

    PROTOCOL = ROUTE

    def unbound(self, destination: str, kernel: Kernel) -> RouteResult:
        """The route of a connection whose socket is bound to nothing, and the source address that it gets.

        IPv4 chooses the source by a first look-up and repeats that with it (kernel: ``ip_route_connect``), so rules by
        source match. IPv6 keeps the first result, but where it fails chooses a source all the same
        (``ip6_dst_lookup_tail``).
        """
        first = self.get(destination, "")
        source = first.source
        if Family.of(destination) is Family.IPV6:
            source = _chosen_source(destination, kernel) if first.error else None
        if first.local or source is None:
            return first
        return replace(self.get(destination, source), source=source)

    def bound(self, destination: str, source: str, ifindex: int, kernel: Kernel) -> RouteResult:
        """The route of a subflow as the path manager opens it: its socket is bound to ``source`` and, unless it is 0, to the
        interface. Of ``kernel`` it reads links, routes and rules.
        """
        if not ifindex:
            return replace(self.get(destination, source), source=source)
        if Family.of(destination) is Family.IPV4:
            return replace(self._bound4(destination, source, ifindex, kernel), source=source)
        return replace(self._bound6(destination, source, ifindex, kernel), source=source)

    def answers(self, query: RouteQuery, kernel: Kernel) -> tuple[RouteAnswer, ...]:
        """The answers to a query, one for each of its destinations."""
        return tuple(
            RouteAnswer(
                self.get(destination, query.address), self.bound(destination, query.address, query.bound, kernel)
            )
            for destination in query.destinations
        )

    def get(self, destination: str, source: str, ifindex: int = 0) -> RouteResult:
        """The route of a packet from ``source`` ("": any), as ``ip route get`` prints it."""
        try:
            return lookup(self._netlink, destination, source, ifindex)
        except KernelError as error:
            if error.errno in NO_ROUTE:
                return RouteResult(error=NO_ROUTE[error.errno])
            raise

    def _bound4(self, destination: str, source: str, ifindex: int, kernel: Kernel) -> RouteResult:
        """Without a route, or with one that rejects, IPv4 treats the destination as on-link (kernel:
        ``ip_route_output_key_hash_rcu``), which is as good as a route on a link without ARP.
        """
        result = self.get(destination, source, ifindex)
        link = kernel.links.get(ifindex)
        if result.table or result.error or (link is not None and not link.resolves):
            return result
        return RouteResult(error=on_link(destination, link.name if link else f"interface {ifindex}"))

    def _bound6(self, destination: str, source: str, ifindex: int, kernel: Kernel) -> RouteResult:
        """For a bound socket only routes by its interface count, in every table (``RT6_LOOKUP_F_IFACE``); in a netlink
        request with a source the interface is a preference. So where the answer is by another interface, the rules and
        tables are walked here; a look-up without the source covers rules with selectors that are not read.
        """
        result = self.get(destination, source, ifindex)
        if result.local or result.ifindex == ifindex:
            return result
        plain = self.get(destination, "", ifindex)
        known = {rule.table for rule in kernel.rules if rule.family is Family.IPV6 and rule.only_by_source}
        if not plain.error and plain.table not in known:
            return plain
        return _walk(destination, source, ifindex, kernel)


def _chosen_source(destination: str, kernel: Kernel) -> str | None:
    """The source that IPv6 chooses where no route gives an interface (kernel: ``ipv6_dev_get_saddr``; RFC 6724): not
    deprecated, with the destination's label, temporary, with the longest common prefix; of equals the first.
    """
    to = ipaddress.IPv6Address(destination)
    best: tuple[tuple[object, ...], str] | None = None
    for ifindex in sorted(kernel.addresses):
        link = kernel.links.get(ifindex)
        if link is None or not link.up or link.loopback:
            continue
        for each in kernel.addresses[ifindex]:
            unusable = each.flags & (AddressFlag.TENTATIVE | AddressFlag.DADFAILED)
            if (
                each.family is not Family.IPV6
                or each.scope != 0
                or (unusable and not each.flags & AddressFlag.OPTIMISTIC)
            ):
                continue
            value = ipaddress.IPv6Address(each.address)
            score = (
                not each.flags & AddressFlag.DEPRECATED,
                _label(value) == _label(to),
                bool(each.flags & AddressFlag.TEMPORARY),
                min(128 - (int(value) ^ int(to)).bit_length(), each.prefixlen),
            )
            if best is None or score > best[0]:
                best = (score, each.address)
    return best[1] if best else None


def _label(address: ipaddress.IPv6Address) -> int:
    """The default label of a global address (kernel: ``addrlabel.c``)."""
    return next((label for network, label in _LABELS if address in network), 1)


#: Prefixes with a label other than 1 (kernel: ``addrlabel.c``), the longest first.
_LABELS = (
    (ipaddress.IPv6Network("2001::/32"), 6),
    (ipaddress.IPv6Network("2001:10::/28"), 7),
    (ipaddress.IPv6Network("2002::/16"), 2),
    (ipaddress.IPv6Network("fc00::/7"), 5),
)


def _walk(destination: str, source: str, ifindex: int, kernel: Kernel) -> RouteResult:
    """The first route by this interface, in the order of the rules that match the source (kernel: ``fib_rules_lookup``)."""
    to, origin = ipaddress.ip_address(destination), ipaddress.ip_address(source)
    for rule in kernel.rules:
        if rule.family is not Family.of(destination) or rule.foreign or rule.udp_port:
            continue
        if rule.source is not None and origin not in ipaddress.ip_network(rule.source):
            continue
        if rule.destination is not None and to not in ipaddress.ip_network(rule.destination):
            continue
        if rule.action is not RuleAction.TO_TABLE:
            return RouteResult(error=NO_ROUTE[errno.EHOSTUNREACH])
        fitting = [
            route
            for route in kernel.routes.get((rule.table, ifindex), ())
            if route.type is RouteType.UNICAST
            and not all(hop.dead for hop in route.hops)
            and to in ipaddress.ip_network(route.destination)
        ]
        if fitting:
            best = min(fitting, key=lambda route: (-_length(route), route.metric))
            if rule.suppress_prefixlength is None or _length(best) > rule.suppress_prefixlength:
                hop = next(hop for hop in best.hops if hop.ifindex == ifindex)
                return RouteResult(ifindex, hop.gateway, rule.table)
    return RouteResult(error=NO_ROUTE[errno.ENETUNREACH])


def _length(route: Route) -> int:
    return int(route.destination.partition("/")[2])
