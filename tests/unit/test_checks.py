# SPDX-License-Identifier: GPL-2.0-or-later
"""The checks as functions of facts: states that no machine of the tests can be brought into, and words that may be shown."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from typing import Any

import pytest

from nm_mptcp.checks import CHECKS, run_checks
from nm_mptcp.checks.bug_report import masked
from nm_mptcp.checks.facts import STARTING, Firewall, Process, SystemFacts
from nm_mptcp.checks.finding import Result, worst
from nm_mptcp.checks.reach import parse
from nm_mptcp.checks.system import OPTIONS
from nm_mptcp.checks.tools import TOOLS
from nm_mptcp.cli import check as command
from nm_mptcp.kernel.route_lookup import RouteAnswer
from nm_mptcp.model.state import (
    Address,
    Endpoint,
    EndpointFlag,
    Hop,
    Kernel,
    Limits,
    Link,
    Route,
    RouteResult,
    Rule,
    RuleAction,
)
from nm_mptcp.model.state import Family as F

from ..support import shown

GOOD, WARNING, BAD, UNKNOWN, MOOT = Result.GOOD, Result.WARNING, Result.BAD, Result.UNKNOWN, Result.NOT_APPLICABLE

SETTLED = {
    "net/mptcp/enabled": "1",
    "net/mptcp/path_manager": "kernel",
    "net/mptcp/allow_join_initial_addr_port": "1",
    "net/mptcp/blackhole_timeout": "3600",
}


def path(interface: str, address: str, **more: Any) -> dict[str, Any]:
    return {
        "interface": interface,
        "profile": interface,
        "uuid": f"uuid-of-{interface}",
        "kind": "ethernet",
        "address": address,
        "flags": ["subflow"],
        "flags_from": "kind",
        "state": "active",
        "reason": "ethernet",
        "rule": "flags-of-kind",
        "since": None,
        "endpoint_id": 1,
        "owner": "nm-mptcp",
        "table": 42000,
        "gateway": "10.1.0.254",
    } | more


STATUS = {
    "state": "good",
    "problems": [],
    "service": "active",
    "mode": "auto",
    "networkmanager": {"running": True, "version": "1.52.0", "default_flags_section": "connection-nm-mptcp"},
    "kernel": {"endpoints_max": 8},
    "paths": [path("eth0", "10.1.0.1")],
}

#: One path as it should be.
WELL = SystemFacts(
    release="6.12.1",
    options=dict.fromkeys(OPTIONS, "y"),
    options_file="/boot/config-6.12.1",
    sysctls=SETTLED,
    kernel=Kernel(
        links={2: Link(2, "eth0")},
        addresses={2: (Address(2, "10.1.0.1", 24),)},
        routes={
            (254, 2): (Route("0.0.0.0/0", hops=(Hop(2, "10.1.0.254"),)),),
            (42000, 2): (Route("0.0.0.0/0", 42000, hops=(Hop(2, "10.1.0.254"),), protocol=77),),
        },
        rules=(
            Rule(F.IPV4, 32765, "10.1.0.1", 42000, protocol=77, suppress_prefixlength=0),
            Rule(F.IPV4, 32765, "10.1.0.1", 254, protocol=77, suppress_prefixlength=0),
            Rule(F.IPV4, 32765, "10.1.0.1", 42000, protocol=77),
            Rule(F.IPV4, 32765, "10.1.0.1", action=RuleAction.UNREACHABLE, protocol=77),
        ),
        endpoints=(Endpoint("10.1.0.1", 2, EndpointFlag.SUBFLOW, 1),),
        limits=Limits(2, 1),
    ),
    answers={"10.1.0.1": (RouteAnswer(RouteResult(2, "10.1.0.254", 42000), RouteResult(2, "10.1.0.254", 42000)),) * 2},
    counters={"MPCapableSYNRX": 0, "MPCapableSYNTX": 10, "MPCapableSYNACKRX": 7, "MPJoinSynTx": 7, "MPJoinSynAckRx": 7},
    tools={name: f"/usr/bin/{name}" for name in TOOLS},
    iproute_version="6.1.0",
    status=STATUS,
)


def results(facts: SystemFacts, check: str) -> list[Result]:
    return [finding.result for finding in run_checks(facts) if finding.check == check]


def status(**more: Any) -> dict[str, Any]:
    return STATUS | more


def manager(**more: Any) -> dict[str, Any]:
    return status(networkmanager={"running": True, "version": "1.52.0", "default_flags_section": ""} | more)


def test_all_is_good_where_all_is_there() -> None:
    assert [(each.check, each.evidence) for each in run_checks(WELL) if each.result not in (GOOD, MOOT)] == []
    assert worst(run_checks(WELL)) is GOOD


NO_MPTCP = replace(WELL, sysctls={}, kernel=replace(WELL.kernel, path_manager="", endpoints=(), limits=Limits(0, 0)))
NO_BUS = replace(WELL, bus=False, status=status(service="absent", networkmanager={"running": False}))


def guarding(*tunnels: str) -> SystemFacts:
    return replace(WELL, status=status(guard={"tunnels": {}, "stays_inside": list(tunnels)}))


def answered(plain: RouteResult) -> dict[str, tuple[RouteAnswer, ...]]:
    """What is bound to the address alone goes that way, and what is bound to the interface by it."""
    return {"10.1.0.1": (RouteAnswer(plain, RouteResult(2, "10.1.0.254", 42000)),)}


BROKEN = {
    "kernel 4.19": (replace(WELL, release="4.19.0"), "kernel-version", [BAD]),
    "kernel 5.15": (replace(WELL, release="5.15.0-91-generic"), "kernel-version", [WARNING]),
    "kernel of no version": (replace(WELL, release="custom"), "kernel-version", [UNKNOWN]),
    "options untold": (replace(WELL, options_file=""), "kernel-options", [UNKNOWN]),
    "no CONFIG_MPTCP": (replace(WELL, options={}), "kernel-options", [BAD, WARNING, WARNING, BAD, WARNING]),
    "no IPv6": (
        replace(WELL, options={name: "y" for name in OPTIONS if name != "CONFIG_MPTCP_IPV6"}),
        "kernel-options",
        [WARNING],
    ),
    "no sysctl": (replace(WELL, sysctls={}), "mptcp-enabled", [BAD]),
    "off": (replace(WELL, sysctls=SETTLED | {"net/mptcp/enabled": "0"}), "mptcp-enabled", [BAD]),
    "userspace": (replace(WELL, kernel=replace(WELL.kernel, path_manager="userspace")), "path-manager", [BAD]),
    "a BPF one": (replace(WELL, kernel=replace(WELL.kernel, path_manager="bpf_burst")), "path-manager", [BAD]),
    "no blackhole": (replace(WELL, sysctls={"net/mptcp/enabled": "1"}), "blackhole", [MOOT]),
    "silence is noticed at once": (WELL, "silent-links", [GOOD]),
    "silence is noticed later": (replace(WELL, untraceable="tracefs is not mounted"), "silent-links", [GOOD]),
    "blackholed": (replace(WELL, blackholed=True, counters={"Blackhole": 1}), "blackhole", [BAD]),
    "no NetworkManager": (replace(WELL, status=manager(running=False)), "networkmanager", [BAD]),
    "an old one": (replace(WELL, status=manager(version="1.36.4")), "networkmanager", [WARNING]),
    "no bus": (NO_BUS, "networkmanager", [BAD]),
    "no bus, and so no word of the drop-in": (NO_BUS, "drop-in", [MOOT]),
    "no bus, and so no word of the service": (NO_BUS, "service", [UNKNOWN]),
    "nobody to ask": (replace(WELL, status={}, status_error="no bus"), "networkmanager", [UNKNOWN]),
    "no drop-in": (replace(WELL, status=manager()), "drop-in", [WARNING]),
    "a hidden drop-in": (replace(WELL, status=manager(), dropin="/etc/x", dropin_masked=True), "drop-in", [WARNING]),
    "an overruled drop-in": (
        replace(WELL, status=manager(default_flags_section="connection-x"), dropin="/usr/x"),
        "drop-in",
        [WARNING],
    ),
    "another section for a device": (
        replace(WELL, status=status(paths=[path("eth0", "10.1.0.1", rule="flags-of-networkmanager")])),
        "drop-in",
        [GOOD, GOOD],
    ),
    "an activation of before": (
        replace(WELL, status=status(paths=[path("eth0", "10.1.0.1", rule="networkmanager-owns")])),
        "drop-in",
        [GOOD, WARNING],
    ),
    "a service that is just starting": (replace(WELL, status={}, service_error=STARTING), "service", [UNKNOWN]),
    "a service that does not answer": (replace(WELL, status={}, service_error="no answer"), "service", [BAD]),
    "no service": (replace(WELL, status=status(service="absent")), "service", [WARNING]),
    "bad configuration": (replace(WELL, problems=("a.conf, line 1: no", "b.conf: no")), "configuration", [WARNING] * 2),
    "mptcpd": (replace(WELL, processes=(Process(7, "mptcpd", "mptcp.service"),)), "mptcpd", [WARNING]),
    "networkd": (replace(WELL, processes=(Process(7, "systemd-network"),)), "systemd-networkd", [WARNING]),
    "a tame networkd": (
        replace(
            WELL,
            processes=(Process(7, "systemd-network"),),
            networkd={"ManageForeignRoutingPolicyRules": "no", "ManageForeignRoutes": "false"},
        ),
        "systemd-networkd",
        [GOOD],
    ),
    "nm-cloud-setup": (replace(WELL, cloud_setup=True), "nm-cloud-setup", [WARNING]),
    "strongSwan": (
        replace(
            WELL,
            processes=(Process(7, "charon"),),
            kernel=replace(WELL.kernel, routes={(220, 2): (Route("0.0.0.0/0", 220, (Hop(2),)),)}),
        ),
        "strongswan",
        [WARNING],
    ),
    "an idle strongSwan": (replace(WELL, processes=(Process(7, "charon-systemd"),)), "strongswan", [MOOT]),
    "no path": (replace(WELL, status=status(paths=[])), "paths", [WARNING]),
    "mode off": (replace(WELL, status=status(paths=[], mode="off")), "paths", [MOOT]),
    "a suspended path": (
        replace(
            WELL, status=status(paths=[*STATUS["paths"], path("w0", "10.2.0.1", state="suspended", rule="no-carrier")])
        ),
        "paths",
        [GOOD, WARNING],
    ),
    "one family only": (
        replace(
            WELL,
            status=status(
                paths=[*STATUS["paths"], path("eth0", "2001:db8::1", state="waiting", rule="no-default-route")]
            ),
        ),
        "families",
        [WARNING],
    ),
    "a full tunnel": (
        replace(
            WELL,
            status=status(
                paths=[path("eth0", "10.1.0.1", state="suspended", rule="vpn-guard", reason="all IPv4 leaves by tun0")],
                guard={"tunnels": {"ipv4": "tun0"}},
            ),
        ),
        "paths",
        [MOOT, WARNING],
    ),
    "an endpoint kept beside it": (
        replace(WELL, status=status(guard={"tunnels": {"ipv4": "tun0"}}), answers=answered(RouteResult(9, None, 254))),
        "route",
        [MOOT],
    ),
    "no endpoint": (replace(WELL, kernel=replace(WELL.kernel, endpoints=())), "endpoint", [BAD]),
    "no MPTCP, and so no endpoint": (NO_MPTCP, "endpoint", [MOOT]),
    "no MPTCP, and so no limits": (NO_MPTCP, "limits", [MOOT]),
    "no slots": (replace(WELL, kernel_error="cannot read the endpoints: no"), "endpoint", [UNKNOWN]),
    "no rules": (replace(WELL, kernel=replace(WELL.kernel, rules=())), "rules", [BAD]),
    "routing not wanted": (replace(WELL, routing=False), "rules", [MOOT]),
    "the way by another": (replace(WELL, answers=answered(RouteResult(3, None, 254))), "route", [WARNING]),
    "the way by a tunnel that nobody minds": (
        replace(
            WELL,
            answers=answered(RouteResult(9, None, 254)),
            kernel=replace(WELL.kernel, links={**WELL.kernel.links, 9: Link(9, "tun0", "tun")}),
        ),
        "route",
        [GOOD],
    ),
    "no way": (
        replace(
            WELL, status=status(paths=[path("eth0", "10.1.0.1", trouble="nothing gets out", trouble_rule="no-way")])
        ),
        "route",
        [BAD],
    ),
    "its own network": (
        replace(WELL, status=status(paths=[path("eth0", "10.1.0.1", trouble="only", trouble_rule="refuses-default")])),
        "route",
        [WARNING],
    ),
    "a bridge without a way out": (
        replace(WELL, status=status(paths=[path("eth0", "10.1.0.1", trouble="no", trouble_rule="no-uplink")])),
        "route",
        [BAD],
    ),
    "nothing works": (
        replace(WELL, status=status(state="not-working", problems=["one", "another"])),
        "status",
        [BAD, BAD],
    ),
    "something is held back": (replace(WELL, status=status(state="held-back", problems=["one"])), "status", [WARNING]),
    "nobody to ask how it stands": (replace(WELL, status={}, status_error="no bus"), "status", [UNKNOWN]),
    "strict and by another": (
        replace(
            WELL,
            answers=answered(RouteResult(3, None, 254)),
            sysctls=SETTLED | {"net/ipv4/conf/eth0/rp_filter": "1"},
        ),
        "reverse-path",
        [BAD],
    ),
    "loose beats strict": (
        replace(
            WELL,
            answers=answered(RouteResult(3, None, 254)),
            sysctls=SETTLED | {"net/ipv4/conf/eth0/rp_filter": "1", "net/ipv4/conf/all/rp_filter": "2"},
        ),
        "reverse-path",
        [GOOD],
    ),
    "unread firewall": (
        replace(WELL, firewall=Firewall(unread="only root may", firewalld="strict")),
        "firewall",
        [UNKNOWN],
    ),
    "firewalld": (
        replace(WELL, firewall=Firewall(("fib saddr . mark . iif oif missing drop",), firewalld="yes")),
        "firewall",
        [GOOD],
    ),
    "no tunnel": (WELL, "tunnels", [MOOT]),
    "a tunnel that connections stay in": (
        replace(guarding("tun0", "wg0"), firewall=Firewall(guarded=frozenset({"tun0"}))),
        "tunnels",
        [GOOD, BAD],
    ),
    "a tunnel without nft": (
        replace(guarding("tun0"), tools={}, firewall=Firewall(unread="nft is not installed (package nftables)")),
        "tunnels",
        [BAD],
    ),
    "a tunnel and an unread packet filter": (
        replace(guarding("tun0"), firewall=Firewall(unread="permission denied: must be root")),
        "tunnels",
        [UNKNOWN],
    ),
    "joins that fail": (
        replace(WELL, counters={"MPJoinSynTx": 5, "MPJoinSynAckRx": 1, "MPJoinRejected": 4}),
        "joins",
        [WARNING],
    ),
    "joins that fail now and then": (
        replace(WELL, counters={"MPJoinSynTx": 500, "MPJoinSynAckRx": 499, "MPJoinSynTxConnectErr": 1}),
        "joins",
        [GOOD],
    ),
    "fallbacks": (replace(WELL, counters={"MPCapableSYNACKRX": 3, "DssFallback": 2}), "fallback", [WARNING]),
    "nothing counted": (replace(WELL, counters={}), "fallback", [MOOT]),
    "no tools": (replace(WELL, tools={}), "tools", [WARNING] * 4),
    "an old ip": (replace(WELL, iproute_version="5.10.0"), "tools", [GOOD, GOOD, WARNING, GOOD]),
}


@pytest.mark.parametrize(("facts", "check", "wanted"), BROKEN.values(), ids=BROKEN)
def test_a_state_and_its_finding(facts: SystemFacts, check: str, wanted: list[Result]) -> None:
    assert results(facts, check) == wanted


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ((), "no MPTCP socket can be created"),
        (("system.slice/a.service",), "created, and so no TCP socket in system.slice/a.service (nm-mptcp"),
        (("a", "b", "c", "d", "e"), "in a, b, c and 2 more (nm-mptcp"),
    ],
)
def test_mptcp_that_is_off_is_told_with_whose_tcp_sockets_fail(groups: tuple[str, ...], words: str) -> None:
    facts = replace(WELL, sysctls=SETTLED | {"net/mptcp/enabled": "0"}, switched=groups)
    (found,) = (each.evidence for each in run_checks(facts) if each.check == "mptcp-enabled")
    assert words in found


def test_without_a_bus_nothing_is_said_of_what_nobody_can_know() -> None:
    said = [each.evidence for each in run_checks(NO_BUS) if "bus is not reachable" in each.evidence]
    assert len(said) == 3
    assert not any("is not running" in each.evidence for each in run_checks(NO_BUS) if each.result in (WARNING, BAD))


def test_without_mptcp_nothing_is_to_be_applied() -> None:
    told = [
        each.remedy.commands for each in run_checks(NO_MPTCP) if each.check in ("endpoint", "limits") and each.remedy
    ]
    assert told == []


@pytest.mark.parametrize(("facts", "check"), [(facts, check) for facts, check, _ in BROKEN.values()], ids=BROKEN)
def test_whatever_is_bad_says_what_to_do(facts: SystemFacts, check: str) -> None:
    for finding in run_checks(facts):
        if finding.check == check and finding.result in (WARNING, BAD):
            if "see 'blackhole'" in finding.evidence:
                continue
            assert finding.remedy, finding
            assert finding.remedy.commands or finding.remedy.words
        assert "\n" not in finding.evidence


@pytest.mark.parametrize(
    ("number", "more", "said"),
    [
        (errno.EINVAL, {}, "older than 5.6"),
        (errno.EPROTONOSUPPORT, {}, "without CONFIG_MPTCP"),
        (errno.ENOPROTOOPT, {}, "net.mptcp.enabled is 0"),
        (errno.EACCES, {"selinux": True}, "SELinux"),
        (errno.EPERM, {"seccomp": True, "selinux": True}, "seccomp"),
        (errno.EPERM, {"root": False}, "BPF"),
        (errno.EPERM, {}, "LSM"),
        (
            errno.EPERM,
            {"socket_programs": ("/sys/fs/cgroup/user slice",)},
            "BPF program on the control group /sys/fs/cg",
        ),
        (errno.EPERM, {"socket_programs": ("/x",), "seccomp": True}, "or the seccomp filter of this process"),
        (errno.ENOMEM, {}, "ENOMEM"),
    ],
)
def test_what_the_refusal_of_a_socket_means(number: int, more: dict[str, Any], said: str) -> None:
    (finding,) = [
        each for each in run_checks(replace(WELL, socket_errno=number, **more)) if each.check == "mptcp-socket"
    ]
    assert finding.result is BAD
    assert said in finding.evidence


def test_nothing_that_others_wrote_disturbs_a_terminal() -> None:
    nasty = "\x1b[31m\u202ered\r\n\x07" + "x" * 4096
    paths = [path(nasty, "10.9.0.1", profile=nasty, reason=nasty, state="waiting"), *STATUS["paths"]]
    facts = replace(WELL, status=status(paths=paths), problems=(nasty,), firewall=Firewall(unread=nasty))
    findings = run_checks(facts)
    shown = command._text(findings, facts, everything=True)
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert max(map(len, shown.splitlines())) < 1200
    assert json.loads(json.dumps(command.document(findings)))["result"] == "warning"


@pytest.mark.parametrize(
    ("kernel", "said", "remedy"),
    [({"path_manager": ""}, "has no MPTCP", "newer kernel"), ({"mptcp_enabled": False}, "is disabled", "enabled=1")],
)
def test_without_mptcp_that_is_why_no_address_is_a_path(kernel: dict[str, Any], said: str, remedy: str) -> None:
    facts = replace(WELL, kernel=replace(WELL.kernel, **kernel), status=status(paths=[]))
    (finding,) = [each for each in run_checks(facts) if each.check == "paths"]
    assert finding.result is BAD
    assert said in finding.evidence
    assert finding.remedy
    assert remedy in " ".join([*finding.remedy.commands, finding.remedy.words])


@pytest.mark.parametrize("width", [40, 80, 160])
def test_a_terminal_gets_lines_that_fit_but_commands_stay_whole(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "width_of", lambda _: width)
    facts = replace(WELL, sysctls=SETTLED | {"net/mptcp/enabled": "0"})
    findings = run_checks(facts)
    lines = command._text(findings, facts, everything=True).splitlines()
    commands = {line for line in lines if line.lstrip().startswith("-> ")}
    assert commands
    assert [line for line in lines if len(line) > width and line not in commands] == []


def test_the_manual_has_every_check_and_no_other() -> None:
    parts = shown.sections("nm-mptcp-check(8)")
    of_checks = [text for heading, text in parts.items() if heading.startswith("CHECK") or heading == "COUNTERS"]
    documented = [name for text in of_checks for name in shown.heads(text)]
    known = {finding.check for facts, _, _ in BROKEN.values() for finding in run_checks(facts)} | {"reach", "arp"}
    assert len(known) >= len(CHECKS) - 1
    assert sorted(documented) == sorted(known)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("example.org", ("example.org", 443)),
        ("example.org:80", ("example.org", 80)),
        ("192.0.2.1:8080", ("192.0.2.1", 8080)),
        ("2001:db8::1", ("2001:db8::1", 443)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("[2001:db8::1]", ("2001:db8::1", 443)),
    ],
)
def test_a_host_and_port(target: str, wanted: tuple[str, int]) -> None:
    assert parse(target) == wanted


@pytest.mark.parametrize("target", ["", ":80", "a:", "a:b", "a:0", "a:65536", "[::1]80", "a:b:c", "[]:80", "a:٣"])
def test_what_is_no_host_and_port(target: str) -> None:
    with pytest.raises(ValueError, match="must be HOST or HOST:PORT"):
        parse(target)


MASKED = {
    "10.1.0.1 and 10.1.0.1/24 via 10.1.0.254": "IPV4-1 and IPV4-1/24 via IPV4-2",
    "src 2001:DB8::1, 2001:db8::1/64": "src IPV6-1, IPV6-1/64",
    "[fe80::1%eth0]:80": "[IPV6-1%eth0]:80",
    "::ffff:10.0.0.1": "IPV6-1",
    "link/ether 02:00:00:01:00:fe": "link/ether MAC-1",
    "6ba7b810-9dad-11d1-80b4-00c04fd430c8": "UUID-1",
    "127.0.0.1, ::1, 0.0.0.0/0, ::/0": "127.0.0.1, ::1, 0.0.0.0/0, ::/0",
    "NetworkManager 1.42.4, 2026-11-23T10:23:45+00:00": "NetworkManager 1.42.4, 2026-11-23T10:23:45+00:00",
    "match-connection=Home of Zoë": "match-connection=NAME",
    "wlx02000001fe0a: up": "wlxHARDWARE-1: up",
    '"profile": "Zoë\'s phone"': '"profile": "PROFILE-1"',
    "eth0: 10.1.0.1:": "eth0: IPV4-1:",
    "bridge_id 8000.2:0:0:1:0:fe addr 02:00:00:01:00:fe": "bridge_id 8000.MAC-1 addr MAC-1",
    "link/infiniband 80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:01:23:45 brd": "link/infiniband MAC-1 brd",
    "at 12:34:56 and 1:2:3:4:5:6:7:8": "at 12:34:56 and IPV6-1",
    "# Zoe's own\n[main]\n; here too\nmode=auto # left": "[main]\nmode=auto # left",
    "[path-zoe]: no, 'path-zoe' is; [path-2]": "[path-SECTION-1]: no, 'path-SECTION-1' is; [path-SECTION-2]",
    "    alias Uplink of Zoe\n    inet 10.1.0.1/24": "    alias NAME\n    inet IPV4-1/24",
}


@pytest.mark.parametrize(("told", "wanted"), MASKED.items(), ids=MASKED)
def test_what_a_masked_report_tells(told: str, wanted: str) -> None:
    assert masked(told, {"Zoë's phone": "PROFILE-1"}) == wanted
