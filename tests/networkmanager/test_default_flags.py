# SPDX-License-Identifier: GPL-2.0-or-later
"""Our parser of NetworkManager's configuration against NetworkManager itself: the endpoint that it makes is the proof."""

from __future__ import annotations

import pytest

from nm_mptcp.model.flags import ProfileFlag, endpoint_flags, names
from nm_mptcp.model.state import Device, DeviceState, DeviceType
from nm_mptcp.networkmanager.defaults import NetworkManagerPaths, read

from .bed import Bed

# What the client tells of a veth: it has no permanent hardware address.
ETH0 = Device(
    interface="eth0",
    ip_interface="eth0",
    type=DeviceType.VETH,
    state=DeviceState.ACTIVATED,
    driver="veth",
    driver_version="1.0",
    type_name="ethernet",
)

# Case -> text of the files in conf.d, in the order of their names.
CASES: dict[str, tuple[str, ...]] = {
    "a hexadecimal number": ("[connection]\nconnection.mptcp-flags=0x12\n",),
    "a decimal number": ("[connection]\nconnection.mptcp-flags=18\n",),
    "space around the number": ("[connection]\nconnection.mptcp-flags =  18  \n",),
    "a comment behind the number": ("[connection]\nconnection.mptcp-flags=18 # x\n",),
    "octal, too": ("[connection]\nconnection.mptcp-flags=022\n",),
    "an octal number": ("[connection]\nconnection.mptcp-flags=0142\n",),
    "a plus sign before 0x": ("[connection]\nconnection.mptcp-flags=+0x12\n",),
    "an upper-case X": ("[connection]\nconnection.mptcp-flags=0X12\n",),
    "an unknown escape": ("[connection-1]\nconnection.mptcp-flags=\\q18\n[connection-2]\nconnection.mptcp-flags=18\n",),
    "except an s390 channel": (
        "[connection-1]\nmatch-device=except:s390-subchannels:0.0.1\nconnection.mptcp-flags=18\n",
    ),
    "except all": ("[connection-1]\nmatch-device=except:*\nconnection.mptcp-flags=18\n",),
    "a tag in capitals": ("[connection-1]\nmatch-device=INTERFACE-NAME:=eth0\nconnection.mptcp-flags=18\n",),
    "indented": ("  [connection-1]\n  connection.mptcp-flags=18\n",),
    "lines end in CR LF": ("[connection-1]\r\nconnection.mptcp-flags=18\r\n",),
    "a list key of what is no list": ("[connection-1]\nconnection.mptcp-flags+=18\n",),
    "a device section": ("[device-1]\nconnection.mptcp-flags=18\n",),
    "nothing configured": (),
    "a plus sign": ("[connection]\nconnection.mptcp-flags=+18\n",),
    "a negative number": ("[connection]\nconnection.mptcp-flags=-1\n",),
    "an underscore": ("[connection]\nconnection.mptcp-flags=1_8\n",),
    "names, not a number": ("[connection]\nconnection.mptcp-flags=signal\n",),
    "zero": ("[connection]\nconnection.mptcp-flags=0\n",),
    "disabled and more": ("[connection]\nconnection.mptcp-flags=35\n",),
    "unknown bits": ("[connection]\nconnection.mptcp-flags=65554\n",),
    "only unknown bits": ("[connection]\nconnection.mptcp-flags=65536\n",),
    "more than 32 bits": ("[connection]\nconnection.mptcp-flags=4294967296\n",),
    "signal+fullmesh": ("[connection]\nconnection.mptcp-flags=146\n",),
    "first in file wins": ("[connection-1]\nconnection.mptcp-flags=18\n[connection-2]\nconnection.mptcp-flags=98\n",),
    "later file wins": ("[connection-1]\nconnection.mptcp-flags=18\n", "[connection-0]\nconnection.mptcp-flags=98\n"),
    "plain last": ("[connection]\nconnection.mptcp-flags=18\n[connection-2]\nconnection.mptcp-flags=98\n",),
    "plain last though later": (
        "[connection-1]\nconnection.mptcp-flags=18\n",
        "[connection]\nconnection.mptcp-flags=98\n",
    ),
    "a section keeps its first place": (
        "[connection-1]\nconnection.mptcp-flags=18\n",
        "[connection-2]\nconnection.mptcp-flags=98\n",
        "[connection-1]\nconnection.mptcp-flags=34\n",
    ),
    "unusable stops": ("[connection-1]\nconnection.mptcp-flags=x\n[connection-2]\nconnection.mptcp-flags=18\n",),
    "stop-match": ("[connection-1]\nstop-match=yes\n[connection-2]\nconnection.mptcp-flags=18\n",),
    "stop-match no": ("[connection-1]\nstop-match=no\n[connection-2]\nconnection.mptcp-flags=18\n",),
    "a pattern": ("[connection-1]\nmatch-device=interface-name:eth*\nconnection.mptcp-flags=18\n",),
    "another pattern": ("[connection-1]\nmatch-device=interface-name:foo*\nconnection.mptcp-flags=18\n",),
    "type ethernet": ("[connection-1]\nmatch-device=type:ethernet\nconnection.mptcp-flags=18\n",),
    "type veth: NetworkManager says ethernet": ("[connection-1]\nmatch-device=type:veth\nconnection.mptcp-flags=18\n",),
    "driver": ("[connection-1]\nmatch-device=driver:veth\nconnection.mptcp-flags=18\n",),
    "driver version": ("[connection-1]\nmatch-device=driver:veth/1.?\nconnection.mptcp-flags=18\n",),
    "driver prefix": ("[connection-1]\nmatch-device=driver:ve/*\nconnection.mptcp-flags=18\n",),
    "the address of a veth is no permanent one": (
        "[connection-1]\nmatch-device=mac:02:00:00:01:00:00\nconnection.mptcp-flags=18\n",
    ),
    "the same, plain": ("[connection-1]\nmatch-device=02-00-00-01-0-0\nconnection.mptcp-flags=18\n",),
    "a plain name": ("[connection-1]\nmatch-device=eth0\nconnection.mptcp-flags=18\n",),
    "a plain name is no pattern": ("[connection-1]\nmatch-device=eth*\nconnection.mptcp-flags=18\n",),
    "except": ("[connection-1]\nmatch-device=except:type:wifi\nconnection.mptcp-flags=18\n",),
    "except this": ("[connection-1]\nmatch-device=*,except:interface-name:eth0\nconnection.mptcp-flags=18\n",),
    "except plain": ("[connection-1]\nmatch-device=*,except:eth0\nconnection.mptcp-flags=18\n",),
    "empty match": ("[connection-1]\nmatch-device=\nconnection.mptcp-flags=18\n",),
    "dhcp-plugin": ("[connection-1]\nmatch-device=dhcp-plugin:internal\nconnection.mptcp-flags=18\n",),
    "match+=": (
        "[connection-1]\nmatch-device=type:wifi\nconnection.mptcp-flags=18\n",
        "[connection-1]\nmatch-device+=eth0\n",
    ),
    "match-=": (
        "[connection-1]\nmatch-device=type:wifi;eth0\nconnection.mptcp-flags=18\n",
        "[connection-1]\nmatch-device-=eth0\n",
    ),
    "enable no": ("[connection-1]\nconnection.mptcp-flags=18\n[.config]\nenable=no\n",),
    "enable empty": ("[connection-1]\nconnection.mptcp-flags=18\n[.config]\nenable=\n",),
    "enable junk": ("[connection-1]\nconnection.mptcp-flags=18\n[.config]\nenable=maybe\n",),
    "enable version": ("[connection-1]\nconnection.mptcp-flags=18\n[.config]\nenable=nm-version-min:1.40\n",),
    "enable version micro": ("[connection-1]\nconnection.mptcp-flags=18\n[.config]\nenable=nm-version-min:1.40.2\n",),
    "enable except": ("[connection-1]\nconnection.mptcp-flags=18\n[.config]\nenable=except:nm-version:1.42\n",),
    "dot section": ("[connection.foo]\nconnection.mptcp-flags=18\n",),
    "an escape": ("[connection.foo]\nconnection.mptcp-flags=\\s18\n",),
    "a key twice": ("[connection.foo]\nconnection.mptcp-flags=34\nconnection.mptcp-flags=18\n",),
    "a section twice": (
        "[connection-1]\nconnection.mptcp-flags=34\n[connection-2]\nconnection.mptcp-flags=98\n[connection-1]\nconnection.mptcp-flags=18\n",
    ),
    "empty value": ("[connection-1]\nconnection.mptcp-flags=\n[connection-2]\nconnection.mptcp-flags=18\n",),
}


