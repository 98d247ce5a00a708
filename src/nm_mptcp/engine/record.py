# SPDX-License-Identifier: GPL-2.0-or-later
"""The record under /run/nm-mptcp: what is ours, what to put back, since when each path is as it is.

It is written before the endpoint it speaks of, so that whatever kills us, the next one knows what is ours. /run is
emptied at boot, as the kernel's endpoints, routes and rules are.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path as File
from typing import Any

from ..config.settings import Mode
from ..log import logger
from ..model.flags import EndpointFlag
from ..model.state import (
    Desired,
    Endpoint,
    Family,
    Kernel,
    Limits,
    LinkdownSetting,
    Marks,
    Numbering,
    Ours,
    OwnEndpoint,
    Owner,
    Path,
    Written,
    marks_of,
)
from ..text import printable
from ..values import field, frozen, replace

#: Where the record is, unless the environment says otherwise (tests; it names a directory).
DIRECTORY = File(os.environ.get("NM_MPTCP_STATE_DIR") or "/run/nm-mptcp")


#: The last second of which a date can be made (the year 9999).
_END_OF_TIME = 253402300799.0

#: Characters of what is wrong with a record.
_LONGEST = 200


class StateError(Exception):
    """The record cannot be read, written or locked; one line that says which file and why."""


class BusyError(StateError):
    """Another nm-mptcp writes; the line says which process."""


@frozen
class Since:
    """When a path came into the state and reason that it is in; seconds of the wall clock."""

    state: str
    why: str
    time: float


@frozen
class GuardRecord:
    """What full tunnels are, or were the last time, minded, and what that cut; times are seconds of the wall clock."""

    tunnels: Mapping[Family, str] = field(default_factory=dict)
    since: float = 0.0
    until: float | None = None  #: None: it is in force
    cut_subflows: int = 0
    cut_connections: int = 0  #: those that had no other subflow

    def counted(self, subflows: int, connections: int) -> GuardRecord:
        """With what else was cut."""
        return replace(
            self,
            cut_subflows=self.cut_subflows + subflows,
            cut_connections=self.cut_connections + connections,
        )


def guarded(before: GuardRecord | None, tunnels: Mapping[Family, str], now: float) -> GuardRecord | None:
    """The record of the guard, when these tunnels are minded now; one that begins anew counts from 0."""
    if tunnels:
        if before is None or before.until is not None:
            return GuardRecord(tunnels, now)
        return before if before.tunnels == tunnels else replace(before, tunnels=tunnels)
    return before if before is None or before.until is not None else replace(before, until=now)


@frozen
class Contents:
    """All that the record holds."""

    ours: Ours = field(default_factory=Ours)
    since: Mapping[str, Since] = field(default_factory=dict)  #: by ``ADDRESS%IFINDEX``
    endpoints_max: int = 0  #: how many endpoints the kernel takes, asked once per boot; 0: not asked yet
    mode: Mode | None = None  #: what ``nm-mptcp mode`` chose until the next boot; None: as configured
    guard: GuardRecord | None = None  #: None: there was no full tunnel yet


class Record:
    """The record in its directory; ``contents`` is what it holds."""

    def __init__(self, directory: File = DIRECTORY) -> None:
        self.directory = directory
        self.file = directory / "state.json"
        self.contents = Contents()

    def load(self, *, aside: bool = True) -> Contents:
        """Read the record; of one that cannot be used is told, and then no endpoint is known to be ours. (Rules and routes
        are, by the numbers that they carry.)

        Who only looks (``aside`` is false) leaves it where it is; who is to write sets it aside, for whoever wants to see it.
        """
        try:
            text = self._read()
            if text is None:
                self.contents = Contents()
                return self.contents
            self.contents = _decode(json.loads(text.decode("utf-8")))
        # Whatever it is: a service that does not start is worse than a record that is lost.
        except Exception as error:
            then = "'nm-mptcp apply' begins another"
            if aside:
                place = self.file.with_suffix(".broken")
                with contextlib.suppress(OSError):
                    self.file.replace(place)
                then = f"it is set aside as {place.name}"
            # What Python says of a wrong type or a missing name tells a person nothing.
            what = _words(error) if isinstance(error, ValueError | OSError) else "its form is another one"
            logger(__name__).error(
                "%s: not a record of nm-mptcp (%s): endpoints made before count as somebody else's; %s",
                self.file,
                printable(what, _LONGEST),
                then,
            )
            self.contents = Contents()
        return self.contents

    def _read(self) -> bytes | None:
        """What the file holds, None where there is none; never waits for what is no file."""
        try:
            handle = os.open(self.file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ValueError("it is no file")
            return file.read()

    def save(self, contents: Contents) -> None:
        """Write the record in one step, so that a reader or a crash sees the old or the new one; nothing when unchanged."""
        if contents == self.contents and self.file.exists():
            return
        new = self.directory / ".state.new"  # one name is enough for one writer
        try:
            self._directory()
            with contextlib.suppress(FileNotFoundError):
                new.unlink()  # of a writer that was cut off
            with open(new, "x", encoding="utf-8") as text:
                text.write(json.dumps(_encode(contents)))  # not dump(), which is in Python: a lost link waits for it
                os.fchmod(text.fileno(), 0o644)
            new.replace(self.file)
        except OSError as error:
            raise StateError(f"{self.file}: cannot be written: {_words(error)}") from None
        self.contents = contents

    @contextlib.contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        """Be the only writer, waiting at most ``timeout`` seconds for the one that is; raises :class:`StateError`,
        :class:`BusyError` when that one goes on.
        """
        try:
            self._directory()
            handle = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            hint = ": run this as root" if isinstance(error, PermissionError) else ""
            raise StateError(f"{self.directory / 'lock'}: cannot be opened: {_words(error)}{hint}") from None
        try:
            deadline = time.monotonic() + timeout
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise BusyError(
                            f"{self.directory / 'lock'}: another nm-mptcp is at work (process {_holder(handle)})"
                        ) from None
                    time.sleep(0.02)
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(handle)

    def _directory(self) -> None:
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)


def adopted(ours: Ours, kernel: Kernel, marks: Marks) -> Ours:
    """``ours`` where the record was lost while what is marked as ours stands: settings that only we make are ours.

    A record always has the numbers that the marks consist of. An administrator who sets ``ignore_routes_with_linkdown``
    does so for all interfaces, or as the default of each that comes.
    """
    if ours.numberings or not any(map(marks.on_rule, kernel.rules)):
        return ours
    routed = {rule.source for rule in kernel.rules if marks.on_rule(rule)}
    places = {
        (each.family, each.ifindex) for group in kernel.addresses.values() for each in group if each.address in routed
    }
    mine = {place for place in places if kernel.linkdown_ignored.get(place) and place[0] not in kernel.linkdown_default}
    return replace(ours, linkdown=ours.linkdown | mine)


def seen(ours: Ours, endpoints: Iterable[Endpoint]) -> Ours:
    """``ours`` after a look at the kernel: ids and changes of flags confirmed, endpoints that are gone forgotten.

    One that was replaced by somebody else's is kept for this look: that it was replaced is news for policy.
    """
    at = {(endpoint.address, endpoint.port): endpoint for endpoint in endpoints}
    kept = set()
    for own in ours.endpoints:
        endpoint = at.get((own.address, own.port))
        if endpoint is not None:
            was = own.flags if endpoint.flags == own.flags else own.was
            news = own.is_(endpoint) and (own.id, own.was) != (endpoint.id, was)
            kept.add(replace(own, id=endpoint.id, was=was) if news else own)
    return ours if kept == ours.endpoints else replace(ours, endpoints=frozenset(kept))


def decided(ours: Ours, kernel: Kernel, desired: Desired) -> Ours:
    """``ours`` after policy has seen it: its claims, what it took from NetworkManager, and nothing that is past.

    Past is an endpoint that somebody replaced (not one that may only have been edited by hand), one of NetworkManager's that
    stands again or whose address is gone, a linkdown setting whose interface is gone (one that somebody changed since is
    remembered, and left to him), and a limit that is as it was before us. Numbers that count no longer are past once
    nothing carries them.
    """
    standing = {endpoint.place for endpoint in kernel.endpoints if not endpoint.port}
    owned = {(path.address, path.ifindex) for path in desired.paths if path.owner is Owner.NETWORKMANAGER}
    away = {
        endpoint
        for endpoint in ours.taken
        if endpoint.place in owned and endpoint.place not in standing and kernel.has_address_of(endpoint)
    }
    now = desired.marks.now
    result = replace(
        ours,
        endpoints=frozenset(
            own for own in ours.endpoints if any(own.is_(each) or own.is_edited(each) for each in kernel.endpoints)
        ),
        claims=desired.claims,
        taken=desired.taken | away,
        linkdown=frozenset(place for place in ours.linkdown if place[1] in kernel.links),
        numberings=frozenset(
            {now} | {known for known in ours.numberings - {now} if _stands(marks_of(known), kernel, marks_of(now))}
        ),
        limits={name: value for name, value in ours.limits.items() if not _is_back(name, value, kernel.limits)},
    )
    return ours if result == ours else result


def _stands(marks: Marks, kernel: Kernel, now: Marks) -> bool:
    """Whether anything in the kernel carries these numbers, and not those of now as well."""
    return any(marks.on_rule(rule) and not now.on_rule(rule) for rule in kernel.rules) or any(
        marks.on_route(route) and not now.on_route(route) for routes in kernel.routes.values() for route in routes
    )


def _is_back(name: str, value: Written, limits: Limits) -> bool:
    """Whether a limit is where it was before us: there is nothing to put back any more."""
    have = {"subflows": limits.subflows, "add_addr_accepted": limits.add_addr_accepted}
    return value.before == value.written == have[name]


def with_endpoints(ours: Ours, written: Iterable[Endpoint]) -> Ours:
    """``ours`` with endpoints that are about to be added, or to get these flags; what came of it the next look tells."""
    written = tuple(written)
    was = {(own.key, own.id): own.flags for own in ours.endpoints}
    new = {
        OwnEndpoint(e.address, e.ifindex, e.flags, was.get((e.key, e.id), e.flags) if e.id else e.flags, e.id, e.port)
        for e in written
    }
    keys = {endpoint.key for endpoint in written}
    return replace(ours, endpoints=frozenset(own for own in ours.endpoints if own.key not in keys) | new)


def without_endpoints(ours: Ours, refused: Iterable[Endpoint]) -> Ours:
    """``ours`` without endpoints whose adding failed: what stands there, if anything, is somebody else's."""
    keys = {endpoint.key for endpoint in refused}
    kept = frozenset(own for own in ours.endpoints if own.id or own.key not in keys)
    return replace(ours, endpoints=kept)


