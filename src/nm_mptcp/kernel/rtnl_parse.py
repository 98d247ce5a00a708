# SPDX-License-Identifier: GPL-2.0-or-later
"""From rtnetlink messages to model values; pure, used by :mod:`.rtnetlink` (dumps) and :mod:`.rtnl_events` (events),
hence one module for messages of all kinds.

Sources: kernel ``rtnetlink.h``, ``if_link.h``, ``if_addr.h``, ``fib_rules.h``, and what ``fib_dump_info``,
``rt6_fill_node``, ``inet_fill_ifaddr``, ``inet6_fill_ifaddr`` and ``fib_nl_fill_rule`` write.

A malformed message raises :class:`ValueError`, :class:`struct.error` or :class:`OSError`, and nothing else.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ..model.state import Address, AddressFlag, Family, Hop, Link, Route, RouteResult, RouteType, Rule, RuleAction
from .netlink import NLM_F_APPEND, NLM_F_REPLACE, Message, attributes

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWNEXTHOP, RTM_DELNEXTHOP = 104, 105

LOCAL_TABLE = 255

_IFF_UP, _IFF_LOOPBACK, _IFF_NOARP, _IFF_LOWER_UP = 0x1, 0x8, 0x80, 0x10000
_IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 4, 10, 18, 1

_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
_FOREVER = 0xFFFFFFFF
_ADDRESS_FLAGS = sum(AddressFlag)

_RTM_F_CLONED = 0x200
_RTNH_F_DEAD, _RTNH_F_ONLINK = 0x1, 0x4
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 2, 4, 5, 6, 7
_RTA_METRICS, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA, _RTA_PREF, _RTA_ENCAP = 8, 9, 15, 18, 20, 22
_RTA_NH_ID = 30
_REJECTING = (RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT)
_UNICAST = RouteType.UNICAST
_ROUTE_TYPES = {int(kind): kind for kind in RouteType}
#: local, broadcast, anycast and multicast: they concern what this machine receives, not where packets leave.
_UNINTERESTING = (2, 3, 4, 5)

#: ``RTAX_*`` that are numbers, by pyroute2's names (RTAX_CC_ALGO, 16, is a string).
METRICS = {
    1: "RTAX_LOCK",
    2: "RTAX_MTU",
    3: "RTAX_WINDOW",
    4: "RTAX_RTT",
    5: "RTAX_RTTVAR",
    6: "RTAX_SSTHRESH",
    7: "RTAX_CWND",
    8: "RTAX_ADVMSS",
    9: "RTAX_REORDERING",
    10: "RTAX_HOPLIMIT",
    11: "RTAX_INITCWND",
    12: "RTAX_FEATURES",
    13: "RTAX_RTO_MIN",
    14: "RTAX_INITRWND",
    15: "RTAX_QUICKACK",
}

_FRA_DST, _FRA_SRC, _FRA_PRIORITY, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_PROTOCOL = 1, 2, 6, 14, 15, 21
_FRA_PAD, _FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_SPORT_MASK = 18, 22, 23, 28
_FRA_KNOWN = {_FRA_DST, _FRA_SRC, _FRA_PRIORITY, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_PROTOCOL, _FRA_PAD}
_FRA_UDP_PORT = {_FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_SPORT_MASK}
_FR_ACT_TO_TBL, _FR_ACT_UNREACHABLE = 1, 7
_FIB_RULE_PERMANENT = 0x1

_FAMILIES = {int(family): family for family in Family}
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_RULE = struct.Struct("=BBBBBBBBI")
_HOP = struct.Struct("=HBBi")
_NUMBER = struct.Struct("=I")
_BYTE = struct.Struct("=B")
_PORTS = struct.Struct("=HH")
_ALL = b"\xff\xff"
_ntop = socket.inet_ntop


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """A link was added or changed (``new``), or deleted."""

    new: bool
    link: Link


@dataclass(frozen=True, slots=True)
class AddressEvent:
    """An address was added or changed (``new``), or deleted."""

    new: bool
    address: Address


@dataclass(frozen=True, slots=True)
class RouteEvent:
    """A route was added or changed (``new``), or deleted; several are IPv6 multipath siblings in one message."""

    new: bool
    routes: tuple[Route, ...]
    replace: bool = False  #: NLM_F_REPLACE: it replaced another, which gets no event
    append: bool = False  #: NLM_F_APPEND: it joined others with the same destination and metric


@dataclass(frozen=True, slots=True)
class RuleEvent:
    """A rule was added (``new``), or deleted."""

    new: bool
    rule: Rule


@dataclass(frozen=True, slots=True)
class NexthopEvent:
    """A nexthop object (``ip nexthop``) changed or was deleted, and its routes perhaps with it, without events."""

    new: bool
    replace: bool = False


Event = LinkEvent | AddressEvent | RouteEvent | RuleEvent | NexthopEvent


def event(message: Message) -> Event | None:
    """The event of a message, None for one that is not used here. Raises :class:`ValueError` when it is malformed."""
    kind = message.type
    try:
        if kind in (RTM_NEWROUTE, RTM_DELROUTE):
            found = routes(message)
            flags = message.flags
            if not found:
                return None
            return RouteEvent(
                kind == RTM_NEWROUTE, found, replace=bool(flags & NLM_F_REPLACE), append=bool(flags & NLM_F_APPEND)
            )
        if kind in (RTM_NEWLINK, RTM_DELLINK):
            device = link(message)
            return LinkEvent(kind == RTM_NEWLINK, device) if device else None
        if kind in (RTM_NEWADDR, RTM_DELADDR):
            place = address(message)
            return AddressEvent(kind == RTM_NEWADDR, place) if place else None
        if kind in (RTM_NEWRULE, RTM_DELRULE):
            policy = rule(message)
            return RuleEvent(kind == RTM_NEWRULE, policy) if policy else None
        if kind in (RTM_NEWNEXTHOP, RTM_DELNEXTHOP):
            return NexthopEvent(kind == RTM_NEWNEXTHOP, replace=bool(message.flags & NLM_F_REPLACE))
    except (struct.error, OSError) as error:
        raise ValueError(f"malformed rtnetlink message of type {kind}: {error}") from error
    return None


def link(message: Message) -> Link | None:
    """A link; None for messages of a bridge's and other families, whose RTM_DELLINK does not delete the link."""
    data = message.data
    family, _type, index, flags, _change = _LINK.unpack_from(data, message.start)
    if family != socket.AF_UNSPEC:
        return None
    attrs = attributes(data, message.start + _LINK.size, message.end)
    if _IFLA_IFNAME not in attrs:
        raise ValueError("a link without a name")
    kind = None
    if _IFLA_LINKINFO in attrs:
        info = attrs[_IFLA_LINKINFO]
        if name := attributes(info, 0, len(info)).get(_IFLA_INFO_KIND):
            kind = _text(name)
    return Link(
        index=index,
        name=_text(attrs[_IFLA_IFNAME]),
        kind=kind,
        up=bool(flags & _IFF_UP),
        carrier=bool(flags & _IFF_LOWER_UP),
        loopback=bool(flags & _IFF_LOOPBACK),
        resolves=not flags & _IFF_NOARP,
        master=_NUMBER.unpack(attrs[_IFLA_MASTER])[0] if _IFLA_MASTER in attrs else 0,
        mtu=_NUMBER.unpack(attrs[_IFLA_MTU])[0] if _IFLA_MTU in attrs else 0,
    )


