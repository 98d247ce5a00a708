# SPDX-License-Identifier: GPL-2.0-or-later
"""One look without the service: what ``apply``, ``clear`` and ``status`` do where none runs.

netlink is imported only where it is used: its library costs a third of a second, and beside a service nobody needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ..config.settings import DEFAULTS, Config
from ..dbus.connection import CONNECT_TIMEOUT, Bus, BusError
from ..engine.record_file import Record
from ..model.state import Mode, NetworkManager
from ..networkmanager.client import Client

if TYPE_CHECKING:
    from ..engine.reconciler import Reconciler
    from ..report.documents import Explanation, StatusDocument
    from .queries import Queries

_log = logging.getLogger(__name__)


async def apply(record: Record, config: Config = DEFAULTS) -> None:
    """Bring the kernel to what is wanted now; the caller holds the record's lock."""
    async with _reconciler(record, config, dry_run=False) as (reconciler, _):
        await reconciler.converge()


async def set_mode(record: Record, mode: Mode | None, config: Config = DEFAULTS) -> None:
    """Choose the mode until the next boot, None for the configured one; the caller holds the record's lock."""
    async with _reconciler(record, config, dry_run=False) as (reconciler, _):
        await reconciler.set_mode(mode)


async def clear(record: Record, config: Config = DEFAULTS, *, force: bool = False) -> frozenset[str]:
    """Take out all that is ours and put back what was there before; the caller holds the record's lock.

    Gives the addresses of which all was left for live connections; with ``force`` there are none.
    """
    async with _reconciler(record, config, dry_run=False) as (reconciler, _):
        await reconciler.clear(force=force)
        return reconciler.kept


def status(record: Record, config: Config = DEFAULTS) -> StatusDocument:
    """The status document of one look; writes nothing."""

    async def ask() -> StatusDocument:
        async with _reconciler(record, config, dry_run=True) as (reconciler, queries):
            await reconciler.converge()
            found = await queries.status(service=False)
            assert found is not None
            return found

    return asyncio.run(ask())


def explain(record: Record, what: str, config: Config = DEFAULTS) -> Explanation:
    """The explanation of one look; writes nothing. Raises :class:`~nm_mptcp.report.explain.UnknownSubject`."""

    async def ask() -> Explanation:
        async with _reconciler(record, config, dry_run=True) as (reconciler, queries):
            await reconciler.converge()
            return await queries.explain(what)

    return asyncio.run(ask())


class UnseenError(Exception):
    """Who asks may not see all that is decided by; the text says what."""


async def pending(record: Record, config: Config = DEFAULTS) -> list[str]:
    """The commands that would do what :func:`apply` would do. Raises :class:`UnseenError`.

    To who may not see a profile its path is none, and the commands would take it out: only root's apply is told of.
    """
    from ..kernel.sock_diag import may_administer

    async with _reconciler(record, config, dry_run=True) as (reconciler, queries):
        await reconciler.converge()
        assert reconciler.view is not None
        networkmanager = reconciler.view.snapshot.networkmanager
        if not may_administer():
            for device in networkmanager.devices:
                if device.unreadable:
                    raise UnseenError(f"{device.interface}: the profile cannot be read: {device.unreadable}")
            if networkmanager.unread:
                raise UnseenError(f"NetworkManager's configuration cannot be read: {networkmanager.unread}")
        return await queries.pending()


@contextlib.asynccontextmanager
async def _reconciler(record: Record, config: Config, *, dry_run: bool) -> AsyncIterator[tuple[Reconciler, Queries]]:
    """A reconciler for one look; NetworkManager not running, or no bus, are ordinary states.

    Raises :class:`~nm_mptcp.kernel.errors.KernelError` where it is to write and the kernel would refuse all of it.
    """
    from ..engine.reconciler import Reconciler
    from ..kernel.access import KernelAccess
    from ..kernel.errors import KernelError
    from ..kernel.sock_diag import may_administer
    from .queries import Queries

    if not dry_run and not may_administer():
        raise KernelError(errno.EPERM, "change endpoints, rules, routes and limits")
    record.load(aside=not dry_run)
    networkmanager = await _networkmanager()
    kernel = KernelAccess(endpoints_max=record.contents.endpoints_max)
    try:
        reconciler = Reconciler(kernel, lambda: networkmanager, record, config=config, dry_run=dry_run)
        yield reconciler, Queries(reconciler, kernel, record)
    finally:
        await kernel.close()


async def _networkmanager() -> NetworkManager:
    bus = Bus()
    try:
        await bus.connect(timeout=CONNECT_TIMEOUT)
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
