# SPDX-License-Identifier: GPL-2.0-or-later
"""One look without the service: what ``apply``, ``clear`` and ``status`` do where none runs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from .bus import Bus, BusError
from .engine import Engine, View
from .kernel.access import KernelAccess
from .model import NetworkManager
from .networkmanager.client import Client
from .state import Record

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def engine(record: Record, *, dry_run: bool) -> AsyncIterator[Engine]:
    """An engine for one look; NetworkManager not running, or no bus, are ordinary states."""
    record.load()
    networkmanager = await _networkmanager()
    kernel = KernelAccess()
    try:
        yield Engine(kernel, lambda: networkmanager, record, dry_run=dry_run)
    finally:
        await kernel.close()


async def look(record: Record) -> View:
    """What is there and what would be decided; writes nothing."""
    async with engine(record, dry_run=True) as one:
        await one.converge()
        assert one.view is not None
        return one.view


async def _networkmanager() -> NetworkManager:
    bus = Bus()
    try:
        await bus.connect()
        client = Client(bus, lambda: None)
        await client.start()
        state = client.state
        client.close()
        return state
    except BusError as error:
        _log.warning("%s; NetworkManager counts as not running", error)
        return NetworkManager()
    finally:
        bus.close()
