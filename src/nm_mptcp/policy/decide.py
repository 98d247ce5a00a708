# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: which addresses are paths, with which flags and owner, each with its reason; and the desired state from that.

First each address is decided by itself (:mod:`.classify`). Then the decisions are changed together: by the VPN guard, lost
links, connectivity, the mode, live connections, the kernel's maximum of endpoints, and silent links. Endpoints, routes, rules
and limits follow from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..config.settings import DEFAULTS, Config, LimitsPolicy
from ..model.device_types import kind_of
from ..model.flags import EndpointFlag
from ..model.state import Desired, Endpoint, Family, Limits, Path, Route, Snapshot, State
from .carriers import below_tunnels, carriers
from .classify import classify, unmanaged_paths
from .facts import Decision, Facts
from .failover_routes import FailoverRoutes, failover_routes
from .intent import claims_of
from .link_quality import apply_link_quality
from .metered import apply_costs
from .modes import apply_mode
from .routed_addresses import routed_addresses
from .signal_strength import apply_signal_strength
from .silence import SilentLinks, apply_silence, silent_links, watched
from .slots import fill_slots, one_interface_each
from .source_routing import SourceRouting, gateway, routing
from .suspension import KEPT_FOR_CONNECTIONS, apply_connectivity, renewed, replaceable, suspend, suspend_lost_links
from .tunnels import guarded_tunnels
from .vpn_guard import guard_tunnels

__all__ = ["decide"]

#: The number of addresses that a peer is assumed to have, if it uses all of ours or we use all of its (signal, fullmesh).
_OF_A_PEER = 4


def decide(snapshot: Snapshot, config: Config = DEFAULTS, *, hurried: bool = False) -> Desired:
    """The desired state for a snapshot.

    ``hurried``: without routes and rules, for which all routes would have to be compared: only what a lost link requires at
    once.
    """
    facts = Facts(snapshot, config)
    claims = claims_of(facts)
    unguarded = apply_costs([classify(facts, address, claims) for address in facts.addresses()])
    guard = guard_tunnels(facts, unguarded, config)
    decisions = apply_connectivity(facts, suspend_lost_links(facts, guard.decisions, config))
    decisions = apply_link_quality(facts, apply_signal_strength(facts, apply_mode(facts, decisions, config)))
    suspension = suspend(facts, decisions, config)
    slots = fill_slots(facts, one_interface_each(facts, suspension.decisions), suspension.lost_addresses)
    below = below_tunnels(facts, unguarded, guard, config)
    silent = silent_links(facts, slots.decisions, config, below)
    decisions = apply_silence(facts, slots.decisions, silent)
    outside, inside = guard.outside(decisions), guarded_tunnels(facts, config)
    linkdown = replaceable(facts, outside, config)
    routed, around = _routes(facts, outside, linkdown, silent, hurried=hurried)
    return Desired(
        paths=_paths(facts, decisions, routed.table_of),
        endpoints=_endpoints(decisions),
        routes=_united(routed.routes, around.routes),
        rules=routed.rules,
        marks=facts.marks,
        limits=_limits(facts, decisions, forbidden=guard.forbids, tunnelled=bool(guard.tunnels or inside)),
        claims=claims,
        withdrawn=suspension.withdrawn | guard.withdrawn,
        close_initial_subflows=suspension.close_initial_subflows,
        close_redundant=suspension.close_redundant,
        lost_addresses=suspension.lost_addresses,
        stale=slots.stale,
        renewed=renewed(facts, decisions),
        linkdown=linkdown - around.covered,
        loosened=_loosened(facts, [each for each in decisions if (each.family, each.ifindex) in guard.below]),
        tunnels=guard.tunnels,
        stays_inside=inside,
        close_all=guard.close_all,
        needs_bypass=guard.needs_bypass,
        needs_connections=suspension.needs_connections
        or slots.needs_connections
        or bool(snapshot.subflow_retry_due and snapshot.connections is None),
        watched=watched(facts, outside, config),
        carriers=carriers(facts, unguarded, guard, below),
        around=silent.around,
        depends_on_connections=any(decision.reason.why in KEPT_FOR_CONNECTIONS for decision in decisions) or guard.kept,
    )


def _endpoints(decisions: list[Decision]) -> frozenset[Endpoint]:
    return frozenset(
        Endpoint(decision.address, decision.ifindex, decision.flags, port=decision.port)
        for decision in decisions
        if decision.wants_endpoint
    )


def _routes(
    facts: Facts,
    decisions: list[Decision],
    linkdown: frozenset[tuple[Family, int]],
    silent: SilentLinks,
    *,
    hurried: bool,
) -> tuple[SourceRouting, FailoverRoutes]:
    """The tables and rules of these addresses, and the routes around lost and silent links; none if ``hurried``."""
    if hurried or not (decisions or silent.around):
        return SourceRouting({}, (), {}), FailoverRoutes({}, frozenset())
    routed = routing(facts.kernel, routed_addresses(facts, decisions), facts.marks)
    dead = {place for place in linkdown if _without_carrier(facts, place[1])}
    around = failover_routes(
        facts.kernel, dead, facts.marks, routed.tables, silent=silent.around, paths=silent.by, below=silent.below
    )
    return routed, around


