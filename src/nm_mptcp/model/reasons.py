# SPDX-License-Identifier: GPL-2.0-or-later
"""Why an address is a path, waits, is suspended or is none: each reason is a value, with its text for people."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Why(enum.Enum):
    """The rule that decided. The value is its text, in which ``{0}`` is the reason's detail."""

    # active
    FLAGS_OF_PROFILE = "set by the profile's mptcp-flags"
    FLAGS_OF_CONFIGURATION = "set by {0}"
    FLAGS_OF_KIND = "{0}"
    FLAGS_BY_HAND = "the flags of its endpoint were changed manually; left unchanged"
    MODE = "mode {0}"
    FLAGS_OF_NETWORKMANAGER = "set by NetworkManager's default for this device: {0}"
    NETWORKMANAGER_OWNS = "NetworkManager owns the endpoint of this activation; nm-mptcp owns that of the next one"
    SOMEBODY_ELSE_OWNS = "another program made this endpoint; left unchanged"
    METERED_BACKUP = "backup: {0}"
    ROAMING_BACKUP = "backup: its modem is roaming"
    WEAK_SIGNAL = "backup while the signal is weak (it fell below {0}) and another path is active"
    RELIEVES = "regular while the signal of {0} is weak"
    SHARES_LOAD = "regular while {0} is slow or loses packets"
    SEEMS_SILENT = "backup while it may be silent: {0}"
    RELIEVES_SILENT = "regular while {0} is silent"
    KEPT_LAST = "{0}; kept, as no other path can take over its connections"
    KEPT_UNTIL_REPLACED = "{0}; kept until its replacement has all its connections"
    KEPT_NETWORKMANAGER_AWAY = "kept unchanged: NetworkManager is {0}"
    # active, and in trouble
    NO_WAY = "no packet from it leaves this machine: {0}"
    OWN_NETWORK = "only its own network ({0}) is reachable: no route by this link leads further"
    REFUSES_DEFAULT = "only its own network ({0}) is reachable: the profile sets never-default"
    NO_UPLINK = "its bridge has no uplink: {0}"
    ENDPOINT_ELSEWHERE = "the kernel opens no further subflow from it: its endpoint is for {0}"
    # waiting
    ACTIVATING = "NetworkManager is activating the device ({0})"
    TENTATIVE = "duplicate address detection is in progress"
    ADDRESS_AWAY = "the address was removed, and may be added again"
    NO_DEFAULT_ROUTE = "no {0} default route by this interface"
    WAITS_FOR_NETWORKMANAGER = "NetworkManager has not added its endpoint yet"
    REFUSED = "the kernel refused the endpoint: {0}"
    # suspended
    DEACTIVATING = "NetworkManager is deactivating the connection"
    NO_CARRIER = "no carrier"
    LINK_DOWN = "the interface is down"
    SILENT = "silent: {0}"
    HELD_BACK = "the link is flapping: suspended for {0}"
    NO_CONNECTIVITY = "NetworkManager reports connectivity {0}, and another path has full connectivity"
    VPN_GUARD = "VPN guard: all {0}"
    KEPT_BESIDE_TUNNEL = (
        "VPN guard: all {0}; its endpoint is kept for connections outside the tunnel, without new subflows"
    )
    KEPT_FOR_CONNECTIONS = "{0}; its endpoint is kept for connections without another subflow"
    # excluded
    NOT_MANAGED = "NetworkManager does not manage this interface"
    EXTERNAL = "the interface was configured outside of NetworkManager"
    NOT_CONFIGURED = "NetworkManager did not configure this address"
    NOT_CONNECTED = "not connected ({0})"
    UNREADABLE = "the profile cannot be read: {0}"
    DISABLED_BY_PROFILE = "disabled by the profile's mptcp-flags"
    DISABLED_BY_CONFIGURATION = "disabled by {0}"
    METERED = "{0} sets metered=exclude"
    MODE_OFF = "mode off"
    ROAMING = "its modem is roaming"
    DISABLED_BY_NETWORKMANAGER = "disabled by connection.mptcp-flags in NetworkManager.conf [{0}]"
    SYSCTL_OFF = "net.mptcp.enabled is 0"
    KIND_IS_NO_PATH = "device type {0} is no uplink"
    SHARED = "the connection is shared with others, so it is no uplink"
    NEVER_DEFAULT = "the profile sets never-default for {0}"
    LINK_LOCAL = "link-local address"
    UNIQUE_LOCAL = "unique local address (fc00::/7)"
    NOT_GLOBAL = "not a global unicast address"
    TEMPORARY = "temporary (privacy) address"
    STABLE = "not a temporary address, and {0} sets ipv6-address=temporary"
    DAD_FAILED = "duplicate address detection failed"
    DEPRECATED = "deprecated address"
    TWICE = "the same address is a path on {0}"
    NO_LONGER_CHOSEN = "{0} now selects other IPv6 addresses of this link"
    NO_SLOT = "left out: the kernel takes {0}"

    @property
    def rule_name(self) -> str:
        """The rule's name in the documents, on D-Bus and in the journal: ``no-carrier``."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def of_rule(cls, name: str) -> Why | None:
        """The rule of this name, None for one that only another release knows."""
        return cls.__members__.get(name.upper().replace("-", "_"))


@dataclass(frozen=True, slots=True)
class Reason:
    """A rule with the detail of this case."""

    why: Why
    detail: str = ""

    def __str__(self) -> str:
        return self.why.value.format(self.detail)
