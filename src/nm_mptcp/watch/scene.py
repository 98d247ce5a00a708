# SPDX-License-Identifier: GPL-2.0-or-later
"""What is shown of a snapshot; texts from elsewhere are safe for a terminal."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from ..kernel.sock_diag import Subflow, SubflowFlag
from ..model.flags import names
from ..model.state import Endpoint, Link
from ..text import printable
from .events import Event, socket_name
from .snapshot import DeviceView, PathView, Snapshot, trouble_of
from .traffic import Rates, SubflowRates, Traffic

#: Rules (reasons) that exclude an address which nobody would expect to be a path.
_ORDINARY = frozenset({"not-managed", "external", "link-local", "not-global"})

#: More connections than a screen has lines.
_MOST = 200

#: From the worst to the best; a link has the state of its best address.
_STATES = ("excluded", "waiting", "suspended", "active")


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A link in the scene."""

    interface: str
    profile: str = ""
    kind: str = ""
    state: str = ""  #: active, backup, suspended, waiting, excluded, no carrier, down, ...
    reason: str = ""  #: of a state other than active
    addresses: tuple[str, ...] = ()  #: with endpoint ids
    subflows: int | None = None
    rates: tuple[Rates, ...] = ()  #: the newest last

    @property
    def now(self) -> Rates:
        """The newest rates."""
        return self.rates[-1] if self.rates else Rates()