def with_limits(ours: Ours, before: Limits, written: Limits) -> Ours:
    """``ours`` with the limits that are about to be written, and what they were before the first time."""
    values = {
        "subflows": (before.subflows, written.subflows),
        "add_addr_accepted": (before.add_addr_accepted, written.add_addr_accepted),
    }
    limits = dict(ours.limits)
    for name, (was, becomes) in values.items():
        if was != becomes:
            limits[name] = Written(limits[name].before if name in limits else was, becomes)
    return replace(ours, limits=limits)


def with_linkdown(ours: Ours, settings: Iterable[LinkdownSetting]) -> Ours:
    """``ours`` with settings that are about to be written."""
    linkdown = set(ours.linkdown)
    for setting in settings:
        (linkdown.add if setting.ignored else linkdown.discard)((setting.family, setting.ifindex))
    return replace(ours, linkdown=frozenset(linkdown))


def since(before: Mapping[str, Since], paths: Iterable[Path], now: float) -> dict[str, Since]:
    """Since when each path is in its state for its reason; ``now`` where that has just changed."""
    result = {}
    for path in paths:
        key = f"{path.address}%{path.ifindex}"
        known = before.get(key)
        state, why = path.state.value, path.reason.why.name
        result[key] = known if known and (known.state, known.why) == (state, why) else Since(state, why, now)
    return result


