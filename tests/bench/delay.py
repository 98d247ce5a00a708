# SPDX-License-Identifier: GPL-2.0-or-later
"""A long way between two namespaces: a relay that holds each packet back for the time that its path takes.

The kernel of the machine may lack netem. So two TUN devices, one at each end, are joined by a program that reads a packet
at one end and writes it at the other when its time has come. Which path it belongs to is told by the client's IPv4
network. Run by :class:`Relay`; the program says at its end what it really did.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..networkmanager.bed import REPOSITORY, Namespace
from ..networkmanager.namespaces import die_with_parent, network_of
from ..networkmanager.tunnel import tun

_SOURCE, _DESTINATION = slice(12, 14), slice(16, 18)


@dataclass(frozen=True)
class Done:
    """What a relay did: packets, and by how much it was late with them (ms) beyond the delay that it was asked for."""

    packets: int
    late_mean: float
    late_max: float


class Relay:
    """Joins ``near`` and ``away`` by a device named ``relay`` in each; ``delays`` has each client network's way in ms.

    A network is told by its first two bytes, as in ``{"10.1": 20.0}``; a packet takes that time in each direction.
    """

    def __init__(self, near: Namespace, away: Namespace, delays: Mapping[str, float]) -> None:
        ends = [_tun(namespace) for namespace in (near, away)]
        self._program = subprocess.Popen(
            [sys.executable, "-m", __name__, *map(str, ends), json.dumps(dict(delays))],
            pass_fds=ends,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent,
        )
        for end in ends:
            os.close(end)
        near.bed.at_end(self._program.kill)

    def stop(self) -> Done:
        """End it, and get what it did."""
        self._program.send_signal(signal.SIGTERM)
        said = self._program.communicate(timeout=10)[0]
        return Done(**json.loads(said))


def _tun(namespace: Namespace) -> int:
    with network_of(namespace.pid):
        end = tun("relay", blocking=False)
    namespace.run("ip", "link", "set", "relay", "txqueuelen", "5000", "up")
    return end


def _relay(near: int, away: int, delays: Mapping[bytes, float]) -> Done:
    """Hand packets on until SIGTERM."""
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    ways = ((near, away, _SOURCE), (away, near, _DESTINATION))
    # One queue for each direction and path: within one, packets stay in order.
    queues = {(into, path): deque[tuple[float, bytes]]() for _, into, _ in ways for path in (*delays, b"")}
    packets, late_sum, late_max = 0, 0.0, 0.0
    clock = time.monotonic
    while not ended:
        due = min((queue[0][0] for queue in queues.values() if queue), default=clock() + 0.5)
        readable = select.select((near, away), (), (), max(0.0, due - clock()))[0]
        for source, into, place in ways:
            if source not in readable:
                continue
            for _ in range(64):
                try:
                    packet = os.read(source, 1 << 16)
                except BlockingIOError:
                    break
                path = packet[place] if packet[place] in delays else b""
                queues[into, path].append((clock() + delays.get(path, 0.0), packet))
        for (into, _), queue in queues.items():
            while queue and queue[0][0] <= clock():
                when, packet = queue.popleft()
                try:
                    os.write(into, packet)
                except OSError:
                    continue  # a packet that the kernel does not take is lost, as on any way
                late = clock() - when
                packets, late_sum, late_max = packets + 1, late_sum + late, max(late_max, late)
    return Done(packets, late_sum / max(packets, 1) * 1000, late_max * 1000)


def _main() -> None:
    near, away = int(sys.argv[1]), int(sys.argv[2])
    Path("/proc/self/comm").write_text("relay")
    delays = {bytes(map(int, net.split("."))): ms / 1000 for net, ms in json.loads(sys.argv[3]).items()}
    print(json.dumps(_relay(near, away, delays).__dict__))


if __name__ == "__main__":
    _main()
