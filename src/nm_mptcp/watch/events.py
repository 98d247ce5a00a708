# SPDX-License-Identifier: GPL-2.0-or-later
"""One event, as a line for a person and as a line of JSON, whose names are an interface (nm-mptcp-json(5))."""

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


class EventType(enum.StrEnum):
    """The names of events in ``watch --json``."""

    START = "start"  #: the first line: the present state
    MISSED = "missed"  #: the kernel dropped messages (ENOBUFS)
    LINK_ADDED = "link-added"
    LINK_REMOVED = "link-removed"
    LINK_LOST = "link-lost"  #: no carrier, or taken down
    LINK_BACK = "link-back"
    LINK_SILENT = "link-silent"  #: up, and what is sent by it is not answered
    LINK_ANSWERS = "link-answers"
    ADDRESS_ADDED = "address-added"
    ADDRESS_REMOVED = "address-removed"
    ENDPOINT_IN = "endpoint-in"
    ENDPOINT_OUT = "endpoint-out"
    ENDPOINT_CHANGED = "endpoint-changed"  #: its flags
    PATH = "path"  #: the service's decision on an address: state and reason
    CONNECTION_OPENED = "connection-opened"
    CONNECTION_CLOSED = "connection-closed"
    SUBFLOW_UP = "subflow-up"
    SUBFLOW_CLOSED = "subflow-closed"
    MP_PRIO = "mp-prio"  #: a subflow's priority was changed, by us or by the peer (RFC 8684, section 3.3.8)
    PEER_ADDRESS_ANNOUNCED = "peer-address-announced"
    PEER_ADDRESS_REMOVED = "peer-address-removed"
    SERVICE_UP = "service-up"
    SERVICE_GONE = "service-gone"
    NETWORKMANAGER_UP = "networkmanager-up"
    NETWORKMANAGER_GONE = "networkmanager-gone"
    RATES = "rates"  #: with ``--rates``: bits per second

    @property
    def label(self) -> str:
        """As in lines for a person."""
        return "MP_PRIO" if self is EventType.MP_PRIO else self.value.replace("-", " ")

    @property
    def bad(self) -> bool:
        """Whether it says that something stopped working."""
        return self in _BAD

    @property
    def good(self) -> bool:
        """Whether it says that something works, or works again."""
        return self in _GOOD


_BAD = frozenset(
    (
        EventType.MISSED,
        EventType.LINK_LOST,
        EventType.LINK_REMOVED,
        EventType.LINK_SILENT,
        EventType.ENDPOINT_OUT,
        EventType.SERVICE_GONE,
        EventType.NETWORKMANAGER_GONE,
    )
)
_GOOD = frozenset(
    (
        EventType.LINK_BACK,
        EventType.LINK_ANSWERS,
        EventType.ENDPOINT_IN,
        EventType.SUBFLOW_UP,
        EventType.SERVICE_UP,
        EventType.NETWORKMANAGER_UP,
    )
)


@dataclass(frozen=True, slots=True)
class Event:
    """An event: its text for a person, and its fields for a program."""

    type: EventType
    text: str = ""  #: safe for a terminal
    fields: Mapping[str, object] = field(default_factory=dict)  #: by their names in nm-mptcp-json(5)
    time: float = 0.0  #: seconds since the epoch

    def document(self) -> dict[str, object]:
        """The line of JSON: ``time`` (ISO 8601, UTC), ``event``, and the fields."""
        moment = datetime.datetime.fromtimestamp(self.time, datetime.UTC).isoformat(timespec="milliseconds")
        return {"time": moment, "event": self.type.value, **{name: _utf8(value) for name, value in self.fields.items()}}

    def lines(self, width: int | None = None, *, zone: datetime.tzinfo | None = None) -> list[str]:
        """The line for a person, or several of at most ``width`` cells, in the time of ``zone`` (None: this machine's)."""
        first = f"{clock(self.time, zone=zone)}  {self.type.label:<17}  "
        return wrapped(self.text, first, " " * len(first), width) or [first.rstrip()]


def clock(time: float, *, zone: datetime.tzinfo | None = None) -> str:
    """The time of day with milliseconds; ``time`` in seconds since the epoch."""
    return datetime.datetime.fromtimestamp(time, zone).strftime("%H:%M:%S.%f")[:-3]


def from_path_manager(event: PathManagerEvent, interface: str, peer: str = "") -> Event | None:
    """The event that the kernel's path manager reports, None for one that says nothing about paths.

    ``interface`` is that of its local address, ``peer`` the remote address and port of its connection, "" where unknown.
    """
    kind = _TYPES.get(event.name)
    if kind is None:
        return None
    fields: dict[str, object] = {"token": event.token}
    if event.name not in (EventName.CLOSED, EventName.REMOVED, EventName.ANNOUNCED):
        fields |= {
            "interface": interface,
            "address": event.local,
            "port": event.local_port,
            "peer": event.remote,
            "peer_port": event.remote_port,
            "endpoint_id": event.local_id,
        }
        text = f"{_place(interface, event.local, event.local_port)} to {socket_name(event.remote, event.remote_port)}"
    else:
        text = f"with {peer}" if peer else f"{event.token:08x}"
    match event.name:
        case EventName.CREATED:
            fields["server_side"] = event.server_side
        case EventName.ANNOUNCED:
            fields |= {"peer": event.remote, "peer_port": event.remote_port, "peer_id": event.remote_id}
            text = f"{event.remote or '?'} ({text})"
        case EventName.REMOVED:
            fields["peer_id"] = event.remote_id
            text = f"id {event.remote_id} ({text})"
        case EventName.SUBFLOW_ESTABLISHED:
            fields["backup"] = event.backup
            text += " (backup, requested by the peer)" if event.backup else ""
        case EventName.SUBFLOW_PRIORITY:
            fields |= {"backup": event.backup, "by": "peer"}
            text = f"{'backup' if event.backup else 'active'}, requested by the peer: {text}"
        case EventName.SUBFLOW_CLOSED:
            error = errno.errorcode.get(event.error, str(event.error)) if event.error else None
            fields |= {"error": error, "reset_reason": event.reset_reason}
            text += f": {os.strerror(event.error)}" if event.error else ""
    return Event(kind, text, fields)


_TYPES = {
    EventName.CREATED: EventType.CONNECTION_OPENED,
    EventName.CLOSED: EventType.CONNECTION_CLOSED,
    EventName.ANNOUNCED: EventType.PEER_ADDRESS_ANNOUNCED,
    EventName.REMOVED: EventType.PEER_ADDRESS_REMOVED,
    EventName.SUBFLOW_ESTABLISHED: EventType.SUBFLOW_UP,
    EventName.SUBFLOW_CLOSED: EventType.SUBFLOW_CLOSED,
    EventName.SUBFLOW_PRIORITY: EventType.MP_PRIO,
}


def socket_name(address: str | None, port: int) -> str:
    """Address and port: ``192.0.2.1:443``, ``[2001:db8::1]:443``."""
    if not address:
        return "?"
    return f"[{address}]:{port}" if ipaddress.ip_address(address).version == 6 else f"{address}:{port}"


def _place(interface: str, address: str | None, port: int) -> str:
    return f"{printable(interface) + ' ' if interface else ''}{socket_name(address, port)}"


def _utf8(value: object) -> object:
    """With all texts valid Unicode: an interface's name may be any bytes."""
    if isinstance(value, str):
        return utf8_safe(value)
    if isinstance(value, Mapping):
        return {_utf8(name): _utf8(each) for name, each in value.items()}
    return [_utf8(each) for each in value] if isinstance(value, list | tuple) else value
