# SPDX-License-Identifier: GPL-2.0-or-later
"""Each path and endpoint, the limits, and the overall state."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterator

from ..model.flags import EndpointFlag, names
from ..model.state import AddressFlag, Endpoint, Family, FlagsFrom, Owner
from ..report.documents import PathStatus
from ..report.health import Verdict, degraded
from ..text import printable
from .facts import CheckedAddress, SystemFacts
from .finding import Finding, Remedy, advice, bad, commands, good, not_applicable, unknown, warning
from .system import NEWER, TURN_ON

#: Name of the rule by which an address is no path -> what to do.
_ADVICE = {
    "no-carrier": "connect the cable, or check the radio link; the path returns by itself",
    "link-down": "ip link set {interface} up",
    "tentative": "wait a second; if it remains, another machine has this address",
    "no-default-route": "give the profile a gateway, or mptcp-flags also-without-default-route",
    "refused": "see the kernel's error above",
    "no-slot": "the kernel takes no more endpoints; 'slot-priority' in nm-mptcp.conf decides which",
}


def paths(facts: SystemFacts) -> Iterator[Finding]:
    """How many paths there are, and which are degraded."""
    if not facts.status:
        yield unknown("paths", f"no status: {facts.status_error}")
        return
    active = facts.active
    interfaces = sorted({path["interface"] for path in active})
    if len(interfaces) > 1:
        yield good("paths", f"{len(active)} addresses on {', '.join(interfaces)} are paths")
    elif active:
        yield good("paths", f"one link is active ({interfaces[0]}): no failover is possible")
    elif facts.status["mode"] == "off":
        yield not_applicable("paths", "mode off")
    elif facts.tunnels:
        yield not_applicable(
            "paths", f"all traffic leaves by the full tunnel {', '.join(sorted(set(facts.tunnels.values())))}"
        )
    elif not facts.kernel.path_manager:
        yield bad("paths", "no address is a path: this kernel has no MPTCP", remedy=advice(NEWER))
    elif not facts.kernel.mptcp_enabled:
        yield bad("paths", "no address is a path: MPTCP is disabled (net.mptcp.enabled is 0)", remedy=TURN_ON)
    else:
        # A machine that is not connected is not an error.
        yield warning(
            "paths", "no address is a path", remedy=advice("'nm-mptcp status --all' shows the reason for each")
        )
    for path in facts.paths:
        if _is_degraded(path):
            words = _ADVICE.get(path["rule"], "it ends by itself with the reason").format_map(path)
            reason = f"{path['state']}: {printable(path['reason'], 200)}"
            yield warning("paths", reason, f"{path['interface']} {path['address']}", advice(words))


def verdict(facts: SystemFacts) -> Iterator[Finding]:
    """The overall state, as ``status`` shows it."""
    state = facts.status.get("state") if facts.status else None
    if not facts.status or state is None:
        yield unknown("status", f"no status: {facts.status_error}")
    elif state == Verdict.GOOD:
        yield good("status", "working")
    else:
        make = bad if state == Verdict.NOT_WORKING else warning
        for problem in facts.status["problems"]:
            yield make("status", printable(problem, 300), remedy=advice("see the checks below"))


def _is_degraded(path: PathStatus) -> bool:
    """Whether ``status`` counts it as degraded."""
    since = datetime.datetime.fromisoformat(path["since"]) if path["since"] else None
    waited = (datetime.datetime.now(datetime.UTC) - since).total_seconds() if since else None
    return degraded(path["state"], path["rule"], waited)


def endpoints(facts: SystemFacts) -> Iterator[Finding]:
    """Whether each endpoint can be used, and each path has one."""
    if facts.kernel_error:
        yield unknown("endpoint", facts.kernel_error)
        return
    if not facts.kernel.path_manager:
        yield not_applicable("endpoint", "this kernel has no MPTCP")
        return
    addresses = list(facts.addresses())
    if not addresses:
        yield not_applicable("endpoint", "there is no endpoint")
    for checked in addresses:
        if checked.endpoint is not None:
            yield _endpoint(facts, checked, checked.endpoint)
        else:
            yield bad("endpoint", "the path has no endpoint", checked.subject, _re_add(checked))


def _re_add(checked: CheckedAddress) -> Remedy:
    """What makes the owner of a path's endpoint add it."""
    path = checked.path
    # While another program's endpoint is there, only where the flags come from tells who would add it.
    if (
        path is not None
        and path["uuid"]
        and (
            path["owner"] == Owner.NETWORKMANAGER
            or (path["owner"] == Owner.OTHER and path["flags_from"] in (FlagsFrom.PROFILE, FlagsFrom.NETWORKMANAGER))
        )
    ):
        return commands(f"nmcli connection up uuid {path['uuid']}")
    return commands("nm-mptcp apply", safe=True)


