# SPDX-License-Identifier: GPL-2.0-or-later
"""The nouns: what the kernel and NetworkManager tell, what we want, and what has to be done for it.

All values are frozen. Addresses are text as the kernel's ``inet_ntop`` writes them, prefixes ``ADDRESS/LENGTH`` (a default
route is ``0.0.0.0/0`` or ``::/0``), durations seconds, route metrics the kernel's own numbers.
"""

from __future__ import annotations

import enum
import functools
import math
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from .flags import CHANGEABLE, EndpointFlag, ProfileFlag
from .reasons import Reason

#: Our routing protocol number, named ``nm-mptcp`` in ``rt_protos.d``: routes and rules that carry it are ours.
PROTOCOL = 77

#: The tables that may be ours (``rt_tables.d``); not base + ifindex, since WireGuard's begin at 51820.
TABLES = range(42000, 43000)

#: Where our rules are, all of them: behind everybody else's, before the main table's (32766). The kernel appends a rule to
#: those of equal priority, and gives one that is added later without a priority a lower number than any (``fib_rules.c``),
#: so it does not depend on who came first.
RULE_PRIORITY = 32765

MAIN_TABLE = 254

#: The kernel's worst metric: the table's last word (``IP6_RT_PRIO`` ends there as well).
WORST_METRIC = 0xFFFFFFFF


class Family(enum.IntEnum):
    """Address family, as the kernel numbers it."""

    IPV4 = socket.AF_INET
    IPV6 = socket.AF_INET6

    @property
    def bits(self) -> int:
        """Length of an address in bits."""
        return 32 if self is Family.IPV4 else 128

    @property
    def default(self) -> str:
        """The destination of a default route."""
        return "0.0.0.0/0" if self is Family.IPV4 else "::/0"

    @property
    def label(self) -> str:
        """As a person writes it."""
        return "IPv4" if self is Family.IPV4 else "IPv6"

    @classmethod
    def of(cls, address: str) -> Family:
        """The family of an address or prefix in text form."""
        return cls.IPV6 if ":" in address else cls.IPV4


# --- what the kernel has -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface (``RTM_NEWLINK``)."""

    index: int
    name: str
    kind: str | None = None  #: ``IFLA_INFO_KIND``: veth, bridge, tun, ...; None for hardware
    up: bool = True  #: IFF_UP: administratively up
    carrier: bool = True  #: IFF_LOWER_UP
    loopback: bool = False  #: IFF_LOOPBACK
    asks: bool = True  #: for its neighbours' hardware addresses; not with IFF_NOARP (tunnels, most modems)
    master: int = 0  #: of what bridge, bond or team it is a port; 0: of none
    mtu: int = field(default=0, compare=False)  #: bytes; 0 when it was not told


class AddressFlag(enum.IntFlag):
    """``IFA_FLAGS``, those that matter here (kernel: ``if_addr.h``)."""

    TEMPORARY = 0x01  #: privacy address; on IPv4 the same bit means "secondary"
    OPTIMISTIC = 0x04
    DADFAILED = 0x08
    DEPRECATED = 0x20
    TENTATIVE = 0x40
    PERMANENT = 0x80
    NOPREFIXROUTE = 0x200  #: no route to its prefix came with it


@dataclass(frozen=True, slots=True)
class Address:
    """An address on an interface (``RTM_NEWADDR``). ``address`` is ours (``IFA_LOCAL`` where there is one)."""

    ifindex: int
    address: str
    prefixlen: int
    scope: int = 0  #: RT_SCOPE_*: 0 universe, 253 link, 254 host
    flags: AddressFlag = AddressFlag(0)
    peer: str | None = None  #: the far end of a point-to-point link
    preferred: int | None = field(default=None, compare=False)  #: seconds, when it was read; None is "for ever"
    valid: int | None = field(default=None, compare=False)  #: seconds, when it was read; None is "for ever"
    read: float = field(default=0.0, compare=False)  #: when that was, in seconds of the monotonic clock

    @property
    def preferred_until(self) -> float:
        """When it becomes deprecated, in seconds of the monotonic clock: the same at each reading but for a second."""
        return math.inf if self.preferred is None else self.read + self.preferred

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return Family.of(self.address)


