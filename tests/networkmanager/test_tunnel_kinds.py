# SPDX-License-Identifier: GPL-2.0-or-later
"""One law for every kind of tunnel: no packet of a connection that began in it leaves beside it, and ``explain`` says so."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from nm_mptcp.kernel.join_filter import IPSEC_NAME

from ..support.waits import wait_for
from .bed import SERVER, SERVER6, Bed
from .test_tunnels import wait_guarded
from .test_vpn_guard import tun_profile
from .traffic import Connection, EchoServer
from .uplinks import Links
from .vpn import CLIENT, CLIENT6, MARK, VPN, beside_the_tunnel
from .wireguard import CLIENT as WG_CLIENT
from .wireguard import NAME, WireGuard, WireGuardProfile, need_wireguard_in_kernel

LATER = 5001

#: A network behind the tunnels that carry some hosts, and a server there; it is reached beside them as well, as a leak needs.
PREFIX, BEHIND = "198.51.100.0/24", "198.51.100.1"
PREFIX6, BEHIND6 = "2001:db8:51::/64", "2001:db8:51::1"

#: What makes a tunnel; returns the local addresses of connections in it.
Kind = Callable[[Bed, Links], set[str]]


@pytest.fixture
def up(bed: Bed) -> Links:
    """Both links are paths for both families; echo servers listen."""
    links = Links(
        bed.uplink("wlan0", dhcp="10.1.0.0/24", ra="2001:db8:1::/64"),
        bed.uplink("wwan0", dhcp="10.2.0.0/24", ra="2001:db8:2::/64"),
    )
    for name, link, metric in (("Wi-Fi", links.wifi, 600), ("LTE", links.lte, 700)):
        metrics = (f"{family}.route-metric {metric}" for family in ("ipv4", "ipv6"))
        bed.profile(name, link.name, "ipv6.method auto", *metrics)
    bed.far.sh(f"ip address add {BEHIND}/32 dev lo; ip -6 address add {BEHIND6}/128 dev lo nodad")
    EchoServer(bed.far, LATER)
    bed.wait_for_dispatcher()
    bed.start_service()
    links.bring_up()
    for link in (links.wifi, links.lte):
        bed.wait_endpoint(link.address6())
    return links


def obeys(bed: Bed, links: Links, server: str, inside: set[str]) -> None:
    """A connection to this server has its subflows in the tunnel, and leaves no packet beside it, also when it ends."""
    told = json.loads(bed.nm_mptcp("explain", "--json", server))
    captures = [link.capture() for link in (links.wifi, links.lte)]
    connection = Connection(bed.machine, server, port=LATER)
    for _ in range(20):
        connection.echo(bytes(2000))
    bed.sync()
    subflows = {local for local, _ in connection.subflows()}
    assert subflows <= inside
    followers = {each["address"] for each in told["subflows"] if each["follows"]}
    assert subflows == {told["first"]["source"], *followers}
    connection.close()
    wait_for("it is closed", lambda: not connection.subflows())
    assert not beside_the_tunnel(*captures, port=LATER)


def guarded(bed: Bed, links: Links, *families: str) -> None:
    """Wait until no path of these families is left below a full tunnel."""
    for link in (links.wifi, links.lte):
        for family in families:
            bed.wait_no_endpoint(link.address if family == "4" else link.address6())
    bed.sync()


# --- tunnels that carry some hosts


def tun(bed: Bed, _: Links) -> set[str]:
    vpn = VPN(bed)
    vpn.up(f"{CLIENT}/24", f"{CLIENT6}/64")
    bed.sh(f"ip route add {PREFIX} dev tun0; ip -6 route add {PREFIX6} dev tun0")
    wait_guarded(bed)
    return {CLIENT, CLIENT6}


def tun_of_networkmanager(bed: Bed, _: Links) -> set[str]:
    tun_profile(bed, "ipv4.never-default yes", f"ipv4.routes {PREFIX}")
    VPN(bed, name="vpn0")
    bed.up("VPN")
    wait_guarded(bed, "vpn0")
    return {CLIENT}


def wireguard(bed: Bed, *, program: bool) -> set[str]:
    WireGuard(bed, PREFIX, program=program)
    wait_guarded(bed, NAME)
    return {WG_CLIENT}


def wireguard_go(bed: Bed, _: Links) -> set[str]:
    return wireguard(bed, program=True)


def wireguard_of_the_kernel(bed: Bed, _: Links) -> set[str]:
    need_wireguard_in_kernel(bed)
    return wireguard(bed, program=False)


def wireguard_of_networkmanager_and_the_kernel(bed: Bed, _: Links) -> set[str]:
    need_wireguard_in_kernel(bed)
    WireGuardProfile(bed, PREFIX)
    wait_guarded(bed, NAME)
    return {WG_CLIENT}


def tailscale(bed: Bed, *routes: str) -> set[str]:
    """Its rules and its table; its own packets have its mark."""
    vpn = VPN(bed, mark=0x80000)
    vpn.up()
    for route in routes:
        bed.sh(f"ip route add {route} table 52")
    bed.sh("""
        ip rule add priority 5210 fwmark 0x80000/0xff0000 lookup main
        ip rule add priority 5230 fwmark 0x80000/0xff0000 lookup default
        ip rule add priority 5250 fwmark 0x80000/0xff0000 unreachable
        ip rule add priority 5270 lookup 52
    """)
    return {CLIENT}


def tailscale_with_a_subnet(bed: Bed, _: Links) -> set[str]:
    inside = tailscale(bed, f"{PREFIX} dev tun0")
    wait_guarded(bed)
    return inside


def ipsec(bed: Bed, links: Links) -> set[str]:
    """ESP by policies, without a device, as strongSwan has it: a route that chooses the inner address, which is encrypted."""
    inner, outer, near = "10.9.0.7", "192.0.2.79", links.wifi.address
    keys = f"auth 'hmac(sha256)' 0x{'07' * 32} enc 'cbc(aes)' 0x{'09' * 16}"
    for namespace in (bed.machine, bed.far):
        for source, destination, spi in ((near, outer, 7), (outer, near, 9)):
            state = f"src {source} dst {destination} proto esp spi {spi} mode tunnel {keys}"
            done = namespace.attempt("sh", "-c", f"ip xfrm state add {state}")
            if done.returncode:
                pytest.skip(f"this kernel has no ESP: {done.stderr.strip()}")
    there = f"src {inner}/32 dst {PREFIX}", f"tmpl src {near} dst {outer} proto esp mode tunnel"
    back = f"src {PREFIX} dst {inner}/32", f"tmpl src {outer} dst {near} proto esp mode tunnel"
    way = bed.far.sh(f"ip route get {near}").split()
    bed.far.sh(f"""
        ip address add {outer}/32 dev lo
        ip route add {inner}/32 {" ".join(way[1:5] if way[1] == "via" else way[1:3])}
        ip xfrm policy add {there[0]} dir in {there[1]}
        ip xfrm policy add {back[0]} dir out {back[1]}
    """)
    bed.sh(f"""
        ip address add {inner}/32 dev {links.wifi.name}
        ip route add {PREFIX} via {links.wifi.gateway} dev {links.wifi.name} src {inner}
        ip xfrm policy add {back[0]} dir in {back[1]}
        ip xfrm policy add {there[0]} dir out {there[1]}
    """)
    wait_guarded(bed, IPSEC_NAME)
    return {inner}


SPLIT = [
    *(tun, tun_of_networkmanager, wireguard_go, wireguard_of_the_kernel, wireguard_of_networkmanager_and_the_kernel),
    *(tailscale_with_a_subnet, ipsec),
]


@pytest.mark.parametrize("kind", SPLIT, ids=lambda kind: kind.__name__)
def test_a_tunnel_that_carries_some_hosts(bed: Bed, up: Links, kind: Kind) -> None:
    inside = kind(bed, up)
    obeys(bed, up, BEHIND, inside)
    if CLIENT6 in inside:
        obeys(bed, up, BEHIND6, inside)
    other = Connection(bed.machine, SERVER, port=LATER)
    other.wait_subflow(up.lte.address)


def test_an_ipv4_tunnel_and_a_server_that_announces_its_ipv6_address(bed: Bed, up: Links) -> None:
    """The client's socket is IPv6's, and so the kernel would join to that address by a link's endpoint."""
    tun_of_networkmanager(bed, up)
    bed.far.run("ip", "mptcp", "endpoint", "add", BEHIND6, "signal")
    assert "IPv6 endpoints do not join while there is a tunnel (vpn-guard)." in bed.nm_mptcp("explain", BEHIND)
    captures = [link.capture() for link in (up.wifi, up.lte)]
    connection = Connection(bed.machine, f"::ffff:{BEHIND}", port=LATER)
    for _ in range(20):
        connection.echo(bytes(2000))
    bed.sync()
    assert {local for local, _ in connection.subflows()} == {f"::ffff:{CLIENT}"}
    assert not beside_the_tunnel(*captures, port=LATER)
    other = Connection(bed.machine, SERVER6, port=LATER)
    other.wait_subflow(up.lte.address6())


