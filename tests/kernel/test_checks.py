# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp check`` on a real kernel: each fault is made, found, and removed by the commands of its remedy.

Without NetworkManager: endpoints are made by hand, as by an administrator. tests/networkmanager/test_check.py has checks of
NetworkManager and the service.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nm_mptcp.checks import counters, paths, routes, system
from nm_mptcp.checks.collect import system_facts
from nm_mptcp.checks.finding import Finding, Result
from nm_mptcp.checks.reach import parse, reach
from nm_mptcp.config.files import ConfigurationFiles
from nm_mptcp.engine.record_file import Record
from nm_mptcp.kernel import sysctl
from nm_mptcp.kernel.sock_diag import subflows
from tests.support import bpf
from tests.support.badstates import bad_state_of
from tests.support.command import as_user
from tests.support.mounts import hide, mounts_of_its_own
from tests.support.mptcp import Echo, two_paths
from tests.support.network import Network
from tests.support.seccomp import knows_this_machine, refuse_mptcp_sockets
from tests.support.waits import wait_for

from .examined import Machine, packet_filter

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def settings_at_boot(machine: Machine, tmp_path: Path) -> Iterator[Path]:  # noqa: ARG001
    """Ours; /etc/sysctl.d is another one."""
    if not Path("/etc/sysctl.d").is_dir():
        pytest.skip("there is no /etc/sysctl.d")
    (tmp_path / "sysctl.d").mkdir()
    with mounts_of_its_own():
        hide("/etc/sysctl.d", tmp_path / "sysctl.d")
        yield tmp_path / "sysctl.d/90-nm-mptcp.conf"


# --- the kernel


@bad_state_of(system.enabled, system.mptcp_socket)
def test_mptcp_switched_off(machine: Machine, settings_at_boot: Path) -> None:
    sysctl.write("net/mptcp/enabled", 0)
    refused, off = machine.found("mptcp-socket"), machine.found("mptcp-enabled")
    assert (refused.result, off.result) == (Result.BAD, Result.BAD)
    assert refused.evidence == "socket(IPPROTO_MPTCP) fails with ENOPROTOOPT: net.mptcp.enabled is 0"
    machine.follow(off)
    assert (machine.result("mptcp-socket"), machine.result("mptcp-enabled")) == (Result.GOOD, Result.GOOD)
    assert settings_at_boot.read_text() == "net.mptcp.enabled=1\n"


def test_mptcp_is_switched_on_for_good_by_a_safe_remedy(machine: Machine, settings_at_boot: Path) -> None:
    sysctl.write("net/mptcp/enabled", 0)
    machine.command("--fix", "--yes")
    assert sysctl.read("net/mptcp/enabled") == "1"
    assert settings_at_boot.read_text() == "net.mptcp.enabled=1\n"
    subprocess.run(["sysctl", "-q", "-p", settings_at_boot], check=True)  # as at boot


@pytest.mark.skipif(not knows_this_machine(), reason="the number of socket() is not known on this machine")
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM], ids=errno.errorcode.get)
@bad_state_of(system.mptcp_socket)
def test_a_socket_that_a_filter_of_system_calls_refuses(machine: Machine, number: int) -> None:
    done = machine.command("--json", before=lambda: refuse_mptcp_sockets(number))
    (finding,) = [each for each in json.loads(done.stdout)["findings"] if each["check"] == "mptcp-socket"]
    assert (done.returncode, finding["result"]) == (2, "bad")
    assert f"fails with {errno.errorcode[number]}: this process has a seccomp filter" in finding["evidence"]
    assert finding["remedy"]["words"].startswith("run it outside of this container, sandbox or service")
    outside = machine.command("--json")
    (finding,) = [each for each in json.loads(outside.stdout)["findings"] if each["check"] == "mptcp-socket"]
    assert finding["result"] == "good"


@pytest.mark.skipif(bool(bpf.reason_to_skip()), reason=str(bpf.reason_to_skip()))
@bad_state_of(system.mptcp_socket)
def test_a_socket_that_a_bpf_program_refuses(machine: Machine) -> None:
    with bpf.refusing_mptcp_sockets() as group:

        def told() -> dict[str, Any]:
            done = machine.command("--json", before=group.enter)
            return next(each for each in json.loads(done.stdout)["findings"] if each["check"] == "mptcp-socket")

        finding = told()
        assert finding["result"] == "bad"
        assert f"fails with EPERM: a BPF program on the control group {group.place} forbids it" in finding["evidence"]
        assert finding["remedy"]["commands"] == [f"bpftool cgroup show {group.place}"]
        assert "detach it" in finding["remedy"]["words"]
        group.end()
        assert told()["result"] == "good"


