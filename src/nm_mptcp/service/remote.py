# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls to the running service over D-Bus, for the commands and the checks."""

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

#: Seconds for one reply of the service; a convergence takes milliseconds, the deletes of 8 endpoints less than a second.
_TIMEOUT = 10.0

#: The same if polkit may ask for a password first.
_TIMEOUT_INTERACTIVE = 130.0

#: Seconds to wait for the record's lock before the service is called again.
_LOCK_TIMEOUT = 0.1

#: A method's name, or its name and its string argument.
Call = str | tuple[str, str]


def order(*calls: Call) -> bool:
    """Call these methods in turn; returns False if the service is not running, or there is no bus.

    Raises :class:`BusError` if the service refuses a call or fails.
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
    """Call these methods of the running service; without one do ``work`` in this process, as the only writer.

    Returns whether the service did it. A starting service holds the lock before it is on the bus, so both are tried in turn.
    Raises :class:`BusError`, :class:`StateError` and what ``work`` raises.
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
    """Call a method that only reads; None if the service is not running.

    Raises :class:`BusError`; its name is :data:`BusError.NO_SERVER` if there is no bus.
    """
    try:
        call = member if argument is None else (member, argument)
        return asyncio.run(_call((call,), _TIMEOUT, interactive=False))
    except BusError as error:
        if error.gone and error.name not in (BusError.DISCONNECTED, BusError.NO_SERVER):
            return None
        raise


def status() -> StatusDocument | None:
    """The service's status document; None without a service or a bus, and before the service's first convergence.

    Raises :class:`BusError`. A service of another release may use other names, see :mod:`~nm_mptcp.report.documents`.
    """
    found: StatusDocument | None = _document("Status")
    return found or None


def explain(what: str) -> Explanation | None:
    """The service's explanation; None without a service or a bus.

    Raises :class:`BusError`; its name is :data:`~nm_mptcp.dbus.names.INVALID_ARGS` if the service does not know the subject.
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
    """Call these methods in turn; returns the first value of the last reply as text, "" if it has none."""
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
