# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands that change what was decided for an address, by the rule that decided."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Family, FlagsFrom, Path, State
from ..text import printable

#: A profile's own table is this plus the interface's index: above the numbers that people usually choose.
_FIRST_TABLE = 1000

#: What a command is for, and the command.
Remedy = tuple[str, str]


def remedies(path: Path, trouble: Reason | None = None) -> list[Remedy]:
    """Commands for this address: those for its trouble first, then those for its reason, then for its priority."""
    found = _BY_RULE[trouble.why](path) if trouble else []
    found += [each for each in _BY_RULE[path.reason.why](path) if each not in found]
    return found if path.state is State.EXCLUDED else found + [r for r in _priorities(path) if r not in found]


def _name(path: Path) -> str:
    return shlex.quote(printable(path.interface))


def _modify(path: Path, setting: str) -> str:
    """``nmcli connection modify``, by UUID: names are neither unique nor safe to paste."""
    profile = f"uuid {path.uuid}" if path.uuid else "PROFILE"
    return f"nmcli connection modify {profile} {setting} && nmcli device reapply {_name(path)}"


def _conf(section: str, *settings: str) -> str:
    """Settings for nm-mptcp.conf, and the reload that applies them."""
    return f"in /etc/nm-mptcp/nm-mptcp.conf: [{section}], {', '.join(settings)}; then systemctl reload nm-mptcp"


def _by_name(path: Path) -> str:
    return f"match-device=interface-name:{printable(path.interface)}"


def _flags(path: Path, flags: str) -> str:
    return _modify(path, f"connection.mptcp-flags {flags}")


def _ip(path: Path) -> str:
    return "ipv4" if path.family is Family.IPV4 else "ipv6"


def _priorities(path: Path) -> list[Remedy]:
    """For every path: the other priority, disabled, the default again."""
    if path.flags & EndpointFlag.BACKUP:
        found = [("make it a regular path", _flags(path, "subflow"))]
    else:
        found = [("use it only as backup", _flags(path, "subflow,backup"))]
    found.append(("disable it as a path", _flags(path, "disabled")))
    if path.flags_from is FlagsFrom.PROFILE:
        found.append(("let nm-mptcp choose its flags", _flags(path, "default")))
    return found


def _none(_path: Path) -> list[Remedy]:
    return []


def _section(_path: Path) -> list[Remedy]:
    """Where a section of nm-mptcp.conf decided."""
    return [("see the section and its file", "nm-mptcp config")]


def _fixed(to: str, command: str) -> Callable[[Path], list[Remedy]]:
    """The same command for every address, in which ``{interface}`` is replaced."""
    return lambda path: [(to, command.replace("{interface}", _name(path)))]


def _by_hand(path: Path) -> list[Remedy]:
    other = "nobackup" if path.flags & EndpointFlag.BACKUP else "backup"
    return [("undo this, so that nm-mptcp chooses again", f"ip mptcp endpoint change id {path.endpoint_id} {other}")]


def _explicit(path: Path) -> list[Remedy]:
    return [
        ("make it a path", _flags(path, "subflow")),
        ("let nm-mptcp choose its flags", _flags(path, "default")),
    ]


def _as_path(path: Path) -> list[Remedy]:
    return [
        ("make it a path", _flags(path, "subflow")),
        ("make it a backup path", _flags(path, "subflow,backup")),
    ]


def _metered(path: Path) -> list[Remedy]:
    return [
        ("mark it as not metered", _modify(path, "connection.metered no")),
        ("make it a backup path", _flags(path, "subflow,backup")),
        ("ignore metered", _conf("main", "metered=ignore")),
    ]


def _roaming(_path: Path) -> list[Remedy]:
    return [("use it while roaming", _conf("main", "roaming=ignore"))]


def _weak(_path: Path) -> list[Remedy]:
    return [("ignore the signal strength", _conf("path-any", "match-device=type:wifi", "weak-signal=0"))]


