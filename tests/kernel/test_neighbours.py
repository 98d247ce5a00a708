# SPDX-License-Identifier: GPL-2.0-or-later
"""Incomplete neighbour entries are probed at once, and their queue is sent with the answer.

Here the kernel itself would probe again after an hour only.
"""

from __future__ import annotations

import socket

import pytest

from nm_mptcp.kernel import sysctl
from nm_mptcp.kernel.neighbours import Neighbours
from tests.support.network import Network, ip, veth
from tests.support.waits import wait_for

HOUR = 3_600_000


@pytest.fixture
def va(network: Network, far: Network) -> int:  # noqa: ARG001
    """A link whose far end has no address yet."""
    index = veth("va", "vb", peer_network=far)
    for family in ("ipv4", "ipv6"):
        sysctl.write(f"net/{family}/neigh/va/retrans_time_ms", HOUR)
    ip("addr add 10.0.0.1/24 dev va")
    ip("addr add 2001:db8::1/64 dev va nodad")
    return index


def state(address: str) -> str:
    """The state of an entry, "" without one."""
    return ip(f"neigh show {address}").split()[-1:][0] if ip(f"neigh show {address}") else ""


@pytest.mark.parametrize(
    ("family", "address", "prefix"),
    [(socket.AF_INET, "10.0.0.2", 24), (socket.AF_INET6, "2001:db8::2", 64)],
    ids=["IPv4", "IPv6"],
)
def test_the_queue_of_an_entry_is_sent_when_it_is_probed(
    network: Network, far: Network, va: int, family: int, address: str, prefix: int
) -> None:
    with Neighbours() as neighbours, network.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"it waited", (address, 5000))
        wait_for("it is asked for", lambda: state(address) == "INCOMPLETE")
        assert neighbours.incomplete({va}) == ((va, address),)
        far.ip(f"addr add {address}/{prefix} dev vb{' nodad' * (family == socket.AF_INET6)}")
        with far.socket(family, socket.SOCK_DGRAM) as receiver:
            receiver.bind((address, 5000))
            receiver.settimeout(10)
            assert state(address) == "INCOMPLETE"
            neighbours.probe({va})
            assert receiver.recv(100) == b"it waited"
        assert neighbours.incomplete({va}) == ()


def test_resolved_entries_and_other_links_are_not_probed(network: Network, far: Network, va: int) -> None:
    far.ip("addr add 10.0.0.2/24 dev vb")
    with Neighbours() as neighbours, network.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", ("10.0.0.2", 5000))
        wait_for("it answered", lambda: state("10.0.0.2") == "REACHABLE")
        sender.sendto(b"", ("10.0.0.3", 5000))
        wait_for("it is asked for", lambda: state("10.0.0.3") == "INCOMPLETE")
        before = ip("-s neigh show 10.0.0.3 dev va").split("probes")
        neighbours.probe({va + 1000})
        assert ip("-s neigh show 10.0.0.3 dev va").split("probes")[-1] == before[-1]
        neighbours.probe({va})
        assert state("10.0.0.2") == "REACHABLE"


def test_a_link_without_entries_and_a_missing_link_are_no_errors(va: int) -> None:
    with Neighbours() as neighbours:
        neighbours.probe({va})
        ip("link del va")
        neighbours.probe({va})
