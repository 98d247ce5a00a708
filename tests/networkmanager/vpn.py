# SPDX-License-Identifier: GPL-2.0-or-later
"""A VPN that works: a tunnel device, carried over UDP or over one MPTCP connection to a server beyond the uplinks."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from typing import TYPE_CHECKING

from .namespaces import network_of
from .tunnel import tun
from .uplinks import UDP, Capture, Packet

if TYPE_CHECKING:
    from .bed import Bed, Namespace

#: Where the VPN's server is, seen from the uplinks, and its port.
VPN_SERVER, VPN_PORT = "192.0.2.77", 1194

#: The tunnel's two ends.
CLIENT, GATEWAY, CLIENT6, GATEWAY6 = "10.8.0.2", "10.8.0.1", "2001:db8:8::2", "2001:db8:8::1"

#: What wg-quick marks its own packets with, and the table that it puts the tunnel's default into.
MARK = 51820

_FRAME = struct.Struct("!H")


class VPN:
    """A running VPN client and its server. The tunnel's device has no addresses or routes until somebody gives it some."""

    def __init__(
        self,
        bed: Bed,
        *,
        name: str = "tun0",
        mark: int = 0,
        source: str | None = None,
        mptcp: bool = False,
        roams: bool = False,
    ) -> None:
        """``name``: attached where it is there already. The carrier's socket has this mark, and is bound to ``source``. If it
        ``roams``, each packet has the source of the route that it leaves by, as OpenVPN's have.
        """
        self.bed = bed
        self.name = name
        self._mptcp, self._roams = mptcp, roams
        far = bed.far
        if not getattr(bed, "_vpn_server", False):
            far.run("ip", "address", "add", f"{VPN_SERVER}/32", "dev", "lo")
            bed._vpn_server = True  # type: ignore[attr-defined]
        self._near = _tun(bed.machine, name)
        self._far = _tun(far, f"far-{name}")
        far.sh(f"""
            ip address add {GATEWAY}/24 dev far-{name}
            ip address add {GATEWAY6}/64 dev far-{name} nodad
            ip link set far-{name} up
        """)
        kind = socket.SOCK_STREAM if mptcp else socket.SOCK_DGRAM
        server = far.socket(socket.AF_INET, kind, socket.IPPROTO_MPTCP if mptcp else 0)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((VPN_SERVER, VPN_PORT))
        self._client = bed.machine.socket(socket.AF_INET, kind, socket.IPPROTO_MPTCP if mptcp else 0)
        if mark:
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if source:
            self._client.bind((source, 0))
        self._server = server
        if mptcp:
            server.listen()
            self._client.connect((VPN_SERVER, VPN_PORT))
            self._server = server.accept()[0]
            server.close()
        elif not roams:
            self._client.connect((VPN_SERVER, VPN_PORT))
        self._peer: tuple[str, int] | None = None
        self._wake, self._woken = socket.socketpair()
        self._threads = [
            threading.Thread(target=self._pump, args=ends, daemon=True)
            for ends in ((self._near, self._client), (self._far, self._server))
        ]
        for thread in self._threads:
            thread.start()
        self._open = True
        bed.at_end(self.stop)

    def stop(self) -> None:
        """End it; the tunnel's device goes with it, unless it is somebody else's."""
        if not self._open:
            return
        self._open = False
        self._wake.close()
        for thread in self._threads:
            thread.join(5)
        for descriptor in (self._near, self._far):
            os.close(descriptor)
        self._client.close()
        self._server.close()

    def _pump(self, device: int, carrier: socket.socket) -> None:
        """Packets of one end: from its device to the carrier, and back."""
        waiting = b""
        while True:
            ready = select.select([device, carrier, self._woken], [], [])[0]
            if self._woken in ready:
                return
            with contextlib.suppress(OSError):
                if device in ready:
                    self._send(carrier, os.read(device, 1 << 16))
                if carrier in ready:
                    if self._mptcp:
                        waiting += carrier.recv(1 << 16)
                        while len(waiting) >= 2 and len(waiting) >= 2 + _FRAME.unpack_from(waiting)[0]:
                            (length,) = _FRAME.unpack_from(waiting)
                            os.write(device, waiting[2 : 2 + length])
                            waiting = waiting[2 + length :]
                        continue
                    data, sender = carrier.recvfrom(1 << 16)
                    if carrier is self._server:
                        self._peer = sender
                    os.write(device, data)

    def _send(self, carrier: socket.socket, packet: bytes) -> None:
        if self._mptcp:
            carrier.sendall(_FRAME.pack(len(packet)) + packet)
        elif carrier is self._client:
            if self._roams:
                carrier.sendto(packet, (VPN_SERVER, VPN_PORT))
            else:
                carrier.send(packet)
        elif self._peer:
            carrier.sendto(packet, self._peer)

    # --- what VPN clients do to the machine

    def up(self, *addresses: str) -> None:
        """Give the device its addresses (the client's, by default) and bring it up."""
        for address in addresses or (f"{CLIENT}/24",):
            extra = ["nodad"] if ":" in address else []
            self.bed.machine.run("ip", "address", "add", address, "dev", self.name, *extra)
        self.bed.machine.run("ip", "link", "set", self.name, "mtu", "1400", "up")

    def exempt_server(self, gateway: str, device: str, *, metric: int = 0) -> None:
        """The host route that keeps the carrier out of the tunnel (OpenVPN; with a metric, NetworkManager)."""
        self.bed.sh(f"ip route replace {VPN_SERVER}/32 via {gateway} dev {device} metric {metric}")

    def default_in_halves(self) -> None:
        """OpenVPN's ``redirect-gateway def1``."""
        self.bed.sh(f"ip route add 0.0.0.0/1 dev {self.name}; ip route add 128.0.0.0/1 dev {self.name}")

    def default_by_rules(self, *families: str) -> None:
        """What wg-quick does with ``AllowedIPs = 0.0.0.0/0``; the carrier has to have its mark."""
        for family in families or ("-4",):
            self.bed.sh(f"""
                ip {family} route add default dev {self.name} table {MARK}
                ip {family} rule add not fwmark {MARK} table {MARK}
                ip {family} rule add table main suppress_prefixlength 0
            """)

    def no_default_by_rules(self, *families: str) -> None:
        """What wg-quick does at its end."""
        for family in families or ("-4",):
            self.bed.sh(f"""
                ip {family} rule del table {MARK}
                ip {family} rule del table main suppress_prefixlength 0
            """)


def _tun(namespace: Namespace, name: str) -> int:
    with network_of(namespace.pid):
        return tun(name)


def is_carrier(packet: Packet) -> bool:
    """Whether a packet on an uplink is the VPN's own."""
    return packet.destination == VPN_SERVER and (packet.protocol != UDP or packet.destination_port == VPN_PORT)


def beside_the_tunnel(*captures: Capture, port: int | None = None) -> list[Packet]:
    """What came out of uplinks and is not the VPN's own, nor DHCP's or multicast; only to that port, if one is given."""
    return [
        packet
        for capture in captures
        for packet in capture.packets()
        if not is_carrier(packet)
        and packet.destination_port not in (67, 547)
        and not packet.destination.startswith(("224.", "239.", "255.", "ff"))
        and (port is None or packet.destination_port == port)
    ]