def _is_managed(facts: SystemFacts, checked: CheckedAddress, endpoint: Endpoint) -> bool:
    """Whether an endpoint is nm-mptcp's or NetworkManager's: it may be kept for a live connection."""
    link = facts.kernel.links.get(endpoint.ifindex)
    return (
        checked.decided
        or endpoint.id in facts.own
        or (link is not None and any(path["interface"] == link.name and path["uuid"] for path in facts.paths))
    )


def _endpoint(facts: SystemFacts, checked: CheckedAddress, endpoint: Endpoint) -> Finding:
    """The first thing that is wrong with an endpoint: its address, its interface, its link, its flags."""
    managed = _is_managed(facts, checked, endpoint)
    if not checked.ifindex:
        return _address_missing(checked, endpoint, managed=managed)
    if endpoint.ifindex and endpoint.ifindex != checked.ifindex:
        bound = facts.kernel.links.get(endpoint.ifindex)
        where = bound.name if bound else f"interface {endpoint.ifindex}, which does not exist"
        evidence = f"endpoint {endpoint.id} is bound to {where}, but the address is on {checked.interface}"
        if checked.path is not None and checked.path["owner"] == Owner.OTHER:
            fix = commands(_delete(endpoint), *_re_add(checked).commands)
        else:
            fix = _re_add(checked) if managed else commands(_delete(endpoint), _add(checked, endpoint))
        return bad("endpoint", evidence, checked.subject, fix)
    address = next(each for each in facts.kernel.addresses[checked.ifindex] if each.address == checked.address)
    link = facts.kernel.links[checked.ifindex]
    if address.flags & (AddressFlag.DADFAILED | AddressFlag.TENTATIVE) and (
        found := _address_detection(checked, endpoint, address.flags, managed=managed)
    ):
        return found
    if not link.up or not link.carrier:
        evidence = f"{_described(endpoint)}: {link.name} {'has no carrier' if link.up else 'is down'}"
        fix = advice("connect the cable") if link.up else commands(f"ip link set {shlex.quote(link.name)} up")
        return warning("endpoint", evidence, checked.subject, fix)
    if not endpoint.flags & (EndpointFlag.SUBFLOW | EndpointFlag.SIGNAL):
        return _without_effect(checked, endpoint, managed=managed)
    return good("endpoint", _described(endpoint), checked.subject)


def _address_missing(checked: CheckedAddress, endpoint: Endpoint, *, managed: bool) -> Finding:
    evidence = f"endpoint {endpoint.id}: no interface has this address"
    if managed:
        words = "it is kept while a connection may depend on it, and is then deleted or used again"
        return warning("endpoint", evidence, checked.subject, advice(words))
    return bad("endpoint", evidence, checked.subject, commands(_delete(endpoint)))


def _address_detection(
    checked: CheckedAddress, endpoint: Endpoint, flags: AddressFlag, *, managed: bool
) -> Finding | None:
    """Duplicate address detection that failed, or has not ended; None for an optimistic address."""
    if AddressFlag.DADFAILED in flags:
        evidence = f"{_described(endpoint)}: another machine has this address (duplicate address detection failed)"
        return bad("endpoint", evidence, checked.subject, advice("give one of them another address"))
    if AddressFlag.OPTIMISTIC in flags:
        return None
    progress = "duplicate address detection is in progress, subflows from here fail and are not retried"
    evidence = f"{_described(endpoint)}: {progress}"
    if managed:
        return warning("endpoint", evidence, checked.subject, advice("wait a second or two"))
    words = "once 'ip address' no longer shows 'tentative'"
    return bad("endpoint", evidence, checked.subject, commands(_delete(endpoint), _add(checked, endpoint), words=words))


