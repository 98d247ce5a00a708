# SPDX-License-Identifier: GPL-2.0-or-later
"""The state at one moment, as far as this process may see it, and the events between two of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..kernel.link_stats import LinkCounters
from ..kernel.sock_diag import Subflow, SubflowFlag
from ..model.flags import EndpointFlag, names
from ..model.reasons import Why
from ..model.state import Address, Endpoint, Link
from ..report.documents import StatusDocument
from ..text import printable
from .events import Event, EventType, socket_name

#: rtnetlink(7): addresses of this scope and above are valid on one link only.
_RT_SCOPE_LINK = 253


@dataclass(frozen=True, slots=True)
class PathView:
    """An address in the service's status document."""

    interface: str
    address: str
    state: str = ""  #: active, waiting, suspended, excluded; "" unknown
    reason: str = ""
    rule: str = ""
    flags: tuple[str, ...] = ()
    endpoint_id: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceView:
    """NetworkManager's profile for an interface."""

    interface: str
    profile: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The state at one moment. None: not known yet, or this process may not see it."""

    links: Mapping[int, Link] = field(default_factory=dict)
    addresses: Mapping[int, tuple[Address, ...]] = field(default_factory=dict)
    counters: Mapping[int, LinkCounters] = field(default_factory=dict)
    endpoints: tuple[Endpoint, ...] | None = None
    subflows: tuple[Subflow, ...] | None = None
    paths: tuple[PathView, ...] | None = None
    devices: tuple[DeviceView, ...] = ()
    service: bool | None = None
    networkmanager: bool | None = None
    version: str = ""  #: NetworkManager's

    def name_of(self, ifindex: int) -> str:
        """An interface's name, "" where there is none with that index."""
        link = self.links.get(ifindex)
        return link.name if link else ""

    def interface_of(self, address: str | None, ifindex: int = 0) -> str:
        """The interface of a socket with this address: the one it is bound to (``ifindex``), else the one with the address."""
        if bound := self.name_of(ifindex):
            return bound
        return self._places().get(address or "", "")

    @functools.lru_cache(maxsize=4)  # noqa: B019  # keeps four snapshots at most
    def _places(self) -> Mapping[str, str]:
        """Interfaces by address; an address that was removed may be that of a path or an endpoint still."""
        found = {path.address: path.interface for path in self.paths or ()}
        found |= {each.address: self.name_of(each.ifindex) for each in self.endpoints or () if each.ifindex}
        for index, group in self.addresses.items():
            found |= {each.address: self.name_of(index) for each in group}
        return found

    def peer_of(self, token: int) -> str:
        """The remote address and port of a connection by its token, "" where unknown."""
        found = [each for each in self.subflows or () if each.token == token]
        first = next((each for each in found if each.initial), found[0] if found else None)
        return socket_name(first.remote, first.remote_port) if first else ""

    def addresses_of(self, ifindex: int) -> tuple[Address, ...]:
        """The addresses of an interface that can be paths, so without link-local ones."""
        return tuple(each for each in self.addresses.get(ifindex, ()) if each.scope < _RT_SCOPE_LINK)


def paths_of(status: StatusDocument) -> tuple[PathView, ...]:
    """The paths of a status document (``nm-mptcp status --json``)."""
    return tuple(
        PathView(
            interface=path["interface"],
            address=path["address"],
            state=path["state"],
            reason=path["reason"],
            rule=path["rule"],
            flags=tuple(path["flags"]),
            endpoint_id=path["endpoint_id"],
        )
        for path in status["paths"]
    )


def devices_of(status: StatusDocument) -> tuple[DeviceView, ...]:
    """The interfaces of a status document that have a profile."""
    found = {
        path["interface"]: DeviceView(path["interface"], path["profile"], path["kind"])
        for path in status["paths"]
        if path["profile"]
    }
    return tuple(found.values())


