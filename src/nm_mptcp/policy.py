# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: which addresses are paths, with which flags, made by whom - decided for all together, each with its reason.

First every address is judged by itself (:func:`_judge`), then the verdicts are seen together: what must be kept because
nothing else is there, what finds a slot. Endpoints, routes, rules and limits follow from the paths.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from .config import DEFAULTS, Config, Failover
from .flags import EndpointFlag, ProfileFlag, endpoint_flags
from .kinds import is_metered, kind_of
from .model import (
    MAIN_TABLE,
    Address,
    AddressFlag,
    Connectivity,
    DefaultFlags,
    Desired,
    Device,
    DeviceState,
    Endpoint,
    Family,
    FlagsFrom,
    Limits,
    Link,
    NetworkManager,
    Owner,
    Path,
    Route,
    Snapshot,
    State,
)
from .reasons import Reason, Why
from .tables import Source, default_route, gateway, is_our_rule, routing

_SCOPE_LINK, _SCOPE_HOST = 253, 254  # RT_SCOPE_*
_UNIQUE_LOCAL = ipaddress.ip_network("fc00::/7")

#: Verdicts that come from circumstances, not from somebody's will: the last path of a family outlives them, and an
#: endpoint outlives them while a live connection has its only subflow on it.
_CIRCUMSTANCES = frozenset(
    {
        Why.NO_DEFAULT_ROUTE,
        Why.DEACTIVATING,
        Why.ACTIVATING,
        Why.NO_CARRIER,
        Why.LINK_DOWN,
        Why.HELD_BACK,
        Why.DEPRECATED,
    }
)

#: Of these, those in which nothing goes by the link any more: subflows with a live sibling are better closed.
_DEAD = frozenset({Why.DEACTIVATING, Why.NO_CARRIER, Why.LINK_DOWN})

#: Endpoints that stay until their last dependent ends.
_KEPT_FOR_CONNECTIONS = frozenset({Why.KEPT_FOR_CONNECTIONS, Why.KEPT_UNTIL_REPLACED})

#: What NetworkManager's check found when there is a network, but not the Internet. "None" it says of a device that is not
#: fully activated or has no default route: that is no finding, and the routes tell it better.
_HELD_UP = (Connectivity.PORTAL, Connectivity.LIMITED)

#: While NetworkManager is away or starting, these say nothing about what the user wants.
_NETWORKMANAGER_AWAY = frozenset({Why.NO_DEFAULT_ROUTE, Why.DEACTIVATING, Why.ACTIVATING}) | {
    Why.NOT_MANAGED,
    Why.NOT_CONNECTED,
    Why.EXTERNAL,
    Why.UNREADABLE,
}

#: No endpoint of ours, or none yet, but routed all the same: NetworkManager's endpoint shall find its table ready.
_ROUTED_ANYHOW = frozenset({Why.WAITS_FOR_NETWORKMANAGER, Why.NO_SLOT})

#: Addresses that are no path themselves, but leave by their own interface where it has one.
_ROUTED_WITH_OTHERS = frozenset({Why.TEMPORARY, Why.DEPRECATED})


