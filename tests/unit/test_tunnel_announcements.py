# SPDX-License-Identifier: GPL-2.0-or-later
"""When addresses may be announced to a peer in a tunnel."""

from __future__ import annotations

from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import Endpoint
from nm_mptcp.policy.tunnels import announces_tunnels_alone

INSIDE = {"10.8.0.2", "10.9.0.2"}


def announcing(*addresses: str) -> list[Endpoint]:
    return [Endpoint(address, flags=EndpointFlag.SIGNAL) for address in addresses]


def test_tunnels_addresses_may_while_no_links_is() -> None:
    assert announces_tunnels_alone(announcing("10.8.0.2", "10.9.0.2"), INSIDE)
    assert announces_tunnels_alone([*announcing("10.8.0.2"), Endpoint("10.1.0.50")], INSIDE)
    assert not announces_tunnels_alone(announcing("10.8.0.2", "10.1.0.50"), INSIDE)


def test_none_may_while_nothing_is_announced() -> None:
    """A link's address that is announced later must not get out before the filter is there."""
    assert not announces_tunnels_alone([Endpoint("10.8.0.2")], INSIDE)
