# SPDX-License-Identifier: GPL-2.0-or-later
"""Kinds of device: which are uplinks, and which of those cost money or power.

The kind comes from NetworkManager (``NMDeviceType``, the profile's type, and for a generic device ``IFLA_INFO_KIND``), never
from the interface's name. A kind that may be an uplink is one only where NetworkManager gives it a default route: a bridge of
containers or of virtual machines has none, is shared, or is not managed (docker0, virbr0). The ports of a bridge, bond or
team have no addresses.
"""

from __future__ import annotations

from dataclasses import dataclass

from .state import Device, DeviceType, Metered


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """What policy knows of a kind of device."""

    name: str
    uplink: bool = True  #: a path by default; tunnels are not
    backup: bool = False  #: used only when no other path works


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

#: Types of profile that decide the kind, whatever the device.
_OF_PROFILE: dict[str, DeviceKind] = {
    "vpn": DeviceKind("vpn", uplink=False),
    "gsm": _CELLULAR,
    "cdma": _CELLULAR,
}

#: ``IFLA_INFO_KIND`` of links that encapsulate packets and send them by another link; for those that NetworkManager has no
#: type for it is also ``Device.Generic.TypeDescription``. A dummy is one as well: a default route to it is a kill switch.
#: PPP is not: see :data:`PPP`.
TUNNEL_LINKS = (
    frozenset({"tun", "wireguard", "amneziawg", "ovpn", "ovpn-dco", "xfrm", "vti", "vti6", "vxlan", "geneve", "dummy"})
    | {"ipip", "ip6tnl", "sit", "gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan"}
    | {"gtp", "bareudp", "amt", "l2tpeth", "l2tp_eth"}
)

#: ``IFLA_INFO_KIND`` of links that are an uplink (PPPoE, a modem) or a tunnel (L2TP, PPTP): the kernel does not say which.
PPP = "ppp"

_METERED = (Metered.YES, Metered.GUESS_YES)

#: What the profile says; NetworkManager guesses the others.
_CERTAIN = (Metered.YES, Metered.NO)


def kind_of(device: Device) -> DeviceKind:
    """The kind of a device; a VPN profile's is "vpn" on any device."""
    if device.profile and (kind := _OF_PROFILE.get(device.profile.type)):
        return kind
    kind = _KINDS.get(device.type, _UNKNOWN)
    return _TUNNEL if kind is _GENERIC and device.type_name in TUNNEL_LINKS else kind


def is_uplink(device: Device) -> bool:
    """Whether NetworkManager itself configures this device as an uplink. Of a generic device it knows nothing."""
    kind = kind_of(device)
    return device.managed and not device.external and kind.uplink and kind.name != "generic"


def is_metered(device: Device, assumed: bool | None = None) -> bool:
    """Whether this device's traffic is paid for by volume: as the profile says, else ``assumed``, else as it is guessed.

    NetworkManager guesses yes for cellular and Bluetooth links, and where a lease has Android's ``ANDROID_METERED``
    (``nm_device_update_metered``); not for an iPhone on USB.
    """
    if assumed is not None and device.metered not in _CERTAIN:
        return assumed
    return device.metered in _METERED
