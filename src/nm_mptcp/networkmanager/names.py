# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager's names on the bus, and the match rules for the signals that a path depends on."""

from __future__ import annotations

from ..model.state import DeviceType

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

#: ``NMActivationStateFlags``: configured outside of NetworkManager, which only shows it.
STATE_FLAG_EXTERNAL = 0x80

#: Error of ``GetAppliedConnection`` while a device has none yet, or none any more.
NOT_ACTIVE = DEVICE + ".NotActive"

#: The value of an object path property for "none".
NO_OBJECT = "/"

#: Match rules. ``sender`` keeps out what others send in NetworkManager's name; ``arg0`` and ``arg0path`` keep the bus from
#: waking the service for address lists, access points and statistics. The DHCP options are not read: that they change is the
#: only hint of a reapply.
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

#: What ``match-device=type:`` calls it (``nm_device_get_type_description``). A modem is "gsm" or "cdma"
#: by its capabilities, a generic device its ``TypeDescription``.
TYPE_NAMES: dict[DeviceType, str] = {
    DeviceType.ETHERNET: "ethernet",
    DeviceType.WIFI: "wifi",
    DeviceType.BLUETOOTH: "bt",
    DeviceType.OLPC_MESH: "olpc-mesh",
    DeviceType.WIMAX: "wimax",
    DeviceType.MODEM: "modem",
    DeviceType.INFINIBAND: "infiniband",
    DeviceType.BOND: "bond",
    DeviceType.VLAN: "vlan",
    DeviceType.ADSL: "adsl",
    DeviceType.BRIDGE: "bridge",
    DeviceType.GENERIC: "generic",
    DeviceType.TEAM: "team",
    DeviceType.TUN: "tun",
    DeviceType.IP_TUNNEL: "iptunnel",
    DeviceType.MACVLAN: "macvlan",
    DeviceType.VXLAN: "vxlan",
    DeviceType.VETH: "ethernet",
    DeviceType.MACSEC: "macsec",
    DeviceType.DUMMY: "dummy",
    DeviceType.PPP: "ppp",
    DeviceType.OVS_INTERFACE: "ovs-interface",
    DeviceType.OVS_PORT: "ovs-port",
    DeviceType.OVS_BRIDGE: "ovs-bridge",
    DeviceType.WPAN: "wpan",
    DeviceType.SIXLOWPAN: "6lowpan",
    DeviceType.WIREGUARD: "wireguard",
    DeviceType.WIFI_P2P: "wifi-p2p",
    DeviceType.VRF: "vrf",
    DeviceType.LOOPBACK: "loopback",
    DeviceType.HSR: "hsr",
    DeviceType.IPVLAN: "ipvlan",
    DeviceType.GENEVE: "geneve",
}

#: ``NMDeviceModemCapabilities``
MODEM_CDMA = 0x2
MODEM_GSM = 0x4
