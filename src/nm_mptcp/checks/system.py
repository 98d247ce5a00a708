# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel: version, options, MPTCP switched on, sockets, path manager, and what an administrator may have chosen."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Iterator

from .facts import Facts
from .finding import Finding, Remedy, advice, bad, commands, good, not_applicable, unknown, warning

#: MPTCP version 1 as clients and servers speak it; the path manager's endpoints came with 5.7.
_FIRST = (5, 7)
#: The oldest that nm-mptcp is tested with: a long-term one, with what was mended in re-adding endpoints.
_TESTED = (6, 1)

#: Option -> what is missing without it.
_OPTIONS = {
    "CONFIG_MPTCP": "no MPTCP at all",
    "CONFIG_MPTCP_IPV6": "no MPTCP over IPv6 (it needs CONFIG_IPV6=y, not =m)",
    "CONFIG_INET_MPTCP_DIAG": "'ss -M' shows no MPTCP connections",
    "CONFIG_IP_MULTIPLE_TABLES": "no rules: IPv4 addresses cannot have tables of their own",
    "CONFIG_IPV6_MULTIPLE_TABLES": "no rules: IPv6 addresses cannot have tables of their own",
}
_NEEDED = ("CONFIG_MPTCP", "CONFIG_IP_MULTIPLE_TABLES")

OPTIONS = tuple(_OPTIONS)

NEWER = "install a newer kernel, as your distribution ships it, built with CONFIG_MPTCP"

TURN_ON = commands(
    "sysctl -w net.mptcp.enabled=1",
    words="to keep it over a reboot: echo net.mptcp.enabled=1 >/etc/sysctl.d/90-mptcp.conf",
    safe=True,
)

_ENABLED = "net/mptcp/enabled"


def version(facts: Facts) -> Iterator[Finding]:
    """The kernel's version."""
    found = re.match(r"(\d+)\.(\d+)", facts.release)
    number = (int(found[1]), int(found[2])) if found else (0, 0)
    if not found:
        yield unknown("kernel-version", f"kernel {facts.release or 'of unknown version'}")
    elif number < _FIRST:
        words = f"kernel {facts.release} is too old: MPTCP endpoints came with 5.7"
        yield bad("kernel-version", words, remedy=advice(f"{NEWER}, 6.1 at least"))
    elif number < _TESTED:
        words = f"kernel {facts.release}: it has MPTCP, but nm-mptcp is tested from 6.1 on"
        yield warning("kernel-version", words, remedy=advice(f"{NEWER}, 6.1 at least"))
    else:
        yield good("kernel-version", f"kernel {facts.release}")


def options(facts: Facts) -> Iterator[Finding]:
    """How the kernel was built."""
    if not facts.options_file:
        where = f"/proc/config.gz, /boot/config-{facts.release}, /lib/modules/{facts.release}/config"
        yield unknown("kernel-options", f"how this kernel was built is not told ({where})")
        return
    missing = [option for option in _OPTIONS if option not in facts.options]
    if not missing:
        yield good("kernel-options", f"all of {len(_OPTIONS)} options are set ({facts.options_file})")
    for option in missing:
        make = bad if option in _NEEDED else warning
        words = f"{option} is not set in {facts.options_file}: {_OPTIONS[option]}"
        fix = advice(f"install a kernel of your distribution that is built with {option}")
        yield make("kernel-options", words, option, fix)


def enabled(facts: Facts) -> Iterator[Finding]:
    """``net.mptcp.enabled``."""
    value = facts.sysctls.get(_ENABLED)
    if value is None:
        yield bad(
            "mptcp-enabled", "there is no sysctl net.mptcp.enabled: this kernel has no MPTCP", remedy=advice(NEWER)
        )
    elif value == "0":
        yield bad("mptcp-enabled", "net.mptcp.enabled is 0: no MPTCP socket can be made", remedy=TURN_ON)
    else:
        yield good("mptcp-enabled", f"net.mptcp.enabled is {value}")


def mptcp_socket(facts: Facts) -> Iterator[Finding]:
    """Making an MPTCP socket, and what it means when that is refused."""
    number = facts.socket_errno
    if not number:
        yield good("mptcp-socket", "an MPTCP socket can be made")
        return
    meaning, remedy = _refusal(number, facts)
    name = errno.errorcode.get(number, str(number))
    yield bad("mptcp-socket", f"socket(IPPROTO_MPTCP) is refused with {name}: {meaning}", remedy=remedy)


