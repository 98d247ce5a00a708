# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink messages -> model values; pure, shared by :mod:`.rtnetlink` (dumps) and :mod:`.monitor` (events).

Sources: kernel ``rtnetlink.h``, ``if_link.h``, ``if_addr.h``, ``fib_rules.h``, and what ``fib_dump_info``,
``rt6_fill_node``, ``inet_fill_ifaddr``, ``inet6_fill_ifaddr`` and ``fib_nl_fill_rule`` put in.

A malformed message raises ValueError, struct.error or OSError, and nothing else.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass

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
#: local, broadcast, anycast and multicast: they say what is for us, not where our packets leave.
_UNINTERESTING = (2, 3, 4, 5)

#: ``RTAX_*`` that are numbers, by pyroute2's names (the congestion control algorithm, 16, is a text).
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
_FRA_PAD = 18
_FRA_KNOWN = {_FRA_SRC, _FRA_PRIORITY, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_PROTOCOL, _FRA_PAD}
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
_ntop = socket.inet_ntop


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """A link is there or changed (``new``), or it is gone."""

    new: bool
    link: Link


@dataclass(frozen=True, slots=True)
class AddressEvent:
    """An address is there or changed (``new``), or it is gone."""

    new: bool
    address: Address


@dataclass(frozen=True, slots=True)
class RouteEvent:
    """A route is there (``new``), or it is gone; several for IPv6 multipath siblings told in one message."""

    new: bool
    routes: tuple[Route, ...]
    replace: bool = False  #: NLM_F_REPLACE: it took the place of another, which is not told of by itself
    append: bool = False  #: NLM_F_APPEND: it stands beside others with the same destination and metric


@dataclass(frozen=True, slots=True)
class RuleEvent:
    """A rule is there (``new``), or it is gone."""

    new: bool
    rule: Rule


@dataclass(frozen=True, slots=True)
class NexthopEvent:
    """A nexthop object (``ip nexthop``) changed or is gone: its routes may have, without a word of it."""

    new: bool
    replace: bool = False


Event = LinkEvent | AddressEvent | RouteEvent | RuleEvent | NexthopEvent


def event(message: Message) -> Event | None:
    """What an rtnetlink message tells, None when it is nothing that matters here; ValueError when it is malformed."""
    kind = message.type
    try:
        if kind in (RTM_NEWROUTE, RTM_DELROUTE):
            told = routes(message)
            flags = message.flags
            if not told:
                return None
            return RouteEvent(
                kind == RTM_NEWROUTE, told, replace=bool(flags & NLM_F_REPLACE), append=bool(flags & NLM_F_APPEND)
            )
        if kind in (RTM_NEWLINK, RTM_DELLINK):
            found = link(message)
            return LinkEvent(kind == RTM_NEWLINK, found) if found else None
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
    """A link; None for the bridge's and other families' own messages, whose RTM_DELLINK does not mean that it is gone."""
    data = message.data
    family, _type, index, flags, _change = _LINK.unpack_from(data, message.start)
    if family != socket.AF_UNSPEC:
        return None
    told = attributes(data, message.start + _LINK.size, message.end)
    if _IFLA_IFNAME not in told:
        raise ValueError("a link without a name")
    kind = None
    if _IFLA_LINKINFO in told:
        info = told[_IFLA_LINKINFO]
        if name := attributes(info, 0, len(info)).get(_IFLA_INFO_KIND):
            kind = _text(name)
    return Link(
        index=index,
        name=_text(told[_IFLA_IFNAME]),
        kind=kind,
        up=bool(flags & _IFF_UP),
        carrier=bool(flags & _IFF_LOWER_UP),
        loopback=bool(flags & _IFF_LOOPBACK),
        asks=not flags & _IFF_NOARP,
        master=_NUMBER.unpack(told[_IFLA_MASTER])[0] if _IFLA_MASTER in told else 0,
        mtu=_NUMBER.unpack(told[_IFLA_MTU])[0] if _IFLA_MTU in told else 0,
    )


