# SPDX-License-Identifier: GPL-2.0-or-later
"""A grace period for addresses of our endpoints that were removed while NetworkManager's activation continues.

NetworkManager removes IPv6 addresses and adds them again when their order changes. The kernel removes all of them from an
interface that is set down, and NetworkManager adds them when it is up again. NetworkManager's own endpoints stay all the time
(nm-l3cfg.c: they follow its configuration, not the kernel's addresses).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..model.state import Address, DeviceState, Endpoint, Kernel, NetworkManager

#: Seconds after the removal, on a link that stays up. NetworkManager adds a static address again after some milliseconds; one
#: from a router advertisement only after the router's reply, which may take 3.5 s (RFC 4861, 6.2.6: MIN_DELAY_BETWEEN_RAS).
GRACE = 5.0

#: Seconds after the carrier's return: duplicate address detection of the link-local address takes a second, and then up to
#: three router solicitations follow, 4 s apart.
GRACE_AFTER_LINK = 15.0


@dataclass(frozen=True, slots=True)
class _Past:
    """A removed address."""

    until: float  #: the end of its grace period (the caller's clock, s)
    activation: str  #: the activation in which it may return
    address: Address  #: as it was last seen


class AddressGrace:
    """Remembers removed addresses, by address and ifindex. Times are in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], Address] = {}
        self._away: dict[tuple[str, int], _Past] = {}

    def update(
        self, kernel: Kernel, networkmanager: NetworkManager, own: Iterable[Endpoint], now: float
    ) -> frozenset[Address]:
        """Update the state; returns the addresses of our endpoints (``own``) that are in their grace period."""
        device_of = {device.ip_interface: device for device in networkmanager.devices}
        seen: dict[tuple[str, int], Address] = {}
        away: dict[tuple[str, int], _Past] = {}
        for endpoint in own:
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
                past = _Past(now + GRACE, device.activation, address)
            if past.activation != device.activation or _is_elsewhere(kernel, endpoint):
                past = _Past(now, past.activation, past.address)
            elif not (link.up and link.carrier):
                past = _Past(now + GRACE_AFTER_LINK, past.activation, past.address)
            away[place] = past
        self._seen, self._away = seen, away
        return frozenset(past.address for past in away.values() if now < past.until)

    def next_due(self, now: float) -> float | None:
        """When the next grace period ends; None: there is none."""
        return min((past.until for past in self._away.values() if past.until > now), default=None)


def _address_of(kernel: Kernel, endpoint: Endpoint) -> Address | None:
    return next((each for each in kernel.addresses.get(endpoint.ifindex, ()) if each.address == endpoint.address), None)


def _is_elsewhere(kernel: Kernel, endpoint: Endpoint) -> bool:
    return any(each.address == endpoint.address for group in kernel.addresses.values() for each in group)
