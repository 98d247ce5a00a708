# SPDX-License-Identifier: GPL-2.0-or-later
"""What has to hold when all is quiet, asked of the kernel and of NetworkManager, without the product's own code."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..networkmanager.bed import DEFAULT_FLAGS, PROTOCOL, SERVER, SERVER6, command
from ..networkmanager.kernel_view import Endpoint
from .laptop import HAND, PROFILES, Laptop

#: Seconds for which a link that has lost its carrier, or was silent, may still be held back.
HELD_BACK = 60.0

#: Of the service: file descriptors and threads, and how much its memory may grow from its first batches on (KiB).
DESCRIPTORS, THREADS, GROWTH = 64, 16, 8192

#: Endpoints that the kernel takes, and its table main.
SLOTS, MAIN = 8, "254"

#: What is said when something changed while it was looked at.
NOT_AT_REST = "the machine is not at rest"

#: Reasons that come from what the service saw before.
REMEMBERED = {
    "held-back",
    "silent",
    "seems-silent",
    "relieves-silent",
    "address-away",
    "waits-for-networkmanager",
    "refused",
}


@dataclass
class Facts:
    """The machine as ``ip`` and ``nmcli`` show it."""

    links: dict[str, dict[str, Any]]
    rules: dict[str, list[dict[str, Any]]]  #: by protocol, "4" or "6"
    routes: dict[str, list[dict[str, Any]]]
    endpoints: tuple[Endpoint, ...]
    limits: dict[str, int]

    @classmethod
    def read(cls, laptop: Laptop) -> Facts:
        """Read them now."""
        machine = laptop.bed.machine
        return cls(
            {link["ifname"]: link for link in machine.ip("address", "show")},
            {each: machine.ip(f"-{each}", "rule", "show") for each in "46"},
            {each: machine.ip(f"-{each}", "route", "show", "table", "all") for each in "46"},
            laptop.bed.endpoints(),
            laptop.bed.path_manager.limits(),
        )

    def addresses(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every address, with the name of its interface."""
        for name, link in self.links.items():
            for each in link.get("addr_info", ()):
                if "local" in each:
                    yield name, each

    def ours(self, protocol: str) -> list[dict[str, Any]]:
        """Our rules."""
        return [rule for rule in self.rules[protocol] if rule.get("protocol") == PROTOCOL]

    def foreign(self) -> list[Any]:
        """What belongs to others: all that is on their interface, or for its addresses."""
        rules = [
            rule
            for group in self.rules.values()
            for rule in group
            if rule.get("src", "").startswith(("10.77.", "2001:db8:77:"))
        ]
        # What leads around a lost link may lead there, as the kernel would without that link's routes.
        routes = [
            route
            for group in self.routes.values()
            for route in group
            if route.get("dev") == HAND and route.get("protocol") != PROTOCOL
        ]
        return [rules, routes, [each for each in self.endpoints if each.device == HAND]]


def protocol_of(address: str) -> str:
    """ "4" or "6"."""
    return "6" if ":" in address else "4"


