# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: whether a link is silent, by the TCP sockets that use it, and by attempts to reach their peers.

A link is silent if nothing that is sent by it is answered although the peers live. That a peer lives is known when its MPTCP
connection is answered by another link meanwhile, or when it answers a connection attempt by another link. A peer that was
never reached by the link proves nothing by itself: it may be blocked there, so two are needed.

Each packet without an answer may have been lost by chance. So packets are counted: on a link that loses a fifth of the packets
in each direction, as many as :data:`_SUSPECT` are lost in a row once in 500 times, and :data:`_SILENT` once in 200,000.
"""

from __future__ import annotations

import enum
import ipaddress
import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field

from ..kernel.tcp_sockets import Look, SocketKey, TCPSocket
from ..model.state import Place
from ..text import listed

#: Unanswered packets by which silence is suspected, and by which it is certain.
_SUSPECT, _SILENT = 6, 12

#: Attempts that have to be among them: what waits may have waited while nobody looked, and the link may answer by now.
_ASKED = 2

#: Seconds for which peers were asked before silence is certain, for the same reason: answers may be late on a busy machine.
_ASKED_FOR = 0.5

#: Seconds without any answer before silence is certain: a Wi-Fi that roams is silent for up to 0.8 s.
CERTAIN_AFTER = 1.0

#: Seconds without an answer from which a retransmission is a sign, or so many round-trip times if that is longer.
_LATE, _LATE_TRIPS = 0.15, 1.5

#: Packets that count of one socket at most: those in flight together may be lost together.
_MOST = 6

#: The first port that programs get for connections they begin (``ip_local_port_range``). A remote port from here on with a
#: lower local one is that of a client of ours, which cannot be asked, and may have left by itself.
_EPHEMERAL = 32768

#: Peers of other connections that are asked as well.
_OTHERS = 4


class Standing(enum.Enum):
    """What is known about a link."""

    GOOD = enum.auto()  #: it was answered
    UNKNOWN = enum.auto()  #: its peers may be dead, or packets lost by chance
    SUSPECT = enum.auto()  #: probably silent
    SILENT = enum.auto()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the sockets tell about a link."""

    heard: float = math.inf  #: seconds since the last answer by it; infinity: none is known
    waiting: tuple[TCPSocket, ...] = ()  #: sockets that wait for an answer for too long
    elsewhere: Mapping[str, Place] = field(
        default_factory=dict
    )  #: by peer: where its connection was answered meanwhile
    others: tuple[tuple[str, int], ...] = ()  #: further peers on this link, by address and port
    chosen: frozenset[str] = (
        frozenset()
    )  #: the peers that programs talk to by this link on purpose: they bound a socket to it
    #: by socket: the bytes that its peer has acknowledged so far, and the seconds since it was heard
    acked: Mapping[int, tuple[int, float]] = field(default_factory=dict)
    known: Mapping[int, int] = field(default_factory=dict, repr=False)  #: the same bytes of all sockets that there are
    trip: float = 0.0  #: the longest round-trip time of any of its sockets in seconds; 0: none is known

    @property
    def peers(self) -> dict[str, int]:
        """The ports of the peers that do not answer, by address."""
        return {each.remote: each.remote_port for each in self.waiting}

    @property
    def elsewhere_too(self) -> dict[str, int]:
        """Those of :attr:`peers` that may be asked by other links. Another network's host of a private address is not the
        same one.
        """
        return {peer: port for peer, port in self.peers.items() if peer not in self.chosen and not is_private(peer)}

    @property
    def others_elsewhere(self) -> tuple[tuple[str, int], ...]:
        """The same of :attr:`others`."""
        return tuple((peer, port) for peer, port in self.others if peer not in self.chosen and not is_private(peer))

    @property
    def packets(self) -> int:
        """The packets without an answer. Of a socket that waited before the last answer only the last one counts."""
        return sum(
            min(each.unacked + max(each.retransmitted, 1), _MOST) if waited(each) <= self.heard else 1
            for each in self.waiting
        )

    @property
    def quiet(self) -> float:
        """Seconds for which nothing was answered."""
        return min(self.heard, max(map(waited, self.waiting), default=0.0))

    def progress(self, before: Evidence, seconds: float) -> bool:
        """Whether anything that was sent by this link was acknowledged since ``before``, so many seconds ago. That proves both
        directions. A socket that was idle before, or is new, counts if it was heard since.
        """
        return any(
            acked > before.known[cookie] if cookie in before.known else acked > 0 and heard < seconds
            for cookie, (acked, heard) in self.acked.items()
        )

    @property
    def last_heard(self) -> float:
        """Seconds since anybody was heard by it; infinity: not known."""
        return min([self.heard, *(each.heard for each in self.waiting if not each.connecting)])

    def heard_in_vain(self, seconds: float) -> bool:
        """Whether a peer was heard within so many seconds whose socket waits nevertheless: it lives, and what is sent to it
        vanishes.
        """
        return any(each.timeouts and not each.connecting and each.heard < seconds for each in self.waiting)

    @property
    def suspicious(self) -> bool:
        """Whether the peers are to be asked."""
        return bool(self.waiting) and self.heard >= late(self.trip)


