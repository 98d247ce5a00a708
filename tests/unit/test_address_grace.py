# SPDX-License-Identifier: GPL-2.0-or-later
"""How long an endpoint waits for its address."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nm_mptcp.engine.address_grace import GONE, GONE_WITH_THE_LINK, AddressGrace
from nm_mptcp.model.state import Address, DeviceState, Link

from .situations import Situation

A = "2001:db8:1::2"
NOW = 1000.0


class World:
    """A link with an endpoint of ours, and the one who waits for its address."""

    def __init__(self) -> None:
        self.situation = Situation()
        self.situation.link("e1", f"{A}/64")
        self.situation.endpoint(A, 2, ours=True)
        self.there = self.situation.addresses[2]
        self.absences = AddressGrace()

    def look(self, after: float) -> set[str]:
        snapshot = self.situation.snapshot()
        found = self.absences.look(snapshot.kernel, snapshot.networkmanager, snapshot.kernel.endpoints, NOW + after)
        return {address.address for address in found}

    def away(self) -> None:
        self.situation.addresses[2] = []

    def back(self) -> None:
        self.situation.addresses[2] = self.there

    def link(self, **changes: Any) -> None:
        self.situation.links[2] = replace(self.situation.links[2], **changes)


def test_it_waits_as_long_as_networkmanager_may_take() -> None:
    world = World()
    assert world.look(0) == set()
    world.away()
    assert world.look(1) == {A}
    assert world.absences.next_due(NOW + 1) == NOW + 1 + GONE
    assert world.look(1 + GONE) == set()
    assert world.absences.next_due(NOW + 1 + GONE) is None


def test_each_time_anew() -> None:
    world = World()
    for after in (0.0, 10.0, 20.0):
        world.back()
        assert world.look(after) == set()
        world.away()
        assert world.look(after + 1) == {A}


def test_while_the_link_is_down_time_stands_still() -> None:
    world = World()
    world.look(0)
    world.away()
    world.link(up=False, carrier=False)
    assert world.look(1) == {A}
    assert world.look(1000) == {A}
    world.link(up=True, carrier=True)
    assert world.look(1001) == {A}
    assert world.look(1000 + GONE_WITH_THE_LINK) == set()


def test_what_is_known_of_the_address_is_told() -> None:
    world = World()
    world.look(0)
    world.away()
    snapshot = world.situation.snapshot()
    found = world.absences.look(snapshot.kernel, snapshot.networkmanager, snapshot.kernel.endpoints, NOW + 1)
    assert found == {Address(2, A, 64, flags=world.there[0].flags)}


def test_after_a_start_of_ours_it_waits_as_well() -> None:
    world = World()
    world.away()
    assert world.look(0) == {A}
    assert world.look(GONE) == set()


def test_another_activation_has_addresses_of_its_own() -> None:
    world = World()
    world.look(0)
    world.away()
    assert world.look(0.1) == {A}
    world.situation.device("e1", activation=":1.5/77")
    assert world.look(0.2) == set()
    assert world.look(0.3) == set()


def test_a_device_that_is_not_connected_brings_none_back() -> None:
    for state in (DeviceState.DEACTIVATING, DeviceState.DISCONNECTED, DeviceState.UNMANAGED, DeviceState.FAILED):
        world = World()
        world.look(0)
        world.away()
        world.situation.device("e1", state=state)
        assert world.look(0.1) == set(), state


def test_an_address_that_stands_on_another_link_now_has_moved() -> None:
    world = World()
    world.look(0)
    world.away()
    world.situation.link("e2", f"{A}/64")
    assert world.look(0.1) == set()


def test_an_interface_that_is_gone_brings_none_back() -> None:
    world = World()
    world.look(0)
    world.away()
    world.situation.links = {3: Link(3, "e2")}
    assert world.look(0.1) == set()
