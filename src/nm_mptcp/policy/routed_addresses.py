# SPDX-License-Identifier: GPL-2.0-or-later
"""Which addresses leave by their own interface: all that NetworkManager routes, whether they are paths or not."""

from __future__ import annotations

from ..model.device_types import is_uplink
from ..model.reasons import Why
from ..model.state import DeviceState, Mode, State
from .facts import Decision, Facts
from .metered import COSTS
from .source_routing import RoutedAddress
from .suspension import PASSING

#: No endpoint of ours, or none yet, but routed all the same: NetworkManager's endpoint shall find its table ready, and what
#: stands on a link that only costs too much goes on leaving by it.
_ROUTED_ANYHOW = frozenset({Why.WAITS_FOR_NETWORKMANAGER, Why.NO_SLOT}) | COSTS

#: Addresses that are no path themselves, but leave by their own interface where it has one.
_ROUTED_WITH_OTHERS = frozenset({Why.TEMPORARY, Why.STABLE, Why.DEPRECATED, Why.NO_LONGER_CHOSEN})

#: Addresses that no packet leaves the link with, or that are none of NetworkManager's, and links that somebody wants nothing
#: of ours on: NetworkManager alone, too, leaves their ``rp_filter`` as it is.
_NOT_ROUTED = frozenset({Why.LINK_LOCAL, Why.NOT_GLOBAL, Why.DAD_FAILED, Why.NOT_CONFIGURED}) | {
    Why.DISABLED_BY_PROFILE,
    Why.DISABLED_BY_CONFIGURATION,
    Why.DISABLED_BY_NETWORKMANAGER,
}


def routed_addresses(facts: Facts, decisions: list[Decision]) -> list[RoutedAddress]:
    """The addresses that leave by their own interface.

    Path or not: with a strict ``rp_filter`` the answers to an address that is routed by another link are dropped, those to
    NetworkManager's connectivity check among them, and what waits for the check would wait for ever. A service address on
    the loopback interface leaves by whatever link there is. Of an address that stands on two interfaces a rule cannot tell
    the two apart, and a socket that is bound to one of them needs none. In mode ``off``, and where somebody says disabled,
    only what has to stay is routed.
    """
    if not facts.config.routing.enabled:
        return []
    # By address: IPv4 lets one stand twice on an interface, with two lengths of prefix.
    routed = {decision.address: decision for decision in decisions if _is_path(decision) or _is_routed(facts, decision)}
    places = {(decision.ifindex, decision.family) for decision in routed.values()}
    for decision in decisions:
        if decision.reason.why in _ROUTED_WITH_OTHERS and (decision.ifindex, decision.family) in places:
            routed.setdefault(decision.address, decision)
    interfaces: dict[str, set[int]] = {}
    for decision in decisions:
        interfaces.setdefault(decision.address, set()).add(decision.ifindex)
    return [
        RoutedAddress(decision.address, decision.ifindex, facts.route_table(decision))
        for decision in routed.values()
        if len(interfaces[decision.address]) == 1
        and not facts.link(decision.ifindex).loopback
        and facts.options(decision.on).routing.value
    ]


def _is_path(decision: Decision) -> bool:
    """Whether it is a path, or what may become one again, whatever kind of device it is on."""
    return (
        decision.state in (State.ACTIVE, State.SUSPENDED)
        or decision.wants_endpoint
        or decision.reason.why in _ROUTED_ANYHOW
    )


def _is_routed(facts: Facts, decision: Decision) -> bool:
    """Whether NetworkManager routes it on an uplink.

    An address whose interface lost its default keeps its rules, or its packets would leave by another link with a source
    that nobody there routes; so it does while NetworkManager is away, or nothing is known of it for a while.
    """
    if decision.address in facts.addresses_with_rules and (facts.unavailable or decision.reason.why in PASSING):
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
