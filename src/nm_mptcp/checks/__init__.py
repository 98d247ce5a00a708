# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp check``: whether everything that MPTCP needs is there, as pure functions of facts.

:mod:`.collect` looks the facts up, once; a check is a function from :class:`~.facts.SystemFacts` to findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import conflicts, counters, manager, paths, routes, system, tools
from .facts import SystemFacts
from .finding import Finding

#: All checks in the order of the output: what others depend on comes first.
CHECKS: tuple[Callable[[SystemFacts], Iterator[Finding]], ...] = (
    system.version,
    system.options,
    system.enabled,
    system.mptcp_socket,
    system.path_manager,
    system.join_initial,
    system.blackhole,
    system.silent_links,
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
    routes.route_lookups,
    routes.rules,
    routes.default_routes,
    routes.reverse_path,
    routes.firewall,
    routes.tunnels,
    routes.one_subnet,
    counters.joins,
    counters.fallbacks,
    tools.tools,
)


def run_checks(facts: SystemFacts) -> list[Finding]:
    """All findings on these facts."""
    return [finding for check in CHECKS for finding in check(facts)]
