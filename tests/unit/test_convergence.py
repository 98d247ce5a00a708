# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever happens, in whatever order: the plan leads to the desired state at once, and touches nothing else.

A laptop as a state machine (hypothesis): NetworkManager, the kernel, other programs and people change things in any order;
after each step the service converges, or does so later, or crashes amid its writes. What holds then is asked of the model of
the kernel. ``make test-model`` takes many more steps than ``make test``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nm_mptcp.config.settings import Config, Failover, LimitsPolicy
from nm_mptcp.model.flags import EndpointFlag, ProfileFlag
from nm_mptcp.model.reasons import Why
from nm_mptcp.model.record import adopted, decided, seen, with_endpoints
from nm_mptcp.model.state import (
    MAIN_TABLE,
    MARKS,
    RULE_PRIORITY,
    Action,
    Address,
    AddressFlag,
    Connectivity,
    DefaultFlags,
    Desired,
    Device,
    DeviceState,
    DeviceType,
    Egress,
    Endpoint,
    Family,
    FlagsFrom,
    Hop,
    LeakingSubflows,
    Limits,
    Link,
    Metered,
    Mode,
    Operation,
    Ours,
    Place,
    RedundantSubflows,
    Route,
    RouteType,
    Rule,
    Silence,
    Snapshot,
    TunnelBypass,
)
from nm_mptcp.policy.decide import decide
from nm_mptcp.policy.plan import needed, plan, restore
from nm_mptcp.policy.source_routing import rank

from .model_kernel import apply, ends_subflows, foreign
from .situations import BACKUP, LEFT_TO_US, MODEM, SUBFLOW, WIFI, Situation

#: Steps in all: of laptops with this many each, half of them docked.
STEPS = int(os.environ.get("NM_MPTCP_STEPS", "6000"))
STEPS_EACH = 50

#: How often one convergence may plan: the service itself gives up for the moment after as many rounds.
ROUNDS = 5

#: Reasons by which a connection may lose its last subflow: the user's choice, and privacy. Not the product's own list, so that
#: one that is added there has to be added here.
DELIBERATE = {
    Why.DISABLED_BY_PROFILE,
    Why.DISABLED_BY_CONFIGURATION,
    Why.DISABLED_BY_NETWORKMANAGER,
    Why.SOMEBODY_ELSE_OWNS,
    Why.VPN_GUARD,
    Why.KEPT_BESIDE_TUNNEL,
}

MACHINE: dict[str, st.SearchStrategy[Any]] = {
    "endpoints_max": st.sampled_from([2, 4, 8, 8]),
    "limits": st.builds(Limits, st.integers(0, 2), st.integers(0, 2)),
    "version": st.sampled_from(["1.38.0", "1.42.4", "1.52.0", "1.58.0"]),
    "laminar": st.booleans(),
}
KINDS = st.sampled_from([DeviceType.ETHERNET, WIFI, MODEM])

numbers = st.integers(0, 11)
families = st.sampled_from(list(Family))

EXCLUDING_FLAGS = AddressFlag.TENTATIVE | AddressFlag.DEPRECATED | AddressFlag.TEMPORARY | AddressFlag.DADFAILED


