# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks up what the checks examine: reads only, and works for every user as far as the kernel allows it.

Besides the service's status document these are raw netlink and files, in some tens of milliseconds. Without a service
NetworkManager is asked, and the libraries for that are imported.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..config.files import ConfigurationFiles, Reading
from ..dbus.connection import BusError
from ..engine.record_file import Record, StateError
from ..kernel import sysctl
from ..kernel.errors import KernelError
from ..kernel.fib import FIB
from ..kernel.join_filter import IPSEC_NAME, TABLE, TUNNELS
from ..kernel.path_manager import PathManager
from ..kernel.route_lookup import RouteLookup
from ..kernel.rtnetlink import Rtnetlink
from ..kernel.sock_diag import subflows
from ..kernel.tracefs import untraceable
from ..model.flags import EndpointFlag
from ..model.state import MAIN_TABLE, Kernel, Limits, NetworkManager, RouteType, marks_of
from ..policy import reachability
from ..report.documents import StatusDocument
from ..service import remote
from . import system, tools
from .facts import STARTING, Firewall, Process, SystemFacts
from .mptcp_socket import works_locally

#: Programs that matter, by ``comm``, which the kernel cuts at 15 bytes.
_PROGRAMS = frozenset(
    ("mptcpd", "systemd-network", "systemd-networkd", "charon", "charon-systemd", "charon-nm", "firewalld")
)
#: Seconds for a program.
_TIMEOUT = 5.0

_SYSCTLS = (
    "enabled",
    "path_manager",
    "pm_type",
    "allow_join_initial_addr_port",
    "blackhole_timeout",
    "add_addr_timeout",
    "checksum_enabled",
    "close_timeout",
    "scheduler",
    "stale_loss_cnt",
    "syn_retrans_before_tcp_fallback",
)
_INTERFACE_SYSCTLS = ("rp_filter", "arp_ignore", "arp_announce", "arp_filter")
_REVERSE_PATH = re.compile(r"\bfib (?=[^{}]*\bsaddr\b)(?=[^{}]*\. iif\b)")
_OWN_TUNNELS = re.compile(
    rf"^table inet {TABLE} {{\n(?:\t.*\n)*?\tset {TUNNELS} {{[^}}]*?elements = {{([^}}]*)}}", re.MULTILINE
)
_DROPIN = "NetworkManager/conf.d/10-nm-mptcp.conf"


def system_facts(record: Record, configuration: ConfigurationFiles) -> SystemFacts:
    """Look everything up, in the network namespace of this thread. Raises KernelError."""
    # These programs run meanwhile.
    nft = _program("nft", "list", "ruleset") if os.geteuid() == 0 else None
    iproute = _program("ip", "-V")
    facts = SystemFacts(
        root=os.geteuid() == 0,
        release=os.uname().release,
        systemd=Path("/run/systemd/system").is_dir(),
        tools={name: _find(name) for name in tools.TOOLS},
        untraceable=untraceable(),
    )
    facts = _with_kernel(facts)
    facts = _with_configuration(facts, configuration.read())
    facts = _with_service(facts, record, configuration)
    facts = _with_socket(facts)
    facts = _with_programs(facts)
    facts = _with_routes(facts)
    version = re.search(r"iproute2-([\w.]+)", _output(iproute)[0])
    firewall = _firewall(nft, facts.processes, root=facts.root)
    return replace(facts, iproute_version=version[1] if version else "", firewall=firewall)


# --- the service, or NetworkManager, and their configuration


def _with_configuration(facts: SystemFacts, reading: Reading) -> SystemFacts:
    dropin, masked = _dropin()
    return replace(
        facts,
        problems=tuple(map(str, reading.problems)),
        routing=reading.config.routing.enabled,
        keep_limits=reading.config.limits == "keep",
        numbering=reading.config.routing.numbering,
        dropin=dropin,
        dropin_masked=masked,
    )


def _with_service(facts: SystemFacts, record: Record, configuration: ConfigurationFiles) -> SystemFacts:
    bus, status, status_error, service_error = _status(record, configuration)
    with contextlib.suppress(StateError):
        record.load(aside=False)
    return replace(
        facts,
        bus=bus,
        status=status,
        status_error=status_error,
        service_error=service_error,
        own=frozenset(each.id for each in facts.kernel.endpoints if record.contents.ours.owns(each)),
    )


def _status(record: Record, configuration: ConfigurationFiles) -> tuple[bool, StatusDocument | None, str, str]:
    """Whether there is a bus; the status document; why there is none; what is wrong with a service that is there."""
    bus = True
    try:
        answer = remote.read("Status")
        if answer is not None:
            starting = STARTING if answer == "{}" else ""
            return bus, json.loads(answer) or None, starting, starting
    except (BusError, ValueError) as error:
        bus = not (isinstance(error, BusError) and error.name == BusError.NO_SERVER)
        if bus:
            failure = f"the service does not answer: {error}"
            return bus, None, failure, failure
    return bus, *_without_service(record, configuration), ""


