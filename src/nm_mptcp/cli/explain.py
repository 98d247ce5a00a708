# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp explain``: why an address is a path or none, or where a connection goes, and commands to change it."""

from __future__ import annotations

import argparse
import ipaddress
import json
import socket
import sys
from typing import TYPE_CHECKING

from ..dbus.connection import BusError
from ..dbus.names import INVALID_ARGS
from ..report.explain_text import text
from ..service import remote
from ..text import width_of
from . import fail, record_of

if TYPE_CHECKING:
    from ..report.documents import Explanation, HostExplanation


class _Unknown(Exception):
    """The subject is unknown; the text is for the user."""


def options(parser: argparse.ArgumentParser) -> None:
    """The subject, ``--json`` and ``--config``."""
    from . import config_option

    config_option.option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("what", metavar="WHAT", help="an interface, address, profile (name, UUID), or a destination")
    parser.epilog = "A destination is a host, or an address that is not this machine's."


def main(arguments: argparse.Namespace) -> int:
    """Ask the service, or look without it; reads only, works for every user. A host's name is resolved here."""
    if not arguments.what.strip():
        return fail("explain needs an interface, an address, a profile or a host", 2)
    try:
        try:
            shown: Explanation | HostExplanation = _explain(arguments, arguments.what)
        except _Unknown as unknown:
            if _is_address(arguments.what):
                return fail(unknown)
            addresses = _addresses(arguments.what)
            if not addresses:
                return fail(f"{unknown}, and no host of that name was found")
            shown = {
                "what": arguments.what,
                "kind": "host",
                "destinations": [_explain(arguments, address) for address in addresses],
            }
    except BusError as error:
        return fail(f"the service does not answer: {error}")
    except _Unknown as error:
        return fail(error)
    if arguments.json:
        print(json.dumps(shown, indent=2))
    else:
        width = width_of(sys.stdout)
        print(
            "\n\n".join(text(each, width) for each in (shown["destinations"] if shown["kind"] == "host" else [shown]))
        )
    return 0


def _explain(arguments: argparse.Namespace, what: str) -> Explanation:
    try:
        shown = remote.explain(what.encode("utf-8", "replace").decode("utf-8").replace("\0", "?"))
    except BusError as error:
        if error.name == INVALID_ARGS:
            raise _Unknown(error.text) from None
        raise
    if shown is not None:
        return shown
    from ..engine.record_file import StateError
    from ..kernel.errors import KernelError
    from ..report.explain import UnknownSubject
    from ..service.oneshot import explain
    from . import config_option

    try:
        return explain(record_of(arguments), what, config_option.config_of(arguments))
    except UnknownSubject as error:
        raise _Unknown(str(error)) from None
    except (KernelError, StateError) as error:
        print(f"nm-mptcp: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _is_address(what: str) -> bool:
    try:
        ipaddress.ip_address(what.strip().strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True


def _addresses(host: str) -> list[str]:
    """A host's first address of each family, in the order of a connection."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError):
        return []
    first: dict[int, str] = {}
    for family, _, _, _, address in found:
        first.setdefault(family, str(address[0]))
    return list(first.values())
