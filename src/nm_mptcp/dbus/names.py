# SPDX-License-Identifier: GPL-2.0-or-later
"""The names of our own D-Bus interface, for the service and for its callers."""

from __future__ import annotations

NAME = "org.nm_mptcp1"
PATH = "/org/nm_mptcp1"
INTERFACE = "org.nm_mptcp1"

#: Each path is an object below this one, with this interface.
PATHS = f"{PATH}/path"
PATH_INTERFACE = f"{INTERFACE}.Path"

#: The error for an argument that is not valid.
INVALID_ARGS = "org.freedesktop.DBus.Error.InvalidArgs"
