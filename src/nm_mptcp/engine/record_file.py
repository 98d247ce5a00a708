# SPDX-License-Identifier: GPL-2.0-or-later
"""The record under /run/nm-mptcp: what is ours in the kernel, what to restore, since when each path has its state.

It is written before the endpoint that it names is added, so that the next process knows what is ours however this one ends.
/run is emptied at boot, as the kernel's endpoints, routes and rules are.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

from ..model.flags import EndpointFlag
from ..model.record import Contents, GuardRecord, Since
from ..model.state import Endpoint, Family, Mode, Numbering, Ours, OwnEndpoint, SavedSetting
from ..text import printable

#: The directory of the record; tests set another one.
DIRECTORY = File(os.environ.get("NM_MPTCP_STATE_DIR") or "/run/nm-mptcp")


#: The last second of the year 9999, the maximum of ``datetime``.
_END_OF_TIME = 253402300799.0

#: Characters of an error message about a malformed record.
_LONGEST = 200


class StateError(Exception):
    """The record cannot be read, written or locked; the text is one line that names the file and the reason."""


class BusyError(StateError):
    """Another nm-mptcp has the lock; the text names its process."""


class Record:
    """The record in its directory; ``contents`` is what was read or written last."""

    def __init__(self, directory: File = DIRECTORY) -> None:
        self.directory = directory
        self.file = directory / "state.json"
        self.contents = Contents()

    def load(self, *, aside: bool = True) -> Contents:
        """Read the record. A malformed one is logged and counts as empty: then endpoints made before are not known to be ours
        (rules and routes are, by their numbers). With ``aside``, for a writer, it is renamed, so that it can be examined.
        """
        try:
            text = self._read()
            if text is None:
                self.contents = Contents()
                return self.contents
            self.contents = _decode(json.loads(text.decode("utf-8")))
        # Any error: a service that does not start is worse than a lost record.
        except Exception as error:
            then = "'nm-mptcp apply' writes a new one"
            if aside:
                place = self.file.with_suffix(".broken")
                with contextlib.suppress(OSError):
                    self.file.replace(place)
                then = f"renamed to {place.name}"
            # Python's texts for a wrong type or a missing key do not help a reader of the log.
            what = _words(error) if isinstance(error, ValueError | OSError) else "unexpected contents"
            logging.getLogger(__name__).error(
                "%s: not a record of nm-mptcp (%s): endpoints made before count as another program's; %s",
                self.file,
                printable(what, _LONGEST),
                then,
            )
            self.contents = Contents()
        return self.contents

    def _read(self) -> bytes | None:
        """The contents of the file, None if there is none. Raises :class:`ValueError` for another kind of file, unread."""
        try:
            handle = os.open(self.file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ValueError("not a regular file")
            return file.read()

    def save(self, contents: Contents) -> None:
        """Write the record atomically, unless it is unchanged. Raises :class:`StateError`."""
        if contents == self.contents and self.file.exists():
            return
        new = self.directory / ".state.new"  # one name is enough for one writer
        try:
            self._directory()
            with contextlib.suppress(FileNotFoundError):
                new.unlink()  # left by a writer that was killed
            with open(new, "x", encoding="utf-8") as text:
                text.write(json.dumps(_encode(contents)))  # not dump(), which is slower: a lost link waits for it
                os.fchmod(text.fileno(), 0o644)
            new.replace(self.file)
        except OSError as error:
            raise StateError(f"{self.file}: cannot be written: {_words(error)}") from None
        self.contents = contents

    @contextlib.contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        """Hold the writer's lock, waiting for it at most ``timeout`` seconds.

        Raises :class:`BusyError` if another process keeps it, :class:`StateError` if it cannot be opened.
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
                            f"{self.directory / 'lock'}: another nm-mptcp is running (process {_holder(handle)})"
                        ) from None
                    time.sleep(0.02)
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(handle)

    def _directory(self) -> None:
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)


def _encode(contents: Contents) -> dict[str, Any]:
    ours = contents.ours
    return {
        "version": 1,
        "endpoints": [
            [own.address, own.ifindex, int(own.flags), int(own.previous_flags), own.id, own.port]
            for own in sorted(ours.endpoints, key=lambda own: own.key)
        ],
        "claims": sorted(ours.claims),
        "taken": [
            [e.address, e.ifindex, int(e.flags)] for e in sorted(ours.withdrawn, key=lambda e: (e.address, e.ifindex))
        ],
        "linkdown": sorted([int(family), ifindex] for family, ifindex in ours.linkdown),
        "loosened": sorted(ours.loosened),
        "limits": {name: [value.original, value.applied] for name, value in sorted(ours.limits.items())},
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
    """The contents of a record. May raise any exception for malformed data."""
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
            _text(name): SavedSetting(_number(before, 0xFFFFFFFF), _number(written, 0xFFFFFFFF))
            for name, (before, written) in data["limits"].items()
        },
        frozenset(Endpoint(_address(a), _ifindex(ifindex), _flags(flags)) for a, ifindex, flags in data["taken"]),
        frozenset((Family(_number(family)), _ifindex(ifindex)) for family, ifindex in data["linkdown"]),
        frozenset(_numbering(*each) for each in data.get("numberings", ())),
        frozenset(map(_ifindex, data.get("loosened", ()))),
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
        raise ValueError(f"{value!r} is not a number from {least} to {most}")
    return value


def _time(value: object) -> float:
    """Seconds of the wall clock, within the range of ``datetime``."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _END_OF_TIME:
        raise ValueError(f"{value!r} is not a time")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    return value


def _address(value: object) -> str:
    """An address in the form of ``inet_ntop(3)``, without a zone."""
    if str(ipaddress.ip_address(_text(value))) != value or "%" in value:
        raise ValueError(f"{value!r} is not an address")
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
