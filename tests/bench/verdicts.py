# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-verdicts``: what looks like a silent link and is none, so many times each; and what is one, and must be found.

Run as root: ``python -m tests.bench.verdicts [--rounds N] [--only CASE ...] [--at-once N]``. Each case has a machine of its
own, with two links; a round lasts some seconds, most of which it waits, and so several cases run at once. Counted are rounds
with a verdict (``silent``), with a detour for new connections, and connections lost.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..networkmanager.bed import PROTOCOL, REPOSITORY, missing
from ..networkmanager.logind import Logind
from ..networkmanager.namespaces import network_of
from ..networkmanager.product import install
from ..support.waits import wait_for
from .links import ECHO, NEAR, PLAIN, World
from .selection import workplace
from .streams import Download, DownloadServer, Echo, EchoServer
from .tools import TOOLS
from .watch import Subflows, until

#: Servers that do not answer, by whichever link; and networks of nobody.
DEAD = ("192.0.2.21", "192.0.2.22")
NOBODY = "198.51.100"

#: A server that answers after so many seconds (it acknowledges at once).
SLOW, SLOWNESS = 5004, 5.0

DOWNLOAD, DATAGRAMS = 5001, 5005


@dataclass
class Laptop:
    """Two links, servers, and what the rounds of a case use."""

    world: World
    ends: list[Callable[[], None]] = field(default_factory=list)

    def connect(self, *addresses: str, port: int = PLAIN) -> list[socket.socket]:
        """Begin plain TCP connections, without waiting."""
        found = []
        for address in addresses:
            client = self.world.bed.machine.socket(socket.AF_INET, socket.SOCK_STREAM)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect((address, port))
            found.append(client)
        self.ends += [client.close for client in found]
        return found

    def stream(self, server: str = NEAR) -> Echo:
        """An MPTCP connection on both links that echoes each 10 ms."""
        echo = Echo(self.world.bed.machine, server, ECHO)
        self.ends.append(echo.close)
        subflows = Subflows(self.world.bed.machine)
        wanted = {link.address for link in self.world.links}
        wait_for("both subflows", lambda: {a for a, _ in subflows.to(server, ECHO)} >= wanted, every=0.005)
        return echo

    def filter(self, text: str) -> None:
        """Rules for packets that come to the far network, in nft's syntax."""
        rules = "\n".join(f"add rule ip verdicts input {line}" for line in text.splitlines() if line.strip())
        self.world.bed.far.sh(
            "nft -f - <<'END'\nadd table ip verdicts\nadd chain ip verdicts input"
            f" {{ type filter hook input priority 0; }}\n{rules}\nEND\n"
        )

    def end_round(self) -> None:
        """Close what the round began."""
        for end in self.ends:
            end()
        self.ends.clear()


def _wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end, seconds=seconds + 1)


@dataclass(frozen=True)
class Case:
    """``prepare`` is called once, ``run`` in each round; ``silent``: whether the link is silent in it."""

    title: str
    run: Callable[[Laptop], list[Echo] | None]
    prepare: Callable[[Laptop], None] = lambda _: None
    silent: bool = False


def _dead(laptop: Laptop) -> None:
    laptop.filter(f"ip daddr {{ {', '.join(DEAD)} }} drop")


def one_dead(laptop: Laptop) -> None:
    """A program waits for a server that does not answer."""
    laptop.connect(DEAD[0])
    _wait(4)


def two_dead_beside_a_busy_one(laptop: Laptop) -> list[Echo]:
    """Two do, and another server answers all the time."""
    echo = laptop.stream()
    laptop.connect(*DEAD)
    _wait(4)
    return [echo]


def slow(laptop: Laptop) -> None:
    """A server that takes its time to answer."""
    (client,) = laptop.connect(NEAR, port=SLOW)
    wait_for("connected", lambda: not client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) and _connected(client))
    client.send(b"hello")
    _wait(SLOWNESS + 0.5)


def _connected(client: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        return bool(client.getpeername())
    return False


def _serve_slowly(laptop: Laptop) -> None:
    listener = laptop.world.bed.far.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("0.0.0.0", SLOW))
    listener.listen()

    def serve() -> None:
        while True:
            end, _ = listener.accept()
            threading.Timer(SLOWNESS, lambda end=end: (end.send(b"late"), end.close())).start()  # type: ignore[misc]

    threading.Thread(target=serve, daemon=True).start()


