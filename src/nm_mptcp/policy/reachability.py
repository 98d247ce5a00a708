# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: whether packets from a path reach its destinations: the route look-ups to make, and what their results mean.

``status``, ``check`` and ``explain`` all use it, and so report the same. The destinations follow from the address's routes:
with a default route they are probes in the public address space, without one hosts behind its other routes.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass

from ..kernel.route_lookup import NO_ROUTE, PROBES, RouteAnswer, RouteAnswers, RouteQuery
from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import (
    MAIN_TABLE,
    Device,
    Endpoint,
    Family,
    Kernel,
    Marks,
    NetworkManager,
    Path,
    Route,
    RouteResult,
    RouteType,
    RuleAction,
    State,
)

#: Kinds of bridge ports that connect containers and virtual machines, unless NetworkManager manages the port.
_INNER_PORTS = frozenset({"veth", "tun", "macvtap", "macvlan", "dummy"})

#: The most destinations that are looked up for one address.
_ENOUGH = 4


@dataclass(frozen=True, slots=True)
class Purpose:
    """What an address is to reach, by its routes."""

    destinations: tuple[str, ...] = ()  #: an address in each destination network
    default: bool = False  #: it has a default route
    beyond: bool = False  #: it has a route to more than its own network
    networks: tuple[str, ...] = ()  #: its own networks, unless it has a default route


@dataclass(frozen=True, slots=True)
class Case:
    """An active address with its purpose and its route look-ups."""

    ifindex: int
    purpose: Purpose
    question: RouteQuery
    serves: bool = False  #: it is announced to peers, which connect to it (signal)


