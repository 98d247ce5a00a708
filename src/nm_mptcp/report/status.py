# SPDX-License-Identifier: GPL-2.0-or-later
"""The status document, made from the snapshot and what was decided for it: a pure function."""

from __future__ import annotations

import datetime
import ipaddress
import time
from collections.abc import Iterable, Mapping

from .. import __version__
from ..model.flags import EndpointFlag, names
from ..model.reasons import Reason
from ..model.record import Contents, GuardRecord, Since
from ..model.state import IPSEC, Desired, Kernel, Mode, NetworkManager, Path, Snapshot, State
from ..text import printable, utf8_safe
from .documents import (
    ConnectionsStatus,
    GuardStatus,
    KernelStatus,
    LinkStatus,
    NetworkManagerStatus,
    PathStatus,
    StatusDocument,
)
from .health import Verdict, verdict, waits_shortly

#: The live MPTCP connections: for each the local address of each of its established subflows.
LiveConnections = tuple[tuple[str, ...], ...]

#: A link with several addresses has the first of these states that one of them has.
_ORDER = (State.ACTIVE, State.SUSPENDED, State.WAITING, State.EXCLUDED)


def document(
    snapshot: Snapshot,
    desired: Desired,
    contents: Contents,
    *,
    mode: Mode,
    service: bool,
    troubles: Mapping[str, Reason] = {},
    connections: LiveConnections | None = None,
    paused: bool = False,
    kept: Iterable[str] = (),
    now: float | None = None,
) -> StatusDocument:
    """The status document; nm-mptcp-json(5) has each name.

    ``troubles`` is the result of :func:`~nm_mptcp.policy.reachability.troubles`; ``connections`` is None without
    CAP_NET_ADMIN; ``kept`` are the addresses that ``clear`` left for live connections; ``now`` is in seconds since the
    epoch.
    """
    now = time.time() if now is None else now
    kernel = snapshot.kernel
    loopback = {index for index, link in kernel.links.items() if link.loopback}
    live = None if connections is None else tuple(each for each in connections if not all(map(_is_loopback, each)))
    found, problems = overall(snapshot, desired, contents, troubles, paused=paused, now=now)
    return {
        "state": found.value,
        "problems": [printable(problem, longest=300) for problem in problems],
        "version": __version__,
        "service": "active" if service else "absent",
        "mode": mode.value,
        "mode_from": "runtime" if contents.mode else "configuration",
        "networkmanager": _networkmanager(snapshot.networkmanager),
        "kernel": _kernel(kernel),
        "limits": {"subflows": kernel.limits.subflows, "add_addr_accepted": kernel.limits.add_addr_accepted},
        "connections": None if live is None else _connections(live),
        "links": [
            _link(group, snapshot, contents.since, live)
            for ifindex, group in _by_link(desired.paths).items()
            if ifindex not in loopback
        ],
        "guard": _guard(desired, kernel, contents.guard),
        "paths": [_path(path, contents.since, live, troubles.get(path.address)) for path in desired.paths],
        "paused": paused,
        "kept": sorted(kept),
    }


def overall(
    snapshot: Snapshot,
    desired: Desired,
    contents: Contents,
    troubles: Mapping[str, Reason],
    *,
    paused: bool,
    now: float,
) -> tuple[Verdict, list[str]]:
    """The overall state and its problems, without the loopback's addresses; ``now`` is in seconds since the epoch."""
    loopback = {index for index, link in snapshot.kernel.links.items() if link.loopback}
    outside = (
        (path, waited(path, contents.since, now) if waits_shortly(path) else None)
        for path in desired.paths
        if path.ifindex not in loopback
    )
    return verdict(snapshot.kernel, snapshot.networkmanager, outside, paused=paused, troubles=troubles)


def priority(path: Path) -> str | None:
    """``backup`` or ``regular``; None for an address that is no path."""
    if path.state is State.EXCLUDED:
        return None
    return "backup" if path.flags & EndpointFlag.BACKUP else "regular"


def began(path: Path, since: Mapping[str, Since]) -> Since | None:
    """Since when a path has its state and reason; an entry of another state or reason does not count."""
    known = since.get(f"{path.address}%{path.ifindex}")
    return known if known and known.state == path.state.value and known.why == path.reason.why.name else None


