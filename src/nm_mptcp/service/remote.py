# SPDX-License-Identifier: GPL-2.0-or-later
"""The running service, called over D-Bus: what the commands and the checks do where there is one."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any

from ..dbus.connection import CONNECT_TIMEOUT, Bus, BusError
from ..dbus.names import INTERFACE, NAME, PATH
from ..engine.record_file import BusyError, Record
from ..report.documents import Explanation, StatusDocument

#: Seconds for one reply of the service; a convergence takes milliseconds, deleting 8 endpoints less than a second.
_TIMEOUT = 10.0

#: The same where polkit may ask a person for a password first.
_TIMEOUT_INTERACTIVE = 130.0

#: Seconds to wait for another writer before the service is looked for again.
_LOCK_TIMEOUT = 0.1

#: A method: its name, and where it takes an argument, a string.
Call = str | tuple[str, str]


def order(*calls: Call) -> bool:
    """Call these methods in turn; False where no service is on the bus, or there is no bus.

    Raises :class:`BusError` when the service is there and refuses or fails.
    """
    interactive = os.geteuid() != 0
    try:
        asyncio.run(_call(calls, _TIMEOUT_INTERACTIVE if interactive else _TIMEOUT, interactive=interactive))
    except BusError as error:
        if error.gone:
            return False
        raise
    return True


def order_or_do(record: Record, calls: tuple[Call, ...], work: Callable[[], None]) -> bool:
    """Have the running service do something, by these methods; else do it here, as the only writer.

    True when the service did it. A service that is just starting holds the lock before it is on the bus, so both are tried
    in turn. Raises :class:`BusError`, :class:`StateError` and what ``work`` raises.
    """
    deadline = time.monotonic() + _TIMEOUT
    while True:
        if order(*calls):
            return True
        try:
            with record.lock(_LOCK_TIMEOUT):
                work()
                return False
        except BusyError:
            if time.monotonic() >= deadline:
                raise


def read(member: str, argument: str | None = None) -> str | None:
    """Call a method that only reads; None where no service is on the bus.

    Raises :class:`BusError`, whose name is :data:`BusError.NO_SERVER` where there is no bus.
    """
    try:
        call = member if argument is None else (member, argument)
        return asyncio.run(_call((call,), _TIMEOUT, interactive=False))
    except BusError as error:
        if error.gone and error.name not in (BusError.DISCONNECTED, BusError.NO_SERVER):
            return None
        raise


def status() -> StatusDocument | None:
    """The service's status document; None without a service or a bus, and before the service's first look.

    Raises :class:`BusError`. A service of another release may give other names, see :mod:`~nm_mptcp.report.documents`.
    """
    found: StatusDocument | None = _document("Status")
    return found or None


def explain(what: str) -> Explanation | None:
    """The service's explanation; None where there is no service or no bus.

    Raises :class:`BusError`; its name is :data:`~nm_mptcp.dbus.names.INVALID_ARGS` for what means nothing to the service.
    """
    found: Explanation | None = _document("Explain", what)
    return found


def _document(member: str, argument: str | None = None) -> Any:
    try:
        answer = read(member, argument)
    except BusError as error:
        if error.name == BusError.NO_SERVER:
            return None
        raise
    return json.loads(answer) if answer else None


async def _call(calls: tuple[Call, ...], timeout: float, *, interactive: bool) -> str:
    """Call these methods in turn; the first string of the last reply, "" where it has none."""
    bus = Bus()
    try:
        await bus.connect(timeout=CONNECT_TIMEOUT)
        if not await bus.owner(NAME):
            raise BusError(BusError.NO_OWNER, f"{NAME} is not on the bus")
        body: list[object] = []
        for call in calls:
            member, *arguments = (call,) if isinstance(call, str) else call
            body = await bus.call(
                NAME,
                PATH,
                INTERFACE,
                member,
                "s" * len(arguments),
                *arguments,
                timeout=timeout,
                interactive=interactive,
            )
        return str(body[0]) if body else ""
    finally:
        bus.close()
