# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that only a package or ``make install`` installs, and not pip."""

from __future__ import annotations

from pathlib import Path

#: What -> its path below one of :data:`_DIRECTORIES`.
_PLACES = {
    "the service": "systemd/system/nm-mptcp.service",
    "the dispatcher scripts": "NetworkManager/dispatcher.d/10-nm-mptcp",
    "NetworkManager's default for connection.mptcp-flags": "NetworkManager/conf.d/10-nm-mptcp.conf",
    "the D-Bus policy": "dbus-1/system.d/org.nm_mptcp1.conf",
}
_DIRECTORIES = ("usr/lib", "usr/share", "lib", "etc", "usr/local/lib", "usr/local/share")


def missing(root: Path = Path("/")) -> tuple[str, ...]:
    """What is not installed."""
    return tuple(
        what
        for what, place in _PLACES.items()
        if not any((root / directory / place).exists() for directory in _DIRECTORIES)
    )


def note(root: Path = Path("/")) -> str | None:
    """A line where only the command is installed, None where any of the rest is."""
    absent = missing(root)
    if len(absent) < len(_PLACES):
        return None
    return (
        f"only the command is installed, without {', '.join(absent[:-1])} and {absent[-1]}: NetworkManager's"
        " changes are not followed, and it adds endpoints of its own; install the package, or run 'make install'"
    )
