# SPDX-License-Identifier: GPL-2.0-or-later
"""The grace period of an endpoint whose address was removed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nm_mptcp.engine.address_grace import GRACE, GRACE_AFTER_LINK, AddressGrace
from nm_mptcp.model.state import Address, DeviceState, Link

from .situations import Situation

A = "2001:db8:1::2"
NOW = 1000.0


class World:
    """A link with an endpoint of ours, and the grace period of its address."""

    def __init__(self) -> None:
        self.situation = Situation()
        self.situation.link("e1", f"{A}/64")
        self.situation.endpoint(A, 2, ours=True)
        self.there = self.situation.addresses[2]
        self.grace = AddressGrace()

    def look(self, after: float) -> set[str]:
        snapshot = self.situation.snapshot()
        found = self.grace.update(snapshot.kernel, snapshot.networkmanager, snapshot.kernel.endpoints, NOW + after)
        return {address.address for address in found}

    def away(self) -> None:
        self.situation.addresses[2] = []

    def back(self) -> None:
        self.situation.addresses[2] = self.there

    def link(self, **changes: Any) -> None:
        self.situation.links[2] = replace(self.situation.links[2], **changes)


def test_the_period_is_as_long_as_networkmanager_may_take() -> None:
    world = World()
    assert world.look(0) == set()
    world.away()
    assert world.look(1) == {A}
    assert world.grace.next_due(NOW + 1) == NOW + 1 + GRACE
    assert world.look(1 + GRACE) == set()
    assert world.grace.next_due(NOW + 1 + GRACE) is None


def test_each_removal_starts_a_new_period() -> None:
    world = World()
    for after in (0.0, 10.0, 20.0):
        world.back()
        assert world.look(after) == set()
        world.away()
        assert world.look(after + 1) == {A}


def test_the_period_starts_with_the_return_of_the_link() -> None:
    world = World()
    world.look(0)
    world.away()
    world.link(up=False, carrier=False)
    assert world.look(1) == {A}
    assert world.look(1000) == {A}
    world.link(up=True, carrier=True)
    assert world.look(1001) == {A}
    assert world.look(1000 + GRACE_AFTER_LINK) == set()


def test_the_last_state_of_the_address_is_returned() -> None:
    world = World()
    world.look(0)
    world.away()
    snapshot = world.situation.snapshot()
    found = world.grace.update(snapshot.kernel, snapshot.networkmanager, snapshot.kernel.endpoints, NOW + 1)
    assert found == {Address(2, A, 64, flags=world.there[0].flags)}


def test_an_address_removed_before_our_start_has_a_period() -> None:
    world = World()
    world.away()
    assert world.look(0) == {A}
    assert world.look(GRACE) == set()


def test_another_activation_ends_the_period() -> None:
    world = World()
    world.look(0)
    world.away()
    assert world.look(0.1) == {A}
    world.situation.device("e1", activation=":1.5/77")
    assert world.look(0.2) == set()
    assert world.look(0.3) == set()


def test_no_period_on_a_device_that_is_not_connected() -> None:
    for state in (DeviceState.DEACTIVATING, DeviceState.DISCONNECTED, DeviceState.UNMANAGED, DeviceState.FAILED):
        world = World()
        world.look(0)
        world.away()
        world.situation.device("e1", state=state)
        assert world.look(0.1) == set(), state


def test_an_address_that_moved_to_another_link_has_no_period() -> None:
    world = World()
    world.look(0)
    world.away()
    world.situation.link("e2", f"{A}/64")
    assert world.look(0.1) == set()


def test_no_period_on_a_removed_interface() -> None:
    world = World()
    world.look(0)
    world.away()
    world.situation.links = {3: Link(3, "e2")}
    assert world.look(0.1) == set()
