# SPDX-License-Identifier: GPL-2.0-or-later
"""What connections have to live through: a link that flaps, a portal that comes and goes, a profile taken down, sleep."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..networkmanager.connectivity import CHECKING, CheckServer, wait_connectivity
from ..networkmanager.logind import Logind
from ..networkmanager.uplinks import Uplink
from ..support.waits import wait_for
from .crowd import PLAIN_TCP, Crowd
from .links import World

#: How often a link flaps, and the shortest and longest that it is away (s).
FLAPS, _SHORTEST, _LONGEST = 20, 0.1, 3.0

#: Seconds from a link's carrier to the moment at which what it is plugged into forwards: no switch or access point takes none.
_FORWARDS = 0.05

#: Seconds that the check's answers are wrong, that the profile is down, that the machine sleeps.
PORTAL, DOWN, SLEEP = 6.0, 75.0, 20.0

#: Seconds of silence after which nothing is under way: acknowledgements wait 0.2 s at the most (kernel: TCP_DELACK_MAX).
_ACKNOWLEDGED = 0.5

#: Seconds before the link's return at which programs that were silent speak again: within, not all they may say is unanswered.
_SPEAKS_AGAIN = 1.0


@dataclass
class Stage:
    """Where it happens; ``marks`` are the moments (monotonic clock) at which something began."""

    world: World
    crowd: Crowd
    chance: random.Random
    logind: Logind | None = None
    check: CheckServer | None = None
    marks: list[float] = field(default_factory=list)

    def mark(self) -> None:
        """Something begins now."""
        self.marks.append(time.monotonic())


@dataclass(frozen=True)
class Hardship:
    """``times``: how often it is lived through, with other chances."""

    name: str
    title: str
    run: Callable[[Stage], None]
    times: int = 1
    configuration: str = ""  #: NetworkManager's
    sleeps: bool = False  #: whether there has to be a logind

    @property
    def checks(self) -> bool:
        """Whether NetworkManager checks connectivity."""
        return bool(self.configuration)


def _until(moment: float) -> None:
    """Let it be that late: the event is that nothing else happens until then."""
    while (left := moment - time.monotonic()) > 0:
        time.sleep(min(left, 1.0))


@contextlib.contextmanager
def _slow_port(link: Uplink) -> Iterator[None]:
    """The link gets its carrier within; what it is plugged into forwards only a moment later."""
    far = link.bed.far
    far.run("ip", "link", "set", link.far_name, "nomaster")
    # Else the machine behind answers by it for all its addresses, and what then comes in is answered by the bridge: lost.
    far.run("sysctl", "-qw", f"net/ipv4/conf/{link.far_name}/arp_ignore=8")
    yield
    wait_for("the link has carrier", lambda: _has_carrier(link), every=0.005)
    _until(time.monotonic() + _FORWARDS)
    far.run("ip", "link", "set", link.far_name, "master", link.network.interface)


def _has_carrier(link: Uplink) -> bool:
    return "LOWER_UP" in link.bed.far.ip("link", "show", "dev", link.far_name)[0]["flags"]


def flap_times(chance: random.Random) -> list[tuple[float, float]]:
    """How long the link is away each time and how long there after it (s): short ones as likely as long ones."""
    ratio = math.log(_LONGEST / _SHORTEST)
    away = [_SHORTEST * math.exp(ratio * (number + chance.random()) / FLAPS) for number in range(FLAPS)]
    chance.shuffle(away)
    # Mostly long enough for a connection to flow again, so that each flap has waits of its own.
    return [(each, chance.uniform(0.8, 2.2) + each / 2) for each in away]


def flaps(stage: Stage) -> None:
    """The first link's cable is pulled and put back, again and again."""
    due = time.monotonic()
    for away, there in flap_times(stage.chance):
        stage.mark()
        stage.world.wifi.carrier(False)
        _until(due := due + away)
        with _slow_port(stage.world.wifi):
            stage.world.wifi.carrier(True)
        _until(due := due + there)


def silences(stage: Stage) -> None:
    """Packets vanish beyond the first link's gateway, again and again, while its carrier stays."""
    due = time.monotonic()
    for away, there in flap_times(stage.chance):
        stage.mark()
        stage.world.wifi.network.silence()
        _until(due := due + away)
        stage.world.wifi.network.speak()
        _until(due := due + there)


def portal(stage: Stage) -> None:
    """NetworkManager's check by the first link is answered by a portal for some seconds."""
    bed, wifi = stage.world.bed, stage.world.wifi
    assert stage.check
    wait_connectivity(bed, wifi.name, "full")
    stage.mark()
    begin = time.monotonic()
    stage.check.portals = {wifi.address.rpartition(".")[0] + "."}
    wait_connectivity(bed, wifi.name, "portal")
    _until(begin + PORTAL)
    stage.mark()
    stage.check.portals = set()
    wait_connectivity(bed, wifi.name, "full")
    _until(begin + 2 * PORTAL)


def down(stage: Stage) -> None:
    """``nmcli connection down`` of the first link's profile, and later up again."""
    stage.mark()
    stage.crowd.pause(True, PLAIN_TCP)
    _until(time.monotonic() + _ACKNOWLEDGED)
    begin = time.monotonic()
    stage.world.bed.down("Wi-Fi")
    _until(begin + DOWN - _SPEAKS_AGAIN)
    stage.crowd.pause(False)
    _until(begin + DOWN)
    stage.world.bed.up("Wi-Fi")


def sleep(stage: Stage) -> None:
    """The machine is suspended and resumed."""
    assert stage.logind
    bed = stage.world.bed
    stage.mark()
    stage.crowd.pause(True, PLAIN_TCP)
    _until(time.monotonic() + _ACKNOWLEDGED)
    begin = time.monotonic()
    stage.logind.sleep(bed)
    stage.crowd.pause(True)
    _until(begin + SLEEP)
    # No slow ports: whether a link's first question for a lease is lost to them is chance, and costs two seconds.
    stage.logind.wake(bed)
    stage.crowd.pause(False)
    wanted = {f"{link.name}:connected" for link in stage.world.links}
    wait_for(
        "NetworkManager is connected again",
        lambda: wanted <= set(bed.nmcli("-t", "-f", "DEVICE,STATE", "device").split()),
        seconds=20,
    )


HARDSHIPS = (
    Hardship("flaps", f"{FLAPS} flaps of {_SHORTEST:g} to {_LONGEST:g} s", flaps, times=2),
    Hardship("silences", f"{FLAPS} silences of {_SHORTEST:g} to {_LONGEST:g} s", silences, times=2),
    Hardship("portal", f"connectivity flap of {PORTAL:g} s", portal, configuration=CHECKING),
    Hardship("down", f"`connection down` for {DOWN:g} s", down),
    Hardship("sleep", f"sleep of {SLEEP:g} s", sleep, times=2, sleeps=True),
)
