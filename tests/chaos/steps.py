# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to the laptop: each step is a word and its arguments, so that a sequence can be written down and told again.

A step never fails for the state that it finds: what cannot be done then, is not done.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..networkmanager.bed import SYNC
from ..networkmanager.tunnel import Tunnel
from .laptop import HAND, PROFILES, RECORD, WRITABLE, Laptop

LINKS = tuple(PROFILES)
PROTOCOLS = ("4", "6")


@dataclass(frozen=True)
class Step:
    """``carrier wlan0 down``."""

    name: str
    words: tuple[str, ...] = ()

    @classmethod
    def read(cls, line: str) -> Step:
        """The step of this line; ValueError for one that is none."""
        name, *words = line.split()
        known = _STEPS.get(name)
        if known is None or len(words) != len(known.choices):
            raise ValueError(f"{line!r} is no step")
        for word, choices in zip(words, known.choices, strict=True):
            if word not in choices:
                raise ValueError(f"{line!r} is no step: {word} is none of {', '.join(choices)}")
        return cls(name, tuple(words))

    def __str__(self) -> str:
        return " ".join((self.name, *self.words))

    def happen(self, laptop: Laptop) -> None:
        """Let it happen."""
        _STEPS[self.name].act(laptop, *self.words)


@dataclass(frozen=True)
class _Kind:
    act: Callable[..., None]
    choices: tuple[tuple[str, ...], ...]
    weight: int


_STEPS: dict[str, _Kind] = {}


def drawn(chance: random.Random) -> Step:
    """Any step."""
    (name,) = chance.choices(list(_STEPS), [kind.weight for kind in _STEPS.values()])
    return Step(name, tuple(chance.choice(words) for words in _STEPS[name].choices))


def _step(*choices: Sequence[str], weight: int = 1) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(act: Callable[..., None]) -> Callable[..., None]:
        _STEPS[act.__name__.removesuffix("_")] = _Kind(act, tuple(map(tuple, choices)), weight)
        return act

    return register


# --- links


@_step(LINKS, ("up", "down"), weight=4)
def carrier(laptop: Laptop, link: str, state: str) -> None:
    """The cable, at its far end."""
    if state == "down":
        laptop.lose(link)
    laptop.bed.far.attempt("ip", "link", "set", laptop.links[link].far_name, state)


@_step(LINKS, ("up", "down"))
def link(laptop: Laptop, link: str, state: str) -> None:
    """``ip link set``."""
    if state == "down":
        laptop.lose(link)
    laptop.attempt(f"ip link set {laptop.names[link]} {state}")


@_step(LINKS, weight=2)
def replug(laptop: Laptop, link: str) -> None:
    """The interface is pulled out, and comes back with another index."""
    laptop.bed.far.attempt("ip", "link", "del", laptop.links[link].far_name)
    laptop.names[link] = link
    laptop.losses.pop(link, None)
    laptop.links[link].create()


@_step(LINKS)
def unplug(laptop: Laptop, link: str) -> None:
    """The interface is pulled out."""
    laptop.bed.far.attempt("ip", "link", "del", laptop.links[link].far_name)


@_step(LINKS, weight=3)
def plug(laptop: Laptop, link: str) -> None:
    """And in, unless it is."""
    if laptop.bed.far.attempt("ip", "link", "show", laptop.links[link].far_name).returncode:
        laptop.names[link] = link
        laptop.losses.pop(link, None)
        laptop.links[link].create()


@_step(LINKS)
def rename(laptop: Laptop, link: str) -> None:
    """To another name, or back to its first."""
    before = laptop.names[link]
    after = f"x{link}" if before == link else link
    said = laptop.attempt(f"ip link set {before} down && ip link set {before} name {after} && echo done")
    if "done" in said:
        laptop.names[link] = after
    laptop.lose(link)
    laptop.attempt(f"ip link set {laptop.names[link]} up")


