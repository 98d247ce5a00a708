# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager, nm-mptcp's drop-in for it, the service and its configuration."""

from __future__ import annotations

from collections.abc import Iterator

from ..model.state import DefaultFlags
from ..text import printable
from .facts import STARTING, SystemFacts
from .finding import Finding, advice, bad, commands, good, not_applicable, unknown, warning

_DROPIN = "/usr/lib/NetworkManager/conf.d/10-nm-mptcp.conf"

_NO_BUS = "the system bus is not reachable"


def networkmanager(facts: SystemFacts) -> Iterator[Finding]:
    """Whether NetworkManager is running, and its version."""
    if not facts.status:
        yield unknown("networkmanager", f"no answer about NetworkManager: {facts.status_error}")
        return
    if not facts.bus:
        words = f"{_NO_BUS}, nor is NetworkManager: no new paths are added"
        yield bad("networkmanager", words, remedy=advice("start the system bus (dbus.service)"))
        return
    known = facts.status["networkmanager"]
    if known.get("silent"):
        words = "NetworkManager does not answer: current paths are kept, and no new ones are added"
        yield bad("networkmanager", words, remedy=advice("see 'systemctl status NetworkManager'"))
        return
    words = "NetworkManager is not running: no new paths are added"
    if not known["running"]:
        yield bad("networkmanager", words, remedy=commands("systemctl start NetworkManager"))
        return
    numbers = [int(part) for part in str(known["version"]).split(".")[:2] if part.isdigit()]
    if numbers < [1, 40]:
        words = f"NetworkManager {known['version']} has no connection.mptcp-flags (1.40 has): defaults apply to all profiles"
        yield warning("networkmanager", words, remedy=advice("install NetworkManager 1.40 or newer"))
    else:
        yield good("networkmanager", f"NetworkManager {known['version']}")


def dropin(facts: SystemFacts) -> Iterator[Finding]:
    """Whether nm-mptcp decides about profiles without flags of their own, for each device."""
    known = facts.status["networkmanager"] if facts.status else None
    if known is None or not known["running"] or known.get("silent"):
        silent = known is not None and known.get("silent")
        why = "NetworkManager does not answer" if silent else "NetworkManager is not running"
        yield not_applicable("drop-in", why if facts.bus else _NO_BUS)
        return
    section = known["default_flags_section"]
    if section == DefaultFlags.OUR_SECTION:
        yield good("drop-in", f"profiles without mptcp-flags are left to nm-mptcp ([{section}])")
    elif facts.dropin_masked:
        words = f"{facts.dropin} hides nm-mptcp's drop-in: NetworkManager adds the endpoints of all profiles"
        fix = commands(f"rm {facts.dropin}", "nmcli general reload conf", words="unless this is intended")
        yield warning("drop-in", words, remedy=fix)
    elif not facts.dropin:
        words = f"{_DROPIN} is missing: NetworkManager adds the endpoints of all profiles"
        yield warning("drop-in", words, remedy=advice("reinstall nm-mptcp"))
    else:
        by = f"[{section}]" if section else "no section"
        words = f"{by} decides the default for connection.mptcp-flags, not [{DefaultFlags.OUR_SECTION}]"
        fix = commands(
            "NetworkManager --print-config", words="a later or more specific section wins; remove the key there"
        )
        yield warning("drop-in", words, remedy=fix)
    for path in facts.paths:
        subject = f"{path['interface']} {path['address']}"
        if path["rule"] == "networkmanager-owns":
            words = "the drop-in does not apply yet: this activation began before NetworkManager read it"
            yield warning("drop-in", words, subject, commands(f"nmcli connection up uuid {path['uuid']}"))
        elif path["rule"] in ("flags-of-networkmanager", "disabled-by-networkmanager"):
            yield good(
                "drop-in", f"another section of NetworkManager.conf decides: {printable(path['reason'], 200)}", subject
            )


def service(facts: SystemFacts) -> Iterator[Finding]:
    """Whether the service is running."""
    if facts.status and facts.status["service"] == "active":
        yield good("service", "the service is running")
        return
    if not facts.bus:
        yield unknown("service", f"{_NO_BUS}, so the state of the service is unknown")
        return
    if facts.service_error == STARTING:
        yield unknown("service", STARTING, remedy=advice("try again in a moment"))
        return
    if facts.service_error:
        again = commands("systemctl restart nm-mptcp") if facts.systemd else advice("restart it")
        yield bad("service", facts.service_error, remedy=again)
        return
    words = "the service is not running: paths follow NetworkManager's dispatcher only, without failover at link loss"
    fix = commands("systemctl enable --now nm-mptcp") if facts.systemd else advice("run 'nm-mptcp daemon' as a service")
    yield warning("service", words, remedy=fix)


def configuration(facts: SystemFacts) -> Iterator[Finding]:
    """Whether nm-mptcp.conf has errors."""
    if not facts.problems:
        yield good("configuration", "no errors")
    for problem in facts.problems:
        fix = commands(
            "nm-mptcp config --check", words="shows all; then correct the file, and 'systemctl reload nm-mptcp'"
        )
        yield warning("configuration", f"{problem}; ignored", remedy=fix)
