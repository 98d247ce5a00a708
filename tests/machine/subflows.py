# SPDX-License-Identifier: GPL-2.0-or-later
"""What this kernel does with live connections when endpoints come, go and change: the ground that failover stands on.

``python3 -m tests.machine.subflows [--tries N] [NAME...]`` (root; in network namespaces of its own) prints one line of
JSON for each situation. It asks the kernel, and judges only whether the connection lives and subflows are where they
should be; what that means for us is said by the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import re
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nm_mptcp.kernel.path_manager import PathManager
from nm_mptcp.kernel.sock_diag import Sockets, Subflow
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import Endpoint
from tests.support.mptcp import Echo, two_paths
from tests.support.network import Network
from tests.support.waits import wait_for

SUBFLOW, BACKUP = EndpointFlag.SUBFLOW, EndpointFlag.BACKUP
FIRST, SECOND, SERVER = "10.1.0.1", "10.2.0.1", "10.9.0.1"
FIRST6, SECOND6, SERVER6 = "2001:db8:1::1", "2001:db8:2::1", "2001:db8:9::1"

#: Seconds that the kernel has for each step; emulated machines are slow.
PATIENCE = 8.0

COMPLAINT = re.compile(r"WARNING:|BUG:|Oops|general protection|refcount_t|blocked for more than|stall")


@dataclass
class Result:
    """How often it was tried, how often it went well, how long (s) it took then, and what went wrong."""

    name: str
    tries: int = 0
    worked: int = 0
    seconds: list[float] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def line(self) -> str:
        """As JSON."""
        took = [round(1000 * figure(self.seconds)) for figure in (statistics.median, max)] if self.seconds else []
        return json.dumps(
            {
                "name": self.name,
                "tries": self.tries,
                "worked": self.worked,
                "milliseconds": took,
                "troubles": sorted(set(self.troubles)),
                "complaints": self.complaints,
            }
        )


class Bed:
    """Two ways to a server; both addresses may have an endpoint."""

    def __init__(self) -> None:
        self.near, self.far = Network(), Network()
        self.first, self.second = two_paths(self.near, self.far)
        with self.near.entered():
            self.manager = PathManager()
            self.sockets = Sockets()
            self.sockets.subflows()
            self.manager.endpoints()
        self.marked = self.counters()
        with self.far.entered():
            self.far_sockets = Sockets()
            self.far_sockets.subflows()

    def close(self) -> None:
        """Take all down."""
        for each in (self.manager, self.sockets, self.far_sockets, self.near, self.far):
            each.close()

    def add(self, address: str, flags: EndpointFlag = SUBFLOW, *, id: int = 0) -> Endpoint:
        """Add an endpoint on the interface of this address."""
        ifindex = self.first if address in (FIRST, FIRST6) else self.second
        self.manager.add(Endpoint(address, ifindex, flags, id=id))
        return self.endpoint(address)

    def endpoint(self, address: str) -> Endpoint:
        """The endpoint on this address."""
        return next(each for each in self.manager.endpoints() if each.address == address)

    def delete(self, address: str) -> int:
        """Delete it; its id."""
        self.marked = self.counters()
        endpoint = self.endpoint(address)
        self.manager.delete(endpoint)
        return endpoint.id

    def subflows(self) -> dict[str, Subflow]:
        """Our established subflows, by local address."""
        return {each.local: each for each in self.sockets.subflows() if each.established}

    def far_addresses(self) -> dict[str, Subflow]:
        """The server's established subflows, by our address."""
        return {each.remote: each for each in self.far_sockets.subflows() if each.established}

    def wait(self, *addresses: str) -> float:
        """Wait until both sides have established subflows on exactly these addresses; how long it took (s)."""
        begin = time.monotonic()
        counted = self.counters()

        def there() -> bool:
            return self.subflows().keys() == self.far_addresses().keys() == set(addresses)

        try:
            wait_for(f"subflows on {', '.join(addresses)} alone", there, seconds=PATIENCE, every=0.002)
        except AssertionError:
            states = [
                f"{each.local}:{each.state.name.lower()}:id{each.local_id}:{each.flags!r}"
                for each in self.sockets.subflows()
            ]
            raise AssertionError(
                f"wanted {'+'.join(addresses)}, there are {states}, the server has {sorted(self.far_addresses())}; "
                f"counted meanwhile {self.counters() - counted}, before {counted - self.marked}"
            ) from None
        return time.monotonic() - begin

    def counters(self) -> Counter[str]:
        """MPTCP's counters of both sides."""
        counted: Counter[str] = Counter()
        for side, network in (("our", self.near), ("server's", self.far)):
            with network.entered():
                names, numbers = (
                    line.split()[1:]
                    for line in Path("/proc/thread-self/net/netstat").read_text().splitlines()
                    if line.startswith("MPTcpExt:")
                )
            for name, number in zip(names, numbers, strict=True):
                counted[f"{side} {name}"] = int(number)
        return counted

    @contextlib.contextmanager
    def connection(self, *endpoints: str, server: str = SERVER) -> Iterator[Echo]:
        """A connection by the first way, with these endpoints, its subflows established."""
        for address in endpoints:
            self.add(address)
        first, second = (FIRST6, SECOND6) if ":" in server else (FIRST, SECOND)
        try:
            with self.near.entered(), Echo(self.far, server) as echo:
                self.wait(first, *({second} & set(endpoints)))
                yield echo
        finally:
            for endpoint in self.manager.endpoints():
                self.manager.delete(endpoint)

    def carried(self, device: str) -> int:
        """Bytes sent by this device so far."""
        shown = json.loads(self.near.ip(f"-j -s link show {device}"))
        return int(shown[0]["stats64"]["tx"]["bytes"])

    def sends_by(self, echo: Echo, device: str) -> bool:
        """Whether most of what is sent leaves by this device."""
        before = {name: self.carried(name) for name in ("v1", "v2")}
        for _ in range(4):
            echo.echo(bytes(20_000))
        sent = {name: self.carried(name) - before[name] for name in before}
        return sent[device] > 0.75 * sum(sent.values())