@dataclass(frozen=True, slots=True)
class Hop:
    """A next hop of a route."""

    ifindex: int
    gateway: str | None = None  #: None: on-link; may be IPv6 in an IPv4 route (``RTA_VIA``)
    onlink: bool = False  #: RTNH_F_ONLINK: the gateway need not be covered by a prefix of the interface
    weight: int = 1  #: of a multipath route, 1 to 256
    dead: bool = field(default=False, compare=False)  #: RTNH_F_DEAD: its link is down, nothing is sent that way


class RouteType(enum.IntEnum):
    """``RTN_*``; any other type the kernel tells is read as OTHER and never copied."""

    OTHER = 0
    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8


@dataclass(frozen=True, slots=True)
class Route:
    """A route (``RTM_NEWROUTE``), with all that is needed to copy it faithfully.

    IPv6 multipath siblings are one ``Route`` each (so the kernel tells of them when one goes); an IPv4 multipath route is
    one ``Route`` with several hops. ``hops`` is empty for unreachable and its like.
    """

    destination: str
    table: int = MAIN_TABLE
    hops: tuple[Hop, ...] = ()
    type: RouteType = RouteType.UNICAST
    protocol: int = 0
    scope: int = 0
    metric: int = 0
    tos: int = 0
    source: str | None = None  #: RTA_PREFSRC, the source hint
    preference: int | None = None  #: RTA_PREF, IPv6 router preference: 0 medium, 1 high, 3 low
    metrics: tuple[tuple[str, int], ...] = ()  #: RTA_METRICS by pyroute2's names (RTAX_MTU, ...), sorted
    nexthop_object: int = field(default=0, compare=False)  #: RTA_NH_ID: the ``ip nexthop`` object its hops come from

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return Family.of(self.destination)

    @property
    def is_default(self) -> bool:
        """Whether it takes everything that no other route takes."""
        return self.destination == self.family.default


@dataclass(frozen=True, slots=True)
class RouteResult:
    """How the kernel routes a packet (``RTM_GETROUTE``), or why it does not."""

    ifindex: int = 0  #: the interface by which it leaves; 0: it does not
    gateway: str | None = None  #: None: on-link
    table: int = 0  #: where the route was found; 0: it follows from no route
    error: str = ""  #: why it is not routed, in words; "": it is
    source: str | None = None  #: the source address that it carries
    local: bool = False  #: its destination is this machine


class RuleAction(enum.IntEnum):
    """``FR_ACT_*``, those that matter here; any other is OTHER."""

    OTHER = 0
    TO_TABLE = 1
    UNREACHABLE = 7


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy routing rule (``RTM_NEWRULE``); selectors other than the source only matter as ``foreign``."""

    family: Family
    priority: int
    source: str | None = None  #: address without length when it is a host, else a prefix
    table: int = 0  #: 0 when the action is not TO_TABLE
    action: RuleAction = RuleAction.TO_TABLE
    protocol: int = 0
    suppress_prefixlength: int | None = None
    foreign: bool = False  #: it has selectors that we never write (mark, oif, invert, ...)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An MPTCP endpoint (kernel: ``mptcp_pm.yaml``). ``id`` is 0 in one that is not in the kernel yet."""

    address: str
    ifindex: int = 0  #: 0: not bound to an interface
    flags: EndpointFlag = EndpointFlag(0)
    id: int = 0
    port: int = 0  #: announced with the address, and listened on by the kernel; 0: none

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return Family.of(self.address)

    @property
    def place(self) -> tuple[str, int]:
        """Address and ifindex: what an endpoint is known by, whatever id it has."""
        return (self.address, self.ifindex)

    @property
    def key(self) -> tuple[str, int, int]:
        """Place and port: the kernel takes one endpoint without a port for each address, and beside it one for each port."""
        return (self.address, self.ifindex, self.port)


@dataclass(frozen=True, slots=True)
class Limits:
    """The path manager's limits, for each connection."""

    subflows: int = 2  #: additional subflows
    add_addr_accepted: int = 0  #: addresses accepted from the peer