@bad_state_of(system.path_manager)
def test_a_userspace_path_manager(machine: Machine) -> None:
    if sysctl.read("net/mptcp/path_manager") is None and sysctl.read("net/mptcp/pm_type") is None:
        pytest.skip("this kernel has one path manager")
    new = sysctl.read("net/mptcp/path_manager") is not None
    sysctl.write("net/mptcp/path_manager" if new else "net/mptcp/pm_type", "userspace" if new else 1)
    finding = machine.found("path-manager")
    assert finding.result is Result.BAD
    assert finding.remedy
    assert finding.remedy.safe
    machine.follow(finding)
    assert machine.result("path-manager") is Result.GOOD


@bad_state_of(system.join_initial)
def test_joins_at_the_first_address_forbidden(machine: Machine) -> None:
    sysctl.write("net/mptcp/allow_join_initial_addr_port", 0)
    finding = machine.found("join-initial-address")
    assert finding.result is Result.WARNING
    assert finding.remedy
    assert not finding.remedy.safe
    machine.follow(finding)
    assert machine.result("join-initial-address") is Result.GOOD


@bad_state_of(system.blackhole, counters.fallbacks)
def test_a_network_that_drops_mptcp(machine: Machine, network: Network, far: Network) -> None:
    if sysctl.read("net/mptcp/blackhole_timeout") is None:
        pytest.skip("this kernel does not look for such networks")
    two_paths(network, far)
    with far.entered():
        packet_filter("input", "tcp option mptcp exists drop")
    assert machine.result("blackhole") is Result.GOOD
    with contextlib.suppress(FileNotFoundError):
        (sysctl.ROOT / "net/mptcp/syn_retrans_before_tcp_fallback").write_text("1")
    with far.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("10.9.0.1", 5002))
        listener.listen()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as client:
            client.settimeout(20)
            client.connect(("10.9.0.1", 5002))
    finding = machine.found("blackhole")
    assert finding.result is Result.BAD
    machine.follow(finding)
    after = machine.found("blackhole")
    assert (after.result, after.evidence) == (
        Result.GOOD,
        "a network dropped MPTCP earlier (1 times); MPTCP is in use again",
    )
    # It is counted, and that stays.
    assert machine.found("fallback").evidence.startswith("1 of ")


@bad_state_of(system.silent_links)
def test_a_machine_without_tracefs(machine: Machine) -> None:
    asked = f"{sys.executable} -c 'from nm_mptcp.kernel.tracefs import untraceable; print(untraceable())'"

    def told(prepare: str) -> str:
        script = f"umount -q -R /sys/kernel/tracing /sys/kernel/debug; {prepare}; {asked}"
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], check=True, capture_output=True, text=True
        ).stdout.strip()

    assert told("mount -t tracefs none /sys/kernel/tracing") == ""
    assert told(":") == "tracefs is not mounted"
    assert machine.result("silent-links") is Result.GOOD, "it is noticed later"


# --- endpoints


@bad_state_of(paths.endpoints)
def test_an_endpoint_whose_address_is_nowhere(links: Machine, network: Network) -> None:
    assert links.result("endpoint", "10.2.0.1") is Result.GOOD
    network.ip("addr del 10.2.0.1/24 dev v2")
    finding = links.found("endpoint", "10.2.0.1")
    assert (finding.result, finding.evidence) == (Result.BAD, "endpoint 2: no interface has this address")
    links.follow(finding)
    assert [each.subject for each in links.findings("endpoint")] == ["v1 10.1.0.1"]


@bad_state_of(paths.endpoints)
def test_an_endpoint_on_the_wrong_interface(links: Machine, network: Network) -> None:
    network.ip("mptcp endpoint del id 2")
    network.ip("mptcp endpoint add 10.2.0.1 dev v1 subflow backup")
    finding = links.found("endpoint", "10.2.0.1")
    assert finding.result is Result.BAD
    assert finding.evidence.endswith("is bound to v1, but the address is on v2")
    links.follow(finding)
    after = links.found("endpoint", "10.2.0.1")
    assert (after.result, after.evidence.partition(", ")[2]) == (Result.GOOD, "subflow backup")


