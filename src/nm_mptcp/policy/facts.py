# SPDX-License-Identifier: GPL-2.0-or-later
"""What policy looks at: a snapshot with its look-ups, and the decision on an address while it is being made."""

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
from .identity_cache import remembered
from .source_routing import default_route, own_rules

#: Verdicts on an address that another one of the same link follows.
SUPERSEDED = frozenset({Why.DEPRECATED, Why.NO_LONGER_CHOSEN})


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for an address, before it becomes a :class:`Path`."""

    on: Address
    state: State
    reason: Reason
    device: Device | None = None
    flags: EndpointFlag = EndpointFlag(0)
    flags_from: FlagsFrom = FlagsFrom.KIND
    owner: Owner = Owner.OURS
    wants_endpoint: bool = False  #: ours to make
    port: int = 0  #: of its endpoint; 0: none
    options: PathOptions = PathOptions()  #: what the configuration says of it

    @property
    def address(self) -> str:
        """The address."""
        return self.on.address

    @property
    def ifindex(self) -> int:
        """The interface that it is on."""
        return self.on.ifindex

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return self.on.family

    @property
    def route_table(self) -> int:
        """The table that NetworkManager puts this address's routes in."""
        profile = self.device.profile if self.device else None
        return profile.route_table(self.family) if profile else MAIN_TABLE

    @property
    def explicit(self) -> bool:
        """Whether the profile itself says which flags."""
        return self.flags_from is FlagsFrom.PROFILE

    @property
    def automatic(self) -> bool:
        """Whether nobody chose the flags and nobody else makes the endpoint: they are ours to change."""
        return self.flags_from is FlagsFrom.KIND and self.owner is Owner.OURS


