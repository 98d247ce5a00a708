# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp clear``: remove what nm-mptcp added, and restore what it changed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Iterable

from ..dbus.connection import BusError
from ..engine.record_file import StateError
from ..service import remote
from . import config_option, fail, record_of, refused


def options(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--force``."""
    config_option.option(parser)
    parser.add_argument("--force", action="store_true", help="also end connections that depend on it")
    parser.epilog = "A running service is then paused until 'nm-mptcp apply', or its next start."


def main(arguments: argparse.Namespace) -> int:
    """By the service where it is running, which is then paused until ``nm-mptcp apply`` or its next start."""
    from ..kernel.errors import KernelError
    from ..service.oneshot import clear

    record = record_of(arguments)
    kept: Iterable[str] = ()

    def ourselves() -> None:
        nonlocal kept
        kept = asyncio.run(clear(record, config_option.config_of(arguments), force=arguments.force))

    try:
        if remote.order_or_do(record, ("ClearAll" if arguments.force else "Clear",), ourselves):
            print("The service is paused until 'nm-mptcp apply'.")
            with contextlib.suppress(BusError):
                kept = status.get("kept", ()) if (status := remote.status()) else ()
    except BusError as error:
        return refused(error)
    except (KernelError, StateError) as error:
        return fail(error)
    if kept:
        print(
            f"Kept for live connections: endpoint and rules of {', '.join(sorted(kept))};"
            " 'nm-mptcp clear --force' removes these as well, and ends the connections."
        )
    return 0