@dataclass(frozen=True, slots=True)
class Attempts:
    """The results of connection attempts to the peers of a link."""

    unanswered: int = 0  #: by this link
    seconds: float = 0.0  #: since the first of them
    answered: bool = False  #: one was answered by this link
    elsewhere: Mapping[str, Place] = field(default_factory=dict)  #: the peers that answered by another link


def late(trip: float) -> float:
    """Seconds after which an answer is late on a link with this round-trip time."""
    return max(_LATE, _LATE_TRIPS * trip)


def unheard(each: TCPSocket) -> float:
    """Seconds for which a socket that waits was told nothing by its peer. A single packet is sent again after the shortest
    timeout; whatever came since then acknowledges it not. Unless it was new it was the peer's own repetition, which gets no
    acknowledgement either: what is sent vanishes alone.
    """
    return each.told if each.unacked == 1 and not each.sacked else each.heard


def waited(each: TCPSocket) -> float:
    """Seconds for which a socket has waited for an answer."""
    return each.waited if each.connecting or each.timeouts else min(unheard(each), each.waited)


def is_waiting(each: TCPSocket, resent: Set[SocketKey] = frozenset()) -> bool:
    """Whether a socket that this machine opened had to send again, and got no answer since. ``resent`` are sockets that were
    seen to: a tail loss probe, which comes before the first timeout, does not count as a retransmission in ``tcp_info``.
    """
    if not each.unacked or not (each.retransmitted or each.key in resent) or _is_of_a_client(each):
        return False
    # After a timeout nothing new was acknowledged, even if the peer is heard: what is sent may vanish alone.
    return each.connecting or bool(each.timeouts) or unheard(each) >= late(each.rtt)


def is_clear(place: Place, found: Mapping[Place, Evidence], *, complete: bool) -> bool:
    """Whether a link need not be examined, by what the sockets tell that sent again of late, or only some of those."""
    evidence = found.get(place, Evidence())
    return evidence.heard < late(evidence.trip) or (complete and not evidence.waiting)


def _is_of_a_client(each: TCPSocket) -> bool:
    return each.remote_port >= _EPHEMERAL > each.local_port


def is_private(address: str) -> bool:
    """Whether an address belongs to whichever private network one is in, so that by another link it is another host."""
    value = ipaddress.ip_address(address)
    return value.is_link_local or any(value in network for network in _PRIVATE if network.version == value.version)


#: RFC 1918, RFC 6598 (carriers' NAT) and RFC 4193.
_PRIVATE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)


def weigh(
    look: Look,
    place_of: Mapping[str, Place],
    is_near: Callable[[str], bool],
    resent: Set[SocketKey] = frozenset(),
    inside: Set[str] = frozenset(),
) -> dict[Place, Evidence]:
    """The evidence about each link and family. ``place_of`` has the local addresses; ``is_near`` tells whether an address is
    in a network of this machine's own, which says nothing about the way beyond the gateway; ``resent`` as for
    :func:`is_waiting`. ``inside`` are the local addresses of tunnels: the joins beside one of a connection that began there
    are dropped on purpose, and its peer must not be asked.
    """
    tunnelled = {each.token for each in look.sockets if each.token and each.local in inside}
    groups: dict[Place, list[TCPSocket]] = {}
    siblings: dict[int, list[tuple[Place, TCPSocket]]] = {}
    for each in look.sockets:
        place = place_of.get(each.local)
        elsewhere = place is None or each.ifindex not in (0, place.ifindex) or is_near(each.remote)
        if place is None or elsewhere or (each.token in tunnelled and each.local not in inside):
            continue
        groups.setdefault(place, []).append(each)
        if each.token and not each.connecting:
            siblings.setdefault(each.token, []).append((place, each))
    return {place: _evidence(place, group, siblings, resent, look.acked) for place, group in groups.items()}


