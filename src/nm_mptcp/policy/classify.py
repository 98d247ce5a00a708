# SPDX-License-Identifier: GPL-2.0-or-later
"""The decision for one address by itself, by the first rule that applies."""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import replace

from ..config.settings import IPv6Address
from ..model.device_types import PPP
from ..model.reasons import Reason, Why
from ..model.state import (
    MAIN_TABLE,
    Address,
    AddressFlag,
    Device,
    DeviceState,
    Family,
    FlagsFrom,
    Owner,
    Path,
    Profile,
    State,
)
from .facts import Decision, Facts
from .identity_cache import cached_by_identity
from .intent import Intent, intent_of

_SCOPE_LINK, _SCOPE_HOST = 253, 254  # RT_SCOPE_*

_UNIQUE_LOCAL = ipaddress.ip_network("fc00::/7")

#: Reasons that do not reflect the user's will while NetworkManager is unavailable or starting.
_NETWORKMANAGER_AWAY = frozenset({Why.NO_DEFAULT_ROUTE, Why.DEACTIVATING, Why.ACTIVATING}) | {
    Why.NOT_MANAGED,
    Why.NOT_CONNECTED,
    Why.EXTERNAL,
    Why.UNREADABLE,
}


def classify(facts: Facts, address: Address, claims: frozenset[str]) -> Decision:
    """The decision for an address, by itself."""
    decision = _classify_by_facts(facts, address, claims)
    own = facts.own_endpoint(address)
    if facts.unavailable and own and facts.has_own_endpoint(address) and decision.reason.why in _NETWORKMANAGER_AWAY:
        reason = Reason(Why.KEPT_NETWORKMANAGER_AWAY, facts.unavailable)
        return replace(decision, state=State.ACTIVE, reason=reason, flags=own.flags, port=own.port, wants_endpoint=True)
    return decision


def _classify_by_facts(facts: Facts, address: Address, claims: frozenset[str]) -> Decision:
    """By the first of these that applies: the device, its profile, another program's endpoint, conditions, the owner."""
    device = facts.device(address.ifindex)
    if no_profile := _without_profile(facts, address, device):
        return no_profile
    assert device is not None
    options = facts.options(address)
    intent = intent_of(device, facts.networkmanager, facts.kernel.laminar, claims, options)
    known = Decision(
        address,
        State.ACTIVE,
        intent.reason,
        device,
        intent.flags,
        intent.flags_from,
        intent.owner,
        options=options,
        port=options.signal_port.value if intent.flags_from is FlagsFrom.CONFIG else 0,
    )
    if intent.excluded:
        return replace(known, state=State.EXCLUDED)
    if not_chosen := _not_chosen(facts, known):
        return replace(known, state=State.EXCLUDED, reason=not_chosen)
    return _foreign(facts, known) or _circumstance(facts, known, intent) or _wanted(facts, known)


def _without_profile(facts: Facts, address: Address, device: Device | None) -> Decision | None:
    """The decision for an address that can be no path, or whose device has no known profile; None for all others."""
    no_path = _not_a_path_address(address)
    if no_path and no_path.why is Why.TEMPORARY and _may_be_chosen(facts, address):
        no_path = None
    if device is None or (not device.managed and not device.external):
        return _excluded(address, no_path or Reason(Why.NOT_MANAGED), device)
    if device.external:
        return _excluded(address, no_path or Reason(Why.EXTERNAL), device)
    if no_path:
        return _excluded(address, no_path, device)
    state = device.state
    if state is DeviceState.FAILED or state < DeviceState.PREPARE:
        return _excluded(address, Reason(Why.NOT_CONNECTED, _words(state)), device)
    if device.unreadable:
        return _excluded(address, Reason(Why.UNREADABLE, device.unreadable), device)
    if device.profile is None:
        words = _words(state) if state < DeviceState.ACTIVATED else "its profile is being read"
        return Decision(address, State.WAITING, Reason(Why.ACTIVATING, words), device)
    return None


def _foreign(facts: Facts, known: Decision) -> Decision | None:
    """The decision for an address with an endpoint of NetworkManager or of another program; None for all others."""
    assert known.device is not None
    foreign = facts.foreign_endpoint(known.on)
    if foreign and known.owner is Owner.NETWORKMANAGER and foreign.ifindex == known.ifindex:
        if known.device.state is DeviceState.DEACTIVATING:
            return replace(known, flags=foreign.flags, state=State.SUSPENDED, reason=Reason(Why.DEACTIVATING))
        return replace(known, flags=foreign.flags)
    if foreign:
        why = Why.FLAGS_BY_HAND if facts.snapshot.ours.is_edited(foreign) else Why.SOMEBODY_ELSE_OWNS
        return replace(known, reason=Reason(why), flags=foreign.flags, port=0, owner=Owner.OTHER)
    if (known.address, known.port) in facts.foreign_listeners:
        return replace(known, reason=Reason(Why.SOMEBODY_ELSE_OWNS), owner=Owner.OTHER)
    return None


