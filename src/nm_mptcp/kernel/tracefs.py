# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the kernel's tracing is, and whether it can be used; see :mod:`.retransmissions`."""

from __future__ import annotations

from pathlib import Path

#: Where tracefs is mounted, by systemd or by hand; the second one below debugfs, where the kernel mounts it itself.
PLACES = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))


def untraceable() -> str:
    """Why the service cannot trace, as far as any user can see; "": it can."""
    if "[confidentiality]" in _text(Path("/sys/kernel/security/lockdown")):
        return "the kernel is locked down (confidentiality)"
    mounted = {line.split()[1] for line in _text(Path("/proc/self/mounts")).splitlines()}
    if not mounted & {str(PLACES[0]), str(PLACES[1].parent)}:
        return "tracefs is not mounted"
    return ""


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