@bad_state_of(paths.endpoints)
def test_an_endpoint_without_a_flag_that_does_something(links: Machine, network: Network) -> None:
    network.ip("mptcp endpoint del id 2")
    network.ip("mptcp endpoint add 10.2.0.1 dev v2 backup")
    finding = links.found("endpoint", "10.2.0.1")
    assert finding.result is Result.WARNING
    links.follow(finding)
    assert links.result("endpoint", "10.2.0.1") is Result.GOOD


@bad_state_of(paths.endpoints)
def test_an_endpoint_on_a_link_that_is_down(links: Machine, network: Network) -> None:
    network.ip("link set v2 down")
    finding = links.found("endpoint", "10.2.0.1")
    assert (finding.result, finding.evidence) == (Result.WARNING, "endpoint 2, subflow: v2 is down")
    links.follow(finding)
    wait_for("v2 is up", lambda: links.result("endpoint", "10.2.0.1") is Result.GOOD)


@bad_state_of(paths.endpoints)
def test_an_endpoint_whose_address_another_machine_has(links: Machine, network: Network, far: Network) -> None:
    far.ip("addr add 2001:db8:2::9/64 dev v2 nodad")
    network.ip("addr add 2001:db8:2::9/64 dev v2")  # with duplicate address detection
    network.ip("mptcp endpoint add 2001:db8:2::9 dev v2 subflow")
    evidence = links.found("endpoint", "2001:db8:2::9").evidence
    if "detection is in progress" in evidence:
        assert links.result("endpoint", "2001:db8:2::9") is Result.BAD
    wait_for("it is seen", lambda: "detection failed" in links.found("endpoint", "2001:db8:2::9").evidence)
    finding = links.found("endpoint", "2001:db8:2::9")
    assert finding.result is Result.BAD
    assert finding.remedy
    assert finding.remedy.words == "give one of them another address"
    far.ip("addr del 2001:db8:2::9/64 dev v2")
    network.ip("addr del 2001:db8:2::9/64 dev v2")
    network.ip("addr add 2001:db8:2::9/64 dev v2 nodad")
    assert links.result("endpoint", "2001:db8:2::9") is Result.GOOD


@bad_state_of(paths.endpoints)
def test_an_endpoint_that_came_before_its_address_was_usable(links: Machine, network: Network, far: Network) -> None:
    """An endpoint that is made again when its address is usable works."""
    network.ip("-6 route add default via 2001:db8:2::2 dev v2 table 5000")
    network.ip("-6 rule add from 2001:db8:2::7 lookup 5000")
    network.ip("addr add 2001:db8:2::7/64 dev v2")  # with duplicate address detection
    network.ip("mptcp endpoint add 2001:db8:2::7 dev v2 subflow")
    finding = links.found("endpoint", "2001:db8:2::7")
    assert finding.result is Result.BAD
    assert "duplicate address detection is in progress" in finding.evidence
    with Echo(far, "2001:db8:9::1", source="2001:db8:1::1"):
        wait_for("the address is usable", lambda: "tentative" not in network.ip("addr show dev v2"))
        links.follow(finding)
        assert links.result("endpoint", "2001:db8:2::7") is Result.GOOD
        wait_for(
            "a subflow stands on it",
            lambda: any(each.local == "2001:db8:2::7" and each.established for each in subflows()),
        )


@bad_state_of(paths.limits)
def test_limits_that_are_too_low(links: Machine, network: Network) -> None:
    network.ip("mptcp limits set subflows 0 add_addr_accepted 0")
    finding = links.found("limits")
    assert finding.result is Result.BAD
    assert finding.remedy
    assert finding.remedy.safe
    links.follow(finding)
    assert links.result("limits") is Result.GOOD
    assert "subflows 4" in network.ip("mptcp limits")
    network.ip("mptcp limits set subflows 8 add_addr_accepted 0")
    finding = links.found("limits")
    assert finding.result is Result.WARNING
    links.follow(finding)
    assert links.result("limits") is Result.GOOD
    assert "subflows 8" in network.ip("mptcp limits")


# --- routes


@bad_state_of(routes.route_lookups)
def test_an_address_that_leaves_by_another_link(links: Machine) -> None:
    # v2 has a default route, but v1's is better, and there is no rule.
    finding = links.found("route", "10.2.0.1")
    assert finding.result is Result.WARNING
    assert (
        "packets leave by v1 (table 254), except subflows that the path manager opens (bound to v2)" in finding.evidence
    )
    assert links.result("route", "10.1.0.1") is Result.GOOD
    links.follow(finding)
    assert links.found("route", "10.2.0.1").evidence == "leaves by v2 via 10.2.0.2"