def _without_service(record: Record, configuration: ConfigurationFiles) -> tuple[StatusDocument | None, str]:
    from ..service.oneshot import status

    try:
        return status(record, configuration.read().config), ""
    except (KernelError, StateError) as error:
        return None, str(error)


# --- the kernel


def _with_kernel(facts: SystemFacts) -> SystemFacts:
    kernel, kernel_error = _kernel()
    options, options_file = _options(facts.release)
    return replace(
        facts,
        options=options,
        options_file=options_file,
        sysctls=dict(_sysctls(kernel)),
        counters=_counters(),
        kernel=kernel,
        kernel_error=kernel_error,
    )


def _with_socket(facts: SystemFacts) -> SystemFacts:
    number = _socket_errno()
    return replace(
        facts,
        socket_errno=number,
        socket_programs=_socket_programs() if number in (errno.EACCES, errno.EPERM) else (),
        seccomp=bool(re.search(r"^Seccomp:\s*2", _text(Path("/proc/thread-self/status")), re.MULTILINE)),
        selinux=_text(Path("/sys/fs/selinux/enforce")) == "1",
        blackholed=bool(facts.counters.get("Blackhole")) and works_locally() is False,
    )


def _kernel() -> tuple[Kernel, str]:
    """The kernel's state, and why endpoints and limits could not be read."""
    with Rtnetlink() as rtnetlink:
        fib = FIB.of(rtnetlink.links(), rtnetlink.addresses(), rtnetlink.routes(), rtnetlink.rules())
    kernel = Kernel(
        mptcp_enabled=sysctl.mptcp_enabled(),
        path_manager=sysctl.path_manager(),
        laminar=sysctl.knows_laminar(),
        links=fib.links,
        addresses=fib.addresses,
        routes=fib.routes,
        rules=fib.rules,
        limits=Limits(0, 0),
    )
    if not kernel.path_manager:
        return kernel, ""
    try:
        with PathManager() as manager:
            return replace(kernel, endpoints=manager.endpoints(), limits=manager.limits()), ""
    except KernelError as error:
        return kernel, str(error)


def _with_routes(facts: SystemFacts) -> SystemFacts:
    """The routes of each address, and its trouble, found as for the status document."""
    kernel, purposes = facts.kernel, reachability.Purposes(facts.kernel)
    cases = {
        checked.address: purposes.case(checked.address, checked.ifindex, checked.endpoint, EndpointFlag(0))
        for checked in facts.addresses()
        if checked.ifindex
    }
    with RouteLookup() as lookup:
        answers = {address: lookup.answers(case.question, kernel) for address, case in cases.items()}
    close = any(not case.purpose.beyond for case in cases.values())
    live = {each.local for each in subflows() if each.established} if close and facts.root else ()
    outward = {
        route.family
        for (table, _), routes in kernel.routes.items()
        for route in routes
        if table == MAIN_TABLE and route.is_default and route.type is RouteType.UNICAST
    }
    marks = marks_of(facts.numbering)
    troubles = reachability.troubles(kernel, NetworkManager(), cases.values(), answers, live, marks, outward)
    return replace(facts, cases=cases, answers=answers, troubles=troubles)


def _sysctls(kernel: Kernel) -> Iterator[tuple[str, str]]:
    paths = [f"net/mptcp/{name}" for name in _SYSCTLS]
    names = ["all", *(link.name for link in kernel.links.values() if not link.loopback)]
    paths += [sysctl.interface("ipv4", name, key) for name in names for key in _INTERFACE_SYSCTLS]
    for path in paths:
        value = sysctl.read(path)
        if value is not None:
            yield path, value


def _counters() -> dict[str, int]:
    """MPTcpExt and TcpExt of ``/proc/net/netstat``: a line of names and one of values for each."""
    found: dict[str, int] = {}
    lines = _text(Path("/proc/thread-self/net/netstat")).splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if names.startswith(("MPTcpExt:", "TcpExt:")):
            found.update(zip(names.split()[1:], map(int, values.split()[1:]), strict=False))
    return found


def _socket_errno() -> int:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP).close()
    except OSError as error:
        return error.errno or 0
    return 0


def _socket_programs() -> tuple[str, ...]:
    from .cgroup_bpf import refusing

    return refusing()


