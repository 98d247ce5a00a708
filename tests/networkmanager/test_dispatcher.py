# SPDX-License-Identifier: GPL-2.0-or-later
"""The dispatcher scripts: alone they do what the service does; beside it they cost next to nothing and hold up nobody."""

from __future__ import annotations

import contextlib
import re
import signal
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.waits import wait_for
from .bed import DEFAULT_FLAGS, PROTOCOL, Bed
from .uplinks import Links


def result(bed: Bed) -> dict[str, object]:
    """What the kernel has, but the ids of the endpoints, which only tell how many there were before."""
    found = bed.footprint()
    return found | {"endpoints": {(each.address, each.device, each.flags) for each in found["endpoints"]}}


def lte_flags(bed: Bed) -> frozenset[str] | None:
    """The flags of LTE's endpoint, if there is one."""
    endpoint = bed.endpoint("10.2.0.50")
    return endpoint.flags if endpoint else None


def history(bed: Bed, reached: Callable[[str, frozenset[str] | None], None]) -> None:
    """What happens to two links; ``reached`` is called after each step, with the flags that LTE's endpoint shall have."""
    bed.up("Wi-Fi", "LTE")
    reached("up", DEFAULT_FLAGS)
    bed.modify("LTE", "ipv4.routes 198.51.100.0/24 10.2.0.3")
    bed.reapply("wwan0")
    reached("reapply", DEFAULT_FLAGS)
    bed.modify("LTE", "connection.mptcp-flags 0x62")
    bed.reapply("wwan0")
    reached("other flags", frozenset({"subflow", "backup"}))
    bed.modify("LTE", "connection.mptcp-flags 0")
    bed.reapply("wwan0")
    reached("default flags again", DEFAULT_FLAGS)
    bed.down("LTE")
    reached("down", None)
    bed.down("Wi-Fi")
    reached("all down", None)


