# SPDX-License-Identifier: GPL-2.0-or-later
"""Each test here runs in a network namespace of its own, on the real kernel."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nm_mptcp.kernel import sysctl
from nm_mptcp.kernel.path_manager import PathManager
from nm_mptcp.launch import programs
from tests.support.mptcp import two_paths
from tests.support.network import Network, reason_to_skip, veth
from tests.support.site import Site

from .examined import Machine
from .subject import Subject


@pytest.fixture(scope="session")
def _namespaces() -> None:
    if reason := reason_to_skip():
        pytest.skip(reason)


@pytest.fixture
def network(_namespaces: None) -> Iterator[Network]:
    """A fresh namespace that the test is in."""
    network = Network()
    try:
        with network.entered():
            yield network
    finally:
        network.close()


@pytest.fixture
def far(_namespaces: None) -> Iterator[Network]:
    """Another fresh namespace, for the other side."""
    network = Network()
    try:
        yield network
    finally:
        network.close()


@pytest.fixture
def manager(network: Network) -> Iterator[PathManager]:  # noqa: ARG001
    """The path manager of the fresh namespace."""
    with PathManager() as manager:
        yield manager


@pytest.fixture
def subject(network: Network) -> Iterator[Subject]:  # noqa: ARG001
    """A FIB of the fresh namespace, kept up to date by events."""
    # Without IPv6 address detection, which would only take time.
    for where in ("all", "default"):
        sysctl.write(f"net/ipv6/conf/{where}/accept_dad", 0)
    subject = Subject()
    yield subject
    subject.close()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bus, hence neither our service nor NetworkManager."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")


@pytest.fixture
def machine(network: Network, tmp_path: Path) -> Machine:  # noqa: ARG001
    return Machine(tmp_path)


@pytest.fixture
def links(network: Network, far: Network, machine: Machine) -> Machine:
    """Two links and no rules; an endpoint on each."""
    two_paths(network, far)
    for number in (1, 2):
        network.ip(f"rule del from 10.{number}.0.1")
        network.ip(f"-6 rule del from 2001:db8:{number}::1")
        network.ip(f"route flush table 10{number}")
        network.ip(f"-6 route flush table 10{number}")
        network.ip(f"mptcp endpoint add 10.{number}.0.1 dev v{number} subflow")
    for name in ("all", "default", "v1", "v2"):
        sysctl.write(f"net/ipv4/conf/{name}/rp_filter", 0)
    return machine


@pytest.fixture
def site(network: Network, far: Network) -> Iterator[Site]:
    """A web site on the other side of a link."""
    veth("near", "far", peer_network=far)
    network.ip("addr add 10.0.0.1/24 dev near")
    far.ip("addr add 10.0.0.2/24 dev far")
    with Site(far, "10.0.0.2") as site:
        yield site


@pytest.fixture
def wrapper() -> str:
    """The library that mptcpize preloads."""
    found = programs.wrappers(shutil.which("mptcpize"))
    if not found:
        pytest.skip("libmptcpwrap.so is not installed")
    return found[0].path