@bad_state_of(routes.route_lookups, routes.default_routes)
def test_an_address_without_any_route(links: Machine, network: Network) -> None:
    network.ip("route del default dev v2")
    assert links.result("route", "10.2.0.1") is Result.BAD
    assert links.result("default-route", "v2") is Result.WARNING
    network.ip("rule add from 10.2.0.1 lookup 5000")
    network.ip("route add unreachable default table 5000")
    finding = links.found("route", "10.2.0.1")
    assert "packets find an 'unreachable' route or rule" in finding.evidence
    # As the advice says: a default route in a table of its own, with a rule.
    assert finding.remedy
    assert finding.remedy.words.startswith("add a default route by v2, in a table of its own with a rule from 10.2.0.1")
    network.ip("route replace default via 10.2.0.2 dev v2 table 5000")
    assert links.result("route", "10.2.0.1") is Result.GOOD
    assert links.result("default-route", "v2") is Result.GOOD


@bad_state_of(routes.route_lookups)
def test_an_earlier_rule_to_another_link(links: Machine, network: Network) -> None:
    links.follow(links.found("route", "10.2.0.1"))
    network.ip("route add default via 10.1.0.2 dev v1 table 777")
    network.ip("rule add priority 100 from 10.2.0.0/24 lookup 777")
    finding = links.found("route", "10.2.0.1")
    assert "packets leave by v1 (table 777)" in finding.evidence
    links.follow(finding)
    assert links.result("route", "10.2.0.1") is Result.GOOD
    assert "lookup 777" not in network.ip("rule show")


def test_no_remedy_deletes_a_rule_for_all_to_another_link(links: Machine, network: Network) -> None:
    """It may be a VPN's; the finding names where to look."""
    links.follow(links.found("route", "10.2.0.1"))
    network.ip("route add default via 10.1.0.2 dev v1 table 777")
    network.ip("rule add priority 100 lookup 777")
    finding = links.found("route", "10.2.0.1")
    assert "packets leave by v1 (table 777)" in finding.evidence
    assert finding.remedy
    assert not finding.remedy.commands
    assert "(ip rule show priority 100)" in finding.remedy.words
    assert "lookup 777" in network.ip("rule show priority 100")
    network.ip("rule del priority 100")
    assert links.result("route", "10.2.0.1") is Result.GOOD


def test_ipv6_addresses_are_checked_alike(links: Machine, network: Network) -> None:
    network.ip("mptcp endpoint add 2001:db8:2::1 dev v2 subflow")
    finding = links.found("route", "2001:db8:2::1")
    assert finding.result is Result.WARNING
    links.follow(finding)
    assert links.result("route", "2001:db8:2::1") is Result.GOOD


@bad_state_of(routes.reverse_path)
def test_a_strict_reverse_path_filter_without_rules(links: Machine, far: Network) -> None:
    assert links.result("reverse-path", "10.2.0.1") is Result.GOOD
    sysctl.write("net/ipv4/conf/all/rp_filter", 1)
    finding = links.found("reverse-path", "10.2.0.1")
    assert finding.result is Result.BAD
    # It is as it says: the answers to the second subflow are dropped, and counted.
    with Echo(far, "10.9.0.1"):
        wait_for("answers are dropped", lambda: "packets so far" in links.found("reverse-path", "10.2.0.1").evidence)
    links.follow(finding)
    after = links.found("reverse-path", "10.2.0.1")
    assert (after.result, "strict" in after.evidence) == (Result.GOOD, True)
    with Echo(far, "10.9.0.1", port=5006):
        wait_for(
            "the second subflow is there",
            lambda: any(each.local == "10.2.0.1" and each.established for each in subflows()),
        )


@bad_state_of(routes.firewall)
def test_a_reverse_path_match_in_the_packet_filter(links: Machine, network: Network) -> None:
    assert links.found("firewall").evidence == "no reverse-path match in nftables"
    packet_filter("prerouting", "fib saddr . iif oif missing drop")
    # Bound to its device each has a way; without the default route one has none.
    assert {each.result for each in links.findings("firewall")} == {Result.GOOD}
    network.ip("route del default dev v2")
    finding = links.found("firewall", "10.2.0.1")
    assert finding.result is Result.BAD
    assert "'fib saddr . iif oif missing drop' drops answers to this address" in finding.evidence
    network.ip("route add default via 10.2.0.2 dev v2 table 5000")
    network.ip("rule add from 10.2.0.1 lookup 5000")
    assert links.result("firewall", "10.2.0.1") is Result.GOOD


