# SPDX-License-Identifier: GPL-2.0-or-later
"""Which subflows an operation closes, and closing them.

A connection whose last subflow is closed is lost, so what has a live sibling is determined anew at each call; only the VPN
guard closes last subflows (:class:`~nm_mptcp.model.state.LeakingSubflows`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Set

from ..model.state import IPSEC, Action, Endpoint, LeakingSubflows, Operation, RedundantSubflows
from .egress import EgressLookup
from .errors import KernelError
from .path_manager import PathManager
from .sock_diag import Sockets, Subflow, TCPState, may_administer

#: States of a subflow whose program may still send.
_OPEN = frozenset({TCPState.SYN_SENT, TCPState.ESTABLISHED, TCPState.CLOSE_WAIT})


class SubflowCloser:
    """Closes subflows through socket diagnosis and the path manager; synchronous, for one thread."""

    def __init__(self, sockets: Sockets, path_manager: PathManager, egress: EgressLookup) -> None:
        self._sockets = sockets
        self._path_manager = path_manager
        self._egress = egress
        #: by :meth:`close_leaking`: subflows that it closed, and connections that had no other
        self.closed_subflows = self.closed_connections = 0

    def would_close(self, operation: Operation) -> tuple[Subflow, ...] | None:
        """The subflows that the operation itself would close now; None without CAP_NET_ADMIN, which it takes to see them.

        Raises :class:`KernelError`.
        """
        match operation:
            case Operation(Action.CLOSE_REDUNDANT, RedundantSubflows() as redundant):
                return tuple(self._redundant(redundant)) if may_administer() else None
            case Operation(Action.CLOSE_ALL, LeakingSubflows() as leaking):
                return tuple(self._leaking(leaking, self._sockets.subflows())) if may_administer() else None
            case Operation(Action.DELETE, Endpoint(id=id_, port=port) as endpoint) if id_ and port:
                return tuple(self._on_port(endpoint)) if may_administer() else None
        return ()

    def close_redundant(self, redundant: RedundantSubflows) -> None:
        """Close those whose connection has a live sibling. Raises :class:`KernelError` where they cannot be read."""
        for subflow in self._redundant(redundant):
            with contextlib.suppress(KernelError):  # gone by now, or not supported: TCP's timers decide then
                self._close(subflow)

    def close_leaking(self, leaking: LeakingSubflows) -> None:
        """Reset what leaks, also what is not established yet, and count it.

        A reset is one packet; a subflow that is closed in order retransmits for as long as its peer does not answer.
        Raises :class:`KernelError`.
        """
        present = self._sockets.subflows()
        closed = self._leaking(leaking, present)
        for subflow in closed:
            try:
                self._sockets.destroy(subflow)
            except KernelError as error:
                if not error.absent and subflow.local_id == 0:
                    # Not supported (CONFIG_INET_DIAG_DESTROY). Additional subflows are closed with their endpoint.
                    self._close_initial(subflow)
        self.closed_subflows += len(closed)
        alive = {subflow.token for subflow in set(present) - set(closed)}
        self.closed_connections += len({subflow.token for subflow in closed} - alive)

    def began_in(self, tunnels: Set[int], addresses: Set[str]) -> tuple[Subflow, ...]:
        """The subflows of connections that began in these tunnels (ifindexes, :data:`IPSEC`), which have these addresses;
        without those that their program has closed.

        Raises :class:`KernelError`.
        """
        present = [each for each in self._sockets.subflows() if each.state in _OPEN]
        tokens = {
            each.token
            for each in present
            if each.initial
            and (each.local in addresses or each.ifindex in tunnels or (IPSEC in tunnels and self._is_encrypted(each)))
        }
        return tuple(each for each in present if each.token in tokens)

    def close_beside(self, tunnels: Set[int], addresses: Set[str]) -> None:
        """Reset the subflows beside these tunnels of connections that began in one, and count them."""
        for subflow in self.began_in(tunnels, addresses):
            if not subflow.initial and subflow.local not in addresses and not self._is_encrypted(subflow):
                with contextlib.suppress(KernelError):
                    self._sockets.destroy(subflow)
                    self.closed_subflows += 1

    def _is_encrypted(self, subflow: Subflow) -> bool:
        return self._egress.encrypts(subflow.local, subflow.remote, subflow.ifindex)

    def close_on_port(self, endpoint: Endpoint) -> None:
        """Reset the subflows on an endpoint's port that have a live sibling, as far as possible.

        Were they closed by the deletion of the endpoint, the port would stay in TIME_WAIT for a minute, and nothing could
        listen on it again.
        """
        with contextlib.suppress(KernelError):
            for subflow in self._on_port(endpoint):
                with contextlib.suppress(KernelError):
                    self._sockets.destroy(subflow)

    def _redundant(self, redundant: RedundantSubflows) -> list[Subflow]:
        established = [subflow for subflow in self._sockets.subflows() if subflow.established]
        alive = {subflow.token for subflow in established if subflow.local not in redundant.lost}
        return [each for each in established if each.local in redundant.addresses and each.token in alive]

    def _leaking(self, leaking: LeakingSubflows, present: Iterable[Subflow]) -> list[Subflow]:
        return self._egress.tunnelled((each for each in present if each.local in leaking.addresses), leaking.tunnels)

    def _on_port(self, endpoint: Endpoint) -> list[Subflow]:
        established = [subflow for subflow in self._sockets.subflows() if subflow.established]
        there = [each for each in established if (each.local, each.local_port) == (endpoint.address, endpoint.port)]
        alive = {subflow.token for subflow in established if subflow not in there}
        return [subflow for subflow in there if subflow.token in alive]

    def _close(self, subflow: Subflow) -> None:
        """An initial subflow by the path manager, which sends RM_ADDR by a sibling: the peer stops sending there at once.
        For an additional one that takes the deletion of its endpoint; after a reset the peer's own timers decide.
        """
        if subflow.local_id == 0:
            self._close_initial(subflow)
        else:
            self._sockets.destroy(subflow)

    def _close_initial(self, subflow: Subflow) -> None:
        self._path_manager.delete(Endpoint(subflow.local, port=subflow.local_port))
