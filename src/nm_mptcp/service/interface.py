# SPDX-License-Identifier: GPL-2.0-or-later
"""Our D-Bus interface ``org.nm_mptcp1``: any user may read; the bus policy and polkit restrict what changes state."""

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
    "State": ("s", 'good, held-back or not-working; "" before the state was first read.'),
    "Problems": ("as", "Why State is not good, a line each."),
    "Mode": ("s", "The mode in force."),
    "ModeFrom": ("s", "Whether it was set at ``runtime`` or comes from the ``configuration``."),
    "Paused": ("b", "Whether Clear or ClearAll was called, and not Resume."),
    "NetworkManagerRunning": ("b", "Whether NetworkManager is on the bus."),
    "MptcpEnabled": ("b", "The sysctl net.mptcp.enabled."),
    "PathManager": ("s", 'kernel, userspace or another by name; "" without MPTCP.'),
    "EndpointsMax": ("u", "The kernel's maximum of endpoints."),
    "EndpointsUsed": ("u", "How many it has."),
    "LimitSubflows": ("u", "The kernel's limit of additional subflows for each connection."),
    "LimitAddAddrAccepted": ("u", "The kernel's limit of accepted addresses of the peer for each connection."),
}

#: The methods.
METHODS: Methods = {
    "Sync": (
        {},
        "",
        "Read the state of NetworkManager and the kernel, and reply when the kernel is in the desired state.",
    ),
    "Status": ({}, "s", "The status document, as JSON."),
    "Explain": (
        {"what": "s"},
        "s",
        "Why an interface, address or profile is a path or none, or where a connection to an address goes, as JSON.",
    ),
    "Clear": ({}, "", "Delete all that is ours, except what live connections depend on, and pause until Resume."),
    "ClearAll": ({}, "", "The same, also what live connections depend on."),
    "Resume": ({}, "", "Work again after Clear or ClearAll."),
    "Reload": ({}, "", "Read the configuration again; an invalid one is an error and changes nothing."),
    "SetMode": ({"mode": "s"}, "", "Set the mode until the next boot; an empty string returns to the configured one."),
}

#: The properties' values before the first convergence.
NOTHING_YET: Values = {
    name: {"s": "", "b": False, "u": 0, "as": []}[kind] for name, (kind, _) in PROPERTIES.items()
} | {"Version": __version__}


@with_properties(PROPERTIES, METHODS)
class Service(Properties):
    """The interface ``org.nm_mptcp1``. The daemon provides what its methods do.

    ``authorize`` raises :class:`DBusError` if the caller lacks a permission. (The bus policy allows Clear, ClearAll and Resume
    only to root.)
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
        """Execute a method and return the body of its reply. Raises :class:`DBusError`, also for an error in the method."""
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