def _lossy(laptop: Laptop) -> None:
    laptop.world.lose(20)


def loss(laptop: Laptop) -> list[Echo]:
    """A fifth of the packets is lost on one link, in each direction; a stream, and plain connections beside it."""
    echo = Echo(laptop.world.bed.machine, NEAR, ECHO)
    laptop.ends.append(echo.close)
    for _ in range(4):
        laptop.connect(NEAR)
        _wait(1)
    return [echo]


def _far_away(laptop: Laptop) -> None:
    from .delay import Relay
    from .links import AWAY

    namespace = laptop.world.bed.namespace("away")
    laptop.world.relay = Relay(laptop.world.bed.far, namespace, {"10.1": 300.0, "10.2": 30.0})
    namespace.sh(f"ip address add {AWAY}/32 dev lo; ip route add default dev relay")
    laptop.world.bed.far.run("ip", "route", "add", f"{AWAY}/32", "dev", "relay")
    EchoServer(namespace, ECHO)
    EchoServer(namespace, PLAIN, protocol=socket.IPPROTO_TCP)


def long_way(laptop: Laptop) -> list[Echo]:
    """A round-trip takes 0.6 s by one link, and 0.06 s by the other; a stream, and a new connection."""
    from .links import AWAY

    echo = laptop.stream(AWAY)
    laptop.connect(AWAY)
    _wait(4)
    return [echo]


def _queue(laptop: Laptop) -> None:
    # 1 Mbit/s and two seconds of it in the queue, towards the machine.
    laptop.world.bed.far.run(
        "tc", "qdisc", "add", "dev", laptop.world.wifi.far_name, "root", "tbf", "rate", "1mbit", "burst", "16k",
        "latency", "2000ms",
    )  # fmt: skip
    DownloadServer(laptop.world.bed.far, DOWNLOAD)


def full_queue(laptop: Laptop) -> None:
    """A download fills a queue of two seconds; new connections are begun beside it."""
    download = Download(laptop.world.bed.machine, NEAR, DOWNLOAD)
    laptop.ends.append(download.close)
    _wait(2.5)
    laptop.connect(NEAR, NEAR)
    _wait(3.5)


def pause(laptop: Laptop) -> list[Echo]:
    """A Wi-Fi roams: nothing passes for 0.8 s."""
    echo = laptop.stream()
    _wait(0.4)
    laptop.world.wifi.network.silence()
    _wait(0.8)
    laptop.world.wifi.network.speak()
    _wait(1.5)
    return [echo]


def _logind(laptop: Laptop) -> None:
    laptop.world.logind = Logind(laptop.world.bed)  # type: ignore[attr-defined]


def suspended(laptop: Laptop) -> list[Echo]:
    """The machine sleeps for three seconds: nothing is sent or answered, then all sockets time out."""
    import signal

    echo = laptop.stream()
    service = laptop.world.bed.service
    assert service
    for link in laptop.world.links:
        link.network.silence()
    service.program.send(signal.SIGSTOP)
    _wait(3)
    for link in laptop.world.links:
        link.network.speak()
    service.program.send(signal.SIGCONT)
    laptop.world.logind.resume()  # type: ignore[attr-defined]
    _wait(3)
    return [echo]


def _datagrams(laptop: Laptop) -> None:
    _dead(laptop)
    server = laptop.world.bed.far.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", DATAGRAMS))

    def serve() -> None:
        while True:
            _, peer = server.recvfrom(2048)
            for _ in range(200):
                with contextlib.suppress(OSError):
                    server.sendto(bytes(1200), peer)

    threading.Thread(target=serve, daemon=True).start()


def datagrams(laptop: Laptop) -> None:
    """A download by UDP (QUIC) beside a dead TCP server."""
    laptop.connect(DEAD[0])
    client = laptop.world.bed.machine.socket(socket.AF_INET, socket.SOCK_DGRAM)
    laptop.ends.append(client.close)
    client.connect((NEAR, DATAGRAMS))
    client.setblocking(False)
    end = time.monotonic() + 4
    while time.monotonic() < end:
        client.send(b"more")
        _wait(0.02)
        with contextlib.suppress(BlockingIOError):
            while True:
                client.recv(2048)


