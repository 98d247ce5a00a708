# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: what there is at one moment, as far as it may be seen, and what happened between two moments."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..kernel.link_stats import LinkCounters
from ..kernel.sock_diag import Subflow, SubflowFlag
from ..model.flags import EndpointFlag, names
from ..model.state import Address, Endpoint, Link
from ..report.documents import StatusDocument
from ..text import printable
from .events import Happening, Name, socket_name

_RT_SCOPE_LINK = 253


@dataclass(frozen=True, slots=True)
class PathView:
    """What is known of an address: from the service's status document, or from NetworkManager alone."""

    interface: str
    address: str
    state: str = ""  #: active, waiting, suspended, excluded; "" where there is no service to say it
    reason: str = ""
    rule: str = ""
    flags: tuple[str, ...] = ()
    endpoint_id: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceView:
    """What NetworkManager says of an interface."""

    interface: str
    profile: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What there is. None means: it is not known (yet), or may not be seen."""

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
        """An interface's name, "" where there is none of that number."""
        link = self.links.get(ifindex)
        return link.name if link else ""

    def interface_of(self, address: str | None, ifindex: int = 0) -> str:
        """The interface that a socket with this address leaves by: the one it is bound to, else the one that has it."""
        if bound := self.name_of(ifindex):
            return bound
        return self._places().get(address or "", "")

    @functools.lru_cache(maxsize=4)  # noqa: B019  # of few, that are as good as kept anyway
    def _places(self) -> Mapping[str, str]:
        """Address -> interface. An address that is gone may be known of a path or an endpoint still."""
        found = {path.address: path.interface for path in self.paths or ()}
        found |= {each.address: self.name_of(each.ifindex) for each in self.endpoints or () if each.ifindex}
        for index, group in self.addresses.items():
            found |= {each.address: self.name_of(index) for each in group}
        return found

    def peer_of(self, token: int) -> str:
        """The far end of a connection, "" where it is not known."""
        found = [each for each in self.subflows or () if each.token == token]
        first = next((each for each in found if each.initial), found[0] if found else None)
        return socket_name(first.remote, first.remote_port) if first else ""


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
    """The interfaces that a status document knows a profile for."""
    found = {
        path["interface"]: DeviceView(path["interface"], path["profile"], path["kind"])
        for path in status["paths"]
        if path["profile"]
    }
    return tuple(found.values())


def differences(before: Look, after: Look) -> Iterator[Happening]:
    """What happened between two looks, causes first; what was not known before is nothing that happened."""
    yield from _links(before, after)
    if before.links:
        yield from _addresses(before, after)
    if before.endpoints is not None and after.endpoints is not None:
        yield from _endpoints(before.endpoints, after.endpoints, before, after)
    elif before.paths is not None and after.paths is not None:
        yield from _endpoints(_told(before.paths), _told(after.paths), before, after)
    yield from _paths(before, after)
    yield from _priorities(before, after)
    for was, now, up, gone in (
        (before.service, after.service, Name.SERVICE_UP, Name.SERVICE_GONE),
        (before.networkmanager, after.networkmanager, Name.NETWORKMANAGER_UP, Name.NETWORKMANAGER_GONE),
    ):
        if was is not None and now is not None and was != now:
            yield Happening(up if now else gone)


def trouble_of(link: Link) -> str:
    """Why nothing goes by a link, "" when something may."""
    if not link.up:
        return "down"
    return "" if link.carrier else "no carrier"


def _links(before: Look, after: Look) -> Iterator[Happening]:
    if not before.links:
        return
    for index in (*before.links, *(index for index in after.links if index not in before.links)):
        was, now = before.links.get(index), after.links.get(index)
        if was == now:
            continue
        if now is None:
            assert was is not None
            yield _on_link(Name.LINK_REMOVED, was)
        elif was is None:
            yield _on_link(Name.LINK_ADDED, now, state=trouble_of(now) or "up")
        elif trouble_of(now) and not trouble_of(was):
            yield _on_link(Name.LINK_LOST, now, state=trouble_of(now))
        elif trouble_of(was) and not trouble_of(now):
            yield _on_link(Name.LINK_BACK, now)


