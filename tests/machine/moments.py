# SPDX-License-Identifier: GPL-2.0-or-later
"""Inside a machine: do something to a link, and tell in JSON when (ms since then) what came of it.

``python3 -m tests.machine.moments lost|back INTERFACE ADDRESS SERVER PORT SECONDS COMMAND``. What does not come within the
SECONDS is null. ``lost``: ``carrier`` is lost, as the kernel tells everybody; ``endpoint``: that of ADDRESS is gone;
``connected``: a new connection to the server, begun when the carrier was lost, has its first answer. ``back``: ``carrier`` is
there; ``endpoint``: ADDRESS has one; ``subflow``: a connection to the server that lives has a subflow from ADDRESS.

From the driver's word that the carrier is lost until routing and everybody else hears it, the kernel's link watch takes its
time: some milliseconds, a quarter of a second in an emulated machine. What begins to connect in between leaves by the dead
link, with its address, and fails some seconds later with this package as without: nobody can save it, and it is not what is
asked for here. (Linux before 6.8 shows the driver's word in /sys/class/net/*/carrier; later ones let who reads it wait.)
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.networkmanager.kernel_view import PathManager, attributes

MPTCP = 262
ESTABLISHED = "01"

#: Of rtnetlink: the group that is told of links, its message, and a link's state, which is down when routing has heard so.
LINKS, NEWLINK, OPERSTATE, DOWN = 1, 16, 16, 2

#: Seconds between two looks. Each is some reads of the kernel's own tables: a program started for it would take longer.
EVERY = 0.002


class Moments:
    """When what was first seen, in ms since the beginning."""

    def __init__(self, interface: str, address: str, server: str, port: int) -> None:
        self._carrier = Path("/sys/class/net", interface, "carrier")
        self._index = socket.if_nametoindex(interface)
        self._links = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._links.bind((0, LINKS))
        self._links.setblocking(False)
        self._address = address
        self._place = (server, port)
        self._path_manager = PathManager(os.getpid())
        self._begin = time.monotonic()
        self._connected: float | None = None

    def lost(self, seconds: float) -> dict[str, float | None]:
        """What comes when the link is lost."""
        carrier = self._until(self._told_that_it_is_down, seconds)
        connecting = threading.Thread(target=self._connect, args=(seconds,), daemon=True)
        connecting.start()
        endpoint = self._until(lambda: not self._has_endpoint(), seconds)
        connecting.join(seconds)
        return {"carrier": carrier, "endpoint": endpoint, "connected": self._connected}

    def back(self, seconds: float) -> dict[str, float | None]:
        """What comes when the link is there again."""
        return {
            "carrier": self._until(self._has_carrier, seconds),
            "endpoint": self._until(self._has_endpoint, seconds),
            "subflow": self._until(self._has_subflow, seconds),
        }

    def _until(self, came: Callable[[], bool], seconds: float) -> float | None:
        end = time.monotonic() + seconds
        while not came():
            if time.monotonic() > end:
                return None
            time.sleep(EVERY)
        return self._now()

    def _now(self) -> float:
        return round((time.monotonic() - self._begin) * 1000, 1)

    def _told_that_it_is_down(self) -> bool:
        """Whether the kernel has said so since the last look."""
        with contextlib.suppress(BlockingIOError):
            while data := self._links.recv(1 << 16):
                # Of links each message comes by itself: its head, that of a link, and what else is told of it.
                kind, index = struct.unpack_from("=4xH14xi", data)
                told = dict(attributes(data[32:]))
                if (kind, index) == (NEWLINK, self._index) and told.get(OPERSTATE) == bytes([DOWN]):
                    return True
        return False

    def _has_carrier(self) -> bool:
        try:
            return self._carrier.read_text() == "1\n"
        except OSError:  # the interface is down
            return False

    def _has_endpoint(self) -> bool:
        return any(endpoint.address == self._address for endpoint in self._path_manager.endpoints())

    def _has_subflow(self) -> bool:
        # Subflows of MPTCP are TCP sockets; an IPv6 socket's are in the other table.
        local, remote = _hexadecimal(self._address), _hexadecimal(self._place[0])
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, from_, to, state, *_ = line.split()
            if from_.partition(":")[0] == local and to == f"{remote}:{self._place[1]:04X}" and state == ESTABLISHED:
                return True
        return False

    def _connect(self, seconds: float) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP) as end:
            end.settimeout(seconds)
            try:
                end.connect(self._place)
                end.sendall(b"hello")
                if end.recv(5):
                    self._connected = self._now()
            except OSError:
                return


def _hexadecimal(address: str) -> str:
    return f"{struct.unpack('=I', socket.inet_aton(address))[0]:08X}"


def main() -> None:
    """Do it, and print the document."""
    which, interface, address, server, port, seconds, command = sys.argv[1:]
    moments = Moments(interface, address, server, int(port))
    doing = subprocess.Popen(["sh", "-ec", command], stdout=subprocess.DEVNULL)
    told = {"lost": moments.lost, "back": moments.back}[which](float(seconds))
    if doing.wait():
        sys.exit(f"{command}: exit status {doing.returncode}")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