def decide(snapshot: Snapshot, config: Config = DEFAULTS) -> Desired:
    """What should be in the kernel of ours, given all the facts of one look."""
    facts = _Facts(snapshot)
    claims = _claims(facts)
    verdicts = [_judge(facts, address, claims) for address in facts.addresses()]
    verdicts = _mind_links(facts, verdicts, config)
    verdicts = _mind_connectivity(facts, verdicts)
    leaving = _leave(facts, verdicts, config)
    verdicts = _fill_slots(facts, leaving.verdicts)
    routed = routing(snapshot.kernel, _sources(facts, verdicts))
    return Desired(
        paths=tuple(_path(facts, verdict, routed.table_of) for verdict in verdicts),
        endpoints=frozenset(
            Endpoint(verdict.address, verdict.ifindex, verdict.flags) for verdict in verdicts if verdict.wants_endpoint
        ),
        routes=routed.routes,
        rules=routed.rules,
        limits=_limits(facts, verdicts),
        claims=claims,
        taken=leaving.taken,
        unseated=leaving.unseated,
        severed=leaving.severed,
        lost=leaving.lost,
        renewed=_renewed(facts, verdicts),
        linkdown=_linkdown(facts, verdicts),
        asks_connections=leaving.asks or bool(snapshot.wilted and snapshot.connections is None),
        awaits_connections=any(verdict.reason.why in _KEPT_FOR_CONNECTIONS for verdict in verdicts),
    )


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What was decided for an address, before it becomes a :class:`Path`."""

    on: Address
    state: State
    reason: Reason
    device: Device | None = None
    flags: EndpointFlag = EndpointFlag(0)
    flags_from: FlagsFrom = FlagsFrom.KIND
    owner: Owner = Owner.OURS
    wants_endpoint: bool = False  #: ours to make

    @property
    def address(self) -> str:
        return self.on.address

    @property
    def ifindex(self) -> int:
        return self.on.ifindex

    @property
    def family(self) -> Family:
        return self.on.family

    @property
    def explicit(self) -> bool:
        return self.flags_from is FlagsFrom.PROFILE


class _Facts:
    """A snapshot with the look-ups that policy needs, each made once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.kernel = snapshot.kernel
        self.networkmanager = snapshot.networkmanager
        self.endpoint_at = {endpoint.address: endpoint for endpoint in self.kernel.endpoints if not endpoint.port}
        self.device_of = {device.ip_interface: device for device in self.networkmanager.devices}
        self.has_rules = {rule.source for rule in self.kernel.rules if is_our_rule(rule)}
        self.away = not self.networkmanager.running or self.networkmanager.startup
        self.taken = {endpoint.address: endpoint for endpoint in snapshot.ours.taken}
        self._defaults: dict[tuple[int, Family, int], Route | None] = {}

    def addresses(self) -> Iterable[Address]:
        """All addresses, by interface; of an address that stands on two interfaces only the first counts as a path."""
        for ifindex in sorted(self.kernel.addresses):
            if ifindex in self.kernel.links:
                yield from self.kernel.addresses[ifindex]

    def link(self, ifindex: int) -> Link:
        return self.kernel.links[ifindex]

    def device(self, ifindex: int) -> Device | None:
        return self.device_of.get(self.link(ifindex).name)

    def default(self, ifindex: int, family: Family, table: int) -> Route | None:
        key = (ifindex, family, table)
        if key not in self._defaults:
            self._defaults[key] = default_route(self.kernel, ifindex, family, table)
        return self._defaults[key]

    def own_endpoint(self, address: Address) -> Endpoint | None:
        """The endpoint of ours that stands on this address, None where there is none or it is not ours."""
        endpoint = self.endpoint_at.get(address.address)
        return endpoint if endpoint and self.snapshot.ours.owns(endpoint) else None

    def standing_endpoint(self, verdict: _Verdict) -> Endpoint | None:
        """The endpoint on a verdict's address that is ours, or NetworkManager's to take out: never anybody else's."""
        endpoint = self.endpoint_at.get(verdict.address)
        if endpoint is None or endpoint.ifindex != verdict.ifindex:
            return None
        mine = self.snapshot.ours.owns(endpoint)
        theirs = verdict.owner is Owner.NETWORKMANAGER and not endpoint.flags & EndpointFlag.IMPLICIT
        return endpoint if mine or theirs else None

    def dependents(self, address: str, lost: Set[str]) -> int:
        """How many live connections stand on this address and on nothing outside of ``lost``."""
        connections = self.snapshot.connections or {}
        return sum(count for places, count in connections.items() if address in places and places <= lost)

    def replaced(self, verdict: _Verdict) -> bool:
        """Whether a deprecated address's interface has an endpoint on another one; any other address needs none."""
        if verdict.reason.why is not Why.DEPRECATED:
            return True
        return any(
            address.family is verdict.family
            and not address.flags & (AddressFlag.DEPRECATED | AddressFlag.TEMPORARY)
            and (endpoint := self.endpoint_at.get(address.address))
            and endpoint.ifindex == verdict.ifindex
            for address in self.kernel.addresses[verdict.ifindex]
        )

    def foreign_endpoint(self, address: Address) -> Endpoint | None:
        """The endpoint of somebody else on this address; the kernel's own (implicit) ones are replaceable, and so none."""
        endpoint = self.endpoint_at.get(address.address)
        if endpoint is None or endpoint.flags & EndpointFlag.IMPLICIT or self.snapshot.ours.owns(endpoint):
            return None
        return endpoint


