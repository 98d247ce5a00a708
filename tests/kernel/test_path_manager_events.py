# SPDX-License-Identifier: GPL-2.0-or-later
"""The path manager's events, from real connections."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator

import pytest

from nm_mptcp.kernel.path_manager import PathManager
from nm_mptcp.kernel.path_manager_events import EventName, PathManagerEvent, PathManagerEvents
from nm_mptcp.kernel.sock_diag import destroy, subflows
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import Endpoint
from tests.support.mptcp import Echo, two_paths
from tests.support.network import Network
from tests.support.waits import wait_for


class Listener:
    def __init__(self) -> None:
        self.seen: list[PathManagerEvent | None] = []
        self.loop = asyncio.new_event_loop()
        self.events = PathManagerEvents(self.seen.append)
        self.events.start(self.loop)

    def wait(self, name: EventName) -> PathManagerEvent:
        def found() -> PathManagerEvent | None:
            self.events.read()
            return next((event for event in self.seen if event is not None and event.name is name), None)

        event = wait_for(f"the event {name.name}", found)
        assert event is not None
        return event


@pytest.fixture
def listener(network: Network) -> Iterator[Listener]:  # noqa: ARG001
    listener = Listener()
    yield listener
    listener.events.close()
    listener.loop.close()


@pytest.mark.parametrize(
    ("server", "first", "second"),
    [("10.9.0.1", "10.1.0.1", "10.2.0.1"), ("2001:db8:9::1", "2001:db8:1::1", "2001:db8:2::1")],
)
def test_a_connection_and_its_subflows_come_and_go(
    listener: Listener, network: Network, far: Network, server: str, first: str, second: str
) -> None:
    _, index = two_paths(network, far)
    with PathManager() as manager:
        manager.add(Endpoint(second, index, EndpointFlag.SUBFLOW | EndpointFlag.BACKUP, id=9))
    with Echo(far, server):
        created = listener.wait(EventName.CREATED)
        joined = listener.wait(EventName.SUBFLOW_ESTABLISHED)
        tokens = {subflow.token for subflow in subflows()}
        for subflow in subflows():
            if subflow.local == second:
                destroy(subflow)
        ended = listener.wait(EventName.SUBFLOW_CLOSED)
    closed = listener.wait(EventName.CLOSED)
    assert (created.local, created.remote, created.remote_port) == (first, server, 5001)
    assert not created.server_side
    assert (joined.local, joined.local_id, joined.ifindex) == (second, 9, index)
    assert (ended.local, ended.error) == (second, errno.ECONNABORTED)
    assert tokens == {created.token} == {joined.token} == {ended.token} == {closed.token}


def test_lost_events_are_reported(listener: Listener, network: Network, far: Network) -> None:
    two_paths(network, far)
    assert listener.events._subscription.socket is not None
    listener.events._subscription.socket.setsockopt(socket.SOL_SOCKET, 33, 1)  # SO_RCVBUFFORCE: the minimum
    for port in range(5001, 5021):
        with Echo(far, "10.9.0.1", port=port):
            pass
    listener.events.read()
    assert None in listener.seen
    listener.seen.clear()
    with Echo(far, "10.9.0.1"):
        listener.wait(EventName.CREATED)
