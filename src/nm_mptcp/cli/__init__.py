# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``nm-mptcp``: one small module a subcommand, imported when it is called for."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..journal import LEVELS, set_up

if TYPE_CHECKING:
    from ..state import Record

#: Subcommand -> what ``--help`` says of it; each is a module here with ``options(parser)`` and ``main(arguments)``.
COMMANDS = {
    "status": "show each address: whether it is a path, and why",
    "explain": "tell why something is a path or none, or where a connection goes, and how to change it",
    "apply": "bring the kernel to what NetworkManager's connections want, once",
    "clear": "take out all that nm-mptcp made and put back what was there before",
    "check": "check all that MPTCP needs, and say what to type where it is not there",
    "mode": "show or choose which paths carry",
    "config": "show the configuration and where each value comes from, or check it",
    "exec": "run a program that knows nothing of MPTCP with MPTCP sockets",
    "unit": "let a systemd unit use MPTCP sockets, by a drop-in",
    "watch": "show links, subflows and what happens to them, live",
    "daemon": "run the service",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status: 0 done, 1 failed (one line says what), 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="nm-mptcp",
        description="Make every connection that NetworkManager brings up a working path for Multipath TCP.",
    )
    parser.add_argument("--version", action="version", version=f"nm-mptcp {__version__}")
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="where the record of what is ours is kept (default: $NM_MPTCP_STATE_DIR or /run/nm-mptcp)",
    )
    parser.add_argument(
        "--log-level",
        metavar="LEVEL",
        type=str.lower,
        choices=list(LEVELS),
        help="what to tell: OFF, ERR, WARN (default), INFO (of the service), DEBUG or TRACE, as NetworkManager has them",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    modules = {}
    asked = next((word for word in (sys.argv[1:] if arguments is None else arguments) if word in COMMANDS), None)
    for name, words in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        if name == asked:
            modules[name] = importlib.import_module(f".{name}", __name__)
            modules[name].options(subparser)
    parsed = parser.parse_args(arguments)
    set_up(parsed.log_level or ("info" if parsed.command == "daemon" else "warning"))
    try:
        return int(modules[parsed.command].main(parsed))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has enough; do not complain when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def fail(error: object, status: int = 1) -> int:
    """Say in one line what went wrong; the exit status that goes with it."""
    print(f"nm-mptcp: {error}", file=sys.stderr)
    return status


def tell_what_is_missing() -> None:
    """One line for who has installed the command alone, as pip does."""
    from ..installation import note

    if (words := note()) is not None:
        print(f"nm-mptcp: note: {words}", file=sys.stderr)


def record_of(arguments: argparse.Namespace) -> Record:
    """The record that the arguments name."""
    from ..state import DIRECTORY, Record

    return Record(arguments.state_dir or DIRECTORY)
