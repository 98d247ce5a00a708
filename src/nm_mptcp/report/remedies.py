# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: what to type to change what was decided for an address, by the rule that decided."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Family, FlagsFrom, Path, State
from ..text import printable

#: Tables for profiles are these and the interface's index: nobody's, but for those who number theirs as high.
_FIRST_TABLE = 1000

#: What it is for, and the command.
Remedy = tuple[str, str]


def remedies(path: Path, trouble: Reason | None = None) -> list[Remedy]:
    """Commands for this address, the one that answers its trouble, or its reason, first."""
    found = _BY_RULE[trouble.why](path) if trouble else []
    found += [each for each in _BY_RULE[path.reason.why](path) if each not in found]
    return found if path.state is State.EXCLUDED else found + [r for r in _priorities(path) if r not in found]


def _name(path: Path) -> str:
    return shlex.quote(printable(path.interface))


def _modify(path: Path, setting: str) -> str:
    """``nmcli connection modify``, by UUID: a name may be anything, and not the only one of its kind."""
    profile = f"uuid {path.uuid}" if path.uuid else "PROFILE"
    return f"nmcli connection modify {profile} {setting} && nmcli device reapply {_name(path)}"


def _conf(section: str, *settings: str) -> str:
    """What to write into our configuration; the service has to be told."""
    return f"in /etc/nm-mptcp/nm-mptcp.conf: [{section}], {', '.join(settings)}; then systemctl reload nm-mptcp"


def _by_name(path: Path) -> str:
    return f"match-device=interface-name:{printable(path.interface)}"


def _flags(path: Path, flags: str) -> str:
    return _modify(path, f"connection.mptcp-flags {flags}")


def _ip(path: Path) -> str:
    return "ipv4" if path.family is Family.IPV4 else "ipv6"


def _priorities(path: Path) -> list[Remedy]:
    """What anybody may want of a path: the other priority, none at all, the default again."""
    if path.flags & EndpointFlag.BACKUP:
        found = [("make it carry always", _flags(path, "subflow"))]
    else:
        found = [("keep it in reserve, for when no other path is left", _flags(path, "subflow,backup"))]
    found.append(("make it no path", _flags(path, "disabled")))
    if path.flags_from is FlagsFrom.PROFILE:
        found.append(("leave its flags to nm-mptcp", _flags(path, "default")))
    return found


def _none(_path: Path) -> list[Remedy]:
    return []


def _section(_path: Path) -> list[Remedy]:
    """What a section of nm-mptcp.conf chose."""
    return [("see which section chose this, in which file", "nm-mptcp config")]


def _say(to: str, command: str) -> Callable[[Path], list[Remedy]]:
    """The same for every address; ``{interface}`` is filled in."""
    return lambda path: [(to, command.replace("{interface}", _name(path)))]


def _by_hand(path: Path) -> list[Remedy]:
    other = "nobackup" if path.flags & EndpointFlag.BACKUP else "backup"
    return [
        ("take that back, so that nm-mptcp chooses again", f"ip mptcp endpoint change id {path.endpoint_id} {other}")
    ]


def _explicit(path: Path) -> list[Remedy]:
    return [
        ("make it a path", _flags(path, "subflow")),
        ("leave its flags to nm-mptcp", _flags(path, "default")),
    ]


def _as_path(path: Path) -> list[Remedy]:
    return [
        ("make it a path", _flags(path, "subflow")),
        ("make it a path in reserve", _flags(path, "subflow,backup")),
    ]


def _metered(path: Path) -> list[Remedy]:
    return [
        ("say that it is not metered", _modify(path, "connection.metered no")),
        ("make it a path in reserve", _flags(path, "subflow,backup")),
        ("not mind what is metered", _conf("main", "metered=ignore")),
    ]


def _roaming(_path: Path) -> list[Remedy]:
    return [("use it while it roams", _conf("main", "roaming=ignore"))]


def _weak(_path: Path) -> list[Remedy]:
    return [("not mind the signal", _conf("path-any", "match-device=type:wifi", "weak-signal=0"))]


def _guarded(_path: Path) -> list[Remedy]:
    return [
        ("see by what all traffic leaves", "nm-mptcp explain 192.0.2.1"),
        ("let paths go around the tunnel, seen by anybody", _conf("main", "vpn-guard=no")),
    ]


def _no_route(path: Path) -> list[Remedy]:
    gateway = "192.0.2.1" if path.family is Family.IPV4 else "2001:db8::1"
    # As a route: "gateway" is refused where addresses come by DHCP or router advertisements.
    route = shlex.quote(f"{path.family.default} {gateway}")
    return [
        ("give it a default route", _modify(path, f"+{_ip(path)}.routes {route}") + "   # your gateway"),
        (
            "make it a path to servers in its own network, without a default route",
            _flags(path, "subflow,also-without-default-route"),
        ),
    ]


def _never_default(path: Path) -> list[Remedy]:
    return [
        *_own_table(path),
        ("let it have a default route for all", _modify(path, f"{_ip(path)}.never-default no")),
    ]


def _named(path: Path) -> list[Remedy]:
    return [("make it a path all the same", _conf("path-named", f"match-address={path.address}"))]


def own_table(family: Family, ifindex: int) -> str:
    """The setting that gives a link a default route which only what is bound to its addresses finds."""
    ip = "ipv4" if family is Family.IPV4 else "ipv6"
    return f"{ip}.never-default no {ip}.route-table {_FIRST_TABLE + ifindex}"


def _own_table(path: Path) -> list[Remedy]:
    words = "have it carry, and yet nothing that is not bound to it (a default route in a table of its own)"
    return [(words, _modify(path, own_table(path.family, path.ifindex)))]


def _own(path: Path) -> list[Remedy]:
    return [("hand the endpoint over to nm-mptcp (the connection is cut for a moment)", _up(path))]