def _options(release: str) -> tuple[dict[str, str], str]:
    """The options of the kernel that matter, and the file that has them."""
    wanted = re.compile(rf"^({'|'.join(system.OPTIONS)})=([ym])$".encode(), re.MULTILINE)
    for place in ("/proc/config.gz", f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        with contextlib.suppress(OSError, zlib.error):
            data = Path(place).read_bytes()
            if place.endswith(".gz"):
                data = zlib.decompress(data, 31)
            return {name.decode(): value.decode() for name, value in wanted.findall(data)}, place
    return {}, ""


# --- other programs


def _with_programs(facts: SystemFacts) -> SystemFacts:
    processes = tuple(_processes())
    return replace(
        facts,
        processes=processes,
        networkd=_networkd() if any(each.name.startswith("systemd-network") for each in processes) else {},
        cloud_setup=any(Path("/etc/systemd/system").glob("*.wants/nm-cloud-setup.timer")),
    )


def _processes() -> Iterator[Process]:
    """Those of :data:`_PROGRAMS` in this network namespace, or in one that may not be known."""
    ours = _namespace("thread-self")
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        name = _text(Path("/proc", entry, "comm"))
        if name in _PROGRAMS and _namespace(entry) in (ours, None):
            unit = re.search(r"/([^/]+\.service)$", _text(Path("/proc", entry, "cgroup")), re.MULTILINE)
            yield Process(int(entry), name, unit[1] if unit else "")


def _namespace(process: str) -> int | None:
    try:
        return os.stat(f"/proc/{process}/ns/net").st_ino
    except OSError:
        return None


def _networkd() -> dict[str, str]:
    """[Network] of networkd.conf(5): the main file, then drop-ins by name; the first directory that has a name wins."""
    main = next((path for path in map(Path, _networkd_places("networkd.conf")) if path.exists()), None)
    snippets: dict[str, Path] = {}
    for directory in _networkd_places("networkd.conf.d"):
        for path in Path(directory).glob("*.conf"):
            snippets.setdefault(path.name, path)
    found: dict[str, str] = {}
    for path in [*([main] if main else []), *(snippets[name] for name in sorted(snippets))]:
        section = ""
        for line in _text(path).splitlines():
            key, equals, value = line.partition("=")
            if line.startswith("["):
                section = line.strip()
            elif equals and section == "[Network]" and not line.startswith(("#", ";")):
                found[key.strip()] = value.strip()
    return found


def _networkd_places(name: str) -> list[str]:
    return [f"{place}/systemd/{name}" for place in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")]


def _dropin() -> tuple[str, bool]:
    """The file that NetworkManager reads under the drop-in's name, and whether it is another one."""
    for place in ("/etc", "/run", "/usr/lib"):
        path = Path(place, _DROPIN)
        if path.exists():
            return str(path), "[connection-nm-mptcp]" not in _text(path)
    return "", False


def _firewall(nft: subprocess.Popen[str] | None, processes: tuple[Process, ...], *, root: bool) -> Firewall:
    firewalld = ""
    if any(each.name == "firewalld" for each in processes):
        found = re.search(r"^\s*IPv6_rpfilter\s*=\s*(\S+)", _text(Path("/etc/firewalld/firewalld.conf")), re.MULTILINE)
        firewalld = found[1] if found else "yes"
    if not root:
        return Firewall(unread="permission denied: must be root", firewalld=firewalld)
    if nft is None:
        return Firewall(unread="nft is not installed (package nftables)", firewalld=firewalld)
    output, failure = _output(nft)
    if failure:
        return Firewall(unread=failure, firewalld=firewalld)
    rules = tuple(line.strip() for line in output.splitlines() if _REVERSE_PATH.search(line))
    own = _OWN_TUNNELS.search(output)
    guarded = frozenset(re.findall(r'"([^"]*)"', own[1].replace(IPSEC_NAME, "IPsec"))) if own else frozenset()
    return Firewall(rules=rules, guarded=guarded, firewalld=firewalld)


def _find(name: str) -> str:
    """The path of a program, also in the sbin directories that a user's PATH lacks; "" when it is not installed."""
    places = [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/sbin", "/sbin", "/usr/local/sbin"]
    found = (os.path.join(place, name) for place in places if place)
    return next((path for path in found if os.path.isfile(path) and os.access(path, os.X_OK)), "")


def _program(name: str, *arguments: str) -> subprocess.Popen[str] | None:
    place = _find(name)
    if not place:
        return None
    return subprocess.Popen(
        [place, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _output(program: subprocess.Popen[str] | None) -> tuple[str, str]:
    """Its standard output, and what went wrong."""
    if program is None:
        return "", ""
    try:
        output, errors = program.communicate(timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        program.kill()
        program.communicate()
        return "", f"no result within {_TIMEOUT:g} s"
    return output, (errors.strip().splitlines() or [f"exit status {program.returncode}"])[
        0
    ] if program.returncode else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
