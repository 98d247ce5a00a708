# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to the links, and what is measured of it. Each runs on a machine of its own; figures are milliseconds.

A figure that is None did not come to pass within the time that the scenario waits.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..networkmanager.kernel_view import PathManager
from ..support.waits import wait_for
from .calls import Calls
from .links import AWAY, DOWNLOAD, ECHO, NEAR, NO_JOIN, NO_SUBFLOWS, ONCE, PLAIN, SPEED, World
from .streams import Attempt, Download, DownloadServer, Echo, EchoServer, Stream
from .watch import Closings, EndpointWatch, Events, Subflows, until

#: Seconds of quiet traffic before something happens, and that a stream has to flow again for it to count as recovered.
_BEFORE, _STEADY = 0.4, 0.3

#: What part of the time is the kernel's alone.
DELETE_ALONE = "for comparison: the kernel's own time for one delete, before the loss"

#: The server that takes additional subflows.
ORDINARY = "an ordinary server"

#: How long a carrier is away where it comes back (s).
FLAP = 2.0

#: How long one waits for NetworkManager to give a link up (s); it takes some six.
_LONG = 8.0

#: Bytes of the request that deletes an endpoint by its id: two headers, and the id in the address.
_DELETE = 16 + 4 + 4 + 8


@dataclass
class Outcome:
    """What one run found: figures (ms, or None for never within the wait), connections lost, and a timeline to draw."""

    figures: dict[str, float | None] = field(default_factory=dict)
    lost: dict[str, bool] = field(default_factory=dict)
    timeline: list[tuple[float, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Scenario:
    """``elsewhere``: whether it says anything about the other tools."""

    name: str
    title: str
    run: Callable[[World], Outcome]
    elsewhere: bool = True


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _quiet(*streams: Stream) -> None:
    """Let the streams flow for a moment."""
    begin = time.monotonic()
    wait_for("the streams flow", lambda: all(each.arrivals.since(begin + _BEFORE) for each in streams), every=0.01)


def _recovered(streams: list[Stream], *, after: float, seconds: float) -> None:
    """Wait until each stream has flowed for a while after ``after``, or the time is over."""

    def flows(stream: Stream) -> bool:
        times = stream.arrivals.times
        recent = [when for when in times[-200:] if when > after]
        if not recent or time.monotonic() - after < 2 * _STEADY:
            return False
        return (
            time.monotonic() - recent[-1] < 0.1
            and stream.arrivals.gap(time.monotonic() - _STEADY, time.monotonic()) < 0.15
        )

    until(lambda: all(flows(stream) for stream in streams), seconds=seconds)


def _gap(stream: Stream, begin: float) -> float | None:
    """The longest silence since ``begin``; None when it never ended."""
    now = time.monotonic()
    if not stream.arrivals.since(now - 0.5):
        return None
    return stream.arrivals.gap(begin, now) * 1000


@dataclass
class _Moving:
    """A connection to the near server and one to the server far away, on both links."""

    near: Echo
    away: Echo
    subflows: Subflows
    trip: float = 0.0  #: the round-trip to the server far away before anything happened (ms)

    @property
    def both(self) -> list[Stream]:
        return [self.near, self.away]

    def gaps(self, begin: float) -> dict[str, float | None]:
        """The longest silences, by the server's distance."""
        return {
            "longest gap": _gap(self.near, begin),
            "longest gap, 40 to 60 ms round-trip": _gap(self.away, begin),
            "round-trip": self.trip,
        }


def _moving(world: World, *, backup: bool = False) -> _Moving:
    world.connect(backup=backup)
    EchoServer(world.bed.far, ECHO)
    EchoServer(world.away(), ECHO)
    if backup and world.tool.name == "mptcpd":
        assert world.lte
        endpoint = world.bed.wait_endpoint(world.lte.address)
        world.bed.sh(f"ip mptcp endpoint change id {endpoint.id} backup")
    world.settle()
    subflows = Subflows(world.bed.machine)
    near = Echo(world.bed.machine, NEAR, ECHO)
    away = Echo(world.bed.machine, AWAY, ECHO)
    for server in (NEAR, AWAY):
        world.wait_subflows(subflows, server, ECHO)
    moving = _Moving(near, away, subflows)
    _quiet(near, away)
    moving.trip = statistics.median(away.trips[-20:]) * 1000
    return moving


def _loss(world: World, moving: _Moving, act: Callable[[], object], *, word: str | None, watch: bool = True) -> Outcome:
    """Do it, and follow the streams until they flow again."""
    events = world.events(world.wifi)
    watched = EndpointWatch(world.bed.machine, [world.wifi.address]) if watch else None
    begin = time.monotonic()
    act()
    when = events.wait(word, after=begin) if word else begin
    _recovered(moving.both, after=when, seconds=10)
    outcome = Outcome(moving.gaps(begin))
    outcome.lost = {"near": not moving.near.alive, "away": not moving.away.alive}
    if watched and watched.gone:
        outcome.figures["endpoint gone"] = _ms(watched.gone[world.wifi.address] - when)
    if watched:
        watched.close()
    return outcome


# --- losses


def carrier(world: World) -> Outcome:
    """The cable of the first link is pulled; new connections are tried; the cable comes back."""
    moving = _moving(world)
    events = world.events(world.wifi)
    before = moving.subflows.to(NEAR, ECHO)
    begin = time.monotonic()
    world.wifi.carrier(False)
    lost = events.wait("lost", after=begin)
    at_once = Attempt(world.bed.machine, NEAR, ECHO)
    until(lambda: time.monotonic() > lost + 0.025, seconds=1)
    shortly = Attempt(world.bed.machine, NEAR, ECHO)
    _recovered(moving.both, after=lost, seconds=6)
    outcome = Outcome(moving.gaps(begin))
    for name, attempt in (("new connection at the loss", at_once), ("new connection 25 ms later", shortly)):
        outcome.figures[name] = _ms(attempt.wait().took)
    outcome.figures |= _back(world, moving.subflows, events, before)
    outcome.lost = {"near": not moving.near.alive, "away": not moving.away.alive}
    return outcome


def _back(world: World, subflows: Subflows, events: Events, before: set[tuple[str, int]]) -> dict[str, float | None]:
    """The cable comes back: how long from carrier, address and route until there is a subflow by it again."""
    name = "subflow back"
    address = world.wifi.address
    if {each for each in before if each[0] == address} & subflows.to(NEAR, ECHO):
        return {}  # it never went away: there is nothing to come back
    begin = time.monotonic()
    world.wifi.carrier(True)
    carrier = events.wait("back", after=begin)
    came = until(lambda: any(local == address for local, _ in subflows.to(NEAR, ECHO)), seconds=5)
    if came is None:
        return {name: None}
    ready = [carrier, *(when for when, word in events.seen if word in ("address", "route") and begin < when < came)]
    return {name: (came - max(ready)) * 1000}


def down(world: World) -> Outcome:
    """``ip link set down`` on the first link."""
    moving = _moving(world)
    return _loss(world, moving, lambda: world.bed.machine.run("ip", "link", "set", "wlan0", "down"), word="lost")


def removed(world: World) -> Outcome:
    """The first link's address is taken away."""
    moving = _moving(world)
    return _loss(
        world,
        moving,
        lambda: world.bed.machine.run("ip", "address", "del", f"{world.wifi.address}/24", "dev", "wlan0"),
        word=None,
    )


def backup(world: World) -> Outcome:
    """The cable of the first link is pulled; the other path is backup and carried nothing."""
    moving = _moving(world, backup=True)
    return _loss(world, moving, lambda: world.wifi.carrier(False), word="lost")


def dependents(world: World) -> Outcome:
    """The cable is pulled while another connection has its only subflow on that link."""
    refusing = world.server(NO_JOIN)
    refusing.sysctl(**{"net.mptcp.allow_join_initial_addr_port": "0"})
    EchoServer(refusing, ECHO)
    moving = _moving(world)
    lonely = Echo(world.bed.machine, NO_JOIN, ECHO)
    _quiet(lonely)
    outcome = _loss(world, moving, lambda: world.wifi.carrier(False), word="lost", watch=False)
    world.wifi.carrier(True)
    _recovered([lonely], after=time.monotonic(), seconds=6)
    outcome.lost["the dependent one"] = _gap(lonely, 0) is None
    return outcome


def planned(world: World) -> Outcome:
    """``nmcli connection down`` of the first link's profile."""
    moving = _moving(world)
    return _loss(world, moving, lambda: world.bed.down("Wi-Fi"), word=None, watch=False)


def bulk(world: World) -> Outcome:
    """A download by both links from far away; the cable of the first is pulled."""
    world.connect()
    world.shape()
    DownloadServer(world.away(), DOWNLOAD)
    world.settle()
    subflows = Subflows(world.bed.machine)
    download = Download(world.bed.machine, AWAY, DOWNLOAD)
    world.wait_subflows(subflows, AWAY, DOWNLOAD)
    begin = time.monotonic()
    wait_for("the download has filled both links", lambda: time.monotonic() > begin + 1.5, every=0.05)
    events = world.events(world.wifi)
    before = time.monotonic()
    world.wifi.carrier(False)
    lost = events.wait("lost", after=before)
    until(lambda: time.monotonic() > lost + 2.5, seconds=4)
    outcome = Outcome({"longest gap, 40 to 60 ms round-trip": _gap(download, lost)})
    outcome.lost = {"download": not download.alive}
    outcome.timeline = [
        (when - lost, size) for when, size in zip(download.arrivals.times, download.arrivals.sizes, strict=False)
    ]
    outcome.figures["at the other link's full speed again"] = _ms(full_speed(outcome.timeline))
    return outcome


def full_speed(timeline: Sequence[tuple[float, int]]) -> float | None:
    """When, after the longest gap since the loss (at 0), a quarter of a second began that carried nearly what one link
    can; None for never.
    """
    window = 0.25
    enough = 0.8 * SPEED * window
    after = [(when, size) for when, size in timeline if when > 0]
    if len(after) < 2:
        return None
    begins = [0.0, *(when for when, _ in after)]
    longest = max(range(len(after)), key=lambda place: begins[place + 1] - begins[place])
    for place in range(longest, len(after)):
        begin = after[place][0]
        if begin + window > after[-1][0]:
            return None
        if sum(size for when, size in after[place:] if when < begin + window) >= enough:
            return begin
    return None


def deletes(world: World) -> Outcome:
    """The cable is pulled on a machine with IPv4 and IPv6: when the first delete is at work, and when all have gone."""
    world.connect(ipv6=True)
    return _deletes(world)


def tables(world: World) -> Outcome:
    """The same among 10,000 routes and 500 addresses."""
    world.connect(ipv6=True)
    world.burden()
    return _deletes(world)


def _deletes(world: World) -> Outcome:
    world.settle()
    events = world.events(world.wifi)
    EchoServer(world.bed.far, ECHO)
    echo = Echo(world.bed.machine, NEAR, ECHO)
    world.wait_subflows(Subflows(world.bed.machine), NEAR, ECHO)
    _quiet(echo)
    alone = _delete_alone(world)
    closings = Closings(world.bed.machine)
    service = world.bed.service
    calls = Calls(service.pid) if service else None
    begin = time.monotonic()
    addresses = [world.wifi.address, world.wifi.address6()]
    watched = EndpointWatch(world.bed.machine, addresses, idle=lambda: not closings.first(after=begin))
    world.wifi.carrier(False)
    lost = events.wait("lost", after=begin)
    watched.wait(_LONG)
    gone = watched.gone
    closed = closings.first(after=begin)
    watched.close()
    traced = calls.end() if calls else []
    if calls:
        lost = min([lost, *(when for when in calls.woken if when > begin)])
    first = next((call for call in traced if call.begin > lost and call.size == _DELETE), None)
    figures = {}
    if first:
        figures = {
            "first delete sent": _ms(first.begin - lost),
            "first delete acknowledged": _ms(first.end - lost),
        }
    return Outcome(
        figures
        | {
            "first subflow closed": _ms(closed - lost) if closed else None,
            "first endpoint gone": _ms(min(gone.values()) - lost) if gone else None,
            "all endpoints of the link gone, IPv4 and IPv6": _ms(max(gone.values()) - lost) if len(gone) == 2 else None,
            DELETE_ALONE: _ms(alone),
        }
    )


def _delete_alone(world: World) -> float:
    """How long the kernel takes to acknowledge the delete of an endpoint that nobody uses (s): its RCU grace period."""
    world.bed.machine.run("ip", "mptcp", "endpoint", "add", "198.18.0.77", "id", "250")
    path_manager = PathManager(world.bed.machine.pid)
    try:
        begin = time.monotonic()
        path_manager.delete(250)
        return time.monotonic() - begin
    finally:
        path_manager.close()


# --- flaps


def flap_two(world: World) -> Outcome:
    """Two links; the first is away for two seconds. Servers of every kind: nobody may be left behind."""
    world.connect()
    return _flap(world)


def flap_lone(world: World) -> Outcome:
    """A lone link is away for two seconds."""
    world.connect(both=False)
    return _flap(world)


def _flap(world: World) -> Outcome:
    machine, far = world.bed.machine, world.bed.far
    world.servers()
    EchoServer(far, ONCE, once=True)
    world.settle()
    streams = {
        ORDINARY: Echo(machine, NEAR, ECHO),
        "a server without joins to its address": Echo(machine, NO_JOIN, ECHO),
        "a server that takes no subflows": Echo(machine, NO_SUBFLOWS, ECHO),
        "a server that stopped listening": Echo(machine, NEAR, ONCE),
        "a plain TCP server": Echo(machine, NEAR, PLAIN),
    }
    world.wait_subflows(Subflows(machine), NEAR, ECHO)
    _quiet(*streams.values())
    events = world.events(world.wifi)
    begin = time.monotonic()
    world.wifi.carrier(False)
    lost = events.wait("lost", after=begin)
    until(lambda: time.monotonic() > lost + 0.5, seconds=2)
    attempt = Attempt(machine, NEAR, PLAIN, protocol=socket.IPPROTO_TCP, limit=8)
    until(lambda: time.monotonic() > lost + FLAP, seconds=4)
    world.wifi.carrier(True)
    back = events.wait("back", after=lost)
    _recovered(list(streams.values()), after=back, seconds=6)
    outcome = Outcome()
    for name, stream in streams.items():
        gap = _gap(stream, begin)
        outcome.lost[name] = gap is None or not stream.alive
        if gap is not None and world.lte and name == ORDINARY:
            outcome.figures[f"longest gap with {name}"] = gap
        else:
            # The link was away for a little more than two seconds, each time a little different.
            outcome.figures[f"longest gap with {name}, beyond the flap"] = (
                None if gap is None else max(0.0, gap - (back - lost) * 1000)
            )
    took = attempt.wait().took
    ready = None if took is None else max(0.0, attempt.begin + took - back)
    outcome.figures["plain TCP connect begun in the flap, done after the link's return by"] = _ms(ready)
    return outcome


SCENARIOS = (
    Scenario("deletes", "Carrier loss, IPv4 and IPv6", deletes),
    Scenario("tables", "The same among 10,000 routes and 500 addresses", tables, elsewhere=False),
    Scenario("carrier", "Carrier loss", carrier),
    Scenario("down", "`ip link set down`", down),
    Scenario("removed", "Address removed", removed),
    Scenario("backup", "Carrier loss, the other path is backup", backup),
    Scenario("dependents", "Carrier loss, another connection depends on the link", dependents),
    Scenario("planned", "`nmcli connection down`", planned),
    Scenario("bulk", "Carrier loss during a download", bulk),
    Scenario("flap-two", "Flap of 2 s, two links", flap_two),
    Scenario("flap-lone", "Flap of 2 s, a lone link", flap_lone),
)