def lan_while_dead(laptop: Laptop) -> None:
    """A transfer within the link's own network goes on while the line beyond it is dead, and programs connect."""
    machine = laptop.world.bed.machine
    near = Download(machine, laptop.world.wifi.gateway, DOWNLOAD)
    laptop.ends.append(near.close)
    laptop.world.wifi.network.silence()
    laptop.connect(NEAR, "192.0.2.11", "192.0.2.12")
    until(lambda: _is_silent(laptop), seconds=6)
    laptop.world.wifi.network.speak()
    until(lambda: not _is_detoured(laptop), seconds=12)


def _lan(laptop: Laptop) -> None:
    laptop.world.bed.far.sh("for n in 11 12; do ip address add 192.0.2.$n/32 dev lo; done")
    DownloadServer(laptop.world.bed.far, DOWNLOAD)


def _nobody(laptop: Laptop) -> None:
    laptop.world.bed.far.sh(f"for n in 100 101 102 103; do ip route add blackhole 198.51.$n.0/24; done")  # noqa: F541
    laptop.filter("ip daddr 198.51.0.0/16 drop")


def scan(laptop: Laptop) -> None:
    """A port scanner sends a thousand SYNs to nobody."""
    addresses = [f"198.51.{100 + number // 250}.{number % 250 + 1}" for number in range(1000)]
    laptop.connect(*addresses)
    _wait(4)


def _container(laptop: Laptop) -> None:
    bed = laptop.world.bed
    inner = bed.namespace("container")
    bed.machine.sh(
        f"ip link add vctr0 type veth peer name eth0 netns {bed.inner(inner.pid)};"
        " ip address add 172.30.0.1/24 dev vctr0; ip link set vctr0 up"
    )
    inner.sh("ip address add 172.30.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 172.30.0.1")
    laptop.world.container = inner  # type: ignore[attr-defined]


def other_namespace(laptop: Laptop) -> None:
    """Programs in another network namespace connect to nobody."""
    inner = laptop.world.container  # type: ignore[attr-defined]
    with network_of(inner.pid):
        clients = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(20)]
    for number, client in enumerate(clients):
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError, OSError):
            client.connect((f"{NOBODY}.{number + 1}", PLAIN))
    laptop.ends += [client.close for client in clients]
    _wait(4)


def _refusing(laptop: Laptop) -> None:
    from .links import NO_SUBFLOWS

    limited = laptop.world.server(NO_SUBFLOWS)
    limited.run("ip", "mptcp", "limits", "set", "subflows", "0", "add_addr_accepted", "0")
    EchoServer(limited, ECHO)


def refusing(laptop: Laptop) -> list[Echo]:
    """A peer that refuses joins."""
    from .links import NO_SUBFLOWS

    echo = Echo(laptop.world.bed.machine, NO_SUBFLOWS, ECHO)
    laptop.ends.append(echo.close)
    _wait(3)
    return [echo]


def really_silent(laptop: Laptop) -> list[Echo]:
    """For comparison: nothing passes beside a stream."""
    echo = laptop.stream()
    _wait(0.4)
    laptop.world.wifi.network.silence()
    until(lambda: _is_silent(laptop), seconds=6)
    laptop.world.wifi.network.speak()
    until(lambda: not _is_detoured(laptop), seconds=40)
    return [echo]


CASES: dict[str, Case] = {
    "one-dead": Case("one dead server", one_dead, _dead),
    "two-dead": Case("two dead servers beside a busy one", two_dead_beside_a_busy_one, _dead),
    "slow": Case("a server that answers after 5 s", slow, _serve_slowly),
    "loss": Case("20 % random loss in each direction", loss, _lossy),
    "long": Case("600 ms round-trip", long_way, _far_away),
    "queue": Case("a full queue of 2 s", full_queue, _queue),
    "pause": Case("a pause of 0.8 s (roaming)", pause),
    "sleep": Case("a suspended laptop", suspended, _logind),
    "udp": Case("a UDP download beside one dead TCP server", datagrams, _datagrams),
    "scan": Case("a port scanner, 1,000 SYNs to nobody", scan, _nobody),
    "namespace": Case("traffic in another network namespace", other_namespace, _container),
    "refusing": Case("a peer that refuses joins", refusing, _refusing),
    "lan": Case("a LAN transfer while the line is dead", lan_while_dead, _lan, silent=True),
    "silent": Case("a silent link beside a stream", really_silent, silent=True),
}


