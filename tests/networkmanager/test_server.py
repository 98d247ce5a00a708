# SPDX-License-Identifier: GPL-2.0-or-later
"""A server tells its peers of its addresses (``signal``): two machines, real packets."""

from __future__ import annotations

import socket

import pytest

from ..support.waits import wait_for
from .bed import SYSCTLS, Bed, Namespace
from .observe import Writes
from .traffic import PORT, Connection, EchoServer
from .uplinks import Uplink

SETTINGS = "/run/nm-mptcp/conf.d/50-test.conf"
CLIENT, CLIENT_GATEWAY = "10.99.0.2", "10.99.0.1"
SIGNAL_PORT = 7000


class Client(Connection):
    """A peer's connection: its subflows by where they lead to."""

    def peers(self) -> set[tuple[str, int]]:
        """The server's address and port of each established subflow."""
        shown = self.namespace.run("ss", "-Htn", "state", "established", f"src = {CLIENT}")
        places = (line.split()[3].rpartition(":") for line in shown.splitlines())
        return {(address.strip("[]"), int(port)) for address, _, port in places}

    def wait_peers(self, *peers: tuple[str, int], seconds: float = 10) -> None:
        """Wait until it has subflows to these, and to no others."""
        wait_for(f"subflows to {sorted(peers)}", lambda: self.peers() == set(peers), seconds=seconds)


def counter(namespace: Namespace, name: str) -> int:
    """A counter of the kernel's MPTCP."""
    for line in namespace.run("nstat", "-asz", f"MPTcpExt{name}").splitlines():
        if line.startswith("MPTcpExt"):
            return int(line.split()[1])
    raise AssertionError(f"no counter {name}")


@pytest.fixture
def client(bed: Bed) -> Namespace:
    """Another machine, with one link and an ordinary kernel that follows what a server tells it."""
    made = bed.namespace("client", SYSCTLS)
    bed.far.run("ip", "link", "add", "far-client", "type", "veth", "peer", "name", "up0",
                "netns", str(bed.inner(made.pid)))  # fmt: skip
    bed.far.run("ip", "address", "add", f"{CLIENT_GATEWAY}/24", "dev", "far-client")
    bed.far.run("ip", "link", "set", "far-client", "up")
    made.sh(
        f"ip address add {CLIENT}/24 dev up0; ip link set up0 up; ip route add default via {CLIENT_GATEWAY};"
        "ip mptcp limits set subflows 4 add_addr_accepted 4"
    )
    return made


def links(bed: Bed, *settings: str) -> list[Uplink]:
    """The server's two links, up."""
    made = []
    for number in (1, 2):
        link = bed.uplink(f"eth{number}", static=f"10.{number}.0.0/24")
        bed.profile(
            link.name, link.name, "ipv4.method manual", f"ipv4.addresses {link.network.host(2)}/24",
            f"ipv4.gateway {link.gateway}", *settings,
        )  # fmt: skip
        bed.up(link.name)
        made.append(link)
    return made


def places(made: list[Uplink], port: int = PORT) -> list[tuple[str, int]]:
    return [(link.network.host(2), port) for link in made]


def endpoints(bed: Bed) -> set[tuple[str, str, frozenset[str], int]]:
    return {(each.address, each.device, each.flags, each.port) for each in bed.endpoints()}


@pytest.mark.parametrize("lost", [0, 1], ids=["the first subflow's link", "the other link"])
def test_signal_flags_bring_a_client_a_second_subflow_and_a_lost_link_costs_it_nothing(
    bed: Bed, client: Namespace, lost: int
) -> None:
    EchoServer(bed.machine)
    bed.without_dispatcher_scripts()
    bed.start_service()
    made = links(bed, "connection.mptcp-flags signal")
    first, second = places(made)
    for address, _ in (first, second):
        assert bed.wait_endpoint(address).flags == {"signal"}
    bed.sync()
    assert bed.path_manager.limits() == {"subflows": 8, "add_addr_accepted": 2}
    connection = Client(client, first[0])
    connection.wait_peers(first, second)
    told = counter(client, "RmAddr")
    made[lost].carrier(False)
    connection.wait_peers((first, second)[1 - lost])
    assert counter(client, "RmAddr") > told
    connection.echo()
    shown = bed.status().path((first, second)[lost][0])
    assert (shown["state"], shown["owner"]) == ("suspended", "networkmanager")
    made[lost].carrier(True)
    connection.wait_peers(first, second)
    connection.echo()
    before = bed.endpoints()
    bed.reapply("eth1")
    bed.sync()
    assert bed.endpoints() == before