def address(message: Message) -> Address | None:
    """An address; None for other families'."""
    data = message.data
    family, prefixlen, flags, scope, index = _ADDRESS.unpack_from(data, message.start)
    if family not in _FAMILIES:
        return None
    attrs = attributes(data, message.start + _ADDRESS.size, message.end)
    peer = attrs.get(_IFA_ADDRESS)
    local = attrs.get(_IFA_LOCAL, peer)
    if local is None:
        return None
    if _IFA_FLAGS in attrs:
        (flags,) = _NUMBER.unpack(attrs[_IFA_FLAGS])
    preferred = valid = None
    if _IFA_CACHEINFO in attrs:
        preferred, valid = (
            None if left == _FOREVER else left for left in struct.unpack_from("=II", attrs[_IFA_CACHEINFO])
        )
    return Address(
        ifindex=index,
        address=_ntop(family, local),
        prefixlen=prefixlen,
        scope=scope,
        flags=AddressFlag(flags & _ADDRESS_FLAGS),
        peer=_ntop(family, peer) if peer is not None and peer != local else None,
        preferred=preferred,
        valid=valid,
        read=time.monotonic() if preferred is not None else 0.0,
    )


def routes(message: Message) -> tuple[Route, ...]:
    """The routes of a message: one, or one for each IPv6 multipath sibling; none for cached, local and multicast routes and
    those of other families.

    A route that a :class:`Route` cannot represent (with a source prefix or an encapsulation) has type OTHER. The default
    preference of IPv6 (0, medium) is None, which is the same in a request.
    """
    data = message.data
    family, length, source_length, tos, table, protocol, scope, kind, flags = _ROUTE.unpack_from(data, message.start)
    if family not in _FAMILIES or flags & _RTM_F_CLONED or kind in _UNINTERESTING:
        return ()
    attrs = attributes(data, message.start + _ROUTE.size, message.end)
    if _RTA_TABLE in attrs:
        (table,) = _NUMBER.unpack(attrs[_RTA_TABLE])
    if table == LOCAL_TABLE:
        return ()
    destination = attrs.get(_RTA_DST) or bytes(4 if family == socket.AF_INET else 16)
    type_ = _ROUTE_TYPES.get(kind, RouteType.OTHER)
    # A route that rejects has "lo" in IPv6, which cannot be asked for.
    hops = () if type_ in _REJECTING else _hops(family, flags, attrs)
    if source_length or _RTA_ENCAP in attrs or (hops and _RTA_MULTIPATH in attrs and _encapsulated(attrs)):
        type_ = RouteType.OTHER
    whole = Route(
        destination=f"{_ntop(family, destination)}/{length}",
        table=table,
        hops=hops,
        type=type_,
        protocol=protocol,
        scope=scope,
        metric=_NUMBER.unpack(attrs[_RTA_PRIORITY])[0] if _RTA_PRIORITY in attrs else 0,
        tos=tos,
        source=_ntop(family, attrs[_RTA_PREFSRC]) if _RTA_PREFSRC in attrs else None,
        preference=(_BYTE.unpack(attrs[_RTA_PREF])[0] or None) if _RTA_PREF in attrs else None,
        metrics=_metrics(attrs[_RTA_METRICS]) if _RTA_METRICS in attrs else (),
        nexthop_object=_NUMBER.unpack(attrs[_RTA_NH_ID])[0] if _RTA_NH_ID in attrs else 0,
    )
    if family == socket.AF_INET or len(hops) < 2:
        return (whole,)
    return tuple(replace(whole, hops=(hop,)) for hop in hops)


