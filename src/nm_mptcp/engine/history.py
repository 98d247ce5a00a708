# SPDX-License-Identifier: GPL-2.0-or-later
"""The history that decisions depend on: flaps, silence, retries, removed addresses that may return, weak signals.

A class without a clock keeps each of them; here they are updated at each convergence, and become part of the snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..config.settings import Config
from ..model.reasons import Why
from ..model.state import Desired, Family, Kernel, NetworkManager, Ours, Snapshot
from .address_grace import AddressGrace
from .endpoint_retry import EndpointRetry
from .flap_damping import FlapDamping
from .link_quality import LinkQuality
from .link_silence import LinkSilence
from .neighbour_probes import NeighbourProbes
from .signal_hysteresis import Key, SignalHysteresis
from .subflow_retry import SubflowRetry

#: Seconds after which NetworkManager counts as having failed to add an endpoint: its add fails silently if the kernel's table
#: is full.
_OVERDUE = 0.9


class Timed(Protocol):
    """A state that time alone changes."""

    def next_due(self, now: float, /) -> float | None:
        """When it changes next, in seconds of the caller's clock; None: only by an event."""


class History:
    """What is kept from one convergence to the next. ``now`` is always in seconds of the monotonic clock."""

    def __init__(self, *, guarded: frozenset[Family] = frozenset()) -> None:
        """``guarded``: the families below a full tunnel, as a previous process left them."""
        self.flaps = FlapDamping[int]()  #: by ifindex
        self.silence = LinkSilence()
        self.quality = LinkQuality()
        self.neighbours = NeighbourProbes()
        self.addresses = AddressGrace()
        self.subflows = SubflowRetry()
        self.endpoints = EndpointRetry()
        self.signals = SignalHysteresis()
        self.guarded = guarded  #: the families below a full tunnel, by the last decision
        self._awaited: dict[str, float] = {}  #: by address: since when NetworkManager's endpoint is missing

    def links(self, kernel: Kernel, now: float) -> frozenset[int]:
        """Update which links are up; returns the links (ifindexes) whose neighbours are to be probed now."""
        up = {index for index, link in kernel.links.items() if link.up and link.carrier}
        back = self.flaps.update(up, kernel.links.keys() - up, now)
        return self.neighbours.update(back, up, now)

    def snapshot(
        self,
        kernel: Kernel,
        networkmanager: NetworkManager,
        ours: Ours,
        connections: Mapping[frozenset[str], int] | None,
        config: Config,
        now: float,
    ) -> Snapshot:
        """The snapshot of this state with its history. :meth:`links` must have been called before."""
        return Snapshot(
            kernel,
            networkmanager,
            ours,
            self._overdue(now),
            self.endpoints.reasons(),
            connections,
            damped=self.flaps.damped(now),
            subflow_retry_due=self.subflows.due(now),
            weak=self._weak(kernel, networkmanager, config, now),
            absent=self.addresses.update(kernel, networkmanager, filter(ours.owns, kernel.endpoints), now),
            guarded=self.guarded,
            poor=self.quality.poor,
            silences=self.silence.silences(now),
        )

    def decided(self, desired: Desired, now: float) -> None:
        """Update by a decision: which endpoints NetworkManager is to add, and which refusals still matter."""
        self.guarded = frozenset(desired.tunnels)
        overdue = self._overdue(now)
        # An endpoint that we added in NetworkManager's place stays overdue while it exists.
        self._awaited = {
            path.address: self._awaited.get(path.address, now)
            for path in desired.paths
            if path.reason.why is Why.WAITS_FOR_NETWORKMANAGER or path.address in overdue
        }
        self.endpoints.keep({(path.address, path.ifindex) for path in desired.paths if path.reason.why is Why.REFUSED})

    def next_due(self, now: float) -> float | None:
        """When a convergence is due without an event; None: never."""
        timed: tuple[Timed, ...] = (
            self.flaps,
            self.silence,
            self.neighbours,
            self.addresses,
            self.subflows,
            self.endpoints,
            self.signals,
        )
        return min((due for each in timed if (due := each.next_due(now)) is not None), default=None)

    def forget(self) -> None:
        """Forget the history of links, signals and subflows, after the machine slept."""
        self.flaps.forget()
        self.silence.forget()
        self.quality.forget()
        self.signals.forget()
        self.subflows.forget()

    def _overdue(self, now: float) -> frozenset[str]:
        return frozenset(address for address, began in self._awaited.items() if now - began >= _OVERDUE)

    def _weak(self, kernel: Kernel, networkmanager: NetworkManager, config: Config, now: float) -> frozenset[str]:
        """The addresses on a Wi-Fi with a weak signal, by the bounds that apply to each."""
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
        self.signals.update(strengths, now)
        weak = self.signals.weak()
        return frozenset(address for address, key in places.items() if key in weak)
