# SPDX-License-Identifier: GPL-2.0-or-later
"""What the checks are functions of; :mod:`.collect` looks it up once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..kernel.route_lookup import RouteAnswers
from ..model.flags import EndpointFlag
from ..model.reasons import Reason, Why
from ..model.state import Endpoint, Kernel, Numbering
from ..policy.reachability import Case
from ..report.documents import PathStatus, StatusDocument
from ..report.health import LOST

#: ``service_error`` before the service's first look.
STARTING = "the service is just starting"


@dataclass(frozen=True, slots=True)
class Process:
    """A running program that may interfere."""

    pid: int
    name: str  #: as the kernel has it, at most 15 bytes
    unit: str = ""  #: its systemd service, "" without one


@dataclass(frozen=True, slots=True)
class Firewall:
    """What is known of the packet filter."""

    rules: tuple[str, ...] = ()  #: nftables rules with ``fib saddr . iif``, as nft prints them
    unread: str = ""  #: why the rules could not be read, "" when they were
    guarded: frozenset[str] = frozenset()  #: tunnels in nm-mptcp's own table
    firewalld: str = ""  #: ``IPv6_rpfilter=`` of a running firewalld, "" when there is none or it cannot be read


@dataclass(frozen=True, slots=True)
class Trouble:
    """The trouble of an address (:mod:`~nm_mptcp.policy.reachability`): rule and text."""

    rule: str
    text: str

    @property
    def lost(self) -> bool:
        """Whether no packet from it gets anywhere."""
        return Why.of_rule(self.rule) in LOST


@dataclass(frozen=True, slots=True)
class CheckedAddress:
    """An address that is used, or should be: that of an active path, or of an endpoint."""

    address: str
    ifindex: int  #: the interface that has the address, 0 when none has
    interface: str
    endpoint: Endpoint | None
    path: PathStatus | None  #: from the status document

    @property
    def subject(self) -> str:
        """Interface and address, as the subject of findings."""
        return f"{self.interface} {self.address}".strip()

    @property
    def decided(self) -> bool:
        """Whether it is a path by nm-mptcp's decision; otherwise only the kernel's state is known."""
        return self.path is not None and self.path["state"] != "excluded"

    @property
    def ours(self) -> bool:
        """Whether nm-mptcp routes this address."""
        return self.table is not None

    @property
    def table(self) -> int | None:
        """The table by which nm-mptcp routes this address: one of its own, or the profile's."""
        return self.path["table"] if self.path is not None and self.path["state"] == "active" else None


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """What the checks examine."""

    root: bool = True
    release: str = ""  #: ``uname -r``
    options: Mapping[str, str] = field(default_factory=dict)  #: CONFIG_* -> y, m; those not set are not there
    options_file: str = ""  #: "" when there is none
    sysctls: Mapping[str, str] = field(default_factory=dict)  #: by path (``net/mptcp/enabled``), only readable ones
    socket_errno: int = 0  #: of ``socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP)``, 0 for success
    seccomp: bool = False  #: this process has a seccomp filter
    selinux: bool = False  #: SELinux is enforcing
    socket_programs: tuple[
        str, ...
    ] = ()  #: control groups with a BPF program on socket creation; looked up when that fails
    switched: tuple[str, ...] = ()  #: control groups whose TCP sockets are made MPTCP ones (nm-mptcp-exec(8)), to root
    blackholed: bool = False  #: a local connection fell back to TCP: the kernel has suspended MPTCP
    kernel: Kernel = field(default_factory=Kernel)
    kernel_error: str = ""  #: why endpoints and limits could not be read
    cases: Mapping[str, Case] = field(default_factory=dict)  #: address -> what it is for
    answers: RouteAnswers = field(default_factory=dict)  #: address -> the routes of its packets
    troubles: Mapping[str, Reason] = field(
        default_factory=dict
    )  #: address -> trouble, for addresses without a decision
    own: frozenset[int] = frozenset()  #: ids of nm-mptcp's endpoints
    counters: Mapping[str, int] = field(default_factory=dict)  #: MPTcpExt and TcpExt, without these prefixes
    processes: tuple[Process, ...] = ()
    networkd: Mapping[str, str] = field(default_factory=dict)  #: [Network] of networkd.conf and its drop-ins
    cloud_setup: bool = False  #: nm-cloud-setup.timer is enabled
    firewall: Firewall = Firewall()
    untraceable: str = ""  #: why retransmissions cannot be traced, "" when they can
    tools: Mapping[str, str] = field(default_factory=dict)  #: name -> path, "" when not installed
    iproute_version: str = ""
    bus: bool = True  #: the system bus is reachable
    status: StatusDocument | None = None
    status_error: str = ""  #: why there is no status document
    service_error: str = ""  #: what is wrong with a running service, or with the bus
    problems: tuple[str, ...] = ()  #: errors in nm-mptcp.conf
    routing: bool = True  #: [routing] enabled
    keep_limits: bool = False  #: limits=keep
    numbering: Numbering = field(default_factory=Numbering)
    dropin: str = ""  #: the file that NetworkManager reads under the drop-in's name, "" when none
    dropin_masked: bool = False  #: that file is not nm-mptcp's: it is empty, or an administrator's
    systemd: bool = True  #: systemd is the init system

    @property
    def paths(self) -> list[PathStatus]:
        """The addresses of the status document, without the loopback's."""
        paths = self.status.get("paths", []) if self.status else []
        return [path for path in paths if path["interface"] != "lo"]

    @property
    def active(self) -> list[PathStatus]:
        """The active paths."""
        return [path for path in self.paths if path["state"] == "active"]

    @property
    def tunnels(self) -> Mapping[str, str]:
        """Family (``ipv4``, ``ipv6``) -> interface of the full tunnel."""
        guard = self.status.get("guard") if self.status else None
        return guard["tunnels"] if guard else {}

    @property
    def guarded(self) -> list[str]:
        """The interfaces of tunnels whose connections are to get no subflow beside them."""
        guard = self.status.get("guard") if self.status else None
        return guard.get("stays_inside", []) if guard else []

    def addresses(self) -> Iterator[CheckedAddress]:
        """Each address of an active path, then each of another endpoint.

        But not of implicit ones, which the kernel adds for connections from an address without an endpoint.
        """
        at = {each.address: each.ifindex for group in self.kernel.addresses.values() for each in group}
        paths = {path["address"]: path for path in self.paths}
        endpoints = {each.address: each for each in self.kernel.endpoints if not each.flags & EndpointFlag.IMPLICIT}
        active = [path["address"] for path in self.active]
        for address in dict.fromkeys([*active, *endpoints]):
            endpoint = endpoints.get(address)
            ifindex = at.get(address, 0)
            link = self.kernel.links.get(ifindex or (endpoint.ifindex if endpoint else 0))
            yield CheckedAddress(address, ifindex, link.name if link else "", endpoint, paths.get(address))

    def trouble(self, checked: CheckedAddress) -> Trouble | None:
        """What keeps packets of an address from what it is for; of a path that of the status document."""
        if checked.path is not None and checked.decided:
            text = checked.path.get("trouble")
            return Trouble(str(checked.path["trouble_rule"]), text) if text else None
        reason = self.troubles.get(checked.address)
        return Trouble(reason.why.rule_name, str(reason)) if reason else None

    def process(self, *names: str) -> Process | None:
        """A running program of one of these names."""
        return next((process for process in self.processes if process.name in names), None)
