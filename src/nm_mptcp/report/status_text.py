# SPDX-License-Identifier: GPL-2.0-or-later
"""The status document as one screen, wrapped and coloured for a terminal. No information is in the colour alone."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from ..model.state import Owner
from ..text import cells, counted, fit, listed, printable, width_of, wrapped
from .documents import GuardStatus, LinkStatus, NetworkManagerStatus, PathStatus, StatusDocument
from .styles import Line, Span, Style, rendered, text_of

#: Rules whose addresses are listed with ``--all`` only: nobody expects these to be paths.
_ORDINARY = frozenset({"not-managed", "external", "link-local", "not-global"})

_STATES = ("active", "suspended", "waiting", "excluded")

#: ``state`` of the document -> how it is shown.
_OVERALL = {
    "good": ("working", Style.GOOD),
    "held-back": ("degraded", Style.WARNING),
    "not-working": ("not working", Style.BAD),
}

#: How many links of a kind the summary names.
_NAMED = 3

_STYLES = {"active": Style.GOOD, "suspended": Style.WARNING, "waiting": Style.WARNING, "excluded": Style.DIM}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table, the state that colours it, and the lines below it."""

    cells: tuple[str, ...]
    state: str
    below: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Screen:
    """Everything that is shown, without width and colour."""

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
    """Write the document to ``stream``, with the width and the colours of its terminal."""
    found = screen(status, now=datetime.datetime.now().astimezone(), everything=everything)
    stream.write(rendered(lines(found, width_of(stream)), stream))


def screen(status: StatusDocument, *, now: datetime.datetime, everything: bool = False) -> Screen:
    """What is shown, without characters that could disturb a terminal; times are in ``now``'s time zone.

    ``everything``: also the addresses that nobody expects to be paths.
    """
    summary, style = _OVERALL[status["state"]]
    active = [link for link in status["links"] if link["state"] == "active"]
    # The service of an older release has no "trouble".
    free = {path["interface"] for path in status["paths"] if path["state"] == "active" and not path.get("trouble")}
    usable = [link for link in active if link["interface"] in free and link["carrier"]]
    if status["state"] == "good" and not active:
        summary = "no path"
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
        tail.append(f"Left out: {counted(left_out, 'address', 'addresses')} that cannot be paths (--all shows all).")
    return Screen(
        title=f"nm-mptcp {printable(status['version'])}: {summary}",
        style=style,
        head=(*(_summary(usable) if status["state"] != "not-working" else ()), *_head(status)),
        problems=tuple(printable(problem, longest=300) for problem in status["problems"]),
        links=tuple(_link(link) for link in status["links"] if link["interface"] in names),
        paths=tuple(_path(path, now) for path in shown),
        tail=tuple(tail),
    )


def _summary(links: list[LinkStatus]) -> Iterable[str]:
    """Which links connections use, and which are backup; ``links`` are those that are active and have a carrier."""
    regular = [link for link in links if link["priority"] == "regular"]
    backup = [link for link in links if link["priority"] != "regular"]
    if regular and backup:
        yield f"{_links(regular)} active, {_links(backup)} backup"
    elif len(regular) > 1:
        yield f"{_links(regular)} active"
    elif regular:
        yield f"{_links(regular)} active, no other path"
    elif backup:
        yield f"{_links(backup)} active (backup, no regular path)"


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
        yield "connections: unknown without the service or CAP_NET_ADMIN"
    else:
        yield f"connections: {live['total']} live over MPTCP, {counted(live['subflows'], 'subflow')}"


def _networkmanager(shown: NetworkManagerStatus) -> str:
    if shown.get("silent"):
        return "does not answer"
    return printable(shown["version"]) if shown["running"] else "not running"


def _guard_lines(guard: GuardStatus) -> list[str]:
    if not guard["since"]:
        return []
    names = {"ipv4": "IPv4", "ipv6": "IPv6"}
    if guard["tunnels"]:
        state = ", ".join(f"all {names[family]} by {printable(name)}" for family, name in guard["tunnels"].items())
    else:
        state = f"none, the last one ended at {guard['until']}"
    cut = f"{guard['cut_subflows']} subflows closed, {guard['cut_connections']} connections had no other"
    return [f"full tunnel: {state}; {cut}"]


def _link(link: LinkStatus) -> Row:
    shown = (link["interface"], link["profile"], link["kind"], link["state"], link["priority"])
    counts = (link["subflows"], link["connections"], link["alone"])
    return Row(tuple(map(_cell, (*shown, *counts))), link["state"])


