# SPDX-License-Identifier: GPL-2.0-or-later
"""The running service, asked over D-Bus; without netlink, whose libraries cost a third of a second to import."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import plainbus
from ..dbus.names import INTERFACE, NAME, PATH

if TYPE_CHECKING:
    from ..engine.record import Record
    from ..report.status import Document

#: Seconds for one answer of the service; a convergence takes milliseconds, deleting 8 endpoints less than a second.
_PATIENCE = 10.0

#: The same where a person may be asked for a password first (polkit).
_PATIENCE_WITH_A_PERSON = 130.0

#: Seconds to wait for another writer before the service is looked for again.
_TURN = 0.1


#: A method: its name, and where it takes an argument, a string.
Call = str | tuple[str, str]


def ask(*calls: Call) -> list[object] | None:
    """Call these methods in turn, and give the last one's reply; None where no service is on the bus.

    Raises :class:`BusError` when the service is there and refuses or fails.
    """
    import asyncio

    return asyncio.run(_ask(calls))


def have_done(record: Record, calls: tuple[Call, ...], work: Callable[[], None]) -> bool:
    """Have the running service do something, by these methods; else do it ourselves, as the only writer.

    True when the service did it. A service that is just starting holds the lock before it is on the bus, so both are tried
    in turn. Raises :class:`BusError`, :class:`StateError` and what ``work`` raises.
    """
    from ..engine.record import BusyError

    deadline = time.monotonic() + _PATIENCE
    while True:
        if ask(*calls) is not None:
            return True
        try:
            with record.lock(_TURN):
                work()
                return False
        except BusyError:
            if time.monotonic() >= deadline:
                raise


def status() -> Document | None:
    """The service's status document; None where no service is on the bus. Raises :class:`PlainBusError`."""
    answer = plainbus.ask(NAME, PATH, INTERFACE, "Status", timeout=_PATIENCE)
    return json.loads(answer) if answer else None


def explain(what: str) -> Document | None:
    """The service's explanation; None where no service is on the bus.

    Raises :class:`PlainBusError`; its name is :data:`~nm_mptcp.dbus.names.WRONG` for what means nothing to the service.
    """
    answer = plainbus.ask(NAME, PATH, INTERFACE, "Explain", what, timeout=_PATIENCE)
    return json.loads(answer) if answer else None


async def _ask(calls: tuple[Call, ...]) -> list[object] | None:
    from ..dbus.connection import Bus, BusError

    person = os.geteuid() != 0
    patience = _PATIENCE_WITH_A_PERSON if person else _PATIENCE
    bus = Bus()
    try:
        await bus.connect(timeout=plainbus.TO_BE_LET_IN)
        if not await bus.owner(NAME):
            return None
        body: list[object] = []
        for call in calls:
            member, *arguments = (call,) if isinstance(call, str) else call
            signature = "s" * len(arguments)
            body = await bus.call(
                NAME, PATH, INTERFACE, member, signature, *arguments, timeout=patience, interactive=person
            )
        return body
    except BusError as error:
        if error.gone:
            return None
        raise
    finally:
        bus.close()
