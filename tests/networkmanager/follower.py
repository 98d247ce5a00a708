# SPDX-License-Identifier: GPL-2.0-or-later
"""A program for the bed: follows NetworkManager with the product's client and writes each state as a line of JSON.

It has to run inside: NetworkManager tells an applied connection only to a process that it can see. SIGUSR1 makes it read the
applied connections again. With a lost bus it connects anew until it succeeds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from typing import Any

from nm_mptcp.dbus.connection import LIBRARY, Bus, BusError
from nm_mptcp.networkmanager.client import Client


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


class Log(logging.Handler):
    """The log, as lines of JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        say(log=f"{record.levelname}: {record.getMessage()}")


async def connected() -> Bus:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        bus = Bus()
        try:
            await bus.connect()
        except BusError:
            await asyncio.sleep(0.02)
        else:
            return bus
    raise TimeoutError("no bus for a minute")


def plain(value: Any) -> Any:
    """A value as what JSON has."""
    if names := getattr(value, "__match_args__", None):
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple | set | frozenset) else value


async def main() -> None:
    logging.basicConfig(level=logging.INFO, handlers=[Log()])
    say(library=LIBRARY)
    bus = await connected()
    client = Client(bus, lambda: say(state=plain(client.state)))

    async def refresh() -> None:
        say(refreshed=await client.refresh_profiles())

    tasks = set()

    def on_signal() -> None:
        tasks.add(asyncio.ensure_future(refresh()))

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, on_signal)
    await client.start()
    say(started=plain(client.state))
    while True:
        await bus.lost
        say(lost=True)
        bus = await connected()
        await client.attach(bus)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
