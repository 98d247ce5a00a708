# SPDX-License-Identifier: GPL-2.0-or-later
"""``connection.mptcp-flags`` means what NetworkManager says, whoever makes the endpoint, and the two never fight."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.waits import wait_for
from .bed import DEFAULT_FLAGS, Bed
from .conftest import skip_without_tools
from .observe import Writes
from .uplinks import Uplink

V4, V6 = "10.1.0.50", "2001:db8:1::50"

#: flags, sysctl, default route, the endpoint's flags (None: no endpoint)
TABLE = [
    ("0x1", "1", True, None),
    ("0x2", "1", True, set()),
    ("0x2", "0", True, None),
    ("0x2", "1", False, None),
    ("0x6", "0", True, set()),
    ("0x6", "0", False, None),
    ("0xa", "1", False, set()),
    ("0xa", "0", False, None),
    ("0xe", "0", False, set()),
    ("0x10", "1", True, {"signal"}),
    ("0x20", "1", True, {"subflow"}),
    ("0x20", "0", True, None),
    ("0x20", "1", False, None),
    ("0x22", "1", True, {"subflow"}),
    ("0x28", "1", False, {"subflow"}),
    ("0x40", "1", True, {"backup"}),
    ("0x60", "1", True, {"subflow", "backup"}),
    ("0x80", "1", True, {"fullmesh"}),
    ("0xa0", "1", True, {"subflow", "fullmesh"}),
]


def static(bed: Bed, *, default_route: bool = True, flags: str = "0", name: str = "Ethernet") -> Uplink:
    """An Ethernet with an address of each family, given by hand."""
    network = bed.network("eth0", "10.1.0.0/24", "2001:db8:1::/64")
    uplink = bed.uplink("eth0", network)
    gateways = (f"ipv4.gateway {network.gateway}", "ipv6.gateway 2001:db8:1::1") if default_route else ()
    bed.profile(
        name, "eth0", "ipv4.method manual", f"ipv4.addresses {V4}/24", "ipv6.method manual", f"ipv6.addresses {V6}/64",
        f"connection.mptcp-flags {flags}", *gateways,
    )  # fmt: skip
    return uplink


def flags_of(bed: Bed) -> dict[str, frozenset[str]]:
    """The flags of each endpoint."""
    return {each.address: each.flags for each in bed.endpoints()}


WHO = {
    "NetworkManager alone": {"product": False, "dropin": True},
    "with nm-mptcp": {},
    "with nm-mptcp, no drop-in": {"dropin": False},
}


@pytest.fixture(scope="module", params=list(WHO))
def ethernet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, installed: Path
) -> Iterator[Bed]:
    """One bed for the whole table: an Ethernet profile that is not up."""
    skip_without_tools()
    bed = Bed(tmp_path_factory.mktemp("table"), installed=installed, **WHO[request.param])
    try:
        if bed.product:
            bed.start_service()
        static(bed)
        yield bed
    finally:
        bed.stop()


@pytest.mark.parametrize(("flags", "sysctl", "default_route", "expected"), TABLE)
def test_explicit_flags(ethernet: Bed, flags: str, sysctl: str, default_route: bool, expected: set[str] | None) -> None:
    bed = ethernet
    bed.machine.sysctl(**{"net.mptcp.enabled": sysctl})
    gateways = ("10.1.0.1", "2001:db8:1::1") if default_route else ("", "")
    bed.modify(
        "Ethernet", f"connection.mptcp-flags {flags}", f"ipv4.gateway {gateways[0]}", f"ipv6.gateway {gateways[1]}"
    )
    bed.up("Ethernet")
    wanted = {} if expected is None else {V4: expected, V6: expected}
    wait_for(f"endpoints {wanted}", lambda: flags_of(bed) == wanted)
    if bed.product:
        bed.sync()
        assert flags_of(bed) == wanted
    bed.down("Ethernet")
    wait_for("nothing is left", lambda: not bed.endpoints())


@pytest.mark.parametrize("default_route", [True, False])
def test_default_flags_are_ours_and_need_a_default_route(bed: Bed, default_route: bool) -> None:
    bed.start_service()
    static(bed, default_route=default_route)
    bed.up("Ethernet")
    if default_route:
        bed.wait_endpoint(V4)
        bed.wait_endpoint(V6)
    bed.sync()
    assert flags_of(bed) == ({V4: DEFAULT_FLAGS, V6: DEFAULT_FLAGS} if default_route else {})
    path = bed.status().path(V4)
    assert path["state"] == ("active" if default_route else "waiting")
    assert path["reason"]


def test_default_flags_need_the_sysctl(bed: Bed) -> None:
    bed.machine.sysctl(**{"net.mptcp.enabled": "0"})
    bed.start_service()
    static(bed)
    bed.up("Ethernet")
    bed.sync()
    assert flags_of(bed) == {}
    assert bed.status()["kernel"]["mptcp_enabled"] is False
    assert bed.status().path(V4)["state"] == "excluded"


def test_the_sysctl_switched_off_by_hand_is_seen_by_who_asks_next(bed: Bed) -> None:
    """No event tells of it."""
    bed.start_service()
    static(bed)
    bed.up("Ethernet")
    bed.wait_endpoint(V4)
    bed.sync()
    for off, state in (("0", "excluded"), ("1", "active")):
        bed.machine.sysctl(**{"net.mptcp.enabled": off})
        status = bed.status()
        assert status["kernel"]["mptcp_enabled"] is (off == "1")
        assert status.path(V4)["state"] == state
        assert bool(bed.endpoint(V4)) is (off == "1")


@pytest.mark.parametrize(
    ("flags", "flags_from", "owner"),
    [("0x62", "profile", "networkmanager"), ("0", "kind", "nm-mptcp")],
)
def test_status_says_where_the_flags_come_from_and_who_owns_the_endpoint(
    bed: Bed, flags: str, flags_from: str, owner: str
) -> None:
    bed.start_service()
    static(bed, flags=flags)
    bed.up("Ethernet")
    bed.wait_endpoint(V6)
    bed.sync()
    for address in (V4, V6):
        path = bed.status().path(address)
        assert (path["flags_from"], path["owner"], path["state"]) == (flags_from, owner, "active")


def test_explicit_flags_get_routing_and_limits_from_us(bed: Bed) -> None:
    bed.start_service()
    static(bed, flags="0x22")
    bed.up("Ethernet")
    bed.wait_endpoint(V6)
    bed.sync()
    for address in (V4, V6):
        assert len(bed.rules(address)) == 4
        assert bed.default_of(address)
    assert bed.path_manager.limits()["add_addr_accepted"] >= 1


def test_a_disabled_profile_is_excluded_and_says_why(bed: Bed) -> None:
    bed.start_service()
    static(bed, flags="0x1")
    bed.up("Ethernet")
    bed.sync()
    path = bed.status().path(V4)
    assert path["state"] == "excluded"
    assert "disabled" in path["reason"]
    assert bed.rules(V4) == []


# --- NetworkManager owns the endpoint


def _only_the_leaving_endpoint_was_touched(writes: Writes) -> None:
    """The one of the link that goes down is taken out before its address goes, since another path stays."""
    assert [write for write in writes.all if "endpoint" in write or "flags" in write] in ([], ["delete endpoint"])


@pytest.mark.bed(dropin=False)
def test_without_the_dropin_networkmanager_owns_and_status_says_so(bed: Bed) -> None:
    service = bed.start_service()
    static(bed)
    bed.up("Ethernet")
    bed.wait_endpoint(V4)
    bed.wait_endpoint(V6)
    bed.sync()
    before = bed.endpoints()
    with Writes(bed, service.program) as writes:
        _another_profile_comes_and_goes(bed)
        bed.reapply("eth0")
        bed.sync()
    _only_the_leaving_endpoint_was_touched(writes)
    assert [each for each in bed.endpoints() if each.device == "eth0"] == list(before)
    assert bed.status().path(V4)["owner"] == "networkmanager"
    assert bed.status().path(V4)["flags_from"] == "networkmanager"


@pytest.mark.bed(dropin=False)
def test_a_dropin_that_came_after_activation_does_not_count_yet(bed: Bed) -> None:
    service = bed.start_service()
    static(bed)
    bed.up("Ethernet")
    bed.wait_endpoint(V4)
    bed.wait_endpoint(V6)
    before = bed.endpoints()
    bed.dropin(True)
    bed.reload_networkmanager()
    with Writes(bed, service.program) as writes:
        _another_profile_comes_and_goes(bed)
        bed.reapply("eth0")
        bed.sync()
    _only_the_leaving_endpoint_was_touched(writes)
    assert [each for each in bed.endpoints() if each.device == "eth0"] == list(before)
    assert bed.status().path(V4)["owner"] == "networkmanager"
    # From the next activation on it does.
    bed.up("Ethernet")
    bed.wait_endpoint(V4)
    bed.wait_endpoint(V6)
    bed.sync()
    assert flags_of(bed) == {V4: DEFAULT_FLAGS, V6: DEFAULT_FLAGS}
    assert bed.status().path(V4)["owner"] == "nm-mptcp"


@pytest.mark.bed(dropin=False)
def test_a_service_that_comes_late_takes_nothing_over(bed: Bed) -> None:
    bed.without_dispatcher_scripts()
    static(bed)
    bed.up("Ethernet")
    before = (bed.wait_endpoint(V4), bed.wait_endpoint(V6))
    bed.start_service()
    bed.sync()
    assert (bed.endpoint(V4), bed.endpoint(V6)) == before
    assert bed.status().path(V6)["owner"] == "networkmanager"


@pytest.mark.bed(configuration="[connection-mine]\nconnection.mptcp-flags=0x62\n")
def test_an_administrators_own_default_is_networkmanagers_to_apply(bed: Bed) -> None:
    bed.start_service()
    static(bed)
    bed.up("Ethernet")
    bed.wait_endpoint(V4)
    bed.wait_endpoint(V6)
    bed.sync()
    assert flags_of(bed) == {V4: {"subflow", "backup"}, V6: {"subflow", "backup"}}
    assert bed.status().path(V4)["owner"] == "networkmanager"


@pytest.mark.bed(configuration="[connection-mine]\nmatch-device=interface-name:eth0\nconnection.mptcp-flags=0x1\n")
def test_a_default_for_some_devices_counts_for_these(bed: Bed) -> None:
    bed.start_service()
    static(bed)
    other = bed.uplink("eth9", dhcp="10.9.0.0/24")
    bed.profile("other", "eth9")
    bed.up("Ethernet", "other")
    bed.wait_endpoint(other.address)
    bed.sync()
    assert set(flags_of(bed)) == {other.address}
    assert "disabled" in bed.status().path(V4)["reason"]


def _another_profile_comes_and_goes(bed: Bed) -> None:
    """What makes NetworkManager look at all endpoints again."""
    other = bed.uplink("eth9", dhcp="10.9.0.0/24")
    bed.profile("other", "eth9", "connection.mptcp-flags 0x22")
    bed.up("other")
    bed.wait_endpoint(other.address)
    bed.down("other")
    bed.wait_no_endpoint(other.address)


# --- the flags change


@pytest.mark.parametrize("how", ["reapply", "up"])
def test_a_profiles_flags_are_changed_and_changed_back(bed: Bed, how: str) -> None:
    bed.start_service()
    static(bed)
    bed.up("Ethernet")
    bed.wait_endpoint(V6)
    for flags, expected in (("0x62", {"subflow", "backup"}), ("0x1", None), ("0", DEFAULT_FLAGS)):
        bed.modify("Ethernet", f"connection.mptcp-flags {flags}")
        if how == "up":
            bed.up("Ethernet")
        else:
            bed.reapply("eth0")
        wanted = {} if expected is None else {V4: expected, V6: expected}
        wait_for(f"endpoints with {flags}", lambda wanted=wanted: flags_of(bed) == wanted)
        bed.sync()
        assert flags_of(bed) == wanted, flags


def test_endpoints_of_ours_live_through_what_others_do(bed: Bed) -> None:
    bed.start_service()
    static(bed)
    bed.up("Ethernet")
    bed.wait_endpoint(V4)
    bed.wait_endpoint(V6)
    bed.sync()
    before = bed.endpoints()
    _another_profile_comes_and_goes(bed)
    bed.reapply("eth0")
    bed.sync()
    assert bed.endpoints() == before
