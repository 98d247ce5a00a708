# SPDX-License-Identifier: GPL-2.0-or-later
"""The packet filter that keeps connections in tunnels: which packets it drops, and what it remembers."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from nm_mptcp.kernel import join_filter
from nm_mptcp.kernel.errors import KernelError
from nm_mptcp.kernel.join_filter import ANNOUNCED_NAME, IPSEC_NAME, OTHER_NAME, JoinFilter
from tests.support.network import Network, ip, veth
from tests.support.waits import wait_for

pytestmark = pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")

INSIDE, PEER, INSIDE6, PEER6 = "10.8.0.2", "10.8.0.9", "2001:db8:8::2", "2001:db8:8::9"

SYN, RST, ACK = 0x02, 0x04, 0x10
MP_CAPABLE, MP_JOIN, ADD_ADDR = 0, 1, 3


@pytest.fixture
def tunnel(network: Network) -> Network:
    """A device that stands for a tunnel, and one for a link; nobody has to be asked for hardware addresses."""
    for name in ("tun0", "eth0"):
        veth(name, f"{name}-far")
        ip(f"link set {name}-far up")
    ip(f"address add {INSIDE}/24 dev tun0")
    ip(f"address add {INSIDE6}/64 dev tun0 nodad")
    ip("address add 10.1.0.50/24 dev eth0")
    for address, device in ((PEER, "tun0"), (PEER6, "tun0"), (PEER, "eth0")):
        ip(f"neighbour replace {address} lladdr 02:00:00:00:00:01 dev {device}")
    return network


def nft(*arguments: str, text: str = "") -> str:
    return subprocess.run(["nft", *arguments], input=text, capture_output=True, check=True, encoding="utf-8").stdout


def dropped(chain: str) -> int:
    """How many packets a chain of the table has dropped."""
    listed = json.loads(nft("-j", "list", "chain", "inet", "nm-mptcp", chain))["nftables"]
    words = [word for each in listed if "rule" in each for word in each["rule"]["expr"]]
    return sum(int(word["counter"]["packets"]) for word in words if "counter" in word)


def segment(flags: int, subtype: int, length: int, low: int = 0) -> bytes:
    """A TCP segment with an option of MPTCP (RFC 8684) of that subtype, with the low bits beside it, and length."""
    option = bytes([30, length, subtype << 4 | low]) + bytes(length - 3)
    option += b"\1" * (-len(option) % 4)
    return struct.pack("!HHIIBBHHH", 5000, 40000, 1, 1, (20 + len(option)) // 4 << 4, flags, 1000, 0, 0) + option


def sent(device: str) -> int:
    """The packets that a device has sent."""
    (shown,) = json.loads(ip(f"-j -s link show {device}"))
    return int(shown["stats64"]["tx"]["packets"])


def send(segment: bytes, *, to: str = PEER, device: str = "") -> None:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        with contextlib.suppress(PermissionError):  # it was dropped
            sock.sendto(segment, (to, 0))


@pytest.mark.parametrize(("length", "to"), [(16, PEER), (18, PEER), (28, PEER6), (30, PEER6), (28, PEER), (16, PEER6)])
def test_an_announcement_is_dropped_in_a_tunnel_and_nowhere_else(tunnel: Network, length: int, to: str) -> None:
    JoinFilter().write(frozenset({"tun0"}), frozenset())
    send(segment(ACK, ADD_ADDR, length), to=to)
    assert dropped("announcement") == 1
    if to == PEER:
        send(segment(ACK, ADD_ADDR, length), device="eth0")
    assert dropped("announcement") == 1
    assert tunnel


@pytest.mark.usefixtures("tunnel")
@pytest.mark.parametrize("length", [8, 10, 20, 22])
def test_the_echo_of_a_peers_announcement_is_not(length: int) -> None:
    JoinFilter().write(frozenset({"tun0"}), frozenset())
    send(segment(ACK, ADD_ADDR, length, low=1))
    assert dropped("announcement") == 0


@pytest.mark.usefixtures("tunnel")
def test_none_is_where_tunnels_alone_are_announced() -> None:
    JoinFilter().write(frozenset({"tun0", ANNOUNCED_NAME}), frozenset())
    send(segment(ACK, ADD_ADDR, 16))
    assert dropped("announcement") == 0


def test_nor_is_one_that_is_only_forwarded(tunnel: Network, far: Network) -> None:
    veth("va", "vb", peer_network=far)
    ip("address add 10.2.0.1/24 dev va")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    JoinFilter().write(frozenset({"tun0"}), frozenset())
    before = sent("tun0")
    with far.entered():
        ip("address add 10.2.0.2/24 dev vb")
        ip("link set vb up")
        ip("route add default via 10.2.0.1")
        send(segment(ACK, ADD_ADDR, 16))
    wait_for("it is forwarded", lambda: sent("tun0") > before)
    assert dropped("announcement") == 0
    assert tunnel


@pytest.mark.usefixtures("tunnel")
@pytest.mark.parametrize(("flags", "length"), [(SYN, 12), (SYN | ACK, 12)], ids=["begun here", "begun by the peer"])
def test_joins_to_a_peer_of_a_connection_in_a_tunnel_are_dropped_beside_it(flags: int, length: int) -> None:
    made = JoinFilter()
    made.write(frozenset({"tun0"}), frozenset())
    send(segment(SYN, MP_JOIN, 12), device="eth0")
    assert dropped("hold4") == 0
    send(segment(flags, MP_CAPABLE, length))
    assert made.peers() == {PEER}
    send(segment(SYN, MP_JOIN, 12))
    assert dropped("hold4") == 0, "in the tunnel it may join"
    send(segment(SYN, MP_JOIN, 12), device="eth0")
    assert dropped("hold4") == 1
    send(segment(RST, MP_CAPABLE, 12), device="eth0")
    assert dropped("postrouting") == 1, "its reset"


@pytest.mark.usefixtures("tunnel")
def test_what_nft_lists_can_be_loaded_again() -> None:
    JoinFilter().write(frozenset({"tun0", "wg0", IPSEC_NAME}), frozenset({PEER, PEER6}))
    # The time that is left of elements counts down.
    saved = nft("-s", "list", "ruleset")
    nft("flush", "ruleset")
    nft("-f", "-", text=saved)
    assert "announcement" in saved
    assert nft("-s", "list", "ruleset") == saved


@pytest.mark.usefixtures("network")
def test_a_table_of_another_release_is_none_of_ours_and_none_at_all() -> None:
    made = JoinFilter()
    assert made.tunnels() == frozenset()
    nft("-f", "-", text='table inet nm-mptcp { set tunnels-1 { type ifname; elements = { "tun0" } }; }')
    assert made.tunnels() == {OTHER_NAME}
    made.write(frozenset({"tun0"}), frozenset())
    assert made.tunnels() == {"tun0"}
    made.write(frozenset(), frozenset())
    assert made.tunnels() == frozenset()


def test_where_the_kernel_has_no_nftables_there_is_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(what: str, *_: str, **__: str) -> str:
        raise KernelError(errno.EINVAL, what, "nft: netlink: Error: cache initialization failed: Invalid argument")

    monkeypatch.setattr(join_filter, "_nft", fails)
    assert JoinFilter().tunnels() == frozenset()