Situation = Callable[[Bed, int], Iterator[float | None]]
SITUATIONS: dict[str, Situation] = {}


def situation(name: str) -> Callable[[Situation], Situation]:
    """Something to try: a generator that yields after each try that went well (how long something took in it, s)."""

    def note(what: Situation) -> Situation:
        SITUATIONS[name] = what
        return what

    return note


def _away_and_back(bed: Bed, echo: Echo, address: str, other: str, *, same_id: bool) -> float:
    """Delete an endpoint and add it again: the connection lives on by the other, and comes back, for data, too."""
    number = bed.delete(address)
    bed.wait(other)
    echo.echo()
    bed.add(address, id=number if same_id else 0)
    took = bed.wait(address, other)
    echo.echo()
    return took


def _register_away_and_back() -> None:
    for title, address in (("initial", FIRST), ("joined", SECOND)):
        for ids in ("same id", "new id"):

            def again(bed: Bed, tries: int, address: str = address, ids: str = ids) -> Iterator[float | None]:
                with bed.connection(FIRST, SECOND) as echo:
                    for _ in range(tries):
                        yield _away_and_back(
                            bed, echo, address, SECOND if address == FIRST else FIRST, same_id=ids == "same id"
                        )

            def fresh(bed: Bed, tries: int, address: str = address, ids: str = ids) -> Iterator[float | None]:
                for _ in range(tries):
                    with bed.connection(FIRST, SECOND) as echo:
                        yield _away_and_back(
                            bed, echo, address, SECOND if address == FIRST else FIRST, same_id=ids == "same id"
                        )

            situation(f"{title} endpoint deleted and added, {ids}, one connection")(again)
            situation(f"{title} endpoint deleted and added, {ids}, new connections")(fresh)


_register_away_and_back()


@situation("initial endpoint deleted and added, IPv6, one connection")
def _ipv6(bed: Bed, tries: int) -> Iterator[float | None]:
    with bed.connection(FIRST6, SECOND6, server=SERVER6) as echo:
        for _ in range(tries):
            yield _away_and_back(bed, echo, FIRST6, SECOND6, same_id=False)


