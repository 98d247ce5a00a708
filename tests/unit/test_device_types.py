# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of device: every NMDeviceType, and what else decides the kind."""

from __future__ import annotations

import pytest

from nm_mptcp.model.device_types import is_metered, kind_of
from nm_mptcp.model.state import Device, DeviceState, DeviceType, Metered, Profile
from nm_mptcp.networkmanager import names

PATH, RESERVE, NONE = "path", "backup path", "no path"

#: NMDeviceType (nm-dbus-interface.h, up to 1.58) -> what we call it, and what it is by itself.
TYPES = {
    0: ("unknown", NONE),
    1: ("ethernet", PATH),
    2: ("wifi", PATH),
    3: ("unknown", NONE),
    4: ("unknown", NONE),
    5: ("bluetooth", RESERVE),
    6: ("olpc-mesh", NONE),
    7: ("wimax", RESERVE),
    8: ("cellular", RESERVE),
    9: ("infiniband", PATH),
    10: ("bond", PATH),
    11: ("vlan", PATH),
    12: ("adsl", PATH),
    13: ("bridge", PATH),
    14: ("generic", PATH),
    15: ("team", PATH),
    16: ("tun", NONE),
    17: ("ip-tunnel", NONE),
    18: ("macvlan", PATH),
    19: ("vxlan", NONE),
    20: ("veth", PATH),
    21: ("macsec", PATH),
    22: ("dummy", NONE),
    23: ("ppp", PATH),
    24: ("ovs-interface", PATH),
    25: ("ovs-port", NONE),
    26: ("ovs-bridge", NONE),
    27: ("wpan", NONE),
    28: ("6lowpan", NONE),
    29: ("wireguard", NONE),
    30: ("wifi-p2p", NONE),
    31: ("vrf", NONE),
    32: ("loopback", NONE),
    33: ("hsr", PATH),
    34: ("ipvlan", PATH),
    35: ("geneve", NONE),
    36: ("unknown", NONE),
}


def device(kind: int, *, profile: str = "802-3-ethernet", type_name: str = "", interface: str = "x0") -> Device:
    return Device(
        interface,
        interface,
        DeviceType(kind),
        DeviceState.ACTIVATED,
        profile=Profile("x", "u", profile) if profile else None,
        type_name=type_name,
    )


def what(subject: Device) -> tuple[str, str]:
    kind = kind_of(subject)
    return kind.name, (RESERVE if kind.backup else PATH) if kind.uplink else NONE


@pytest.mark.parametrize("number", TYPES)
def test_each_type_of_networkmanagers(number: int) -> None:
    assert what(device(number)) == TYPES[number]


def test_every_type_has_a_kind_and_a_name_that_a_match_can_give() -> None:
    known = set(DeviceType) - {DeviceType.UNKNOWN}
    assert {number for number in known if kind_of(device(number)).name != "unknown"} == known
    assert names.TYPE_NAMES.keys() == known


@pytest.mark.parametrize(
    ("kind", "profile", "type_name", "found"),
    [
        (16, "vpn", "", ("vpn", NONE)),
        (1, "vpn", "", ("vpn", NONE)),
        (29, "wireguard", "", ("wireguard", NONE)),
        (8, "gsm", "gsm", ("cellular", RESERVE)),
        (8, "cdma", "cdma", ("cellular", RESERVE)),
        (5, "bluetooth", "bt", ("bluetooth", RESERVE)),
        (1, "pppoe", "ethernet", ("ethernet", PATH)),
        (23, "pppoe", "ppp", ("ppp", PATH)),
        (14, "generic", "wwan", ("generic", PATH)),
        (14, "generic", "xfrm", ("tunnel", NONE)),
        (14, "generic", "ovpn-dco", ("tunnel", NONE)),
        (14, "", "gtp", ("tunnel", NONE)),
    ],
)
def test_the_profile_and_the_link_kind_beside_the_type(
    kind: int, profile: str, type_name: str, found: tuple[str, str]
) -> None:
    assert what(device(kind, profile=profile, type_name=type_name)) == found


@pytest.mark.parametrize("name", ["docker0", "tun0", "wwan0", "eth0", "wg0"])
def test_the_interface_name_does_not_matter(name: str) -> None:
    assert what(device(1, interface=name)) == ("ethernet", PATH)
    assert what(device(16, interface=name)) == ("tun", NONE)


@pytest.mark.parametrize(("metered", "is_"), [(0, False), (1, True), (2, False), (3, True), (4, False), (9, False)])
def test_metered_as_networkmanager_has_or_guesses_it(metered: int, is_: bool) -> None:
    assert is_metered(Device("x", "x", DeviceType.ETHERNET, DeviceState.ACTIVATED, metered=Metered(metered))) is is_
