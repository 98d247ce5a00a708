# SPDX-License-Identifier: GPL-2.0-or-later
"""What our own D-Bus interface is called, and says in words of its own; for those who call it and the one that serves it."""

from __future__ import annotations

NAME = "org.nm_mptcp1"
PATH = "/org/nm_mptcp1"
INTERFACE = "org.nm_mptcp1"

#: Each path is an object below this one, with this interface.
PATHS = f"{PATH}/path"
PATH_INTERFACE = f"{INTERFACE}.Path"

#: The error for an argument that means nothing here.
WRONG = "org.freedesktop.DBus.Error.InvalidArgs"
