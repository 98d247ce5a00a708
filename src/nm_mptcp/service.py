# SPDX-License-Identifier: GPL-2.0-or-later
"""Our own D-Bus interface, ``org.nm_mptcp1``: anyone may read; who may change is said by the bus policy and polkit."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from . import __version__
from .bus import DBusError, method
from .config import Mode
from .configfiles import ConfigError
from .kernel.errors import KernelError
from .log import logger
from .permission import Permission
from .properties import Properties, Values, having
from .service_names import INTERFACE, WRONG
from .state import StateError
from .status import Document

_log = logger(__name__)

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

#: Their values before the first look.
NOTHING_YET: Values = {
    name: {"s": "", "b": False, "u": 0, "as": []}[kind] for name, (kind, _) in PROPERTIES.items()
} | {"Version": __version__}


@having(PROPERTIES)
class Service(Properties):
    """The methods of ``org.nm_mptcp1``; what they do is given by the daemon.

    ``demand`` returns where the caller has a permission, and raises :class:`DBusError` where not. (Clear,
    ClearAll and Resume are root's by the policy of the bus.)
    """

    def __init__(
        self,
        *,
        sync: Callable[[], Awaitable[None]],
        status: Callable[[], Awaitable[Document]],
        clear: Callable[[], Awaitable[None]],
        clear_all: Callable[[], Awaitable[None]],
        resume: Callable[[], None],
        reload: Callable[[], Awaitable[None]],
        set_mode: Callable[[Mode | None], Awaitable[None]],
        explain: Callable[[str], Awaitable[Document]],
        demand: Callable[[Permission], Awaitable[None]],
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
        self._demand = demand

    @method()
    async def Sync(self):  # type: ignore[no-untyped-def]  # an annotation would be taken for a signature
        """Look now, and answer when the kernel is as it should be."""
        await self._demand(Permission.SYNC)
        await self._do(self._sync())

    @method()
    async def Status(self) -> "s":  # type: ignore[name-defined]  # noqa: F821, UP037
        """The status document, as JSON."""
        return json.dumps(await self._status())

    @method()
    async def Explain(self, what: "s") -> "s":  # type: ignore[name-defined]  # noqa: F821, UP037
        """Why an interface, address or profile is a path or none, or where a connection to an address goes, as JSON."""
        from .explain import UnknownSubject

        try:
            return json.dumps(await self._explain(what))
        except UnknownSubject as error:
            raise DBusError(WRONG, str(error)) from None

    @method()
    async def Clear(self):  # type: ignore[no-untyped-def]  # an annotation would be taken for a signature
        """Take out all that is ours and that no live connection depends on, and stay out until Resume."""
        await self._do(self._clear())

    @method()
    async def ClearAll(self):  # type: ignore[no-untyped-def]  # as above
        """The same, also what live connections depend on."""
        await self._do(self._clear_all())

    @method()
    def Resume(self):  # type: ignore[no-untyped-def]  # as above
        """Work again after Clear."""
        self._resume()

    @method()
    async def Reload(self):  # type: ignore[no-untyped-def]  # as above
        """Read the configuration again; an error, and no change, where it is no good."""
        await self._demand(Permission.RELOAD)
        await self._do(self._reload())

    @method()
    async def SetMode(self, mode: "s"):  # type: ignore[no-untyped-def, name-defined]  # noqa: F821, UP037
        """Choose the mode until the next boot; an empty one leaves it to the configuration."""
        await self._demand(Permission.SET_MODE)
        if mode and mode not in list(Mode):
            raise DBusError(
                WRONG, f"no such mode: {mode!r} (there is {', '.join(Mode)}, and '' for the configured one)"
            )
        await self._do(self._set_mode(Mode(mode) if mode else None))

    async def _do(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (ConfigError, KernelError, StateError) as error:
            raise DBusError(_FAILED, str(error)) from None