def waited(path: Path, since: Mapping[str, Since], now: float) -> float | None:
    """Seconds since :func:`began`, None where that is unknown; ``now`` is in seconds since the epoch."""
    known = began(path, since)
    return now - known.time if known else None


def _networkmanager(networkmanager: NetworkManager) -> NetworkManagerStatus:
    return {
        "running": networkmanager.running,
        "silent": networkmanager.silent,
        "version": networkmanager.version if networkmanager.running else "",
        "default_flags": names(networkmanager.default_flags.flags or networkmanager.builtin_flags),
        "default_flags_section": networkmanager.default_flags.section,
    }


def _kernel(kernel: Kernel) -> KernelStatus:
    return {
        "mptcp_enabled": kernel.mptcp_enabled,
        "path_manager": kernel.path_manager,
        "endpoints_max": kernel.endpoints_max,
        "endpoints_used": len(kernel.endpoints),
    }


def _connections(live: LiveConnections) -> ConnectionsStatus:
    return {
        "total": len(live),
        "subflows": sum(map(len, live)),
        "additional_most": max((len(each) - 1 for each in live), default=0),
    }


def _guard(desired: Desired, kernel: Kernel, record: GuardRecord | None) -> GuardStatus:
    return {
        "tunnels": {family.label.lower(): tunnel.name for family, tunnel in desired.tunnels.items()},
        "stays_inside": sorted(
            "IPsec" if index == IPSEC else utf8_safe(kernel.links[index].name) for index in desired.stays_inside
        ),
        "since": _time(record.since) if record else None,
        "until": _time(record.until) if record and record.until is not None else None,
        "cut_subflows": record.cut_subflows if record else 0,
        "cut_connections": record.cut_connections if record else 0,
    }


def _path(path: Path, since: Mapping[str, Since], live: LiveConnections | None, trouble: Reason | None) -> PathStatus:
    known = began(path, since)
    trouble = trouble if path.state is State.ACTIVE else None
    return {
        "interface": utf8_safe(path.interface),
        "profile": utf8_safe(path.profile),
        "uuid": utf8_safe(path.uuid),
        "kind": utf8_safe(path.kind),
        "address": path.address,
        "flags": names(path.flags),
        "flags_from": path.flags_from.value,
        "priority": priority(path),
        "state": path.state.value,
        "reason": utf8_safe(str(path.reason)),
        "rule": path.reason.why.rule_name,
        "since": _time(known.time) if known else None,
        "endpoint_id": path.endpoint_id,
        "owner": path.owner.value,
        "table": path.table,
        "gateway": path.gateway,
        "subflows": None if live is None else sum(each.count(path.address) for each in live),
        "port": path.port or None,
        "trouble": utf8_safe(str(trouble)) if trouble else None,
        "trouble_rule": trouble.why.rule_name if trouble else None,
    }


def _by_link(paths: Iterable[Path]) -> dict[int, list[Path]]:
    groups: dict[int, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.ifindex, []).append(path)
    return groups


def _link(
    paths: list[Path], snapshot: Snapshot, since: Mapping[str, Since], live: LiveConnections | None
) -> LinkStatus:
    best = min(paths, key=lambda path: _ORDER.index(path.state))
    link = snapshot.kernel.links.get(best.ifindex)
    addresses = {path.address for path in paths}
    known = began(best, since)
    mine = [each for each in live or () if addresses.intersection(each)]
    return {
        "interface": utf8_safe(best.interface),
        "profile": utf8_safe(best.profile),
        "uuid": utf8_safe(best.uuid),
        "kind": utf8_safe(best.kind),
        "up": link.up if link else False,
        "carrier": link.carrier if link else False,
        "state": best.state.value,
        "priority": priority(best),
        "reason": utf8_safe(str(best.reason)),
        "since": _time(known.time) if known else None,
        "addresses": [path.address for path in paths],
        "connections": None if live is None else len(mine),
        "subflows": None if live is None else sum(address in addresses for each in mine for address in each),
        "alone": None if live is None else sum(1 for each in mine if addresses.issuperset(each)),
    }


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")
