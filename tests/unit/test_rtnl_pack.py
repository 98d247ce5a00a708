# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes are packed by hand into the bytes that pyroute2 makes of them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from nm_mptcp.kernel import rtnl_pack
from nm_mptcp.kernel.netlink import encoded
from nm_mptcp.kernel.rtnl_parse import METRICS
from nm_mptcp.model.state import Family, Hop, Route, RouteType

NUMBERS = st.integers(0, 0xFFFFFFFF)
ADDRESSES = {Family.IPV4: st.ip_addresses(v=4).map(str), Family.IPV6: st.ip_addresses(v=6).map(str)}


def hops(family: Family) -> st.SearchStrategy[Hop]:
    gateways = ADDRESSES[family] if family is Family.IPV6 else st.one_of(*ADDRESSES.values())
    return st.builds(
        Hop,
        st.integers(1, 0x7FFFFFFF),
        st.none() | gateways,
        onlink=st.booleans(),
        weight=st.integers(1, 256),
    )


@st.composite
def routes(draw: st.DrawFn) -> Route:
    family = draw(st.sampled_from(Family))
    return Route(
        f"{draw(ADDRESSES[family])}/{draw(st.integers(0, family.bits))}",
        draw(NUMBERS),
        tuple(draw(st.lists(hops(family), max_size=3))),
        draw(st.sampled_from(RouteType)),
        draw(st.integers(0, 255)),
        draw(st.integers(0, 255)),
        draw(NUMBERS),
        draw(st.integers(0, 255)),
        draw(st.none() | ADDRESSES[family]),
        draw(st.none() | st.integers(0, 3)),
        tuple(draw(st.dictionaries(st.sampled_from(sorted(METRICS.values())), NUMBERS)).items()),
    )


@given(routes())
def test_the_same_bytes_as_pyroute2s(route: Route) -> None:
    assert rtnl_pack.route(route) == encoded(theirs(route))


def theirs(route: Route) -> Any:
    destination, _, length = route.destination.partition("/")
    attributes: list[tuple[str, Any]] = [("RTA_TABLE", route.table)]
    if int(length):
        attributes.append(("RTA_DST", destination))
    attributes.append(("RTA_PRIORITY", route.metric))
    if route.source is not None:
        attributes.append(("RTA_PREFSRC", route.source))
    if route.preference is not None:
        attributes.append(("RTA_PREF", route.preference))
    if route.metrics:
        attributes.append(("RTA_METRICS", {"attrs": list(route.metrics)}))
    message = rtmsg()
    message["flags"] = 0
    if len(route.hops) == 1 and route.hops[0].weight == 1:
        message["flags"] = 4 if route.hops[0].onlink else 0
        attributes.append(("RTA_OIF", route.hops[0].ifindex))
        attributes += gateway(route.family, route.hops[0])
    elif route.hops:
        told = [
            {
                "oif": hop.ifindex,
                "hops": hop.weight - 1,
                "flags": 4 if hop.onlink else 0,
                "attrs": gateway(route.family, hop),
            }
            for hop in route.hops
        ]
        attributes.append(("RTA_MULTIPATH", told))
    fields = {
        "family": route.family,
        "dst_len": length,
        "tos": route.tos,
        "proto": route.protocol,
        "scope": route.scope,
        "type": route.type,
    }
    for name, value in fields.items():
        message[name] = int(value)
    message["attrs"] = attributes
    return message


def gateway(family: Family, hop: Hop) -> list[tuple[str, Any]]:
    if hop.gateway is None:
        return []
    via = Family.of(hop.gateway)
    if via is family:
        return [("RTA_GATEWAY", hop.gateway)]
    return [("RTA_VIA", {"family": int(via), "addr": hop.gateway})]
