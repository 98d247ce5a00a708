# SPDX-License-Identifier: GPL-2.0-or-later
"""Which way a packet goes, by the kernel's own answer (``ip route get TO from SOURCE``): right for all rules and tables."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Mapping

from ..model import Family, Lookup, RouteType
from ..values import frozen
from . import parse
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
_RTA_DST, _RTA_SRC, _RTA_OIF = 1, 2, 4
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
    """How the kernel would route a packet to an address, by all rules and tables; writes nothing.

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
    what = f"find the route to {destination}" + (f" from {source}" if source else "")
    (answer,) = netlink.request(parse.RTM_GETROUTE, 0, body, what=what)
    found = parse.lookup(answer)
    if isinstance(found, Lookup):
        return found
    raise KernelError(_REJECTS.get(found, errno.ENETUNREACH), what)


@frozen
class Way:
    """Where a packet leaves; ``refused`` says in words why it does not, "" when it does."""

    ifindex: int = 0
    gateway: str | None = None
    table: int = 0
    refused: str = ""


class Ways(Requester):
    """Asks for ways: synchronous, for one thread, opened at first use, in that thread's network namespace."""

    PROTOCOL = ROUTE

    def bound(self, destination: str, source: str, ifindex: int) -> Way:
        """The way of a packet from ``source`` of a socket bound to that interface. Raises KernelError.

        IPv6 takes an interface that is asked for together with a source as a wish only (``ip6_route_output_flags``), so
        what is not by it is asked for once more without the source: the rules for it have led elsewhere.
        """
        if Family.of(destination) is Family.IPV4:
            return self.of(destination, source, ifindex)
        way = self.of(destination, source)
        return way if way.ifindex == ifindex else self.of(destination, "", ifindex)

    def of(self, destination: str, source: str, ifindex: int = 0) -> Way:
        """The way of a packet from ``source``, "" for any. Raises KernelError."""
        try:
            found = lookup(self._netlink, destination, source, ifindex)
        except KernelError as error:
            if error.errno in NO_WAY:
                return Way(refused=NO_WAY[error.errno])
            raise
        # Bound to a device and without a route, IPv4 takes everybody for a neighbour.
        return Way(found.ifindex, found.gateway, found.table) if found.table else Way(refused="no route")
