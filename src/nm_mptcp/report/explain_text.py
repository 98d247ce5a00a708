# SPDX-License-Identifier: GPL-2.0-or-later
"""An explanation as text. Apart from :mod:`.explain`, whose imports a command that asks the service does not need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..text import printable, wrapped
from .documents import Command, DestinationExplanation, Explanation, Fact, PathsExplanation

_MAIN_TABLE = 254


class _Line(NamedTuple):
    """A line: ``first``, then ``words``; continuation lines are indented by the width of ``first`` and ``hang``."""

    first: str
    words: str
    hang: int = 2
    whole: bool = False  #: never wrapped, so that it can be pasted


def text(document: Explanation, width: int | None = None) -> str:
    """The document as lines, wrapped where there is a ``width`` in cells; without control characters."""
    lines = []
    for line in _destination_text(document) if document["kind"] == "destination" else _paths_text(document):
        others = " " * (len(line.first) + line.hang)
        lines += wrapped(line.words, line.first, others, None if line.whole else width) or [""]
    return "\n".join(lines)


def _paths_text(document: PathsExplanation) -> Iterable[_Line]:
    if not document["paths"]:
        yield _Line("", f"{printable(document['what'])}: no path")
        yield from _facts(document["facts"])
    for number, path in enumerate(document["paths"]):
        if number:
            yield _Line("", "")
        role = f", {path['priority']}" if path["priority"] and path["state"] == "active" else ""
        name = f"{printable(path['interface'])} {path['address']}"
        yield _Line("", f"{name}: {path['state']}{role}: {printable(path['reason'], 300)}")
        # One line is enough for an address that cannot be a path, unless it is the subject.
        if path["state"] == "excluded" and document["kind"] != "address" and path["rule"] in _PLAIN:
            continue
        yield from _facts(path["facts"])
        yield from _commands(path["commands"])


#: Rules whose addresses no setting makes paths.
_PLAIN = frozenset({"link-local", "not-global", "temporary", "unique-local"})


def _facts(facts: list[Fact]) -> Iterable[_Line]:
    width = max((len(fact["about"]) for fact in facts), default=0)
    for fact in facts:
        about = fact["about"]
        for part in fact["says"].split("; "):
            yield _Line(f"  {about.ljust(width)}  ", part, hang=2)
            about = ""


def _commands(commands: list[Command]) -> Iterable[_Line]:
    if commands:
        yield _Line("  ", "To change it:")
    for command in commands:
        yield _Line("    ", f"{command['to']}:")
        yield _Line("      ", command["type"], whole=True)


def _destination_text(document: DestinationExplanation) -> Iterable[_Line]:
    first = document["first"]
    name = "" if document["what"] == document["address"] else f" ({printable(document['what'])})"
    yield _Line("", f"A new connection to {document['address']}{name}:")
    if "error" in first:
        yield _Line("  ", f"fails: {printable(first['error'], 300)}")
    else:
        via = f" via {first['gateway']}" if first["gateway"] else ""
        profile = f" ({printable(first['profile'])!r})" if first["profile"] else ""
        where = f"{first['source']} by {printable(first['interface'])}{profile}{via}"
        yield _Line("  ", f"begins from {where}, table {_named(first['table'])}")
    for each in document["subflows"]:
        where = f"{each['address']} by {printable(each['interface'])}" + (
            f" ({printable(each['profile'])!r})" if each["profile"] else ""
        )
        if each["follows"]:
            via = f" via {each['gateway']}" if each["gateway"] else ""
            table = f"table {_named(each['table'])}" if each["table"] else "without a route"
            yield _Line("  ", f"then from {where}{via}, {table}, {each['priority']}, endpoint {each['endpoint_id']}")
        else:
            yield _Line("  ", f"not from {where}: {printable(each['reason'], 300)}")
    if not document["subflows"] and "error" not in first:
        yield _Line("  ", "no other subflow follows: there is no other endpoint of this family")
    if document["learns"]:
        yield _Line("  ", f"The server learns of: {', '.join(document['learns'])}")
    for note in document["notes"]:
        yield _Line("  ", note)
    yield from _commands(document["commands"])


def _named(number: int) -> str:
    return "main" if number == _MAIN_TABLE else str(number)