class Promises:
    """What holds of a laptop; what does not is a line each."""

    def __init__(self, laptop: Laptop) -> None:
        self.laptop = laptop
        self.paths_seen = 0  #: how many addresses had to be paths, and were
        self._first_memory: dict[int, int] = {}

    def broken(self) -> list[str]:
        """What does not hold now."""
        before = Facts.read(self.laptop)
        status = self.laptop.bed.status().data
        facts = Facts.read(self.laptop)
        if (before.rules, before.routes, before.endpoints) != (facts.rules, facts.routes, facts.endpoints):
            return [NOT_AT_REST]
        before_paths = self.paths_seen
        broken = [
            *self._rules(facts),
            *self._routes(facts),
            *self._endpoints(facts),
            *self._paths(facts, status),
            *self._status(facts, status),
            *self._dry_run(status),
            *self._service(),
        ]
        if broken:
            self.paths_seen = before_paths
        return broken

    # --- what is ours

    def _rules(self, facts: Facts) -> Iterator[str]:
        there = {each["local"]: name for name, each in facts.addresses()}
        for protocol in "46":
            found: dict[str, list[str]] = {}
            for rule in facts.ours(protocol):
                what = str(rule.get("table", "unreachable"))
                suppressed = " suppressed" if "suppress_prefixlen" in rule else ""
                found.setdefault(rule["src"], []).append(what + suppressed)
            for source, kinds in found.items():
                if source not in there:
                    yield f"a rule for {source}, which no interface has"
                (table, *_) = kinds[0].split()
                if kinds != [f"{table} suppressed", f"{MAIN} suppressed", table, "unreachable"]:
                    yield f"the rules for {source} are {kinds}"
                by_it = [
                    route
                    for route in facts.routes[protocol]
                    if route.get("dev") == there.get(source) and str(route.get("table", MAIN)) in (MAIN, "100", table)
                ]
                # Of an interface that was set down and is not managed any more nobody adds the routes again.
                if by_it and not [route for route in by_it if str(route.get("table")) == table]:
                    yield f"the table of {source} is empty"

    def _routes(self, facts: Facts) -> Iterator[str]:
        for protocol in "46":
            used = {str(rule.get("table")) for rule in facts.ours(protocol)} | {MAIN}
            for route in facts.routes[protocol]:
                if route.get("protocol") == PROTOCOL and str(route.get("table", MAIN)) not in used:
                    yield f"a route of ours in a table without a rule: {route}"

    def _endpoints(self, facts: Facts) -> Iterator[str]:
        places = {(each["local"], name) for name, each in facts.addresses()}
        laptop = self.laptop
        present = {each.address for each in facts.endpoints}
        laptop.edited &= present
        laptop.strangers &= present
        # Where NetworkManager is killed, it leaves its endpoints behind.
        laptop.strangers |= {each.address for each in facts.endpoints if self.are_by_networkmanager(each.address)}
        for each in facts.endpoints:
            known = each.device == HAND or each.address in laptop.strangers | laptop.edited
            if not known and (each.address, each.device) not in places:
                yield f"an endpoint for what is gone: {each}"
        if len(facts.endpoints) > SLOTS:
            yield f"{len(facts.endpoints)} endpoints"

    def are_by_networkmanager(self, address: str) -> bool:
        """Whether NetworkManager itself makes this address's endpoints: its profile has flags, or had."""
        for link, profile in PROFILES.items():
            number = self.laptop.links[link].network.number
            if address.startswith((f"10.{number}.", f"2001:db8:{number}:")):
                flags = self._setting(profile, "connection.mptcp-flags")
                return profile in self.laptop.modified or flags not in ("0x0", "0x1")
        return False

    def _setting(self, profile: str, name: str) -> str:
        return self.laptop.bed.attempt_nmcli("-g", name, "connection", "show", profile).stdout.split(" ")[0].strip()

    # --- what is promised

    def _paths(self, facts: Facts, status: dict[str, Any]) -> Iterator[str]:
        laptop = self.laptop
        states = laptop.bed.nmcli("-t", "-f", "DEVICE,STATE,CONNECTION", "device")
        told = {line.split(":")[0]: line.split(":")[1:] for line in states.splitlines()}
        reasons = {(path["address"], path["interface"]): path["rule"] for path in status["paths"]}
        counted = Counter(each["local"] for _, each in facts.addresses())
        for name, each in facts.addresses():
            address = each["local"]
            state, profile = told.get(name, ["", ""])
            protocol = protocol_of(address)
            endpoints = [found for found in facts.endpoints if found.address == address]
            if name not in laptop.names.values() or each["scope"] not in ("global", "0") or counted[address] > 1:
                continue
            link = next(link for link, now in laptop.names.items() if now == name)
            settled = state == "connected" and profile in PROFILES.values() and not self._is_modified(profile)
            if not settled or address.endswith((".200", "::200")):
                continue
            flags = self._setting(profile, "connection.mptcp-flags")
            if flags == "0x1" and endpoints and address not in laptop.strangers | laptop.edited:
                yield f"{address} on {name} is disabled by its profile, and has an endpoint"
            if protocol == "4" and self._setting(profile, "ipv4.never-default") == "yes":
                continue  # whoever added a default route
            if flags != "0x0" or not self._carries(facts, name, each, protocol):
                continue
            if self._is_hindered(link, reasons.get((address, name), ""), protocol, facts):
                continue
            self.paths_seen += 1
            yield from self._path(facts, name, address, endpoints)

    def _is_modified(self, profile: str) -> bool:
        """Whether the profile was modified since its activation: what counts is then not what it says."""
        known = self.laptop.modified.get(profile)
        if known is not None and known != self.laptop.activation(profile):
            del self.laptop.modified[profile]
            known = None
        return known is not None

    def _carries(self, facts: Facts, name: str, address: dict[str, Any], protocol: str) -> bool:
        """Whether the kernel has what makes it a path."""
        flags = set(facts.links[name]["flags"])
        default = [
            route
            for route in facts.routes[protocol]
            if (route["dst"], route.get("dev")) == ("default", name)
            and str(route.get("table", MAIN)) == MAIN
            and route.get("protocol") != PROTOCOL
        ]
        bad = ("tentative", "temporary", "deprecated", "dadfailed")
        return bool({"UP", "LOWER_UP"} <= flags and default and not any(map(address.get, bad)))

    def _is_hindered(self, link: str, reason: str, protocol: str, facts: Facts) -> bool:
        """Whether something else counts more than the promise."""
        laptop, now = self.laptop, time.monotonic()
        lost = [when for when in laptop.losses.get(link, ()) if now - when < HELD_BACK]
        was_silent = link in laptop.silent or now - laptop.silenced.get(link, 0) < HELD_BACK
        return bool(
            (reason == "held-back" and len(lost) > 1)
            or (reason in ("silent", "held-back") and was_silent)
            or laptop.mode == "off"
            or (laptop.tunnel_routes in ("halves", "full") and protocol == "4")
            or laptop.bed.machine.read_sysctl("net.mptcp.enabled") == "0"
            or len(facts.endpoints) >= SLOTS
        )

    def _path(self, facts: Facts, name: str, address: str, endpoints: list[Endpoint]) -> Iterator[str]:
        laptop = self.laptop
        if address in laptop.strangers and endpoints and endpoints[0].device not in facts.links:
            return  # the kernel takes one endpoint for an address, and others' are left unchanged, wherever they are
        if [each.device for each in endpoints] != [name]:
            yield f"{address} on {name} has no endpoint of its own: {endpoints}"
            return
        known = laptop.strangers | laptop.edited
        chosen = laptop.mode != "auto" or laptop.configuration != "none"
        if address not in known and not chosen and endpoints[0].flags - {"backup"} != DEFAULT_FLAGS:
            yield f"{address} on {name} has the flags {set(endpoints[0].flags)}"
        server = SERVER6 if ":" in address else SERVER
        (way,) = laptop.bed.machine.ip("route", "get", server, "from", address)
        if way.get("dev") != name:
            yield f"packets from {address} on {name} leave by {way.get('dev')}"
        if address not in {rule.get("src") for rule in facts.ours(protocol_of(address))}:
            yield f"{address} on {name} has no rules"

    # --- what the product says

    def _status(self, facts: Facts, status: dict[str, Any]) -> Iterator[str]:
        present = {(each.address, each.device): each for each in facts.endpoints}
        for path in status["paths"]:
            found = present.get((path["address"], path["interface"]))
            if path["state"] == "active" and path["endpoint_id"] is not None and found is None:
                yield f"status calls {path['address']} active, and there is no endpoint"
            elsewhere = [
                each for each in facts.endpoints if each.address == path["address"] and "signal" not in each.flags
            ]
            told = path["trouble_rule"] == "endpoint-elsewhere"
            if path["state"] == "active" and elsewhere and not found and elsewhere[0].device and not told:
                yield f"status says nothing of {path['address']}, and its endpoint is {elsewhere[0]}"
            if found and path["endpoint_id"] not in (None, found.id):
                yield f"status names another endpoint than {found}"

    def _dry_run(self, status: dict[str, Any]) -> Iterator[str]:
        # A command does not know what the service has seen before, nor its last valid configuration.
        if (
            self.laptop.record_lost
            or self.laptop.configuration == "bad"
            or {path["rule"] for path in status["paths"]} & REMEMBERED
        ):
            return
        if said := self.laptop.bed.nm_mptcp("apply", "--dry-run"):
            yield f"there is something to do: {said}"

    def _service(self) -> Iterator[str]:
        service = self.laptop.bed.service
        assert service
        if not service.running:
            yield "the service has ended"
            return
        commands = self.laptop.bed.directory / "commands.log"
        for log in (service.log(), commands.read_text(errors="replace") if commands.exists() else ""):
            found = re.search(r"^Traceback.*|.*\bnever (awaited|retrieved)\b.*", log, re.MULTILINE)
            if found:
                yield f"in the log: {log[found.start() :][:2000]}"
        status = Path(f"/proc/{service.pid}/status").read_text()
        numbers = {key: int(value.split()[0]) for key, value in re.findall(r"^(Threads|VmRSS):\s*(.*)$", status, re.M)}
        descriptors = len(list(Path(f"/proc/{service.pid}/fd").iterdir()))
        if descriptors > DESCRIPTORS or numbers["Threads"] > THREADS:
            yield f"the service has {descriptors} descriptors and {numbers['Threads']} threads"
        first = self._first_memory.setdefault(service.pid, numbers["VmRSS"])
        if numbers["VmRSS"] - first > GROWTH:
            yield f"the service grew from {first} to {numbers['VmRSS']} KiB"


def after_clear(promises: Promises, foreign: list[Any]) -> list[str]:
    """What ``clear --force`` does not do: leave nothing of ours, and all of others, behind."""
    laptop = promises.laptop
    done = laptop.bed.machine.attempt(*command(), "clear", "--force")
    broken = [f"clear: {done.stderr}"] if done.returncode else []
    facts = Facts.read(laptop)
    left = [rule for protocol in "46" for rule in facts.ours(protocol)]
    left += [route for group in facts.routes.values() for route in group if route.get("protocol") == PROTOCOL]
    left += [
        each
        for each in facts.endpoints
        if each.device != HAND
        and each.address not in laptop.strangers | laptop.edited
        and not promises.are_by_networkmanager(each.address)  # withdrawn below a tunnel, and put back
    ]
    broken += [f"clear left {each}" for each in left]
    if facts.foreign() != foreign:
        broken.append("clear changed what belongs to others")
    for name, value in facts.limits.items():
        if value not in laptop.limits[name]:
            broken.append(f"clear left {name} at {value}, and it was {laptop.limits[name]}")
    return broken
