# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: what was decided and what there is, as the document that ``status --json`` and D-Bus give, and as text.

The names in the document are an interface: they are kept.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from .config import Mode
from .flags import names
from .model import Desired, Path, Snapshot, State
from .state import Contents, GuardRecord, Since
from .text import printable

Document = dict[str, Any]


def document(snapshot: Snapshot, desired: Desired, contents: Contents, *, mode: Mode, service: bool) -> Document:
    """The status document; see ``README.md`` for what each name means."""
    networkmanager = snapshot.networkmanager
    kernel = snapshot.kernel
    return {
        "service": "active" if service else "absent",
        "mode": mode.value,
        "mode_from": "runtime" if contents.mode else "configuration",
        "networkmanager": {
            "running": networkmanager.running,
            "version": networkmanager.version if networkmanager.running else "",
            "default_flags": names(networkmanager.default_flags.flags or networkmanager.builtin_flags),
            "default_flags_section": networkmanager.default_flags.section,
        },
        "kernel": {
            "mptcp_enabled": kernel.mptcp_enabled,
            "path_manager": kernel.path_manager,
            "endpoints_max": kernel.endpoints_max,
        },
        "limits": {"subflows": kernel.limits.subflows, "add_addr_accepted": kernel.limits.add_addr_accepted},
        "guard": _guard(desired, contents.guard),
        "paths": [_path(path, contents.since) for path in desired.paths],
    }


def _guard(desired: Desired, record: GuardRecord | None) -> Document:
    """What is guarded now, and what the guard that is in force, or was last, has cut."""
    now = {family.label.lower(): tunnel.name for family, tunnel in desired.tunnels.items()}
    return {
        "tunnels": now,
        "since": _time(record.since) if record else None,
        "until": _time(record.until) if record and record.until is not None else None,
        "cut_subflows": record.cut_subflows if record else 0,
        "cut_connections": record.cut_connections if record else 0,
    }


def _path(path: Path, since: Mapping[str, Since]) -> Document:
    known = since.get(f"{path.address}%{path.ifindex}")
    return {
        "interface": path.interface,
        "profile": path.profile,
        "uuid": path.uuid,
        "kind": path.kind,
        "address": path.address,
        "flags": names(path.flags),
        "flags_from": path.flags_from.value,
        "state": path.state.value,
        "reason": str(path.reason),
        "rule": path.reason.why.name.lower().replace("_", "-"),
        "since": _time(known.time) if known else None,
        "endpoint_id": path.endpoint_id,
        "owner": path.owner.value,
        "table": path.table,
        "gateway": path.gateway,
    }


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")


def text(status: Document) -> str:
    """The document for a person: a line an address, paths first, and in words why."""
    networkmanager, kernel, limits = status["networkmanager"], status["kernel"], status["limits"]
    mptcp = "on" if kernel["mptcp_enabled"] else "OFF (sysctl net.mptcp.enabled=1 turns it on)"
    lines = [
        f"nm-mptcp service: {status['service']}"
        f"   NetworkManager: {networkmanager['version'] if networkmanager['running'] else 'not running'}"
        f"   MPTCP: {mptcp}   mode: {status['mode']}",
        f"limits: {limits['subflows']} additional subflows, {limits['add_addr_accepted']} addresses accepted;"
        f" the kernel takes {kernel['endpoints_max']} endpoints",
        *_guard_lines(status["guard"]),
        "",
    ]
    shown = [path for path in status["paths"] if path["interface"] != "lo"]
    if not shown:
        return "\n".join([*lines, "No interface has an address."])
    order = {state.value: place for place, state in enumerate(State)}
    shown.sort(key=lambda path: (order[path["state"]], path["interface"], path["address"]))
    rows = [("STATE", "INTERFACE", "ADDRESS", "FLAGS", "ID", "TABLE", "GATEWAY", "PROFILE"), *map(_row, shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row, path in zip(rows, [None, *shown], strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if path is not None:
            by = "" if path["owner"] == "nm-mptcp" or path["endpoint_id"] is None else f" (endpoint by {path['owner']})"
            lines.append(f"    {path['reason']}{by}")
    return "\n".join(lines)


def _guard_lines(guard: Document) -> list[str]:
    if not guard["since"]:
        return []
    names = {"ipv4": "IPv4", "ipv6": "IPv6"}
    if guard["tunnels"]:
        state = ", ".join(f"all {names[family]} leaves by {name}" for family, name in guard["tunnels"].items())
    else:
        state = f"none now, the last one ended at {guard['until']}"
    cut = f"{guard['cut_subflows']} subflows closed, {guard['cut_connections']} connections had no other"
    return [f"full tunnel: {state}; {cut}"]


def _row(path: Document) -> tuple[str, ...]:
    def cell(value: object) -> str:
        return "-" if value in (None, "") else str(value)

    return (
        path["state"],
        path["interface"],
        path["address"],
        ",".join(path["flags"]) or "-",
        cell(path["endpoint_id"]),
        cell(path["table"]),
        cell(path["gateway"]),
        cell(printable(path["profile"])),
    )
