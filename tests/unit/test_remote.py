# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls to the running service: a reply, none, an error, a timeout, and no bus at all."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from pathlib import Path

import pytest

from nm_mptcp.dbus.connection import BusError
from nm_mptcp.service import remote

from .private_bus import private_bus

needs_bus = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the bus of these tests lets only root own names"),
    pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="dbus-daemon is not installed"),
]


class TestOnARealBus:
    pytestmark = needs_bus

    def test_a_string_and_its_absence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with private_bus() as bus:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.environment["DBUS_SYSTEM_BUS_ADDRESS"])
            assert remote.read("Status") is None
            assert not remote.order("Sync")
            with bus.service("answers"):
                assert remote.read("Sync") == ""
                assert remote.order("Sync")

    def test_an_error_and_silence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with private_bus() as bus:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.environment["DBUS_SYSTEM_BUS_ADDRESS"])
            with bus.service("refuses"), pytest.raises(BusError, match=r"table full"):
                remote.read("Status")
            monkeypatch.setattr(remote, "_TIMEOUT", 0.2)
            with bus.service("hangs"), pytest.raises(BusError, match=r"Status: no answer from org\.nm_mptcp1"):
                remote.read("Status")

    def test_one_who_may_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with private_bus('<policy user="root"><allow own="*"/></policy>') as bus, bus.service("answers"):
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.environment["DBUS_SYSTEM_BUS_ADDRESS"])
            with pytest.raises(BusError) as refused:
                remote.read("Status")
            assert refused.value.by_policy


@pytest.mark.parametrize("address", ["unix:path=/nonexistent/bus", "unix:path=/a;unix:path=/b"])
def test_no_bus(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    assert remote.status() is None
    assert not remote.order("Sync")
    with pytest.raises(BusError) as absent:
        remote.read("Status")
    assert absent.value.name == BusError.NO_SERVER


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
def test_a_malformed_reply_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
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
            with pytest.raises(BusError, match="system bus"):
                remote.read("Status")
        finally:
            thread.join(5)


def test_an_errors_text_is_printable_and_short() -> None:
    error = BusError("a.b\x1b", "\x1b[2Jgone\n" + "x" * 100_000)
    for words in (str(error), error.name, error.text):
        assert words.isprintable()
        assert len(words) <= 300


def test_a_bus_that_hangs_is_named_after_a_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "bus"
    monkeypatch.setattr(remote, "CONNECT_TIMEOUT", 0.05)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={place}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        with pytest.raises(BusError, match="the system bus does not answer"):
            remote.read("Status")