def test_a_port_is_announced_and_listened_on(bed: Bed, client: Namespace) -> None:
    """The server itself listens on one address only: whoever comes to the other comes to the port."""
    bed.write(SETTINGS, f"[path-server]\nmatch-device=interface-name:eth2\nflags=signal\nsignal-port={SIGNAL_PORT}\n")
    bed.without_dispatcher_scripts()
    service = bed.start_service()
    made = links(bed)
    first, second = places(made)[0], (made[1].network.host(2), SIGNAL_PORT)
    bed.wait_endpoint(second[0])
    bed.sync()
    assert (*second[:1], "eth2", frozenset({"signal"}), SIGNAL_PORT) in endpoints(bed)
    status = bed.status().path(second[0])
    assert (status["state"], status["port"], status["owner"]) == ("active", SIGNAL_PORT, "nm-mptcp")
    EchoServer(bed.machine, address=first[0])
    connection = Client(client, first[0])
    connection.wait_peers(first, second)
    made[1].carrier(False)
    connection.wait_peers(first)
    connection.echo()
    made[1].carrier(True)
    connection.wait_peers(first, second)
    # Neither a restart nor a look makes anything of it, and it is known to be ours.
    before = bed.endpoints()
    service.stop()
    service = bed.start_service()
    with Writes(bed, service.program) as writes:
        bed.sync()
    assert writes.all == []
    assert bed.endpoints() == before
    connection.wait_peers(first, second)
    bed.nm_mptcp("clear", "--force")
    # A join that comes in this moment makes the kernel put one of its own there.
    assert [each for each in bed.endpoints() if "implicit" not in each.flags] == []


def test_endpoints_with_a_port_that_others_made_are_left_alone(bed: Bed) -> None:
    bed.without_dispatcher_scripts()
    made = links(bed)
    first, second = (link.network.host(2) for link in made)
    by_hand = {(first, "eth1", frozenset({"signal"}), SIGNAL_PORT), (second, "eth2", frozenset({"signal"}), 8000)}
    for address, device, _, port in by_hand:
        bed.sh(f"ip mptcp endpoint add {address} port {port} dev {device} signal")
    bed.write(SETTINGS, f"[path-x]\nflags=signal\nsignal-port={SIGNAL_PORT}\n")
    bed.start_service()
    bed.sync()
    # Where it is the very same port it is theirs, else ours stands beside it.
    ours = (second, "eth2", frozenset({"signal"}), SIGNAL_PORT)
    assert endpoints(bed) == by_hand | {ours}
    assert bed.status().path(first)["rule"] == "somebody-else-owns"
    bed.nm_mptcp("clear")
    assert endpoints(bed) == by_hand


def test_a_port_that_is_in_use_is_said_and_had_as_soon_as_it_is_free(bed: Bed) -> None:
    bed.without_dispatcher_scripts()
    bed.write(SETTINGS, f"[path-x]\nflags=signal\nsignal-port={SIGNAL_PORT}\n")
    with bed.machine.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("0.0.0.0", SIGNAL_PORT))
        server.listen()
        bed.start_service()
        made = links(bed)
        bed.sync()
        shown = bed.status().path(made[0].network.host(2))
        assert (shown["state"], shown["reason"]) == (
            "waiting",
            f"the kernel refused the endpoint: port {SIGNAL_PORT} is in use",
        )
    for link in made:
        bed.wait_endpoint(link.network.host(2), seconds=20)


