# SPDX-License-Identifier: GPL-2.0-or-later
"""The running service and its configuration: every way to reload it, and files with errors."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from ..support.waits import wait_for
from ..unit.bad_configuration import BAD
from .bed import DEFAULT_FLAGS, REPOSITORY, SERVER, Bed, command
from .observe import Writes
from .traffic import Connection
from .uplinks import Links

SETTINGS = "/run/nm-mptcp/conf.d/50-test.conf"
BAD_FILE = "/run/nm-mptcp/conf.d/60-bad.conf"

LTE_IS_BACKUP = "[path-lte]\nmatch-connection=LTE\nflags=subflow,backup,laminar\n"
BACKUP = DEFAULT_FLAGS | {"backup"}


def reload(bed: Bed) -> subprocess.CompletedProcess[str]:
    where = ["--dest=org.nm_mptcp1", "/org/nm_mptcp1", "org.nm_mptcp1.Reload"]
    return bed.machine.attempt("dbus-send", "--system", "--print-reply", *where)


def flags_of(bed: Bed, address: str) -> frozenset[str]:
    return frozenset(bed.wait_endpoint(address).flags)


def test_a_reload_changes_the_priority_in_place_and_cuts_nothing(bed: Bed, up: Links) -> None:
    connection = Connection(bed.machine, SERVER)
    connection.wait_subflow(up.lte.address)
    subflows = connection.subflows()
    bed.write(SETTINGS, LTE_IS_BACKUP)
    assert bed.service
    with Writes(bed, bed.service.program) as writes:
        done = reload(bed)
    assert done.returncode == 0, done.stderr
    assert writes.all == ["set flags"]
    # The answer comes when it is done.
    assert flags_of(bed, up.lte.address) == BACKUP
    assert flags_of(bed, up.wifi.address) == DEFAULT_FLAGS
    path = bed.status().path(up.lte.address)
    assert (path["flags_from"], path["reason"]) == ("config", f"set by [path-lte] in {SETTINGS}")
    assert connection.subflows() == subflows
    connection.echo()


@pytest.mark.usefixtures("up")
def test_a_reload_of_what_has_not_changed_writes_nothing(bed: Bed) -> None:
    assert bed.service
    with Writes(bed, bed.service.program) as writes:
        assert reload(bed).returncode == 0
    assert writes.all == []


def test_sighup_reloads_and_notifies_systemd(bed: Bed, up: Links) -> None:
    assert bed.service
    bed.write(SETTINGS, LTE_IS_BACKUP)
    told = len(bed.service.notifications())
    bed.service.program.send(signal.SIGHUP)
    wait_for("LTE is backup", lambda: flags_of(bed, up.lte.address) == BACKUP)
    service = bed.service
    wait_for(
        "systemd is told", lambda: service.notifications()[-1] == "READY=1" and len(service.notifications()) > told
    )
    begun, when, *_ = [line for line in service.notifications()[told:] if not line.startswith("WATCHDOG")]
    assert begun == "RELOADING=1"
    assert int(when.removeprefix("MONOTONIC_USEC=")) > 0


def test_a_bad_file_changes_nothing_and_each_is_logged_in_one_line(bed: Bed, up: Links) -> None:
    assert bed.service
    bed.write(SETTINGS, LTE_IS_BACKUP)
    assert reload(bed).returncode == 0
    before = bed.footprint()
    tried = [bad for bad in BAD if bad.for_root_too]
    # What would change something, if it counted.
    bed.write(SETTINGS, "[main]\nmetered=exclude\n[path-all]\nflags=disabled\n[routing]\nenabled=no\n")
    for bad in tried:
        place = bed.path(BAD_FILE)
        bad.put(place)
        log = len(bed.service.log())
        done = reload(bed)
        place.rmdir() if place.is_dir() else place.unlink()
        line = f"{BAD_FILE}{bad.said}"
        assert done.returncode == 1, bad.name
        assert done.stderr == f"Error org.nm_mptcp1.Error.Failed: {line}\n", bad.name
        said = bed.service.log()[log:].splitlines()
        assert said == [f"nm-mptcp: ERROR: {line}; keeping the current configuration"], bad.name
    bed.service.program.send(signal.SIGHUP)  # now that the bad one is gone
    bed.wait_no_endpoint(up.lte.address)
    bed.write(SETTINGS, LTE_IS_BACKUP)
    assert reload(bed).returncode == 0
    after = bed.footprint()
    assert {each.address for each in after["endpoints"]} == {each.address for each in before["endpoints"]}
    assert after["rules"] == before["rules"]
    assert len(tried) >= 60


def test_after_a_bad_reload_all_stays_as_it_was(bed: Bed, up: Links) -> None:
    assert bed.service
    bed.write(SETTINGS, LTE_IS_BACKUP)
    assert reload(bed).returncode == 0
    before = bed.footprint()
    bed.write(SETTINGS, "[path-all]\nflags=disabled\n[main]\nmode=best\n")
    assert reload(bed).returncode == 1
    bed.service.program.send(signal.SIGHUP)
    wait_for("it is told", lambda: bed.service and bed.service.log().count("keeping the current configuration") == 2)
    bed.sync()
    assert bed.footprint() == before
    assert bed.status().path(up.lte.address)["flags_from"] == "config"


def test_the_service_comes_up_with_what_is_good(bed: Bed, links: Links) -> None:
    bed.without_dispatcher_scripts()
    bed.write(SETTINGS, LTE_IS_BACKUP + "[main]\nmode=best\n")
    bed.path(BAD_FILE).mkdir()
    service = bed.start_service()
    bed.up("Wi-Fi", "LTE")
    bed.wait_endpoint(links.wifi.address)
    assert flags_of(bed, links.lte.address) == BACKUP
    assert [line for line in service.log().splitlines() if "ERROR" in line] == [
        f"nm-mptcp: ERROR: {SETTINGS}, line 5: [main] mode=best: must be auto, handover, interactive, aggregate or off;"
        " ignored",
        f"nm-mptcp: ERROR: {BAD_FILE}: is a directory, not a file; ignored",
    ]


@pytest.mark.parametrize("restarted", [False, True], ids=["reload", "restart"])
def test_other_numbers_leave_nothing_behind(bed: Bed, up: Links, restarted: bool) -> None:
    connection = Connection(bed.machine, SERVER)
    connection.wait_subflow(up.lte.address)
    subflows = connection.subflows()
    bed.write(SETTINGS, "[routing]\ntables=500-509\nrule-priority=31800\nprotocol=201\n")
    assert bed.service
    if restarted:
        bed.service.stop()
        bed.start_service()
        bed.sync()
    else:
        assert reload(bed).returncode == 0
    ours = bed.rules(protocol="201")
    assert {rule["priority"] for rule in ours} == {31800}
    assert {rule["table"] for rule in ours if "table" in rule} == {"500", "501", "254"}
    routes = [route for route in bed.routes("all") if route["protocol"] in ("77", "201")]
    assert {(route["table"], route["protocol"]) for route in routes} == {("500", "201"), ("501", "201")}
    assert bed.rules(protocol="77") == []
    assert connection.subflows() == subflows
    connection.echo()
    bed.nm_mptcp("clear", "--force")
    assert bed.rules(protocol="201") == []
    assert not [route for route in bed.routes("all") if route["protocol"] in ("77", "201")]


def test_without_the_service_the_commands_read_it_as_well(bed: Bed, links: Links) -> None:
    bed.without_dispatcher_scripts()
    bed.write(SETTINGS, LTE_IS_BACKUP + "[routing]\ntables=500\nrule-priority=31900\n")
    bed.up("Wi-Fi", "LTE")
    shown = bed.nm_mptcp("apply", "--dry-run")
    assert "priority 31900 " in shown
    assert f"add {links.lte.address} dev wwan0 subflow backup" in shown
    bed.write(BAD_FILE, "[main]\nlimits=none\n")
    done = bed.machine.attempt(*command(), "apply")
    assert done.returncode == 0
    assert done.stderr == f"nm-mptcp: ERROR: {BAD_FILE}, line 2: [main] limits=none: must be auto or keep; ignored\n"
    assert flags_of(bed, links.lte.address) == BACKUP
    # One table for two interfaces: the second is routed as anybody's.
    assert {rule["table"] for rule in bed.rules(protocol="77") if "table" in rule} == {"500", "254"}
    assert f"[path-lte] in {SETTINGS}" in bed.nm_mptcp("status")
    bed.nm_mptcp("clear")
    assert bed.rules(protocol="77") == []
    assert bed.endpoints() == ()


@pytest.mark.usefixtures("links")
def test_a_named_file_that_cannot_be_read_is_refused(bed: Bed) -> None:
    done = bed.machine.attempt(*command(), "daemon", "--config", "/run/none.conf")
    assert (done.returncode, done.stderr) == (1, "nm-mptcp: /run/none.conf: no such file\n")


def test_a_service_that_was_started_with_a_file_reads_that_one_again(bed: Bed, up: Links) -> None:
    """What ``systemctl reload`` does: what is wrong in another place is no matter, and it is done when it counts."""
    assert bed.service
    bed.service.stop()
    bed.write("/run/mine.conf", "", 0o644)
    bed.start_service(config="/run/mine.conf")
    bed.write(SETTINGS, "[main]\nmode=worst\n")
    again = (*command(), *execute_of_reload())
    for settings, flags in ((LTE_IS_BACKUP, BACKUP), ("", DEFAULT_FLAGS)):
        bed.write("/run/mine.conf", settings, 0o644)
        bed.machine.run(*again)
        assert flags_of(bed, up.lte.address) == flags
    bed.write("/run/mine.conf", "[main]\nmode=best\n", 0o644)
    done = bed.machine.attempt(*again)
    assert (done.returncode, "/run/mine.conf, line 2: [main] mode=best: must be" in done.stderr) == (1, True)
    assert len(done.stderr.splitlines()) == 1
    assert flags_of(bed, up.lte.address) == DEFAULT_FLAGS
    bed.service.stop()
    done = bed.machine.attempt(*again)
    assert (done.returncode, done.stderr) == (1, "nm-mptcp: the service is not running\n")


def execute_of_reload() -> list[str]:
    """The arguments with which the unit calls our command."""
    unit = Path(REPOSITORY, "packaging/systemd/nm-mptcp.service.in").read_text(encoding="utf-8")
    (line,) = re.findall(r"^ExecReload=@BINDIR@/nm-mptcp (.*)$", unit, re.MULTILINE)
    return str(line).split()