@_step(LINKS, ("begins", "ends", "ends"), weight=2)
def silence(laptop: Laptop, link: str, what: str) -> None:
    """Packets vanish beyond the gateway."""
    if what == "begins" and link not in laptop.silent:
        laptop.links[link].network.silence()
        laptop.silent.add(link)
    elif what == "ends" and link in laptop.silent:
        with contextlib.suppress(AssertionError):  # its interface is not plugged in
            laptop.links[link].network.speak()
        laptop.silent.remove(link)
        laptop.silenced[link] = time.monotonic()


# --- addresses and routes by hand


@_step(LINKS, ("add", "del"), PROTOCOLS)
def address(laptop: Laptop, link: str, what: str, protocol: str) -> None:
    """One that NetworkManager knows nothing of."""
    number = laptop.links[link].network.number
    value = f"10.{number}.0.200/24" if protocol == "4" else f"2001:db8:{number}::200/64 nodad"
    laptop.attempt(f"ip address {what} {value} dev {laptop.names[link]}")


@_step(LINKS)
def lose_address(laptop: Laptop, link: str) -> None:
    """The one that NetworkManager configured."""
    laptop.attempt(f"ip -4 address flush dev {laptop.names[link]} scope global")


@_step(LINKS, PROTOCOLS)
def lose_default(laptop: Laptop, link: str, protocol: str) -> None:
    """The default route."""
    laptop.attempt(f"ip -{protocol} route del default dev {laptop.names[link]}")


@_step(LINKS, ("50", "150", "900"))
def second_default(laptop: Laptop, link: str, metric: str) -> None:
    """Another default route, by hand."""
    gateway = laptop.links[link].network.gateway
    laptop.attempt(f"ip route add default via {gateway} dev {laptop.names[link]} metric {metric}")


@_step(("0", "1", "2", "3"), ("add", "del"))
def foreign(laptop: Laptop, number: str, what: str) -> None:
    """Rules, routes and endpoints of others, also with our priority and in our tables."""
    laptop.attempt(f"""
        ip address {what} 10.77.{number}.2/24 dev {HAND}
        ip rule {what} from 10.77.{number}.2 lookup 4077 priority 3276{number}
        ip route {what} 198.51.10{number}.0/24 dev {HAND}
        ip route {what} 198.51.10{number}.0/24 dev {HAND} table 4200{number} proto 7{number}
    """)
    if what == "add":
        laptop.attempt(f"ip mptcp endpoint add 10.77.{number}.2 dev {HAND} signal")
    else:
        for each in laptop.bed.endpoints():
            if each.address == f"10.77.{number}.2":
                laptop.attempt(f"ip mptcp endpoint delete id {each.id}")


# --- what is ours, changed by others


