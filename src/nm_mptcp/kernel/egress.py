# SPDX-License-Identifier: GPL-2.0-or-later
"""Where packets leave that nobody bound to anything: the kernel's own answer, right for all its rules, tables and policies.

Asked only while there is a link like a tunnel, or an IPsec policy, and only when something changed that it depends on: a
machine without a VPN never asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from ..fault_log import FaultLog
from ..model.device_types import PPP, TUNNEL_LINKS
from ..model.state import Egress, Family, Link, Tunnel, TunnelBypass
from .errors import KernelError
from .netlink import ROUTE, Requester
from .route_lookup import NO_ROUTE, PROBES, lookup
from .sock_diag import Subflow
from .xfrm import XfrmPolicies, XfrmPolicy, XfrmPolicyEvents, encrypted

_log = logging.getLogger(__name__)


class EgressLookup(Requester):
    """Asks the kernel where packets leave: synchronous, for one thread, in that thread's network namespace."""

    PROTOCOL = ROUTE

    def __init__(self) -> None:
        super().__init__()
        self._policies = XfrmPolicies()
        self._events: XfrmPolicyEvents | None = None
        self._news = 0  #: counts what was told of IPsec policies
        self._outgoing: tuple[int, tuple[XfrmPolicy, ...]] = (-1, ())
        self._complaints = FaultLog(_log)
        self._links: Mapping[int, Link] | None = None
        self._alike = False
        self._asked: tuple[object, ...] = ()
        self._known: Mapping[Family, tuple[Egress, ...]] = {}

    def follow(self, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]) -> None:
        """Call ``on_change`` from now on when IPsec policies change. Raises :class:`KernelError`."""

        def changed() -> None:
            self._news += 1
            on_change()

        self._events = XfrmPolicyEvents(changed)
        self._events.start(loop)

    def unfollow(self) -> None:
        """End :meth:`follow`."""
        if self._events is not None:
            self._events.close()

    def close(self) -> None:
        """Close the sockets for requests."""
        super().close()
        self._policies.close()

    def look(
        self, links: Mapping[int, Link], *others: object, afresh: bool = False
    ) -> Mapping[Family, tuple[Egress, ...]]:
        """Where the probes leave, nothing while there is nothing like a tunnel. ``others`` are what else it depends on: the
        same objects as at the last look, and the same answer is given (save ``afresh``). So it is when the kernel refuses to
        answer, which is told once: nothing else depends on it.
        """
        try:
            known = self._look(links, others, afresh=afresh)
        except KernelError as error:
            self._complaints.say("look", f"{error}; what is known of VPNs may be old")
            return self._known
        self._complaints.right("look")
        return known

    def _look(
        self, links: Mapping[int, Link], others: tuple[object, ...], *, afresh: bool
    ) -> Mapping[Family, tuple[Egress, ...]]:
        if links is not self._links:
            self._links = links
            self._alike = any(link.kind in TUNNEL_LINKS or link.kind == PPP for link in links.values())
        policies = self._policies_now(afresh=afresh)
        if not self._alike and not policies:
            self._asked, self._known = (), {}
            return self._known
        depends = (links, *others, policies)
        if (
            afresh
            or len(depends) != len(self._asked)
            or any(a is not b for a, b in zip(depends, self._asked, strict=True))
        ):
            known = {family: tuple(map(self.of, probes)) for family, probes in PROBES.items()}
            self._asked, self._known = depends, known
        return self._known

    def of(self, destination: str) -> Egress:
        """Where a packet to this address leaves. Raises :class:`KernelError`."""
        try:
            found = lookup(self._netlink, destination)
        except KernelError as error:
            if error.errno in NO_ROUTE:
                return Egress()
            raise
        policies = self._outgoing[1] if found.source and not found.local else ()
        wrapped = bool(policies) and encrypted(policies, found.source or "", destination, found.ifindex)
        return Egress(found.ifindex, encrypted=wrapped)

    def bypass(self, subflows: Iterable[Subflow], tunnels: Mapping[Family, Tunnel]) -> TunnelBypass:
        """On which addresses these subflows stand beside, and which around the tunnels. Raises :class:`KernelError`."""
        ways = self._ways(subflows, tunnels)
        return TunnelBypass(
            allowed=frozenset(subflow.local for subflow, beside in ways if beside),
            leaking=frozenset(subflow.local for subflow, beside in ways if not beside and subflow.ifindex),
        )

    def tunnelled(self, subflows: Iterable[Subflow], tunnels: Mapping[Family, Tunnel]) -> list[Subflow]:
        """Those of these subflows whose peer is reached by a tunnel, or not at all. Raises :class:`KernelError`."""
        return [subflow for subflow, beside in self._ways(subflows, tunnels) if not beside]

    def _ways(self, subflows: Iterable[Subflow], tunnels: Mapping[Family, Tunnel]) -> list[tuple[Subflow, bool]]:
        """Each subflow of a tunnelled family, and whether the way to its peer is beside the tunnel."""
        known: dict[str, Egress] = {}
        result = []
        for subflow in subflows:
            tunnel = tunnels.get(subflow.family)
            if tunnel is None:
                continue
            if subflow.remote not in known:
                known[subflow.remote] = self.of(subflow.remote)
            way = known[subflow.remote]
            beside = bool(way.ifindex) and not way.encrypted and way.ifindex not in tunnel.interfaces
            result.append((subflow, beside))
        return result

    def _policies_now(self, *, afresh: bool) -> tuple[XfrmPolicy, ...]:
        """The outgoing policies; read when there was news of them, and at each look where nobody listens for news."""
        news = self._news
        if afresh or self._events is None or self._outgoing[0] != news:
            found = self._policies.outgoing()
            self._outgoing = (news, found if found != self._outgoing[1] else self._outgoing[1])
        return self._outgoing[1]