# --- who makes the endpoint, and with which flags ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Intent:
    """What a device's profile and defaults ask for."""

    owner: Owner
    flags: EndpointFlag = EndpointFlag(0)
    flags_from: FlagsFrom = FlagsFrom.KIND
    reason: Reason = field(default_factory=lambda: Reason(Why.FLAGS_OF_KIND))
    excluded: bool = False
    without_sysctl: bool = False
    without_default_route: bool = False


def _claims(facts: _Facts) -> frozenset[str]:
    """The activations whose endpoints NetworkManager writes although our drop-in would leave them to us.

    Seen by an endpoint with its built-in default flags that we did not add: the drop-in counts for a device only from its
    first activation after NetworkManager loaded it. Valid until the device's next activation. (With a profile's own flags
    NetworkManager is the owner anyway; other flags are a hand-made endpoint's, or those of a reapply under way.)
    """
    builtin = _known_flags(facts.networkmanager.builtin_flags, facts.kernel.laminar)
    claims = set()
    for ifindex, addresses in facts.kernel.addresses.items():
        device = facts.device(ifindex) if ifindex in facts.kernel.links else None
        if device is None or not device.activation or not facts.networkmanager.has_mptcp:
            continue
        if device.profile and device.profile.mptcp_flags:
            continue
        if device.activation in facts.snapshot.ours.claims:
            claims.add(device.activation)
            continue
        for address in addresses:
            endpoint = facts.foreign_endpoint(address)
            if endpoint and endpoint.ifindex == ifindex and endpoint.flags == builtin:
                claims.add(device.activation)
    return frozenset(claims)


def _intent(device: Device, networkmanager: NetworkManager, laminar: bool, claims: frozenset[str]) -> _Intent:
    assert device.profile is not None
    explicit = device.profile.mptcp_flags
    if explicit:
        if explicit & ProfileFlag.DISABLED:
            return _Intent(Owner.NETWORKMANAGER, reason=Reason(Why.DISABLED_BY_PROFILE), excluded=True)
        return _of_networkmanager(explicit, laminar, FlagsFrom.PROFILE, Reason(Why.FLAGS_OF_PROFILE))
    if not networkmanager.has_mptcp:
        return _of_kind(device, laminar)
    default = device.default_flags
    if default.flags and default.flags & ProfileFlag.DISABLED:
        if default.section != DefaultFlags.OUR_SECTION:
            reason = Reason(Why.DISABLED_BY_NETWORKMANAGER, default.section)
            return _Intent(Owner.NETWORKMANAGER, flags_from=FlagsFrom.NETWORKMANAGER, reason=reason, excluded=True)
        if device.activation not in claims:
            return _of_kind(device, laminar)
        return _of_networkmanager(
            networkmanager.builtin_flags, laminar, FlagsFrom.NETWORKMANAGER, Reason(Why.NETWORKMANAGER_OWNS)
        )
    where = f"[{default.section}]" if default.flags else "its built-in default"
    return _of_networkmanager(
        default.flags or networkmanager.builtin_flags,
        laminar,
        FlagsFrom.NETWORKMANAGER,
        Reason(Why.FLAGS_OF_NETWORKMANAGER, where),
    )


def _known_flags(flags: ProfileFlag, laminar: bool) -> EndpointFlag:
    """The endpoint flags as the kernel will tell them: one that does not know laminar drops it without a word."""
    return endpoint_flags(flags if laminar else flags & ~ProfileFlag.LAMINAR)


def _of_networkmanager(flags: ProfileFlag, laminar: bool, flags_from: FlagsFrom, reason: Reason) -> _Intent:
    return _Intent(
        Owner.NETWORKMANAGER,
        _known_flags(flags, laminar),
        flags_from,
        reason,
        without_sysctl=bool(flags & ProfileFlag.ALSO_WITHOUT_SYSCTL),
        without_default_route=bool(flags & ProfileFlag.ALSO_WITHOUT_DEFAULT_ROUTE),
    )


