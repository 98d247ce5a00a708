# SPDX-License-Identifier: GPL-2.0-or-later
"""The input of policy with its look-ups, and the decision for an address while it is being made."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from ..config.settings import DEFAULTS, Config, PathOptions
from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import (
    MAIN_TABLE,
    WORST_METRIC,
    Address,
    AddressFlag,
    Device,
    Endpoint,
    Family,
    FlagsFrom,
    Link,
    Owner,
    Route,
    Snapshot,
    State,
    marks_of,
)
from .identity_cache import cached_by_identity
from .source_routing import default_route, own_rules

#: Reasons of an address that another one on the same interface replaces.
SUPERSEDED = frozenset({Why.DEPRECATED, Why.NO_LONGER_CHOSEN})


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision for an address, which each step of policy may replace; in the end it becomes a :class:`Path`."""

    on: Address
    state: State
    reason: Reason
    device: Device | None = None
    flags: EndpointFlag = EndpointFlag(0)
    flags_from: FlagsFrom = FlagsFrom.KIND
    owner: Owner = Owner.OURS
    wants_endpoint: bool = False  #: an endpoint of ours is desired
    port: int = 0  #: of its endpoint; 0: none
    options: PathOptions = PathOptions()  #: the configuration that applies to it

    @property
    def address(self) -> str:
        """The address."""
        return self.on.address

    @property
    def ifindex(self) -> int:
        """The index of its interface."""
        return self.on.ifindex

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return self.on.family

    @property
    def route_table(self) -> int:
        """The table in which NetworkManager adds this address's routes."""
        profile = self.device.profile if self.device else None
        return profile.route_table(self.family) if profile else MAIN_TABLE

    @property
    def explicit(self) -> bool:
        """Whether the profile sets the flags."""
        return self.flags_from is FlagsFrom.PROFILE

    @property
    def automatic(self) -> bool:
        """Whether policy may change the flags: neither profile nor configuration sets them, and the endpoint is ours."""
        return self.flags_from is FlagsFrom.KIND and self.owner is Owner.OURS


