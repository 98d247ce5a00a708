# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may change something over the bus: root always, others where polkit is there and allows it.

Source: polkit's ``org.freedesktop.PolicyKit1.Authority(8)`` (``CheckAuthorization``). The actions and what they allow unless
an administrator says otherwise are in ``packaging/polkit/org.nm_mptcp1.policy``. (An action's name may have hyphens, and no
underscores.)
"""

from __future__ import annotations

import enum

from .connection import Bus, BusError, Caller, DBusError, Variant

_POLKIT = "org.freedesktop.PolicyKit1"
_AUTHORITY = "/org/freedesktop/PolicyKit1/Authority"
_ALLOW_INTERACTION = 1

_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
_ASKS = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"

#: Seconds for polkit's answer, and where a person is asked for a password first.
_PATIENCE, _PATIENCE_WITH_A_PERSON = 10.0, 120.0


class Permission(enum.StrEnum):
    """What is asked for; the value is polkit's action."""

    SYNC = "org.nm-mptcp1.sync"
    RELOAD = "org.nm-mptcp1.reload"
    SET_MODE = "org.nm-mptcp1.set-mode"


async def demand(bus: Bus, caller: Caller, permission: Permission) -> None:
    """Return where ``caller`` has this permission; else raise :class:`DBusError`, in one line."""
    try:
        if await bus.user(caller.name) == 0:
            return
    except BusError as error:
        raise DBusError(_DENIED, f"who asks is not known: {error}") from None
    subject = ["system-bus-name", {"name": Variant("s", caller.name)}]
    try:
        (answer,) = await bus.call(
            _POLKIT,
            _AUTHORITY,
            f"{_POLKIT}.Authority",
            "CheckAuthorization",
            "(sa{sv})sa{ss}us",
            subject,
            permission.value,
            {},
            _ALLOW_INTERACTION if caller.interactive else 0,
            "",
            timeout=_PATIENCE_WITH_A_PERSON if caller.interactive else _PATIENCE,
            no_auto_start=False,
        )
        allowed, asks, _details = answer
    except BusError as error:
        why = "there is no polkit that could allow it to others" if error.gone else f"polkit does not answer: {error}"
        raise DBusError(_DENIED, f"only root may do this ({why})") from None
    if allowed:
        return
    if asks:
        why = "nobody was there to be asked for one" if caller.interactive else "the call does not let it ask"
        raise DBusError(_ASKS, f"polkit wants a password for {permission}, and {why}")
    raise DBusError(_DENIED, f"polkit does not allow {permission}")
