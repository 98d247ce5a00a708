# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a lost link's endpoint waits while anybody asks for Status, as often as he can: ``python -m tests.bench.askers``.

Run as root. From the kernel's word that the carrier is lost until the endpoint is gone, without and with 1,000 calls under
way all the time, and how long root's Sync takes meanwhile.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from ..networkmanager.bed import REPOSITORY, Bed, missing
from ..networkmanager.namespaces import Program, network_of, wait_for
from ..networkmanager.product import install
from ..networkmanager.uplinks import Links

#: So many calls of as many connections are under way; one connection may have 128 that wait for a reply.
CONNECTIONS, CALLS = 10, 100

ROUNDS = 8

_RTMGRP_LINK = 1


def ask() -> None:
    """The program of who asks."""

    async def main() -> None:
        from nm_mptcp.dbus.connection import BusError, connected

        async def again(bus: object) -> None:
            while True:
                try:
                    await bus.call("org.nm_mptcp1", "/org/nm_mptcp1", "org.nm_mptcp1", "Status", timeout=60)  # type: ignore[attr-defined]
                except BusError as error:
                    print(error, flush=True)
                    await asyncio.sleep(0.1)

        bus = await connected()
        print("asking", flush=True)
        await asyncio.gather(*(again(bus) for _ in range(CALLS)))

    asyncio.run(main())


class Witness:
    """Notes when the kernel says that a link changed."""

    def __init__(self, bed: Bed) -> None:
        self.heard = 0.0
        with network_of(bed.machine.pid):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self._socket.bind((0, _RTMGRP_LINK))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            self._socket.recv(65536)
            self.heard = self.heard or time.monotonic()


def measure(bed: Bed, links: Links) -> tuple[list[float], list[float]]:
    """Milliseconds from the loss to the end of the endpoint, and of a Sync."""
    witness = Witness(bed)
    losses, syncs = [], []
    for _ in range(ROUNDS):
        began = time.monotonic()
        bed.sync()
        syncs.append((time.monotonic() - began) * 1000)
        witness.heard = 0.0
        links.lte.carrier(False)
        wait_for("it is gone", lambda: not bed.endpoint(links.lte.address), every=0.0002)
        losses.append((time.monotonic() - witness.heard) * 1000)
        links.lte.carrier(True)
        bed.wait_endpoint(links.lte.address, seconds=60)
        bed.sync()
    return losses, syncs


def main() -> int:
    """Measure, and print."""
    if lacking := missing():
        sys.exit(f"needs {', '.join(lacking)}")
    folder = Path(tempfile.mkdtemp(prefix="nm-mptcp-askers-"))
    bed = Bed(folder, installed=install(folder / "installed"))
    try:
        links = Links.plug_in(bed)
        bed.without_dispatcher_scripts()
        bed.write("/etc/nm-mptcp/nm-mptcp.conf", "", 0o644)
        bed.start_service()
        bed.up("Wi-Fi", "LTE")
        for link in (links.wifi, links.lte):
            bed.wait_endpoint(link.address)
        for number in (0, CONNECTIONS):
            code = "from tests.bench.askers import ask; ask()"
            askers = [
                Program(
                    ["env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-c", code],
                    entering=bed.machine.entering,
                    log=folder / f"asker-{each}.log",
                )
                for each in range(number)
            ]
            for asker in askers:
                wait_for("it asks", lambda asker=asker: "asking" in asker.output())  # type: ignore[misc]
            try:
                losses, syncs = measure(bed, links)
            except AssertionError:
                print(bed.service.log()[-3000:], askers[0].output()[-500:])
                raise
            for what, figures in (("loss", losses), ("sync", syncs)):
                middle, most = statistics.median(figures), max(figures)
                print(f"{number * CALLS:5} calls: {what} {middle:7.1f} ms median, {most:7.1f} ms at most", flush=True)
            for asker in askers:
                asker.stop(9)
    finally:
        bed.stop()
        subprocess.run(["rm", "-rf", str(folder)], check=False)
    return 0


if __name__ == "__main__":
    assert shutil.which("ip")
    sys.exit(main())
