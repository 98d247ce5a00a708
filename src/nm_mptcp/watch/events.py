# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: one thing that happened, for a person and as a line of JSON. The names are an interface: they are kept."""

from __future__ import annotations

import datetime
import enum
import errno
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..kernel.path_manager_events import EventName, PathManagerEvent
from ..text import printable, utf8_safe, wrapped


class Name(enum.StrEnum):
    """What can happen, as ``watch --json`` names it."""

    START = "start"  #: the first line: what is there
    MISSED = "missed"  #: the kernel had more to tell than there was room for
    LINK_ADDED = "link-added"
    LINK_REMOVED = "link-removed"
    LINK_LOST = "link-lost"  #: no carrier, or taken down
    LINK_BACK = "link-back"
    ADDRESS_ADDED = "address-added"
    ADDRESS_REMOVED = "address-removed"
    ENDPOINT_IN = "endpoint-in"
    ENDPOINT_OUT = "endpoint-out"
    ENDPOINT_CHANGED = "endpoint-changed"  #: its flags
    PATH = "path"  #: what nm-mptcp decided of an address: state and reason
    CONNECTION_OPENED = "connection-opened"
    CONNECTION_CLOSED = "connection-closed"
    SUBFLOW_UP = "subflow-up"
    SUBFLOW_CLOSED = "subflow-closed"
    MP_PRIO = "mp-prio"  #: a subflow's priority was changed, by us or by the peer
    PEER_ADDRESS_ANNOUNCED = "peer-address-announced"
    PEER_ADDRESS_REMOVED = "peer-address-removed"
    SERVICE_UP = "service-up"
    SERVICE_GONE = "service-gone"
    NETWORKMANAGER_UP = "networkmanager-up"
    NETWORKMANAGER_GONE = "networkmanager-gone"
    RATES = "rates"  #: with ``--rates``: bits per second

    @property
    def label(self) -> str:
        """As a person reads it."""
        return "MP_PRIO" if self is Name.MP_PRIO else self.value.replace("-", " ")

    @property
    def bad(self) -> bool:
        """Whether somebody should look at it."""
        return self in _BAD

    @property
    def good(self) -> bool:
        """Whether it says that something works (again)."""
        return self in _GOOD


_BAD = frozenset(
    (
        Name.MISSED,
        Name.LINK_LOST,
        Name.LINK_REMOVED,
        Name.ENDPOINT_OUT,
        Name.SERVICE_GONE,
        Name.NETWORKMANAGER_GONE,
    )
)
_GOOD = frozenset((Name.LINK_BACK, Name.ENDPOINT_IN, Name.SUBFLOW_UP, Name.SERVICE_UP, Name.NETWORKMANAGER_UP))


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened: its name, when, the words for a person, and the facts for a program."""

    name: Name
    words: str = ""  #: made harmless for a terminal
    facts: Mapping[str, object] = field(default_factory=dict)  #: names as nm-mptcp-json(5) documents them
    time: float = 0.0  #: seconds since the epoch

    def document(self) -> dict[str, object]:
        """The line of JSON: ``time`` (ISO 8601, UTC), ``event``, and the facts."""
        moment = datetime.datetime.fromtimestamp(self.time, datetime.UTC).isoformat(timespec="milliseconds")
        return {"time": moment, "event": self.name.value, **{name: _whole(value) for name, value in self.facts.items()}}

    def lines(self, width: int | None = None, *, zone: datetime.tzinfo | None = None) -> list[str]:
        """The line for a person, more where a terminal is too narrow, in the time of ``zone`` (None: that of this machine)."""
        first = f"{clock(self.time, zone=zone)}  {self.name.label:<17}  "
        return wrapped(self.words, first, " " * len(first), width) or [first.rstrip()]


def clock(time: float, *, zone: datetime.tzinfo | None = None) -> str:
    """The time of day with milliseconds."""
    return datetime.datetime.fromtimestamp(time, zone).strftime("%H:%M:%S.%f")[:-3]


def of_event(event: PathManagerEvent, interface: str, peer: str = "") -> Happening | None:
    """What an event of the path manager means; ``interface`` is where its local address is, ``peer`` the far end of its
    connection, both "" where they are not known.
    """
    name = _NAMES.get(event.name)
    if name is None:
        return None
    facts: dict[str, object] = {"token": event.token}
    if event.name not in (EventName.CLOSED, EventName.REMOVED, EventName.ANNOUNCED):
        facts |= {
            "interface": interface,
            "address": event.local,
            "port": event.local_port,
            "peer": event.remote,
            "peer_port": event.remote_port,
            "endpoint_id": event.local_id,
        }
        words = f"{_place(interface, event.local, event.local_port)} to {socket_name(event.remote, event.remote_port)}"
    else:
        words = f"with {peer}" if peer else f"{event.token:08x}"
    match event.name:
        case EventName.CREATED:
            facts["server_side"] = event.server_side
        case EventName.ANNOUNCED:
            facts |= {"peer": event.remote, "peer_port": event.remote_port, "peer_id": event.remote_id}
            words = f"{event.remote or '?'} ({words})"
        case EventName.REMOVED:
            facts["peer_id"] = event.remote_id
            words = f"the one with id {event.remote_id} ({words})"
        case EventName.SUBFLOW_ESTABLISHED:
            facts["backup"] = event.backup
            words += " (backup, the peer asks)" if event.backup else ""
        case EventName.SUBFLOW_PRIORITY:
            facts |= {"backup": event.backup, "by": "peer"}
            words = f"{'backup' if event.backup else 'carries'}, the peer asks: {words}"
        case EventName.SUBFLOW_CLOSED:
            error = errno.errorcode.get(event.error, str(event.error)) if event.error else None
            facts |= {"error": error, "reset_reason": event.reset_reason}
            words += f": {os.strerror(event.error)}" if event.error else ""
    return Happening(name, words, facts)


_NAMES = {
    EventName.CREATED: Name.CONNECTION_OPENED,
    EventName.CLOSED: Name.CONNECTION_CLOSED,
    EventName.ANNOUNCED: Name.PEER_ADDRESS_ANNOUNCED,
    EventName.REMOVED: Name.PEER_ADDRESS_REMOVED,
    EventName.SUBFLOW_ESTABLISHED: Name.SUBFLOW_UP,
    EventName.SUBFLOW_CLOSED: Name.SUBFLOW_CLOSED,
    EventName.SUBFLOW_PRIORITY: Name.MP_PRIO,
}


def socket_name(address: str | None, port: int) -> str:
    """Address and port as a person writes them: ``192.0.2.1:443``, ``[2001:db8::1]:443``."""
    if not address:
        return "?"
    return f"[{address}]:{port}" if ipaddress.ip_address(address).version == 6 else f"{address}:{port}"


def _place(interface: str, address: str | None, port: int) -> str:
    return f"{printable(interface) + ' ' if interface else ''}{socket_name(address, port)}"


def _whole(value: object) -> object:
    """Texts as Unicode that every reader takes: an interface's name, say, may be any bytes."""
    if isinstance(value, str):
        return utf8_safe(value)
    if isinstance(value, Mapping):
        return {_whole(name): _whole(each) for name, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list | tuple) else value