def _encode(contents: Contents) -> dict[str, Any]:
    ours = contents.ours
    return {
        "version": 1,
        "endpoints": [
            [own.address, own.ifindex, int(own.flags), int(own.was), own.id, own.port]
            for own in sorted(ours.endpoints, key=lambda own: own.key)
        ],
        "claims": sorted(ours.claims),
        "taken": [
            [e.address, e.ifindex, int(e.flags)] for e in sorted(ours.taken, key=lambda e: (e.address, e.ifindex))
        ],
        "linkdown": sorted([int(family), ifindex] for family, ifindex in ours.linkdown),
        "limits": {name: [value.before, value.written] for name, value in sorted(ours.limits.items())},
        "numberings": sorted(
            [each.protocol, each.tables.start, each.tables.stop, each.rule_priority] for each in ours.numberings
        ),
        "endpoints_max": contents.endpoints_max,
        "mode": contents.mode and contents.mode.value,
        "guard": _encode_guard(contents.guard),
        "since": {key: [value.state, value.why, value.time] for key, value in sorted(contents.since.items())},
    }


def _encode_guard(guard: GuardRecord | None) -> dict[str, Any] | None:
    if guard is None:
        return None
    return {
        "tunnels": sorted([int(family), name] for family, name in guard.tunnels.items()),
        "since": guard.since,
        "until": guard.until,
        "cut": [guard.cut_subflows, guard.cut_connections],
    }


