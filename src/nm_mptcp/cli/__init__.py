# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``nm-mptcp``: one small module a subcommand, imported when it is called for."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from .. import __version__
from ..journal import LEVELS, set_up

if TYPE_CHECKING:
    from ..dbus.connection import BusError
    from ..engine.record import Record

#: Subcommand -> what ``--help`` says of it; each is a module here with ``options(parser)`` and ``main(arguments)``.
COMMANDS = {
    "status": "show each link and address: whether it is a path, and why",
    "explain": "tell why something is a path, or where a connection goes",
    "watch": "show links, subflows and what happens to them, live",
    "check": "check all that MPTCP needs, and say what to type",
    "mode": "show which paths carry, or choose it",
    "config": "show the configuration and where it is from, or check it",
    "exec": "run a program over MPTCP that knows nothing of it",
    "unit": "let a systemd unit use MPTCP, by a drop-in",
    "apply": "bring the kernel in order now, also without the service",
    "clear": "take out all that nm-mptcp made, put back what was before",
    "daemon": "run the service, in the foreground",
}

#: Libraries by the names of their modules, as the packages of Debian and Fedora are called.
_LIBRARIES = {"pyroute2": "pyroute2", "elftools": "pyelftools"}

#: What says that standard output takes no more: a full disk or quota, a file that may grow no further, a device that is gone.
_TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong with what was typed."""

    def error(self, message: str) -> NoReturn:
        """End with exit status 2, whether or not it can be said (Debian 12's ``argparse`` does not see to that)."""
        try:
            self.exit(2, f"{self.prog}: {message} (see '{self.prog} --help')\n")
        except OSError:
            sys.exit(2)


class Subparser(Parser):
    """A subcommand's, which itself says what it does not know: its help tells more of that than the command's."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """End with exit status 2 where there is more than what is known."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown


def parser_of(commands: Iterable[str]) -> tuple[Parser, dict[str, ModuleType]]:
    """The parser, and the modules of those subcommands; the others are not imported and have no options in it."""
    parser = Parser(
        prog="nm-mptcp",
        description="Make every connection that NetworkManager brings up a working path for Multipath TCP.",
        epilog="Begin with 'nm-mptcp status'. 'nm-mptcp COMMAND --help' tells the options of each; see nm-mptcp(8).",
    )
    parser.add_argument("--version", action="version", version=f"nm-mptcp {__version__}", help="show the version")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="folder of the record (default: /run/nm-mptcp)")
    parser.add_argument(
        "--log-level",
        metavar="LEVEL",
        type=str.lower,
        choices=list(LEVELS),
        help="what to tell: off, err, warn, info, debug or trace",
    )
    subparsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, title="commands", prog=parser.prog, parser_class=Subparser
    )
    modules = {}
    for name, words in COMMANDS.items():
        description = words[0].upper() + words[1:] + "."
        subparser = subparsers.add_parser(name, help=words, description=description)
        if name in commands:
            modules[name] = importlib.import_module(f".{name}", __name__)
            modules[name].options(subparser)
    return parser, modules


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status: 0 done, 1 failed (one line says what), 2 wrong usage."""
    _have_streams()
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where it can be told if it fails, and not when Python ends
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has enough.
        _drop(sys.stdout)
        return 128 + signal.SIGPIPE
    except ImportError as error:
        if error.name is None:
            return fail(error)
        if error.name not in _LIBRARIES:  # a fault of ours has to be seen whole
            raise
        library = _LIBRARIES[error.name]
        return fail(f"no {library}: install python3-{library}")
    except OSError as error:
        if error.filename is not None or error.errno not in _TAKES_NO_MORE:
            raise
        _drop(sys.stdout)
        return fail(f"the output cannot be written: {error.strerror}")
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            _drop(sys.stderr)


def _run(arguments: Sequence[str] | None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    # Which of these words is the command, the parser knows; the modules of others need not be imported.
    parser, modules = parser_of(COMMANDS.keys() & set(words))
    parsed = parser.parse_args(words)
    set_up(parsed.log_level or ("info" if parsed.command == "daemon" else "warning"))
    return int(modules[parsed.command].main(parsed))


def _have_streams() -> None:
    """Standard streams that are closed lead nowhere (Python has None for them, and would print errors to the output).

    The lowest first, so that each gets its own number and no file or socket of ours becomes somebody's standard output; a
    program that ``exec`` becomes finds them closed as they were.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    # A terminal that has not all of Unicode shows "?" for the rest of a name.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def _drop(stream: TextIO) -> None:
    """What is still to be written there goes nowhere; else Python would try once more at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def fail(error: object, status: int = 1) -> int:
    """Say in one line what went wrong; the exit status that goes with it."""
    with contextlib.suppress(OSError):
        print(f"nm-mptcp: {error}", file=sys.stderr)
    return status


def refused(error: BusError) -> int:
    """Say in one line why the service did not do it; for a call that the bus does not let through, what to do instead."""
    if error.by_policy:
        return fail("the service takes this order from root only: run this as root")
    return fail(f"the service could not do it: {error}")


def tell_what_is_missing() -> None:
    """One line for who has installed the command alone, as pip does."""
    from .installation import note

    if (words := note()) is not None:
        print(f"nm-mptcp: note: {words}", file=sys.stderr)


def record_of(arguments: argparse.Namespace) -> Record:
    """The record that the arguments name."""
    from ..engine.record import DIRECTORY, Record

    return Record(arguments.state_dir or DIRECTORY)
