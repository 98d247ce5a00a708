# SPDX-License-Identifier: GPL-2.0-or-later
"""Why an address is a path, waits, is suspended or is none: each reason a value, with the words a person reads."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Why(enum.Enum):
    """The rule that decided. The value is the sentence; ``{0}`` is the reason's detail."""

    # active
    FLAGS_OF_PROFILE = "the profile's mptcp-flags say so"
    FLAGS_OF_CONFIGURATION = "{0} says so"
    FLAGS_OF_KIND = "{0}"
    FLAGS_BY_HAND = "the flags of its endpoint were changed by hand; it is left as it is"
    MODE = "mode {0}"
    FLAGS_OF_NETWORKMANAGER = "NetworkManager's own default for this device says so: {0}"
    NETWORKMANAGER_OWNS = (
        "NetworkManager makes the endpoint since this activation began; nm-mptcp will from the next one"
    )
    SOMEBODY_ELSE_OWNS = "somebody else made this endpoint; it is left as it is"
    METERED_BACKUP = "backup, since {0}"
    ROAMING_BACKUP = "backup, since its modem is roaming"
    WEAK_SIGNAL = "backup while the signal is weak (it fell below {0}): another path carries"
    RELIEVES = "carries while the signal of {0} is weak"
    KEPT_LAST = "kept although {0}: no other path could carry its connections"
    KEPT_UNTIL_REPLACED = "{0}; kept until its replacement carries all its connections"
    KEPT_NETWORKMANAGER_AWAY = "kept as it was: NetworkManager is {0}"
    # active, and in trouble
    NO_WAY = "nothing from it gets out: {0}"
    OWN_NETWORK = "it reaches only its own network ({0}): no route by it leads further"
    REFUSES_DEFAULT = "it reaches only its own network ({0}): the profile says never-default"
    NO_UPLINK = "its bridge leads nowhere: {0}"
    # waiting
    ACTIVATING = "NetworkManager is still setting the device up ({0})"
    TENTATIVE = "duplicate address detection is not done"
    ADDRESS_AWAY = "the address was taken away, and may be added again"
    NO_DEFAULT_ROUTE = "no {0} default route by this interface"
    WAITS_FOR_NETWORKMANAGER = "NetworkManager has not added its endpoint yet"
    REFUSED = "the kernel refused the endpoint: {0}"
    # suspended
    DEACTIVATING = "NetworkManager is taking the connection down"
    NO_CARRIER = "no carrier"
    LINK_DOWN = "the interface is down"
    HELD_BACK = "the link came and went: held back for {0}"
    NO_CONNECTIVITY = "NetworkManager's connectivity check says {0}, and another path has full connectivity"
    VPN_GUARD = "all {0}: nothing goes around it"
    KEPT_BESIDE_TUNNEL = "all {0}; its endpoint stays for connections beside the tunnel, and no new subflow is made"
    KEPT_FOR_CONNECTIONS = "{0}; its endpoint stays for connections that have no other subflow"
    # excluded
    NOT_MANAGED = "NetworkManager does not manage this interface"
    EXTERNAL = "the interface was set up by somebody else; NetworkManager only looks on"
    NOT_CONFIGURED = "NetworkManager did not configure this address"
    NOT_CONNECTED = "not connected ({0})"
    UNREADABLE = "the profile cannot be read: {0}"
    DISABLED_BY_PROFILE = "the profile's mptcp-flags say disabled"
    DISABLED_BY_CONFIGURATION = "{0} says disabled"
    METERED = "{0} says metered=exclude"
    MODE_OFF = "mode off"
    ROAMING = "its modem is roaming"
    DISABLED_BY_NETWORKMANAGER = "NetworkManager.conf [{0}] says connection.mptcp-flags=disabled"
    SYSCTL_OFF = "net.mptcp.enabled is 0"
    KIND_IS_NO_PATH = "{0} is no uplink"
    SHARED = "this connection is shared with others; it is no uplink"
    NEVER_DEFAULT = "the profile says never-default for {0}"
    LINK_LOCAL = "link-local address"
    UNIQUE_LOCAL = "unique local address (fc00::/7)"
    NOT_GLOBAL = "not a global unicast address"
    TEMPORARY = "temporary (privacy) address"
    STABLE = "not a temporary address, and {0} says ipv6-address=temporary"
    DAD_FAILED = "duplicate address detection failed"
    DEPRECATED = "deprecated address"
    TWICE = "the same address is a path on {0}"
    NO_LONGER_CHOSEN = "{0} takes others of this link's IPv6 addresses now"
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
    """A rule and what it found."""

    why: Why
    detail: str = ""

    def __str__(self) -> str:
        return self.why.value.format(self.detail)
