# SPDX-License-Identifier: GPL-2.0-or-later
"""What nm-mptcp costs while links lose packets and none is silent: a part of ``make bench-silent``."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from ..networkmanager.bed import Namespace
from ..networkmanager.product import install
from .links import NEAR, World
from .streams import Server
from .tools import TOOLS
from .usage import Usage
from .watch import until

#: Bytes a second of all uploads together (1 Gbit/s), how many of them there are, and the share of packets that are lost.
_RATE, _UPLOADS, _PERCENT = 125_000_000, 12, 1

#: Seconds that are measured, after those in which the uploads begin.
_BEGINS, _MEASURED = 3.0, 30.0

#: A program that does the same little work again and again for so many seconds, and tells a processor's seconds that it took
#: in the mean: what interrupts and cold caches add to the work of one that wakes up now and then, as the service does.
_YARDSTICK = """
import statistics, sys, time
took, ends = [], time.monotonic() + float(sys.argv[1])
while time.monotonic() < ends:
    time.sleep(0.2)
    began = time.process_time()
    sum(number * number for number in range(20_000))
    took.append(time.process_time() - began)
print(statistics.mean(took))
"""

#: Seconds for which it runs before the uploads begin.
_AT_REST = 10.0

_PORT = 5006
_SO_MAX_PACING_RATE = 47


@dataclass(frozen=True)
class _Count:
    """Sums, of which differences are taken."""

    service: Usage
    acknowledged: int  #: bytes of the uploads that arrived
    resent: int  #: segments that this machine sent again


def cost(directory: Path) -> str:
    """The figures as a sentence."""
    (tool,) = [each for each in TOOLS if each.product]
    root = directory / "cost-root"
    root.mkdir()
    with tool.machine(directory / "cost", install(root)) as bed:
        world = World(bed, tool)
        world.connect()
        world.settle()
        # Packets as they are on the wire: else 1 % of 64 kB at a time would be lost.
        bed.machine.run("ip", "link", "set", world.wifi.name, "gso_max_segs", "1")
        world.lose(_PERCENT)
        at_rest = float(bed.machine.run(sys.executable, "-c", _YARDSTICK, f"{_AT_REST}"))
        sink = _Sink(bed.far)
        for _ in range(_UPLOADS):
            threading.Thread(target=_upload, args=(bed.machine, world.wifi.address), daemon=True).start()
        assert bed.service
        end = time.monotonic() + _BEGINS
        until(lambda: time.monotonic() > end, seconds=_BEGINS + 1)
        counts = [_count(bed.service.pid, bed.machine, sink)]
        loaded = float(bed.machine.run(sys.executable, "-c", _YARDSTICK, f"{_MEASURED}", seconds=2 * _MEASURED))
        counts.append(_count(bed.service.pid, bed.machine, sink))
        sink.close()
        detoured = "silen" in bed.service.log()
    first, last = counts
    slower, share = loaded / at_rest, last.service.share(first.service)
    took = last.service.when - first.service.when
    return (
        f"Beside {_UPLOADS} uploads of together {(last.acknowledged - first.acknowledged) * 8 / took / 1e9:.2f} Gbit/s with"
        f" {_PERCENT} % of the packets lost in each direction ({(last.resent - first.resent) / took:,.0f} retransmissions a"
        f" second) for {took:.0f} s: {share:.2%} of a processor, with the interrupts that the traffic causes meanwhile (the"
        f" same work of another program took {slower:.1f} times what it takes without traffic, so {share / slower:.2%} are"
        f" the service's own), and {(last.service.woken - first.service.woken) / took:.1f} wake-ups a second"
        f"{', and a suspicion' if detoured else ', no suspicion'}."
    )


class _Sink(Server):
    """Takes all that anybody sends, and counts it."""

    def __init__(self, namespace: Namespace) -> None:
        self.taken = 0
        listener = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((NEAR, _PORT))
        listener.listen()
        super().__init__(namespace, listener)

    def serve(self, end: socket.socket) -> None:
        """Take and count."""
        place = bytearray(1 << 18)
        while number := end.recv_into(place):
            self.taken += number


def _upload(namespace: Namespace, source: str) -> None:
    block = bytes(1 << 18)
    with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as end, contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, _RATE // _UPLOADS)
        end.bind((source, 0))
        end.connect((NEAR, _PORT))
        while True:
            end.sendall(block)


def _count(pid: int, machine: Namespace, sink: _Sink) -> _Count:
    names, values = (line.split() for line in machine.sh("grep ^Tcp: /proc/net/snmp").splitlines())
    resent = int(dict(zip(names, values, strict=True))["RetransSegs"])
    return _Count(Usage.of(pid), sink.taken, resent)