@pytest.mark.usefixtures("links")
def test_the_scripts_alone_give_what_the_service_gives(
    bed: Bed, installed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with_service: dict[str, dict[str, object]] = {}
    other = Bed(tmp_path_factory.mktemp("beside"), installed=installed)
    try:
        other.without_dispatcher_scripts()
        Links.plug_in(other)
        other.start_service()

        def note(step: str, flags: frozenset[str] | None) -> None:
            def synced() -> bool:
                other.sync()  # nothing else tells of a reapply that changes no address or route
                return lte_flags(other) == flags

            wait_for(f"{step}: {flags}", synced)
            with_service[step] = result(other)

        history(other, note)
    finally:
        other.stop()
    assert len(with_service["up"]["endpoints"]) == 2  # type: ignore[arg-type]
    assert with_service["all down"]["endpoints"] == set()

    def compare(step: str, flags: frozenset[str] | None) -> None:
        with contextlib.suppress(AssertionError):
            wait_for("the same as with the service", lambda: result(bed) == with_service[step])
        bed.scripts_are_done()
        assert result(bed) == with_service[step], step
        assert lte_flags(bed) == flags

    history(bed, compare)
    assert bed.rules(protocol=PROTOCOL) == []


def test_a_changed_lease_is_followed_by_the_scripts_alone(bed: Bed) -> None:
    network = bed.network("wwan0", "10.2.0.0/24")
    network.serve_short_leases()
    bed.uplink("wwan0", network)
    bed.profile("LTE", "wwan0")
    bed.up("LTE")
    wait_for("the first gateway", lambda: bed.default_of("10.2.0.50")["gateway"] == "10.2.0.1")
    bed.scripts_are_done()
    network.leased_router = "10.2.0.2"

    def gateway() -> str | None:
        main = [route for route in bed.routes("main") if route["dst"] == "default"]
        return main[0].get("gateway") if main else None

    wait_for("NetworkManager takes the lease over", lambda: gateway() == "10.2.0.2")
    # NetworkManager 1.42 sends dhcp4-change for the first lease only (seen: none in 6 renewals), so the event is sent here.
    bed.machine.run("/usr/lib/NetworkManager/dispatcher.d/10-nm-mptcp", "wwan0", "dhcp4-change")
    assert bed.default_of("10.2.0.50")["gateway"] == "10.2.0.2"
    assert bed.wait_endpoint("10.2.0.50").flags == DEFAULT_FLAGS


@pytest.mark.usefixtures("links")
def test_pre_actions_do_nothing_without_the_service(bed: Bed) -> None:
    bed.up("Wi-Fi")
    bed.down("Wi-Fi")
    bed.scripts_are_done()
    actions = re.findall(r"req:\d+ '([\w-]+)'(?: \[[\w-]*\])?: start running", bed.dispatcher.output())
    assert "pre-up" in actions
    assert "pre-down" in actions
    others = [action for action in actions if not action.startswith("pre-") and action != "hostname"]
    assert len(bed.started_commands()) <= len(others)
    assert set(bed.started_commands()) == {"apply"}


@pytest.mark.usefixtures("links")
def test_beside_the_service_no_command_is_started(bed: Bed) -> None:
    bed.start_service()
    already = len(bed.started_commands())
    bed.up("Wi-Fi", "LTE")
    bed.reapply("wwan0")
    bed.down("LTE")
    bed.scripts_are_done()
    assert bed.started_commands()[already:] == []


def test_the_path_is_ready_when_networkmanager_calls_the_connection_up(bed: Bed, links: Links) -> None:
    bed.start_service()
    for _ in range(5):
        bed.up("LTE")
        assert bed.endpoint(links.lte.address)
        assert len(bed.rules(links.lte.address)) == 4
        bed.down("LTE")
        bed.scripts_are_done()


@pytest.mark.usefixtures("links")
def test_no_activation_waits_long_for_a_script(bed: Bed, figures: dict[str, str]) -> None:
    bed.start_service()
    for _ in range(10):
        bed.up("LTE")
        bed.down("LTE")
    bed.scripts_are_done()
    log = bed.dispatcher.output()
    at = r"([\d:.]+): (req:\d+) 'pre-(?:up|down)' \[wwan0\]: "
    begins = {request: clock for clock, request in re.findall(at + "start running", log)}
    ends = {request: clock for clock, request in re.findall(at + "completed", log)}
    took = [(seconds(ends[request]) - seconds(begins[request])) * 1000 for request in begins]
    assert len(took) == 20
    figures["pre-up or pre-down script beside the service, ms"] = (
        f"median {statistics.median(took):.0f}, max {max(took):.0f} of {len(took)}"
    )


def seconds(clock: str) -> float:
    """The time of day of a log line."""
    hours, minutes, rest = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def test_a_service_that_hangs_delays_but_does_not_fail_an_activation(bed: Bed, links: Links) -> None:
    service = bed.start_service()
    service.program.send(signal.SIGSTOP)
    bed.up("Wi-Fi")
    assert "Wi-Fi" in bed.nmcli("-g", "NAME", "connection", "show", "--active")
    service.program.send(signal.SIGCONT)
    bed.wait_endpoint(links.wifi.address)


@pytest.mark.usefixtures("links")
def test_a_command_that_fails_does_not_fail_an_activation(bed: Bed) -> None:
    bed.machine.run("mount", "--bind", "/bin/false", "/usr/bin/nm-mptcp")
    bed.up("Wi-Fi")
    bed.down("Wi-Fi")
    bed.scripts_are_done()
    log = bed.dispatcher.output()
    assert "failed" not in "\n".join(line for line in log.splitlines() if "10-nm-mptcp" in line)


@pytest.mark.usefixtures("links")
def test_actions_that_do_not_concern_us_start_nothing(bed: Bed) -> None:
    bed.scripts_are_done()
    already = bed.started_commands()
    script = "/usr/lib/NetworkManager/dispatcher.d/10-nm-mptcp"
    for action in ("hostname", "dns-change", "device-add", "device-delete", "something-new", ""):
        assert bed.machine.attempt(script, "wwan0", action).returncode == 0
    assert bed.started_commands() == already
    assert bed.machine.attempt(script).returncode == 0


def test_scripts_at_the_same_time_do_not_get_in_each_others_way(bed: Bed, links: Links) -> None:
    bed.without_dispatcher_scripts()
    bed.up("Wi-Fi", "LTE")
    script = "/usr/lib/NetworkManager/dispatcher.d/10-nm-mptcp"
    said = bed.machine.run("sh", "-c", f"for n in 1 2 3 4; do {script} wwan0 up & done; wait")
    assert said == ""
    assert {each.address for each in bed.endpoints()} == {links.wifi.address, links.lte.address}
    assert len(bed.rules(protocol=PROTOCOL)) == 8
