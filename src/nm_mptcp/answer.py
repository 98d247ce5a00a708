# SPDX-License-Identifier: GPL-2.0-or-later
"""An explanation as lines for a person. It needs nothing of what explains: a command that asks the service is quick."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .text import printable

Document = dict[str, Any]

_MAIN_TABLE = 254


def text(document: Document) -> str:
    """The document as lines; every text of others is harmless in it."""
    lines = list(_destination_text(document) if document["kind"] == "destination" else _paths_text(document))
    return "\n".join(lines)


def _paths_text(document: Document) -> Iterable[str]:
    if not document["paths"]:
        yield f"{printable(document['what'])}: no path"
        yield from _facts(document["facts"])
    for number, path in enumerate(document["paths"]):
        if number:
            yield ""
        role = f", {path['priority']}" if path["priority"] and path["state"] == "active" else ""
        yield f"{printable(path['interface'])} {path['address']}: {path['state']}{role}: {printable(path['reason'], 300)}"
        # Of an interface's or a profile's addresses that can be none anyhow, one line is enough.
        if path["state"] == "excluded" and document["kind"] != "address" and path["rule"] in _PLAIN:
            continue
        yield from _facts(path["facts"])
        yield from _commands(path["commands"])


#: Rules after which an address can be no path, whatever is typed.
_PLAIN = frozenset({"link-local", "not-global", "temporary", "unique-local"})


def _facts(facts: list[Document]) -> Iterable[str]:
    width = max((len(fact["about"]) for fact in facts), default=0)
    for fact in facts:
        about = fact["about"].ljust(width)
        parts = fact["says"].split("; ")
        yield f"  {about}  {parts[0]}"
        for part in parts[1:]:
            yield f"  {' ' * width}  {part}"


def _commands(commands: list[Document]) -> Iterable[str]:
    if commands:
        yield "  To change it:"
    for command in commands:
        yield f"    {command['to']}:"
        yield f"      {command['type']}"


def _destination_text(document: Document) -> Iterable[str]:
    first = document["first"]
    name = "" if document["what"] == document["address"] else f" ({printable(document['what'])})"
    yield f"A new connection to {document['address']}{name}:"
    if "error" in first:
        yield f"  fails: {printable(first['error'], 300)}"
    else:
        via = f" via {first['gateway']}" if first["gateway"] else ""
        profile = f" ({printable(first['profile'])!r})" if first["profile"] else ""
        where = f"{first['source']} by {printable(first['interface'])}{profile}{via}"
        yield f"  begins from {where}, table {_named(first['table'])}"
    for each in document["subflows"]:
        where = f"{each['address']} by {printable(each['interface'])}" + (
            f" ({printable(each['profile'])!r})" if each["profile"] else ""
        )
        if each["follows"]:
            via = f" via {each['gateway']}" if each["gateway"] else ""
            table = f"table {_named(each['table'])}"
            yield f"  then from {where}{via}, {table}, {each['priority']}, endpoint {each['endpoint_id']}"
        else:
            yield f"  not from {where}: {printable(each['reason'], 300)}"
    if not document["subflows"] and "error" not in first:
        yield "  no other subflow follows: there is no other endpoint of its family"
    if document["learns"]:
        yield f"  The server learns of: {', '.join(document['learns'])}"
    for note in document["notes"]:
        yield f"  {note}"
    yield from _commands(document["commands"])


def _named(number: int) -> str:
    return "main" if number == _MAIN_TABLE else str(number)
