# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done at once when a link is lost does without requests and threads that its endpoint would wait for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from nm_mptcp.kernel.access import KernelAccess
from nm_mptcp.kernel.path_manager import PathManager
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import Action, Endpoint, Limits, Operation
from tests.support.network import ip, veth

ADDRESS = "10.1.0.1"

pytestmark = pytest.mark.usefixtures("network")


def link() -> int:
    """The index of a link with the address."""
    index = veth("e1", "p1")
    ip(f"address add {ADDRESS}/24 dev e1")
    return index


def test_at_once_only_endpoints_are_read_and_settings_after_a_write() -> None:
    index = link()

    async def story() -> None:
        access = KernelAccess()
        await access.watch(lambda _: None, lambda _: None)
        try:
            before = (await access.look()).limits
            changed, written = (Limits(before.subflows + more, before.add_addr_accepted) for more in (1, 2))
            with PathManager() as somebody:
                somebody.add(Endpoint(ADDRESS, index, EndpointFlag.SUBFLOW))
                somebody.set_limits(changed)
            kernel = await access.look(at_once=True)
            assert [endpoint.address for endpoint in kernel.endpoints] == [ADDRESS]
            assert kernel.limits == before
            assert (await access.look()).limits == changed

            assert not await access.execute([Operation(Action.SET, written)])
            assert (await access.look(at_once=True)).limits == written
        finally:
            await access.close()

    asyncio.run(story())


def test_at_once_work_runs_in_the_loops_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    index = link()
    threads: list[threading.Thread] = []
    delete = PathManager.delete

    def noted(manager: PathManager, endpoint: Endpoint) -> None:
        threads.append(threading.current_thread())
        delete(manager, endpoint)

    monkeypatch.setattr(PathManager, "delete", noted)

    async def story() -> None:
        access = KernelAccess()
        await access.watch(lambda _: None, lambda _: None)
        try:
            for at_once in (True, False):
                assert not await access.execute([Operation(Action.ADD, Endpoint(ADDRESS, index, EndpointFlag.SUBFLOW))])
                (endpoint,) = (await access.look()).endpoints
                assert not await access.execute([Operation(Action.DELETE, endpoint)], at_once=at_once)
            assert not (await access.look()).endpoints
        finally:
            await access.close()

    asyncio.run(story())
    first, second = threads
    assert first is threading.current_thread()
    assert second is not first
