# SPDX-License-Identifier: GPL-2.0-or-later
"""Kinds of device: which are uplinks, and which of those cost money or power.

What NetworkManager says counts (``NMDeviceType``, the profile's type, and for a generic device what the kernel calls it),
never the interface's name. A kind that may be an uplink is one only where NetworkManager gives it a default route: a bridge
of containers or of virtual machines has none, is shared, or is not NetworkManager's at all (docker0, virbr0). The ports of
a bridge, bond or team have no addresses.
"""

from __future__ import annotations

from dataclasses import dataclass

from .state import Device


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """A kind of device as policy sees it."""

    name: str
    uplink: bool = True  #: a path by itself; tunnels are not
    backup: bool = False  #: carries only when nothing else can


_UNKNOWN = DeviceKind("unknown", uplink=False)
_GENERIC = DeviceKind("generic")
_TUNNEL = DeviceKind("tunnel", uplink=False)
_CELLULAR = DeviceKind("cellular", backup=True)

#: NMDeviceType -> kind (NetworkManager: ``nm-dbus-interface.h``).
_KINDS: dict[int, DeviceKind] = {
    1: DeviceKind("ethernet"),  # USB adapters and phones that share their connection by USB as well; PPPoE before 1.10
    2: DeviceKind("wifi"),
    5: DeviceKind("bluetooth", backup=True),  # PAN, and DUN with a modem behind it
    6: DeviceKind("olpc-mesh", uplink=False),
    7: DeviceKind("wimax", backup=True),
    8: _CELLULAR,
    9: DeviceKind("infiniband"),
    10: DeviceKind("bond"),
    11: DeviceKind("vlan"),
    12: DeviceKind("adsl"),
    13: DeviceKind("bridge"),
    14: _GENERIC,
    15: DeviceKind("team"),
    16: DeviceKind("tun", uplink=False),  # and tap
    17: DeviceKind("ip-tunnel", uplink=False),
    18: DeviceKind("macvlan"),
    19: DeviceKind("vxlan", uplink=False),
    20: DeviceKind("veth"),
    21: DeviceKind("macsec"),
    22: DeviceKind("dummy", uplink=False),
    23: DeviceKind("ppp"),  # PPPoE
    24: DeviceKind("ovs-interface"),
    25: DeviceKind("ovs-port", uplink=False),
    26: DeviceKind("ovs-bridge", uplink=False),
    27: DeviceKind("wpan", uplink=False),
    28: DeviceKind("6lowpan", uplink=False),
    29: DeviceKind("wireguard", uplink=False),
    30: DeviceKind("wifi-p2p", uplink=False),
    31: DeviceKind("vrf", uplink=False),
    32: DeviceKind("loopback", uplink=False),
    33: DeviceKind("hsr"),
    34: DeviceKind("ipvlan"),
    35: DeviceKind("geneve", uplink=False),
}

#: What a profile's type says of its device, whatever carries it.
_OF_PROFILE: dict[str, DeviceKind] = {
    "vpn": DeviceKind("vpn", uplink=False),
    "gsm": _CELLULAR,
    "cdma": _CELLULAR,
}

#: ``IFLA_INFO_KIND`` of links that wrap packets up and send them by another link; it is also what NetworkManager says of
#: those that it has no type of device for (``Device.Generic.TypeDescription``). A dummy is one as well: where the default
#: route leads to it, somebody wants nothing to leave (a kill switch). PPP is not: see :data:`PPP`.
TUNNEL_LINKS = (
    frozenset({"tun", "wireguard", "amneziawg", "ovpn", "ovpn-dco", "xfrm", "vti", "vti6", "vxlan", "geneve", "dummy"})
    | {"ipip", "ip6tnl", "sit", "gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan"}
    | {"gtp", "bareudp", "amt", "l2tpeth", "l2tp_eth"}
)

#: The kind of links that are an uplink (PPPoE, a modem) or a tunnel (L2TP, PPTP): the kernel cannot tell which.
PPP = "ppp"

#: ``NMMetered``: yes and guess-yes.
_METERED = (1, 3)

#: ``NMMetered``: yes and no, as the profile says.
_CERTAIN = (1, 2)


def kind_of(device: Device) -> DeviceKind:
    """The kind of a device; a VPN's is a tunnel whatever carries it."""
    if device.profile and (kind := _OF_PROFILE.get(device.profile.type)):
        return kind
    kind = _KINDS.get(device.type, _UNKNOWN)
    return _TUNNEL if kind is _GENERIC and device.type_name in TUNNEL_LINKS else kind


def is_uplink(device: Device) -> bool:
    """Whether NetworkManager itself runs this device as a way into a network. Of a generic device it knows nothing."""
    kind = kind_of(device)
    return device.managed and not device.external and kind.uplink and kind.name != "generic"


def is_metered(device: Device, assumed: bool | None = None) -> bool:
    """Whether this device's traffic is paid for by volume: the profile's word, else what is assumed, else a guess.

    NetworkManager guesses yes for cellular and Bluetooth links, and where a lease has Android's ``ANDROID_METERED``
    (``nm_device_update_metered``); of an iPhone on USB it knows nothing.
    """
    if assumed is not None and device.metered not in _CERTAIN:
        return assumed
    return device.metered in _METERED
