# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel: version, build options, sysctls, sockets and path manager."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Iterator

from .facts import SystemFacts
from .finding import Finding, Remedy, advice, bad, commands, good, not_applicable, unknown, warning

#: The first kernel with the path manager's endpoints.
_FIRST = (5, 7)
#: The oldest kernel that nm-mptcp is tested with, a long-term one; it has the fixes for re-added endpoints.
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
    "echo net.mptcp.enabled=1 >/etc/sysctl.d/90-nm-mptcp.conf",
    words="the second keeps it over a reboot; the file goes when nm-mptcp is removed",
    safe=True,
)

_ENABLED = "net/mptcp/enabled"


def version(facts: SystemFacts) -> Iterator[Finding]:
    """The kernel's version."""
    found = re.match(r"(\d+)\.(\d+)", facts.release)
    number = (int(found[1]), int(found[2])) if found else (0, 0)
    if not found:
        yield unknown("kernel-version", f"kernel {facts.release or 'of unknown version'}")
    elif number < _FIRST:
        words = f"kernel {facts.release} is too old: MPTCP endpoints came with 5.7"
        yield bad("kernel-version", words, remedy=advice(f"{NEWER}, 6.1 at least"))
    elif number < _TESTED:
        words = f"kernel {facts.release}: it has MPTCP, but nm-mptcp is tested with 6.1 and later"
        yield warning("kernel-version", words, remedy=advice(f"{NEWER}, 6.1 at least"))
    else:
        yield good("kernel-version", f"kernel {facts.release}")


def options(facts: SystemFacts) -> Iterator[Finding]:
    """The kernel's build options."""
    if not facts.options_file:
        where = f"/proc/config.gz, /boot/config-{facts.release}, /lib/modules/{facts.release}/config"
        yield unknown("kernel-options", f"the build options of this kernel are unknown ({where})")
        return
    missing = [option for option in _OPTIONS if option not in facts.options]
    if not missing:
        yield good("kernel-options", f"all of {len(_OPTIONS)} options are set ({facts.options_file})")
    for option in missing:
        make = bad if option in _NEEDED else warning
        words = f"{option} is not set in {facts.options_file}: {_OPTIONS[option]}"
        fix = advice(f"install a kernel of your distribution that is built with {option}")
        yield make("kernel-options", words, option, fix)


def enabled(facts: SystemFacts) -> Iterator[Finding]:
    """``net.mptcp.enabled``."""
    value = facts.sysctls.get(_ENABLED)
    if value is None:
        yield bad(
            "mptcp-enabled", "there is no sysctl net.mptcp.enabled: this kernel has no MPTCP", remedy=advice(NEWER)
        )
    elif value == "0":
        yield bad(
            "mptcp-enabled",
            f"net.mptcp.enabled is 0: no MPTCP socket can be created{_switched(facts)}",
            remedy=TURN_ON,
        )
    else:
        yield good("mptcp-enabled", f"net.mptcp.enabled is {value}")


def _switched(facts: SystemFacts) -> str:
    """Whose TCP sockets cannot be made either."""
    if not facts.switched:
        return ""
    more = f" and {len(facts.switched) - 3} more" if len(facts.switched) > 3 else ""
    return f", and so no TCP socket in {', '.join(facts.switched[:3])}{more} (nm-mptcp exec and unit)"


def mptcp_socket(facts: SystemFacts) -> Iterator[Finding]:
    """Creating an MPTCP socket, and the reason where that fails."""
    number = facts.socket_errno
    if not number:
        yield good("mptcp-socket", "an MPTCP socket can be created")
        return
    meaning, remedy = _refusal(number, facts)
    name = errno.errorcode.get(number, str(number))
    yield bad("mptcp-socket", f"socket(IPPROTO_MPTCP) fails with {name}: {meaning}", remedy=remedy)


