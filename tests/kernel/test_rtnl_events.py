# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink events in an asyncio loop: full dumps beside them, and events that were lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from nm_mptcp.kernel.fib import FIB, Changes
from nm_mptcp.kernel.rtnetlink import Rtnetlink
from nm_mptcp.kernel.rtnl_events import RtnetlinkEvents, full_dump
from nm_mptcp.model.state import MAIN_TABLE, Route
from tests.support.network import Network, batch, ip, veth

pytestmark = pytest.mark.usefixtures("network")


class Watcher:
    """Events as the engine uses them: dumps on a worker thread, events in the loop."""

    def __init__(self) -> None:
        self.changes: list[Changes] = []
        self.losses = 0
        self.fib = FIB()
        self.events = RtnetlinkEvents(self.fib, self.changes.append, self._on_events_lost)
        self.rtnetlink = Rtnetlink()
        self.worker = ThreadPoolExecutor(1)

    def _on_events_lost(self) -> None:
        self.losses += 1

    async def dump(self) -> bool:
        self.events.begin_dump()
        return self.events.end_dump(
            await asyncio.get_running_loop().run_in_executor(self.worker, full_dump, self.rtnetlink)
        )

    async def until(self, question: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not question():
                await asyncio.sleep(0.002)

    def destinations(self) -> set[str]:
        return {route.destination for group in self.fib.routes.values() for route in group}


@asynccontextmanager
async def watching() -> AsyncIterator[Watcher]:
    watcher = Watcher()
    watcher.events.start(asyncio.get_running_loop())
    try:
        assert await watcher.dump()
        yield watcher
    finally:
        watcher.events.close()
        await asyncio.get_running_loop().run_in_executor(watcher.worker, watcher.rtnetlink.close)
        watcher.worker.shutdown()


def test_events_are_applied_by_the_loop() -> None:
    async def story() -> None:
        async with watching() as watcher:
            va = veth("va", "vb")
            ip("addr add 10.0.0.1/24 dev va")
            ip("route add 10.9.0.0/16 via 10.0.0.2")
            ip("rule add from 10.0.0.1 lookup 100 pref 100")
            await watcher.until(lambda: 100 in {rule.priority for rule in watcher.fib.rules})
            assert watcher.fib.links[va].carrier
            assert "10.0.0.1" in {address.address for address in watcher.fib.addresses[va]}
            assert "10.9.0.0/16" in {route.destination for route in watcher.fib.routes[MAIN_TABLE, va]}
            kinds = [(change.links, change.addresses, change.routes, change.rules) for change in watcher.changes]
            assert all(any(kind) for kind in zip(*kinds, strict=True))

    asyncio.run(story())


def test_before_the_first_dump_events_count_as_lost() -> None:
    async def story() -> None:
        watcher = Watcher()
        assert watcher.events.events_lost
        watcher.events.start(asyncio.get_running_loop())
        assert await watcher.dump()
        assert not watcher.events.events_lost
        watcher.events.close()
        assert watcher.events.fileno() == -1

    asyncio.run(story())


def test_a_burst_is_reported_in_few_calls() -> None:
    async def story() -> None:
        async with watching() as watcher:
            veth("va", "vb")
            ip("addr add 10.0.0.1/24 dev va")
            await watcher.until(lambda: "10.0.0.0/24" in watcher.destinations())
            watcher.changes.clear()
            batch("\n".join(f"route add 10.9.{i}.0/24 via 10.0.0.2" for i in range(200)))
            await watcher.until(lambda: len(watcher.destinations()) > 200)
            assert len(watcher.changes) < 20

    asyncio.run(story())


def test_events_during_a_dump_are_neither_lost_nor_late() -> None:
    async def story() -> None:
        async with watching() as watcher:
            va = veth("va", "vb")
            ip("addr add 10.0.0.1/24 dev va")
            await watcher.until(lambda: "10.0.0.0/24" in watcher.destinations())
            watcher.events.begin_dump()
            fresh = await asyncio.get_running_loop().run_in_executor(watcher.worker, full_dump, watcher.rtnetlink)
            ip("route add 10.9.0.0/16 via 10.0.0.2")
            ip("link set vb down")
            await watcher.until(lambda: any(va in change.lost_links for change in watcher.changes))
            assert not watcher.fib.links[va].carrier, "a loss must not wait for the dump"
            ip("route add 10.8.0.0/16 via 10.0.0.2")  # still unread at the end of the dump
            watcher.events.end_dump(fresh)
            assert not watcher.fib.links[va].carrier
            assert {"10.8.0.0/16", "10.9.0.0/16"} <= watcher.destinations()

    asyncio.run(story())


def test_a_failed_dump_changes_nothing() -> None:
    async def story() -> None:
        async with watching() as watcher:
            before = watcher.fib.links
            watcher.events.begin_dump()
            watcher.events.abandon_dump()
            assert watcher.fib.links is before
            assert await watcher.dump()

    asyncio.run(story())


def test_an_overflow_is_reported_and_a_dump_ends_it() -> None:
    async def story() -> None:
        async with watching() as watcher:
            veth("va", "vb")
            ip("addr add 10.0.0.1/24 dev va")
            await watcher.until(lambda: "10.0.0.0/24" in watcher.destinations())
            assert watcher.events._subscription.socket is not None
            watcher.events._subscription.socket.setsockopt(socket.SOL_SOCKET, 33, 1)  # SO_RCVBUFFORCE: the minimum
            # The loop does not run meanwhile, so nothing is read.
            batch("\n".join(f"route add 10.{100 + i // 250}.{i % 250}.0/24 via 10.0.0.2" for i in range(500)))
            await watcher.until(lambda: watcher.losses)
            assert watcher.events.events_lost
            assert await watcher.dump()
            assert not watcher.events.events_lost
            assert len(watcher.destinations()) >= 501
            assert not (
                await asyncio.get_running_loop().run_in_executor(watcher.worker, full_dump, watcher.rtnetlink)
            ).resync_due

    asyncio.run(story())


def test_a_dump_during_which_events_were_lost_is_not_complete() -> None:
    async def story() -> None:
        async with watching() as watcher:
            veth("va", "vb")
            assert watcher.events._subscription.socket is not None
            watcher.events._subscription.socket.setsockopt(socket.SOL_SOCKET, 33, 1)
            watcher.events.begin_dump()
            fresh = await asyncio.get_running_loop().run_in_executor(watcher.worker, full_dump, watcher.rtnetlink)
            batch("\n".join(f"route add 10.{i}.0.0/16 dev va" for i in range(100)))
            assert not watcher.events.end_dump(fresh)
            assert watcher.events.events_lost
            assert watcher.losses
            watcher.changes.clear()
            assert await watcher.dump()
            assert len(watcher.destinations()) >= 100

    asyncio.run(story())


def test_messages_of_other_processes_are_ignored() -> None:
    """Any root process may send to our socket's port."""

    async def story() -> None:
        async with watching() as watcher:
            assert watcher.events._subscription.socket is not None
            port = watcher.events._subscription.socket.getsockname()[0]
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as stranger:
                stranger.bind((0, 0))
                stranger.sendto(b"\x20\x00\x00\x00" + bytes(28), (port, 0))
                stranger.sendto(b"nonsense", (port, 0))
            veth("va", "vb")
            await watcher.until(lambda: len(watcher.fib.links) == 3)
            assert not watcher.losses

    asyncio.run(story())


def test_messages_of_a_bridge_do_not_delete_its_port(network: Network) -> None:
    """A port that leaves a bridge gets an RTM_DELLINK of family AF_BRIDGE; the link remains."""

    async def story() -> None:
        async with watching() as watcher:
            va = veth("va", "vb")
            ip("link add name bridge0 type bridge")
            ip("link set bridge0 up")
            ip("link set va master bridge0")
            ip("link set va nomaster")
            ip("route add 10.9.0.0/16 dev va")
            await watcher.until(lambda: "10.9.0.0/16" in watcher.destinations())
            assert watcher.fib.links[va].name == "va"
            kinds = {link.name: link.kind for link in watcher.fib.links.values()}
            assert kinds == {"lo": None, "va": "veth", "vb": "veth", "bridge0": "bridge"}
            assert not any(va in change.lost_links for change in watcher.changes)

    assert network
    asyncio.run(story())


def test_cached_routes_are_not_routes(network: Network) -> None:
    """Neither the answer of ``ip route get`` nor a redirect or path MTU exception is one."""

    async def story() -> None:
        async with watching() as watcher:
            veth("va", "vb")
            ip("addr add 10.0.0.1/24 dev va")
            ip("route add 10.9.0.0/16 via 10.0.0.2")
            await watcher.until(lambda: "10.9.0.0/16" in watcher.destinations())
            before = watcher.fib.routes
            ip("route get 10.9.1.1")
            ip("rule add from 10.0.0.1 lookup 100 pref 100")
            await watcher.until(lambda: 100 in {rule.priority for rule in watcher.fib.rules})
            assert watcher.fib.routes is before
            found: set[Route] = {route for group in before.values() for route in group}
            assert not any(route.destination.endswith("/32") for route in found)

    assert network
    asyncio.run(story())


def test_a_lost_link_does_not_wait_for_thousands_of_routes(far: Network) -> None:
    """It is shown at once, and stays lost while earlier events are read; all else follows in order."""
    far.ip("link add spacer1 type veth peer name spacer2")  # see tests.support.running

    async def story() -> None:
        veth("va", "vb", peer_network=far)
        ip("addr add 10.0.0.1/24 dev va")
        index = veth("vc", "vd", peer_network=far)
        async with watching() as watcher:
            far.ip("link set vd down")
            far.ip("link set vd up")
            batch("\n".join(f"route add 10.{100 + i // 256}.{i % 256}.0/24 via 10.0.0.2" for i in range(3000)))
            far.ip("link set vd down")
            await watcher.until(lambda: not watcher.fib.links[index].carrier)
            assert index in {lost for change in watcher.changes for lost in change.lost_links}
            assert len(watcher.destinations()) < 2000
            await watcher.until(lambda: len(watcher.destinations()) > 3000 and not watcher.events.behind)
            assert not watcher.fib.links[index].carrier
            far.ip("link set vd up")
            await watcher.until(lambda: watcher.fib.links[index].carrier)

    asyncio.run(story())
