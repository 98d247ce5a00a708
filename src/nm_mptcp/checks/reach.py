# SPDX-License-Identifier: GPL-2.0-or-later
"""``--reach``: a real connection by each path, and whether server and way speak MPTCP. Nothing is sent over it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..model.state import Family
from ..text import printable
from .facts import Facts, Place
from .finding import Finding, advice, bad, good, not_applicable, unknown, warning
from .mptcpsocket import abandon, speaks_mptcp

#: Seconds for one connection: the kernel tries without MPTCP after some 3 s where its SYNs with MPTCP are dropped.
_PATIENCE = 8.0

_CHECK = "reach"


@dataclass(frozen=True, slots=True)
class _Try:
    """What came of a connection from one address."""

    place: Place
    server: str
    mptcp: bool = False
    error: str = ""


def reach(facts: Facts, host: str, port: int) -> list[Finding]:
    """Findings for each path."""
    target = printable(host)
    if facts.socket_errno:
        return [unknown(_CHECK, "no MPTCP socket can be made here (see above)", target)]
    places = [place for place in facts.places() if place.ifindex and facts.kernel.links[place.ifindex].up]
    if not places:
        return [unknown(_CHECK, "there is no path to try", target)]
    try:
        servers = _servers(host, port)
    except OSError as error:
        words = f"'{printable(host)}' cannot be looked up: {error.strerror or error}"
        return [bad(_CHECK, words, remedy=advice("without a network, or its name server, there is nothing to try"))]
    tried = [place for place in places if Family.of(place.address) in servers]
    # Side by side: one that gets no answer takes its time. (Threads are in the network namespace of the one that starts them.)
    with ThreadPoolExecutor(max_workers=max(1, len(tried))) as workers:
        tries = list(workers.map(lambda place: _connect(place, servers[Family.of(place.address)], port), tried))
    findings = [
        not_applicable(_CHECK, f"{printable(host)} has no {family.label} address")
        for family in Family
        if family not in servers
    ]
    return findings + list(_judge(facts, tries))


def parse(target: str) -> tuple[str, int]:
    """Host and port of HOST, HOST:PORT, ADDRESS or [ADDRESS]:PORT; port 443 where none is given. Raises ValueError."""
    host, port = target, "443"
    if target.startswith("["):
        host, _, rest = target[1:].partition("]")
        port = rest.removeprefix(":") or port
        wrong = bool(rest) and not rest.startswith(":")
    else:
        wrong = target.count(":") > 1 and not _is_address(target)
        if target.count(":") == 1:
            host, _, port = target.partition(":")
    if wrong or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"--reach {printable(target)}: must be HOST or HOST:PORT, an IPv6 address as [ADDRESS]:PORT")
    return host, int(port)


def _is_address(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        return False
    return True


def _servers(host: str, port: int) -> dict[Family, str]:
    """The first address of each family. Raises OSError."""
    found: dict[Family, str] = {}
    for family, _kind, _protocol, _name, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if family in (socket.AF_INET, socket.AF_INET6):
            found.setdefault(Family(family), str(address[0]))
    return found


def _connect(place: Place, server: str, port: int) -> _Try:
    try:
        connection = socket.socket(Family.of(server), socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
    except OSError as error:
        return _Try(place, server, error=_words(error))
    try:
        connection.settimeout(_PATIENCE)
        connection.bind((place.address, 0))
        connection.connect((server, port))
        return _Try(place, server, mptcp=speaks_mptcp(connection))
    except OSError as error:
        return _Try(place, server, error=_words(error))
    finally:
        abandon(connection)


def _judge(facts: Facts, tries: list[_Try]) -> Iterable[Finding]:
    spoken = {each.server for each in tries if each.mptcp}
    for each in tries:
        subject = f"{each.place.interface} {each.place.address}"
        if each.error:
            yield bad(
                _CHECK,
                f"no connection to {each.server}: {each.error}",
                subject,
                advice("see 'route' above for this address"),
            )
        elif each.mptcp:
            yield good(_CHECK, f"{each.server} and the way to it speak MPTCP", subject)
        elif each.server in spoken:
            words = f"TCP only, though {each.server} speaks MPTCP by another path: something on this way takes it out"
            yield warning(
                _CHECK, words, subject, advice("this network cannot carry MPTCP; connections begun by it are TCP")
            )
        elif facts.blackholed:
            yield warning(_CHECK, "TCP only: the kernel has given MPTCP up for a while (see 'blackhole')", subject)
        else:
            words = f"TCP only by every path: {each.server} does not speak MPTCP, or something in front of it does not"
            yield warning(_CHECK, words, subject, advice("try a server that is known to speak MPTCP"))


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return "no answer"
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