def _up(path: Path) -> str:
    return f"nmcli connection up uuid {path.uuid}" if path.uuid else f"nmcli device connect {_name(path)}"


def _external(path: Path) -> list[Remedy]:
    """A profile for what the network gives; what was set up by hand is given up."""
    if path.kind not in ("ethernet", "veth"):
        return [("see who set it up", f"nmcli device show {_name(path)}")]
    # NetworkManager's own note of what it found has the interface's name.
    name = shlex.quote(f"{printable(path.interface)}-auto")
    add = f"nmcli connection add type ethernet ifname {_name(path)} con-name {name}"
    return [("give it a profile of its own", f"{add} && nmcli connection up id {name}")]


def _connect(path: Path) -> list[Remedy]:
    return [("connect it", _up(path))]


def _mode(_path: Path) -> list[Remedy]:
    return [("let each path be as its kind is", "nm-mptcp mode auto")]


def _slots(path: Path) -> list[Remedy]:
    section = f"match-connection=uuid:{path.uuid}" if path.uuid else _by_name(path)
    return [
        (
            "have it come before others",
            _conf("path-first", section, "slot-priority=100"),
        )
    ]


def _shared(path: Path) -> list[Remedy]:
    return [("use it as an uplink, and share it no more", _modify(path, f"{_ip(path)}.method auto"))]


def _connectivity(path: Path) -> list[Remedy]:
    return [
        ("have NetworkManager look again", "nmcli networking connectivity check"),
        (
            "not mind connectivity on this link",
            _conf(
                "path-any", f"match-connection=uuid:{path.uuid}" if path.uuid else _by_name(path), "connectivity=ignore"
            ),
        ),
    ]


_BY_RULE: dict[Why, Callable[[Path], list[Remedy]]] = {
    # active: nothing stands against it
    Why.FLAGS_OF_PROFILE: _none,
    Why.FLAGS_OF_CONFIGURATION: _section,
    Why.FLAGS_OF_KIND: _none,
    Why.FLAGS_BY_HAND: _by_hand,
    Why.MODE: _mode,
    Why.FLAGS_OF_NETWORKMANAGER: _none,
    Why.NETWORKMANAGER_OWNS: _own,
    Why.SOMEBODY_ELSE_OWNS: _say("see who else makes endpoints", "ip mptcp endpoint"),
    Why.METERED_BACKUP: _metered,
    Why.ROAMING_BACKUP: _roaming,
    Why.WEAK_SIGNAL: _weak,
    Why.RELIEVES: _weak,
    Why.KEPT_LAST: _say("see what is against the link", "nmcli device show {interface}"),
    Why.KEPT_UNTIL_REPLACED: _none,
    Why.KEPT_NETWORKMANAGER_AWAY: _say("see what NetworkManager does", "systemctl status NetworkManager"),
    # active, and in trouble
    Why.NO_WAY: _none,
    Why.OWN_NETWORK: _none,
    Why.REFUSES_DEFAULT: _own_table,
    Why.NO_UPLINK: _none,
    # waiting
    Why.ACTIVATING: _say("see how far it is", "nmcli device show {interface}"),
    Why.TENTATIVE: _say("see the address", "ip address show dev {interface}"),
    Why.ADDRESS_AWAY: _say("see the address", "ip address show dev {interface}"),
    Why.NO_DEFAULT_ROUTE: _no_route,
    Why.WAITS_FOR_NETWORKMANAGER: _own,
    Why.REFUSED: _say("see the endpoints that there are", "ip mptcp endpoint"),
    # suspended
    Why.DEACTIVATING: _connect,
    Why.NO_CARRIER: _say("see the link (plug the cable in, or come nearer)", "nmcli device show {interface}"),
    Why.LINK_DOWN: _say("bring the link up", "ip link set {interface} up"),
    Why.HELD_BACK: lambda _: [("not wait for a link that comes and goes", _conf("main", "failover=off"))],
    Why.NO_CONNECTIVITY: _connectivity,
    Why.VPN_GUARD: _guarded,
    Why.KEPT_BESIDE_TUNNEL: _guarded,
    Why.KEPT_FOR_CONNECTIONS: _say("see the link", "nmcli device show {interface}"),
    # excluded
    Why.NOT_MANAGED: _say("let NetworkManager manage it", "nmcli device set {interface} managed yes"),
    Why.EXTERNAL: _external,
    Why.NOT_CONFIGURED: _named,
    Why.NOT_CONNECTED: _connect,
    Why.UNREADABLE: _say("look as root", "nm-mptcp explain {interface}"),
    Why.DISABLED_BY_PROFILE: _explicit,
    Why.DISABLED_BY_CONFIGURATION: _section,
    Why.STABLE: _section,
    Why.NO_LONGER_CHOSEN: _section,
    Why.METERED: _metered,
    Why.MODE_OFF: _mode,
    Why.ROAMING: _roaming,
    Why.DISABLED_BY_NETWORKMANAGER: _as_path,
    Why.SYSCTL_OFF: _say("turn MPTCP on", "sysctl -w net.mptcp.enabled=1"),
    Why.KIND_IS_NO_PATH: _as_path,
    Why.SHARED: _shared,
    Why.NEVER_DEFAULT: _never_default,
    # An address of this kind is no path, whatever is typed.
    Why.LINK_LOCAL: _none,
    Why.UNIQUE_LOCAL: _none,
    Why.NOT_GLOBAL: _none,
    Why.TEMPORARY: _none,
    Why.DAD_FAILED: _say("see who else has the address", "ip -6 neighbour show dev {interface}"),
    Why.DEPRECATED: _none,
    Why.TWICE: _say("see where the address is", "ip address"),
    Why.NO_SLOT: _slots,
}