@_step(("one", "all"), PROTOCOLS, weight=2)
def delete_rules(laptop: Laptop, how_many: str, protocol: str) -> None:
    """Of ours."""
    if how_many == "all":
        laptop.attempt(f"ip -{protocol} rule flush protocol 77")
        return
    found = [rule for rule in laptop.bed.machine.ip(f"-{protocol}", "rule", "show") if rule.get("protocol") == "77"]
    if found:
        rule = found[len(found) // 2]
        where = f"lookup {rule['table']}" if "table" in rule else "unreachable"
        laptop.attempt(f"ip -{protocol} rule del from {rule['src']} {where} priority {rule['priority']}")


@_step(("one", "all"), PROTOCOLS, weight=2)
def delete_routes(laptop: Laptop, how_many: str, protocol: str) -> None:
    """Of ours: a default, or all."""
    command = "ip -{0} route flush table all protocol 77"
    if how_many == "one":
        command = "ip -{0} route show table all protocol 77 | grep ^default | head -n 1 | xargs -r ip -{0} route del"
    laptop.attempt(command.format(protocol))


@_step(("delete", "backup", "nobackup"), weight=2)
def endpoint(laptop: Laptop, what: str) -> None:
    """The first of ours or NetworkManager's, by ``ip mptcp``."""
    for each in laptop.bed.endpoints():
        if each.device == HAND:
            continue
        if what == "delete":
            laptop.attempt(f"ip mptcp endpoint delete id {each.id}")
        else:
            laptop.edited.add(each.address)
            laptop.attempt(f"ip mptcp endpoint change id {each.id} {what}")
        return


@_step(("subflows", "add_addr_accepted"), ("0", "1", "7"))
def limits(laptop: Laptop, name: str, value: str) -> None:
    """The kernel's limits: the other one is written as it is now."""
    now = laptop.bed.path_manager.limits()
    if now[name] != int(value):
        # The VPN guard may write the same value at that moment, which then counts as its own.
        before = laptop.limits[name] if laptop.tunnel else set()
        laptop.limits[name] = {int(value)} | before
    words = " ".join(f"{each} {value if each == name else now[each]}" for each in now)
    laptop.attempt(f"ip mptcp limits set {words}")


# --- NetworkManager's profiles


@_step(LINKS, weight=4)
def up(laptop: Laptop, link: str) -> None:
    """``nmcli connection up``."""
    laptop.nmcli("connection", "up", PROFILES[link])


@_step(LINKS, weight=5)
def mend(laptop: Laptop, link: str) -> None:
    """All of a link as it was at first, and MPTCP on."""
    mptcp(laptop, "1")
    if laptop.names[link] != link:
        rename(laptop, link)
    plug(laptop, link)
    carrier(laptop, link, "up")
    silence(laptop, link, "ends")
    laptop.note_modified(PROFILES[link])
    words = [word for name, values in SETTINGS.items() for word in (name, values[0])]
    laptop.nmcli("connection", "modify", PROFILES[link], *words)
    laptop.nmcli("device", "set", link, "managed", "yes")
    up(laptop, link)


@_step(LINKS, weight=2)
def down(laptop: Laptop, link: str) -> None:
    """``nmcli connection down``."""
    laptop.nmcli("connection", "down", PROFILES[link])


@_step(LINKS)
def reapply(laptop: Laptop, link: str) -> None:
    """``nmcli device reapply``."""
    laptop.nmcli("device", "reapply", laptop.names[link])


MPTCP_FLAGS = ("0x0", "0x0", "0x1", "0x22", "0x62", "0xa2", "0x12")
SETTINGS = {
    "connection.mptcp-flags": MPTCP_FLAGS,
    "connection.metered": ("unknown", "yes", "no"),
    "ipv4.route-metric": ("600", "50", "700"),
    "ipv4.never-default": ("no", "no", "yes"),
    "ipv4.routes": ("", "203.0.113.128/25"),
    "ipv4.route-table": ("0", "0", "100"),
    "ipv6.method": ("auto", "disabled"),
    "connection.autoconnect": ("yes", "yes", "no"),
}
VALUES = tuple(f"{name}={value}" for name, values in SETTINGS.items() for value in values)


@_step(LINKS, VALUES, weight=4)
def modify(laptop: Laptop, link: str, setting: str) -> None:
    """``nmcli connection modify``."""
    profile = PROFILES[link]
    name, _, value = setting.partition("=")
    if name in ("connection.mptcp-flags", "ipv4.never-default"):
        laptop.note_modified(profile)
    laptop.nmcli("connection", "modify", profile, name, value)


@_step(LINKS, ("yes", "no"))
def managed(laptop: Laptop, link: str, value: str) -> None:
    """``nmcli device set``."""
    laptop.nmcli("device", "set", laptop.names[link], "managed", value)


# --- programs


@_step(("service", "networkmanager", "bus"), ("SIGSTOP", "SIGCONT", "SIGTERM", "SIGKILL"), weight=2)
def signal_(laptop: Laptop, program: str, number: str) -> None:
    """To the service, NetworkManager or the bus."""
    bed = laptop.bed
    found = {"service": bed.service and bed.service.program, "networkmanager": bed.networkmanager, "bus": bed.bus}[
        program
    ]
    if found is None or not found.running:
        return
    if number == "SIGCONT":
        found.go_on()
        return
    found.send(signal.Signals[number])
    laptop.ended |= program == "service" and number != "SIGSTOP"
    if number in ("SIGTERM", "SIGKILL"):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            found.go_on()
        found.wait(20)


@_step(("service", "networkmanager", "bus"), weight=3)
def start(laptop: Laptop, program: str) -> None:
    """Unless it runs."""
    bed = laptop.bed
    if program == "service" and bed.bus.running:
        laptop.start_service()
    elif program == "bus":
        laptop.start_bus()
    elif program == "networkmanager" and not bed.networkmanager.running and bed.bus.running:
        bed.networkmanager = bed.machine.spawn("NetworkManager", "-d")


@_step(("apply", "clear", "clear,--force", "check"))
def command(laptop: Laptop, words: str) -> None:
    """``nm-mptcp ...``, at the same time as what comes next."""
    laptop.cleared |= "clear" in words
    laptop.start_command(*words.split(","))


@_step(("auto", "auto", "auto", "handover", "interactive", "aggregate", "off"))
def mode(laptop: Laptop, value: str) -> None:
    """``nm-mptcp mode``."""
    if laptop.run("nm-mptcp", "mode", value) is not None:
        laptop.mode = value


@_step(("garbage", "truncated", "removed"))
def record(laptop: Laptop, what: str) -> None:
    """The service's record is damaged; a running service has it in its memory."""
    place = f"{RECORD}/state.json"
    laptop.attempt(
        {"garbage": f"echo rubbish >{place}", "truncated": f"truncate -s 100 {place}", "removed": f"rm -f {place}"}[
            what
        ]
    )
    laptop.record_lost = True


@_step(("full", "read-only", "writable"))
def run(laptop: Laptop, state: str) -> None:
    """The file system of the record."""
    laptop.attempt(
        {
            "full": "mount -o remount,size=1M /run; head -c 2M /dev/zero >/run/filler",
            # Of the whole file system the kernel refuses it while a file is open for writing, as the record's lock is.
            "read-only": f"mount --bind {RECORD} {RECORD}; mount -o remount,bind,ro {RECORD}",
            "writable": WRITABLE,
        }[state]
    )


@_step(("0", "1", "1", "1"))
def mptcp(laptop: Laptop, value: str) -> None:
    """``net.mptcp.enabled``."""
    laptop.bed.machine.sysctl(**{"net.mptcp.enabled": value})


CONFIGURATIONS = {
    "none": "",
    "backup": "[path-a]\nmatch-device=wwan0\nflags=backup\n",
    "tables": "[routing]\ntables=43000-43020\n",
    "handover": "[main]\nmode=handover\n",
    "bad": "[main]\nmode=fastest\nrubbish\n",
}


@_step(("none", "none", *CONFIGURATIONS))
def configure(laptop: Laptop, what: str) -> None:
    """The configuration, read again."""
    laptop.configuration = what
    try:
        laptop.bed.write("/etc/nm-mptcp/conf.d/chaos.conf", CONFIGURATIONS[what])
    except OSError:  # the file system is full, and the file empty
        laptop.configuration = "none"
    laptop.start_command("config", "--reload")


# --- tunnels and traffic

TUNNELS = {
    "none": (),
    "split": ("198.18.0.0/15",),
    "halves": ("0.0.0.0/1", "128.0.0.0/1"),
    "full": ("default metric 10",),
}


@_step(("none", "none", *TUNNELS))
def tunnel(laptop: Laptop, what: str) -> None:
    """A tunnel of a program that NetworkManager does not know."""
    if laptop.tunnel:
        laptop.tunnel.close()
        laptop.tunnel = None
    laptop.tunnel_routes = what
    if what != "none":
        laptop.tunnel = Tunnel(laptop.bed, "10.8.0.2/24")
        for route in TUNNELS[what]:
            laptop.attempt(f"ip route add {route} dev tun0")


@_step(weight=3)
def connect(laptop: Laptop) -> None:
    """One more MPTCP connection."""
    if len(laptop.connections) < 4:
        laptop.connect()


@_step(weight=3)
def wait(_: Laptop) -> None:
    """Some time goes by, without which what happens at once would never be seen one by one."""
    time.sleep(0.3)


@_step(weight=2)
def sync(laptop: Laptop) -> None:
    """The dispatcher scripts' question."""
    laptop.run(*SYNC)
