# SPDX-License-Identifier: GPL-2.0-or-later
"""The operations of a plan as writes to the kernel."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..model.state import (
    Action,
    Endpoint,
    LeakingSubflows,
    Limits,
    LinkdownSetting,
    Operation,
    RedundantSubflows,
    ReversePathSetting,
    Route,
    Rule,
)
from .errors import KernelError
from .fib import FIB
from .linkdown_sysctl import LinkdownSysctls
from .path_manager import PathManager
from .reverse_path import ReversePathFilters
from .rtnetlink import Rtnetlink
from .subflow_closer import SubflowCloser


class PresentRoutes:
    """Which routes the kernel has, for a series of deletes: from the FIB where that is certain, else from one dump for each
    table and interface, so that many deletes stay linear.
    """

    def __init__(self, fib: FIB, rtnetlink: Rtnetlink, *, complete: bool) -> None:
        """``complete``: nothing is missing from the FIB."""
        self._fib = fib
        self._rtnetlink = rtnetlink
        self._complete = complete
        self._dumped: dict[tuple[int, int], set[Route]] = {}

    def take(self, route: Route) -> bool:
        """Whether the route is present; the next call for it, after it was deleted, returns False."""
        place = (route.table, route.hops[0].ifindex if route.hops else 0)
        present = self._dumped.get(place)
        if present is None:
            if self._complete and self._fib.is_unambiguous(route):
                return True
            present = self._dumped[place] = set(self._rtnetlink.routes(place[0], place[1] or None))
        if route not in present:
            return False
        present.remove(route)
        return True


class OperationWriter:
    """Writes operations: synchronous, for one thread."""

    def __init__(
        self,
        rtnetlink: Rtnetlink,
        path_manager: PathManager,
        closer: SubflowCloser,
        linkdown: LinkdownSysctls,
        reverse_path: ReversePathFilters,
        on_limits: Callable[[], None],
    ) -> None:
        """``on_limits`` is called before limits are written."""
        self._rtnetlink = rtnetlink
        self._path_manager = path_manager
        self._closer = closer
        self._linkdown = linkdown
        self._reverse_path = reverse_path
        self._on_limits = on_limits

    def write(
        self,
        operations: Sequence[Operation],
        present: PresentRoutes,
        failures: list[tuple[Operation, KernelError]],
        seconds: float,
    ) -> int:
        """Do the first operation, and more of them until ``seconds`` are over; returns how many were done.

        Those that fail are appended to ``failures``, and the next ones done all the same.
        """
        end = time.monotonic() + seconds
        for done, operation in enumerate(operations, 1):
            try:
                self._write(operation, present)
            except KernelError as error:
                failures.append((operation, error))
            if time.monotonic() > end:
                return done
        return len(operations)

    def _write(self, operation: Operation, present: PresentRoutes) -> None:
        match operation:
            case Operation(Action.ADD, Endpoint() as endpoint):
                self._path_manager.add(endpoint)
            case Operation(Action.DELETE, Endpoint() as endpoint):
                if endpoint.port and endpoint.id:
                    self._closer.close_on_port(endpoint)
                self._path_manager.delete(endpoint)
            case Operation(Action.SET_FLAGS, Endpoint() as endpoint):
                self._path_manager.set_flags(endpoint, endpoint.flags)
            case Operation(Action.SET, Limits() as limits):
                self._on_limits()
                self._path_manager.set_limits(limits)
            case Operation(Action.SET, LinkdownSetting() as setting):
                self._linkdown.write(setting)
            case Operation(Action.SET, ReversePathSetting() as setting):
                self._reverse_path.write(setting)
            case Operation(Action.CLOSE_REDUNDANT, RedundantSubflows() as redundant):
                self._closer.close_redundant(redundant)
            case Operation(Action.CLOSE_ALL, LeakingSubflows() as leaking):
                self._closer.close_leaking(leaking)
            case Operation(Action.ADD, Route() as route):
                self._rtnetlink.add_route(route)
            case Operation(Action.REPLACE, Route() as route):
                self._rtnetlink.replace_route(route)
            case Operation(Action.DELETE, Route() as route):
                self._rtnetlink.delete_route(route, is_present=present.take)
            case Operation(Action.ADD, Rule() as rule):
                self._rtnetlink.add_rule(rule)
            case Operation(Action.REPLACE, Rule() as rule):
                self._rtnetlink.move_rule(rule)
            case Operation(Action.DELETE, Rule() as rule):
                self._rtnetlink.delete_rule(rule)
            case _:
                raise ValueError(f"no such operation: {operation}")