@dataclass(frozen=True, slots=True)
class Egress:
    """Where a packet leaves that nobody bound to anything (``RTM_GETROUTE`` without source or mark)."""

    ifindex: int = 0  #: 0: nowhere
    encrypted: bool = False  #: an IPsec policy (xfrm) wraps it up on its way, whatever the interface


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the kernel has, at one look."""

    mptcp_enabled: bool = True  #: net.mptcp.enabled; False also where the sysctl is missing
    path_manager: str = "kernel"  #: "kernel", "userspace" or "" where MPTCP is missing
    laminar: bool = False  #: whether this kernel knows the laminar flag (6.18)
    endpoints_max: int = 8
    links: Mapping[int, Link] = field(default_factory=dict)  #: by ifindex
    addresses: Mapping[int, tuple[Address, ...]] = field(default_factory=dict)  #: by ifindex
    #: by (table, ifindex); an IPv4 multipath route stands under each of its interfaces, one without a hop under 0
    routes: Mapping[tuple[int, int], tuple[Route, ...]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    limits: Limits = Limits()
    #: whether ``ignore_routes_with_linkdown`` is set on an interface, as far as it was looked up
    linkdown_ignored: Mapping[tuple[Family, int], bool] = field(default_factory=dict)
    linkdown_default: frozenset[Family] = frozenset()  #: families in which a new interface has it set
    #: where packets to each half of a family's public space leave; nothing while there is nothing like a tunnel
    egress: Mapping[Family, tuple[Egress, ...]] = field(default_factory=dict)

    def has_address_of(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint's address is on its interface."""
        return any(address.address == endpoint.address for address in self.addresses.get(endpoint.ifindex, ()))


# --- what NetworkManager says --------------------------------------------------------------------------------------


class _NetworkManagerEnum(enum.IntEnum):
    """An enumeration of NetworkManager's D-Bus interface (``nm-dbus-interface.h``); 0 is "unknown".

    A number that only a newer NetworkManager knows is read as 0.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls(0) if isinstance(value, int) else None


class DeviceType(_NetworkManagerEnum):
    """``NMDeviceType``."""

    UNKNOWN = 0
    ETHERNET = 1
    WIFI = 2
    BLUETOOTH = 5
    OLPC_MESH = 6
    WIMAX = 7
    MODEM = 8
    INFINIBAND = 9
    BOND = 10
    VLAN = 11
    ADSL = 12
    BRIDGE = 13
    GENERIC = 14
    TEAM = 15
    TUN = 16
    IP_TUNNEL = 17
    MACVLAN = 18
    VXLAN = 19
    VETH = 20
    MACSEC = 21
    DUMMY = 22
    PPP = 23
    OVS_INTERFACE = 24
    OVS_PORT = 25
    OVS_BRIDGE = 26
    WPAN = 27
    SIXLOWPAN = 28
    WIREGUARD = 29
    WIFI_P2P = 30
    VRF = 31
    LOOPBACK = 32
    HSR = 33
    IPVLAN = 34
    GENEVE = 35


class Metered(_NetworkManagerEnum):
    """``NMMetered``: what the profile says, else what NetworkManager guesses by kind of device and DHCP options."""

    UNKNOWN = 0
    YES = 1
    NO = 2
    GUESS_YES = 3
    GUESS_NO = 4


class DeviceState(_NetworkManagerEnum):
    """``NMDeviceState``."""

    UNKNOWN = 0
    UNMANAGED = 10
    UNAVAILABLE = 20
    DISCONNECTED = 30
    PREPARE = 40
    CONFIG = 50
    NEED_AUTH = 60
    IP_CONFIG = 70
    IP_CHECK = 80
    SECONDARIES = 90
    ACTIVATED = 100
    DEACTIVATING = 110
    FAILED = 120


class Connectivity(_NetworkManagerEnum):
    """``NMConnectivityState``."""

    UNKNOWN = 0
    NONE = 1
    PORTAL = 2
    LIMITED = 3
    FULL = 4


@dataclass(frozen=True, slots=True)
class Profile:
    """The applied connection of a device (``Device.GetAppliedConnection``), what we use of it."""

    id: str
    uuid: str
    type: str  #: connection.type: 802-3-ethernet, 802-11-wireless, gsm, ...
    mptcp_flags: ProfileFlag = ProfileFlag(0)
    ipv4_route_table: int = 0  #: 0: main
    ipv6_route_table: int = 0
    ipv4_never_default: bool = False
    ipv6_never_default: bool = False
    ipv4_method: str = "auto"
    ipv6_method: str = "auto"

    def route_table(self, family: Family) -> int:
        """The table NetworkManager puts this profile's routes in."""
        own = self.ipv4_route_table if family is Family.IPV4 else self.ipv6_route_table
        return own or MAIN_TABLE

    def never_default(self, family: Family) -> bool:
        """Whether the profile refuses a default route in this family."""
        return self.ipv4_never_default if family is Family.IPV4 else self.ipv6_never_default

    def shared(self, family: Family) -> bool:
        """Whether this connection serves others (a hotspot) and so is no uplink."""
        return (self.ipv4_method if family is Family.IPV4 else self.ipv6_method) == "shared"


