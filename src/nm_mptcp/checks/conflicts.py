# SPDX-License-Identifier: GPL-2.0-or-later
"""Other programs that change endpoints, rules or routes."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Process, SystemFacts
from .finding import Finding, Remedy, commands, good, not_applicable, warning

#: Both keys of networkd.conf(5) that make it delete what it did not make; the default is yes.
_NETWORKD = ("ManageForeignRoutingPolicyRules", "ManageForeignRoutes")
_NO = ("no", "n", "false", "f", "off", "0")

#: The table and the priority of strongSwan's rule.
_STRONGSWAN = 220


def mptcpd(facts: SystemFacts) -> Iterator[Finding]:
    """mptcpd, which writes endpoints and limits as well."""
    found = facts.process("mptcpd")
    if found is None:
        yield good("mptcpd", "mptcpd is not running")
        return
    words = (
        f"mptcpd is running (PID {found.pid}): it sets endpoints and limits of its own, and keeps those of lost links"
    )
    yield warning("mptcpd", words, remedy=_stopped(found))


def networkd(facts: SystemFacts) -> Iterator[Finding]:
    """systemd-networkd, which by default deletes rules and routes that it did not add."""
    found = facts.process("systemd-networkd", "systemd-network")
    if found is None:
        yield good("systemd-networkd", "systemd-networkd is not running")
        return
    taken = [key for key in _NETWORKD if facts.networkd.get(key, "yes").lower() not in _NO]
    if not taken:
        yield good("systemd-networkd", "systemd-networkd keeps foreign rules and routes")
        return
    place = "/etc/systemd/networkd.conf.d"
    lines = "\\n".join(["[Network]", *(f"{key}=no" for key in _NETWORKD)])
    fix = commands(
        f"mkdir -p {place}",
        f"printf '{lines}\\n' >{place}/90-nm-mptcp.conf",
        "systemctl restart systemd-networkd",
    )
    yield warning(
        "systemd-networkd",
        f"systemd-networkd deletes foreign rules and routes: {', '.join(taken)} is yes",
        remedy=fix,
    )


def cloud_setup(facts: SystemFacts) -> Iterator[Finding]:
    """nm-cloud-setup, whose rules for a cloud machine's addresses come before nm-mptcp's."""
    rules = [rule for rule in facts.kernel.rules if 30200 <= rule.priority < 30500 and rule.source]
    if facts.cloud_setup or rules:
        sources = ", ".join(sorted({str(rule.source) for rule in rules})) or "none yet"
        words = f"nm-cloud-setup routes addresses as well, before nm-mptcp's rules ({sources})"
        yield warning(
            "nm-cloud-setup",
            words,
            remedy=commands(
                "systemctl disable --now nm-cloud-setup.timer",
                words="needed only where the cloud's addresses do not come by DHCP; then reboot, or delete its rules",
            ),
        )
    else:
        yield good("nm-cloud-setup", "nm-cloud-setup is not running")


def strongswan(facts: SystemFacts) -> Iterator[Finding]:
    """strongSwan, whose table 220 comes before all others."""
    found = facts.process("charon", "charon-systemd", "charon-nm")
    if found is None:
        yield good("strongswan", "strongSwan is not running")
        return
    routes = [route for (table, _), group in facts.kernel.routes.items() if table == _STRONGSWAN for route in group]
    if routes:
        where = ", ".join(sorted({route.destination for route in routes}))
        words = f"strongSwan's table {_STRONGSWAN} comes first: packets to {where} take the tunnel on every path"
        yield warning("strongswan", words, remedy=commands(f"ip route show table {_STRONGSWAN}", words="shows it"))
    else:
        yield not_applicable("strongswan", f"strongSwan is running; its table {_STRONGSWAN} is empty")


def _stopped(process: Process) -> Remedy:
    if process.unit:
        return commands(f"systemctl disable --now {process.unit}")
    return commands(f"kill {process.pid}", words="and disable whatever starts it")
