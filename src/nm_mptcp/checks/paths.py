# SPDX-License-Identifier: GPL-2.0-or-later
"""Endpoints, each of them, and paths that are held back or missing."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterator

from ..model.flags import EndpointFlag, names
from ..model.state import AddressFlag, Family
from ..report.documents import PathStatus
from ..report.health import Verdict, degraded
from ..text import printable
from .facts import Facts, Place
from .finding import Finding, Remedy, advice, bad, commands, good, not_applicable, unknown, warning
from .system import NEWER, TURN_ON

#: Reasons why an address is no path that somebody may wonder about -> what to do; by the names of the rules.
_HELD = {
    "no-carrier": "plug the cable in, or see to the radio link: it comes back by itself",
    "link-down": "ip link set {interface} up",
    "tentative": "wait a second; if it stays so, another machine answers for this address",
    "no-default-route": "give the profile a gateway, or mptcp-flags also-without-default-route",
    "refused": "see the kernel's words above",
    "no-slot": "the kernel takes no more endpoints; 'slot-priority' in nm-mptcp.conf chooses",
}


def paths(facts: Facts) -> Iterator[Finding]:
    """How many paths there are, and which are held back."""
    if not facts.status:
        yield unknown("paths", f"nothing is known of paths: {facts.status_error}")
        return
    active = facts.active
    interfaces = sorted({path["interface"] for path in active})
    if len(interfaces) > 1:
        yield good("paths", f"{len(active)} addresses on {', '.join(interfaces)} are paths")
    elif active:
        yield good("paths", f"one link carries ({interfaces[0]}): there is nothing to fail over to")
    elif facts.status["mode"] == "off":
        yield not_applicable("paths", "the mode is off: no link is made a path")
    elif facts.tunnels:
        yield not_applicable("paths", f"all leaves by the full tunnel {', '.join(sorted(set(facts.tunnels.values())))}")
    elif not facts.kernel.path_manager:
        yield bad("paths", "no address is a path: this kernel has no MPTCP", remedy=advice(NEWER))
    elif not facts.kernel.mptcp_enabled:
        yield bad("paths", "no address is a path: MPTCP is off (net.mptcp.enabled is 0)", remedy=TURN_ON)
    else:
        # Nothing is wrong with a machine that nobody connected.
        yield warning(
            "paths", "no address is a path", remedy=advice("'nm-mptcp status --all' tells of each why it is none")
        )
    for path in facts.paths:
        if _is_degraded(path):
            words = _HELD.get(path["rule"], "nm-mptcp ends it by itself when the reason is gone").format_map(path)
            reason = f"{path['state']}: {printable(path['reason'], 200)}"
            yield warning("paths", reason, f"{path['interface']} {path['address']}", advice(words))


def verdict(facts: Facts) -> Iterator[Finding]:
    """The same that ``status`` says, so that one never calls good what the other does not."""
    if not facts.status:
        yield unknown("status", f"nothing is known of paths: {facts.status_error}")
    elif facts.status["state"] == Verdict.GOOD:
        yield good("status", "nothing is held back")
    else:
        make = bad if facts.status["state"] == Verdict.NOT_WORKING else warning
        for problem in facts.status["problems"]:
            yield make("status", printable(problem, 300), remedy=advice("see what is said of it below"))


def _is_degraded(path: PathStatus) -> bool:
    """As ``status`` counts it; what waits for somebody, or a moment only, is ordinary."""
    since = datetime.datetime.fromisoformat(path["since"]) if path["since"] else None
    waited = (datetime.datetime.now(datetime.UTC) - since).total_seconds() if since else None
    return degraded(path["state"], path["rule"], waited)


def endpoints(facts: Facts) -> Iterator[Finding]:
    """Whether each endpoint can do its work, and each path has one."""
    if facts.kernel_error:
        yield unknown("endpoint", facts.kernel_error)
        return
    if not facts.kernel.path_manager:
        yield not_applicable("endpoint", "this kernel has no MPTCP")
        return
    places = list(facts.places())
    if not places:
        yield not_applicable("endpoint", "there is no endpoint")
    for place in places:
        subject = f"{place.interface} {place.address}".strip()
        if place.endpoint is not None:
            yield from _endpoint(facts, place, subject)
        else:
            yield bad("endpoint", "the path has no endpoint", subject, _made_again(place))


def _made_again(place: Place) -> Remedy:
    """What makes a path's endpoint: who owns it makes it."""
    path = place.path
    if path is not None and path["owner"] == "networkmanager" and path["uuid"]:
        return commands(f"nmcli connection up uuid {path['uuid']}")
    return commands("nm-mptcp apply", safe=True)


def _is_somebodys(facts: Facts, place: Place) -> bool:
    """Whether an endpoint is nm-mptcp's or NetworkManager's, who may have their reasons: a live connection may stand on it."""
    assert place.endpoint is not None
    link = facts.kernel.links.get(place.endpoint.ifindex)
    return (
        place.decided
        or place.endpoint.id in facts.own
        or (link is not None and any(path["interface"] == link.name and path["uuid"] for path in facts.paths))
    )


