# SPDX-License-Identifier: GPL-2.0-or-later
"""Which local addresses tell that a connection began in a tunnel."""

from __future__ import annotations

from nm_mptcp.engine.join_guard import addresses_of
from nm_mptcp.model.state import Address, Kernel, Link

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
