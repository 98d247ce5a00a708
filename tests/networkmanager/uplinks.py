# SPDX-License-Identifier: GPL-2.0-or-later
"""The world beyond the machine: networks with a gateway, DHCP (dnsmasq) and router advertisements, and the cables to them."""

from __future__ import annotations

import ipaddress
import signal
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..support.waits import wait_for
from .advertiser import Advertisement, Prefix, Router
from .dhcp import Lease, LeaseServer
from .namespaces import Program, network_of

if TYPE_CHECKING:
    from .bed import Bed

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
PACKET_OUTGOING = 4
SOL_PACKET, PACKET_STATISTICS = 263, 6
TCP, UDP, ICMP = 6, 17, 1


@dataclass(frozen=True)
class Packet:
    """What matters of a packet that came out of the machine."""

    source: str
    destination: str
    protocol: int
    destination_port: int = 0
    payload: bytes = b""


def read_packet(data: bytes) -> Packet | None:
    """An IP packet's facts; None for what is no IP or has no ports (neighbour discovery and its like)."""
    if data[0] >> 4 == 4:
        family, addresses, protocol, rest = socket.AF_INET, data[12:20], data[9], data[(data[0] & 15) * 4 :]
    else:
        family, addresses, protocol, rest = socket.AF_INET6, data[8:40], data[6], data[40:]
    half = len(addresses) // 2
    source, destination = socket.inet_ntop(family, addresses[:half]), socket.inet_ntop(family, addresses[half:])
    if protocol in (TCP, UDP) and len(rest) >= 4:
        return Packet(source, destination, protocol, struct.unpack_from("!H", rest, 2)[0], rest)
    return Packet(source, destination, protocol, payload=rest) if protocol == ICMP else None


