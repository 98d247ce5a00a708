# SPDX-License-Identifier: GPL-2.0-or-later
"""A WireGuard tunnel to a server beyond the uplinks: by the kernel's module or wireguard-go, or NetworkManager's profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..support.waits import wait_for
from .vpn import MARK

if TYPE_CHECKING:
    from .bed import Bed, Namespace
    from .uplinks import Capture, Packet

#: Where the server is, seen from the uplinks, and its port.
SERVER, PORT = "192.0.2.78", 51821

#: The tunnel's two ends.
CLIENT, GATEWAY = "10.9.0.2", "10.9.0.1"

NAME, FAR_NAME = "wg0", "wg-far"


class WireGuard:
    """``wg0``, with a packet of the tunnel's own each second, and the route of one prefix."""

    def __init__(self, bed: Bed, route: str, *, program: bool) -> None:
        """``program``: by wireguard-go."""
        self._bed = bed
        self._program = program
        near = self._made(bed.machine, NAME)
        far = self._served(bed, near)
        bed.sh(f"""
            wg set {NAME} peer {far} endpoint {SERVER}:{PORT} persistent-keepalive 1 allowed-ips {GATEWAY}/32,{route}
            ip address add {CLIENT}/24 dev {NAME}
            ip link set {NAME} up
            ip route add {route} dev {NAME}
        """)
        wait_for("the tunnel works", lambda: int(bed.sh(f"wg show {NAME} transfer").split()[1]))

    def _served(self, bed: Bed, near: str) -> str:
        """Have the far end for that public key; returns its own."""
        bed.far.run("ip", "address", "add", f"{SERVER}/32", "dev", "lo")
        far = self._made(bed.far, FAR_NAME)
        bed.far.sh(f"""
            wg set {FAR_NAME} listen-port {PORT} peer {near} allowed-ips {CLIENT}/32
            ip address add {GATEWAY}/24 dev {FAR_NAME}
            ip link set {FAR_NAME} up
        """)
        return far

    def _made(self, namespace: Namespace, name: str) -> str:
        """Make an end with a key of its own; returns the public one."""
        if self._program:
            namespace.spawn("wireguard-go", "--foreground", name, log=name)
            wait_for("it can be configured", lambda: namespace.attempt("wg", "show", name).returncode == 0)
        else:
            namespace.run("ip", "link", "add", name, "type", "wireguard")
        namespace.sh(f"wg genkey >/run/{name}.key; wg set {name} private-key /run/{name}.key")
        return namespace.sh(f"wg pubkey </run/{name}.key").strip()

    def carry_everything(self) -> None:
        """Be a full tunnel, as wg-quick makes one."""
        self._bed.sh(f"""
            wg set {NAME} fwmark {MARK} peer $(wg show {NAME} peers) allowed-ips 0.0.0.0/0
            ip route add default dev {NAME} table {MARK}
            ip rule add not fwmark {MARK} table {MARK}
            ip rule add table main suppress_prefixlength 0
        """)

    def own(self, capture: Capture) -> list[Packet]:
        """The tunnel's own packets that left by an uplink."""
        return [packet for packet in capture.packets() if packet.destination == SERVER]


class WireGuardProfile(WireGuard):
    """NetworkManager's, as imported from wg-quick's configuration; it needs the kernel's module."""

    def __init__(self, bed: Bed, route: str) -> None:
        self._bed, self._program = bed, False
        private = bed.sh("wg genkey").strip()
        far = self._served(bed, bed.sh(f"echo {private} | wg pubkey").strip())
        bed.write(
            f"/run/{NAME}.conf",
            f"[Interface]\nPrivateKey = {private}\nAddress = {CLIENT}/24\n\n"
            f"[Peer]\nPublicKey = {far}\nEndpoint = {SERVER}:{PORT}\nAllowedIPs = {GATEWAY}/32, {route}\n"
            "PersistentKeepalive = 1\n",
        )
        bed.nmcli("connection", "import", "type", "wireguard", "file", f"/run/{NAME}.conf")
        bed.up(NAME)
        wait_for("the tunnel works", lambda: int(bed.sh(f"wg show {NAME} transfer").split()[1]))


def need_wireguard_in_kernel(bed: Bed) -> None:
    """Skip the test where the kernel has none."""
    if bed.machine.attempt("sh", "-c", "ip link add wg-probe type wireguard && ip link del wg-probe").returncode:
        pytest.skip("this kernel has no WireGuard")
