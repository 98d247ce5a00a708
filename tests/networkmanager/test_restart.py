# SPDX-License-Identifier: GPL-2.0-or-later
"""The service may die, stop and start at any moment; ``clear`` puts back what was there before."""

from __future__ import annotations

import pytest

from ..support.waits import wait_for
from .bed import PROTOCOL, SERVER, Bed, command
from .observe import writes_of
from .traffic import Connection, EchoServer, over_both, reaches
from .uplinks import Links


def test_after_kill_what_went_stale_is_cleaned_up_and_the_valid_is_untouched(bed: Bed, up: Links) -> None:
    connection = over_both(bed, up)
    wifi = bed.wait_endpoint(up.wifi.address)
    assert bed.service
    bed.service.kill()
    bed.down("LTE")
    third = bed.uplink("eth0", dhcp="10.3.0.0/24")
    bed.profile("Ethernet", "eth0", "ipv4.route-metric 800")
    bed.up("Ethernet")
    assert bed.endpoint(up.lte.address), "somebody else cleaned up; this test proves nothing"
    subflows = {each for each in connection.subflows() if each[0] == up.wifi.address}
    bed.start_service()
    bed.sync()
    assert {each.address for each in bed.endpoints()} == {up.wifi.address, third.address}
    assert bed.endpoint(up.wifi.address) == wifi
    assert bed.rules(up.lte.address) == []
    assert {rule["src"] for rule in bed.rules(protocol=PROTOCOL)} == {up.wifi.address, third.address}
    assert subflows <= connection.subflows()
    connection.echo()


def test_after_kill_a_link_that_came_back_with_another_index_is_put_right(bed: Bed, up: Links) -> None:
    assert bed.service
    bed.service.kill()
    up.lte.remove()
    up.lte.create()
    bed.start_service()
    bed.up("LTE")
    bed.sync()
    assert bed.wait_endpoint(up.lte.address).device == "wwan0"
    assert bed.default_of(up.lte.address)["dev"] == "wwan0"
    assert len(bed.rules(protocol=PROTOCOL)) == 8


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_restart_cuts_nothing(bed: Bed, up: Links, how: str) -> None:
    connection = over_both(bed, up)
    before, subflows = bed.footprint(), connection.subflows()
    assert bed.service
    if how == "kill":
        bed.service.kill()
    else:
        assert bed.service.stop() == 0
    assert bed.footprint() == before
    connection.echo()
    bed.start_service()
    bed.sync()
    assert bed.footprint() == before
    assert connection.subflows() == subflows
    connection.echo()
    for link in (up.wifi, up.lte):
        assert bed.status().path(link.address)["owner"] == "nm-mptcp"


@pytest.mark.usefixtures("up")
def test_the_first_look_after_a_restart_writes_nothing_to_the_kernel(bed: Bed) -> None:
    assert bed.service
    bed.service.stop()
    assert writes_of(bed, *command(), "apply") == []


def test_after_a_restart_ours_is_still_ours_to_take_away(bed: Bed, up: Links) -> None:
    assert bed.service
    bed.service.kill()
    bed.start_service()
    bed.down("LTE")
    bed.wait_no_endpoint(up.lte.address)
    bed.sync()
    assert bed.rules(up.lte.address) == []


def test_nothing_of_ours_is_recorded_that_somebody_else_made_meanwhile(bed: Bed, up: Links) -> None:
    assert bed.service
    bed.service.kill()
    bed.sh(f"ip mptcp endpoint del id {bed.wait_endpoint(up.lte.address).id}")
    bed.sh(f"ip mptcp endpoint add {up.lte.address} dev wwan0 id 99 signal")
    bed.start_service()
    bed.sync()
    endpoint = bed.wait_endpoint(up.lte.address)
    assert (endpoint.id, endpoint.flags) == (99, {"signal"})
    assert bed.status().path(up.lte.address)["owner"] != "nm-mptcp"


