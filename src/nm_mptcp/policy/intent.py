# SPDX-License-Identifier: GPL-2.0-or-later
"""The owner and the flags of a device's endpoints: by its profile, NetworkManager's default, our configuration or its kind."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..config.settings import MeteredPolicy, PathOptions
from ..model.device_types import kind_of
from ..model.flags import EndpointFlag, ProfileFlag, endpoint_flags
from ..model.reasons import Reason, Why
from ..model.state import DefaultFlags, Device, FlagsFrom, NetworkManager, Owner
from .facts import Facts
from .metered import metered_by


@dataclass(frozen=True, slots=True)
class Intent:
    """The endpoints that a device's profile and the defaults ask for."""

    owner: Owner
    flags: EndpointFlag = EndpointFlag(0)
    flags_from: FlagsFrom = FlagsFrom.KIND
    reason: Reason = field(default_factory=lambda: Reason(Why.FLAGS_OF_KIND))
    excluded: bool = False
    without_sysctl: bool = False
    without_default_route: bool = False


def claims_of(facts: Facts) -> frozenset[str]:
    """The activations whose endpoints NetworkManager adds although our drop-in leaves them to nm-mptcp.

    The drop-in applies to a device from its first activation after NetworkManager loaded it. Until then NetworkManager adds
    endpoints with its built-in default flags; such an endpoint that is not ours is a claim, valid until the device's next
    activation. Three cases are no claim: the profile sets the flags (NetworkManager is the owner anyway); the endpoint has
    other flags (added by hand, or during a reapply); it may be one of ours that was edited by hand.
    """
    builtin = _known_flags(facts.networkmanager.builtin_flags, facts.kernel.laminar)
    claims = set()
    for ifindex, addresses in facts.kernel.addresses.items():
        device = facts.device(ifindex) if ifindex in facts.kernel.links else None
        if device is None or not device.activation or not facts.networkmanager.has_mptcp:
            continue
        if device.profile and device.profile.mptcp_flags:
            continue
        if device.activation in facts.snapshot.ours.claims:
            claims.add(device.activation)
            continue
        for address in addresses:
            endpoint = facts.foreign_endpoint(address)
            if endpoint is None or facts.snapshot.ours.is_edited(endpoint):
                continue
            # A kernel without laminar may keep the flag nevertheless, and a vendor's kernel may support it.
            flags = endpoint.flags if facts.kernel.laminar else endpoint.flags & ~EndpointFlag.LAMINAR
            if endpoint.ifindex == ifindex and flags == builtin:
                claims.add(device.activation)
    return frozenset(claims)


def intent_of(
    device: Device,
    networkmanager: NetworkManager,
    laminar: bool,
    claims: frozenset[str],
    options: PathOptions = PathOptions(),
) -> Intent:
    """The intent for this device, which has a profile; ``claims`` are from :func:`claims_of`.

    ``options``, our configuration, applies only if the profile does not set the flags and NetworkManager is not the owner.
    """
    assert device.profile is not None
    explicit = device.profile.mptcp_flags
    if explicit:
        if explicit & ProfileFlag.DISABLED:
            return Intent(Owner.NETWORKMANAGER, reason=Reason(Why.DISABLED_BY_PROFILE), excluded=True)
        return _of_networkmanager(explicit, laminar, FlagsFrom.PROFILE, Reason(Why.FLAGS_OF_PROFILE))
    if not networkmanager.has_mptcp:
        return _of_ours(device, laminar, options)
    default = device.default_flags
    if default.flags and default.flags & ProfileFlag.DISABLED:
        if default.section != DefaultFlags.OUR_SECTION:
            reason = Reason(Why.DISABLED_BY_NETWORKMANAGER, default.section)
            return Intent(Owner.NETWORKMANAGER, flags_from=FlagsFrom.NETWORKMANAGER, reason=reason, excluded=True)
        if device.activation not in claims:
            return _of_ours(device, laminar, options)
        return _of_networkmanager(
            networkmanager.builtin_flags, laminar, FlagsFrom.NETWORKMANAGER, Reason(Why.NETWORKMANAGER_OWNS)
        )
    where = f"[{default.section}]" if default.flags else "its built-in default"
    return _of_networkmanager(
        default.flags or networkmanager.builtin_flags,
        laminar,
        FlagsFrom.NETWORKMANAGER,
        Reason(Why.FLAGS_OF_NETWORKMANAGER, where),
    )


def _known_flags(flags: ProfileFlag, laminar: bool) -> EndpointFlag:
    """The endpoint flags as the kernel will report them: without laminar support it drops that flag silently."""
    return endpoint_flags(flags if laminar else flags & ~ProfileFlag.LAMINAR)


def _of_networkmanager(flags: ProfileFlag, laminar: bool, flags_from: FlagsFrom, reason: Reason) -> Intent:
    return Intent(
        Owner.NETWORKMANAGER,
        _known_flags(flags, laminar),
        flags_from,
        reason,
        without_sysctl=bool(flags & ProfileFlag.ALSO_WITHOUT_SYSCTL),
        without_default_route=bool(flags & ProfileFlag.ALSO_WITHOUT_DEFAULT_ROUTE),
    )


def _of_ours(device: Device, laminar: bool, options: PathOptions) -> Intent:
    """The intent by a section of our configuration for this path, else by its kind."""
    flags, where = options.flags.value, str(options.flags)
    if not flags:
        return _of_kind(device, laminar, options)
    if flags & ProfileFlag.DISABLED:
        reason = Reason(Why.DISABLED_BY_CONFIGURATION, where)
        return Intent(Owner.OURS, flags_from=FlagsFrom.CONFIG, reason=reason, excluded=True)
    reason = Reason(Why.FLAGS_OF_CONFIGURATION, where)
    return Intent(Owner.OURS, _known_flags(flags, laminar), FlagsFrom.CONFIG, reason)


def _of_kind(device: Device, laminar: bool, options: PathOptions) -> Intent:
    """Automatic flags (mode ``auto``): every uplink is a path; what is metered, or slow to wake up, is backup."""
    kind = kind_of(device)
    if not kind.uplink:
        return Intent(Owner.OURS, reason=Reason(Why.KIND_IS_NO_PATH, kind.name), excluded=True)
    flags = EndpointFlag.SUBFLOW | (EndpointFlag.LAMINAR if laminar else EndpointFlag(0))
    if kind.backup:
        return Intent(
            Owner.OURS, flags | EndpointFlag.BACKUP, reason=_kind_reason(f"backup, as {kind.name} is by default")
        )
    source = metered_by(device, options)
    if source and options.metered.value is not MeteredPolicy.IGNORE:
        where = f", and {options.metered} sets metered=backup" if options.metered.origin else ""
        reason = Reason(Why.METERED_BACKUP, f"this {kind.name} connection is metered according to {source}{where}")
        return Intent(Owner.OURS, flags | EndpointFlag.BACKUP, reason=reason)
    return Intent(Owner.OURS, flags, reason=_kind_reason(f"a regular path, as {kind.name} is by default"))


def _kind_reason(words: str) -> Reason:
    return Reason(Why.FLAGS_OF_KIND, words)
