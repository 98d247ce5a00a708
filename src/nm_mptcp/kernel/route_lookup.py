# SPDX-License-Identifier: GPL-2.0-or-later
"""Which way a packet goes, by the kernel's own answer (``ip route get TO from SOURCE``): right for all rules and tables."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..model.state import AddressFlag, Family, Kernel, Lookup, Route, RouteType, RuleAction
from . import rtnl_parse
from .errors import KernelError
from .netlink import ROUTE, Netlink, Requester

#: Where the way leads that is asked for, one address in each half of a family's public space: a VPN that covers them in two
#: halves is seen. No packet is sent there. Alternating bits, and no special range, so that hardly anybody has a route of
#: his own to them. IPv6 hands out nothing but 2000::/3.
PROBES: Mapping[Family, tuple[str, ...]] = {
    Family.IPV4: ("85.85.85.85", "170.170.170.170"),
    Family.IPV6: ("2aaa:aaaa:aaaa:aaaa:aaaa:aaaa:aaaa:aaaa", "3555:5555:5555:5555:5555:5555:5555:5555"),
}

_ROUTE = struct.Struct("=BBBBBBBBI")
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_IP_PROTO = 1, 2, 4, 27
_RTM_F_LOOKUP_TABLE = 0x1000

#: What is answered where no route leads there, or one that rejects, or the source is no address of this machine.
NO_WAY = {
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "an 'unreachable' route or rule",
    errno.EACCES: "a 'prohibit' route or rule",
    errno.EINVAL: "a 'blackhole' route, or the address is not there",
    errno.ENETDOWN: "the network is down",
    errno.EOPNOTSUPP: "no such family here",
    errno.EAFNOSUPPORT: "no such family here",
    errno.ENODEV: "the interface is gone",
}

#: A route that rejects: IPv4 answers with the error, IPv6 with the route.
_REJECTS = {
    RouteType.BLACKHOLE: errno.EINVAL,
    RouteType.UNREACHABLE: errno.EHOSTUNREACH,
    RouteType.PROHIBIT: errno.EACCES,
}


def lookup(netlink: Netlink, destination: str, source: str | None = None, ifindex: int = 0) -> Lookup:
    """How the kernel would route a packet of TCP to an address, by all rules and tables; writes nothing.

    ``source`` and ``ifindex`` are what the packet's socket is bound to. Raises :class:`KernelError`; its number is one of
    :data:`NO_WAY` where there is no way.
    """
    family = Family.of(destination)
    # IPv6 tells the table unasked, and refuses the flag.
    flags = _RTM_F_LOOKUP_TABLE if family is Family.IPV4 else 0
    body = _ROUTE.pack(family, family.bits, family.bits if source else 0, 0, 0, 0, 0, 0, flags)
    for attribute, address in ((_RTA_DST, destination), (_RTA_SRC, source)):
        if address:
            packed = socket.inet_pton(family, address)
            body += struct.pack("=HH", 4 + len(packed), attribute) + packed
    if ifindex:
        body += struct.pack("=HHI", 8, _RTA_OIF, ifindex)
    # Unasked IPv4 would look for UDP's way, which rules may tell apart (4.18).
    body += struct.pack("=HHB3x", 5, _RTA_IP_PROTO, socket.IPPROTO_TCP)
    what = f"find the route to {destination}" + (f" from {source}" if source else "")
    (answer,) = netlink.request(rtnl_parse.RTM_GETROUTE, 0, body, what=what)
    found = rtnl_parse.lookup(answer)
    if isinstance(found, Lookup):
        return found
    raise KernelError(_REJECTS.get(found, errno.ENETUNREACH), what)


@dataclass(frozen=True, slots=True)
class Way:
    """Where a packet leaves; ``refused`` says in words why it does not, "" when it does."""

    ifindex: int = 0
    gateway: str | None = None
    table: int = 0  #: 0: of no route; see :func:`on_link`
    refused: str = ""
    source: str | None = None  #: the address that it carries
    local: bool = False  #: to this machine itself


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about an address."""

    address: str
    bound: int  #: the interface that its subflows are bound to, 0 for none
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """By which way packets from an address go to a destination."""

    plain: Way  #: of a socket that is bound to the address alone
    bound: Way  #: of the subflows that the path manager opens


#: For each address, an answer for each destination.
Answers = Mapping[str, tuple[Answer, ...]]


def on_link(destination: str, link: str) -> str:
    """What IPv4 does with a packet that is bound to an interface and finds no route: nobody will answer it."""
    return f"no route: the kernel takes {destination} for a neighbour on {link} (on-link)"