def _of_kind(device: Device, laminar: bool) -> _Intent:
    """Automatic flags: every uplink is a path; what is paid for, or slow to wake, is backup (mode ``auto``)."""
    kind = kind_of(device)
    if not kind.uplink:
        return _Intent(Owner.OURS, reason=Reason(Why.KIND_IS_NO_PATH, kind.name), excluded=True)
    flags = EndpointFlag.SUBFLOW | (EndpointFlag.LAMINAR if laminar else EndpointFlag(0))
    if kind.backup:
        return _Intent(Owner.OURS, flags | EndpointFlag.BACKUP, reason=_kind_reason(f"{kind.name} carries as backup"))
    if is_metered(device):
        why = f"{kind.name} carries as backup: NetworkManager holds it to be metered"
        return _Intent(Owner.OURS, flags | EndpointFlag.BACKUP, reason=_kind_reason(why))
    return _Intent(Owner.OURS, flags, reason=_kind_reason(f"{kind.name} carries"))


def _kind_reason(words: str) -> Reason:
    return Reason(Why.FLAGS_OF_KIND, words)


# --- one address by itself -----------------------------------------------------------------------------------------


def _judge(facts: _Facts, address: Address, claims: frozenset[str]) -> _Verdict:
    """The verdict for an address, by itself."""
    verdict = _judge_by_facts(facts, address, claims)
    own = facts.own_endpoint(address)
    if facts.away and own and own.ifindex == address.ifindex and verdict.reason.why in _NETWORKMANAGER_AWAY:
        how = "not running" if not facts.networkmanager.running else "starting"
        reason = Reason(Why.KEPT_NETWORKMANAGER_AWAY, how)
        return replace(verdict, state=State.ACTIVE, reason=reason, flags=own.flags, wants_endpoint=True)
    return verdict


def _judge_by_facts(facts: _Facts, address: Address, claims: frozenset[str]) -> _Verdict:
    device = facts.device(address.ifindex)
    no_path = _not_a_path_address(address)
    if device is None or (not device.managed and not device.external):
        return _excluded(address, no_path or Reason(Why.NOT_MANAGED), device)
    if device.external:
        return _excluded(address, no_path or Reason(Why.EXTERNAL), device)
    if no_path:
        return _excluded(address, no_path, device)
    state = device.state
    if state is DeviceState.FAILED or state < DeviceState.PREPARE:
        return _excluded(address, Reason(Why.NOT_CONNECTED, _words(state)), device)
    if device.unreadable:
        return _excluded(address, Reason(Why.UNREADABLE, device.unreadable), device)
    if device.profile is None:
        words = _words(state) if state < DeviceState.ACTIVATED else "its profile is being read"
        return _Verdict(address, State.WAITING, Reason(Why.ACTIVATING, words), device)

    intent = _intent(device, facts.networkmanager, facts.kernel.laminar, claims)
    known = _Verdict(address, State.ACTIVE, intent.reason, device, intent.flags, intent.flags_from, intent.owner)
    if intent.excluded:
        return replace(known, state=State.EXCLUDED)
    foreign = facts.foreign_endpoint(address)
    if foreign and intent.owner is Owner.NETWORKMANAGER and foreign.ifindex == address.ifindex:
        if state is DeviceState.DEACTIVATING:
            return replace(known, flags=foreign.flags, state=State.SUSPENDED, reason=Reason(Why.DEACTIVATING))
        return replace(known, flags=foreign.flags)
    if foreign:
        return replace(known, reason=Reason(Why.SOMEBODY_ELSE_OWNS), flags=foreign.flags, owner=Owner.OTHER)

    family = address.family
    if device.profile.shared(family):
        return replace(known, state=State.EXCLUDED, reason=Reason(Why.SHARED))
    if not facts.kernel.mptcp_enabled and not intent.without_sysctl:
        return replace(known, state=State.EXCLUDED, reason=Reason(Why.SYSCTL_OFF))
    if state < DeviceState.IP_CONFIG:
        return replace(known, state=State.WAITING, reason=Reason(Why.ACTIVATING, _words(state)))
    if address.flags & AddressFlag.TENTATIVE:
        return replace(known, state=State.WAITING, reason=Reason(Why.TENTATIVE))
    if not intent.without_default_route:
        if device.profile.never_default(family):
            return replace(known, state=State.EXCLUDED, reason=Reason(Why.NEVER_DEFAULT, family.label))
        # NetworkManager itself counts a default route in main only (nm-l3cfg.c).
        table = MAIN_TABLE if intent.owner is Owner.NETWORKMANAGER else device.profile.route_table(family)
        if facts.default(address.ifindex, family, table) is None:
            return replace(known, state=State.WAITING, reason=Reason(Why.NO_DEFAULT_ROUTE, family.label))
    if state is DeviceState.DEACTIVATING:
        return replace(known, state=State.SUSPENDED, reason=Reason(Why.DEACTIVATING))
    taken = facts.taken.get(address.address)
    if taken and taken.ifindex == address.ifindex and intent.owner is Owner.NETWORKMANAGER:
        return _wished(facts, replace(known, flags=taken.flags))
    if address.flags & AddressFlag.DEPRECATED:
        return replace(known, state=State.EXCLUDED, reason=Reason(Why.DEPRECATED))
    if intent.owner is Owner.NETWORKMANAGER and address.address not in facts.snapshot.overdue:
        waiting = replace(known, state=State.WAITING, reason=Reason(Why.WAITS_FOR_NETWORKMANAGER))
        own = facts.own_endpoint(address)
        if own is None or own.ifindex != address.ifindex:
            return waiting
        # Ours from before, or added for NetworkManager: what has the right flags it adopts, the rest it is about to replace.
        same = own.flags == intent.flags
        return replace(known if same else waiting, flags=own.flags, wants_endpoint=True)
    return _wished(facts, known)