class Facts:
    """A snapshot with the look-ups that policy needs, each computed once."""

    def __init__(self, snapshot: Snapshot, config: Config = DEFAULTS) -> None:
        self.snapshot = snapshot
        self.config = config
        now = config.routing.numbering
        self.marks = marks_of(now, snapshot.ours.numberings - {now})
        self.kernel = snapshot.kernel
        self.networkmanager = snapshot.networkmanager
        self.own = frozenset(filter(snapshot.ours.owns, self.kernel.endpoints))  #: the endpoints that are ours
        others_ports = [each for each in self.kernel.endpoints if each.port and each not in self.own]
        #: address and port of other programs' endpoints with a port, on which the kernel listens
        self.foreign_listeners = {(endpoint.address, endpoint.port) for endpoint in others_ports}
        #: the decisive endpoint on each address; another program's endpoint with a port does not conflict with ours
        self.endpoint_at = {
            endpoint.address: endpoint
            for endpoint in sorted(self.kernel.endpoints, key=_weight)
            if endpoint not in others_ports
        }
        self.device_of = {device.ip_interface: device for device in self.networkmanager.devices}
        self.addresses_with_rules = {rule.source for rule in own_rules(self.kernel.rules, self.marks)}
        self.unavailable = self.networkmanager.unavailable
        self.withdrawn = {endpoint.address: endpoint for endpoint in snapshot.ours.withdrawn}
        self._absent: dict[int, tuple[Address, ...]] = {}
        for address in sorted(snapshot.absent, key=lambda address: address.address):
            self._absent[address.ifindex] = (*self._absent.get(address.ifindex, ()), address)
        self._options: dict[tuple[int, str], PathOptions] = {}
        self._defaults: dict[tuple[int, Family, int], Route | None] = {}

    def addresses(self) -> Iterable[Address]:
        """The addresses to decide on, by interface: also recently removed ones, not those of :meth:`unmanaged_interfaces`."""
        for ifindex in sorted(self.kernel.addresses.keys() | self._absent):
            if ifindex in self.kernel.links and not self._is_unmanaged(ifindex):
                yield from self.kernel.addresses.get(ifindex, ())
                yield from self._absent.get(ifindex, ())

    def is_absent(self, address: Address) -> bool:
        """Whether an address was recently removed; see :attr:`Snapshot.absent`."""
        return address in self.snapshot.absent

    def unmanaged_interfaces(self) -> Iterable[int]:
        """Interfaces that NetworkManager does not manage and that have no endpoint.

        Their addresses are excluded without a decision: there may be hundreds (containers, a server's addresses), and each
        decision delays the reaction to a lost link.
        """
        return (
            ifindex for ifindex in self.kernel.addresses if ifindex in self.kernel.links and self._is_unmanaged(ifindex)
        )

    def _is_unmanaged(self, ifindex: int) -> bool:
        device = self.device(ifindex)
        if device is not None and (device.managed or device.external):
            return False
        addresses = _texts(self.kernel.addresses.get(ifindex, ()))
        if self.unavailable and not addresses.isdisjoint(self.addresses_with_rules):
            return False  # it was a path, and its device is not known yet
        return not any(address in addresses for address in self.endpoint_at)

    def link(self, ifindex: int) -> Link:
        """The link with that index. Raises :class:`KeyError` for an unknown one."""
        return self.kernel.links[ifindex]

    def device(self, ifindex: int) -> Device | None:
        """NetworkManager's device on that link, or None."""
        return self.device_of.get(self.link(ifindex).name)

    def default(self, ifindex: int, family: Family, table: int) -> Route | None:
        """The best default route by that link in a table, or None."""
        key = (ifindex, family, table)
        if key not in self._defaults:
            self._defaults[key] = default_route(self.kernel, ifindex, family, table, marks=self.marks)
        return self._defaults[key]

    def route_table(self, decision: Decision) -> int:
        """The table in which NetworkManager adds an address's routes; without a known profile that of our existing rules."""
        if decision.device is not None and decision.device.profile is not None:
            return decision.route_table
        tables = {rule.table for rule in own_rules(self.kernel.rules, self.marks) if rule.source == decision.address}
        profiles = (table for table in tables - {0, MAIN_TABLE} if not self.marks.on_table(table))
        return min(profiles, default=MAIN_TABLE)

    def metric(self, decision: Decision) -> int:
        """The metric of an address's default route, :data:`WORST_METRIC` if it has none."""
        route = self.default(decision.ifindex, decision.family, decision.route_table)
        return route.metric if route else WORST_METRIC

    def options(self, address: Address) -> PathOptions:
        """The configuration that applies to a path with this address; the defaults without a device."""
        place = (address.ifindex, address.address)
        known = self._options.get(place)
        if known is None:
            device = self.device(address.ifindex)
            profile = device.profile if device else None
            known = self._options[place] = (
                self.config.for_path(
                    device,
                    profile_id=profile.id if profile else "",
                    profile_uuid=profile.uuid if profile else "",
                    address=address.address,
                )
                if device
                else PathOptions()
            )
        return known

    def own_endpoint(self, address: Address) -> Endpoint | None:
        """Our endpoint on this address, on whatever interface, or None."""
        endpoint = self.endpoint_at.get(address.address)
        return endpoint if endpoint in self.own else None

    def has_own_endpoint(self, address: Address) -> bool:
        """Whether there is an endpoint of ours on this address and this interface."""
        own = self.own_endpoint(address)
        return own is not None and own.ifindex == address.ifindex

    def removable_endpoint(self, decision: Decision) -> Endpoint | None:
        """The endpoint on a decision's address and interface that policy may delete: ours, or NetworkManager's; or None."""
        endpoint = self.endpoint_at.get(decision.address)
        if endpoint is None or endpoint.ifindex != decision.ifindex:
            return None
        networkmanagers = decision.owner is Owner.NETWORKMANAGER and not endpoint.flags & EndpointFlag.IMPLICIT
        return endpoint if endpoint in self.own or networkmanagers else None

    def dependents(self, address: str, lost: Set[str]) -> int:
        """The number of live connections with a subflow on this address and none on an address outside of ``lost``."""
        connections = self.snapshot.connections or {}
        return sum(count for places, count in connections.items() if address in places and places <= lost)

    def has_dependents(self, address: str, lost: Set[str]) -> bool:
        """Whether there are :meth:`dependents`; True also while the connections are not known."""
        return self.snapshot.connections is None or bool(self.dependents(address, lost))

    def is_refused(self, decision: Decision) -> bool:
        """Whether the kernel refuses this endpoint for another reason than a full table."""
        return bool(self.snapshot.refused.get((decision.address, decision.ifindex)))

    def is_present(self, address: str) -> bool:
        """Whether any interface has this address."""
        return any(address in _texts(group) for group in self.kernel.addresses.values())

    def successors(self, on: Address, *, of_the_other_kind: bool = False) -> list[Address]:
        """The addresses of its interface and family that may replace an address: those that are not deprecated.

        ``of_the_other_kind``: only temporary ones for a stable address, and stable ones for a temporary address.
        """
        return [
            other
            for other in self.kernel.addresses.get(on.ifindex, ())
            if other.family is on.family
            and other.address != on.address
            and not other.flags & AddressFlag.DEPRECATED
            and not (of_the_other_kind and not (other.flags ^ on.flags) & AddressFlag.TEMPORARY)
        ]

    def has_successor(self, decision: Decision) -> bool:
        """Whether an address that is :data:`SUPERSEDED` has a successor with an endpoint; True for all others."""
        if decision.reason.why not in SUPERSEDED:
            return True
        other_kind = decision.reason.why is Why.NO_LONGER_CHOSEN
        return any(
            (endpoint := self.endpoint_at.get(successor.address)) and endpoint.ifindex == decision.ifindex
            for successor in self.successors(decision.on, of_the_other_kind=other_kind)
        )

    def foreign_endpoint(self, address: Address) -> Endpoint | None:
        """Another program's endpoint on this address, or None; implicit ones are replaceable and do not count."""
        endpoint = self.endpoint_at.get(address.address)
        if endpoint is None or endpoint in self.own or endpoint.flags & EndpointFlag.IMPLICIT:
            return None
        return endpoint


def _weight(endpoint: Endpoint) -> int:
    """Of several endpoints on an address the one with the greatest weight decides: one without a port, then one of ours."""
    if endpoint.flags & EndpointFlag.IMPLICIT:
        return 0
    return 1 if endpoint.port else 2


@cached_by_identity(objects=1)
def _texts(addresses: tuple[Address, ...]) -> frozenset[str]:
    return frozenset(address.address for address in addresses)
