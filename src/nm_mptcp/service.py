# SPDX-License-Identifier: GPL-2.0-or-later
"""Our own D-Bus interface, ``org.nm_mptcp1``: anyone may read, only root may change (the bus policy says so)."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable

from .bus import DBusError, ServiceInterface, method
from .config import Mode
from .configfiles import ConfigError
from .kernel.errors import KernelError
from .service_names import INTERFACE, WRONG
from .state import StateError
from .status import Document

_log = logging.getLogger(__name__)

_FAILED = "org.nm_mptcp1.Error.Failed"


class Service(ServiceInterface):
    """The methods of ``org.nm_mptcp1``; what they do is given by the daemon."""

    def __init__(
        self,
        *,
        sync: Callable[[], Awaitable[None]],
        status: Callable[[], Awaitable[Document]],
        clear: Callable[[], Awaitable[None]],
        resume: Callable[[], None],
        reload: Callable[[], Awaitable[None]],
        set_mode: Callable[[Mode | None], Awaitable[None]],
        explain: Callable[[str], Awaitable[Document]],
    ) -> None:
        super().__init__(INTERFACE)
        self._sync = sync
        self._status = status
        self._clear = clear
        self._resume = resume
        self._reload = reload
        self._set_mode = set_mode
        self._explain = explain

    @method()
    async def Sync(self):  # type: ignore[no-untyped-def]  # an annotation would be taken for a signature
        """Look now, and answer when the kernel is as it should be."""
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
        """Take out all that is ours, and stay out until Resume."""
        await self._do(self._clear())

    @method()
    def Resume(self):  # type: ignore[no-untyped-def]  # as above
        """Work again after Clear."""
        self._resume()

    @method()
    async def Reload(self):  # type: ignore[no-untyped-def]  # as above
        """Read the configuration again; an error, and no change, where it is no good."""
        await self._do(self._reload())

    @method()
    async def SetMode(self, mode: "s"):  # type: ignore[no-untyped-def, name-defined]  # noqa: F821, UP037
        """Choose the mode until the next boot; an empty one leaves it to the configuration."""
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