def test_nothing_leaks_while_a_tunnel_with_many_prefixes_changes_its_routes(bed: Bed, up: Links) -> None:
    inside = tun(bed, up)
    batch = bed.directory / "routes"
    batch.write_text("".join(f"route add 20.{n // 250}.{n % 250}.0/24 dev tun0\n" for n in range(10_000)))
    bed.sh(f"ip -batch {batch}")
    changes = "".join(f"route {verb} 21.0.{n}.0/24 dev tun0\n" for n in range(50) for verb in ("add", "del"))
    (bed.directory / "changes").write_text(changes)
    storm = bed.machine.spawn(
        "sh", "-c", f"while ip -batch {bed.directory / 'changes'}; do sleep 0.2; done", log="changes"
    )
    for _ in range(5):
        obeys(bed, up, BEHIND, inside)
    assert storm.running


# --- tunnels that carry all


def halves(bed: Bed, links: Links) -> set[str]:
    vpn = VPN(bed)
    vpn.exempt_server(links.wifi.gateway, links.wifi.name)
    vpn.up()
    vpn.default_in_halves()
    guarded(bed, links, "4")
    return {CLIENT}


def default_of_networkmanager(bed: Bed, links: Links) -> set[str]:
    tun_profile(bed)
    VPN(bed, name="vpn0").exempt_server(links.wifi.gateway, links.wifi.name)
    bed.up("VPN")
    guarded(bed, links, "4")
    return {CLIENT}