def address(message: Message) -> Address | None:
    """An address; None for other families'."""
    data = message.data
    family, prefixlen, flags, scope, index = _ADDRESS.unpack_from(data, message.start)
    if family not in _FAMILIES:
        return None
    told = attributes(data, message.start + _ADDRESS.size, message.end)
    far = told.get(_IFA_ADDRESS)
    ours = told.get(_IFA_LOCAL, far)
    if ours is None:
        return None
    if _IFA_FLAGS in told:
        (flags,) = _NUMBER.unpack(told[_IFA_FLAGS])
    preferred = valid = None
    if _IFA_CACHEINFO in told:
        preferred, valid = (
            None if left == _FOREVER else left for left in struct.unpack_from("=II", told[_IFA_CACHEINFO])
        )
    return Address(
        ifindex=index,
        address=_ntop(family, ours),
        prefixlen=prefixlen,
        scope=scope,
        flags=AddressFlag(flags & _ADDRESS_FLAGS),
        peer=_ntop(family, far) if far is not None and far != ours else None,
        preferred=preferred,
        valid=valid,
        read=time.monotonic() if preferred is not None else 0.0,
    )


def routes(message: Message) -> tuple[Route, ...]:
    """The routes of a message: one, or one for each IPv6 sibling; none for what says nothing of where packets leave
    (other families, cached and local routes, multicast).

    A route that model values cannot tell whole (by source prefix, with an encapsulation) has type OTHER.
    The kernel's own default of an IPv6 preference (0, medium) is None, the same as not asking for one.
    """
    data = message.data
    family, length, source_length, tos, table, protocol, scope, kind, flags = _ROUTE.unpack_from(data, message.start)
    if family not in _FAMILIES or flags & _RTM_F_CLONED or kind in _UNINTERESTING:
        return ()
    told = attributes(data, message.start + _ROUTE.size, message.end)
    if _RTA_TABLE in told:
        (table,) = _NUMBER.unpack(told[_RTA_TABLE])
    if table == LOCAL_TABLE:
        return ()
    destination = told.get(_RTA_DST) or bytes(4 if family == socket.AF_INET else 16)
    type_ = _ROUTE_TYPES.get(kind, RouteType.OTHER)
    hops: tuple[Hop, ...]
    if type_ in _REJECTING:
        hops = ()  # IPv6 says "lo", which is nothing that could be asked for
    elif _RTA_MULTIPATH in told:
        hops = _multipath(family, told[_RTA_MULTIPATH])
        if any(_RTA_ENCAP in extra for extra in _hop_attributes(told[_RTA_MULTIPATH])):
            type_ = RouteType.OTHER
    elif _RTA_OIF in told:
        hops = (
            Hop(
                ifindex=_NUMBER.unpack(told[_RTA_OIF])[0],
                gateway=_gateway(family, told),
                onlink=bool(flags & _RTNH_F_ONLINK),
                dead=bool(flags & _RTNH_F_DEAD),
            ),
        )
    else:
        hops = ()
    if source_length or _RTA_ENCAP in told:
        type_ = RouteType.OTHER
    whole = Route(
        destination=f"{_ntop(family, destination)}/{length}",
        table=table,
        hops=hops,
        type=type_,
        protocol=protocol,
        scope=scope,
        metric=_NUMBER.unpack(told[_RTA_PRIORITY])[0] if _RTA_PRIORITY in told else 0,
        tos=tos,
        source=_ntop(family, told[_RTA_PREFSRC]) if _RTA_PREFSRC in told else None,
        preference=(_BYTE.unpack(told[_RTA_PREF])[0] or None) if _RTA_PREF in told else None,
        metrics=_metrics(told[_RTA_METRICS]) if _RTA_METRICS in told else (),
        nexthop_object=_NUMBER.unpack(told[_RTA_NH_ID])[0] if _RTA_NH_ID in told else 0,
    )
    if family == socket.AF_INET or len(hops) < 2:
        return (whole,)
    return tuple(_alone(whole, hop) for hop in hops)


def lookup(message: Message) -> RouteResult | RouteType:
    """The answer to a question for a route; of one that rejects its type (IPv6 tells of it, IPv4 makes it an error)."""
    data = message.data
    family, _, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(data, message.start)
    if kind in _REJECTING:
        return RouteType(kind)
    told = attributes(data, message.start + _ROUTE.size, message.end)
    return RouteResult(
        ifindex=_NUMBER.unpack(told[_RTA_OIF])[0] if _RTA_OIF in told else 0,
        source=_ntop(family, told[_RTA_PREFSRC]) if _RTA_PREFSRC in told else None,
        gateway=_gateway(family, told),
        table=_NUMBER.unpack(told[_RTA_TABLE])[0] if _RTA_TABLE in told else table,
        local=kind == RouteType.LOCAL,
    )