def _wished(facts: _Facts, verdict: _Verdict) -> _Verdict:
    """A path whose endpoint is ours to make; one that the kernel refuses waits, and is tried again at every look."""
    refusal = facts.snapshot.refused.get((verdict.address, verdict.ifindex))
    if refusal:
        verdict = replace(verdict, state=State.WAITING, reason=Reason(Why.REFUSED, refusal))
    return replace(verdict, wants_endpoint=True)


def _excluded(address: Address, reason: Reason, device: Device | None) -> _Verdict:
    return _Verdict(address, State.EXCLUDED, reason, device)


def _words(state: DeviceState) -> str:
    return state.name.lower().replace("_", " ")


def _not_a_path_address(address: Address) -> Reason | None:
    """Why this address can be no path whatever the profile says; None when it can.

    As NetworkManager has it: not loopback, link-local, IPv6 ULA; RFC 1918 and fec0::/10 are in. A temporary address is
    not kept, and a privacy address shall not be told to every server.
    """
    if address.scope == _SCOPE_LINK:
        return Reason(Why.LINK_LOCAL)
    why = Why.NOT_GLOBAL if address.scope == _SCOPE_HOST else _kind_of_address(address.address)
    if why:
        return Reason(why)
    if address.family is Family.IPV6:
        if address.flags & AddressFlag.TEMPORARY:
            return Reason(Why.TEMPORARY)
        if address.flags & AddressFlag.DADFAILED:
            return Reason(Why.DAD_FAILED)
    return None


@functools.lru_cache(maxsize=4096)
def _kind_of_address(address: str) -> Why | None:
    """Why an address of this kind can be no path."""
    value = ipaddress.ip_address(address)
    if value.is_link_local:
        return Why.LINK_LOCAL
    if value.is_loopback or value.is_multicast or value.is_unspecified:
        return Why.NOT_GLOBAL
    if isinstance(value, ipaddress.IPv6Address):
        if value in _UNIQUE_LOCAL:
            return Why.UNIQUE_LOCAL
        if value.ipv4_mapped is not None:
            return Why.NOT_GLOBAL
    return None


# --- all addresses together ----------------------------------------------------------------------------------------


def _mind_links(facts: _Facts, verdicts: list[_Verdict], config: Config) -> list[_Verdict]:
    """A path on a link that is lost is suspended, and one on a link that flaps is held back before it returns."""
    if config.failover is Failover.OFF:
        return verdicts
    return [
        replace(verdict, state=State.SUSPENDED, reason=reason, wants_endpoint=False)
        if verdict.state is State.ACTIVE
        and verdict.owner is not Owner.OTHER
        and (reason := _link_reason(facts, verdict))
        else verdict
        for verdict in verdicts
    ]


