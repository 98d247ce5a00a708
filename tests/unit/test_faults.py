# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever the kernel and the disk refuse, in whatever order: it ends in the desired state, and nothing foreign is touched."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nm_mptcp.config.settings import Config
from nm_mptcp.engine.reconciler import Reconciler
from nm_mptcp.engine.record_file import Record, StateError
from nm_mptcp.kernel.access import KernelAccess
from nm_mptcp.kernel.errors import KernelError
from nm_mptcp.model.record import Contents
from nm_mptcp.model.state import (
    MARKS,
    Action,
    Endpoint,
    Kernel,
    LeakingSubflows,
    Operation,
    Ours,
    RedundantSubflows,
    State,
    TunnelBypass,
)
from nm_mptcp.policy.decide import decide
from nm_mptcp.policy.plan import plan

from .any_situation import CONFIGURATIONS, situations
from .model_kernel import Refused, apply, ends_subflows, foreign
from .situations import Situation

Failures = list[tuple[Operation, KernelError]]

#: What a request may be answered; also what is untrue at that moment (EEXIST, ENOENT): another program was first.
ERRORS = (
    *(errno.EBUSY, errno.EEXIST, errno.ENOENT, errno.ERANGE, errno.EPERM),
    *(errno.ENOBUFS, errno.ENODEV, errno.EAGAIN, errno.EINVAL, errno.ETIMEDOUT),
)


class Faults:
    """Errors of the kernel and of the disk, each after so many requests that succeed; after the last one all is well.

    ``endpoints``: only requests that write an endpoint are answered by errors, and count.
    """

    def __init__(self, errors: Iterable[tuple[int, int]], *, endpoints: bool) -> None:
        self.left = list(errors)
        self._endpoints = endpoints

    def next(self, *, endpoint: bool = False) -> int:
        """The error of the next request; 0: it succeeds."""
        if not self.left or (self._endpoints and not endpoint):
            return 0
        after, error = self.left[0]
        if after:
            self.left[0] = after - 1, error
            return 0
        del self.left[0]
        return error


def faults(endpoints: bool) -> st.SearchStrategy[Faults]:
    """Errors of any requests, or only of those that write endpoints."""
    error = st.tuples(st.integers(0, 2 if endpoints else 25), st.sampled_from(ERRORS))
    return st.builds(Faults, st.lists(error, max_size=12), endpoints=st.just(endpoints))


#: Convergences within which there is nothing left to do, or no fault left: each fault costs a few at most.
ROUNDS = 100


class Ended(BaseException):
    """The service was killed."""


class FaultyKernel:
    """A model of the kernel some of whose answers are faults.

    An endpoint that "exists" is another program's from then on. At the write of the endpoint with number ``last`` the service
    is killed; then nothing exists, as the next service could not know whose it is until the record says that it was refused.
    """

    traffic = None
    closed_subflows = closed_connections = 0

    def __init__(
        self, kernel: Kernel, faults: Faults, connections: Mapping[frozenset[str], int], last: int | None
    ) -> None:
        self.kernel = kernel
        self.theirs: list[Endpoint] = []  #: endpoints that other programs added meanwhile
        self.last = last
        self._others_add = last is None
        self.faults = faults
        self._connections = connections

    async def look(self, *, thorough: bool = False, at_once: bool = False) -> Kernel:  # noqa: ARG002
        self._answer("list routes")
        return self.kernel

    async def connections(self, *, at_once: bool = False) -> Mapping[frozenset[str], int]:  # noqa: ARG002
        self._answer("list sockets")
        return self._connections

    async def bypass(self, _: object) -> TunnelBypass:
        self._answer("list sockets")
        return TunnelBypass()

    async def probe_neighbours(self, _: object) -> None:
        self._answer("list neighbours")

    async def execute(self, operations: tuple[Operation, ...], *, at_once: bool = False) -> Failures:  # noqa: ARG002
        return (await self.execute_until(operations, interrupted=lambda: False))[0]

    async def execute_until(
        self, operations: tuple[Operation, ...], *, interrupted: Callable[[], bool]
    ) -> tuple[Failures, tuple[Operation, ...]]:
        failures: Failures = []
        for number, operation in enumerate(operations):
            if interrupted():
                return failures, operations[number:]
            if self.last is not None and isinstance(operation.value, Endpoint):
                if self.last == 0:
                    self.last = None
                    raise Ended
                self.last -= 1
            try:
                self._write(operation)
            except KernelError as error:
                failures.append((operation, error))
        return failures, ()

    def _write(self, operation: Operation) -> None:
        endpoint = operation.value
        refused = self.faults.next(endpoint=isinstance(endpoint, Endpoint))
        added = self._others_add and operation.action is Action.ADD and isinstance(endpoint, Endpoint)
        if not refused or (added and refused == errno.EEXIST):
            try:
                self.kernel, _ = apply([operation], self.kernel, Ours())
            except Refused as error:
                raise KernelError(error.errno, "do it") from None
            self._close(operation.value)
        if refused:
            if added and refused == errno.EEXIST:
                self.theirs.append(self.kernel.endpoints[-1])
            raise KernelError(refused, "do it")

    def _close(self, subflows: object) -> None:
        """Close these subflows of the live connections."""
        if not isinstance(subflows, RedundantSubflows | LeakingSubflows):
            return
        lost = subflows.lost if isinstance(subflows, RedundantSubflows) else frozenset[str]()
        left: Counter[frozenset[str]] = Counter()
        for places, count in self._connections.items():
            left[places if places <= lost else places - subflows.addresses] += count
        self._connections = {places: count for places, count in left.items() if places}

    def _answer(self, what: str) -> None:
        if number := self.faults.next():
            raise KernelError(number, what)


