# SPDX-License-Identifier: GPL-2.0-or-later
"""A NetworkManager with one Wi-Fi device and its access points, on a bus: no machine of the tests has a radio."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from nm_mptcp.dbus.connection import LIBRARY, Message, MessageType, NameFlag, RequestNameReply, Variant
from nm_mptcp.networkmanager import names

_aio = importlib.import_module(f"{LIBRARY}.aio")

DEVICE = names.DEVICES + "2"
ACTIVE = names.ACTIVE_CONNECTIONS + "1"


def access_point(number: int) -> str:
    """Its object path."""
    return f"{names.PATH}/AccessPoint/{number}"


class Wireless:
    """It answers what the client asks, and tells what the test makes of it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._bus: Any = None
        self.asked: list[str] = []  #: the strengths that were asked for, by path
        self.strengths: dict[str, Any] = {}  #: of each access point: a percentage, or any Variant
        self.properties: dict[str, dict[str, Any]] = {
            names.DEVICE: {
                "Interface": Variant("s", "wlan0"),
                "DeviceType": Variant("u", 2),
                "State": Variant("u", 100),
                "Managed": Variant("b", True),
                "ActiveConnection": Variant("o", ACTIVE),
            },
            names.WIRELESS: {"ActiveAccessPoint": Variant("o", access_point(1)), "Bitrate": Variant("u", 54000)},
        }

    async def start(self) -> None:
        """Come onto the bus."""
        self._bus = await _aio.MessageBus(bus_address=self._address).connect()
        self._bus.add_message_handler(self._handle)
        got = await self._bus.request_name(names.SERVICE, NameFlag.DO_NOT_QUEUE)
        assert got is RequestNameReply.PRIMARY_OWNER, got

    async def stop(self) -> None:
        """Leave it."""
        self._bus.disconnect()
        await asyncio.sleep(0)

    def tells(self, path: str, interface: str, **changed: Any) -> None:
        """``PropertiesChanged``."""
        self._bus.send(
            Message.new_signal(path, names.PROPERTIES, "PropertiesChanged", "sa{sv}as", [interface, changed, []])
        )

    def strength(self, number: int, value: Any, *, told: bool = True) -> None:
        """An access point's strength from now on."""
        path = access_point(number)
        self.strengths[path] = value if isinstance(value, Variant) else Variant("y", value)
        if told:
            self.tells(path, names.ACCESS_POINT, Strength=self.strengths[path], LastSeen=Variant("i", 7))

    def roam(self, number: int) -> None:
        """Be connected to another access point; 0: to none."""
        path = Variant("o", access_point(number) if number else "/")
        self.properties[names.WIRELESS]["ActiveAccessPoint"] = path
        self.tells(DEVICE, names.WIRELESS, ActiveAccessPoint=path)

    def _handle(self, message: Any) -> bool | None:
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        if message.member == "GetManagedObjects":
            tree = {
                names.PATH: {names.MANAGER: {"Version": Variant("s", "1.52.0"), "Startup": Variant("b", False)}},
                ACTIVE: {names.ACTIVE_CONNECTION: {"StateFlags": Variant("u", 0)}},
                DEVICE: self.properties,
            }
            reply = Message.new_method_return(message, "a{oa{sa{sv}}}", [tree])
        elif message.member == "GetAppliedConnection":
            connection = {"id": "Wi-Fi", "uuid": "u", "type": "802-11-wireless"}
            profile = {"connection": {key: Variant("s", value) for key, value in connection.items()}}
            reply = Message.new_method_return(message, "a{sa{sv}}t", [profile, 1])
        elif message.member == "Get" and message.body[1] == "Strength":
            self.asked.append(message.path)
            if message.path in self.strengths:
                reply = Message.new_method_return(message, "v", [self.strengths[message.path]])
            else:
                reply = Message.new_error(message, "org.freedesktop.DBus.Error.UnknownMethod", "no such object")
        else:
            reply = Message.new_error(message, "org.freedesktop.DBus.Error.UnknownMethod", message.member)
        self._bus.send(reply)
        return True
