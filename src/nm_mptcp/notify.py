# SPDX-License-Identifier: GPL-2.0-or-later
"""The service manager: readiness, state and watchdog (systemd: ``sd_notify(3)``); silent where there is none."""

from __future__ import annotations

import os
import socket


def notify(*assignments: str) -> None:
    """Send assignments such as ``READY=1``; does nothing without ``NOTIFY_SOCKET``, and never fails."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(1.0)
        try:
            sock.sendto("\n".join(assignments).encode(), address.replace("@", "\0", 1))
        except OSError:
            return  # the manager is gone or busy; it is not our business to fail for that


def watchdog_interval() -> float | None:
    """Seconds between two signs of life, half of what the manager allows; None where it does not ask for any."""
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return microseconds / 2e6 if microseconds > 0 and for_us else None