def _link_reason(facts: _Facts, verdict: _Verdict) -> Reason | None:
    link = facts.link(verdict.ifindex)
    if not link.up:
        return Reason(Why.LINK_DOWN)
    if not link.carrier:
        return Reason(Why.NO_CARRIER)
    held = facts.snapshot.held.get(verdict.ifindex)
    if held and facts.standing_endpoint(verdict) is None:
        return Reason(Why.HELD_BACK, f"{held:g} s")
    return None


def _mind_connectivity(facts: _Facts, verdicts: list[_Verdict]) -> list[_Verdict]:
    """Behind a portal a new endpoint waits and an existing one becomes backup - while another path has full connectivity.

    Only then, so that an outage of the check's own server costs nobody a path. Explicit flags are not overruled.
    """
    full = {
        (verdict.family, verdict.ifindex)
        for verdict in verdicts
        if verdict.state is State.ACTIVE
        and verdict.device
        and verdict.device.connectivity(verdict.family) is Connectivity.FULL
    }
    result = []
    for verdict in verdicts:
        found = verdict.device.connectivity(verdict.family) if verdict.device else Connectivity.UNKNOWN
        others = any(family is verdict.family and ifindex != verdict.ifindex for family, ifindex in full)
        if verdict.state is State.ACTIVE and verdict.owner is Owner.OURS and found in _HELD_UP and others:
            reason = Reason(Why.NO_CONNECTIVITY, found.name.lower())
            if facts.own_endpoint(verdict.on):
                verdict = replace(
                    verdict, state=State.SUSPENDED, reason=reason, flags=verdict.flags | EndpointFlag.BACKUP
                )
            else:
                verdict = replace(verdict, state=State.WAITING, reason=reason, wants_endpoint=False)
        result.append(verdict)
    return result


@dataclass(frozen=True, slots=True)
class _Leaving:
    """The verdicts after it was seen what may go, and what has to be done for live connections."""

    verdicts: list[_Verdict]
    taken: frozenset[Endpoint] = frozenset()
    unseated: frozenset[str] = frozenset()
    severed: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    asks: bool = False


def _leave(facts: _Facts, verdicts: list[_Verdict], config: Config) -> _Leaving:
    """Which endpoints may go that circumstances are against: never the last path, never a connection's last subflow.

    Deleting an endpoint closes its subflows. A connection that has no other, and whose server refuses joins, would be
    dead for ever although it could outlive the circumstance; so its endpoint stays, and only subflows with a live sibling
    are closed.
    """
    staying = {v.family for v in verdicts if v.state is State.ACTIVE and facts.link(v.ifindex).carrier}
    leaving = [v for v in verdicts if v.reason.why in _CIRCUMSTANCES and v.family in staying]
    dead = {verdict.ifindex for verdict in leaving if verdict.reason.why in _DEAD}
    # On a dead link no address carries anything, also none that is no path itself.
    seats = {v.address for v in verdicts if v.ifindex in dead and v.family in staying}
    lost = frozenset(seats | {verdict.address for verdict in leaving})
    known = facts.snapshot.connections
    result: list[_Verdict] = []
    taken: set[Endpoint] = set()
    severed: set[str] = set()
    asks = False
    for verdict in verdicts:
        endpoint = facts.standing_endpoint(verdict)
        if verdict.reason.why not in _CIRCUMSTANCES:
            result.append(verdict)
        elif verdict.family not in staying:
            result.append(_last(facts, verdict, endpoint))
        elif endpoint is None:
            result.append(verdict)
        elif config.failover is Failover.SAFE and verdict.reason.why in _DEAD and facts.own_endpoint(verdict.on):
            result.append(replace(verdict, flags=endpoint.flags | EndpointFlag.BACKUP, wants_endpoint=True))
        elif known is None or facts.dependents(verdict.address, lost) or not facts.replaced(verdict):
            asks |= known is None
            result.append(_kept(facts, verdict, endpoint))
            if verdict.reason.why in _DEAD:
                severed.add(verdict.address)
        else:
            result.append(verdict)
            if not facts.own_endpoint(verdict.on):
                taken.add(Endpoint(endpoint.address, endpoint.ifindex, endpoint.flags))
    standing = {endpoint.address for endpoint in facts.kernel.endpoints}
    unseated: set[str] = set()
    if config.failover is Failover.FAST:
        asks |= known is None and bool(seats)
        for address in seats - standing:
            (severed if facts.dependents(address, lost) else unseated).add(address)
    with_sibling = _with_sibling(known or {}, lost)
    return _Leaving(
        result,
        frozenset(taken),
        frozenset(unseated & with_sibling),
        frozenset(severed & with_sibling),
        lost,
        asks,
    )