class Purposes:
    """Determines purposes; reads the rules once for all addresses."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._own: dict[str, set[int]] = {}  #: tables of the rules for one address
        self._by_prefix: list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, int]] = []
        self._common: set[int] = set()  #: tables of the rules for any source
        for rule in kernel.rules:
            if not rule.only_by_source or rule.action is not RuleAction.TO_TABLE:
                continue
            if rule.source is None:
                self._common.add(rule.table)
            elif "/" in rule.source:
                self._by_prefix.append((ipaddress.ip_network(rule.source), rule.table))
            else:
                self._own.setdefault(rule.source, set()).add(rule.table)

    def case(self, address: str, ifindex: int, endpoint: Endpoint | None, flags: EndpointFlag) -> Case:
        """The case of an address on this interface with this endpoint; ``flags`` are used if it has none."""
        purpose = self.of(address, ifindex)
        bound, flags = (endpoint.ifindex, endpoint.flags) if endpoint else (ifindex, flags)
        question = RouteQuery(address, bound, purpose.destinations)
        return Case(ifindex, purpose, question, serves=bool(flags & EndpointFlag.SIGNAL))

    def of(self, address: str, ifindex: int) -> Purpose:
        """The purpose of an address on this interface."""
        family = Family.of(address)
        tables = {MAIN_TABLE, *self._own.get(address, ()), *self._common}
        tables.update(table for prefix, table in self._by_prefix if ipaddress.ip_address(address) in prefix)
        routes_by_link = [
            route
            for table in tables
            for route in self._kernel.routes.get((table, ifindex), ())
            if route.type is RouteType.UNICAST
        ]
        # The usual case, in which no other of perhaps thousands of routes has to be examined.
        if any(route.destination == family.default for route in routes_by_link):
            return Purpose(PROBES[family], default=True, beyond=True)
        routes = {
            route.destination for route in routes_by_link if route.family is family and not _is_of_the_link(route)
        }
        own = [each for each in self._kernel.addresses.get(ifindex, ()) if each.family is family]
        networks = {str(ipaddress.ip_interface(f"{each.address}/{each.prefixlen}").network) for each in own}
        networks |= {f"{each.peer}/{family.bits}" for each in own if each.peer}
        its_own = sorted(networks & routes)
        beyond = sorted(routes - networks)
        mine = {each.address for each in own}
        hosts = (_host(destination, mine) for destination in [*beyond, *its_own])
        return Purpose(tuple(host for host in hosts if host)[:_ENOUGH], beyond=bool(beyond), networks=tuple(its_own))


def cases(kernel: Kernel, paths: Iterable[Path]) -> tuple[Case, ...]:
    """The cases of the active paths."""
    purposes = Purposes(kernel)
    endpoints = {endpoint.address: endpoint for endpoint in kernel.endpoints if not endpoint.port}
    return tuple(
        purposes.case(path.address, path.ifindex, endpoints.get(path.address), path.flags)
        for path in paths
        if path.state is State.ACTIVE and path.ifindex in kernel.links and not kernel.links[path.ifindex].loopback
    )


def troubles(
    kernel: Kernel,
    networkmanager: NetworkManager,
    asked: Iterable[Case],
    answers: RouteAnswers,
    live: Container[str],
    marks: Marks,
    outward: Collection[Family] = (),
) -> dict[str, Reason]:
    """Why active addresses do not reach their destinations, by address; without those that do.

    ``live`` are the addresses with established subflows, which evidently work. ``outward`` are families with a default route
    also by an address that is not in ``asked``.
    """
    asked = tuple(asked)
    outward = {*outward, *(Family.of(each.question.address) for each in asked if each.purpose.default)}
    devices = {
        device.ip_interface: device for device in networkmanager.devices if device.profile and not device.external
    }
    found: dict[str, Reason] = {}
    for each in asked:
        address = each.question.address
        reason = (
            endpoint_elsewhere(each, kernel)
            or without_uplink(kernel, each.ifindex, devices)
            or no_way(each, answers.get(address, ()), kernel, marks)
        )
        if reason is None and not each.serves and address not in live and Family.of(address) in outward:
            link = kernel.links.get(each.ifindex)
            reason = own_network_only(each, devices.get(link.name) if link else None)
        if reason is not None:
            found[address] = reason
    return found


def endpoint_elsewhere(case: Case, kernel: Kernel) -> Reason | None:
    """Why the kernel opens no further subflow from an address: it binds those to the interface of the endpoint, which is not
    the one that has the address. None for an address that is announced, to which peers connect whatever its endpoint is for.
    """
    bound = case.question.bound
    if case.serves or bound in (0, case.ifindex):
        return None
    link = kernel.links.get(bound)
    return Reason(Why.ENDPOINT_ELSEWHERE, link.name if link else "an interface that is gone")


def no_way(case: Case, answers: tuple[RouteAnswer, ...], kernel: Kernel, marks: Marks) -> Reason | None:
    """Why packets from an address reach none of its destinations; None if they reach one."""
    link = kernel.links.get(case.ifindex)
    name = link.name if link else f"interface {case.ifindex}"
    if not case.purpose.destinations:
        return Reason(Why.NO_WAY, f"no route leaves by {name}")
    if not answers or any(arrives(answer.bound, case.ifindex) for answer in answers):
        return None
    first = answers[0]
    for result in (first.plain, first.bound):
        if result.error:
            words = result.error.partition(":")[0]
            # IPv4 returns the same error for a rule that rejects packets and for no route.
            rejects = any(rule.action is RuleAction.UNREACHABLE and not marks.on_rule(rule) for rule in kernel.rules)
            if rejects and words == NO_ROUTE[errno.ENETUNREACH]:
                words = "an 'unreachable' rule"
            return Reason(Why.NO_WAY, f"packets find {words}")
    other = kernel.links.get(first.bound.ifindex)
    return Reason(Why.NO_WAY, f"packets leave by {other.name if other else first.bound.ifindex}")


def own_network_only(case: Case, device: Device | None) -> Reason | None:
    """Why an address reaches only its own network; None if it has a route to more."""
    if case.purpose.beyond:
        return None
    profile = device.profile if device else None
    refused = profile is not None and profile.never_default(Family.of(case.question.address))
    return Reason(Why.REFUSES_DEFAULT if refused else Why.OWN_NETWORK, " and ".join(case.purpose.networks))


def without_uplink(kernel: Kernel, ifindex: int, managed: Container[str]) -> Reason | None:
    """Why a bridge has no uplink: none of the ports that lead out of this machine has a carrier.

    None if one has, for a bridge without ports, and for other links. (The bridge's own carrier is on with any port's, also a
    container's.)
    """
    link = kernel.links.get(ifindex)
    if link is None or link.kind != "bridge":
        return None
    ports = [each for each in kernel.links.values() if each.master == ifindex]
    outer = [each for each in ports if each.name in managed or each.kind not in _INNER_PORTS]
    if not ports or any(each.up and each.carrier for each in outer):
        return None
    if not outer:
        inner = ", ".join(sorted(each.name for each in ports))
        return Reason(Why.NO_UPLINK, f"none of its ports leads out of this machine ({inner})")
    return Reason(Why.NO_UPLINK, f"no carrier on {', '.join(sorted(each.name for each in outer))}")


def arrives(result: RouteResult, ifindex: int) -> bool:
    """Whether a packet leaves by that interface, or its destination is this machine."""
    return not result.error and (result.local or result.ifindex == ifindex)


def _is_of_the_link(route: Route) -> bool:
    """Whether a route is link-local or multicast: every link has those."""
    network = ipaddress.ip_network(route.destination)
    return network.is_multicast or (network.is_link_local and network.prefixlen > 0)


def _host(destination: str, mine: Container[str]) -> str:
    """An address in a prefix, other than this machine's (``mine``); "" if there is none."""
    network = ipaddress.ip_network(destination)
    if network.num_addresses == 1:
        return "" if str(network[0]) in mine else str(network[0])
    hosts = (str(network[number]) for number in range(1, min(network.num_addresses, 5)))
    return next((host for host in hosts if host not in mine), "")