def lookup(message: Message) -> RouteResult | RouteType:
    """The answer to a route look-up; the type of a route that rejects, which IPv6 returns (IPv4 answers with an error)."""
    data = message.data
    family, _, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(data, message.start)
    if kind in _REJECTING:
        return RouteType(kind)
    attrs = attributes(data, message.start + _ROUTE.size, message.end)
    return RouteResult(
        ifindex=_NUMBER.unpack(attrs[_RTA_OIF])[0] if _RTA_OIF in attrs else 0,
        source=_ntop(family, attrs[_RTA_PREFSRC]) if _RTA_PREFSRC in attrs else None,
        gateway=_gateway(family, attrs),
        table=_NUMBER.unpack(attrs[_RTA_TABLE])[0] if _RTA_TABLE in attrs else table,
        local=kind == RouteType.LOCAL,
    )


def rule(message: Message) -> Rule | None:
    """A policy routing rule; None for one of other families (multicast routing has rules of its own)."""
    data = message.data
    family, dst_len, src_len, tos, table, _, _, action, flags = _RULE.unpack_from(data, message.start)
    if family not in _FAMILIES:
        return None
    attrs = attributes(data, message.start + _RULE.size, message.end)
    if _FRA_TABLE in attrs:
        (table,) = _NUMBER.unpack(attrs[_FRA_TABLE])
    udp_port = _udp_port(attrs)
    known = _FRA_KNOWN | _FRA_UDP_PORT if udp_port else _FRA_KNOWN
    suppress = None
    if _FRA_SUPPRESS_PREFIXLEN in attrs:
        (suppress,) = _NUMBER.unpack(attrs[_FRA_SUPPRESS_PREFIXLEN])
        if suppress == _FOREVER:  # the kernel's "none"
            suppress = None
    act = {_FR_ACT_TO_TBL: RuleAction.TO_TABLE, _FR_ACT_UNREACHABLE: RuleAction.UNREACHABLE}.get(
        action, RuleAction.OTHER
    )
    return Rule(
        family=_FAMILIES[family],
        priority=_NUMBER.unpack(attrs[_FRA_PRIORITY])[0] if _FRA_PRIORITY in attrs else 0,
        source=_selected(_FAMILIES[family], attrs.get(_FRA_SRC), src_len),
        table=table if act is RuleAction.TO_TABLE else 0,
        action=act,
        protocol=_BYTE.unpack(attrs[_FRA_PROTOCOL])[0] if _FRA_PROTOCOL in attrs else 0,
        suppress_prefixlength=suppress,
        destination=_selected(_FAMILIES[family], attrs.get(_FRA_DST), dst_len),
        udp_port=udp_port,
        foreign=bool(tos or flags & ~_FIB_RULE_PERMANENT or set(attrs) - known),
    )