def _refusal(number: int, facts: Facts) -> tuple[str, Remedy]:
    if number == errno.ENOPROTOOPT:
        return "net.mptcp.enabled is 0", TURN_ON
    if number == errno.EINVAL:
        return "this kernel is older than 5.6", advice(NEWER)
    if number in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
        return "this kernel was built without CONFIG_MPTCP", advice(NEWER)
    if number in (errno.EACCES, errno.EPERM):
        if facts.socket_programs:
            group = facts.socket_programs[0]
            other = ", or the filter of system calls (seccomp) on this process" if facts.seccomp else ""
            return f"a BPF program on the control group {group} forbids it{other}", commands(
                f"bpftool cgroup show {shlex.quote(group)}",
                words="have it allow protocol 262, or detach it; it holds for all programs of this control group",
            )
        if facts.seccomp:
            where = "a filter of system calls (seccomp) is on this process"
            return where, advice("run it outside of this container, sandbox or service, or let its filter allow it")
        if facts.selinux:
            return "SELinux forbids it", advice(
                "make a policy of what 'ausearch -m avc -ts recent' shows: audit2allow(1)"
            )
        # Only root is told of BPF programs.
        who = "a security module (LSM)" + ("" if facts.root else " or a BPF program on the control group")
        return f"{who} forbids it", advice("look for lines of apparmor, or of another one, in what 'dmesg' shows")
    return os.strerror(number), advice("see socket(2)")


def path_manager(facts: Facts) -> Iterator[Finding]:
    """The path manager of new connections."""
    manager = facts.kernel.path_manager
    if not manager:
        yield not_applicable("path-manager", "this kernel has no MPTCP")
    elif manager == "kernel":
        yield good("path-manager", "the kernel manages the paths")
    else:
        new = "net/mptcp/path_manager" in facts.sysctls
        line = "sysctl -w net.mptcp.path_manager=kernel" if new else "sysctl -w net.mptcp.pm_type=0"
        who = facts.process("mptcpd")
        words = f"the path manager is '{manager}': endpoints are not used by new connections"
        because = "mptcpd runs, and may have set it: stop it first" if who else ""
        yield bad("path-manager", words, remedy=commands(line, words=because, safe=not who))


def join_initial(facts: Facts) -> Iterator[Finding]:
    """``net.mptcp.allow_join_initial_addr_port``: for those who serve."""
    value = facts.sysctls.get("net/mptcp/allow_join_initial_addr_port")
    if value is None:
        yield not_applicable("join-initial-address", "this kernel has no net.mptcp.allow_join_initial_addr_port")
    elif value == "0":
        words = "net.mptcp.allow_join_initial_addr_port is 0: peers may not join at the address that they connected to"
        fix = commands(
            "sysctl -w net.mptcp.allow_join_initial_addr_port=1",
            words="right only behind a load balancer; matters for what this machine serves",
        )
        yield warning("join-initial-address", words, remedy=fix)
    else:
        yield good("join-initial-address", "peers may join at the address that they connected to")


def blackhole(facts: Facts) -> Iterator[Finding]:
    """Whether the kernel has given MPTCP up for a while, because its SYNs with MPTCP went unanswered."""
    timeout = facts.sysctls.get("net/mptcp/blackhole_timeout")
    seen = facts.counters.get("Blackhole", 0)
    if timeout is None:
        yield not_applicable("blackhole", "this kernel does not look for networks that drop MPTCP (6.12 does)")
    elif facts.blackholed:
        words = f"a network dropped MPTCP ({seen} times): new connections do without it, for {timeout} s and more"
        fix = commands(
            f"sysctl -w net.mptcp.blackhole_timeout={timeout}",
            words="writing the value, even the same, ends it; find the network with 'nm-mptcp check --reach HOST'",
        )
        yield bad("blackhole", words, remedy=fix)
    elif seen:
        yield good("blackhole", f"a network dropped MPTCP before ({seen} times); it is used again")
    else:
        yield good("blackhole", "no network was seen to drop MPTCP")
