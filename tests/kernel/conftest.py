# SPDX-License-Identifier: GPL-2.0-or-later
"""Each test here runs in a network namespace of its own, on the real kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nm_mptcp.kernel import sysctl
from tests.support.network import Network, reason_to_skip

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
def subject(network: Network) -> Iterator[Subject]:  # noqa: ARG001
    """A mirror of the fresh namespace, with its monitor."""
    # The kernel's own doings in IPv6 (address detection) would only make it slower.
    for where in ("all", "default"):
        sysctl.write(f"net/ipv6/conf/{where}/accept_dad", 0)
    subject = Subject()
    yield subject
    subject.close()
