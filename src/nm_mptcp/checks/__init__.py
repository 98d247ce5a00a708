# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp check``: all that the kernel's setup guide tells a person to do by hand, as pure functions of facts.

:mod:`.collect` is where they are looked up, once; a check is a function from :class:`~.facts.Facts` to findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import conflicts, counters, manager, paths, routes, system, tools
from .facts import Facts
from .finding import Finding

#: All checks, in the order in which they are told: what the others stand on comes first.
CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    system.version,
    system.options,
    system.enabled,
    system.mptcp_socket,
    system.path_manager,
    system.join_initial,
    system.blackhole,
    manager.networkmanager,
    manager.dropin,
    manager.service,
    manager.configuration,
    conflicts.mptcpd,
    conflicts.networkd,
    conflicts.cloud_setup,
    conflicts.strongswan,
    paths.verdict,
    paths.paths,
    paths.families,
    paths.endpoints,
    paths.limits,
    routes.ways,
    routes.rules,
    routes.default_routes,
    routes.reverse_path,
    routes.firewall,
    routes.one_subnet,
    counters.joins,
    counters.fallbacks,
    tools.tools,
)


def judge(facts: Facts) -> list[Finding]:
    """All findings on these facts."""
    return [finding for check in CHECKS for finding in check(facts)]