@situation("both endpoints in turn, one connection; data goes by the one that came back")
def _in_turn(bed: Bed, tries: int) -> Iterator[float | None]:
    with bed.connection(FIRST, SECOND) as echo:
        for _ in range(tries):
            took = 0.0
            for address, device, other in ((FIRST, "v1", SECOND), (SECOND, "v2", FIRST)):
                took = max(took, _away_and_back(bed, echo, address, other, same_id=False))
                bed.delete(other)
                bed.wait(address)
                assert bed.sends_by(echo, device), f"nothing is sent by {device} alone"
                bed.add(other)
                took = max(took, bed.wait(address, other))
            yield took


def _under_load(bed: Bed, tries: int, address: str, pause: float) -> Iterator[float | None]:
    other = SECOND if address == FIRST else FIRST
    with bed.connection(FIRST, SECOND) as echo:
        ended = threading.Event()
        troubles: list[str] = []
        rounds = [0]

        def load() -> None:
            try:
                while not ended.is_set():
                    echo.echo(os.urandom(30_000))  # which sees that every byte is right
                    rounds[0] += 1
            except (OSError, AssertionError) as error:
                troubles.append(f"the transfer: {error!r:.200}")

        def goes_on() -> None:
            seen = rounds[0]
            wait_for("data goes on", lambda: rounds[0] > seen + 1 or troubles, seconds=PATIENCE)
            assert not troubles, troubles[0]

        worker = threading.Thread(target=load, daemon=True)
        worker.start()
        try:
            for _ in range(tries):
                bed.delete(address)
                bed.wait(other)
                goes_on()
                time.sleep(pause)
                bed.add(address)
                took = bed.wait(FIRST, SECOND)
                goes_on()
                yield took
        finally:
            ended.set()
            worker.join(20)


def _register_load() -> None:
    for title, address in (("initial", FIRST), ("joined", SECOND)):
        for pause in (0.0, 0.5):
            situation(f"{title} endpoint deleted and added {pause:g} s later under load, one connection")(
                functools.partial(_under_load, address=address, pause=pause)
            )


_register_load()


@situation("carrier of the initial path lost, endpoint deleted; both back, one connection")
def _carrier(bed: Bed, tries: int) -> Iterator[float | None]:
    with bed.connection(FIRST, SECOND) as echo:
        for _ in range(tries):
            bed.far.ip("link set v1 down")
            bed.delete(FIRST)
            begin = time.monotonic()
            echo.echo()
            assert time.monotonic() - begin < PATIENCE
            wait_for("the second alone", lambda: bed.subflows().keys() == {SECOND}, seconds=PATIENCE)
            bed.far.ip("link set v1 up")
            wait_for("carrier", lambda: "LOWER_UP" in bed.near.ip("link show v1"), seconds=PATIENCE)
            bed.add(FIRST)
            yield bed.wait(FIRST, SECOND)
            echo.echo()


def _register_loss() -> None:
    for title, address, device in (("initial", FIRST, "v1"), ("joined", SECOND, "v2")):

        def loss(
            bed: Bed, tries: int, address: str = address, device: str = device, deleted: bool = True
        ) -> Iterator[float | None]:
            for _ in range(tries):
                with bed.connection(FIRST, SECOND) as echo:
                    for _ in range(3):  # so that both subflows have been used
                        echo.echo(bytes(20_000))
                    begin = time.monotonic()
                    bed.far.ip(f"link set {device} down")
                    if deleted:
                        bed.delete(address)
                    echo.echo()
                    took = time.monotonic() - begin
                    bed.far.ip(f"link set {device} up")
                    wait_for("carrier", lambda: "LOWER_UP" in bed.near.ip(f"link show {device}"), seconds=PATIENCE)
                    yield took

        situation(f"carrier of the {title} path lost, endpoint deleted: the next echo, new connections")(loss)
        situation(f"carrier of the {title} path lost, endpoint left: the next echo, new connections")(
            functools.partial(loss, deleted=False)
        )


_register_loss()


