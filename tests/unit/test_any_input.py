# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever others write, it is read, or refused with one printable line: configuration, NetworkManager's files and objects.

Random bytes of netlink messages are in test_malformed_netlink.py, random records in test_record.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nm_mptcp.config.files import ConfigurationFiles
from nm_mptcp.config.keys import KEYS, PATH
from nm_mptcp.dbus.connection import Signal
from nm_mptcp.model.state import DeviceType, Family
from nm_mptcp.networkmanager import defaults, names
from nm_mptcp.networkmanager.applied_connections import Applied, to_profile
from nm_mptcp.networkmanager.object_tree import ObjectTree
from nm_mptcp.networkmanager.to_device import DeviceContext, to_device
from nm_mptcp.networkmanager.typed_values import Malformed
from nm_mptcp.nmsyntax import keyfile
from nm_mptcp.policy.decide import decide

from .situations import Situation

SETTINGS = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])

WORDS = [
    *(
        "auto",
        "handover",
        "off",
        "yes",
        "no",
        "backup",
        "exclude",
        "ignore",
        "subflow",
        "signal",
        "fullmesh",
        "disabled",
        "*",
    ),
    *(
        "0",
        "1",
        "77",
        "-5",
        "99999999999999999999",
        "42000-42999",
        "9-1",
        "192.0.2.0/24",
        "2001:db8::/200",
        "00:11:22:33:44:55",
    ),
    *("%", "\\s", "\u202e", "\x85", "\u2028", "\x1b[31m"),
]
TAGS = ("mac:", "type:", "uuid:", "id:", "interface-name:", "except:", "except:mac:", "tag:")
VALUES = st.one_of(
    st.sampled_from(WORDS),
    st.text(max_size=6),
    st.text("a1:%,\u202e\u2028\ue000", max_size=3),
    st.builds("{}{}".format, st.sampled_from(TAGS), st.sampled_from(WORDS)),
)
LISTS = VALUES | st.lists(VALUES, max_size=3).map(",".join)


def files(sections: Mapping[str, Iterable[str]]) -> st.SearchStrategy[bytes]:
    """Key files with these sections and keys, and odd values; or odd lines; or no text at all."""
    good = [
        st.lists(st.builds("{}={}".format, st.sampled_from(sorted(keys)), LISTS), min_size=1, max_size=4).map(
            lambda lines, section=section: "\n".join((f"[{section}]", *lines))
        )
        for section, keys in sections.items()
    ]
    odd = st.one_of(VALUES, VALUES.map("[{}]".format), st.builds("{}={}".format, VALUES, VALUES))
    text = st.lists(st.one_of(*good, *good, odd), max_size=4).map("\n".join)
    return st.one_of(*[text.map(lambda each: each.encode("utf-8", "surrogatepass"))] * 4, st.binary(max_size=60))


OURS = files({"main": KEYS["main"], "routing": KEYS["routing"], "path-a": KEYS[PATH], "path-\u2028": KEYS[PATH]})


def is_one_line(text: str) -> bool:
    return bool(text) and text.isprintable()


@SETTINGS
@given(OURS)
def test_any_configuration_file_is_read_and_what_is_wrong_is_a_line_each(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "nm-mptcp.conf"
    file.write_bytes(data)
    reading = ConfigurationFiles(file).read()
    assert all(is_one_line(str(problem)) for problem in reading.problems)
    situation = Situation()
    situation.link("e1", "10.0.1.2/24", "2001:db8:1::2/64")
    decide(situation.snapshot(), reading.config)  # what is left is valid


THEIR_KEYS = ("match-device", "stop-match", "connection.mptcp-flags", "ipv4.route-table", "ipv4.route-table+")
THEIRS = files(
    {"main": ("dhcp", "dhcp-"), ".config": ("enable",), "connection": THEIR_KEYS, "connection-a": THEIR_KEYS}
)


@SETTINGS
@given(THEIRS, THEIRS)
def test_any_file_of_networkmanagers_is_read_or_refused(tmp_path: Path, main: bytes, snippet: bytes) -> None:
    (tmp_path / "conf.d").mkdir(exist_ok=True)
    (tmp_path / "main.conf").write_bytes(main)
    (tmp_path / "conf.d/a.conf").write_bytes(snippet)
    none = tmp_path / "none"
    paths = defaults.NetworkManagerPaths(main=tmp_path / "main.conf", system=none, run=none, etc=tmp_path / "conf.d")
    situation = Situation()
    situation.link("e1", "10.0.1.2/24")
    device = situation.devices["e1"]
    found: defaults.ConnectionDefaults | None
    try:
        found = defaults.read(paths, version="1.52.0")
    except ValueError as error:
        found, refusal = None, str(error)
    if found is None:
        assert is_one_line(refusal)
        return
    found.flags(device)
    assert 0 <= found.route_table(device, Family.IPV4) <= 0xFFFFFFFF


VARIANTS: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**64) | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


