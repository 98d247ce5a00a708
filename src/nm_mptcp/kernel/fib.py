# SPDX-License-Identifier: GPL-2.0-or-later
"""A copy of the kernel's links, addresses, routes and rules; pure: dumps and events in, immutable views out.

An event costs microseconds however many routes there are. Not every change has an event: what follows from the events that
there are is done here as well, for the rest :attr:`FIB.resync_due` asks for a full dump. The changes without an event of
their own, from the kernel's source and its behaviour (6.18):

- IPv4, link administratively down: its routes vanish; of a multipath route its hops are marked dead, and the route goes
  when all are (``fib_sync_down_dev``). They are revived with the link or with its next address (``fib_sync_up``).
- IPv4, last address of a link gone: the same (``fib_disable_ip``).
- IPv4, an address gone from all links: routes of the main table with it as source hint vanish (``fib_sync_down_addr``);
  in other tables they stay, save in a VRF's.
- IPv4, link gone: its routes vanish, multipath ones with all their hops.
- IPv6, link down: multipath siblings by it are marked dead unless all siblings are (``fib6_ifdown``).
- IPv6, an address gone: routes by its link with it as source hint stay and lose the hint (``fib6_remove_prefsrc``).
- IPv6, a link's MTU changed: routes by it with an MTU of their own may get another (``rt6_mtu_change``).
- Of IPv6 multipath siblings the kernel reports the source hint, preference and metrics of one only, whichever comes first.
- A route that is replaced has no event; its successor's has NLM_F_REPLACE.
- Routes by nexthop objects (``ip nexthop``) change with these.

Not noticed until the next full dump: a preference or MTU that the kernel's own router advertisement code changes in a route
that exists already; IPv6 switched off on a link which has multipath routes but no IPv6 address.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from ..model.state import MAIN_TABLE, TABLES, Address, Family, Link, Route, RouteType, Rule
from .rtnl_parse import LOCAL_TABLE, AddressEvent, Event, LinkEvent, NexthopEvent, RouteEvent, RuleEvent

_Group = tuple[int, int]  # table, ifindex
_Key = Hashable

_UNTRACKED = (RouteType.LOCAL, RouteType.BROADCAST, RouteType.MULTICAST)
_RT_SCOPE_HOST = 254
_RTPROT_RA = 9

#: Full dumps after which dead hops of a link that came back are believed: the kernel sends the link's event before it revives
#: them.
_DUMPS_OF_DEAD = 2


@dataclass(frozen=True, slots=True)
class Changes:
    """Which kinds of objects changed, and what was lost; false when nothing did and no resync became due."""

    links: bool = False
    addresses: bool = False
    routes: bool = False
    rules: bool = False
    lost_links: frozenset[int] = frozenset()  #: ifindexes that lost carrier, were taken down or are gone
    lost_addresses: frozenset[Address] = frozenset()
    resync_due: bool = False  #: more changed than there are events for: a full dump is due

    def __bool__(self) -> bool:
        return self != NO_CHANGES

    def __or__(self, other: Changes) -> Changes:
        if other is NO_CHANGES or self is other:
            return self
        if self is NO_CHANGES:
            return other
        return Changes(
            links=self.links or other.links,
            addresses=self.addresses or other.addresses,
            routes=self.routes or other.routes,
            rules=self.rules or other.rules,
            lost_links=self.lost_links | other.lost_links,
            lost_addresses=self.lost_addresses | other.lost_addresses,
            resync_due=self.resync_due or other.resync_due,
        )


NO_CHANGES = Changes()
_ROUTES = Changes(routes=True)


class FIB:
    """Links, addresses, routes and rules, kept up to date by events. For one thread at a time.

    The views (:attr:`links`, :attr:`addresses`, :attr:`routes`, :attr:`rules`) are snapshots in the shapes of
    :class:`~nm_mptcp.model.state.Kernel`: they never change afterwards, are cheap to take, and parts of them that did not
    change are the same objects as before.

    One class in spite of its length: an event of one kind (a link, an address) changes objects of the others.
    """

    def __init__(self) -> None:
        #: Whether something may have changed without an event: a full dump is due. Cleared by :meth:`adopt`.
        self.resync_due = False
        self._links: dict[int, Link] = {}
        self._addresses: dict[int, dict[_Key, Address]] = {}
        self._routes: dict[_Key, Route] = {}
        self._groups: dict[_Group, dict[_Key, Route]] = {}
        self._tables: dict[int, set[int]] = {}  # ifindex -> tables with a group
        self._prefixes: dict[tuple[int, str], tuple[_Key, ...]] = {}  # table, destination
        self._sources: dict[str, dict[_Key, None]] = {}
        self._rules: list[Rule] = []  # in the kernel's order: of equal priority the older first
        self._by_object = 0  # routes by a nexthop object
        self._with_dead: set[_Group] = set()  # groups that may have dead hops
        self._reviving: dict[int, int] = {}  # links whose dead hops may be revived -> full dumps still to be made
        self._lost: dict[int, Link] = {}  # lost links, until the events before the loss are read
        self._links_view: dict[int, Link] | None = {}
        self._addresses_view: dict[int, tuple[Address, ...]] = {}
        self._addresses_stale: set[int] = set()
        self._routes_view: dict[_Group, tuple[Route, ...]] = {}
        self._routes_stale: set[_Group] = set()
        self._rules_view: tuple[Rule, ...] | None = ()

    # --- views

    @property
    def links(self) -> Mapping[int, Link]:
        """Links by ifindex."""
        if self._links_view is None:
            self._links_view = {**self._links, **self._lost} if self._lost else dict(self._links)
        return self._links_view

    @property
    def addresses(self) -> Mapping[int, tuple[Address, ...]]:
        """Addresses by ifindex."""
        if self._addresses_stale:
            view = dict(self._addresses_view)
            for index in self._addresses_stale:
                if group := self._addresses.get(index):
                    view[index] = tuple(group.values())
                else:
                    view.pop(index, None)
            self._addresses_view = view
            self._addresses_stale = set()
        return self._addresses_view

    @property
    def routes(self) -> Mapping[tuple[int, int], tuple[Route, ...]]:
        """Routes by table and ifindex (0: those without a hop), without the local table and dead hops."""
        if self._routes_stale:
            view = dict(self._routes_view)
            for group in self._routes_stale:
                if shown := self._shown(group):
                    view[group] = shown
                else:
                    view.pop(group, None)
            self._routes_view = view
            self._routes_stale = set()
        return self._routes_view

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Rules by family and priority."""
        if self._rules_view is None:
            self._rules_view = tuple(sorted(self._rules, key=lambda rule: (rule.family, rule.priority)))
        return self._rules_view

    def _shown(self, group: _Group) -> tuple[Route, ...]:
        routes = self._groups.get(group)
        if not routes:
            return ()
        if group not in self._with_dead:
            return tuple(routes.values())
        shown = []
        for route in routes.values():
            alive = tuple(hop for hop in route.hops if not hop.dead)
            if len(alive) == len(route.hops):
                shown.append(route)
            elif any(hop.ifindex == group[1] for hop in alive):
                shown.append(replace(route, hops=alive))
        return tuple(shown)

    def is_unambiguous(self, route: Route) -> bool:
        """Whether this route is present, and no other of its protocol to the same destination in the same table: a delete
        that leaves out what is 0 can match none but it. Any thread may call this.
        """
        same = [
            other
            for key in self._prefixes.get(_prefix(route), ())
            if (other := self._routes.get(key)) and other.protocol == route.protocol
        ]
        return len(same) == 1 and same[0] == route

    # --- full dumps

    @classmethod
    def of(
        cls,
        links: Iterable[Link],
        addresses: Iterable[Address],
        routes: Iterable[Route],
        rules: Iterable[Rule],
    ) -> Self:
        """From a full dump, for :meth:`adopt`; made on the worker thread."""
        fresh = cls()
        fresh._fill(links, addresses, routes, rules)
        return fresh

    def adopt(self, fresh: FIB, events: Iterable[Event] = ()) -> Changes:
        """Become ``fresh``, brought up to date with the events that came while it was made; returns the differences.

        ``fresh`` must not be used afterwards. Events from before its dump do no harm.
        """
        fresh._replay(events)
        for index, dumps in self._reviving.items():
            if dumps > 1 and index not in fresh._reviving and fresh._has_dead(index):
                fresh.resync_due = True
                fresh._reviving[index] = dumps - 1
        before = (self.links, self.addresses, self.routes, self.rules)
        fresh._reuse(*before)
        lost_links = frozenset(index for index, link in before[0].items() if _lost(link, fresh._links.get(index)))
        after_addresses = fresh.addresses
        lost_addresses = frozenset(
            address
            for index, group in before[1].items()
            if after_addresses.get(index) is not group
            for address in group
            if _address_key(address) not in fresh._addresses.get(index, {})
        )
        changes = Changes(
            links=before[0] != fresh.links,
            addresses=before[1] != after_addresses,
            routes=_differ(before[2], fresh.routes),
            rules=before[3] != fresh.rules,
            lost_links=lost_links,
            lost_addresses=lost_addresses,
            resync_due=fresh.resync_due,
        )
        self.__dict__.update(fresh.__dict__)
        return changes

    def _fill(
        self, links: Iterable[Link], addresses: Iterable[Address], routes: Iterable[Route], rules: Iterable[Rule]
    ) -> None:
        self._links = {link.index: link for link in links}
        self._links_view = None
        for address in addresses:
            self._addresses.setdefault(address.ifindex, {})[_address_key(address)] = address
            self._addresses_stale.add(address.ifindex)
        for route in routes:
            if _tracked(route):
                self._put(_route_key(route), self._with_waiting(route))
        self._rules = list(rules)
        self._rules_view = None

    def _replay(self, events: Iterable[Event]) -> None:
        """Apply events from before and after the dump; which is which is not known.

        The end is the same, with two exceptions: a route that an event reports, and that is not (or not so) in the dump, is
        newer than that, or a later event has changed it silently; and a route that replaced another may have done so among
        other routes than there are now.
        """
        changed = False
        for event in events:
            if isinstance(event, RouteEvent):
                if event.replace and any(self._same_place(route) for route in event.routes):
                    self.resync_due = True
                for route in map(self._with_waiting, event.routes if event.new else ()):
                    known = self._routes.get(_route_key(route))
                    changed |= _tracked(route) and (known is None or known != route or _dead(known) != _dead(route))
            elif isinstance(event, RuleEvent) and event.new and event.rule in self._rules:
                self.resync_due = True  # it is in the dump, or it exists twice
                continue
            elif changed and _may_change_silently(event):
                self.resync_due = True
            self.update(event)

    def _reuse(
        self,
        links: Mapping[int, Link],
        addresses: Mapping[int, tuple[Address, ...]],
        routes: Mapping[_Group, tuple[Route, ...]],
        rules: tuple[Rule, ...],
    ) -> None:
        """Keep the objects of the views before for what has not changed."""
        if self.links == links:
            self._links_view = dict(links) if not isinstance(links, dict) else links
        for index, group in self.addresses.items():
            if _same_objects(group, addresses.get(index)):
                # Equal or not, only the new ones have the current lifetimes.
                self._addresses_view[index] = group if _lifetimes(group) else addresses[index]
        for place, shown in self.routes.items():
            if _same_objects(shown, routes.get(place)):
                self._routes_view[place] = routes[place]
        if self.rules == rules:
            self._rules_view = rules

    # --- events

    def update(self, event: Event) -> Changes:
        """Apply one event; returns what changed, :data:`NO_CHANGES` (false) when nothing did."""
        was_due = self.resync_due
        if isinstance(event, RouteEvent):
            changes = self._route(event)
        elif isinstance(event, LinkEvent):
            changes = self._link(event)
        elif isinstance(event, AddressEvent):
            changes = self._address(event)
        elif isinstance(event, RuleEvent):
            changes = self._rule(event)
        else:
            changes = self._nexthop(event)
        if self.resync_due and not was_due:
            changes |= Changes(resync_due=True)
        return changes

    def anticipate(self, event: LinkEvent) -> Changes:
        """Show a link as lost although earlier events are still unread; all else that the loss changes follows in order."""
        index = event.link.index
        known = self.links.get(index)
        if event.new and event.link.up and event.link.carrier:
            return self._end_anticipation([index])
        if known is None or index not in self._links:
            return NO_CHANGES
        lost = replace(known, up=event.new and event.link.up, carrier=False)
        if lost == known:
            return NO_CHANGES
        self._lost[index] = lost
        self._links_view = None
        return Changes(links=True, lost_links=frozenset({index}))

    def caught_up(self) -> Changes:
        """All events are read: those that were anticipated have been applied."""
        return self._end_anticipation(list(self._lost))

    def _end_anticipation(self, indexes: Iterable[int]) -> Changes:
        shown = [(index, lost) for index in indexes if (lost := self._lost.pop(index, None))]
        if not shown:
            return NO_CHANGES
        self._links_view = None
        return Changes(links=True) if any(self._links.get(index) != lost for index, lost in shown) else NO_CHANGES

    def _link(self, event: LinkEvent) -> Changes:
        index = event.link.index
        old = self._links.get(index)
        if not event.new:
            return self._link_gone(index, old)
        link = event.link
        if old is not None and link.mtu != old.mtu:
            self._links[index] = link
            if any(
                name == "RTAX_MTU"
                for key in self._family_routes(index, Family.IPV6)
                for name, _ in self._routes[key].metrics
            ):
                self.resync_due = True
        if link == old:
            return NO_CHANGES
        self._links[index] = link
        self._links_view = None
        routes = False
        if not link.up and (old is None or old.up):
            routes = self._mark_dead(index, Family.IPV4, forced=False) | self._mark_dead(
                index, Family.IPV6, forced=False
            )
        elif link.up and (old is None or not old.up or (link.carrier and not old.carrier)):
            self._expect_revival(index)
        lost = frozenset({index}) if old is not None and _lost(old, link) else frozenset[int]()
        return Changes(links=True, routes=routes, lost_links=lost)

    def _link_gone(self, index: int, old: Link | None) -> Changes:
        addresses = self._addresses.pop(index, {})
        if addresses:
            self._addresses_stale.add(index)
        routes = [key for table in self._tables.get(index, ()) for key in self._groups[table, index]]
        for key in routes:
            self._drop(key)
        if old is None and not addresses and not routes:
            return NO_CHANGES
        if old is not None:
            del self._links[index]
            self._links_view = None
        return Changes(
            links=old is not None,
            addresses=bool(addresses),
            routes=bool(routes),
            lost_links=frozenset({index}) if old is not None else frozenset(),
            lost_addresses=frozenset(addresses.values()),
        )

    def _address(self, event: AddressEvent) -> Changes:
        address = event.address
        index, key = address.ifindex, _address_key(address)
        group = self._addresses.setdefault(index, {})
        old = group.get(key)
        if event.new:
            group[key] = address
            self._addresses_stale.add(index)
            if old is None:
                self._expect_revival(index)
            return Changes(addresses=True) if address != old else NO_CHANGES
        if old is None:
            if not group:
                del self._addresses[index]
            return NO_CHANGES
        del group[key]
        self._addresses_stale.add(index)
        last = not any(other.family is address.family for other in group.values())
        if not group:
            del self._addresses[index]
        if address.family is Family.IPV4:
            routes = self._source_gone(address)
            if last:
                routes |= self._mark_dead(index, Family.IPV4, forced=True)
        else:
            routes = self._hint_gone(address)
            # IPv6 switched off on the link (disable_ipv6): siblings are marked dead without any event.
            link = self._links.get(index)
            if last and link is not None and link.up and self._family_routes(index, Family.IPV6):
                self.resync_due = True
        return Changes(addresses=True, routes=routes, lost_addresses=frozenset({old}))

    def _source_gone(self, address: Address) -> bool:
        """IPv4: routes with this source hint vanish once no link has the address any more (``fib_sync_down_addr``)."""
        text = address.address
        keys = self._sources.get(text)
        if not keys or any(other.address == text for group in self._addresses.values() for other in group.values()):
            return False
        gone = [key for key in keys if self._routes[key].table == MAIN_TABLE]
        # A VRF's table loses them as well, and it is not known which tables are a VRF's. Ours are not (where they are
        # configured to be others than the default ones, that costs a dump).
        if any(self._routes[key].table not in TABLES for key in keys if key not in gone):
            self.resync_due = True
        for key in gone:
            self._drop(key)
        return bool(gone)

    def _hint_gone(self, address: Address) -> bool:
        """IPv6: routes by this link with this source hint lose the hint (``fib6_remove_prefsrc``)."""
        changed = False
        for key in list(self._sources.get(address.address, ())):
            route = self._routes[key]
            if route.hops and route.hops[0].ifindex == address.ifindex:
                self._put(key, replace(route, source=None))
                changed = True
        return changed

    def _family_routes(self, index: int, family: Family) -> list[_Key]:
        ipv4 = family is Family.IPV4  # see _route_key
        return [
            key
            for table in self._tables.get(index, ())
            for key in self._groups[table, index]
            if isinstance(key, Route) is ipv4
        ]

    def _mark_dead(self, index: int, family: Family, *, forced: bool) -> bool:
        """A link's routes vanish, or their hops by it are dead: what the kernel does when the link, or the family on it, goes
        down. ``forced``: also routes of host scope.
        """
        keys = self._family_routes(index, family)
        for key in keys:
            route = self._routes[key]
            if route.scope == _RT_SCOPE_HOST and not forced:
                continue
            if family is Family.IPV4 and len(route.hops) == 1:
                self._drop(key)
                continue
            hops = tuple(replace(hop, dead=hop.dead or hop.ifindex == index) for hop in route.hops)
            # IPv6, alone or a sibling: if it vanishes there will be an event; until then it is unusable.
            if family is Family.IPV4 and all(hop.dead for hop in hops):
                self._drop(key)
            else:
                if route.nexthop_object:
                    self.resync_due = True
                self._put(key, replace(route, hops=hops))
        return bool(keys)

    def _expect_revival(self, index: int) -> None:
        """Dead hops by this link may be revived soon, without an event."""
        if self._has_dead(index):
            self.resync_due = True
            self._reviving[index] = _DUMPS_OF_DEAD

    def _has_dead(self, index: int) -> bool:
        return any(
            (table, index) in self._with_dead
            and any(
                hop.dead and hop.ifindex == index for route in self._groups[table, index].values() for hop in route.hops
            )
            for table in self._tables.get(index, ())
        )

    def _route(self, event: RouteEvent) -> Changes:
        changed = False
        routes = [self._with_waiting(route) for route in event.routes if _tracked(route)]
        if not event.new:
            for route in routes:
                changed |= self._route_gone(route)
            return _ROUTES if changed else NO_CHANGES
        if event.replace and routes:
            changed = self._replaced(routes)
        for route in routes:
            key = _route_key(route)
            old = self._routes.get(key)
            if old is not None and old == route and _dead(old) == _dead(route):
                continue
            if old is not None and old != route and len(routes) > 1:
                # Reported with the source hint and metrics of a sibling.
                self.resync_due = True
            self._put(key, route)
            changed = True
        return _ROUTES if changed else NO_CHANGES

    def _with_waiting(self, route: Route) -> Route:
        """The route with hops alive that merely wait for a carrier: where ``ignore_routes_with_linkdown`` is set the kernel
        reports these as dead, too (``fib_nexthop_info``), without an event when that begins or ends.
        """
        if not any(hop.dead for hop in route.hops):
            return route
        waiting = {
            hop.ifindex for hop in route.hops if (link := self._links.get(hop.ifindex)) and link.up and not link.carrier
        }
        return replace(
            route, hops=tuple(replace(hop, dead=hop.dead and hop.ifindex not in waiting) for hop in route.hops)
        )

    def _route_gone(self, route: Route) -> bool:
        key = _route_key(route)
        if route.type is RouteType.OTHER:
            # There may be several that differ only in what is not read.
            self.resync_due = True
        if key not in self._routes:
            return False
        self._drop(key)
        left = self._same_place(route)
        if route.family is Family.IPV6 and _has_gateway(route) and any(_has_gateway(self._routes[one]) for one in left):
            # What the kernel reported of the siblings may have been this one's.
            self.resync_due = True
        return True

    def _replaced(self, routes: list[Route]) -> bool:
        """Drop what these routes replaced."""
        first = routes[0]
        mine = {_route_key(route) for route in routes}
        present = [
            key
            for key in self._same_place(first)
            if self._routes[key].tos == first.tos and self._routes[key].type is not RouteType.OTHER
        ]
        if first.family is Family.IPV6:
            # fib6_add_rt2node: the first of its kind, else the first of all; with or without a gateway are two kinds, and
            # those with one go together. What the kernel itself learnt by router advertisement is of neither kind.
            if any(self._routes[key].protocol == _RTPROT_RA for key in present):
                self.resync_due = True
            kind = [key for key in present if _has_gateway(self._routes[key]) == _has_gateway(first)] or present
            together = all(_has_gateway(self._routes[key]) for key in kind)
        else:
            kind, together = [key for key in present if key not in mine], False
        if len(kind) > 1 and not together:
            self.resync_due = True
            return False
        gone = [key for key in kind if key not in mine]
        for key in gone:
            self._drop(key)
        return bool(gone)

    def _rule(self, event: RuleEvent) -> Changes:
        rule = event.rule
        known = self._rules.count(rule)
        if rule.foreign and known and (event.new or known > 1):
            # There may be several that differ only in what is not read.
            self.resync_due = True
        if event.new:
            # Behind all others of its priority; the same may exist twice (fib_nl_newrule without NLM_F_EXCL).
            self._rules.append(rule)
        elif not known:
            return NO_CHANGES
        else:
            self._rules.remove(rule)  # the first, as the kernel does
        self._rules_view = None
        return Changes(rules=True)

    def _nexthop(self, event: NexthopEvent) -> Changes:
        if self._by_object and (event.replace or not event.new):
            self.resync_due = True
        return NO_CHANGES

    def _same_place(self, route: Route) -> list[_Key]:
        """The routes of the same table, destination and metric."""
        keys = self._prefixes.get(_prefix(route), ())
        return [key for key in keys if self._routes[key].metric == route.metric]

    # --- the store

    def _put(self, key: _Key, route: Route) -> None:
        old = self._routes.get(key)
        if old is not None:
            if old.source != route.source:
                self._forget_source(key, old)
            self._by_object -= bool(old.nexthop_object)
        else:
            prefix = _prefix(route)
            self._prefixes[prefix] = (*self._prefixes.get(prefix, ()), key)
        self._routes[key] = route
        self._by_object += bool(route.nexthop_object)
        if route.source is not None:
            self._sources.setdefault(route.source, {})[key] = None
        dead = any(hop.dead for hop in route.hops)
        for group in _groups_of(route):
            routes = self._groups.get(group)
            if routes is None:
                routes = self._groups[group] = {}
                self._tables.setdefault(group[1], set()).add(group[0])
            routes[key] = route
            self._routes_stale.add(group)
            if dead:
                self._with_dead.add(group)

    def _drop(self, key: _Key) -> None:
        route = self._routes.pop(key, None)
        if route is None:
            return
        self._by_object -= bool(route.nexthop_object)
        self._forget_source(key, route)
        prefix = _prefix(route)
        left = self._prefixes.pop(prefix)
        if len(left) > 1:
            self._prefixes[prefix] = tuple(other for other in left if other != key)
        for group in _groups_of(route):
            routes = self._groups[group]
            routes.pop(key, None)
            self._routes_stale.add(group)
            if not routes:
                del self._groups[group]
                self._with_dead.discard(group)
                tables = self._tables[group[1]]
                tables.discard(group[0])
                if not tables:
                    del self._tables[group[1]]

    def _forget_source(self, key: _Key, route: Route) -> None:
        if route.source is not None:
            keys = self._sources[route.source]
            keys.pop(key, None)
            if not keys:
                del self._sources[route.source]


