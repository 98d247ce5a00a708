# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp daemon``: the service, in the foreground."""

from __future__ import annotations

import argparse

from ..state import StateError
from . import fail, record_of

#: Seconds to wait for another writer; a one-shot ``apply`` is done within them, another service is not.
_PATIENCE = 10.0


def options(parser: argparse.ArgumentParser) -> None:
    """``--config``."""
    parser.add_argument("--config", metavar="FILE", help="read this configuration instead of /etc/nm-mptcp")


def main(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM; the lock is held all the time, so that nobody else writes."""
    from ..daemon import run
    from ..kernel.errors import KernelError

    record = record_of(arguments)
    try:
        with record.lock(_PATIENCE):
            record.load()
            run(record)
    except (KernelError, StateError) as error:
        return fail(error)
    return 0