def _without_effect(checked: CheckedAddress, endpoint: Endpoint, *, managed: bool) -> Finding:
    evidence = f"{_described(endpoint)}: neither 'subflow' nor 'signal', so it has no effect"
    path = checked.path
    if path is not None and path["uuid"] and path["owner"] == Owner.NETWORKMANAGER:
        fix = commands(*_flags_of(path))
    elif managed:
        fix = advice("set by nm-mptcp.conf ('nm-mptcp config' shows where): add 'subflow' or 'signal' to 'flags' there")
    else:
        device, flags = shlex.quote(checked.interface), " ".join(names(endpoint.flags))
        add = f"ip mptcp endpoint add {endpoint.address} dev {device} {flags} subflow".replace("  ", " ")
        fix = commands(_delete(endpoint), add)
    return warning("endpoint", evidence, checked.subject, fix)


def _described(endpoint: Endpoint) -> str:
    return f"endpoint {endpoint.id}, {' '.join(names(endpoint.flags)) or 'no flags'}"


def _delete(endpoint: Endpoint) -> str:
    return f"ip mptcp endpoint delete id {endpoint.id}"


def _add(checked: CheckedAddress, endpoint: Endpoint) -> str:
    device, flags = shlex.quote(checked.interface), " ".join(names(endpoint.flags))
    return f"ip mptcp endpoint add {endpoint.address} dev {device} {flags}".rstrip()


def _flags_of(path: PathStatus) -> tuple[str, ...]:
    """Give a profile flags that have an effect."""
    kept = [name for name in path["flags"] if name not in ("subflow", "signal")]
    flags = ",".join(["enabled", "subflow", *kept])
    return (
        f"nmcli connection modify uuid {path['uuid']} connection.mptcp-flags {flags}",
        f"nmcli connection up uuid {path['uuid']}",
    )


def limits(facts: SystemFacts) -> Iterator[Finding]:
    """Whether the limits allow all paths at once."""
    if facts.kernel_error:
        yield unknown("limits", facts.kernel_error)
        return
    if not facts.kernel.path_manager:
        yield not_applicable("limits", "this kernel has no MPTCP")
        return
    addresses = [
        checked
        for checked in facts.addresses()
        if checked.endpoint is None or checked.endpoint.flags & EndpointFlag.SUBFLOW
    ]
    have = facts.kernel.limits
    current = f"{have.subflows} additional subflows, {have.add_addr_accepted} addresses accepted"
    # The first subflow needs none, and may be of either family.
    most = facts.status["kernel"]["endpoints_max"] if facts.status else facts.kernel.endpoints_max
    paths = len(addresses)
    needed = min(max(0, paths - 1), most)
    if not addresses:
        yield not_applicable("limits", f"{current}; there is no endpoint that opens subflows")
        return
    wanted = max(have.subflows, min(2 * paths, most)), max(have.add_addr_accepted, min(paths, most))
    fix = commands(
        f"ip mptcp limits set subflows {wanted[0]} add_addr_accepted {wanted[1]}", safe=not facts.keep_limits
    )
    if have.subflows < needed:
        make = bad if not have.subflows else warning
        yield make("limits", f"{current}: {paths} addresses need {needed} additional subflows", remedy=fix)
    elif not have.add_addr_accepted and not facts.tunnels:
        yield warning("limits", f"{current}: further addresses of servers are not used", remedy=fix)
    else:
        yield good("limits", f"{current}, for {paths} {'address' if paths == 1 else 'addresses'}")


def families(facts: SystemFacts) -> Iterator[Finding]:
    """Whether links with global addresses of both families are paths in both."""
    active = facts.active
    for interface in sorted({path["interface"] for path in active}):
        here = {Family.of(path["address"]) for path in active if path["interface"] == interface}
        for path in facts.paths:
            family = Family.of(path["address"])
            if path["interface"] == interface and family not in here and path["rule"] == "no-default-route":
                words = f"only {next(iter(here)).label} is a path here: {printable(path['reason'], 200)}"
                yield warning("families", words, f"{interface} {path['address']}", advice(_ADVICE["no-default-route"]))