def _register_at_once() -> None:
    for title, address in (("initial", FIRST), ("joined", SECOND)):

        def at_once(bed: Bed, tries: int, address: str = address) -> Iterator[float | None]:
            for _ in range(tries):
                with bed.connection(FIRST, SECOND) as echo:
                    port = bed.subflows()[address].local_port
                    bed.delete(address)
                    bed.add(address)

                    def anew(port: int = port) -> bool:
                        there = bed.subflows()
                        return address in there and there[address].local_port != port

                    begin = time.monotonic()
                    wait_for(f"a new subflow on {address}", anew, seconds=PATIENCE)
                    took = time.monotonic() - begin
                    time.sleep(0.2)  # a late RM_ADDR may take it away again
                    bed.wait(FIRST, SECOND)
                    echo.echo()
                    yield took

        situation(f"{title} endpoint deleted and added at once, new connections")(at_once)


_register_at_once()


def _register_announced() -> None:
    for ids in ("same id", "new id"):
        for title, server in (("another address", SERVER), ("one of them", "10.1.0.2")):

            def announced(bed: Bed, tries: int, ids: str = ids, server: str = server) -> Iterator[float | None]:
                for number in (1, 2):
                    bed.far.ip(f"mptcp endpoint add 10.{number}.0.2 dev v{number} signal")
                with bed.connection(FIRST, SECOND, server=server) as echo:
                    for _ in range(tries):
                        yield _away_and_back(bed, echo, FIRST, SECOND, same_id=ids == "same id")

            situation(
                f"initial endpoint deleted and added, {ids}, the server announces two addresses, connected to {title}"
            )(announced)


_register_announced()


@situation("address of the initial path removed after its endpoint; both back, one connection")
def _address(bed: Bed, tries: int) -> Iterator[float | None]:
    with bed.connection(FIRST, SECOND) as echo:
        for _ in range(tries):
            bed.delete(FIRST)
            bed.near.ip(f"addr del {FIRST}/24 dev v1")
            bed.wait(SECOND)
            echo.echo()
            bed.near.ip(f"addr add {FIRST}/24 dev v1")
            bed.near.ip("route replace default via 10.1.0.2 dev v1 metric 1")
            bed.near.ip("route replace default via 10.1.0.2 dev v1 table 101")
            bed.add(FIRST)
            yield bed.wait(FIRST, SECOND)
            echo.echo()


@situation("lone path: its endpoint deleted and added after 0.3 s, new connections")
def _lone(bed: Bed, tries: int) -> Iterator[float | None]:
    for _ in range(tries):
        with bed.connection(FIRST) as echo:
            bed.delete(FIRST)
            time.sleep(0.3)
            bed.add(FIRST)
            begin = time.monotonic()
            echo.echo()
            yield time.monotonic() - begin


@situation("id 0 deleted where the initial address has no endpoint, new connections")
def _id_0(bed: Bed, tries: int) -> Iterator[float | None]:
    for _ in range(tries):
        with bed.connection(SECOND) as echo:
            bed.manager.delete(Endpoint(FIRST))
            took = bed.wait(SECOND)
            echo.echo()
            assert {each.address for each in bed.manager.endpoints()} == {SECOND}
            yield took


@situation("id 0 deleted where the initial address has no endpoint, then an endpoint added there, new connections")
def _id_0_and_back(bed: Bed, tries: int) -> Iterator[float | None]:
    for _ in range(tries):
        with bed.connection(SECOND) as echo:
            bed.manager.delete(Endpoint(FIRST))
            bed.wait(SECOND)
            bed.add(FIRST)
            took = bed.wait(FIRST, SECOND)
            echo.echo()
            yield took


@situation("id 0 deleted, IPv6, new connections")
def _id_0_ipv6(bed: Bed, tries: int) -> Iterator[float | None]:
    for _ in range(tries):
        with bed.connection(SECOND6, server=SERVER6) as echo:
            bed.manager.delete(Endpoint(FIRST6))
            took = bed.wait(SECOND6)
            echo.echo()
            yield took