def _circumstance(facts: Facts, known: Decision, intent: Intent) -> Decision | None:
    """The decision for an address on which a condition for a path is not met; None for all others."""
    found = _not_allowed(facts, known, intent) or _not_yet(facts, known, intent)
    return replace(known, state=found[0], reason=found[1]) if found else None


def _not_allowed(facts: Facts, known: Decision, intent: Intent) -> tuple[State, Reason] | None:
    """The conditions that waiting does not change."""
    device, address = known.device, known.on
    assert device is not None
    assert device.profile is not None
    if not (_is_of_networkmanager(facts, address) or _is_named(facts, address, device, device.profile)):
        return State.EXCLUDED, Reason(Why.NOT_CONFIGURED)
    if device.profile.shared(known.family):
        return State.EXCLUDED, Reason(Why.SHARED)
    if not facts.kernel.mptcp_enabled and not intent.without_sysctl:
        return State.EXCLUDED, Reason(Why.SYSCTL_OFF)
    return None


def _not_yet(facts: Facts, known: Decision, intent: Intent) -> tuple[State, Reason] | None:
    """The conditions that change in an activation: the device's state, its routes, the address itself."""
    device, address, family = known.device, known.on, known.family
    assert device is not None
    assert device.profile is not None
    if device.state < DeviceState.IP_CONFIG:
        return State.WAITING, Reason(Why.ACTIVATING, _words(device.state))
    if not intent.without_default_route:
        if device.profile.never_default(family):
            return State.EXCLUDED, Reason(Why.NEVER_DEFAULT, family.label)
        # NetworkManager itself requires a default route in main (nm-l3cfg.c).
        table = MAIN_TABLE if known.owner is Owner.NETWORKMANAGER else device.profile.route_table(family)
        if facts.default(address.ifindex, family, table) is None:
            return State.WAITING, Reason(Why.NO_DEFAULT_ROUTE, family.label)
    if device.state is DeviceState.DEACTIVATING:
        return State.SUSPENDED, Reason(Why.DEACTIVATING)
    if facts.is_absent(address):
        return State.WAITING, Reason(Why.ADDRESS_AWAY)
    # With an endpoint of ours the address passed detection before: NetworkManager added it again, and its subflows still work.
    if address.flags & AddressFlag.TENTATIVE and not facts.has_own_endpoint(address):
        return State.WAITING, Reason(Why.TENTATIVE)
    if address.flags & AddressFlag.DEPRECATED and not _is_withdrawn(facts, known):
        return State.EXCLUDED, Reason(Why.DEPRECATED)
    return None


def _is_withdrawn(facts: Facts, known: Decision) -> bool:
    """Whether we have withdrawn NetworkManager's endpoint on this address; see :attr:`Ours.withdrawn`."""
    withdrawn = facts.withdrawn.get(known.address)
    return withdrawn is not None and withdrawn.ifindex == known.ifindex and known.owner is Owner.NETWORKMANAGER


def _wanted(facts: Facts, known: Decision) -> Decision:
    """The decision for a path: with an endpoint of ours, or waiting for NetworkManager's."""
    if _is_withdrawn(facts, known):
        return _with_endpoint(facts, replace(known, flags=facts.withdrawn[known.address].flags))
    if known.owner is not Owner.NETWORKMANAGER or known.address in facts.snapshot.overdue:
        return _with_endpoint(facts, known)
    waiting = replace(known, state=State.WAITING, reason=Reason(Why.WAITS_FOR_NETWORKMANAGER))
    own = facts.own_endpoint(known.on)
    if own is None or own.ifindex != known.ifindex or own.port:
        return waiting
    # Ours from before, or added in NetworkManager's place: it adopts one with the right flags, and will replace others.
    adopted = own.flags == known.flags
    return replace(known if adopted else waiting, flags=own.flags, wants_endpoint=True)


@cached_by_identity(objects=1)
def unmanaged_paths(addresses: tuple[Address, ...], name: str, kind: str) -> tuple[Path, ...]:
    """The excluded paths of an interface that NetworkManager does not manage."""
    return tuple(_unmanaged_path(address, name, kind) for address in addresses)


@functools.lru_cache(maxsize=4096)
def _unmanaged_path(address: Address, name: str, kind: str) -> Path:
    why = _not_a_path_address(address) or Reason(Why.NOT_MANAGED)
    return Path(address.address, address.ifindex, name, State.EXCLUDED, why, kind)