class FullDisk(Record):
    """A record that cannot always be written."""

    def __init__(self, directory: Path, faults: Faults) -> None:
        super().__init__(directory)
        self._faults = faults

    def save(self, contents: Contents) -> None:
        if contents != self.contents and self._faults.next():
            raise StateError(f"{self.file}: cannot be written: No space left on device")
        super().save(contents)


def converged(subject: Reconciler, faults: Faults) -> None:
    """Let it converge until there are no faults left, and then until it has nothing to do."""

    async def story() -> None:
        for _ in range(ROUNDS):
            if not faults.left:
                break
            with contextlib.suppress(KernelError, StateError):
                if not await subject.converge():
                    break
        else:
            raise AssertionError(f"there is something to do in each of {ROUNDS} rounds")
        faults.left.clear()
        for _ in range(3):
            await subject.converge()

    asyncio.run(story())


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    situations(),
    st.sampled_from(CONFIGURATIONS),
    st.booleans().flatmap(faults),
    st.none() | st.integers(0, 4),
)
def test_it_converges_once_the_faults_are_over(
    situation: Situation, config: Config, faults: Faults, killed: int | None
) -> None:
    snapshot = situation.snapshot()
    kernel = FaultyKernel(snapshot.kernel, faults, snapshot.connections or {}, killed)
    with tempfile.TemporaryDirectory() as directory:
        record = FullDisk(Path(directory), faults)
        record.contents = Contents(snapshot.ours, endpoints_max=snapshot.kernel.endpoints_max)

        def service() -> Reconciler:
            return Reconciler(cast(KernelAccess, kernel), lambda: snapshot.networkmanager, record, config=config)

        subject = service()
        try:
            converged(subject, faults)
        except Ended:  # the next one knows no more than what is recorded
            if record.file.exists():
                record.load()
            subject = service()
            converged(subject, faults)
        kernel.last = None
        assert subject.view
        ours, desired = subject.view.snapshot.ours, subject.view.desired

        after = replace(subject.view.snapshot, kernel=kernel.kernel)
        without = tuple(each for each in kernel.kernel.endpoints if each not in kernel.theirs)
        assert all(map(ends_subflows, plan(decide(after, config), kernel.kernel, ours))), "nothing is left to do"
        taken = [*desired.withdrawn, *ours.withdrawn]
        before = replace(snapshot, ours=replace(snapshot.ours, endpoints=snapshot.ours.endpoints | ours.endpoints))
        left = replace(after, kernel=replace(kernel.kernel, endpoints=without), ours=before.ours)
        assert foreign(left, taken) == foreign(before, taken), "nothing foreign is touched"
        assert record.contents.ours == ours, "what is recorded is what is ours"
        known = {each.key for each in snapshot.kernel.endpoints}
        for endpoint in kernel.kernel.endpoints:
            if endpoint in kernel.theirs:
                assert not ours.owns(endpoint)
            elif endpoint.key not in known | {each.key for each in taken}:
                assert ours.owns(endpoint), "what was added is known to be ours"
        for own in ours.endpoints:
            assert any(own.matches(each) or own.is_edited(each) for each in kernel.kernel.endpoints)
        present = {each.address for each in kernel.kernel.endpoints}
        assert {path.address for path in desired.paths if path.state is State.ACTIVE} <= present

        asyncio.run(subject.clear(force=True))
        assert not [each for each in kernel.kernel.rules if MARKS.on_rule(each)]
        assert not [each for group in kernel.kernel.routes.values() for each in group if MARKS.on_route(each)]