class Laptop(RuleBasedStateMachine):
    """A laptop and its service."""

    @initialize(
        **MACHINE,
        kinds=st.lists(KINDS, max_size=3),
        connections=st.lists(numbers, max_size=3),
    )
    def boot(
        self,
        endpoints_max: int,
        limits: Limits,
        version: str,
        laminar: bool,
        kinds: list[DeviceType],
        connections: list[int],
    ) -> None:
        self.situation = Situation(
            endpoints_max=endpoints_max,
            limits=limits,
            laminar=laminar,
            mptcp_enabled=True,
            linkdown_ignored={},
            strict=frozenset(),
            egress={},
        )
        self.situation.version = version
        self.situation.bypass = TunnelBypass()
        self.config = Config()
        self.known: dict[str, tuple[str, ...]] = {}  #: the addresses of each interface's profile
        self.connections: list[set[str]] = []
        self.unreadable = False
        self.later = 0  #: steps that the service does not see at once
        self.next_index = 2
        for number, kind in enumerate(kinds):
            self._plug_in(kind, hosts=[2], hosts6=[2], metric=100 + number)
        self.converges()
        for number in connections:
            self.connect(n=number, more=set())

    # --- NetworkManager and the kernel

    @precondition(lambda self: len(self.situation.links) < 5)
    @rule(
        kind=st.sampled_from([DeviceType.ETHERNET, WIFI, WIFI, MODEM, DeviceType.VETH, DeviceType.TUN]),
        hosts=st.lists(st.integers(2, 4), min_size=1, max_size=2, unique=True),
        hosts6=st.lists(st.integers(2, 3), max_size=2, unique=True),
        gateway=st.sampled_from([True, True, True, False]),
        metric=st.sampled_from([100, 600, 700]),
        flags=st.sampled_from([0, 0, 0, 0, 1, 0x22, 0x62, 0x0A]),
        table=st.sampled_from([0, 0, 0, 100]),
        default=st.sampled_from([LEFT_TO_US, LEFT_TO_US, LEFT_TO_US, DefaultFlags()]),
        metered=st.sampled_from(list(Metered)),
    )
    def plug_in(
        self,
        kind: DeviceType,
        hosts: list[int],
        hosts6: list[int],
        gateway: bool,
        metric: int,
        flags: int,
        table: int,
        default: DefaultFlags,
        metered: Metered,
    ) -> None:
        self._plug_in(
            kind,
            hosts=hosts,
            hosts6=hosts6,
            gateway=gateway,
            metric=metric,
            profile={"mptcp_flags": ProfileFlag(flags), "ipv4_route_table": table},
            default_flags=default,
            metered=metered,
        )

    @rule(n=numbers)
    def unplug(self, n: int) -> None:
        if link := self._link(n):
            self._delete_link(link.index)
            del self.situation.devices[link.name]

    @rule(n=numbers)
    def recreate(self, n: int) -> None:
        """The same name and addresses with another index: a phone that is plugged in again."""
        if link := self._link(n):
            self._delete_link(link.index)
            number = self.next_index
            self.next_index += 1
            self.situation.links[number] = replace(link, index=number)
            for family in Family:
                self.situation.kernel["linkdown_ignored"][family, number] = False
            self.situation.device(link.name, activation=f":1.5/{number}")
            self._configure(number)

    @rule(n=numbers, up=st.booleans())
    def set_up(self, n: int, up: bool) -> None:
        if link := self._link(n):
            situation = self.situation
            situation.links[link.index] = replace(link, up=up, carrier=up)
            if not up:
                situation.routes = [route for route in situation.routes if not self._by(route, link.index)]
                for address in list(situation.addresses[link.index]):
                    if address.family is Family.IPV6:
                        situation.addresses[link.index].remove(address)

    @rule(n=numbers, carrier=st.booleans())
    def carrier(self, n: int, carrier: bool) -> None:
        if (link := self._link(n)) and link.up:
            self.situation.links[link.index] = replace(link, carrier=carrier)

    @rule(n=numbers, gateway=st.booleans(), metric=st.sampled_from([100, 600]))
    def configure(self, n: int, gateway: bool, metric: int) -> None:
        """NetworkManager adds what the profile has, and is missing."""
        if (link := self._link(n)) and link.up:
            self._configure(link.index, gateway=gateway, metric=metric)

    @rule(n=numbers, k=numbers, absent=st.booleans())
    def lose_address(self, n: int, k: int, absent: bool) -> None:
        if (link := self._link(n)) and (addresses := self.situation.addresses[link.index]):
            address = addresses.pop(k % len(addresses))
            if absent:
                self.situation.absent |= {address}

    @rule(n=numbers, k=numbers)
    def add_an_address_of_another_link(self, n: int, k: int) -> None:
        one, other = self._link(n), self._link(k)
        if one and other and one != other and one.up:
            for address in self.situation.addresses[other.index][:1]:
                text = f"{address.address}/{address.prefixlen}"
                if text not in self.known[one.name]:
                    self.known[one.name] += (text,)
                    self._configure(one.index, metric=800 + one.index)

    @rule()
    def stop_waiting_for_addresses(self) -> None:
        self.situation.absent = frozenset()

    @rule(n=numbers, k=numbers, flag=st.sampled_from([AddressFlag(0), *EXCLUDING_FLAGS]))
    def change_address(self, n: int, k: int, flag: AddressFlag) -> None:
        if (link := self._link(n)) and (addresses := self.situation.addresses[link.index]):
            address = addresses[k % len(addresses)]
            changed = replace(address, flags=(address.flags & ~EXCLUDING_FLAGS) | flag)
            addresses[k % len(addresses)] = changed

    @rule(n=numbers, family=families, gateway=st.sampled_from([None, 1, 254]), metric=st.sampled_from([50, 100, 800]))
    def change_default_route(self, n: int, family: Family, gateway: int | None, metric: int) -> None:
        if (link := self._link(n)) and link.up:
            situation = self.situation
            profile = situation.devices[link.name].profile
            table = profile.route_table(family) if profile else MAIN_TABLE
            mine = [
                route
                for route in situation.routes
                if route.is_default
                and route.family is family
                and self._by(route, link.index)
                and not MARKS.on_route(route)
            ]
            situation.routes = [route for route in situation.routes if route not in mine]
            own = [each for each in situation.addresses[link.index] if each.family is family]
            if gateway is not None and own:
                separator = "." if family is Family.IPV4 else ":"
                by = f"{own[0].address.rsplit(separator, 1)[0]}{separator}{gateway}"
                self._add_route(Route(family.default, table, (Hop(link.index, by),), protocol=16, metric=metric))

    @rule(n=numbers, state=st.sampled_from([DeviceState.ACTIVATED, DeviceState.ACTIVATED, *DeviceState]))
    def device_state(self, n: int, state: DeviceState) -> None:
        if link := self._link(n):
            self.situation.device(link.name, state=state)

    @rule(
        n=numbers,
        change=st.sampled_from(
            [
                {"managed": False},
                {"managed": True, "external": False},
                {"external": True},
                {"metered": Metered.YES},
                {"metered": Metered.NO},
                {"roaming": True},
                {"roaming": False},
                {"ipv4_connectivity": Connectivity.PORTAL},
                {"ipv4_connectivity": Connectivity.FULL},
                {"unreadable": "no answer"},
                {"unreadable": ""},
                {"default_flags": DefaultFlags()},
                {"default_flags": LEFT_TO_US},
            ]
        ),
    )
    def device_changes(self, n: int, change: dict[str, Any]) -> None:
        if link := self._link(n):
            self.situation.devices[link.name] = replace(self.situation.devices[link.name], **change)

    @rule(n=numbers, flags=st.sampled_from([0, 1, 0x22, 0x62, 0x0A]), new=st.booleans())
    def modify_profile(self, n: int, flags: int, new: bool) -> None:
        """``nmcli connection modify`` and reapply, or up (a new activation)."""
        if (link := self._link(n)) and (profile := self.situation.devices[link.name].profile):
            self.situation.device(link.name, profile=replace(profile, mptcp_flags=ProfileFlag(flags)))
            if new:
                self.situation.device(link.name, activation=f":1.6/{self.next_index}")
                self.next_index += 1

    @rule(running=st.booleans(), startup=st.booleans(), silent=st.booleans())
    def networkmanager(self, running: bool, startup: bool, silent: bool) -> None:
        self.situation.running, self.situation.startup, self.situation.silent = running, startup, silent

    @rule()
    def networkmanager_adds_its_endpoints(self) -> None:
        """On each address of a device whose endpoints it owns."""
        for ifindex, link in self.situation.links.items():
            device = self.situation.devices[link.name]
            flags = self._flags_of_networkmanager(device)
            for address in self.situation.addresses[ifindex]:
                default = any(
                    route.is_default and route.table == MAIN_TABLE and route.family is address.family
                    for route in self.situation.routes
                    if self._by(route, ifindex)
                )
                if flags and default and not self._has_endpoint(address.address):
                    self._add_endpoint(Endpoint(address.address, ifindex, flags))

    @rule()
    def networkmanager_deletes_its_endpoints(self) -> None:
        """Those on addresses that are gone."""
        there = {(each.address, each.ifindex) for group in self.situation.addresses.values() for each in group}
        self.situation.endpoints = [
            each
            for each in self.situation.endpoints
            if self.situation.ours.owns(each) or each.place in there or not each.ifindex
        ]

    # --- circumstances

    @rule(n=numbers, family=families, kind=st.sampled_from([None, False, True]))
    def silence(self, n: int, family: Family, kind: bool | None) -> None:
        if link := self._link(n):
            place = Place(family, link.index)
            self.situation.silences.pop(place, None)
            if kind is not None:
                self.situation.silences[place] = Silence(kind, "2 peers unanswered")

    @rule(n=numbers, what=st.sampled_from(["weak", "poor", "damped", "overdue", "refused", "retry", "nothing"]))
    def circumstance(self, n: int, what: str) -> None:
        situation = self.situation
        if what == "nothing":
            situation.weak = situation.poor = situation.overdue = situation.subflow_retry_due = frozenset()
            situation.refused, situation.damped = {}, {}
        elif link := self._link(n):
            addresses = frozenset(each.address for each in situation.addresses[link.index])
            if what == "weak":
                situation.weak |= addresses
            elif what == "poor":
                situation.poor |= {Place(family, link.index) for family in Family}
            elif what == "damped":
                situation.damped[link.index] = 5.0
            elif what == "overdue":
                situation.overdue |= addresses
            elif what == "refused":
                situation.refused |= {(address, link.index): "no" for address in addresses}
            else:
                situation.subflow_retry_due |= addresses

    @rule(
        tunnelled=st.sets(families),
        split=st.booleans(),
        strict=st.booleans(),
        encrypted=st.booleans(),
        bypass=st.sampled_from(["nothing", "allowed", "leaking"]),
    )
    def tunnel(self, tunnelled: set[Family], split: bool, strict: bool, encrypted: bool, bypass: str) -> None:
        """A tunnel of another program carries all of these families, or some hosts, or is gone."""
        situation = self.situation
        index = 900
        if index in situation.links:
            self._delete_link(index)
        situation.kernel["egress"] = {}
        if tunnelled or split:
            situation.links[index] = Link(index, "tun0", kind="tun", resolves=False)
            situation.addresses[index] = [Address(index, "10.99.0.2", 32)]
            situation.devices["tun0"] = Device("tun0", "tun0", DeviceType.TUN, DeviceState.UNMANAGED, managed=False)
            if split:
                self._add_route(Route("198.18.0.0/15", MAIN_TABLE, (Hop(index),), protocol=3))
            situation.kernel["egress"] = {
                family: (Egress(0 if encrypted else index, encrypted=encrypted),) * 2 for family in tunnelled
            }
        else:
            situation.devices.pop("tun0", None)
        situation.kernel["strict"] = frozenset(situation.links) if strict else frozenset()
        addresses = frozenset(each.address for group in situation.addresses.values() for each in group)
        situation.bypass = TunnelBypass(
            allowed=frozenset() if bypass == "nothing" else addresses,
            leaking=addresses if bypass == "leaking" else frozenset(),
        )

    @rule(
        change=st.sampled_from(
            [{"mode": mode} for mode in Mode]
            + [{"failover": failover} for failover in Failover]
            + [{"limits": limits} for limits in LimitsPolicy]
            + [{"vpn_guard": True}, {"vpn_guard": False}]
        )
    )
    def reconfigure(self, change: dict[str, Any]) -> None:
        self.config = replace(self.config, **change)

    @rule(enabled=st.sampled_from([True, True, False]))
    def sysctl(self, enabled: bool) -> None:
        self.situation.kernel["mptcp_enabled"] = enabled

    # --- connections

    @rule(n=numbers, more=st.sets(numbers, max_size=3))
    def connect(self, n: int, more: set[int]) -> None:
        """A connection begins; its server takes joins from endpoints, or refuses them."""
        present = sorted({each.address for group in self.situation.addresses.values() for each in group})
        if present and len(self.connections) < 6:
            chosen = {present[n % len(present)]}
            subflows = [each.address for each in self.situation.endpoints if each.flags & EndpointFlag.SUBFLOW]
            self.connections.append(chosen | {subflows[each % len(subflows)] for each in more if subflows})

    @rule(n=numbers, all_of_it=st.booleans())
    def disconnect(self, n: int, all_of_it: bool) -> None:
        if self.connections:
            connection = self.connections[n % len(self.connections)]
            connection.discard(sorted(connection)[n % len(connection)])
            if all_of_it or not connection:
                self.connections.remove(connection)

    @rule(unreadable=st.sampled_from([False, False, True]))
    def sock_diag(self, unreadable: bool) -> None:
        self.unreadable = unreadable

    # --- other programs, and people

    @rule(n=numbers, what=st.sampled_from(["rule", "route", "endpoint"]))
    def delete_one_of_ours(self, n: int, what: str) -> None:
        situation = self.situation
        if what == "rule" and (rules := [each for each in situation.rules if MARKS.on_rule(each)]):
            situation.rules.remove(rules[n % len(rules)])
        elif what == "route" and (routes := [each for each in situation.routes if MARKS.on_route(each)]):
            situation.routes.remove(routes[n % len(routes)])
        elif what == "endpoint" and (own := [each for each in situation.endpoints if situation.ours.owns(each)]):
            self._delete_endpoint(own[n % len(own)])

    @rule(n=numbers, flags=st.sampled_from([SUBFLOW, BACKUP]))
    def edit_an_endpoint(self, n: int, flags: EndpointFlag) -> None:
        if endpoints := self.situation.endpoints:
            changed = endpoints[n % len(endpoints)]
            if not changed.port:
                endpoints[n % len(endpoints)] = replace(changed, flags=flags)

    @rule(
        n=numbers,
        k=numbers,
        flags=st.sampled_from([SUBFLOW, BACKUP, EndpointFlag.SIGNAL, EndpointFlag.IMPLICIT]),
        elsewhere=st.booleans(),
        port=st.sampled_from([0, 0, 443]),
    )
    def add_a_foreign_endpoint(self, n: int, k: int, flags: EndpointFlag, elsewhere: bool, port: int) -> None:
        address = f"192.0.2.{n + 10}"
        if (link := self._link(n)) and (addresses := self.situation.addresses[link.index]) and not elsewhere:
            address = addresses[k % len(addresses)].address
        port = port if flags is EndpointFlag.SIGNAL else 0
        index = link.index if link and not flags & EndpointFlag.IMPLICIT and n % 2 else 0
        if all((each.address, each.port) != (address, port) for each in self.situation.endpoints):
            self._add_endpoint(Endpoint(address, index, flags, port=port))

    @rule(n=numbers)
    def delete_a_foreign_endpoint(self, n: int) -> None:
        if theirs := [each for each in self.situation.endpoints if not self.situation.ours.owns(each)]:
            self._delete_endpoint(theirs[n % len(theirs)])

    @rule(n=numbers, priority=st.sampled_from([100, RULE_PRIORITY]), table=st.sampled_from([42, 42000, 42001]))
    def add_a_foreign_rule(self, n: int, priority: int, table: int) -> None:
        """At our priority, or to one of our tables."""
        added = Rule(Family.IPV4, priority, f"10.0.{n}.2" if n % 2 else f"192.0.2.{n}", table, protocol=3)
        if added not in self.situation.rules:
            self._add_rule(added)

    @rule(table=st.sampled_from([42, 42000, 42001]))
    def add_a_foreign_route(self, table: int) -> None:
        self._add_route(Route("203.0.113.0/24", table, (), RouteType.BLACKHOLE, protocol=4))

    @rule(n=numbers)
    def delete_a_foreign_rule(self, n: int) -> None:
        if theirs := [each for each in self.situation.rules if not MARKS.on_rule(each)]:
            self.situation.rules.remove(theirs[n % len(theirs)])

    @rule(limits=st.builds(Limits, st.integers(0, 2), st.integers(0, 2)))
    def set_limits(self, limits: Limits) -> None:
        self.situation.kernel["limits"] = limits

    @rule(n=numbers, family=families)
    def toggle_linkdown(self, n: int, family: Family) -> None:
        if link := self._link(n):
            ignored = self.situation.kernel["linkdown_ignored"]
            ignored[family, link.index] = not ignored.get((family, link.index), False)

    # --- the service

    @rule(steps=st.integers(1, 4))
    def be_late(self, steps: int) -> None:
        """It sees the next steps together."""
        self.later = steps

    @rule(after=st.integers(0, 9))
    def crash(self, after: int) -> None:
        """It ends amid its writes; the next one begins with the record, and with what is in the kernel."""
        snapshot, desired, ours, operations = self._planned()
        written = [
            each.value
            for each in operations
            if isinstance(each.value, Endpoint) and each.action in (Action.ADD, Action.SET_FLAGS)
        ]
        kernel, after_it = apply(operations[:after], snapshot.kernel, ours)
        self._close(operations[:after], desired)
        self._absorb(kernel, replace(after_it, endpoints=with_endpoints(ours, written).endpoints))

    @rule(force=st.booleans())
    def clear(self, force: bool) -> None:
        """``nm-mptcp clear``: nothing of ours is left, but what live connections need."""
        snapshot = self.snapshot()
        ours = seen(self.situation.ours, snapshot.kernel.endpoints)
        before = foreign(replace(snapshot, ours=ours), ours.withdrawn)
        connections = {} if force else snapshot.connections
        kept = needed(snapshot.kernel, ours, connections, MARKS)
        operations = restore(snapshot.kernel, ours, MARKS, kept)
        back = [each for each in operations if _adds_endpoint(each)]
        if len(snapshot.kernel.endpoints) + len(back) > snapshot.kernel.endpoints_max:
            # What we had taken away may not fit any more: the kernel refuses it.
            operations = tuple(each for each in operations if each not in back)
        kernel, after = apply(operations, snapshot.kernel, ours)
        given_back = {each.place for each in after.withdrawn}
        assert foreign(replace(snapshot, kernel=kernel, ours=after), after.withdrawn) == before
        assert not [each for each in kernel.rules if MARKS.on_rule(each) and each.source not in kept]
        tables = {each.table for each in kernel.rules if MARKS.on_rule(each)}
        routes = {route for group in kernel.routes.values() for route in group if MARKS.on_route(route)}
        assert {route.table for route in routes} <= tables
        own = [each for each in kernel.endpoints if after.owns(each) and each.place not in given_back]
        assert {each.address for each in own} <= kept
        self._close(operations, Desired(), forced=force)
        left = frozenset(each for each in after.endpoints if each.address in kept)
        self._absorb(kernel, Ours(left, after.claims))
        self.later = max(self.later, 1)

    @invariant()
    def converges(self) -> None:
        """The heart: one plan, perhaps a second one after subflows ended, and then nothing."""
        if not hasattr(self, "situation"):
            return
        if self.later:
            self.later -= 1
            return
        for _ in range(ROUNDS):
            snapshot, desired, ours, operations = self._planned()
            self._check_order(operations)
            kernel, after = apply(operations, snapshot.kernel, ours)
            assert len(kernel.endpoints) <= max(kernel.endpoints_max, len(snapshot.kernel.endpoints))
            one, other = (
                replace(snapshot, kernel=each, ours=mine) for each, mine in ((snapshot.kernel, ours), (kernel, after))
            )
            # What is withdrawn, or added again for its subflows' sake, is NetworkManager's.
            taken = [
                each for each in (*snapshot.kernel.endpoints, *kernel.endpoints) if each.address in desired.renewed
            ]
            taken += desired.withdrawn
            assert foreign(one, taken) == foreign(other, taken), "nothing foreign is touched"
            self._close(operations, desired)
            self._absorb(kernel, after)
            self.situation.subflow_retry_due -= desired.renewed
            self.situation.guarded = frozenset(desired.tunnels)
            if not operations:
                break
        else:
            raise AssertionError(f"still to be done: {[str(each) for each in operations]}")
        self._check_kernel()

    def teardown(self) -> None:
        if hasattr(self, "situation"):
            self.later = 0
            self.converges()
            self.clear(force=True)

    # --- what holds

    def _check_order(self, operations: tuple[Operation, ...]) -> None:
        kinds = [(each.action, type(each.value)) for each in operations if not ends_subflows(each)]
        ups = [place for place, kind in enumerate(kinds) if kind == (Action.ADD, Endpoint)]
        downs = [place for place, kind in enumerate(kinds) if kind == (Action.DELETE, Endpoint)]
        ways = [
            place
            for place, (action, kind) in enumerate(kinds)
            if kind in (Route, Rule) and action in (Action.ADD, Action.REPLACE)
        ]
        assert not ups or not ways or min(ups) > max(ways), "an endpoint is added after its routes and rules"
        assert not downs or not ways or max(downs) < min(ways), "and deleted before them"
        assert not ups or not downs or max(downs) < min(ups)

    def _check_kernel(self) -> None:
        """What README promises, asked without the decision."""
        situation = self.situation
        rules = [each for each in situation.rules if MARKS.on_rule(each)]
        tables = {each.table for each in rules}
        for route in filter(MARKS.on_route, situation.routes):
            assert route.table in tables | {MAIN_TABLE}, "no table of ours without a rule"
        for family in Family:
            block = [
                MARKS.on_rule(each)
                for each in situation.rules
                if (each.family, each.priority) == (family, RULE_PRIORITY)
            ]
            assert block == sorted(block), "ours are behind all others of their priority"
        for source in {each.source for each in rules}:
            assert [rank(each) for each in rules if each.source == source] == [1, 2, 3, 4]
        for endpoint in situation.endpoints:
            if situation.ours.owns(endpoint):
                assert endpoint.ifindex in situation.links, "no endpoint of ours on a link that is gone"
        if not self._is_plain():
            return
        for address in self._promised():
            (endpoint,) = [each for each in situation.endpoints if each.address == address.address and not each.port]
            assert endpoint.ifindex == address.ifindex
            (table,) = {each.table for each in rules if each.source == address.address} - {0, MAIN_TABLE}
            assert [
                route
                for route in situation.routes
                if route.table == table and route.is_default and self._by(route, address.ifindex)
            ], "a table of its own with its default route"

    def _is_plain(self) -> bool:
        """Whether nothing hinders any path: no tunnel, no short table of endpoints, nothing refused."""
        situation = self.situation
        absent = {each.address for each in situation.absent}
        return (
            situation.running
            and not (situation.startup or situation.silent)
            and situation.kernel["mptcp_enabled"]
            and not situation.kernel["egress"]
            and not situation.refused
            and self.config.mode is not Mode.OFF
            and len({each.address for group in situation.addresses.values() for each in group} | absent)
            + len([each for each in situation.endpoints if not situation.ours.owns(each)])
            <= situation.kernel["endpoints_max"]
        )

    def _promised(self) -> Iterable[Address]:
        """The addresses that have to be paths."""
        situation = self.situation
        everywhere = (*situation.addresses.values(), situation.absent)
        addresses = [each.address for group in everywhere for each in group]
        for ifindex, group in situation.addresses.items():
            link, device = situation.links[ifindex], situation.devices[situation.links[ifindex].name]
            if (
                not (link.up and link.carrier)
                or device.state is not DeviceState.ACTIVATED
                or not device.managed
                or device.external
                or device.roaming
                or device.unreadable
                or device.profile is None
                or device.profile.mptcp_flags
                or device.default_flags != LEFT_TO_US
                or device.activation in situation.ours.claims
                or device.type not in (DeviceType.ETHERNET, WIFI)
                or device.ipv4_connectivity is Connectivity.PORTAL
                or ifindex in situation.damped
                or any(place.ifindex == ifindex for place in situation.silences)
            ):
                continue
            for address in group:
                table = device.profile.route_table(address.family)
                default = any(
                    each.is_default
                    and each.family is address.family
                    and each.table == table
                    and self._by(each, ifindex)
                    for each in situation.routes
                    if not MARKS.on_route(each)
                )
                theirs = any(
                    each.address == address.address and not situation.ours.owns(each) for each in situation.endpoints
                )
                alone = addresses.count(address.address) == 1 and not theirs
                if default and alone and not address.flags & EXCLUDING_FLAGS and address not in situation.absent:
                    yield address

    # --- how it goes

    def snapshot(self) -> Snapshot:
        counted: dict[frozenset[str], int] = {}
        for connection in self.connections:
            counted[frozenset(connection)] = counted.get(frozenset(connection), 0) + 1
        self.situation.connections = None if self.unreadable else counted
        return self.situation.snapshot()

    def _planned(self) -> tuple[Snapshot, Desired, Ours, tuple[Operation, ...]]:
        snapshot = self.snapshot()
        ours = adopted(seen(self.situation.ours, snapshot.kernel.endpoints), snapshot.kernel, MARKS)
        snapshot = replace(snapshot, ours=ours)
        desired = decide(snapshot, self.config)
        ours = decided(ours, snapshot.kernel, desired)
        return snapshot, desired, ours, plan(desired, snapshot.kernel, ours)

    def _absorb(self, kernel: Any, ours: Ours) -> None:
        situation = self.situation
        situation.routes = list(dict.fromkeys(route for group in kernel.routes.values() for route in group))
        situation.rules = list(kernel.rules)
        situation.endpoints = list(kernel.endpoints)
        situation.kernel |= {
            "limits": kernel.limits,
            "linkdown_ignored": dict(kernel.linkdown_ignored),
            "strict": kernel.strict,
        }
        situation.ours = ours

    def _close(self, operations: Iterable[Operation], desired: Desired, *, forced: bool = False) -> None:
        """Subflows end as the kernel, and the closer, end them; a connection loses its last one only on purpose."""
        reasons = {path.address: path.reason.why for path in desired.paths}
        places = {(each.address, each.ifindex) for group in self.situation.addresses.values() for each in group}
        there = {address for address, _ in places}
        # Other flags that the user chose may need another endpoint.
        chosen = {path.address for path in desired.paths if path.flags_from is not FlagsFrom.KIND}
        for operation in operations:
            value = operation.value
            if isinstance(value, LeakingSubflows) and (bypass := self.situation.bypass):
                self.situation.bypass = replace(bypass, leaking=bypass.leaking - value.addresses)
            for connection in list(self.connections):
                ended = _ended_by(operation, connection)
                connection -= ended
                if not ended or connection:
                    continue
                self.connections.remove(connection)
                links = {ifindex for address, ifindex in places if address in ended}
                moved = isinstance(value, Endpoint) and value.id and (value.place not in places or len(links) > 1)
                assert (
                    forced
                    or moved
                    or (isinstance(value, Endpoint) and value.address in chosen)
                    or isinstance(value, LeakingSubflows)
                    or all(reasons.get(address) in DELIBERATE or address not in there for address in ended)
                ), f"{operation}: a connection lost its last subflow"

    # --- small hands

    def _link(self, n: int) -> Link | None:
        indexes = [index for index in sorted(self.situation.links) if index < 900]
        return self.situation.links[indexes[n % len(indexes)]] if indexes else None

    def _plug_in(
        self,
        kind: DeviceType,
        *,
        hosts: list[int],
        hosts6: list[int],
        gateway: bool = True,
        metric: int = 100,
        **device: Any,
    ) -> None:
        number = self.next_index
        self.next_index += 1
        situation, name = self.situation, f"e{number}"
        situation.links[number] = Link(number, name)
        made = Situation()
        made.link(name, type=kind, activation=f":1.5/{number}", **device)
        situation.devices[name] = made.devices[name]
        for family in Family:
            situation.kernel["linkdown_ignored"][family, number] = False
        self.known[name] = (
            *(f"10.0.{number}.{host}/24" for host in hosts),
            *(f"2001:db8:{number}::{host}/64" for host in hosts6),
        )
        self._configure(number, gateway=gateway, metric=metric)

    @staticmethod
    def _by(route: Route, ifindex: int) -> bool:
        return any(hop.ifindex == ifindex for hop in route.hops)

    def _delete_link(self, ifindex: int) -> None:
        situation = self.situation
        del situation.links[ifindex], situation.addresses[ifindex]
        situation.routes = [route for route in situation.routes if not self._by(route, ifindex)]
        for family in Family:
            situation.kernel["linkdown_ignored"].pop((family, ifindex), None)
        situation.kernel["strict"] -= {ifindex}
        situation.silences = {place: each for place, each in situation.silences.items() if place.ifindex != ifindex}
        situation.damped.pop(ifindex, None)

    def _configure(self, ifindex: int, *, gateway: bool = True, metric: int = 100) -> None:
        situation = self.situation
        there = {each.address for each in situation.addresses.get(ifindex, ())}
        situation.addresses.setdefault(ifindex, [])
        for text in self.known[situation.links[ifindex].name]:
            if text.split("/")[0] not in there:
                before = list(situation.routes)
                situation.address(ifindex, text, gateway=gateway, metric=metric)
                new = [route for route in situation.routes if route not in before]
                situation.routes = before
                for route in new:
                    self._add_route(route)
        addresses = {each.address for each in situation.addresses[ifindex]}
        situation.absent = frozenset(each for each in situation.absent if each.address not in addresses)

    def _add_route(self, route: Route) -> None:
        key = (route.table, route.destination, route.tos, route.metric)
        if all((each.table, each.destination, each.tos, each.metric) != key for each in self.situation.routes):
            self.situation.routes.append(route)

    def _add_rule(self, added: Rule) -> None:
        self.situation.rules.append(added)
        self.situation.rules.sort(key=lambda each: (each.family, each.priority))

    def _has_endpoint(self, address: str) -> bool:
        return any(each.address == address and not each.port for each in self.situation.endpoints)

    def _add_endpoint(self, endpoint: Endpoint) -> None:
        endpoints = self.situation.endpoints
        if len(endpoints) < self.situation.kernel["endpoints_max"]:
            endpoints.append(replace(endpoint, id=1 + max((each.id for each in endpoints), default=0)))

    def _delete_endpoint(self, endpoint: Endpoint) -> None:
        self.situation.endpoints.remove(endpoint)
        for connection in list(self.connections):
            connection.discard(endpoint.address)
            if not connection:
                self.connections.remove(connection)

    def _flags_of_networkmanager(self, device: Device) -> EndpointFlag:
        flags = device.profile.mptcp_flags if device.profile else ProfileFlag(0)
        if flags & ProfileFlag.DISABLED or device.state is not DeviceState.ACTIVATED or not self.situation.running:
            return EndpointFlag(0)
        if flags:
            return BACKUP if flags & ProfileFlag.BACKUP else SUBFLOW
        return (
            SUBFLOW
            if device.default_flags == DefaultFlags() and self.situation.version != "1.38.0"
            else EndpointFlag(0)
        )


