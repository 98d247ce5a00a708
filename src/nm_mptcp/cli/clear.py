# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp clear``: take out all that is ours, put back what was there before."""

from __future__ import annotations

import argparse
import asyncio

from ..bus import BusError
from ..state import StateError
from . import fail, record_of, remote

#: Seconds to wait for another writer.
_PATIENCE = 10.0


def options(_parser: argparse.ArgumentParser) -> None:
    """None."""


def main(arguments: argparse.Namespace) -> int:
    """A running service clears and stays out until ``nm-mptcp apply`` or its next start."""
    try:
        if remote.ask("Clear") is not None:
            print("The running service has cleared; 'nm-mptcp apply' lets it work again.")
            return 0
    except BusError as error:
        return fail(f"the service could not do it: {error}")

    from ..kernel.errors import KernelError
    from ..oneshot import engine

    record = record_of(arguments)

    async def clear() -> None:
        async with engine(record, dry_run=False) as one:
            await one.clear()

    try:
        with record.lock(_PATIENCE):
            asyncio.run(clear())
    except (KernelError, StateError) as error:
        return fail(error)
    return 0
