# SPDX-License-Identifier: GPL-2.0-or-later
"""The status document on one screen: on a terminal as wide as that, and in colour.

Nothing is told by colour alone, so it reads the same without, and aloud.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from ..model.state import Owner
from ..text import cells, counted, fit, listed, printable, width_of, wrapped
from .documents import GuardStatus, LinkStatus, NetworkManagerStatus, PathStatus, StatusDocument
from .styles import Line, Span, Style, rendered, text_of

#: What is left out unless all is asked for: addresses that nobody would take for a path.
_ORDINARY = frozenset({"not-managed", "external", "link-local", "not-global"})

_STATES = ("active", "suspended", "waiting", "excluded")

#: ``Verdict`` -> words, looks.
_VERDICTS = {
    "good": ("all paths are good", Style.GOOD),
    "held-back": ("something is held back", Style.WARNING),
    "not-working": ("it does not work", Style.BAD),
}

#: How many links the summary names.
_NAMED = 3

_STYLES = {"active": Style.GOOD, "suspended": Style.WARNING, "waiting": Style.WARNING, "excluded": Style.DIM}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table, the state that colours it, and the words below it."""

    cells: tuple[str, ...]
    state: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Screen:
    """What is shown: lines, two tables, and what was left out."""

    title: str
    style: Style
    head: tuple[str, ...]
    problems: tuple[str, ...]
    links: tuple[Row, ...]
    paths: tuple[Row, ...]
    tail: tuple[str, ...]


LINKS = ("LINK", "PROFILE", "KIND", "STATE", "PRIORITY", "SUBFLOWS", "CONNECTIONS", "ONLY HERE")
PATHS = ("ADDRESS", "LINK", "STATE", "FLAGS", "ID")


def show(status: StatusDocument, stream: TextIO, *, everything: bool = False) -> None:
    """Write the document to ``stream``, as it can show it."""
    found = screen(status, now=datetime.datetime.now().astimezone(), everything=everything)
    stream.write(rendered(lines(found, width_of(stream)), stream))


def screen(status: StatusDocument, *, now: datetime.datetime, everything: bool = False) -> Screen:
    """What is to be shown, all texts made harmless; times are told in ``now``'s time zone."""
    words, style = _VERDICTS[status["state"]]
    active = [link for link in status["links"] if link["state"] == "active"]
    # A service of an older release says nothing of troubles.
    free = {path["interface"] for path in status["paths"] if path["state"] == "active" and not path.get("trouble")}
    carrying = [link for link in active if link["interface"] in free]
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
        style=style,
        head=(*_summary(carrying, status["state"]), *_head(status)),
        problems=tuple(printable(cause, longest=300) for cause in status["problems"]),
        links=tuple(_link(link) for link in status["links"] if link["interface"] in names),
        paths=tuple(_path(path, now) for path in shown),
        tail=tuple(tail),
    )


def _summary(active: list[LinkStatus], state: str) -> Iterable[str]:
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


def _links(links: list[LinkStatus]) -> str:
    names = [
        printable(link["interface"], longest=16)
        + (f" ({printable(link['profile'], 30)})" if link["profile"] not in ("", link["interface"]) else "")
        for link in links
    ]
    more = len(names) - _NAMED
    return listed([*names[:_NAMED], f"{more} more"] if more > 0 else names)


