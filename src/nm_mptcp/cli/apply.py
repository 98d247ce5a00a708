# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp apply``: one look, and what it takes; beside a running service the service does it."""

from __future__ import annotations

import argparse
import asyncio
import os

from ..dbus.connection import BusError
from ..engine.record import StateError
from ..service import remote
from ..text import printable
from . import fail, record_of, refused, settings, tell_what_is_missing


def options(parser: argparse.ArgumentParser) -> None:
    """``--dry-run`` and ``--config``."""
    settings.option(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the commands that do the same, and nothing else")
    parser.epilog = "With --dry-run nothing is written. A running service is asked to do it."


def main(arguments: argparse.Namespace) -> int:
    """Only one writer at a time: a running service is asked to look, else we write, under the record's lock."""
    from ..kernel.errors import KernelError
    from ..service.oneshot import UnseenError, apply, pending

    record = record_of(arguments)
    # An event is no wish: only a person's apply ends what clear began.
    members = ("Sync",) if "NM_DISPATCHER_ACTION" in os.environ else ("Resume", "Sync")
    try:
        if arguments.dry_run:
            print(
                "".join(f"{line}\n" for line in asyncio.run(pending(record, settings.config_of(arguments)))),
                end="",
            )
        elif not remote.order_or_do(record, members, lambda: asyncio.run(apply(record, settings.config_of(arguments)))):
            tell_what_is_missing()
    except BusError as error:
        return refused(error)
    except (KernelError, StateError) as error:
        return fail(error)
    except UnseenError as error:
        return fail(f"what root's apply would do cannot be told ({printable(str(error), 300)}): run this as root")
    return 0