class Capture:
    """All packets that the machine sends out by one uplink, counted where they arrive. A lost one is an error.

    With ``both`` those that are sent to it, too.
    """

    def __init__(self, pid: int, interface: str, *, both: bool = False) -> None:
        self._both = both
        with network_of(pid):
            # No protocol before it is bound: until then it would hear every interface.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
        with network_of(pid):
            self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)
        self._packets: list[Packet] = []

    def packets(self) -> list[Packet]:
        """Those so far."""
        while True:
            try:
                data, (_, protocol, kind, _, _) = self._socket.recvfrom(1 << 16)
            except BlockingIOError:
                break
            if (self._both or kind != PACKET_OUTGOING) and protocol in (ETH_P_IP, ETH_P_IPV6):
                packet = read_packet(data)
                if packet:
                    self._packets.append(packet)
        lost = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        assert not lost, f"the capture lost {lost} packets"
        return self._packets

    def data(self) -> int:
        """How many bytes of TCP's payload."""
        return sum(
            len(packet.payload) - (packet.payload[12] >> 4) * 4 for packet in self.packets() if packet.protocol == TCP
        )

    def sources(self) -> Counter[str]:
        """How many by each source address, DHCP's and multicast apart."""
        return Counter(
            packet.source
            for packet in self.packets()
            if packet.destination_port not in (67, 547) and not ipaddress.ip_address(packet.destination).is_multicast
        )

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@dataclass
class Network:
    """A network in the far namespace: a bridge with the gateway's addresses; uplinks are its ports."""

    bed: Bed
    name: str
    subnet: str | None = None
    prefix6: str | None = None
    number: int = 0
    ports: list[Uplink] = field(default_factory=list)
    routers: list[Router] = field(default_factory=list)
    leased_router: str | None = None  #: by :meth:`serve_short_leases`
    metered: bool = False  #: whether :meth:`serve_short_leases` says so, in the manner of Android's hotspots
    _dnsmasq: Program | None = None

    def __post_init__(self) -> None:
        self.interface = f"net-{self.name}"[:15]
        self.hardware_address = f"02:00:00:{self.number:02x}:00:fe"
        far = self.bed.far
        far.run("ip", "link", "add", self.interface, "address", self.hardware_address, "type", "bridge")
        far.run("ip", "link", "set", self.interface, "up")
        if self.subnet:
            self.add_address(f"{self.gateway}/{ipaddress.ip_network(self.subnet).prefixlen}")
        if self.prefix6:
            self.add_address(self._host6(self.prefix6, 1))

    @property
    def gateway(self) -> str:
        """The first address of the subnet."""
        assert self.subnet, "no IPv4 subnet here"
        return str(ipaddress.IPv4Network(self.subnet)[1])

    @property
    def gateway6(self) -> str:
        """The router's link-local address."""
        return self.routers[0].link_local

    def host(self, number: int) -> str:
        """The IPv4 address with this number in the subnet."""
        assert self.subnet, "no IPv4 subnet here"
        return str(ipaddress.IPv4Network(self.subnet)[number])

    def add_address(self, address: str) -> None:
        """Another address of the gateway's."""
        extra = ["nodad"] if ":" in address else []
        self.bed.far.run("ip", "address", "add", address, "dev", self.interface, *extra)

    # --- DHCP

    def serve_dhcp(self, **options: str) -> None:
        """Start dnsmasq; port N of this network always gets the address ``host(50 + N)``."""
        assert self.subnet
        self.set_dhcp_options(**options)
        mask = str(ipaddress.ip_network(self.subnet).netmask)
        command = ["dnsmasq", "--no-daemon", "--port=0", "--no-ping", "--conf-file=/dev/null", "--leasefile-ro"]
        command += ["--dhcp-authoritative", f"--interface={self.interface}", "--bind-interfaces"]
        command += [f"--dhcp-range={self.host(50)},{self.host(99)},{mask},3600", f"--dhcp-optsfile={self._options}"]
        command += [f"--dhcp-host={self.port_address(port)},{self.host(50 + port)}" for port in range(4)]
        self._dnsmasq = self.bed.far.spawn(*command, log=f"dnsmasq-{self.name}")
        wait_for("dnsmasq serves", lambda: self._dnsmasq and "sockets bound" in self._dnsmasq.output())

    def serve_short_leases(self) -> None:
        """Like :meth:`serve_dhcp`, but clients renew each second, and learn then of ``leased_router`` and ``metered``."""
        assert self.subnet
        self.leased_router = self.gateway
        prefixlen = ipaddress.ip_network(self.subnet).prefixlen

        def lease_for(hardware_address: str) -> Lease:
            port = int(hardware_address[-2:], 16)
            routers = (self.leased_router,) if self.leased_router else ()
            return Lease(self.host(50 + port), prefixlen, routers, vendor=b"ANDROID_METERED" if self.metered else b"")

        self.lease_server = LeaseServer(self.bed.far.pid, self.interface, self.gateway, lease_for)
        self.bed.at_end(self.lease_server.close)

    def set_dhcp_options(self, **options: str) -> None:
        """The options of the leases from now on: dnsmasq's names, ``_`` for ``-`` (router, classless_static_route, T1...)."""
        told = {"router": self.gateway, **options}
        # An empty option keeps dnsmasq from naming itself as the router.
        lines = [f"option:{name.replace('_', '-')}{',' if value else ''}{value}\n" for name, value in told.items()]
        self._options.write_text("".join(lines))
        if self._dnsmasq:
            self._dnsmasq.send(signal.SIGHUP)

    @property
    def _options(self) -> Path:
        return self.bed.directory / f"dhcp-options-{self.name}"

    def port_address(self, port: int) -> str:
        """The hardware address of the machine's end of port ``port``."""
        return f"02:00:00:{self.number:02x}:00:{port:02x}"

    # --- router advertisements

    def add_router(self, says: Advertisement | None = None) -> Router:
        """One more router here; the first is ``gateway6``. By default it advertises ``prefix6``."""
        link_local = f"fe80::{self.number:x}:{len(self.routers) + 1:x}"
        self.add_address(f"{link_local}/64")
        if says is None:
            says = Advertisement(prefixes=(Prefix(self.prefix6),) if self.prefix6 else ())
        router = Router(
            self.bed.far.pid, self.interface, link_local, bytes.fromhex(self.hardware_address.replace(":", "")), says
        )
        self.routers.append(router)
        return router

    # --- silence

    def silence(self, *ways: str, family: str = "", gateway: bool = False, told: bool = False) -> None:
        """Let packets vanish while all carriers stay: those from the machine (``out``), those to it (``in``), or both; of
        ``family`` ("ip", "ip6") or both; beyond the gateway, or the gateway's own as well (no ARP, no DHCP). ``told``: the
        gateway says that they lead nowhere.
        """
        hooks = {"out": ("input", "iifname", "daddr"), "in": ("output", "oifname", "saddr")}
        beyond = {"ip": "{ 192.0.2.0/24, 198.51.100.0/24 }", "ip6": "2001:db8:ffff::/48"}
        words = {"ip": "reject with icmp type net-unreachable", "ip6": "reject with icmpv6 type no-route"}
        lines = []
        for way in ways or hooks:
            own, direction, side = hooks[way]
            match = [
                f"{each} {side} {beyond[each]} counter {words[each] if told and way == 'out' else 'drop'}"
                for each in beyond
                if family in ("", each)
            ]
            rules = "\n".join(f'{direction} "{self.interface}" {each}' for each in match)
            for hook in (own, "forward"):  # servers are in the far namespace itself, or beyond it
                lines.append(f"chain {hook}-{way} {{ type filter hook {hook} priority 0\n{rules}\n}}")
        self.bed.far.sh(f"nft -f - <<'END'\ntable inet {self._silence} {{\n" + "\n".join(lines) + "\n}\nEND\n")
        if gateway:
            for port in self.ports:
                self.bed.far.run("ip", "link", "set", port.far_name, "nomaster")

    def speak(self) -> None:
        """End :meth:`silence`."""
        self.bed.far.run("nft", "delete", "table", "inet", self._silence)
        for port in self.ports:
            self.bed.far.run("ip", "link", "set", port.far_name, "master", self.interface)

    @property
    def _silence(self) -> str:
        return f"silence-{self.name}"

    def add_prefix(self, prefix: str) -> None:
        """Make the gateway know the way back into one more IPv6 prefix."""
        self.add_address(self._host6(prefix, 1))

    @staticmethod
    def _host6(prefix: str, number: int) -> str:
        net = ipaddress.IPv6Network(prefix)
        return f"{net[number]}/{net.prefixlen}"

    def close(self) -> None:
        """Let go of sockets and threads; the rest ends with the bed."""
        for router in self.routers:
            router.close()


