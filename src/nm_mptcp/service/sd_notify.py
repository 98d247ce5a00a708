# SPDX-License-Identifier: GPL-2.0-or-later
"""The service manager: readiness, state and watchdog (systemd: ``sd_notify(3)``); silent where there is none."""

from __future__ import annotations

import asyncio
import os
import socket

#: Seconds before the first other try of what must be heard, and at most between two.
_AGAIN = (0.05, 1.0)


def notify(*assignments: str) -> bool:
    """Send assignments such as ``WATCHDOG=1``; False when the manager is too busy to hear them now.

    Does nothing without ``NOTIFY_SOCKET``, never fails and never waits: while the loop stands still no lost link is seen.
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
            pass  # the manager is gone; it is not our business to fail for that
    return True


async def announce(*assignments: str) -> None:
    """Send what a manager waits for, such as ``READY=1``, and come back when it was taken."""
    delay, longest = _AGAIN
    while not notify(*assignments):
        await asyncio.sleep(delay)
        delay = min(2 * delay, longest)


def watchdog_interval() -> float | None:
    """Seconds between two signs of life, half of what the manager allows; None where it does not ask for any."""
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return microseconds / 2e6 if microseconds > 0 and for_us else None
