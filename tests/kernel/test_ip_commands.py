# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``apply --dry-run`` prints does the same as the operation in a root shell, and nothing else.

The operation is done in one of two equal networks, with foreign routes and rules in both, its commands are run in the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from nm_mptcp.kernel.access import KernelAccess
from nm_mptcp.kernel.ip_commands import closing, command
from nm_mptcp.kernel.path_manager import PathManager
from nm_mptcp.kernel.sock_diag import subflows
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import (
    Action,
    Endpoint,
    Family,
    Hop,
    Kernel,
    LeakingSubflows,
    Limits,
    LinkdownSetting,
    Operation,
    RedundantSubflows,
    Route,
    RouteType,
    Rule,
    RuleAction,
    Tunnel,
)
from tests.support.mptcp import Echo, two_paths
from tests.support.network import Network
from tests.support.waits import wait_for

IPV4, IPV6 = Family.IPV4, Family.IPV6
TABLE, OURS, THEIRS = 42000, 77, 4
A, A6 = "10.2.0.1", "2001:db8:2::1"

#: Beside each thing of ours something of others that differs from it in one respect.
FOREIGN = f"""
ip link add name 'e;x$y' type veth peer name e1
ip link set 'e;x$y' up
ip link set e1 up
ip rule add priority 32765 from {A} lookup {TABLE} suppress_prefixlength 0 protocol {OURS}
ip rule add priority 32765 from {A} lookup {TABLE} protocol {OURS}
ip rule add priority 32765 from {A} lookup {TABLE} protocol {THEIRS}
ip rule add priority 32765 from {A} lookup main protocol {OURS}
ip rule add priority 32764 from {A} lookup {TABLE} protocol {OURS}
ip rule add priority 32765 from {A} unreachable protocol {OURS}
ip rule add priority 32765 from {A} unreachable protocol {THEIRS}
ip -6 rule add priority 32765 from {A6} lookup {TABLE} protocol {OURS}
ip -6 rule add priority 32765 from {A6} lookup {TABLE} protocol {THEIRS}
ip route add default via 10.2.0.2 dev v2 table {TABLE} proto {OURS} metric 100
ip route add default via 10.2.0.2 dev v2 table {TABLE} proto {THEIRS} metric 200
ip route add 198.51.100.0/24 dev v2 table {TABLE} proto {OURS}
ip route add 198.51.100.0/24 dev v2 table {TABLE} proto {THEIRS} metric 5
ip -6 route add default via 2001:db8:2::2 dev v2 table {TABLE} proto {OURS} metric 100
ip -6 route append default via 2001:db8:2::3 dev v2 table {TABLE} proto {OURS} metric 100
ip -6 route add 2001:db8:7::/64 via 2001:db8:2::2 dev v2 table {TABLE} proto {THEIRS} metric 100
ip mptcp endpoint add 10.1.0.1 dev v1 subflow
ip mptcp endpoint add {A} dev v2 subflow
ip mptcp limits set subflows 2 add_addr_accepted 1
"""

RULE = Rule(IPV4, 32765, A, TABLE, protocol=OURS)


def route(destination: str, gateway: str | None = None, index: int = 0, **more: object) -> Callable[[int], Route]:
    """A route by the second link (or the one with that index), which is known only where it is."""

    def made(v2: int) -> Route:
        hops = (Hop(index or v2, gateway),) if more.get("type") is None else ()
        family = Family.of(destination)
        scope = 253 if family is IPV4 and gateway is None and hops else 0
        return Route(destination, TABLE, hops, protocol=OURS, scope=scope, **more)  # type: ignore[arg-type]

    return made


def operation(action: Action, value: object) -> Callable[[int], Operation]:
    """An operation, given the second link's index."""
    return lambda v2: Operation(action, value(v2) if callable(value) else value)  # type: ignore[arg-type]


ADD, DELETE, REPLACE, SET = Action.ADD, Action.DELETE, Action.REPLACE, Action.SET
METRICS = (
    ("RTAX_FEATURES", 1),
    ("RTAX_LOCK", 1 << 2 | 1 << 13),
    ("RTAX_MTU", 1400),
    ("RTAX_RTO_MIN", 200),
    ("RTAX_RTT", 80),
)

