# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp status``: each link and address, whether it is a path, and why."""

from __future__ import annotations

import argparse
import json
import sys

from ..dbus.connection import BusError
from ..report.health import Verdict
from ..service import remote
from . import fail, note_missing_files, record_of


def options(parser: argparse.ArgumentParser) -> None:
    """``--json``, ``--all`` and ``--config``."""
    from . import config_option

    config_option.option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--all", action="store_true", help="show also addresses that cannot be paths")
    parser.epilog = "Exit status: 0 working; 1 degraded; 2 not working."


def main(arguments: argparse.Namespace) -> int:
    """Ask the service, or look without it; reads only, works for every user."""
    try:
        shown = remote.status()
    except BusError as error:
        return fail(f"the service does not answer: {error}", Verdict.NOT_WORKING.status)
    if not shown:
        from ..engine.record_file import StateError
        from ..kernel.errors import KernelError
        from ..service.oneshot import status
        from . import config_option

        try:
            shown = status(record_of(arguments), config_option.config_of(arguments))
        except (KernelError, StateError) as error:
            return fail(error, Verdict.NOT_WORKING.status)
        note_missing_files()
    if arguments.json:
        print(json.dumps(shown, indent=2))
        return 0  # programs read "state", and take another exit status for a failure
    from ..report.status_text import show

    show(shown, sys.stdout, everything=arguments.all)
    if not shown["kernel"]["mptcp_enabled"]:
        from .unit_group import switched_groups

        if groups := switched_groups():
            fail(f"while MPTCP is disabled, no TCP socket can be made in {', '.join(groups)}: see nm-mptcp-check(8)")
    return Verdict(shown["state"]).status
