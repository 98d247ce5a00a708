# SPDX-License-Identifier: GPL-2.0-or-later
"""The status document on one screen: with colour and tables on a terminal where ``rich`` is installed, else plain lines.

Nothing is told by colour alone, so it reads the same in both, and aloud.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from .text import counted, listed, printable, wrapped
from .values import frozen

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: What is left out unless all is asked for: addresses that nobody would take for a path.
_ORDINARY = frozenset({"not-managed", "external", "link-local", "not-global"})

_STATES = ("active", "suspended", "waiting", "excluded")

#: ``Verdict`` -> words, colour.
_VERDICTS = {
    "good": ("all paths are good", "green"),
    "held-back": ("something is held back", "yellow"),
    "not-working": ("it does not work", "red"),
}

#: How many links the summary names.
_NAMED = 3

_COLOURS = {"active": "green", "suspended": "yellow", "waiting": "cyan", "excluded": "dim"}


@frozen
class Row:
    """A line of a table, the state that colours it, and the words below it."""

    cells: tuple[str, ...]
    state: str
    words: tuple[str, ...] = ()


@frozen
class Screen:
    """What is shown: lines, two tables, and what was left out."""

    title: str
    colour: str
    head: tuple[str, ...]
    problems: tuple[str, ...]
    links: tuple[Row, ...]
    paths: tuple[Row, ...]
    tail: tuple[str, ...]


LINKS = ("LINK", "PROFILE", "KIND", "STATE", "PRIORITY", "SUBFLOWS", "CONNECTIONS", "ONLY HERE")
PATHS = ("ADDRESS", "LINK", "STATE", "FLAGS", "ID")


def show(status: dict[str, Any], stream: TextIO, *, everything: bool = False) -> None:
    """Write the document to ``stream``, as it can show it."""
    found = screen(status, now=datetime.datetime.now().astimezone(), everything=everything)
    console = _console(stream)
    if console is None:
        stream.write("".join(f"{line}\n" for line in plain(found)))
    else:
        _rich(console, found)


def screen(status: dict[str, Any], *, now: datetime.datetime, everything: bool = False) -> Screen:
    """What is to be shown, all texts made harmless; times are told in ``now``'s time zone."""
    words, colour = _VERDICTS[status["state"]]
    active = [link for link in status["links"] if link["state"] == "active"]
    if status["state"] == "good" and not active:
        words = "nothing is wrong, and there is no path"
    shown = [path for path in status["paths"] if path["interface"] != "lo"]
    if not everything:
        shown = [path for path in shown if not (path["state"] == "excluded" and path["rule"] in _ORDINARY)]
    shown.sort(key=lambda path: (_STATES.index(path["state"]), path["interface"], path["address"]))
    left_out = sum(path["interface"] != "lo" for path in status["paths"]) - len(shown)
    names = {path["interface"] for path in shown}
    tail = []
    if not shown:
        tail.append("No interface has an address that could be a path.")
    if left_out:
        tail.append(f"Left out: {counted(left_out, 'address', 'addresses')} that can be no path (--all shows all).")
    return Screen(
        title=f"nm-mptcp {printable(status['version'])}: {words}",
        colour=colour,
        head=(*_summary(active, status["state"]), *_head(status)),
        problems=tuple(printable(cause, longest=300) for cause in status["problems"]),
        links=tuple(_link(link) for link in status["links"] if link["interface"] in names),
        paths=tuple(_path(path, now) for path in shown),
        tail=tuple(tail),
    )


def _summary(active: list[dict[str, Any]], state: str) -> Iterable[str]:
    """What a person asks first: by which links it goes, and what there is besides."""
    if state == "not-working":
        return
    able = [link for link in active if link["carrier"]]
    regular = [link for link in able if link["priority"] == "regular"]
    backup = [link for link in able if link["priority"] != "regular"]
    if not able:
        return
    if not regular:
        yield f"{_links(backup)} {'carry' if len(backup) > 1 else 'carries'}, as there is nothing better"
    elif backup:
        verbs = "carry" if len(regular) > 1 else "carries", "are" if len(backup) > 1 else "is"
        yield f"{_links(regular)} {verbs[0]}, {_links(backup)} {verbs[1]} in reserve"
    elif len(regular) > 1:
        yield f"{_links(regular)} carry"
    else:
        yield f"{_links(regular)} carries, and nothing is in reserve"


def _links(links: list[dict[str, Any]]) -> str:
    names = [
        printable(link["interface"], longest=16)
        + (f" ({printable(link['profile'], 30)})" if link["profile"] not in ("", link["interface"]) else "")
        for link in links
    ]
    more = len(names) - _NAMED
    return listed([*names[:_NAMED], f"{more} more"] if more > 0 else names)


def _head(status: dict[str, Any]) -> Iterable[str]:
    networkmanager, kernel, limits = status["networkmanager"], status["kernel"], status["limits"]
    mptcp = "on" if kernel["mptcp_enabled"] else "OFF"
    yield (
        f"service: {status['service']}"
        f"   NetworkManager: {printable(networkmanager['version']) if networkmanager['running'] else 'not running'}"
        f"   MPTCP: {mptcp}   mode: {status['mode']}"
    )
    yield from _guard_lines(status["guard"])
    live = status["connections"]
    most = f"{live['additional_most']} of " if live else ""
    yield (
        f"limits: {most}{limits['subflows']} additional subflows, {limits['add_addr_accepted']} accepted addresses,"
        f" {kernel['endpoints_used']} of {kernel['endpoints_max']} endpoints"
    )
    if live is None:
        yield "connections: not to be seen without the service or CAP_NET_ADMIN"
    else:
        yield f"connections: {live['total']} live over MPTCP, {counted(live['subflows'], 'subflow')}"


