# SPDX-License-Identifier: GPL-2.0-or-later
"""What our own D-Bus interface is called, and says in words of its own; for those who call it and the one that serves it."""

from __future__ import annotations

import enum

NAME = "org.nm_mptcp1"
PATH = "/org/nm_mptcp1"
INTERFACE = "org.nm_mptcp1"

#: Each path is an object below this one, with this interface.
PATHS = f"{PATH}/path"
PATH_INTERFACE = f"{INTERFACE}.Path"

#: The error for an argument that means nothing here.
WRONG = "org.freedesktop.DBus.Error.InvalidArgs"

#: Who made an endpoint, as the interface has it and as a person is told.
MAKERS = {"nm-mptcp": "nm-mptcp", "networkmanager": "NetworkManager", "other": "somebody else"}


class Verdict(enum.StrEnum):
    """How things stand; :attr:`status` is the exit status of ``nm-mptcp status``."""

    GOOD = "good"
    HELD_BACK = "held-back"
    NOT_WORKING = "not-working"

    @property
    def status(self) -> int:
        """0 all paths are good, 1 something is held back, 2 it does not work."""
        return list(Verdict).index(self)