def _with_sibling(connections: Mapping[frozenset[str], int], lost: Set[str]) -> set[str]:
    """The lost addresses on which a connection stands that also stands elsewhere."""
    found: set[str] = set()
    for places in connections:
        if not places <= lost:
            found |= places & lost
    return found


def _last(facts: _Facts, verdict: _Verdict, endpoint: Endpoint | None) -> _Verdict:
    """No other path of this family is there: what stands stays, and what was only held back comes at once."""
    own = facts.own_endpoint(verdict.on)
    if verdict.reason.why is Why.HELD_BACK:
        wants = verdict.owner is Owner.OURS or verdict.address in facts.taken
        return replace(verdict, state=State.ACTIVE, wants_endpoint=wants)
    if endpoint is None:
        return verdict
    reason = Reason(Why.KEPT_LAST, str(verdict.reason))
    return replace(verdict, state=State.ACTIVE, reason=reason, flags=endpoint.flags, wants_endpoint=own is not None)


def _kept(facts: _Facts, verdict: _Verdict, endpoint: Endpoint) -> _Verdict:
    """Live connections depend on it: it stays as it is."""
    deprecated = verdict.reason.why is Why.DEPRECATED
    return replace(
        verdict,
        state=State.ACTIVE if deprecated else State.SUSPENDED,
        reason=Reason(Why.KEPT_UNTIL_REPLACED) if deprecated else Reason(Why.KEPT_FOR_CONNECTIONS, str(verdict.reason)),
        flags=endpoint.flags,
        wants_endpoint=facts.own_endpoint(verdict.on) is not None,
    )


def _renewed(facts: _Facts, verdicts: list[_Verdict]) -> frozenset[str]:
    """Endpoints whose subflows died by an error, on which none stands now although live connections could use one."""
    connections = facts.snapshot.connections
    if not connections:
        return frozenset()
    carried = frozenset[str]().union(*connections)
    families = {Family.of(address) for address in carried}
    return frozenset(
        verdict.address
        for verdict in verdicts
        if verdict.address in facts.snapshot.wilted - carried
        and verdict.state is State.ACTIVE
        and verdict.family in families
        and facts.standing_endpoint(verdict)
    )


def _linkdown(facts: _Facts, verdicts: list[_Verdict]) -> frozenset[tuple[Family, int]]:
    """Interfaces whose routes shall not be used without carrier: those beside which another path of the family is active.

    New connections then leave by that one at once; on a lone link they are to wait for the link, as ever.
    """
    active: dict[Family, set[int]] = {}
    for verdict in verdicts:
        if verdict.state is State.ACTIVE and facts.link(verdict.ifindex).carrier:
            active.setdefault(verdict.family, set()).add(verdict.ifindex)
    return frozenset(
        (verdict.family, verdict.ifindex)
        for verdict in verdicts
        if verdict.state in (State.ACTIVE, State.SUSPENDED) and active.get(verdict.family, set()) - {verdict.ifindex}
    )


def _fill_slots(facts: _Facts, verdicts: list[_Verdict]) -> list[_Verdict]:
    """The kernel takes only so many endpoints: explicit flags first, then one address an interface and family.

    Among equals the better route metric wins, then the one that has its endpoint already, so that nothing flaps.
    """
    foreign = sum(1 for endpoint in facts.kernel.endpoints if not facts.snapshot.ours.owns(endpoint))
    slots = max(0, facts.kernel.endpoints_max - foreign)
    wishes = [verdict for verdict in verdicts if verdict.wants_endpoint]
    if len(wishes) <= slots:
        return verdicts
    seen: dict[tuple[int, Family], int] = {}
    ranks = {}
    for verdict in sorted(wishes, key=lambda wish: (facts.own_endpoint(wish.on) is None, wish.address)):
        place = (verdict.ifindex, verdict.family)
        nth = seen[place] = seen.get(place, -1) + 1
        ranks[verdict.address] = (
            not verdict.explicit,
            nth,
            _metric(facts, verdict),
            facts.own_endpoint(verdict.on) is None,
            verdict.ifindex,
            verdict.address,
        )
    left_out = {verdict.address for verdict in sorted(wishes, key=lambda wish: ranks[wish.address])[slots:]}
    reason = Reason(Why.NO_SLOT, str(facts.kernel.endpoints_max))
    return [
        replace(verdict, state=State.EXCLUDED, reason=reason, wants_endpoint=False)
        if verdict.wants_endpoint and verdict.address in left_out
        else verdict
        for verdict in verdicts
    ]


