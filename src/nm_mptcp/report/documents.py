# SPDX-License-Identifier: GPL-2.0-or-later
"""The types of the JSON documents: ``status``, ``explain`` and ``check``. nm-mptcp-json(5) has each name.

Names and values are an interface: they are added to, never changed. A document may come from a service of another
release; what an older one does not give is ``NotRequired``, and unknown values of rules and owners are possible.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict, final

# --- status ---------------------------------------------------------------------------------------------------------


class NetworkManagerStatus(TypedDict):
    """``networkmanager``: whether it runs and answers, and its default for ``connection.mptcp-flags``."""

    running: bool
    silent: NotRequired[bool]
    version: str
    default_flags: list[str]
    default_flags_section: str


class KernelStatus(TypedDict):
    """``kernel``: whether MPTCP is enabled, and how many endpoints it has and takes."""

    mptcp_enabled: bool
    path_manager: str
    endpoints_max: int
    endpoints_used: int


class LimitsStatus(TypedDict):
    """``limits``: the path manager's limits, for each connection."""

    subflows: int
    add_addr_accepted: int


class ConnectionsStatus(TypedDict):
    """``connections``: the live MPTCP connections, and the most additional subflows that one of them has."""

    total: int
    subflows: int
    additional_most: int


class LinkStatus(TypedDict):
    """One of ``links``: an interface with all its addresses. Counts are None without CAP_NET_ADMIN."""

    interface: str
    profile: str
    uuid: str
    kind: str
    up: bool
    carrier: bool
    state: str
    priority: str | None
    reason: str
    since: str | None
    addresses: list[str]
    connections: int | None
    subflows: int | None
    alone: int | None


class GuardStatus(TypedDict):
    """``guard``: the VPN guard in force, or the last one; ``tunnels`` is family (``ipv4``, ``ipv6``) -> interface, and
    ``stays_inside`` the interfaces of all tunnels whose connections get no subflow beside them.
    """

    tunnels: dict[str, str]
    stays_inside: list[str]
    since: str | None
    until: str | None
    cut_subflows: int
    cut_connections: int


class PathStatus(TypedDict):
    """One of ``paths``: an address, the decision and its reason, its endpoint and its table."""

    interface: str
    profile: str
    uuid: str
    kind: str
    address: str
    flags: list[str]
    flags_from: str
    priority: str | None
    state: str
    reason: str
    rule: str
    since: str | None
    endpoint_id: int | None
    owner: str
    table: int | None
    gateway: str | None
    subflows: int | None
    port: NotRequired[int | None]
    trouble: NotRequired[str | None]
    trouble_rule: NotRequired[str | None]


class StatusDocument(TypedDict):
    """``nm-mptcp status --json``, and the D-Bus method ``Status``."""

    state: str
    problems: list[str]
    version: str
    service: str
    mode: str
    mode_from: str
    networkmanager: NetworkManagerStatus
    kernel: KernelStatus
    limits: LimitsStatus
    connections: ConnectionsStatus | None
    links: list[LinkStatus]
    guard: GuardStatus
    paths: list[PathStatus]
    paused: bool
    kept: list[str]


# --- explain --------------------------------------------------------------------------------------------------------


class Fact(TypedDict):
    """One of ``facts``: what was looked at, and what it says."""

    about: str
    says: str


class Command(TypedDict):
    """One of ``commands``: what it is for, and what to type."""

    to: str
    type: str


class PathExplanation(TypedDict):
    """One of ``paths``: an address, the facts that led to the decision in their order, and how to change it."""

    interface: str
    address: str
    profile: str
    uuid: str
    state: str
    priority: str | None
    reason: str
    rule: str
    facts: list[Fact]
    commands: list[Command]


class PathsExplanation(TypedDict):
    """An interface, an address or a profile; ``facts`` where it has no address."""

    what: str
    kind: Literal["interface", "address", "profile"]
    paths: list[PathExplanation]
    facts: NotRequired[list[Fact]]


@final
class FirstSubflow(TypedDict):
    """``first``: where a new connection leaves."""

    interface: str
    source: str | None
    gateway: str | None
    table: int
    profile: str
    state: str | None
    reason: str


@final
class NoRoute(TypedDict):
    """``first`` where no route leads to the destination: the kernel's error."""

    error: str


class SubflowExplanation(TypedDict):
    """One of ``subflows``: an endpoint of the destination's family, and whether it opens a subflow there."""

    interface: str
    address: str
    endpoint_id: int
    flags: list[str]
    priority: str
    profile: str
    gateway: str | None
    table: int | None
    follows: bool
    reason: str


class DestinationExplanation(TypedDict):
    """An address that is not this machine's: how a new connection to it leaves, and which subflows follow."""

    what: str
    kind: Literal["destination"]
    address: str
    first: FirstSubflow | NoRoute
    subflows: list[SubflowExplanation]
    limit: int
    learns: list[str]
    notes: list[str]
    commands: list[Command]


#: The answer of the D-Bus method ``Explain``, and of ``nm-mptcp explain --json`` for anything but a host's name.
Explanation = PathsExplanation | DestinationExplanation


class HostExplanation(TypedDict):
    """A host's name: one explanation for each of its addresses. Only the command resolves names."""

    what: str
    kind: Literal["host"]
    destinations: list[Explanation]


# --- check ----------------------------------------------------------------------------------------------------------


class RemedyDocument(TypedDict):
    """What to do about a finding: commands in their order, and words; ``safe`` for those of ``--fix``."""

    commands: list[str]
    words: str
    safe: bool


class FindingDocument(TypedDict):
    """One of ``findings``."""

    check: str
    subject: str
    result: str
    evidence: str
    remedy: RemedyDocument | None


class CheckDocument(TypedDict):
    """``nm-mptcp check --json``; ``summary`` is result -> how many."""

    version: str
    result: str
    summary: dict[str, int]
    findings: list[FindingDocument]
