# SPDX-License-Identifier: GPL-2.0-or-later
"""The laptop that chaos happens to: a bed with three links, and what somebody did to it that counts for what has to hold."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from dataclasses import dataclass, field

from ..networkmanager.bed import SERVER, Bed, command
from ..networkmanager.namespaces import Program
from ..networkmanager.traffic import PORT, EchoServer
from ..networkmanager.tunnel import Tunnel
from ..networkmanager.uplinks import Uplink
from ..support.waits import wait_for

#: The profile of each link.
PROFILES = {"wlan0": "Wi-Fi", "wwan0": "LTE", "eth0": "Dock"}

#: The interface that is no link, and has what belongs to others.
HAND = "hand0"

#: What belongs to others at the beginning: also a rule with our priority, and a route in one of our tables.
FOREIGN = f"""
    ip link add {HAND} type veth peer name hand-peer
    ip link set hand-peer up
    ip link set {HAND} up
    ip address add 10.77.0.1/24 dev {HAND}
    ip -6 address add 2001:db8:77::1/64 dev {HAND} nodad
    ip mptcp endpoint add 10.77.0.1 dev {HAND} signal
    ip rule add from 10.77.0.1 lookup 4077 priority 32765
    ip -6 rule add from 2001:db8:77::1 lookup 4077 priority 32765
    ip route add default dev {HAND} table 4077
    ip route add 203.0.113.0/24 dev {HAND}
    ip route add 203.0.113.0/24 dev {HAND} table 42001
    ip -6 route add 2001:db8:78::/64 dev {HAND} table 42002
