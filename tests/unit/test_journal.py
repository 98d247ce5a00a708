# SPDX-License-Identifier: GPL-2.0-or-later
"""The log: entries with fields if the journal reads standard error, else plain lines; printable in both."""

from __future__ import annotations

import array
import logging
import os
import socket
import struct
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from nm_mptcp import cli, journal
from nm_mptcp.journal import LEVELS, Event, JournalHandler, PlainFormatter, log_fields

HOSTILE = "Wi-Fi\x1b[31m\nEVIL=1 \u202eevil\u2066 \x07\x9b" + "\udcff"


def read(datagram: bytes) -> dict[str, str]:
    """The fields of an entry of the native protocol, read as journald reads them."""
    fields: dict[str, str] = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + length], rest[8 + length :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        assert name.decode().replace("_", "A").isalnum()
        assert name.decode().isupper()
        assert name.decode() not in fields
        fields[name.decode()] = value.decode()
        datagram = rest
    return fields


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "socket"))
        made.settimeout(5)
        yield made


@pytest.fixture
def log(listener: socket.socket) -> Iterator[logging.Logger]:
    handler = JournalHandler(listener.getsockname())
    logger = logging.getLogger("nm_mptcp.test")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.removeHandler(handler)
    handler.close()


def test_an_entry_has_message_priority_and_fields(log: logging.Logger, listener: socket.socket) -> None:
    log.info(
        "%s is suspended",
        "10.0.0.1",
        extra=log_fields(
            Event.PATH_SUSPENDED, interface="wlan0", address="10.0.0.1", endpoint_id=3, uuid="u", profile=None
        ),
    )
    found = read(listener.recv(65536))
    assert found["MESSAGE"] == "10.0.0.1 is suspended"
    assert found["PRIORITY"] == "6"
    assert found["SYSLOG_IDENTIFIER"] == "nm-mptcp"
    assert found["MESSAGE_ID"] == Event.PATH_SUSPENDED.value
    assert found["NM_MPTCP_INTERFACE"] == found["NM_DEVICE"] == "wlan0"
    assert found["NM_MPTCP_UUID"] == found["NM_CONNECTION"] == "u"
    assert found["NM_MPTCP_ENDPOINT_ID"] == "3"
    assert "NM_MPTCP_PROFILE" not in found


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, "7"), (logging.INFO, "6"), (logging.WARNING, "4"), (logging.ERROR, "3"), (logging.CRITICAL, "3")],
)
def test_a_level_has_syslogs_priority(log: logging.Logger, listener: socket.socket, level: int, priority: str) -> None:
    log.log(level, "x")
    assert read(listener.recv(65536))["PRIORITY"] == priority


def test_quoted_text_adds_no_field_and_no_line() -> None:
    # Not by a logger: pytest keeps what is logged, and what is no UTF-8 breaks its own channels.
    record = logging.LogRecord("x", logging.WARNING, "file", 1, "%s", (HOSTILE,), None)
    record.__dict__.update(log_fields(Event.PATH_ACTIVE, profile=HOSTILE))
    found = read(journal.entry(record))
    assert "EVIL" not in found
    assert found["MESSAGE"].isprintable()
    assert found["NM_MPTCP_PROFILE"] == HOSTILE.replace("\udcff", "?")


def test_a_traceback_is_in_the_message(log: logging.Logger, listener: socket.socket) -> None:
    try:
        raise ValueError("no good")
    except ValueError:
        log.exception("it failed")
    message = read(listener.recv(65536))["MESSAGE"]
    assert message.startswith("it failed\nTraceback")
    assert message.endswith("ValueError: no good")


def test_an_entry_too_large_for_a_datagram_is_sent_as_a_memfd(log: logging.Logger, listener: socket.socket) -> None:
    big = "\n".join(["y" * 1000] * (20 << 10))
    try:
        raise ValueError(big)
    except ValueError:
        log.exception("x")
    data, ancillary, _, _ = listener.recvmsg(65536, socket.CMSG_SPACE(4))
    assert data == b""
    ((_, _, handles),) = ancillary
    (handle,) = array.array("i", handles)
    with os.fdopen(handle, "rb") as file:
        file.seek(0)
        assert read(file.read())["MESSAGE"].endswith(big)


def test_a_journal_that_is_absent_or_busy_does_not_block(
    log: logging.Logger, listener: socket.socket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5000):
        log.info("%d", number)
    listener.close()
    log.info("nobody hears this")
    (tmp_path / "socket").unlink()
    log.info("nor this")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(str(tmp_path / "socket"))
        log.info("but this")
        assert read(again.recv(65536))["MESSAGE"] == "but this"
    capsys.readouterr()


def test_entries_go_to_the_journal_only_if_it_reads_standard_error(tmp_path: Path, listener: socket.socket) -> None:
    program = f"""
import logging
from nm_mptcp import journal
journal.JournalHandler.__init__.__defaults__ = ({listener.getsockname()!r},)
journal.set_up("info")
logging.getLogger("nm_mptcp").info("hello")
"""
    log = tmp_path / "log"
    for stream, heard in (("{dev}:{ino}", True), ("1:1", False), ("", False), ("x", False)):
        with log.open("wb") as sink:
            found = os.fstat(sink.fileno())
            environment = os.environ | {"JOURNAL_STREAM": stream.format(dev=found.st_dev, ino=found.st_ino)}
            subprocess.run([sys.executable, "-c", program], stderr=sink, env=environment, check=True)
        assert (log.read_text() == "") == heard
        if heard:
            assert read(listener.recv(65536))["MESSAGE"] == "hello"
        else:
            assert "hello" in log.read_text()


def test_a_plain_line_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    record = logging.LogRecord("x", logging.WARNING, "file", 1, "%s", (HOSTILE + "z" * 4096,), None)
    line = PlainFormatter(journal=False).format(record)
    assert line.isprintable()
    assert line.startswith("nm-mptcp: WARNING: Wi-Fi")
    assert len(line) < 2100
    assert PlainFormatter(journal=True).format(record).startswith("<4>Wi-Fi")
    assert not caplog.records


def test_each_event_has_its_own_message_id() -> None:
    assert len({event.value for event in Event}) == len(Event)
    assert all(uuid.UUID(hex=event.value).version == 4 for event in Event)


@pytest.mark.parametrize("level", ["OFF", "ERR", "WARN", "INFO", "DEBUG", "TRACE", "warning", "error", "info", "debug"])
def test_log_level_accepts_networkmanagers_names(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    handlers, before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        assert cli.main(["--log-level", level, "config", "--json"]) == 0
        assert logging.getLogger().level == LEVELS[level.lower()]
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(before)
    capsys.readouterr()
    assert journal.TRACE < logging.DEBUG


def test_quoted_text_is_cut_and_printable_in_fields_and_tracebacks(
    log: logging.Logger, listener: socket.socket
) -> None:
    """A plugin of NetworkManager may report 100 kB, with escape sequences for the terminal on which the log is read."""
    try:
        raise ValueError("\x1b[2J" + "x" * 100_000)
    except ValueError:
        log.exception("a signal", extra=log_fields(Event.PATH_EXCLUDED, reason="y" * 100_000))
    entry = read(listener.recv(1_000_000))
    assert len(entry["NM_MPTCP_REASON"]) <= 8192
    assert max(map(len, entry["MESSAGE"].splitlines())) <= 2000
    assert "\x1b" not in entry["MESSAGE"]
    assert "ValueError: ?[2Jxxx" in entry["MESSAGE"]