def _silent(path: Path) -> list[Remedy]:
    section = f"match-device=interface-name:{path.interface}"
    return [("use the link although it is silent", _conf("path-any", section, "silent-links=no"))]


def _guarded(_path: Path) -> list[Remedy]:
    return [
        ("see where all traffic leaves", "nm-mptcp explain 192.0.2.1"),
        ("allow paths outside the tunnel, visible to others", _conf("main", "vpn-guard=no")),
    ]


def _no_route(path: Path) -> list[Remedy]:
    gateway = "192.0.2.1" if path.family is Family.IPV4 else "2001:db8::1"
    # As a route: NetworkManager rejects "gateway" for the methods auto (DHCP, router advertisements).
    route = shlex.quote(f"{path.family.default} {gateway}")
    return [
        ("add a default route", _modify(path, f"+{_ip(path)}.routes {route}") + "   # your gateway"),
        (
            "make it a path to servers in its own network, without a default route",
            _flags(path, "subflow,also-without-default-route"),
        ),
    ]


def _never_default(path: Path) -> list[Remedy]:
    return [
        *_own_table(path),
        ("add a default route in the main table", _modify(path, f"{_ip(path)}.never-default no")),
    ]


def _named(path: Path) -> list[Remedy]:
    return [("make it a path anyway", _conf("path-named", f"match-address={path.address}"))]


def own_table(family: Family, ifindex: int) -> str:
    """nmcli settings for a default route in a table of its own, which only sockets bound to the address use."""
    ip = "ipv4" if family is Family.IPV4 else "ipv6"
    return f"{ip}.never-default no {ip}.route-table {_FIRST_TABLE + ifindex}"


def _own_table(path: Path) -> list[Remedy]:
    to = "add a default route in a table of its own, used only by sockets bound to its address"
    return [(to, _modify(path, own_table(path.family, path.ifindex)))]


def _own(path: Path) -> list[Remedy]:
    return [("hand the endpoint over to nm-mptcp (interrupts the connection)", _up(path))]


def _up(path: Path) -> str:
    return f"nmcli connection up uuid {path.uuid}" if path.uuid else f"nmcli device connect {_name(path)}"


def _external(path: Path) -> list[Remedy]:
    """A profile that replaces the manual configuration by the network's."""
    if path.kind not in ("ethernet", "veth"):
        return [("see who set it up", f"nmcli device show {_name(path)}")]
    # The interface's name alone is that of the profile that NetworkManager generates for an external connection.
    name = shlex.quote(f"{printable(path.interface)}-auto")
    add = f"nmcli connection add type ethernet ifname {_name(path)} con-name {name}"
    return [("create a profile for it", f"{add} && nmcli connection up id {name}")]


def _connect(path: Path) -> list[Remedy]:
    return [("connect it", _up(path))]


def _mode(_path: Path) -> list[Remedy]:
    return [("choose each path's priority by its kind of device", "nm-mptcp mode auto")]


def _slots(path: Path) -> list[Remedy]:
    section = f"match-connection=uuid:{path.uuid}" if path.uuid else _by_name(path)
    return [
        (
            "prefer it for an endpoint",
            _conf("path-first", section, "slot-priority=100"),
        )
    ]


def _shared(path: Path) -> list[Remedy]:
    return [("stop sharing it, and use it as an uplink", _modify(path, f"{_ip(path)}.method auto"))]


def _connectivity(path: Path) -> list[Remedy]:
    return [
        ("have NetworkManager check again", "nmcli networking connectivity check"),
        (
            "ignore connectivity on this link",
            _conf(
                "path-any", f"match-connection=uuid:{path.uuid}" if path.uuid else _by_name(path), "connectivity=ignore"
            ),
        ),
    ]