def _endpoint(facts: Facts, place: Place, subject: str) -> Iterator[Finding]:
    endpoint = place.endpoint
    assert endpoint is not None
    links = facts.kernel.links
    delete = f"ip mptcp endpoint delete id {endpoint.id}"
    words = " ".join(names(endpoint.flags))
    told = f"endpoint {endpoint.id}, {words or 'no flags'}"
    bound = links.get(endpoint.ifindex)
    theirs = _is_somebodys(facts, place)
    interface = shlex.quote(place.interface)
    if not place.ifindex:
        evidence = f"endpoint {endpoint.id}: no interface has this address"
        if theirs:
            words = "it is kept while a connection may stand on it, and goes or is used again by itself"
            yield warning("endpoint", evidence, subject, advice(words))
        else:
            yield bad("endpoint", evidence, subject, commands(delete))
        return
    if endpoint.ifindex and endpoint.ifindex != place.ifindex:
        add = f"ip mptcp endpoint add {endpoint.address} dev {interface} {words}".rstrip()
        wrong = bound.name if bound else f"interface {endpoint.ifindex}, which is gone"
        evidence = f"endpoint {endpoint.id} is bound to {wrong}, but the address is on {place.interface}"
        yield bad("endpoint", evidence, subject, _made_again(place) if theirs else commands(delete, add))
        return
    address = next(each for each in facts.kernel.addresses[place.ifindex] if each.address == place.address)
    link = links[place.ifindex]
    if AddressFlag.DADFAILED in address.flags:
        evidence = f"{told}: another machine has this address (duplicate address detection failed)"
        yield bad("endpoint", evidence, subject, advice("give one of them another address"))
    elif AddressFlag.TENTATIVE in address.flags and AddressFlag.OPTIMISTIC not in address.flags:
        evidence = f"{told}: duplicate address detection is not done, subflows from here fail and are not tried again"
        if theirs:
            yield warning(
                "endpoint", evidence, subject, advice("it takes a second or two, and then is right by itself")
            )
        else:
            add = f"ip mptcp endpoint add {endpoint.address} dev {interface} {words}".rstrip()
            lines = (delete, add)
            yield bad(
                "endpoint", evidence, subject, commands(*lines, words="once 'ip address' says no more 'tentative'")
            )
    elif not link.up or not link.carrier:
        evidence = f"{told}: {link.name} {'has no carrier' if link.up else 'is down'}"
        fix = advice("plug it in") if link.up else commands(f"ip link set {shlex.quote(link.name)} up")
        yield warning("endpoint", evidence, subject, fix)
    elif not endpoint.flags & (EndpointFlag.SUBFLOW | EndpointFlag.SIGNAL):
        evidence = f"{told}: neither 'subflow' nor 'signal', so it does nothing"
        if place.path is not None and place.path["uuid"] and place.path["owner"] == "networkmanager":
            yield warning("endpoint", evidence, subject, commands(*_flags_of(place)))
        elif theirs:
            where = "nm-mptcp.conf says so ('nm-mptcp config' tells where): give 'flags' there one that does something"
            yield warning("endpoint", evidence, subject, advice(where))
        else:
            add = f"ip mptcp endpoint add {endpoint.address} dev {interface} {words} subflow".replace("  ", " ")
            yield warning("endpoint", evidence, subject, commands(delete, add))
    else:
        yield good("endpoint", told, subject)


def _flags_of(place: Place) -> tuple[str, ...]:
    """Give a profile flags that do something."""
    assert place.path is not None
    kept = [name for name in place.path["flags"] if name not in ("subflow", "signal")]
    uuid = place.path["uuid"]
    flags = ",".join(["enabled", "subflow", *kept])
    return (
        f"nmcli connection modify uuid {uuid} connection.mptcp-flags {flags}",
        f"nmcli connection up uuid {uuid}",
    )


def limits(facts: Facts) -> Iterator[Finding]:
    """Whether the limits let all paths be used at once."""
    if facts.kernel_error:
        yield unknown("limits", facts.kernel_error)
        return
    if not facts.kernel.path_manager:
        yield not_applicable("limits", "this kernel has no MPTCP")
        return
    places = [
        place for place in facts.places() if place.endpoint is None or place.endpoint.flags & EndpointFlag.SUBFLOW
    ]
    have = facts.kernel.limits
    told = f"{have.subflows} additional subflows, {have.add_addr_accepted} addresses accepted"
    # A connection begins on one of them, of whichever family.
    most = facts.status["kernel"]["endpoints_max"] if facts.status else facts.kernel.endpoints_max
    paths = len(places)
    needed = min(max(0, paths - 1), most)
    if not places:
        yield not_applicable("limits", f"{told}; there is no endpoint that opens subflows")
        return
    wanted = max(have.subflows, min(2 * paths, most)), max(have.add_addr_accepted, min(paths, most))
    fix = commands(
        f"ip mptcp limits set subflows {wanted[0]} add_addr_accepted {wanted[1]}", safe=not facts.keep_limits
    )
    if have.subflows < needed:
        make = bad if not have.subflows else warning
        yield make("limits", f"{told}: {paths} addresses need {needed} additional subflows", remedy=fix)
    elif not have.add_addr_accepted:
        yield warning("limits", f"{told}: what servers offer by other addresses is not used", remedy=fix)
    else:
        yield good("limits", f"{told}, for {paths} {'address' if paths == 1 else 'addresses'}")


def families(facts: Facts) -> Iterator[Finding]:
    """Whether links that are paths in one family are so in the other, where they have global addresses in both."""
    active = facts.active
    for interface in sorted({path["interface"] for path in active}):
        here = {Family.of(path["address"]) for path in active if path["interface"] == interface}
        for path in facts.paths:
            family = Family.of(path["address"])
            if path["interface"] == interface and family not in here and path["rule"] == "no-default-route":
                words = f"only {next(iter(here)).label} is a path here: {printable(path['reason'], 200)}"
                yield warning("families", words, f"{interface} {path['address']}", advice(_HELD["no-default-route"]))