@dataclass(frozen=True, slots=True)
class DefaultFlags:
    """What NetworkManager's configuration says for a device whose profile leaves the flags at 0."""

    flags: ProfileFlag | None = None  #: None: nothing is configured, NetworkManager's built-in default counts
    section: str = ""  #: the section it comes from, "" when there is none

    #: the section that our drop-in brings: "disabled" from there means "left to nm-mptcp", not "no MPTCP"
    OUR_SECTION = "connection-nm-mptcp"


@dataclass(frozen=True, slots=True)
class Device:
    """A device as NetworkManager sees it."""

    interface: str  #: the control interface (cdc-wdm0)
    ip_interface: str  #: where the addresses are (wwan0); the same as ``interface`` for most
    type: DeviceType
    state: DeviceState
    managed: bool = True
    external: bool = False  #: brought up by somebody else; NetworkManager only looks on
    metered: Metered = Metered.UNKNOWN
    ipv4_connectivity: Connectivity = Connectivity.UNKNOWN
    ipv6_connectivity: Connectivity = Connectivity.UNKNOWN
    activation: str = ""  #: names this very activation; another one, or another NetworkManager, has another
    profile: Profile | None = None  #: None: there is none, or it could not be read
    unreadable: str = ""  #: why the profile could not be read, "" when it could or there is none
    default_flags: DefaultFlags = DefaultFlags()
    driver: str = ""
    hardware_address: str = ""  #: the permanent one, "" where there is none (veth, bridge, ...)
    type_name: str = ""  #: what ``match-device=type:`` calls it: ethernet, wifi, gsm, ...
    driver_version: str = ""
    roaming: bool = False  #: its modem is in a foreign network, as ModemManager says
    #: of the Wi-Fi signal (percent), None where there is none or it is not known; it changes all the time, which alone is
    #: no change of the device
    strength: int | None = field(default=None, compare=False)

    def connectivity(self, family: Family) -> Connectivity:
        """What NetworkManager's connectivity check found for this family."""
        return self.ipv4_connectivity if family is Family.IPV4 else self.ipv6_connectivity


@dataclass(frozen=True, slots=True)
class NetworkManager:
    """What NetworkManager says, at one look."""

    running: bool = False
    startup: bool = False  #: it runs, but is still taking over what it finds
    version: str = ""
    devices: tuple[Device, ...] = ()
    default_flags: DefaultFlags = DefaultFlags()  #: for a device that no ``match-device`` singles out
    vpn: bool = False  #: whether a connection of a VPN plugin is active
    unread: str = ""  #: why its configuration could not be read, "" when it could
    silent: bool = False  #: it is on the bus and does not answer: what it last said may be old, and nothing at all

    @property
    def away(self) -> str:
        """Why it may have another will than what is known of it, "" where that is known."""
        if self.silent:
            return "not answering"
        if not self.running:
            return "not running"
        return "starting" if self.startup else ""

    @property
    def has_mptcp(self) -> bool:
        """Whether this NetworkManager knows ``connection.mptcp-flags`` (1.40)."""
        return _at_least(self.version, 1, 40)

    @property
    def builtin_flags(self) -> ProfileFlag:
        """The default where nothing is configured: 0x22, since 1.56 0x122; 0 before 1.40."""
        if not self.has_mptcp:
            return ProfileFlag(0)
        flags = ProfileFlag.ENABLED | ProfileFlag.SUBFLOW
        return flags | ProfileFlag.LAMINAR if _at_least(self.version, 1, 56) else flags


