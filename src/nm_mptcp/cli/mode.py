# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp mode``: which links are used, shown or set until the next boot."""

from __future__ import annotations

import argparse
import asyncio
import json

from ..config.files import ConfigurationFiles
from ..dbus.connection import BusError
from ..engine.record_file import StateError
from ..model.state import Mode
from ..service import remote
from . import config_option, fail, record_of, refused

#: Mode -> its effect, for the help.
_WORDS = {
    Mode.AUTO: "all links are used, metered and cellular ones as backup",
    Mode.HANDOVER: "only the link with the best route is used, all others are backup",
    Mode.AGGREGATE: "all links are used",
    Mode.OFF: "no link is used, unless a profile or a section says so",
}


def options(parser: argparse.ArgumentParser) -> None:
    """The mode, or ``--reset``."""
    config_option.option(parser)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "modes:\n" + "\n".join(f"  {mode:<10}  {words}" for mode, words in _WORDS.items())
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "mode",
        nargs="?",
        choices=[mode.value for mode in Mode],
        metavar="MODE",
        help="which links are used, until the next boot",
    )
    what.add_argument("--reset", action="store_true", help="back to the configured mode")
    what.add_argument("--json", action="store_true", help="print one JSON document: mode, configured, from")


def main(arguments: argparse.Namespace) -> int:
    """Show the mode and its origin without an argument; else set it, by the service where it is running."""
    from ..kernel.errors import KernelError
    from ..service.oneshot import set_mode

    record = record_of(arguments)
    try:
        if not arguments.mode and not arguments.reset:
            return _show(arguments)
        mode = Mode(arguments.mode) if arguments.mode else None
        config = config_option.config_of(arguments)
        remote.order_or_do(record, (("SetMode", mode or ""),), lambda: asyncio.run(set_mode(record, mode, config)))
    except BusError as error:
        return refused(error)
    except (KernelError, StateError) as error:
        return fail(error)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    """From the record and the files, for every user and without the service."""
    chosen = record_of(arguments).load(aside=False).mode
    config = ConfigurationFiles(arguments.config).read().config
    origin = config.origins.get(("main", "mode"))
    where = "set by 'nm-mptcp mode' until the next boot" if chosen else f"{origin or 'the default'}"
    mode = chosen or config.mode
    if arguments.json:
        print(json.dumps({"mode": mode, "configured": config.mode, "from": where}))
    else:
        print(f"{mode} ({where}): {_WORDS[mode]}")
    return 0
