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
class Kind:
    """A kind of device as policy sees it."""

    name: str
    uplink: bool = True  #: a path by itself; tunnels are not
    backup: bool = False  #: carries only when nothing else can


_UNKNOWN = Kind("unknown", uplink=False)
_GENERIC = Kind("generic")
_TUNNEL = Kind("tunnel", uplink=False)
_CELLULAR = Kind("cellular", backup=True)

#: NMDeviceType -> kind (NetworkManager: ``nm-dbus-interface.h``).
_KINDS: dict[int, Kind] = {
    1: Kind("ethernet"),  # USB adapters and phones that share their connection by USB as well; PPPoE before 1.10
    2: Kind("wifi"),
    5: Kind("bluetooth", backup=True),  # PAN, and DUN with a modem behind it
    6: Kind("olpc-mesh", uplink=False),
    7: Kind("wimax", backup=True),
    8: _CELLULAR,
    9: Kind("infiniband"),
    10: Kind("bond"),
    11: Kind("vlan"),
    12: Kind("adsl"),
    13: Kind("bridge"),
    14: _GENERIC,
    15: Kind("team"),
    16: Kind("tun", uplink=False),  # and tap
    17: Kind("ip-tunnel", uplink=False),
    18: Kind("macvlan"),
    19: Kind("vxlan", uplink=False),
    20: Kind("veth"),
    21: Kind("macsec"),
    22: Kind("dummy", uplink=False),
    23: Kind("ppp"),  # PPPoE
    24: Kind("ovs-interface"),
    25: Kind("ovs-port", uplink=False),
    26: Kind("ovs-bridge", uplink=False),
    27: Kind("wpan", uplink=False),
    28: Kind("6lowpan", uplink=False),
    29: Kind("wireguard", uplink=False),
    30: Kind("wifi-p2p", uplink=False),
    31: Kind("vrf", uplink=False),
    32: Kind("loopback", uplink=False),
    33: Kind("hsr"),
    34: Kind("ipvlan"),
    35: Kind("geneve", uplink=False),
}

#: What a profile's type says of its device, whatever carries it.
_OF_PROFILE: dict[str, Kind] = {
    "vpn": Kind("vpn", uplink=False),
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


def kind_of(device: Device) -> Kind:
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
