# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator may choose."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Failover(enum.StrEnum):
    """What happens when a link is lost while another path stays."""

    FAST = "fast"  #: its endpoints go at once: live connections move in one round-trip
    SAFE = "safe"  #: its endpoints become backup (MP_PRIO): some 0.2 s, nothing is ever closed
    OFF = "off"  #: nothing; NetworkManager acts when it gives the link up


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, with their defaults."""

    failover: Failover = Failover.FAST


#: What counts where nobody chose anything.
DEFAULTS = Config()
