# SPDX-License-Identifier: GPL-2.0-or-later
"""The facts that the checks judge: gathered once, at one moment, by :mod:`.collect`."""

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

#: What is wrong with a service that has not looked at anything yet.
STARTING = "the service is just starting"


@dataclass(frozen=True, slots=True)
class Process:
    """A running program that may get in our way."""

    pid: int
    name: str  #: as the kernel has it, at most 15 bytes
    unit: str = ""  #: its systemd service, "" when it is of none


@dataclass(frozen=True, slots=True)
class Firewall:
    """Reverse-path matches in the packet filter."""

    rules: tuple[str, ...] = ()  #: nftables rules with ``fib saddr . iif``, as nft prints them
    unread: str = ""  #: why the rules could not be read, "" when they were
    firewalld: str = ""  #: ``IPv6_rpfilter=`` of a running firewalld, "" when there is none or it cannot be read


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with an address that should carry (:mod:`~nm_mptcp.policy.reachability`): the rule, and the words."""

    rule: str
    words: str

    @property
    def lost(self) -> bool:
        """Whether nothing from it gets anywhere."""
        return Why.of_rule(self.rule) in LOST


@dataclass(frozen=True, slots=True)
class Place:
    """An address that carries, or should carry: one of a path that is active, or of an endpoint in the kernel."""

    address: str
    ifindex: int  #: where the address is; 0 when it is nowhere
    interface: str
    endpoint: Endpoint | None
    path: PathStatus | None  #: what the status document says of it

    @property
    def decided(self) -> bool:
        """Whether nm-mptcp has it for a path, and so judges it; of any other nothing is known but what the kernel has."""
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
class Facts:
    """All that the checks look at."""

    root: bool = True
    release: str = ""  #: ``uname -r``
    options: Mapping[str, str] = field(default_factory=dict)  #: CONFIG_* -> y, m; those not set are not there
    options_file: str = ""  #: "" when no file tells
    sysctls: Mapping[str, str] = field(default_factory=dict)  #: by path (``net/mptcp/enabled``), those that can be read
    socket_errno: int = 0  #: of ``socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP)``; 0: it was made
    seccomp: bool = False  #: a filter of system calls is on this process
    selinux: bool = False  #: SELinux is enforcing
    socket_programs: tuple[str, ...] = ()  #: control groups with a BPF program on making sockets; where one is refused
    blackholed: bool = False  #: a connection within this machine fell back at once: MPTCP is suspended
    kernel: Kernel = field(default_factory=Kernel)
    kernel_error: str = ""  #: why endpoints and limits could not be read
    cases: Mapping[str, Case] = field(default_factory=dict)  #: what each address is for
    answers: RouteAnswers = field(default_factory=dict)  #: by which ways what leaves it goes there
    troubles: Mapping[str, Reason] = field(
        default_factory=dict
    )  #: of addresses that the status document knows nothing of
    own: frozenset[int] = frozenset()  #: ids of the endpoints that nm-mptcp made
    counters: Mapping[str, int] = field(default_factory=dict)  #: MPTcpExt and TcpExt, without these prefixes
    processes: tuple[Process, ...] = ()
    networkd: Mapping[str, str] = field(default_factory=dict)  #: [Network] of networkd.conf and its drop-ins
    cloud_setup: bool = False  #: nm-cloud-setup.timer is enabled
    firewall: Firewall = Firewall()
    tools: Mapping[str, str] = field(default_factory=dict)  #: name -> where it is, "" when it is not there
    iproute_version: str = ""
    bus: bool = True  #: somebody listens where the system bus should be
    status: StatusDocument | None = None
    status_error: str = ""  #: why there is no status document
    service_error: str = ""  #: what is wrong with a service that is there, or with the bus
    problems: tuple[str, ...] = ()  #: what is no good in our configuration
    routing: bool = True  #: our configuration asks for tables and rules
    keep_limits: bool = False  #: our configuration says limits=keep
    numbering: Numbering = field(default_factory=Numbering)
    dropin: str = ""  #: which file our drop-in's name stands for among NetworkManager's, "" when none
    dropin_masked: bool = False  #: that file is not ours: an empty one, or somebody's own
    systemd: bool = True  #: systemd runs this machine

    @property
    def paths(self) -> list[PathStatus]:
        """The addresses of the status document, without the loopback's."""
        paths = self.status.get("paths", []) if self.status else []
        return [path for path in paths if path["interface"] != "lo"]

    @property
    def active(self) -> list[PathStatus]:
        """Those that are paths now."""
        return [path for path in self.paths if path["state"] == "active"]

    @property
    def tunnels(self) -> Mapping[str, str]:
        """The interface of a full tunnel by the family that it covers (``ipv4``, ``ipv6``)."""
        guard = self.status.get("guard") if self.status else None
        return guard["tunnels"] if guard else {}

    def places(self) -> Iterator[Place]:
        """Each address that carries or should: active paths first, then endpoints that are no path of ours.

        Implicit endpoints are the kernel's own: it makes one where a connection uses an address that has none.
        """
        at = {each.address: each.ifindex for group in self.kernel.addresses.values() for each in group}
        paths = {path["address"]: path for path in self.paths}
        endpoints = {each.address: each for each in self.kernel.endpoints if not each.flags & EndpointFlag.IMPLICIT}
        active = [path["address"] for path in self.active]
        for address in dict.fromkeys([*active, *endpoints]):
            endpoint = endpoints.get(address)
            ifindex = at.get(address, 0)
            link = self.kernel.links.get(ifindex or (endpoint.ifindex if endpoint else 0))
            yield Place(address, ifindex, link.name if link else "", endpoint, paths.get(address))

    def trouble(self, place: Place) -> Trouble | None:
        """What keeps an address from reaching what it is for: of a path the same as ``status`` says."""
        if place.path is not None and place.decided:
            words = place.path.get("trouble")
            return Trouble(str(place.path["trouble_rule"]), str(words)) if words else None
        reason = self.troubles.get(place.address)
        return Trouble(reason.why.rule_name, str(reason)) if reason else None

    def process(self, *names: str) -> Process | None:
        """A running program of one of these names."""
        return next((process for process in self.processes if process.name in names), None)
