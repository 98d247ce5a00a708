# SPDX-License-Identifier: GPL-2.0-or-later
"""What the bus is shown: an object for each path, properties that are told of when they change, and who may do what."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from nm_mptcp.service.interface import PROPERTIES
from nm_mptcp.service.path_objects import PATH_PROPERTIES, PAUSE

from ..support.waits import wait_for
from .bed import DEFAULT_FLAGS, REPOSITORY, Bed
from .caller import calls, replies
from .polkit import without_polkit
from .uplinks import Links

ROOT = "/org/nm_mptcp1"
MANAGED = [ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", ""]
ALL = [ROOT, "org.freedesktop.DBus.Properties", "GetAll", "s", "org.nm_mptcp1"]
INTROSPECT = ["org.freedesktop.DBus.Introspectable", "Introspect", ""]

PAGE = (REPOSITORY / "packaging/man/nm-mptcp-dbus.5.scd").read_text()

#: What a user who is not root may call; everything else changes something.
READING = {
    "org.nm_mptcp1.Status",
    "org.nm_mptcp1.Explain",
    "org.freedesktop.DBus.Introspectable.Introspect",
    "org.freedesktop.DBus.Peer.Ping",
    "org.freedesktop.DBus.Properties.Get",
    "org.freedesktop.DBus.Properties.GetAll",
    "org.freedesktop.DBus.ObjectManager.GetManagedObjects",
}

ARGUMENTS = {"s": "x", "v": "x", "b": True, "u": 1}


def objects(bed: Bed, *, nobody: bool = False) -> dict[str, dict[str, Any]]:
    """The paths' properties, by address."""
    ((found,),) = replies(bed, MANAGED, nobody=nobody)
    return {
        interfaces["org.nm_mptcp1.Path"]["Address"]: interfaces["org.nm_mptcp1.Path"] for interfaces in found.values()
    }


def introspected(bed: Bed, place: str) -> set[tuple[str, ...]]:
    """What the object says that it has of ours: (interface, method, types in, types out), (interface, property, type)."""
    ((xml,),) = replies(bed, [place, *INTROSPECT], nobody=True)
    found: set[tuple[str, ...]] = set()
    for interface in ElementTree.fromstring(xml).iter("interface"):
        name = interface.get("name") or ""
        if not name.startswith("org.nm_mptcp1"):
            continue
        for member in interface:
            if member.tag == "annotation":
                continue
            what = (name, member.tag, member.get("name") or "")
            if member.tag == "property":
                assert member.get("access") == "read"
                found.add((*what, member.get("type") or ""))
            else:
                ways = [
                    "".join(arg.get("type") or "" for arg in member.iter("arg") if arg.get("direction") == way)
                    for way in ("in", "out")
                ]
                found.add((*what, *ways))
    return found


def told_by_the_page() -> set[tuple[str, ...]]:
    """The same as nm-mptcp-dbus(5) has it."""
    found: set[tuple[str, ...]] = set()
    for kind, interface, text in re.findall(r"^# (METHODS|PROPERTIES) OF (\S+)\n(.*?)(?=^# )", PAGE, re.M | re.S):
        for line in re.findall(r"^\*\w.*$", text, re.M):
            if kind == "PROPERTIES":
                found |= {(interface, "property", *each) for each in re.findall(r"\*(\w+)\* \((\w+)\)", line)}
                continue
            shown = re.fullmatch(r"\*(\w+)\*\((.*)\)(?: -> (\w+))?", line)
            assert shown, line
            kinds = "".join(each.split()[0] for each in shown[2].split(", ") if each)
            found.add((interface, "method", shown[1], kinds, shown[3] or ""))
    return found


def test_the_objects_are_as_the_page_tells(bed: Bed, up: Links) -> None:
    ((managed,),) = replies(bed, MANAGED, nobody=True)
    assert len(managed) == 2
    paths = [introspected(bed, place) for place in managed]
    assert paths[0] == paths[1]
    assert introspected(bed, ROOT) | paths[0] == told_by_the_page()
    # Their names, too, and what the manager is.
    address = bytes(map(int, up.wifi.address.split("."))).hex()
    index = bed.machine.ip("link", "show", "wlan0")[0]["ifindex"]
    assert f"{ROOT}/path/{index}_{address}" in managed
    ((xml,),) = replies(bed, [ROOT, *INTROSPECT], nobody=True)
    assert "org.freedesktop.DBus.ObjectManager" in xml
    for name in ("InterfacesAdded", "InterfacesRemoved", "PropertiesChanged"):
        assert f'<signal name="{name}">' in xml
        assert f"_{name}_" in PAGE


def test_a_storm_of_changes_is_no_storm_of_signals(bed: Bed, up: Links) -> None:
    monitor = bed.machine.spawn("dbus-monitor", "--system", "sender='org.nm_mptcp1'", log="monitor")
    wait_for("the monitor listens", lambda: "NameAcquired" in monitor.output() or "signal" in monitor.output())
    modes = ["handover", "auto"] * 100
    storm = [[ROOT, "org.nm_mptcp1", "SetMode", "s", mode] for mode in [*modes, "aggregate"]]
    assert all("reply" in answer for answer in calls(bed, *storm))
    # Of each object at most one for each tenth of a second, and the last state is told.
    wait_for("the last is told", lambda: 'string "aggregate"' in monitor.output())
    signals = re.findall(r"^signal time=(\S+) .*path=(\S+); .*member=PropertiesChanged$", monitor.output(), re.M)
    assert {place for _, place in signals} >= {ROOT}
    for place in {place for _, place in signals}:
        times = [float(time) for time, each in signals if each == place]
        assert len(times) <= (times[-1] - times[0]) / PAUSE * 1.1 + 2, (place, times)
    assert up.wifi.address in objects(bed)


