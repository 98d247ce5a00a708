# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp apply``: one look, and what it takes; beside a running service the service does it."""

from __future__ import annotations

import argparse
import asyncio

from ..bus import BusError
from ..state import StateError
from . import fail, record_of, remote

#: Seconds to wait for another writer.
_PATIENCE = 10.0


def options(parser: argparse.ArgumentParser) -> None:
    """``--dry-run``."""
    parser.add_argument(
        "--dry-run", action="store_true", help="print the ip commands that would do the same, and write nothing"
    )


def main(arguments: argparse.Namespace) -> int:
    """Only one writer at a time: a running service is asked to look, else we write, under the record's lock."""
    try:
        if not arguments.dry_run and remote.ask("Resume", "Sync") is not None:
            return 0
    except BusError as error:
        return fail(f"the service could not do it: {error}")

    from ..commands import command
    from ..kernel.errors import KernelError
    from ..oneshot import engine, look
    from ..plan import plan

    record = record_of(arguments)
    try:
        if arguments.dry_run:
            view = asyncio.run(look(record))
            for operation in plan(view.desired, view.snapshot.kernel, view.snapshot.ours):
                print(command(operation, view.snapshot.kernel.links))
            return 0

        async def apply() -> None:
            async with engine(record, dry_run=False) as one:
                await one.converge()

        with record.lock(_PATIENCE):
            asyncio.run(apply())
    except (KernelError, StateError) as error:
        return fail(error)
    return 0
