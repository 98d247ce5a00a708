# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of the kernel and of NetworkManager, what in it is ours, the desired state, and the operations between them.

All values are frozen. Addresses are text as ``inet_ntop(3)`` writes it, prefixes ``ADDRESS/LENGTH`` (a default route is
``0.0.0.0/0`` or ``::/0``), durations are in seconds, route metrics are the kernel's numbers.
"""

from __future__ import annotations

import enum
import functools
import math
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from .flags import CHANGEABLE, EndpointFlag, ProfileFlag
from .reasons import Reason

#: Our routing protocol number, named ``nm-mptcp`` in ``rt_protos.d``: routes and rules with it are ours.
PROTOCOL = 77

#: The range of our tables (``rt_tables.d``). Not base + ifindex, which could reach WireGuard's (51820 and up).
TABLES = range(42000, 43000)

#: The priority of all our rules: after everybody else's, before that of the main table (32766). The kernel appends a rule to
#: those of equal priority, and gives a rule without a priority a lower number than any other (``fib_rules.c``), so the order
#: does not depend on which program adds its rules first.
RULE_PRIORITY = 32765

MAIN_TABLE = 254

#: Stands for all IPsec policies among the ifindexes of tunnels.
IPSEC = -1

#: The highest, and so the worst, route metric (32 bits).
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
        """The destination prefix of a default route."""
        return "0.0.0.0/0" if self is Family.IPV4 else "::/0"

    @property
    def label(self) -> str:
        """The name in texts for people."""
        return "IPv4" if self is Family.IPV4 else "IPv6"

    @classmethod
    def of(cls, address: str) -> Family:
        """The family of an address or prefix in text form."""
        return cls.IPV6 if ":" in address else cls.IPV4


# --- the kernel's state --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface (``RTM_NEWLINK``)."""

    index: int
    name: str
    kind: str | None = None  #: ``IFLA_INFO_KIND``: veth, bridge, tun, ...; None for hardware
    up: bool = True  #: IFF_UP: administratively up
    carrier: bool = True  #: IFF_LOWER_UP
    loopback: bool = False  #: IFF_LOOPBACK
    resolves: bool = True  #: it resolves neighbours to link-layer addresses: no IFF_NOARP (tunnels, most modems)
    master: int = 0  #: ifindex of the bridge, bond or team that it is a port of; 0: none
    mtu: int = field(default=0, compare=False)  #: bytes; 0: not reported


class AddressFlag(enum.IntFlag):
    """The flags of ``IFA_FLAGS`` that are used here (kernel: ``if_addr.h``)."""

    TEMPORARY = 0x01  #: privacy address; on IPv4 the same bit means "secondary"
    OPTIMISTIC = 0x04
    DADFAILED = 0x08
    DEPRECATED = 0x20
    TENTATIVE = 0x40
    PERMANENT = 0x80
    NOPREFIXROUTE = 0x200  #: no route to its prefix came with it


@dataclass(frozen=True, slots=True)
class Address:
    """An address on an interface (``RTM_NEWADDR``). ``address`` is the local one (``IFA_LOCAL`` if present)."""

    ifindex: int
    address: str
    prefixlen: int
    scope: int = 0  #: RT_SCOPE_*: 0 universe, 253 link, 254 host
    flags: AddressFlag = AddressFlag(0)
    peer: str | None = None  #: the remote address of a point-to-point link
    preferred: int | None = field(default=None, compare=False)  #: preferred lifetime at ``read`` (s); None: forever
    valid: int | None = field(default=None, compare=False)  #: valid lifetime at ``read`` (s); None: forever
    read: float = field(default=0.0, compare=False)  #: when the lifetimes were read (monotonic clock, s)

    @property
    def preferred_until(self) -> float:
        """When it becomes deprecated (monotonic clock, s; infinity: never); each reading may differ by one second."""
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
    dead: bool = field(default=False, compare=False)  #: RTNH_F_DEAD: its link is down, the kernel does not use it


