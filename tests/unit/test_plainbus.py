# SPDX-License-Identifier: GPL-2.0-or-later
"""The small client of the system bus: an answer, none, an error, silence, and no bus at all."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from pathlib import Path

import pytest

from nm_mptcp import plainbus
from nm_mptcp.plainbus import PlainBusError, Question, ask

from .private_bus import private_bus

needs_bus = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the bus of these tests lets only root own names"),
    pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="dbus-daemon is not installed"),
]
BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
OURS = ("org.nm_mptcp1", "/org/nm_mptcp1", "org.nm_mptcp1")


class TestOnARealBus:
    pytestmark = needs_bus

    def test_a_string_and_its_absence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with private_bus() as bus:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.environment["DBUS_SYSTEM_BUS_ADDRESS"])
            identity = ask(*BUS, "GetId", timeout=5)
            assert identity is not None
            assert len(identity) == 32
            assert ask(*OURS, "Status", timeout=5) is None
            with bus.service("answers"):
                assert ask(*OURS, "Sync", timeout=5) == ""

    def test_an_error_and_silence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with private_bus() as bus:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.environment["DBUS_SYSTEM_BUS_ADDRESS"])
            with bus.service("refuses"), pytest.raises(PlainBusError, match=r"Status of org\.nm_mptcp1: table full"):
                ask(*OURS, "Status", timeout=5)
            with bus.service("hangs"), pytest.raises(PlainBusError, match="no answer"):
                ask(*OURS, "Status", timeout=0.2)

    def test_one_who_may_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with private_bus('<policy user="root"><allow own="*"/></policy>') as bus, bus.service("answers"):
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.environment["DBUS_SYSTEM_BUS_ADDRESS"])
            with pytest.raises(PlainBusError):
                ask(*OURS, "Status", timeout=5)


@pytest.mark.parametrize(
    "address", ["unix:path=/nonexistent/bus", "tcp:host=localhost,port=1", "unix:path=/a;unix:path=/b", "x"]
)
def test_no_bus(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    assert ask(*OURS, "Status", timeout=5) is None
    assert not Question(*OURS, "Status", timeout=5).bus


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"REJECTED EXTERNAL\r\n",
        b"OK 0123\r\n",
        b"OK 0123\r\n" + b"\0" * 64,
        b"OK 0123\r\n" + b"l\x02\x01\x01\xff\xff\xff\xff\x01\0\0\0\xff\xff\xff\xff",
        b"OK 0123\r\n" + b"l\x02\x01\x01\0\0\0\0\x01\0\0\0\x08\0\0\0\x05\x01z\0\xff\xff\xff\xff",
    ],
)
def test_what_makes_no_sense_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    place = tmp_path / "bus"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(4096)
                client.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={place}")
        try:
            with pytest.raises(PlainBusError, match=r"Status of org\.nm_mptcp1"):
                ask(*OURS, "Status", timeout=2)
        finally:
            thread.join(5)


def test_a_question_is_all_said_before_the_bus_says_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "bus"
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={place}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        question = Question(*OURS, "Status", timeout=5)
        client, _ = listener.accept()
        with client:
            said = client.recv(65536)
    assert said.startswith(b"\0AUTH EXTERNAL ")
    assert said.index(b"\r\nBEGIN\r\n") < said.index(b"Hello") < said.index(b"Status")
    with pytest.raises(PlainBusError, match=r"Status of org\.nm_mptcp1: the bus closed the connection"):
        question.answer()
    assert question.bus


def test_an_errors_words_are_harmless_and_not_too_long() -> None:
    error = PlainBusError("\x1b[2Jgone\n" + "x" * 100_000, "a.b\x1b", "\x1b]0;title\x07")
    for words in (str(error), error.name, error.text):
        assert words.isprintable()
        assert len(words) <= 300


def test_a_bus_that_is_stuck_is_named_and_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "bus"
    monkeypatch.setattr(plainbus, "TO_BE_LET_IN", 0.05)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={place}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        with pytest.raises(PlainBusError, match="the system bus does not answer"):
            ask(*OURS, "Status", timeout=60)
