# SPDX-License-Identifier: GPL-2.0-or-later
"""What the record holds, and how it changes: pure functions of what is ours, what the kernel has and what was decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from .state import (
    Desired,
    Endpoint,
    Family,
    Kernel,
    Limits,
    LinkdownSetting,
    Marks,
    Mode,
    Ours,
    OwnEndpoint,
    Owner,
    Path,
    SavedSetting,
    marks_of,
)


@dataclass(frozen=True, slots=True)
class Since:
    """When a path came into the state and reason that it is in; seconds of the wall clock."""

    state: str
    why: str
    time: float


@dataclass(frozen=True, slots=True)
class GuardRecord:
    """What full tunnels are, or were the last time, minded, and what that cut; times are seconds of the wall clock."""

    tunnels: Mapping[Family, str] = field(default_factory=dict)
    since: float = 0.0
    until: float | None = None  #: None: it is in force
    cut_subflows: int = 0
    cut_connections: int = 0  #: those that had no other subflow

    def counted(self, subflows: int, connections: int) -> GuardRecord:
        """With what else was cut."""
        return replace(
            self,
            cut_subflows=self.cut_subflows + subflows,
            cut_connections=self.cut_connections + connections,
        )


def guarded(before: GuardRecord | None, tunnels: Mapping[Family, str], now: float) -> GuardRecord | None:
    """The record of the guard, when these tunnels are minded now; one that begins anew counts from 0."""
    if tunnels:
        if before is None or before.until is not None:
            return GuardRecord(tunnels, now)
        return before if before.tunnels == tunnels else replace(before, tunnels=tunnels)
    return before if before is None or before.until is not None else replace(before, until=now)


@dataclass(frozen=True, slots=True)
class Contents:
    """All that the record holds."""

    ours: Ours = field(default_factory=Ours)
    since: Mapping[str, Since] = field(default_factory=dict)  #: by ``ADDRESS%IFINDEX``
    endpoints_max: int = 0  #: how many endpoints the kernel takes, asked once per boot; 0: not asked yet
    mode: Mode | None = None  #: what ``nm-mptcp mode`` chose until the next boot; None: as configured
    guard: GuardRecord | None = None  #: None: there was no full tunnel yet


def adopted(ours: Ours, kernel: Kernel, marks: Marks) -> Ours:
    """``ours`` where the record was lost while what is marked as ours stands: settings that only we make are ours.

    A record always has the numbers that the marks consist of. An administrator who sets ``ignore_routes_with_linkdown``
    does so for all interfaces, or as the default of each that comes.
    """
    if ours.numberings or not any(map(marks.on_rule, kernel.rules)):
        return ours
    routed = {rule.source for rule in kernel.rules if marks.on_rule(rule)}
    places = {
        (each.family, each.ifindex) for group in kernel.addresses.values() for each in group if each.address in routed
    }
    mine = {place for place in places if kernel.linkdown_ignored.get(place) and place[0] not in kernel.linkdown_default}
    return replace(ours, linkdown=ours.linkdown | mine)


def seen(ours: Ours, endpoints: Iterable[Endpoint]) -> Ours:
    """``ours`` after a look at the kernel: ids and changes of flags confirmed, endpoints that are gone forgotten.

    One that was replaced by somebody else's is kept for this look: that it was replaced is news for policy.
    """
    at = {(endpoint.address, endpoint.port): endpoint for endpoint in endpoints}
    kept = set()
    for own in ours.endpoints:
        endpoint = at.get((own.address, own.port))
        if endpoint is not None:
            was = own.flags if endpoint.flags == own.flags else own.was
            news = own.is_(endpoint) and (own.id, own.was) != (endpoint.id, was)
            kept.add(replace(own, id=endpoint.id, was=was) if news else own)
    return ours if kept == ours.endpoints else replace(ours, endpoints=frozenset(kept))


def decided(ours: Ours, kernel: Kernel, desired: Desired) -> Ours:
    """``ours`` after policy has seen it: its claims, what it took from NetworkManager, and nothing that is past.

    Past is an endpoint that somebody replaced (not one that may only have been edited by hand), one of NetworkManager's that
    stands again or whose address is gone, a linkdown setting whose interface is gone (one that somebody changed since is
    remembered, and left to him), and a limit that is as it was before us. Numbers that count no longer are past once
    nothing carries them.
    """
    standing = {endpoint.place for endpoint in kernel.endpoints if not endpoint.port}
    owned = {(path.address, path.ifindex) for path in desired.paths if path.owner is Owner.NETWORKMANAGER}
    away = {
        endpoint
        for endpoint in ours.withdrawn
        if endpoint.place in owned and endpoint.place not in standing and kernel.has_address_of(endpoint)
    }
    now = desired.marks.now
    result = replace(
        ours,
        endpoints=frozenset(
            own for own in ours.endpoints if any(own.is_(each) or own.is_edited(each) for each in kernel.endpoints)
        ),
        claims=desired.claims,
        withdrawn=desired.withdrawn | away,
        linkdown=frozenset(place for place in ours.linkdown if place[1] in kernel.links),
        numberings=frozenset(
            {now} | {known for known in ours.numberings - {now} if _stands(marks_of(known), kernel, marks_of(now))}
        ),
        limits={name: value for name, value in ours.limits.items() if not _is_back(name, value, kernel.limits)},
    )
    return ours if result == ours else result


def _stands(marks: Marks, kernel: Kernel, now: Marks) -> bool:
    """Whether anything in the kernel carries these numbers, and not those of now as well."""
    return any(marks.on_rule(rule) and not now.on_rule(rule) for rule in kernel.rules) or any(
        marks.on_route(route) and not now.on_route(route) for routes in kernel.routes.values() for route in routes
    )


def _is_back(name: str, value: SavedSetting, limits: Limits) -> bool:
    """Whether a limit is where it was before us: there is nothing to put back any more."""
    have = {"subflows": limits.subflows, "add_addr_accepted": limits.add_addr_accepted}
    return value.original == value.applied == have[name]


def with_endpoints(ours: Ours, written: Iterable[Endpoint]) -> Ours:
    """``ours`` with endpoints that are about to be added, or to get these flags; what came of it the next look tells."""
    written = tuple(written)
    was = {(own.key, own.id): own.flags for own in ours.endpoints}
    new = {
        OwnEndpoint(e.address, e.ifindex, e.flags, was.get((e.key, e.id), e.flags) if e.id else e.flags, e.id, e.port)
        for e in written
    }
    keys = {endpoint.key for endpoint in written}
    return replace(ours, endpoints=frozenset(own for own in ours.endpoints if own.key not in keys) | new)


def without_endpoints(ours: Ours, refused: Iterable[Endpoint]) -> Ours:
    """``ours`` without endpoints whose adding failed: what stands there, if anything, is somebody else's."""
    keys = {endpoint.key for endpoint in refused}
    kept = frozenset(own for own in ours.endpoints if own.id or own.key not in keys)
    return replace(ours, endpoints=kept)