class RouteType(enum.IntEnum):
    """``RTN_*``; any other type is read as OTHER and never copied."""

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
    """A route (``RTM_NEWROUTE``), with all attributes that an exact copy needs.

    An IPv4 multipath route is one ``Route`` with several hops; the siblings of an IPv6 multipath route are one ``Route`` each,
    as the kernel notifies when one is removed. ``hops`` is empty for types without a next hop (unreachable, blackhole, ...).
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
        """Whether it is a default route."""
        return self.destination == self.family.default


@dataclass(frozen=True, slots=True)
class RouteResult:
    """The result of a route look-up (``RTM_GETROUTE``)."""

    ifindex: int = 0  #: the output interface; 0: none
    gateway: str | None = None  #: None: on-link
    table: int = 0  #: the table of the route; 0: no route was found
    error: str = ""  #: why the packet is not routed; "": it is
    source: str | None = None  #: the packet's source address
    local: bool = False  #: its destination is this machine
    encrypted: bool = False  #: an IPsec policy encrypts the packet


class RuleAction(enum.IntEnum):
    """The actions of ``FR_ACT_*`` that are used here; any other is OTHER."""

    OTHER = 0
    TO_TABLE = 1
    UNREACHABLE = 7


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy routing rule (``RTM_NEWRULE``); of its selectors only those that our rules have are kept."""

    family: Family
    priority: int
    source: str | None = None  #: a prefix; a host's address has no length
    table: int = 0  #: 0 if the action is not TO_TABLE
    action: RuleAction = RuleAction.TO_TABLE
    protocol: int = 0
    suppress_prefixlength: int | None = None
    destination: str | None = None  #: a prefix; a host's address has no length
    udp_port: int = 0  #: for UDP from this port alone; 0: for all packets
    foreign: bool = False  #: it has a selector that our rules never have (mark, oif, invert, ...)

    @property
    def only_by_source(self) -> bool:
        """Whether it applies to all packets from its source."""
        return not (self.foreign or self.destination or self.udp_port)

    def __str__(self) -> str:
        """As ``ip rule`` prints it."""
        return f"{self.priority}: {self.text}"

    @property
    def text(self) -> str:
        """Its selectors and its action, as ip(8) prints and accepts them."""
        words = ["from", self.source or "all"]
        if self.destination:
            words += ["to", self.destination]
        if self.udp_port:
            words += ["ipproto", "udp", "sport", str(self.udp_port)]
        if self.action is not RuleAction.TO_TABLE:
            words.append(self.action.name.lower())
        else:
            words += ["lookup", "main" if self.table == MAIN_TABLE else str(self.table)]
        if self.suppress_prefixlength is not None:
            words += ["suppress_prefixlength", str(self.suppress_prefixlength)]
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class WireGuard:
    """How packets of WireGuard itself are recognized. It keeps the source address that a packet of the peer came to, until the
    route from that address leads by another interface (kernel: ``drivers/net/wireguard/socket.c``; wireguard-go:
    ``sticky_linux.go``).
    """

    ports: frozenset[int] = frozenset()  #: UDP ports that the kernel's module sends from
    peers: frozenset[str] = frozenset()  #: addresses that programs send to; they ask for the route without the port


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An MPTCP endpoint (kernel: ``mptcp_pm.yaml``). ``id`` is 0 until the kernel has assigned one."""

    address: str
    ifindex: int = 0  #: 0: not bound to an interface
    flags: EndpointFlag = EndpointFlag(0)
    id: int = 0
    port: int = 0  #: announced with the address, and bound by a listening socket of the kernel; 0: none

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return Family.of(self.address)

    @property
    def place(self) -> tuple[str, int]:
        """Address and ifindex."""
        return (self.address, self.ifindex)

    @property
    def key(self) -> tuple[str, int, int]:
        """Address, ifindex and port. The kernel accepts one endpoint without a port for each address, and one for each port."""
        return (self.address, self.ifindex, self.port)


@dataclass(frozen=True, slots=True)
class Limits:
    """The path manager's limits, each per connection."""

    subflows: int = 2  #: additional subflows
    add_addr_accepted: int = 0  #: addresses accepted from the peer