def _may_be_chosen(facts: Facts, address: Address) -> bool:
    """Whether a temporary address may be a path: it is chosen by the configuration, or has an endpoint of ours."""
    chosen = facts.options(address).ipv6_address.value is not IPv6Address.STABLE
    return chosen or facts.own_endpoint(address) is not None


def _not_chosen(facts: Facts, decision: Decision) -> Reason | None:
    """Why an IPv6 address is not of the kind that is chosen, stable or temporary; NetworkManager adds only stable ones."""
    if decision.family is not Family.IPV6:
        return None
    setting = decision.options.ipv6_address
    chosen = setting.value if decision.owner is Owner.OURS else IPv6Address.STABLE
    temporary = bool(decision.on.flags & AddressFlag.TEMPORARY)
    if chosen is not (IPv6Address.STABLE if temporary else IPv6Address.TEMPORARY):
        return None
    others = facts.successors(decision.on, of_the_other_kind=True)
    if facts.own_endpoint(decision.on) and not all(map(_is_never_a_path, others)):
        return Reason(Why.NO_LONGER_CHOSEN, str(setting))
    return Reason(Why.TEMPORARY) if temporary else Reason(Why.STABLE, str(setting))


def _is_of_networkmanager(facts: Facts, address: Address) -> bool:
    """Whether NetworkManager configured an address, and not another program (keepalived) or somebody by hand.

    NetworkManager adds its addresses with ``noprefixroute``, except on the loopback interface (nm-l3cfg.c,
    ``_l3_commit_one``; 1.42 to 1.59), and removes others when it configures a device. Addresses that the kernel or pppd adds
    on its behalf count as well: temporary ones, and those of a PPP link. ``ip address change`` of the lifetimes clears the
    flag; an address with an endpoint of ours was NetworkManager's before.
    """
    flag = AddressFlag.NOPREFIXROUTE
    if address.family is Family.IPV6:
        flag |= AddressFlag.TEMPORARY
    link = facts.link(address.ifindex)
    return bool(address.flags & flag) or link.loopback or link.kind == PPP or facts.has_own_endpoint(address)


def _is_named(facts: Facts, address: Address, device: Device, profile: Profile) -> bool:
    """Whether a section of the configuration names this address: then it is a path whichever program configured it."""
    return facts.config.names(device, profile_id=profile.id, profile_uuid=profile.uuid, address=address.address)


def _is_never_a_path(address: Address) -> bool:
    reason = _not_a_path_address(address)
    return reason is not None and reason.why is not Why.TEMPORARY


def _with_endpoint(facts: Facts, decision: Decision) -> Decision:
    """A path with an endpoint of ours; one that the kernel refused waits, and is tried again at each convergence."""
    refusal = facts.snapshot.refused.get((decision.address, decision.ifindex))
    if refusal is not None:
        decision = replace(decision, state=State.WAITING, reason=Reason(Why.REFUSED, refusal or "its table is full"))
    return replace(decision, wants_endpoint=True)


def _excluded(address: Address, reason: Reason, device: Device | None) -> Decision:
    return Decision(address, State.EXCLUDED, reason, device)


def _words(state: DeviceState) -> str:
    return state.name.lower().replace("_", " ")


def _not_a_path_address(address: Address) -> Reason | None:
    """Why this address can be no path whatever the profile sets; None if it can.

    As in NetworkManager (nm-l3cfg.c), loopback, link-local and IPv6 ULA addresses are excluded, RFC 1918 and fec0::/10 are not.
    Temporary addresses are excluded unless the configuration chooses them: they change, and a privacy address should not be
    announced to every server.
    """
    if address.scope == _SCOPE_LINK:
        return Reason(Why.LINK_LOCAL)
    why = Why.NOT_GLOBAL if address.scope == _SCOPE_HOST else _kind_of_address(address.address)
    if why:
        return Reason(why)
    if address.family is Family.IPV6:
        if address.flags & AddressFlag.TEMPORARY:
            return Reason(Why.TEMPORARY)
        if address.flags & AddressFlag.DADFAILED:
            return Reason(Why.DAD_FAILED)
    return None


@functools.lru_cache(maxsize=4096)
def _kind_of_address(address: str) -> Why | None:
    """Why an address can be no path by its value alone, or None."""
    value = ipaddress.ip_address(address)
    if value.is_link_local:
        return Why.LINK_LOCAL
    if value.is_loopback or value.is_multicast or value.is_unspecified:
        return Why.NOT_GLOBAL
    if isinstance(value, ipaddress.IPv6Address):
        if value in _UNIQUE_LOCAL:
            return Why.UNIQUE_LOCAL
        if value.ipv4_mapped is not None:
            return Why.NOT_GLOBAL
    return None
