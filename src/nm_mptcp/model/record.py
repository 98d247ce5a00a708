# SPDX-License-Identifier: GPL-2.0-or-later
"""The record's contents and their changes: pure functions of what is ours, the kernel's state and the desired state."""

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
    ReversePathSetting,
    SavedSetting,
    State,
    marks_of,
)


@dataclass(frozen=True, slots=True)
class Since:
    """Since when a path is in its state for its reason; ``time`` is in seconds of the wall clock."""

    state: str
    why: str
    time: float


@dataclass(frozen=True, slots=True)
class GuardRecord:
    """The VPN guard's current period, or its last one; times are in seconds of the wall clock."""

    tunnels: Mapping[Family, str] = field(default_factory=dict)  #: the name of the tunnel that carries each family
    since: float = 0.0
    until: float | None = None  #: None: it is in force
    cut_subflows: int = 0  #: subflows that it closed
    cut_connections: int = 0  #: connections of which it closed the last subflow

    def counted(self, subflows: int, connections: int) -> GuardRecord:
        """The record with these added to its counts."""
        return replace(
            self,
            cut_subflows=self.cut_subflows + subflows,
            cut_connections=self.cut_connections + connections,
        )


def guarded(before: GuardRecord | None, tunnels: Mapping[Family, str], now: float) -> GuardRecord | None:
    """The guard's record now that these tunnels are guarded; a new period begins with counts of 0."""
    if tunnels:
        if before is None or before.until is not None:
            return GuardRecord(tunnels, now)
        return before if before.tunnels == tunnels else replace(before, tunnels=tunnels)
    return before if before is None or before.until is not None else replace(before, until=now)


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of the record."""

    ours: Ours = field(default_factory=Ours)
    since: Mapping[str, Since] = field(default_factory=dict)  #: by ``ADDRESS%IFINDEX``
    endpoints_max: int = 0  #: the kernel's maximum, determined once per boot; 0: not determined yet
    mode: Mode | None = None  #: set by ``nm-mptcp mode`` until the next boot; None: as configured
    guard: GuardRecord | None = None  #: None: there was no full tunnel yet


def adopted(ours: Ours, kernel: Kernel, marks: Marks) -> Ours:
    """``ours`` with what is ours although the record does not say so: edited endpoints on links that are gone, and the linkdown
    settings of a lost record.

    The record is lost if it has no numberings and our rules are in the kernel. ``ignore_routes_with_linkdown`` is then ours on
    each interface with one of our rules' addresses, unless it is also the default of new interfaces: an administrator sets it
    for all interfaces, or as that default.
    """
    ours = _without_edits_of_lost_links(ours, kernel)
    if ours.numberings or not any(map(marks.on_rule, kernel.rules)):
        return ours
    routed = {rule.source for rule in kernel.rules if marks.on_rule(rule)}
    places = {
        (each.family, each.ifindex) for group in kernel.addresses.values() for each in group if each.address in routed
    }
    mine = {place for place in places if kernel.linkdown_ignored.get(place) and place[0] not in kernel.linkdown_default}
    return replace(ours, linkdown=ours.linkdown | mine)


def _without_edits_of_lost_links(ours: Ours, kernel: Kernel) -> Ours:
    """``ours`` with the endpoints that somebody edited by hand and whose link is gone: left unchanged, they would keep the
    address from becoming a path again when its link is back with another ifindex.
    """
    edited = {
        own: endpoint.flags
        for own in ours.endpoints
        for endpoint in kernel.endpoints
        if own.ifindex and own.ifindex not in kernel.links and own.is_edited(endpoint)
    }
    if not edited:
        return ours
    again = {replace(own, flags=flags, previous_flags=flags) for own, flags in edited.items()}
    return replace(ours, endpoints=ours.endpoints - edited.keys() | again)


def seen(ours: Ours, endpoints: Iterable[Endpoint]) -> Ours:
    """``ours`` after a dump of the kernel's endpoints: ids and flags confirmed, deleted endpoints removed.

    An endpoint that another program replaced stays in it for this convergence: policy acts on the replacement.
    """
    at = {(endpoint.address, endpoint.port): endpoint for endpoint in endpoints}
    kept = set()
    for own in ours.endpoints:
        endpoint = at.get((own.address, own.port))
        if endpoint is not None:
            previous = own.flags if endpoint.flags == own.flags else own.previous_flags
            confirmed = own.matches(endpoint) and (own.id, own.previous_flags) != (endpoint.id, previous)
            kept.add(replace(own, id=endpoint.id, previous_flags=previous) if confirmed else own)
    return ours if kept == ours.endpoints else replace(ours, endpoints=frozenset(kept))


def decided(ours: Ours, kernel: Kernel, desired: Desired) -> Ours:
    """``ours`` after a decision: with its claims and the endpoints that it withdraws, without what is obsolete.

    Obsolete are: an endpoint that another program replaced (not one that may have been edited by hand); a withdrawn endpoint
    of NetworkManager's that exists again or whose address is gone; a linkdown setting whose interface is gone (one that
    another program changed since stays recorded, and unchanged); a limit with its original value; and earlier numbers that no
    rule or route carries any more.
    """
    present = {endpoint.place for endpoint in kernel.endpoints if not endpoint.port}
    owned = {(path.address, path.ifindex) for path in desired.paths if path.owner is Owner.NETWORKMANAGER}
    still_withdrawn = {
        endpoint
        for endpoint in ours.withdrawn
        if endpoint.place in owned and endpoint.place not in present and kernel.has_address_of(endpoint)
    }
    now = desired.marks.now
    result = replace(
        ours,
        endpoints=frozenset(
            own for own in ours.endpoints if any(own.matches(each) or own.is_edited(each) for each in kernel.endpoints)
        ),
        claims=desired.claims,
        withdrawn=desired.withdrawn | still_withdrawn,
        linkdown=frozenset(place for place in ours.linkdown if place[1] in kernel.links),
        loosened=ours.loosened & kernel.links.keys(),
        numberings=frozenset(
            {now} | {known for known in ours.numberings - {now} if _in_use(marks_of(known), kernel, marks_of(now))}
        ),
        limits={name: value for name, value in ours.limits.items() if not _is_restored(name, value, kernel.limits)},
    )
    return ours if result == ours else result


def _in_use(marks: Marks, kernel: Kernel, now: Marks) -> bool:
    """Whether a rule or route carries these numbers, and not the current ones as well."""
    return any(marks.on_rule(rule) and not now.on_rule(rule) for rule in kernel.rules) or any(
        marks.on_route(route) and not now.on_route(route) for routes in kernel.routes.values() for route in routes
    )


def _is_restored(name: str, value: SavedSetting, limits: Limits) -> bool:
    """Whether a limit has its original value, so that there is nothing to restore."""
    have = {"subflows": limits.subflows, "add_addr_accepted": limits.add_addr_accepted}
    return value.original == value.applied == have[name]


def with_endpoints(ours: Ours, written: Iterable[Endpoint]) -> Ours:
    """``ours`` with endpoints that are about to be added, or to get these flags; :func:`seen` confirms them."""
    written = tuple(written)
    flags = {(own.key, own.id): own.flags for own in ours.endpoints}
    new = {
        OwnEndpoint(e.address, e.ifindex, e.flags, flags.get((e.key, e.id), e.flags) if e.id else e.flags, e.id, e.port)
        for e in written
    }
    keys = {endpoint.key for endpoint in written}
    return replace(ours, endpoints=frozenset(own for own in ours.endpoints if own.key not in keys) | new)


def without_endpoints(ours: Ours, refused: Iterable[Endpoint]) -> Ours:
    """``ours`` without endpoints that the kernel refused to add: one with that key, if any, is another program's."""
    keys = {endpoint.key for endpoint in refused}
    kept = frozenset(own for own in ours.endpoints if own.id or own.key not in keys)
    return replace(ours, endpoints=kept)


