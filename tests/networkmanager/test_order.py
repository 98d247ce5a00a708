# SPDX-License-Identifier: GPL-2.0-or-later
"""The endpoint comes last: when address, route and rules are ready, in whatever order and however late they come.

The kernel tries an endpoint once on each connection, so a subflow on a connection that was open before proves the order.
"""

from __future__ import annotations

import time

import pytest

from ..support.waits import wait_for
from .bed import SERVER, SERVER6, Bed
from .observe import Writes
from .traffic import Connection, EchoServer
from .uplinks import Uplink


@pytest.fixture
def wifi(bed: Bed) -> Uplink:
    """Service running, a Wi-Fi with both families up."""
    EchoServer(bed.far)
    bed.start_service()
    uplink = bed.uplink("wlan0", dhcp="10.1.0.0/24", ra="2001:db8:1::/64")
    bed.profile("Wi-Fi", "wlan0", "ipv6.method auto", "ipv4.route-metric 50", "ipv6.route-metric 50")
    bed.up("Wi-Fi")
    bed.wait_endpoint(uplink.address)
    bed.wait_endpoint(uplink.address6())
    bed.sync()
    return uplink


@pytest.mark.usefixtures("wifi")
def test_the_endpoint_is_the_last_thing_written_and_the_first_taken_away(bed: Bed) -> None:
    assert bed.service
    lte = bed.uplink("wwan0", dhcp="10.2.0.0/24")
    bed.profile("LTE", "wwan0")
    with Writes(bed, bed.service.program) as coming:
        bed.up("LTE")
        bed.wait_endpoint(lte.address)
        bed.sync()
    steps = [write for write in coming.all if write.startswith(("RTM_", "add endpoint"))]
    assert steps.count("RTM_NEWRULE") == 4
    assert steps.count("add endpoint") == 1
    assert steps[-1] == "add endpoint"
    assert max(i for i, write in enumerate(steps) if write == "RTM_NEWROUTE") < steps.index("RTM_NEWRULE")
    with Writes(bed, bed.service.program) as going:
        bed.sh("ip route del default dev wwan0")
        bed.wait_no_endpoint(lte.address)
        bed.sync()
    assert going.all[0] == "delete endpoint"
    assert going.all.count("delete endpoint") == 1


@pytest.mark.usefixtures("wifi")
def test_an_address_that_comes_late(bed: Bed) -> None:
    connection = Connection(bed.machine, SERVER)
    network = bed.network("wwan0", "10.2.0.0/24")
    lte = bed.uplink("wwan0", network)
    bed.profile("LTE", "wwan0")
    bed.nmcli("--wait", "0", "connection", "up", "LTE")
    wait_for("it waits for a lease", lambda: "wwan0:connecting" in bed.nmcli("-g", "DEVICE,STATE", "device"))
    bed.sync()
    assert not bed.endpoint(lte.address)
    network.serve_dhcp()
    connection.wait_subflow(lte.address, seconds=20)


@pytest.mark.usefixtures("wifi")
def test_a_tentative_address_waits(bed: Bed) -> None:
    connection = Connection(bed.machine, SERVER6)
    network = bed.network("wwan0", prefix6="2001:db8:2::/64")
    network.add_router()
    lte = bed.uplink("wwan0", network)
    dad = {"accept_dad": "1", "dad_transmits": "3"}
    bed.machine.sysctl(**{f"net.ipv6.conf.wwan0.{name}": value for name, value in dad.items()})
    bed.profile("LTE", "wwan0", "ipv6.method auto", "ipv4.method disabled", "ipv6.may-fail no")
    bed.nmcli("--wait", "0", "connection", "up", "LTE")
    wait_for("a tentative address", lambda: set(lte.addresses(without=())) - set(lte.addresses()))
    (address,) = lte.addresses(without=())

    def usable() -> bool:
        endpoint = bed.endpoint(address)
        if address in lte.addresses():  # asked last: it may become usable in between
            return True
        assert not endpoint
        return False

    wait_for("the address is usable", usable, seconds=30)
    connection.wait_subflow(address)
    assert bed.status().path(address)["state"] == "active"