@pytest.mark.bed(product=False, dropin=False)
def test_the_default_is_what_networkmanager_makes_of_it(bed: Bed) -> None:
    bed.uplink("eth0", static="10.1.0.0/24")
    bed.profile("eth0", "eth0", "ipv4.method manual", "ipv4.addresses 10.1.0.9/24", "ipv4.gateway 10.1.0.1")
    theirs, ours = {}, {}
    version = bed.nmcli("-g", "VERSION", "general").strip()
    for case, texts in CASES.items():
        for file in bed.path("/etc/NetworkManager/conf.d").iterdir():
            file.unlink()
        for number, text in enumerate(texts):
            bed.write(f"/etc/NetworkManager/conf.d/{number}.conf", text)
        bed.reload_networkmanager()
        bed.up("eth0")
        endpoint = bed.endpoint("10.1.0.9")
        theirs[case] = None if endpoint is None else sorted(endpoint.flags - {"laminar"})
        bed.down("eth0")
        flags = read(NetworkManagerPaths().under(bed.path("/")), version=version).flags(ETH0).flags
        if flags is None:
            flags = ProfileFlag.ENABLED | ProfileFlag.SUBFLOW
        ours[case] = None if ProfileFlag.DISABLED in flags else sorted(names(endpoint_flags(flags)))
    assert ours == theirs