def with_limits(ours: Ours, before: Limits, written: Limits) -> Ours:
    """``ours`` with the limits that are about to be written, and the values that they had before our first change."""
    values = {
        "subflows": (before.subflows, written.subflows),
        "add_addr_accepted": (before.add_addr_accepted, written.add_addr_accepted),
    }
    limits = dict(ours.limits)
    for name, (old, new) in values.items():
        if old != new:
            known = limits.get(name)
            # With another value than ours, another program has set it meanwhile.
            limits[name] = SavedSetting(known.original if known and known.applied == old else old, new)
    return replace(ours, limits=limits)


def with_linkdown(ours: Ours, settings: Iterable[LinkdownSetting]) -> Ours:
    """``ours`` with the linkdown settings that are about to be written."""
    linkdown = set(ours.linkdown)
    for setting in settings:
        (linkdown.add if setting.ignored else linkdown.discard)((setting.family, setting.ifindex))
    return replace(ours, linkdown=frozenset(linkdown))


def with_reverse_path(ours: Ours, settings: Iterable[ReversePathSetting]) -> Ours:
    """``ours`` with the settings of ``rp_filter`` that are about to be written."""
    loosened = set(ours.loosened)
    for setting in settings:
        (loosened.add if setting.loose else loosened.discard)(setting.ifindex)
    return replace(ours, loosened=frozenset(loosened))


def since(before: Mapping[str, Since], paths: Iterable[Path], now: float) -> dict[str, Since]:
    """Since when each path is in its state for its reason, by ``ADDRESS%IFINDEX``; ``now`` if it has just changed.

    An address that belongs to no profile and was excluded from the first is left out: containers bring and take hundreds, and
    for each the record would be written.
    """
    result = {}
    for path in paths:
        key = f"{path.address}%{path.ifindex}"
        known = before.get(key)
        if known is None and path.state is State.EXCLUDED and not path.profile:
            continue
        state, why = path.state.value, path.reason.why.name
        result[key] = known if known and (known.state, known.why) == (state, why) else Since(state, why, now)
    return result