def _path(path: PathStatus, now: datetime.datetime) -> Row:
    flags = [*path["flags"], *([f"port={path['port']}"] if path.get("port") else [])]
    shown = (path["address"], path["interface"], path["state"], ",".join(flags), path["endpoint_id"])
    foreign = path["owner"] != Owner.OURS and path["endpoint_id"] is not None
    owner = f"; endpoint owned by {Owner(path['owner']).label}" if foreign else ""
    since = f" (since {_moment(path['since'], now)})" if path["since"] and path["state"] != "excluded" else ""
    below = [f"{printable(path['reason'], longest=300)}{owner}{since}"]
    if trouble := path.get("trouble"):
        below.append(f"! {printable(trouble, longest=300)}")
    if path["table"] is not None:
        below.append(f"table {path['table']}" + (f" via {path['gateway']}" if path["gateway"] else ""))
    return Row(tuple(map(_cell, shown)), path["state"], tuple(below))


def _cell(value: object) -> str:
    return "-" if value in (None, "") else printable(str(value), longest=40)


def _moment(text: str, now: datetime.datetime) -> str:
    """The time of day, with the date where that is not today's."""
    then = datetime.datetime.fromisoformat(text).astimezone(now.tzinfo)
    return then.strftime("%H:%M:%S" if then.date() == now.date() else "%Y-%m-%d %H:%M:%S")


# --- as lines ------------------------------------------------------------------------------------------------------


def plain(found: Screen, width: int | None = None) -> list[str]:
    """The screen as lines without colour, see :func:`lines`."""
    return [text_of(line) for line in lines(found, width)]


def lines(found: Screen, width: int | None = None) -> list[Line]:
    """The screen as lines of at most ``width`` cells; without a width nothing is wrapped."""
    made: list[Line] = [(Span(line, found.style),) for line in wrapped(found.title, "", "  ", width)]
    for problem in found.problems:
        made += [(Span(line, found.style),) for line in wrapped(f"! {problem}", "  ", "    ", width)]
    for text in found.head:
        made += [(Span(line),) for line in wrapped(text, "", "  ", width)]
    if found.links:
        made += [(), *_table(LINKS, found.links, width, least=LINKS.index("STATE") + 1)]
    if found.paths:
        made += [(), *_table(PATHS, found.paths, width, least=1, below=True)]
    if found.tail:
        made.append(())
    for text in found.tail:
        made += [(Span(line, Style.DIM),) for line in wrapped(text, "", "  ", width)]
    return made


def _table(
    header: Sequence[str], rows: Sequence[Row], width: int | None, *, least: int, below: bool = False
) -> Iterable[Line]:
    """Header and rows, with at least the first ``least`` columns; ``below``: cells without room go below their row."""
    widths = [max(map(cells, column)) for column in zip(header, *(row.cells for row in rows), strict=True)]
    if width is not None:
        if "PROFILE" in header:
            # The profile's name is cut first: JSON and explain have all of it.
            place = header.index("PROFILE")
            room = width - sum(widths) + widths[place] - 2 * (len(widths) - 1)
            widths[place] = min(widths[place], max(len("PROFILE"), room))
        # Then whole columns go, the last ones first: half a number is worth nothing.
        while len(widths) > least and sum(widths) + 2 * (len(widths) - 1) > width:
            widths.pop()
    yield _aligned([Span(name, Style.BOLD) for name in header], widths)
    for row in rows:
        shown = [Span(cell) for cell in row.cells]
        place = header.index("STATE")
        shown[place] = Span(shown[place].text, _STYLES.get(row.state, Style.PLAIN))
        yield _aligned(shown, widths)
        if below and len(widths) < len(header):
            left = zip(header[len(widths) :], row.cells[len(widths) :], strict=True)
            text = ", ".join(f"{name.lower()} {cell}" for name, cell in left if cell != "-")
            yield from ((Span(line),) for line in wrapped(text, "    ", "    ", width))
        for number, text in enumerate(row.below):
            style = Style.DIM if number else Style.PLAIN
            yield from ((Span(line, style),) for line in wrapped(text, "    ", "    ", width))


def _aligned(spans: Sequence[Span], widths: Sequence[int]) -> Line:
    """The first spans as columns of these widths."""
    made = []
    for number, (span, width) in enumerate(zip(spans, widths, strict=False)):
        text = fit(span.text, width)
        last = number == len(widths) - 1
        made += [Span(text.rstrip() if last else text, span.style), *(() if last else (Span("  "),))]
    return tuple(made)
