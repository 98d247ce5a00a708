# SPDX-License-Identifier: GPL-2.0-or-later
"""Endpoints with a port, on which the kernel listens, on the real path manager."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Iterator

import pytest

from nm_mptcp.kernel.access import KernelAccess
from nm_mptcp.kernel.egress import EgressLookup
from nm_mptcp.kernel.errors import KernelError
from nm_mptcp.kernel.path_manager import PathManager
from nm_mptcp.kernel.sock_diag import Sockets, subflows
from nm_mptcp.kernel.subflow_closer import SubflowCloser
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import Action, Endpoint, Operation
from tests.support.mptcp import two_paths
from tests.support.network import Network, ip, veth
from tests.support.waits import wait_for

SIGNAL, SUBFLOW, BACKUP = EndpointFlag.SIGNAL, EndpointFlag.SUBFLOW, EndpointFlag.BACKUP


def test_an_address_has_one_endpoint_without_a_port_and_one_for_each_port(manager: PathManager) -> None:
    interface = veth("v1", "p1")
    ip("addr add 10.0.0.1/24 dev v1")
    for port in (0, 5000, 5001):
        manager.add(Endpoint("10.0.0.1", interface, SIGNAL, port=port))
    assert {endpoint.port for endpoint in manager.endpoints()} == {0, 5000, 5001}
    assert len({endpoint.id for endpoint in manager.endpoints()}) == 3
    with pytest.raises(KernelError) as twice:
        manager.add(Endpoint("10.0.0.1", interface, SUBFLOW))
    assert twice.value.exists


def test_a_port_is_for_signal_alone(manager: PathManager) -> None:
    interface = veth("v1", "p1")
    ip("addr add 10.0.0.1/24 dev v1")
    for flags in (SUBFLOW, SIGNAL | SUBFLOW, EndpointFlag(0)):
        with pytest.raises(KernelError) as wrong:
            manager.add(Endpoint("10.0.0.1", interface, flags, port=5000))
        assert wrong.value.errno == errno.EINVAL
    manager.add(Endpoint("10.0.0.1", interface, SIGNAL | BACKUP, port=5000))


@pytest.mark.parametrize("listener", ["10.0.0.1", "0.0.0.0"])
def test_a_port_of_a_server_is_in_use(manager: PathManager, listener: str) -> None:
    interface = veth("v1", "p1")
    ip("addr add 10.0.0.1/24 dev v1")
    with socket.socket() as server:
        server.bind((listener, 5000))
        server.listen()
        with pytest.raises(KernelError) as used:
            manager.add(Endpoint("10.0.0.1", interface, SIGNAL, port=5000))
    assert (used.value.errno, used.value.text) == (errno.EADDRINUSE, "port 5000 is in use")
    assert not used.value.exists
    assert not used.value.full


def test_a_port_needs_its_address(manager: PathManager) -> None:
    with pytest.raises(KernelError) as gone:
        manager.add(Endpoint("10.0.0.1", flags=SIGNAL, port=5000))
    assert gone.value.absent


def test_an_implicit_endpoint_is_replaced_but_not_in_a_full_table(
    manager: PathManager, network: Network, far: Network
) -> None:
    _, second = two_paths(network, far)
    far.ip("mptcp endpoint add 10.2.0.2 dev v2 signal")
    with served(far, "10.9.0.1"), _client("10.9.0.1") as client:
        _echo(client)
        (implicit,) = wait_for("an implicit endpoint", manager.endpoints)
        assert implicit.flags & EndpointFlag.IMPLICIT
        for number in range(1, manager.endpoints_max()):
            manager.add(Endpoint(f"10.7.0.{number}", flags=SUBFLOW))
        with pytest.raises(KernelError) as full:
            manager.add(Endpoint(implicit.address, second, SUBFLOW))
        assert full.value.full
        manager.delete(manager.endpoints()[-1])
        manager.add(Endpoint(implicit.address, second, SUBFLOW))
        assert len(manager.endpoints()) == manager.endpoints_max() - 1


@pytest.mark.parametrize("heard", [True, False], ids=["the peer hears of it", "its link is dead"])
def test_a_port_is_free_again_when_its_endpoint_was_deleted(
    manager: PathManager, network: Network, far: Network, heard: bool
) -> None:
    """Subflows that a delete closes stay in TIME_WAIT for a minute; so those with a sibling are reset first."""
    _, second = two_paths(network, far)
    announced = Endpoint("10.2.0.1", second, SIGNAL, port=7000)
    manager.add(announced)
    with served(network, "10.1.0.1"), far.entered(), _client("10.1.0.1") as client, network.entered():
        _echo(client)
        wait_for("both subflows", lambda: _places() == {("10.1.0.1", 5001), ("10.2.0.1", 7000)})
        if not heard:
            far.ip("link set v2 down")
        asyncio.run(_delete(manager.endpoints()[0]))
        assert _places() == {("10.1.0.1", 5001)}
        _echo(client)
        if not heard:
            far.ip("link set v2 up")
        manager.add(announced)
        _echo(client)


def test_a_connections_only_subflow_is_not_reset(manager: PathManager, network: Network, far: Network) -> None:
    _, second = two_paths(network, far)
    announced = Endpoint("10.2.0.1", second, SIGNAL, port=7000)
    manager.add(announced)
    with served(network, "10.1.0.1"), far.entered(), _client("10.1.0.1") as client, network.entered():
        _echo(client)
        wait_for("both subflows", lambda: _places() == {("10.1.0.1", 5001), ("10.2.0.1", 7000)})
        manager.delete(Endpoint("10.1.0.1"))
        wait_for("the second alone", lambda: _places() == {("10.2.0.1", 7000)})
        with Sockets() as sockets, EgressLookup() as egress:
            SubflowCloser(sockets, manager, egress).close_on_port(manager.endpoints()[0])
        assert _places() == {("10.2.0.1", 7000)}
        _echo(client)


async def _delete(endpoint: Endpoint) -> None:
    access = KernelAccess()
    try:
        assert await access.execute([Operation(Action.DELETE, endpoint)]) == []
    finally:
        await access.close()


def _places() -> set[tuple[str, int]]:
    return {(subflow.local, subflow.local_port) for subflow in subflows() if subflow.established}


@contextlib.contextmanager
def served(network: Network, address: str, port: int = 5001) -> Iterator[None]:
    """An echo server for one connection."""
    with network.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        accepted: list[socket.socket] = []
        thread = threading.Thread(target=_serve, args=(listener, accepted), daemon=True)
        thread.start()
        yield
    for connection in accepted:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # wakes the thread, where the client's end was not heard of
    thread.join(5)


def _serve(listener: socket.socket, accepted: list[socket.socket]) -> None:
    with contextlib.suppress(OSError):
        connection, _ = listener.accept()
        accepted.append(connection)
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)


def _client(server: str, port: int = 5001) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
    client.settimeout(10)
    client.connect((server, port))
    return client


def _echo(client: socket.socket) -> None:
    client.sendall(b"hello")
    assert client.recv(64) == b"hello"