def _evidence(
    place: Place,
    group: list[TCPSocket],
    siblings: Mapping[int, list[tuple[Place, TCPSocket]]],
    resent: Set[SocketKey],
    known: Mapping[int, int],
) -> Evidence:
    waiting = [each for each in group if is_waiting(each, resent)]
    answered = [each for each in group if not each.connecting and not is_waiting(each, resent)]
    answered.sort(key=lambda each: each.heard)
    elsewhere: dict[str, Place] = {}
    others: dict[str, int] = {}
    for each in waiting:
        for where, sibling in siblings.get(each.token, ()) if each.token else ():
            if where != place and sibling.heard < waited(each):
                elsewhere[each.remote] = where
            if where.family is place.family:
                others.setdefault(sibling.remote, sibling.remote_port)
    for each in answered:
        if not _is_of_a_client(each):
            others.setdefault(each.remote, each.remote_port)
    unanswered = {each.remote for each in waiting}
    return Evidence(
        answered[0].heard if answered else math.inf,
        tuple(waiting),
        elsewhere,
        tuple((peer, port) for peer, port in others.items() if peer not in unanswered)[:_OTHERS],
        frozenset(each.remote for each in group if each.ifindex and not each.token),
        {each.cookie: (each.acked, each.heard) for each in group if not each.connecting},
        known,
        max((each.rtt for each in group), default=0.0),
    )


def judge(evidence: Evidence, attempts: Attempts, quiet: float) -> Standing:
    """What is known about a link by which nothing was answered for ``quiet`` seconds."""
    standing = judge_if_alive(evidence, attempts, quiet)
    alive = evidence.elsewhere.keys() | attempts.elsewhere.keys()
    return standing if alive or standing is Standing.GOOD else Standing.UNKNOWN


def judge_if_alive(evidence: Evidence, attempts: Attempts, quiet: float) -> Standing:
    """The same if its peers live. Of those in a full tunnel that is not known, since nobody may ask them beside it: there this
    is only a reason to try the tunnel by another link.
    """
    if attempts.answered:
        return Standing.GOOD
    reached_before = any(not each.connecting for each in evidence.waiting)
    if not (reached_before or len(evidence.peers) > 1) or attempts.unanswered < _ASKED:
        return Standing.UNKNOWN
    packets = evidence.packets + attempts.unanswered
    if packets >= _SILENT and quiet >= CERTAIN_AFTER and attempts.seconds >= _ASKED_FOR:
        return Standing.SILENT
    return Standing.SUSPECT if packets >= _SUSPECT else Standing.UNKNOWN


def in_words(evidence: Evidence, attempts: Attempts, quiet: float, names: Mapping[int, str]) -> str:
    """The evidence as a text for people; ``names`` are those of interfaces by index."""
    alive = {**evidence.elsewhere, **attempts.elsewhere}
    links = listed(sorted({names.get(place.ifindex, f"interface {place.ifindex}") for place in alive.values()}))
    which = "it answers" if len(evidence.peers) == 1 else f"{len(alive)} of them answer{'s' if len(alive) == 1 else ''}"
    return f"{_unanswered(evidence, quiet)}, {which} by {links}"


def tunnel_in_words(evidence: Evidence, quiet: float, tunnel: str) -> str:
    """The same of a full tunnel, before it is known by which link it is answered."""
    return f"{_unanswered(evidence, quiet)} in {tunnel}"


def _unanswered(evidence: Evidence, quiet: float) -> str:
    count = len(evidence.peers)
    return f"{'a peer' if count == 1 else f'{count} peers'} unanswered for {quiet:.1f} s"
