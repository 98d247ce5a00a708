# SPDX-License-Identifier: GPL-2.0-or-later
"""Kinds of device: which are uplinks, and which of those cost money or power.

The kind follows from what NetworkManager reports (``NMDeviceType``, the profile's type, and for a generic device
``IFLA_INFO_KIND``), never from the interface's name. An uplink kind is a path only if NetworkManager gives it a default
route: a bridge of containers or of virtual machines has none, is shared, or is not managed (docker0, virbr0). The ports of a
bridge, bond or team have no addresses.
"""

from __future__ import annotations

from dataclasses import dataclass

from .state import Device, DeviceType, Metered


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """A kind of device, and how policy treats it by default."""

    name: str
    uplink: bool = True  #: its addresses are paths by default; those of tunnels are not
    backup: bool = False  #: its endpoints have the backup flag by default


_UNKNOWN = DeviceKind("unknown", uplink=False)
_GENERIC = DeviceKind("generic")
_TUNNEL = DeviceKind("tunnel", uplink=False)
_CELLULAR = DeviceKind("cellular", backup=True)

_KINDS: dict[DeviceType, DeviceKind] = {
    DeviceType.ETHERNET: DeviceKind("ethernet"),  # USB adapters and tethered phones as well; PPPoE before 1.10
    DeviceType.WIFI: DeviceKind("wifi"),
    DeviceType.BLUETOOTH: DeviceKind("bluetooth", backup=True),  # PAN, and DUN with a modem behind it
    DeviceType.OLPC_MESH: DeviceKind("olpc-mesh", uplink=False),
    DeviceType.WIMAX: DeviceKind("wimax", backup=True),
    DeviceType.MODEM: _CELLULAR,
    DeviceType.INFINIBAND: DeviceKind("infiniband"),
    DeviceType.BOND: DeviceKind("bond"),
    DeviceType.VLAN: DeviceKind("vlan"),
    DeviceType.ADSL: DeviceKind("adsl"),
    DeviceType.BRIDGE: DeviceKind("bridge"),
    DeviceType.GENERIC: _GENERIC,
    DeviceType.TEAM: DeviceKind("team"),
    DeviceType.TUN: DeviceKind("tun", uplink=False),  # and tap
    DeviceType.IP_TUNNEL: DeviceKind("ip-tunnel", uplink=False),
    DeviceType.MACVLAN: DeviceKind("macvlan"),
    DeviceType.VXLAN: DeviceKind("vxlan", uplink=False),
    DeviceType.VETH: DeviceKind("veth"),
    DeviceType.MACSEC: DeviceKind("macsec"),
    DeviceType.DUMMY: DeviceKind("dummy", uplink=False),
    DeviceType.PPP: DeviceKind("ppp"),  # PPPoE
    DeviceType.OVS_INTERFACE: DeviceKind("ovs-interface"),
    DeviceType.OVS_PORT: DeviceKind("ovs-port", uplink=False),
    DeviceType.OVS_BRIDGE: DeviceKind("ovs-bridge", uplink=False),
    DeviceType.WPAN: DeviceKind("wpan", uplink=False),
    DeviceType.SIXLOWPAN: DeviceKind("6lowpan", uplink=False),
    DeviceType.WIREGUARD: DeviceKind("wireguard", uplink=False),
    DeviceType.WIFI_P2P: DeviceKind("wifi-p2p", uplink=False),
    DeviceType.VRF: DeviceKind("vrf", uplink=False),
    DeviceType.LOOPBACK: DeviceKind("loopback", uplink=False),
    DeviceType.HSR: DeviceKind("hsr"),
    DeviceType.IPVLAN: DeviceKind("ipvlan"),
    DeviceType.GENEVE: DeviceKind("geneve", uplink=False),
}

#: ``connection.type`` of profiles that determine the kind, whatever the device.
_OF_PROFILE: dict[str, DeviceKind] = {
    "vpn": DeviceKind("vpn", uplink=False),
    "gsm": _CELLULAR,
    "cdma": _CELLULAR,
}

#: ``IFLA_INFO_KIND`` of links that encapsulate packets and send them by another link. NetworkManager's generic devices have
#: it as ``Device.Generic.TypeDescription``. A dummy is included, since a default route to it is a kill switch; PPP is not,
#: see :data:`PPP`.
TUNNEL_LINKS = (
    frozenset({"tun", "wireguard", "amneziawg", "ovpn", "ovpn-dco", "xfrm", "vti", "vti6", "vxlan", "geneve", "dummy"})
    | {"ipip", "ip6tnl", "sit", "gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan"}
    | {"gtp", "bareudp", "amt", "l2tpeth", "l2tp_eth"}
)

#: Of these the kinds that networks of containers are made of, and dummies: a program does not choose them to hide anything.
OVERLAYS = frozenset({"vxlan", "geneve", "dummy", "bareudp", "gretap", "ip6gretap", "erspan", "ip6erspan", "gtp"})

#: ``IFLA_INFO_KIND`` of links that are either an uplink (PPPoE, a modem) or a tunnel (L2TP, PPTP): the kernel does not
#: distinguish them.
PPP = "ppp"

_METERED = (Metered.YES, Metered.GUESS_YES)

#: The values that a profile sets; NetworkManager guesses the others.
_CERTAIN = (Metered.YES, Metered.NO)


def kind_of(device: Device) -> DeviceKind:
    """The kind of a device; "vpn" on any device with a VPN profile."""
    if device.profile and (kind := _OF_PROFILE.get(device.profile.type)):
        return kind
    kind = _KINDS.get(device.type, _UNKNOWN)
    return _TUNNEL if kind is _GENERIC and device.type_name in TUNNEL_LINKS else kind


def is_uplink(device: Device) -> bool:
    """Whether NetworkManager itself configures this device as an uplink; never a generic device, which may be anything."""
    kind = kind_of(device)
    return device.managed and not device.external and kind.uplink and kind.name != "generic"


def is_metered(device: Device, assumed: bool | None = None) -> bool:
    """Whether this device is metered: by its profile, else by ``assumed``, else by NetworkManager's guess.

    NetworkManager guesses yes for cellular and Bluetooth links, and for a lease with Android's ``ANDROID_METERED``
    (``nm_device_update_metered``); not for an iPhone on USB.
    """
    if assumed is not None and device.metered not in _CERTAIN:
        return assumed
    return device.metered in _METERED