def _refusal(number: int, facts: SystemFacts) -> tuple[str, Remedy]:
    if number == errno.ENOPROTOOPT:
        return "net.mptcp.enabled is 0", TURN_ON
    if number == errno.EINVAL:
        return "this kernel is older than 5.6", advice(NEWER)
    if number in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
        return "this kernel was built without CONFIG_MPTCP", advice(NEWER)
    if number in (errno.EACCES, errno.EPERM):
        if facts.socket_programs:
            group = facts.socket_programs[0]
            other = ", or the seccomp filter of this process" if facts.seccomp else ""
            return f"a BPF program on the control group {group} forbids it{other}", commands(
                f"bpftool cgroup show {shlex.quote(group)}",
                words="allow protocol 262 in it, or detach it; it applies to all processes of this control group",
            )
        if facts.seccomp:
            where = "this process has a seccomp filter"
            return where, advice("run it outside of this container, sandbox or service, or allow it in the filter")
        if facts.selinux:
            return "SELinux forbids it", advice(
                "create a policy module from 'ausearch -m avc -ts recent': audit2allow(1)"
            )
        # Only root may query BPF programs.
        who = "a security module (LSM)" + ("" if facts.root else " or a BPF program on the control group")
        return f"{who} forbids it", advice("look for messages of AppArmor, or of another module, in 'dmesg'")
    return os.strerror(number), advice("see socket(2)")


def path_manager(facts: SystemFacts) -> Iterator[Finding]:
    """The path manager of new connections."""
    manager = facts.kernel.path_manager
    if not manager:
        yield not_applicable("path-manager", "this kernel has no MPTCP")
    elif manager == "kernel":
        yield good("path-manager", "the kernel's path manager is used")
    else:
        new = "net/mptcp/path_manager" in facts.sysctls
        line = "sysctl -w net.mptcp.path_manager=kernel" if new else "sysctl -w net.mptcp.pm_type=0"
        who = facts.process("mptcpd")
        words = f"the path manager is '{manager}': new connections do not use endpoints"
        because = "mptcpd is running and may have set it: stop it first" if who else ""
        yield bad("path-manager", words, remedy=commands(line, words=because, safe=not who))


def join_initial(facts: SystemFacts) -> Iterator[Finding]:
    """``net.mptcp.allow_join_initial_addr_port``, which matters for servers."""
    value = facts.sysctls.get("net/mptcp/allow_join_initial_addr_port")
    if value is None:
        yield not_applicable("join-initial-address", "this kernel has no net.mptcp.allow_join_initial_addr_port")
    elif value == "0":
        words = (
            "net.mptcp.allow_join_initial_addr_port is 0: clients may not join at the address that they connected to"
        )
        fix = commands(
            "sysctl -w net.mptcp.allow_join_initial_addr_port=1",
            words="0 is right only for servers behind a load balancer",
        )
        yield warning("join-initial-address", words, remedy=fix)
    else:
        yield good("join-initial-address", "clients may join at the address that they connected to")


def blackhole(facts: SystemFacts) -> Iterator[Finding]:
    """Whether the kernel has suspended MPTCP, since SYN packets with MPTCP were not answered."""
    timeout = facts.sysctls.get("net/mptcp/blackhole_timeout")
    seen = facts.counters.get("Blackhole", 0)
    if timeout is None:
        yield not_applicable("blackhole", "this kernel does not detect networks that drop MPTCP (6.12 does)")
    elif facts.blackholed:
        words = f"a network dropped MPTCP ({seen} times): new connections are TCP for at least {timeout} s"
        fix = commands(
            f"sysctl -w net.mptcp.blackhole_timeout={timeout}",
            words="writing the value, even the same one, ends this; 'nm-mptcp check --reach HOST' finds the network",
        )
        yield bad("blackhole", words, remedy=fix)
    elif seen:
        yield good("blackhole", f"a network dropped MPTCP earlier ({seen} times); MPTCP is in use again")
    else:
        yield good("blackhole", "no network that drops MPTCP was detected")


def silent_links(facts: SystemFacts) -> Iterator[Finding]:
    """How the service learns of retransmissions, by which it notices links that are up and carry no packets."""
    if facts.untraceable:
        later = "retransmissions are counted each second, so a silent link is noticed up to a second later"
        yield good("silent-links", f"{later}: {facts.untraceable}")
    else:
        yield good("silent-links", "retransmissions can be traced: a silent link is noticed by the first ones")
