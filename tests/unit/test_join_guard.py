# SPDX-License-Identifier: GPL-2.0-or-later
"""Which local addresses tell that a connection began in a tunnel; when addresses may be announced in it."""

from __future__ import annotations

from nm_mptcp.engine.join_guard import addresses_of, announces_tunnels_alone
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import Address, Desired, Endpoint, Kernel, Link

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


def announcing(*addresses: str) -> frozenset[Endpoint]:
    return frozenset(Endpoint(address, flags=EndpointFlag.SIGNAL) for address in addresses)


def test_a_tunnels_address_may_be_announced_while_no_links_is() -> None:
    inside = {"10.8.0.2"}
    assert announces_tunnels_alone(Desired(), Kernel(endpoints=announcing("10.8.0.2")), inside)
    assert announces_tunnels_alone(Desired(endpoints=announcing("10.8.0.2")), Kernel(), inside)
    assert not announces_tunnels_alone(Desired(endpoints=announcing("10.1.0.50")), Kernel(), inside)
    assert not announces_tunnels_alone(Desired(), Kernel(endpoints=announcing("10.8.0.2", "10.1.0.50")), inside)


def test_nothing_may_be_announced_while_nothing_is() -> None:
    """An address that is announced later must not get out before the filter is there."""
    assert not announces_tunnels_alone(Desired(), Kernel(endpoints=frozenset({Endpoint("10.8.0.2")})), {"10.8.0.2"})