@pytest.mark.parametrize("service", ["stopped", "running"])
def test_clear_puts_everything_back(bed: Bed, links: Links, service: str) -> None:
    bed.without_dispatcher_scripts()
    bed.up("Wi-Fi", "LTE")
    before = bed.footprint()
    running = bed.start_service()
    for link in (links.wifi, links.lte):
        bed.wait_endpoint(link.address)
    bed.sync()
    assert bed.footprint() != before
    if service == "stopped":
        running.stop()
    bed.nm_mptcp("clear")
    if service == "stopped":
        assert bed.footprint() == before
        assert writes_of_clear(bed) == []
    else:
        # The service decides whether it goes on; what it must not do is leave half.
        bed.sync()
        running.stop()
        bed.nm_mptcp("clear")
        assert bed.footprint() == before


def writes_of_clear(bed: Bed) -> list[str]:
    """What a second ``clear`` writes."""
    return writes_of(bed, *command(), "clear")


@pytest.mark.usefixtures("up")
def test_clear_leaves_limits_that_an_administrator_changed_since(bed: Bed) -> None:
    assert bed.service
    bed.service.stop()
    bed.sh("ip mptcp limits set subflows 5 add_addr_accepted 7")
    bed.nm_mptcp("clear")
    assert bed.path_manager.limits() == {"subflows": 5, "add_addr_accepted": 7}


def test_clear_leaves_networkmanagers_own_endpoints(bed: Bed, links: Links) -> None:
    bed.modify("LTE", "connection.mptcp-flags 0x62")
    service = bed.start_service()
    links.bring_up()
    service.stop()
    bed.nm_mptcp("clear")
    assert [each.address for each in bed.endpoints()] == [links.lte.address]
    assert bed.rules(protocol=PROTOCOL) == []


@pytest.mark.usefixtures("up")
def test_clear_works_without_networkmanager(bed: Bed) -> None:
    assert bed.service
    bed.service.stop()
    bed.stop_networkmanager()
    bed.nm_mptcp("clear")
    assert bed.endpoints() == ()
    assert bed.rules(protocol=PROTOCOL) == []


@pytest.mark.parametrize("service", ["stopped", "running"])
def test_clear_leaves_what_a_live_connection_depends_on_and_says_so(bed: Bed, up: Links, service: str) -> None:
    connection = over_both(bed, up)
    third = bed.uplink("eth0", dhcp="10.3.0.0/24")
    bed.profile("Ethernet", "eth0", "ipv4.route-metric 800")
    bed.up("Ethernet")
    bed.wait_endpoint(third.address)
    connection.wait_subflow(third.address)
    bed.sh(f"ss -K src {third.address} >/dev/null")
    assert bed.service
    if service == "stopped":
        bed.service.stop()
    said = bed.nm_mptcp("clear")
    left = {address for address, _ in connection.subflows()}
    assert left >= {up.wifi.address, up.lte.address}
    assert {each.address for each in bed.endpoints()} == left
    assert {rule["src"] for rule in bed.rules(protocol=PROTOCOL)} == left
    (line,) = [line for line in said.splitlines() if line.startswith("Kept for live connections: ")]
    assert ", ".join(sorted(left)) in line
    assert "nm-mptcp clear --force" in line
    if service == "running":
        assert bed.status()["kept"] == sorted(left)
    connection.echo()
    assert {address for address, _ in connection.subflows()} == left
    assert "live connections" not in bed.nm_mptcp("clear", "--force")
    assert bed.endpoints() == ()
    assert bed.rules(protocol=PROTOCOL) == []


def test_what_clear_left_is_ours_again_with_apply_and_goes_with_the_next_clear(bed: Bed, up: Links) -> None:
    connection = over_both(bed, up)
    before = {each.address: each.id for each in bed.endpoints()}
    bed.nm_mptcp("clear")
    bed.nm_mptcp("apply")
    bed.sync()
    assert {each.address: each.id for each in bed.endpoints()} == before
    assert bed.status()["kept"] == []
    assert {bed.status().path(address)["owner"] for address in before} == {"nm-mptcp"}
    bed.nm_mptcp("clear")
    connection.close()
    wait_for("the connection has ended", lambda: not connection.subflows())
    assert "live connections" not in bed.nm_mptcp("clear")
    assert bed.endpoints() == ()
    assert bed.rules(protocol=PROTOCOL) == []


