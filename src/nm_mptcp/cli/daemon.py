# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp daemon``: the service, in the foreground."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..bus import BusError
from ..config import DEFAULTS
from ..configfiles import ConfigError, load
from ..state import StateError
from . import fail, record_of, remote


def options(parser: argparse.ArgumentParser) -> None:
    """``--config``."""
    parser.add_argument("--config", metavar="FILE", type=Path, help="read the settings in this file")


def main(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM; the lock is held all the time, so that nobody else writes."""
    from ..daemon import run
    from ..kernel.errors import KernelError

    record = record_of(arguments)
    try:
        config = load(arguments.config) if arguments.config else DEFAULTS

        def serve() -> None:
            record.load()
            run(record, config)

        if remote.have_done(record, (), serve):
            return fail("a service is running already: see 'nm-mptcp status' or 'systemctl status nm-mptcp'")
    except (BusError, ConfigError, KernelError, StateError) as error:
        return fail(error)
    return 0
