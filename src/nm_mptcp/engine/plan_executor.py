# SPDX-License-Identifier: GPL-2.0-or-later
"""The execution of a plan: what becomes ours is recorded before it is written, and corrected by what the kernel refused.

So the next process knows what is ours however this one ends. Only the deletes for a lost link do not wait for the record, as
they leave nothing in the kernel that it would have to name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..fault_log import FaultLog
from ..journal import Event, log_fields
from ..kernel.access import KernelAccess
from ..kernel.errors import KernelError
from ..kernel.ip_commands import command
from ..model.record import with_endpoints, with_limits, with_linkdown, with_reverse_path, without_endpoints
from ..model.state import (
    Action,
    Desired,
    Endpoint,
    Kernel,
    Limits,
    LinkdownSetting,
    Operation,
    Ours,
    ReversePathSetting,
)
from ..policy.plan import count_unrecorded
from .history import History
from .record_file import StateError

_log = logging.getLogger(__name__)

#: Seconds for which the loop yields to the netlink thread, so that the latter sends first.
_HEAD_START = 0.001

Failures = list[tuple[Operation, KernelError]]


class PlanExecutor:
    """Executes operations and keeps :attr:`ours`, what is ours in the kernel. ``save`` writes the record."""

    def __init__(
        self, kernel: KernelAccess, ours: Ours, history: History, faults: FaultLog, save: Callable[[], None]
    ) -> None:
        self.ours = ours
        self.unfinished = False  #: whether the kernel refused an operation that is to be retried
        self._kernel = kernel
        self._history = history
        self._faults = faults
        self._save = save

    async def write(
        self,
        operations: tuple[Operation, ...],
        kernel: Kernel,
        desired: Desired,
        *,
        unrecorded_numbers: bool,
        at_once: bool,
        lost: Callable[[], bool],
    ) -> bool:
        """Execute the operations in order, until ``lost`` returns that another link was lost.

        ``at_once``: the first delete is sent before anything else is done. ``unrecorded_numbers``: the record lacks the numbers
        that routes and rules carry. Returns False if no operation succeeded, so that an immediate retry is of no use. Raises
        :class:`StateError` if the record cannot be written; then no operation was executed that it would have to name.
        """
        before = self.ours
        to_record = self._add_to_ours(operations, kernel) or unrecorded_numbers or bool(desired.withdrawn)
        first = count_unrecorded(operations, desired.withdrawn)
        ahead = min(first, 1) if at_once else 0
        failures = await self._kernel.execute(operations[:ahead], at_once=True)
        going = asyncio.ensure_future(self._kernel.execute_until(operations[ahead:first], interrupted=lost))
        try:
            if to_record:
                if first > ahead:
                    await asyncio.sleep(_HEAD_START)
                self._save()
        except StateError:
            self.ours = before
            raise
        finally:
            failed, left = await going
            failures += failed
        self._update_retries(operations, desired)
        if left:
            left += operations[first:]
        else:
            failed, left = await self._kernel.execute_until(operations[first:], interrupted=lost)
            failures += failed
        self._report(failures, kernel)
        self._correct(operations, failures, left, before)
        if _log.isEnabledFor(logging.DEBUG):
            for operation in operations[: len(operations) - len(left)]:
                _log.debug("%s", command(operation, kernel.links))
        return len(failures) + len(left) < len(operations)

    def failed(self, operation: Operation, error: KernelError, kernel: Kernel) -> None:
        """Log a refused operation: once, and at level DEBUG if it is a race with another program."""
        if isinstance(operation.value, Endpoint) and operation.action is Action.ADD and not error.exists:
            reason = "" if error.full else error.text
            self._history.endpoints.refused(operation.value.place, reason, time.monotonic())
        message = f"{error} [{command(operation, kernel.links)}]"
        if _is_race(operation, error):
            _log.debug("%s", message)
            return
        endpoint = operation.value if isinstance(operation.value, Endpoint) else None
        link = kernel.links.get(endpoint.ifindex) if endpoint else None
        extra = log_fields(
            Event.REFUSED_BY_KERNEL,
            address=endpoint and endpoint.address,
            interface=link and link.name,
            reason=error.text,
        )
        kind, subject = _subject(operation)
        self._faults.report(kind, message, subject, extra=extra)

    def nothing_to_do(self) -> None:
        """The kernel is in the desired state: clear all faults, except those of refused endpoints."""
        self._faults.clear_except("operation", frozenset())
        self._faults.clear_except("endpoint", self._history.endpoints.reasons().keys())

    def _add_to_ours(self, operations: Sequence[Operation], kernel: Kernel) -> bool:
        """Add to :attr:`ours` what is about to be written; returns whether the record must be written before."""
        endpoints = _endpoints(operations)
        settings = [each.value for each in operations if isinstance(each.value, LinkdownSetting)]
        filters = [each.value for each in operations if isinstance(each.value, ReversePathSetting)]
        limits = [each.value for each in operations if isinstance(each.value, Limits)]
        self.ours = with_linkdown(with_endpoints(self.ours, endpoints), settings)
        self.ours = with_reverse_path(self.ours, filters)
        for wanted in limits:
            self.ours = with_limits(self.ours, kernel.limits, wanted)
        return bool(endpoints or settings or filters or limits)

    def _update_retries(self, operations: Sequence[Operation], desired: Desired) -> None:
        """Record which endpoints were re-added as a retry, and which were added for another reason."""
        for address in desired.renewed:
            self._history.subflows.on_endpoint_readded(address, time.monotonic())
            extra = log_fields(Event.PATH_RENEWED, address=address)
            _log.info("%s: subflows failed: re-adding the endpoint", address, extra=extra)
        for operation in operations:
            value = operation.value
            if operation.action is Action.ADD and isinstance(value, Endpoint) and value.address not in desired.renewed:
                self._history.subflows.on_endpoint_added(value.address)

    def _report(self, failures: Failures, kernel: Kernel) -> None:
        for operation, error in failures:
            self.failed(operation, error, kernel)
        subjects = [_subject(operation) for operation, error in failures if not _is_race(operation, error)]
        # Refused endpoints have their own retries.
        self.unfinished = any(kind == "operation" for kind, _ in subjects)
        self._faults.clear_except("operation", {subject for _, subject in subjects})
        self._faults.clear_except("endpoint", self._history.endpoints.reasons().keys())

    def _correct(
        self, operations: Sequence[Operation], failures: Failures, left: Sequence[Operation], before: Ours
    ) -> None:
        """Remove from :attr:`ours` what was refused or not executed (``left``)."""
        unwritten = [operation for operation, _ in failures] + list(left)
        refused = [each.value for each in unwritten if each.action is Action.ADD and isinstance(each.value, Endpoint)]
        if refused:
            self.ours = without_endpoints(self.ours, refused)
        # A setting that was not written is ours if it was before.
        kept = {
            (each.value.family, each.value.ifindex) for each in unwritten if isinstance(each.value, LinkdownSetting)
        }
        if kept:
            self.ours = replace(self.ours, linkdown=(self.ours.linkdown - kept) | (before.linkdown & kept))
        filters = {each.value.ifindex for each in unwritten if isinstance(each.value, ReversePathSetting)}
        if filters:
            self.ours = replace(self.ours, loosened=(self.ours.loosened - filters) | (before.loosened & filters))
        if any(isinstance(each.value, Limits) for each in left):
            self.ours = replace(self.ours, limits=before.limits)
        for endpoint in _endpoints(operations):
            if endpoint not in refused:
                self._history.endpoints.accepted(endpoint.place)


def _endpoints(operations: Sequence[Operation]) -> list[Endpoint]:
    """The endpoints that the operations add, or whose flags they set."""
    return [
        each.value
        for each in operations
        if each.action in (Action.ADD, Action.SET_FLAGS) and isinstance(each.value, Endpoint)
    ]


def _is_race(operation: Operation, error: KernelError) -> bool:
    """Whether another program was first ("exists", "absent"): the next convergence sees what is there."""
    return error.absent if operation.action is Action.DELETE else error.exists or error.absent


def _subject(operation: Operation) -> tuple[str, object]:
    """Kind and subject of a refusal for the fault log: an endpoint's place, or the operation."""
    if operation.action is Action.ADD and isinstance(operation.value, Endpoint):
        return "endpoint", operation.value.place
    return "operation", operation
