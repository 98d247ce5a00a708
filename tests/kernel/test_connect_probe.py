# SPDX-License-Identifier: GPL-2.0-or-later
"""What attempts to reach a peer by one link find out, on the real kernel."""

from __future__ import annotations

import asyncio
import socket

import pytest

from nm_mptcp.kernel.connect_probe import ConnectProbes
from tests.support.mptcp import two_paths
from tests.support.network import Network

from .examined import packet_filter

PORT = 5002


@pytest.fixture
def link(network: Network, far: Network) -> int:
    """The interface of 10.1.0.1, by which 10.9.0.1 is reached."""
    return two_paths(network, far)[0]


def answers(link: int, *, local: str = "10.1.0.1", remote: str = "10.9.0.1", seconds: float = 5.0) -> bool | None:
    probes = ConnectProbes()
    found = asyncio.run(probes.answers(local, link, remote, PORT, seconds))
    assert not probes.own
    return found


@pytest.mark.parametrize("remote", ["10.9.0.1", "2001:db8:9::1"])
def test_a_peer_answers_by_accepting_and_by_refusing(link: int, far: Network, remote: str) -> None:
    ipv6 = ":" in remote
    local = "2001:db8:1::1" if ipv6 else "10.1.0.1"
    assert answers(link, local=local, remote=remote) is True, "nobody listens there"
    with far.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((remote, PORT))
        listener.listen()
        assert answers(link, local=local, remote=remote) is True


def test_a_peer_does_not_answer(link: int, far: Network) -> None:
    far.ip("route add blackhole 10.1.0.1")
    assert answers(link, seconds=0.2) is False


@pytest.mark.parametrize(
    ("remote", "kind"),
    [
        ("10.9.0.1", "icmp type net-unreachable"),
        ("10.9.0.1", "icmp type host-unreachable"),
        ("10.9.0.1", "icmp type admin-prohibited"),
        ("2001:db8:9::1", "icmpv6 type no-route"),
        ("2001:db8:9::1", "icmpv6 type admin-prohibited"),
        ("2001:db8:9::1", "icmpv6 type addr-unreachable"),
    ],
)
def test_a_router_that_says_that_the_peer_cannot_be_reached_is_no_answer(
    link: int, far: Network, remote: str, kind: str
) -> None:
    """As one does whose line is dead."""
    local = "2001:db8:1::1" if ":" in remote else "10.1.0.1"
    with far.entered():
        packet_filter("input", f"tcp dport {PORT} reject with {kind}")
    assert answers(link, local=local, remote=remote) is False


def test_an_attempt_that_was_never_sent_tells_nothing(link: int, network: Network) -> None:
    assert answers(link, local="10.1.0.99") is None, "not an address of this machine"
    network.ip("link set v1 down")
    assert answers(link) is None, "no link"