@pytest.mark.usefixtures("wifi")
def test_a_duplicate_address_is_no_path(bed: Bed) -> None:
    network = bed.network("wwan0", prefix6="2001:db8:2::/64")
    network.add_address("2001:db8:2::50/64")
    bed.uplink("wwan0", network)
    bed.machine.sysctl(**{"net.ipv6.conf.wwan0.accept_dad": "1", "net.ipv6.conf.wwan0.dad_transmits": "1"})
    bed.profile("LTE", "wwan0", "ipv4.method disabled", "ipv6.method manual", "ipv6.addresses 2001:db8:2::50/64",
                "ipv6.gateway 2001:db8:2::1")  # fmt: skip
    bed.nmcli("--wait", "0", "connection", "up", "LTE")
    wait_for("NetworkManager gives up", lambda: "wwan0:disconnected" in bed.nmcli("-g", "DEVICE,STATE", "device"))
    bed.sync()
    assert not bed.endpoint("2001:db8:2::50")


@pytest.mark.usefixtures("wifi")
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_a_route_five_seconds_late(bed: Bed, family: str) -> None:
    connection = Connection(bed.machine, SERVER6 if family == "IPv6" else SERVER)
    network = bed.network("wwan0", "10.2.0.0/24", "2001:db8:2::/64")
    bed.uplink("wwan0", network)
    bed.profile(
        "LTE", "wwan0", "ipv4.method manual", "ipv4.addresses 10.2.0.50/24",
        "ipv6.method manual", "ipv6.addresses 2001:db8:2::50/64",
    )  # fmt: skip
    bed.up("LTE")
    bed.sync()
    address, gateway = ("2001:db8:2::50", "2001:db8:2::1") if family == "IPv6" else ("10.2.0.50", "10.2.0.1")
    assert bed.status().path(address)["state"] != "active"
    time.sleep(5)  # the story is that it takes this long, and that nothing gives up meanwhile
    assert not bed.endpoint(address)
    number = "-6" if family == "IPv6" else "-4"
    bed.sh(f"ip {number} route add default via {gateway} dev wwan0 metric 700")
    connection.wait_subflow(address)
    assert bed.status().path(address)["state"] == "active"


@pytest.mark.usefixtures("wifi")
def test_a_router_that_speaks_late(bed: Bed) -> None:
    connection = Connection(bed.machine, SERVER6)
    network = bed.network("wwan0", prefix6="2001:db8:2::/64")
    router = network.add_router()
    router.says = router.says.__class__(router.says.prefixes, lifetime=0)
    lte = bed.uplink("wwan0", network)
    bed.profile("LTE", "wwan0", "ipv6.method auto", "ipv4.method disabled", "ipv6.may-fail no")
    bed.up("LTE")
    address = lte.address6()
    bed.sync()
    assert not bed.endpoint(address)
    router.advertise(lifetime=1800)
    connection.wait_subflow(address)


@pytest.mark.usefixtures("wifi")
def test_a_route_before_its_address(bed: Bed) -> None:
    connection = Connection(bed.machine, SERVER)
    network = bed.network("wwan0", "10.2.0.0/24")
    bed.uplink("wwan0", network)
    bed.profile("LTE", "wwan0", "ipv4.method manual", "ipv4.addresses 10.2.0.50/24", "ipv4.gateway 10.2.0.1")
    bed.up("LTE")
    bed.wait_endpoint("10.2.0.50")
    bed.modify("LTE", "ipv4.addresses 10.2.0.60/24")
    bed.reapply("wwan0")
    connection.wait_subflow("10.2.0.60")
    bed.sync()
    assert not bed.endpoint("10.2.0.50")
    assert bed.rules("10.2.0.50") == []


@pytest.mark.usefixtures("wifi")
def test_mptcp_switched_on_late(bed: Bed) -> None:
    bed.machine.sysctl(**{"net.mptcp.enabled": "0"})
    lte = bed.uplink("wwan0", dhcp="10.2.0.0/24")
    bed.profile("LTE", "wwan0")
    bed.up("LTE")
    bed.sync()
    assert not bed.endpoint(lte.address)
    bed.machine.sysctl(**{"net.mptcp.enabled": "1"})
    bed.sync()
    assert bed.endpoint(lte.address)