@dataclass
class Uplink:
    """A network interface of the machine and its cable to a :class:`Network`."""

    bed: Bed
    name: str
    network: Network

    def __post_init__(self) -> None:
        self.port = len(self.network.ports)
        self.network.ports.append(self)
        self.far_name = f"far-{self.name}"[:15]
        self.create()

    def create(self) -> None:
        """Put the interface in (again)."""
        far = self.bed.far
        host = self.bed.machine
        address = self.network.port_address(self.port)
        far.run("ip", "link", "add", self.far_name, "type", "veth", "peer", "name", self.name, "address", address,
                "netns", str(self.bed.inner(host.pid)))  # fmt: skip
        far.run("ip", "link", "set", self.far_name, "master", self.network.interface, "up")

    def remove(self) -> None:
        """Pull the interface out of the machine."""
        self.bed.far.run("ip", "link", "del", self.far_name)

    def carrier(self, present: bool) -> None:
        """Plug the cable in or out, at the far end."""
        self.bed.far.run("ip", "link", "set", self.far_name, "up" if present else "down")

    def flap(self, times: int) -> None:
        """Plug the cable out and in again, so often, each seen by the service."""
        lost = ("no-carrier", "kept-last")
        for _ in range(times):
            self.carrier(False)
            wait_for("it is out", lambda: self.bed.status().path(self.address)["rule"] in lost)
            self.carrier(True)
            wait_for("it is in", lambda: self.bed.status().path(self.address)["rule"] not in lost)

    def capture(self, *, both: bool = False) -> Capture:
        """Count what comes out here from now on; with ``both`` what goes in, too."""
        capture = Capture(self.bed.far.pid, self.far_name, both=both)
        self.bed.at_end(capture.close)
        return capture

    @property
    def address(self) -> str:
        """Its address by DHCP."""
        return self.network.host(50 + self.port)

    @property
    def gateway(self) -> str:
        """The network's IPv4 gateway."""
        return self.network.gateway

    def addresses(self, *, without: Iterable[str] = ("temporary", "tentative", "deprecated")) -> list[str]:
        """Its global IPv6 addresses without one of these flags."""
        shown = self.bed.machine.ip("-6", "address", "show", "dev", self.name, "scope", "global")
        return [
            info["local"]
            for link in shown
            for info in link.get("addr_info", ())
            if "local" in info and not any(info.get(flag) for flag in without)
        ]

    def address6(self, *, satisfying: Callable[[str], bool] = lambda _: True) -> str:
        """Its (one) stable IPv6 address, waited for."""
        found = wait_for(
            f"{self.name} has an IPv6 address", lambda: [each for each in self.addresses() if satisfying(each)]
        )
        return found[0]


@dataclass(frozen=True)
class Links:
    """Two cables that are in, with a profile each, "Wi-Fi" and "LTE", that is not up yet."""

    wifi: Uplink
    lte: Uplink

    @classmethod
    def plug_in(cls, bed: Bed) -> Links:
        """Plug them into a bed."""
        found = cls(bed.uplink("wlan0", dhcp="10.1.0.0/24"), bed.uplink("wwan0", dhcp="10.2.0.0/24"))
        bed.profile("Wi-Fi", "wlan0", "ipv4.route-metric 600")
        bed.profile("LTE", "wwan0", "ipv4.route-metric 700")
        return found

    def bring_up(self) -> None:
        """Activate both profiles; come back when both links are paths and the service has acted on all that happened."""
        bed = self.wifi.bed
        bed.up("Wi-Fi", "LTE")
        for link in (self.wifi, self.lte):
            bed.wait_endpoint(link.address)
        bed.sync()
