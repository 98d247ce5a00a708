# SPDX-License-Identifier: GPL-2.0-or-later
"""Notifications to the service manager: readiness, state and watchdog (systemd: ``sd_notify(3)``)."""

from __future__ import annotations

import asyncio
import os
import socket

#: Seconds before the first retry of :func:`announce`, doubled with each, and their maximum.
_AGAIN = (0.05, 1.0)


def notify(*assignments: str) -> bool:
    """Send assignments such as ``WATCHDOG=1``; returns False if the manager's socket is full.

    Does nothing without ``NOTIFY_SOCKET``. Never raises, and never blocks, as the loop must handle lost links.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.sendto("\n".join(assignments).encode(), address.replace("@", "\0", 1))
        except BlockingIOError:
            return False
        except OSError:
            pass  # the manager is gone, which does not affect the service
    return True


async def announce(*assignments: str) -> None:
    """Send what the manager waits for, such as ``READY=1``; returns once it is sent."""
    delay, longest = _AGAIN
    while not notify(*assignments):
        await asyncio.sleep(delay)
        delay = min(2 * delay, longest)


def watchdog_interval() -> float | None:
    """Seconds between two watchdog notifications, half of the manager's timeout; None if the watchdog is off."""
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return microseconds / 2e6 if microseconds > 0 and for_us else None
