# SPDX-License-Identifier: GPL-2.0-or-later
"""The settings of ``nm-mptcp.conf``, their defaults, and which of them apply to a path.

Pure. :mod:`~nm_mptcp.config.files` reads the files, :mod:`~nm_mptcp.config.keys` has the parser of each key.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from ..model.flags import ProfileFlag
from ..model.state import Device, Mode, Numbering
from .selector import Selector

_Value = TypeVar("_Value")


class Failover(enum.StrEnum):
    """What happens when a link is lost while another path is active."""

    FAST = "fast"  #: its endpoints are deleted at once: live connections move in one round-trip
    SAFE = "safe"  #: its endpoints become backup (MP_PRIO): some 0.2 s, no subflow is closed
    OFF = "off"  #: nothing, until NetworkManager deactivates the connection


class MeteredPolicy(enum.StrEnum):
    """What a path on a metered connection becomes."""

    BACKUP = "backup"
    EXCLUDE = "exclude"
    IGNORE = "ignore"


class RoamingPolicy(enum.StrEnum):
    """What a cellular path becomes while its modem roams."""

    EXCLUDE = "exclude"
    BACKUP = "backup"
    IGNORE = "ignore"


class LimitsPolicy(enum.StrEnum):
    """Whether the path manager's limits are raised as paths need it."""

    AUTO = "auto"
    KEEP = "keep"


class ConnectivityPolicy(enum.StrEnum):
    """Whether NetworkManager's connectivity check applies to a path."""

    CHECK = "check"
    IGNORE = "ignore"


class IPv6Address(enum.StrEnum):
    """Which of an interface's IPv6 addresses become paths."""

    STABLE = "stable"
    TEMPORARY = "temporary"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class WeakSignal:
    """Thresholds for a Wi-Fi signal (percent): below ``leave`` its path becomes backup, from ``enter`` on active again."""

    leave: int = 40  #: 0: off
    enter: int = 50

    def __str__(self) -> str:
        return f"{self.leave},{self.enter}" if self.leave else "0"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from."""

    file: str
    line: int
    section: str

    def __str__(self) -> str:
        return f"[{self.section}] in {self.file}"


@dataclass(frozen=True, slots=True)
class Setting(Generic[_Value]):
    """A value, and where it comes from; equal by value."""

    value: _Value
    origin: Origin | None = field(default=None, compare=False)  #: None: the default

    def __str__(self) -> str:
        return str(self.origin) if self.origin else "the default"


@dataclass(frozen=True, slots=True)
class RoutingOptions:
    """``[routing]``: whether paths get tables and rules, and the numbers that are ours."""

    enabled: bool = True
    tables: range = Numbering().tables
    rule_priority: int = Numbering().rule_priority  #: of all rules
    protocol: int = Numbering().protocol

    @property
    def numbering(self) -> Numbering:
        """The numbers alone."""
        return Numbering(self.protocol, self.tables, self.rule_priority)


@dataclass(frozen=True, slots=True)
class PathOptions:
    """The settings of a path, and where each comes from."""

    flags: Setting[ProfileFlag] = Setting(ProfileFlag(0))  #: 0: not set; else as in a profile
    metered: Setting[MeteredPolicy] = Setting(MeteredPolicy.BACKUP)
    assume_metered: Setting[bool | None] = Setting(None)  #: in place of NetworkManager's guess; None: its guess
    roaming: Setting[RoamingPolicy] = Setting(RoamingPolicy.EXCLUDE)
    weak_signal: Setting[WeakSignal] = Setting(WeakSignal())
    routing: Setting[bool] = Setting(True)
    connectivity: Setting[ConnectivityPolicy] = Setting(ConnectivityPolicy.CHECK)
    silent_links: Setting[bool] = Setting(True)  #: whether it is led around while it is silent
    slot_priority: Setting[int] = Setting(0)  #: of two candidates the higher gets the slot
    ipv6_address: Setting[IPv6Address] = Setting(IPv6Address.STABLE)
    signal_port: Setting[int] = Setting(0)  #: 0: none


@dataclass(frozen=True, slots=True)
class PathSection:
    """A ``[path-NAME]`` section: which paths it applies to, and their settings."""

    name: str  #: with ``path-``
    selector: Selector = Selector()
    settings: Mapping[str, Setting[Any]] = field(default_factory=dict)  #: by the names in :class:`PathOptions`


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, with their defaults."""

    mode: Mode = Mode.AUTO
    failover: Failover = Failover.FAST
    vpn_guard: bool = True
    metered: MeteredPolicy = MeteredPolicy.BACKUP
    roaming: RoamingPolicy = RoamingPolicy.EXCLUDE
    limits: LimitsPolicy = LimitsPolicy.AUTO
    routing: RoutingOptions = RoutingOptions()
    sections: tuple[PathSection, ...] = ()  #: highest priority first
    #: where the values of ``[main]`` and ``[routing]`` come from, by section and key; without defaults
    origins: Mapping[tuple[str, str], Origin] = field(default_factory=dict, compare=False)

    def for_path(self, device: Device, *, profile_id: str, profile_uuid: str, address: str) -> PathOptions:
        """The settings of a path: each from the first section that matches and has it, else from ``[main]``."""
        chosen: dict[str, Setting[Any]] = {
            "metered": Setting(self.metered, self.origins.get(("main", "metered"))),
            "roaming": Setting(self.roaming, self.origins.get(("main", "roaming"))),
        }
        for section in reversed(self.sections):
            if section.selector.matches(device, profile_id=profile_id, profile_uuid=profile_uuid, address=address):
                chosen.update(section.settings)
        options = PathOptions(**chosen)
        if not options.signal_port.value:
            return options
        # The kernel accepts a port only with "signal" and without "subflow" (mptcp_pm_nl_add_addr_doit).
        can_have_port = options.flags.value & (ProfileFlag.SIGNAL | ProfileFlag.SUBFLOW) == ProfileFlag.SIGNAL
        return options if can_have_port else replace(options, signal_port=Setting(0))

    def names(self, device: Device, *, profile_id: str, profile_uuid: str, address: str) -> bool:
        """Whether a section that applies to the path names its address (``match-address``)."""
        return any(
            section.selector.names(address)
            and section.selector.matches(device, profile_id=profile_id, profile_uuid=profile_uuid, address=address)
            for section in self.sections
        )


#: The settings of an empty configuration.
DEFAULTS = Config()