def test_each_path_is_an_object_and_follows_what_happens(bed: Bed, up: Links) -> None:
    # The last change of a start may be signalled a tenth of a second late.
    wait_for(
        "both are published as they are",
        lambda: [(each["State"], each["EndpointId"] > 0) for each in objects(bed).values()] == [("active", True)] * 2,
    )
    monitor = bed.machine.spawn("dbus-monitor", "--system", "sender='org.nm_mptcp1'", log="monitor")
    wait_for("the monitor listens", lambda: "NameAcquired" in monitor.output() or "signal" in monitor.output())
    found = objects(bed, nobody=True)
    assert set(found) == {up.wifi.address, up.lte.address}
    wifi = found[up.wifi.address]
    assert set(wifi) == set(PATH_PROPERTIES)
    assert wifi["Interface"] == "wlan0"
    assert wifi["Profile"] == "Wi-Fi"
    assert wifi["State"] == "active"
    assert wifi["Priority"] == "regular"
    assert set(wifi["Flags"]) == DEFAULT_FLAGS
    assert wifi["EndpointId"] == bed.wait_endpoint(up.wifi.address).id
    assert wifi["Table"] == bed.table_of(up.wifi.address)
    assert wifi["Gateway"] == up.wifi.gateway
    assert wifi["Since"] > 0
    (manager,) = replies(bed, ALL, nobody=True)[0]
    assert set(manager) == set(PROPERTIES)
    assert (manager["State"], manager["Mode"], manager["EndpointsUsed"]) == ("good", "auto", 2)
    assert manager["LimitSubflows"] == bed.path_manager.limits()["subflows"]

    up.wifi.carrier(False)
    wait_for("it is told as suspended", lambda: objects(bed)[up.wifi.address]["State"] == "suspended")
    assert replies(bed, ALL)[0][0]["State"] == "held-back"
    up.wifi.carrier(True)
    wait_for("it is told as active again", lambda: objects(bed)[up.wifi.address]["State"] == "active")
    said = monitor.output()
    (place,) = set(re.findall(r"path=(/org/nm_mptcp1/path/\w+); interface=.*PropertiesChanged", said))
    assert 'string "suspended"' in said
    assert 'string "held-back"' in said

    bed.down("Wi-Fi")
    wait_for("the object is gone", lambda: set(objects(bed)) == {up.lte.address})
    wait_for(
        "it was told of",
        lambda: re.search(r"path=/org/nm_mptcp1; .*InterfacesRemoved\n\s+object path", monitor.output()),
    )
    assert f'object path "{place}"' in monitor.output()
    bed.up("Wi-Fi")
    wait_for("it is back, under the same name", lambda: f"path={place}" in monitor.output())
    wait_for("it was told of", lambda: re.search(r"path=/org/nm_mptcp1; .*InterfacesAdded", monitor.output()))
    assert not re.search(r"path=/org/nm_mptcp1/\S+; interface=org.freedesktop.DBus.ObjectManager", monitor.output())


def test_a_user_may_read_all_and_change_nothing(bed: Bed, up: Links) -> None:
    without_polkit(bed)
    before = bed.footprint()
    ((found,),) = replies(bed, MANAGED, nobody=True)
    tried: set[str] = set()
    for place in (ROOT, *found):
        ((xml,),) = replies(bed, [place, *INTROSPECT], nobody=True)
        asked, names = [], []
        for interface in ElementTree.fromstring(xml).iter("interface"):
            for method in interface.iter("method"):
                kinds = [arg.get("type") or "" for arg in method.iter("arg") if arg.get("direction") == "in"]
                asked.append(
                    [place, interface.get("name"), method.get("name"), "".join(kinds), *map(ARGUMENTS.get, kinds)]
                )
                names.append(f"{interface.get('name')}.{method.get('name')}")
        for name, answer in zip(names, calls(bed, *asked, nobody=True), strict=True):
            tried.add(name)
            if name.endswith(".GetMachineId"):
                continue  # the libraries ask the bus itself for it, which may refuse
            denied = answer.get("error") == "org.freedesktop.DBus.Error.AccessDenied"
            assert denied == (name not in READING), (name, answer)
    assert {f"org.nm_mptcp1.{each}" for each in ("Sync", "Clear", "ClearAll", "Resume", "Reload", "SetMode")} < tried
    assert "org.freedesktop.DBus.Properties.Set" in tried
    assert bed.footprint() == before
    assert bed.status()["mode_from"] == "configuration"
    # Root may, but a property is changed by nobody.
    (answer,) = calls(bed, [ROOT, "org.freedesktop.DBus.Properties", "Set", "ssv", "org.nm_mptcp1", "Mode", "off"])
    assert answer["error"] == "org.freedesktop.DBus.Error.PropertyReadOnly"
    assert up.wifi.address in objects(bed)


def test_after_the_bus_was_away_the_objects_are_there_again(bed: Bed, up: Links) -> None:
    bed.stop_bus()
    bed.start_bus()
    wait_for(
        "the service is back on the bus",
        lambda: "reply" in calls(bed, MANAGED)[0] and set(objects(bed)) == {up.wifi.address, up.lte.address},
    )
