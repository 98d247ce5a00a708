# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager, our drop-in there, our own service and its configuration."""

from __future__ import annotations

from collections.abc import Iterator

from ..model.state import DefaultFlags
from ..text import printable
from .facts import STARTING, Facts
from .finding import Finding, advice, bad, commands, good, not_applicable, unknown, warning

_DROPIN = "/usr/lib/NetworkManager/conf.d/10-nm-mptcp.conf"

_NO_BUS = "the system bus cannot be reached"


def networkmanager(facts: Facts) -> Iterator[Finding]:
    """Whether it runs, and its version."""
    if not facts.status:
        yield unknown("networkmanager", f"NetworkManager could not be asked: {facts.status_error}")
        return
    if not facts.bus:
        words = f"{_NO_BUS}: NetworkManager cannot be asked, and no connection becomes a path"
        yield bad("networkmanager", words, remedy=advice("start the system bus (dbus.service)"))
        return
    told = facts.status["networkmanager"]
    if told.get("silent"):
        words = "NetworkManager does not answer: paths stay as they are, and no connection becomes one"
        yield bad("networkmanager", words, remedy=advice("see what it waits for ('systemctl status NetworkManager')"))
        return
    words = "NetworkManager does not run: no connection becomes a path"
    if not told["running"]:
        yield bad("networkmanager", words, remedy=commands("systemctl start NetworkManager"))
        return
    numbers = [int(part) for part in str(told["version"]).split(".")[:2] if part.isdigit()]
    if numbers < [1, 40]:
        words = f"NetworkManager {told['version']} has no connection.mptcp-flags (1.40 has): the defaults count for all"
        yield warning("networkmanager", words, remedy=advice("install NetworkManager 1.40 or newer"))
    else:
        yield good("networkmanager", f"NetworkManager {told['version']}")


def dropin(facts: Facts) -> Iterator[Finding]:
    """Whether profiles without flags of their own are left to us, for each device."""
    told = facts.status["networkmanager"] if facts.status else None
    if told is None or not told["running"] or told.get("silent"):
        why = "NetworkManager does not answer" if told and told.get("silent") else "NetworkManager does not run"
        yield not_applicable("drop-in", why if facts.bus else _NO_BUS)
        return
    section = told["default_flags_section"]
    if section == DefaultFlags.OUR_SECTION:
        yield good("drop-in", f"profiles without mptcp-flags are left to nm-mptcp ([{section}])")
    elif facts.dropin_masked:
        words = f"{facts.dropin} hides nm-mptcp's drop-in: NetworkManager makes the endpoints of all profiles"
        fix = commands(f"rm {facts.dropin}", "nmcli general reload conf", words="unless somebody meant it")
        yield warning("drop-in", words, remedy=fix)
    elif not facts.dropin:
        words = f"{_DROPIN} is missing: NetworkManager makes the endpoints of all profiles"
        yield warning("drop-in", words, remedy=advice("install nm-mptcp again, whole"))
    else:
        by = f"[{section}]" if section else "no section"
        words = f"{by} decides the default for connection.mptcp-flags, not [{DefaultFlags.OUR_SECTION}]"
        fix = commands("NetworkManager --print-config", words="a later or more special section wins; take its key out")
        yield warning("drop-in", words, remedy=fix)
    for path in facts.paths:
        subject = f"{path['interface']} {path['address']}"
        if path["rule"] == "networkmanager-owns":
            words = "the drop-in does not count yet: this activation began before NetworkManager had it"
            yield warning("drop-in", words, subject, commands(f"nmcli connection up uuid {path['uuid']}"))
        elif path["rule"] in ("flags-of-networkmanager", "disabled-by-networkmanager"):
            yield good(
                "drop-in", f"another section of NetworkManager.conf decides: {printable(path['reason'], 200)}", subject
            )


def service(facts: Facts) -> Iterator[Finding]:
    """Whether the service runs."""
    if facts.status and facts.status["service"] == "active":
        yield good("service", "the service runs")
        return
    if not facts.bus:
        yield unknown("service", f"{_NO_BUS}, so the service cannot be asked")
        return
    if facts.service_error == STARTING:
        yield unknown("service", STARTING, remedy=advice("look again in a moment"))
        return
    if facts.service_error:
        again = commands("systemctl restart nm-mptcp") if facts.systemd else advice("end it, and start it again")
        yield bad("service", facts.service_error, remedy=again)
        return
    words = (
        "the service does not run: paths follow NetworkManager's dispatcher only, and lost links are not left at once"
    )
    fix = commands("systemctl enable --now nm-mptcp") if facts.systemd else advice("run 'nm-mptcp daemon' as a service")
    yield warning("service", words, remedy=fix)


def configuration(facts: Facts) -> Iterator[Finding]:
    """Whether all of our configuration is good."""
    if not facts.problems:
        yield good("configuration", "all of the configuration is good")
    for problem in facts.problems:
        fix = commands(
            "nm-mptcp config --check", words="to see all; then correct the file, and 'systemctl reload nm-mptcp'"
        )
        yield warning("configuration", f"{problem}; left out", remedy=fix)
