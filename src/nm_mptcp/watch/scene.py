# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: what is to be shown, all texts of others made harmless."""

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
from .events import Happening, socket_name
from .snapshot import DeviceView, Look, PathView, trouble_of
from .traffic import Rates, SubflowRates, Traffic

#: Whose paths nobody would look for.
_ORDINARY = frozenset({"not-managed", "external", "link-local", "not-global"})

_RT_SCOPE_LINK = 253

#: More connections than a screen has lines.
_MOST = 200

#: The better a state, the later; a link has the state of its best address.
_STATES = ("excluded", "waiting", "suspended", "active")


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A link as it is shown."""

    interface: str
    profile: str = ""
    kind: str = ""
    state: str = ""  #: a word: active, backup, suspended, waiting, excluded, no carrier, down, ...
    reason: str = ""  #: why, where it is not simply active
    addresses: tuple[str, ...] = ()  #: with endpoint ids
    subflows: int | None = None
    rates: tuple[Rates, ...] = ()  #: the newest last

    @property
    def now(self) -> Rates:
        """The newest rates."""
        return self.rates[-1] if self.rates else Rates()


@dataclass(frozen=True, slots=True)
class SubflowRow:
    """A subflow as it is shown."""

    interface: str
    local: str
    state: str  #: "carries", "backup", or what TCP says
    rates: SubflowRates
    rtt: float  #: seconds


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """A connection and its subflows."""

    peer: str
    subflows: tuple[SubflowRow, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """All that is shown at one moment."""

    time: float = 0.0  #: seconds since the epoch
    service: str = ""  #: in words
    networkmanager: str = ""
    missing: str = ""  #: what cannot be seen and why, one line
    links: tuple[LinkRow, ...] = ()
    left_out: int = 0  #: links that are no uplinks
    connections: tuple[ConnectionRow, ...] | None = None  #: the first of them
    totals: tuple[int, int] = (0, 0)  #: how many connections there are, and how many subflows
    happenings: tuple[Happening, ...] = ()  #: the newest last


def scene(
    look: Look,
    traffic: Traffic,
    happenings: Sequence[Happening],
    *,
    time: float,
    missing: str = "",
    shown: Iterable[str] | None = None,
) -> Scene:
    """The scene of a look. ``shown``: the interfaces to show, None for those that :func:`uplinks` finds."""
    chosen = set(uplinks(look) if shown is None else shown)
    real = [link for link in look.links.values() if not link.loopback]
    places = _Places.of(look)
    return Scene(
        time=time,
        service={True: "active", False: "absent", None: "?"}[look.service],
        networkmanager={True: printable(look.version) or "running", False: "not running", None: "?"}[
            look.networkmanager
        ],
        missing=missing,
        links=tuple(
            _link(link, look, places, traffic)
            for link in sorted(real, key=lambda link: link.index)
            if link.name in chosen
        ),
        left_out=sum(link.name not in chosen for link in real),
        connections=_connections(look, traffic),
        totals=(len({each.token for each in look.subflows or ()}), len(look.subflows or ())),
        happenings=tuple(happenings),
    )


def uplinks(look: Look) -> frozenset[str]:
    """The interfaces that somebody would look for: those with a path, an endpoint, a profile or a subflow.

    Where nobody tells of any, all that are up and have an address.
    """
    found = {path.interface for path in look.paths or () if path.state and not _ordinary(path)}
    found |= {device.interface for device in look.devices if device.profile}
    found |= {look.interface_of(endpoint.address, endpoint.ifindex) for endpoint in look.endpoints or ()}
    found |= {look.interface_of(subflow.local, subflow.ifindex) for subflow in look.subflows or ()}
    names_ = {link.name for link in look.links.values() if not link.loopback}
    found &= names_
    if found:
        return frozenset(found)
    return frozenset(
        link.name
        for index, link in look.links.items()
        if link.up and not link.loopback and any(each.scope < _RT_SCOPE_LINK for each in look.addresses.get(index, ()))
    )


def _ordinary(path: PathView) -> bool:
    return path.state == "excluded" and path.rule in _ORDINARY


@dataclass(frozen=True, slots=True)
class _Places:
    """What is known, by interface."""

    paths: Mapping[str, Sequence[PathView]]
    endpoints: Mapping[str, Mapping[str, Endpoint]]  #: and address
    devices: Mapping[str, DeviceView]
    subflows: Mapping[str, int]  #: how many established ones

    @classmethod
    def of(cls, look: Look) -> Self:
        paths: dict[str, list[PathView]] = {}
        for path in look.paths or ():
            paths.setdefault(path.interface, []).append(path)
        endpoints: dict[str, dict[str, Endpoint]] = {}
        for each in look.endpoints or ():
            endpoints.setdefault(look.interface_of(each.address, each.ifindex), {})[each.address] = each
        subflows = (each for each in look.subflows or () if each.established)
        return cls(
            paths,
            endpoints,
            {device.interface: device for device in look.devices},
            Counter(look.interface_of(each.local, each.ifindex) for each in subflows),
        )


def _link(link: Link, look: Look, places: _Places, traffic: Traffic) -> LinkRow:
    paths = places.paths.get(link.name, ())
    endpoints = places.endpoints.get(link.name, {})
    ids = {path.address: path.endpoint_id for path in paths if path.endpoint_id is not None}
    if look.endpoints is not None:
        ids = {address: each.id for address, each in endpoints.items()}
    held = [each.address for each in look.addresses.get(link.index, ()) if each.scope < _RT_SCOPE_LINK]
    held += [address for address in ids if address not in held]
    flags = {path.address: path.flags for path in paths} | {
        address: tuple(names(each.flags)) for address, each in endpoints.items()
    }
    state, reason = _state(link, paths, [flags.get(address, ()) for address in ids], told=look.paths is not None)
    device = places.devices.get(link.name, DeviceView(link.name))
    return LinkRow(
        interface=printable(link.name),
        profile=printable(device.profile),
        kind=printable(device.kind),
        state=state,
        reason=printable(reason, longest=300),
        addresses=tuple(f"{each} id {ids[each]}" if each in ids else each for each in held),
        subflows=None if look.subflows is None else places.subflows.get(link.name, 0),
        rates=traffic.history(link.name),
    )


def _state(link: Link, paths: Sequence[PathView], flags: Sequence[Sequence[str]], *, told: bool) -> tuple[str, str]:
    """A word, and why; ``flags`` of its endpoints, ``told``: the service says what it decided."""
    best = max(paths, key=lambda path: _STATES.index(path.state) if path.state in _STATES else -1, default=None)
    trouble = trouble_of(link)
    if trouble:
        reason = best.reason if best else ""
        return trouble, "" if reason in (trouble, "the interface is down") else reason
    if best is None or not best.state:
        if not flags:
            return ("no path" if told else "no endpoint"), ""
        return ("backup" if all("backup" in each for each in flags) else "active"), ""
    if best.state == "active" and flags and all("backup" in each for each in flags):
        return "backup", best.reason
    # That it is a path because of its kind needs no word.
    return best.state, "" if best.state == "active" and best.rule.startswith("flags-of-kind") else best.reason


def _connections(look: Look, traffic: Traffic) -> tuple[ConnectionRow, ...] | None:
    if look.subflows is None:
        return None
    found: dict[int, list[Subflow]] = {}
    for subflow in look.subflows:
        found.setdefault(subflow.token, []).append(subflow)
    rows = []
    for group in itertools.islice(found.values(), _MOST):
        group.sort(key=lambda each: (not each.initial, each.local, each.local_port))
        peer = socket_name(group[0].remote, group[0].remote_port)
        rows.append(ConnectionRow(peer, tuple(_subflow(each, look, traffic) for each in group)))
    return tuple(sorted(rows, key=lambda row: row.peer))


def _subflow(subflow: Subflow, look: Look, traffic: Traffic) -> SubflowRow:
    state = subflow.state.name.lower().replace("_", "-")
    if subflow.established:
        ours = bool(subflow.flags & SubflowFlag.BACKUP_LOCAL)
        theirs = bool(subflow.flags & SubflowFlag.BACKUP_REMOTE)
        state = "backup" if ours else "backup for peer" if theirs else "carries"
    return SubflowRow(
        interface=printable(look.interface_of(subflow.local, subflow.ifindex)) or "?",
        local=socket_name(subflow.local, subflow.local_port),
        state=state,
        rates=traffic.subflows.get(subflow.cookie, SubflowRates()),
        rtt=subflow.rtt,
    )