"""

#: The directory of the service's record, and what lets it be written again whatever was done to it.
RECORD = "/run/nm-mptcp"
WRITABLE = f"mount -o remount,rw,size=64M /run; rm -f /run/filler; while umount -l {RECORD}; do :; done"


@dataclass
class Laptop:
    """``modified``: the activation of each profile when what makes its addresses paths was modified: it counts from the next.
    ``edited`` and ``strangers``: the addresses of endpoints that were edited by hand, and of those that no record knows or
    NetworkManager made. ``losses`` and ``silenced``: when the links last lost their carrier, or were silent. ``limits``: what
    ``clear`` may restore.
    """

    bed: Bed
    links: dict[str, Uplink] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  #: what each link is called now
    modified: dict[str, str] = field(default_factory=dict)
    edited: set[str] = field(default_factory=set)
    strangers: set[str] = field(default_factory=set)
    losses: dict[str, list[float]] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    silenced: dict[str, float] = field(default_factory=dict)
    limits: dict[str, set[int]] = field(default_factory=dict)
    configuration: str = "none"
    mode: str = "auto"
    cleared: bool = False
    ended: bool = False  #: the service was told to end
    record_lost: bool = False
    tunnel: Tunnel | None = None
    tunnel_routes: str = "none"
    connections: list[socket.socket] = field(default_factory=list)
    commands: list[Program] = field(default_factory=list)

    @classmethod
    def boot(cls, bed: Bed) -> Laptop:
        """Plug everything in."""
        self = cls(bed)
        EchoServer(bed.far)
        self.links = {
            "wlan0": bed.uplink("wlan0", dhcp="10.1.0.0/24", ra="2001:db8:1::/64"),
            "wwan0": bed.uplink("wwan0", dhcp="10.2.0.0/24"),
            "eth0": bed.uplink("eth0", static="10.3.0.0/24"),
        }
        self.names = {name: name for name in self.links}
        bed.sh(FOREIGN)
        self.limits = {name: {value} for name, value in bed.path_manager.limits().items()}
        manual = "ipv4.method manual", "ipv4.addresses 10.3.0.50/24", "ipv4.gateway 10.3.0.1"
        bed.profile(
            "Wi-Fi", "wlan0", "ipv4.route-metric 600", "ipv4.dhcp-timeout 5", "ipv6.method auto", "ipv6.ip6-privacy 0"
        )
        bed.profile("LTE", "wwan0", "ipv4.route-metric 700", "ipv4.dhcp-timeout 5", "ipv6.ra-timeout 5")
        bed.profile("Dock", "eth0", "ipv4.route-metric 100", "ipv6.ra-timeout 5", *manual)
        return self

    def begin(self) -> None:
        """Start the service, and let NetworkManager bring the links up."""
        self.bed.start_service()
        for profile in PROFILES.values():
            self.bed.modify(profile, "connection.autoconnect yes")

    def attempt(self, script: str) -> str:
        """Run a shell script on the machine, whatever comes of it; what it printed."""
        return self.bed.machine.attempt("sh", "-c", script).stdout

    def run(self, *command: str) -> str | None:
        """Run a command that may need a program that has stopped; what it printed, None when it failed or did not end."""
        done = self.bed.machine.attempt("timeout", "1", *command)
        return None if done.returncode else done.stdout

    def nmcli(self, *arguments: str) -> str | None:
        """``nmcli``, without waiting for an activation."""
        return self.run("nmcli", "--wait", "0", *arguments)

    def start_command(self, *arguments: str) -> None:
        """Start ``nm-mptcp ...``, and go on."""
        # It may have ended before it is looked at.
        with contextlib.suppress(AssertionError):
            self.commands.append(self.bed.machine.spawn("nm-mptcp", *arguments, log="commands"))

    def activation(self, profile: str) -> str:
        """The D-Bus path of the profile's activation; empty if it is not active."""
        return (self.nmcli("-g", "GENERAL.DBUS-PATH", "connection", "show", "--active", profile) or "").strip()

    def note_modified(self, profile: str) -> None:
        """Note that what makes a profile's addresses paths is modified now: it counts from the next activation on."""
        self.modified[profile] = self.activation(profile)

    def connect(self) -> None:
        """Begin a connection, without waiting for it; it says something at each :meth:`talk`."""
        with contextlib.suppress(OSError):  # MPTCP is off
            made = self.bed.machine.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
            made.setblocking(False)
            self.connections.append(made)
            made.connect((SERVER, PORT))

    def talk(self) -> None:
        """Send a byte on each connection, and forget those that have ended."""
        for each in list(self.connections):
            try:
                each.send(b"x")
                with contextlib.suppress(BlockingIOError):
                    each.recv(1 << 16)
            except BlockingIOError:
                pass
            except OSError:
                each.close()
                self.connections.remove(each)

    def hang_up(self) -> None:
        """End all connections."""
        for each in self.connections:
            each.close()
        self.connections.clear()

    def lose(self, link: str) -> None:
        """Note that a link loses its carrier now."""
        self.losses.setdefault(link, []).append(time.monotonic())

    # --- whole again

    def recover(self) -> None:
        """Let everything that was stopped run again; links and addresses stay as they are."""
        bed = self.bed
        for program in (bed.bus, bed.networkmanager, bed.dispatcher):
            if program.running:
                program.go_on()
        if bed.service and bed.service.running:
            bed.service.program.go_on()
        for each in self.commands:
            each.wait(60)
        self.commands.clear()
        self.attempt(WRITABLE)
        self.start_bus()
        if not bed.networkmanager.running:
            bed.start_networkmanager(settled=False)
        self.start_service()
        assert bed.service
        bed.service.wait_until_ready()
        if self.cleared:
            bed.nm_mptcp("apply")
            self.cleared = False
        self.bed.machine.attempt(*command(), "config", "--reload")

    def start_bus(self) -> None:
        """Start the bus where it does not run; NetworkManager does not come back to it by itself."""
        if not self.bed.bus.running:
            self.bed.networkmanager.stop(signal.SIGKILL)
            self.bed.dispatcher.stop(signal.SIGKILL)
            self.bed.start_bus()

    def start_service(self) -> None:
        """Start the service where it does not run; what was without a record then is nobody's."""
        if self.bed.service:
            if self.bed.service.running:
                return
            assert self.ended, f"the service has ended by itself ({self.bed.service.program.wait()})"
        self.ended = False
        if self.record_lost:
            self.strangers |= {each.address for each in self.bed.endpoints()}
            for name, value in self.bed.path_manager.limits().items():
                self.limits[name].add(value)
            self.record_lost = False
        self.cleared = False
        self.bed.start_service(wait=False)

    def end(self) -> None:
        """Close what is not the bed's."""
        self.hang_up()
        if self.tunnel:
            self.tunnel.close()

    def wait_until_settled(self) -> None:
        """Come back when NetworkManager is on its way nowhere, and the service has acted on all that happened."""
        moving = ("connecting", "deactivating")

        def still() -> bool:
            said = self.bed.attempt_nmcli("-t", "-f", "DEVICE,STATE", "device")
            states = [line.partition(":")[2] for line in said.stdout.splitlines()]
            return said.returncode == 0 and not [state for state in states if state.startswith(moving)]

        wait_for("NetworkManager has settled", still, seconds=60, every=0.05)
        wait_for("the service answers", lambda: self.bed.attempt_sync().returncode == 0, seconds=20, every=0.05)