@pytest.mark.parametrize(
    "rule",
    [
        'iifname != "wg0" ip daddr 10.8.0.2 fib saddr type != local drop',
        'iifname != "wg0" ip6 daddr 2001:db8:8::2 fib saddr type != local drop',
        "meta l4proto udp meta mark set ct mark",
    ],
)
def test_the_rules_of_wg_quick_and_networkmanager_for_wireguard_are_no_fault(links: Machine, rule: str) -> None:
    """NetworkManager has them since 1.54."""
    packet_filter("prerouting", rule)
    assert links.found("firewall").evidence == "no reverse-path match in nftables"


@bad_state_of(routes.one_subnet)
def test_two_links_on_one_subnet(links: Machine, network: Network) -> None:
    assert links.result("arp") is Result.NOT_APPLICABLE
    network.ip("addr add 10.1.0.7/24 dev v2")
    finding = links.found("arp", "v2")
    assert finding.result is Result.WARNING
    assert finding.evidence.startswith("10.1.0.0/24 is on v1 and v2, and this one answers ARP for the others")
    for each in links.findings("arp"):
        links.follow(each)
    assert {each.result for each in links.findings("arp")} == {Result.GOOD}


# --- what was counted


def test_joins_before_a_server_accepts_are_not_a_fault(links: Machine, network: Network, far: Network) -> None:
    """Until the program accepts a connection no subflow can be made for it, which the kernel counts."""
    assert network
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as listener:
        listener.bind(("10.1.0.1", 5003))
        listener.listen()
        with far.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as client:
            client.connect(("10.1.0.1", 5003))
            client.sendall(b"hello")
            counted = {"MPJoinSynTxCreatSkErr", "MPCapableSYNRX"}

            def told() -> bool:
                names = sysctl.ROOT.parent / "thread-self/net/netstat"
                lines = [line.split() for line in names.read_text().splitlines() if line.startswith("MPTcpExt:")]
                found = dict(zip(*lines, strict=True))
                return all(int(found.get(name, "0")) for name in counted)

            wait_for("it is counted", told)
    assert links.result("joins") is not Result.WARNING


@bad_state_of(counters.joins)
def test_joins_that_failed_without_their_address(links: Machine, network: Network, far: Network) -> None:
    assert links.result("joins") is Result.NOT_APPLICABLE
    network.ip("mptcp endpoint add 10.3.0.1 subflow")
    with Echo(far, "10.9.0.1"):
        finding = wait_for(
            "the join is counted",
            lambda: next((each for each in links.findings("joins") if "MPJoinSynTxBindErr" in each.evidence), None),
        )
    assert finding.result is Result.WARNING
    assert "the endpoint was added before the address" in finding.evidence


# --- --reach


@pytest.fixture
def listener(far: Network, links: Machine) -> Iterator[socket.socket]:  # noqa: ARG001
    """One on the far side that accepts MPTCP."""
    with far.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as server:
        server.bind(("10.9.0.1", 5002))
        server.listen()
        thread = threading.Thread(target=_accept, args=(server,), daemon=True)
        thread.start()
        yield server
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _accept(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            server.accept()[0].close()


def _reach(machine: Machine, target: str) -> list[Finding]:
    return reach(system_facts(Record(machine.directory), ConfigurationFiles(machine.settings)), *parse(target))


@pytest.mark.usefixtures("listener")
def test_reach_reports_for_each_path_whether_mptcp_works(links: Machine, far: Network) -> None:
    links.follow(links.found("route", "10.2.0.1"))
    found = {each.subject: each.result for each in _reach(links, "10.9.0.1:5002") if each.subject}
    assert found == {"v1 10.1.0.1": Result.GOOD, "v2 10.2.0.1": Result.GOOD}
    with far.entered():
        packet_filter("prerouting", "iifname v2 reset tcp option mptcp")
    found2 = {each.subject: each for each in _reach(links, "10.9.0.1:5002") if each.subject}
    assert found2["v1 10.1.0.1"].result is Result.GOOD
    assert found2["v2 10.2.0.1"].result is Result.WARNING
    assert "a middlebox on this one removes it" in found2["v2 10.2.0.1"].evidence


def test_reach_reports_a_server_without_mptcp(links: Machine, far: Network) -> None:
    links.follow(links.found("route", "10.2.0.1"))
    with far.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("10.9.0.1", 5003))
        server.listen()
        found = [each for each in _reach(links, "10.9.0.1:5003") if each.subject]
    assert [each.result for each in found] == [Result.WARNING] * 2
    assert all("TCP only by every path" in each.evidence for each in found)


