# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``nm-mptcp``: a module for each subcommand, imported when it is used."""

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
    from ..engine.record_file import Record

#: Subcommand -> its line in ``--help``; each is a module here with ``options(parser)`` and ``main(arguments)``.
COMMANDS = {
    "status": "show each link and address: whether it is a path, and why",
    "explain": "explain a path, or where a connection goes",
    "watch": "show links, subflows and their events, live",
    "check": "check everything that MPTCP needs, and propose remedies",
    "mode": "show or set which links are used",
    "config": "show, check or reload the configuration",
    "exec": "run a program without MPTCP support over MPTCP",
    "unit": "let a systemd unit use MPTCP, by a drop-in",
    "apply": "configure the kernel now, also without the service",
    "clear": "remove what nm-mptcp added, and restore settings",
    "daemon": "run the service in the foreground",
}

#: Libraries by the names of their modules, as the packages of Debian and Fedora are called.
_LIBRARIES = {"pyroute2": "pyroute2", "elftools": "pyelftools"}

#: Errors of a full disk or quota, of a file at its size limit, and of a device that is gone.
_TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2, also where standard error cannot be written (which Python 3.11's ``argparse`` raises)."""
        try:
            self.exit(2, f"{self.prog}: {message} (see '{self.prog} --help')\n")
        except OSError:
            sys.exit(2)


class Subparser(Parser):
    """The parser of a subcommand, which reports unknown arguments itself, and so points to its own help."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Exit with 2 for unknown arguments."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown


def parser_of(commands: Iterable[str]) -> tuple[Parser, dict[str, ModuleType]]:
    """The parser, and the modules of ``commands``; other subcommands are not imported, and have no options in it."""
    parser = Parser(
        prog="nm-mptcp",
        description="Make every connection that NetworkManager brings up a working path for Multipath TCP.",
        epilog="Begin with 'nm-mptcp status'. 'nm-mptcp COMMAND --help' lists the options of each; see nm-mptcp(8).",
    )
    parser.add_argument("--version", action="version", version=f"nm-mptcp {__version__}", help="show the version")
    parser.add_argument(
        "--state-dir", type=Path, metavar="DIR", help="directory of the record (default: /run/nm-mptcp)"
    )
    parser.add_argument(
        "--log-level",
        metavar="LEVEL",
        type=str.lower,
        choices=list(LEVELS),
        help="what to log: off, err, warn, info, debug or trace",
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
    """Run a subcommand; returns the exit status: 0 done, 1 failed (with a line on standard error), 2 wrong usage."""
    _open_streams()
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, since a failure at Python's exit could not be reported
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output has closed it.
        _drop(sys.stdout)
        return 128 + signal.SIGPIPE
    except ImportError as error:
        if error.name is None:
            return fail(error)
        if error.name not in _LIBRARIES:  # a bug: with its traceback
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
    # Only the parser knows which of these words is the command: import all that may be.
    parser, modules = parser_of(COMMANDS.keys() & set(words))
    parsed = parser.parse_args(words)
    set_up(parsed.log_level or ("info" if parsed.command == "daemon" else "warning"))
    return int(modules[parsed.command].main(parsed))


def _open_streams() -> None:
    """Open closed standard streams on /dev/null (Python has None for them, and would print errors to the output).

    The lowest first, so that each gets its own number, and no file or socket becomes a standard stream. They are
    close-on-exec: the program of ``exec`` finds them closed.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    # A terminal without Unicode shows "?" for the other characters of a name.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def _drop(stream: TextIO) -> None:
    """Redirect it to /dev/null; otherwise Python would try again at its exit, and print an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def fail(error: object, status: int = 1) -> int:
    """Print an error as one line; returns the exit status."""
    with contextlib.suppress(OSError):
        print(f"nm-mptcp: {error}", file=sys.stderr)
    return status


def refused(error: BusError) -> int:
    """Print why a call of the service failed; returns the exit status."""
    if error.by_policy:
        return fail("permission denied: must be root")
    return fail(f"the service returned an error: {error}")


def note_missing_files() -> None:
    """Print a line where only the command is installed, as by pip."""
    from .installation import note

    if (words := note()) is not None:
        print(f"nm-mptcp: note: {words}", file=sys.stderr)


def record_of(arguments: argparse.Namespace) -> Record:
    """The record in ``--state-dir``."""
    from ..engine.record_file import DIRECTORY, Record

    return Record(arguments.state_dir or DIRECTORY)
