# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager's objects as its replies and signals describe them: the properties that paths depend on, and no others.

No I/O: :class:`~nm_mptcp.networkmanager.client.Client` feeds it, and does what each :class:`Effect` asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..dbus.connection import Signal, unpack
from ..model.state import DeviceType
from . import names
from .typed_values import get

_DEVICE_PROPERTIES = frozenset(
    (
        "ActiveAccessPoint",  # .Wireless
        "ActiveConnection",
        "CurrentCapabilities",  # .Modem
        "DeviceType",
        "Driver",
        "DriverVersion",
        "Interface",
        "Ip4Connectivity",
        "Ip6Connectivity",
        "IpInterface",
        "Managed",
        "Metered",
        "PermHwAddress",  # .Wired, .Wireless
        "State",
        "TypeDescription",  # .Generic
        "Udi",
    )
)
_ACTIVE_PROPERTIES = frozenset(("StateFlags", "Vpn"))
_MANAGER_PROPERTIES = frozenset(("ConnectivityCheckAvailable", "ConnectivityCheckEnabled", "Startup", "Version"))


@dataclass(slots=True, eq=False)
class DeviceObject:
    """A device: the properties of all its interfaces."""

    properties: dict[str, Any] = field(default_factory=dict)
    removed: bool = False  #: its object is gone, though it was active: NetworkManager is stopping

    @property
    def active(self) -> str:
        """Its active connection's object path, "" when there is none."""
        path = get(self.properties, "ActiveConnection", str, "")
        return "" if path == names.NO_OBJECT else path

    @property
    def access_point(self) -> str:
        """The object path of the access point that it is connected to, "" when there is none."""
        path = get(self.properties, "ActiveAccessPoint", str, "")
        return "" if path == names.NO_OBJECT or not self.active else path

    @property
    def state(self) -> int:
        """``NMDeviceState``, 0 where it is missing."""
        return get(self.properties, "State", int, 0)

    @property
    def type(self) -> DeviceType:
        """Its type, UNKNOWN where that is missing."""
        return DeviceType(get(self.properties, "DeviceType", int, 0))


@dataclass(frozen=True, slots=True)
class Effect:
    """What a signal changed, by object paths of devices."""

    changed: tuple[str, ...] = ()  #: something of these
    activations: tuple[str, ...] = ()  #: their activation or state may be another
    removed: tuple[str, ...] = ()  #: these are gone
    lease: bool = False  #: a DHCP lease was renewed, the only hint of a reapply; nothing else changed


class ObjectTree:
    """The objects. Raises TypeError, ValueError or AttributeError for what is not of the documented form."""

    def __init__(self) -> None:
        self.manager: dict[str, Any] = {}  #: the properties of NetworkManager's own object; empty: it is not there yet
        self.devices: dict[str, DeviceObject] = {}
        self.active: dict[str, dict[str, Any]] = {}  #: active connections, by object path

    @property
    def version(self) -> str:
        """NetworkManager's version, "" where it does not say."""
        return get(self.manager, "Version", str, "")

    @property
    def checks_connectivity(self) -> bool:
        """Whether the connectivity properties are a check's result.

        Where nothing is checked they only say which device has NetworkManager's default route.
        """
        return all(
            get(self.manager, switch, bool, True)
            for switch in ("ConnectivityCheckAvailable", "ConnectivityCheckEnabled")
        )

    def add(self, path: str, interfaces: Mapping[str, Mapping[str, Any]]) -> None:
        """An object, or further interfaces of one."""
        for interface, properties in interfaces.items():
            if interface == names.MANAGER and path == names.PATH:
                _update(self.manager, properties, _MANAGER_PROPERTIES)
            elif interface == names.ACTIVE_CONNECTION:
                _update(self.active.setdefault(path, {}), properties, _ACTIVE_PROPERTIES)
            elif interface == names.DEVICE or interface.startswith(names.DEVICE + "."):
                _update(self.devices.setdefault(path, DeviceObject()).properties, properties, _DEVICE_PROPERTIES)

    def handle(self, signal: Signal) -> Effect | None:
        """Take in a signal; None when it changes nothing that paths depend on."""
        match signal.interface, signal.member:
            case names.PROPERTIES, "PropertiesChanged":
                interface, changed, _ = signal.body
                return self._properties_changed(signal.path, interface, changed)
            case names.OBJECT_MANAGER, "InterfacesAdded":
                return self._interfaces_added(*signal.body)
            case names.OBJECT_MANAGER, "InterfacesRemoved":
                return self._interfaces_removed(*signal.body)
        return None

    def _properties_changed(self, path: str, interface: str, changed: Mapping[str, Any]) -> Effect | None:
        if interface == names.MANAGER:
            return Effect(tuple(self.devices)) if _update(self.manager, changed, _MANAGER_PROPERTIES) else None
        if interface == names.ACTIVE_CONNECTION:
            known = self.active.get(path)
            changes = known is not None and _update(known, changed, _ACTIVE_PROPERTIES)
            return Effect(self._using(path)) if changes else None
        if interface in (names.DHCP4, names.DHCP6):
            return Effect(lease=True)
        device = self.devices.get(path)
        if device is not None and _update(device.properties, changed, _DEVICE_PROPERTIES):
            return Effect((path,), activations=(path,))
        return None

    def _interfaces_added(self, path: str, interfaces: Mapping[str, Mapping[str, Any]]) -> Effect:
        self.add(path, interfaces)
        if (device := self.devices.get(path)) is None:
            return Effect(self._using(path) if path in self.active else ())
        device.removed = False
        interface = device.properties.get("Interface")
        # NetworkManager did not stop after all: this device is in the place of one whose object went before.
        replaced = tuple(
            other
            for other, known in self.devices.items()
            if known.removed and known.properties.get("Interface") == interface
        )
        for other in replaced:
            del self.devices[other]
        return Effect((path,), activations=(path,), removed=replaced)

    def _interfaces_removed(self, path: str, interfaces: Sequence[str]) -> Effect | None:
        effect = None
        device = self.devices.get(path)
        if names.DEVICE in interfaces and device is not None:
            # Whatever really goes is deactivated first. A NetworkManager that stops takes its objects off the bus as they
            # are, some 20 ms before it leaves itself, and the network goes on without it.
            device.removed = bool(device.active)
            if not device.removed:
                del self.devices[path]
            effect = Effect(removed=() if device.removed else (path,))
        if names.ACTIVE_CONNECTION in interfaces and not self._using(path):
            self.active.pop(path, None)
            effect = effect or Effect()  # a VPN's belongs to no device
        return effect

    def _using(self, active: str) -> tuple[str, ...]:
        """The devices whose active connection this is."""
        return tuple(path for path, device in self.devices.items() if device.active == active)


def _update(known: dict[str, Any], changed: Mapping[str, Any], wanted: frozenset[str]) -> bool:
    """Take over the properties that are wanted; whether there were any."""
    new = {key: unpack(value) for key, value in changed.items() if key in wanted}
    known.update(new)
    return bool(new)