def _head(status: StatusDocument) -> Iterable[str]:
    networkmanager, kernel, limits = status["networkmanager"], status["kernel"], status["limits"]
    mptcp = "on" if kernel["mptcp_enabled"] else "OFF"
    yield (
        f"service: {status['service']}"
        f"   NetworkManager: {_networkmanager(networkmanager)}"
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


def _networkmanager(shown: NetworkManagerStatus) -> str:
    if shown.get("silent"):  # the service may be an older one, until it is restarted
        return "does not answer"
    return printable(shown["version"]) if shown["running"] else "not running"


def _guard_lines(guard: GuardStatus) -> list[str]:
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


def _link(link: LinkStatus) -> Row:
    shown = (link["interface"], link["profile"], link["kind"], link["state"], link["priority"])
    counts = (link["subflows"], link["connections"], link["alone"])
    return Row(tuple(map(_cell, (*shown, *counts))), link["state"])


def _path(path: PathStatus, now: datetime.datetime) -> Row:
    flags = [*path["flags"], *([f"port={path['port']}"] if path.get("port") else [])]
    told = [path["address"], path["interface"], path["state"], ",".join(flags), path["endpoint_id"]]
    theirs = path["owner"] != "nm-mptcp" and path["endpoint_id"] is not None
    by = f"; its endpoint is {Owner(path['owner']).label}'s" if theirs else ""
    since = f" (since {_moment(path['since'], now)})" if path["since"] and path["state"] != "excluded" else ""
    words = [f"{printable(path['reason'], longest=300)}{by}{since}"]
    if trouble := path.get("trouble"):
        words.append(f"! {printable(trouble, longest=300)}")
    if path["table"] is not None:
        words.append(f"table {path['table']}" + (f" via {path['gateway']}" if path["gateway"] else ""))
    return Row(tuple(map(_cell, told)), path["state"], tuple(words))


def _cell(value: object) -> str:
    return "-" if value in (None, "") else printable(str(value), longest=40)


def _moment(text: str, now: datetime.datetime) -> str:
    """A time as a person says it today: the time of day, with the day where it is another."""
    then = datetime.datetime.fromisoformat(text).astimezone(now.tzinfo)
    return then.strftime("%H:%M:%S" if then.date() == now.date() else "%Y-%m-%d %H:%M:%S")


# --- as lines ------------------------------------------------------------------------------------------------------


def plain(found: Screen, width: int | None = None) -> list[str]:
    """As lines without looks."""
    return [text_of(line) for line in lines(found, width)]


def lines(found: Screen, width: int | None = None) -> list[Line]:
    """As lines of at most ``width`` cells; without a width they are as long as they are."""
    made: list[Line] = [(Span(line, found.style),) for line in wrapped(found.title, "", "  ", width)]
    for cause in found.problems:
        made += [(Span(line, found.style),) for line in wrapped(f"! {cause}", "  ", "    ", width)]
    for words in found.head:
        made += [(Span(line),) for line in wrapped(words, "", "  ", width)]
    if found.links:
        made += [(), *_table(LINKS, found.links, width, least=LINKS.index("STATE") + 1)]
    if found.paths:
        made += [(), *_table(PATHS, found.paths, width, least=1, below=True)]
    if found.tail:
        made.append(())
    for words in found.tail:
        made += [(Span(line, Style.DIM),) for line in wrapped(words, "", "  ", width)]
    return made


def _table(
    header: Sequence[str], rows: Sequence[Row], width: int | None, *, least: int, below: bool = False
) -> Iterable[Line]:
    """Columns beside each other, at least the first ``least``; ``below``: what has no room is told below its row."""
    widths = [max(map(cells, column)) for column in zip(header, *(row.cells for row in rows), strict=True)]
    if width is not None:
        if "PROFILE" in header:
            # Of all columns the profile's is the one to be cut: what it is called in whole, JSON and explain tell.
            place = header.index("PROFILE")
            room = width - sum(widths) + widths[place] - 2 * (len(widths) - 1)
            widths[place] = min(widths[place], max(len("PROFILE"), room))
        # Where that is not enough, whole columns go, the last ones first: half a number tells nothing.
        while len(widths) > least and sum(widths) + 2 * (len(widths) - 1) > width:
            widths.pop()
    yield _aligned([Span(name, Style.BOLD) for name in header], widths)
    for row in rows:
        told = [Span(cell) for cell in row.cells]
        place = header.index("STATE")
        told[place] = Span(told[place].text, _STYLES.get(row.state, Style.PLAIN))
        yield _aligned(told, widths)
        if below and len(widths) < len(header):
            left = zip(header[len(widths) :], row.cells[len(widths) :], strict=True)
            words = ", ".join(f"{name.lower()} {cell}" for name, cell in left if cell != "-")
            yield from ((Span(line),) for line in wrapped(words, "    ", "    ", width))
        for number, words in enumerate(row.words):
            style = Style.DIM if number else Style.PLAIN
            yield from ((Span(line, style),) for line in wrapped(words, "    ", "    ", width))


def _aligned(told: Sequence[Span], widths: Sequence[int]) -> Line:
    """The first of these as columns of those widths."""
    made = []
    for number, (span, width) in enumerate(zip(told, widths, strict=False)):
        text = fit(span.text, width)
        last = number == len(widths) - 1
        made += [Span(text.rstrip() if last else text, span.style), *(() if last else (Span("  "),))]
    return tuple(made)
