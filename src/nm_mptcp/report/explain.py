# SPDX-License-Identifier: GPL-2.0-or-later
"""Explanations, as pure functions: why an address is a path or none, or how a new connection to a destination leaves.

For an address these are the facts from the profile to the kernel, and the commands that change the decision; for a
destination the routes, the subflows that follow, and the addresses that the server learns. :mod:`.explain_text` is the text.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..config.settings import Config, PathOptions, Setting
from ..model.flags import EndpointFlag, names
from ..model.reasons import Reason, Why
from ..model.state import (
    IPSEC,
    MAIN_TABLE,
    Address,
    AddressFlag,
    Desired,
    Device,
    DeviceState,
    Endpoint,
    Family,
    FlagsFrom,
    Metered,
    Path,
    RouteResult,
    Snapshot,
    State,
)
from ..policy.source_routing import default_route
from ..policy.tunnels import addresses_of, announces_tunnels_alone
from ..text import counted, listed, printable, utf8_safe
from .documents import (
    Command,
    DestinationExplanation,
    Fact,
    FirstSubflow,
    NoRoute,
    PathExplanation,
    PathsExplanation,
    SubflowExplanation,
)
from .remedies import remedies
from .status import LiveConnections, priority

#: What a subject names.
SubjectKind = Literal["interface", "address", "profile", "destination"]

#: The longest subject that is looked up; an interface's name has 15 bytes, a profile's may have any length.
LONGEST = 65536


class UnknownSubject(LookupError):
    """The subject is neither known here nor an address to which connections go; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Known:
    """What an explanation is made from."""

    snapshot: Snapshot
    desired: Desired
    config: Config
    connections: LiveConnections | None = None  #: None without CAP_NET_ADMIN
    troubles: Mapping[str, Reason] = field(
        default_factory=dict
    )  #: see :mod:`~nm_mptcp.policy.reachability`, by address


# --- the subject -------------------------------------------------------------------------------------------


def subject(what: str, known: Known) -> tuple[SubjectKind, list[Path]]:
    """What ``what`` names, in this order: an interface, an address of this machine, another address, a profile; its paths.

    So an interface hides a profile of the same name (but not its UUID). Raises :class:`UnknownSubject`.
    """
    paths = known.desired.paths
    if not what or len(what) > LONGEST:
        raise UnknownSubject("empty subject" if not what else f"longer than {LONGEST} characters")
    links = {index for index, link in known.snapshot.kernel.links.items() if utf8_safe(link.name) == utf8_safe(what)}
    if links or any(utf8_safe(device.interface) == utf8_safe(what) for device in known.snapshot.networkmanager.devices):
        ip_interfaces = {
            utf8_safe(device.ip_interface)
            for device in known.snapshot.networkmanager.devices
            if utf8_safe(device.interface) == utf8_safe(what)
        }
        return "interface", [p for p in paths if p.ifindex in links or utf8_safe(p.interface) in ip_interfaces]
    address = _address(what)
    if address:
        mine = [path for path in paths if path.address == address]
        if not mine:
            _require_destination(what, address)
        return ("address", mine) if mine else ("destination", [])
    of_profile = [path for path in paths if path.profile and what in (path.uuid, path.profile, utf8_safe(path.profile))]
    devices = [
        device
        for device in known.snapshot.networkmanager.devices
        if device.profile and what in (device.profile.uuid, device.profile.id)
    ]
    if of_profile or devices:
        return "profile", of_profile
    raise UnknownSubject(
        f"{printable(what)!r} is not an interface, an address or an active profile"
        " ('nmcli connection' lists the profiles, 'nmcli device' the interfaces)"
    )


def _require_destination(what: str, address: str) -> None:
    """Raise :class:`UnknownSubject` for an address to which no connection, or none with another path, is possible."""
    value = ipaddress.ip_address(address)
    words = ""
    if value.is_multicast:
        words = "is a multicast address, to which there are no connections"
    elif address == "255.255.255.255":
        words = "is the broadcast address, to which there are no connections"
    elif value.is_unspecified:
        words = "is the unspecified address"
    elif value.version == 6 and value.is_link_local:
        words = "is link-local: it is reachable by that link only"
    if words:
        raise UnknownSubject(f"{printable(what)!r} {words}")


def destination_address(what: str) -> str:
    """The address ``what``, in the kernel's notation."""
    address = _address(what)
    assert address is not None
    return address