def _decode_guard(data: Any) -> GuardRecord | None:
    if data is None:
        return None
    subflows, connections = data["cut"]
    tunnels = {Family(family): _text(name) for family, name in data["tunnels"]}
    until = None if data["until"] is None else _time(data["until"])
    return GuardRecord(tunnels, _time(data["since"]), until, _number(subflows), _number(connections))


def _decode(data: Any) -> Contents:
    """What a record holds. Raises anything at all for what is none."""
    if (version := _number(data["version"])) != 1:
        raise ValueError(f"version {version} of another nm-mptcp")
    ours = Ours(
        frozenset(
            OwnEndpoint(
                _address(address),
                _ifindex(ifindex),
                _flags(flags),
                _flags(was),
                _number(id_, 255),
                *(_number(each, 0xFFFF) for each in port),
            )
            for address, ifindex, flags, was, id_, *port in data["endpoints"]
        ),
        frozenset(_text(claim) for claim in data["claims"]),
        {
            _text(name): Written(_number(before, 0xFFFFFFFF), _number(written, 0xFFFFFFFF))
            for name, (before, written) in data["limits"].items()
        },
        frozenset(Endpoint(_address(a), _ifindex(ifindex), _flags(flags)) for a, ifindex, flags in data["taken"]),
        frozenset((Family(_number(family)), _ifindex(ifindex)) for family, ifindex in data["linkdown"]),
        frozenset(_numbering(*each) for each in data.get("numberings", ())),
    )
    began = {
        _text(key): Since(_text(state), _text(why), _time(time)) for key, (state, why, time) in data["since"].items()
    }
    mode = data.get("mode")
    return Contents(
        ours,
        began,
        _number(data["endpoints_max"], 255),
        None if mode is None else Mode(mode),
        _decode_guard(data.get("guard")),
    )


def _number(value: object, most: int = 2**63 - 1, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{value!r} is no number from {least} to {most}")
    return value


def _time(value: object) -> float:
    """Seconds of the wall clock, of which a date can be made."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _END_OF_TIME:
        raise ValueError(f"{value!r} is no time")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _address(value: object) -> str:
    """An address as the kernel's are written here."""
    if str(ipaddress.ip_address(_text(value))) != value or "%" in value:
        raise ValueError(f"{value!r} is no address")
    return value


def _ifindex(value: object) -> int:
    return _number(value, 2**31 - 1, 1)


def _flags(value: object) -> EndpointFlag:
    return EndpointFlag(_number(value, 0xFFFFFFFF))


def _numbering(protocol: object, start: object, stop: object, priority: object) -> Numbering:
    tables = range(_number(start, 0xFFFFFFFF, 1), _number(stop, 0xFFFFFFFF, 1))
    return Numbering(_number(protocol, 255, 1), tables, _number(priority, 0xFFFFFFFF))


def _holder(handle: int) -> str:
    words = os.pread(handle, 32, 0).decode("ascii", "replace").split()
    return words[0] if words else "unknown"


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