def wg_quick(bed: Bed, links: Links, *, program: bool) -> set[str]:
    WireGuard(bed, PREFIX, program=program)
    bed.sh(f"""
        wg set {NAME} fwmark {MARK} peer $(wg show {NAME} peers) allowed-ips 0.0.0.0/0
        ip route add default dev {NAME} table {MARK}
        ip rule add not fwmark {MARK} table {MARK}
        ip rule add table main suppress_prefixlength 0
    """)
    guarded(bed, links, "4")
    return {WG_CLIENT}


def wg_quick_by_wireguard_go(bed: Bed, links: Links) -> set[str]:
    return wg_quick(bed, links, program=True)


def wg_quick_by_the_kernel(bed: Bed, links: Links) -> set[str]:
    need_wireguard_in_kernel(bed)
    return wg_quick(bed, links, program=False)


def full_wireguard_of_networkmanager_and_the_kernel(bed: Bed, links: Links) -> set[str]:
    """It makes wg-quick's rules itself (``wireguard.ip4-auto-default-route``)."""
    need_wireguard_in_kernel(bed)
    WireGuardProfile(bed, "0.0.0.0/0")
    guarded(bed, links, "4")
    return {WG_CLIENT}


def both_families(bed: Bed, links: Links) -> set[str]:
    vpn = VPN(bed, mark=MARK)
    vpn.up(f"{CLIENT}/24", f"{CLIENT6}/64")
    vpn.default_by_rules("-4", "-6")
    guarded(bed, links, "4", "6")
    return {CLIENT, CLIENT6}


def ipv6_alone(bed: Bed, links: Links) -> set[str]:
    vpn = VPN(bed, mark=MARK)
    vpn.up(f"{CLIENT}/24", f"{CLIENT6}/64")
    vpn.default_by_rules("-6")
    guarded(bed, links, "6")
    return {CLIENT6}


def tailscale_with_an_exit_node(bed: Bed, links: Links) -> set[str]:
    inside = tailscale(bed, "default dev tun0", "throw 10.1.0.0/24")
    guarded(bed, links, "4")
    return inside


FULL = [
    *(halves, default_of_networkmanager, wg_quick_by_wireguard_go, wg_quick_by_the_kernel),
    full_wireguard_of_networkmanager_and_the_kernel,
    *(both_families, ipv6_alone, tailscale_with_an_exit_node),
]


@pytest.mark.parametrize("kind", FULL, ids=lambda kind: kind.__name__)
def test_a_tunnel_that_carries_all(bed: Bed, up: Links, kind: Kind) -> None:
    inside = kind(bed, up)
    if any(":" not in address for address in inside):
        obeys(bed, up, SERVER, inside)
        obeys(bed, up, BEHIND, inside)
    if CLIENT6 in inside:
        obeys(bed, up, SERVER6, inside)
        obeys(bed, up, BEHIND6, inside)