_BY_RULE: dict[Why, Callable[[Path], list[Remedy]]] = {
    # active
    Why.FLAGS_OF_PROFILE: _none,
    Why.FLAGS_OF_CONFIGURATION: _section,
    Why.FLAGS_OF_KIND: _none,
    Why.FLAGS_BY_HAND: _by_hand,
    Why.MODE: _mode,
    Why.FLAGS_OF_NETWORKMANAGER: _none,
    Why.NETWORKMANAGER_OWNS: _own,
    Why.SOMEBODY_ELSE_OWNS: _fixed("see all endpoints", "ip mptcp endpoint"),
    Why.METERED_BACKUP: _metered,
    Why.ROAMING_BACKUP: _roaming,
    Why.WEAK_SIGNAL: _weak,
    Why.RELIEVES: _weak,
    Why.SHARES_LOAD: _mode,
    Why.SEEMS_SILENT: _silent,
    Why.RELIEVES_SILENT: _silent,
    Why.KEPT_LAST: _fixed("see the device", "nmcli device show {interface}"),
    Why.KEPT_UNTIL_REPLACED: _none,
    Why.KEPT_NETWORKMANAGER_AWAY: _fixed("see the state of NetworkManager", "systemctl status NetworkManager"),
    # active, and in trouble
    Why.NO_WAY: _none,
    Why.OWN_NETWORK: _none,
    Why.REFUSES_DEFAULT: _own_table,
    Why.NO_UPLINK: _none,
    Why.ENDPOINT_ELSEWHERE: _fixed("see how to replace it", "nm-mptcp check"),
    # waiting
    Why.ACTIVATING: _fixed("see the activation", "nmcli device show {interface}"),
    Why.TENTATIVE: _fixed("see the address", "ip address show dev {interface}"),
    Why.ADDRESS_AWAY: _fixed("see the address", "ip address show dev {interface}"),
    Why.NO_DEFAULT_ROUTE: _no_route,
    Why.WAITS_FOR_NETWORKMANAGER: _own,
    Why.REFUSED: _fixed("see all endpoints", "ip mptcp endpoint"),
    # suspended
    Why.DEACTIVATING: _connect,
    Why.SILENT: _silent,
    Why.NO_CARRIER: _fixed("see the link (plug in the cable, or move closer)", "nmcli device show {interface}"),
    Why.LINK_DOWN: _fixed("bring the link up", "ip link set {interface} up"),
    Why.HELD_BACK: lambda _: [("do not suspend flapping links", _conf("main", "failover=off"))],
    Why.NO_CONNECTIVITY: _connectivity,
    Why.VPN_GUARD: _guarded,
    Why.KEPT_BESIDE_TUNNEL: _guarded,
    Why.KEPT_FOR_CONNECTIONS: _fixed("see the link", "nmcli device show {interface}"),
    # excluded
    Why.NOT_MANAGED: _fixed("let NetworkManager manage it", "nmcli device set {interface} managed yes"),
    Why.EXTERNAL: _external,
    Why.NOT_CONFIGURED: _named,
    Why.NOT_CONNECTED: _connect,
    Why.UNREADABLE: _fixed("run it as root", "nm-mptcp explain {interface}"),
    Why.DISABLED_BY_PROFILE: _explicit,
    Why.DISABLED_BY_CONFIGURATION: _section,
    Why.STABLE: _section,
    Why.NO_LONGER_CHOSEN: _section,
    Why.METERED: _metered,
    Why.MODE_OFF: _mode,
    Why.ROAMING: _roaming,
    Why.DISABLED_BY_NETWORKMANAGER: _as_path,
    Why.SYSCTL_OFF: _fixed("enable MPTCP", "sysctl -w net.mptcp.enabled=1"),
    Why.KIND_IS_NO_PATH: _as_path,
    Why.SHARED: _shared,
    Why.NEVER_DEFAULT: _never_default,
    # No setting makes an address of this kind a path.
    Why.LINK_LOCAL: _none,
    Why.UNIQUE_LOCAL: _none,
    Why.NOT_GLOBAL: _none,
    Why.TEMPORARY: _none,
    Why.DAD_FAILED: _fixed("see who else has the address", "ip -6 neighbour show dev {interface}"),
    Why.DEPRECATED: _none,
    Why.TWICE: _fixed("see where the address is", "ip address"),
    Why.NO_SLOT: _slots,
}