def _address(what: str) -> str | None:
    try:
        value = ipaddress.ip_address(what.strip().strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = value.ipv4_mapped if isinstance(value, ipaddress.IPv6Address) else None
    return str(mapped or value)


# --- an interface, an address, a profile ---------------------------------------------------------------------------


def explain_paths(
    what: str, kind: Literal["interface", "address", "profile"], paths: Iterable[Path], known: Known
) -> PathsExplanation:
    """The explanation of an interface, an address or a profile: the facts of each address, paths first."""
    order = list(State)
    chosen = sorted(paths, key=lambda path: (order.index(path.state), path.interface, path.address))
    shown: PathsExplanation = {
        "what": utf8_safe(what),
        "kind": kind,
        "paths": [_explained(path, known) for path in chosen],
    }
    if not chosen:
        shown["facts"] = _without_address(what, known)
    return shown


def _explained(path: Path, known: Known) -> PathExplanation:
    device = _device(path.interface, known)
    address = next(
        (a for a in known.snapshot.kernel.addresses.get(path.ifindex, ()) if a.address == path.address), None
    )
    return {
        "interface": utf8_safe(path.interface),
        "address": path.address,
        "profile": utf8_safe(path.profile),
        "uuid": utf8_safe(path.uuid),
        "state": path.state.value,
        "priority": priority(path),
        "reason": utf8_safe(str(path.reason)),
        "rule": path.reason.why.rule_name,
        "facts": [
            {"about": about, "says": printable(says, longest=600)}
            for about, says in _chain(path, device, address, known)
        ],
        "commands": [{"to": to, "type": command} for to, command in remedies(path, _trouble(path, known))],
    }


def _chain(path: Path, device: Device | None, address: Address | None, known: Known) -> Iterable[tuple[str, str]]:
    """The facts, from the profile to the kernel."""
    yield "profile", _profile(device)
    yield "NetworkManager", _networkmanager(path, device, known)
    yield "configuration", _configuration(path, device, known)
    yield "link", _link(path, known)
    if address is not None:
        yield "address", _address_words(address)
    yield "route", _route(path, device, known)
    if path.family in known.desired.tunnels:
        tunnel = known.desired.tunnels[path.family].name
        yield "VPN", f"all {path.family.label} leaves by {tunnel}"
    yield "decision", _decision(path)
    if trouble := _trouble(path, known):
        yield "trouble", f"{trouble} [rule {trouble.why.rule_name}]"
    yield "rules", _rules(path, known)
    yield "endpoint", _endpoint(path, known)
    yield "limits", _limits(known)
    if known.connections is not None:
        yield "connections", _connections(path, known.connections)


def _trouble(path: Path, known: Known) -> Reason | None:
    return known.troubles.get(path.address) if path.state is State.ACTIVE else None


def _device(interface: str, known: Known) -> Device | None:
    devices = known.snapshot.networkmanager.devices
    return next((device for device in devices if device.ip_interface == interface), None)


def _profile(device: Device | None) -> str:
    if device is None:
        return "none: NetworkManager has no device of this name"
    if device.unreadable:
        return f"cannot be read: {device.unreadable}"
    if device.profile is None:
        return "none is applied to this device"
    profile = device.profile
    flags = ", ".join(names(profile.mptcp_flags))
    says = f"connection.mptcp-flags={flags}" if flags else "connection.mptcp-flags is not set: defaults apply"
    return f"{printable(profile.id)!r} ({profile.uuid}): {says}"


def _networkmanager(path: Path, device: Device | None, known: Known) -> str:
    networkmanager = known.snapshot.networkmanager
    if networkmanager.silent:
        return "does not answer"
    if not networkmanager.running:
        return "not running"
    words = [f"version {networkmanager.version}"]
    if device is not None:
        state = device.state.name.lower().replace("_", " ")
        managed = "not managed" if not device.managed else "external" if device.external else "managed"
        words.append(f"{device.type_name or 'device'} {managed}, {state}")
        words.append(f"metered: {_METERED[device.metered]}")
        words.append(f"connectivity: {device.connectivity(path.family).name.lower()}")
        if device.profile and not device.profile.mptcp_flags:
            default = device.default_flags
            where = f"[{default.section}]" if default.flags else "built in"
            flags = ", ".join(names(default.flags or networkmanager.builtin_flags)) or "none"
            ours = " (left to nm-mptcp)" if default.section == default.OUR_SECTION else ""
            words.append(f"its default for mptcp-flags: {flags}, {where}{ours}")
    return "; ".join(words)


_METERED = {
    Metered.UNKNOWN: "unknown",
    Metered.YES: "yes",
    Metered.NO: "no",
    Metered.GUESS_YES: "yes (guessed)",
    Metered.GUESS_NO: "no (guessed)",
}


def _configuration(path: Path, device: Device | None, known: Known) -> str:
    """The settings of nm-mptcp.conf for this path, with file and section."""
    config = known.config
    origin = config.origins.get(("main", "mode"))
    words = [f"mode={config.mode}" + (f", {origin}" if origin else "")]
    if device is not None:
        options = config.for_path(device, profile_id=path.profile, profile_uuid=path.uuid, address=path.address)
        words += _chosen(options)
    return "; ".join(words)


def _chosen(options: PathOptions) -> list[str]:
    chosen = []
    for name in options.__match_args__:
        setting: Setting[Any] = getattr(options, name)
        if setting.origin is not None:
            value = ",".join(names(setting.value)) if name == "flags" else str(setting.value)
            chosen.append(f"{name.replace('_', '-')}={value}, {setting.origin}")
    return chosen


def _link(path: Path, known: Known) -> str:
    link = known.snapshot.kernel.links.get(path.ifindex)
    if link is None:
        return "gone"
    held = known.snapshot.damped.get(path.ifindex)
    words = (
        f"{path.kind or 'unknown kind'}, {'up' if link.up else 'down'}, {'carrier' if link.carrier else 'no carrier'}"
    )
    return words + (f", flapping: suspended for {held:g} s" if held else "")


def _address_words(address: Address) -> str:
    scope = {0: "global", 253: "link-local", 254: "host"}.get(address.scope, f"scope {address.scope}")
    # On IPv4 the same bit is IFA_F_SECONDARY.
    flags = [
        name if address.family is Family.IPV6 or name != "temporary" else "secondary"
        for name in names(address.flags & ~AddressFlag.PERMANENT)
    ]
    return ", ".join([f"{address.address}/{address.prefixlen}", scope, *flags])


def _route(path: Path, device: Device | None, known: Known) -> str:
    table = device.profile.route_table(path.family) if device and device.profile else MAIN_TABLE
    route = default_route(known.snapshot.kernel, path.ifindex, path.family, table, marks=known.desired.marks)
    name = "main" if table == MAIN_TABLE else str(table)
    if route is None:
        return f"no {path.family.label} default route by this interface in table {name}"
    gateway = next((hop.gateway for hop in route.hops if hop.ifindex == path.ifindex), None)
    via = f" via {gateway}" if gateway else ""
    return f"default{via} dev {path.interface} metric {route.metric} in table {name}"


def _decision(path: Path) -> str:
    flags = ", ".join(names(path.flags))
    who = {
        FlagsFrom.PROFILE: "the profile's",
        FlagsFrom.CONFIG: "nm-mptcp.conf's",
        FlagsFrom.KIND: "by kind of device",
        FlagsFrom.NETWORKMANAGER: "NetworkManager's default",
    }[path.flags_from]
    what = f"; flags {flags} ({who})" if flags and path.state is not State.EXCLUDED else ""
    return f"{path.state}: {path.reason} [rule {path.reason.why.rule_name}]{what}"


def _rules(path: Path, known: Known) -> str:
    rules = sorted(
        (rule for rule in known.snapshot.kernel.rules if rule.source == path.address), key=lambda rule: rule.priority
    )
    if not rules:
        return f"none: packets from {path.address} are routed by destination only"
    return "; ".join(map(str, rules))


def _endpoint(path: Path, known: Known) -> str:
    found = next((each for each in known.snapshot.kernel.endpoints if each.address == path.address), None)
    if found is None:
        return "none in the kernel"
    bound = "" if found.ifindex == path.ifindex else ", bound to no interface" if not found.ifindex else ", on another"
    return f"id {found.id}: {', '.join(names(found.flags)) or 'no flag'}, made by {path.owner.label}{bound}"


def _limits(known: Known) -> str:
    kernel = known.snapshot.kernel
    return (
        f"{kernel.limits.subflows} additional subflows and {kernel.limits.add_addr_accepted} addresses accepted on each"
        f" connection; {len(kernel.endpoints)} of {kernel.endpoints_max} endpoints"
    )


def _connections(path: Path, connections: LiveConnections) -> str:
    mine = [each for each in connections if path.address in each]
    alone = sum(1 for each in mine if set(each) == {path.address})
    subflows = sum(each.count(path.address) for each in mine)
    return f"{counted(len(mine), 'connection')} with {counted(subflows, 'subflow')} from this address; {alone} from no other"


def _without_address(what: str, known: Known) -> list[Fact]:
    """The facts of an interface or a profile without an address."""
    found: list[tuple[str, str]] = []
    for device in known.snapshot.networkmanager.devices:
        mine = device.profile and what in (device.profile.uuid, device.profile.id)
        if mine or utf8_safe(what) in (utf8_safe(device.interface), utf8_safe(device.ip_interface)):
            found.append(("profile", _profile(device)))
            state = device.state.name.lower().replace("_", " ")
            found.append(("NetworkManager", f"device {device.interface} is {state}"))
            if device.state < DeviceState.IP_CONFIG:
                found.append(("decision", "no path: not connected"))
    for link in known.snapshot.kernel.links.values():
        if utf8_safe(link.name) == utf8_safe(what):
            carrier = "carrier" if link.carrier else "no carrier"
            found.append(("link", f"{'up' if link.up else 'down'}, {carrier}"))
    found.append(("address", "none"))
    return [{"about": about, "says": printable(says, longest=600)} for about, says in found]


# --- a destination -------------------------------------------------------------------------------------------------


def followers(destination: str, first: RouteResult, known: Known) -> list[Endpoint]:
    """The endpoints from which subflows could follow a connection to ``destination``, in the kernel's order.

    Kernel: ``mptcp_pm_create_subflow_or_signal_addr``: those with "subflow" and of the family, but the first subflow's own.
    """
    family = Family.of(destination)
    return [
        endpoint
        for endpoint in sorted(known.snapshot.kernel.endpoints, key=lambda each: each.id)
        if endpoint.flags & EndpointFlag.SUBFLOW
        and not endpoint.flags & EndpointFlag.IMPLICIT
        and endpoint.family is family
        and endpoint.address != first.source
    ]


def explain_destination(
    what: str, destination: str, first: RouteResult, ways: Mapping[Endpoint, RouteResult], known: Known
) -> DestinationExplanation:
    """Which path a new connection uses, which subflows follow it, and which addresses its server learns.

    ``first`` is the route of the connection itself, ``ways`` those of :func:`followers`.
    """
    kernel = known.snapshot.kernel
    works = kernel.mptcp_enabled and kernel.path_manager == "kernel" and not first.error
    left = kernel.limits.subflows if works and not first.local else 0
    learns = [first.source] if first.source and not first.error else []
    follow = []
    for endpoint, way in ways.items():
        why = ""
        if way.error:
            why = way.error
        elif (tunnel := _tunnel(known, first)) and not _tunnel(known, way):
            why = f"it would bypass {tunnel}: dropped (vpn-guard)"
        elif not left:
            why = _no_subflow(known, first)
        else:
            left -= 1
            learns.append(endpoint.address)
        follow.append(_follower(endpoint, way, why, known))
    announces = works and (not _tunnel(known, first) or _announces_in_tunnels(known))
    announced = [
        endpoint.address
        for endpoint in kernel.endpoints
        if announces and endpoint.flags & EndpointFlag.SIGNAL and endpoint.address not in learns
    ]
    return {
        "what": utf8_safe(what),
        "kind": "destination",
        "address": destination,
        "first": _first(first, known),
        "subflows": follow,
        "limit": kernel.limits.subflows,
        "learns": learns + announced,
        "notes": _notes(destination, first, follow, known),
        "commands": _destination_commands(known, first),
    }


def _link_name(known: Known, ifindex: int) -> str:
    return printable(known.snapshot.kernel.links[ifindex].name)


def _no_subflow(known: Known, first: RouteResult) -> str:
    kernel = known.snapshot.kernel
    if first.error:
        return "the connection itself fails"
    if first.local:
        return "the destination is this machine"
    if plain := _plain(known):
        return plain
    if kernel.path_manager != "kernel":
        return f"the path manager is '{kernel.path_manager}', which does not use endpoints"
    return f"the limit of {counted(kernel.limits.subflows, 'additional subflow')} is reached"


def _plain(known: Known) -> str:
    """Why all connections are plain TCP, "" when they are not for a reason of this machine."""
    kernel = known.snapshot.kernel
    if not kernel.path_manager:
        return "this kernel has no MPTCP"
    return "" if kernel.mptcp_enabled else "MPTCP is disabled"


def _first(way: RouteResult, known: Known) -> FirstSubflow | NoRoute:
    if way.error:
        return {"error": way.error}
    link = known.snapshot.kernel.links.get(way.ifindex)
    path = next((p for p in known.desired.paths if p.address == way.source), None)
    return {
        "interface": utf8_safe(link.name) if link else str(way.ifindex),
        "source": way.source,
        "gateway": way.gateway,
        "table": way.table,
        "profile": utf8_safe(path.profile) if path else "",
        "state": path.state.value if path else None,
        "reason": utf8_safe(str(path.reason)) if path else "",
    }


def _follower(endpoint: Endpoint, way: RouteResult, why: str, known: Known) -> SubflowExplanation:
    path = next((p for p in known.desired.paths if p.address == endpoint.address), None)
    # Between two addresses of this machine the route is by lo, whichever interfaces have them.
    index = way.ifindex if way.ifindex and not way.local else endpoint.ifindex or (path.ifindex if path else 0)
    link = known.snapshot.kernel.links.get(index)
    return {
        "interface": utf8_safe(link.name) if link else "",
        "address": endpoint.address,
        "endpoint_id": endpoint.id,
        "flags": names(endpoint.flags),
        "priority": "backup" if endpoint.flags & EndpointFlag.BACKUP else "regular",
        "profile": utf8_safe(path.profile) if path else "",
        "gateway": way.gateway,
        "table": way.table or None,
        "follows": not why,
        "reason": why,
    }


def _notes(destination: str, first: RouteResult, follow: list[SubflowExplanation], known: Known) -> list[str]:
    if first.error:
        return ["The connection fails at once: there is no route."]
    notes = []
    if first.local:
        return ["The destination is this machine itself."]
    if plain := _plain(known):
        return [f"The connection is plain TCP: {plain}."]
    path = next((p for p in known.desired.paths if p.address == first.source), None)
    if path is None or path.state is State.EXCLUDED:
        why = f" ({path.reason})" if path else ""
        notes.append(
            f"The first subflow leaves from an address that is no path{why}; subflows of paths join it nevertheless."
            if any(each["follows"] for each in follow)
            else f"The connection leaves from an address that is no path{why}."
        )
    if tunnel := _tunnel(known, first):
        notes.append(f"The connection begins in {tunnel}, and gets no subflow beside it.")
    elif others := sorted(_link_name(known, ifindex) for ifindex in known.desired.stays_inside - {IPSEC}):
        notes.append(f"What is bound to {listed(others, 'or')}, or marked for it, begins there and stays there.")
    notes.append("Only MPTCP connections, to a server that supports MPTCP, get additional subflows.")
    other = {endpoint.family for endpoint in known.snapshot.kernel.endpoints} - {Family.of(destination)}
    guarded = known.desired.stays_inside or known.desired.tunnels
    for family in sorted(other):
        if guarded and not known.snapshot.kernel.limits.add_addr_accepted:
            notes.append(f"{family.label} endpoints do not join while there is a tunnel (vpn-guard).")
        else:
            notes.append(f"{family.label} endpoints join only if the server announces an {family.label} address.")
    return notes


def _tunnel(known: Known, way: RouteResult) -> str:
    """The tunnel that a way leads into, and that its connection is not to leave; "" if it leads into none."""
    if way.encrypted and IPSEC in known.desired.stays_inside:
        return "an IPsec policy"
    if way.ifindex in known.desired.stays_inside:
        return f"the tunnel {_link_name(known, way.ifindex)}"
    return ""


def _announces_in_tunnels(known: Known) -> bool:
    kernel = known.snapshot.kernel
    inside = addresses_of(known.desired.stays_inside, kernel)
    return announces_tunnels_alone(known.desired.paths, kernel.endpoints, inside)


def _destination_commands(known: Known, first: RouteResult) -> list[Command]:
    kernel = known.snapshot.kernel
    if first.error:
        return [{"to": "see all links, and why paths are suspended", "type": "nm-mptcp status"}]
    if first.local:
        return []
    found: list[Command] = []
    if kernel.path_manager and not kernel.mptcp_enabled:
        found.append({"to": "enable MPTCP", "type": "sysctl -w net.mptcp.enabled=1"})
    path = next((p for p in known.desired.paths if p.address == first.source), None)
    # Reapplying would hand an external connection over to NetworkManager.
    if path and path.uuid and path.reason.why not in (Why.EXTERNAL, Why.NOT_MANAGED):
        key = "ipv4" if path.family is Family.IPV4 else "ipv6"
        found.append(
            {
                "to": "prefer another link for new connections (the lowest metric wins)",
                "type": f"nmcli connection modify uuid {path.uuid} {key}.route-metric NUMBER"
                f" && nmcli device reapply {shlex.quote(printable(path.interface))}",
            }
        )
    found.append(
        {
            "to": "hide a link's address from all servers",
            "type": "nmcli connection modify PROFILE connection.mptcp-flags disabled",
        }
    )
    return found