def test_a_listener_cannot_be_had_twice_but_another_port_can(bed: Bed) -> None:
    """A changed port is a new endpoint; the old one goes."""
    bed.without_dispatcher_scripts()
    bed.write(SETTINGS, f"[path-x]\nmatch-device=interface-name:eth1\nflags=signal\nsignal-port={SIGNAL_PORT}\n")
    service = bed.start_service()
    made = links(bed)
    address = made[0].network.host(2)
    for link in made:
        bed.wait_endpoint(link.network.host(2))
    bed.sync()
    bed.write(SETTINGS, "[path-x]\nmatch-device=interface-name:eth1\nflags=signal\nsignal-port=7001\n")
    with Writes(bed, service.program) as writes:
        bed.machine.run("dbus-send", "--system", "--print-reply", "--dest=org.nm_mptcp1", "/org/nm_mptcp1",
                        "org.nm_mptcp1.Reload")  # fmt: skip
    assert [write for write in writes.all if "endpoint" in write] == ["delete endpoint", "add endpoint"]
    assert (address, "eth1", frozenset({"signal"}), 7001) in endpoints(bed)
    assert len(bed.endpoints()) == 2


def test_a_full_mesh_leads_to_every_address_of_the_server(bed: Bed, client: Namespace) -> None:
    """The machine is the client this time; the other one tells of a second address."""
    client.sh("ip address add 10.99.0.3/24 dev up0; ip mptcp endpoint add 10.99.0.3 dev up0 signal;"
              "ip mptcp limits set subflows 8")  # fmt: skip
    EchoServer(client)
    bed.without_dispatcher_scripts()
    bed.write(SETTINGS, "[path-x]\nflags=subflow,fullmesh\n")
    bed.start_service()
    made = links(bed)
    for link in made:
        assert bed.wait_endpoint(link.network.host(2)).flags == {"subflow", "fullmesh"}
    bed.sync()
    assert bed.path_manager.limits() == {"subflows": 8, "add_addr_accepted": 4}
    Connection(bed.machine, CLIENT)
    wanted = {(link.network.host(2), server) for link in made for server in (CLIENT, "10.99.0.3")}
    wait_for("four subflows", lambda: ways(bed) == wanted)


def ways(bed: Bed) -> set[tuple[str, str]]:
    """Source and destination of each established subflow to the echo server."""
    shown = bed.machine.run("ss", "-Htn", "state", "established", f"dport = :{PORT}")
    found = set()
    for line in shown.splitlines():
        ours, theirs = (place.rpartition(":")[0].partition("%")[0] for place in line.split()[2:4])
        found.add((ours, theirs))
    return found


def test_of_several_addresses_on_a_link_one_can_be_chosen(bed: Bed) -> None:
    bed.without_dispatcher_scripts()
    service = bed.start_service()
    link = bed.uplink("eth1", static="10.1.0.0/24")
    several = [link.network.host(number) for number in (2, 3, 4)]
    bed.profile(
        "eth1", "eth1", "ipv4.method manual", f"ipv4.addresses {','.join(f'{each}/24' for each in several)}",
        f"ipv4.gateway {link.gateway}",
    )  # fmt: skip
    bed.up("eth1")
    wait_for("all are paths", lambda: {each.address for each in bed.endpoints()} == set(several))
    bed.sync()
    bed.write(
        SETTINGS, f"[path-x]\nmatch-device=interface-name:eth1\nmatch-address=except:{several[1]}\nflags=disabled\n"
    )
    with Writes(bed, service.program) as writes:
        bed.machine.run("dbus-send", "--system", "--print-reply", "--dest=org.nm_mptcp1", "/org/nm_mptcp1",
                        "org.nm_mptcp1.Reload")  # fmt: skip
    assert [write for write in writes.all if "endpoint" in write] == ["delete endpoint"] * 2
    assert {each.address for each in bed.endpoints()} == {several[1]}
    for address in (several[0], several[2]):
        assert bed.status().path(address)["rule"] == "disabled-by-configuration"
