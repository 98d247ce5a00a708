# SPDX-License-Identifier: GPL-2.0-or-later
"""Where packets from unbound sockets leave: devices, rules, IPsec policies; and when that is looked up."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Mapping

import pytest

from nm_mptcp.kernel import egress, xfrm
from nm_mptcp.kernel.egress import EgressLookup
from nm_mptcp.kernel.errors import KernelError
from nm_mptcp.kernel.netlink import Message
from nm_mptcp.kernel.path_manager import PathManager
from nm_mptcp.kernel.rtnetlink import Rtnetlink
from nm_mptcp.kernel.sock_diag import subflows
from nm_mptcp.kernel.xfrm import XfrmPolicies, XfrmPolicyEvents
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import Egress, Endpoint, Family, Link, Tunnel, TunnelBypass
from tests.support.mptcp import Echo, two_paths
from tests.support.network import Network, ip, veth
from tests.support.waits import wait_for

IPV4, IPV6 = Family.IPV4, Family.IPV6


@pytest.fixture
def lookup(network: Network) -> Iterator[EgressLookup]:  # noqa: ARG001
    with EgressLookup() as made:
        yield made


@pytest.fixture
def uplink(network: Network) -> int:  # noqa: ARG001
    index = veth("va", "vb")
    ip("addr add 10.0.0.2/24 dev va")
    ip("addr add 2001:db8::2/64 dev va nodad")
    ip("route add default via 10.0.0.1 dev va metric 100")
    ip("-6 route add default via 2001:db8::1 dev va metric 100")
    return index


@pytest.fixture
def tunnel(network: Network) -> Iterator[int]:  # noqa: ARG001
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))
    ip("addr add 10.8.0.2/24 dev tun0")
    ip("addr add 2001:db8:8::2/64 dev tun0 nodad")
    ip("link set tun0 up")
    yield socket.if_nametoindex("tun0")
    os.close(descriptor)


def links() -> Mapping[int, Link]:
    with Rtnetlink() as rtnetlink:
        return {link.index: link for link in rtnetlink.links()}


def leaves(lookup: EgressLookup) -> tuple[set[int], set[int]]:
    """The interfaces by which the probes leave: IPv4, IPv6."""
    found = lookup.look(links(), afresh=True)
    return {each.ifindex for each in found[IPV4]}, {each.ifindex for each in found[IPV6]}


def test_without_a_tunnels_link_nothing_is_looked_up(lookup: EgressLookup, uplink: int) -> None:  # noqa: ARG001
    assert lookup.look(links(), afresh=True) == {}


def test_a_tunnel_without_routes_changes_nothing(lookup: EgressLookup, uplink: int, tunnel: int) -> None:  # noqa: ARG001
    assert leaves(lookup) == ({uplink}, {uplink})


def test_a_better_default_leads_into_the_tunnel(lookup: EgressLookup, uplink: int, tunnel: int) -> None:
    ip("route add default dev tun0 metric 50")
    assert leaves(lookup) == ({tunnel}, {uplink})
    ip("-6 route add default dev tun0 metric 50")
    assert leaves(lookup) == ({tunnel}, {tunnel})


@pytest.mark.parametrize(
    ("family", "halves"),
    [
        (IPV4, ("0.0.0.0/1", "128.0.0.0/1")),
        (IPV6, ("::/1", "8000::/1")),
        (IPV6, ("::/3", "2000::/4", "3000::/4", "fc00::/7")),
        (IPV6, ("2000::/3",)),
    ],
)
def test_halves_lead_into_the_tunnel(
    lookup: EgressLookup, uplink: int, tunnel: int, family: Family, halves: tuple[str, ...]
) -> None:
    for half in halves:
        ip(f"route add {half} dev tun0")
    assert {each.ifindex for each in lookup.look(links(), afresh=True)[family]} == {tunnel}
    other = IPV6 if family is IPV4 else IPV4
    assert {each.ifindex for each in lookup.look(links(), afresh=True)[other]} == {uplink}


@pytest.mark.parametrize("flag", ["-4", "-6"])
def test_rules_by_mark_lead_into_the_tunnel(lookup: EgressLookup, uplink: int, tunnel: int, flag: str) -> None:
    ip(f"{flag} route add default dev tun0 table 51820")
    ip(f"{flag} rule add not fwmark 51820 table 51820")
    ip(f"{flag} rule add table main suppress_prefixlength 0")
    assert leaves(lookup) == (({tunnel}, {uplink}) if flag == "-4" else ({uplink}, {tunnel}))


def test_rules_for_one_source_do_not_change_the_egress(lookup: EgressLookup, uplink: int, tunnel: int) -> None:  # noqa: ARG001
    ip("route add default dev tun0 table 42000")
    ip("rule add from 10.0.0.2 table 42000")
    assert leaves(lookup) == ({uplink}, {uplink})


@pytest.mark.usefixtures("tunnel")
@pytest.mark.parametrize("kind", ["", "unreachable", "blackhole", "prohibit"])
@pytest.mark.parametrize("flag", ["-4", "-6"])
def test_without_a_route_there_is_no_egress(lookup: EgressLookup, flag: str, kind: str) -> None:
    if kind:
        ip(f"{flag} route add {kind} default metric 1")
    assert leaves(lookup) == ({0}, {0})


def test_for_the_same_objects_nothing_is_looked_up_again(lookup: EgressLookup, uplink: int, tunnel: int) -> None:
    there, routes = links(), object()
    first = lookup.look(there, routes)
    ip("route add default dev tun0 metric 50")
    assert lookup.look(there, routes) is first
    assert {each.ifindex for each in first[IPV4]} == {uplink}
    assert {each.ifindex for each in lookup.look(there, object())[IPV4]} == {tunnel}


# --- IPsec


def policy(words: str, *, template: str = "tmpl src 10.0.0.2 dst 192.0.2.1 proto esp mode tunnel") -> None:
    try:
        ip(f"xfrm policy add {words} {template}")
    except AssertionError as error:
        pytest.skip(f"this kernel has no IPsec: {error}")


def encrypted(lookup: EgressLookup) -> list[bool]:
    return [each.encrypted for each in lookup.look(links(), afresh=True).get(IPV4, ())]


@pytest.mark.usefixtures("uplink")
class TestPolicies:
    @pytest.mark.parametrize(
        "words",
        [
            "src 0.0.0.0/0 dst 0.0.0.0/0 dir out",
            "src 10.0.0.2/32 dst 0.0.0.0/0 dir out",
            "src 10.0.0.0/24 dst 0.0.0.0/0 proto tcp dir out",
            "src 0.0.0.0/0 dst 0.0.0.0/0 dev va dir out",
            "src 0.0.0.0/0 dst 0.0.0.0/0 dir out priority 7",
        ],
    )
    def test_a_policy_that_matches_encrypts(self, lookup: EgressLookup, words: str) -> None:
        policy(words)
        assert encrypted(lookup) == [True, True]
        assert [each.encrypted for each in lookup.look(links(), afresh=True)[IPV6]] == [False, False]

    @pytest.mark.parametrize(
        "words",
        [
            "src 0.0.0.0/0 dst 0.0.0.0/0 dir in",
            "src 0.0.0.0/0 dst 0.0.0.0/0 dir fwd",
            "src 10.9.9.9/32 dst 0.0.0.0/0 dir out",
            "src 0.0.0.0/0 dst 203.0.113.0/24 dir out",
            "src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dir out",
            "src 0.0.0.0/0 dst 0.0.0.0/0 proto tcp dport 80 dir out",
            "src 0.0.0.0/0 dst 0.0.0.0/0 dev lo dir out",
            "src 0.0.0.0/0 dst 0.0.0.0/0 dir out mark 7",
            "src 0.0.0.0/0 dst 0.0.0.0/0 dir out if_id 7",
            "src ::/0 dst ::/0 dir out",
            "src 0.0.0.0/0 dst 0.0.0.0/0 dir out action block",
        ],
    )
    def test_a_policy_that_does_not_match_does_not_encrypt(self, lookup: EgressLookup, words: str) -> None:
        policy(words)
        assert not any(encrypted(lookup))

    def test_a_policy_without_a_required_template_does_not_encrypt(self, lookup: EgressLookup) -> None:
        policy("src 0.0.0.0/0 dst 0.0.0.0/0 dir out", template="")
        assert not any(encrypted(lookup))
        ip("xfrm policy flush")
        policy(
            "src 0.0.0.0/0 dst 0.0.0.0/0 dir out",
            template="tmpl src 10.0.0.2 dst 192.0.2.1 proto esp mode transport level use",
        )
        assert not any(encrypted(lookup))

    def test_the_policy_with_the_lowest_priority_applies(self, lookup: EgressLookup) -> None:
        policy("src 0.0.0.0/0 dst 0.0.0.0/0 dir out priority 20")
        policy("src 10.0.0.2/32 dst 0.0.0.0/1 dir out priority 10", template="")
        assert encrypted(lookup) == [False, True]

    def test_policies_match_the_source_of_the_route(self, lookup: EgressLookup) -> None:
        policy("src 10.7.0.7/32 dst 0.0.0.0/0 dir out")
        assert encrypted(lookup) == [False, False]
        ip("addr add 10.7.0.7/32 dev va")
        ip("rule add priority 220 table 220")
        ip("route add default via 10.0.0.1 dev va src 10.7.0.7 table 220")
        assert encrypted(lookup) == [True, True]

    def test_a_change_of_policies_is_reported(self, lookup: EgressLookup) -> None:
        loop = asyncio.new_event_loop()
        changes: list[None] = []
        lookup.follow(loop, lambda: changes.append(None))
        try:
            there, routes = links(), object()
            assert lookup.look(there, {}, (), routes) == {}
            policy("src 0.0.0.0/0 dst 0.0.0.0/0 dir out")
            loop.run_until_complete(asyncio.sleep(0.05))
            assert changes
            assert lookup.look(there, {}, (), routes)[IPV4][0].encrypted
            ip("xfrm policy flush")
            loop.run_until_complete(asyncio.sleep(0.05))
            assert lookup.look(there, {}, (), routes) == {}
        finally:
            lookup.unfollow()
            loop.close()


def test_without_ipsec_there_are_no_policies_and_no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(XfrmPolicies, "PROTOCOL", 31)  # not assigned
    monkeypatch.setattr(xfrm, "XFRM", 31)
    with XfrmPolicies() as policies:
        assert policies.outgoing() == ()
    loop = asyncio.new_event_loop()
    events = XfrmPolicyEvents(lambda: None)
    events.start(loop)
    events.close()
    loop.close()


def test_a_policy_of_linux_6_1_is_parsed() -> None:
    """What 6.1 answered for ``ip xfrm policy add src 10.9.0.7/32 dst 0.0.0.0/0 dir out priority 3 tmpl ... mode tunnel``."""
    selector = bytes(16) + bytes([10, 9, 0, 7]) + bytes(12) + bytes(8) + struct.pack("=HBBBxxxiI", 2, 0, 32, 0, 0, 0)
    info = selector + bytes(96) + struct.pack("=IIBBBB4x", 3, 8, 1, 0, 0, 0)
    template = bytes(24) + struct.pack("=H2x", 2) + bytes(16) + struct.pack("=IBBBx", 0, 1, 0, 0) + b"\xff" * 12
    body = info + struct.pack("=HH", 4 + len(template), 5) + template + struct.pack("=HHBxxx", 5, 16, 0)
    found = xfrm.parse(Message(0x13, 0, 1, body, 0, len(body)))
    assert found is not None
    assert (str(found.source), str(found.destination)) == ("10.9.0.7/32", "0.0.0.0/0")
    assert (found.priority, found.encrypts, found.ifindex) == (3, True, 0)


# --- existing subflows


def test_subflows_are_classified_by_the_route_to_their_peer(
    network: Network, far: Network, lookup: EgressLookup
) -> None:
    first, second = two_paths(network, far)
    far.ip("addr add 10.9.0.3/32 dev lo")
    with PathManager() as manager:
        manager.add(Endpoint("10.2.0.1", second, EndpointFlag.SUBFLOW))
    with Echo(far, "10.9.0.1"), Echo(far, "10.9.0.3", port=5002):
        wait_for("four subflows", lambda: len([each for each in subflows() if each.established]) == 4)
        ip("rule flush")
        ip("rule add priority 32766 table main")
        ip("route add 10.9.0.3/32 dev v2")
        tunnels = {IPV4: Tunnel("v1", frozenset({first}))}
        there = subflows()
        assert lookup.bypass(there, tunnels) == TunnelBypass(
            frozenset({"10.1.0.1", "10.2.0.1"}), frozenset({"10.2.0.1"})
        )
        assert {each.remote for each in lookup.tunnelled(there, tunnels)} == {"10.9.0.1"}
        assert lookup.bypass(there, {IPV6: Tunnel("v1", frozenset({first}))}) == TunnelBypass()


def test_another_error_is_raised(lookup: EgressLookup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "NO_ROUTE", {})
    with pytest.raises(KernelError, match=r"cannot find the route to 85\.85\.85\.85"):
        lookup.of("85.85.85.85")


def test_without_links_there_is_no_egress(lookup: EgressLookup) -> None:
    assert lookup.of("85.85.85.85") == Egress()
