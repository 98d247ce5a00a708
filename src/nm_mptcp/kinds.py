# SPDX-License-Identifier: GPL-2.0-or-later
"""Kinds of device: which are uplinks, and which of those cost money or power.

What NetworkManager says counts (``NMDeviceType``, and the profile's type for a modem), never the interface's name.
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import Device


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of device as policy sees it."""

    name: str
    uplink: bool = True  #: a path by itself; tunnels and bridges of containers are not
    backup: bool = False  #: carries only when nothing else can


_UNKNOWN = Kind("unknown", uplink=False)

#: NMDeviceType -> kind (NetworkManager: ``nm-dbus-interface.h``).
_KINDS: dict[int, Kind] = {
    1: Kind("ethernet"),
    2: Kind("wifi"),
    5: Kind("bluetooth", backup=True),
    6: Kind("olpc-mesh", uplink=False),
    7: Kind("wimax", backup=True),
    8: Kind("cellular", backup=True),
    9: Kind("infiniband"),
    10: Kind("bond"),
    11: Kind("vlan"),
    12: Kind("adsl"),
    13: Kind("bridge"),
    14: Kind("generic"),
    15: Kind("team"),
    16: Kind("tun", uplink=False),
    17: Kind("ip-tunnel", uplink=False),
    18: Kind("macvlan"),
    19: Kind("vxlan", uplink=False),
    20: Kind("veth"),
    21: Kind("macsec"),
    22: Kind("dummy", uplink=False),
    23: Kind("ppp"),
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
}

#: ``NMMetered``: yes and guess-yes.
_METERED = (1, 3)

#: ``NMMetered``: yes and no, as the profile says.
_CERTAIN = (1, 2)


def kind_of(device: Device) -> Kind:
    """The kind of a device; a VPN's is a tunnel whatever carries it."""
    if device.profile and device.profile.type == "vpn":
        return Kind("vpn", uplink=False)
    return _KINDS.get(device.type, _UNKNOWN)


def is_metered(device: Device, assumed: bool | None = None) -> bool:
    """Whether this device's traffic is paid for by volume: the profile's word, else what is assumed, else a guess.

    NetworkManager guesses yes for cellular and Bluetooth links, and where a lease has Android's ``ANDROID_METERED``
    (``nm_device_update_metered``); of an iPhone on USB it knows nothing.
    """
    if assumed is not None and device.metered not in _CERTAIN:
        return assumed
    return device.metered in _METERED