def rule(message: Message) -> Rule | None:
    """A policy routing rule; None for other families' (multicast routing has rules of its own)."""
    data = message.data
    family, dst_len, src_len, tos, table, _, _, action, flags = _RULE.unpack_from(data, message.start)
    if family not in _FAMILIES:
        return None
    told = attributes(data, message.start + _RULE.size, message.end)
    if _FRA_TABLE in told:
        (table,) = _NUMBER.unpack(told[_FRA_TABLE])
    source = None
    if _FRA_SRC in told:
        source = _ntop(family, told[_FRA_SRC])
        if src_len != _FAMILIES[family].bits:
            source += f"/{src_len}"
    elif src_len:
        source = f"{_ntop(family, bytes(_FAMILIES[family].bits // 8))}/{src_len}"
    suppress = None
    if _FRA_SUPPRESS_PREFIXLEN in told:
        (suppress,) = _NUMBER.unpack(told[_FRA_SUPPRESS_PREFIXLEN])
        if suppress == _FOREVER:  # how the kernel says "no"
            suppress = None
    act = {_FR_ACT_TO_TBL: RuleAction.TO_TABLE, _FR_ACT_UNREACHABLE: RuleAction.UNREACHABLE}.get(
        action, RuleAction.OTHER
    )
    return Rule(
        family=_FAMILIES[family],
        priority=_NUMBER.unpack(told[_FRA_PRIORITY])[0] if _FRA_PRIORITY in told else 0,
        source=source,
        table=table if act is RuleAction.TO_TABLE else 0,
        action=act,
        protocol=_BYTE.unpack(told[_FRA_PROTOCOL])[0] if _FRA_PROTOCOL in told else 0,
        suppress_prefixlength=suppress,
        foreign=bool(tos or dst_len or flags & ~_FIB_RULE_PERMANENT or set(told) - _FRA_KNOWN),
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _gateway(family: int, told: dict[int, bytes]) -> str | None:
    if _RTA_GATEWAY in told:
        return _ntop(family, told[_RTA_GATEWAY])
    if _RTA_VIA in told:
        (other,) = struct.unpack_from("=H", told[_RTA_VIA])
        return _ntop(other, told[_RTA_VIA][2:])
    return None


def _multipath(family: int, data: bytes) -> tuple[Hop, ...]:
    hops: list[Hop] = []
    offset = 0
    while len(data) - offset >= _HOP.size:
        length, flags, weight, index = _HOP.unpack_from(data, offset)
        if length < _HOP.size or offset + length > len(data):
            raise ValueError("next hop with an impossible length")
        told = attributes(data, offset + _HOP.size, offset + length)
        hops.append(
            Hop(
                ifindex=index,
                gateway=_gateway(family, told),
                onlink=bool(flags & _RTNH_F_ONLINK),
                weight=weight + 1,
                dead=bool(flags & _RTNH_F_DEAD),
            )
        )
        offset += (length + 3) & ~3
    return tuple(hops)


def _hop_attributes(data: bytes) -> Iterable[dict[int, bytes]]:
    offset = 0
    while len(data) - offset >= _HOP.size:
        length = _HOP.unpack_from(data, offset)[0]
        yield attributes(data, offset + _HOP.size, offset + length)
        offset += (length + 3) & ~3


def _metrics(data: bytes) -> tuple[tuple[str, int], ...]:
    return tuple(
        sorted(
            (METRICS[kind], int(_NUMBER.unpack(value)[0]))
            for kind, value in attributes(data, 0, len(data)).items()
            if kind in METRICS
        )
    )


def _alone(route: Route, hop: Hop) -> Route:
    """One sibling of an IPv6 multipath route."""
    return Route(
        destination=route.destination,
        table=route.table,
        hops=(hop,),
        type=route.type,
        protocol=route.protocol,
        scope=route.scope,
        metric=route.metric,
        tos=route.tos,
        source=route.source,
        preference=route.preference,
        metrics=route.metrics,
        nexthop_object=route.nexthop_object,
    )