def _tracked(route: Route) -> bool:
    return route.table != LOCAL_TABLE and route.type not in _UNTRACKED


def _address_key(address: Address) -> _Key:
    """What identifies an address on one link in the kernel."""
    if address.family is Family.IPV6:
        return address.address
    return (address.address, address.prefixlen, address.peer)


def _route_key(route: Route) -> _Key:
    """What identifies a route in the kernel. In IPv6 there is one for each destination, metric, link and gateway
    (``rt6_duplicate_nexthop``); in IPv4 several may differ in anything.
    """
    if route.family is Family.IPV4:
        return route
    hop = route.hops[0] if route.hops else None
    other = route.type if hop is None or route.type is RouteType.OTHER else None
    return (route.table, route.destination, route.metric, hop and hop.ifindex, hop and hop.gateway, other)


def _prefix(route: Route) -> tuple[int, str]:
    return (route.table, route.destination)


def _groups_of(route: Route) -> Iterable[_Group]:
    table = route.table
    if len(route.hops) == 1:
        return ((table, route.hops[0].ifindex),)
    if not route.hops:
        return ((table, 0),)
    return {(table, hop.ifindex) for hop in route.hops}


def _has_gateway(route: Route) -> bool:
    return bool(route.hops) and route.hops[0].gateway is not None


def _dead(route: Route) -> tuple[bool, ...]:
    return tuple(hop.dead for hop in route.hops)


def _may_change_silently(event: Event) -> bool:
    """Whether routes may change or vanish without events of their own beside this one."""
    if isinstance(event, LinkEvent):
        return not event.new or not event.link.up
    return isinstance(event, AddressEvent) and not event.new


def _lost(old: Link, new: Link | None) -> bool:
    return new is None or (old.up and not new.up) or (old.carrier and not new.carrier)


def _same_objects(one: tuple[Any, ...], other: tuple[Any, ...] | None) -> bool:
    """Whether two groups are equal, in any order."""
    if other is None or len(one) != len(other):
        return False
    return one == other or set(one) == set(other)


def _lifetimes(group: tuple[Address, ...]) -> bool:
    return any(address.preferred is not None or address.valid is not None for address in group)


def _differ(one: Mapping[_Group, tuple[Route, ...]], other: Mapping[_Group, tuple[Route, ...]]) -> bool:
    return one.keys() != other.keys() or any(other[group] is not routes for group, routes in one.items())
