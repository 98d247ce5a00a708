# SPDX-License-Identifier: GPL-2.0-or-later
"""The cached live connections equal what the kernel would answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from nm_mptcp.kernel import connections
from nm_mptcp.kernel.access import KernelAccess
from nm_mptcp.kernel.path_manager import PathManager
from nm_mptcp.kernel.sock_diag import Sockets, destroy, subflows
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import Endpoint
from tests.support.mptcp import Echo, two_paths
from tests.support.network import Network
from tests.support.waits import wait_for

SERVER, FIRST, SECOND = "10.9.0.1", "10.1.0.1", "10.2.0.1"


async def settled(access: KernelAccess) -> Mapping[frozenset[str], int]:
    """The cached answer, when there is one."""
    async with asyncio.timeout(10):
        while (kept := access._connections.kept) is None:
            await asyncio.sleep(0.01)
    return kept


async def invalidated(access: KernelAccess) -> None:
    """Wait for an event of the path manager, which comes from a work queue unless it closed the subflow itself."""
    async with asyncio.timeout(10):
        while access._connections.kept is not None:
            await asyncio.sleep(0.001)


def test_the_answer_is_right_after_each_connection_and_subflow_that_comes_or_goes(
    network: Network, far: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_SETTLED", 0.05)
    _, index = two_paths(network, far)

    async def story() -> None:
        access = KernelAccess()
        await access.watch(lambda _: None, lambda _: None)
        try:
            assert await settled(access) == {}
            with Echo(far, SERVER, port=5001):
                assert await access.connections(at_once=True) == {frozenset({FIRST}): 1}
                await settled(access)
                with PathManager() as manager:
                    manager.add(Endpoint(SECOND, index, EndpointFlag.SUBFLOW, id=7))
                    wait_for("the join", lambda: len([each for each in subflows() if each.established]) == 2)
                    assert await access.connections(at_once=True) == {frozenset({FIRST, SECOND}): 1}
                    assert await settled(access) == {frozenset({FIRST, SECOND}): 1}
                    manager.delete(Endpoint(SECOND, index, id=7))
                assert await access.connections(at_once=True) == {frozenset({FIRST}): 1}
                await settled(access)
                with Echo(far, SERVER, port=5002):
                    assert await access.connections(at_once=True) == {frozenset({FIRST}): 2}
                    await settled(access)
                    destroy(next(each for each in subflows() if each.remote_port == 5001))
                    await invalidated(access)
                    assert await access.connections(at_once=True) == {frozenset({FIRST}): 1}
        finally:
            await access.close()

    asyncio.run(story())


def test_sockets_are_not_read_when_a_link_is_lost(
    network: Network, far: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_SETTLED", 0.05)
    two_paths(network, far)

    async def story() -> None:
        access = KernelAccess()
        await access.watch(lambda _: None, lambda _: None)
        try:
            with Echo(far, SERVER):
                await access.connections(at_once=True)
                known = await settled(access)
                reads: list[str] = []
                monkeypatch.setattr(Sockets, "subflows", lambda _: reads.append("reads") or ())
                access._connections._subflows = access._sockets.subflows
                assert await access.connections(at_once=True) == known == {frozenset({FIRST}): 1}
                assert not reads
        finally:
            await access.close()

    asyncio.run(story())
