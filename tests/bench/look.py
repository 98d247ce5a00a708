# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-look``: how long a look at the TCP sockets takes, by their number, and the kernel's own part of it.

In network namespaces, on this machine's kernel; needs root. The sockets are connections that were heard within the last
minute; their other ends are closed without a word, as those of a real machine are on others.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import resource
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator

from nm_mptcp.engine.watched_links import WatchedLinks
from nm_mptcp.kernel.sock_diag import GETSOCK, all_sockets
from nm_mptcp.kernel.tcp_sockets import Look, TCPSockets
from nm_mptcp.model.state import Family, Place
from nm_mptcp.policy.silence_evidence import weigh

from ..support.network import Network
from ..support.running import uplinks

SERVER, NOBODY, PORT = "192.0.2.1", "192.0.2.99", 5001

#: Sockets of one process: it may have so many files.
_SHARE = 8_000

_TCP_REPAIR = 19

LINKS = WatchedLinks(
    place_of={"10.1.0.1": Place(Family.IPV4, 2), "10.2.0.1": Place(Family.IPV4, 3)},
    networks=(ipaddress.ip_network("10.1.0.0/24"), ipaddress.ip_network("10.2.0.0/24")),
)


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="tests.bench.look", description=__doc__)
    parser.add_argument("--sockets", type=int, action="append", metavar="N", help="(default: 0, 1,000, 20,000)")
    parser.add_argument("--looks", type=int, default=25, help="of each kind")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    near, far = Network(), Network()
    with near.entered(), contextlib.ExitStack() as ends:
        uplinks(far)
        far.ip(f"route add blackhole {NOBODY}")
        far.ip(f"address add {SERVER}/32 dev lo")
        print("Milliseconds of a processor, medians.\n")
        print(
            "| sockets | the kernel's own part | at all, none waits | at all, one waits | at 1 that sent again | at 16 |"
        )
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        there = 0
        for number in sorted(arguments.sockets or (0, 1_000, 20_000)):
            for begin in range(there, number, _SHARE):
                ends.enter_context(held(far, PORT + begin // _SHARE + number, min(_SHARE, number - begin)))
            there = number
            print(f"| {there:,} | {' | '.join(f'{each:.2f}' for each in measured(arguments.looks))} |", flush=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def held(far: Network, port: int, count: int) -> Iterator[None]:
    """A process that holds so many connections meanwhile."""
    ready, say_ready = os.pipe()
    ended, say_ended = os.pipe()
    if not os.fork():
        os.close(say_ended)
        clients = list(connections(far, port, count))
        os.write(say_ready, b"1")
        os.read(ended, 1)
        os._exit(len(clients) != count)
    for each in (say_ready, ended):
        os.close(each)
    try:
        if not os.read(ready, 1):
            raise OSError("the connections could not be made")
        yield
    finally:
        for each in (say_ended, ready):
            os.close(each)
        os.wait()


def connections(far: Network, port: int, count: int) -> Iterator[socket.socket]:
    """Connections by which something came, each when its other end is gone."""
    with far.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((SERVER, port))
        listener.listen()
        for _ in range(count):
            client = socket.create_connection((SERVER, port))
            other, _ = listener.accept()
            client.send(b"?")
            other.send(b"!")
            client.recv(1)
            time.sleep(0)
            with other:
                other.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
            yield client


def measured(looks: int) -> list[float]:
    """The columns."""
    with TCPSockets() as sockets, socket.socket() as waiting:
        local = {address: place.ifindex for address, place in LINKS.place_of.items()}
        look = lambda: weighed(sockets.look(local, frozenset(), LINKS.is_near))  # noqa: E731
        columns = [milliseconds(lambda: read(sockets), looks), milliseconds(look, looks)]
        waiting.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            waiting.bind(("10.1.0.1", 0))
            waiting.connect((NOBODY, PORT))
        columns.append(milliseconds(look, looks))
        found = sockets.look(local, frozenset(), LINKS.is_near).sockets
        keys = [each.key for each in found][:16] or [(*waiting.getsockname(), NOBODY, PORT)]
        for count in (1, 16):
            asked = keys[:count]
            columns.append(milliseconds(lambda: find(sockets, asked), looks))  # noqa: B023
    return columns


def read(sockets: TCPSockets) -> None:
    """What the kernel has to say, unread."""
    kind = struct.Struct("=4xH")
    sockets._netlink.dump_by(
        GETSOCK,
        all_sockets(),
        lambda data: len(data) if kind.unpack_from(data)[0] == GETSOCK else 0,
        what="read the sockets",
    )


def find(sockets: TCPSockets, keys: list[tuple[str, int, str, int]]) -> None:
    """What a retransmission causes first."""
    weighed(Look(sockets.find(dict.fromkeys(keys, 2))))


def weighed(look: Look) -> None:
    weigh(look, LINKS.place_of, LINKS.is_near)


def milliseconds(call: Callable[[], None], times: int) -> float:
    """The median."""
    took = []
    for _ in range(times):
        begin = time.thread_time()
        call()
        took.append(time.thread_time() - begin)
    return statistics.median(took) * 1000


if __name__ == "__main__":
    main()
