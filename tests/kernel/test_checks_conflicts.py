# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp check`` with unsuitable kernels, tools and other programs."""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nm_mptcp.checks import conflicts, routes, system, tools
from nm_mptcp.checks.finding import Result
from tests.support.badstates import bad_state_of
from tests.support.mounts import hide, mounts_of_its_own, show
from tests.support.network import Network
from tests.support.waits import wait_for

from .examined import Machine, packet_filter

MPTCPD = Path("/usr/libexec/mptcpd")

pytestmark = pytest.mark.usefixtures("alone")


#: A kernel that says 2.6 instead of its version (personality(2)): what a program of a container may see.
UNAME26 = 0x0020000


@pytest.fixture
def mounts() -> Iterator[None]:
    """Files can be hidden from this test alone."""
    with mounts_of_its_own():
        yield


@contextlib.contextmanager
def running(machine: Machine, name: str) -> Iterator[None]:
    """A process of that name, which does nothing."""
    program = machine.directory / name
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    process = subprocess.Popen([program, "100"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


# --- the kernel


@bad_state_of(system.version)
def test_a_kernel_that_is_too_old(machine: Machine) -> None:
    def old() -> None:
        ctypes.CDLL(None).personality(UNAME26)

    findings = json.loads(machine.command("--json", before=old).stdout)["findings"]
    finding = next(each for each in findings if each["check"] == "kernel-version")
    assert finding["result"] == "bad"
    assert "is too old: MPTCP endpoints came with 5.7" in finding["evidence"]
    assert finding["remedy"]["words"].startswith("install a newer kernel")
    assert machine.result("kernel-version") is Result.GOOD


@pytest.mark.usefixtures("mounts")
@bad_state_of(system.options)
def test_a_kernel_that_was_built_without_what_is_needed(machine: Machine) -> None:
    place = Path("/proc/config.gz")
    if not place.exists():
        pytest.skip("this kernel does not tell how it was built")
    before = {each.subject: each.result for each in machine.findings("kernel-options")}
    options = gzip.decompress(place.read_bytes()).decode()
    lacking = machine.directory / "config.gz"
    for option, result in (
        ("CONFIG_MPTCP_IPV6", Result.WARNING),
        ("CONFIG_INET_MPTCP_DIAG", Result.WARNING),
        ("CONFIG_IP_MULTIPLE_TABLES", Result.BAD),
    ):
        lacking.write_bytes(gzip.compress(options.replace(f"{option}=y", f"# {option} is not set").encode()))
        hide(place, lacking)
        finding = machine.found("kernel-options", option)
        assert finding.result is result
        assert finding.evidence.startswith(f"{option} is not set in /proc/config.gz: ")
        assert finding.remedy
        assert finding.remedy.words == f"install a kernel of your distribution that is built with {option}"
        show(place)
        assert {each.subject: each.result for each in machine.findings("kernel-options")} == before


# --- programs beside us


@bad_state_of(conflicts.mptcpd)
@pytest.mark.skipif(not MPTCPD.exists(), reason="mptcpd is not installed")
def test_mptcpd_on_the_same_machine(machine: Machine) -> None:
    assert machine.result("mptcpd") is Result.GOOD
    # The shell buries it.
    daemon = subprocess.Popen(["sh", "-c", f"{MPTCPD} --log=null & wait"], start_new_session=True)
    try:
        finding = wait_for(
            "mptcpd is seen", lambda: (found := machine.found("mptcpd")).result is Result.WARNING and found
        )
        machine.follow(finding)
        daemon.wait(10)
        assert machine.result("mptcpd") is Result.GOOD
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait(10)


@pytest.mark.usefixtures("mounts")
@bad_state_of(conflicts.networkd)
def test_networkd_that_deletes_foreign_routes_and_rules(machine: Machine) -> None:
    if not Path("/etc/systemd").is_dir():
        pytest.skip("there is no /etc/systemd")
    subprocess.run(["mount", "-t", "tmpfs", "none", "/etc/systemd"], check=True)
    assert machine.result("systemd-networkd") is Result.GOOD
    with running(machine, "systemd-networkd"):
        finding = machine.found("systemd-networkd")
        assert finding.result is Result.WARNING
        assert "ManageForeignRoutingPolicyRules, ManageForeignRoutes is yes" in finding.evidence
        machine.follow(finding)
        assert machine.found("systemd-networkd").evidence == "systemd-networkd keeps foreign rules and routes"
        Path("/etc/systemd/networkd.conf.d/95-later.conf").write_text("[Network]\nManageForeignRoutes=true\n")
        assert machine.found("systemd-networkd").evidence.endswith(": ManageForeignRoutes is yes")


@pytest.mark.usefixtures("mounts")
@bad_state_of(conflicts.cloud_setup)
def test_nm_cloud_setup_on_the_same_machine(machine: Machine, network: Network) -> None:
    if not Path("/etc/systemd").is_dir() or shutil.which("systemctl") is None:
        pytest.skip("this machine has no systemd installed")
    subprocess.run(["mount", "-t", "tmpfs", "none", "/etc/systemd"], check=True)
    units = Path("/etc/systemd/system")
    (units / "timers.target.wants").mkdir(parents=True)
    unit = units / "nm-cloud-setup.timer"
    unit.write_text("[Timer]\nOnBootSec=5min\n[Install]\nWantedBy=timers.target\n")
    (units / "timers.target.wants" / unit.name).symlink_to(unit)
    network.ip("rule add priority 30400 from 10.1.0.1 lookup 30400")
    finding = machine.found("nm-cloud-setup")
    assert finding.result is Result.WARNING
    assert finding.evidence.endswith("(10.1.0.1)")
    machine.follow(finding)
    # "reboot or delete its rules after"
    assert machine.result("nm-cloud-setup") is Result.WARNING
    network.ip("rule del priority 30400")
    assert machine.result("nm-cloud-setup") is Result.GOOD


@bad_state_of(conflicts.strongswan)
def test_strongswan_whose_table_comes_first(links: Machine, network: Network) -> None:
    with running(links, "charon"):
        assert links.result("strongswan") is Result.NOT_APPLICABLE
        network.ip("route add 192.168.77.0/24 dev v1 table 220")
        finding = links.found("strongswan")
        assert finding.result is Result.WARNING
        assert "packets to 192.168.77.0/24 take the tunnel on every path" in finding.evidence
        links.follow(finding)  # it shows what is there
        network.ip("route flush table 220")
        assert links.result("strongswan") is Result.NOT_APPLICABLE
    assert links.result("strongswan") is Result.GOOD


@pytest.mark.usefixtures("mounts")
@bad_state_of(routes.firewall)
def test_firewalld_that_filters_by_the_reverse_path(links: Machine, network: Network) -> None:
    # A copy of /etc, with its settings.
    etc = links.directory / "etc"
    (etc / "firewalld").mkdir(parents=True)
    (etc / "firewalld/firewalld.conf").write_text("DefaultZone=public\nIPv6_rpfilter=strict\n")
    options = f"lowerdir={etc}:/etc"
    if subprocess.run(["mount", "-t", "overlay", "-o", options, "none", "/etc"], check=False).returncode:
        pytest.skip("this kernel has no overlayfs")
    packet_filter("prerouting", "meta nfproto ipv6 fib saddr . iif oif missing drop")
    network.ip("mptcp endpoint add 2001:db8:2::1 dev v2 subflow")
    network.ip("-6 route del default dev v2")
    with running(links, "firewalld"):
        finding = links.found("firewall", "2001:db8:2::1")
        assert finding.result is Result.BAD
        assert "drops answers to this address" in finding.evidence
        assert finding.evidence.endswith("(firewalld: IPv6_rpfilter=strict)")
        assert finding.remedy
        network.ip("-6 route add default via 2001:db8:2::2 dev v2 table 5000")
        network.ip("-6 rule add from 2001:db8:2::1 lookup 5000")
        assert links.result("firewall", "2001:db8:2::1") is Result.GOOD


# --- tools


@pytest.mark.usefixtures("mounts")
@bad_state_of(tools.tools)
def test_a_tool_that_is_missing(machine: Machine) -> None:
    (machine.directory / "nothing").touch(mode=0o644)
    for name in tools.TOOLS:
        place = shutil.which(name)
        if place is None:
            continue  # mptcpize may be missing anyhow
        assert machine.result("tools", name) is Result.GOOD
        place = os.path.realpath(place)
        hide(place, machine.directory / "nothing")
        finding = machine.found("tools", name)
        show(place)
        assert finding.result is Result.WARNING
        assert f"{name} is not installed" in finding.evidence
        assert finding.remedy
        assert finding.remedy.words.startswith("install ")
        assert machine.result("tools", name) is Result.GOOD


@bad_state_of(tools.tools)
def test_an_ip_that_is_too_old(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    old = machine.directory / "ip"
    old.write_text(
        f'#!/bin/sh\n[ "$1" = -V ] && echo "ip utility, iproute2-5.10.0" || exec {shutil.which("ip")} "$@"\n'
    )
    old.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{machine.directory}:{os.environ['PATH']}")
        finding = next(each for each in machine.findings("tools") if each.subject == "ip")
        assert finding.result is Result.WARNING
        assert f"{old} is of iproute2 5.10.0" in finding.evidence
    assert next(each for each in machine.findings("tools") if each.subject == "ip").result is Result.GOOD
