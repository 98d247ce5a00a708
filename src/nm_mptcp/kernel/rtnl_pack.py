# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes as rtnetlink messages, packed by hand: there may be 10,000, and a lost link must not wait for them.

pyroute2's ``rtmsg`` makes the same bytes (``tests/unit/test_rtnl_pack.py``) in twenty times the time, which would be nine
tenths of the cost of writing a route.
"""

from __future__ import annotations

import socket
import struct

from ..model.state import Family, Hop, Route
from . import rtnl_parse

_ROUTE = struct.Struct("=BBBBBBBBI")
_HOP = struct.Struct("=HBBi")
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=HHI")
_FAMILY = struct.Struct("=H")

# linux/rtnetlink.h
_RTM_F_ONLINK = 0x4  # the same bit as RTNH_F_ONLINK, of a hop of a multipath route
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_RTA_METRICS, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA, _RTA_PREF = 8, 9, 15, 18, 20
_METRICS = {name: number for number, name in rtnl_parse.METRICS.items()}

_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
_pton = socket.inet_pton


def route(wanted: Route) -> bytes:
    """The payload of RTM_NEWROUTE or RTM_DELROUTE."""
    destination, _, length = wanted.destination.partition("/")
    family = wanted.family
    # The table by RTA_TABLE alone, since the header's field has 8 bits.
    parts = [b"", _NUMBER.pack(8, _RTA_TABLE, wanted.table)]
    if length != "0":
        parts.append(_attribute(_RTA_DST, _pton(family, destination)))
    parts.append(_NUMBER.pack(8, _RTA_PRIORITY, wanted.metric))
    if wanted.source is not None:
        parts.append(_attribute(_RTA_PREFSRC, _pton(family, wanted.source)))
    if wanted.preference is not None:
        parts.append(_attribute(_RTA_PREF, bytes((wanted.preference,))))
    if wanted.metrics:
        metrics = (_NUMBER.pack(8, _METRICS[name], value) for name, value in wanted.metrics)
        parts.append(_attribute(_RTA_METRICS, b"".join(metrics)))
    flags = 0
    hops = wanted.hops
    if len(hops) == 1 and hops[0].weight == 1:
        flags = _RTM_F_ONLINK if hops[0].onlink else 0
        parts.append(_NUMBER.pack(8, _RTA_OIF, hops[0].ifindex))
        parts.append(_gateway(family, hops[0]))
    elif hops:
        parts.append(_attribute(_RTA_MULTIPATH, b"".join(_hop(family, hop) for hop in hops)))
    parts[0] = _ROUTE.pack(family, int(length), 0, wanted.tos, 0, wanted.protocol, wanted.scope, wanted.type, flags)
    return b"".join(parts)


def _attribute(kind: int, value: bytes) -> bytes:
    size = len(value)
    return _ATTRIBUTE.pack(4 + size, kind) + value + _PADDING[size & 3]


def _gateway(family: Family, hop: Hop) -> bytes:
    if hop.gateway is None:
        return b""
    via = Family.of(hop.gateway)
    packed = _pton(via, hop.gateway)
    if via is family:
        return _attribute(_RTA_GATEWAY, packed)
    return _attribute(_RTA_VIA, _FAMILY.pack(via) + packed)


def _hop(family: Family, hop: Hop) -> bytes:
    gateway = _gateway(family, hop)
    flags = _RTM_F_ONLINK if hop.onlink else 0
    return _HOP.pack(_HOP.size + len(gateway), flags, hop.weight - 1, hop.ifindex) + gateway
