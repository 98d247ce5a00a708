# SPDX-License-Identifier: GPL-2.0-or-later
"""What only a package or ``make install`` brings: pip installs the command alone, and that one says so."""

from __future__ import annotations

from pathlib import Path

#: What -> where it may be, below the system's and the administrator's folders.
_PLACES = {
    "the service": "systemd/system/nm-mptcp.service",
    "the dispatcher scripts": "NetworkManager/dispatcher.d/10-nm-mptcp",
    "NetworkManager's default for connection.mptcp-flags": "NetworkManager/conf.d/10-nm-mptcp.conf",
    "the D-Bus policy": "dbus-1/system.d/org.nm_mptcp1.conf",
}
_FOLDERS = ("usr/lib", "usr/share", "lib", "etc", "usr/local/lib", "usr/local/share")


def missing(root: Path = Path("/")) -> tuple[str, ...]:
    """What of it is nowhere on this system, in words."""
    return tuple(
        what for what, place in _PLACES.items() if not any((root / folder / place).exists() for folder in _FOLDERS)
    )


def note(root: Path = Path("/")) -> str | None:
    """One line for who has the command alone; None where any of the rest is installed."""
    absent = missing(root)
    if len(absent) < len(_PLACES):
        return None
    return (
        f"only the command is installed, without {', '.join(absent[:-1])} and {absent[-1]}: nothing follows what"
        " NetworkManager does, and it makes endpoints of its own; the distribution's package or 'make install' brings them"
    )
