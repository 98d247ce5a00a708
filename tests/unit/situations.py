# SPDX-License-Identifier: GPL-2.0-or-later
"""Situations for the pure tests, told in few words: links, addresses, routes and what NetworkManager says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from nm_mptcp.config.settings import Config
from nm_mptcp.model.flags import EndpointFlag, ProfileFlag
from nm_mptcp.model.state import (
    MAIN_TABLE,
    RULE_PRIORITY,
    Address,
    AddressFlag,
    DefaultFlags,
    Device,
    DeviceState,
    DeviceType,
    Endpoint,
    Family,
    Hop,
    Kernel,
    Link,
    Metered,
    NetworkManager,
    Ours,
    OwnEndpoint,
    Place,
    Profile,
    Route,
    Rule,
    Silence,
    Snapshot,
    TunnelBypass,
)
from nm_mptcp.policy.source_routing import RoutedAddress, routing

ETHERNET, WIFI, BLUETOOTH, MODEM = DeviceType.ETHERNET, DeviceType.WIFI, DeviceType.BLUETOOTH, DeviceType.MODEM
BRIDGE, TUN, VETH, WIREGUARD = DeviceType.BRIDGE, DeviceType.TUN, DeviceType.VETH, DeviceType.WIREGUARD

#: What our drop-in says.
LEFT_TO_US = DefaultFlags(ProfileFlag.DISABLED, DefaultFlags.OUR_SECTION)

SUBFLOW = EndpointFlag.SUBFLOW
BACKUP = EndpointFlag.SUBFLOW | EndpointFlag.BACKUP


def grouped(routes: Iterable[Route]) -> dict[tuple[int, int], tuple[Route, ...]]:
    """Routes as :class:`Kernel` holds them: by table and interface."""
    groups: dict[tuple[int, int], list[Route]] = {}
    for route in routes:
        for ifindex in {hop.ifindex for hop in route.hops} or {0}:
            groups.setdefault((route.table, ifindex), []).append(route)
    return {key: tuple(group) for key, group in groups.items()}


def _typed(device: dict[str, Any]) -> dict[str, Any]:
    """NetworkManager's numbers as the client makes them of what D-Bus says."""
    kinds: dict[str, Callable[[int], Any]] = {"type": DeviceType, "metered": Metered}
    return {name: kinds[name](value) if name in kinds else value for name, value in device.items()}


def rules_of(address: str, table: int = 42000, priority: int = RULE_PRIORITY) -> tuple[Rule, ...]:
    """The rules of an address: the interface's prefixes, main's, the interface's default, the rejecting one."""
    made = routing(Kernel(), [RoutedAddress(address, 2, table)]).rules
    return tuple(replace(rule, priority=priority) for rule in made)


