# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp apply``: reconcile once, by the service where it is running."""

from __future__ import annotations

import argparse
import asyncio
import os

from ..dbus.connection import BusError
from ..engine.record_file import StateError
from ..service import remote
from ..text import printable
from . import config_option, fail, note_missing_files, record_of, refused


def options(parser: argparse.ArgumentParser) -> None:
    """``--dry-run`` and ``--config``."""
    config_option.option(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the equivalent commands, and change nothing")
    parser.epilog = "A running service does it."


def main(arguments: argparse.Namespace) -> int:
    """There is only one writer at a time: a running service, or this process with the record's lock."""
    from ..kernel.errors import KernelError
    from ..service.oneshot import UnseenError, apply, pending

    record = record_of(arguments)
    # Only an administrator's apply ends the effect of clear, no event.
    members = ("Sync",) if "NM_DISPATCHER_ACTION" in os.environ else ("Resume", "Sync")
    try:
        if arguments.dry_run:
            print(
                "".join(f"{line}\n" for line in asyncio.run(pending(record, config_option.config_of(arguments)))),
                end="",
            )
        elif not remote.order_or_do(
            record, members, lambda: asyncio.run(apply(record, config_option.config_of(arguments)))
        ):
            note_missing_files()
    except BusError as error:
        return refused(error)
    except (KernelError, StateError) as error:
        return fail(error)
    except UnseenError as error:
        return fail(f"permission denied: must be root ({printable(str(error), 300)})")
    return 0