def _metric(facts: _Facts, verdict: _Verdict) -> int:
    """The metric of an address's default route, a bad one where it has none."""
    route = facts.default(verdict.ifindex, verdict.family, _route_table(verdict))
    return route.metric if route else 0xFFFFFFFF


def _route_table(verdict: _Verdict) -> int:
    profile = verdict.device.profile if verdict.device else None
    return profile.route_table(verdict.family) if profile else MAIN_TABLE


def _sources(facts: _Facts, verdicts: list[_Verdict]) -> list[Source]:
    """The addresses that leave by their own interface: paths, what may become one again, and what stands beside them.

    An address whose interface lost its default keeps its rules, or its packets would leave by another link with a source
    that nobody there routes. A temporary address stands beside the stable one: connections begin on it.
    """
    routed = [
        verdict
        for verdict in verdicts
        if verdict.state in (State.ACTIVE, State.SUSPENDED)
        or verdict.wants_endpoint
        or verdict.reason.why in _ROUTED_ANYHOW
        or (verdict.address in facts.has_rules and (facts.away or verdict.reason.why is Why.NO_DEFAULT_ROUTE))
    ]
    places = {(verdict.ifindex, verdict.family) for verdict in routed}
    routed += [
        verdict
        for verdict in verdicts
        if verdict.reason.why in _ROUTED_WITH_OTHERS and (verdict.ifindex, verdict.family) in places
    ]
    sources: dict[str, Source] = {}
    for verdict in routed:
        sources.setdefault(verdict.address, Source(verdict.address, verdict.ifindex, _route_table(verdict)))
    return list(sources.values())


def _limits(facts: _Facts, verdicts: list[_Verdict]) -> Limits | None:
    """Limits high enough for all paths and as many addresses of the peer; never lower than they are.

    A limit that somebody else has changed since we raised it is his.
    """
    paths = [verdict for verdict in verdicts if verdict.state is State.ACTIVE]
    if not paths:
        return None
    accepted = len(paths)
    meshed = sum(1 for verdict in paths if verdict.flags & EndpointFlag.FULLMESH)
    most = facts.kernel.endpoints_max
    need = {"subflows": len(paths) + accepted + meshed * accepted, "add_addr_accepted": accepted}
    have = {
        "subflows": facts.kernel.limits.subflows,
        "add_addr_accepted": facts.kernel.limits.add_addr_accepted,
    }
    wanted = {name: _limit(facts, name, have[name], min(value, most)) for name, value in need.items()}
    return None if wanted == have else Limits(**wanted)


def _limit(facts: _Facts, name: str, have: int, need: int) -> int:
    raised = facts.snapshot.ours.limits.get(name)
    return have if raised and raised.written != have else max(have, need)


def _path(facts: _Facts, verdict: _Verdict, table_of: Mapping[str, int]) -> Path:
    link = facts.link(verdict.ifindex)
    device = verdict.device
    profile = device.profile if device else None
    endpoint = facts.endpoint_at.get(verdict.address)
    route = facts.default(verdict.ifindex, verdict.family, _route_table(verdict))
    return Path(
        verdict.address,
        verdict.ifindex,
        link.name,
        verdict.state,
        verdict.reason,
        kind=kind_of(device).name if device else (link.kind or ""),
        profile=profile.id if profile else "",
        uuid=profile.uuid if profile else "",
        flags=verdict.flags,
        flags_from=verdict.flags_from,
        owner=verdict.owner,
        endpoint_id=endpoint.id if endpoint and endpoint.ifindex in (0, verdict.ifindex) else None,
        table=table_of.get(verdict.address),
        gateway=gateway(route, verdict.ifindex),
    )
