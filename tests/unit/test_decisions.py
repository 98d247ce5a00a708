# SPDX-License-Identifier: GPL-2.0-or-later
"""For each situation with several links: the state of each address, the rule that decided, and the flags.

With the table for one link (``ONE_LINK``) every rule has at least one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from nm_mptcp.config.selector import Selector
from nm_mptcp.config.settings import Config, Failover, IPv6Address, MeteredPolicy, PathSection, RoamingPolicy, Setting
from nm_mptcp.model.flags import EndpointFlag, ProfileFlag
from nm_mptcp.model.reasons import Why
from nm_mptcp.model.state import (
    Connectivity,
    DefaultFlags,
    DeviceState,
    Egress,
    Family,
    Mode,
    Place,
    Silence,
    State,
    TunnelBypass,
)
from nm_mptcp.nmsyntax.device_match import DeviceMatch
from nm_mptcp.policy.decide import decide

from .situations import BACKUP, BLUETOOTH, BRIDGE, ETHERNET, MODEM, SUBFLOW, TUN, WIFI, Situation
from .test_policy import ONE_LINK

#: The addresses on the Wi-Fi, the cellular, the wired and the Bluetooth link.
W, C, E, B = "10.0.1.2", "10.0.2.2", "10.0.3.2", "10.0.4.2"
W6, C6, E6 = "2001:db8:1::2", "2001:db8:2::2", "2001:db8:3::2"
#: The inner address of a tunnel.
T = "10.8.0.2"
NO_FLAG = EndpointFlag(0)

DEFAULTS = Config()
NO_METERED = Config(metered=MeteredPolicy.EXCLUDE)
METERED_AS_ANY = Config(metered=MeteredPolicy.IGNORE)
ROAMING_IN_RESERVE = Config(roaming=RoamingPolicy.BACKUP)
NO_FAILOVER = Config(failover=Failover.OFF)
SAFE_FAILOVER = Config(failover=Failover.SAFE)
INTERACTIVE = Config(mode=Mode.INTERACTIVE)
AGGREGATE = Config(mode=Mode.AGGREGATE)
ROAMING_AS_ANY = Config(roaming=RoamingPolicy.IGNORE)
ONE_MAY_ROAM = Config(
    sections=(
        PathSection(
            "path-lte",
            Selector(device=DeviceMatch.parse("interface-name:wwan0")),
            {"roaming": Setting(RoamingPolicy.IGNORE)},
        ),
    )
)

SILENCE_IGNORED = Config(sections=(PathSection("path-all", Selector(), {"silent_links": Setting(False)}),))
PRIVATE = Config(sections=(PathSection("path-private", Selector(), {"ipv6_address": Setting(IPv6Address.TEMPORARY)}),))

Found = tuple[State, Why, EndpointFlag]


@dataclass(frozen=True)
class Row:
    """A situation, and the decision for each of these addresses."""

    situation: Situation
    decided: dict[str, Found]
    config: Config = DEFAULTS


class Laptop(Situation):
    """Links in few words; with ``standing`` their endpoints are in the kernel, as they would be by default."""

    def __init__(self, *, standing: bool = False, **kernel: object) -> None:
        super().__init__(**kernel)
        self.standing = standing

    def _with(self, name: str, usual: EndpointFlag, /, *addresses: str, **options: object) -> Laptop:
        ifindex = self.link(name, *addresses, **options)  # type: ignore[arg-type]
        for address in addresses if self.standing else ():
            self.endpoint(address.split("/")[0], ifindex, usual, ours=True)
        return self

    def wifi(self, *addresses: str, **options: object) -> Laptop:
        return self._with("wlan0", SUBFLOW, *(addresses or (f"{W}/24",)), **{"type": WIFI, "metric": 600} | options)

    def cellular(self, *addresses: str, **options: object) -> Laptop:
        return self._with("wwan0", BACKUP, *(addresses or (f"{C}/24",)), **{"type": MODEM, "metric": 700} | options)

    def wired(self, *addresses: str, **options: object) -> Laptop:
        return self._with("eth0", SUBFLOW, *(addresses or (f"{E}/24",)), **{"type": ETHERNET, "metric": 100} | options)

    def bluetooth(self, **options: object) -> Laptop:
        return self._with("bt0", BACKUP, f"{B}/24", **{"type": BLUETOOTH, "metric": 750} | options)

    def with_(self, **facts: Any) -> Laptop:
        for name, value in facts.items():
            setattr(self, name, value)
        return self

    def fading(self, *addresses: str) -> Laptop:
        return self.with_(weak=frozenset(addresses or (W,)))

    def unanswered(self, *addresses: str, confirmed: bool = True) -> Laptop:
        """Nothing that is sent by the links of these addresses is answered."""
        places = {
            Place(Family.of(address), index)
            for index, present in self.addresses.items()
            for address in addresses or (W,)
            if address in {each.address for each in present}
        }
        return self.with_(silences=dict.fromkeys(places, Silence(confirmed, "2 peers unanswered for 1.0 s")))

    def poorly(self) -> Laptop:
        """Packets by the Wi-Fi are slow."""
        (wifi,) = (index for index, link in self.links.items() if link.name == "wlan0")
        return self.with_(poor=frozenset({Place(Family.IPV4, wifi)}))

    def carrying(self, *places: tuple[str, ...]) -> Laptop:
        """Live connections, each with subflows on these addresses."""
        return self.with_(connections={frozenset(place): 1 for place in places})

    def tunnelled(self, *families: Family, kind: str = "tun", **device: Any) -> Laptop:
        """With a full tunnel for these families (IPv4 by default)."""
        tunnel = self.link("tun0", f"{T}/24", gateway=False, **{"type": TUN, "external": True} | device)
        self.links[tunnel] = replace(self.links[tunnel], kind=kind)
        self.kernel["egress"] = {family: (Egress(tunnel),) * 2 for family in families or (Family.IPV4,)}
        return self

    def lost(self, name: str, **change: bool) -> Laptop:
        ifindex = next(index for index, link in self.links.items() if link.name == name)
        self.links[ifindex] = replace(self.links[ifindex], **(change or {"carrier": False}))
        return self


def profile(flags: int) -> dict[str, object]:
    return {"profile": {"mptcp_flags": ProfileFlag(flags)}}


def wired_beside(laptop: Laptop) -> Laptop:
    """With a wired link that has no endpoint yet."""
    laptop.standing = False
    return laptop.wired()


def owned(laptop: Laptop, address: str, name: str, flags: EndpointFlag) -> Laptop:
    """With NetworkManager's endpoint, or another program's, on that address."""
    ifindex = next(index for index, link in laptop.links.items() if link.name == name)
    laptop.endpoint(address, ifindex, flags, ours=False)
    return laptop


def active(why: Why, flags: EndpointFlag) -> Found:
    return State.ACTIVE, why, flags


def excluded(why: Why, flags: EndpointFlag = NO_FLAG) -> Found:
    return State.EXCLUDED, why, flags


REGULAR = active(Why.FLAGS_OF_KIND, SUBFLOW)
RESERVE = active(Why.FLAGS_OF_KIND, BACKUP)
SILENT: Found = (State.SUSPENDED, Why.SILENT, BACKUP)
GUARDED: Found = (State.SUSPENDED, Why.VPN_GUARD, SUBFLOW)
GUARDED_RESERVE: Found = (State.SUSPENDED, Why.VPN_GUARD, BACKUP)

ROWS: dict[str, Callable[[], Row]] = {
    # below a tunnel
    "VPN": lambda: Row(Laptop(standing=True).wifi().cellular().tunnelled(), {W: GUARDED, C: GUARDED_RESERVE}),
    "VPN, endpoints gone": lambda: Row(Laptop().wifi().tunnelled(), {W: GUARDED, T: excluded(Why.EXTERNAL)}),
    "VPN of IPv6": lambda: Row(
        Laptop(standing=True).wifi(f"{W}/24", f"{W6}/64").tunnelled(Family.IPV6), {W: REGULAR, W6: GUARDED}
    ),
    "VPN of both": lambda: Row(
        Laptop(standing=True).wifi(f"{W}/24", f"{W6}/64").tunnelled(*Family), {W: GUARDED, W6: GUARDED}
    ),
    "VPN, vpn-guard=no": lambda: Row(Laptop(standing=True).wifi().tunnelled(), {W: REGULAR}, Config(vpn_guard=False)),
    "VPN, flags of the profile": lambda: Row(
        owned(Laptop().wifi().cellular(**profile(0x22)).tunnelled(), C, "wwan0", SUBFLOW), {C: GUARDED}
    ),
    "VPN, somebody else's endpoint": lambda: Row(
        owned(Laptop().wifi().tunnelled(), W, "wlan0", EndpointFlag.SIGNAL),
        {W: active(Why.SOMEBODY_ELSE_OWNS, EndpointFlag.SIGNAL)},
    ),
    "VPN with flags of its own": lambda: Row(
        owned(Laptop().wifi().tunnelled(external=False, **profile(0x22)), T, "tun0", SUBFLOW),
        {W: GUARDED, T: active(Why.FLAGS_OF_PROFILE, SUBFLOW)},
    ),
    "VPN, no carrier": lambda: Row(
        Laptop(standing=True).wifi().cellular().tunnelled().lost("wlan0"), {W: GUARDED, C: GUARDED_RESERVE}
    ),
    "VPN, roaming": lambda: Row(Laptop().cellular(roaming=True).tunnelled(), {C: excluded(Why.ROAMING, BACKUP)}),
    "VPN, roaming, endpoint standing": lambda: Row(
        Laptop(standing=True).cellular(roaming=True).tunnelled(), {C: GUARDED_RESERVE}
    ),
    "VPN over a connection of its own": lambda: Row(
        Laptop(standing=True).wifi().cellular().tunnelled().with_(bypass=TunnelBypass(frozenset({W}))),
        {W: (State.SUSPENDED, Why.KEPT_BESIDE_TUNNEL, SUBFLOW), C: GUARDED_RESERVE},
    ),
    "a bridge with the best route is no VPN": lambda: Row(
        Laptop(standing=True).wifi().tunnelled(kind="bridge", type=BRIDGE), {W: REGULAR}
    ),
    # cost: roaming
    "home": lambda: Row(Laptop().wifi().cellular(), {W: REGULAR, C: RESERVE}),
    "roaming": lambda: Row(Laptop().wifi().cellular(roaming=True), {W: REGULAR, C: excluded(Why.ROAMING, BACKUP)}),
    "roaming, endpoint standing": lambda: Row(
        Laptop(standing=True).wifi().cellular(roaming=True), {W: REGULAR, C: excluded(Why.ROAMING, BACKUP)}
    ),
    "roaming, a connection stands on both": lambda: Row(
        Laptop(standing=True).wifi().cellular(roaming=True).carrying((W, C)), {C: excluded(Why.ROAMING, BACKUP)}
    ),
    "roaming, a connection stands there alone": lambda: Row(
        Laptop(standing=True).wifi().cellular(roaming=True).carrying((C,)),
        {W: REGULAR, C: (State.SUSPENDED, Why.KEPT_FOR_CONNECTIONS, BACKUP)},
    ),
    "roaming, nothing else, endpoint standing": lambda: Row(
        Laptop(standing=True).cellular(roaming=True), {C: active(Why.KEPT_LAST, BACKUP)}
    ),
    "roaming, nothing else": lambda: Row(Laptop().cellular(roaming=True), {C: excluded(Why.ROAMING, BACKUP)}),
    "roaming, the Wi-Fi is lost": lambda: Row(
        Laptop(standing=True).wifi().cellular(roaming=True).lost("wlan0"),
        {W: active(Why.KEPT_LAST, SUBFLOW), C: active(Why.KEPT_LAST, BACKUP)},
    ),
    "roaming=backup": lambda: Row(Laptop().wifi().cellular(roaming=True), {C: RESERVE}, ROAMING_IN_RESERVE),
    "roaming=backup, of what would be regular": lambda: Row(
        Laptop().wifi().wired(roaming=True), {E: active(Why.ROAMING_BACKUP, BACKUP)}, ROAMING_IN_RESERVE
    ),
    "roaming=ignore": lambda: Row(Laptop().wifi().cellular(roaming=True), {C: RESERVE}, ROAMING_AS_ANY),
    "roaming=ignore for this one": lambda: Row(Laptop().wifi().cellular(roaming=True), {C: RESERVE}, ONE_MAY_ROAM),
    "roaming, flags of the profile": lambda: Row(
        owned(Laptop().wifi().cellular(roaming=True, **profile(0x22)), C, "wwan0", SUBFLOW),
        {C: active(Why.FLAGS_OF_PROFILE, SUBFLOW)},
    ),
    "roaming, flags of NetworkManager's configuration": lambda: Row(
        Laptop().wifi().cellular(roaming=True, default_flags=DefaultFlags(ProfileFlag(0x62), "connection-wwan")),
        {C: (State.WAITING, Why.WAITS_FOR_NETWORKMANAGER, BACKUP)},
    ),
    "roaming, but no default route yet": lambda: Row(
        Laptop().wifi().cellular(roaming=True, gateway=False), {C: (State.WAITING, Why.NO_DEFAULT_ROUTE, BACKUP)}
    ),
    "roaming, failover=off": lambda: Row(
        Laptop(standing=True).wifi().cellular(roaming=True), {C: excluded(Why.ROAMING, BACKUP)}, NO_FAILOVER
    ),
    "roaming, failover=safe": lambda: Row(
        Laptop(standing=True).wifi().cellular(roaming=True), {C: excluded(Why.ROAMING, BACKUP)}, SAFE_FAILOVER
    ),
    "two modems roam": lambda: Row(
        Laptop(standing=True).cellular(roaming=True).bluetooth(roaming=True),
        {C: active(Why.KEPT_LAST, BACKUP), B: active(Why.KEPT_LAST, BACKUP)},
    ),
    # cost: metered
    "metered": lambda: Row(Laptop().wifi(metered=1).wired(), {W: active(Why.METERED_BACKUP, BACKUP), E: REGULAR}),
    "guessed to be metered": lambda: Row(Laptop().wifi(metered=3).wired(), {W: active(Why.METERED_BACKUP, BACKUP)}),
    "metered cellular": lambda: Row(Laptop().wifi().cellular(metered=3), {C: RESERVE}),
    "metered=ignore": lambda: Row(Laptop().wifi(metered=1).wired(), {W: REGULAR}, METERED_AS_ANY),
    "metered=ignore, cellular": lambda: Row(Laptop().wifi().cellular(metered=1), {C: RESERVE}, METERED_AS_ANY),
    "metered=exclude": lambda: Row(
        Laptop().wifi(metered=1).wired(), {W: excluded(Why.METERED, BACKUP), E: REGULAR}, NO_METERED
    ),
    "metered=exclude, a connection stands there alone": lambda: Row(
        Laptop(standing=True).wifi(metered=1).wired().carrying((W,)),
        {W: (State.SUSPENDED, Why.KEPT_FOR_CONNECTIONS, BACKUP)},
        NO_METERED,
    ),
    "metered=exclude, nothing else": lambda: Row(
        Laptop(standing=True).wifi(metered=1), {W: active(Why.KEPT_LAST, BACKUP)}, NO_METERED
    ),
    "metered=exclude, guessed not to be": lambda: Row(Laptop().wifi(metered=4).wired(), {W: REGULAR}, NO_METERED),
    "metered=exclude, flags of the profile": lambda: Row(
        owned(Laptop().wifi(metered=1, **profile(0x22)).wired(), W, "wlan0", SUBFLOW),
        {W: active(Why.FLAGS_OF_PROFILE, SUBFLOW)},
        NO_METERED,
    ),
    # Wi-Fi going weak
    "weak, and another is regular": lambda: Row(
        Laptop().wifi().wired().fading(), {W: active(Why.WEAK_SIGNAL, BACKUP), E: REGULAR}
    ),
    "weak, and another is in reserve": lambda: Row(
        Laptop().wifi().cellular().fading(), {W: active(Why.WEAK_SIGNAL, BACKUP), C: active(Why.RELIEVES, SUBFLOW)}
    ),
    "weak, another is regular and one in reserve": lambda: Row(
        Laptop().wifi().wired().cellular().fading(), {W: active(Why.WEAK_SIGNAL, BACKUP), E: REGULAR, C: RESERVE}
    ),
    "weak, two are in reserve: the one that costs nothing relieves it": lambda: Row(
        Laptop().wifi().cellular(metered=3).bluetooth(metered=4).fading(),
        {W: active(Why.WEAK_SIGNAL, BACKUP), C: RESERVE, B: active(Why.RELIEVES, SUBFLOW)},
    ),
    "weak, two are in reserve and cost: the better metric relieves it": lambda: Row(
        Laptop().wifi().bluetooth(metered=3).cellular(metered=3).fading(),
        {W: active(Why.WEAK_SIGNAL, BACKUP), C: active(Why.RELIEVES, SUBFLOW), B: RESERVE},
    ),
    "weak and alone": lambda: Row(Laptop().wifi().fading(), {W: REGULAR}),
    "weak, the other roams": lambda: Row(
        Laptop().wifi().cellular(roaming=True).fading(), {W: REGULAR, C: excluded(Why.ROAMING, BACKUP)}
    ),
    "weak, the other roams in reserve": lambda: Row(
        Laptop().wifi().cellular(roaming=True).fading(), {W: REGULAR, C: RESERVE}, ROAMING_IN_RESERVE
    ),
    "weak, the other is metered and excluded": lambda: Row(
        Laptop().wifi().cellular(metered=3).fading(), {W: REGULAR, C: excluded(Why.METERED, BACKUP)}, NO_METERED
    ),
    "weak, flags of the profile": lambda: Row(
        owned(Laptop().wifi(**profile(0x22)).cellular().fading(), W, "wlan0", SUBFLOW),
        {W: active(Why.FLAGS_OF_PROFILE, SUBFLOW), C: RESERVE},
    ),
    "weak, the profile of the other says backup": lambda: Row(
        owned(Laptop().wifi().cellular(**profile(0x62)).fading(), C, "wwan0", BACKUP),
        {W: REGULAR, C: active(Why.FLAGS_OF_PROFILE, BACKUP)},
    ),
    "weak, the profile of the other says regular": lambda: Row(
        owned(Laptop().wifi().cellular(**profile(0x22)).fading(), C, "wwan0", SUBFLOW),
        {W: active(Why.WEAK_SIGNAL, BACKUP), C: active(Why.FLAGS_OF_PROFILE, SUBFLOW)},
    ),
    "weak, the other takes no subflows": lambda: Row(
        owned(Laptop().wifi().cellular(**profile(0x12)).fading(), C, "wwan0", EndpointFlag.SIGNAL),
        {W: REGULAR, C: active(Why.FLAGS_OF_PROFILE, EndpointFlag.SIGNAL)},
    ),
    "weak, the other is weak as well": lambda: Row(
        Laptop().wifi().wired(type=WIFI).fading(W, E), {W: REGULAR, E: REGULAR}
    ),
    "weak, the other has no carrier": lambda: Row(
        Laptop(standing=True).wifi().wired().fading().lost("eth0"),
        {W: REGULAR, E: (State.SUSPENDED, Why.NO_CARRIER, SUBFLOW)},
    ),
    "weak, the other is behind a portal": lambda: Row(
        Laptop(standing=True)
        .wifi(ipv4_connectivity=Connectivity.FULL)
        .wired(ipv4_connectivity=Connectivity.PORTAL)
        .fading(),
        {W: REGULAR, E: (State.SUSPENDED, Why.NO_CONNECTIVITY, BACKUP)},
    ),
    "weak and metered: it was in reserve anyway": lambda: Row(
        Laptop().wifi(metered=3).cellular().fading(),
        {W: active(Why.METERED_BACKUP, BACKUP), C: active(Why.RELIEVES, SUBFLOW)},
    ),
    "weak, the other has only IPv4": lambda: Row(
        Laptop().wifi(f"{W}/24", f"{W6}/64").cellular().fading(W, W6),
        {W: active(Why.WEAK_SIGNAL, BACKUP), W6: REGULAR, C: active(Why.RELIEVES, SUBFLOW)},
    ),
    "weak, in both families": lambda: Row(
        Laptop().wifi(f"{W}/24", f"{W6}/64").cellular(f"{C}/24", f"{C6}/64").fading(W, W6),
        {W6: active(Why.WEAK_SIGNAL, BACKUP), C6: active(Why.RELIEVES, SUBFLOW)},
    ),
    "weak, NetworkManager away": lambda: Row(
        Laptop(standing=True).wifi().cellular().fading().with_(running=False, devices={}),
        {W: active(Why.KEPT_NETWORKMANAGER_AWAY, SUBFLOW), C: active(Why.KEPT_NETWORKMANAGER_AWAY, BACKUP)},
    ),
    # silence
    "silent": lambda: Row(Laptop(standing=True).wifi().wired().unanswered(), {W: SILENT, E: REGULAR}),
    "silence that is only suspected": lambda: Row(
        Laptop(standing=True).wifi().wired().unanswered(confirmed=False),
        {W: active(Why.SEEMS_SILENT, BACKUP), E: REGULAR},
    ),
    "silence that is only suspected, of a path in reserve": lambda: Row(
        Laptop(standing=True).wifi().cellular().unanswered(C, confirmed=False), {W: REGULAR, C: RESERVE}
    ),
    "silent, the other is in reserve": lambda: Row(
        Laptop(standing=True).wifi().cellular().unanswered(), {W: SILENT, C: active(Why.RELIEVES_SILENT, SUBFLOW)}
    ),
    "silent and alone": lambda: Row(Laptop(standing=True).wifi().unanswered(), {W: REGULAR}),
    "silent, the other is lost": lambda: Row(
        Laptop(standing=True).wifi().wired().unanswered().lost("eth0"),
        {W: REGULAR, E: (State.SUSPENDED, Why.NO_CARRIER, SUBFLOW)},
    ),
    "all are silent": lambda: Row(Laptop(standing=True).wifi().wired().unanswered(W, E), {W: REGULAR, E: REGULAR}),
    "silent, the other is excluded": lambda: Row(
        Laptop(standing=True).wifi().cellular(metered=1).unanswered(), {W: REGULAR}, NO_METERED
    ),
    "silent, flags of the profile": lambda: Row(
        owned(Laptop().wifi(**profile(0x32)).wired().unanswered(), W, "wlan0", SUBFLOW | EndpointFlag.SIGNAL),
        {W: (State.SUSPENDED, Why.SILENT, SUBFLOW | EndpointFlag.SIGNAL), E: REGULAR},
    ),
    "silent, it need not be noticed": lambda: Row(
        Laptop(standing=True).wifi().wired().unanswered(), {W: REGULAR, E: REGULAR}, SILENCE_IGNORED
    ),
    "silent, failover off": lambda: Row(
        Laptop(standing=True).wifi().wired().unanswered(), {W: REGULAR, E: REGULAR}, NO_FAILOVER
    ),
    "silent in one family": lambda: Row(
        Laptop(standing=True).wifi(f"{W}/24", f"{W6}/64").wired(f"{E}/24", f"{E6}/64").unanswered(W6),
        {W: REGULAR, W6: SILENT, E: REGULAR, E6: REGULAR},
    ),
    # poor links
    "poor, the other is in reserve": lambda: Row(
        Laptop().wifi().cellular().poorly(), {W: REGULAR, C: active(Why.SHARES_LOAD, SUBFLOW)}, INTERACTIVE
    ),
    "poor, another is regular": lambda: Row(
        Laptop().wifi().cellular().wired().poorly(), {W: REGULAR, C: RESERVE, E: REGULAR}, INTERACTIVE
    ),
    "poor, the other roams": lambda: Row(
        Laptop().wifi().cellular(roaming=True).poorly(),
        {W: REGULAR, C: RESERVE},
        replace(ROAMING_IN_RESERVE, mode=Mode.INTERACTIVE),
    ),
    "poor, the profile of the other says backup": lambda: Row(
        owned(Laptop().wifi().wired(**profile(0x62)).poorly(), E, "eth0", BACKUP),
        {W: REGULAR, E: active(Why.FLAGS_OF_PROFILE, BACKUP)},
        INTERACTIVE,
    ),
    # modes, and what they do not change
    "handover": lambda: Row(
        Laptop().wifi().cellular().wired(),
        {W: active(Why.MODE, BACKUP), C: active(Why.MODE, BACKUP), E: active(Why.MODE, SUBFLOW)},
        Config(mode=Mode.HANDOVER),
    ),
    "handover, the best one weak": lambda: Row(
        Laptop().wifi().cellular().fading(),
        {W: active(Why.WEAK_SIGNAL, BACKUP), C: active(Why.RELIEVES, SUBFLOW)},
        Config(mode=Mode.HANDOVER),
    ),
    "aggregate": lambda: Row(
        Laptop().wifi().cellular(metered=3), {W: active(Why.MODE, SUBFLOW), C: active(Why.MODE, SUBFLOW)}, AGGREGATE
    ),
    "aggregate, one weak": lambda: Row(
        Laptop().wifi().cellular().fading(),
        {W: active(Why.WEAK_SIGNAL, BACKUP), C: active(Why.MODE, SUBFLOW)},
        AGGREGATE,
    ),
    "aggregate, one roams": lambda: Row(
        Laptop().wifi().cellular(roaming=True), {C: excluded(Why.ROAMING, SUBFLOW)}, AGGREGATE
    ),
    "aggregate, roaming=backup": lambda: Row(
        Laptop().wifi().wired(roaming=True),
        {W: active(Why.MODE, SUBFLOW), E: active(Why.ROAMING_BACKUP, BACKUP)},
        Config(mode=Mode.AGGREGATE, roaming=RoamingPolicy.BACKUP),
    ),
    "off": lambda: Row(Laptop().wifi(), {W: excluded(Why.MODE_OFF, SUBFLOW)}, Config(mode=Mode.OFF)),
    "off, roaming, endpoint standing": lambda: Row(
        Laptop(standing=True).cellular(roaming=True), {C: excluded(Why.MODE_OFF, BACKUP)}, Config(mode=Mode.OFF)
    ),
    # links that come and go
    "no carrier": lambda: Row(
        Laptop(standing=True).wifi().wired().lost("eth0"),
        {W: REGULAR, E: (State.SUSPENDED, Why.NO_CARRIER, SUBFLOW)},
    ),
    "interface down": lambda: Row(
        Laptop(standing=True).wifi().wired().lost("eth0", up=False, carrier=False),
        {E: (State.SUSPENDED, Why.LINK_DOWN, SUBFLOW)},
    ),
    "no carrier, nothing else": lambda: Row(
        Laptop(standing=True).wired().lost("eth0"), {E: active(Why.KEPT_LAST, SUBFLOW)}
    ),
    "no carrier, a connection stands there alone": lambda: Row(
        Laptop(standing=True).wifi().wired().lost("eth0").carrying((E,)),
        {E: (State.SUSPENDED, Why.KEPT_FOR_CONNECTIONS, SUBFLOW)},
    ),
    "no carrier on the Wi-Fi, cellular in reserve": lambda: Row(
        Laptop(standing=True).wifi().cellular().lost("wlan0"),
        {W: (State.SUSPENDED, Why.NO_CARRIER, SUBFLOW), C: RESERVE},
    ),
    "held back": lambda: Row(
        Laptop().wifi().wired().with_(damped={3: 2.0}), {W: REGULAR, E: (State.SUSPENDED, Why.HELD_BACK, SUBFLOW)}
    ),
    "going down beside another": lambda: Row(
        Laptop(standing=True).wifi().wired(state=DeviceState.DEACTIVATING),
        {E: (State.SUSPENDED, Why.DEACTIVATING, SUBFLOW)},
    ),
    "behind a portal, endpoint standing": lambda: Row(
        Laptop(standing=True).wifi(ipv4_connectivity=Connectivity.PORTAL).wired(ipv4_connectivity=Connectivity.FULL),
        {W: (State.SUSPENDED, Why.NO_CONNECTIVITY, BACKUP), E: REGULAR},
    ),
    "behind a portal, new": lambda: Row(
        Laptop().wifi(ipv4_connectivity=Connectivity.PORTAL).wired(ipv4_connectivity=Connectivity.FULL),
        {W: (State.WAITING, Why.NO_CONNECTIVITY, SUBFLOW)},
    ),
    # who makes the endpoint, and where there is a place for it
    "somebody else's endpoint": lambda: Row(
        owned(Laptop().wifi(), W, "wlan0", EndpointFlag.SIGNAL),
        {W: active(Why.SOMEBODY_ELSE_OWNS, EndpointFlag.SIGNAL)},
    ),
    "NetworkManager's since before": lambda: Row(
        owned(Laptop().wifi(), W, "wlan0", SUBFLOW), {W: active(Why.NETWORKMANAGER_OWNS, SUBFLOW)}
    ),
    "NetworkManager's by its default": lambda: Row(
        owned(Laptop().wifi(default_flags=DefaultFlags()), W, "wlan0", SUBFLOW),
        {W: active(Why.FLAGS_OF_NETWORKMANAGER, SUBFLOW)},
    ),
    "refused": lambda: Row(Laptop().wifi().with_(refused={(W, 2): "no"}), {W: (State.WAITING, Why.REFUSED, SUBFLOW)}),
    "the same address twice": lambda: Row(Laptop(standing=True).wifi().wired(f"{W}/24"), {}),
    "more places than links": lambda: Row(Laptop(endpoints_max=2).wifi().wired(), {W: REGULAR, E: REGULAR}),
    "one place, and a connection needs it where it is": lambda: Row(
        wired_beside(Laptop(standing=True, endpoints_max=1).wifi().carrying((W,))),
        {W: active(Why.KEPT_FOR_CONNECTIONS, SUBFLOW), E: excluded(Why.NO_SLOT, SUBFLOW)},
    ),
    "a stable address where temporary ones are chosen": lambda: Row(
        Laptop().wifi(f"{W6}/64"), {W6: excluded(Why.STABLE, SUBFLOW)}, PRIVATE
    ),
    "a temporary address where they are chosen": lambda: Row(
        Laptop().wifi(f"{W6}/64", flags=0x01), {W6: REGULAR}, PRIVATE
    ),
    "one place, two links": lambda: Row(
        Laptop(endpoints_max=1).wifi().wired(), {W: excluded(Why.NO_SLOT, SUBFLOW), E: REGULAR}
    ),
    "a deprecated address, its successor without an endpoint": lambda: Row(
        Laptop(standing=True).wifi(f"{W6}/64", flags=0x20), {W6: active(Why.KEPT_LAST, SUBFLOW)}
    ),
    "a deprecated address beside another link": lambda: Row(
        Laptop(standing=True).wifi(f"{W6}/64", flags=0x20).cellular(f"{C6}/64").carrying((W6,)),
        {W6: active(Why.KEPT_UNTIL_REPLACED, SUBFLOW), C6: RESERVE},
    ),
    "no default route any more, beside another": lambda: Row(
        Laptop().wifi(gateway=False).wired(), {W: (State.WAITING, Why.NO_DEFAULT_ROUTE, SUBFLOW), E: REGULAR}
    ),
}

#: Rules that need more than a row here, and where they are.
ELSEWHERE = {
    Why.TWICE: "test_policy: an address on two interfaces",
    Why.FLAGS_OF_CONFIGURATION: "test_config_policy",
    Why.DISABLED_BY_CONFIGURATION: "test_config_policy",
    Why.FLAGS_BY_HAND: "test_policy: what was changed by hand",
    Why.ADDRESS_AWAY: "test_wills: back and its address not yet",
    Why.NO_LONGER_CHOSEN: "test_config_policy: the unchosen address",
    **dict.fromkeys(
        (Why.NO_WAY, Why.NO_UPLINK, Why.OWN_NETWORK, Why.REFUSES_DEFAULT, Why.ENDPOINT_ELSEWHERE),
        "test_reachability: trouble of a path",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_each_address_of_several(name: str) -> None:
    row = ROWS[name]()
    desired = decide(row.situation.snapshot(), row.config)
    found = {path.address: (path.state, path.reason.why, path.flags) for path in desired.paths}
    assert {address: found[address] for address in row.decided} == row.decided
    assert all(str(path.reason) for path in desired.paths)


def test_the_tables_have_a_row_for_every_rule() -> None:
    decided = [found for row in ROWS.values() for found in row().decided.values()]
    covered = {why for _, why, _ in decided} | {row[2] for row in ONE_LINK.values()}
    assert set(Why) - covered == set(ELSEWHERE) - covered
    assert len(ONE_LINK) + len(ROWS) >= 80


# --- subflows on a link that costs money


@pytest.mark.parametrize("config", [DEFAULTS, SAFE_FAILOVER, NO_FAILOVER])
def test_redundant_subflows_on_a_costly_link_are_closed_also_without_an_endpoint(config: Config) -> None:
    began_there = Laptop().wifi().cellular(roaming=True).carrying((C, W))
    assert decide(began_there.snapshot(), config).close_initial_subflows == {C}
    only_there = Laptop().wifi().cellular(roaming=True).carrying((C,))
    assert not decide(only_there.snapshot(), config).close_initial_subflows
    both = Laptop().wifi().cellular(roaming=True).carrying((C,), (C, W))
    assert (
        decide(both.snapshot(), config).close_initial_subflows,
        decide(both.snapshot(), config).close_redundant,
    ) == (
        set(),
        {C},
    )


def test_the_connections_are_read_before_anything_is_closed() -> None:
    unknown = Laptop(standing=True).wifi().cellular(roaming=True).with_(connections=None)
    desired = decide(unknown.snapshot())
    assert desired.needs_connections
    assert {(endpoint.address, endpoint.flags) for endpoint in desired.endpoints} == {(W, SUBFLOW), (C, BACKUP)}


def test_an_endpoint_kept_for_connections_becomes_backup_and_redundant_subflows_are_closed() -> None:
    regular = Laptop(standing=True).wifi().wired(roaming=True).carrying((E,), (W, E))
    desired = decide(regular.snapshot())
    assert {(endpoint.address, endpoint.flags) for endpoint in desired.endpoints} == {(W, SUBFLOW), (E, BACKUP)}
    assert desired.close_redundant == {E}
    assert desired.depends_on_connections


def test_an_excluded_costly_address_is_still_routed() -> None:
    desired = decide(Laptop().wifi().cellular(roaming=True).snapshot())
    assert {rule.source for rule in desired.rules} == {W, C}