@functools.lru_cache(maxsize=8)
def _at_least(version: str, *wanted: int) -> bool:
    parts = version.split(".")[:2]
    return len(parts) == 2 and all(part.isdigit() for part in parts) and tuple(map(int, parts)) >= wanted


class Mode(enum.StrEnum):
    """Which paths carry, as long as no profile and no section says otherwise."""

    AUTO = "auto"  #: by kind: cellular, Bluetooth and metered links are backup
    HANDOVER = "handover"  #: only the link with the best route metric carries, all others are backup
    AGGREGATE = "aggregate"  #: all carry
    OFF = "off"  #: nothing is made a path


# --- what is ours --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Numbering:
    """The numbers by which routes and rules are known to be ours."""

    protocol: int = PROTOCOL
    tables: range = TABLES
    rule_priority: int = RULE_PRIORITY  #: of all rules


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """How routes and rules are known to be ours: by the numbers that count now, or by those that counted before.

    Made by :func:`marks_of`: the same numbers are the same object, since it is part of many keys and hashed often.
    """

    now: Numbering
    before: frozenset[Numbering]

    def on_route(self, route: Route) -> bool:
        """Whether a route of the kernel is one that we made: all of a table of ours, or a detour in main."""
        return any(
            route.protocol == known.protocol and (route.table in known.tables or route.table == MAIN_TABLE)
            for known in (self.now, *self.before)
        )

    def on_rule(self, rule: Rule) -> bool:
        """Whether a rule of the kernel is one that we made, at whatever priority: releases differ in it."""
        return not rule.foreign and any(rule.protocol == known.protocol for known in (self.now, *self.before))

    def on_table(self, table: int) -> bool:
        """Whether a table may be one of ours."""
        return any(table in known.tables for known in (self.now, *self.before))


@functools.lru_cache(maxsize=64)
def marks_of(now: Numbering, before: frozenset[Numbering] = frozenset()) -> Marks:
    """The marks with these numbers."""
    return Marks(now, before)


#: What marks ours unless somebody chose other numbers.
MARKS = marks_of(Numbering())


@dataclass(frozen=True, slots=True)
class OwnEndpoint:
    """An endpoint that we added, as the record under /run tells it. ``id`` is 0 from the record to the first look.

    ``flags`` is what we wrote last, ``was`` what we wrote before (the same, once the change was seen): an endpoint that has
    neither was replaced by somebody. Its id cannot tell: the kernel gives a freed one to the next that comes. But one that
    still has its id, and differs in nothing that cannot be changed in place, was edited by hand, it may be (``ip mptcp endpoint
    change``): nobody's but his who did it, and ours again when that is taken back.
    """

    address: str
    ifindex: int
    flags: EndpointFlag
    was: EndpointFlag
    id: int = 0
    port: int = 0

    @property
    def key(self) -> tuple[str, int, int]:
        """As :attr:`Endpoint.key`."""
        return (self.address, self.ifindex, self.port)

    def is_(self, endpoint: Endpoint) -> bool:
        """Whether this is that endpoint of the kernel."""
        return (
            self.address == endpoint.address
            and self.key == endpoint.key
            and self.id in (0, endpoint.id)
            and endpoint.flags in (self.flags, self.was)
        )

    def is_edited(self, endpoint: Endpoint) -> bool:
        """Whether this is that endpoint of the kernel, with flags that somebody has changed in place."""
        return (
            self.address == endpoint.address
            and self.key == endpoint.key
            and self.id == endpoint.id
            and endpoint.flags not in (self.flags, self.was)
            and not (self.flags ^ endpoint.flags) & ~CHANGEABLE
        )


@dataclass(frozen=True, slots=True)
class SavedSetting:
    """A kernel value that we changed: what it was, and what we wrote."""

    original: int
    applied: int