def with_limits(ours: Ours, before: Limits, written: Limits) -> Ours:
    """``ours`` with the limits that are about to be written, and what they were before the first time."""
    values = {
        "subflows": (before.subflows, written.subflows),
        "add_addr_accepted": (before.add_addr_accepted, written.add_addr_accepted),
    }
    limits = dict(ours.limits)
    for name, (was, becomes) in values.items():
        if was != becomes:
            limits[name] = SavedSetting(limits[name].original if name in limits else was, becomes)
    return replace(ours, limits=limits)


def with_linkdown(ours: Ours, settings: Iterable[LinkdownSetting]) -> Ours:
    """``ours`` with settings that are about to be written."""
    linkdown = set(ours.linkdown)
    for setting in settings:
        (linkdown.add if setting.ignored else linkdown.discard)((setting.family, setting.ifindex))
    return replace(ours, linkdown=frozenset(linkdown))


def since(before: Mapping[str, Since], paths: Iterable[Path], now: float) -> dict[str, Since]:
    """Since when each path is in its state for its reason; ``now`` where that has just changed."""
    result = {}
    for path in paths:
        key = f"{path.address}%{path.ifindex}"
        known = before.get(key)
        state, why = path.state.value, path.reason.why.name
        result[key] = known if known and (known.state, known.why) == (state, why) else Since(state, why, now)
    return result
