# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the past counts for a decision: flaps, retries, addresses that may come back, signals that stay weak.

Each is kept by a class of its own, without a clock; here they are fed at each look, and become part of the snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..config.settings import Config
from ..model.reasons import Why
from ..model.state import Desired, Kernel, NetworkManager, Ours, Snapshot
from .address_grace import AddressGrace
from .endpoint_retry import EndpointRetry
from .flap_damping import FlapDamping
from .neighbour_probes import NeighbourProbes
from .signal_hysteresis import Key, SignalHysteresis
from .subflow_retry import SubflowRetry

#: Seconds after which an endpoint that NetworkManager should have added counts as one that it failed to add: its add at a
#: full table fails silently.
_OVERDUE = 0.9


class Timed(Protocol):
    """Something that time changes without an event."""

    def next_due(self, now: float, /) -> float | None:
        """When it is to be looked at again, in seconds of the caller's clock; None when nothing is due."""


class History:
    """All that is remembered from look to look. ``now`` is always in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self.flaps = FlapDamping()
        self.neighbours = NeighbourProbes()
        self.addresses = AddressGrace()
        self.subflows = SubflowRetry()
        self.endpoints = EndpointRetry()
        self.signals = SignalHysteresis()
        self._awaited: dict[str, float] = {}  #: since when NetworkManager's endpoint on an address is missing

    def links(self, kernel: Kernel, now: float) -> frozenset[int]:
        """Take in which links are up; the links (ifindexes) whose neighbours are to be asked for now."""
        up = {index for index, link in kernel.links.items() if link.up and link.carrier}
        back = self.flaps.look(up, kernel.links.keys() - up, now)
        return self.neighbours.look(back, up, now)

    def snapshot(
        self,
        kernel: Kernel,
        networkmanager: NetworkManager,
        ours: Ours,
        connections: Mapping[frozenset[str], int] | None,
        config: Config,
        now: float,
    ) -> Snapshot:
        """The facts of this look together with what is remembered; :meth:`links` was called for it."""
        return Snapshot(
            kernel,
            networkmanager,
            ours,
            self._overdue(now),
            self.endpoints.words(),
            connections,
            damped=self.flaps.damped(now),
            subflow_retry_due=self.subflows.due(now),
            weak=self._weak(kernel, networkmanager, config, now),
            absent=self.addresses.look(kernel, networkmanager, filter(ours.owns, kernel.endpoints), now),
        )

    def decided(self, desired: Desired, now: float) -> None:
        """Take in what was decided: endpoints awaited of NetworkManager, and refusals that still matter."""
        overdue = self._overdue(now)
        # An endpoint that was added in NetworkManager's place stays noted while it is there.
        self._awaited = {
            path.address: self._awaited.get(path.address, now)
            for path in desired.paths
            if path.reason.why is Why.WAITS_FOR_NETWORKMANAGER or path.address in overdue
        }
        self.endpoints.keep({(path.address, path.ifindex) for path in desired.paths if path.reason.why is Why.REFUSED})

    def next_due(self, now: float) -> float | None:
        """When the next look is due without any event; None when time alone changes nothing."""
        timed: tuple[Timed, ...] = (
            self.flaps,
            self.neighbours,
            self.addresses,
            self.subflows,
            self.endpoints,
            self.signals,
        )
        return min((due for each in timed if (due := each.next_due(now)) is not None), default=None)

    def forget(self) -> None:
        """The machine slept: what links and signals did before says nothing any more."""
        self.flaps.forget()
        self.signals.forget()
        self.subflows.forget()

    def _overdue(self, now: float) -> frozenset[str]:
        return frozenset(address for address, began in self._awaited.items() if now - began >= _OVERDUE)

    def _weak(self, kernel: Kernel, networkmanager: NetworkManager, config: Config, now: float) -> frozenset[str]:
        """The addresses on a Wi-Fi whose signal is weak, by the thresholds that count for each."""
        devices = [
            device
            for device in networkmanager.devices
            if device.profile is not None and (device.strength is not None or self.signals.knows(device.ip_interface))
        ]
        strengths: dict[Key, int | None] = {}
        places: dict[str, Key] = {}
        index_of = {link.name: index for index, link in kernel.links.items()} if devices else {}
        for device in devices:
            assert device.profile is not None
            for address in kernel.addresses.get(index_of.get(device.ip_interface, 0), ()):
                options = config.for_path(
                    device,
                    profile_id=device.profile.id,
                    profile_uuid=device.profile.uuid,
                    address=address.address,
                )
                key = (device.ip_interface, options.weak_signal.value)
                strengths[key] = device.strength
                places[address.address] = key
        self.signals.look(strengths, now)
        weak = self.signals.weak()
        return frozenset(address for address, key in places.items() if key in weak)
