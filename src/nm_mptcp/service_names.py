# SPDX-License-Identifier: GPL-2.0-or-later
"""What our own D-Bus interface is called; for those who call it and the one that serves it."""

from __future__ import annotations

NAME = "org.nm_mptcp1"
PATH = "/org/nm_mptcp1"
INTERFACE = "org.nm_mptcp1"

#: The error for an argument that means nothing here.
WRONG = "org.freedesktop.DBus.Error.InvalidArgs"
