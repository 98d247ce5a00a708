# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine on the real kernel, beside a NetworkManager that only says what it is told to: links with thousands of routes,
which the real one would take minutes to bring.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from nm_mptcp.engine.loop import Engine
from nm_mptcp.engine.record_file import Record
from nm_mptcp.kernel.access import KernelAccess
from nm_mptcp.model.flags import ProfileFlag
from nm_mptcp.model.state import DefaultFlags, Device, DeviceState, DeviceType, NetworkManager, Profile

from .network import Network, batch, ip, veth

_LEFT_TO_US = DefaultFlags(ProfileFlag.DISABLED, DefaultFlags.OUR_SECTION)


def uplinks(far: Network, count: int = 2) -> None:
    """In this thread's namespace: e1 (10.1.0.1) and so on (e256 has 11.0.0.1), each with a default by the other end."""
    # Of a link with the index of its other end, as veths in two fresh namespaces are, a loss is told up to 1 s late
    # (linkwatch_urgent_event).
    far.ip("link add spacer1 type veth peer name spacer2")
    for number in range(1, count + 1):
        veth(f"e{number}", f"p{number}", peer_network=far)
        net = f"{10 + number // 256}.{number % 256}.0"
        # As NetworkManager adds its addresses, and the routes that they need.
        ip(f"address add {net}.1/24 dev e{number} noprefixroute")
        ip(f"route add {net}.0/24 dev e{number} metric {number} src {net}.1")
        far.ip(f"address add {net}.2/24 dev p{number}")
        ip(f"route add default via {net}.2 dev e{number} metric {number}")


def many_routes(count: int, *, name: str = "e1", gateway: str = "10.1.0.2") -> None:
    """Add so many routes by a link, as a routing daemon would; without a metric."""
    batch("\n".join(f"route add {_prefix(number)} via {gateway} dev {name} proto bird" for number in range(count)))


def no_more_routes() -> None:
    """Take them away again."""
    ip("route flush proto bird")


def _prefix(number: int) -> str:
    return f"{20 + number // 65536}.{number // 256 % 256}.{number % 256}.0/24"


def networkmanager(names: Iterable[str]) -> NetworkManager:
    """A NetworkManager that has these Ethernet links up."""
    devices = (
        Device(
            interface=name,
            ip_interface=name,
            type=DeviceType.ETHERNET,
            state=DeviceState.ACTIVATED,
            activation=f":1.5/{name}",
            default_flags=_LEFT_TO_US,
            profile=Profile(id=name, uuid=f"uuid-{name}", type="802-3-ethernet"),
        )
        for name in names
    )
    return NetworkManager(running=True, version="1.52.0", devices=tuple(devices))


@contextlib.asynccontextmanager
async def running(place: Path, *names: str) -> AsyncIterator[Engine]:
    """An engine that follows the kernel of this thread's namespace."""
    said = networkmanager(names)
    access = KernelAccess()
    engine = Engine(access, lambda: said, Record(place))
    await access.watch(engine.on_kernel_change, engine.on_path_manager_event)
    going = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        going.cancel()
        await asyncio.wait([going])
        await access.close()


async def until(what: str, question: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Let the engine go on until the answer is true; AssertionError after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            while not question():
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"after {seconds:g} s still not: {what}") from None
