# SPDX-License-Identifier: GPL-2.0-or-later
"""Where packets from unbound sockets leave, by the kernel's own rules, tables and IPsec policies: full tunnels, and what
bypasses them.

Looked up only while there is a tunnel's link or an IPsec policy, and only when something has changed that it depends on.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Iterable, Mapping

from ..fault_log import FaultLog
from ..model.device_types import PPP, TUNNEL_LINKS
from ..model.state import Egress, Family, Link, Route, Rule, Tunnel, TunnelBypass
from .errors import KernelError
from .kill_switch import kill_switches
from .netlink import ROUTE, Requester
from .route_lookup import NO_ROUTE, PROBES, lookup
from .sock_diag import Subflow
from .xfrm import XfrmPolicies, XfrmPolicy, XfrmPolicyEvents, encrypted

_log = logging.getLogger(__name__)

#: Errors by a route or rule that rejects, as a kill switch has it behind its tunnel. (IPv6 without any route: ENETUNREACH.)
_REJECTED = frozenset({errno.EINVAL, errno.EACCES, errno.EHOSTUNREACH})


class EgressLookup(Requester):
    """Egress look-ups: synchronous, for one thread, opened at first use, in that thread's network namespace."""

    PROTOCOL = ROUTE

    def __init__(self) -> None:
        super().__init__()
        self._policies = XfrmPolicies()
        self._subscription: XfrmPolicyEvents | None = None
        self._policy_changes = 0  #: changes of IPsec policies, counted
        self._outgoing: tuple[int, tuple[XfrmPolicy, ...]] = (-1, ())
        self._faults = FaultLog(_log)
        self._links: Mapping[int, Link] | None = None
        self._may_tunnel = False
        self._depends: tuple[object, ...] = ()
        self._known: Mapping[Family, tuple[Egress, ...]] = {}

    def follow(self, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]) -> None:
        """Call ``on_change`` from now on when IPsec policies change. Raises :class:`KernelError`."""

        def changed() -> None:
            self._policy_changes += 1
            on_change()

        self._subscription = XfrmPolicyEvents(changed)
        self._subscription.start(loop)

    def unfollow(self) -> None:
        """End :meth:`follow`."""
        if self._subscription is not None:
            self._subscription.close()

    def close(self) -> None:
        """Close the sockets for requests."""
        super().close()
        self._policies.close()

    def look(
        self,
        links: Mapping[int, Link],
        routes: Mapping[tuple[int, int], tuple[Route, ...]] = {},  # never changed
        rules: tuple[Rule, ...] = (),
        *others: object,
        afresh: bool = False,
    ) -> Mapping[Family, tuple[Egress, ...]]:
        """The egress of each of :data:`.PROBES`, empty while nothing can be a tunnel or a kill switch.

        ``others`` are what else it depends on, compared by identity: if all are the same objects as at the last look, so is
        the result (unless ``afresh``). So it is when the kernel answers with an error, which is logged once, since nothing
        else depends on it.
        """
        try:
            known = self._look(links, routes, rules, others, afresh=afresh)
        except KernelError as error:
            self._faults.report("look", f"{error}; the last known state of VPN tunnels is used")
            return self._known
        self._faults.clear("look")
        return known

    def _look(
        self,
        links: Mapping[int, Link],
        routes: Mapping[tuple[int, int], tuple[Route, ...]],
        rules: tuple[Rule, ...],
        others: tuple[object, ...],
        *,
        afresh: bool,
    ) -> Mapping[Family, tuple[Egress, ...]]:
        if links is not self._links:
            self._links = links
            self._may_tunnel = any(link.kind in TUNNEL_LINKS or link.kind == PPP for link in links.values())
        policies = self._policies_now(afresh=afresh)
        if not self._may_tunnel and not policies and not kill_switches(routes, rules):
            self._depends, self._known = (), {}
            return self._known
        depends = (links, routes, rules, *others, policies)
        if (
            afresh
            or len(depends) != len(self._depends)
            or any(a is not b for a, b in zip(depends, self._depends, strict=True))
        ):
            known = {family: tuple(map(self.of, probes)) for family, probes in PROBES.items()}
            self._depends, self._known = depends, known
        return self._known

    @property
    def ipsec(self) -> bool:
        """Whether an outgoing policy encrypts some packets, by the last look."""
        return any(policy.encrypts for policy in self._outgoing[1])

    def encrypts(self, source: str, destination: str, ifindex: int) -> bool:
        """Whether a policy encrypts packets with these addresses by this interface, by the last look."""
        return bool(self._outgoing[1]) and encrypted(self._outgoing[1], source, destination, ifindex)

    def of(self, destination: str, mark: int = 0) -> Egress:
        """The egress of a packet to this address, with this mark. Raises :class:`KernelError`."""
        try:
            found = lookup(self._netlink, destination, mark=mark)
        except KernelError as error:
            if error.errno in NO_ROUTE:
                return Egress(rejected=error.errno in _REJECTED)
            raise
        outside = found.source is not None and not found.local
        return Egress(
            found.ifindex, encrypted=outside and self.encrypts(found.source or "", destination, found.ifindex)
        )

    def bypass(self, subflows: Iterable[Subflow], tunnels: Mapping[Family, Tunnel]) -> TunnelBypass:
        """The local addresses of those of these subflows that do not go through the tunnels. Raises :class:`KernelError`."""
        reached = self._reached(subflows, tunnels)
        return TunnelBypass(
            allowed=frozenset(subflow.local for subflow, outside in reached if outside),
            leaking=frozenset(subflow.local for subflow, outside in reached if not outside and subflow.ifindex),
        )

    def tunnelled(self, subflows: Iterable[Subflow], tunnels: Mapping[Family, Tunnel]) -> list[Subflow]:
        """Those of these subflows whose peer is routed into a tunnel, or not at all. Raises :class:`KernelError`."""
        return [subflow for subflow, outside in self._reached(subflows, tunnels) if not outside]

    def _reached(self, subflows: Iterable[Subflow], tunnels: Mapping[Family, Tunnel]) -> list[tuple[Subflow, bool]]:
        """Each subflow of a tunnelled family, and whether it may be outside of the tunnel: its peer is routed there, with the
        mark of its socket, or the program bound the connection to an interface that is no tunnel.
        """
        subflows = tuple(subflows)
        # The path manager binds additional subflows itself; what a program chose shows in the initial one.
        bound = {each.token: each.ifindex for each in subflows if each.local_id == 0 and each.initial and each.ifindex}
        known: dict[tuple[str, int], Egress] = {}
        result = []
        for subflow in subflows:
            tunnel = tunnels.get(subflow.family)
            if tunnel is None:
                continue
            place = (subflow.remote, subflow.mark)
            if place not in known:
                known[place] = self.of(*place)
            egress = known[place]
            outside = bool(egress.ifindex) and not egress.encrypted and egress.ifindex not in tunnel.interfaces
            chosen = bound.get(subflow.token, 0)
            result.append((subflow, outside or (bool(chosen) and chosen not in tunnel.interfaces)))
        return result

    def _policies_now(self, *, afresh: bool) -> tuple[XfrmPolicy, ...]:
        """The outgoing policies, read again after an event; at each look where there is no subscription."""
        events = self._policy_changes
        if afresh or self._subscription is None or self._outgoing[0] != events:
            found = self._policies.outgoing()
            self._outgoing = (events, found if found != self._outgoing[1] else self._outgoing[1])
        return self._outgoing[1]
