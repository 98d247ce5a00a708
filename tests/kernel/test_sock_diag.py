# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists and closes subflows by socket diagnosis, on real connections."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from nm_mptcp.kernel.errors import KernelError
from nm_mptcp.kernel.path_manager import PathManager
from nm_mptcp.kernel.sock_diag import Sockets, Subflow, TCPState, destroy, subflows
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import Endpoint, Family
from tests.support.mptcp import Echo, two_paths
from tests.support.network import Network
from tests.support.waits import wait_for


def established(count: int) -> list[Subflow]:
    """Our side's established subflows, when there are so many; the initial one first."""

    def found() -> list[Subflow]:
        there = sorted((each for each in subflows() if each.established), key=lambda each: not each.initial)
        return there if len(there) == count else []

    return wait_for(f"{count} established subflows", found)


@pytest.mark.parametrize(
    ("server", "addresses"),
    [("10.9.0.1", ("10.1.0.1", "10.2.0.1")), ("2001:db8:9::1", ("2001:db8:1::1", "2001:db8:2::1"))],
)
def test_subflows_of_one_connection_share_its_token(
    network: Network, far: Network, server: str, addresses: tuple[str, str]
) -> None:
    _, second = two_paths(network, far)
    flags = EndpointFlag.SUBFLOW | EndpointFlag.BACKUP
    with PathManager() as manager:
        manager.add(Endpoint(addresses[1], second, flags, id=7))
    with Echo(far, server):
        first, other = established(2)
    assert (first.local, other.local) == addresses
    assert {first.remote, other.remote} == {server}
    assert {first.remote_port, other.remote_port} == {5001}
    assert first.token == other.token != 0
    assert other.remote_token
    assert first.initial
    assert not other.initial
    assert (first.local_id, other.local_id) == (0, 7)
    assert (first.backup, other.backup) == (False, True)
    assert (first.ifindex, other.ifindex) == (0, second)
    assert first.state is other.state is TCPState.ESTABLISHED
    assert first.inode


def test_an_ipv4_peer_of_an_ipv6_socket_is_ipv4(network: Network, far: Network) -> None:
    two_paths(network, far)
    with Echo(far, "10.9.0.1", socket_family=socket.AF_INET6):
        (subflow,) = established(1)
        assert (subflow.family, subflow.local, subflow.remote) == (Family.IPV4, "10.1.0.1", "10.9.0.1")
        assert subflow.socket_family is Family.IPV6
        destroy(subflow)
        assert subflows() == ()


def test_plain_tcp_has_no_subflows(network: Network, far: Network) -> None:
    two_paths(network, far)
    with far.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("10.9.0.1", 5002))
        listener.listen()
        with socket.create_connection(("10.9.0.1", 5002)):
            assert subflows() == ()


@pytest.mark.parametrize("server", ["10.9.0.1", "2001:db8:9::1"])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_destroyed_subflow_is_gone_and_its_sibling_continues(
    network: Network, far: Network, server: str, victim: int
) -> None:
    _, second = two_paths(network, far)
    address = "10.2.0.1" if Family.of(server) is Family.IPV4 else "2001:db8:2::1"
    with PathManager() as manager:
        manager.add(Endpoint(address, second, EndpointFlag.SUBFLOW))
    with Echo(far, server) as echo, Sockets() as sockets:
        there = established(2)
        sockets.destroy(there[victim])
        assert established(1) == [there[1 - victim]]
        echo.echo()
        with pytest.raises(KernelError) as gone:
            sockets.destroy(there[victim])
        assert gone.value.absent


def test_another_socket_with_the_same_ports_is_not_destroyed(network: Network, far: Network) -> None:
    """The cookie identifies the socket."""
    two_paths(network, far)
    with Echo(far, "10.9.0.1") as echo:
        (subflow,) = established(1)
        with pytest.raises(KernelError) as refused:
            destroy(replace(subflow, cookie=subflow.cookie + 1))
        assert refused.value.absent
        echo.echo()
