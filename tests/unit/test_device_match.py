# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager's device list format; the verdicts were compared with NetworkManager itself where it can be asked."""

from __future__ import annotations

import pytest

from nm_mptcp.model.state import Device, DeviceState, DeviceType
from nm_mptcp.nmsyntax.device_match import DeviceMatch, split

WLAN0 = Device(
    interface="wlan0",
    ip_interface="wlan0",
    type=DeviceType.WIFI,
    state=DeviceState.ACTIVATED,
    driver="iwlwifi",
    driver_version="6.12.1-amd64",
    hardware_address="00:1E:65:30:D1:C4",
    type_name="wifi",
)
MODEM = Device(
    interface="cdc-wdm0",
    ip_interface="wwan0",
    type=DeviceType.MODEM,
    state=DeviceState.ACTIVATED,
    type_name="gsm",
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("*", True),
        ("wlan0", True),
        ("wlan1", False),
        ("wlan*", False),  # plain names are no patterns
        ("WLAN0", False),
        ("interface-name:wlan0", True),
        ("interface-name:wl*", True),
        ("interface-name:wlan?", True),
        ("interface-name:wlan??", False),
        ("interface-name:[w]lan0", False),  # no ranges
        ("interface-name:~wl*", True),
        ("interface-name:=wlan0", True),
        ("interface-name:=wl*", False),
        ("INTERFACE-NAME:wlan0", True),  # tags have no case
        ("interface-name: wlan0", False),  # what follows the colon is the name
        ("00:1e:65:30:d1:c4", True),
        ("00-1E-65-30-D1-C4", True),
        ("0:1e:65:30:d1:c4", True),
        ("mac:00:1e:65:30:d1:c4", True),
        ("mac:00:1e:65:30:d1:c5", False),
        ("type:wifi", True),
        ("type:Wifi", False),
        ("type:ethernet", False),
        ("driver:iwlwifi", True),
        ("driver:iwl*", False),
        ("driver:iwlwifi/6.*", True),
        ("driver:iwlwifi/5.*", False),
        ("driver:iwl/*", True),  # NetworkManager compares only the part before the slash
        ("dhcp-plugin:internal", True),
        ("dhcp-plugin:dhclient", False),
        ("s390-subchannels:0.0.f5f0", False),
        ("eth0,wlan0", True),
        ("eth0;wlan0", True),
        (" eth0 , wlan0 ", True),
        ("*,except:type:wifi", False),
        ("except:type:wifi,*", False),  # the order does not matter
        ("*,except:type:gsm", True),
        ("except:type:gsm", True),  # nothing but exceptions: all others
        ("except:type:wifi", False),
        ("except:*", False),
        ("eth0,except:type:gsm", False),
        ("wlan0,except:type:gsm", True),
    ],
)
def test_which_devices_a_match_takes(text: str, wanted: bool) -> None:
    assert DeviceMatch.parse(text).matches(WLAN0, dhcp_plugin="internal") is wanted


def test_a_modem_is_matched_by_its_control_interface_and_its_technology() -> None:
    assert DeviceMatch.parse("cdc-wdm0").matches(MODEM)
    assert DeviceMatch.parse("type:gsm").matches(MODEM)
    assert not DeviceMatch.parse("wwan0").matches(MODEM)
    assert not DeviceMatch.parse("type:modem").matches(MODEM)


def test_a_device_without_driver_or_address_matches_none() -> None:
    assert not DeviceMatch.parse("driver:x,mac:00:1e:65:30:d1:c4,type:wifi").matches(MODEM)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" , ; ", []),
        ("a,b;c", ["a", "b", "c"]),
        ("  a b ,c", ["a b", "c"]),
        (r"a\,b,c\;d", ["a,b", "c;d"]),
        (r"\sa\s,b", [" a ", "b"]),
        (r"a\tb\nc\rd\\e", ["a\tb\nc\rd\\e"]),
        (r"a\xb", [r"a\xb"]),  # an unknown escape stays
        ("a\\", ["a"]),  # nothing to escape
        ("a\\ ,b", ["a\\ ", "b"]),
    ],
)
def test_how_a_list_is_split(text: str, words: list[str]) -> None:
    assert split(text) == words


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "match is empty"),
        (" , ", "match is empty"),
        ("ifname:wlan0", "unknown tag 'ifname:'"),
        ("except:wlan0", "'except:' needs a tag"),
        ("wlan0,mac:xx", "'xx' is not a hardware address"),
        ("type:", "nothing after 'type:'"),
        ("interface-name:=", "nothing after 'interface-name:'"),
    ],
)
def test_what_can_never_match_is_refused_with_a_reason(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="match") as error:
        DeviceMatch.parse(text)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "ifname:wlan0", "except:", "mac:xx", "type:", "interface-name:", "driver:", "/"])
def test_networkmanagers_own_file_is_read_as_it_reads_it(text: str) -> None:
    assert DeviceMatch.lenient(text).matches(WLAN0) is (text == "except:")
