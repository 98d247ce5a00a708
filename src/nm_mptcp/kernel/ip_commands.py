# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: the commands equivalent to an operation, for ``--dry-run`` and the log."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from ..model.flags import CHANGEABLE, names
from ..model.state import (
    Action,
    Endpoint,
    Family,
    Hop,
    LeakingSubflows,
    Limits,
    Link,
    LinkdownSetting,
    Operation,
    RedundantSubflows,
    ReversePathSetting,
    Route,
    RouteType,
    Rule,
)
from .rtnl_parse import METRICS
from .sock_diag import Subflow

_PREFERENCE = {0: "medium", 1: "high", 3: "low"}


#: The bits of ``RTAX_FEATURES`` that ``ip route`` has names for (kernel: ``RTAX_FEATURE_ECN``, ``RTAX_FEATURE_TCP_USEC_TS``).
_FEATURES = {1 << 0: "ecn", 1 << 4: "tcp_usec_ts"}


def command(operation: Operation, links: Mapping[int, Link]) -> str:
    """The equivalent command for a root shell; for subflows to be closed a comment, see :func:`closing`."""
    value = operation.value
    if isinstance(value, Endpoint):
        return _endpoint(operation.action, value, links)
    if isinstance(value, Limits):
        return f"ip mptcp limits set subflows {value.subflows} add_addr_accepted {value.add_addr_accepted}"
    if isinstance(value, Rule):
        return _rule(operation.action, value)
    if isinstance(value, LinkdownSetting):
        family = "ipv4" if value.family is Family.IPV4 else "ipv6"
        # With slashes, so that a dot in the interface's name does not separate.
        setting = f"net/{family}/conf/{value.name}/ignore_routes_with_linkdown={int(value.ignored)}"
        return f"sysctl -w {shlex.quote(setting)}"
    if isinstance(value, ReversePathSetting):
        return f"sysctl -w {shlex.quote(f'net/ipv4/conf/{value.name}/rp_filter={2 if value.loose else 1}')}"
    if isinstance(value, RedundantSubflows):
        return f"# close the subflows on {', '.join(sorted(value.addresses))} whose connection has a live one elsewhere"
    if isinstance(value, LeakingSubflows):
        return f"# close the subflows on {', '.join(sorted(value.addresses))}, except to peers outside of the tunnel"
    return _route(operation.action, value, links)


def closing(subflows: Iterable[Subflow]) -> list[str]:
    """The commands that close exactly these sockets; by address alone they would close others there, e.g. an ssh session."""
    return [
        f"ss -tK {shlex.quote(f'src {_socket(each.local, each.local_port)} dst {_socket(each.remote, each.remote_port)}')}"
        for each in subflows
    ]


def _socket(address: str, port: int) -> str:
    return f"[{address}]:{port}" if Family.of(address) is Family.IPV6 else f"{address}:{port}"


def _endpoint(action: Action, endpoint: Endpoint, links: Mapping[int, Link]) -> str:
    if action is Action.DELETE:
        address = f" {endpoint.address}" if not endpoint.id else ""
        return f"ip mptcp endpoint delete id {endpoint.id}{address}"
    words = names(endpoint.flags)
    if action is Action.SET_FLAGS:
        # "change" takes only flags that can be changed in place, each with its opposite.
        has = [name if name in words else f"no{name}" for name in names(CHANGEABLE)]
        return " ".join(["ip mptcp endpoint change id", str(endpoint.id), *has])
    port = [f"port {endpoint.port}"] if endpoint.port else []
    return " ".join(["ip mptcp endpoint add", endpoint.address, *port, *_dev(endpoint.ifindex, links), *words])


def _rule(action: Action, rule: Rule) -> str:
    if action is Action.REPLACE:  # it moves behind all others of its priority, for which ip(8) takes two steps
        return f"{_rule(Action.DELETE, rule)} && {_rule(Action.ADD, rule)}"
    words = ["ip", _flag(rule.family), "rule", action.value, "priority", str(rule.priority), rule.text]
    return " ".join([*words, "protocol", str(rule.protocol)])


def _route(action: Action, route: Route, links: Mapping[int, Link]) -> str:
    # Several IPv6 unicast routes may have one destination and metric; "add" would reject the second.
    sibling = action is Action.ADD and route.family is Family.IPV6 and route.type is RouteType.UNICAST
    verb = "append" if sibling else action.value
    words = ["ip", _flag(route.family), "route", verb]
    if route.type is not RouteType.UNICAST:
        words.append(route.type.name.lower())
    words.append("default" if route.is_default else route.destination)
    if len(route.hops) == 1:
        words += _hop(route.hops[0], route.family, links)
    words += ["table", str(route.table), "proto", str(route.protocol)]
    if route.metric:
        words += ["metric", str(route.metric)]
    if route.tos:
        words += ["tos", hex(route.tos)]
    if route.source:
        words += ["src", route.source]
    if route.family is Family.IPV4 and route.hops:
        words += ["scope", {0: "global", 253: "link", 254: "host"}.get(route.scope, str(route.scope))]
    if route.preference:
        words += ["pref", _PREFERENCE.get(route.preference, str(route.preference))]
    words += _metrics(dict(route.metrics))
    if len(route.hops) > 1:
        for hop in route.hops:
            words += ["nexthop", *_hop(hop, route.family, links), "weight", str(hop.weight)]
    return " ".join(words)


def _metrics(metrics: Mapping[str, int]) -> list[str]:
    """In the syntax of ``ip route``: "lock" before a locked number, features by name."""
    locked = metrics.get("RTAX_LOCK", 0)
    words: list[str] = []
    for bit, name in METRICS.items():
        if name == "RTAX_FEATURES":
            for feature, known in _FEATURES.items():
                words += ["features", known] if metrics.get(name, 0) & feature else []
        elif name in metrics and name != "RTAX_LOCK":
            # "rto_min" is always locked.
            lock = locked & 1 << bit and name != "RTAX_RTO_MIN"
            words += [name.removeprefix("RTAX_").lower(), *(["lock"] if lock else []), str(metrics[name])]
    return words


def _hop(hop: Hop, family: Family, links: Mapping[int, Link]) -> list[str]:
    words = []
    if hop.gateway:
        other = Family.of(hop.gateway) is not family
        words = ["via", *(["inet6"] if other else []), hop.gateway]
    return [*words, *_dev(hop.ifindex, links), *(["onlink"] if hop.onlink else [])]


def _dev(ifindex: int, links: Mapping[int, Link]) -> list[str]:
    if not ifindex:
        return []
    return ["dev", shlex.quote(links[ifindex].name) if ifindex in links else f"if{ifindex}"]


def _flag(family: Family) -> str:
    return "-4" if family is Family.IPV4 else "-6"