def documents(*keys: str) -> st.SearchStrategy[dict[str, Any]]:
    """Dictionaries with some of these keys, and values that may have any type."""
    return st.dictionaries(
        st.sampled_from(keys), VARIANTS | st.sampled_from([0, 1, 30, 100, "", "e1", "/a"]), max_size=8
    )


PROPERTIES = documents(
    *("Interface", "IpInterface", "DeviceType", "State", "Managed", "Metered", "ActiveConnection", "ActiveAccessPoint"),
    *("Ip4Connectivity", "Ip6Connectivity", "Driver", "Udi", "CurrentCapabilities", "TypeDescription", "StateFlags"),
    *("Version", "Startup", "ConnectivityCheckEnabled", "Vpn"),
)
CONNECTIONS = documents("connection", "ipv4", "ipv6") | st.fixed_dictionaries(
    {
        "connection": documents("id", "uuid", "type", "mptcp-flags"),
        "ipv4": documents("route-table", "never-default", "method"),
        "ipv6": documents("route-table", "never-default", "method"),
    }
)


@SETTINGS
@given(CONNECTIONS | VARIANTS)
def test_any_applied_connection_is_a_profile_or_malformed(settings: Any) -> None:
    refusal = "none"
    try:
        to_profile(settings)
    except (Malformed, TypeError, ValueError) as error:
        refusal = str(error)
    assert is_one_line(refusal)


INTERFACES = (names.MANAGER, names.DEVICE, f"{names.DEVICE}.Wired", names.ACTIVE_CONNECTION, names.DHCP4, "other")
OBJECTS = st.dictionaries(st.sampled_from(INTERFACES), PROPERTIES | VARIANTS, max_size=3)
PLACES = st.sampled_from([names.PATH, "/a", "/b"])
BODIES = st.one_of(
    st.tuples(st.sampled_from(INTERFACES), PROPERTIES, st.just([])),
    st.tuples(PLACES, OBJECTS),
    st.tuples(PLACES, st.lists(st.sampled_from(INTERFACES))),
    st.lists(VARIANTS, max_size=3).map(tuple),
)
SIGNALS = st.builds(
    Signal,
    sender=st.just(":1.5"),
    path=PLACES,
    interface=st.sampled_from([names.PROPERTIES, names.OBJECT_MANAGER, "other"]),
    member=st.sampled_from(["PropertiesChanged", "InterfacesAdded", "InterfacesRemoved", "other"]),
    body=BODIES,
)


@SETTINGS
@given(st.lists(SIGNALS, max_size=6))
def test_any_signals_are_taken_in_or_malformed_and_leave_devices_to_decide_on(signals: list[Signal]) -> None:
    tree = ObjectTree()
    for signal in signals:
        try:
            tree.handle(signal)
        except (TypeError, ValueError, AttributeError):  # as documented; the client reports them
            continue
    situation = Situation()
    for path, device in tree.devices.items():
        context = DeviceContext(f":1.5{path}", tree.active.get(device.active), Applied(), True, frozenset(), None)
        value, problem = to_device(device, context)
        assert not problem or is_one_line(problem)
        assert isinstance(device.state, int)
        assert isinstance(device.access_point, str)
        assert isinstance(device.type, DeviceType)
        situation.devices[path] = replace(value, interface=value.interface or "e1")
    assert isinstance(tree.version, str)
    decide(situation.snapshot())


@pytest.mark.parametrize("parse", [keyfile.parse, lambda text, _: list(keyfile.lines(text))])
@SETTINGS
@given(st.text(max_size=60))
def test_any_text_is_a_key_file_or_refused(parse: Any, text: str) -> None:
    refusal = "none"
    try:
        parse(text, "a file")
    except ValueError as error:
        refusal = str(error)
    assert is_one_line(refusal)
