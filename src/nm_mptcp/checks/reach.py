# SPDX-License-Identifier: GPL-2.0-or-later
"""``--reach``: a connection from each path, and whether server and network support MPTCP. No data is sent."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..model.state import Family
from ..text import printable
from .facts import CheckedAddress, SystemFacts
from .finding import Finding, advice, bad, good, not_applicable, unknown, warning
from .mptcp_socket import abandon, uses_mptcp

#: Seconds for one connection; where SYNs with MPTCP are dropped, the kernel retries without after some 3 s.
_TIMEOUT = 8.0

_CHECK = "reach"


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The result of a connection from one address."""

    checked: CheckedAddress
    server: str
    mptcp: bool = False
    error: str = ""


def reach(facts: SystemFacts, host: str, port: int) -> list[Finding]:
    """Findings for each path."""
    target = printable(host)
    if facts.socket_errno:
        return [unknown(_CHECK, "no MPTCP socket can be created (see above)", target)]
    addresses = [checked for checked in facts.addresses() if checked.ifindex and facts.kernel.links[checked.ifindex].up]
    if not addresses:
        return [unknown(_CHECK, "there is no path", target)]
    try:
        servers = _servers(host, port)
    except OSError as error:
        words = f"'{printable(host)}' cannot be resolved: {error.strerror or error}"
        return [bad(_CHECK, words, remedy=advice("check the network and the name server"))]
    tried = [checked for checked in addresses if Family.of(checked.address) in servers]
    # In parallel, since one may time out. (A thread is in the network namespace of the one that starts it.)
    with ThreadPoolExecutor(max_workers=max(1, len(tried))) as workers:
        tries = list(workers.map(lambda checked: _connect(checked, servers[Family.of(checked.address)], port), tried))
    findings = [
        not_applicable(_CHECK, f"{printable(host)} has no {family.label} address")
        for family in Family
        if family not in servers
    ]
    return findings + list(_results(facts, tries))


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
    """Family -> first address. Raises OSError."""
    found: dict[Family, str] = {}
    for family, _kind, _protocol, _name, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if family in (socket.AF_INET, socket.AF_INET6):
            found.setdefault(Family(family), str(address[0]))
    return found


def _connect(checked: CheckedAddress, server: str, port: int) -> _Attempt:
    try:
        connection = socket.socket(Family.of(server), socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
    except OSError as error:
        return _Attempt(checked, server, error=_error_text(error))
    try:
        connection.settimeout(_TIMEOUT)
        connection.bind((checked.address, 0))
        connection.connect((server, port))
        return _Attempt(checked, server, mptcp=uses_mptcp(connection))
    except OSError as error:
        return _Attempt(checked, server, error=_error_text(error))
    finally:
        abandon(connection)


def _results(facts: SystemFacts, tries: list[_Attempt]) -> Iterable[Finding]:
    spoken = {each.server for each in tries if each.mptcp}
    for each in tries:
        subject = f"{each.checked.interface} {each.checked.address}"
        if each.error:
            yield bad(
                _CHECK,
                f"no connection to {each.server}: {each.error}",
                subject,
                advice("see 'route' above for this address"),
            )
        elif each.mptcp:
            yield good(_CHECK, f"{each.server} and the network on the way support MPTCP", subject)
        elif each.server in spoken:
            words = (
                f"TCP only, although {each.server} supports MPTCP by another path: a middlebox on this one removes it"
            )
            yield warning(_CHECK, words, subject, advice("connections that begin on this network are TCP"))
        elif facts.blackholed:
            yield warning(_CHECK, "TCP only: the kernel has suspended MPTCP (see 'blackhole')", subject)
        else:
            words = f"TCP only by every path: {each.server}, or a middlebox in front of it, does not support MPTCP"
            yield warning(_CHECK, words, subject, advice("try a server that is known to support MPTCP"))


def _error_text(error: OSError) -> str:
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return "no answer"
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