def _on_link(name: Name, link: Link, *, state: str = "") -> Happening:
    facts: dict[str, object] = {"interface": link.name}
    if state:
        facts["state"] = state
    return Happening(name, printable(link.name) + (f": {state}" if state else ""), facts)


def _addresses(before: Look, after: Look) -> Iterator[Happening]:
    for index in sorted({*before.addresses, *after.addresses}):
        was = {each.address for each in before.addresses.get(index, ()) if each.scope < _RT_SCOPE_LINK}
        now = {each.address for each in after.addresses.get(index, ()) if each.scope < _RT_SCOPE_LINK}
        name = after.name_of(index) or before.name_of(index)
        for kind, changed in ((Name.ADDRESS_REMOVED, was - now), (Name.ADDRESS_ADDED, now - was)):
            for address in sorted(changed):
                yield Happening(kind, f"{printable(name)} {address}", {"interface": name, "address": address})


def _told(paths: tuple[PathView, ...]) -> tuple[Endpoint, ...]:
    """The endpoints that the service tells of, for those who may not ask the kernel."""
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
    before: tuple[Endpoint, ...], after: tuple[Endpoint, ...], look: Look, later: Look
) -> Iterator[Happening]:
    was, now = {each.place: each for each in before}, {each.place: each for each in after}

    def told(name: Name, each: Endpoint) -> Happening:
        interface = later.interface_of(each.address, each.ifindex) or look.interface_of(each.address, each.ifindex)
        flags = names(each.flags)
        words = f"{printable(interface)} {each.address} id {each.id}".strip()
        if name is not Name.ENDPOINT_OUT:
            words += f" {','.join(flags)}".rstrip()
        facts = {"interface": interface, "address": each.address, "endpoint_id": each.id, "flags": flags}
        return Happening(name, words, facts)

    for place, endpoint in was.items():
        if place not in now:
            yield told(Name.ENDPOINT_OUT, endpoint)
    for place, endpoint in now.items():
        if place not in was:
            yield told(Name.ENDPOINT_IN, endpoint)
        elif was[place].flags != endpoint.flags:
            yield told(Name.ENDPOINT_CHANGED, endpoint)


def _paths(before: Look, after: Look) -> Iterator[Happening]:
    if before.paths is None or after.paths is None:
        return
    was = {(path.interface, path.address): path for path in before.paths}
    for path in after.paths:
        old = was.get((path.interface, path.address))
        if not path.state or (old and (old.state, old.rule) == (path.state, path.rule)):
            continue
        if old is None and path.state == "excluded":
            continue
        facts = {
            "interface": path.interface,
            "address": path.address,
            "state": path.state,
            "rule": path.rule,
            "reason": path.reason,
        }
        place = f"{printable(path.interface)} {path.address}"
        yield Happening(Name.PATH, f"{place} {path.state}: {printable(path.reason, longest=300)}", facts)


def _priorities(before: Look, after: Look) -> Iterator[Happening]:
    """What we asked the peers for; what they ask for the path manager tells itself."""
    was = {subflow.cookie: subflow for subflow in before.subflows or ()}
    for subflow in after.subflows or ():
        old = was.get(subflow.cookie)
        backup = bool(subflow.flags & SubflowFlag.BACKUP_LOCAL)
        if old is None or bool(old.flags & SubflowFlag.BACKUP_LOCAL) == backup:
            continue
        interface = after.interface_of(subflow.local, subflow.ifindex)
        facts = {
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
        words = f"{printable(interface)} {socket_name(subflow.local, subflow.local_port)}".strip()
        words += f" to {socket_name(subflow.remote, subflow.remote_port)}"
        yield Happening(Name.MP_PRIO, f"{'backup' if backup else 'carries'}, we ask: {words}", facts)