def _guard_lines(guard: dict[str, Any]) -> list[str]:
    if not guard["since"]:
        return []
    names = {"ipv4": "IPv4", "ipv6": "IPv6"}
    if guard["tunnels"]:
        state = ", ".join(
            f"all {names[family]} leaves by {printable(name)}" for family, name in guard["tunnels"].items()
        )
    else:
        state = f"none now, the last one ended at {guard['until']}"
    cut = f"{guard['cut_subflows']} subflows closed, {guard['cut_connections']} connections had no other"
    return [f"full tunnel: {state}; {cut}"]


def _link(link: dict[str, Any]) -> Row:
    cells = [link[name] for name in ("interface", "profile", "kind", "state", "priority")]
    cells += [link[name] for name in ("subflows", "connections", "alone")]
    return Row(tuple(map(_cell, cells)), link["state"])


def _path(path: dict[str, Any], now: datetime.datetime) -> Row:
    flags = [*path["flags"], *([f"port={path['port']}"] if path.get("port") else [])]
    cells = [path["address"], path["interface"], path["state"], ",".join(flags), path["endpoint_id"]]
    by = "" if path["owner"] == "nm-mptcp" or path["endpoint_id"] is None else f" (endpoint by {path['owner']})"
    since = f" (since {_moment(path['since'], now)})" if path["since"] and path["state"] != "excluded" else ""
    words = [f"{printable(path['reason'], longest=300)}{by}{since}"]
    if path["table"] is not None:
        words.append(f"table {path['table']}" + (f" via {path['gateway']}" if path["gateway"] else ""))
    return Row(tuple(map(_cell, cells)), path["state"], tuple(words))


def _cell(value: object) -> str:
    return "-" if value in (None, "") else printable(str(value), longest=40)


def _moment(text: str, now: datetime.datetime) -> str:
    """A time as a person says it today: the time of day, with the day where it is another."""
    then = datetime.datetime.fromisoformat(text).astimezone(now.tzinfo)
    return then.strftime("%H:%M:%S" if then.date() == now.date() else "%Y-%m-%d %H:%M:%S")


# --- plain ---------------------------------------------------------------------------------------------------------


def plain(found: Screen) -> list[str]:
    """As lines, for a pipe, a file or a plain terminal."""
    lines = [found.title, *(f"  ! {cause}" for cause in found.problems), *found.head]
    for header, rows in ((LINKS, found.links), (PATHS, found.paths)):
        if rows:
            lines += ["", *_table(header, rows)]
    return [*lines, *(["", *found.tail] if found.tail else [])]


def _table(header: Sequence[str], rows: Sequence[Row]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *(row.cells for row in rows), strict=True)]
    lines = []
    for cells, words in ((header, ()), *((row.cells, row.words) for row in rows)):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
        lines += [f"    {line}" for line in words]
    return lines


# --- a terminal ----------------------------------------------------------------------------------------------------


def _console(stream: TextIO) -> Console | None:
    """rich's console for a terminal; None for anything else, or where rich is not installed (its import costs 0.1 s)."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    # It knows of NO_COLOR by itself.
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def _rich(console: Console, found: Screen) -> None:
    from rich.table import Table
    from rich.text import Text

    def table(header: Sequence[str], rows: Sequence[Row]) -> Table:
        made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        widths = [max(map(len, column)) for column in zip(header, *(row.cells for row in rows), strict=True)]
        place = header.index("PROFILE")
        # Of all columns the profile's is the one to be cut: what it is called in whole, JSON and explain tell.
        widths[place] = max(8, min(widths[place], console.width - sum(widths) + widths[place] - 2 * len(widths)))
        # Where that is not enough, whole columns go, the last ones first: half a number tells nothing.
        while len(widths) > header.index("STATE") + 1 and sum(widths) + 2 * len(widths) - 2 > console.width:
            widths.pop()
        for name, width in zip(header, widths, strict=False):
            made.add_column(name, no_wrap=True, overflow="ellipsis", width=width)
        return made

    def cells(row: Row, header: Sequence[str]) -> list[Text]:
        made = [Text(cell) for cell in row.cells]
        made[header.index("STATE")].stylize(_COLOURS.get(row.state, ""))
        return made

    console.print(Text(found.title, style=f"bold {found.colour}"))
    for cause in found.problems:
        for line in wrapped(f"! {cause}", "  ", "    ", console.width):
            console.print(Text(line, style=found.colour))
    for words in found.head:
        for line in wrapped(words, "", "  ", console.width):
            console.print(Text(line))
    if found.links:
        console.print()
        links = table(LINKS, found.links)
        for row in found.links:
            links.add_row(*cells(row, LINKS)[: len(links.columns)])
        console.print(links)
    if found.paths:
        console.print()
        widths = [max(map(len, column)) for column in zip(PATHS, *(row.cells for row in found.paths), strict=True)]
        console.print(_aligned([Text(name, style="bold") for name in PATHS], widths))
        for row in found.paths:
            console.print(_aligned(cells(row, PATHS), widths))
            for number, words in enumerate(row.words):
                for line in wrapped(words, "    ", "    ", console.width):
                    console.print(Text(line, style="dim" if number else ""))
    if found.tail:
        console.print()
        console.print(Text("\n".join(found.tail), style="dim"))


def _aligned(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    """Cells beside each other; what stands below a line belongs to it, so these lines are no table of rich's."""
    from rich.text import Text

    line = Text()
    for number, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        line.append_text(cell)
        if number < len(cells) - 1:
            line.append(" " * (width - len(cell) + 2))
    return line