class Situation:
    """A laptop, built up step by step; :meth:`snapshot` is what policy sees."""

    def __init__(self, **kernel: Any) -> None:
        self.kernel = kernel
        self.links: dict[int, Link] = {}
        self.addresses: dict[int, list[Address]] = {}
        self.routes: list[Route] = []
        self.rules: list[Rule] = []
        self.endpoints: list[Endpoint] = []
        self.devices: dict[str, Device] = {}
        self.ours = Ours()
        self.version = "1.52.0"
        self.running = True
        self.startup = False
        self.silent = False
        self.overdue: frozenset[str] = frozenset()
        self.refused: dict[tuple[str, int], str] = {}
        self.connections: dict[frozenset[str], int] | None = {}
        self.damped: dict[int, float] = {}
        self.subflow_retry_due: frozenset[str] = frozenset()
        self.weak: frozenset[str] = frozenset()
        self.guarded: frozenset[Family] = frozenset()
        self.poor: frozenset[Place] = frozenset()
        self.silences: dict[Place, Silence] = {}
        self.bypass: TunnelBypass | None = TunnelBypass()
        self.absent: frozenset[Address] = frozenset()
        self.config = Config()
        self.vpn = False

    def link(
        self,
        name: str,
        *addresses: str,
        gateway: bool = True,
        metric: int = 100,
        flags: int = 0,
        by_networkmanager: bool = True,
        **device: Any,
    ) -> int:
        """An activated link with addresses (``A/LEN``), their on-link prefixes, and a default by each prefix's ``.1``."""
        ifindex = len(self.links) + 2
        self.links[ifindex] = Link(ifindex, name)
        self.addresses[ifindex] = []
        profile = device.pop("profile", {})
        self.devices[name] = Device(
            **{
                "interface": name,
                "ip_interface": name,
                "type": ETHERNET,
                "state": DeviceState.ACTIVATED,
                "activation": f":1.5/{ifindex}",
                "default_flags": LEFT_TO_US,
                "profile": Profile(**{"id": name, "uuid": f"uuid-{name}", "type": "802-3-ethernet", **profile})
                if profile is not None
                else None,
                **_typed(device),
            }
        )
        for address in addresses:
            self.address(
                ifindex, address, flags=flags, gateway=gateway, metric=metric, by_networkmanager=by_networkmanager
            )
        return ifindex

    def address(
        self,
        ifindex: int,
        text: str,
        *,
        flags: int = 0,
        scope: int = 0,
        gateway: bool = True,
        metric: int = 100,
        by_networkmanager: bool = True,
        preferred: int | None = None,
        read: float = 0.0,
    ) -> None:
        """One more address of a link; its default goes into the table that the profile puts its routes in."""
        address, length = text.split("/")
        if by_networkmanager:
            flags |= AddressFlag.NOPREFIXROUTE
        added = Address(ifindex, address, int(length), scope, AddressFlag(flags), preferred=preferred, read=read)
        self.addresses[ifindex].append(added)
        family = Family.of(address)
        profile = self.devices[self.links[ifindex].name].profile
        table = profile.route_table(family) if profile else MAIN_TABLE
        separator = "." if family is Family.IPV4 else ":"
        prefix = address.rsplit(separator, 1)[0]
        network = f"{prefix}.0/{length}" if family is Family.IPV4 else f"{prefix}:/{length}"
        wanted = [Route(network, table, (Hop(ifindex),), protocol=2, scope=253, metric=metric)]
        if gateway:
            wanted.append(
                Route(family.default, table, (Hop(ifindex, f"{prefix}{separator}1"),), protocol=16, metric=metric)
            )
        self.routes += [route for route in wanted if route not in self.routes]

    def endpoint(
        self, address: str, ifindex: int, flags: EndpointFlag = SUBFLOW, *, ours: bool, port: int = 0
    ) -> Endpoint:
        """An endpoint that is in the kernel."""
        endpoint = Endpoint(address, ifindex, flags, len(self.endpoints) + 1, port)
        self.endpoints.append(endpoint)
        if ours:
            own = OwnEndpoint(address, ifindex, flags, flags, endpoint.id, port)
            self.ours = replace(self.ours, endpoints=self.ours.endpoints | {own})
        return endpoint

    def device(self, name: str, **changes: Any) -> None:
        """Change what NetworkManager says of a device."""
        self.devices[name] = replace(self.devices[name], **_typed(changes))

    def snapshot(self) -> Snapshot:
        """All of it, as one look."""
        kernel = Kernel(
            links=self.links,
            addresses={ifindex: tuple(addresses) for ifindex, addresses in self.addresses.items()},
            routes=grouped(self.routes),
            rules=tuple(self.rules),
            endpoints=tuple(self.endpoints),
            **{
                "linkdown_ignored": {(family, ifindex): False for ifindex in self.links for family in Family},
                **self.kernel,
            },
        )
        networkmanager = NetworkManager(
            self.running,
            self.startup,
            self.version,
            tuple(self.devices.values()),
            vpn=self.vpn,
            silent=self.silent,
        )
        return Snapshot(
            kernel,
            networkmanager,
            self.ours,
            self.overdue,
            self.refused,
            self.connections,
            self.damped,
            self.subflow_retry_due,
            self.weak,
            self.bypass,
            self.absent,
            silences=self.silences,
            poor=self.poor,
            guarded=self.guarded,
        )