def _adds_endpoint(operation: Operation) -> bool:
    return operation.action is Action.ADD and isinstance(operation.value, Endpoint)


def _ended_by(operation: Operation, connection: set[str]) -> set[str]:
    """The local addresses of the subflows of a connection that an operation closes."""
    value = operation.value
    if isinstance(value, RedundantSubflows):
        return connection & value.addresses if connection - value.lost else set()
    if isinstance(value, LeakingSubflows):
        return connection & value.addresses
    if isinstance(value, Endpoint) and operation.action is Action.DELETE:
        return connection & {value.address}
    return set()


class DockedLaptop(Laptop):
    """One that begins with links and connections."""

    @initialize(
        **MACHINE,
        kinds=st.lists(KINDS, min_size=2, max_size=3),
        connections=st.lists(numbers, min_size=1, max_size=3),
    )
    def boot(self, **drawn: Any) -> None:
        super().boot(**drawn)


WALK = settings(
    max_examples=max(1, STEPS // STEPS_EACH // 2),
    stateful_step_count=STEPS_EACH,
    deadline=None,
    # The same steps in each run, so that one that fails has to do with the change; SEARCH looks for other ones.
    derandomize="NM_MPTCP_SEARCH" not in os.environ,
    phases=set(Phase) - {Phase.explain},  # it traces every line
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("laptop", [Laptop, DockedLaptop])
def test_a_laptop_converges_whatever_happens(laptop: type[Laptop]) -> None:
    run_state_machine_as_test(laptop, settings=WALK)
