# SPDX-License-Identifier: GPL-2.0-or-later
"""Our own D-Bus interface, ``org.nm_mptcp1``: anyone may read; who may change is said by the bus policy and polkit."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .. import __version__
from ..config.files import ConfigError
from ..dbus.connection import Caller, DBusError
from ..dbus.names import INTERFACE, INVALID_ARGS
from ..dbus.polkit import Permission
from ..dbus.properties import Methods, Properties, Values, with_properties
from ..engine.record_file import StateError
from ..kernel.errors import KernelError
from ..model.state import Mode
from ..report.documents import Explanation

_log = logging.getLogger(__name__)

_FAILED = "org.nm_mptcp1.Error.Failed"


#: The properties of ``org.nm_mptcp1``.
PROPERTIES = {
    "Version": ("s", "The version of nm-mptcp."),
    "State": ("s", 'good, held-back or not-working; "" before the first look.'),
    "Problems": ("as", "What is held back or does not work, a line each."),
    "Mode": ("s", "The mode that counts."),
    "ModeFrom": ("s", "Whether it was chosen at ``runtime`` or by ``configuration``."),
    "Paused": ("b", "Whether Clear was called, so that nothing is made until Resume."),
    "NetworkManagerRunning": ("b", "Whether NetworkManager is on the bus."),
    "MptcpEnabled": ("b", "The sysctl net.mptcp.enabled."),
    "PathManager": ("s", 'kernel, userspace or another by name; "" without MPTCP.'),
    "EndpointsMax": ("u", "How many endpoints the kernel takes."),
    "EndpointsUsed": ("u", "How many it has."),
    "LimitSubflows": ("u", "The limit of additional subflows on a connection."),
    "LimitAddAddrAccepted": ("u", "The limit of addresses of the peer that are used."),
}

#: The methods.
METHODS: Methods = {
    "Sync": ({}, "", "Look now, and answer when the kernel is as it should be."),
    "Status": ({}, "s", "The status document, as JSON."),
    "Explain": (
        {"what": "s"},
        "s",
        "Why an interface, address or profile is a path or none, or where a connection to an address goes, as JSON.",
    ),
    "Clear": ({}, "", "Take out all that is ours and that no live connection depends on, and stay out until Resume."),
    "ClearAll": ({}, "", "The same, also what live connections depend on."),
    "Resume": ({}, "", "Work again after Clear."),
    "Reload": ({}, "", "Read the configuration again; an error, and no change, where it is no good."),
    "SetMode": ({"mode": "s"}, "", "Choose the mode until the next boot; an empty one leaves it to the configuration."),
}

#: The properties' values before the first look.
NOTHING_YET: Values = {
    name: {"s": "", "b": False, "u": 0, "as": []}[kind] for name, (kind, _) in PROPERTIES.items()
} | {"Version": __version__}


@with_properties(PROPERTIES, METHODS)
class Service(Properties):
    """The interface ``org.nm_mptcp1``; what its methods do is given by the daemon.

    ``authorize`` returns where the caller has a permission, and raises :class:`DBusError` where not. (Clear,
    ClearAll and Resume are root's by the policy of the bus.)
    """

    def __init__(
        self,
        *,
        sync: Callable[[], Awaitable[None]],
        status: Callable[[], Awaitable[str]],
        clear: Callable[[], Awaitable[None]],
        clear_all: Callable[[], Awaitable[None]],
        resume: Callable[[], None],
        reload: Callable[[], Awaitable[None]],
        set_mode: Callable[[Mode | None], Awaitable[None]],
        explain: Callable[[str], Awaitable[Explanation]],
        authorize: Callable[[Caller, Permission], Awaitable[None]],
    ) -> None:
        super().__init__(INTERFACE, NOTHING_YET)
        self._sync = sync
        self._status = status
        self._clear = clear
        self._clear_all = clear_all
        self._resume = resume
        self._reload = reload
        self._set_mode = set_mode
        self._explain = explain
        self._authorize = authorize

    async def answer(self, caller: Caller, member: str, arguments: Sequence[Any]) -> Sequence[Any]:
        """Do what a method is for, and give what it gives. Raises :class:`DBusError`."""
        try:
            match member:
                case "Sync":
                    await self._authorize(caller, Permission.SYNC)
                    await self._sync()
                case "Status":
                    return [await self._status()]
                case "Explain":
                    return [json.dumps(await self._explained(*arguments))]
                case "Clear":
                    await self._clear()
                case "ClearAll":
                    await self._clear_all()
                case "Resume":
                    self._resume()
                case "Reload":
                    await self._authorize(caller, Permission.RELOAD)
                    await self._reload()
                case "SetMode":
                    await self._authorize(caller, Permission.SET_MODE)
                    await self._set_mode(_mode(*arguments))
        except (ConfigError, KernelError, StateError) as error:
            raise DBusError(_FAILED, str(error)) from None
        return []

    async def _explained(self, what: str) -> Explanation:
        from ..report.explain import UnknownSubject

        try:
            return await self._explain(what)
        except UnknownSubject as error:
            raise DBusError(INVALID_ARGS, str(error)) from None


def _mode(name: str) -> Mode | None:
    if name and name not in list(Mode):
        raise DBusError(
            INVALID_ARGS, f"no such mode: {name!r} (there is {', '.join(Mode)}, and '' for the configured one)"
        )
    return Mode(name) if name else None