def _selected(family: Family, address: bytes | None, length: int) -> str | None:
    """The prefix that a rule selects, None if it selects all. ``address`` is missing where all of its bits are 0."""
    if not length:
        return None
    text = _ntop(family, address or bytes(family.bits // 8))
    return text if length == family.bits and address else f"{text}/{length}"


def _udp_port(attrs: Mapping[int, bytes]) -> int:
    """The one UDP port whose packets a rule is for, 0 if it has no such selector."""
    if attrs.get(_FRA_IP_PROTO) != bytes((socket.IPPROTO_UDP,)) or _FRA_SPORT_RANGE not in attrs:
        return 0
    first, last = _PORTS.unpack(attrs[_FRA_SPORT_RANGE])
    # Newer kernels (6.15) have a mask, of all bits unless one was given.
    return int(first) if first == last and attrs.get(_FRA_SPORT_MASK, _ALL) == _ALL else 0


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _gateway(family: int, attrs: dict[int, bytes]) -> str | None:
    if _RTA_GATEWAY in attrs:
        return _ntop(family, attrs[_RTA_GATEWAY])
    if _RTA_VIA in attrs:
        (other,) = struct.unpack_from("=H", attrs[_RTA_VIA])
        return _ntop(other, attrs[_RTA_VIA][2:])
    return None


def _hops(family: int, flags: int, attrs: dict[int, bytes]) -> tuple[Hop, ...]:
    if _RTA_MULTIPATH in attrs:
        return tuple(
            Hop(
                ifindex=index,
                gateway=_gateway(family, each),
                onlink=bool(hop_flags & _RTNH_F_ONLINK),
                weight=weight + 1,
                dead=bool(hop_flags & _RTNH_F_DEAD),
            )
            for hop_flags, weight, index, each in _multipath(attrs[_RTA_MULTIPATH])
        )
    if _RTA_OIF not in attrs:
        return ()
    return (
        Hop(
            ifindex=_NUMBER.unpack(attrs[_RTA_OIF])[0],
            gateway=_gateway(family, attrs),
            onlink=bool(flags & _RTNH_F_ONLINK),
            dead=bool(flags & _RTNH_F_DEAD),
        ),
    )


def _encapsulated(attrs: dict[int, bytes]) -> bool:
    return any(_RTA_ENCAP in each for _, _, _, each in _multipath(attrs[_RTA_MULTIPATH]))


def _multipath(data: bytes) -> Iterator[tuple[int, int, int, dict[int, bytes]]]:
    """Of each ``struct rtnexthop``: flags, weight - 1, ifindex and attributes."""
    offset = 0
    while len(data) - offset >= _HOP.size:
        length, flags, weight, index = _HOP.unpack_from(data, offset)
        if length < _HOP.size or offset + length > len(data):
            raise ValueError("next hop with an impossible length")
        yield flags, weight, index, attributes(data, offset + _HOP.size, offset + length)
        offset += (length + 3) & ~3


def _metrics(data: bytes) -> tuple[tuple[str, int], ...]:
    return tuple(
        sorted(
            (METRICS[kind], int(_NUMBER.unpack(value)[0]))
            for kind, value in attributes(data, 0, len(data)).items()
            if kind in METRICS
        )
    )
