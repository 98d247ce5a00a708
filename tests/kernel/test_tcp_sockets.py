# SPDX-License-Identifier: GPL-2.0-or-later
"""A look at TCP sockets, on real connections: one by its ends, and those of all that tell something."""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Iterator

import pytest

from nm_mptcp.kernel import tcp_sockets
from nm_mptcp.kernel.errors import KernelError
from nm_mptcp.kernel.path_manager import PathManager
from nm_mptcp.kernel.sock_diag import subflows
from nm_mptcp.kernel.tcp_sockets import Look, SocketKey, TCPSocket, TCPSockets
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import Endpoint, Family
from tests.support.mptcp import Echo, two_paths
from tests.support.network import Network
from tests.support.waits import wait_for

from .examined import packet_filter

OWN, OTHER, SERVER, PORT = "10.1.0.1", "10.2.0.1", "10.9.0.1", 5002
OWN6, SERVER6 = "2001:db8:1::1", "2001:db8:9::1"


@pytest.fixture
def links(network: Network, far: Network) -> dict[str, int]:
    """Our addresses, with the interface of each."""
    first, second = two_paths(network, far)
    return {OWN: first, OTHER: second, OWN6: first}


@pytest.fixture
def reader(network: Network) -> Iterator[TCPSockets]:  # noqa: ARG001
    with TCPSockets() as sockets:
        yield sockets


def look(reader: TCPSockets, local: dict[str, int], *resent: SocketKey, near: str = "") -> Look:
    return reader.look(local, frozenset(resent), lambda peer: peer == near)


def one(reader: TCPSockets, ends: SocketKey, ifindex: int) -> TCPSocket | None:
    there = reader.find({ends: ifindex})
    return there[0] if there else None


def listen(stack: contextlib.ExitStack, far: Network, server: str = SERVER) -> socket.socket:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    listener = stack.enter_context(far.socket(family, socket.SOCK_STREAM))
    listener.bind((server, PORT))
    listener.listen()
    return listener


def connect(stack: contextlib.ExitStack, server: str = SERVER, *, bound: str = "") -> socket.socket:
    client = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET))
    if bound:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bound.encode())
    client.connect((server, PORT))
    return client


def key(client: socket.socket) -> SocketKey:
    ends = client.getsockname()[:2] + client.getpeername()[:2]
    return tuple(value.removeprefix("::ffff:") if isinstance(value, str) else value for value in ends)  # type: ignore[return-value]


def silence(stack: contextlib.ExitStack, far: Network, *addresses: str) -> None:
    """Nothing that comes from these is answered any more."""
    for address in addresses:
        far.ip(f"route add blackhole {address}")
        stack.callback(far.ip, f"route del blackhole {address}")


# --- one by its ends


@pytest.mark.parametrize("server", [SERVER, SERVER6])
def test_a_socket_is_found_by_its_ends(reader: TCPSockets, links: dict[str, int], far: Network, server: str) -> None:
    with contextlib.ExitStack() as stack:
        listen(stack, far, server)
        ends = key(connect(stack, server))
        found = one(reader, ends, links[OWN])
        assert found is not None
        assert (found.key, found.family, found.ifindex, found.token) == (ends, Family.of(server), 0, 0)
        assert one(reader, (ends[0], ends[1] ^ 1, *ends[2:]), links[OWN]) is None


def test_an_ipv4_peer_of_an_ipv6_socket_is_found(reader: TCPSockets, links: dict[str, int], far: Network) -> None:
    with contextlib.ExitStack() as stack:
        listen(stack, far)
        ends = key(connect(stack, f"::ffff:{SERVER}"))
        found = one(reader, ends, links[OWN])
        assert found is not None
        assert (found.key, found.family) == (ends, Family.IPV4)
        assert ends in {each.key for each in look(reader, links).sockets}


def test_a_bound_socket_is_found_by_its_interface_alone(
    reader: TCPSockets, links: dict[str, int], far: Network
) -> None:
    with contextlib.ExitStack() as stack:
        listen(stack, far)
        ends = key(connect(stack, bound="v1"))
        found = one(reader, ends, links[OWN])
        assert found is not None
        assert found.ifindex == links[OWN]
        assert one(reader, ends, links[OTHER]) is None


def test_a_listener_is_not_what_is_looked_for(reader: TCPSockets, links: dict[str, int]) -> None:
    with socket.create_server((OWN, PORT)):
        assert one(reader, (OWN, PORT, SERVER, 40000), links[OWN]) is None


def test_a_subflow_is_found_with_its_token(reader: TCPSockets, links: dict[str, int], far: Network) -> None:
    with Echo(far, SERVER):
        (subflow,) = subflows()
        found = one(reader, (subflow.local, subflow.local_port, subflow.remote, subflow.remote_port), links[OWN])
        assert found is not None
        assert found.token == subflow.token


# --- those that tell something


def test_what_a_socket_tells(reader: TCPSockets, links: dict[str, int], far: Network) -> None:
    with contextlib.ExitStack() as stack:
        listener = listen(stack, far)
        client = connect(stack)
        server = stack.enter_context(listener.accept()[0])
        assert [each.told for each in look(reader, links).sockets] == [math.inf], "no data came yet"
        client.send(b"hello")
        server.recv(5)
        server.send(b"hi")
        client.recv(2)
        (found,) = wait_for("acknowledged", lambda: [each for each in look(reader, links).sockets if each.acked])
        assert found.key == key(client)
        assert (found.acked, found.unacked, found.connecting, found.token) == (6, 0, False, 0)  # the SYN counts
        assert 0 <= found.heard <= found.told < 10
        assert 0 < found.rtt < 10


