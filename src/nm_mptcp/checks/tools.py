# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs for using and examining MPTCP."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .facts import SystemFacts
from .finding import Finding, advice, good, warning

#: Program -> what is impossible without it, and its package.
TOOLS = {
    "mptcpize": (
        "programs without MPTCP support cannot be run with it ('nm-mptcp exec')",
        "install mptcpize (Debian, Ubuntu: package mptcpize; Fedora, RHEL: mptcpd)",
    ),
    "ss": ("connections and subflows cannot be listed", "install iproute2 (Fedora, RHEL: iproute)"),
    "ip": ("endpoints, rules and routes cannot be listed", "install iproute2 (Fedora, RHEL: iproute)"),
    "nft": ("connections cannot be kept in the tunnel that they begin in", "install nftables"),
}

#: The first iproute2 with ``ip mptcp endpoint change`` and fullmesh (5.17).
_IPROUTE = (5, 17)


def tools(facts: SystemFacts) -> Iterator[Finding]:
    """Whether they are installed, and ``ip`` is new enough."""
    for name, (words, package) in TOOLS.items():
        place = facts.tools.get(name, "")
        if not place:
            yield warning("tools", f"{name} is not installed: {words}", name, advice(package))
        elif name == "ip" and (number := _version(facts.iproute_version)) and number < _IPROUTE:
            evidence = f"{place} is of iproute2 {facts.iproute_version}: 'ip mptcp endpoint change' came with 5.17"
            yield warning("tools", evidence, name, advice("install a newer iproute2"))
        else:
            of = f" (iproute2 {facts.iproute_version})" if name == "ip" and facts.iproute_version else ""
            yield good("tools", f"{place}{of}", name)


def _version(text: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None
