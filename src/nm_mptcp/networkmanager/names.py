# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager's names on the bus, and the signals that we ask for: only those that a path depends on."""

from __future__ import annotations

SERVICE = "org.freedesktop.NetworkManager"
PATH = "/org/freedesktop/NetworkManager"
DEVICES = PATH + "/Devices/"
ACTIVE_CONNECTIONS = PATH + "/ActiveConnection/"

MANAGER = SERVICE
DEVICE = SERVICE + ".Device"
MODEM = DEVICE + ".Modem"
GENERIC = DEVICE + ".Generic"
WIRELESS = DEVICE + ".Wireless"
ACCESS_POINT = SERVICE + ".AccessPoint"
ACTIVE_CONNECTION = SERVICE + ".Connection.Active"

DHCP4 = SERVICE + ".DHCP4Config"
DHCP6 = SERVICE + ".DHCP6Config"

PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
OBJECT_MANAGER_PATH = "/org/freedesktop"

BUS = "org.freedesktop.DBus"

#: ``NMActivationStateFlags``: brought up by somebody else, NetworkManager only shows it.
STATE_FLAG_EXTERNAL = 0x80

#: ``GetAppliedConnection`` answers this while a device has none yet, or none any more.
NOT_ACTIVE = DEVICE + ".NotActive"

#: What an object path property holds for "none".
NO_OBJECT = "/"

#: Match rules. ``sender`` keeps others from speaking in NetworkManager's name, ``arg0`` and ``arg0path`` keep the bus from
#: waking us for address lists, access points and statistics. The DHCP options themselves are not read: that they change is
#: the only hint of a reapply.
MATCH_RULES: tuple[str, ...] = (
    f"type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{SERVICE}'",
    *(
        f"type='signal',sender='{SERVICE}',interface='{PROPERTIES}',member='PropertiesChanged',arg0='{interface}'"
        for interface in (MANAGER, DEVICE, MODEM, GENERIC, WIRELESS, ACTIVE_CONNECTION, DHCP4, DHCP6)
    ),
    *(
        f"type='signal',sender='{SERVICE}',interface='{OBJECT_MANAGER}',path='{OBJECT_MANAGER_PATH}',arg0path='{path}'"
        for path in (PATH, DEVICES, ACTIVE_CONNECTIONS)
    ),
)

#: ``NMDeviceType`` -> what ``match-device=type:`` calls it (``nm_device_get_type_description``). A modem is "gsm" or "cdma"
#: by its capabilities, a generic device what the kernel calls it; both are told by the device itself.
TYPE_NAMES: dict[int, str] = {
    1: "ethernet",
    2: "wifi",
    5: "bt",
    6: "olpc-mesh",
    7: "wimax",
    8: "modem",
    9: "infiniband",
    10: "bond",
    11: "vlan",
    12: "adsl",
    13: "bridge",
    14: "generic",
    15: "team",
    16: "tun",
    17: "iptunnel",
    18: "macvlan",
    19: "vxlan",
    20: "ethernet",
    21: "macsec",
    22: "dummy",
    23: "ppp",
    24: "ovs-interface",
    25: "ovs-port",
    26: "ovs-bridge",
    27: "wpan",
    28: "6lowpan",
    29: "wireguard",
    30: "wifi-p2p",
    31: "vrf",
    32: "loopback",
    33: "hsr",
    34: "ipvlan",
    35: "geneve",
}

#: ``NMDeviceType``
TYPE_MODEM = 8

#: ``NMDeviceModemCapabilities``
MODEM_CDMA = 0x2
MODEM_GSM = 0x4