def _is_silent(laptop: Laptop) -> bool:
    assert laptop.world.bed.service
    log = laptop.world.bed.service.log()
    return log.count(": silent (IPv4)") > log.count(": answers again (IPv4)")


def _is_detoured(laptop: Laptop) -> bool:
    shown = laptop.world.bed.machine.ip("route", "show", "table", "main", "proto", PROTOCOL)
    return any(route["dst"] == "default" for route in shown)


@contextlib.contextmanager
def _detours(laptop: Laptop) -> Iterator[list[bool]]:
    """Whether there was a detour meanwhile."""
    seen: list[bool] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            if not seen and _is_detoured(laptop):
                seen.append(True)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


@dataclass
class Count:
    """The result of a case."""

    rounds: int = 0
    verdicts: int = 0
    detours: int = 0
    lost: int = 0


def measure(name: str, rounds: int, directory: Path, installed: Path) -> Count:
    """All rounds of one case, in a folder of its own below this one."""
    case, count = CASES[name], Count()
    (tool,) = [each for each in TOOLS if each.product]
    with tool.machine(directory / name, installed) as bed:
        laptop = Laptop(World(bed, tool))
        laptop.world.connect()
        EchoServer(bed.far, ECHO)
        EchoServer(bed.far, PLAIN, protocol=socket.IPPROTO_TCP)
        for address in DEAD:
            bed.far.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        case.prepare(laptop)
        laptop.world.settle()
        for _ in range(rounds):
            assert bed.service
            before = len(bed.service.log())
            with _detours(laptop) as detours:
                streams = case.run(laptop) or []
            count.rounds += 1
            said = bed.service.log()[before:]
            found = ": silent (IPv4)" in said
            count.verdicts += found
            if found != case.silent:
                print(f"{case.title}, round {count.rounds}:\n{said}", file=sys.stderr, flush=True)
            count.detours += bool(detours)
            count.lost += sum(1 for stream in streams if not stream.alive)
            laptop.end_round()
            until(lambda: not _is_detoured(laptop), seconds=10)
    return count


def table(counts: dict[str, Count], at_once: int) -> str:
    """The Markdown page."""
    lines = [
        "<!-- made by `make bench-verdicts`; do not edit -->\n",
        f"Linux {os.uname().release}, {os.cpu_count()} cores, {at_once} cases at once.\n",
        "| what happens | rounds | verdict: silent | new connections led around | connections lost |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, count in counts.items():
        title = f"**{CASES[name].title}**" if CASES[name].silent else CASES[name].title
        lines.append(f"| {title} | {count.rounds} | {count.verdicts} | {count.detours} | {count.lost} |")
    lines += [
        "\nIn bold: the link is silent, and has to be found.",
        "A suspended laptop is a service that is stopped for 3 s while its clock goes on, which that of a machine that really",
        "sleeps does not.",
    ]
    return "\n".join(lines) + "\n"


def run(cases: Sequence[str], rounds: int, at_once: int) -> dict[str, Count]:
    """The results of these cases."""
    counts: dict[str, Count] = {}
    with workplace() as directory, ProcessPoolExecutor(at_once, multiprocessing.get_context("fork")) as executor:
        each = partial(measure, rounds=rounds, directory=directory, installed=install(directory / "root"))
        for name, count in zip(cases, executor.map(each, cases), strict=True):
            counts[name] = count
            print(f"{CASES[name].title}: {count}", flush=True)
    return counts


def main() -> int:
    """Measure, print the table, write it; 1 if a verdict was wrong."""
    parser = argparse.ArgumentParser(prog="tests.bench.verdicts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, metavar="N")
    parser.add_argument("--only", action="append", choices=CASES, metavar="CASE")
    parser.add_argument("--at-once", type=int, default=7, metavar="N", help="so many cases at a time")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs", help="where the table goes")
    chosen = parser.parse_args()
    if lacking := missing():
        print(f"The bench needs {', '.join(lacking)}: try 'sudo make bench-verdicts'.", file=sys.stderr)
        return 1
    counts = run([name for name in CASES if not chosen.only or name in chosen.only], chosen.rounds, chosen.at_once)
    text = table(counts, chosen.at_once)
    print(f"\n{text}")
    (chosen.output / "bench-verdicts.md").write_text(text)
    wrong = sum(
        count.lost + (count.rounds - count.verdicts if CASES[name].silent else count.verdicts)
        for name, count in counts.items()
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