class Ways(Requester):
    """Asks for ways: synchronous, for one thread, opened at first use, in that thread's network namespace.

    Asked is for TCP, without a mark and of root: rules by port, mark or another user are not met.
    """

    PROTOCOL = ROUTE

    def unbound(self, destination: str, kernel: Kernel) -> Way:
        """The way of a connection that nobody bound to anything, and the source that it gets. Raises KernelError.

        IPv4 chooses the source by a first look-up and asks again with it (``ip_route_connect``), so that rules by source
        count. IPv6 stays with the first, but where that fails it chooses one all the same (``ip6_dst_lookup_tail``).
        """
        first = self.of(destination, "")
        source = first.source
        if Family.of(destination) is Family.IPV6:
            source = _chosen_source(destination, kernel) if first.refused else None
        if first.local or source is None:
            return first
        return replace(self.of(destination, source), source=source)

    def bound(self, destination: str, source: str, ifindex: int, kernel: Kernel) -> Way:
        """The way of a subflow as the path manager makes it: a socket on this source, bound to that interface; 0: to none.

        What is told of ``kernel`` are links, routes and rules. Raises KernelError.
        """
        if not ifindex:
            return replace(self.of(destination, source), source=source)
        if Family.of(destination) is Family.IPV4:
            return replace(self._bound4(destination, source, ifindex, kernel), source=source)
        return replace(self._bound6(destination, source, ifindex, kernel), source=source)

    def answers(self, asked: Question, kernel: Kernel) -> tuple[Answer, ...]:
        """The answers to a question. Raises KernelError."""
        return tuple(
            Answer(self.of(destination, asked.address), self.bound(destination, asked.address, asked.bound, kernel))
            for destination in asked.destinations
        )

    def of(self, destination: str, source: str, ifindex: int = 0) -> Way:
        """The way of a packet from ``source``, "" for any, as ``ip route get`` tells it. Raises KernelError."""
        try:
            found = lookup(self._netlink, destination, source, ifindex)
        except KernelError as error:
            if error.errno in NO_WAY:
                return Way(refused=NO_WAY[error.errno])
            raise
        return Way(found.ifindex, found.gateway, found.table, source=found.source, local=found.local)

    def _bound4(self, destination: str, source: str, ifindex: int, kernel: Kernel) -> Way:
        """Without a route, or before one that rejects, IPv4 takes the destination for a neighbour
        (``ip_route_output_key_hash_rcu``); that is as good as a route where nobody has to be asked for.
        """
        way = self.of(destination, source, ifindex)
        link = kernel.links.get(ifindex)
        if way.table or way.refused or (link is not None and not link.asks):
            return way
        return Way(refused=on_link(destination, link.name if link else f"interface {ifindex}"))

    def _bound6(self, destination: str, source: str, ifindex: int, kernel: Kernel) -> Way:
        """A socket's own interface is a must, and in each table only routes by it count (``RT6_LOOKUP_F_IFACE``); but to
        who asks by netlink, and names a source, it is a wish. So where the wish is not fulfilled the tables are gone
        through here; of rules with other selectors the kernel's answer without the source tells.
        """
        way = self.of(destination, source, ifindex)
        if way.local or way.ifindex == ifindex:
            return way
        plain = self.of(destination, "", ifindex)
        known = {rule.table for rule in kernel.rules if rule.family is Family.IPV6 and not rule.foreign}
        if not plain.refused and plain.table not in known:
            return plain
        return _walk(destination, source, ifindex, kernel)


def _chosen_source(destination: str, kernel: Kernel) -> str | None:
    """The source that IPv6 chooses where no route tells an interface (``ipv6_dev_get_saddr``, RFC 6724): not deprecated,
    of the destination's kind, temporary, with the longest common prefix; of equals the first.
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
    """The kernel's own label (``addrlabel.c``) of a global address."""
    return next((label for network, label in _LABELS if address in network), 1)


#: Prefixes with a label of their own, the longest first.
_LABELS = (
    (ipaddress.IPv6Network("2001::/32"), 6),
    (ipaddress.IPv6Network("2001:10::/28"), 7),
    (ipaddress.IPv6Network("2002::/16"), 2),
    (ipaddress.IPv6Network("fc00::/7"), 5),
)


def _walk(destination: str, source: str, ifindex: int, kernel: Kernel) -> Way:
    """The first route by this interface in the order of the rules that hold for the source (kernel: ``fib_rules_lookup``)."""
    to, origin = ipaddress.ip_address(destination), ipaddress.ip_address(source)
    for rule in kernel.rules:
        if rule.family is not Family.of(destination) or rule.foreign:
            continue
        if rule.source is not None and origin not in ipaddress.ip_network(rule.source):
            continue
        if rule.action is not RuleAction.TO_TABLE:
            return Way(refused=NO_WAY[errno.EHOSTUNREACH])
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
                return Way(ifindex, hop.gateway, rule.table)
    return Way(refused=NO_WAY[errno.ENETUNREACH])


def _length(route: Route) -> int:
    return int(route.destination.partition("/")[2])
