# SPDX-License-Identifier: GPL-2.0-or-later
"""Paths that cost money: roaming links, and metered ones if the configuration says so, are excluded or backup."""

from __future__ import annotations

from dataclasses import replace

from ..config.settings import MeteredPolicy, PathOptions, RoamingPolicy
from ..model.device_types import is_metered
from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Device, FlagsFrom, State
from .facts import Decision

#: Reasons that exclude a path only because of its cost. Live connections keep their last subflow there, and no other.
COSTS = frozenset({Why.ROAMING, Why.METERED})


def metered_by(device: Device, options: PathOptions) -> str:
    """What makes a device metered: "NetworkManager", or the section of the configuration; "" if it is not metered."""
    if not is_metered(device, options.assume_metered.value):
        return ""
    return "NetworkManager" if is_metered(device) else str(options.assume_metered)


def apply_costs(decisions: list[Decision]) -> list[Decision]:
    """The decisions with costly paths excluded or made backup, as configured; not those with chosen flags.

    The addresses of excluded ones are still routed, for their live connections.
    """
    return [_with_cost(decision) for decision in decisions]


def _with_cost(decision: Decision) -> Decision:
    device = decision.device
    wanted = decision.wants_endpoint or decision.state is State.ACTIVE
    if device is None or not wanted or not decision.automatic:
        return decision
    options = decision.options
    roams, source = device.roaming, metered_by(device, options)
    if not roams and not source:
        return decision
    no_path = replace(decision, state=State.EXCLUDED, wants_endpoint=False)
    if roams and options.roaming.value is RoamingPolicy.EXCLUDE:
        return replace(no_path, reason=Reason(Why.ROAMING))
    if source and options.metered.value is MeteredPolicy.EXCLUDE:
        reason = Reason(Why.METERED, f"this connection is metered according to {source}, and {options.metered}")
        return replace(no_path, reason=reason, flags_from=FlagsFrom.CONFIG)
    if roams and options.roaming.value is RoamingPolicy.BACKUP and not decision.flags & EndpointFlag.BACKUP:
        return replace(decision, flags=decision.flags | EndpointFlag.BACKUP, reason=Reason(Why.ROAMING_BACKUP))
    return decision
