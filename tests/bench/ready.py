# SPDX-License-Identifier: GPL-2.0-or-later
"""How long from "address and default route are there" to "rules, table and endpoint are there", under real NetworkManager.

Run as root: ``python -m tests.bench.ready [ROUNDS]``. Each round brings a DHCP profile up and takes it down again; the
kernel's own events give the beginning, asking for the endpoint every half millisecond gives the end.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

from ..networkmanager.bed import Bed
from ..networkmanager.kernel_view import PathManager
from ..networkmanager.product import install

_RTM_NEWADDR, _RTM_NEWROUTE = 20, 24
_GROUPS = 0x10 | 0x40  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE
_MAIN = 254


class Watch:
    """When the last of address and default route came, and when the endpoint did; seconds of the monotonic clock."""

    def __init__(self, bed: Bed, address: str) -> None:
        self._events = bed.machine.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._events.bind((0, _GROUPS))
        self._path_manager = PathManager(bed.machine.pid)
        self._address = address
        self.there: dict[int, float] = {}
        self.endpoint = 0.0
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._listen, self._poll)]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        while len(self.there) < 2:
            data = self._events.recv(65536)
            now = time.monotonic()
            kind = struct.unpack_from("=IH", data)[1]
            body = data[16:]
            if kind == _RTM_NEWADDR or (kind == _RTM_NEWROUTE and body[1] == 0 and body[4] == _MAIN):
                self.there.setdefault(kind, now)

    def _poll(self) -> None:
        end = time.monotonic() + 20
        while not any(endpoint.address == self._address for endpoint in self._path_manager.endpoints()):
            if time.monotonic() > end:
                return
            time.sleep(0.0005)
        self.endpoint = time.monotonic()

    def delay(self) -> float:
        """Milliseconds from the later of the two to the endpoint."""
        for thread in self._threads:
            thread.join(20)
        self._events.close()
        self._path_manager.close()
        return (self.endpoint - max(self.there.values())) * 1000


def main() -> None:
    """Measure and print one line."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    directory = Path(tempfile.mkdtemp(prefix="nm-mptcp-bench-"))
    root = directory / "root"
    root.mkdir()
    bed = Bed(directory, installed=install(root))
    try:
        bed.uplink("wlan0", dhcp="10.1.0.0/24")
        link = bed.uplink("wwan0", dhcp="10.2.0.0/24")
        bed.profile("Wi-Fi", "wlan0", "ipv4.route-metric 600")
        bed.profile("LTE", "wwan0", "ipv4.route-metric 700")
        bed.start_service()
        bed.up("Wi-Fi")
        delays = []
        for _ in range(rounds):
            watch = Watch(bed, link.address)
            bed.up("LTE")
            delays.append(watch.delay())
            bed.down("LTE")
            bed.wait_no_endpoint(link.address)
        print(
            f"address and route there -> endpoint there: median {statistics.median(delays):.1f} ms, "
            f"max {max(delays):.1f} ms, {rounds} rounds"
        )
    finally:
        bed.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
