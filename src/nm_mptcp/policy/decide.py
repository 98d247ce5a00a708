# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: which addresses are paths, with which flags, made by whom - decided for all together, each with its reason.

First every address is judged by itself (``judgement``), then the verdicts are seen together: what must be kept because
nothing else is there, what finds a slot. Endpoints, routes, rules and limits follow from the paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..config.settings import DEFAULTS, Config, LimitsPolicy
from ..model.device_types import kind_of
from ..model.flags import EndpointFlag
from ..model.state import Desired, Endpoint, Limits, Path, Route, Snapshot, State
from .classify import judge, strangers
from .facts import Facts, Verdict
from .failover_routes import Detours, detours
from .intent import claims_of
from .metered import mind_costs
from .modes import mind_mode
from .signal_strength import mind_strength
from .slots import fill_slots, once
from .source_routing import Routing, gateway, routing
from .sources import sources
from .suspension import KEPT_FOR_CONNECTIONS, leave, mind_connectivity, mind_links, renewed, replaceable
from .vpn_guard import mind_tunnels

__all__ = ["decide"]

#: Addresses that a peer is thought to have where it is told of ours, or all of its are to be used.
_OF_A_PEER = 4


def decide(snapshot: Snapshot, config: Config = DEFAULTS, *, hurried: bool = False) -> Desired:
    """What should be in the kernel of ours, given all the facts of one look; ``hurried`` leaves out routes and rules, for
    which all routes have to be gone through, and is no more than what a loss cannot wait for.
    """
    facts = Facts(snapshot, config)
    claims = claims_of(facts)
    verdicts = [judge(facts, address, claims) for address in facts.addresses()]
    guard = mind_tunnels(facts, mind_costs(verdicts), config)
    verdicts = mind_links(facts, guard.verdicts, config)
    verdicts = mind_connectivity(facts, verdicts)
    verdicts = mind_mode(facts, verdicts, config)
    verdicts = mind_strength(facts, verdicts)
    leaving = leave(facts, verdicts, config)
    slots = fill_slots(facts, once(facts, leaving.verdicts), leaving.lost)
    verdicts = slots.verdicts
    routed, around = Routing({}, (), {}), Detours({}, frozenset())
    linkdown = replaceable(facts, guard.outside(verdicts), config)
    if not hurried:
        routed = routing(snapshot.kernel, sources(facts, guard.outside(verdicts)), facts.marks)
        dead = {place for place in linkdown if _without_carrier(facts, place[1])}
        around = detours(snapshot.kernel, dead, facts.marks, routed.tables)
    return Desired(
        paths=_paths(facts, verdicts, routed.table_of),
        endpoints=frozenset(
            Endpoint(verdict.address, verdict.ifindex, verdict.flags, port=verdict.port)
            for verdict in verdicts
            if verdict.wants_endpoint
        ),
        routes=_united(routed.routes, around.routes),
        rules=routed.rules,
        marks=facts.marks,
        limits=_limits(facts, verdicts, forbidden=guard.forbids),
        claims=claims,
        withdrawn=leaving.withdrawn | guard.withdrawn,
        close_initial_subflows=leaving.close_initial_subflows,
        close_redundant=leaving.close_redundant,
        lost=leaving.lost,
        stale=slots.stale,
        renewed=renewed(facts, verdicts),
        linkdown=linkdown - around.covered,
        tunnels=guard.tunnels,
        close_all=guard.close_all,
        asks_bypass=guard.asks,
        asks_connections=leaving.asks
        or slots.asks
        or bool(snapshot.subflow_retry_due and snapshot.connections is None),
        awaits_connections=any(verdict.reason.why in KEPT_FOR_CONNECTIONS for verdict in verdicts) or guard.kept,
    )


def _without_carrier(facts: Facts, ifindex: int) -> bool:
    """Whether a link is up and leads nowhere; of one that is down the kernel takes the routes away."""
    link = facts.link(ifindex)
    return link.up and not link.carrier


def _united(
    *those: Mapping[tuple[int, int], frozenset[Route]],
) -> Mapping[tuple[int, int], frozenset[Route]]:
    result: dict[tuple[int, int], frozenset[Route]] = {}
    for routes in those:
        for place, group in routes.items():
            result[place] = result[place] | group if place in result else group
    return result


def _limits(facts: Facts, verdicts: list[Verdict], *, forbidden: bool) -> Limits | None:
    """Limits high enough for all paths and as many addresses of the peer; never lower than they are, or were before us.

    A limit that somebody else has changed since we raised it is his. No subflow at all is allowed while endpoints below a
    full tunnel stand.
    """
    if forbidden:
        none = replace(facts.kernel.limits, subflows=0)
        return None if none == facts.kernel.limits else none
    keep = facts.config.limits is LimitsPolicy.KEEP
    paths = [] if keep else [verdict for verdict in verdicts if verdict.state is State.ACTIVE]
    meshed = sum(1 for verdict in paths if verdict.flags & EndpointFlag.FULLMESH)
    signalled = sum(1 for verdict in paths if verdict.flags & EndpointFlag.SIGNAL)
    accepted = max(len(paths), _OF_A_PEER if meshed else 0)
    # Each address in a full mesh leads to each that is accepted, and to each that is signalled come all that the peer has.
    subflows = len(paths) + accepted + meshed * accepted + signalled * max(len(paths), _OF_A_PEER)
    most = facts.kernel.endpoints_max
    need = {"subflows": subflows, "add_addr_accepted": accepted}
    have = {
        "subflows": facts.kernel.limits.subflows,
        "add_addr_accepted": facts.kernel.limits.add_addr_accepted,
    }
    wanted = {name: _limit(facts, name, have[name], min(value, most)) for name, value in need.items()}
    return None if wanted == have else Limits(**wanted)


def _limit(facts: Facts, name: str, have: int, need: int) -> int:
    ours = facts.snapshot.ours.limits.get(name)
    if ours and ours.applied != have:
        return have
    return max(have, need, ours.original if ours else 0)


def _paths(facts: Facts, verdicts: list[Verdict], table_of: Mapping[str, int]) -> tuple[Path, ...]:
    paths = [_path(facts, verdict, table_of) for verdict in verdicts]
    for ifindex in facts.strangers():
        link, device = facts.link(ifindex), facts.device(ifindex)
        kind = kind_of(device).name if device else (link.kind or "")
        paths += strangers(facts.kernel.addresses[ifindex], link.name, kind)
    return tuple(sorted(paths, key=lambda path: path.ifindex))


def _path(facts: Facts, verdict: Verdict, table_of: Mapping[str, int]) -> Path:
    link = facts.link(verdict.ifindex)
    device = verdict.device
    kind = kind_of(device).name if device else (link.kind or "")
    endpoint = facts.endpoint_at.get(verdict.address)
    profile = device.profile if device else None
    route = facts.default(verdict.ifindex, verdict.family, verdict.route_table)
    return Path(
        verdict.address,
        verdict.ifindex,
        link.name,
        verdict.state,
        verdict.reason,
        kind=kind,
        profile=profile.id if profile else "",
        uuid=profile.uuid if profile else "",
        flags=verdict.flags,
        flags_from=verdict.flags_from,
        owner=verdict.owner,
        endpoint_id=endpoint.id if endpoint and endpoint.ifindex in (0, verdict.ifindex) else None,
        table=table_of.get(verdict.address),
        gateway=gateway(route, verdict.ifindex),
        port=verdict.port,
    )
