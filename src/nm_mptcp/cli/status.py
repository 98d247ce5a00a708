# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp status``: each address, whether it is a path, and why."""

from __future__ import annotations

import argparse
import asyncio
import json

from ..bus import BusError
from ..state import StateError
from ..status import document, text
from . import fail, record_of, remote, settings


def options(parser: argparse.ArgumentParser) -> None:
    """``--json`` and ``--config``."""
    settings.option(parser)
    parser.add_argument("--json", action="store_true", help="print the status as one JSON document")


def main(arguments: argparse.Namespace) -> int:
    """Ask the service, or look ourselves; reads only, works for everybody."""
    try:
        shown = remote.status()
    except BusError as error:
        return fail(f"the service does not answer: {error}")
    if not shown:
        from ..kernel.errors import KernelError
        from ..oneshot import look

        record = record_of(arguments)
        try:
            view = asyncio.run(look(record, settings.config_of(arguments)))
        except (KernelError, StateError) as error:
            return fail(error)
        shown = document(view.snapshot, view.desired, record.contents, mode=view.mode, service=False)
    print(json.dumps(shown, indent=2) if arguments.json else text(shown))
    return 0
