# SPDX-License-Identifier: GPL-2.0-or-later
"""The addresses that get source routing: all that NetworkManager routes on an uplink, whether they are paths or not."""

from __future__ import annotations

from itertools import chain

from ..model.device_types import is_uplink
from ..model.reasons import Why
from ..model.state import DeviceState, Mode, State
from .facts import Decision, Facts
from .metered import COSTS
from .source_routing import RoutedAddress
from .suspension import TRANSIENT

#: Reasons of addresses that are routed without an endpoint of ours: the table must be ready before NetworkManager adds its
#: endpoint, and live connections on a costly link continue by it.
_ROUTED_ANYHOW = frozenset({Why.WAITS_FOR_NETWORKMANAGER, Why.NO_SLOT}) | COSTS

#: Reasons of addresses that are no path themselves, and are routed if another address of their interface and family is.
_ROUTED_WITH_OTHERS = frozenset({Why.TEMPORARY, Why.STABLE, Why.DEPRECATED, Why.NO_LONGER_CHOSEN})

#: Reasons of addresses that are never routed: those that no packet leaves the link with, those that NetworkManager did not
#: configure, and those for which MPTCP is disabled (with NetworkManager alone, too, their ``rp_filter`` stays unchanged).
_NOT_ROUTED = frozenset({Why.LINK_LOCAL, Why.NOT_GLOBAL, Why.DAD_FAILED, Why.NOT_CONFIGURED}) | {
    Why.DISABLED_BY_PROFILE,
    Why.DISABLED_BY_CONFIGURATION,
    Why.DISABLED_BY_NETWORKMANAGER,
}


def routed_addresses(facts: Facts, decisions: list[Decision]) -> list[RoutedAddress]:
    """The addresses whose packets are to leave by their own interface, each with the table that has their routes.

    They need not be paths: strict ``rp_filter`` drops replies to an address that is routed by another link, also those of
    NetworkManager's connectivity check, and a path that waits for the check would wait forever. Not routed are a service
    address on the loopback interface, which leaves by any link, and an address on two interfaces, which a rule cannot
    distinguish (and a socket bound to one of them needs no rule). In mode ``off``, and with MPTCP disabled, only what has to
    remain is routed.
    """
    if not facts.config.routing.enabled:
        return []
    # By address: an interface may have the same IPv4 address twice, with different prefix lengths.
    routed = {decision.address: decision for decision in decisions if _is_path(decision) or _is_routed(facts, decision)}
    places = {(decision.ifindex, decision.family) for decision in routed.values()}
    for decision in decisions:
        if decision.reason.why in _ROUTED_WITH_OTHERS and (decision.ifindex, decision.family) in places:
            routed.setdefault(decision.address, decision)
    # Also on interfaces that are not managed, and below a tunnel: which of them are decided may depend on the rules.
    interfaces: dict[str, set[int]] = {}
    for address in (*chain.from_iterable(facts.kernel.addresses.values()), *facts.snapshot.absent):
        if address.address in routed:
            interfaces.setdefault(address.address, set()).add(address.ifindex)
    return [
        RoutedAddress(decision.address, decision.ifindex, facts.route_table(decision))
        for decision in routed.values()
        if len(interfaces[decision.address]) == 1
        and not facts.link(decision.ifindex).loopback
        and facts.options(decision.on).routing.value
    ]


def _is_path(decision: Decision) -> bool:
    """Whether an address is a path, or may become one again, on whatever kind of device."""
    return (
        decision.state in (State.ACTIVE, State.SUSPENDED)
        or decision.wants_endpoint
        or decision.reason.why in _ROUTED_ANYHOW
    )


def _is_routed(facts: Facts, decision: Decision) -> bool:
    """Whether an address is routed because NetworkManager routes it on an uplink.

    One with rules keeps them after its interface lost the default route, as its packets would leave by another link with a
    source that is not routed there; also while NetworkManager is unavailable, or the address's state is not known.
    """
    if decision.address in facts.addresses_with_rules and (facts.unavailable or decision.reason.why in TRANSIENT):
        return True
    device = decision.device
    if (
        facts.config.mode is Mode.OFF
        or device is None
        or device.profile is None
        or not is_uplink(device)
        or decision.reason.why in _NOT_ROUTED
    ):
        return False
    return (
        DeviceState.IP_CONFIG <= device.state <= DeviceState.DEACTIVATING
        and not device.profile.shared(decision.family)
        and facts.default(decision.ifindex, decision.family, decision.route_table) is not None
    )
