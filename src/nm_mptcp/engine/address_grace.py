# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses that went away from under an endpoint of ours while NetworkManager's activation goes on.

NetworkManager takes IPv6 addresses away and adds them again where their order changes, and the kernel takes them all away
from an interface that is set down: NetworkManager adds them when it is up again, and its own endpoints stay all the while
(nm-l3cfg.c: they follow what it configures, not what the kernel has). Where none comes back in time it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..model.state import Address, DeviceState, Endpoint, Kernel, NetworkManager

#: Seconds after which an address counts as gone whose link was there all the time. NetworkManager adds a fixed one again after
#: some milliseconds; a router's only when that has answered it, which may take 3.5 s (RFC 4861, 6.2.6: MIN_DELAY_BETWEEN_RAS).
GONE = 5.0

#: The same from the moment at which its link is back: the kernel takes a second for its link-local address, and then routers
#: may be asked three times, each 4 s later.
GONE_WITH_THE_LINK = 15.0


@dataclass(frozen=True, slots=True)
class _Past:
    """Until when an address may come back (s, on the caller's clock), in which activation, and what was known of it."""

    until: float
    activation: str
    address: Address


class AddressGrace:
    """Remembers what went away. It has no clock: the caller says what time it is."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], Address] = {}
        self._away: dict[tuple[str, int], _Past] = {}

    def look(
        self, kernel: Kernel, networkmanager: NetworkManager, standing: Iterable[Endpoint], now: float
    ) -> frozenset[Address]:
        """Take in what there is; gives the addresses of endpoints of ours (``standing``) that may come back."""
        device_of = {device.ip_interface: device for device in networkmanager.devices}
        seen: dict[tuple[str, int], Address] = {}
        away: dict[tuple[str, int], _Past] = {}
        for endpoint in standing:
            place = endpoint.place
            if address := _address_of(kernel, endpoint):
                seen[place] = address
                continue
            link = kernel.links.get(endpoint.ifindex)
            device = device_of.get(link.name) if link else None
            if link is None or device is None or not DeviceState.IP_CONFIG <= device.state <= DeviceState.ACTIVATED:
                continue
            past = self._away.get(place)
            if past is None:
                address = self._seen.get(place) or Address(endpoint.ifindex, endpoint.address, endpoint.family.bits)
                past = _Past(now + GONE, device.activation, address)
            if past.activation != device.activation or _is_elsewhere(kernel, endpoint):
                past = _Past(now, past.activation, past.address)
            elif not (link.up and link.carrier):
                past = _Past(now + GONE_WITH_THE_LINK, past.activation, past.address)
            away[place] = past
        self._seen, self._away = seen, away
        return frozenset(past.address for past in away.values() if now < past.until)

    def next_due(self, now: float) -> float | None:
        """When the next one counts as gone; None when none is away."""
        return min((past.until for past in self._away.values() if past.until > now), default=None)


def _address_of(kernel: Kernel, endpoint: Endpoint) -> Address | None:
    return next((each for each in kernel.addresses.get(endpoint.ifindex, ()) if each.address == endpoint.address), None)


def _is_elsewhere(kernel: Kernel, endpoint: Endpoint) -> bool:
    return any(each.address == endpoint.address for group in kernel.addresses.values() for each in group)