def differences(before: Snapshot, after: Snapshot) -> Iterator[Event]:
    """The events between two snapshots, causes first; what was unknown in either of them makes none."""
    yield from _links(before, after)
    if before.links:
        yield from _addresses(before, after)
    if before.endpoints is not None and after.endpoints is not None:
        yield from _endpoints(before.endpoints, after.endpoints, before, after)
    elif before.paths is not None and after.paths is not None:
        yield from _endpoints(_endpoints_of(before.paths), _endpoints_of(after.paths), before, after)
    yield from _paths(before, after)
    yield from _priorities(before, after)
    for was, now, up, gone in (
        (before.service, after.service, EventType.SERVICE_UP, EventType.SERVICE_GONE),
        (before.networkmanager, after.networkmanager, EventType.NETWORKMANAGER_UP, EventType.NETWORKMANAGER_GONE),
    ):
        if was is not None and now is not None and was != now:
            yield Event(up if now else gone)


def start_event(snapshot: Snapshot, missing: str) -> Event:
    """The first event: the present state; ``missing``: what is not visible and why."""
    service = "service active" if snapshot.service else "service not running"
    manager = f"NetworkManager {snapshot.version}".strip() if snapshot.networkmanager else "no NetworkManager"
    links = [
        {
            "interface": link.name,
            "up": link.up,
            "carrier": link.carrier,
            "addresses": [address.address for address in snapshot.addresses.get(link.index, ())],
        }
        for link in snapshot.links.values()
        if not link.loopback
    ]
    endpoints = [
        {
            "interface": snapshot.interface_of(endpoint.address, endpoint.ifindex),
            "address": endpoint.address,
            "endpoint_id": endpoint.id,
        }
        for endpoint in snapshot.endpoints or ()
    ]
    subflows = [
        {
            "token": subflow.token,
            "interface": snapshot.interface_of(subflow.local, subflow.ifindex),
            "address": subflow.local,
            "port": subflow.local_port,
            "peer": subflow.remote,
            "peer_port": subflow.remote_port,
            "backup": subflow.backup,
        }
        for subflow in snapshot.subflows or ()
    ]
    fields = {
        "service": bool(snapshot.service),
        "networkmanager": snapshot.version if snapshot.networkmanager else None,
        "missing": missing or None,
        "links": links,
        "endpoints": None if snapshot.endpoints is None else endpoints,
        "subflows": None if snapshot.subflows is None else subflows,
    }
    return Event(EventType.START, f"{service}, {manager}", fields)


def trouble_of(link: Link) -> str:
    """Why a link carries nothing, "" where it may."""
    if not link.up:
        return "down"
    return "" if link.carrier else "no carrier"


def _links(before: Snapshot, after: Snapshot) -> Iterator[Event]:
    if not before.links:
        return
    for index in (*before.links, *(index for index in after.links if index not in before.links)):
        was, now = before.links.get(index), after.links.get(index)
        if was == now:
            continue
        if now is None:
            assert was is not None
            yield _on_link(EventType.LINK_REMOVED, was)
        elif was is None:
            yield _on_link(EventType.LINK_ADDED, now, state=trouble_of(now) or "up")
        elif trouble_of(now) and not trouble_of(was):
            yield _on_link(EventType.LINK_LOST, now, state=trouble_of(now))
        elif trouble_of(was) and not trouble_of(now):
            yield _on_link(EventType.LINK_BACK, now)


def _on_link(kind: EventType, link: Link, *, state: str = "") -> Event:
    fields: dict[str, object] = {"interface": link.name}
    if state:
        fields["state"] = state
    return Event(kind, printable(link.name) + (f": {state}" if state else ""), fields)


def _addresses(before: Snapshot, after: Snapshot) -> Iterator[Event]:
    for index in sorted({*before.addresses, *after.addresses}):
        was = {each.address for each in before.addresses_of(index)}
        now = {each.address for each in after.addresses_of(index)}
        name = after.name_of(index) or before.name_of(index)
        for kind, changed in ((EventType.ADDRESS_REMOVED, was - now), (EventType.ADDRESS_ADDED, now - was)):
            for address in sorted(changed):
                yield Event(kind, f"{printable(name)} {address}", {"interface": name, "address": address})


