# SPDX-License-Identifier: GPL-2.0-or-later
"""One convergence without the service: what ``apply``, ``clear`` and ``status`` do if it is not running.

The netlink modules are imported only where they are used: their library costs a third of a second, and is not needed if the
service is running.
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
    """Bring the kernel to the desired state. The caller holds the record's lock.

    Raises :class:`KernelError` and :class:`StateError`, as the other functions that write.
    """
    async with _reconciler(record, config, dry_run=False) as (reconciler, _):
        await reconciler.converge()


async def set_mode(record: Record, mode: Mode | None, config: Config = DEFAULTS) -> None:
    """Set the mode until the next boot (None: the configured one). The caller holds the record's lock."""
    async with _reconciler(record, config, dry_run=False) as (reconciler, _):
        await reconciler.set_mode(mode)


async def clear(record: Record, config: Config = DEFAULTS, *, force: bool = False) -> frozenset[str]:
    """Delete all that is ours and restore what was there before. The caller holds the record's lock.

    Returns the addresses whose endpoint, rules and table were left for live connections; with ``force`` there are none.
    """
    from ..kernel.errors import KernelError
    from ..kernel.join_filter import JoinFilter

    async with _reconciler(record, config, dry_run=False) as (reconciler, _):
        await reconciler.clear(force=force)
        with contextlib.suppress(KernelError):  # no nftables here
            JoinFilter().write(frozenset(), frozenset())
        return reconciler.kept


def status(record: Record, config: Config = DEFAULTS) -> StatusDocument:
    """The status document of one dry run; writes nothing."""

    async def ask() -> StatusDocument:
        async with _reconciler(record, config, dry_run=True) as (reconciler, queries):
            await reconciler.converge()
            found = await queries.status(service=False)
            assert found is not None
            return found

    return asyncio.run(ask())


def explain(record: Record, what: str, config: Config = DEFAULTS) -> Explanation:
    """The explanation from one dry run; writes nothing. Raises :class:`~nm_mptcp.report.explain.UnknownSubject`."""

    async def ask() -> Explanation:
        async with _reconciler(record, config, dry_run=True) as (reconciler, queries):
            await reconciler.converge()
            return await queries.explain(what)

    return asyncio.run(ask())


class UnseenError(Exception):
    """The caller may not read all that the decision depends on; the text says what."""


async def pending(record: Record, config: Config = DEFAULTS) -> list[str]:
    """The commands that would do what :func:`apply` would do.

    Raises :class:`UnseenError` if the caller may not read a profile: its path would be excluded, and the commands would delete
    it, which root's apply would not do.
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
    """A reconciler for one convergence; works also without NetworkManager or the bus.

    Raises :class:`~nm_mptcp.kernel.errors.KernelError` if it is to write and lacks the permission.
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
        _log.warning("%s; assuming that NetworkManager is not running", error)
        return NetworkManager()
    finally:
        bus.close()