@dataclass(frozen=True, slots=True)
class SubflowRow:
    """A subflow in the scene."""

    interface: str
    local: str
    state: str  #: "active", "backup", or TCP's state
    rates: SubflowRates
    rtt: float  #: seconds


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """A connection and its subflows."""

    peer: str
    subflows: tuple[SubflowRow, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """All that is shown of one snapshot."""

    time: float = 0.0  #: seconds since the epoch
    service: str = ""  #: in words
    networkmanager: str = ""
    missing: str = ""  #: what is not visible and why, one line
    links: tuple[LinkRow, ...] = ()
    left_out: int = 0  #: links that are not uplinks
    connections: tuple[ConnectionRow, ...] | None = None  #: the first of them
    totals: tuple[int, int] = (0, 0)  #: how many connections there are, and how many subflows
    events: tuple[Event, ...] = ()  #: the newest last


def scene(
    snapshot: Snapshot,
    traffic: Traffic,
    events: Sequence[Event],
    *,
    time: float,
    missing: str = "",
    shown: Iterable[str] | None = None,
) -> Scene:
    """The scene of a snapshot. ``shown``: interfaces, None for those of :func:`uplinks`."""
    chosen = set(uplinks(snapshot) if shown is None else shown)
    real = [link for link in snapshot.links.values() if not link.loopback]
    places = _Places.of(snapshot)
    return Scene(
        time=time,
        service={True: "active", False: "not running", None: "?"}[snapshot.service],
        networkmanager={True: printable(snapshot.version) or "running", False: "not running", None: "?"}[
            snapshot.networkmanager
        ],
        missing=missing,
        links=tuple(
            _link(link, snapshot, places, traffic)
            for link in sorted(real, key=lambda link: link.index)
            if link.name in chosen
        ),
        left_out=sum(link.name not in chosen for link in real),
        connections=_connections(snapshot, traffic),
        totals=(len({each.token for each in snapshot.subflows or ()}), len(snapshot.subflows or ())),
        events=tuple(events),
    )


def uplinks(snapshot: Snapshot) -> frozenset[str]:
    """The interfaces with a path, an endpoint, a profile or a subflow; where there are none, all up and with an address."""
    found = {path.interface for path in snapshot.paths or () if path.state and not _ordinary(path)}
    found |= {device.interface for device in snapshot.devices if device.profile}
    found |= {snapshot.interface_of(endpoint.address, endpoint.ifindex) for endpoint in snapshot.endpoints or ()}
    found |= {snapshot.interface_of(subflow.local, subflow.ifindex) for subflow in snapshot.subflows or ()}
    names_ = {link.name for link in snapshot.links.values() if not link.loopback}
    found &= names_
    if found:
        return frozenset(found)
    return frozenset(
        link.name
        for index, link in snapshot.links.items()
        if link.up and not link.loopback and snapshot.addresses_of(index)
    )


def _ordinary(path: PathView) -> bool:
    return path.state == "excluded" and path.rule in _ORDINARY


@dataclass(frozen=True, slots=True)
class _Places:
    """Paths, endpoints, devices and subflows, by interface."""

    paths: Mapping[str, Sequence[PathView]]
    endpoints: Mapping[str, Mapping[str, Endpoint]]  #: and address
    devices: Mapping[str, DeviceView]
    subflows: Mapping[str, int]  #: how many established ones

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        paths: dict[str, list[PathView]] = {}
        for path in snapshot.paths or ():
            paths.setdefault(path.interface, []).append(path)
        endpoints: dict[str, dict[str, Endpoint]] = {}
        for each in snapshot.endpoints or ():
            endpoints.setdefault(snapshot.interface_of(each.address, each.ifindex), {})[each.address] = each
        subflows = (each for each in snapshot.subflows or () if each.established)
        return cls(
            paths,
            endpoints,
            {device.interface: device for device in snapshot.devices},
            Counter(snapshot.interface_of(each.local, each.ifindex) for each in subflows),
        )


def _link(link: Link, snapshot: Snapshot, places: _Places, traffic: Traffic) -> LinkRow:
    paths = places.paths.get(link.name, ())
    endpoints = places.endpoints.get(link.name, {})
    ids = {path.address: path.endpoint_id for path in paths if path.endpoint_id is not None}
    if snapshot.endpoints is not None:
        ids = {address: each.id for address, each in endpoints.items()}
    addresses = [each.address for each in snapshot.addresses_of(link.index)]
    addresses += [address for address in ids if address not in addresses]
    flags = {path.address: path.flags for path in paths} | {
        address: tuple(names(each.flags)) for address, each in endpoints.items()
    }
    state, reason = _state(link, paths, [flags.get(address, ()) for address in ids], service=snapshot.paths is not None)
    device = places.devices.get(link.name, DeviceView(link.name))
    return LinkRow(
        interface=printable(link.name),
        profile=printable(device.profile),
        kind=printable(device.kind),
        state=state,
        reason=printable(reason, longest=300),
        addresses=tuple(f"{each} id {ids[each]}" if each in ids else each for each in addresses),
        subflows=None if snapshot.subflows is None else places.subflows.get(link.name, 0),
        rates=traffic.history(link.name),
    )


def _state(link: Link, paths: Sequence[PathView], flags: Sequence[Sequence[str]], *, service: bool) -> tuple[str, str]:
    """State and reason; ``flags`` of its endpoints, ``service``: whether the paths are known."""
    best = max(paths, key=lambda path: _STATES.index(path.state) if path.state in _STATES else -1, default=None)
    trouble = trouble_of(link)
    if trouble:
        reason = best.reason if best else ""
        return trouble, "" if reason in (trouble, "the interface is down") else reason
    if best is None or not best.state:
        if not flags:
            return ("no path" if service else "no endpoint"), ""
        return ("backup" if all("backup" in each for each in flags) else "active"), ""
    if best.state == "active" and flags and all("backup" in each for each in flags):
        return "backup", best.reason
    # The usual reason, the flags of its kind, is not worth a line.
    return best.state, "" if best.state == "active" and best.rule.startswith("flags-of-kind") else best.reason


def _connections(snapshot: Snapshot, traffic: Traffic) -> tuple[ConnectionRow, ...] | None:
    if snapshot.subflows is None:
        return None
    found: dict[int, list[Subflow]] = {}
    for subflow in snapshot.subflows:
        found.setdefault(subflow.token, []).append(subflow)
    rows = []
    for group in itertools.islice(found.values(), _MOST):
        group.sort(key=lambda each: (not each.initial, each.local, each.local_port))
        peer = socket_name(group[0].remote, group[0].remote_port)
        rows.append(ConnectionRow(peer, tuple(_subflow(each, snapshot, traffic) for each in group)))
    return tuple(sorted(rows, key=lambda row: row.peer))


def _subflow(subflow: Subflow, snapshot: Snapshot, traffic: Traffic) -> SubflowRow:
    state = subflow.state.name.lower().replace("_", "-")
    if subflow.established:
        ours = bool(subflow.flags & SubflowFlag.BACKUP_LOCAL)
        theirs = bool(subflow.flags & SubflowFlag.BACKUP_REMOTE)
        state = "backup" if ours else "backup for peer" if theirs else "active"
    return SubflowRow(
        interface=printable(snapshot.interface_of(subflow.local, subflow.ifindex)) or "?",
        local=socket_name(subflow.local, subflow.local_port),
        state=state,
        rates=traffic.subflows.get(subflow.cookie, SubflowRates()),
        rtt=subflow.rtt,
    )
