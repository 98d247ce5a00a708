# SPDX-License-Identifier: GPL-2.0-or-later
"""A ModemManager for the bed: as much of its D-Bus interface as NetworkManager asks, with a veth as the modem's data port.

What NetworkManager asks for is in its ``nm-modem-manager.c`` and ``nm-modem-broadband.c`` (by way of libmm-glib): the object
manager, ``Modem`` with a primary port and a SIM, ``Modem.Simple`` to connect, and a bearer with its addresses. So a real
NetworkManager brings up a real ``gsm`` profile; nothing but the radio is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import importlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nm_mptcp.dbus.connection import LIBRARY, Message, MessageType, NameFlag, RequestNameReply, Variant

from ..support.waits import wait_for

if TYPE_CHECKING:
    from .bed import Bed
    from .uplinks import Uplink

_aio = importlib.import_module(f"{LIBRARY}.aio")

SERVICE = "org.freedesktop.ModemManager1"
ROOT = "/org/freedesktop/ModemManager1"
MODEM, SIM, BEARER = f"{ROOT}/Modem/0", f"{ROOT}/SIM/0", f"{ROOT}/Bearer/0"

PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

PORT_NET, PORT_MBIM = 2, 7  # MMModemPortType
CAPABILITY_LTE = 0x8  # MMModemCapability
IP_FAMILY_IPV4 = 0x1  # MMBearerIpFamily
IP_METHOD_STATIC = 2  # MMBearerIpMethod
LOCK_NONE = 1  # MMModemLock
POWER_ON = 3  # MMModemPowerState


class State(enum.IntEnum):
    """``MMModemState``, those that are used here."""

    DISABLED = 3
    REGISTERED = 8
    CONNECTED = 11


class Registration(enum.IntEnum):
    """``MMModem3gppRegistrationState``, those that are used here."""

    HOME = 1
    SEARCHING = 2
    ROAMING = 5
    ROAMING_SMS_ONLY = 7


class ModemManager:
    """It runs in a thread of the test, on the bed's bus, and has one modem whose data port is ``uplink``."""

    def __init__(self, bed: Bed, uplink: Uplink, *, control: str = "cdc-wdm0", registration: Any = 1) -> None:
        self.bed = bed
        self.uplink = uplink
        self.connects = 0  #: how often NetworkManager asked for a connection
        self._registration = registration
        self._control = control
        self._loop = asyncio.new_event_loop()
        self._bus: Any = None
        self._objects: dict[str, dict[str, dict[str, Any]]] = self._all_objects()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="ModemManager")
        self._thread.start()
        bed.at_end(self.close)
        self.start()

    # --- what a test does with it

    def start(self) -> None:
        """Come onto the bus."""
        self._run(self._start())

    def stop(self) -> None:
        """Leave the bus, as when ModemManager ends."""
        if self._bus is not None:
            self._run(self._stop())

    def close(self) -> None:
        """End all of it."""
        if self._loop.is_running():
            with contextlib.suppress(Exception):
                self.stop()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)

    def register(self, state: Any, signature: str = "u") -> None:
        """The network that the modem is in: home, abroad, or (with another ``signature``) nonsense."""
        self._registration = state
        self._change(MODEM, f"{SERVICE}.Modem.Modem3gpp", RegistrationState=Variant(signature, state))

    def unplug(self) -> None:
        """The modem goes."""
        interfaces = list(self._objects.pop(MODEM))
        self._signal(ROOT, OBJECT_MANAGER, "InterfacesRemoved", "oas", [MODEM, interfaces])

    def plug_in(self) -> None:
        """The modem comes (back)."""
        self._objects = self._all_objects()
        self._signal(ROOT, OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", [MODEM, self._objects[MODEM]])

    # --- the objects

    def _all_objects(self) -> dict[str, dict[str, dict[str, Any]]]:
        network = self.uplink.network
        text, number, flag, path = (lambda value, kind=kind: Variant(kind, value) for kind in "subo")
        return {
            ROOT: {SERVICE: {"Version": text("1.20.4")}},
            MODEM: {
                f"{SERVICE}.Modem": {
                    "Sim": path(SIM),
                    "SimSlots": Variant("ao", [SIM]),
                    "PrimarySimSlot": number(1),
                    "Bearers": Variant("ao", []),
                    "SupportedCapabilities": Variant("au", [CAPABILITY_LTE]),
                    "CurrentCapabilities": number(CAPABILITY_LTE),
                    "MaxBearers": number(1),
                    "MaxActiveBearers": number(1),
                    "Manufacturer": text("bed"),
                    "Model": text("bed"),
                    "Revision": text("1"),
                    "DeviceIdentifier": text("bed-modem"),
                    "Device": text("/sys/devices/bed"),
                    "Drivers": Variant("as", ["cdc_mbim"]),
                    "Plugin": text("generic"),
                    "PrimaryPort": text(self._control),
                    "Ports": Variant("a(su)", [[self._control, PORT_MBIM], [self.uplink.name, PORT_NET]]),
                    "EquipmentIdentifier": text("000000000000000"),
                    "UnlockRequired": number(LOCK_NONE),
                    "UnlockRetries": Variant("a{uu}", {}),
                    "State": Variant("i", State.REGISTERED),
                    "StateFailedReason": number(0),
                    "AccessTechnologies": number(1 << 14),
                    "SignalQuality": Variant("(ub)", [70, True]),
                    "OwnNumbers": Variant("as", []),
                    "PowerState": number(POWER_ON),
                    "SupportedModes": Variant("a(uu)", []),
                    "CurrentModes": Variant("(uu)", [0, 0]),
                    "SupportedBands": Variant("au", []),
                    "CurrentBands": Variant("au", []),
                    "SupportedIpFamilies": number(IP_FAMILY_IPV4),
                },
                f"{SERVICE}.Modem.Simple": {},
                f"{SERVICE}.Modem.Modem3gpp": {
                    "Imei": text("000000000000000"),
                    "RegistrationState": number(self._registration),
                    "OperatorCode": text("00101"),
                    "OperatorName": text("Test Network"),
                    "EnabledFacilityLocks": number(0),
                    "SubscriptionState": number(0),
                },
            },
            SIM: {
                f"{SERVICE}.Sim": {
                    "Active": flag(True),
                    "SimIdentifier": text("0000000000000000000"),
                    "Imsi": text("001010000000000"),
                    "Eid": text(""),
                    "OperatorIdentifier": text("00101"),
                    "OperatorName": text("Test Network"),
                    "EmergencyNumbers": Variant("as", []),
                }
            },
            BEARER: {
                f"{SERVICE}.Bearer": {
                    "Interface": text(self.uplink.name),
                    "Connected": flag(True),
                    "Suspended": flag(False),
                    "Ip4Config": Variant(
                        "a{sv}",
                        {
                            "method": number(IP_METHOD_STATIC),
                            "address": text(self.uplink.address),
                            "prefix": number(24),
                            "gateway": text(network.gateway),
                            "mtu": number(1400),
                        },
                    ),
                    "Ip6Config": Variant("a{sv}", {"method": number(0)}),
                    "Stats": Variant("a{sv}", {}),
                    "IpTimeout": number(20),
                    "BearerType": number(1),
                    "Properties": Variant("a{sv}", {}),
                }
            },
        }

    # --- the bus

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        socket = self.bed.path("/run/dbus/system_bus_socket")
        self._bus = await _aio.MessageBus(bus_address=f"unix:path={socket}").connect()
        self._bus.add_message_handler(self._handle)
        got = await self._bus.request_name(SERVICE, NameFlag.DO_NOT_QUEUE)
        assert got is RequestNameReply.PRIMARY_OWNER, got

    async def _stop(self) -> None:
        bus, self._bus = self._bus, None
        bus.disconnect()
        await asyncio.sleep(0)

    def _signal(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        message = Message.new_signal(path, interface, member, signature, body)
        self._loop.call_soon_threadsafe(lambda: self._bus is not None and self._bus.send(message))

    def _change(self, path: str, interface: str, **properties: Any) -> None:
        if path in self._objects:
            self._objects[path][interface].update(properties)
            self._signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", [interface, properties, []])

    def _handle(self, message: Any) -> bool | None:
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        answers: dict[str, Callable[[Any], tuple[str, list[Any]]]] = {
            f"{OBJECT_MANAGER}.GetManagedObjects": self._managed_objects,
            f"{PROPERTIES}.GetAll": self._get_all,
            f"{PROPERTIES}.Get": self._get,
            f"{SERVICE}.Modem.Enable": self._enable,
            f"{SERVICE}.Modem.SetPowerState": lambda _: ("", []),
            f"{SERVICE}.Modem.Simple.Connect": self._connect,
            f"{SERVICE}.Modem.Simple.Disconnect": self._disconnect,
            "org.freedesktop.DBus.Peer.Ping": lambda _: ("", []),
        }
        answer = answers.get(f"{message.interface}.{message.member}")
        try:
            if answer is None:
                raise KeyError(message.member)
            signature, body = answer(message)
            reply = Message.new_method_return(message, signature, body)
        except KeyError as error:
            reply = Message.new_error(message, "org.freedesktop.DBus.Error.UnknownMethod", f"no {error}")
        self._bus.send(reply)
        return True

    def _managed_objects(self, _: Any) -> tuple[str, list[Any]]:
        # Only modems are told there; SIM and bearer are objects that one has to know of.
        return "a{oa{sa{sv}}}", [{path: body for path, body in self._objects.items() if path == MODEM}]

    def _get_all(self, message: Any) -> tuple[str, list[Any]]:
        return "a{sv}", [self._objects[message.path][message.body[0]]]

    def _get(self, message: Any) -> tuple[str, list[Any]]:
        return "v", [self._objects[message.path][message.body[0]][message.body[1]]]

    def _move(self, state: State) -> None:
        interface = f"{SERVICE}.Modem"
        before = self._objects[MODEM][interface]["State"].value
        self._change(MODEM, interface, State=Variant("i", state))
        self._signal(MODEM, interface, "StateChanged", "iiu", [before, state, 0])

    def _enable(self, message: Any) -> tuple[str, list[Any]]:
        self._move(State.REGISTERED if message.body[0] else State.DISABLED)
        return "", []

    def _connect(self, _: Any) -> tuple[str, list[Any]]:
        self.connects += 1
        self._move(State.CONNECTED)
        return "o", [BEARER]

    def _disconnect(self, _: Any) -> tuple[str, list[Any]]:
        self._move(State.REGISTERED)
        return "", []


def plug_in_modem(bed: Bed, name: str = "wwan0", subnet: str = "10.2.0.0/24", **options: Any) -> ModemManager:
    """A modem with its own network beyond it; returns when NetworkManager has a device for it."""
    network = bed.network(name, subnet)
    uplink = bed.uplink(name, network)
    made = ModemManager(bed, uplink, **options)
    wait_for(
        "NetworkManager has the modem",
        lambda: "cdc-wdm0:gsm:disconnected" in bed.nmcli("-t", "-f", "DEVICE,TYPE,STATE", "device"),
    )
    return made


def mobile_profile(bed: Bed, name: str, *settings: str) -> None:
    """A profile of type gsm for that modem."""
    words = [word for setting in ("ipv4.route-metric 700", *settings) for word in setting.split(" ", 1)]
    bed.nmcli("connection", "add", "type", "gsm", "ifname", "cdc-wdm0", "apn", "internet", "con-name", name,
              "connection.autoconnect", "no", *words)  # fmt: skip