OPERATIONS = {
    "a rule": operation(ADD, Rule(IPV4, 32765, "10.2.0.7", TABLE, protocol=OURS, suppress_prefixlength=0)),
    "an IPv6 rule": operation(ADD, Rule(IPV6, 32765, "2001:db8:2::7", TABLE, protocol=OURS)),
    "a rule that ends": operation(ADD, Rule(IPV4, 32765, "10.2.0.7", action=RuleAction.UNREACHABLE, protocol=OURS)),
    "a rule that moves": operation(REPLACE, replace(RULE, suppress_prefixlength=0)),
    "a rule that ends and moves": operation(
        REPLACE, Rule(IPV4, 32765, A, action=RuleAction.UNREACHABLE, protocol=OURS)
    ),
    "no more rule": operation(DELETE, RULE),
    "no more rule that suppresses": operation(
        DELETE, Rule(IPV4, 32765, A, TABLE, protocol=OURS, suppress_prefixlength=0)
    ),
    "no more rule that ends": operation(DELETE, Rule(IPV4, 32765, A, action=RuleAction.UNREACHABLE, protocol=OURS)),
    "no more IPv6 rule": operation(DELETE, Rule(IPV6, 32765, A6, TABLE, protocol=OURS)),
    "a route": operation(ADD, route("203.0.113.0/24", "10.2.0.2", metric=7, source=A, tos=16)),
    "a route with metrics": operation(ADD, route("203.0.113.0/24", "10.2.0.2", metrics=METRICS)),
    "an on-link route": operation(ADD, route("203.0.113.0/24", metric=7)),
    "an on-link gateway": operation(
        ADD, lambda v2: Route("203.0.113.0/24", TABLE, (Hop(v2, "192.0.2.9", onlink=True),), protocol=OURS)
    ),
    "an unreachable route": operation(ADD, route("203.0.113.0/24", type=RouteType.UNREACHABLE, metric=9)),
    "a multipath route": operation(
        ADD,
        lambda v2: Route(
            "203.0.113.0/24", TABLE, (Hop(v2, "10.2.0.2", weight=2), Hop(v2, "10.2.0.3", weight=3)), protocol=OURS
        ),
    ),
    "another route": operation(REPLACE, route("0.0.0.0/0", "10.2.0.9", metric=100)),
    "an IPv6 route": operation(ADD, route("2001:db8:8::/64", "2001:db8:2::2", metric=5, preference=1)),
    "an IPv6 sibling": operation(ADD, route("::/0", "2001:db8:2::4", metric=100)),
    "an IPv6 unreachable route": operation(ADD, route("2001:db8:8::/64", type=RouteType.UNREACHABLE, metric=5)),
    "no more route": operation(DELETE, route("0.0.0.0/0", "10.2.0.2", metric=100)),
    "no more on-link route": operation(DELETE, route("198.51.100.0/24")),
    "no more IPv6 sibling": operation(DELETE, route("::/0", "2001:db8:2::2", metric=100)),
    "no more of what is not there": operation(DELETE, route("2001:db8:7::/64", "2001:db8:2::2", metric=100)),
    "an endpoint": operation(ADD, lambda v2: Endpoint("10.2.0.7", v2, EndpointFlag.SUBFLOW | EndpointFlag.BACKUP)),
    "an endpoint with a port": operation(ADD, lambda v2: Endpoint(A, v2, EndpointFlag.SIGNAL, port=5999)),
    "an endpoint on a link of an odd name": operation(
        ADD, lambda _: Endpoint("10.2.0.7", socket.if_nametoindex("e;x$y"), EndpointFlag.SUBFLOW)
    ),
    "no more endpoint": operation(DELETE, lambda v2: Endpoint(A, v2, EndpointFlag.SUBFLOW, 2)),
    "another priority": operation(
        Action.SET_FLAGS, lambda v2: Endpoint(A, v2, EndpointFlag.SUBFLOW | EndpointFlag.BACKUP, 2)
    ),
    "limits": operation(SET, Limits(5, 3)),
    "routes that are ignored": operation(SET, lambda v2: LinkdownSetting(IPV4, v2, "v2", True)),
    "routes that are ignored on a link of an odd name": operation(
        SET, lambda _: LinkdownSetting(IPV6, socket.if_nametoindex("e;x$y"), "e;x$y", True)
    ),
}

LOOKS = (
    "ip -4 rule show", "ip -6 rule show", "ip -4 route show table all", "ip -6 route show table all",
    "ip mptcp endpoint", "ip mptcp limits", "sysctl net.ipv4.conf.v2.ignore_routes_with_linkdown",
    "cat '/proc/sys/net/ipv6/conf/e;x$y/ignore_routes_with_linkdown'",
)  # fmt: skip


def shell(script: str, *, check: bool = True) -> str:
    done = subprocess.run(["sh", "-e", "-c", script], capture_output=True, text=True, check=False)
    assert not check or not done.returncode, f"{script}: {done.stderr}"
    return done.stdout


def state() -> list[str]:
    """All of the state in the namespace of this thread, without times and handles."""
    return [line for look in LOOKS for line in shell(look).splitlines() if " fe80:" not in line and "ff00:" not in line]


async def _typed(operations: list[Operation]) -> list[str]:
    """The lines that a dry run prints for them."""
    access = KernelAccess()
    try:
        kernel = await access.look()
        lines = []
        for each in operations:
            ended = await access.would_close(each)
            lines += [*closing(ended or ()), command(each, kernel.links)]
        return lines
    finally:
        await access.close()


async def _done(operations: list[Operation]) -> None:
    access = KernelAccess()
    try:
        await access.look()
        await access.execute(operations)
    finally:
        await access.close()