def _loosened(facts: Facts, below: list[Decision]) -> frozenset[int]:
    """The interfaces below a full tunnel of IPv4 whose ``rp_filter`` must not be strict.

    Their addresses have no rules meanwhile, and the answers to the tunnel's own packets, and to NetworkManager's connectivity
    check, would be dropped where the tunnel is by marks or in halves. NetworkManager itself does the same, all the time, on
    interfaces whose profile has MPTCP enabled (``nm-device.c``).
    """
    routed = {each.ifindex for each in routed_addresses(facts, below) if each.family is Family.IPV4}
    return frozenset(routed & (facts.kernel.strict | facts.snapshot.ours.loosened))


def _without_carrier(facts: Facts, ifindex: int) -> bool:
    """Whether a link is up without carrier; of a link that is down the kernel removes the routes."""
    link = facts.link(ifindex)
    return link.up and not link.carrier


def _united(
    *all_routes: Mapping[tuple[int, int], frozenset[Route]],
) -> Mapping[tuple[int, int], frozenset[Route]]:
    result: dict[tuple[int, int], frozenset[Route]] = {}
    for routes in all_routes:
        for place, group in routes.items():
            result[place] = result[place] | group if place in result else group
    return result


def _limits(facts: Facts, decisions: list[Decision], *, forbidden: bool, tunnelled: bool) -> Limits | None:
    """Limits high enough for all paths and as many addresses of the peer; never below the current or original values.

    A limit that another program changed since we raised it stays unchanged. With ``forbidden``, while endpoints below a full
    tunnel exist, no subflow is allowed at all; with ``tunnelled``, while connections are to stay in a tunnel, no address of a
    peer is accepted: a join to it, perhaps of the other family, would go beside the tunnel. None: unchanged.
    """
    if forbidden:
        none = replace(facts.kernel.limits, subflows=0, add_addr_accepted=0)
        return None if none == facts.kernel.limits else none
    keep = facts.config.limits is LimitsPolicy.KEEP
    paths = [] if keep else [decision for decision in decisions if decision.state is State.ACTIVE]
    meshed = sum(1 for decision in paths if decision.flags & EndpointFlag.FULLMESH)
    signalled = sum(1 for decision in paths if decision.flags & EndpointFlag.SIGNAL)
    accepted = max(len(paths), _OF_A_PEER if meshed else 0)
    # Each fullmesh endpoint connects to each accepted address, and all addresses of the peer connect to each signalled one.
    subflows = len(paths) + accepted + meshed * accepted + signalled * max(len(paths), _OF_A_PEER)
    most = facts.kernel.endpoints_max
    need = {"subflows": subflows, "add_addr_accepted": accepted}
    have = {
        "subflows": facts.kernel.limits.subflows,
        "add_addr_accepted": facts.kernel.limits.add_addr_accepted,
    }
    wanted = {name: _limit(facts, name, have[name], min(value, most)) for name, value in need.items()}
    if tunnelled:
        wanted["add_addr_accepted"] = 0
    return None if wanted == have else Limits(**wanted)


def _limit(facts: Facts, name: str, have: int, need: int) -> int:
    ours = facts.snapshot.ours.limits.get(name)
    if ours and ours.applied != have:
        return have
    return max(have, need, ours.original if ours else 0)


def _paths(facts: Facts, decisions: list[Decision], table_of: Mapping[str, int]) -> tuple[Path, ...]:
    paths = [_path(facts, decision, table_of) for decision in decisions]
    for ifindex in facts.unmanaged_interfaces():
        link, device = facts.link(ifindex), facts.device(ifindex)
        kind = kind_of(device).name if device else (link.kind or "")
        paths += unmanaged_paths(facts.kernel.addresses[ifindex], link.name, kind)
    return tuple(sorted(paths, key=lambda path: path.ifindex))


def _path(facts: Facts, decision: Decision, table_of: Mapping[str, int]) -> Path:
    link = facts.link(decision.ifindex)
    device = decision.device
    kind = kind_of(device).name if device else (link.kind or "")
    endpoint = facts.endpoint_at.get(decision.address)
    profile = device.profile if device else None
    route = facts.default(decision.ifindex, decision.family, decision.route_table)
    return Path(
        decision.address,
        decision.ifindex,
        link.name,
        decision.state,
        decision.reason,
        kind=kind,
        profile=profile.id if profile else "",
        uuid=profile.uuid if profile else "",
        flags=decision.flags,
        flags_from=decision.flags_from,
        owner=decision.owner,
        endpoint_id=endpoint.id if endpoint and endpoint.ifindex in (0, decision.ifindex) else None,
        table=table_of.get(decision.address),
        gateway=gateway(route, decision.ifindex),
        port=decision.port,
    )
