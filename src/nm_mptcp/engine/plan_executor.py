# SPDX-License-Identifier: GPL-2.0-or-later
"""Carrying out a plan: what is ours is noted before it is written, and corrected by what the kernel refused.

The record comes before what it speaks of, so that whatever ends the service, the next one knows what is ours. Only the
deletes of a lost link do not wait for it: they leave nothing behind that the record would have to name.
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
from ..model.record import with_endpoints, with_limits, with_linkdown, without_endpoints
from ..model.state import Action, Desired, Endpoint, Kernel, Limits, LinkdownSetting, Operation, Ours
from ..policy.plan import count_unrecorded
from .history import History
from .record_file import StateError

_log = logging.getLogger(__name__)

#: Seconds in which the loop's thread gives way to the netlink thread, so that the latter sends first.
_HEAD_START = 0.001

Failures = list[tuple[Operation, KernelError]]


class PlanExecutor:
    """Writes to the kernel; :attr:`ours` is what is ours there. ``save`` writes the record."""

    def __init__(
        self, kernel: KernelAccess, ours: Ours, history: History, faults: FaultLog, save: Callable[[], None]
    ) -> None:
        self.ours = ours
        self.unfinished = False  #: whether the kernel refused what it should have accepted
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
        """Do the operations in order, until ``lost`` says that another link was lost.

        ``at_once``: the first delete goes before anything else is done. ``unrecorded_numbers``: the record lacks the numbers
        that routes and rules carry. False when nothing succeeded: then to try again at once is of no use. Raises
        :class:`StateError` when the record cannot be written; then nothing that it would have to name was done.
        """
        before = self.ours
        to_record = self._note(operations, kernel) or unrecorded_numbers or bool(desired.withdrawn)
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
        self._renewed(operations, desired)
        if left:
            left += operations[first:]
        else:
            failed, left = await self._kernel.execute_until(operations[first:], interrupted=lost)
            failures += failed
        self._refused(failures, kernel)
        self._correct(operations, failures, left, before)
        if _log.isEnabledFor(logging.DEBUG):
            for operation in operations[: len(operations) - len(left)]:
                _log.debug("%s", command(operation, kernel.links))
        return len(failures) + len(left) < len(operations)

    def failed(self, operation: Operation, error: KernelError, kernel: Kernel) -> None:
        """Log what the kernel refused: once, and under races ("exists", "absent") only for debugging."""
        if isinstance(operation.value, Endpoint) and operation.action is Action.ADD and not error.exists:
            words = "" if error.full else error.text
            self._history.endpoints.refused(operation.value.place, words, time.monotonic())
        words = f"{error} [{command(operation, kernel.links)}]"
        if _is_race(operation, error):
            _log.debug("%s", words)
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
        self._faults.report(kind, words, subject, extra=extra)

    def nothing_to_do(self) -> None:
        """The kernel is as desired: only endpoints that it refused are still at fault."""
        self._faults.clear_except("operation", frozenset())
        self._faults.clear_except("endpoint", self._history.endpoints.reasons().keys())

    def _note(self, operations: Sequence[Operation], kernel: Kernel) -> bool:
        """Take into :attr:`ours` what is about to be written; whether the record has to say so first."""
        endpoints = _endpoints(operations)
        settings = [each.value for each in operations if isinstance(each.value, LinkdownSetting)]
        limits = [each.value for each in operations if isinstance(each.value, Limits)]
        self.ours = with_linkdown(with_endpoints(self.ours, endpoints), settings)
        for wanted in limits:
            self.ours = with_limits(self.ours, kernel.limits, wanted)
        return bool(endpoints or settings or limits)

    def _renewed(self, operations: Sequence[Operation], desired: Desired) -> None:
        """Endpoints that were deleted to be added again, so that the kernel tries them once more on each connection."""
        for address in desired.renewed:
            self._history.subflows.on_endpoint_readded(address, time.monotonic())
            extra = log_fields(Event.PATH_RENEWED, address=address)
            _log.info("%s: subflows failed: re-adding the endpoint", address, extra=extra)
        for operation in operations:
            value = operation.value
            if operation.action is Action.ADD and isinstance(value, Endpoint) and value.address not in desired.renewed:
                self._history.subflows.on_endpoint_added(value.address)

    def _refused(self, failures: Failures, kernel: Kernel) -> None:
        for operation, error in failures:
            self.failed(operation, error, kernel)
        subjects = [_subject(operation) for operation, error in failures if not _is_race(operation, error)]
        # An endpoint that is refused has its own time to be tried again.
        self.unfinished = any(kind == "operation" for kind, _ in subjects)
        self._faults.clear_except("operation", {subject for _, subject in subjects})
        self._faults.clear_except("endpoint", self._history.endpoints.reasons().keys())

    def _correct(
        self, operations: Sequence[Operation], failures: Failures, left: Sequence[Operation], before: Ours
    ) -> None:
        """Take out of :attr:`ours` what was refused or not begun (``left``)."""
        unwritten = [operation for operation, _ in failures] + list(left)
        refused = [each.value for each in unwritten if each.action is Action.ADD and isinstance(each.value, Endpoint)]
        if refused:
            self.ours = without_endpoints(self.ours, refused)
        # A setting that somebody else changed meanwhile is as much or as little ours as it was before.
        kept = {
            (each.value.family, each.value.ifindex) for each in unwritten if isinstance(each.value, LinkdownSetting)
        }
        if kept:
            self.ours = replace(self.ours, linkdown=(self.ours.linkdown - kept) | (before.linkdown & kept))
        if any(isinstance(each.value, Limits) for each in left):
            self.ours = replace(self.ours, limits=before.limits)
        for endpoint in _endpoints(operations):
            if endpoint not in refused:
                self._history.endpoints.accepted(endpoint.place)


def _endpoints(operations: Sequence[Operation]) -> list[Endpoint]:
    """The endpoints that are added, or whose flags are set."""
    return [
        each.value
        for each in operations
        if each.action in (Action.ADD, Action.SET_FLAGS) and isinstance(each.value, Endpoint)
    ]


def _is_race(operation: Operation, error: KernelError) -> bool:
    """Whether somebody else was first, so that the next look sees what is there."""
    return error.absent if operation.action is Action.DELETE else error.exists or error.absent


def _subject(operation: Operation) -> tuple[str, object]:
    """What a refusal is about: an endpoint's place, or the operation itself."""
    if operation.action is Action.ADD and isinstance(operation.value, Endpoint):
        return "endpoint", operation.value.place
    return "operation", operation