@dataclass(frozen=True, slots=True)
class Ours:
    """What is ours in the kernel and cannot be told from the kernel itself (routes and rules can: :class:`Numbering`)."""

    endpoints: frozenset[OwnEndpoint] = frozenset()
    #: activations in which NetworkManager was seen to write the endpoints: it owns them until the next activation
    claims: frozenset[str] = frozenset()
    #: "subflows" and "add_addr_accepted", as far as we raised them
    limits: Mapping[str, SavedSetting] = field(default_factory=dict)
    #: NetworkManager's endpoints that we took out for a while; they come back with the same address, interface and flags
    withdrawn: frozenset[Endpoint] = frozenset()
    #: interfaces on which we set ``ignore_routes_with_linkdown``
    linkdown: frozenset[tuple[Family, int]] = frozenset()
    #: the numbers that our routes and rules may carry: those that count now, and those before while anything has them
    numberings: frozenset[Numbering] = frozenset()

    def owns(self, endpoint: Endpoint) -> bool:
        """Whether this endpoint of the kernel is one that we added, and not one that replaced it."""
        return any(own.is_(endpoint) for own in self.endpoints)

    def is_edited(self, endpoint: Endpoint) -> bool:
        """Whether this endpoint of the kernel may be one that we added, with flags that somebody has changed in place."""
        return any(own.is_edited(endpoint) for own in self.endpoints)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All the facts of one look: what policy decides from."""

    kernel: Kernel
    networkmanager: NetworkManager
    ours: Ours = Ours()
    #: addresses whose endpoint NetworkManager should have added a second ago and has not (its add at a full table is silent)
    overdue: frozenset[str] = frozenset()
    #: endpoints that the kernel refused, by place, with its words; "" where only its table was full
    refused: Mapping[tuple[str, int], str] = field(default_factory=dict)
    #: how many live MPTCP connections stand on exactly these local addresses with established subflows; None: not asked
    connections: Mapping[frozenset[str], int] | None = None
    #: interfaces that lost their link too often of late, and for how long each is held back (s)
    held: Mapping[int, float] = field(default_factory=dict)
    #: addresses whose subflows died by an error while their endpoint stayed, due to be renewed
    subflow_retry_due: frozenset[str] = frozenset()
    #: addresses on a Wi-Fi whose signal has become weak
    weak: frozenset[str] = frozenset()
    #: which subflows bypass full tunnels; None: not asked
    bypass: TunnelBypass | None = None
    #: addresses of endpoints of ours that went away a moment ago while their activation goes on: NetworkManager may be about
    #: to add them again
    absent: frozenset[Address] = frozenset()


@dataclass(frozen=True, slots=True)
class TunnelBypass:
    """The local addresses of subflows that do not go through a full tunnel."""

    #: to peers whose route is another than the tunnel: the tunnel's own far end, the local network
    allowed: frozenset[str] = frozenset()
    #: bound to a device although the route to their peer is the tunnel
    leaking: frozenset[str] = frozenset()


# --- what we want --------------------------------------------------------------------------------------------------


class State(enum.StrEnum):
    """Where an address stands."""

    ACTIVE = "active"  #: it is a path: endpoint, table and rules
    WAITING = "waiting"  #: it will be a path as soon as something comes
    SUSPENDED = "suspended"  #: it is a path that should not carry traffic now
    EXCLUDED = "excluded"  #: it is no path


class FlagsFrom(enum.StrEnum):
    """Who said which flags a path has."""

    PROFILE = "profile"
    CONFIG = "config"
    KIND = "kind"
    NETWORKMANAGER = "networkmanager"


class Owner(enum.StrEnum):
    """Who writes the endpoint of a path."""

    OURS = "nm-mptcp"
    NETWORKMANAGER = "networkmanager"
    OTHER = "other"

    @property
    def label(self) -> str:
        """The owner as texts for people name it."""
        return {"networkmanager": "NetworkManager", "other": "another program"}.get(self.value, self.value)


@dataclass(frozen=True, slots=True)
class Path:
    """What was decided for one address, and why."""

    address: str
    ifindex: int
    interface: str
    state: State
    reason: Reason
    kind: str = ""
    profile: str = ""
    uuid: str = ""
    flags: EndpointFlag = EndpointFlag(0)
    flags_from: FlagsFrom = FlagsFrom.KIND
    owner: Owner = Owner.OURS
    endpoint_id: int | None = None  #: of the endpoint in the kernel, when the look was taken
    table: int | None = None  #: where packets from this address are routed; None: as anybody's
    gateway: str | None = None  #: of its default route; None: on-link, or there is none
    port: int = 0  #: that is announced with the address; 0: none

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return Family.of(self.address)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What carries all of a family's traffic."""

    name: str  #: its interface, or several, in words
    interfaces: frozenset[int] = frozenset()  #: none where it is IPsec without an interface of its own