class Facts:
    """A snapshot with the look-ups that policy needs, each made once."""

    def __init__(self, snapshot: Snapshot, config: Config = DEFAULTS) -> None:
        self.snapshot = snapshot
        self.config = config
        now = config.routing.numbering
        self.marks = marks_of(now, snapshot.ours.numberings - {now})
        self.kernel = snapshot.kernel
        self.networkmanager = snapshot.networkmanager
        self.own = frozenset(filter(snapshot.ours.owns, self.kernel.endpoints))  #: the endpoints that are ours
        others_ports = [each for each in self.kernel.endpoints if each.port and each not in self.own]
        #: what others have the kernel listen on: address and port
        self.foreign_listeners = {(endpoint.address, endpoint.port) for endpoint in others_ports}
        #: the one that counts on each address; what others have there with a port stands beside any of ours
        self.endpoint_at = {
            endpoint.address: endpoint
            for endpoint in sorted(self.kernel.endpoints, key=_weight)
            if endpoint not in others_ports
        }
        self.device_of = {device.ip_interface: device for device in self.networkmanager.devices}
        self.addresses_with_rules = {rule.source for rule in own_rules(self.kernel.rules, self.marks)}
        self.unavailable = (
            self.networkmanager.unavailable
        )  #: why NetworkManager's will may be another one, "" where it is known
        self.withdrawn = {endpoint.address: endpoint for endpoint in snapshot.ours.withdrawn}
        self._absent: dict[int, tuple[Address, ...]] = {}
        for address in sorted(snapshot.absent, key=lambda address: address.address):
            self._absent[address.ifindex] = (*self._absent.get(address.ifindex, ()), address)
        self._options: dict[tuple[int, str], PathOptions] = {}
        self._defaults: dict[tuple[int, Family, int], Route | None] = {}

    def addresses(self) -> Iterable[Address]:
        """The addresses that are to be judged, by interface: all but those of strangers, and those that were there a moment
        ago.
        """
        for ifindex in sorted(self.kernel.addresses.keys() | self._absent):
            if ifindex in self.kernel.links and not self._is_unmanaged(ifindex):
                yield from self.kernel.addresses.get(ifindex, ())
                yield from self._absent.get(ifindex, ())

    def is_absent(self, address: Address) -> bool:
        """Whether an address is one that was there a moment ago."""
        return address in self.snapshot.absent

    def unmanaged_interfaces(self) -> Iterable[int]:
        """Interfaces that NetworkManager does not manage, without an endpoint: nothing is ever decided about them.

        There may be hundreds (containers, a server's addresses), and a lost link waits while its neighbours are judged.
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
            return False  # it was a path; whose device it is nobody knows yet
        return not any(address in addresses for address in self.endpoint_at)

    def link(self, ifindex: int) -> Link:
        """The link with that index."""
        return self.kernel.links[ifindex]

    def device(self, ifindex: int) -> Device | None:
        """NetworkManager's device on that link, None where it knows none."""
        return self.device_of.get(self.link(ifindex).name)

    def default(self, ifindex: int, family: Family, table: int) -> Route | None:
        """The best default route by that link in a table."""
        key = (ifindex, family, table)
        if key not in self._defaults:
            self._defaults[key] = default_route(self.kernel, ifindex, family, table, marks=self.marks)
        return self._defaults[key]

    def route_table(self, decision: Decision) -> int:
        """The table that NetworkManager puts an address's routes in; where its profile is not known, as its rules have it."""
        if decision.device is not None and decision.device.profile is not None:
            return decision.route_table
        looked_up = {rule.table for rule in own_rules(self.kernel.rules, self.marks) if rule.source == decision.address}
        others = (table for table in looked_up - {0, MAIN_TABLE} if not self.marks.on_table(table))
        return min(others, default=MAIN_TABLE)

    def metric(self, decision: Decision) -> int:
        """The metric of an address's default route, a bad one where it has none."""
        route = self.default(decision.ifindex, decision.family, decision.route_table)
        return route.metric if route else WORST_METRIC

    def options(self, address: Address) -> PathOptions:
        """What the configuration says of a path with this address."""
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
        """The endpoint of ours that stands on this address, None where there is none or it is not ours."""
        endpoint = self.endpoint_at.get(address.address)
        return endpoint if endpoint in self.own else None

    def has_own_endpoint(self, address: Address) -> bool:
        """Whether an endpoint of ours stands on this address of this interface."""
        own = self.own_endpoint(address)
        return own is not None and own.ifindex == address.ifindex

    def removable_endpoint(self, decision: Decision) -> Endpoint | None:
        """The endpoint on a decision's address that is ours, or NetworkManager's to take out: never anybody else's."""
        endpoint = self.endpoint_at.get(decision.address)
        if endpoint is None or endpoint.ifindex != decision.ifindex:
            return None
        theirs = decision.owner is Owner.NETWORKMANAGER and not endpoint.flags & EndpointFlag.IMPLICIT
        return endpoint if endpoint in self.own or theirs else None

    def dependents(self, address: str, lost: Set[str]) -> int:
        """How many live connections stand on this address and on nothing outside of ``lost``."""
        connections = self.snapshot.connections or {}
        return sum(count for places, count in connections.items() if address in places and places <= lost)

    def has_dependents(self, address: str, lost: Set[str]) -> bool:
        """Whether a live connection stands on this address and on nothing outside of ``lost``, for all that is known."""
        return self.snapshot.connections is None or bool(self.dependents(address, lost))

    def is_refused(self, decision: Decision) -> bool:
        """Whether the kernel refuses this endpoint, also where it has a place for it."""
        return bool(self.snapshot.refused.get((decision.address, decision.ifindex)))

    def is_present(self, address: str) -> bool:
        """Whether any interface has this address."""
        return any(address in _texts(group) for group in self.kernel.addresses.values())

    def successors(self, on: Address, *, of_the_other_kind: bool = False) -> list[Address]:
        """The addresses of its interface that may take an address's place; the other kind of a stable one is temporary."""
        return [
            other
            for other in self.kernel.addresses.get(on.ifindex, ())
            if other.family is on.family
            and other.address != on.address
            and not other.flags & AddressFlag.DEPRECATED
            and not (of_the_other_kind and not (other.flags ^ on.flags) & AddressFlag.TEMPORARY)
        ]

    def has_successor(self, decision: Decision) -> bool:
        """Whether an address that another one follows has its successor: one with an endpoint; any other needs none."""
        if decision.reason.why not in SUPERSEDED:
            return True
        other_kind = decision.reason.why is Why.NO_LONGER_CHOSEN
        return any(
            (endpoint := self.endpoint_at.get(successor.address)) and endpoint.ifindex == decision.ifindex
            for successor in self.successors(decision.on, of_the_other_kind=other_kind)
        )

    def foreign_endpoint(self, address: Address) -> Endpoint | None:
        """The endpoint of somebody else on this address; the kernel's own (implicit) ones are replaceable, and so none."""
        endpoint = self.endpoint_at.get(address.address)
        if endpoint is None or endpoint in self.own or endpoint.flags & EndpointFlag.IMPLICIT:
            return None
        return endpoint


def _weight(endpoint: Endpoint) -> int:
    """Of several endpoints on an address the greatest counts: somebody's without a port before ours with one."""
    if endpoint.flags & EndpointFlag.IMPLICIT:
        return 0
    return 1 if endpoint.port else 2


@remembered(objects=1)
def _texts(addresses: tuple[Address, ...]) -> frozenset[str]:
    return frozenset(address.address for address in addresses)
