# SPDX-License-Identifier: GPL-2.0-or-later
"""The links whose silence would change anything, with what tells which sockets use them."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..model.state import Carriers, Desired, Kernel, Place

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class WatchedLinks:
    """Made of a decision and the state that it is for."""

    local: Mapping[Place, str] = field(default_factory=dict)  #: each with a local address to ask its peers from
    place_of: Mapping[str, Place] = field(default_factory=dict)  #: all their local addresses
    tunnels: Mapping[Place, Carriers] = field(default_factory=dict)  #: those of these that are full tunnels
    around: frozenset[Place] = frozenset()  #: the links that the decision leads around
    inside: frozenset[str] = frozenset()  #: the addresses of tunnels whose connections stay in them
    names: Mapping[int, str] = field(default_factory=dict)  #: of their interfaces
    networks: tuple[_Network, ...] = ()  #: the machine's own, on all interfaces

    @classmethod
    def of(cls, desired: Desired, kernel: Kernel) -> WatchedLinks:
        """The links that this decision names."""
        local = {**desired.watched, **{place: carriers.address for place, carriers in desired.carriers.items()}}
        below = {ifindex for carriers in desired.carriers.values() for ifindex in carriers.links}
        below |= {place.ifindex for carriers in desired.carriers.values() for place in carriers.movable}
        return cls(
            local,
            {
                address.address: place
                for place in local
                for address in kernel.addresses.get(place.ifindex, ())
                if address.family is place.family
            },
            desired.carriers,
            desired.around,
            frozenset(address.address for index in desired.stays_inside for address in kernel.addresses.get(index, ())),
            {index: kernel.links[index].name for index in below | {place.ifindex for place in local}},
            tuple(
                _network(each.address, each.prefixlen)
                for group in (kernel.addresses.values() if local else ())
                for each in group
            ),
        )

    @property
    def below(self) -> frozenset[Place]:
        """The links that carry a full tunnel's packets and may be led around."""
        return frozenset[Place]().union(*(carriers.movable for carriers in self.tunnels.values()))

    def is_near(self, address: str) -> bool:
        """Whether an address is in a network of this machine's own, which says nothing about the way beyond a gateway."""
        value = ipaddress.ip_address(address)
        return value.is_loopback or any(value in network for network in self.networks)


@functools.lru_cache(maxsize=4096)
def _network(address: str, prefixlen: int) -> _Network:
    """The network that an address with this prefix is in. There may be hundreds, of which all are asked for at each change."""
    return ipaddress.ip_network((address, prefixlen), strict=False)