@pytest.mark.parametrize("make", OPERATIONS.values(), ids=OPERATIONS)
def test_a_command_does_what_the_operation_does(make: Callable[[int], Operation], far: Network) -> None:
    seen = []
    for typed in (False, True):
        near, other = Network(), far if typed else Network()
        with contextlib.ExitStack() as ends:
            ends.callback(near.close)
            v2 = two_paths(near, other)[1]
            with near.entered():
                shell(FOREIGN)
                before = state()
                if typed:
                    for line in asyncio.run(_typed([make(v2)])):
                        shell(line, check=False)
                else:
                    asyncio.run(_done([make(v2)]))
                seen.append((before, state()))
    assert seen[0][0] == seen[1][0]
    assert seen[0][1] == seen[1][1]


# --- sockets


class Conversations:
    """On one address: an ssh (plain TCP), a connection with a sibling elsewhere, and one without."""

    def __init__(self, near: Network, far: Network) -> None:
        self._ends = contextlib.ExitStack()
        listener = far.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("10.9.0.1", 22))
        listener.listen()
        self._ends.enter_context(listener)
        with near.entered():
            self._ssh = self._ends.enter_context(socket.create_connection(("10.9.0.1", 22), 5, source_address=(A, 0)))
            self._sshd = self._ends.enter_context(listener.accept()[0])
            self.alone = self._ends.enter_context(Echo(far, "10.9.0.1", port=5001, source=A))
            with PathManager() as manager:
                manager.add(Endpoint("10.1.0.1", socket.if_nametoindex("v1"), EndpointFlag.SUBFLOW))
                # Only the one that begins now has a sibling: the endpoint goes before the other could be tried.
                self.two = self._ends.enter_context(Echo(far, "10.9.0.1", port=5002, source=A))
                wait_for("both have a sibling", lambda: len(self.places()) == 4)
            alone = next(each for each in subflows() if each.remote_port == 5001 and each.local != A)
            shell(f"ss -tK src 10.1.0.1:{alone.local_port}")
            wait_for("one has none", lambda: len(self.places()) == 3)

    @staticmethod
    def places() -> list[tuple[str, int]]:
        """Each established subflow: from where, to which port."""
        return sorted((each.local, each.remote_port) for each in subflows() if each.established)

    def ssh_works(self) -> bool:
        self._ssh.sendall(b"?")
        return self._sshd.recv(1) == b"?"

    def close(self) -> None:
        self._ends.close()


@pytest.fixture
def conversations(network: Network, far: Network) -> Iterator[Conversations]:
    two_paths(network, far)
    made = Conversations(network, far)
    try:
        yield made
    finally:
        made.close()


SEVER = Operation(Action.CLOSE_REDUNDANT, RedundantSubflows(frozenset({A}), frozenset({A})))
CUT = Operation(Action.CLOSE_ALL, LeakingSubflows(frozenset({A}), {IPV4: Tunnel("tun0", frozenset({99}))}))


def test_redundant_subflows_are_those_with_a_sibling(conversations: Conversations) -> None:
    lines = asyncio.run(_typed([SEVER]))
    (line,) = [each for each in lines if not each.startswith("#")]
    assert line.startswith(f"ss -tK 'src {A}:")
    assert "dst 10.9.0.1:5002" in line
    shell(line)
    wait_for("it is closed", lambda: conversations.places() == [("10.1.0.1", 5002), (A, 5001)])
    assert conversations.ssh_works()
    conversations.alone.echo()
    conversations.two.echo()


def test_leaking_subflows_are_closed_and_no_other_socket(conversations: Conversations, network: Network) -> None:
    # All leaves by what is taken for the tunnel, and so nothing is beside it.
    index = socket.if_nametoindex("v1")
    cut = Operation(Action.CLOSE_ALL, LeakingSubflows(frozenset({A}), {IPV4: Tunnel("v1", frozenset({index}))}))
    lines = [each for each in asyncio.run(_typed([cut])) if not each.startswith("#")]
    assert len(lines) == 2
    assert network
    for line in lines:
        shell(line)
    wait_for("they are closed", lambda: conversations.places() == [("10.1.0.1", 5002)])
    assert conversations.ssh_works()


def test_without_access_to_sockets_a_comment_describes_them() -> None:
    for each in (SEVER, CUT):
        line = command(each, Kernel().links)
        assert line.startswith("# ")
        assert A in line


def test_an_ipv6_address_is_in_the_syntax_of_ss(network: Network, far: Network) -> None:
    two_paths(network, far)
    with Echo(far, "2001:db8:9::1", port=5001, source=A6), Echo(far, "2001:db8:9::1", port=5002, source=A6):
        (first,) = [each for each in subflows() if each.remote_port == 5001]
        (line,) = closing([first])
        shell(line)
        wait_for("it is closed", lambda: [each.remote_port for each in subflows() if each.established] == [5002])


def test_an_ipv4_peer_of_an_ipv6_socket_is_closed_as_well(network: Network, far: Network) -> None:
    two_paths(network, far)
    with Echo(far, "10.9.0.1", source=f"::ffff:{A}", socket_family=socket.AF_INET6):
        for line in closing(subflows()):
            shell(line)
        wait_for("it is closed", lambda: not [each for each in subflows() if each.established])