def _endpoints_of(paths: tuple[PathView, ...]) -> tuple[Endpoint, ...]:
    """The endpoints by the service's status, for a process that may not ask the kernel."""
    known = {flag.name.lower(): flag for flag in EndpointFlag if flag.name}
    return tuple(
        Endpoint(
            path.address,
            flags=EndpointFlag(sum(known.get(name, 0) for name in path.flags)),
            id=path.endpoint_id,
        )
        for path in paths
        if path.endpoint_id is not None
    )


def _endpoints(
    before: tuple[Endpoint, ...], after: tuple[Endpoint, ...], earlier: Snapshot, later: Snapshot
) -> Iterator[Event]:
    was, now = {each.place: each for each in before}, {each.place: each for each in after}

    def event(kind: EventType, each: Endpoint) -> Event:
        interface = later.interface_of(each.address, each.ifindex) or earlier.interface_of(each.address, each.ifindex)
        flags = names(each.flags)
        text = f"{printable(interface)} {each.address} id {each.id}".strip()
        if kind is not EventType.ENDPOINT_OUT:
            text += f" {','.join(flags)}".rstrip()
        fields = {"interface": interface, "address": each.address, "endpoint_id": each.id, "flags": flags}
        return Event(kind, text, fields)

    for place, endpoint in was.items():
        if place not in now:
            yield event(EventType.ENDPOINT_OUT, endpoint)
    for place, endpoint in now.items():
        if place not in was:
            yield event(EventType.ENDPOINT_IN, endpoint)
        elif was[place].flags != endpoint.flags:
            yield event(EventType.ENDPOINT_CHANGED, endpoint)


def _paths(before: Snapshot, after: Snapshot) -> Iterator[Event]:
    if before.paths is None or after.paths is None:
        return
    was = {(path.interface, path.address): path for path in before.paths}
    for path in after.paths:
        old = was.get((path.interface, path.address))
        if not path.state or (old and (old.state, old.rule) == (path.state, path.rule)):
            continue
        if old is None and path.state == "excluded":
            continue
        fields = {
            "interface": path.interface,
            "address": path.address,
            "state": path.state,
            "rule": path.rule,
            "reason": path.reason,
        }
        if _is_silent(path) or (old is not None and _is_silent(old) and path.state == "active"):
            where = {"interface": path.interface, "address": path.address}
            found = EventType.LINK_SILENT if _is_silent(path) else EventType.LINK_ANSWERS
            yield Event(found, f"{printable(path.interface)} {path.address}", where)
        place = f"{printable(path.interface)} {path.address}"
        yield Event(EventType.PATH, f"{place} {path.state}: {printable(path.reason, longest=300)}", fields)


def _is_silent(path: PathView) -> bool:
    return path.rule == Why.SILENT.rule_name


def _priorities(before: Snapshot, after: Snapshot) -> Iterator[Event]:
    """The priorities that were changed on this side; those that a peer changes are events of the path manager."""
    was = {subflow.cookie: subflow for subflow in before.subflows or ()}
    for subflow in after.subflows or ():
        old = was.get(subflow.cookie)
        backup = bool(subflow.flags & SubflowFlag.BACKUP_LOCAL)
        if old is None or bool(old.flags & SubflowFlag.BACKUP_LOCAL) == backup:
            continue
        interface = after.interface_of(subflow.local, subflow.ifindex)
        fields = {
            "token": subflow.token,
            "interface": interface,
            "address": subflow.local,
            "port": subflow.local_port,
            "peer": subflow.remote,
            "peer_port": subflow.remote_port,
            "endpoint_id": subflow.local_id,
            "backup": backup,
            "by": "us",
        }
        place = f"{printable(interface)} {socket_name(subflow.local, subflow.local_port)}".strip()
        text = f"{place} to {socket_name(subflow.remote, subflow.remote_port)}"
        yield Event(EventType.MP_PRIO, f"{'backup' if backup else 'active'}, requested by us: {text}", fields)
