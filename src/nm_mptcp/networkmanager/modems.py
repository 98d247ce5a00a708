# SPDX-License-Identifier: GPL-2.0-or-later
"""Which modems roam: ModemManager has it, NetworkManager does not expose it.

The modems are read once, then signals of their registration only; the signal quality changes all the time. ModemManager is
never started by us and need not be there: without it nothing roams. While it is away its last word is kept, since
NetworkManager takes modems away by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ..dbus.connection import Bus, Signal, unpack
from ..dbus.name_follower import NameFollower, managed_objects
from ..fault_log import FaultLog
from . import names

_log = logging.getLogger(__name__)

SERVICE = "org.freedesktop.ModemManager1"
PATH = "/org/freedesktop/ModemManager1"
MODEM_3GPP = SERVICE + ".Modem.Modem3gpp"
MODEM_CDMA = SERVICE + ".Modem.ModemCdma"

#: Property of a registration -> its values that mean abroad (``MMModem3gppRegistrationState``: roaming, roaming for SMS only,
#: roaming with voice fallback not preferred; ``MMModemCdmaRegistrationState``).
_ROAMING: Mapping[tuple[str, str], frozenset[int]] = {
    (MODEM_3GPP, "RegistrationState"): frozenset((5, 7, 10)),
    (MODEM_CDMA, "Cdma1xRegistrationState"): frozenset((3,)),
    (MODEM_CDMA, "EvdoRegistrationState"): frozenset((3,)),
}

MATCH_RULES: tuple[str, ...] = (
    f"type='signal',sender='{names.BUS}',interface='{names.BUS}',member='NameOwnerChanged',arg0='{SERVICE}'",
    *(
        f"type='signal',sender='{SERVICE}',interface='{names.PROPERTIES}',member='PropertiesChanged',arg0='{interface}'"
        for interface in (MODEM_3GPP, MODEM_CDMA)
    ),
    f"type='signal',sender='{SERVICE}',interface='{names.OBJECT_MANAGER}',path='{PATH}'",
)

#: Seconds between two tries to read the modems of a ModemManager that does not answer; doubled up to the second.
_RETRY = (0.5, 60.0)

#: Seconds for its reply: one that is swapped out answers late.
_CALL_TIMEOUT = 60.0


class Modems:
    """Follows ModemManager. ``on_change`` is called, without arguments, after each change of :attr:`roaming`."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._registrations: dict[str, dict[tuple[str, str], bool]] = {}  #: of each modem, and whether it is abroad
        self._roaming: frozenset[str] = frozenset()
        self._faults = FaultLog(_log, "ModemManager: ")
        self._follower = NameFollower(
            SERVICE, MATCH_RULES, load=self._load, on_loaded=self._publish, on_signal=self._on_signal
        )
        self._bus: Bus | None = None

    @property
    def roaming(self) -> frozenset[str]:
        """The object paths of the modems that roam (NetworkManager has them as ``Device.Udi``)."""
        return self._roaming

    async def start(self, bus: Bus, timeout: float = 2.0) -> None:
        """Subscribe and read; returns when all is read, or after ``timeout`` (s). After a lost connection: once more.

        Raises :class:`BusError` when the connection fails. ModemManager not running is no error.
        """
        self._bus = bus
        await self._follower.start(bus)
        if self._follower.loading is not None:
            await asyncio.wait((self._follower.loading,), timeout=timeout)

    def close(self) -> None:
        """Stop following and calling back; the connection is left open."""
        self._on_change = lambda: None
        self._follower.stop()

    async def _load(self, owner: str) -> None:
        assert self._bus is not None
        bus = self._bus
        objects = await managed_objects(
            lambda: bus.call(owner, PATH, names.OBJECT_MANAGER, "GetManagedObjects", timeout=_CALL_TIMEOUT),
            lambda reason: self._faults.report("modems", f"modems could not be read ({reason}): retrying"),
            _RETRY,
        )
        self._faults.clear("modems")
        self._registrations = {}
        for path, interfaces in objects.items():
            self._guarded(f"object {path}", self._add, path, interfaces)
        self._follower.release()

    def _on_signal(self, signal: Signal) -> None:
        what = f"signal {signal.member} of {signal.path}"
        if signal.interface == names.PROPERTIES and signal.member == "PropertiesChanged":
            self._guarded(what, self._changed, signal.path, *signal.body)
        elif signal.interface == names.OBJECT_MANAGER and signal.member == "InterfacesAdded":
            self._guarded(what, self._add, *signal.body)
        elif signal.interface == names.OBJECT_MANAGER and signal.member == "InterfacesRemoved":
            self._guarded(what, self._remove, *signal.body)
        if self._follower.loading is None:
            self._publish()

    def _guarded(self, what: str, action: Callable[..., None], *arguments: Any) -> None:
        """Do it; what is not of the documented form is logged once and ignored."""
        try:
            action(*arguments)
        except (TypeError, ValueError, AttributeError) as error:
            self._faults.report("form", f"{what} is malformed: {error}", what)
        else:
            self._faults.clear("form", what)

    def _add(self, path: str, interfaces: Mapping[str, Mapping[str, Any]]) -> None:
        for interface, properties in interfaces.items():
            self._changed(path, interface, properties)

    def _changed(self, path: str, interface: str, properties: Mapping[str, Any], *_: Any) -> None:
        for name, value in properties.items():
            if (abroad := _ROAMING.get((interface, name))) is None:
                continue
            state = unpack(value)
            known = isinstance(state, int) and not isinstance(state, bool)
            if not known:
                words = f"{name} of {path} is {state!r}, not a number: the modem counts as not roaming"
                self._faults.report("registration", words, (path, name))
            else:
                self._faults.clear("registration", (path, name))
            self._registrations.setdefault(path, {})[interface, name] = known and state in abroad

    def _remove(self, path: str, interfaces: list[str]) -> None:
        left = {key: value for key, value in self._registrations.pop(path, {}).items() if key[0] not in interfaces}
        if left:
            self._registrations[path] = left

    def _publish(self) -> None:
        roaming = frozenset(path for path, states in self._registrations.items() if any(states.values()))
        if roaming != self._roaming:
            self._roaming = roaming
            self._on_change()