@dataclass(frozen=True, slots=True)
class Egress:
    """How a packet of an unbound socket leaves the machine (``RTM_GETROUTE`` without source or mark)."""

    ifindex: int = 0  #: the output interface; 0: there is no route
    encrypted: bool = False  #: an IPsec policy (xfrm) applies to it, whatever the interface
    rejected: bool = False  #: a route or rule rejects it


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel's state at one time."""

    mptcp_enabled: bool = True  #: the sysctl net.mptcp.enabled; False if it is missing
    path_manager: str = "kernel"  #: "kernel", "userspace" or another by name; "" if MPTCP is missing
    laminar: bool = False  #: whether this kernel supports the laminar flag (6.18)
    endpoints_max: int = 8  #: how many endpoints the kernel accepts
    links: Mapping[int, Link] = field(default_factory=dict)  #: by ifindex
    addresses: Mapping[int, tuple[Address, ...]] = field(default_factory=dict)  #: by ifindex
    #: by (table, ifindex); an IPv4 multipath route is listed for each of its interfaces, a route without hops for 0
    routes: Mapping[tuple[int, int], tuple[Route, ...]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    limits: Limits = Limits()
    #: ``ignore_routes_with_linkdown`` by (family, ifindex), for the interfaces on which it was read
    linkdown_ignored: Mapping[tuple[Family, int], bool] = field(default_factory=dict)
    linkdown_default: frozenset[Family] = frozenset()  #: families for which it is the default of new interfaces
    #: the egress of a probe in each half of a family's public address space; empty while nothing can be a tunnel
    egress: Mapping[Family, tuple[Egress, ...]] = field(default_factory=dict)
    strict: frozenset[int] = frozenset()  #: interfaces with ``rp_filter`` 1; empty while nothing can be a tunnel
    ipsec: bool = False  #: an IPsec policy encrypts some packets
    wireguard: WireGuard | None = WireGuard()  #: None: it could not be read

    def has_address_of(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint's address is on its interface."""
        return any(address.address == endpoint.address for address in self.addresses.get(endpoint.ifindex, ()))


class Place(NamedTuple):
    """A link and an address family: each family has its own gateway."""

    family: Family
    ifindex: int


@dataclass(frozen=True, slots=True)
class Silence:
    """That a link is up and carries no packets of a family.

    A suspected one leads new connections around the link, and makes its paths backup. A confirmed one suspends them.
    """

    confirmed: bool
    evidence: str  #: text for people: "2 peers unanswered for 1.2 s, 1 of them answers by wwan0"
    tried: bool = False  #: a tunnel is sent by the link again, to see whether it is answered


@dataclass(frozen=True, slots=True)
class Way:
    """How a full tunnel's own packets may be led: around some of the links below it."""

    around: frozenset[Place]
    by: int  #: the ifindex of the link that they leave by then


@dataclass(frozen=True, slots=True)
class Carriers:
    """The links that carry a full tunnel's own packets."""

    address: str  #: of the tunnel, to ask its peers from
    ways: tuple[Way, ...]  #: in the order in which they are tried; the first is no detour

    @property
    def links(self) -> frozenset[int]:
        """The ifindexes of these links."""
        return frozenset(way.by for way in self.ways)

    @property
    def movable(self) -> frozenset[Place]:
        """What may be led around."""
        return frozenset[Place]().union(*(way.around for way in self.ways))


# --- NetworkManager's state ----------------------------------------------------------------------------------------


class _NetworkManagerEnum(enum.IntEnum):
    """An enumeration of NetworkManager's D-Bus interface (``nm-dbus-interface.h``); 0, and any later value, is UNKNOWN."""

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
    """``NMMetered``: set by the profile, else guessed by NetworkManager from the kind of device and DHCP options."""

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
    """The applied connection of a device (``Device.GetAppliedConnection``): the properties that are used here."""

    id: str
    uuid: str
    type: str  #: connection.type: 802-3-ethernet, 802-11-wireless, gsm, ...
    mptcp_flags: ProfileFlag = ProfileFlag(0)  #: 0: not set
    ipv4_route_table: int = 0  #: 0: main
    ipv6_route_table: int = 0
    ipv4_never_default: bool = False
    ipv6_never_default: bool = False
    ipv4_method: str = "auto"
    ipv6_method: str = "auto"

    def route_table(self, family: Family) -> int:
        """The table in which NetworkManager adds this profile's routes."""
        own = self.ipv4_route_table if family is Family.IPV4 else self.ipv6_route_table
        return own or MAIN_TABLE

    def never_default(self, family: Family) -> bool:
        """Whether the profile sets never-default for this family."""
        return self.ipv4_never_default if family is Family.IPV4 else self.ipv6_never_default

    def shared(self, family: Family) -> bool:
        """Whether the profile's method is shared (a hotspot), so that the connection is no uplink."""
        return (self.ipv4_method if family is Family.IPV4 else self.ipv6_method) == "shared"


@dataclass(frozen=True, slots=True)
class DefaultFlags:
    """The default of ``connection.mptcp-flags`` in NetworkManager's configuration, for a profile that does not set it."""

    flags: ProfileFlag | None = None  #: None: not configured, NetworkManager's built-in default applies
    section: str = ""  #: the section that sets it; "": none

    #: the section in our drop-in: its "disabled" leaves the endpoints to nm-mptcp, and does not mean "no MPTCP"
    OUR_SECTION = "connection-nm-mptcp"


@dataclass(frozen=True, slots=True)
class Device:
    """A device of NetworkManager's."""

    interface: str  #: the control interface (cdc-wdm0)
    ip_interface: str  #: the interface with the addresses (wwan0); mostly the same
    type: DeviceType
    state: DeviceState
    managed: bool = True
    external: bool = (
        False  #: its connection is external: configured by another program, NetworkManager only reflects it
    )
    metered: Metered = Metered.UNKNOWN
    ipv4_connectivity: Connectivity = Connectivity.UNKNOWN
    ipv6_connectivity: Connectivity = Connectivity.UNKNOWN
    activation: str = ""  #: identifies the current activation; unique also across restarts of NetworkManager
    profile: Profile | None = None  #: None: there is none, or it could not be read
    unreadable: str = ""  #: why the profile could not be read; "": it could, or there is none
    default_flags: DefaultFlags = DefaultFlags()
    driver: str = ""
    hardware_address: str = ""  #: the permanent one; "" if there is none (veth, bridge, ...)
    type_name: str = ""  #: its name in ``match-device=type:``: ethernet, wifi, gsm, ...
    driver_version: str = ""
    roaming: bool = False  #: whether ModemManager reports its modem as roaming
    #: of the Wi-Fi signal (percent), None if unknown or not Wi-Fi; not compared, as it changes all the time
    strength: int | None = field(default=None, compare=False)

    def connectivity(self, family: Family) -> Connectivity:
        """The result of NetworkManager's connectivity check for this family."""
        return self.ipv4_connectivity if family is Family.IPV4 else self.ipv6_connectivity


@dataclass(frozen=True, slots=True)
class NetworkManager:
    """NetworkManager's state at one time."""

    running: bool = False
    startup: bool = False  #: its ``Startup`` property: it is still activating connections at start-up
    version: str = ""
    devices: tuple[Device, ...] = ()
    default_flags: DefaultFlags = DefaultFlags()  #: for a device that no ``match-device`` matches
    vpn: bool = False  #: whether a connection of a VPN plugin is active
    unread: str = ""  #: why its configuration could not be read; "": it could
    silent: bool = False  #: it is on the bus and does not answer: this state may be outdated, or empty

    @property
    def unavailable(self) -> str:
        """Why this state may not be what NetworkManager currently wants; "": it is."""
        if self.silent:
            return "not answering"
        if not self.running:
            return "not running"
        return "starting" if self.startup else ""

    def is_at_least(self, *wanted: int) -> bool:
        """Whether its version has these numbers, or greater ones: ``is_at_least(1, 58, 1)``."""
        return _at_least(self.version, *wanted)

    @property
    def has_mptcp(self) -> bool:
        """Whether this NetworkManager has ``connection.mptcp-flags`` (1.40)."""
        return _at_least(self.version, 1, 40)

    @property
    def builtin_flags(self) -> ProfileFlag:
        """The built-in default of ``connection.mptcp-flags``: 0x22, since 1.56 0x122; 0 before 1.40."""
        if not self.has_mptcp:
            return ProfileFlag(0)
        flags = ProfileFlag.ENABLED | ProfileFlag.SUBFLOW
        return flags | ProfileFlag.LAMINAR if _at_least(self.version, 1, 56) else flags


@functools.lru_cache(maxsize=8)
def _at_least(version: str, *wanted: int) -> bool:
    """Whether a version has these numbers, or greater ones; only as many count as are wanted."""
    parts = version.split("-")[0].split(".")[: len(wanted)]
    return len(parts) == len(wanted) and all(part.isdigit() for part in parts) and tuple(map(int, parts)) >= wanted


class Mode(enum.StrEnum):
    """Which paths are regular and which are backup, unless the profile or a section of the configuration sets the flags."""

    AUTO = "auto"  #: by kind: cellular, Bluetooth and metered links are backup
    HANDOVER = "handover"  #: only the link with the best route metric is regular, all others are backup
    INTERACTIVE = "interactive"  #: as auto, and a backup carries as well while a regular path is slow or loses packets
    AGGREGATE = "aggregate"  #: all are regular
    OFF = "off"  #: there are no automatic paths


# --- what is ours --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Numbering:
    """The numbers that our routes and rules carry."""

    protocol: int = PROTOCOL
    tables: range = TABLES
    rule_priority: int = RULE_PRIORITY  #: of all our rules


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Identifies our routes and rules by the numbers in force, and by earlier ones that some may still carry.

    Made by :func:`marks_of`, which returns the same object for the same numbers: it is part of many cache keys.
    """

    now: Numbering
    before: frozenset[Numbering]

    @property
    def protocols(self) -> frozenset[int]:
        """The protocols of our routes and rules: any route of main with one of them is ours."""
        return frozenset(known.protocol for known in (self.now, *self.before))

    def on_route(self, route: Route) -> bool:
        """Whether a route is ours: one of our tables, or a failover route in main."""
        return any(
            route.protocol == known.protocol and (route.table in known.tables or route.table == MAIN_TABLE)
            for known in (self.now, *self.before)
        )

    def on_rule(self, rule: Rule) -> bool:
        """Whether a rule is ours, at any priority: earlier releases used others."""
        return not rule.foreign and any(rule.protocol == known.protocol for known in (self.now, *self.before))

    def on_table(self, table: int) -> bool:
        """Whether a table is in one of our ranges."""
        return any(table in known.tables for known in (self.now, *self.before))


@functools.lru_cache(maxsize=64)
def marks_of(now: Numbering, before: frozenset[Numbering] = frozenset()) -> Marks:
    """The marks for these numbers: in force ``now``, and in force ``before``."""
    return Marks(now, before)


#: The marks for the default numbers.
MARKS = marks_of(Numbering())


@dataclass(frozen=True, slots=True)
class OwnEndpoint:
    """An endpoint that we added, as recorded under /run before it is written to the kernel.

    Ownership follows from address, interface, port and flags. The id alone proves nothing, since the kernel reuses ids: it is
    0 until the endpoint was seen in a dump, and must match from then on. An endpoint with other flags than ``flags`` and
    ``previous_flags`` is not ours: another program deleted ours and added its own. If its id is unchanged, and the flags
    differ only in those that can be changed in place, then ours may have been edited by hand (``ip mptcp endpoint change``):
    it is left unchanged, and is ours again once the change is undone.
    """

    address: str
    ifindex: int
    flags: EndpointFlag  #: written last
    previous_flags: EndpointFlag  #: written before; equal to ``flags`` once a dump has confirmed the change
    id: int = 0  #: 0: not seen in a dump yet
    port: int = 0

    @property
    def key(self) -> tuple[str, int, int]:
        """As :attr:`Endpoint.key`."""
        return (self.address, self.ifindex, self.port)

    def matches(self, endpoint: Endpoint) -> bool:
        """Whether that endpoint of the kernel is this one."""
        return (
            self.address == endpoint.address
            and self.key == endpoint.key
            and self.id in (0, endpoint.id)
            and endpoint.flags in (self.flags, self.previous_flags)
        )

    def is_edited(self, endpoint: Endpoint) -> bool:
        """Whether that endpoint of the kernel may be this one, with flags that another program changed in place."""
        return (
            self.address == endpoint.address
            and self.key == endpoint.key
            and self.id == endpoint.id
            and endpoint.flags not in (self.flags, self.previous_flags)
            and not (self.flags ^ endpoint.flags) & ~CHANGEABLE
        )


@dataclass(frozen=True, slots=True)
class SavedSetting:
    """A kernel setting that we changed: its value before our first change, and the value that we wrote."""

    original: int
    applied: int


@dataclass(frozen=True, slots=True)
class Ours:
    """What we changed in the kernel, as far as the kernel's state does not show it (routes and rules do: :class:`Marks`)."""

    endpoints: frozenset[OwnEndpoint] = frozenset()
    #: activations whose endpoints NetworkManager was seen to add: it owns them until the device's next activation
    claims: frozenset[str] = frozenset()
    #: "subflows" and "add_addr_accepted", if we raised them
    limits: Mapping[str, SavedSetting] = field(default_factory=dict)
    #: NetworkManager's endpoints that we deleted and will add again, with the same address, interface and flags
    withdrawn: frozenset[Endpoint] = frozenset()
    #: where we set ``ignore_routes_with_linkdown``, by (family, ifindex)
    linkdown: frozenset[tuple[Family, int]] = frozenset()
    #: the numbers that our routes and rules may carry: those in force, and earlier ones while any rule or route has them
    numberings: frozenset[Numbering] = frozenset()
    loosened: frozenset[int] = frozenset()  #: interfaces whose ``rp_filter`` we changed from 1 to 2

    def owns(self, endpoint: Endpoint) -> bool:
        """Whether this endpoint of the kernel is ours; see :class:`OwnEndpoint`."""
        return any(own.matches(endpoint) for own in self.endpoints)

    def is_edited(self, endpoint: Endpoint) -> bool:
        """Whether this endpoint of the kernel may be one of ours that was edited by hand; see :class:`OwnEndpoint`."""
        return any(own.is_edited(endpoint) for own in self.endpoints)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The input of policy: all that one decision depends on, besides the configuration."""

    kernel: Kernel
    networkmanager: NetworkManager
    ours: Ours = Ours()
    #: addresses whose endpoint NetworkManager has not added within 0.9 s: its add fails silently if the kernel's table is full
    overdue: frozenset[str] = frozenset()
    #: why the kernel refused an endpoint, by (address, ifindex); "": its table was full
    refused: Mapping[tuple[str, int], str] = field(default_factory=dict)
    #: the number of live MPTCP connections by the set of local addresses of their established subflows; None: not read
    connections: Mapping[frozenset[str], int] | None = None
    #: flapping links by ifindex, each with the delay of its return (s)
    damped: Mapping[int, float] = field(default_factory=dict)
    #: addresses whose endpoint is due to be re-added, as their subflows failed while it was in place
    subflow_retry_due: frozenset[str] = frozenset()
    #: addresses on a Wi-Fi with a weak signal
    weak: frozenset[str] = frozenset()
    #: the subflows that bypass full tunnels; None: not read
    bypass: TunnelBypass | None = None
    #: recently removed addresses of our endpoints whose activation continues: NetworkManager may add them again
    absent: frozenset[Address] = frozenset()
    #: the families that were below a full tunnel at the last decision: a kill switch may still be its end
    guarded: frozenset[Family] = frozenset()
    #: the links that are silent, or suspected to be
    silences: Mapping[Place, Silence] = field(default_factory=dict)
    #: the links by which packets are slow or lost, while those by another are not; only in mode ``interactive``
    poor: frozenset[Place] = frozenset()


@dataclass(frozen=True, slots=True)
class TunnelBypass:
    """The local addresses of subflows that do not go through a full tunnel."""

    #: the peer is not routed into the tunnel: the tunnel's own remote end, the local network
    allowed: frozenset[str] = frozenset()
    #: the peer is routed into the tunnel, but the subflow is bound to another device
    leaking: frozenset[str] = frozenset()


# --- the desired state ---------------------------------------------------------------------------------------------


class State(enum.StrEnum):
    """The state of an address."""

    ACTIVE = "active"  #: it is a path: endpoint, table and rules
    WAITING = "waiting"  #: it will be a path once a condition is met
    SUSPENDED = "suspended"  #: it is a path that should not carry traffic now
    EXCLUDED = "excluded"  #: it is no path


class FlagsFrom(enum.StrEnum):
    """Where a path's flags come from."""

    PROFILE = "profile"  #: the profile's ``connection.mptcp-flags``
    CONFIG = "config"  #: a section of nm-mptcp.conf
    KIND = "kind"  #: the kind of device, and the mode
    NETWORKMANAGER = "networkmanager"  #: NetworkManager's default for the device


class Owner(enum.StrEnum):
    """The program that adds and deletes the endpoint of a path."""

    OURS = "nm-mptcp"
    NETWORKMANAGER = "networkmanager"
    OTHER = "other"

    @property
    def label(self) -> str:
        """The name in texts for people."""
        return {"networkmanager": "NetworkManager", "other": "another program"}.get(self.value, self.value)


@dataclass(frozen=True, slots=True)
class Path:
    """The decision for one address, and its reason."""

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
    endpoint_id: int | None = None  #: of its endpoint in the kernel; None: there is none
    table: int | None = None  #: the table of our rules for this address; None: there are none
    gateway: str | None = None  #: of its default route; None: on-link, or no default route
    port: int = 0  #: announced with the address; 0: none

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return Family.of(self.address)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A full tunnel: it carries all traffic of a family."""

    name: str  #: text for people: "the tunnel wg0"
    interfaces: frozenset[int] = frozenset()  #: ifindexes; none for IPsec without an interface


@dataclass(frozen=True, slots=True)
class Desired:
    """The desired state of all that is ours in the kernel, and what the decision lacked."""

    paths: tuple[Path, ...] = ()
    endpoints: frozenset[Endpoint] = frozenset()  #: their ids are 0
    #: by (table, ifindex), as in :class:`Kernel`
    routes: Mapping[tuple[int, int], frozenset[Route]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()  #: those of one address in the order of their evaluation
    marks: Marks = MARKS  #: routes and rules with these marks that are not desired are deleted
    limits: Limits | None = None  #: None: unchanged
    claims: frozenset[str] = frozenset()  #: activations whose endpoints NetworkManager owns
    withdrawn: frozenset[Endpoint] = frozenset()  #: NetworkManager's endpoints to delete for now; their ids are 0
    #: addresses without an endpoint whose initial subflows are to be closed (a delete of id 0)
    close_initial_subflows: frozenset[str] = frozenset()
    #: addresses on which subflows are to be closed if their connection has an established one outside of
    #: :attr:`lost_addresses`
    close_redundant: frozenset[str] = frozenset()
    lost_addresses: frozenset[str] = frozenset()  #: addresses whose subflows do not count as alternatives
    stale: frozenset[Endpoint] = frozenset()  #: the kernel's own (implicit) endpoints to delete, for the slots of paths
    renewed: frozenset[str] = frozenset()  #: addresses whose endpoint is to be deleted and added again
    linkdown: frozenset[tuple[Family, int]] = frozenset()  #: where ``ignore_routes_with_linkdown`` is to be set
    loosened: frozenset[int] = frozenset()  #: interfaces whose ``rp_filter`` is not to be strict
    tunnels: Mapping[Family, Tunnel] = field(default_factory=dict)  #: the full tunnels that are guarded
    #: all tunnels, also split ones, whose connections are to get no subflow beside them (ifindexes, :data:`IPSEC`)
    stays_inside: frozenset[int] = frozenset()
    #: addresses below a full tunnel whose subflows and rules are to be deleted before anything else
    close_all: frozenset[str] = frozenset()
    needs_connections: bool = (
        False  #: decide again with :attr:`Snapshot.connections`: a live connection may depend on it
    )
    needs_bypass: bool = False  #: decide again with :attr:`Snapshot.bypass`: an endpoint below a full tunnel is to go
    #: the links whose silence would change anything, each with a local address to ask their peers from
    watched: Mapping[Place, str] = field(default_factory=dict)
    #: by full tunnel and family: the links below it, where there are several, so that it can be led around a silent one
    carriers: Mapping[Place, Carriers] = field(default_factory=dict)
    around: frozenset[Place] = frozenset()  #: the silent links that routes lead around
    depends_on_connections: bool = False  #: decide again when a connection or subflow is established or closed


# --- operations ----------------------------------------------------------------------------------------------------


class Action(enum.StrEnum):
    """What an operation does."""

    ADD = "add"
    REPLACE = "replace"
    DELETE = "delete"
    SET_FLAGS = "set-flags"
    SET = "set"
    CLOSE_REDUNDANT = "close-redundant"
    CLOSE_ALL = "close-all"


@dataclass(frozen=True, slots=True)
class LinkdownSetting:
    """A value of the sysctl ``ignore_routes_with_linkdown`` on an interface."""

    family: Family
    ifindex: int
    name: str
    ignored: bool


@dataclass(frozen=True, slots=True)
class ReversePathSetting:
    """A value of the sysctl ``rp_filter`` on an interface: 2 if it is loose, else 1."""

    ifindex: int
    name: str
    loose: bool


@dataclass(frozen=True, slots=True)
class RedundantSubflows:
    """The subflows on ``addresses`` whose connection has an established subflow on an address outside of ``lost``."""

    addresses: frozenset[str]
    lost: frozenset[str]


@dataclass(frozen=True, slots=True)
class LeakingSubflows:
    """All subflows on ``addresses``, except those whose peer is not routed into one of the tunnels."""

    addresses: frozenset[str]
    tunnels: Mapping[Family, Tunnel]


@dataclass(frozen=True, slots=True)
class Operation:
    """One write to the kernel. For SET_FLAGS ``value`` is the endpoint with its id and its new flags."""

    action: Action
    value: Endpoint | Route | Rule | Limits | LinkdownSetting | ReversePathSetting | RedundantSubflows | LeakingSubflows
