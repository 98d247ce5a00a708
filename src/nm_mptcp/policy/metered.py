# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing is paid for by accident: links abroad, and metered ones where somebody said so, are no paths."""

from __future__ import annotations

from dataclasses import replace

from ..config.settings import MeteredPolicy, PathOptions, RoamingPolicy
from ..model.device_types import is_metered
from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Device, FlagsFrom, State
from .facts import Decision

#: Verdicts against a path only because of what it costs. Live connections keep their last subflow there, and no other one.
COSTS = frozenset({Why.ROAMING, Why.METERED})


def metered_by(device: Device, options: PathOptions) -> str:
    """Who holds a device's traffic to be paid for by volume: NetworkManager, or a section by its name; "" for nobody."""
    if not is_metered(device, options.assume_metered.value):
        return ""
    return "NetworkManager" if is_metered(device) else str(options.assume_metered)


def apply_costs(decisions: list[Decision]) -> list[Decision]:
    """What would cost is no path, unless somebody chose its flags; it is routed as ever, for what stands on it."""
    return [_minded(decision) for decision in decisions]


def _minded(decision: Decision) -> Decision:
    device = decision.device
    wanted = decision.wants_endpoint or decision.state is State.ACTIVE
    if device is None or not wanted or not decision.automatic:
        return decision
    options = decision.options
    roams, holder = device.roaming, metered_by(device, options)
    if not roams and not holder:
        return decision
    no_path = replace(decision, state=State.EXCLUDED, wants_endpoint=False)
    if roams and options.roaming.value is RoamingPolicy.EXCLUDE:
        return replace(no_path, reason=Reason(Why.ROAMING))
    if holder and options.metered.value is MeteredPolicy.EXCLUDE:
        reason = Reason(Why.METERED, f"{holder} holds this connection to be metered, and {options.metered}")
        return replace(no_path, reason=reason, flags_from=FlagsFrom.CONFIG)
    if roams and options.roaming.value is RoamingPolicy.BACKUP and not decision.flags & EndpointFlag.BACKUP:
        return replace(decision, flags=decision.flags | EndpointFlag.BACKUP, reason=Reason(Why.ROAMING_BACKUP))
    return decision
