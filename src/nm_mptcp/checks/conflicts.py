# SPDX-License-Identifier: GPL-2.0-or-later
"""Other programs that write endpoints, rules or routes, beside us."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Facts, Process
from .finding import Finding, Remedy, commands, good, not_applicable, warning

#: Both keys of networkd.conf(5) that make it delete what it did not make; the default is yes.
_NETWORKD = ("ManageForeignRoutingPolicyRules", "ManageForeignRoutes")
_NO = ("no", "n", "false", "f", "off", "0")

#: The table and the priority of strongSwan's rule.
_STRONGSWAN = 220


def mptcpd(facts: Facts) -> Iterator[Finding]:
    """The MPTCP daemon: a second writer of endpoints and limits."""
    found = facts.process("mptcpd")
    if found is None:
        yield good("mptcpd", "mptcpd does not run")
        return
    words = f"mptcpd runs (process {found.pid}): it adds endpoints and limits of its own, and keeps those of lost links"
    yield warning("mptcpd", words, remedy=_stopped(found))


def networkd(facts: Facts) -> Iterator[Finding]:
    """systemd-networkd deletes rules and routes that it did not make, unless it is told not to."""
    found = facts.process("systemd-networkd", "systemd-network")
    if found is None:
        yield good("systemd-networkd", "systemd-networkd does not run")
        return
    taken = [key for key in _NETWORKD if facts.networkd.get(key, "yes").lower() not in _NO]
    if not taken:
        yield good("systemd-networkd", "systemd-networkd leaves rules and routes of others alone")
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
        f"systemd-networkd deletes rules and routes of others: {', '.join(taken)} is yes",
        remedy=fix,
    )


def cloud_setup(facts: Facts) -> Iterator[Finding]:
    """nm-cloud-setup makes rules for the addresses of cloud machines, in front of ours."""
    rules = [rule for rule in facts.kernel.rules if 30200 <= rule.priority < 30500 and rule.source]
    if facts.cloud_setup or rules:
        sources = ", ".join(sorted({str(rule.source) for rule in rules})) or "none yet"
        words = f"nm-cloud-setup routes addresses too, in front of nm-mptcp ({sources})"
        yield warning(
            "nm-cloud-setup",
            words,
            remedy=commands(
                "systemctl disable --now nm-cloud-setup.timer",
                words="needed only where the cloud's addresses are not given by DHCP; reboot or delete its rules after",
            ),
        )
    else:
        yield good("nm-cloud-setup", "nm-cloud-setup does not run")


def strongswan(facts: Facts) -> Iterator[Finding]:
    """strongSwan's table 220 comes before everything else."""
    found = facts.process("charon", "charon-systemd", "charon-nm")
    if found is None:
        yield good("strongswan", "strongSwan does not run")
        return
    routes = [route for (table, _), group in facts.kernel.routes.items() if table == _STRONGSWAN for route in group]
    if routes:
        where = ", ".join(sorted({route.destination for route in routes}))
        words = f"strongSwan's table {_STRONGSWAN} comes first: what goes to {where} takes the tunnel, by whatever path"
        yield warning("strongswan", words, remedy=commands(f"ip route show table {_STRONGSWAN}", words="to see it"))
    else:
        yield not_applicable("strongswan", f"strongSwan runs; its table {_STRONGSWAN} is empty")


def _stopped(process: Process) -> Remedy:
    if process.unit:
        return commands(f"systemctl disable --now {process.unit}")
    return commands(f"kill {process.pid}", words="and keep whatever starts it from doing so")