def test_reach_without_a_route(machine: Machine, links: Machine, network: Network) -> None:
    refused = [each for each in _reach(links, "10.9.0.1:5999") if "v1" in each.subject]
    assert [(each.result, each.evidence) for each in refused] == [
        (Result.BAD, "no connection to 10.9.0.1: connection refused")
    ]
    network.ip("route del default dev v1")
    network.ip("route del default dev v2")  # so that no name server is waited for
    (unknown,) = _reach(links, "no-such-host.invalid")
    assert unknown.result is Result.BAD
    assert "'no-such-host.invalid' cannot be resolved" in unknown.evidence
    network.ip("mptcp endpoint flush")
    assert [each.evidence for each in _reach(machine, "10.9.0.1")] == ["there is no path"]


# --- the command


def test_fix_does_what_is_safe_after_asking(links: Machine, network: Network) -> None:
    network.ip("mptcp limits set subflows 0 add_addr_accepted 0")
    sysctl.write("net/mptcp/allow_join_initial_addr_port", 0)
    refused = links.command("--fix", answers="n\n")
    assert "run 'ip mptcp limits set subflows 4 add_addr_accepted 2'? [y/N]" in refused.stderr
    assert "subflows 0" in network.ip("mptcp limits")
    agreed = links.command("--fix", "--json", answers="y\n")
    assert "subflows 4" in network.ip("mptcp limits")
    assert next(each for each in json.loads(agreed.stdout)["findings"] if each["check"] == "limits")["result"] == "good"
    # What an administrator may have meant stays.
    assert sysctl.read("net/mptcp/allow_join_initial_addr_port") == "0"
    network.ip("mptcp limits set subflows 0 add_addr_accepted 0")
    links.command("--fix", "--yes")
    assert "subflows 4" in network.ip("mptcp limits")


def test_the_report_is_complete_and_when_masked_has_no_address(links: Machine, network: Network) -> None:
    hardware = network.ip("-o link show v1").split("link/ether ")[1].split()[0]
    plain, masked = links.directory / "plain", links.directory / "masked"
    assert links.command("--report", str(plain)).returncode == 2
    assert links.command("--report", str(masked), "--mask").returncode == 2
    text, hidden = plain.read_text(), masked.read_text()
    assert plain.stat().st_mode & 0o777 == 0o600
    for part in ("nm-mptcp check --json", "nm-mptcp status --json", "sysctls", "ip mptcp endpoint show", "ss -Mani"):
        assert f"==> {part}\n" in text
        assert f"==> {part}\n" in hidden
    for secret in ("10.1.0.1", "10.2.0.2", "2001:db8:1::", hardware, "fe80::", os.uname().nodename):
        assert secret in text or secret == os.uname().nodename
        assert secret not in hidden, secret
    # The same address has the same mask: endpoint and rule are still seen to belong together.
    assert "IPV4-1" in hidden
    assert "kernel " + os.uname().release in hidden


def test_check_is_read_only_and_works_without_privileges(links: Machine, network: Network) -> None:
    def state() -> list[str]:
        return [network.ip(what) for what in ("rule show", "-4 route show table all", "mptcp endpoint", "mptcp limits")]

    before = state()
    words = ["--state-dir", "/nonexistent/nm-mptcp", "check", "--all", "--config", "/dev/null"]
    done = subprocess.run([*as_user(65534, *words), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot read the packet filter: permission denied: must be root" in done.stdout
    assert "v2 10.2.0.1" in done.stdout
    assert "Run as root to see everything." in done.stdout
    links.command()
    assert state() == before


def test_wrong_usage_is_an_error(machine: Machine) -> None:
    for arguments in (("--mask",), ("--yes",), ("--reach", "a:b:c:"), ("--reach", "host:99999")):
        done = machine.command(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("nm-mptcp check: --")