def _register_backup() -> None:
    for title, address, device, other in (("initial", FIRST, "v1", "v2"), ("joined", SECOND, "v2", "v1")):

        def backup(
            bed: Bed, tries: int, address: str = address, device: str = device, other: str = other
        ) -> Iterator[float | None]:
            with bed.connection(FIRST, SECOND) as echo:
                ports = {each.local_port for each in bed.subflows().values()}
                for _ in range(tries):
                    begin = time.monotonic()
                    for flags, wanted in ((SUBFLOW | BACKUP, True), (SUBFLOW, False)):
                        bed.manager.set_flags(bed.endpoint(address), flags)

                        def told(wanted: bool = wanted) -> bool:
                            ours, theirs = bed.subflows()[address].backup, bed.far_addresses()[address].backup
                            return ours == theirs == wanted

                        wait_for(f"backup {wanted} on both sides", told, seconds=PATIENCE, every=0.002)
                        if wanted:
                            took = time.monotonic() - begin
                            assert bed.sends_by(echo, other), f"{device} is backup but carries the data"
                    assert {each.local_port for each in bed.subflows().values()} == ports, "a subflow was cut"
                    yield took

        situation(f"{title} subflow made backup and regular again by set-flags, one connection")(backup)


_register_backup()


def _register_destroy() -> None:
    for title, victim, other in (("initial", FIRST, SECOND), ("joined", SECOND, FIRST)):

        def destroy(bed: Bed, tries: int, victim: str = victim, other: str = other) -> Iterator[float | None]:
            for _ in range(tries):
                with bed.connection(FIRST, SECOND) as echo:
                    bed.sockets.destroy(bed.subflows()[victim])
                    bed.wait(other)
                    begin = time.monotonic()
                    echo.echo()
                    yield time.monotonic() - begin

        def heal(bed: Bed, tries: int, victim: str = victim, other: str = other) -> Iterator[float | None]:
            with bed.connection(FIRST, SECOND) as echo:
                for _ in range(tries):
                    bed.sockets.destroy(bed.subflows()[victim])
                    bed.wait(other)
                    echo.echo()
                    bed.delete(victim)
                    bed.add(victim)
                    yield bed.wait(FIRST, SECOND)
                    echo.echo()

        situation(f"{title} subflow destroyed (SOCK_DESTROY) beside a live one, new connections")(destroy)
        situation(f"{title} subflow destroyed, its endpoint deleted and added, one connection")(heal)


_register_destroy()


@situation("initial endpoint deleted and added, 30 s of echoes after that, one connection")
def _afterwards(bed: Bed, tries: int) -> Iterator[float | None]:
    with bed.connection(FIRST, SECOND) as echo:
        for _ in range(min(tries, 1)):
            took = _away_and_back(bed, echo, FIRST, SECOND, same_id=False)
            end = time.monotonic() + 30
            while time.monotonic() < end:
                echo.echo()
                time.sleep(0.2)
            bed.wait(FIRST, SECOND)
            yield took


def attempt(name: str, tries: int) -> Result:
    """Try a situation; after a try that failed the rest is done in a new bed, up to three times."""
    result = Result(name)
    before = _log()
    for _ in range(3):
        left = tries - result.tries
        if left <= 0:
            break
        bed = Bed()
        try:
            for took in SITUATIONS[name](bed, left):
                result.tries += 1
                result.worked += 1
                if took is not None:
                    result.seconds.append(took)
            break
        except (AssertionError, OSError, StopIteration, KeyError) as error:
            result.tries += 1
            result.troubles.append(f"try {result.tries}: {type(error).__name__}: {error}"[:600])
        except Exception as error:  # what the kernel refused
            result.tries += 1
            result.troubles.append(f"try {result.tries}: {error}"[:600])
        finally:
            bed.close()
    after = _log()
    result.complaints = [line for line in after[len(before) :] if COMPLAINT.search(line)]
    return result


def _log() -> list[str]:
    return subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout.splitlines()


def main() -> None:
    """Try all, or those whose names contain one of the words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("words", nargs="*")
    asked = parser.parse_args()
    print(json.dumps({"kernel": os.uname().release, "build": Path("/proc/sys/kernel/version").read_text().strip()}))
    for name in SITUATIONS:
        if not asked.words or any(word in name for word in asked.words):
            print(attempt(name, asked.tries).line(), flush=True)


if __name__ == "__main__":
    main()
