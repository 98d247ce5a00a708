# SPDX-License-Identifier: GPL-2.0-or-later
"""Which modems roam: the one thing of a cellular connection that NetworkManager does not tell, and ModemManager does.

One look (``GetManagedObjects``) when ModemManager comes, then signals only; those of the registration, not of the signal
quality, which changes all the time. ModemManager is never started by us and need not be there: without it nothing roams.
While it is away what it last said is kept, since NetworkManager takes its modems away by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ..dbus.connection import Bus, BusError, Signal, unpack
from ..fault_log import FaultLog
from . import names

_log = logging.getLogger(__name__)

SERVICE = "org.freedesktop.ModemManager1"
PATH = "/org/freedesktop/ModemManager1"
MODEM_3GPP = SERVICE + ".Modem.Modem3gpp"
MODEM_CDMA = SERVICE + ".Modem.ModemCdma"

#: Where a registration is told -> its values that mean abroad (``MMModem3gppRegistrationState``: roaming, roaming for SMS
#: only, roaming with voice fallback not preferred; ``MMModemCdmaRegistrationState``).
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

#: Seconds for its answer: one that is swapped out answers late.
_PATIENCE = 60.0


class Modems:
    """Follows ModemManager. ``on_change`` is called, without arguments, after each change of :attr:`roaming`."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._bus: Bus | None = None
        self._owner = ""  #: ModemManager's unique name, "" when it is not there
        self._owner_told = False  #: whether a signal has said who that is
        self._registrations: dict[str, dict[tuple[str, str], bool]] = {}  #: of each modem, and whether it is abroad
        self._roaming: frozenset[str] = frozenset()
        self._held: list[Signal] | None = None  #: signals that wait for the answer of GetManagedObjects
        self._loading: asyncio.Task[None] | None = None
        self._complaints = FaultLog(_log, "ModemManager: ")

    @property
    def roaming(self) -> frozenset[str]:
        """The object paths of the modems that roam (NetworkManager has them as ``Device.Udi``)."""
        return self._roaming

    async def start(self, bus: Bus, timeout: float = 2.0) -> None:
        """Subscribe and look; returns when all is read, or after ``timeout`` (s). After a lost connection: once more.

        Raises :class:`BusError` when the connection fails. ModemManager not running is no error.
        """
        self._stop_loading()
        self._bus, self._owner, self._owner_told = bus, "", False
        bus.on_signal(lambda signal: self._on_signal(signal) if bus is self._bus else None)
        await asyncio.gather(*(bus.add_match(rule) for rule in MATCH_RULES))
        owner = await bus.owner(SERVICE)
        if owner and not self._owner_told:  # what a signal told since is newer than this answer
            self._owned_by(owner)
        if self._loading is not None:
            await asyncio.wait((self._loading,), timeout=timeout)

    def close(self) -> None:
        """Stop following, and call nobody any more; the connection is left open."""
        self._on_change = lambda: None
        self._stop_loading()
        self._bus = None

    def _owned_by(self, owner: str) -> None:
        """ModemManager came (``owner``), went ("") or was replaced."""
        self._stop_loading()
        self._owner = owner
        if owner:
            self._held = []
            self._loading = asyncio.ensure_future(self._load(owner))
            self._loading.add_done_callback(_tell)

    def _stop_loading(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
        self._loading = self._held = None

    async def _load(self, owner: str) -> None:
        """Read all modems, tried until it succeeds; our task is cancelled when this ModemManager goes."""
        delay, longest = _RETRY
        while True:
            assert self._bus is not None
            try:
                (objects,) = await self._bus.call(
                    owner, PATH, names.OBJECT_MANAGER, "GetManagedObjects", timeout=_PATIENCE
                )
                if not isinstance(objects, dict):
                    raise ValueError("it is no list of objects")
                break
            except BusError as error:
                self._complaints.say("modems", f"its modems could not be read ({error.text}): trying again")
            except ValueError as error:
                self._complaints.say("modems", f"its list of modems is not understood ({error}): trying again")
            await asyncio.sleep(delay)
            delay = min(delay * 2, longest)
        self._complaints.right("modems")
        self._registrations = {}
        for path, interfaces in objects.items():
            self._guarded(f"its object {path}", self._add, path, interfaces)
        held, self._held = self._held or [], None
        for signal in held:
            self._handle(signal)
        self._loading = None
        self._publish()

    def _on_signal(self, signal: Signal) -> None:
        if signal.member == "NameOwnerChanged" and signal.sender == names.BUS:
            name, _, owner = signal.body
            if name == SERVICE:
                self._owner_told = True
                self._owned_by(owner)
        elif not self._owner or signal.sender != self._owner:
            return
        elif self._held is not None:
            self._held.append(signal)
        else:
            self._handle(signal)
            self._publish()

    def _handle(self, signal: Signal) -> None:
        what = f"its signal {signal.member} of {signal.path}"
        if signal.interface == names.PROPERTIES and signal.member == "PropertiesChanged":
            self._guarded(what, self._changed, signal.path, *signal.body)
        elif signal.interface == names.OBJECT_MANAGER and signal.member == "InterfacesAdded":
            self._guarded(what, self._add, *signal.body)
        elif signal.interface == names.OBJECT_MANAGER and signal.member == "InterfacesRemoved":
            self._guarded(what, self._remove, *signal.body)

    def _guarded(self, what: str, action: Callable[..., None], *arguments: Any) -> None:
        """Do it; what is not of the form that ModemManager documents is told once, and passed over."""
        try:
            action(*arguments)
        except (TypeError, ValueError, AttributeError) as error:
            self._complaints.say("form", f"{what} is not understood: {error}", what)
        else:
            self._complaints.right("form", what)

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
                words = f"{name} of {path} is {state!r}, no number: the modem counts as not roaming"
                self._complaints.say("registration", words, (path, name))
            else:
                self._complaints.right("registration", (path, name))
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


def _tell(task: asyncio.Task[None]) -> None:
    """An error that nobody foresaw belongs into the log, not into the task that nobody awaits."""
    if not task.cancelled() and (error := task.exception()):
        _log.error("ModemManager's modems could not be read", exc_info=error)
