# SPDX-License-Identifier: GPL-2.0-or-later
"""The world of the bench: a laptop with Wi-Fi and a modem, and servers - near ones and one that is far away."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable

from ..networkmanager.bed import SERVER, SYSCTLS, Bed, Namespace
from ..networkmanager.uplinks import Uplink
from ..support.waits import wait_for
from .delay import Relay
from .streams import EchoServer
from .tools import Tool
from .watch import Events, Subflows

#: A server in the gateways' own namespace: a round-trip below a millisecond.
NEAR = SERVER

#: The same with a long way to it.
AWAY = "192.0.2.10"

#: The way to AWAY, in each direction, by the client's network (ms).
WAY = {"10.1": 20.0, "10.2": 30.0}

#: Servers that refuse additional subflows: ``allow_join_initial_addr_port=0``, and no subflow in the limits.
NO_JOIN, NO_SUBFLOWS = "192.0.2.2", "192.0.2.3"

ECHO, DOWNLOAD, ONCE, PLAIN = 5000, 5001, 5002, 5003

#: What each link carries towards the machine, in bytes a second.
SPEED = 20e6 / 8


class World:
    """A bed with its links up and the tool at work. ``wifi`` is the link that is lost, ``lte`` the one that stays."""

    def __init__(self, bed: Bed, tool: Tool) -> None:
        self.bed = bed
        self.tool = tool
        self.relay: Relay | None = None
        self._numbers = itertools.count(1)
        self.wifi: Uplink
        self.lte: Uplink | None = None

    def connect(
        self,
        *,
        both: bool = True,
        ipv6: bool = False,
        backup: bool = False,
        before_wifi: Callable[[], object] | None = None,
    ) -> None:
        """Plug in the link or links and bring their profiles up; come back when each has its endpoint.

        ``before_wifi`` is called when the modem is up and nothing else: what begins there begins on the modem's link.
        """
        bed = self.bed
        self.tool.start(bed)
        self.wifi = bed.uplink("wlan0", dhcp="10.1.0.0/24", ra="2001:db8:1::/64" if ipv6 else None)
        settings = ["ipv6.method auto", "ipv6.ip6-privacy 0"] if ipv6 else []
        bed.profile("Wi-Fi", "wlan0", "ipv4.route-metric 600", *settings)
        if both:
            self.lte = bed.uplink("wwan0", dhcp="10.2.0.0/24", ra="2001:db8:2::/64" if ipv6 else None)
            # Flags that a profile says are made by whoever makes the endpoints; mptcpd knows no backup for one link.
            flags = ["connection.mptcp-flags 0xa2"] if backup and self.tool.name != "mptcpd" else []
            bed.profile("LTE", "wwan0", "ipv4.route-metric 700", *settings, *flags)
        if before_wifi:
            assert self.lte
            bed.up("LTE")
            bed.wait_endpoint(self.lte.address)
            before_wifi()
            bed.up("Wi-Fi")
        else:
            bed.up(*(["Wi-Fi", "LTE"] if both else ["Wi-Fi"]))
        bed.sh(
            "for p in $(nmcli -g uuid connection show); do nmcli connection modify $p connection.autoconnect yes; done"
        )
        if self.tool.afresh:
            self.tool.start(bed)
        for link in self.links:
            bed.wait_endpoint(link.address)
            if ipv6:
                bed.wait_endpoint(link.address6())

    @property
    def links(self) -> list[Uplink]:
        """Those that are plugged in."""
        return [self.wifi, *([self.lte] if self.lte else [])]

    def lose(self, percent: int) -> None:
        """Lose so many of the TCP packets on the first link, by chance, in each direction."""
        wifi = self.wifi.network.interface
        rules = "\n".join(
            f"add chain inet lossy {hook} {{ type filter hook {hook} priority 0; }}\n"
            f"add rule inet lossy {hook} {name} {wifi} meta l4proto tcp numgen random mod 100 < {percent} drop"
            for hook, name in (("input", "iifname"), ("output", "oifname"))
        )
        self.bed.far.sh(f"nft -f - <<'END'\nadd table inet lossy\n{rules}\nEND\n")

    def settle(self) -> None:
        """Come back when nm-mptcp has acted on all that happened so far; the others know no such question."""
        if self.tool.product:
            self.bed.sync()

    def shape(self) -> None:
        """Make each link as slow as a real one, so that a download does not drown the machine."""
        tbf = ["tbf", "rate", f"{SPEED:.0f}bps", "burst", "32k", "latency", "50ms"]
        for link in self.links:
            self.bed.far.run("tc", "qdisc", "add", "dev", link.far_name, "root", *tbf)

    def burden(self) -> None:
        """Give the machine 10,000 routes in main and 500 addresses, on an interface that is no path."""
        bed = self.bed
        bed.far.run(
            "ip", "link", "add", "far-big", "type", "veth", "peer", "name", "big", "netns", str(bed.inner(bed.init))
        )
        bed.far.run("ip", "link", "set", "far-big", "up")
        bed.nmcli("device", "set", "big", "managed", "no")
        bed.sh("ip link set big up")
        lines = [f"address add 10.200.{number // 250}.{number % 250 + 1}/32 dev big" for number in range(500)]
        lines += [
            f"route add 10.{100 + number // 2500}.{number // 10 % 250}.{number % 10 * 16}/28 dev big"
            for number in range(10_000)
        ]
        batch = bed.directory / "batch"
        batch.write_text("\n".join(lines) + "\n")
        bed.machine.run("ip", "-batch", str(batch))
        for _ in range(3):
            self.settle()

    def away(self) -> Namespace:
        """The namespace of the server that is far away."""
        namespace = self.bed.namespace("away")
        self.relay = Relay(self.bed.far, namespace, WAY)
        namespace.sh(f"ip address add {AWAY}/32 dev lo; ip route add default dev relay")
        self.bed.far.run("ip", "route", "add", f"{AWAY}/32", "dev", "relay")
        return namespace

    def server(self, address: str) -> Namespace:
        """A near server of its own, with that address."""
        name = f"server{next(self._numbers)}"
        namespace = self.bed.namespace(name, SYSCTLS)
        far = self.bed.far
        far.run(
            "ip",
            "link",
            "add",
            name,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            str(self.bed.inner(namespace.pid)),
        )
        far.sh(f"ip link set {name} up; ip route add {address}/32 dev {name}")
        namespace.sh(f"ip address add {address}/32 dev eth0; ip link set eth0 up; ip route add default dev eth0")
        far.sysctl(**{f"net.ipv4.conf.{name}.proxy_arp": "1"})
        namespace.sysctl(**{"net.ipv4.conf.eth0.arp_announce": "0"})
        return namespace

    def servers(self) -> None:
        """Echo servers of all kinds but :data:`ONCE`: the near one, those that refuse subflows, plain TCP."""
        far, refusing, limited = self.bed.far, self.server(NO_JOIN), self.server(NO_SUBFLOWS)
        refusing.sysctl(**{"net.mptcp.allow_join_initial_addr_port": "0"})
        limited.run("ip", "mptcp", "limits", "set", "subflows", "0", "add_addr_accepted", "0")
        for namespace in (refusing, limited, far):
            EchoServer(namespace, ECHO)
        EchoServer(far, PLAIN, protocol=socket.IPPROTO_TCP)

    def events(self, link: Uplink) -> Events:
        """What the kernel tells of a link from now on."""
        return Events(self.bed.machine, link.name)

    def wait_subflows(self, subflows: Subflows, server: str, port: int) -> None:
        """Wait until a connection to that server stands on each link."""
        wanted = {link.address for link in self.links}
        wait_for(
            f"subflows to {server} by {', '.join(sorted(wanted))}",
            lambda: {address for address, _ in subflows.to(server, port)} >= wanted,
            every=0.005,
        )
