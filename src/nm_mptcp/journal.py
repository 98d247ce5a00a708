# SPDX-License-Identifier: GPL-2.0-or-later
"""The log: entries with fields if standard error is connected to the journal, else plain lines on standard error.

Sources: systemd's ``JOURNAL_NATIVE_PROTOCOL`` and ``sd-daemon(3)``; ``NM_DEVICE`` and ``NM_CONNECTION`` are the fields that
NetworkManager itself uses (``nm-logging.c``), so ``journalctl NM_DEVICE=wlan0`` shows the messages of both on a device.
"""

from __future__ import annotations

import array
import enum
import errno
import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any

from .text import printable, utf8_safe

#: ``--log-level``: NetworkManager's and Python's names, as levels of ``logging``; ``off`` is above all of them.
LEVELS = {
    "off": 60,
    "err": 40,
    "error": 40,
    "warn": 30,
    "warning": 30,
    "info": 20,
    "debug": 10,
    "trace": 5,
}

#: The socket of the journal's native protocol.
SOCKET = "/run/systemd/journal/socket"

#: Below DEBUG, as NetworkManager has it.
TRACE = LEVELS["trace"]

#: Characters of a message, and of each line of a traceback: they quote other programs.
_LONGEST = 2000

#: Characters of a field. ``journalctl`` matches whole values, and a profile's name may be long.
_LONGEST_FIELD = 8192


class Event(enum.Enum):
    """The MESSAGE_ID of a log message, by which it is found whatever its text: ``journalctl MESSAGE_ID=...``."""

    PATH_ACTIVE = "e4ecf167e8174ad096399978d6a0a3a7"
    PATH_WAITING = "c6b23f9e23884c2cbd10c3f734d5b00f"
    PATH_SUSPENDED = "3d174ee8be5748f894adf24041f4a8ff"
    PATH_EXCLUDED = "6b8034be1e8749c78070e79e00b54577"
    PATH_GONE = "7f36f6cdc7674344882f339e4c9d76da"
    PATH_RENEWED = "2008b8992a6c499e96615647d516b56c"
    VPN_GUARD = "f442aa57ec84418a9a66ba17788874b6"
    LINK_SILENT = "5b0c1f6e2a7d4f0b9a3e8c6d1f2b7a94"
    LINK_ANSWERS = "c27f4a8de91b4d3f8a5e06b3d9c1e7f2"
    MODE = "298df9fc3bc847df9e024af93b01b357"
    CONFIGURATION_READ = "cdee74b482bc46a391ea627a724f56d0"
    CONFIGURATION_REFUSED = "88cafe6d6e0b4372b7c8ef85d44ed8ea"
    REFUSED_BY_KERNEL = "03dfae9cdd224127a0bc712fd10e8c35"


def log_fields(event: Event, **fields: object) -> dict[str, Any]:
    """A log call's ``extra``: its event and fields. Names become ``NM_MPTCP_...``; a field that is None is left out."""
    return {"event": event, "fields": {name: value for name, value in fields.items() if value is not None}}


def set_up(level: str) -> None:
    """Log messages of ``level`` (a key of :data:`LEVELS`) and above: to the journal if it reads standard error, else there.

    Raises :class:`KeyError` for another level.
    """
    handler: logging.Handler | None = None
    if _is_the_journal(sys.stderr, os.environ.get("JOURNAL_STREAM", "")):
        try:
            handler = JournalHandler()
        except OSError:
            handler = None
    if handler is None:
        handler = logging.StreamHandler()
        handler.setFormatter(PlainFormatter(journal=bool(os.environ.get("JOURNAL_STREAM"))))
    logging.addLevelName(TRACE, "TRACE")
    logging.basicConfig(level=LEVELS[level.lower()], handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(max(logging.WARNING, LEVELS[level.lower()]))


def _is_the_journal(stream: Any, journal_stream: str) -> bool:
    """Whether a stream is the one that systemd connected to the journal (``JOURNAL_STREAM=DEVICE:INODE``)."""
    try:
        device, _, inode = journal_stream.partition(":")
        found = os.fstat(stream.fileno())
        return (found.st_dev, found.st_ino) == (int(device), int(inode))
    except (AttributeError, OSError, ValueError):
        return False


_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


def _priority(level: int) -> int:
    """The syslog priority of a level."""
    return next(priority for least, priority in _PRIORITIES if level >= least)


class PlainFormatter(logging.Formatter):
    """One printable line for each message, and one for each line of a traceback; ``journal``: after its priority, ``<N>``."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__("%(message)s" if journal else "nm-mptcp: %(levelname)s: %(message)s")
        self._journal = journal

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message without its traceback."""
        return printable(super().formatMessage(record), _LONGEST)

    def formatException(self, exc_info: Any) -> str:
        """The traceback, each line made printable."""
        return "\n".join(printable(line, _LONGEST) for line in super().formatException(exc_info).splitlines())

    def format(self, record: logging.LogRecord) -> str:
        """The message, and the traceback if there is one."""
        line = super().format(record)
        if not self._journal:
            return line
        return "\n".join(f"<{_priority(record.levelno)}>{part}" for part in line.splitlines() or [""])


class JournalHandler(logging.Handler):
    """Entries with fields, by the journal's native protocol. The constructor raises :class:`OSError` if it cannot connect."""

    def __init__(self, path: str = SOCKET) -> None:
        super().__init__()
        self._path = path
        # Never block: a journal that hangs must not delay the reaction to a lost link.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024 * 1024)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        """Send an entry; reconnect after a restart of the journal. While it is absent or busy, the entry is lost."""
        try:
            datagram = entry(record)
            try:
                self._send(datagram)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTCONN):
                    raise
                self._socket.connect(self._path)
                self._send(datagram)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

    def _send(self, datagram: bytes) -> None:
        try:
            self._socket.send(datagram)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_large(datagram)

    def _send_large(self, datagram: bytes) -> None:
        """Send an entry that is too large for a datagram as a sealed memfd (``JOURNAL_NATIVE_PROTOCOL``)."""
        import fcntl

        handle = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(handle, datagram)
            # F_ADD_SEALS with F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE: the journal accepts no other.
            fcntl.fcntl(handle, 1033, 0x1 | 0x2 | 0x4 | 0x8)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [handle]))
            self._socket.sendmsg([b""], [rights])
        finally:
            os.close(handle)


def entry(record: logging.LogRecord) -> bytes:
    """A log record as a datagram of the journal's native protocol."""
    message = printable(record.getMessage(), _LONGEST)
    if record.exc_info:
        message += "\n" + PlainFormatter(journal=True).formatException(record.exc_info)
    fields: dict[str, object] = {
        "MESSAGE": message,
        "PRIORITY": _priority(record.levelno),
        "SYSLOG_IDENTIFIER": "nm-mptcp",
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": record.lineno,
        "CODE_FUNC": record.funcName,
    }
    event = getattr(record, "event", None)
    if isinstance(event, Event):
        fields["MESSAGE_ID"] = event.value
    known: Mapping[str, object] = getattr(record, "fields", {})
    fields.update((f"NM_MPTCP_{name.upper()}", str(value)[:_LONGEST_FIELD]) for name, value in known.items())
    if known.get("interface"):
        fields["NM_DEVICE"] = known["interface"]
    if known.get("uuid"):
        fields["NM_CONNECTION"] = known["uuid"]
    return b"".join(_field(name, utf8_safe(str(value))) for name, value in fields.items())


def _field(name: str, value: str) -> bytes:
    """``NAME=VALUE``; for a value of several lines the name, its length in bytes (64 bits, little-endian) and the value."""
    data = value.encode()
    if "\n" not in value:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