def test_what_clear_left_networkmanager_takes_over_when_the_package_is_gone(bed: Bed, links: Links) -> None:
    """Only with the flags of its own default: other ones it replaces."""
    EchoServer(bed.far)
    bed.write("/run/nm-mptcp/conf.d/50-test.conf", "[path-as-networkmanager]\nflags=subflow\n")
    service = bed.start_service()
    bed.up("Wi-Fi")
    before = bed.wait_endpoint(links.wifi.address)
    connection = Connection(bed.machine, SERVER)
    service.stop()
    assert "live connections" in bed.nm_mptcp("clear")
    bed.dropin(False)
    bed.reload_networkmanager()
    bed.up("LTE")  # NetworkManager's own
    bed.wait_endpoint(links.lte.address)
    bed.reapply("wlan0")
    connection.echo()
    assert bed.endpoint(links.wifi.address) == before
    bed.down("Wi-Fi")
    bed.wait_no_endpoint(links.wifi.address)


def test_what_clear_left_does_not_cut_the_address_off_when_it_comes_back(bed: Bed, up: Links) -> None:
    """Nobody is there any more to take away what ends a look-up."""
    connection = over_both(bed, up)
    assert bed.service
    bed.service.stop()
    bed.nm_mptcp("clear")
    connection.close()
    for name in ("Wi-Fi", "LTE"):
        bed.down(name)
    bed.up("Wi-Fi", "LTE")
    for link in (up.wifi, up.lte):
        assert reaches(bed.machine, SERVER, source=link.address)


@pytest.mark.usefixtures("up")
def test_apply_after_clear_is_a_fresh_start(bed: Bed) -> None:
    assert bed.service
    bed.service.stop()
    before = bed.footprint()
    bed.nm_mptcp("clear")
    bed.nm_mptcp("apply")
    after = bed.footprint()
    assert (after["rules"], after["tables"], after["limits"]) == (before["rules"], before["tables"], before["limits"])
    assert {each.address for each in after["endpoints"]} == {each.address for each in before["endpoints"]}


def test_a_lost_record_harms_nobody(bed: Bed, up: Links) -> None:
    connection = over_both(bed, up)
    before = bed.footprint()
    assert bed.service
    bed.service.kill()
    bed.machine.run("rm", "-rf", "/run/nm-mptcp")
    bed.start_service()
    bed.sync()
    assert bed.footprint() == before
    connection.echo()


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 99}', "\\0\\0\\0"])
def test_a_broken_record_is_said_and_harms_nobody(bed: Bed, content: str) -> None:
    before = bed.footprint()
    assert bed.service
    bed.service.kill()
    for file in bed.path("/run/nm-mptcp").iterdir():
        if file.is_file():
            file.write_text(content)
    bed.start_service()
    bed.sync()
    assert bed.footprint() == before


@pytest.mark.parametrize("administrator", [False, True])
def test_a_lost_record_leaves_no_setting_of_ours_behind(bed: Bed, links: Links, administrator: bool) -> None:
    """What an administrator set for all interfaces stays his."""
    name = "net.ipv4.conf.{}.ignore_routes_with_linkdown"
    names = [name.format(each) for each in ("wlan0", "wwan0")]
    bed.without_dispatcher_scripts()
    if administrator:
        bed.machine.sysctl(**dict.fromkeys([*names, name.format("default")], "1"))
    service = bed.start_service()
    links.bring_up()
    assert [bed.machine.read_sysctl(each) for each in names] == ["1", "1"]
    service.kill()
    bed.path("/run/nm-mptcp/state.json").unlink()
    bed.start_service()
    bed.sync()
    bed.nm_mptcp("clear", "--force")
    assert [bed.machine.read_sysctl(each) for each in names] == (["1", "1"] if administrator else ["0", "0"])
