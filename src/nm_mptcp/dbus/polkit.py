# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may change something over the bus: root always, others where polkit runs and authorizes them.

Source: polkit's ``org.freedesktop.PolicyKit1.Authority(8)`` (``CheckAuthorization``). The actions and their defaults are in
``packaging/polkit/org.nm_mptcp1.policy``. (An action's name may have hyphens, but no underscores.)
"""

from __future__ import annotations

import enum

from .connection import Bus, BusError, Caller, DBusError, Variant

_POLKIT = "org.freedesktop.PolicyKit1"
_AUTHORITY = "/org/freedesktop/PolicyKit1/Authority"
_ALLOW_INTERACTION = 1

_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
_INTERACTION_REQUIRED = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"

#: Seconds for polkit's reply, and where it may ask for a password first.
_TIMEOUT, _INTERACTIVE_TIMEOUT = 10.0, 120.0


class Permission(enum.StrEnum):
    """Permissions; the value is polkit's action."""

    SYNC = "org.nm-mptcp1.sync"
    RELOAD = "org.nm-mptcp1.reload"
    SET_MODE = "org.nm-mptcp1.set-mode"


async def authorize(bus: Bus, caller: Caller, permission: Permission) -> None:
    """Return if ``caller`` has this permission; else raise :class:`DBusError` with the reason."""
    try:
        if await bus.user(caller.name) == 0:
            return
    except BusError as error:
        raise DBusError(_DENIED, f"the caller's user is not known: {error}") from None
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
            timeout=_INTERACTIVE_TIMEOUT if caller.interactive else _TIMEOUT,
            no_auto_start=False,
        )
        authorized, challenge, _details = answer
    except BusError as error:
        why = "polkit is not available" if error.gone else f"polkit does not answer: {error}"
        raise DBusError(_DENIED, f"permission denied: must be root ({why})") from None
    if authorized:
        return
    if challenge:
        why = "there is no agent to ask" if caller.interactive else "the call does not allow interaction"
        raise DBusError(_INTERACTION_REQUIRED, f"polkit requires authentication for {permission}: {why}")
    raise DBusError(_DENIED, f"polkit does not authorize {permission}")
