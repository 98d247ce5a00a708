# SPDX-License-Identifier: GPL-2.0-or-later
"""Which addresses are a tunnel's, and when addresses may be announced to a peer in it."""

from __future__ import annotations

from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.reasons import Reason, Why
from nm_mptcp.model.state import Address, Endpoint, Kernel, Link, Path, State
from nm_mptcp.policy.tunnels import addresses_of, announces_tunnels_alone

INSIDE = {"10.8.0.2", "10.9.0.2"}


def announcing(*addresses: str) -> list[Endpoint]:
    return [Endpoint(address, flags=EndpointFlag.SIGNAL) for address in addresses]


def test_tunnels_addresses_may_while_no_links_is() -> None:
    assert announces_tunnels_alone((), announcing("10.8.0.2", "10.9.0.2"), INSIDE)
    assert announces_tunnels_alone((), [*announcing("10.8.0.2"), Endpoint("10.1.0.50")], INSIDE)
    assert not announces_tunnels_alone((), announcing("10.8.0.2", "10.1.0.50"), INSIDE)


def test_a_link_that_is_lost_for_a_while_counts_as_one_that_is_announced() -> None:
    lost = Path("10.1.0.50", 2, "wlan0", State.SUSPENDED, Reason(Why.NO_CARRIER), flags=EndpointFlag.SIGNAL)
    assert not announces_tunnels_alone([lost], announcing("10.8.0.2"), INSIDE)


def test_none_may_while_nothing_is_announced() -> None:
    """A link's address that is announced later must not get out before the filter is there."""
    assert not announces_tunnels_alone((), [Endpoint("10.8.0.2")], INSIDE)


# --- which local addresses tell that a connection began in a tunnel


WIFI = {2: (Address(2, "10.1.0.50", 24),)}
TUNNEL = {3: (Address(3, "10.8.0.2", 24),)}


def kernel(addresses: dict[int, tuple[Address, ...]], *tunnel: Link) -> Kernel:
    return Kernel(links={link.index: link for link in (Link(2, "wlan0"), *tunnel)}, addresses=addresses)


def test_a_tunnels_own_addresses_do() -> None:
    up = kernel(WIFI | TUNNEL, Link(3, "tun0", "tun"))
    assert addresses_of({3}, up, frozenset()) == {"10.8.0.2"}


def test_they_do_while_the_tunnel_is_deleted_and_after_it() -> None:
    """It is down before its addresses are gone."""
    down = kernel(WIFI | TUNNEL, Link(3, "tun0", "tun", up=False))
    assert addresses_of(set(), down, frozenset({"10.8.0.2"})) == {"10.8.0.2"}
    assert addresses_of(set(), kernel(WIFI), frozenset({"10.8.0.2"})) == {"10.8.0.2"}


def test_those_that_another_link_has_do_not() -> None:
    unnumbered = kernel(WIFI | {3: (Address(3, "10.1.0.50", 32),)}, Link(3, "tun0", "tun"))
    assert addresses_of({3}, unnumbered, frozenset()) == set()
    elsewhere = kernel({2: (Address(2, "10.8.0.2", 24),)})
    assert addresses_of(set(), elsewhere, frozenset({"10.8.0.2"})) == set()
