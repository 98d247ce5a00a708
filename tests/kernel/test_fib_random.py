# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever is done to links, addresses, routes and rules: the FIB equals a dump, or a resync is due."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import pytest

from nm_mptcp.kernel import sysctl
from nm_mptcp.kernel.rtnetlink import Rtnetlink
from nm_mptcp.kernel.rtnl_events import full_dump
from tests.support.network import ip, veth
from tests.support.waits import wait_for

from .subject import Subject

LINKS = ("va", "vb", "vc")
STEPS = 250


def attempt(command: str) -> None:
    """Run it; it may fail."""
    with contextlib.suppress(AssertionError):
        ip(command)


class Actions:
    """Random changes of links, addresses, routes and rules."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.names = dict.fromkeys(LINKS)
        self.history: list[str] = []

    def run(self, command: str) -> None:
        self.history.append(command)
        attempt(command)

    @property
    def link(self) -> str:
        return self.dice.choice(LINKS)

    @property
    def number(self) -> int:
        return self.dice.randint(1, 4)

    def address(self, family: int) -> str:
        if family == 4:
            return f"10.{self.number}.0.{self.number}"
        return f"2001:db8:{self.number}::{self.number}"

    def present(self, family: int) -> str:
        """An existing address, in most cases."""
        with Rtnetlink() as rtnetlink:
            existing = [each.address for each in rtnetlink.addresses() if (":" in each.address) == (family == 6)]
        return self.dice.choice([*existing, self.address(family)])

    def step(self) -> None:
        actions: list[tuple[int, Callable[[], None]]] = [
            (12, self.change_address),
            (30, self.change_route),
            (10, self.multipath),
            (8, self.siblings),
            (6, self.up_down),
            (5, self.carrier),
            (8, self.change_rule),
            (2, self.rename),
            (4, self.remake),
            (2, self.disable_ipv6),
            (2, self.burst),
            (1, self.mtu),
        ]
        weights, functions = zip(*actions, strict=True)
        self.dice.choices(functions, weights)[0]()

    def change_address(self) -> None:
        family = self.dice.choice((4, 6))
        verb = self.dice.choice(("add", "add", "del", "replace"))
        length = self.dice.choice((24, 32) if family == 4 else (64, 128))
        extra = self.dice.choice(("", "", " valid_lft 1000 preferred_lft 500")) if verb != "del" else ""
        if self.dice.random() < 0.1:
            self.run(f"addr flush dev {self.link}")
        elif self.dice.random() < 0.1 and family == 4:
            self.run(f"addr {verb} {self.address(4)} peer 10.9.9.{self.number} dev {self.link}{extra}")
        else:
            self.run(f"addr {verb} {self.address(family)}/{length} dev {self.link}{extra}")

    def change_route(self) -> None:
        family = self.dice.choice((4, 6))
        verb = self.dice.choice(("add", "add", "append", "prepend", "replace", "replace", "change", "del"))
        kind = self.dice.choice(("", "", "", "", "unreachable ", "blackhole "))
        where = (
            self.dice.choice(("10.50.0.0/16", "default"))
            if family == 4
            else self.dice.choice(("2001:db8:50::/48", "default"))
        )
        words = [f"-{family} route {verb} {kind}{where}"]
        if not kind:
            if self.dice.random() < 0.7:
                words.append(f"via {self.address(family)} onlink")
            words.append(f"dev {self.link}")
            if self.dice.random() < 0.3:
                words.append(f"src {self.present(family)}")
            if self.dice.random() < 0.3:
                words.append("mtu 1400 advmss 1300")
        if self.dice.random() < 0.5:
            words.append(f"metric {self.number}")
        words.append(f"table {self.dice.choice((254, 254, 100, 42000))}")
        words.append(f"proto {self.dice.choice(('static', '77'))}")
        self.run(" ".join(words))

    def multipath(self) -> None:
        verb = self.dice.choice(("add", "replace", "del", "append"))
        hops = " ".join(
            f"nexthop via {self.address(4)} dev {link} onlink weight {self.number}"
            for link in self.dice.sample(LINKS, self.dice.randint(2, 3))
        )
        source = f"src {self.address(4)} " if self.dice.random() < 0.2 else ""
        self.run(f"route {verb} 10.60.0.0/16 {source}metric {self.number} {hops}")

    def siblings(self) -> None:
        where = f"2001:db8:60::/48 metric {self.dice.choice((5, 6))}"
        verb = self.dice.choice(("add", "replace", "append", "append", "del", "del"))
        if self.dice.random() < 0.4:
            hops = " ".join(
                f"nexthop via fe80::{self.number} dev {link}"
                for link in self.dice.sample(LINKS, self.dice.randint(2, 3))
            )
            self.run(f"-6 route {verb} {where} {hops}")
        else:
            extra = self.dice.choice(("", "", " mtu 1300")) if verb != "del" else ""
            self.run(f"-6 route {verb} {where} via fe80::{self.number} dev {self.link}{extra}")

    def up_down(self) -> None:
        self.run(f"link set {self.link} {self.dice.choice(('up', 'up', 'down'))}")

    def carrier(self) -> None:
        self.run(f"link set {self.link}-peer {self.dice.choice(('up', 'up', 'down'))}")

    def change_rule(self) -> None:
        verb = self.dice.choice(("add", "del"))
        mark = self.dice.choice(("", "", " fwmark 1", " fwmark 2"))
        family = self.dice.choice((4, 6))
        source = f"10.1.0.{self.dice.choice((1, 2))}" if family == 4 else "2001:db8::1"
        self.run(f"-{family} rule {verb} from {source} lookup 100 pref 32000{mark}")

    def rename(self) -> None:
        link = self.link
        self.run(f"link set {link} down")
        self.run(f"link set {link} name other")
        self.run("link set other up")
        self.run("link set other down")
        self.run(f"link set other name {link}")
        self.run(f"link set {link} up")

    def remake(self) -> None:
        link = self.link
        self.run(f"link del {link}")
        index = self.dice.choice(("", " index 50"))
        self.run(f"link add name {link}{index} type veth peer name {link}-peer")
        if index:  # it may be in use
            self.run(f"link add name {link} type veth peer name {link}-peer")
        self.run(f"link set {link} up")
        self.run(f"link set {link}-peer up")

    def disable_ipv6(self) -> None:
        link = self.link
        if f" {link} " not in ip("-6 -o addr show"):
            return  # see nm_mptcp.kernel.fib: this is noticed by a dump only
        path = sysctl.interface("ipv6", link, "disable_ipv6")
        value = self.dice.choice((0, 0, 1))
        self.history.append(f"{path} = {value}")
        if sysctl.read(path) is not None:
            sysctl.write(path, value)

    def mtu(self) -> None:
        self.run(f"link set {self.link} mtu {self.dice.choice((1500, 1400, 1300))}")

    def burst(self) -> None:
        for _ in range(5):
            self.dice.choice((self.change_address, self.change_route, self.up_down, self.siblings))()


@pytest.mark.parametrize("seed", range(4))
def test_the_fib_equals_a_dump_or_a_resync_is_due(subject: Subject, seed: int) -> None:
    for link in LINKS:
        veth(link, f"{link}-peer")
    actions = Actions(seed)
    resyncs = 0
    for step in range(STEPS):
        if step % 10:
            actions.step()
        else:
            subject.events.begin_dump()
            actions.burst()
            fresh = full_dump(subject.rtnetlink)
            actions.burst()
            subject.events.end_dump(fresh)
        assert subject.settled(), "\n".join([*actions.history[-12:], f"step {step}:", subject.last_difference])
        if subject.fib.resync_due:
            resyncs += 1
            wait_for("a dump ends the resync", subject.dump)
            assert subject.settled(), "\n".join([*actions.history[-12:], "after a dump:", subject.last_difference])
    assert resyncs < STEPS / 2, "too many resyncs"
    print(f"{resyncs} resyncs in {STEPS} steps")