def kept(reader: TCPSockets, links: dict[str, int], *resent: SocketKey, near: str = "") -> list[SocketKey]:
    return [each.key for each in look(reader, links, *resent, near=near).sockets]


def test_a_socket_that_sent_again_tells_something(reader: TCPSockets, links: dict[str, int], far: Network) -> None:
    with contextlib.ExitStack() as stack:
        listen(stack, far)
        client, _ = connect(stack), connect(stack)
        ends = key(client)
        silence(stack, far, OWN)
        client.send(b"?")
        assert kept(reader, links, ends, near=SERVER) == [ends], "it is known that it did, without a timeout"
        wait_for("it times out", lambda: kept(reader, links, near=SERVER) == [ends])
        (found,) = look(reader, links, near=SERVER).sockets
        assert found.unacked == 1
        assert found.retransmitted


def test_a_connection_attempt_tells_something(reader: TCPSockets, links: dict[str, int], far: Network) -> None:
    far.ip("route add blackhole 192.0.2.9")
    with socket.socket() as client:
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect(("192.0.2.9", PORT))
        (found,) = look(reader, links, near="192.0.2.9").sockets
        assert found.connecting
        assert (found.local, found.remote, found.unacked) == (OWN, "192.0.2.9", 1)


def test_the_siblings_of_a_subflow_that_waits_tell_something_however_idle(
    reader: TCPSockets, links: dict[str, int], far: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By them it is known that a connection began in a tunnel: its peer must not be asked beside it."""
    with PathManager() as manager:
        manager.add(Endpoint(OTHER, links[OTHER], EndpointFlag.SUBFLOW))
    with Echo(far, SERVER) as echo, Echo(far, SERVER, port=5003), contextlib.ExitStack() as stack:
        wait_for("four subflows", lambda: sum(each.established for each in subflows()) == 4)
        assert len(reader.subflows(links)) == 4
        monkeypatch.setattr(tcp_sockets, "_IDLE", -1)
        assert kept(reader, links, near=SERVER) == []
        silence(stack, far, OWN, OTHER)
        echo.send(b"?")
        found = wait_for("it sends again", lambda: look(reader, links, near=SERVER).sockets)
        assert {(each.local, each.remote_port) for each in found} == {(OWN, 5001), (OTHER, 5001)}
        assert len({each.token for each in found}) == 1


def test_of_the_others_those_heard_last_tell_something(
    reader: TCPSockets, links: dict[str, int], far: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_sockets, "_LATEST", 3)
    with contextlib.ExitStack() as stack:
        listen(stack, far)
        clients = [connect(stack) for _ in range(20)]
        time.sleep(0.1)  # more than a jiffy
        heard = {key(client) for client in clients[5:8]}
        for client in clients[5:8]:
            client.send(b"?")
        wait_for("acknowledged", lambda: heard <= set(kept(reader, links)))
        found = look(reader, links)
        assert len(found.sockets) <= 4, "and that with the longest round-trip time"
        assert len(found.acked) == len(clients)


def test_those_that_are_near_are_not_among_them(reader: TCPSockets, links: dict[str, int], far: Network) -> None:
    with contextlib.ExitStack() as stack:
        listen(stack, far)
        connect(stack)
        assert look(reader, links, near=SERVER).sockets == ()
        assert len(look(reader, links).sockets) == 1


def test_what_the_peer_repeats_tells_nothing_new(reader: TCPSockets, links: dict[str, int], far: Network) -> None:
    """It is heard, as what we send vanishes and it gets no acknowledgement."""
    with contextlib.ExitStack() as stack:
        listener = listen(stack, far)
        client = connect(stack)
        server = stack.enter_context(listener.accept()[0])
        server.send(b"hi")
        client.recv(2)
        with far.entered():
            packet_filter("input", f"ip saddr {OWN} drop")
        server.send(b"again")
        client.recv(5)
        client.send(b"?")
        ends = key(client)

        def repeated() -> TCPSocket | None:
            found = one(reader, ends, links[OWN])
            return found if found and found.told > found.heard + 0.1 else None

        found = wait_for("a repetition", repeated)
        assert found is not None
        assert (found.unacked, found.sacked) == (1, 0)


# --- whose


@pytest.mark.parametrize("more", [0, 40])
def test_only_sockets_with_these_addresses_are_read(
    reader: TCPSockets, links: dict[str, int], far: Network, more: int
) -> None:
    """Whether the kernel compares them, or, as there are many, we do."""
    others = {f"10.77.0.{number}": 9 for number in range(1, more + 1)}
    with contextlib.ExitStack() as stack:
        for server in (SERVER, SERVER6):
            listen(stack, far, server)
        ends = {server: key(connect(stack, server)) for server in (SERVER, SERVER6)}
        mapped = key(connect(stack, f"::ffff:{SERVER}"))
        assert set(kept(reader, links | others)) == {*ends.values(), mapped}
        assert set(kept(reader, {OWN: links[OWN]} | others)) == {ends[SERVER], mapped}
        assert kept(reader, {OWN6: links[OWN6]} | others) == [ends[SERVER6]]
        assert kept(reader, {OTHER: links[OTHER]} | others) == []


# --- errors


def test_an_error_is_told_and_does_not_reach_the_next_request(
    reader: TCPSockets, links: dict[str, int], far: Network
) -> None:
    with contextlib.ExitStack() as stack:
        listen(stack, far)
        ends = key(connect(stack))
        with pytest.raises(KernelError):
            reader._netlink.ask(20, (b"", b""), what="read a TCP socket")
        assert one(reader, ends, links[OWN])
