# SPDX-License-Identifier: GPL-2.0-or-later
"""The applied connection of each device, and the defaults that its activation began with.

The applied connection is what a device runs with, not what is stored (``Device.GetAppliedConnection``). It is read when an
activation begins. No signal tells of a reapply (tried with 1.42: one that changes only the MPTCP flags sends none); with DHCP
the lease is renewed, which counts as a hint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..dbus.connection import BusError, unpack
from ..dbus.name_follower import log_failure
from ..fault_log import FaultLog
from ..model.flags import ProfileFlag
from ..model.state import DeviceState, Profile
from . import names
from .defaults import ConnectionDefaults
from .liveness import Liveness
from .object_tree import DeviceObject
from .typed_values import Malformed, get, optional, required

#: A device has an applied connection from here ...
_FIRST = DeviceState.PREPARE
#: ... to here.
_LAST = DeviceState.ACTIVATED

#: Seconds until NetworkManager is asked again, when its reply did not come.
_RETRY = 0.1


@dataclass(slots=True, eq=False)
class Applied:
    """What was read for a device's activation.

    NetworkManager resolves its defaults when an activation begins, so they belong to it as well: the configuration files as
    they were then. Nothing is decided for a device whose defaults are not known yet.
    """

    profile: Profile | None = None
    unreadable: str = ""  #: why there is no profile, "" when it was read or there is none
    defaults: ConnectionDefaults | None = None  #: None: not read since the activation began
    read_for: str = ""  #: the active connection that the three belong to
    reading: asyncio.Task[None] | None = None
    again: bool = False  #: something happened while it was being read


#: A device without any.
NOTHING = Applied()


class AppliedConnections:
    """Reads applied connections. ``read_defaults`` reads NetworkManager's configuration files, ``on_read`` gets the object
    path of each device whose reading ended.
    """

    def __init__(
        self,
        liveness: Liveness,
        read_defaults: Callable[[], Awaitable[ConnectionDefaults]],
        on_read: Callable[[str], None],
        faults: FaultLog,
    ) -> None:
        self._liveness = liveness
        self._read_defaults = read_defaults
        self._on_read = on_read
        self._faults = faults
        self._applied: dict[str, Applied] = {}
        self._owner = ""  #: the NetworkManager that they were read from

    def of(self, path: str) -> Applied:
        """What is known of a device."""
        return self._applied.get(path, NOTHING)

    def tasks(self) -> list[asyncio.Task[None]]:
        """What is being read."""
        return [each.reading for each in self._applied.values() if each.reading is not None]

    def cancel(self) -> None:
        """Stop reading; what is known is kept."""
        for applied in self._applied.values():
            if applied.reading is not None:
                applied.reading.cancel()
            applied.reading = None

    def take_over(self) -> Mapping[str, Applied]:
        """Start with nothing, and return what was known for :meth:`read_all`."""
        self.cancel()
        before, self._applied = self._applied, {}
        return before

    async def read_all(self, owner: str, devices: Mapping[str, DeviceObject], before: Mapping[str, Applied]) -> None:
        """Read those of all devices; returns early when NetworkManager is silent.

        From ``before``, what was known of a device, the defaults are kept where the same NetworkManager still has the same
        activation: it began before the connection to the bus was lost.
        """
        for path, device in devices.items():
            known = before.get(path)
            if known and known.read_for and known.read_for == device.active and owner == self._owner:
                applied = self._applied.setdefault(path, Applied())
                applied.defaults, applied.read_for = known.defaults, known.read_for
            self.update(path, device)
        while (tasks := self.tasks()) and not self._liveness.silent:
            await self._liveness.wait_for(tasks)
        self._owner = owner

    def update(self, path: str, device: DeviceObject) -> None:
        """Read if that is due: there is a new activation, or a new state and nothing was read yet."""
        applied = self._applied.setdefault(path, Applied())
        active = device.active
        if applied.read_for != active:
            # The activation that was read for is over.
            applied.profile, applied.unreadable, applied.defaults, applied.read_for = None, "", None, active
            if active:
                self.read(path, device)
        elif active and applied.profile is None and applied.reading is None and _FIRST <= device.state <= _LAST:
            self.read(path, device)

    def read(self, path: str, device: DeviceObject) -> None:
        """Start reading; what is being read is read once more, since the reply may be from before the change."""
        applied = self._applied.setdefault(path, Applied())
        if applied.reading is not None:
            applied.again = True
        else:
            applied.reading = asyncio.ensure_future(self._read(path, device, applied))
            applied.reading.add_done_callback(log_failure("reading an applied connection"))

    def forget(self, path: str) -> None:
        """The device is gone."""
        if (applied := self._applied.pop(path, None)) and applied.reading is not None:
            applied.reading.cancel()

    async def _read(self, path: str, device: DeviceObject, applied: Applied) -> None:
        """Read what is not known of the activation that there is, and once more while that changes."""
        try:
            while active := device.active:
                applied.again = False
                state = device.state
                call = asyncio.ensure_future(self._liveness.call(path, names.DEVICE, "GetAppliedConnection", "u", 0))
                try:
                    if applied.defaults is None:  # read the files while NetworkManager is busy with the call
                        defaults = await self._read_defaults()
                        if active == device.active:
                            applied.defaults = defaults
                    await asyncio.wait((call,))
                finally:
                    call.cancel()
                result = self._result(path, device, applied, call)
                if result is None:
                    await asyncio.sleep(_RETRY)
                    continue
                profile, unreadable = result
                if active != device.active or applied.again or (profile is None and device.state != state):
                    continue
                applied.profile, applied.unreadable = profile, unreadable
                return
        finally:
            if applied.reading is asyncio.current_task():
                applied.reading = None
                if self._applied.get(path) is applied:
                    self._on_read(path)

    def _result(
        self, path: str, device: DeviceObject, applied: Applied, call: asyncio.Future[Any]
    ) -> tuple[Profile | None, str] | None:
        """The profile, or why it could not be read ("" where there is none); None: it has to be asked for again."""
        try:
            profile = to_profile(unpack(call.result()[0]))
        except BusError as error:
            if error.name == BusError.NO_REPLY and applied.profile is None:
                return None
            if error.gone or error.name in (names.NOT_ACTIVE, BusError.NO_REPLY):
                return applied.profile, applied.unreadable  # not there yet or any more, or busy: no news
            return None, error.text
        except (Malformed, IndexError, TypeError, ValueError) as error:
            interface = get(device.properties, "Interface", str, path)
            self._faults.report("applied connection", f"applied connection of {interface}: {error}", path)
            return None, f"NetworkManager's reply is malformed: {error}"
        self._faults.clear("applied connection", path)
        return profile, ""


def to_profile(settings: Any) -> Profile:
    """A profile from ``a{sa{sv}}``, unpacked; raises :class:`Malformed` with what is wrong."""
    if not isinstance(settings, dict) or not all(isinstance(setting, dict) for setting in settings.values()):
        raise Malformed("it is not a connection")
    connection = settings.get("connection", {})
    ipv4, ipv6 = settings.get("ipv4", {}), settings.get("ipv6", {})
    return Profile(
        id=required(connection, "id", str),
        uuid=required(connection, "uuid", str),
        type=required(connection, "type", str),
        mptcp_flags=ProfileFlag(optional(connection, "mptcp-flags", int, 0)),
        ipv4_route_table=optional(ipv4, "route-table", int, 0),
        ipv6_route_table=optional(ipv6, "route-table", int, 0),
        ipv4_never_default=optional(ipv4, "never-default", bool, False),
        ipv6_never_default=optional(ipv6, "never-default", bool, False),
        ipv4_method=optional(ipv4, "method", str, "disabled"),
        ipv6_method=optional(ipv6, "method", str, "disabled"),
    )
