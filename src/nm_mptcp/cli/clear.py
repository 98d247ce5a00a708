# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp clear``: take out all that is ours, put back what was there before."""

from __future__ import annotations

import argparse
import asyncio

from ..bus import BusError
from ..state import StateError
from . import fail, record_of, refused, remote, settings


def options(parser: argparse.ArgumentParser) -> None:
    """``--config``."""
    settings.option(parser)
    parser.epilog = "A running service then makes nothing until 'nm-mptcp apply', or its next start."


def main(arguments: argparse.Namespace) -> int:
    """A running service clears and stays out until ``nm-mptcp apply`` or its next start."""
    from ..kernel.errors import KernelError
    from ..oneshot import clear

    record = record_of(arguments)
    try:
        if remote.have_done(record, ("Clear",), lambda: asyncio.run(clear(record, settings.config_of(arguments)))):
            print("The running service has cleared; 'nm-mptcp apply' lets it work again.")
    except BusError as error:
        return refused(error)
    except (KernelError, StateError) as error:
        return fail(error)
    return 0