@dataclass(frozen=True, slots=True)
class Desired:
    """What should be in the kernel of ours."""

    paths: tuple[Path, ...] = ()
    endpoints: frozenset[Endpoint] = frozenset()  #: ids are 0
    #: by (table, ifindex), as :class:`Kernel` has them
    routes: Mapping[tuple[int, int], frozenset[Route]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()  #: those of one address in the order in which they are to be asked
    marks: Marks = MARKS  #: what carries any of these and is not wanted goes
    limits: Limits | None = None  #: None: as they are
    claims: frozenset[str] = frozenset()  #: activations whose endpoints are NetworkManager's
    withdrawn: frozenset[Endpoint] = frozenset()  #: NetworkManager's endpoints that must not stand now; ids are 0
    close_initial_subflows: frozenset[str] = (
        frozenset()
    )  #: addresses without an endpoint whose initial subflows are to end (id 0)
    close_redundant: frozenset[str] = (
        frozenset()
    )  #: addresses whose subflows are to end where a live sibling stands elsewhere
    lost: frozenset[str] = frozenset()  #: addresses that no sibling is live on
    stale: frozenset[Endpoint] = frozenset()  #: the kernel's own (implicit) endpoints that stand in a path's way
    renewed: frozenset[str] = frozenset()  #: addresses whose endpoint is to be deleted and added again
    linkdown: frozenset[tuple[Family, int]] = frozenset()  #: where ``ignore_routes_with_linkdown`` is to be set
    tunnels: Mapping[Family, Tunnel] = field(default_factory=dict)  #: what carries all of a family, and is guarded
    #: addresses below a full tunnel whose subflows and rules are to be deleted first
    close_all: frozenset[str] = frozenset()
    asks_connections: bool = False  #: decide again with :attr:`Snapshot.connections`: something depends on them
    asks_bypass: bool = False  #: decide again with :attr:`Snapshot.bypass`: an endpoint below a full tunnel is to go
    awaits_connections: bool = False  #: decide again when a connection or subflow comes or goes


# --- what has to be done -------------------------------------------------------------------------------------------


class Action(enum.StrEnum):
    """A verb of a plan."""

    ADD = "add"
    REPLACE = "replace"
    DELETE = "delete"
    SET_FLAGS = "set-flags"
    SET = "set"
    CLOSE_REDUNDANT = "close-redundant"
    CLOSE_ALL = "close-all"


@dataclass(frozen=True, slots=True)
class LinkdownSetting:
    """The sysctl ``ignore_routes_with_linkdown`` of an interface."""

    family: Family
    ifindex: int
    name: str
    ignored: bool


@dataclass(frozen=True, slots=True)
class RedundantSubflows:
    """The end of those subflows on ``addresses`` whose connection has an established one outside of ``lost``."""

    addresses: frozenset[str]
    lost: frozenset[str]


@dataclass(frozen=True, slots=True)
class LeakingSubflows:
    """The end of all subflows on ``addresses``, save those whose peer is reached beside the tunnels."""

    addresses: frozenset[str]
    tunnels: Mapping[Family, Tunnel]


@dataclass(frozen=True, slots=True)
class Operation:
    """One write to the kernel. For SET_FLAGS ``value`` is the endpoint as it is to be, with its id."""

    action: Action
    value: Endpoint | Route | Rule | Limits | LinkdownSetting | RedundantSubflows | LeakingSubflows
